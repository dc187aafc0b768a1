//! Every number of a run, for machines.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::{
    cli::Options,
    counts::Counts,
    plan::Role,
    shop::Shop,
    tally::Totals,
    verdict::{Evidence, FaultCounts, objections},
    verify::Verified,
};

/// The file that `--summary` writes. Times are in milliseconds unless the name says otherwise.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    /// When the summary was made, RFC 3339 in UTC.
    pub(crate) finished_at: String,
    /// The name that is in every key and customer of the run.
    pub(crate) run: String,
    /// The seed to run the same again.
    pub(crate) seed: u64,
    pub(crate) host: String,
    pub(crate) load: Load,
    pub(crate) outcomes: Outcomes,
    pub(crate) latency: Latency,
    pub(crate) verification: Verification,
    /// "good" or "bad"; decides the exit code.
    pub(crate) verdict: &'static str,
    /// The reasons for a bad verdict.
    pub(crate) objections: Vec<String>,
    /// Some of what is wrong, word for word.
    pub(crate) examples: Vec<String>,
}

/// What was asked of the API.
#[derive(Debug, Serialize)]
pub(crate) struct Load {
    /// Requests in the schedule.
    pub(crate) requests: u64,
    /// Requests sent; fewer than `requests` if the time to catch up was too short.
    pub(crate) requests_sent: u64,
    /// Requests a second that were wanted.
    pub(crate) target_rate: u32,
    /// Requests a second from the first to the last.
    pub(crate) rate_reached: f64,
    /// `rate_reached` in percent of `target_rate`.
    pub(crate) rate_percent: f64,
    /// From the first request to the last, in seconds.
    pub(crate) seconds: f64,
    pub(crate) users: usize,
    /// Connections that were held beside them and asked for nothing.
    pub(crate) idle_connections: usize,
    pub(crate) events: usize,
    /// Tickets of the hot event.
    pub(crate) hot_capacity: u64,
}

/// What became of the requests; each request is counted in exactly one of the fields that count requests.
#[derive(Debug, Serialize)]
pub(crate) struct Outcomes {
    /// New bookings without a hold (201).
    pub(crate) sold: u64,
    /// Tickets in `sold`.
    pub(crate) sold_tickets: u64,
    /// New holds (201).
    pub(crate) held: u64,
    /// Tickets in `held`.
    pub(crate) held_tickets: u64,
    /// Answers with `Idempotent-Replayed: true`.
    pub(crate) replayed: u64,
    /// Confirmations of holds (200).
    pub(crate) confirmed: u64,
    /// Cancellations (200).
    pub(crate) cancelled: u64,
    /// Availability and bookings read (200).
    pub(crate) reads: u64,
    /// Refusals that are decisions.
    pub(crate) refused: u64,
    /// `refused` by code.
    pub(crate) refused_by_code: BTreeMap<&'static str, u64>,
    /// 503 and 429.
    pub(crate) unavailable: u64,
    /// `unavailable` by code.
    pub(crate) unavailable_by_code: BTreeMap<&'static str, u64>,
    /// Requests that the client gave up after a few milliseconds, on purpose.
    pub(crate) abandoned_on_purpose: u64,
    /// Requests without an answer: time-outs and broken connections that were not meant.
    pub(crate) unanswered: u64,
    /// Answers that the contract does not allow where they were given.
    pub(crate) unexpected: u64,
    /// Answers that a loss explains which the mode allows (`--loss-windows`).
    pub(crate) excused: u64,
}

/// Latencies over all answered requests and time-outs, in milliseconds. Requests given up on purpose and connections
/// that were refused are left out: they would make the server look faster than it is.
#[derive(Debug, Serialize)]
pub(crate) struct Latency {
    /// From the real send of a request to the last byte of its answer. Hides stalls: while a client waits, it does
    /// not send (coordinated omission).
    pub(crate) service: Percentiles,
    /// From the time at which the schedule meant the request to be sent. Shows stalls as buyers feel them.
    pub(crate) from_intended_start: Percentiles,
    /// How late requests were sent: the difference between the two, and what the load generator itself adds.
    pub(crate) send_lag: Percentiles,
}

/// Milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p99_9: f64,
    pub(crate) max: f64,
    pub(crate) mean: f64,
}

/// What was found after the run.
#[derive(Debug, Serialize)]
pub(crate) struct Verification {
    /// Keys with a 201, replays of unanswered requests included.
    pub(crate) acknowledged: u64,
    /// Rows in PostgreSQL for the run's events.
    pub(crate) rows: u64,
    /// Rows of acknowledged keys.
    pub(crate) rows_acknowledged: u64,
    /// Rows of keys that got no answer at all; the client cannot know of them, and they are no fault.
    pub(crate) rows_unanswered: u64,
    /// Rows of keys that were only ever refused with a 503 that leaves the outcome open.
    pub(crate) rows_refused_in_doubt: u64,
    /// Acknowledged keys whose booking is lost or older than acknowledged, as the mode allows (`--loss-windows`).
    pub(crate) excused: u64,
    /// Rows by state at the end.
    pub(crate) rows_by_status: RowsByStatus,
    /// Keys sent again after the run.
    pub(crate) replays_checked: u64,
    /// Whether lag, drift and holds all came to 0 in time.
    pub(crate) drained: bool,
    /// Seconds until then.
    pub(crate) drain_seconds: f64,
    /// Faults by kind; all 0 in a good run.
    pub(crate) faults: FaultCounts,
}

