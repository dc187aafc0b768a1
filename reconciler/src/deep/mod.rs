//! Compares an event booking by booking, while tickets are being sold.
//!
//! The audit compares counters at equal positions. Here each booking has a position of its own, the decision that last
//! changed it, so that no moment of rest is needed: what PostgreSQL has, Redis must have at the same or a later
//! position; what Redis has, PostgreSQL must have as soon as it has applied the log up to that position. Customers'
//! allowances have no positions: a customer is compared who did not buy while the bookings were added up.
//!
//! Everything is read in pages; the allowances of one event's customers are the only thing that is held in memory.

use std::time::Duration;

use boxoffice_schema::DecodeError;
use boxoffice_schema::event::EventImage;
use boxoffice_schema::ids::{BookingId, EventId};
use boxoffice_schema::position::Position;
use boxoffice_schema::shard::Shard;
use redis::RedisError;
use sqlx::PgPool;

use crate::audit::FindingKind;
use crate::open;
use crate::redis_link::RedisLink;
use crate::shards;
use crate::snapshot;
use crate::standstill::Standstill;
use crate::stored::{self, StoredError};

mod header;
mod live;
mod recorded;
mod unpublished;

pub(crate) use unpublished::compare_unpublished;

/// The longest that PostgreSQL may stand still before what it lacks is left undecided.
const STALL_TIMEOUT: Duration = Duration::from_secs(5);

/// How often it is asked meanwhile.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The most differences of an event that are told one by one; their number is always told.
const DIFFERENCES_MAX: usize = 100_000;

