//! Puts a shard back into a Redis that lost it, from PostgreSQL: events, stock, bookings with their expiries, and the
//! customers' counters. The shard is fenced, and the log is applied up to the barrier, so
//! nothing changes on either side meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use boxoffice_schema::event::EventImage;
use boxoffice_schema::fingerprint::IdempotencyField;
use boxoffice_schema::ids::{BookingId, EventId};
use boxoffice_schema::image::BookingImage;
use boxoffice_schema::keys::Keys;
use boxoffice_schema::position::Position;
use boxoffice_schema::scripts::{
    Call, Fence, restore_bookings, restore_clear, restore_event, restore_shard, restore_unschedule,
};
use boxoffice_schema::shard::Shard;
use boxoffice_schema::status::BookingStatus;

use crate::epochs;
use crate::miscounts;
use crate::open::{self, ShardCounts};
use crate::shards;
use crate::stored::{self, Page, StoredEvent};

use super::{Recoverer, RecoveryError, Scope, stale_is_taken_over};

/// The most keys that are removed by one call.
const CLEAR_MAX: usize = 512;

/// Bookings that are read and written at a time: the more, the more of them share a slot, and the less work is a slot.
/// They take about 8 MB, and as much again on their way to Redis.
const PAGE: usize = 16_000;

/// What was put back.
#[derive(Debug, Default)]
struct Restored {
    events: usize,
    bookings: usize,
    clock_ms: u64,
}

impl Recoverer {
    /// Redis is restored from PostgreSQL only where PostgreSQL has all that was decided. Where it refused records, a
    /// restoration would put tickets back on sale that somebody holds a 201 for.
    pub(super) async fn check_restorable(&self, shard: Shard) -> Result<(), RecoveryError> {
        let ShardCounts { dead_letters: refused, differing, .. } = open::of_shard(&self.pool, shard).await?;
        if refused + differing > 0 { Err(RecoveryError::Doubtful { refused, differing }) } else { Ok(()) }
    }

    /// The same of what is restored in any case, by counts: a recovery sees it while it restores.
    pub(super) async fn check_counts(&self, shard: Shard, scope: &Scope) -> Result<(), RecoveryError> {
        let mut events = stored::events(&self.pool, shard).await?;
        events.retain(|event| {
            !event.is_over && scope.events().is_none_or(|only| only.contains(&event.image.id))
        });
        match self.miscounted(&events).await? {
            None => Ok(()),
            Some(id) => Err(RecoveryError::Unrestorable(format!(
                "the counts of event {id} are not what its bookings add up to: \
                 `boxoffice-reconciler repair --event {id}` puts them right"
            ))),
        }
    }

    /// The first event of which PostgreSQL's counts are not what its bookings add up to.
    pub(super) async fn miscounted(&self, events: &[StoredEvent]) -> sqlx::Result<Option<EventId>> {
        for StoredEvent { image: EventImage { id, .. }, .. } in events {
            if !miscounts::read(&mut *self.pool.acquire().await?, Some(*id)).await?.is_empty() {
                return Ok(Some(*id));
            }
        }
        Ok(None)
    }

    /// Restores the shard, or `only` some events of it. Returns the last decision that the shard has in Redis afterwards.
    pub(super) async fn restore(
        &self,
        shard: Shard,
        fence: Fence<'_>,
        only: Option<&BTreeSet<EventId>>,
    ) -> Result<Position, RecoveryError> {
        let _turn = self.restorations.acquire().await;
        let keys = &self.redis.keys;
        let start = std::time::Instant::now();
        // Before anything else is read: should more be applied meanwhile, the comparison afterwards will tell.
        let last = self.last_applied(shard).await?;
        let mut events = stored::events(&self.pool, shard).await?;
        if let Some(only) = only {
            events.retain(|event| only.contains(&event.image.id));
            self.unschedule(shard, fence, only).await?;
        } else {
            self.call(&restore_clear(keys, shard, fence, vec![keys.expiry(shard)])).await?;
        }
        self.clear(shard, fence, &events).await?;
        let mut restored = Restored::default();
        for event in events.iter().filter(|event| !event.is_over) {
            self.restore_event(shard, fence, &event.image, &mut restored).await?;
        }
        let is_whole = only.is_none();
        self.call(&restore_shard(keys, shard, fence, last, restored.clock_ms, is_whole)).await?;
        let Restored { events, bookings, .. } = restored;
        let duration_ms = start.elapsed().as_millis();
        tracing::warn!(%shard, epoch = fence.epoch, %last, events, bookings, duration_ms, "the shard was restored from PostgreSQL");
        Ok(last)
    }

    /// The last decision that PostgreSQL has applied.
    async fn last_applied(&self, shard: Shard) -> sqlx::Result<Position> {
        let Position { sequence, .. } = shards::applied(&self.pool, shard).await?;
        epochs::decision_at(&mut *self.pool.acquire().await?, shard, sequence).await
    }

    /// Removes the outbox, which is drained, and what Redis has of the events. The first call takes the shard's sequence
    /// back to 0.
    async fn clear(
        &self,
        shard: Shard,
        fence: Fence<'_>,
        events: &[StoredEvent],
    ) -> Result<(), RecoveryError> {
        let keys = &self.redis.keys;
        self.call(&restore_clear(keys, shard, fence, vec![keys.outbox(shard)])).await?;
        for event in events {
            let doomed = keys_of(keys, shard, &event.image);
            // A finished event may be gone from Redis for long; its slots are not looked for then.
            let existing: u8 = self.redis.ask(redis::cmd("EXISTS").arg(&doomed[..2])).await?;
            if event.is_over && existing == 0 {
                continue;
            }
            for doomed in doomed.chunks(CLEAR_MAX) {
                self.call(&restore_clear(keys, shard, fence, doomed.to_vec())).await?;
            }
        }
        Ok(())
    }

