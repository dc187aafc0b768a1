//! How far Kafka has confirmed each shard, for answers that wait for it (`BOXOFFICE_ACK=kafka`).

use std::pin::pin;
use std::time::Duration;

use boxoffice_schema::position::Position;
use boxoffice_schema::shard::{Shard, ShardCount};
use foldhash::HashMap;
use tokio::sync::watch;

use super::InventoryError;
use super::together::together;

/// Kafka is said to be unavailable after so long, where the wait for the decision itself leaves that much of the handler's time.
const WAIT_MAX: Duration = Duration::from_millis(1_200);

/// What became of a wait.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Reached {
    /// Kafka has it.
    Confirmed,
    /// A recovery began a later epoch, which confirms nothing by itself: it may have found that Redis had lost this very
    /// decision, and its sequence number may be another's by now. Only what Redis still shows after it is in Kafka.
    LaterEpoch,
}

/// The confirmed position of each shard.
pub(super) struct Acknowledgements(HashMap<Shard, watch::Sender<Position>>);

impl Acknowledgements {
    pub(super) fn new(shards: ShardCount) -> Self {
        Self(shards.shards().map(|shard| (shard, watch::Sender::new(Position::default()))).collect())
    }

    /// How far the shard is known to be confirmed. To be asked for before Redis is, see [`Self::reached`].
    pub(super) fn known(&self, shard: Shard) -> Position {
        *self.0[&shard].borrow()
    }

    /// Waits until the shard's confirmed position has reached this one. `known` is how far it was confirmed before
    /// Redis was asked: what is shown of an earlier epoch was shown after its recovery.
    ///
    /// # Errors
    /// Where Kafka has not confirmed it in time.
    pub(super) async fn reached(
        &self,
        shard: Shard,
        known: Position,
        position: Position,
    ) -> Result<Reached, InventoryError> {
        if position.epoch < known.epoch {
            return Ok(Reached::Confirmed);
        }
        let mut receiver = self.0[&shard].subscribe();
        let wait = pin!(receiver.wait_for(|now| *now >= position));
        let reached = tokio::time::timeout(WAIT_MAX, together(wait)).await;
        match reached {
            Ok(Ok(now)) if now.epoch == position.epoch => Ok(Reached::Confirmed),
            Ok(Ok(_)) => Ok(Reached::LaterEpoch),
            _ => Err(InventoryError::KafkaUnavailable),
        }
    }

    /// Notes that Redis holds this confirmed position. It only moves forward.
    pub(super) fn note(&self, shard: Shard, position: Position) {
        self.0[&shard].send_if_modified(|now| {
            let later = position > *now;
            *now = position.max(*now);
            later
        });
    }

    /// Whether somebody waits for a shard, so that an instance that does not relay it must look in Redis.
    pub(super) fn is_waited_for(&self, shard: Shard) -> bool {
        self.0[&shard].receiver_count() > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: Shard = Shard::from_number(0);

    fn acknowledgements() -> Acknowledgements {
        Acknowledgements::new(ShardCount::new(1).unwrap())
    }

    fn position(epoch: u32, sequence: u64) -> Position {
        Position { epoch, sequence }
    }

    /// What becomes of a decision that was shown at `shown`, where this was known before, and that later.
    async fn awaited(known: Position, shown: Position, later: Position) -> Reached {
        let acknowledgements = acknowledgements();
        acknowledgements.note(SHARD, known);
        let known = acknowledgements.known(SHARD);
        acknowledgements.note(SHARD, later);
        acknowledgements.reached(SHARD, known, shown).await.unwrap()
    }

    #[tokio::test]
    async fn what_kafka_has_confirmed_is_acknowledged() {
        assert_eq!(awaited(position(2, 40), position(2, 41), position(2, 41)).await, Reached::Confirmed);
        assert_eq!(awaited(position(2, 40), position(2, 41), position(2, 50)).await, Reached::Confirmed);
        assert_eq!(awaited(position(2, 40), position(2, 7), position(2, 40)).await, Reached::Confirmed);
    }

    #[tokio::test]
    async fn a_later_epoch_does_not_confirm_what_its_recovery_may_have_found_lost() {
        assert_eq!(awaited(position(2, 40), position(2, 41), position(3, 40)).await, Reached::LaterEpoch);
        assert_eq!(awaited(position(2, 40), position(2, 41), position(3, 90)).await, Reached::LaterEpoch);
    }

    #[tokio::test]
    async fn nobody_waits_any_more_whose_request_was_dropped() {
        let acknowledgements = acknowledgements();
        {
            let mut wait = pin!(acknowledgements.reached(SHARD, position(2, 40), position(2, 41)));
            assert!(futures_util::poll!(&mut wait).is_pending());
            assert!(acknowledgements.is_waited_for(SHARD));
        }
        assert!(!acknowledgements.is_waited_for(SHARD));
    }

    #[tokio::test]
    async fn what_redis_shows_after_a_recovery_is_confirmed() {
        assert_eq!(awaited(position(3, 40), position(2, 41), position(3, 40)).await, Reached::Confirmed);
    }
}
