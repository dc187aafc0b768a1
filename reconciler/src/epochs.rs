//! Where each epoch of a shard began: the rows of `epochs`.

use std::collections::BTreeMap;

use boxoffice_schema::position::Position;
use boxoffice_schema::shard::Shard;
use sqlx::PgConnection;

use crate::apply::write::{int2, int4, int8};

/// The latest epochs of a shard, at most a hundred. A record of an older one than these is not told from one that was
/// applied; no relay sleeps through a hundred recoveries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Epochs(BTreeMap<u32, u64>);

impl Epochs {
    /// From two columns that belong together.
    pub(crate) fn from_columns(epochs: Vec<i32>, began_behind: Vec<i64>) -> Self {
        let number = |epoch| u32::try_from(epoch).unwrap_or(0);
        let rows = epochs.into_iter().map(number).zip(began_behind);
        Self(rows.map(|(epoch, behind)| (epoch, u64::try_from(behind).unwrap_or(0))).collect())
    }

    /// Reads those of one shard.
    pub(crate) async fn read(connection: &mut PgConnection, shard: Shard) -> sqlx::Result<Self> {
        let rows: Vec<(i32, i64)> = sqlx::query_as(
            "SELECT epoch, began_behind FROM epochs WHERE shard = $1 ORDER BY epoch DESC LIMIT 100",
        )
        .bind(int2(shard.number()))
        .fetch_all(connection)
        .await?;
        let (epochs, began_behind) = rows.into_iter().unzip();
        Ok(Self::from_columns(epochs, began_behind))
    }

    /// Writes down that epochs began.
    pub(crate) async fn write(
        connection: &mut PgConnection,
        shard: Shard,
        begun: &[Position],
    ) -> sqlx::Result<()> {
        for Position { epoch, sequence } in begun {
            sqlx::query("INSERT INTO epochs (shard, epoch, began_behind) VALUES ($1, $2, $3)")
                .bind(int2(shard.number()))
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

    /// The decision at a sequence, the last one: its epoch is the latest that began before it.
    pub(crate) fn decision_at(&self, sequence: u64) -> Position {
        let epoch =
            self.0.iter().rev().find(|(_, behind)| **behind < sequence).map_or(0, |(epoch, _)| *epoch);
        Position { epoch, sequence }
    }

    /// What was known before an epoch began.
    pub(crate) fn before(mut self, epoch: u32) -> Self {
        self.0.split_off(&epoch);
        self
    }
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
        assert_eq!(epochs.decision_at(5), at(1, 5));
        assert_eq!(epochs.decision_at(6), at(4, 6));
        assert_eq!(epochs.decision_at(0), at(0, 0));
        assert!(!epochs.before(2).is_beyond_end(at(1, 6)));
    }
}
