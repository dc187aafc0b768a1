//! `repair`: mends what the audit finds while tickets are being sold, and never takes back what was acknowledged.
//!
//! The order, for each shard: read gaps again; let Redis say which events are on sale that PostgreSQL takes for drafts, or does not
//! know; set PostgreSQL's counts to what its own bookings add up to; for each
//! event, let Redis say once more what PostgreSQL lacks; when that is applied, move Redis' counters by what they differ
//! then. What Redis lost is not mended here but by `rebuild`, which the report at the end names.

use std::collections::BTreeSet;

use anyhow::Context;
use boxoffice_schema::event::EventImage;
use boxoffice_schema::ids::EventId;
use boxoffice_schema::scripts::OutboxBounds;
use boxoffice_schema::shard::Shard;
use serde::Serialize;
use sqlx::{PgConnection, PgPool};

use crate::audit::{self, FindingKind, Report};
use crate::config::Config;
use crate::deep::{self, Comparison, Sources};
use crate::number;
use crate::redis_link::RedisLink;
use crate::repairs::{self, Intent, Kind, Outcome, Repair};
use crate::stored;
use crate::{postgres, servers, snapshot, stand_in};

use restate::Restated;

mod counts;
mod gap;
mod restate;
mod stock;

/// The bounds that the API has unless it is told otherwise: a repair must not fill an outbox that does not drain.
const BOUNDS: OutboxBounds = OutboxBounds { frames: 100_000, bytes: 256 << 20, age_ms: 600_000 };

/// The most times that an event is compared because more was found than is told at once.
const ROUNDS_MAX: usize = 100;

/// Names the advisory lock that keeps two repairs of one shard apart.
const LOCK: i32 = 0x626f_7265;

/// What a repair came to.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    /// What was mended, or refused.
    pub(crate) repairs: Vec<Repair>,
    /// What stood in the way.
    pub(crate) notes: Vec<String>,
    /// What an audit finds afterwards.
    pub(crate) left: Report,
}

/// Mends everything, or what concerns one event.
pub(crate) async fn repair(config: &Config, event: Option<EventId>, by: &str) -> anyhow::Result<Summary> {
    let pool = postgres::pool(config)?;
    let redis = RedisLink::new(config)?;
    servers::wait_for_all(config, &pool, &redis).await?;
    if let Some(event) = event {
        snapshot::check_published(&pool, &redis, config.shards.shard_of(event), event).await?;
    }
    let mut mender = Mender { config, pool: &pool, redis: &redis, by, made: Vec::new(), notes: Vec::new() };
    let scope = audit::Scope::by_hand(config, event, true);
    let job = async {
        let mut live = scope.live_events(&redis).await?;
        for shard in &scope.shards {
            let live = live.remove(shard).unwrap_or_default();
            mender.mend_shard(*shard, event, &live).await.with_context(|| format!("shard {shard}"))?;
        }
        let left = audit::audit(&pool, &redis, &scope).await?;
        let repairs = repairs::by_id(&pool, &mender.made).await?;
        anyhow::Ok(Summary { repairs, notes: mender.notes, left })
    };
    let summary = stand_in::while_applied(config, &pool, &redis, Vec::new(), job).await??;
    pool.close().await;
    Ok(summary)
}

struct Mender<'a> {
    config: &'a Config,
    pool: &'a PgPool,
    redis: &'a RedisLink,
    by: &'a str,
    /// The rows of what was mended.
    made: Vec<i64>,
    notes: Vec<String>,
}

