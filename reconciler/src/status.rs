//! `status`: where everything stands, and whether that is healthy.

use std::collections::BTreeMap;
use std::time::Duration;

use boxoffice_schema::memory::{LIMIT_PERCENT, is_short};
use boxoffice_schema::position::Position;
use boxoffice_schema::shard::Shard;
use chrono::{DateTime, TimeDelta, Utc};
use redis::{InfoDict, RedisError};
use serde::Serialize;
use sqlx::PgPool;

use crate::config::Config;
use crate::number;
use crate::open::{self, Open};
use crate::redis_link::RedisLink;
use crate::snapshot::{self, LiveShard};
use crate::{kafka, postgres, servers};

/// A status is asked for when something is wrong: it says so soon.
const PATIENCE: Duration = Duration::from_secs(3);

/// An audit is late when it has not begun for so long, beyond its interval and what the last one took twice over. Whoever stands
/// in for the service makes none, and the service may have been given another interval than this process.
const AUDIT_LATE_AFTER: TimeDelta = TimeDelta::minutes(10);

/// Decisions that stand still for so long are a problem.
const STANDS_STILL_MS: i64 = 60_000;

/// How long what stands still is watched: of a shard that was quiet for hours a record may have come just now.
const WATCHED: Duration = Duration::from_secs(2);

/// Where everything stands.
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    pub(crate) healthy: bool,
    /// Why not.
    pub(crate) problems: Vec<String>,
    pub(crate) lease: Option<LeaseHolder>,
    pub(crate) shards: Vec<ShardStatus>,
    pub(crate) open: Open,
    pub(crate) last_reconciliation: Option<LastReconciliation>,
}

#[derive(Debug, Serialize)]
pub(crate) struct LeaseHolder {
    pub(crate) holder: String,
    pub(crate) expires_at: DateTime<Utc>,
}

#[derive(Debug, Serialize, sqlx::FromRow)]
pub(crate) struct LastReconciliation {
    pub(crate) started_at: DateTime<Utc>,
    pub(crate) duration_ms: i64,
    pub(crate) lag: i64,
    pub(crate) compared: i32,
    pub(crate) not_compared: i32,
    pub(crate) drift: i64,
    pub(crate) ok: bool,
}

/// One shard in all three stores; what a store that is away would say is none.
#[derive(Debug, Serialize)]
pub(crate) struct ShardStatus {
    pub(crate) shard: Shard,
    pub(crate) certified: Option<bool>,
    pub(crate) redis: Option<Position>,
    pub(crate) postgres: Position,
    pub(crate) recovery_epoch: i32,
    pub(crate) next_offset: i64,
    /// Records in Kafka that are not applied.
    pub(crate) lag_records: Option<i64>,
    /// How long ago PostgreSQL last moved on.
    pub(crate) applied_ms_ago: i64,
    /// How long the oldest decision has waited in Redis for Kafka.
    pub(crate) outbox_age_ms: Option<i64>,
}

impl ShardStatus {
    /// Whether Kafka has records that were not applied for some time.
    fn stands_still(&self) -> bool {
        self.lag_records.is_some_and(|lag| lag > 0) && self.applied_ms_ago > STANDS_STILL_MS
    }

    /// Whether decisions have waited in Redis for some time. Of a shard without a certificate they stay there until it has one.
    fn is_unrelayed(&self) -> bool {
        self.certified != Some(false) && self.outbox_age_ms.is_some_and(|age| age > STANDS_STILL_MS)
    }
}

