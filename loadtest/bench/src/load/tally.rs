//! What a run counted.

use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;
use uuid::Uuid;

use super::exchange::Answer;

/// What an answer was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A new booking.
    Sold,
    /// A booking that its key made before.
    Replayed,
    /// Refused because nothing is left.
    SoldOut,
    /// 200.
    Read,
    /// Refused by a rate limit: 429, or 200 with that answer to a service that asked.
    TooOften,
    /// Anything else: overload, time-outs, mistakes; in an open loop a connection that broke, too.
    Refused,
    /// Due in an open loop, and not even asked for when the loop was given up.
    GivenUp,
}

const KINDS: usize = 7;

/// The longest latency that is told from longer ones, in microseconds.
const LONGEST: u64 = 60_000_000;

/// The answers of one run.
pub(crate) struct Tally {
    counts: [u64; KINDS],
    latencies: Vec<Histogram<u32>>,
    /// Every sale that a client saw, the warm-up's included.
    pub(crate) sold: Vec<Uuid>,
    /// Every answer, the warm-up's included.
    pub(crate) answered: u64,
    /// How long was counted.
    pub(crate) took: Duration,
    /// When the first request of an open loop was due.
    pub(crate) started: Option<Instant>,
    /// When the last sale was answered.
    pub(crate) last_sale: Option<Instant>,
    /// Requests whose outcome is unknown: the connection broke, or the answer was a 503.
    pub(crate) unanswered: u64,
    /// What the first of those got.
    pub(crate) first_unanswered: Option<String>,
}

impl Tally {
    pub(super) fn new() -> Result<Self> {
        let latencies: Result<_, _> = (0..KINDS).map(|_| Histogram::new_with_max(LONGEST, 3)).collect();
        Ok(Self {
            counts: [0; KINDS],
            latencies: latencies?,
            sold: Vec::new(),
            answered: 0,
            took: Duration::ZERO,
            started: None,
            last_sale: None,
            unanswered: 0,
            first_unanswered: None,
        })
    }

    /// A sale is kept in any case; an answer counts where it was due within the measured time.
    pub(super) fn note(&mut self, answer: &Answer, counts: bool, latency: Duration) {
        self.answered += 1;
        if let Some(id) = answer.booking {
            self.sold.push(id);
            self.last_sale = Some(Instant::now());
        }
        if let Some(refusal) = &answer.refusal {
            self.leave_unanswered(refusal);
        }
        if counts {
            self.counts[answer.kind as usize] += 1;
            let micros = u64::try_from(latency.as_micros()).unwrap_or(LONGEST);
            self.latencies[answer.kind as usize].saturating_record(micros);
        }
    }

    /// A request whose outcome is unknown, and what came instead.
    fn leave_unanswered(&mut self, why: &str) {
        self.unanswered += 1;
        self.first_unanswered.get_or_insert_with(|| why.to_owned());
    }

    /// A request whose connection broke before it was answered. Whoever sent it waits as long as one that was refused, so it counts
    /// as that where it was due within the measured time.
    pub(super) fn break_off(&mut self, why: &str, counts: bool) {
        self.leave_unanswered(why);
        self.counts[Kind::Refused as usize] += u64::from(counts);
    }

    /// A request that was due so long ago, and not sent.
    pub(super) fn give_up(&mut self, late: Duration) {
        self.note(&Answer { kind: Kind::GivenUp, booking: None, refusal: None }, true, late);
    }

    /// How many answers of this kind.
    pub(crate) fn count(&self, kind: Kind) -> u64 {
        self.counts[kind as usize]
    }

    /// Answers of all other kinds.
    pub(crate) fn others(&self, kind: Kind) -> u64 {
        self.counts.iter().sum::<u64>() - self.count(kind)
    }

    /// Answers of this kind a second.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub(crate) fn rate(&self, kind: Kind) -> f64 {
        self.count(kind) as f64 / self.took.as_secs_f64()
    }

    /// A quantile of the latencies of answers of this kind, in milliseconds.
    pub(crate) fn quantile(&self, kind: Kind, quantile: f64) -> f64 {
        milliseconds(&self.latencies[kind as usize], quantile)
    }

    /// Quantiles of the latencies of everything that was due, in milliseconds. A refusal is no quick answer: it counts as the
    /// longest one. What was given up took longer than it says.
    pub(crate) fn quantiles_of_all(&self, quantiles: &[f64]) -> Result<Vec<f64>> {
        let mut all = Histogram::<u32>::new_with_max(LONGEST, 3)?;
        for (kind, latencies) in self.latencies.iter().enumerate() {
            if kind == Kind::Refused as usize {
                all.record_n(LONGEST, u32::try_from(self.count(Kind::Refused)).unwrap_or(u32::MAX))?;
            } else {
                all.add(latencies)?;
            }
        }
        Ok(quantiles.iter().map(|quantile| milliseconds(&all, *quantile)).collect())
    }
}

#[expect(clippy::cast_precision_loss, reason = "microseconds are far below 2^52")]
fn milliseconds(latencies: &Histogram<u32>, quantile: f64) -> f64 {
    latencies.value_at_quantile(quantile) as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_no_quick_answer() {
        let mut tally = Tally::new().unwrap();
        let refused = Answer { kind: Kind::Refused, booking: None, refusal: Some("503".to_owned()) };
        tally.note(&refused, true, Duration::from_millis(1));
        assert!(tally.quantiles_of_all(&[0.5]).unwrap()[0] > 59_000.0);
    }

    #[test]
    fn what_was_given_up_counts_among_the_latencies_of_all() {
        let mut tally = Tally::new().unwrap();
        let sold = Answer { kind: Kind::Sold, booking: Some(Uuid::from_u128(1)), refusal: None };
        tally.note(&sold, false, Duration::from_secs(9));
        tally.note(&sold, true, Duration::from_millis(2));
        tally.give_up(Duration::from_secs(3));
        assert_eq!((tally.sold.len(), tally.count(Kind::Sold), tally.others(Kind::Sold)), (2, 1, 1));
        let quantiles = tally.quantiles_of_all(&[0.5, 1.0]).unwrap();
        assert!((quantiles[0] - 2.0).abs() < 0.01 && (quantiles[1] - 3_000.0).abs() < 3.0, "{quantiles:?}");
        assert!((tally.quantile(Kind::Sold, 1.0) - 2.0).abs() < 0.01);
    }
}
