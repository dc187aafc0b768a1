//! The rows of `repairs`: who mended what and when, what was so before, and what after. Nothing is mended without one.

use std::os::unix::fs::MetadataExt;

use boxoffice_schema::ids::EventId;
use boxoffice_schema::scripts::error_code;
use boxoffice_schema::shard::Shard;
use chrono::{DateTime, Utc};
use redis::RedisError;
use serde::Serialize;
use sqlx::{PgConnection, PgPool};

use crate::number;
use crate::shards;

/// The most rows that `repairs list` shows.
const LIST_MAX: i64 = 100;

/// What kind of mend it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Redis is restored from PostgreSQL and the log.
    Rebuild,
    /// PostgreSQL's counts are set to what its bookings add up to.
    Counts,
    /// Bookings or an event are said once more, from Redis through the log.
    Restate,
    /// Redis' counters are moved by a difference that was found.
    Stock,
    /// The log is read again where decisions were missing, or they are accepted as lost.
    Gap,
    /// A record that was set aside is applied after all, or given up.
    DeadLetter,
    /// An alarm is closed on somebody's word.
    Alarm,
}

impl Kind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Rebuild => "rebuild",
            Self::Counts => "counts",
            Self::Restate => "restate",
            Self::Stock => "stock",
            Self::Gap => "gap",
            Self::DeadLetter => "dead_letter",
            Self::Alarm => "alarm",
        }
    }
}

/// How a mend ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// Nothing was changed.
    Refused,
    /// Redis did not answer, or the process that mended was interrupted. The log tells, and the next repair looks anew.
    Unknown,
}

impl Outcome {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }

    /// What is known of a mend in Redis that failed: Redis said no, or it did not answer.
    pub(crate) fn of_failure(error: &anyhow::Error) -> Self {
        let code = error.downcast_ref::<RedisError>().and_then(RedisError::code);
        if code.is_some_and(|code| code != error_code::WRITE_FAILED) { Self::Refused } else { Self::Unknown }
    }
}

/// Who asks for what recovery mends.
pub(crate) const RECOVERY: &str = "recovery";

/// A mend that is about to be made.
#[derive(Clone, Debug)]
pub(crate) struct Intent<'a> {
    pub(crate) kind: Kind,
    pub(crate) shard: Shard,
    /// None where the whole shard is meant.
    pub(crate) event_id: Option<EventId>,
    pub(crate) by: &'a str,
    pub(crate) before: &'a str,
}

/// A row.
#[derive(Clone, Debug, Serialize, sqlx::FromRow)]
pub(crate) struct Repair {
    pub(crate) id: i64,
    pub(crate) kind: String,
    pub(crate) shard: i16,
    pub(crate) event_id: Option<uuid::Uuid>,
    pub(crate) asked_by: String,
    pub(crate) asked_at: DateTime<Utc>,
    pub(crate) before: String,
    pub(crate) after: Option<String>,
    pub(crate) outcome: Option<String>,
    pub(crate) ended_at: Option<DateTime<Utc>>,
}

/// Who asks, where the command line does not say: the user of this process and its host.
pub(crate) fn default_name() -> String {
    let user = ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()));
    let user = user.unwrap_or_else(|| {
        let owner = std::fs::metadata("/proc/self").map(|metadata| metadata.uid());
        owner.map_or_else(|_| "unknown".to_owned(), |uid| format!("uid {uid}"))
    });
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match host.trim() {
        "" => user,
        host => format!("{user}@{host}"),
    }
}

/// Writes the row of a mend before it is made, and returns its number.
pub(crate) async fn begin(connection: &mut PgConnection, intent: &Intent<'_>) -> sqlx::Result<i64> {
    let Intent { kind, shard, event_id, by, before } = intent;
    let id = sqlx::query_scalar(
        "INSERT INTO repairs (kind, shard, event_id, asked_by, before) VALUES ($1, $2, $3, $4, $5) RETURNING id",
    )
    .bind(kind.as_str())
    .bind(number::of_shard(*shard))
    .bind(event_id.map(|id| id.as_uuid()))
    .bind(by)
    .bind(before)
    .fetch_one(connection)
    .await?;
    tracing::warn!(id, kind = kind.as_str(), %shard, by, before, "repair");
    Ok(id)
}

