//! How far PostgreSQL has applied each shard's log: the rows of `shards`.

use boxoffice_schema::position::Position;
use boxoffice_schema::shard::Shard;
use sqlx::{PgConnection, PgPool};

use crate::number;

/// The last decision that was applied.
pub(crate) async fn applied(pool: &PgPool, shard: Shard) -> sqlx::Result<Position> {
    let (epoch, sequence): (i32, i64) = sqlx::query_as("SELECT epoch, sequence FROM shards WHERE shard = $1")
        .bind(number::of_shard(shard))
        .fetch_one(pool)
        .await?;
    Ok(number::position(epoch, sequence))
}

/// The same, and keeps the row until the transaction ends: nobody else applies anything of the shard before.
pub(crate) async fn lock(connection: &mut PgConnection, shard: Shard) -> sqlx::Result<Position> {
    let (epoch, sequence): (i32, i64) =
        sqlx::query_as("SELECT epoch, sequence FROM shards WHERE shard = $1 FOR NO KEY UPDATE")
            .bind(number::of_shard(shard))
            .fetch_one(connection)
            .await?;
    Ok(number::position(epoch, sequence))
}
