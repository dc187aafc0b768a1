//! The times whose decisions may be gone, told to the load test by a file.
//!
//! A fault that takes data from Redis may take decisions that Kafka had not confirmed. What was refused because of one
//! of them was refused rightly at the time. What was acknowledged in such a time may be gone in `redis` mode, and
//! nothing else: this is the window of docs/OPERATIONS.md, measured at each fault and not assumed.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::schedule::Ack;

/// From Redis' last answer to the client that it was for.
const UNDER_WAY_MS: u64 = 200;

/// A time, in milliseconds since 1970, both ends included.
#[derive(Clone, Copy, Debug, Serialize)]
struct Window {
    from_ms: u64,
    to_ms: u64,
}

/// What the file says.
#[derive(Debug, Serialize)]
struct Content<'a> {
    /// Whether what was acknowledged in a window may be gone.
    acknowledged: bool,
    windows: &'a [Window],
}

/// The windows of a run.
#[derive(Debug)]
pub(crate) struct Windows {
    pub(crate) path: PathBuf,
    ack: Ack,
    windows: Vec<Window>,
}

impl Windows {
    /// None yet.
    pub(crate) fn new(path: PathBuf, ack: Ack) -> Result<Self> {
        let windows = Self { path, ack, windows: Vec::new() };
        windows.write()?;
        Ok(windows)
    }

    /// A loss begins: everything from `from_ms` on may be gone, until [`Windows::close`] says when it was over.
    pub(crate) fn open(&mut self, from_ms: u64) -> Result<()> {
        self.windows.push(Window { from_ms, to_ms: u64::MAX });
        self.write()
    }

    /// The loss is complete at `to_ms`; answers that were under way then may arrive a little later.
    pub(crate) fn close(&mut self, to_ms: u64) -> Result<()> {
        if let Some(last) = self.windows.last_mut() {
            last.to_ms = last.to_ms.min(to_ms + UNDER_WAY_MS);
        }
        self.write()
    }

    /// Whether an acknowledgement received at this time may be gone.
    pub(crate) fn excuse(&self, at_ms: u64) -> bool {
        self.ack == Ack::Redis
            && self.windows.iter().any(|window| (window.from_ms..=window.to_ms).contains(&at_ms))
    }

    /// Whether any fault of this run may have taken data from Redis.
    pub(crate) fn any(&self) -> bool {
        !self.windows.is_empty()
    }

    /// Moved into place, so that nobody reads half of it.
    fn write(&self) -> Result<()> {
        let content = Content { acknowledged: self.ack == Ack::Redis, windows: &self.windows };
        let partial = self.path.with_extension("partial");
        fs::write(&partial, serde_json::to_string(&content)?)
            .and_then(|()| fs::rename(&partial, &self.path))
            .with_context(|| format!("{} cannot be written", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(ack: Ack) -> Windows {
        let path = std::env::temp_dir().join(format!("boxoffice-windows-{}", uuid::Uuid::now_v7()));
        let mut windows = Windows::new(path, ack).unwrap();
        windows.open(100).unwrap();
        windows.close(200).unwrap();
        windows
    }

    #[test]
    fn only_the_window_is_excused() {
        let windows = windows(Ack::Redis);
        assert!([100, 150, 200, 400].into_iter().all(|at| windows.excuse(at)));
        assert!([0, 99, 401].into_iter().all(|at| !windows.excuse(at)));
        fs::remove_file(&windows.path).unwrap();
    }

    #[test]
    fn nothing_acknowledged_is_excused_where_kafka_had_to_confirm_it() {
        let windows = windows(Ack::Kafka);
        assert!(!windows.excuse(150));
        assert!(windows.any());
        fs::remove_file(&windows.path).unwrap();
    }

    #[test]
    fn the_file_says_what_is_excused() {
        let windows = windows(Ack::Redis);
        let text = fs::read_to_string(&windows.path).unwrap();
        assert_eq!(text, r#"{"acknowledged":true,"windows":[{"from_ms":100,"to_ms":400}]}"#);
        fs::remove_file(&windows.path).unwrap();
    }
}
