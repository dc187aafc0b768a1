//! Compares Redis with PostgreSQL: at the same position, not at the same time.
//!
//! A snapshot of Redis gives an event's counters and the position at which they are so, in one atomic step; a
//! statement gives the same of PostgreSQL. Where the positions are equal, the counters must be. Where PostgreSQL is
//! behind, it is asked again until it has come to that position; where it went past it, a new snapshot is taken. An
//! event whose shard moves on during all tries is counted as not compared: lag is not drift.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use boxoffice_schema::ids::{EventId, TicketTypeId};
use boxoffice_schema::position::Position;
use boxoffice_schema::shard::Shard;
use chrono::{DateTime, Utc};
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use redis::RedisError;
use serde::Serialize;
use sqlx::PgPool;

use crate::config::Config;
use crate::deep::{DeepError, Sources};
use crate::redis_link::RedisLink;
use crate::repairs;
use crate::snapshot::{self, Counts, LiveShard, Recorded};

mod compare;
mod log_end;
mod one_by_one;
mod record;
mod rows;
mod service;

pub(crate) use record::record;
pub(crate) use service::run;

/// Shards that are compared at the same time.
const PARALLEL: usize = 8;

/// What an audit looks at.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    pub(crate) shards: Vec<Shard>,
    /// One event only.
    pub(crate) event: Option<EventId>,
    /// Whether PostgreSQL's counts are compared with its own bookings, which reads all of them.
    pub(crate) with_rows: bool,
    /// Whether bookings are compared one by one, which reads all of them in both stores.
    pub(crate) deep: bool,
    /// How long PostgreSQL may take to come to a position of Redis.
    pub(crate) patience: Duration,
    /// Snapshots of an event that is being sold, before it counts as not compared.
    pub(crate) tries: usize,
}

/// How long an audit by hand lets PostgreSQL catch up with events that are being sold.
const PATIENCE_BY_HAND: Duration = Duration::from_secs(10);

/// Snapshots of such an event; the patience is the real bound.
const TRIES_BY_HAND: usize = 500;

impl Scope {
    /// For a command: everything, or one event, with PostgreSQL's counts against its own bookings.
    pub(crate) fn by_hand(config: &Config, event: Option<EventId>, deep: bool) -> Self {
        Self {
            shards: match event {
                Some(event) => vec![config.shards.shard_of(event)],
                None => config.shards.shards().collect(),
            },
            event,
            with_rows: true,
            deep,
            patience: PATIENCE_BY_HAND,
            tries: TRIES_BY_HAND,
        }
    }