/// Asks all servers. PostgreSQL must answer; what another does not say is a problem in the answer.
pub(crate) async fn status(config: &Config) -> anyhow::Result<Status> {
    let pool = postgres::pool(config)?;
    let installation = || async { postgres::check_installation(&pool, config.shards).await };
    servers::wait_for("PostgreSQL", PATIENCE, installation).await??;
    let mut problems = Vec::new();
    let shards: Vec<Shard> = config.shards.shards().collect();
    let redis = RedisLink::new(config)?;
    let live = async {
        let standing = snapshot::live_shards(&redis, &shards).await?;
        Ok((standing, outbox_ages(&redis, &shards).await?, memory(&redis).await?))
    };
    let (live, outboxes, memory) = live.await.unwrap_or_else(|error: RedisError| {
        problems.push(format!("Redis does not answer: {error}"));
        Default::default()
    });
    let ends: BTreeMap<Shard, i64> = match kafka::watermarks_of(config, shards).await {
        Ok(ends) => ends.into_iter().map(|(shard, found)| (shard, found.high)).collect(),
        Err(error) => {
            problems.push(format!("{error:#}"));
            BTreeMap::new()
        }
    };
    let mut shards = read_shards(&pool, &live, &ends, &outboxes).await?;
    if shards.iter().any(ShardStatus::stands_still) {
        tokio::time::sleep(WATCHED).await;
        shards = read_shards(&pool, &live, &ends, &outboxes).await?;
    }
    let lease = read_lease(&pool).await?;
    let open = open::read(&pool).await?;
    let last_reconciliation: Option<LastReconciliation> =
        sqlx::query_as("SELECT * FROM reconciliations ORDER BY started_at DESC LIMIT 1")
            .fetch_optional(&pool)
            .await?;
    problems.extend(find_problems(&shards, lease.as_ref(), &open));
    problems.extend(find_memory_problem(memory));
    problems.extend(find_audit_problems(
        last_reconciliation.as_ref(),
        lease.is_some().then_some(config.audit_interval),
        Utc::now(),
    ));
    pool.close().await;
    Ok(Status { healthy: problems.is_empty(), problems, lease, shards, open, last_reconciliation })
}

async fn read_shards(
    pool: &PgPool,
    live: &BTreeMap<Shard, LiveShard>,
    ends: &BTreeMap<Shard, i64>,
    outboxes: &BTreeMap<Shard, i64>,
) -> sqlx::Result<Vec<ShardStatus>> {
    let rows: Vec<(i16, i32, i32, i64, i64, i64)> = sqlx::query_as(
        "SELECT shard, recovery_epoch, epoch, sequence, next_offset, \
                (extract(epoch FROM now() - updated_at) * 1000)::int8 FROM shards ORDER BY shard",
    )
    .fetch_all(pool)
    .await?;
    let status = |(number, recovery_epoch, epoch, sequence, next_offset, applied_ms_ago)| {
        let shard = number::shard(number);
        let live = live.get(&shard);
        ShardStatus {
            shard,
            certified: live.map(|live| live.certified),
            redis: live.and_then(|live| live.position),
            postgres: number::position(epoch, sequence),
            recovery_epoch,
            next_offset,
            lag_records: ends.get(&shard).map(|end| end - next_offset),
            applied_ms_ago,
            outbox_age_ms: outboxes.get(&shard).copied(),
        }
    };
    Ok(rows.into_iter().map(status).collect())
}

/// How long the head of each outbox has waited by Redis' clock, in milliseconds; of those only that are not empty.
async fn outbox_ages(redis: &RedisLink, shards: &[Shard]) -> Result<BTreeMap<Shard, i64>, RedisError> {
    let keys = &redis.keys;
    let mut pipeline = redis::pipe();
    for shard in shards {
        pipeline.cmd("XLEN").arg(keys.outbox(*shard)).cmd("HGET").arg(keys.shard(*shard)).arg("head_ms");
    }
    let found: Vec<Option<i64>> = redis.ask_all(&pipeline).await?;
    let (seconds, _): (i64, i64) = redis.ask(&redis::cmd("TIME")).await?;
    let age = |(shard, found): (&Shard, &[Option<i64>])| match found {
        [Some(1..), Some(head_ms)] => Some((*shard, (seconds * 1_000 - head_ms).max(0))),
        _ => None,
    };
    Ok(shards.iter().zip(found.chunks(2)).filter_map(age).collect())
}

/// What Redis uses of its memory and its `maxmemory`, in bytes, where it says both.
async fn memory(redis: &RedisLink) -> Result<Option<(u64, u64)>, RedisError> {
    let info: InfoDict = redis.ask(redis::cmd("INFO").arg("memory")).await?;
    Ok(info.get::<u64>("used_memory").zip(info.get::<u64>("maxmemory")))
}

async fn read_lease(pool: &PgPool) -> sqlx::Result<Option<LeaseHolder>> {
    let row: Option<(String, DateTime<Utc>)> =
        sqlx::query_as("SELECT holder, expires_at FROM leases WHERE name = $1 AND expires_at > now()")
            .bind(crate::lease::RECONCILER)
            .fetch_optional(pool)
            .await?;
    Ok(row.map(|(holder, expires_at)| LeaseHolder { holder, expires_at }))
}

