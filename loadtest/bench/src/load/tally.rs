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
    /// Anything else: overload, time-outs, mistakes.
    Refused,
}

const KINDS: usize = 5;

/// The longest latency that is told from longer ones, in microseconds.
const LONGEST: u64 = 60_000_000;

/// The answers of one run.
pub(crate) struct Tally {
    counts: [u64; KINDS],
    latencies: Vec<Histogram<u32>>,
    /// Every sale that a client saw, the warm-up's included.
    pub(crate) sold: Vec<Uuid>,
    /// How long was counted.
    pub(crate) took: Duration,
    /// When the first request of an open loop was due.
    pub(crate) started: Option<Instant>,
    /// When the last sale was answered.
    pub(crate) last_sale: Option<Instant>,
    /// Requests whose outcome is unknown: the connection broke, or the answer was a 503.
    pub(crate) unanswered: u64,
}

impl Tally {
    pub(super) fn new() -> Result<Self> {
        let latencies: Result<_, _> = (0..KINDS).map(|_| Histogram::new_with_max(LONGEST, 3)).collect();
        Ok(Self {
            counts: [0; KINDS],
            latencies: latencies?,
            sold: Vec::new(),
            took: Duration::ZERO,
            started: None,
            last_sale: None,
            unanswered: 0,
        })
    }

    /// A sale is kept in any case; an answer counts where it was due within the measured time.
    pub(super) fn note(&mut self, answer: &Answer, counts: bool, latency: Duration) {
        if let Some(id) = answer.booking {
            self.sold.push(id);
            self.last_sale = Some(Instant::now());
        }
        if answer.kind == Kind::Refused {
            self.unanswered += 1;
        }
        if counts {
            self.counts[answer.kind as usize] += 1;
            let micros = u64::try_from(latency.as_micros()).unwrap_or(LONGEST);
            self.latencies[answer.kind as usize].saturating_record(micros);
        }
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
    #[expect(clippy::cast_precision_loss, reason = "microseconds are far below 2^52")]
    pub(crate) fn quantile(&self, kind: Kind, quantile: f64) -> f64 {
        self.latencies[kind as usize].value_at_quantile(quantile) as f64 / 1_000.0
    }
}
