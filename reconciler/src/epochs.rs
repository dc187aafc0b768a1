//! Where each epoch of a shard began: the rows of `epochs`.

use std::collections::BTreeMap;

use boxoffice_schema::position::Position;
use boxoffice_schema::shard::Shard;
use sqlx::PgConnection;

use crate::number::{self, int4, int8};

/// The latest epochs of a shard, at most a hundred. Of an older one than these a record is judged by the oldest of them, which began
/// behind the same decision or a later one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Epochs(BTreeMap<u32, u64>);

impl Epochs {
    /// From two columns that belong together.
    pub(crate) fn from_columns(epochs: Vec<i32>, began_behind: Vec<i64>) -> Self {
        let rows = epochs.into_iter().map(number::epoch).zip(began_behind);
        Self(rows.map(|(epoch, behind)| (epoch, number::sequence(behind))).collect())
    }

    /// Writes down that epochs began.
    pub(crate) async fn write(
        connection: &mut PgConnection,
        shard: Shard,
        begun: &[Position],
    ) -> sqlx::Result<()> {
        for Position { epoch, sequence } in begun {
            sqlx::query("INSERT INTO epochs (shard, epoch, began_behind) VALUES ($1, $2, $3)")
                .bind(number::of_shard(shard))
                .bind(int4(*epoch))
                .bind(int8(*sequence))
                .execute(&mut *connection)
                .await?;
        }
        Ok(())
    }

    /// An epoch begins behind a sequence.
    pub(crate) fn begin(&mut self, epoch: u32, behind: u64) {
        self.0.insert(epoch, behind);
    }

    /// Whether a position is beyond the end of its epoch: a later epoch began before it.
    pub(crate) fn is_beyond_end(&self, position: Position) -> bool {
        let next = self.0.range(position.epoch.saturating_add(1)..).next();
        next.is_some_and(|(_, behind)| position.sequence > *behind)
    }
}

/// The decision at a sequence, the last one: its epoch is the latest that began before it. Of all epochs: a shard whose
/// recovery waits for an operator uses up a hundred in ten minutes.
pub(crate) async fn decision_at(
    connection: &mut PgConnection,
    shard: Shard,
    sequence: u64,
) -> sqlx::Result<Position> {
    let epoch: Option<i32> = sqlx::query_scalar(
        "SELECT epoch FROM epochs WHERE shard = $1 AND began_behind < $2 ORDER BY epoch DESC LIMIT 1",
    )
    .bind(number::of_shard(shard))
    .bind(int8(sequence))
    .fetch_optional(connection)
    .await?;
    Ok(Position { epoch: epoch.map_or(0, number::epoch), sequence })
}

/// Whether a position is beyond the end of its epoch, as was known before another epoch began.
pub(crate) async fn had_ended(
    connection: &mut PgConnection,
    shard: Shard,
    position: Position,
    before: u32,
) -> sqlx::Result<bool> {
    let end: Option<i64> = sqlx::query_scalar(
        "SELECT began_behind FROM epochs WHERE shard = $1 AND epoch > $2 AND epoch < $3 ORDER BY epoch LIMIT 1",
    )
    .bind(number::of_shard(shard))
    .bind(int4(position.epoch))
    .bind(int4(before))
    .fetch_optional(connection)
    .await?;
    Ok(end.is_some_and(|end| int8(position.sequence) > end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_ends_where_the_next_one_began() {
        let epochs = Epochs::from_columns(vec![1, 2, 4], vec![0, 5, 5]);
        let at = |epoch, sequence| Position { epoch, sequence };
        assert!(!epochs.is_beyond_end(at(1, 5)));
        assert!(epochs.is_beyond_end(at(1, 6)));
        assert!(epochs.is_beyond_end(at(3, 6)), "it made no decision");
        assert!(!epochs.is_beyond_end(at(4, 99)));
    }
}
