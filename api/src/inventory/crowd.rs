//! When a crowd is served that shares one answer. The answer costs the same for two as for a hundred; were it asked for
//! whenever the last one has come, a crowd would be served three or four at a time, and the asking would take the processors
//! from those who read requests and write responses. So a turn waits for most of those who were there at the last one, and no
//! longer than [`PATIENCE`]. Whoever is alone does not wait.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// The longest that a turn waits for the others. Tokio's timer counts in milliseconds, so that it may be twice as long.
const PATIENCE: Duration = Duration::from_millis(1);

/// How many wait, and how many are waited for.
#[derive(Default)]
pub(super) struct Crowd {
    waiting: AtomicUsize,
    awaited: AtomicUsize,
    enough: Notify,
}

impl Crowd {
    /// Somebody has been put into the queue.
    pub(super) fn join(&self) {
        let waiting = self.waiting.fetch_add(1, Ordering::AcqRel) + 1;
        if waiting == self.awaited.load(Ordering::Acquire) {
            self.enough.notify_one();
        }
    }

    /// So many have been taken from the queue.
    pub(super) fn leave(&self, taken: usize) {
        self.waiting.fetch_sub(taken, Ordering::AcqRel);
    }

    /// After a turn that served so many: until three quarters wait of those who were served then or waited behind them. The
    /// last quarter is for what happens meanwhile: if all were waited for, nobody would be read or written while they are
    /// served.
    pub(super) async fn gather(&self, served: usize) {
        let awaited = (served + self.waiting.load(Ordering::Acquire)) * 3 / 4;
        self.awaited.store(awaited, Ordering::Release);
        if self.waiting.load(Ordering::Acquire) < awaited {
            // Whether they come or not, the turn begins.
            let _ = tokio::time::timeout(PATIENCE, self.enough.notified()).await;
        }
        self.awaited.store(0, Ordering::Release);
    }
}