/// Says how a mend ended, and what is so since. One that was taken for interrupted is known after all.
pub(crate) async fn end(
    connection: &mut PgConnection,
    id: i64,
    outcome: Outcome,
    after: &str,
) -> sqlx::Result<()> {
    let ended = sqlx::query(
        "UPDATE repairs SET outcome = $2, after = $3, ended_at = now() \
         WHERE id = $1 AND coalesce(outcome, 'unknown') = 'unknown'",
    )
    .bind(id)
    .bind(outcome.as_str())
    .bind(after)
    .execute(connection)
    .await?;
    if ended.rows_affected() == 1 {
        tracing::warn!(id, outcome = outcome.as_str(), after, "repair ended");
    }
    Ok(())
}

/// Writes the row of what is done in the same transaction.
pub(crate) async fn record(
    connection: &mut PgConnection,
    intent: &Intent<'_>,
    after: &str,
) -> sqlx::Result<i64> {
    let id = begin(connection, intent).await?;
    end(connection, id, Outcome::Done, after).await?;
    Ok(id)
}

/// Asks for a rebuild; what is asked for already is joined. Returns the number of the row.
pub(crate) async fn ask_for_rebuild(pool: &PgPool, intent: &Intent<'_>) -> sqlx::Result<i64> {
    let mut transaction = pool.begin().await?;
    // The lock makes the question and the answer one step.
    shards::lock(&mut transaction, intent.shard).await?;
    let open: Option<i64> = sqlx::query_scalar(
        "SELECT id FROM repairs WHERE kind = 'rebuild' AND shard = $1 AND event_id IS NOT DISTINCT FROM $2 \
         AND outcome IS NULL",
    )
    .bind(number::of_shard(intent.shard))
    .bind(intent.event_id.map(|id| id.as_uuid()))
    .fetch_optional(&mut *transaction)
    .await?;
    let id = match open {
        Some(id) => id,
        None => begin(&mut transaction, intent).await?,
    };
    transaction.commit().await?;
    Ok(id)
}

/// A rebuild that was asked for and is not done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenRebuild {
    pub(crate) id: i64,
    pub(crate) shard: Shard,
    /// None: the whole shard.
    pub(crate) event_id: Option<EventId>,
}

/// The rebuilds of these shards that are not done.
pub(crate) async fn open_rebuilds(pool: &PgPool, shards: &[Shard]) -> sqlx::Result<Vec<OpenRebuild>> {
    let numbers: Vec<i16> = shards.iter().copied().map(number::of_shard).collect();
    let rows: Vec<(i64, i16, Option<uuid::Uuid>)> = sqlx::query_as(
        "SELECT id, shard, event_id FROM repairs \
         WHERE outcome IS NULL AND kind = 'rebuild' AND shard = ANY ($1) ORDER BY id",
    )
    .bind(numbers)
    .fetch_all(pool)
    .await?;
    let open = |(id, shard, event): (i64, i16, Option<uuid::Uuid>)| OpenRebuild {
        id,
        shard: number::shard(shard),
        event_id: event.map(EventId::from_uuid),
    };
    Ok(rows.into_iter().map(open).collect())
}

/// Ends the mends of a shard that were interrupted and left open: recovery's own, or those by hand. Nobody may be at work on them: the
/// caller is the one that recovers the shard, or holds its repair lock.
pub(crate) async fn end_interrupted(pool: &PgPool, shard: Shard, are_of_recovery: bool) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE repairs SET outcome = $3, after = $4, ended_at = now() \
         WHERE outcome IS NULL AND kind <> $2 AND shard = $1 AND (asked_by = $5) = $6",
    )
    .bind(number::of_shard(shard))
    .bind(Kind::Rebuild.as_str())
    .bind(Outcome::Unknown.as_str())
    .bind("the process was interrupted; whether it was done stands in the log")
    .bind(RECOVERY)
    .bind(are_of_recovery)
    .execute(pool)
    .await?;
    Ok(())
}

/// Reads rows by their numbers.
pub(crate) async fn by_id(pool: &PgPool, ids: &[i64]) -> sqlx::Result<Vec<Repair>> {
    sqlx::query_as("SELECT * FROM repairs WHERE id = ANY ($1) ORDER BY id").bind(ids).fetch_all(pool).await
}

/// The latest rows, oldest first.
pub(crate) async fn list(pool: &PgPool) -> sqlx::Result<Vec<Repair>> {
    sqlx::query_as("SELECT * FROM (SELECT * FROM repairs ORDER BY id DESC LIMIT $1) AS latest ORDER BY id")
        .bind(LIST_MAX)
        .fetch_all(pool)
        .await
}