    /// The events that Redis may hold of these shards: the one, or those whose keys it has.
    pub(crate) async fn live_events(
        &self,
        redis: &RedisLink,
    ) -> Result<BTreeMap<Shard, BTreeSet<EventId>>, RedisError> {
        match self.event {
            Some(event) => Ok(self.shards.iter().map(|shard| (*shard, BTreeSet::from([event]))).collect()),
            None => snapshot::live_ids(redis).await,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum AuditError {
    #[error("PostgreSQL: {0}")]
    Postgres(#[from] sqlx::Error),
    #[error("Redis: {0}")]
    Redis(#[from] RedisError),
    #[error("{0}")]
    Deep(#[from] DeepError),
}

/// What an audit found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) started_at: DateTime<Utc>,
    pub(crate) duration_ms: u64,
    /// Decisions that Redis had made and PostgreSQL had not, when the audit began.
    pub(crate) lag: u64,
    /// Ticket types compared at equal positions.
    pub(crate) compared: usize,
    /// Ticket types whose shard moved on during all tries.
    pub(crate) not_compared: usize,
    /// Bookings that were compared one by one.
    pub(crate) bookings: usize,
    /// What could not be compared one by one, and why.
    pub(crate) left_open: Vec<String>,
    /// The sums over all that was compared.
    pub(crate) totals: Totals,
    /// Tickets by which counts differ, over all findings.
    pub(crate) drift: u64,
    /// Where the shards stood when the audit began.
    pub(crate) shards: BTreeMap<u16, ShardPositions>,
    pub(crate) findings: Vec<Finding>,
}

impl Report {
    /// Whether nothing that was found needs mending.
    pub(crate) fn is_ok(&self) -> bool {
        self.findings.iter().all(|finding| finding.kind.is_notice())
    }
}

/// What both stores count, over many ticket types.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Totals {
    pub(crate) redis: Counts,
    pub(crate) postgres: Counts,
}

/// Where a shard stood in both stores.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct ShardPositions {
    pub(crate) certified: bool,
    /// None where Redis does not know the shard.
    pub(crate) redis: Option<Position>,
    pub(crate) postgres: Position,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Finding {
    pub(crate) shard: Shard,
    pub(crate) event_id: Option<EventId>,
    pub(crate) ticket_type_id: Option<TicketTypeId>,
    pub(crate) kind: FindingKind,
    pub(crate) detail: String,
    /// Tickets by which counts differ.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) drift: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What kinds of findings there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FindingKind {
    /// Redis and PostgreSQL count differently at the same position.
    Drift,
    /// PostgreSQL's counts are not those of its own bookings.
    RowsDiffer,
    /// Held and sold exceed the capacity.
    Oversold,
    /// An event on sale is not in Redis, at a position where it must be.
    MissingInventory,
    /// An event in Redis is not what the scripts write.
    UnreadableInventory,
    /// Redis is behind PostgreSQL.
    RedisBehind,
    /// Holds that should have expired: nobody runs the expiry.
    OverdueHolds,
    /// An event's name, times, limits, status or capacities differ.
    EventDiffers,
    /// PostgreSQL has bookings that Redis lacks, or has in an older state.
    LostBookings,
    /// Redis has bookings that PostgreSQL lacks, or has in an older state, although the log is applied.
    UnrecordedBookings,
    /// A booking has two contents at one position.
    BookingsDiffer,
    /// What lies in a slot in Redis is no booking, and PostgreSQL has no row of one that would lie there.
    UnreadableBookings,
    /// In Redis a hold is not in the expiry queue at its time.
    LostExpiries,
    /// In Redis a customer's count is not that of its bookings.
    AllowancesDiffer,
}

impl FindingKind {
    /// What the service looks for, every few seconds. The others take a look at every booking.
    pub(crate) const OF_THE_SERVICE: [Self; 6] = [
        Self::Drift,
        Self::Oversold,
        Self::MissingInventory,
        Self::UnreadableInventory,
        Self::RedisBehind,
        Self::OverdueHolds,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Drift => "drift",
            Self::RowsDiffer => "rows_differ",
            Self::Oversold => "oversold",
            Self::MissingInventory => "missing_inventory",
            Self::UnreadableInventory => "unreadable_inventory",
            Self::RedisBehind => "redis_behind",
            Self::OverdueHolds => "overdue_holds",
            Self::EventDiffers => "event_differs",
            Self::LostBookings => "lost_bookings",
            Self::UnrecordedBookings => "unrecorded_bookings",
            Self::BookingsDiffer => "bookings_differ",
            Self::UnreadableBookings => "unreadable_bookings",
            Self::LostExpiries => "lost_expiries",
            Self::AllowancesDiffer => "allowances_differ",
        }
    }

    /// Overdue holds are worth a word, but the stores agree about them: they wait for an API instance.
    pub(crate) const fn is_notice(self) -> bool {
        matches!(self, Self::OverdueHolds)
    }
}

/// Audits once.
pub(crate) async fn audit(pool: &PgPool, redis: &RedisLink, scope: &Scope) -> Result<Report, AuditError> {
    let started_at = Utc::now();
    let start = Instant::now();
    // PostgreSQL first: what Redis lacks after that, it lost; or a rebuild that was asked for before has taken it away.
    let recorded = snapshot::recorded(pool, &scope.shards, scope.event).await?;
    let rebuilding = repairs::open_rebuilds(pool, &scope.shards).await?;
    let live = snapshot::live_shards(redis, &scope.shards).await?;
    let rebuilding: BTreeSet<Shard> = rebuilding.into_iter().map(|rebuild| rebuild.shard).collect();
    let mut report = opened(started_at, &recorded, &live, &rebuilding);
    let sources = Sources { pool, redis };
    let mut comparisons = Vec::with_capacity(recorded.len());
    for (shard, recorded) in &recorded {
        comparisons.push(compare::shard(sources, *shard, recorded, scope).boxed());
    }
    let found: Vec<compare::Compared> =
        stream::iter(comparisons).buffer_unordered(PARALLEL).try_collect().await?;
    for compared in found {
        report.compared += compared.compared;
        report.not_compared += compared.not_compared;
        report.totals.redis += compared.totals.redis;
        report.totals.postgres += compared.totals.postgres;
        report.findings.extend(compared.findings);
    }
    if scope.with_rows {
        report.findings.extend(rows::differing(pool, scope.event).await?);
    }
    report.findings.extend(rows::overdue_holds(pool, scope.event, &report.shards).await?);
    // Of one event it takes no time to see whether PostgreSQL knows of its publication.
    if scope.deep || scope.event.is_some() {
        one_by_one::extend(&mut report, sources, scope).await?;
    }
    report.findings.sort_by_key(|finding| (finding.shard, finding.event_id, finding.ticket_type_id));
    report.drift = report.findings.iter().map(|finding| finding.drift).sum();
    report.duration_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(report)
}

/// The report as it begins: positions, and shards of which Redis lost decisions. The sequence of a shard that is being rebuilt is 0
/// until all of it is there again.
fn opened(
    started_at: DateTime<Utc>,
    recorded: &BTreeMap<Shard, Recorded>,
    live: &BTreeMap<Shard, LiveShard>,
    rebuilding: &BTreeSet<Shard>,
) -> Report {
    let mut report = Report {
        started_at,
        duration_ms: 0,
        lag: 0,
        compared: 0,
        not_compared: 0,
        bookings: 0,
        left_open: Vec::new(),
        totals: Totals::default(),
        drift: 0,
        shards: BTreeMap::new(),
        findings: Vec::new(),
    };
    for (shard, Recorded { position: postgres, .. }) in recorded {
        let live = live.get(shard);
        let redis = live.and_then(|live| live.position);
        let live_sequence = redis.unwrap_or_default().sequence;
        report.lag += live_sequence.saturating_sub(postgres.sequence);
        let certified = live.is_some_and(|live| live.certified);
        report.shards.insert(shard.number(), ShardPositions { certified, redis, postgres: *postgres });
        let is_rebuilt = !certified && rebuilding.contains(shard);
        if live_sequence < postgres.sequence && !is_rebuilt {
            report.findings.push(Finding {
                shard: *shard,
                event_id: None,
                ticket_type_id: None,
                kind: FindingKind::RedisBehind,
                detail: format!(
                    "Redis is at sequence {live_sequence} and PostgreSQL at {}: Redis lost decisions",
                    postgres.sequence
                ),
                drift: 0,
            });
        }
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redis_that_is_behind_has_lost_decisions_unless_its_shard_is_closed_for_a_rebuild() {
        let shard = Shard::from_number(3);
        let at = |sequence| Position { epoch: 2, sequence };
        let recorded = BTreeMap::from([(shard, Recorded { position: at(7), ..Recorded::default() })]);
        let found = |certified, sequence, rebuilding: &[Shard]| {
            let live = BTreeMap::from([(shard, LiveShard { certified, position: Some(at(sequence)) })]);
            let rebuilding: BTreeSet<Shard> = rebuilding.iter().copied().collect();
            opened(Utc::now(), &recorded, &live, &rebuilding).findings.len()
        };
        assert_eq!(found(false, 0, &[]), 1);
        assert_eq!(found(false, 0, &[Shard::from_number(4)]), 1);
        assert_eq!(found(false, 0, &[shard]), 0);
        // It was not begun yet, or is over: what is sold from has lost something.
        assert_eq!(found(true, 6, &[shard]), 1);
        assert_eq!(found(true, 7, &[]), 0);
    }
}
