//! The last question before a certificate: does Redis hold what PostgreSQL holds?

use boxoffice_schema::position::Position;
use boxoffice_schema::shard::Shard;

use crate::epochs;
use crate::snapshot::{self, live_counts};

use super::{Recoverer, RecoveryError};

impl Recoverer {
    /// Compares the last decisions and all counters of events on sale. Nothing moves meanwhile: the shard has no
    /// certificate, and the log is applied up to the barrier of this epoch.
    pub(super) async fn compare(
        &self,
        shard: Shard,
        epoch: u32,
        redis: Position,
    ) -> Result<(), RecoveryError> {
        let recorded =
            snapshot::recorded(&self.pool, &[shard], None).await?.remove(&shard).unwrap_or_default();
        // The barrier of a later recovery may come at any time, even if this Redis has never heard of that one.
        if recorded.position.epoch != epoch || self.taken_epochs(&[shard]).await?.get(&shard) != Some(&epoch)
        {
            return Err(RecoveryError::TakenOver);
        }
        self.compare_last_decisions(shard, epoch, redis, recorded.position.sequence).await?;
        self.check_nothing_lost(shard).await?;
        let events: Vec<_> = recorded.events.keys().copied().collect();
        for (event, snapshot) in snapshot::live(&self.redis, shard, &events).await? {
            let snapshot =
                snapshot.map_err(|error| RecoveryError::Mismatch(format!("event {event}: {error}")))?;
            if snapshot.position != Some(Position { epoch, sequence: redis.sequence }) {
                return Err(RecoveryError::TakenOver);
            }
            let Some(image) = snapshot.event else {
                return Err(RecoveryError::Mismatch(format!("event {event} is not in Redis")));
            };
            for (recorded, live) in recorded.events[&event].iter().zip(live_counts(&image)) {
                if *recorded != live {
                    return Err(RecoveryError::Mismatch(format!(
                        "ticket type {}: Redis has {}; PostgreSQL has {}",
                        recorded.0, live.1, recorded.1
                    )));
                }
            }
        }
        self.check_customers(shard, &events).await
    }

    /// The sequence alone does not tell: in a Redis that went on in an epoch that had ended, the same number names another
    /// decision.
    async fn compare_last_decisions(
        &self,
        shard: Shard,
        epoch: u32,
        redis: Position,
        sequence: u64,
    ) -> Result<(), RecoveryError> {
        let mut connection = self.pool.acquire().await?;
        let postgres = epochs::decision_at(&mut connection, shard, sequence).await?;
        if redis == postgres {
            return Ok(());
        }
        let has_forked = epochs::had_ended(&mut connection, shard, redis, epoch).await?;
        // The beginning of an epoch may have been lost with the end of the log: of what Redis decided in it the counters tell.
        if !has_forked && redis.sequence == postgres.sequence && redis.epoch > postgres.epoch {
            return Ok(());
        }
        if has_forked || redis.sequence <= postgres.sequence {
            return Err(RecoveryError::RedisLost { redis, postgres });
        }
        Err(RecoveryError::LogBehind { redis, postgres })
    }

    /// A script that found a key missing has closed the shard and left this word. Counters need not show the loss.
    async fn check_nothing_lost(&self, shard: Shard) -> Result<(), RecoveryError> {
        let lost: Option<String> =
            self.redis.ask(redis::cmd("HGET").arg(self.redis.keys.shard(shard)).arg("lost")).await?;
        lost.map_or(Ok(()), |key| Err(RecoveryError::Mismatch(format!("Redis has lost the key {key}"))))
    }

    /// The counters of the customers' limits are not counted anywhere else, but they must be there.
    async fn check_customers(
        &self,
        shard: Shard,
        events: &[boxoffice_schema::ids::EventId],
    ) -> Result<(), RecoveryError> {
        if events.is_empty() {
            return Ok(());
        }
        let mut pipeline = redis::pipe();
        for event in events {
            pipeline.cmd("HEXISTS").arg(self.redis.keys.customers(shard, *event)).arg("");
        }
        let found: Vec<Option<bool>> = self.redis.ask_each(&mut pipeline).await?;
        match events.iter().zip(found).find(|(_, found)| *found != Some(true)) {
            Some((event, _)) => Err(RecoveryError::Mismatch(format!(
                "event {event} has lost its customers' counters in Redis"
            ))),
            None => Ok(()),
        }
    }
}
