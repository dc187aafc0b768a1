//! What Redis still has and PostgreSQL lost, said once more before anything is restored over it: bookings of a gap that
//! was accepted, or of a dead letter that was discarded.

use boxoffice_schema::event::EventImage;
use boxoffice_schema::ids::BookingId;
use boxoffice_schema::position::Position;
use boxoffice_schema::scripts::{BATCH_MAX, Outcome as Decided, Restate, Target, restate_fenced};
use boxoffice_schema::shard::Shard;

use crate::apply::write::int2;
use crate::deep::{self, DeepError, Sources};
use crate::findings;
use crate::repairs::{self, Intent, Kind, Outcome};

use super::{Recoverer, RecoveryError, stale_is_taken_over, stored};

/// Who mends, in the table of repairs.
const BY: &str = "recovery";

impl From<DeepError> for RecoveryError {
    fn from(error: DeepError) -> Self {
        match error {
            DeepError::Postgres(error) => Self::Postgres(error),
            DeepError::Redis(error) => Self::Redis(error),
            DeepError::Stored(error) => error,
            DeepError::Unreadable(error) => Self::Mismatch(error.to_string()),
        }
    }
}

impl Recoverer<'_> {
    /// Lets Redis say what PostgreSQL lacks, and waits until it is applied. `last` is the last decision of Redis; returns
    /// that which it has then. While dead letters are open nothing is said, since it would be refused again.
    pub(super) async fn restate_unrecorded(
        &self,
        shard: Shard,
        epoch: u32,
        mut last: Position,
    ) -> Result<Position, RecoveryError> {
        let refused: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM dead_letters WHERE shard = $1 AND outcome IS NULL)",
        )
        .bind(int2(shard.number()))
        .fetch_one(self.pool)
        .await?;
        if refused {
            return Ok(last);
        }
        let before = last;
        let sources = Sources { pool: self.pool, redis: self.redis, keys: self.keys };
        for event in stored::events(self.pool, shard).await? {
            let unrecorded = deep::find_unrecorded(sources, shard, &event.image).await?;
            for batch in unrecorded.chunks(BATCH_MAX) {
                last = last.max(self.restate(shard, epoch, &event.image, batch).await?);
            }
        }
        if last > before {
            self.drain(shard).await?;
            if !deep::wait_until_applied(self.pool, shard, last).await? {
                return Err(RecoveryError::Stalled);
            }
        }
        self.dispel_doubt(shard).await?;
        Ok(last)
    }

    /// Alarms about counts say that one side is wrong. Where PostgreSQL has every booking that Redis has, and its counts
    /// are what its bookings add up to, it is not PostgreSQL.
    async fn dispel_doubt(&self, shard: Shard) -> Result<(), RecoveryError> {
        let doubtful: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM alarms WHERE shard = $1 AND kind = $2 AND resolved_at IS NULL)",
        )
        .bind(int2(shard.number()))
        .bind(findings::COUNTS_DIFFER)
        .fetch_one(self.pool)
        .await?;
        if !doubtful {
            return Ok(());
        }
        if self.miscounted(&stored::events(self.pool, shard).await?).await?.is_some() {
            return Ok(());
        }
        tracing::warn!(%shard, "PostgreSQL has all bookings and counts them rightly: alarms about its counts are resolved");
        findings::resolve(&mut *self.pool.acquire().await?, shard, &[findings::COUNTS_DIFFER]).await?;
        Ok(())
    }

    /// Returns the position of the last booking that was said; the lowest where none could be.
    async fn restate(
        &self,
        shard: Shard,
        epoch: u32,
        event: &EventImage,
        batch: &[BookingId],
    ) -> Result<Position, RecoveryError> {
        let before = format!("PostgreSQL lacks {} bookings of Redis, {} among them", batch.len(), batch[0]);
        let intent = Intent { kind: Kind::Restate, shard, event_id: Some(event.id), by: BY, before: &before };
        let row = repairs::begin(&mut *self.pool.acquire().await?, &intent).await?;
        let target = |id: &BookingId| Target { event_id: event.id, booking_id: *id, slots: event.slots };
        let requests: Vec<Restate> = batch.iter().map(|id| Restate { target: target(id) }).collect();
        let call = restate_fenced(self.keys, shard, epoch, &requests);
        let replies: Vec<Vec<u8>> = self.redis.run(&call).await.map_err(stale_is_taken_over)?;
        let said: Vec<Position> = replies
            .iter()
            .filter_map(|reply| match Decided::parse(reply) {
                Ok(Decided::Changed(image)) => Some(image.position),
                _ => None,
            })
            .collect();
        let last = said.last().copied().unwrap_or_default();
        let outcome = if said.is_empty() { Outcome::Refused } else { Outcome::Done };
        let after = format!("{} of {} were restated, the last at {last}", said.len(), batch.len());
        repairs::end(&mut *self.pool.acquire().await?, row, outcome, &after).await?;
        Ok(last)
    }
}