#[derive(Debug, thiserror::Error)]
pub(crate) enum DeepError {
    #[error("PostgreSQL: {0}")]
    Postgres(#[from] sqlx::Error),
    #[error("Redis: {0}")]
    Redis(#[from] RedisError),
    #[error("{0}")]
    Stored(#[from] StoredError),
    #[error("Redis: {0}")]
    Unreadable(#[from] DecodeError),
    #[error("{0}")]
    NotCompared(String),
}

/// Where both sides are read.
#[derive(Clone, Copy)]
pub(crate) struct Sources<'a> {
    pub(crate) pool: &'a PgPool,
    pub(crate) redis: &'a RedisLink,
}

/// Something that one side has and the other has not.
#[derive(Clone, Debug)]
pub(crate) struct Difference {
    pub(crate) kind: FindingKind,
    /// None where it is not about one booking.
    pub(crate) booking: Option<BookingId>,
    pub(crate) detail: String,
}

/// What the comparison of an event came to.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    /// Bookings of PostgreSQL that were looked for in Redis.
    pub(crate) bookings: usize,
    pub(crate) differences: Vec<Difference>,
    /// Differences beyond those that are told.
    pub(crate) untold: usize,
    /// What could not be compared, and why.
    pub(crate) not_compared: Vec<String>,
    /// Why not all bookings of Redis were looked for in PostgreSQL; none where they were.
    unseen: Option<String>,
}

impl Comparison {
    fn add(&mut self, kind: FindingKind, booking: Option<BookingId>, detail: impl Into<String>) {
        if self.differences.len() < DIFFERENCES_MAX {
            self.differences.push(Difference { kind, booking, detail: detail.into() });
        } else {
            self.untold += 1;
        }
    }

    /// Says what could not be compared, where PostgreSQL may lack a booking for all that is known then.
    fn leave_open(&mut self, why: String) {
        self.unseen.get_or_insert_with(|| why.clone());
        self.not_compared.push(why);
    }

    /// Why PostgreSQL may lack a booking of Redis that is not among the differences: not all were looked for, or what lies in a slot
    /// cannot be read. That a customer's allowance was not compared says nothing of it.
    pub(crate) fn doubt(&self) -> Option<&str> {
        let is_unreadable = |difference: &&Difference| difference.kind == FindingKind::UnreadableBookings;
        let unreadable = self.differences.iter().find(is_unreadable);
        self.unseen.as_deref().or_else(|| unreadable.map(|difference| difference.detail.as_str()))
    }

    /// The bookings with a difference of a kind.
    pub(crate) fn bookings_with(&self, kind: FindingKind) -> Vec<BookingId> {
        let of_kind = self.differences.iter().filter(|difference| difference.kind == kind);
        of_kind.filter_map(|difference| difference.booking).collect()
    }
}

/// An event under comparison.
struct Subject<'a> {
    sources: Sources<'a>,
    shard: Shard,
    /// As PostgreSQL has it.
    event: &'a EventImage,
}

/// Compares all published events of a shard that recovery would restore, or one of them.
pub(crate) async fn compare_shard(
    sources: Sources<'_>,
    shard: Shard,
    only: Option<EventId>,
) -> Result<Vec<(EventId, Comparison)>, DeepError> {
    let mut compared = Vec::new();
    for stored in stored::events(sources.pool, shard).await? {
        let id = stored.image.id;
        if !stored.is_over && only.is_none_or(|only| only == id) {
            compared.push((id, compare(sources, shard, &stored.image).await?));
        }
    }
    Ok(compared)
}

/// Compares an event, as PostgreSQL has it, with Redis.
pub(crate) async fn compare(
    sources: Sources<'_>,
    shard: Shard,
    event: &EventImage,
) -> Result<Comparison, DeepError> {
    let subject = Subject { sources, shard, event };
    let before = subject.epoch().await?;
    let mut found = Comparison::default();
    subject.compare_header(&mut found).await?;
    subject.compare_recorded(&mut found).await?;
    subject.compare_live(&mut found).await?;
    if subject.epoch().await? != before {
        found = Comparison::default();
        found.leave_open(format!("event {}: a recovery of its shard began meanwhile", event.id));
    }
    Ok(found)
}

/// What an event has in Redis that PostgreSQL lacks.
pub(crate) struct Unrecorded {
    /// Bookings that PostgreSQL lacks, or has older: some of them, where they are very many.
    pub(crate) bookings: Vec<BookingId>,
    /// Keys of slots that are lost, since something of another type lies under them.
    pub(crate) lost: Vec<String>,
}

/// Looks for bookings of an event that Redis has and PostgreSQL lacks.
pub(crate) async fn find_unrecorded(
    sources: Sources<'_>,
    shard: Shard,
    event: &EventImage,
) -> Result<Unrecorded, DeepError> {
    let mut found = Comparison::default();
    let lost = Subject { sources, shard, event }.look_for_all_rows(&mut found).await?;
    if let Some(why) = found.not_compared.pop() {
        return Err(DeepError::NotCompared(why));
    }
    Ok(Unrecorded { bookings: found.bookings_with(FindingKind::UnrecordedBookings), lost })
}

impl Subject<'_> {
    fn slot_key(&self, booking: BookingId) -> String {
        self.sources.redis.keys.slot_of(self.shard, self.event.id, booking, self.event.slots)
    }

    /// Where Redis stands; none where it lost the shard.
    async fn live_position(&self) -> Result<Option<Position>, RedisError> {
        let live = snapshot::live_shards(self.sources.redis, &[self.shard]).await?;
        Ok(live.get(&self.shard).and_then(|live| live.position))
    }

    async fn epoch(&self) -> Result<Option<u32>, RedisError> {
        Ok(self.live_position().await?.map(|position| position.epoch))
    }

    /// Waits until PostgreSQL has applied a position; `false` where it stands still before it.
    async fn wait_until_applied(&self, wanted: Position) -> sqlx::Result<bool> {
        wait_until_applied(self.sources.pool, self.shard, wanted).await
    }
}

/// Waits until PostgreSQL has applied a shard up to a position; `false` where it stands still before it, or before a
/// gap.
pub(crate) async fn wait_until_applied(pool: &PgPool, shard: Shard, wanted: Position) -> sqlx::Result<bool> {
    let mut standstill = Standstill::new();
    loop {
        let applied = shards::applied(pool, shard).await?;
        if applied >= wanted {
            return Ok(true);
        }
        let stood = standstill.lasts(applied);
        if stood > STALL_TIMEOUT || (!stood.is_zero() && open::of_shard(pool, shard).await?.gaps > 0) {
            return Ok(false);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
