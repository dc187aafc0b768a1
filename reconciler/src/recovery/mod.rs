//! Certifies shards: none may sell before Redis was found to hold what PostgreSQL holds.
//!
//! The order, for each shard: apply the log to its end; take an epoch in PostgreSQL; write it to Redis, which fences
//! the shard; drain the outbox into Kafka; append a barrier; wait until the log is applied up to the barrier; compare;
//! where Redis lost something, restore it from PostgreSQL; certify. Each step checks that the epoch is still the one
//! being recovered, so a recoverer that slept changes nothing, and all that writes checks that this is the Redis in which
//! it began. Interrupted anywhere, the recovery starts over with a new epoch and ends the same.

use std::sync::Arc;
use std::time::Duration;

use boxoffice_schema::DecodeError;
use boxoffice_schema::position::Position;
use boxoffice_schema::scripts::{
    Call, RecoveryReply, RecoveryStart, begin_recovery, certify, error_code, recovering,
};
use boxoffice_schema::shard::Shard;
use redis::RedisError;
use sqlx::{PgPool, Row};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::alarm::{Alarm, AlarmKind};
use crate::findings;
use crate::kafka::{LogError, LogWriter};
use crate::number::{self, int4};
use crate::open::{self, ShardCounts};
use crate::redis_link::RedisLink;
use crate::shards;
use crate::snapshot;
use crate::standstill::Standstill;
use crate::stored::StoredError;

mod compare;
mod drain;
mod replicas;
mod restate;
mod restore;
mod scope;
mod watch;

use drain::Outboxes;

pub(crate) use scope::Scope;
pub(crate) use watch::run;

/// The longest that the application of the log may stand still before what is waited for is taken for lost.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How often PostgreSQL is asked how far the log is applied.
const APPLIED_INTERVAL: Duration = Duration::from_millis(20);

/// The most shards that are restored at the same time.
const RESTORATIONS_MAX: usize = 3;

