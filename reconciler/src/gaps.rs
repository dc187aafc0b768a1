//! `gaps`: what an operator may do about decisions that are missing in the log.

use std::fmt;

use anyhow::{Context, ensure};
use sqlx::{PgConnection, PgPool};

use crate::config::Config;
use crate::kafka::{self, Watermarks};
use crate::number;
use crate::repairs::{self, Intent, Kind};

/// What a gap says.
#[derive(sqlx::FromRow)]
pub(crate) struct Missing {
    pub(crate) from_sequence: i64,
    pub(crate) to_sequence: i64,
    pub(crate) kafka_offset: i64,
    /// Whether Kafka did not have that offset. The numbers are a guess then: nobody knows which decisions went with it, if any.
    pub(crate) offset_lost: bool,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from_sequence, to_sequence, kafka_offset, offset_lost } = self;
        if *offset_lost {
            write!(f, "Kafka does not have offset {kafka_offset}, at which the shard goes on")
        } else {
            write!(f, "decisions {from_sequence} to {to_sequence} are missing")
        }
    }
}

/// An open gap.
#[derive(sqlx::FromRow)]
struct Open {
    shard: i16,
    #[sqlx(flatten)]
    missing: Missing,
}

/// Lets the shard try again: the missing decisions may be in the log now, at its offset, or at another one that is named. Where Kafka
/// did not have the shard's offset and none is named, reading goes on at the oldest record there is. The sequence decides: what was
/// applied is passed, and what is still missing is a gap again.
pub(crate) async fn retry(config: &Config, pool: &PgPool, id: i64, from: Option<i64>) -> anyhow::Result<()> {
    let mut transaction = pool.begin().await?;
    let gap = lock_open(&mut transaction, id).await?;
    match from {
        Some(offset) => read_from(config, &mut transaction, gap.shard, offset).await?,
        None if gap.missing.offset_lost => read_from_oldest(config, &mut transaction, gap.shard).await?,
        None => {}
    }
    resolve(&mut transaction, id).await?;
    Ok(transaction.commit().await?)
}

/// Declares the missing decisions lost, or mended by other means: the shard goes on behind them. The audit shows what
/// that costs. Where Kafka did not have the shard's offset, nobody knows yet whether a decision went with it: what is read next
/// tells. Returns in words which of the two it was.
pub(crate) async fn accept(
    config: &Config,
    pool: &PgPool,
    id: i64,
    by: &str,
) -> anyhow::Result<&'static str> {
    let mut transaction = pool.begin().await?;
    let gap = lock_open(&mut transaction, id).await?;
    let after = if gap.missing.offset_lost {
        read_from_oldest(config, &mut transaction, gap.shard).await?;
        "the shard reads on from the oldest record; what is missing is a gap again"
    } else {
        pass_over(&mut transaction, id, &gap).await?;
        "accepted as lost; the shard goes on behind them"
    };
    resolve(&mut transaction, id).await?;
    let before = format!("gap {id}: {}", gap.missing);
    let intent =
        Intent { kind: Kind::Gap, shard: number::shard(gap.shard), event_id: None, by, before: &before };
    repairs::record(&mut transaction, &intent, after).await?;
    transaction.commit().await?;
    Ok(after)
}

/// Moves the shard behind decisions that it does without.
async fn pass_over(connection: &mut PgConnection, id: i64, gap: &Open) -> anyhow::Result<()> {
    let moved = sqlx::query(
        "UPDATE shards SET sequence = $3, digest = NULL, updated_at = now() WHERE shard = $1 AND sequence = $2 - 1",
    )
    .bind(gap.shard)
    .bind(gap.missing.from_sequence)
    .bind(gap.missing.to_sequence)
    .execute(connection)
    .await?;
    ensure!(
        moved.rows_affected() == 1,
        "the shard is no longer right before gap {id}; run `gaps retry {id}`"
    );
    Ok(())
}

/// The open gap; the shard's row is locked first, as the reconciler does it.
async fn lock_open(connection: &mut PgConnection, id: i64) -> anyhow::Result<Open> {
    sqlx::query("SELECT FROM shards WHERE shard = (SELECT shard FROM gaps WHERE id = $1) FOR NO KEY UPDATE")
        .bind(id)
        .execute(&mut *connection)
        .await?;
    sqlx::query_as(
        "SELECT shard, from_sequence, to_sequence, kafka_offset, offset_lost FROM gaps \
         WHERE id = $1 AND resolved_at IS NULL FOR UPDATE",
    )
    .bind(id)
    .fetch_optional(connection)
    .await?
    .with_context(|| format!("there is no open gap {id}"))
}

/// Moves the shard's offset to the oldest record, whatever the log has by now under the offset that it did not have. What was
/// applied before is passed.
async fn read_from_oldest(config: &Config, connection: &mut PgConnection, shard: i16) -> anyhow::Result<()> {
    let found = bounds_of(config, shard).await?;
    Ok(move_to(connection, shard, found.low).await?)
}

/// Moves the shard's offset to where somebody says that its decisions lie. A log that was cut, or made anew, and has grown past the
/// offset since has another record there, and the missing ones before it.
async fn read_from(
    config: &Config,
    connection: &mut PgConnection,
    shard: i16,
    offset: i64,
) -> anyhow::Result<()> {
    let found = bounds_of(config, shard).await?;
    ensure!(
        found.have(offset),
        "the log of shard {shard} has no offset {offset}: it has {} to {}",
        found.low,
        found.high
    );
    Ok(move_to(connection, shard, offset).await?)
}

async fn bounds_of(config: &Config, shard: i16) -> anyhow::Result<Watermarks> {
    let found = kafka::watermarks_of(config, vec![number::shard(shard)]).await?;
    found.first().map(|(_, found)| *found).context("Kafka does not tell where the log begins")
}

async fn move_to(connection: &mut PgConnection, shard: i16, offset: i64) -> sqlx::Result<()> {
    sqlx::query("UPDATE shards SET next_offset = $2 WHERE shard = $1")
        .bind(shard)
        .bind(offset)
        .execute(connection)
        .await?;
    Ok(())
}

async fn resolve(connection: &mut PgConnection, id: i64) -> sqlx::Result<()> {
    sqlx::query("UPDATE gaps SET resolved_at = now() WHERE id = $1").bind(id).execute(connection).await?;
    Ok(())
}
