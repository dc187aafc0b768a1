//! When each request is to be sent.
//!
//! Goose is a closed loop: a user sends its next request when the last is answered, so a server that stalls is sent
//! less and its stall hardly shows (coordinated omission). Here the times are fixed before the first request: request
//! k is due at `t0 + k / rate`, whichever user happens to be free for it. If none is free, the request is late, and
//! its lateness counts as latency "from the intended start".

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use goose::is_killswitch_triggered;
use tokio::time::{Instant, sleep, sleep_until};

/// Tokio's timer and epoll each round up to a millisecond. Aiming this much early centres the error on the intended
/// time instead of adding it to every request; a request sent early counts from when it was really sent.
const TIMER_GRAIN: Duration = Duration::from_millis(1);

/// Goose resets its metrics when the last user has started; the schedule starts after that.
const LEAD: Duration = Duration::from_millis(600);

/// One request's place in the schedule.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    /// When an open system would have sent it.
    pub(crate) intended: Instant,
}

/// The schedule that all users draw from.
#[derive(Debug)]
pub(crate) struct Schedule {
    rate: u32,
    total: u64,
    catch_up: Duration,
    users: usize,
    arrived: AtomicUsize,
    next: AtomicU64,
    start: OnceLock<Instant>,
    sent: AtomicU64,
    last_sent_us: AtomicU64,
}

impl Schedule {
    /// A schedule of `total` requests at `rate` a second that starts when `users` users have arrived, and in which
    /// requests may be sent up to `catch_up` after its regular end.
    pub(crate) fn new(rate: u32, total: u64, users: usize, catch_up: Duration) -> Self {
        Self {
            rate,
            total,
            catch_up,
            users,
            arrived: AtomicUsize::new(0),
            next: AtomicU64::new(0),
            start: OnceLock::new(),
            sent: AtomicU64::new(0),
            last_sent_us: AtomicU64::new(0),
        }
    }

    /// How long after the start request `number` is due.
    pub(crate) fn offset(&self, number: u64) -> Duration {
        let nanos = u128::from(number) * 1_000_000_000 / u128::from(self.rate);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Waits until every user is here: a schedule that started while goose is still starting users would be late from
    /// its first request. Returns early when the run is cancelled.
    pub(crate) async fn gather(&self) {
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.users {
            self.start.get_or_init(|| Instant::now() + LEAD);
        }
        while self.start.get().is_none() && !is_killswitch_triggered() {
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Takes the next request and waits until it is due. `None` when the schedule is over.
    pub(crate) async fn next(&self) -> Option<Slot> {
        let start = *self.start.get()?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if number >= self.total || start.elapsed() > self.length() + self.catch_up {
            return None;
        }
        let intended = start + self.offset(number);
        let wake = intended.checked_sub(TIMER_GRAIN).unwrap_or(intended);
        if wake > Instant::now() {
            sleep_until(wake).await;
        }
        Some(Slot { intended })
    }

    /// Notes that a request went out, for the rate that was reached.
    pub(crate) fn note_sent(&self, at: Instant) {
        self.sent.fetch_add(1, Ordering::Relaxed);
        if let Some(start) = self.start.get() {
            let after = at.saturating_duration_since(*start).as_micros();
            self.last_sent_us.fetch_max(u64::try_from(after).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    /// The requests sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// The requests of the schedule.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// How long the schedule is, from its first request to the end of its last interval.
    pub(crate) fn length(&self) -> Duration {
        self.offset(self.total)
    }

    /// The time since the first request was due; zero before.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.get().map_or(Duration::ZERO, |start| Instant::now().saturating_duration_since(*start))
    }

    /// The time that the requests really took: the schedule's length, or longer where the last was late.
    pub(crate) fn span(&self) -> Duration {
        self.length().max(Duration::from_micros(self.last_sent_us.load(Ordering::Relaxed)))
    }

    /// Requests a second over [`Schedule::span`].
    #[expect(clippy::cast_precision_loss, reason = "request counts stay far below 2^52")]
    pub(crate) fn rate_reached(&self) -> f64 {
        self.sent() as f64 / self.span().as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_k_is_due_k_intervals_after_the_start() {
        let schedule = Schedule::new(500, 15_000, 1, Duration::ZERO);
        assert_eq!(schedule.offset(0), Duration::ZERO);
        assert_eq!(schedule.offset(1), Duration::from_millis(2));
        assert_eq!(schedule.offset(15_000), Duration::from_secs(30));
    }

    #[test]
    fn a_rate_that_does_not_divide_a_second_does_not_drift() {
        let schedule = Schedule::new(3_000, 3_000 * 86_400, 1, Duration::ZERO);
        assert_eq!(schedule.offset(3_000 * 86_400), Duration::from_secs(86_400));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_sent_before_every_user_has_arrived() {
        let schedule = std::sync::Arc::new(Schedule::new(10, 5, 2, Duration::ZERO));
        let first = tokio::spawn({
            let schedule = schedule.clone();
            async move { schedule.gather().await }
        });
        sleep(Duration::from_secs(5)).await;
        assert!(!first.is_finished());
        assert!(schedule.next().await.is_none(), "no request before the start");
        schedule.gather().await;
        first.await.expect("the first user is let go");
    }

    #[tokio::test(start_paused = true)]
    async fn requests_come_at_their_times_and_end() {
        let schedule = Schedule::new(10, 3, 1, Duration::from_secs(1));
        schedule.gather().await;
        let start = Instant::now() + LEAD;
        for number in 0..3 {
            let slot = schedule.next().await.expect("a request");
            assert_eq!(slot.intended, start + Duration::from_millis(100) * number);
            schedule.note_sent(Instant::now());
        }
        assert!(schedule.next().await.is_none());
        assert_eq!(schedule.sent(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_late_is_sent_at_once_but_not_for_ever() {
        let schedule = Schedule::new(10, 100, 1, Duration::from_secs(5));
        schedule.gather().await;
        schedule.next().await.expect("the first request");
        sleep(Duration::from_secs(9)).await;
        let before = Instant::now();
        let late = schedule.next().await.expect("a late request");
        assert_eq!(Instant::now(), before, "it is not made to wait");
        assert!(before.saturating_duration_since(late.intended) > Duration::from_secs(8));
        sleep(Duration::from_secs(10)).await;
        assert!(schedule.next().await.is_none(), "the time to catch up is over");
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_reached_counts_the_time_that_late_requests_took() {
        let schedule = Schedule::new(10, 10, 1, Duration::from_secs(60));
        schedule.gather().await;
        let start = Instant::now() + LEAD;
        for _ in 0..10 {
            schedule.note_sent(start + Duration::from_secs(2));
        }
        assert!((schedule.rate_reached() - 5.0).abs() < 1e-9);
    }
}
