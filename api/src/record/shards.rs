//! How far the log of a shard has been applied.

use boxoffice_schema::position::Position;
use boxoffice_schema::shard::Shard;
use sqlx::postgres::PgConnection;

use super::unsigned;
use crate::database::DatabaseError;

/// The last decision of the shard that PostgreSQL has.
pub(crate) async fn applied(connection: &mut PgConnection, shard: Shard) -> Result<Position, DatabaseError> {
    let (epoch, sequence): (i32, i64) = sqlx::query_as("SELECT epoch, sequence FROM shards WHERE shard = $1")
        .bind(i32::from(shard.number()))
        .fetch_one(connection)
        .await?;
    Ok(Position { epoch: unsigned("epoch", epoch)?, sequence: unsigned("sequence", sequence)? })
}
