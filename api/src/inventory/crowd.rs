//! When a crowd is served that shares one answer. The answer costs the same for two as for a hundred; were it asked for
//! whenever the last one has come, a crowd would be served three or four at a time, and the asking would take the processors
//! from those who read requests and write responses. So a turn waits for most of those who were there at the last one, and no
//! longer than [`PATIENCE`]. Whoever comes long after a turn does not wait.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// The longest that a turn waits for the others. Tokio's timer counts in milliseconds, so that it may be twice as long.
const PATIENCE: Duration = Duration::from_millis(1);

/// How many wait, and how many are waited for.
pub(super) struct Crowd {
    turn_max: usize,
    waiting: AtomicUsize,
    /// 0 while nobody is waited for.
    awaited: AtomicUsize,
    enough: Notify,
}

impl Crowd {
    /// A turn serves at most so many.
    pub(super) fn new(turn_max: usize) -> Self {
        Self { turn_max, waiting: AtomicUsize::new(0), awaited: AtomicUsize::new(0), enough: Notify::new() }
    }

    /// Somebody is about to be put into the queue.
    pub(super) fn join(&self) {
        // Either this sees that they are waited for, or `gather` sees them: both orders are one order.
        let waiting = self.waiting.fetch_add(1, Ordering::SeqCst) + 1;
        let awaited = self.awaited.load(Ordering::SeqCst);
        // One of those who are enough says so.
        if (1..=waiting).contains(&awaited) && self.awaited.swap(0, Ordering::SeqCst) != 0 {
            self.enough.notify_one();
        }
    }

    /// So many have been taken from the queue, or were not put there.
    pub(super) fn leave(&self, count: usize) {
        self.waiting.fetch_sub(count, Ordering::SeqCst);
    }

    /// After a turn that served so many: until three quarters wait of those who were served then or waited behind them. The
    /// last quarter is for what happens meanwhile: if all were waited for, nobody would be read or written while they are
    /// served.
    pub(super) async fn gather(&self, served: usize) {
        let awaited = (served + self.waiting.load(Ordering::SeqCst)) * 3 / 4;
        let awaited = awaited.min(self.turn_max);
        let come = async {
            loop {
                self.awaited.store(awaited, Ordering::SeqCst);
                if self.waiting.load(Ordering::SeqCst) >= awaited {
                    return;
                }
                // A word may be left over from the last turn: whether they are there is looked at again.
                self.enough.notified().await;
            }
        };
        // Whether they come or not, the turn begins.
        let _ = tokio::time::timeout(PATIENCE, come).await;
        self.awaited.store(0, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn crowd_of(waiting: usize) -> Crowd {
        let crowd = Crowd::new(100);
        (0..waiting).for_each(|_| crowd.join());
        crowd
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_alone_is_not_waited_for() {
        let started = Instant::now();
        crowd_of(0).gather(1).await;
        assert_eq!(started.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_begins_when_three_quarters_are_there() {
        let (crowd, started) = (crowd_of(4), Instant::now());
        let others = async {
            for _ in 0..5 {
                tokio::task::yield_now().await;
                crowd.join();
            }
        };
        // Of 12 nine are waited for.
        tokio::join!(crowd.gather(8), others);
        assert_eq!(started.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_come_beyond_enough_do_not_end_the_next_wait() {
        let crowd = crowd_of(0);
        let others = async { (0..8).for_each(|_| crowd.join()) };
        tokio::join!(crowd.gather(8), others);
        crowd.leave(8);
        let started = Instant::now();
        crowd.gather(8).await;
        assert!(started.elapsed() >= PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_begins_without_those_who_do_not_come() {
        let (crowd, started) = (crowd_of(4), Instant::now());
        crowd.gather(8).await;
        assert!((PATIENCE..=2 * PATIENCE).contains(&started.elapsed()));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_while_a_full_turn_is_there() {
        let (crowd, started) = (crowd_of(100), Instant::now());
        crowd.gather(100).await;
        assert_eq!(started.elapsed(), Duration::ZERO);
    }
}