/// Rows by state.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct RowsByStatus {
    pub(crate) held: u64,
    pub(crate) confirmed: u64,
    pub(crate) cancelled: u64,
    pub(crate) expired: u64,
}

#[expect(clippy::cast_precision_loss, reason = "requests are far below 2^52")]
fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}

impl Summary {
    /// Puts the numbers together and judges them.
    pub(crate) fn new(
        options: &Options,
        seed: u64,
        shop: &Shop,
        totals: Totals,
        acknowledged: u64,
        verified: Verified,
    ) -> Self {
        let load = Load::new(options, shop);
        let latency = Latency {
            service: Percentiles::of(&totals.latencies.service),
            from_intended_start: Percentiles::of(&totals.latencies.intended),
            send_lag: Percentiles::of(&totals.latencies.lag),
        };
        let objections = objections(&Evidence {
            faults: verified.faults.counts.clone(),
            unexpected: totals.counts.unexpected,
            drained: verified.drained.complete,
            acknowledged,
            rate_percent: load.rate_percent,
            min_rate_percent: options.min_rate,
            turned_away_percent: percent(
                totals.counts.unavailable() + totals.counts.unanswered,
                load.requests_sent,
            ),
            max_turned_away_percent: options.max_turned_away,
            p99_ms: latency.from_intended_start.p99,
            max_p99_ms: options.max_p99,
        });
        Self {
            finished_at: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
            run: shop.market.names.run().to_owned(),
            seed,
            host: options.base(),
            load,
            outcomes: Outcomes::new(&totals.counts),
            latency,
            verdict: if objections.is_empty() { "good" } else { "bad" },
            objections,
            examples: totals.examples.into_iter().chain(verified.faults.examples.clone()).collect(),
            verification: Verification::new(acknowledged, verified),
        }
    }

    /// Whether the verdict is good.
    pub(crate) fn is_good(&self) -> bool {
        self.objections.is_empty()
    }
}

impl Load {
    fn new(options: &Options, shop: &Shop) -> Self {
        let rate_reached = shop.schedule.rate_reached();
        let hot = shop.market.events.iter().filter(|event| event.plan.role == Role::Hot);
        Self {
            requests: shop.schedule.total(),
            requests_sent: shop.schedule.sent(),
            target_rate: options.rate,
            rate_reached,
            rate_percent: 100.0 * rate_reached / f64::from(options.rate),
            seconds: shop.schedule.span().as_secs_f64(),
            users: options.users(),
            idle_connections: options.idle_connections,
            events: shop.market.events.len(),
            hot_capacity: hot.flat_map(|event| &event.plan.types).map(|kind| u64::from(kind.capacity)).sum(),
        }
    }
}

impl Outcomes {
    fn new(counts: &Counts) -> Self {
        let named = |unavailable| {
            let codes = counts.by_code(move |code| code.is_unavailable() == unavailable);
            codes.map(|(code, count)| (code.word(), count)).collect()
        };
        Self {
            sold: counts.sold,
            sold_tickets: counts.sold_tickets,
            held: counts.held,
            held_tickets: counts.held_tickets,
            replayed: counts.replayed,
            confirmed: counts.confirmed,
            cancelled: counts.cancelled,
            reads: counts.reads,
            refused: counts.refused(),
            refused_by_code: named(false),
            unavailable: counts.unavailable(),
            unavailable_by_code: named(true),
            abandoned_on_purpose: counts.abandoned,
            unanswered: counts.unanswered,
            unexpected: counts.unexpected,
            excused: counts.excused,
        }
    }
}

impl Percentiles {
    #[expect(clippy::cast_precision_loss, reason = "microseconds below two minutes are exact")]
    fn of(histogram: &Histogram<u32>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1_000.0;
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: histogram.max() as f64 / 1_000.0,
            mean: histogram.mean() / 1_000.0,
        }
    }
}

impl Verification {
    fn new(acknowledged: u64, verified: Verified) -> Self {
        let [held, confirmed, cancelled, expired] = verified.rows.by_status;
        Self {
            acknowledged,
            rows: verified.rows.total,
            rows_acknowledged: verified.rows.acknowledged,
            rows_unanswered: verified.rows.unanswered,
            rows_refused_in_doubt: verified.rows.refused_in_doubt,
            excused: verified.rows.excused,
            rows_by_status: RowsByStatus { held, confirmed, cancelled, expired },
            replays_checked: verified.replays_checked,
            drained: verified.drained.complete,
            drain_seconds: verified.drained.took.as_secs_f64(),
            faults: verified.faults.counts,
        }
    }
}
