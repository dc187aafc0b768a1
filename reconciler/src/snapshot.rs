//! What PostgreSQL and Redis say of a shard, each with the position at which it is so.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use anyhow::ensure;
use boxoffice_schema::DecodeError;
use boxoffice_schema::event::EventImage;
use boxoffice_schema::ids::{EventId, TicketTypeId};
use boxoffice_schema::position::Position;
use boxoffice_schema::scripts::{EventReply, read_event, read_events};
use boxoffice_schema::shard::Shard;
use redis::{RedisError, Value};
use serde::Serialize;
use sqlx::{PgPool, Row};

use crate::number;
use crate::redis_link::{Calls, RedisLink};

/// The counters of a ticket type, as a store has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counts {
    pub(crate) capacity: i64,
    pub(crate) held: i64,
    pub(crate) sold: i64,
}

impl Counts {
    /// Promise P1.
    pub(crate) fn add_up(&self) -> bool {
        self.held >= 0 && self.sold >= 0 && self.held + self.sold <= self.capacity
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.capacity += other.capacity;
        self.held += other.held;
        self.sold += other.sold;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "capacity {}, held {}, sold {}", self.capacity, self.held, self.sold)
    }
}

/// The counters of an event's ticket types, in their order.
pub(crate) type EventCounts = Vec<(TicketTypeId, Counts)>;

/// A shard in PostgreSQL: its events that are on sale or paused.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorded {
    pub(crate) position: Position,
    pub(crate) events: BTreeMap<EventId, EventCounts>,
}

/// Reads shards from PostgreSQL, all at one moment; of one event only, where it is given.
pub(crate) async fn recorded(
    pool: &PgPool,
    shards: &[Shard],
    event: Option<EventId>,
) -> sqlx::Result<BTreeMap<Shard, Recorded>> {
    let numbers: Vec<i16> = shards.iter().copied().map(number::of_shard).collect();
    let rows = sqlx::query(include_str!("snapshot.sql"))
        .bind(numbers)
        .bind(event.map(|event| event.as_uuid()))
        .fetch_all(pool)
        .await?;
    let mut found: BTreeMap<Shard, Recorded> = BTreeMap::new();
    for row in rows {
        let (shard, epoch, sequence): (i16, i32, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let shard = found.entry(number::shard(shard)).or_default();
        shard.position = number::position(epoch, sequence);
        let Some(event) = row.try_get::<Option<_>, _>(3)? else { continue };
        let counts = shard.events.entry(EventId::from_uuid(event)).or_default();
        let Some(ticket_type) = row.try_get::<Option<_>, _>(4)? else { continue };
        let count = |index| row.try_get::<i32, _>(index).map(i64::from);
        let of_type = Counts { capacity: count(5)?, held: count(6)?, sold: count(7)? };
        counts.push((TicketTypeId::from_uuid(ticket_type), of_type));
    }
    Ok(found)
}

/// The counters of an event as Redis has them.
pub(crate) fn live_counts(image: &EventImage) -> EventCounts {
    image
        .ticket_types
        .iter()
        .map(|t| {
            let counts =
                Counts { capacity: i64::from(t.capacity), held: i64::from(t.held), sold: i64::from(t.sold) };
            (t.id, counts)
        })
        .collect()
}

/// The most events that are read in one step, which keeps Redis from everybody else.
const READ_MAX: usize = 16;

/// An event in Redis, and the position of its shard at that moment.
#[derive(Clone, Debug)]
pub(crate) struct LiveEvent {
    /// None where Redis has never seen the shard, or lost it.
    pub(crate) position: Option<Position>,
    /// None where Redis does not hold it.
    pub(crate) event: Option<EventImage>,
}

/// Whether PostgreSQL could take an event as Redis has it: the capacities allow for what it counts.
pub(crate) fn has_room(live: &EventImage, recorded: &EventImage) -> bool {
    live.ticket_types.iter().zip(&recorded.ticket_types).all(|(live, recorded)| {
        u64::from(live.capacity) >= u64::from(recorded.held) + u64::from(recorded.sold)
    })
}

/// Reads events from Redis, each at one moment with its shard's position. An event whose hash is not what the scripts
/// write is an error of its own.
pub(crate) async fn live(
    redis: &RedisLink,
    shard: Shard,
    events: &[EventId],
) -> Result<Vec<(EventId, Result<LiveEvent, DecodeError>)>, RedisError> {
    let mut found = Vec::with_capacity(events.len());
    for events in events.chunks(READ_MAX) {
        let mut replies =
            redis.run::<Vec<Value>>(&read_events(&redis.keys, shard, events)).await?.into_iter();
        let mut number = || replies.next().unwrap_or(Value::Nil);
        let (epoch, sequence): (Option<u32>, Option<u64>) =
            (redis::from_redis_value(number())?, redis::from_redis_value(number())?);
        let position = epoch.zip(sequence).map(|(epoch, sequence)| Position { epoch, sequence });
        for (event, reply) in events.iter().zip(replies) {
            found.push((*event, image(reply)?.map(|event| LiveEvent { position, event })));
        }
    }
    Ok(found)
}

/// Keys that Redis looks at in one step of a scan.
const SCAN_COUNT: usize = 1_000;

/// The events that Redis holds by their shards, whatever PostgreSQL knows of them. All keys are looked at for that, in steps, each of
/// which keeps Redis from everybody else for a fraction of a millisecond.
pub(crate) async fn live_ids(redis: &RedisLink) -> Result<BTreeMap<Shard, BTreeSet<EventId>>, RedisError> {
    let pattern = redis.keys.events_pattern();
    let mut found: BTreeMap<Shard, BTreeSet<EventId>> = BTreeMap::new();
    let mut cursor = 0_u64;
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(SCAN_COUNT);
        let (next, page): (u64, Vec<Vec<u8>>) = redis.ask(&scan).await?;
        let keys = page.iter().filter_map(|key| std::str::from_utf8(key).ok());
        for (shard, event) in keys.filter_map(|key| redis.keys.event_of(key)) {
            found.entry(shard).or_default().insert(event);
        }
        if next == 0 {
            return Ok(found);
        }
        cursor = next;
    }
}