impl Mender<'_> {
    /// All of a shard, or one event only. `live` are those of them that Redis holds.
    async fn mend_shard(
        &mut self,
        shard: Shard,
        only: Option<EventId>,
        live: &BTreeSet<EventId>,
    ) -> anyhow::Result<()> {
        let Some(_lock) = self.lock(shard).await? else {
            self.notes.push(format!(
                "another repair is at work on shard {shard}: run this again when it has ended"
            ));
            return Ok(());
        };
        repairs::end_interrupted(self.pool, shard, false).await?;
        self.read_gaps_again(shard).await?;
        self.mend_publications(shard, live).await?;
        for stored in stored::events(self.pool, shard).await? {
            if only.is_some_and(|only| only != stored.image.id) {
                continue;
            }
            self.mend_counts(shard, stored.image.id).await?;
            if !stored.is_over {
                self.mend_event(shard, &stored.image).await?;
            }
        }
        Ok(())
    }

    /// Where the word of a publication went with a gap or a discarded record, or is newer than a backup, Redis says the event once
    /// more: from then on it is one like others.
    async fn mend_publications(&mut self, shard: Shard, live: &BTreeSet<EventId>) -> anyhow::Result<()> {
        let unpublished = stored::unpublished(self.pool, live).await?;
        for (event, live) in snapshot::live(self.redis, shard, &unpublished).await? {
            if live.is_ok_and(|live| live.event.is_some())
                && let Some(stated) = self.say_event(shard, event).await?
            {
                self.is_applied(shard, event, stated).await?;
            }
        }
        Ok(())
    }

    /// What Redis says again is applied before counters are looked at; and before any booking what the event is, since PostgreSQL
    /// takes no more bookings than that allows. Unless that is less than PostgreSQL counts: then something was given back.
    async fn mend_event(&mut self, shard: Shard, event: &EventImage) -> anyhow::Result<()> {
        let found = deep::compare(self.sources(), shard, event).await?;
        let differs = found.differences.iter().any(|difference| difference.kind == FindingKind::EventDiffers);
        let is_said_first = differs && self.has_room(shard, event).await?;
        if is_said_first {
            let Some(stated) = self.say_event(shard, event.id).await? else { return Ok(()) };
            if !self.is_applied(shard, event.id, stated).await? {
                return Ok(());
            }
        }
        if !self.restate_all(shard, event, found).await? {
            return Ok(());
        }
        if differs && !is_said_first || self.has_doubtful_stock(shard, event.id).await? {
            self.mend_stock(shard, event).await?;
        }
        Ok(())
    }

    /// Lets Redis say all bookings that PostgreSQL lacks, and waits until they are applied. `false` where PostgreSQL may lack some
    /// afterwards, which is noted: Redis' counters must not be taken down to its counts then.
    async fn restate_all(
        &mut self,
        shard: Shard,
        event: &EventImage,
        mut found: Comparison,
    ) -> anyhow::Result<bool> {
        for _ in 0..ROUNDS_MAX {
            let Restated { last, left_out } = self.restate_bookings(shard, event, &found).await?;
            if let Some(last) = last
                && !self.is_applied(shard, event.id, last).await?
            {
                return Ok(false);
            }
            if left_out > 0 {
                self.note_doubt(event.id, &format!("{left_out} of them were not said again"));
                return Ok(false);
            }
            if let Some(doubt) = found.doubt() {
                self.note_doubt(event.id, doubt);
                return Ok(false);
            }
            if found.untold == 0 {
                return Ok(true);
            }
            // What is told is all of another kind, and would be told again.
            if last.is_none() {
                break;
            }
            found = deep::compare(self.sources(), shard, event).await?;
        }
        self.note_doubt(event.id, "more differs than is told at once");
        Ok(false)
    }

    fn note_doubt(&mut self, event: EventId, why: &str) {
        self.notes.push(format!(
            "event {event}: PostgreSQL may lack bookings that Redis has: {why}. Redis' counters were left as they are; mend \
             what the audit below names, and run this again"
        ));
    }

    fn sources(&self) -> Sources<'_> {
        Sources { pool: self.pool, redis: self.redis }
    }

    async fn has_room(&self, shard: Shard, event: &EventImage) -> anyhow::Result<bool> {
        let live = snapshot::live(self.redis, shard, &[event.id]).await?.pop();
        let live = live.and_then(|(_, live)| live.ok()?.event);
        Ok(live.is_some_and(|live| snapshot::has_room(&live, event)))
    }

    /// Whether PostgreSQL comes to a position; where it does not, that is noted.
    async fn is_applied(
        &mut self,
        shard: Shard,
        event: EventId,
        position: boxoffice_schema::position::Position,
    ) -> sqlx::Result<bool> {
        let applied = deep::wait_until_applied(self.pool, shard, position).await?;
        if !applied {
            self.notes.push(format!(
                "event {event}: decision {position} did not come to PostgreSQL. It waits in Redis for an API instance \
                 to relay it, or behind a gap; run this again when it is applied"
            ));
        }
        Ok(applied)
    }

    /// Writes the row of a mend before it is made.
    async fn begin(
        &mut self,
        kind: Kind,
        shard: Shard,
        event_id: Option<EventId>,
        before: &str,
    ) -> sqlx::Result<i64> {
        let intent = Intent { kind, shard, event_id, by: self.by, before };
        let id = repairs::begin(&mut *self.pool.acquire().await?, &intent).await?;
        self.made.push(id);
        Ok(id)
    }

    async fn end(&self, id: i64, outcome: Outcome, after: &str) -> sqlx::Result<()> {
        repairs::end(&mut *self.pool.acquire().await?, id, outcome, after).await
    }

    /// One repair of a shard at a time; none where another is at work. The lock ends with its connection.
    async fn lock(&self, shard: Shard) -> sqlx::Result<Option<PgConnection>> {
        let mut connection = self.pool.acquire().await?.detach();
        let locked: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1, $2)")
            .bind(LOCK)
            .bind(i32::from(number::of_shard(shard)))
            .fetch_one(&mut connection)
            .await?;
        Ok(locked.then_some(connection))
    }
}
