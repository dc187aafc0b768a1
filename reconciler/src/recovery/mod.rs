//! Certifies shards: none may sell before Redis was found to hold what PostgreSQL holds.
//!
//! The order, for each shard: take an epoch in PostgreSQL; write it to Redis, which fences the shard; drain the
//! outbox into Kafka; append a barrier; wait until the log is applied up to the barrier; compare; certify. Each step
//! checks that the epoch is still the one being recovered, so a recoverer that slept changes nothing. Interrupted
//! anywhere, the recovery starts over with a new epoch and ends the same.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use boxoffice_schema::DecodeError;
use boxoffice_schema::keys::Keys;
use boxoffice_schema::position::Position;
use boxoffice_schema::scripts::{RecoveryStart, begin_recovery, certify, error_code};
use boxoffice_schema::shard::Shard;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::RedisError;
use sqlx::{PgPool, Row};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::apply::write::{int2, int4};
use crate::backoff::Backoff;
use crate::config::Config;
use crate::findings::{self, Alarm};
use crate::kafka::{LogWriter, SendError};
use crate::redis_link::RedisLink;
use crate::snapshot;
use crate::telemetry::name;

mod compare;
mod drain;

/// How often certificates are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// The most shards that are recovered at the same time.
const PARALLEL_MAX: usize = 16;

/// The longest that the log may stand still before the barrier is taken for lost.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How often PostgreSQL is asked whether the barrier is applied.
const APPLIED_INTERVAL: Duration = Duration::from_millis(20);

/// Alarms that a certificate puts right.
const RESOLVED_BY_CERTIFICATE: &[&str] = &[ALARM_REDIS_LOST, ALARM_MISMATCH, ALARM_OUTBOX];

const ALARM_REDIS_LOST: &str = "redis_lost";
const ALARM_MISMATCH: &str = "recovery_mismatch";
const ALARM_OUTBOX: &str = "outbox_unreadable";

/// Why a shard was not certified.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecoveryError {
    #[error("PostgreSQL: {0}")]
    Postgres(#[from] sqlx::Error),
    #[error("Redis: {0}")]
    Redis(#[from] RedisError),
    #[error("{0}")]
    Kafka(#[from] SendError),
    #[error("outbox entry {id} cannot be read: {error}")]
    Outbox { id: String, error: DecodeError },
    #[error("the shard has {gaps} open gaps and {poisoned} open poisoned records")]
    Blocked { gaps: i64, poisoned: i64 },
    #[error("another recovery took the shard over")]
    TakenOver,
    #[error("the log was not applied up to the barrier")]
    Stalled,
    #[error("Redis lost decisions: it is at sequence {redis}, PostgreSQL at {postgres}; the shard must be rebuilt")]
    RedisLost { redis: u64, postgres: u64 },
    #[error("Redis does not hold what PostgreSQL holds at the same position: {0}")]
    Mismatch(String),
}

/// What a recovery works with.
pub(crate) struct Recoverer<'a> {
    pool: &'a PgPool,
    redis: &'a RedisLink,
    log: &'a LogWriter,
    keys: &'a Keys,
}

/// A shard's row, before its recovery.
struct Standing {
    recovery_epoch: i32,
    epoch: u32,
    sequence: u64,
}

type Recovery<'a> = Pin<Box<dyn Future<Output = (Shard, Result<(), RecoveryError>)> + Send + 'a>>;

/// Watches the certificates and recovers what lacks one, until the shutdown.
pub(crate) async fn run(
    config: Config,
    pool: PgPool,
    redis: RedisLink,
    log: Arc<LogWriter>,
    shutdown: CancellationToken,
) {
    let recoverer = Recoverer { pool: &pool, redis: &redis, log: &log, keys: &config.keys() };
    let shards: Vec<Shard> = config.shards.shards().collect();
    let mut pauses: BTreeMap<Shard, Pause> = BTreeMap::new();
    let mut running: FuturesUnordered<Recovery<'_>> = FuturesUnordered::new();
    let mut in_progress = std::collections::BTreeSet::new();
    let mut look = tokio::time::interval(LOOK_INTERVAL);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut redis_answers = true;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = look.tick() => {
                let uncertified = recoverer.uncertified(&shards, &mut redis_answers).await;
                for shard in uncertified {
                    let due = pauses.get(&shard).is_none_or(Pause::is_over);
                    if due && running.len() < PARALLEL_MAX && in_progress.insert(shard) {
                        let recoverer = &recoverer;
                        running.push(Box::pin(async move { (shard, recoverer.recover(shard).await) }));
                    }
                }
            }
            Some((shard, result)) = running.next() => {
                in_progress.remove(&shard);
                match recoverer.conclude(shard, result).await {
                    Ok(()) => { pauses.remove(&shard); }
                    Err(said) => pauses.entry(shard).or_default().prolong(shard, &said),
                }
            }
        }
    }
}

