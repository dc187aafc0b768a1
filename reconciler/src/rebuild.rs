//! `rebuild`: Redis is restored from PostgreSQL and the log because somebody says so.
//!
//! The command writes down what is to be rebuilt, and whoever recovers shards does it: the service where one runs,
//! otherwise this process. So there is one recoverer, whatever is asked of it, and a rebuild that was interrupted is
//! begun again, by the service even where the command itself is gone.

use std::time::Duration;

use anyhow::{Context, ensure};
use boxoffice_schema::ids::EventId;
use boxoffice_schema::shard::Shard;
use sqlx::PgPool;
use tokio::time::Instant;

use crate::config::Config;
use crate::redis_link::RedisLink;
use crate::repairs::{self, Intent, Kind, Repair};
use crate::stored;
use crate::{postgres, servers, shards, snapshot, stand_in};

/// How long the command waits. What is asked for stays asked for.
const PATIENCE: Duration = Duration::from_secs(900);

/// How often it looks.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// What is to be rebuilt.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Selection {
    Event(EventId),
    Shard(Shard),
    All,
}

impl Selection {
    /// The shards that it concerns.
    pub(crate) fn shards(self, config: &Config) -> Vec<Shard> {
        match self {
            Self::Event(event) => vec![config.shards.shard_of(event)],
            Self::Shard(shard) => vec![shard],
            Self::All => config.shards.shards().collect(),
        }
    }

    /// The one event that it means.
    pub(crate) const fn event(self) -> Option<EventId> {
        match self {
            Self::Event(event) => Some(event),
            Self::Shard(_) | Self::All => None,
        }
    }
}

/// Rebuilds, and returns the rows that say what came of it; one that is not ended was not finished in time.
pub(crate) async fn rebuild(config: &Config, selection: Selection, by: &str) -> anyhow::Result<Vec<Repair>> {
    let pool = postgres::pool(config)?;
    let redis = RedisLink::new(config)?;
    servers::wait_for_all(config, &pool, &redis).await?;
    if let Some(event) = selection.event() {
        check_event(config, &pool, event).await?;
    }
    let shards = selection.shards(config);
    let mut ids = Vec::with_capacity(shards.len());
    for shard in &shards {
        let before = describe(&pool, &redis, *shard).await?;
        let intent =
            Intent { kind: Kind::Rebuild, shard: *shard, event_id: selection.event(), by, before: &before };
        ids.push(repairs::ask_for_rebuild(&pool, &intent).await?);
    }
    let ended =
        stand_in::while_applied(config, &pool, &redis, shards, wait_until_ended(&pool, &ids)).await??;
    pool.close().await;
    Ok(ended)
}

/// Refuses an event that recovery does not restore.
async fn check_event(config: &Config, pool: &PgPool, event: EventId) -> anyhow::Result<()> {
    let stored = stored::events(pool, config.shards.shard_of(event)).await?;
    let stored = stored.into_iter().find(|stored| stored.image.id == event);
    let stored = stored.with_context(|| format!("PostgreSQL has no published event {event}"))?;
    ensure!(
        !stored.is_over,
        "event {event} was closed and took place more than a day ago: it is no longer kept in Redis"
    );
    Ok(())
}

/// Where a shard stands before it is rebuilt, in words.
async fn describe(pool: &PgPool, redis: &RedisLink, shard: Shard) -> anyhow::Result<String> {
    let live = snapshot::live_shards(redis, &[shard]).await?;
    let live = live.get(&shard).context("Redis answers for the shard that it was asked for")?;
    let at = live.position.map_or_else(|| "nothing".to_owned(), |position| position.to_string());
    let certified = if live.certified { "certified" } else { "not certified" };
    let postgres = shards::applied(pool, shard).await?;
    Ok(format!("Redis at {at}, {certified}; PostgreSQL at {postgres}"))
}

async fn wait_until_ended(pool: &PgPool, ids: &[i64]) -> anyhow::Result<Vec<Repair>> {
    let start = Instant::now();
    loop {
        let rows = repairs::by_id(pool, ids).await?;
        if rows.iter().all(|row| row.outcome.is_some()) || start.elapsed() > PATIENCE {
            return Ok(rows);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// 0 where all is rebuilt, 1 where something was refused, 2 where it is not finished.
pub(crate) fn exit_code(rows: &[Repair]) -> u8 {
    let outcomes = || rows.iter().map(|row| row.outcome.as_deref());
    if outcomes().any(|outcome| outcome.is_none()) {
        2
    } else {
        u8::from(outcomes().any(|outcome| outcome != Some("done")))
    }
}