/// The event in a reply; none where Redis does not hold it.
fn image(reply: Value) -> Result<Result<Option<EventImage>, DecodeError>, RedisError> {
    if let Value::BulkString(why) = &reply {
        return Ok(Err(DecodeError::new("event hash", String::from_utf8_lossy(why))));
    }
    let fields: HashMap<String, String> = redis::from_redis_value(reply)?;
    Ok((!fields.is_empty()).then(|| EventImage::from_fields(&fields)).transpose())
}

/// A shard in Redis, without its events.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LiveShard {
    pub(crate) certified: bool,
    /// None where Redis has never seen the shard, or lost it.
    pub(crate) position: Option<Position>,
}

/// Reads where shards stand in Redis, in one round trip.
pub(crate) async fn live_shards(
    redis: &RedisLink,
    shards: &[Shard],
) -> Result<BTreeMap<Shard, LiveShard>, RedisError> {
    // No event has this id; what is asked for is what comes with every event.
    let nobody = EventId::from_bytes([0; 16]);
    let calls: Calls = shards.iter().map(|shard| read_event(&redis.keys, *shard, nobody)).collect();
    let replies: Vec<EventReply> = redis.run_all(calls).await?;
    let state = |(certified, epoch, sequence, _, _): EventReply| {
        let position = u32::try_from(epoch).ok().zip(u64::try_from(sequence).ok());
        let position = position.map(|(epoch, sequence)| Position { epoch, sequence });
        LiveShard { certified: certified == 1, position }
    };
    Ok(shards.iter().copied().zip(replies.into_iter().map(state)).collect())
}

/// Refuses an event that was never published, as far as either store knows.
pub(crate) async fn check_published(
    pool: &PgPool,
    redis: &RedisLink,
    shard: Shard,
    event: EventId,
) -> anyhow::Result<()> {
    let status: Option<String> = sqlx::query_scalar("SELECT status FROM events WHERE id = $1")
        .bind(event.as_uuid())
        .fetch_optional(pool)
        .await?;
    let is_published = match status.as_deref() {
        None | Some("draft") => {
            let found = live(redis, shard, &[event]).await?;
            found.into_iter().any(|(_, live)| live.is_ok_and(|live| live.event.is_some()))
        }
        Some(_) => true,
    };
    ensure!(is_published, "PostgreSQL has no published event {event}");
    Ok(())
}
