//! `gaps`: what an operator may do about decisions that are missing in the log.

use anyhow::{Context, ensure};
use boxoffice_schema::shard::Shard;
use sqlx::{PgConnection, PgPool};

use crate::config::Config;
use crate::kafka;
use crate::repairs::{self, Intent, Kind};

/// Lets the shard try again: the missing decisions may be in the log now. Where Kafka no longer has the shard's
/// offset, reading goes on at the oldest record there is. The sequence decides: what is still missing is a gap again.
pub(crate) async fn retry(config: &Config, pool: &PgPool, id: i64) -> anyhow::Result<()> {
    let mut transaction = pool.begin().await?;
    let (shard, _, _) = lock_open(&mut transaction, id).await?;
    move_into_log(config, &mut transaction, shard).await?;
    resolve(&mut transaction, id).await?;
    Ok(transaction.commit().await?)
}

/// Declares the missing decisions lost, or mended by other means: the shard goes on behind them. The audit shows what
/// that costs.
pub(crate) async fn accept(config: &Config, pool: &PgPool, id: i64, by: &str) -> anyhow::Result<()> {
    let mut transaction = pool.begin().await?;
    let (shard, from, to) = lock_open(&mut transaction, id).await?;
    // Where Kafka lost the shard's offset, nobody knows yet whether a decision went with it: what is read next tells.
    if !move_into_log(config, &mut transaction, shard).await? {
        pass_over(&mut transaction, id, shard, from, to).await?;
    }
    resolve(&mut transaction, id).await?;
    let before = format!("gap {id}: decisions {from} to {to} are missing");
    let number = Shard::from_number(u16::try_from(shard)?);
    let intent = Intent { kind: Kind::Gap, shard: number, event_id: None, by, before: &before };
    repairs::record(&mut transaction, &intent, "accepted as lost; the shard goes on behind them").await?;
    Ok(transaction.commit().await?)
}

/// Moves the shard behind decisions that it does without.
async fn pass_over(
    connection: &mut PgConnection,
    id: i64,
    shard: i16,
    from: i64,
    to: i64,
) -> anyhow::Result<()> {
    let moved = sqlx::query(
        "UPDATE shards SET sequence = $3, digest = NULL, updated_at = now() WHERE shard = $1 AND sequence = $2 - 1",
    )
    .bind(shard)
    .bind(from)
    .bind(to)
    .execute(connection)
    .await?;
    ensure!(
        moved.rows_affected() == 1,
        "the shard is no longer right before gap {id}; run `gaps retry {id}`"
    );
    Ok(())
}

/// The open gap's shard and bounds; the shard's row is locked first, as the reconciler does it.
async fn lock_open(connection: &mut PgConnection, id: i64) -> anyhow::Result<(i16, i64, i64)> {
    sqlx::query("SELECT FROM shards WHERE shard = (SELECT shard FROM gaps WHERE id = $1) FOR NO KEY UPDATE")
        .bind(id)
        .execute(&mut *connection)
        .await?;
    sqlx::query_as(
        "SELECT shard, from_sequence, to_sequence FROM gaps WHERE id = $1 AND resolved_at IS NULL FOR UPDATE",
    )
    .bind(id)
    .fetch_optional(connection)
    .await?
    .with_context(|| format!("there is no open gap {id}"))
}

/// Moves the shard's offset to the oldest record where the log does not have it; whether it did.
async fn move_into_log(config: &Config, connection: &mut PgConnection, shard: i16) -> anyhow::Result<bool> {
    let number = Shard::from_number(u16::try_from(shard)?);
    let found = kafka::watermarks_of(config, vec![number]).await?;
    let Some((_, found)) = found.first() else { return Ok(false) };
    let moved = sqlx::query(
        "UPDATE shards SET next_offset = $2 WHERE shard = $1 AND next_offset NOT BETWEEN $2 AND $3",
    )
    .bind(shard)
    .bind(found.low)
    .bind(found.high)
    .execute(connection)
    .await?;
    Ok(moved.rows_affected() > 0)
}

async fn resolve(connection: &mut PgConnection, id: i64) -> sqlx::Result<()> {
    sqlx::query("UPDATE gaps SET resolved_at = now() WHERE id = $1").bind(id).execute(connection).await?;
    Ok(())
}
