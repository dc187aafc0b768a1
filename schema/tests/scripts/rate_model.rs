//! What each algorithm should do, as plainly as it can be said: what was taken is kept with its time, in exact numbers.

use boxoffice_schema::rate::{Algorithm, Quota};

/// What one subject has taken of a quota, and when, in microseconds.
#[derive(Clone, Debug)]
pub struct Subject {
    quota: Quota,
    taken: Vec<(u64, u64)>,
}

impl Subject {
    pub fn new(quota: Quota) -> Self {
        Self { quota, taken: Vec::new() }
    }

    pub fn take(&mut self, now_us: u64, cost: u64) {
        self.taken.push((now_us, cost));
    }

    fn window_us(&self) -> u64 {
        u64::from(self.quota.window_seconds()) * 1_000_000
    }

    /// What was taken in a window, by its number.
    fn in_window(&self, index: u64) -> u128 {
        let of_window = self.taken.iter().filter(|(at, _)| at / self.window_us() == index);
        of_window.map(|(_, cost)| u128::from(*cost)).sum()
    }

    /// What is left, multiplied by the window in the algorithm's own unit of time, which is returned with it.
    fn room(&self, now_us: u64) -> (i128, i128) {
        let limit = u128::from(self.quota.limit());
        let index = now_us / self.window_us();
        let (left, unit) = match self.quota.algorithm() {
            Algorithm::FixedWindow => (limit.cast_signed() - self.in_window(index).cast_signed(), 1),
            Algorithm::SlidingWindow => {
                let window = u128::from(self.window_us() / 1_000);
                let elapsed = u128::from(now_us / 1_000) % window;
                let before = index.checked_sub(1).map_or(0, |before| self.in_window(before));
                let used = self.in_window(index) * window + before * (window - elapsed);
                ((limit * window).cast_signed() - used.cast_signed(), window)
            }
            Algorithm::TokenBucket => (self.tokens(now_us).cast_signed(), u128::from(self.window_us())),
        };
        (left, unit.cast_signed())
    }

    /// A bucket that is filled and emptied from the beginning; a token is a window's worth of microseconds.
    fn tokens(&self, now_us: u64) -> u128 {
        let token = u128::from(self.window_us());
        let full = u128::from(self.quota.burst()) * token;
        let flow = |level: u128, us: u64| full.min(level + u128::from(us) * u128::from(self.quota.limit()));
        let (mut level, mut then) = (full, 0);
        for (at, cost) in &self.taken {
            level = flow(level, at - then) - u128::from(*cost) * token;
            then = *at;
        }
        flow(level, now_us - then)
    }

    pub fn fits(&self, now_us: u64, cost: u64) -> bool {
        let (left, unit) = self.room(now_us);
        i128::from(cost) * unit <= left
    }

    pub fn remaining(&self, now_us: u64) -> u32 {
        let (left, unit) = self.room(now_us);
        u32::try_from(left / unit).unwrap()
    }
}
