//! Whether the log is applied to its end: how much is left, and whether the end is where it should be.
//!
//! A decision that Kafka has confirmed is dropped from Redis' outbox. Where its record is lost after all, with a topic that was made
//! anew or the only broker's disk, the shard's next decision shows a gap. Of what is sold out or over there is none: the numbers
//! alone tell. Such a gap stops nothing: should the records come after all, they are applied, and it is closed.

use std::collections::BTreeMap;

use boxoffice_schema::position::Position;
use boxoffice_schema::shard::Shard;
use sqlx::PgPool;

use crate::config::Config;
use crate::findings;
use crate::kafka::Bounds;
use crate::number;
use crate::open;
use crate::redis_link::RedisLink;
use crate::sequence::Gap;
use crate::shards;
use crate::telemetry::name;

/// What was seen the last time.
#[derive(Default)]
pub(super) struct LogEnd {
    bounds: Bounds,
    /// Shards whose log seemed to lack its end, with the last decision that was applied.
    suspected: BTreeMap<Shard, u64>,
}

/// How far PostgreSQL is with a shard.
#[derive(sqlx::FromRow)]
struct Applied {
    shard: i16,
    epoch: i32,
    sequence: i64,
    next_offset: i64,
}

impl LogEnd {
    /// Publishes how many records each shard has still to apply, and records a gap where there is none left although decisions are
    /// missing.
    pub(super) async fn look(
        &mut self,
        config: &Config,
        pool: &PgPool,
        redis: &RedisLink,
    ) -> anyhow::Result<()> {
        // In this order: what was confirmed before the log's end was asked for is in front of it.
        let confirmed = confirmed(config, redis).await.unwrap_or_default();
        let found = self.bounds.of_each(config, config.shards.shards().collect()).await?;
        let rows: Vec<Applied> =
            sqlx::query_as("SELECT shard, epoch, sequence, next_offset FROM shards").fetch_all(pool).await?;
        let suspected = std::mem::take(&mut self.suspected);
        for Applied { shard, epoch, sequence, next_offset } in rows {
            let (shard, epoch, sequence) =
                (number::shard(shard), number::epoch(epoch), number::sequence(sequence));
            // Kafka being away is said by the pipeline.
            let Some(bounds) = found.get(&shard) else { continue };
            let lag = u32::try_from(bounds.high - next_offset).unwrap_or(0);
            metrics::gauge!(name::LAG_RECORDS, "shard" => shard.to_string()).set(lag);
            let to = confirmed
                .get(&shard)
                .filter(|confirmed| confirmed.epoch == epoch)
                .map_or(0, |at| at.sequence);
            // An offset behind the end is the reader's to notice.
            if to <= sequence || next_offset != bounds.high {
                continue;
            }
            if suspected.get(&shard) == Some(&sequence) {
                let gap = Gap { epoch, from: sequence + 1, to, offset: next_offset, is_offset_lost: false };
                record(pool, shard, gap).await?;
            }
            self.suspected.insert(shard, sequence);
        }
        findings::resolve_filled_gaps(pool).await
    }
}

/// Records the gap, unless something of the shard was applied or accepted meanwhile.
async fn record(pool: &PgPool, shard: Shard, gap: Gap) -> anyhow::Result<()> {
    let mut transaction = pool.begin().await?;
    let applied = shards::lock(&mut transaction, shard).await?;
    let before = Position { epoch: gap.epoch, sequence: gap.from - 1 };
    if applied == before && open::of_shard(pool, shard).await?.gaps == 0 {
        findings::record_gap(&mut transaction, shard, gap).await?;
    }
    Ok(transaction.commit().await?)
}

/// The last decision of each shard that Kafka has confirmed, as Redis knows it.
async fn confirmed(config: &Config, redis: &RedisLink) -> redis::RedisResult<BTreeMap<Shard, Position>> {
    let mut step = redis::pipe();
    for shard in config.shards.shards() {
        step.cmd("HMGET").arg(redis.keys.shard(shard)).arg("conf_epoch").arg("conf_seq");
    }
    let answers: Vec<(Option<u32>, Option<u64>)> = redis.ask_all(&step).await?;
    let position = |(epoch, sequence): (Option<u32>, Option<u64>)| {
        epoch.zip(sequence).map(|(epoch, sequence)| Position { epoch, sequence })
    };
    Ok(config.shards.shards().zip(answers).filter_map(|(shard, at)| Some((shard, position(at)?))).collect())
}