    /// Removes the holds of some events from the expiry queue, which all events of the shard share.
    async fn unschedule(
        &self,
        shard: Shard,
        fence: Fence<'_>,
        only: &BTreeSet<EventId>,
    ) -> Result<(), RecoveryError> {
        let keys = &self.redis.keys;
        // From here on an interrupted rebuild is seen as a loss by the next recovery.
        self.call(&restore_clear(keys, shard, fence, Vec::new())).await?;
        let key = keys.expiry(shard);
        let mut cursor = 0_u64;
        loop {
            let mut scan = redis::cmd("ZSCAN");
            scan.arg(&key).arg(cursor).arg("COUNT").arg(CLEAR_MAX);
            let (next, page): (u64, Vec<(Vec<u8>, f64)>) = self.redis.ask(&scan).await?;
            let is_doomed = |member: &Vec<u8>| {
                let event = member.first_chunk().map(|id| EventId::from_bytes(*id));
                event.is_some_and(|event| only.contains(&event))
            };
            let doomed: Vec<_> = page.into_iter().map(|(member, _)| member).filter(is_doomed).collect();
            for doomed in doomed.chunks(CLEAR_MAX) {
                self.call(&restore_unschedule(keys, shard, fence, doomed.to_vec())).await?;
            }
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }

    /// A page is written while the next is read.
    async fn restore_event(
        &self,
        shard: Shard,
        fence: Fence<'_>,
        event: &EventImage,
        restored: &mut Restored,
    ) -> Result<(), RecoveryError> {
        self.call(&restore_event(&self.redis.keys, shard, fence, event)).await?;
        restored.events += 1;
        restored.clock_ms = restored.clock_ms.max(boxoffice_schema::time::to_millis(event.updated_at));
        let shared = Arc::new(event.clone());
        let mut counted = Counted::default();
        let mut page = self.read_page(&shared, None).await?;
        while let Some(Page { mut bookings, last, newest_ms }) = page {
            let next = self.read_page(&shared, Some(last));
            counted.add(&bookings);
            restored.bookings += bookings.len();
            restored.clock_ms = restored.clock_ms.max(newest_ms);
            let calls = restore_bookings(&self.redis.keys, shard, fence, event, &mut bookings).collect();
            drop(bookings);
            let _: Vec<i64> = self.redis.run_all(calls).await.map_err(stale_is_taken_over)?;
            page = next.await?;
        }
        counted.check(event)
    }

    /// Begins at once, in a task of its own, so that one processor reads and decodes while another encodes and writes.
    fn read_page(
        &self,
        event: &Arc<EventImage>,
        after: Option<stored::Place>,
    ) -> impl Future<Output = Result<Option<Page>, RecoveryError>> + use<> {
        let (pool, event) = (self.pool.clone(), Arc::clone(event));
        let read = tokio::spawn(async move {
            let page = stored::bookings(&pool, &event, after, PAGE).await?;
            for (id, image) in page.iter().flat_map(|page| &page.bookings) {
                check_id(event.id, *id, image)?;
            }
            Ok(page)
        });
        async { read.await.map_err(|panic| RecoveryError::Unrestorable(panic.to_string()))? }
    }

    pub(super) async fn call(&self, call: &Call) -> Result<(), RecoveryError> {
        let _: i64 = self.redis.run(call).await.map_err(stale_is_taken_over)?;
        Ok(())
    }
}

/// The tickets that an event's bookings hold and have bought, by the ordinal of their type.
#[derive(Default)]
struct Counted(BTreeMap<u8, (u64, u64)>);

impl Counted {
    fn add(&mut self, bookings: &[(BookingId, BookingImage)]) {
        for (_, booking) in bookings {
            for item in &booking.items {
                let (held, sold) = self.0.entry(item.ordinal).or_default();
                match booking.status {
                    BookingStatus::Held => *held += u64::from(item.quantity),
                    BookingStatus::Confirmed => *sold += u64::from(item.quantity),
                    BookingStatus::Cancelled | BookingStatus::Expired => {}
                }
            }
        }
    }

    /// Redis gets the counts of PostgreSQL's rows. Where these are not what its own bookings add up to, tickets would be sold
    /// that somebody has.
    fn check(&self, event: &EventImage) -> Result<(), RecoveryError> {
        for (ordinal, of_type) in (0..).zip(&event.ticket_types) {
            let (held, sold) = self.0.get(&ordinal).copied().unwrap_or_default();
            if (held, sold) != (of_type.held.into(), of_type.sold.into()) {
                return Err(RecoveryError::Unrestorable(format!(
                    "ticket type {} of event {} has {} held and {} sold, and its bookings add up to {held} and {sold}: \
                     `boxoffice-reconciler repair --event {}` puts the counts right",
                    of_type.id, event.id, of_type.held, of_type.sold, event.id
                )));
            }
        }
        Ok(())
    }
}

/// A retry finds a booking by its key, under the end of its id: under another it would book again.
fn check_id(event: EventId, id: BookingId, image: &BookingImage) -> Result<(), RecoveryError> {
    if id.field() == IdempotencyField::of(&image.caller, event, &image.idempotency_key) {
        return Ok(());
    }
    let why = format!("booking {id} does not have the id that its idempotency key makes");
    Err(RecoveryError::Unrestorable(why))
}

/// The event itself and its customers, then its slots.
fn keys_of(keys: &Keys, shard: Shard, event: &EventImage) -> Vec<String> {
    let slots = (0..event.slots).map(|slot| keys.slot(shard, event.id, slot));
    [keys.event(shard, event.id), keys.customers(shard, event.id)].into_iter().chain(slots).collect()
}
