//! The memory of obvious floods: a source that Redis has refused again and again is refused without asking it, until
//! the moment from which Redis said it would allow it again.
//!
//! It never allows anything, and never refuses longer than Redis said. Below the threshold every request reaches Redis,
//! which alone knows whether it is the retry of a booking that succeeded.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use boxoffice_schema::scripts::{RateCheck, Standing};

/// So many refusals by Redis in a row make a flood: nothing was allowed between them, and each came before the one before it
/// was forgiven.
pub(super) const REFUSALS_OF_A_FLOOD: u32 = 10;

/// The most keys that are remembered, about 10 MB. Past it the rest is left to Redis.
const KEYS_MAX: usize = 65_536;

/// A source that was quiet for so long after its refusal ended begins anew.
const FORGIVEN_AFTER: Duration = Duration::from_secs(10);

/// How often room is made at most: it looks at every key.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Floods {
    known: Mutex<Known>,
    /// When the last flood ends, in milliseconds since [`EPOCH`], so that nobody waits for the lock while nobody floods.
    until: AtomicU64,
    /// When the last refusal is forgiven, so that nobody who is allowed waits for it while nobody is refused.
    forgiven: AtomicU64,
}

/// What moments are counted from, where they must be atomic.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

fn since_epoch(moment: Instant) -> u64 {
    u64::try_from(moment.saturating_duration_since(*EPOCH).as_millis()).unwrap_or(u64::MAX)
}

#[derive(Default)]
struct Known {
    refused: HashMap<String, Refused>,
    swept_at: Option<Instant>,
}

struct Refused {
    times: u32,
    /// The cost that was refused last: less might be allowed.
    cost: u16,
    until: Instant,
}

impl Refused {
    fn is_forgiven(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.until) > FORGIVEN_AFTER
    }
}

impl Floods {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anybody may be refused without asking Redis.
    pub(super) fn are_there(&self, now: Instant) -> bool {
        since_epoch(now) < self.until.load(Ordering::Relaxed)
    }

    /// How a check stands that needs no answer of Redis; `None` where Redis is to be asked.
    pub(super) fn refusal(&self, check: &RateCheck, now: Instant) -> Option<Standing> {
        if !self.are_there(now) {
            return None;
        }
        let known = self.known();
        let refused = known.refused.get(&check.key)?;
        let left = refused.until.checked_duration_since(now)?;
        if refused.times < REFUSALS_OF_A_FLOOD || check.cost < refused.cost {
            return None;
        }
        let ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX);
        Some(Standing { refuses: true, remaining: 0, reset_ms: ms, retry_ms: ms })
    }

    /// Notes that Redis refused.
    pub(super) fn refused(&self, check: &RateCheck, retry_ms: u32, now: Instant) {
        let until = now + Duration::from_millis(u64::from(retry_ms));
        self.forgiven.fetch_max(since_epoch(until + FORGIVEN_AFTER), Ordering::Relaxed);
        let mut known = self.known();
        if let Some(refused) = known.refused.get_mut(&check.key) {
            let times = if refused.is_forgiven(now) { 1 } else { refused.times.saturating_add(1) };
            *refused = Refused { times, cost: check.cost, until };
            if times >= REFUSALS_OF_A_FLOOD {
                self.until.fetch_max(since_epoch(until), Ordering::Relaxed);
            }
            return;
        }
        if known.refused.len() >= KEYS_MAX && !known.make_room(now) {
            return;
        }
        known.refused.insert(check.key.clone(), Refused { times: 1, cost: check.cost, until });
    }

    /// Notes that Redis allowed, which ends a row of refusals.
    pub(super) fn allowed(&self, check: &RateCheck, now: Instant) {
        if since_epoch(now) <= self.forgiven.load(Ordering::Relaxed) {
            self.known().refused.remove(&check.key);
        }
    }

    /// Other policies: what was refused may be allowed now.
    pub(super) fn forget(&self) {
        *self.known() = Known::default();
        self.until.store(0, Ordering::Relaxed);
        self.forgiven.store(0, Ordering::Relaxed);
    }
}

impl Known {
    /// Forgets whoever was quiet; whether there is room now.
    fn make_room(&mut self, now: Instant) -> bool {
        let is_due = self.swept_at.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP_INTERVAL);
        if is_due {
            self.swept_at = Some(now);
            self.refused.retain(|_, refused| !refused.is_forgiven(now));
        }
        self.refused.len() < KEYS_MAX
    }
}

