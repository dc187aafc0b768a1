//! What Boxoffice itself says is wrong, after everything was healed: open gaps, dead letters and alarms.

use anyhow::Result;
use sqlx::{Connection, PgConnection};

/// What recovery says where Redis lost decisions that were never acknowledged, and a late relay sent them all the same:
/// refusing them is right, and only a fault that takes data from Redis can lead to it.
const AFTER_A_LOSS: &str = "ended_epoch";

/// Lists what is open and should not be. `lossy` says that faults took data from Redis.
pub(crate) async fn open(database_url: &str, lossy: bool) -> Result<Vec<String>> {
    let mut connection = PgConnection::connect(database_url).await?;
    let found: Vec<(String, String, i64)> = sqlx::query_as(
        "SELECT 'gap', 'in shard ' || shard, count(*) FROM gaps WHERE resolved_at IS NULL GROUP BY shard
         UNION ALL
         SELECT 'dead letter', kind, count(*) FROM dead_letters WHERE resolved_at IS NULL GROUP BY kind
         UNION ALL
         SELECT 'alarm', kind, count(*) FROM alarms
         WHERE resolved_at IS NULL AND NOT ($1 AND kind = $2) GROUP BY kind",
    )
    .bind(lossy)
    .bind(AFTER_A_LOSS)
    .fetch_all(&mut connection)
    .await?;
    Ok(found.into_iter().map(|(what, which, count)| format!("{count} open: {what} {which}")).collect())
}
