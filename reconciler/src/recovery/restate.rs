//! What Redis still has and PostgreSQL lost, said once more before anything is restored over it: publications, changes of events
//! and bookings of a gap that was accepted, or of a dead letter that was discarded.

use std::collections::{BTreeSet, HashMap};

use boxoffice_schema::event::EventImage;
use boxoffice_schema::ids::{BookingId, EventId};
use boxoffice_schema::position::Position;
use boxoffice_schema::scripts::{
    BATCH_MAX, Fence, Outcome as Decided, Restate, Restatement, RestatementReply, Target, note_lost,
    restate_event_fenced, restate_fenced, restore_event,
};
use boxoffice_schema::shard::Shard;
use redis::RedisError;

use crate::alarm::AlarmKind;
use crate::deep::{self, DeepError, Sources, Unrecorded};
use crate::findings;
use crate::open;
use crate::redis_link::of_its_type;
use crate::repairs::{self, Intent, Kind, Outcome};
use crate::snapshot;
use crate::stored::{self, StoredEvent};

use super::{Recoverer, RecoveryError, stale_is_taken_over};

/// The most times that an event is looked through: each time some of its bookings are found, as many as are told at once.
const ROUNDS_MAX: usize = 100;

impl From<DeepError> for RecoveryError {
    fn from(error: DeepError) -> Self {
        match error {
            DeepError::Postgres(error) => Self::Postgres(error),
            DeepError::Redis(error) => Self::Redis(error),
            DeepError::Stored(error) => error.into(),
            DeepError::Unreadable(error) => Self::Mismatch(error.to_string()),
            DeepError::NotCompared(_) => Self::Stalled,
        }
    }
}

impl Recoverer {
    /// Lets Redis say what PostgreSQL lacks, and waits until it is applied. `last` is the last decision of Redis; returns
    /// that which it has then. While dead letters are open nothing is said, since it would be refused again. `is_restored` says that
    /// Redis gets PostgreSQL's counts behind this.
    pub(super) async fn restate_unrecorded(
        &self,
        shard: Shard,
        fence: Fence<'_>,
        last: Position,
        is_restored: bool,
    ) -> Result<Position, RecoveryError> {
        if self.has_refused(shard).await? {
            return Ok(last);
        }
        // First, since PostgreSQL takes no more bookings than an event may have.
        let live = self.live_events(shard).await?;
        let mut last = self.restate_events(shard, fence, &live, last).await?;
        for event in stored::events(&self.pool, shard).await? {
            last = self.restate_bookings(shard, fence, &event.image, last).await?;
        }
        // And those for whose capacity there was no room before PostgreSQL had all that was given back.
        last = self.restate_events(shard, fence, &live, last).await?;
        let open = open::of_shard(&self.pool, shard).await?;
        if open.dead_letters == 0 && open.differing > 0 {
            self.dispel_doubt(shard, is_restored).await?;
        }
        Ok(last)
    }

    async fn has_refused(&self, shard: Shard) -> sqlx::Result<bool> {
        Ok(open::of_shard(&self.pool, shard).await?.dead_letters > 0)
    }

    /// Events of which PostgreSQL lacks the publication or the last change: from then on they are like others.
    async fn restate_events(
        &self,
        shard: Shard,
        fence: Fence<'_>,
        live: &BTreeSet<EventId>,
        mut last: Position,
    ) -> Result<Position, RecoveryError> {
        let published = self.live_unpublished(shard, live).await?;
        let published = published.iter().map(|event| (event.id, "PostgreSQL lacks its publication"));
        let changed = self.changed_events(shard).await?;
        let changed = changed.into_iter().map(|event| (event, "PostgreSQL lacks its last change"));
        let unsaid: Vec<_> = published.chain(changed).collect();
        if unsaid.is_empty() {
            return Ok(last);
        }
        for (event, before) in unsaid {
            let row = self.begin_restating(shard, event, before).await?;
            let call = restate_event_fenced(&self.redis.keys, shard, fence, event);
            let reply: RestatementReply = self.redis.run(&call).await.map_err(stale_is_taken_over)?;
            let (outcome, after) = match Restatement::parse(&reply)? {
                Restatement::Said(_, position) => {
                    last = position;
                    (Outcome::Done, format!("restated at {position}"))
                }
                other => (Outcome::Refused, format!("{other:?}")),
            };
            repairs::end(&mut *self.pool.acquire().await?, row, outcome, &after).await?;
        }
        self.bring_to_postgresql(shard, last).await?;
        Ok(last)
    }

