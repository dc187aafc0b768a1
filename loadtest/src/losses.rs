//! Losses that a fault test allows: times in which Redis lost decisions that Kafka had not confirmed.
//!
//! Whoever makes such a fault writes the file before it, and completes it afterwards. It is read again whenever
//! something is wrong, which is rare: a run without faults never reads it.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::{history::Attempt, judge::Finding, shop::Judged};

/// Milliseconds since 1970, both ends included.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Window {
    from_ms: u64,
    to_ms: u64,
}

/// What the file says.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Windows {
    /// Whether what was acknowledged in a window may be gone. Otherwise only refusals are excused.
    acknowledged: bool,
    windows: Vec<Window>,
}

/// Where the windows are told, if anywhere.
#[derive(Clone, Debug)]
pub(crate) struct Losses {
    file: Option<PathBuf>,
}

impl Losses {
    /// The losses told in `file`; none are allowed without a file.
    pub(crate) fn new(file: Option<PathBuf>) -> Self {
        Self { file }
    }

    /// The windows as they are known now.
    pub(crate) fn read(&self) -> Result<Windows> {
        let Some(file) = &self.file else { return Ok(Windows::default()) };
        let failed = || format!("--loss-windows {} cannot be read", file.display());
        let text = fs::read_to_string(file).with_context(failed)?;
        serde_json::from_str(&text).with_context(failed)
    }

    /// An answer that is wrong only because what the client was told before is lost, and allowed to be, is excused.
    pub(crate) fn excuse(&self, judged: Judged, attempt: &Attempt) -> Judged {
        match judged {
            Some(Err(_)) if self.read().is_ok_and(|windows| windows.cover(attempt)) => {
                Some(Ok(Finding::Excused))
            }
            judged => judged,
        }
    }
}

impl Windows {
    /// Whether what the client was last told about this attempt may be gone.
    pub(crate) fn cover(&self, attempt: &Attempt) -> bool {
        let told = attempt.told_ms;
        let within = |window: &Window| (window.from_ms..=window.to_ms).contains(&told);
        self.acknowledged && self.windows.iter().any(within)
    }

    /// Whether anything may have been lost at all. A refusal may then rest on a decision that was lost before anybody
    /// was told of it.
    pub(crate) fn any(&self) -> bool {
        !self.windows.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::history::{Items, Order};

    fn attempt(told_ms: u64) -> Attempt {
        let order = Order { number: 1, customer: 1, event: 0, items: Items::default(), hold: false };
        Attempt { told_ms, ..Attempt::new(order, Instant::now()) }
    }

    fn losses(content: &str) -> Losses {
        let file = std::env::temp_dir().join(format!("boxoffice-losses-{}", uuid::Uuid::now_v7()));
        fs::write(&file, content).unwrap();
        Losses::new(Some(file))
    }

    fn is_excused(losses: &Losses, told_ms: u64) -> bool {
        let judged = losses.excuse(Some(Err("gone".to_owned())), &attempt(told_ms));
        matches!(judged, Some(Ok(Finding::Excused)))
    }

    #[test]
    fn only_what_was_told_in_a_window_is_excused() {
        let losses = losses(r#"{"acknowledged":true,"windows":[{"from_ms":100,"to_ms":200}]}"#);
        assert!(is_excused(&losses, 100) && is_excused(&losses, 200));
        assert!(!is_excused(&losses, 99) && !is_excused(&losses, 201));
    }

    #[test]
    fn nothing_acknowledged_is_excused_where_the_mode_promises_to_keep_it() {
        let losses = losses(r#"{"acknowledged":false,"windows":[{"from_ms":100,"to_ms":200}]}"#);
        assert!(!is_excused(&losses, 150));
        assert!(losses.read().unwrap().any());
    }

    #[test]
    fn nothing_is_excused_without_a_file_or_with_an_unreadable_one() {
        assert!(!is_excused(&Losses::new(None), 150));
        assert!(!is_excused(&Losses::new(Some("/nonexistent".into())), 150));
        assert!(!is_excused(&losses("no JSON"), 150));
    }
}
