//! The file of the policies: read at start, and again when it has changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use super::Limits;
use super::policy::Policies;
use crate::file;

/// The file's text and its policies.
pub(super) fn read(path: &Path) -> anyhow::Result<(String, Policies)> {
    let name = || path.display().to_string();
    let text = String::from_utf8(file::read(path)?).with_context(name)?;
    let policies = Policies::parse(&text).with_context(name)?;
    Ok((text, policies))
}

/// Puts a changed file in force. A broken one is said once, and the last good one stays.
pub(super) async fn watch(limits: Arc<Limits>, path: PathBuf, mut text: String, shutdown: CancellationToken) {
    let mut said: Option<String> = None;
    while shutdown.run_until_cancelled(tokio::time::sleep(file::INTERVAL)).await.is_some() {
        let asked = path.clone();
        let read = tokio::task::spawn_blocking(move || read(&asked)).await;
        let read = read.unwrap_or_else(|panic| Err(anyhow::anyhow!("reading it failed: {panic}")));
        metrics::gauge!("boxoffice_rate_limits_file_valid").set(if read.is_ok() { 1.0 } else { 0.0 });
        match read {
            Ok((now, _)) if now == text => said = None,
            Ok((now, policies)) => {
                tracing::info!(policies = policies.len(), "the rate limits have changed");
                limits.replace(policies);
                (text, said) = (now, None);
            }
            Err(error) => {
                let error = format!("{error:#}");
                if said.as_ref() != Some(&error) {
                    tracing::error!(
                        error,
                        "BOXOFFICE_RATE_LIMITS is broken; the last good policies stay in force: mend the file"
                    );
                    said = Some(error);
                }
            }
        }
    }
}