    /// The events that Redis has as they are since a change that PostgreSQL lacks. Each change moves an event's time on: where that
    /// is not later in Redis, a hand wrote there, and PostgreSQL knows better. Without those that PostgreSQL could not take yet.
    async fn changed_events(&self, shard: Shard) -> Result<Vec<EventId>, RecoveryError> {
        let mut recorded = HashMap::new();
        for StoredEvent { image, .. } in stored::events(&self.pool, shard).await? {
            recorded.insert(image.id, image);
        }
        let events: Vec<EventId> = recorded.keys().copied().collect();
        let live = snapshot::live(&self.redis, shard, &events).await?;
        // One that is missing or cannot be read is restored.
        let changed = live.into_iter().filter(|(event, live)| {
            let live = live.as_ref().ok().and_then(|live| live.event.as_ref());
            let recorded = &recorded[event];
            live.is_some_and(|live| {
                live.updated_at > recorded.updated_at && snapshot::has_room(live, recorded)
            })
        });
        Ok(changed.map(|(event, _)| event).collect())
    }

    /// The events that Redis holds. The shard is fenced: they stay these.
    pub(super) async fn live_events(&self, shard: Shard) -> Result<BTreeSet<EventId>, RecoveryError> {
        Ok(snapshot::live_ids(&self.redis).await?.remove(&shard).unwrap_or_default())
    }

    /// Those of the events that Redis has although PostgreSQL takes them for drafts, or has no row of them, as Redis has them.
    pub(super) async fn live_unpublished(
        &self,
        shard: Shard,
        live: &BTreeSet<EventId>,
    ) -> Result<Vec<EventImage>, RecoveryError> {
        let unpublished = stored::unpublished(&self.pool, live).await?;
        let mut found = Vec::new();
        for (event, live) in snapshot::live(&self.redis, shard, &unpublished).await? {
            let unreadable = |error| {
                RecoveryError::Unrestorable(format!(
                    "event {event}, of which PostgreSQL has no publication, cannot be read in Redis ({error}): copy Redis' data, \
                     and then put right or delete the key '{}'",
                    self.redis.keys.event(shard, event)
                ))
            };
            found.extend(live.map_err(unreadable)?.event);
        }
        Ok(found)
    }

    /// Until PostgreSQL has every booking of the event that Redis has, or refuses one of them.
    async fn restate_bookings(
        &self,
        shard: Shard,
        fence: Fence<'_>,
        event: &EventImage,
        mut last: Position,
    ) -> Result<Position, RecoveryError> {
        let sources = Sources { pool: &self.pool, redis: &self.redis };
        for _ in 0..ROUNDS_MAX {
            let Unrecorded { bookings, lost } = deep::find_unrecorded(sources, shard, event).await?;
            for key in lost {
                self.call(&note_lost(&self.redis.keys, shard, fence, key)).await?;
            }
            if bookings.is_empty() {
                return Ok(last);
            }
            for batch in bookings.chunks(BATCH_MAX) {
                let said = match self.restate(shard, fence, event, batch).await? {
                    None => {
                        self.put_in_place(shard, fence, event).await?;
                        self.restate(shard, fence, event, batch).await?
                    }
                    said => said,
                };
                last = said.ok_or_else(|| cannot_be_said(event.id, bookings.len()))?;
            }
            self.bring_to_postgresql(shard, last).await?;
            if self.has_refused(shard).await? {
                return Ok(last);
            }
        }
        // The next attempt goes on from here.
        Err(RecoveryError::Stalled)
    }

