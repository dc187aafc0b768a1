//! Counters and latencies of the run, written by all users.
//!
//! Split into shards, so that no lock is hot; merged for the progress line and at the end.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hdrhistogram::Histogram;

use crate::{counts::Counts, history::Order, judge::Finding};

/// Shards; a user writes to the one of its number.
const SHARDS: usize = 8;

/// Longest latency that is told apart, in microseconds.
const MAX_MICROS: u64 = 120_000_000;

/// Unexpected answers that are kept word for word.
const MAX_EXAMPLES: usize = 10;

/// How long one request took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// From the real send to the last byte of the answer.
    pub(crate) service: Duration,
    /// From the time in the schedule to the last byte of the answer.
    pub(crate) intended: Duration,
    /// How late it was sent.
    pub(crate) lag: Duration,
}

/// The latencies of many requests, in microseconds.
#[derive(Clone, Debug)]
pub(crate) struct Latencies {
    pub(crate) service: Histogram<u32>,
    pub(crate) intended: Histogram<u32>,
    pub(crate) lag: Histogram<u32>,
}

impl Latencies {
    /// No latencies yet.
    pub(crate) fn new() -> Self {
        Self { service: histogram(), intended: histogram(), lag: histogram() }
    }

    fn record(&mut self, timing: Timing) {
        self.service.saturating_record(micros(timing.service));
        self.intended.saturating_record(micros(timing.intended));
        self.lag.saturating_record(micros(timing.lag));
    }

    /// Adds the latencies of another shard.
    pub(crate) fn add(&mut self, other: &Self) {
        add(&mut self.service, &other.service);
        add(&mut self.intended, &other.intended);
        add(&mut self.lag, &other.lag);
    }
}

#[derive(Debug)]
struct Shard {
    counts: Counts,
    latencies: Latencies,
    recent: Histogram<u32>,
    examples: Vec<String>,
}

/// The counters and latencies of all users.
#[derive(Debug)]
pub(crate) struct Tally {
    shards: Vec<Mutex<Shard>>,
}

/// The merged counters and latencies.
#[derive(Debug)]
pub(crate) struct Totals {
    pub(crate) counts: Counts,
    pub(crate) latencies: Latencies,
    /// Some of the unexpected answers, in words.
    pub(crate) examples: Vec<String>,
}

impl Tally {
    /// Counters at zero.
    pub(crate) fn new() -> Self {
        let shard = || {
            let (counts, latencies) = (Counts::default(), Latencies::new());
            Mutex::new(Shard { counts, latencies, recent: histogram(), examples: Vec::new() })
        };
        Self { shards: (0..SHARDS).map(|_| shard()).collect() }
    }

    /// Notes an answer.
    pub(crate) fn answered(&self, user: usize, timing: Timing, finding: &Finding, order: Option<&Order>) {
        let mut shard = self.shard(user);
        shard.counts.note(finding, order);
        shard.latencies.record(timing);
        shard.recent.saturating_record(micros(timing.intended));
    }

    /// Notes an answer that the contract does not allow.
    pub(crate) fn unexpected(&self, user: usize, timing: Timing, why: String) {
        let mut shard = self.shard(user);
        shard.counts.unexpected += 1;
        shard.latencies.record(timing);
        if shard.examples.len() < MAX_EXAMPLES {
            shard.examples.push(why);
        }
    }

    /// Notes a request that the client gave up on purpose. Its waiting says nothing about the server, so it is no
    /// latency.
    pub(crate) fn abandoned(&self, user: usize) {
        self.shard(user).counts.abandoned += 1;
    }

    /// Notes a request without an answer, with the time that it was waited for. A connection that is refused at once
    /// is no latency: it would make a dead server look fast.
    pub(crate) fn unanswered(&self, user: usize, waited: Option<Timing>) {
        let mut shard = self.shard(user);
        shard.counts.unanswered += 1;
        if let Some(timing) = waited {
            shard.latencies.record(timing);
            shard.recent.saturating_record(micros(timing.intended));
        }
    }

    /// The counts so far, and the latencies from the intended start since the last call.
    pub(crate) fn peek(&self) -> (Counts, Histogram<u32>) {
        let (mut counts, mut recent) = (Counts::default(), histogram());
        for number in 0..SHARDS {
            let mut shard = self.shard(number);
            counts.add(&shard.counts);
            add(&mut recent, &shard.recent);
            shard.recent.reset();
        }
        (counts, recent)
    }

    /// Everything, merged.
    pub(crate) fn totals(&self) -> Totals {
        let mut totals =
            Totals { counts: Counts::default(), latencies: Latencies::new(), examples: Vec::new() };
        for number in 0..SHARDS {
            let shard = self.shard(number);
            totals.counts.add(&shard.counts);
            totals.latencies.add(&shard.latencies);
            totals.examples.extend(shard.examples.iter().cloned());
        }
        totals.examples.truncate(MAX_EXAMPLES);
        totals
    }

    fn shard(&self, user: usize) -> MutexGuard<'_, Shard> {
        self.shards[user % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Three significant digits, from a microsecond to two minutes.
fn histogram() -> Histogram<u32> {
    Histogram::new_with_bounds(1, MAX_MICROS, 3).expect("the bounds are valid")
}

fn add(sum: &mut Histogram<u32>, more: &Histogram<u32>) {
    sum.add(more).expect("the bounds are the same");
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Code;

    fn timing(millis: u64) -> Timing {
        let service = Duration::from_millis(millis);
        Timing { service, intended: service * 2, lag: Duration::ZERO }
    }

    #[test]
    fn shards_are_merged() {
        let tally = Tally::new();
        for user in 0..100 {
            tally.answered(user, timing(user as u64 + 1), &Finding::Read, None);
        }
        let totals = tally.totals();
        assert_eq!(totals.counts.reads, 100);
        assert_eq!(totals.latencies.service.len(), 100);
        let p99 = totals.latencies.service.value_at_quantile(0.99);
        assert!((99_000..99_200).contains(&p99), "{p99}");
        assert!(totals.latencies.intended.max() >= 200_000);
    }

    #[test]
    fn what_is_recent_is_shown_once() {
        let tally = Tally::new();
        tally.answered(3, timing(5), &Finding::Refused(Code::SoldOut), None);
        let (counts, recent) = tally.peek();
        assert_eq!((counts.refused(), recent.len()), (1, 1));
        let (counts, recent) = tally.peek();
        assert_eq!((counts.refused(), recent.len()), (1, 0));
    }

    #[test]
    fn only_an_answer_and_a_time_out_are_latencies() {
        let tally = Tally::new();
        tally.abandoned(0);
        tally.unanswered(1, None);
        tally.unanswered(2, Some(timing(10_000)));
        let totals = tally.totals();
        assert_eq!((totals.counts.abandoned, totals.counts.unanswered), (1, 2));
        assert_eq!(totals.latencies.service.len(), 1);
    }
}