#[cfg(test)]
mod tests {
    use boxoffice_schema::rate::{Algorithm, Quota};

    use super::*;

    fn check(key: &str, cost: u16) -> RateCheck {
        let quota = Quota::new(Algorithm::FixedWindow, 10, 60, None).unwrap();
        RateCheck { key: key.to_owned(), quota, cost }
    }

    fn flooded(floods: &Floods, key: &str, cost: u16, now: Instant) {
        for _ in 0..REFUSALS_OF_A_FLOOD {
            floods.refused(&check(key, cost), 5_000, now);
        }
    }

    #[test]
    fn a_flood_is_refused_until_redis_would_allow_it_and_no_longer() {
        let (floods, now) = (Floods::default(), Instant::now());
        for _ in 1..REFUSALS_OF_A_FLOOD {
            floods.refused(&check("a", 1), 5_000, now);
        }
        assert_eq!(floods.refusal(&check("a", 1), now), None, "a retry must reach Redis");
        floods.refused(&check("a", 1), 5_000, now);
        let refusal = floods.refusal(&check("a", 1), now + Duration::from_secs(2)).unwrap();
        assert_eq!((refusal.refuses, refusal.retry_ms), (true, 3_000));
        assert_eq!(floods.refusal(&check("b", 1), now), None);
        assert_eq!(floods.refusal(&check("a", 1), now + Duration::from_millis(5_001)), None);
    }

    #[test]
    fn whoever_goes_on_is_known_at_once_and_whoever_was_quiet_begins_anew() {
        let (floods, now) = (Floods::default(), Instant::now());
        flooded(&floods, "a", 1, now);
        let later = now + Duration::from_secs(6);
        floods.refused(&check("a", 1), 5_000, later);
        assert!(floods.refusal(&check("a", 1), later).is_some());
        let much_later = later + Duration::from_secs(20);
        floods.refused(&check("a", 1), 5_000, much_later);
        assert_eq!(floods.refusal(&check("a", 1), much_later), None);
    }

    #[test]
    fn refusals_with_something_allowed_between_them_are_no_flood() {
        let (floods, now) = (Floods::default(), Instant::now());
        for _ in 0..3 {
            for _ in 1..REFUSALS_OF_A_FLOOD {
                floods.refused(&check("a", 5), 5_000, now);
            }
            floods.allowed(&check("a", 1), now + Duration::from_secs(14));
        }
        floods.refused(&check("a", 5), 5_000, now);
        assert_eq!(floods.refusal(&check("a", 5), now), None);
        flooded(&floods, "a", 5, now);
        floods.allowed(&check("b", 1), now);
        assert!(floods.refusal(&check("a", 5), now).is_some(), "another's is none of its own");
    }

    #[test]
    fn nobody_is_looked_for_while_nobody_floods() {
        let (floods, now) = (Floods::default(), Instant::now());
        floods.refused(&check("a", 1), 5_000, now);
        assert!(!floods.are_there(now), "one refusal is no flood");
        flooded(&floods, "a", 1, now);
        assert!(floods.are_there(now + Duration::from_millis(4_900)));
        assert!(!floods.are_there(now + Duration::from_millis(5_100)), "it has ended");
    }

    #[test]
    fn what_costs_less_than_what_was_refused_is_for_redis_to_decide() {
        let (floods, now) = (Floods::default(), Instant::now());
        flooded(&floods, "a", 5, now);
        assert!(floods.refusal(&check("a", 5), now).is_some());
        assert_eq!(floods.refusal(&check("a", 4), now), None);
    }

    #[test]
    fn the_memory_is_bounded_and_makes_room_for_the_living() {
        let (floods, now) = (Floods::default(), Instant::now());
        for n in 0..KEYS_MAX {
            floods.refused(&check(&n.to_string(), 1), 1_000, now);
        }
        flooded(&floods, "late", 1, now);
        assert_eq!(floods.refusal(&check("late", 1), now), None, "there is no room: Redis decides");
        let later = now + Duration::from_secs(20);
        flooded(&floods, "late", 1, later);
        assert!(floods.refusal(&check("late", 1), later).is_some());
        floods.forget();
        assert_eq!(floods.refusal(&check("late", 1), later), None);
    }
}
