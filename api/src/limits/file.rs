//! The file of the policies: read at start, and again when it has changed.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio_util::sync::CancellationToken;

use super::Limits;
use super::policy::Policies;

/// How often the file is read. Its content is compared, since times of files are too coarse, and a link may lead elsewhere.
const INTERVAL: Duration = Duration::from_secs(1);

/// The most bytes of a file.
const SIZE_MAX: u64 = 256 * 1024;

/// The file's text and its policies.
pub(super) fn read(path: &Path) -> anyhow::Result<(String, Policies)> {
    let text = read_text(path)?;
    let policies = Policies::parse(&text).with_context(|| path.display().to_string())?;
    Ok((text, policies))
}

fn read_text(path: &Path) -> anyhow::Result<String> {
    let name = || format!("{} cannot be read", path.display());
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(SIZE_MAX + 1).read_to_string(&mut text))
        .with_context(name)?;
    ensure!(text.len() as u64 <= SIZE_MAX, "{} has more than {SIZE_MAX} bytes", path.display());
    Ok(text)
}

/// Puts a changed file in force. A broken one is said once, and the last good one stays.
pub(super) async fn watch(limits: Arc<Limits>, path: PathBuf, mut text: String, shutdown: CancellationToken) {
    let mut said: Option<String> = None;
    while shutdown.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
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