/// The wait between two attempts at one shard.
struct Pause {
    backoff: Backoff,
    until: Instant,
    said: String,
}

impl Default for Pause {
    fn default() -> Self {
        let backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(5));
        Self { backoff, until: Instant::now(), said: String::new() }
    }
}

impl Pause {
    fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    /// Logs why, but the same reason only once.
    fn prolong(&mut self, shard: Shard, why: &str) {
        self.until = Instant::now() + self.backoff.next_delay();
        if self.said != why {
            tracing::warn!(%shard, why, "the shard is not certified; trying again");
            why.clone_into(&mut self.said);
        }
    }
}

impl Recoverer<'_> {
    /// The shards that may not sell; none while Redis does not answer.
    async fn uncertified(&self, shards: &[Shard], redis_answers: &mut bool) -> Vec<Shard> {
        match snapshot::live_shards(self.redis, self.keys, shards).await {
            Ok(found) => {
                if !std::mem::replace(redis_answers, true) {
                    tracing::info!("Redis answers again");
                }
                let uncertified: Vec<_> =
                    found.into_iter().filter(|(_, s)| !s.certified).map(|(shard, _)| shard).collect();
                let certified = u32::try_from(shards.len() - uncertified.len()).unwrap_or(u32::MAX);
                metrics::gauge!(name::CERTIFIED_SHARDS).set(certified);
                uncertified
            }
            Err(error) => {
                if std::mem::replace(redis_answers, false) {
                    tracing::warn!(%error, "Redis does not answer; looking again until it does");
                }
                metrics::gauge!(name::CERTIFIED_SHARDS).set(0);
                Vec::new()
            }
        }
    }

    /// One attempt, from the epoch to the certificate.
    async fn recover(&self, shard: Shard) -> Result<(), RecoveryError> {
        let standing = self.check_unblocked(shard).await?;
        let epoch = self.take_epoch(shard, &standing).await?;
        let (identity, sequence): (String, u64) =
            self.redis.run(&begin_recovery(self.keys, shard, epoch)).await.map_err(stale_is_taken_over)?;
        let start = RecoveryStart { identity, sequence };
        let drained = self.drain(shard).await?;
        let barrier = Position { epoch, sequence: start.sequence };
        self.append_barrier(shard, standing.epoch, barrier).await?;
        self.wait_until_applied(shard, epoch).await?;
        self.compare(shard, barrier).await?;
        let call = certify(self.keys, shard, epoch, start.sequence, &start);
        let _: i64 = self.redis.run(&call).await.map_err(stale_is_taken_over)?;
        tracing::info!(%shard, epoch, sequence = start.sequence, drained, "the shard is certified");
        Ok(())
    }

    /// What stands in the way of any recovery must be resolved first, or each attempt would only use up an epoch.
    async fn check_unblocked(&self, shard: Shard) -> Result<Standing, RecoveryError> {
        let row = sqlx::query(include_str!("standing.sql"))
            .bind(int2(shard.number()))
            .fetch_one(self.pool)
            .await?;
        let (gaps, poisoned): (i64, i64) = (row.try_get(3)?, row.try_get(4)?);
        if gaps + poisoned > 0 {
            return Err(RecoveryError::Blocked { gaps, poisoned });
        }
        Ok(Standing {
            recovery_epoch: row.try_get(0)?,
            epoch: u32::try_from(row.try_get::<i32, _>(1)?).unwrap_or(0),
            sequence: u64::try_from(row.try_get::<i64, _>(2)?).unwrap_or(0),
        })
    }

    /// Takes the next epoch by compare-and-set, above all that PostgreSQL or Redis know.
    async fn take_epoch(&self, shard: Shard, standing: &Standing) -> Result<u32, RecoveryError> {
        let live = snapshot::live_shards(self.redis, self.keys, &[shard]).await?;
        let live = live.get(&shard).and_then(|live| live.position).unwrap_or_default();
        if standing.sequence > live.sequence {
            return Err(RecoveryError::RedisLost { redis: live.sequence, postgres: standing.sequence });
        }
        let taken: Option<i32> = sqlx::query_scalar(
            "UPDATE shards SET recovery_epoch = greatest(recovery_epoch, epoch, $3) + 1 \
             WHERE shard = $1 AND recovery_epoch = $2 RETURNING recovery_epoch",
        )
        .bind(int2(shard.number()))
        .bind(standing.recovery_epoch)
        .bind(int4(live.epoch))
        .fetch_optional(self.pool)
        .await?;
        taken.and_then(|epoch| u32::try_from(epoch).ok()).ok_or(RecoveryError::TakenOver)
    }

    /// Waits for the reconciler's own application of the log, as long as it gets on.
    async fn wait_until_applied(&self, shard: Shard, epoch: u32) -> Result<(), RecoveryError> {
        let mut last_offset = -1;
        let mut moved_at = Instant::now();
        loop {
            let row = sqlx::query("SELECT epoch, next_offset FROM shards WHERE shard = $1")
                .bind(int2(shard.number()))
                .fetch_one(self.pool)
                .await?;
            let (applied, next_offset): (i32, i64) = (row.try_get(0)?, row.try_get(1)?);
            match applied.cmp(&int4(epoch)) {
                std::cmp::Ordering::Equal => return Ok(()),
                std::cmp::Ordering::Greater => return Err(RecoveryError::TakenOver),
                std::cmp::Ordering::Less => {}
            }
            if next_offset != last_offset {
                last_offset = next_offset;
                moved_at = Instant::now();
            } else if moved_at.elapsed() > STALL_TIMEOUT {
                return Err(RecoveryError::Stalled);
            }
            tokio::time::sleep(APPLIED_INTERVAL).await;
        }
    }

    /// Counts and raises what an attempt came to; `Err` holds the reason in words.
    async fn conclude(&self, shard: Shard, result: Result<(), RecoveryError>) -> Result<(), String> {
        let (outcome, alarm) = match &result {
            Ok(()) => ("certified", None),
            Err(RecoveryError::RedisLost { .. }) => ("redis_lost", Some(ALARM_REDIS_LOST)),
            Err(RecoveryError::Mismatch(_)) => ("mismatch", Some(ALARM_MISMATCH)),
            Err(RecoveryError::Outbox { .. }) => ("outbox_unreadable", Some(ALARM_OUTBOX)),
            Err(_) => ("failed", None),
        };
        metrics::counter!(name::RECOVERIES, "outcome" => outcome).increment(1);
        let why = result.as_ref().err().map(ToString::to_string);
        if let Err(error) = self.record(shard, why.as_deref(), alarm).await {
            tracing::warn!(%shard, %error, "the outcome of a recovery was not recorded");
        }
        result.map_err(|error| error.to_string())
    }

    async fn record(&self, shard: Shard, why: Option<&str>, alarm: Option<&'static str>) -> sqlx::Result<()> {
        let mut connection = self.pool.acquire().await?;
        match (why, alarm) {
            (None, _) => findings::resolve(&mut connection, shard, RESOLVED_BY_CERTIFICATE).await,
            (Some(detail), Some(kind)) => {
                let alarm = Alarm { shard, event_id: None, kind, detail: detail.to_owned() };
                findings::raise(&mut connection, &alarm).await
            }
            (Some(_), None) => Ok(()),
        }
    }
}

/// The scripts refuse an epoch that is no longer the one being recovered.
fn stale_is_taken_over(error: RedisError) -> RecoveryError {
    match error.code() {
        Some(error_code::STALE_EPOCH | error_code::REDIS_CHANGED | error_code::MOVED) => RecoveryError::TakenOver,
        _ => error.into(),
    }
}