/// Why a shard was not certified.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecoveryError {
    #[error("PostgreSQL: {0}")]
    Postgres(#[from] sqlx::Error),
    #[error("Redis: {0}")]
    Redis(#[from] RedisError),
    #[error("{0}")]
    Kafka(#[from] LogError),
    #[error("outbox entry {id} cannot be read: {error}")]
    Outbox { id: String, error: DecodeError },
    #[error("the shard has {gaps} open gaps and {poisoned} open poisoned records")]
    Blocked { gaps: i64, poisoned: i64 },
    #[error("another recovery took the shard over")]
    TakenOver,
    #[error("the application of the log does not get on; `boxoffice-reconciler status` says where it stands")]
    Stalled,
    #[error("Redis lost decisions: its last one is {redis}, that of PostgreSQL {postgres}")]
    RedisLost { redis: Position, postgres: Position },
    /// The barrier should have shown this as a gap. Nothing is restored: Redis is the one that knows more.
    #[error("the last decision of Redis is {redis}, and that of PostgreSQL, behind the barrier, {postgres}")]
    LogBehind { redis: Position, postgres: Position },
    #[error("Redis does not hold what PostgreSQL holds at the same position: {0}")]
    Mismatch(String),
    #[error(
        "Redis differs from PostgreSQL, and PostgreSQL may be the one that lacks something ({refused} refused records \
         and {differing} alarms about its counts are open): nothing is restored before they are resolved"
    )]
    Doubtful { refused: i64, differing: i64 },
    #[error("the shard cannot be restored from PostgreSQL: {0}")]
    Unrestorable(String),
    #[error("{0}")]
    Malformed(#[from] DecodeError),
}

impl From<StoredError> for RecoveryError {
    fn from(error: StoredError) -> Self {
        match error {
            StoredError::Postgres(error) => Self::Postgres(error),
            StoredError::Unreadable(what) => Self::Unrestorable(what),
        }
    }
}

impl RecoveryError {
    /// The kind of the alarm that is raised, and resolved with the next certificate.
    const fn alarm(&self) -> Option<AlarmKind> {
        match self {
            Self::RedisLost { .. } => Some(AlarmKind::RedisLost),
            Self::Mismatch(_) | Self::LogBehind { .. } => Some(AlarmKind::RecoveryMismatch),
            Self::Outbox { .. } => Some(AlarmKind::OutboxUnreadable),
            Self::Doubtful { .. } => Some(AlarmKind::RestoreDoubtful),
            Self::Unrestorable(_) => Some(AlarmKind::Unrestorable),
            _ => None,
        }
    }
}

/// What all recoveries share.
pub(crate) struct Recoverer {
    pool: PgPool,
    redis: RedisLink,
    log: Arc<LogWriter>,
    /// How many shards may be restored at the same time: each holds two pages of bookings in memory.
    restorations: Semaphore,
    outboxes: Outboxes,
}

impl Recoverer {
    /// One attempt, from the epoch to the certificate. Returns the position at which the shard was certified.
    async fn recover(&self, shard: Shard, scope: &Scope) -> Result<Position, RecoveryError> {
        // Before anything else, so that this attempt gives way to another one that takes an epoch meanwhile.
        let last_epoch = self.taken_epochs(&[shard]).await?.get(&shard).copied().unwrap_or_default();
        self.check_unblocked(shard).await?;
        self.catch_up(shard).await?;
        // An epoch is taken only for a Redis that takes writes: others would hear that the one in which it stands is over.
        self.redis.beat().await?;
        let epoch = self.take_epoch(shard, last_epoch).await?;
        let start = self.ask(&begin_recovery(&self.redis.keys, shard, epoch)).await?;
        let fenced_at = Instant::now();
        self.outboxes.keep(shard, &start);
        let drained = self.drain(shard).await?;
        let records = drained.records;
        self.outwait_old_primary(fenced_at).await?;
        // The barrier names the last decision of the Redis in which this began. Another one may have been drained, after
        // a restart or a fail-over in between, and then that decision need not be in Kafka.
        if self.ask(&recovering(&self.redis.keys, shard, epoch)).await? != start {
            return Err(RecoveryError::TakenOver);
        }
        self.log.append_barrier(shard, epoch, start.last).await?;
        self.wait_for_barrier(shard, epoch).await?;
        self.outboxes.note(shard, &start, drained);
        let Position { sequence, .. } =
            self.put_in_order(shard, start.fence(epoch), start.last, scope).await?;
        // Once more: a record that cannot be read may have been applied since this began, and counters need not show it.
        self.check_unblocked(shard).await?;
        let call = certify(&self.redis.keys, shard, epoch, sequence, &start);
        let _: i64 = self.redis.run(&call).await.map_err(stale_is_taken_over)?;
        self.outboxes.forget(shard);
        tracing::info!(%shard, epoch, sequence, drained = records, "the shard is certified");
        Ok(Position { epoch, sequence })
    }

    async fn ask(&self, call: &Call) -> Result<RecoveryStart, RecoveryError> {
        let reply: RecoveryReply = self.redis.run(call).await.map_err(stale_is_taken_over)?;
        Ok(reply.into())
    }

    async fn raise(&self, shard: Shard, error: &RecoveryError) -> sqlx::Result<()> {
        let Some(kind) = error.alarm() else { return Ok(()) };
        let alarm = Alarm { shard, event_id: None, kind, detail: error.to_string(), counts: None };
        findings::raise(&mut *self.pool.acquire().await?, &alarm).await
    }

    /// What stands in the way of any recovery must be resolved first, or each attempt would only use up an epoch.
    async fn check_unblocked(&self, shard: Shard) -> Result<(), RecoveryError> {
        let ShardCounts { gaps, poisoned, .. } = open::of_shard(&self.pool, shard).await?;
        if gaps + poisoned > 0 { Err(RecoveryError::Blocked { gaps, poisoned }) } else { Ok(()) }
    }

    /// Takes the next epoch by compare-and-set, above all that PostgreSQL or Redis know.
    async fn take_epoch(&self, shard: Shard, last_epoch: u32) -> Result<u32, RecoveryError> {
        let live = snapshot::live_shards(&self.redis, &[shard]).await?;
        let live = live.get(&shard).and_then(|live| live.position).unwrap_or_default();
        let taken: Option<i32> = sqlx::query_scalar(
            "UPDATE shards SET recovery_epoch = greatest(recovery_epoch, epoch, $3) + 1 \
             WHERE shard = $1 AND recovery_epoch = $2 RETURNING recovery_epoch",
        )
        .bind(number::of_shard(shard))
        .bind(int4(last_epoch))
        .bind(int4(live.epoch))
        .fetch_optional(&self.pool)
        .await?;
        taken.and_then(|epoch| u32::try_from(epoch).ok()).ok_or(RecoveryError::TakenOver)
    }

    /// Waits until everything is applied that the log has by now. A PostgreSQL that was restored from a backup knows nothing
    /// of the epochs that were taken since: one of their numbers would be taken again, whose barrier lies in the log already.
    async fn catch_up(&self, shard: Shard) -> Result<(), RecoveryError> {
        let end = self.log.end_of(shard).await?;
        let is_there = |_, next_offset| Ok(next_offset >= end);
        match self.wait_until_applied(shard, is_there).await {
            Err(RecoveryError::Stalled) => {
                // What others' transactions leave at the end of the log is never read, and the offset does not move past it
                // before something is. A barrier of an epoch that has begun is passed.
                let last = shards::applied(&self.pool, shard).await?;
                self.log.append_barrier(shard, last.epoch, last).await?;
                self.wait_until_applied(shard, is_there).await
            }
            caught_up => caught_up,
        }
    }

    async fn wait_for_barrier(&self, shard: Shard, epoch: u32) -> Result<(), RecoveryError> {
        let is_reached = |applied: i32, _| match applied.cmp(&int4(epoch)) {
            std::cmp::Ordering::Less => Ok(false),
            std::cmp::Ordering::Equal => Ok(true),
            std::cmp::Ordering::Greater => Err(RecoveryError::TakenOver),
        };
        self.wait_until_applied(shard, is_reached).await
    }

    /// Waits for the reconciler's own application of the log, as long as it gets on, until the epoch and the next offset
    /// that PostgreSQL has of the shard are far enough.
    async fn wait_until_applied(
        &self,
        shard: Shard,
        is_far_enough: impl Fn(i32, i64) -> Result<bool, RecoveryError>,
    ) -> Result<(), RecoveryError> {
        let mut standstill = Standstill::new();
        loop {
            let row = sqlx::query("SELECT epoch, next_offset FROM shards WHERE shard = $1")
                .bind(number::of_shard(shard))
                .fetch_one(&self.pool)
                .await?;
            let next_offset: i64 = row.try_get(1)?;
            if is_far_enough(row.try_get(0)?, next_offset)? {
                return Ok(());
            }
            if standstill.lasts(next_offset) > STALL_TIMEOUT {
                return Err(RecoveryError::Stalled);
            }
            tokio::time::sleep(APPLIED_INTERVAL).await;
        }
    }
}

/// The scripts refuse an epoch that is no longer the one being recovered.
fn stale_is_taken_over(error: RedisError) -> RecoveryError {
    match error.code() {
        Some(error_code::STALE_EPOCH | error_code::REDIS_CHANGED | error_code::MOVED) => {
            RecoveryError::TakenOver
        }
        _ => error.into(),
    }
}
