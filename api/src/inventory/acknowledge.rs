//! How far Kafka has confirmed each shard, for answers that wait for it (`BOXOFFICE_ACK=kafka`).

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use boxoffice_schema::position::Position;
use boxoffice_schema::shard::Shard;
use tokio::sync::watch;

use super::{InventoryError, Settings};

/// With the wait for the decision itself, a client has its answer within two seconds.
const WAIT_MAX: Duration = Duration::from_millis(1_200);

struct Confirmed {
    position: watch::Sender<Position>,
    waiting: AtomicUsize,
    ours: AtomicBool,
}

pub(super) struct Acknowledgements(HashMap<Shard, Confirmed>);

impl Acknowledgements {
    pub(super) fn new(settings: &Settings) -> Self {
        let confirmed = || Confirmed {
            position: watch::Sender::new(Position::default()),
            waiting: AtomicUsize::new(0),
            ours: AtomicBool::new(false),
        };
        Self(settings.shards.shards().map(|shard| (shard, confirmed())).collect())
    }

    /// Waits until the shard's confirmed position has reached this one.
    pub(super) async fn reached(&self, shard: Shard, position: Position) -> Result<(), InventoryError> {
        let confirmed = &self.0[&shard];
        let mut receiver = confirmed.position.subscribe();
        confirmed.waiting.fetch_add(1, Ordering::Relaxed);
        let reached = tokio::time::timeout(WAIT_MAX, receiver.wait_for(|now| *now >= position)).await;
        confirmed.waiting.fetch_sub(1, Ordering::Relaxed);
        if matches!(reached, Ok(Ok(_))) { Ok(()) } else { Err(InventoryError::KafkaUnavailable) }
    }

    /// Notes that Redis holds this confirmed position. It only moves forward.
    pub(super) fn note(&self, shard: Shard, position: Position) {
        self.0[&shard].position.send_if_modified(|now| {
            let later = position > *now;
            *now = position.max(*now);
            later
        });
    }

    /// Whether somebody waits for a shard, so that an instance that does not relay it must look in Redis.
    pub(super) fn is_waited_for(&self, shard: Shard) -> bool {
        self.0[&shard].waiting.load(Ordering::Relaxed) > 0
    }

    pub(super) fn set_ours(&self, shard: Shard, ours: bool) {
        self.0[&shard].ours.store(ours, Ordering::Relaxed);
    }

    /// How many shards this instance relays.
    pub(super) fn relayed(&self) -> usize {
        self.0.values().filter(|confirmed| confirmed.ours.load(Ordering::Relaxed)).count()
    }
}