/// The shards of a kind, if there are any.
fn named(shards: &[ShardStatus], is_one: impl Fn(&ShardStatus) -> bool) -> Option<String> {
    let names: Vec<_> = shards.iter().filter(|of| is_one(of)).map(|of| of.shard.to_string()).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

fn find_problems(shards: &[ShardStatus], lease: Option<&LeaseHolder>, open: &Open) -> Vec<String> {
    let mut problems = Vec::new();
    if lease.is_none() {
        problems.push(
            "no reconciler is running, or it hangs: start `boxoffice-reconciler run`, or kill it first, which is safe at any \
             time"
                .to_owned(),
        );
    }
    let uncertified = named(shards, |shard| shard.certified == Some(false));
    problems.extend(uncertified.map(|them| {
        format!(
            "not certified, and therefore not selling: {them}; what is open says why, or the log of the reconciler that holds \
             the lease (\"the shard is not certified\")"
        )
    }));
    let standing = named(shards, ShardStatus::stands_still);
    problems.extend(standing.map(|them| {
        format!(
            "Kafka has records that nobody has applied for a minute, of {them}: the log of the reconciler that holds the \
             lease says why"
        )
    }));
    let unrelayed = named(shards, ShardStatus::is_unrelayed);
    problems.extend(unrelayed.map(|them| {
        format!(
            "decisions have waited in Redis for a minute, of {them}: no API relays them, or Kafka does not take them; the \
             logs of the APIs say which"
        )
    }));
    if !open.is_empty() {
        problems.push(format!(
            "{} gaps, {} dead letters, {} alarms and {} repairs are open",
            open.gaps, open.dead_letters, open.alarms, open.repairs
        ));
    }
    problems
}

/// The shards are certified, and yet nothing is sold.
fn find_memory_problem(memory: Option<(u64, u64)>) -> Option<String> {
    let (used, max) = memory.filter(|(used, max)| is_short(*used, *max))?;
    Some(format!(
        "Redis uses {} of the {} MiB of its maxmemory, and refuses new bookings past {LIMIT_PERCENT} %: raise it, as \
         \"Redis is full\" in docs/OPERATIONS.md says",
        used >> 20,
        max >> 20
    ))
}

/// `interval` is between audits, where somebody makes them.
fn find_audit_problems(
    last: Option<&LastReconciliation>,
    interval: Option<Duration>,
    now: DateTime<Utc>,
) -> Vec<String> {
    let Some(last) = last else { return vec!["nothing was ever reconciled".to_owned()] };
    let mut problems = Vec::new();
    if !last.ok {
        problems.push(format!(
            "the last reconciliation found differences ({} tickets): see `boxoffice-reconciler audit`",
            last.drift
        ));
    }
    let age = now - last.started_at;
    let is_late = |interval: Duration| {
        let usual = TimeDelta::from_std(interval).unwrap_or(TimeDelta::MAX);
        age.checked_sub(&usual).is_some_and(|late| {
            late - TimeDelta::milliseconds(2 * last.duration_ms.clamp(0, 86_400_000)) > AUDIT_LATE_AFTER
        })
    };
    if interval.is_some_and(is_late) {
        problems.push(format!(
            "the last reconciliation began {} s ago: the log of the reconciler that holds the lease says why",
            age.num_seconds()
        ));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(seconds_ago: i64, duration_ms: i64, interval: Option<Duration>) -> usize {
        let now = Utc::now();
        let last = LastReconciliation {
            started_at: now - TimeDelta::seconds(seconds_ago),
            duration_ms,
            lag: 0,
            compared: 1,
            not_compared: 0,
            drift: 0,
            ok: true,
        };
        find_audit_problems(Some(&last), interval, now).len()
    }

    #[test]
    fn an_audit_that_is_long_ago_although_a_reconciler_runs_is_a_problem() {
        let interval = Some(Duration::from_secs(5));
        assert_eq!(problems(604, 0, interval), 0);
        assert_eq!(problems(606, 0, interval), 1);
        assert_eq!(problems(606, 10_000, interval), 0, "they take their time here");
        assert_eq!(problems(6_000, 0, None), 0, "that none runs is said anyway");
    }

    #[test]
    fn a_redis_without_room_for_new_bookings_is_a_problem() {
        let problem = |used: u64| find_memory_problem(Some((used << 20, 1_000 << 20)));
        assert_eq!(problem(800), None);
        let said = problem(801).expect("bookings are refused");
        assert!(said.contains("801 of the 1000 MiB"), "{said}");
        assert_eq!(find_memory_problem(None), None, "that Redis does not answer is said anyway");
    }
}
