//! Waiting between attempts: longer each time, up to a bound.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// The next delay of a series of attempts that failed.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// For servers that may be back any moment.
    pub(crate) fn of_a_server() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(3))
    }

    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }

    pub(crate) fn next_delay(&mut self) -> Duration {
        let delay = self.next;
        self.next = (self.next * 2).min(self.longest);
        delay
    }

    /// Waits; `false` where the shutdown came first.
    pub(crate) async fn wait(&mut self, shutdown: &CancellationToken) -> bool {
        let delay = self.next_delay();
        shutdown.run_until_cancelled(tokio::time::sleep(delay)).await.is_some()
    }
}