    /// An event of which Redis has lost a key, or has one of another type, says no booking. It gets what PostgreSQL has of the event,
    /// without the customers' counts: enough to say them, and noted as lost, so that nothing is sold from it.
    async fn put_in_place(
        &self,
        shard: Shard,
        fence: Fence<'_>,
        event: &EventImage,
    ) -> Result<(), RecoveryError> {
        let keys = &self.redis.keys;
        self.call(&note_lost(keys, shard, fence, keys.event(shard, event.id))).await?;
        self.call(&restore_event(keys, shard, fence, event)).await
    }

    /// What was said comes into the log, and is applied.
    async fn bring_to_postgresql(&self, shard: Shard, last: Position) -> Result<(), RecoveryError> {
        self.drain(shard).await?;
        if deep::wait_until_applied(&self.pool, shard, last).await? {
            Ok(())
        } else {
            Err(RecoveryError::Stalled)
        }
    }

    /// Alarms about counts say that one side is wrong. Where PostgreSQL has every booking that Redis has, and its counts
    /// are what its bookings add up to, it is not PostgreSQL. Where nothing is restored Redis may still be wrong about an event that is
    /// closed, since those are not compared.
    async fn dispel_doubt(&self, shard: Shard, is_restored: bool) -> Result<(), RecoveryError> {
        if self.miscounted(&stored::events(&self.pool, shard).await?).await?.is_some() {
            return Ok(());
        }
        tracing::warn!(%shard, "PostgreSQL has all bookings and counts them rightly: alarms about its counts are resolved");
        if !is_restored {
            return Ok(findings::resolve_counts_compared(&self.pool, shard).await?);
        }
        let alarms = std::iter::once(AlarmKind::CountsDiffer);
        findings::resolve(&mut *self.pool.acquire().await?, shard, alarms).await?;
        Ok(())
    }

    /// The row of what is said once more, written before it is.
    async fn begin_restating(&self, shard: Shard, event: EventId, before: &str) -> sqlx::Result<i64> {
        let intent =
            Intent { kind: Kind::Restate, shard, event_id: Some(event), by: repairs::RECOVERY, before };
        repairs::begin(&mut *self.pool.acquire().await?, &intent).await
    }

    /// Returns the position of the last booking that was said; `None` where none could be.
    async fn restate(
        &self,
        shard: Shard,
        fence: Fence<'_>,
        event: &EventImage,
        batch: &[BookingId],
    ) -> Result<Option<Position>, RecoveryError> {
        let before = format!("PostgreSQL lacks {} bookings of Redis, {} among them", batch.len(), batch[0]);
        let row = self.begin_restating(shard, event.id, &before).await?;
        let target = |id: &BookingId| Target { event_id: event.id, booking_id: *id, slots: event.slots };
        let requests: Vec<Restate> = batch.iter().map(|id| Restate { target: target(id) }).collect();
        let call = restate_fenced(&self.redis.keys, shard, fence, &requests);
        let replies: Result<Vec<Vec<u8>>, RedisError> = self.redis.run(&call).await;
        let replies = of_its_type(replies).map_err(stale_is_taken_over)?.unwrap_or_default();
        let said: Vec<Position> = replies
            .iter()
            .filter_map(|reply| match Decided::parse(reply) {
                Ok(Decided::Changed(image)) => Some(image.position),
                _ => None,
            })
            .collect();
        let last = said.last().copied();
        let outcome = if last.is_some() { Outcome::Done } else { Outcome::Refused };
        let after = format!("{} of {} were restated", said.len(), batch.len());
        repairs::end(&mut *self.pool.acquire().await?, row, outcome, &after).await?;
        Ok(last)
    }
}

fn cannot_be_said(event: EventId, bookings: usize) -> RecoveryError {
    RecoveryError::Unrestorable(format!(
        "Redis has {bookings} bookings of event {event} that PostgreSQL lacks, and cannot say them once more"
    ))
}
