//! Passes what lies at the end of the log and is never read.
//!
//! A transaction of somebody else leaves a marker in the log, which takes an offset and is given to no reader. Where it is the last
//! one of a partition, that shard seems to lag for ever, and who waits for the log's end waits in vain. A barrier of an epoch that
//! has begun says nothing: it is appended behind the marker, is read, and the shard's offset moves past both.

use std::collections::BTreeMap;
use std::time::Duration;

use boxoffice_schema::shard::Shard;
use sqlx::PgPool;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::kafka::{Bounds, LogWriter, Watermarks};
use crate::number;

/// How often is looked. A shard that stands before the end of its log for so long has nothing to read there, or is slow, and then a
/// barrier more does no harm.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// How far PostgreSQL is with a shard.
#[derive(sqlx::FromRow)]
struct Applied {
    shard: i16,
    epoch: i32,
    sequence: i64,
    next_offset: i64,
}

/// What was seen before.
#[derive(Default)]
struct Tails {
    bounds: Bounds,
    /// The shards that stood before the end of their log in the last look, and at which offset.
    standing: BTreeMap<Shard, i64>,
    /// At which offset of a shard a barrier was appended last: once is enough.
    passed: BTreeMap<Shard, i64>,
}

/// Looks again and again until the shutdown.
pub(crate) async fn watch(config: &Config, pool: &PgPool, log: &LogWriter, shutdown: &CancellationToken) {
    let mut interval = tokio::time::interval(LOOK_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut tails = Tails::default();
    while shutdown.run_until_cancelled(interval.tick()).await.is_some() {
        match shutdown.run_until_cancelled(tails.look(config, pool, log)).await {
            Some(Ok(())) => {}
            // A server that is away is told of by whoever needs it.
            Some(Err(error)) => tracing::debug!(%error, "the ends of the log were not looked at"),
            None => return,
        }
    }
}

impl Tails {
    async fn look(&mut self, config: &Config, pool: &PgPool, log: &LogWriter) -> anyhow::Result<()> {
        // A look that fails is none in a row.
        let before = std::mem::take(&mut self.standing);
        // Before a gap a shard is to stand.
        let rows: Vec<Applied> = sqlx::query_as(
            "SELECT shard, epoch, sequence, next_offset FROM shards \
             WHERE NOT EXISTS (SELECT FROM gaps WHERE gaps.shard = shards.shard AND resolved_at IS NULL)",
        )
        .fetch_all(pool)
        .await?;
        let shards = rows.iter().map(|row| number::shard(row.shard)).collect();
        let found = self.bounds.of_each(config, shards).await?;
        for Applied { shard, epoch, sequence, next_offset } in rows {
            let shard = number::shard(shard);
            // An offset that the log does not have is the reader's to notice.
            let is_behind = |found: &Watermarks| (found.low..found.high).contains(&next_offset);
            if !found.get(&shard).is_some_and(is_behind) {
                continue;
            }
            self.standing.insert(shard, next_offset);
            if before.get(&shard) == Some(&next_offset) && self.passed.get(&shard) != Some(&next_offset) {
                let last = number::position(epoch, sequence);
                if let Err(error) = log.append_barrier(shard, last.epoch, last).await {
                    tracing::debug!(%error, %shard, "no barrier was appended behind the end of the log");
                    continue;
                }
                self.passed.insert(shard, next_offset);
                tracing::info!(%shard, next_offset, "nothing comes from the end of the log: a barrier was appended behind it");
            }
        }
        Ok(())
    }
}
