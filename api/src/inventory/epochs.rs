//! Which epoch each shard is in, as far as this instance has heard, and which shards stand in an earlier one where its clients ask.
//!
//! A Redis that was passed over in a fail-over does not know that its epoch is over, and its certificates hold. Where the address
//! of Redis leads there again, it would sell what is sold elsewhere. So nobody uses a connection before it was asked for its
//! epochs, and nothing is asked of a shard that stands in an ended one, for as long as it does. In that Redis nothing is changed: what
//! it decided before is still brought to Kafka, and behind the barrier that is told. What has begun is heard from PostgreSQL, where a
//! recovery takes its epoch before Redis hears of it, and from Redis' own answers.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use boxoffice_schema::keys::Keys;
use boxoffice_schema::shard::{Shard, ShardCount};
use foldhash::HashMap;
use redis::aio::MultiplexedConnection;
use redis::{RedisError, RedisResult};

/// What was heard of each shard.
#[derive(Debug)]
pub(crate) struct Epochs {
    keys: Keys,
    shards: HashMap<Shard, OfShard>,
    /// How often there was news.
    version: AtomicU64,
}

#[derive(Debug, Default)]
struct OfShard {
    /// The last one by PostgreSQL, which may have been restored from a backup since.
    begun: AtomicU32,
    /// The latest one in which something was decided.
    seen: AtomicU32,
    /// Whether it stands in an earlier one, where clients ask.
    is_over: AtomicBool,
}

impl OfShard {
    fn latest(&self) -> u32 {
        self.begun.load(Ordering::Relaxed).max(self.seen.load(Ordering::Relaxed))
    }
}

impl Epochs {
    /// Nothing was heard yet.
    pub(crate) fn new(keys: Keys, shards: ShardCount) -> Self {
        let shards = shards.shards().map(|shard| (shard, OfShard::default())).collect();
        Self { keys, shards, version: AtomicU64::new(0) }
    }

    /// The latest epoch of the shard that was heard of; 0 where none was.
    pub(super) fn latest(&self, shard: Shard) -> u32 {
        self.shards.get(&shard).map_or(0, OfShard::latest)
    }

    /// Whether the shard stands in an ended epoch, where clients ask.
    pub(super) fn is_over(&self, shard: Shard) -> bool {
        self.shards.get(&shard).is_some_and(|of| of.is_over.load(Ordering::Relaxed))
    }

    /// PostgreSQL says which epoch of the shard was begun last. A shard that there is not is none of ours.
    pub(crate) fn note_begun(&self, shard: Shard, epoch: u32) {
        let Some(of) = self.shards.get(&shard) else { return };
        if of.begun.swap(epoch, Ordering::Relaxed) != epoch {
            self.version.fetch_add(1, Ordering::Release);
        }
    }

    /// Redis says in which epoch it has decided something of the shard.
    pub(super) fn note_seen(&self, shard: Shard, epoch: u32) {
        let Some(of) = self.shards.get(&shard) else { return };
        // Most of what is heard is no news, and then nothing is written.
        if of.seen.load(Ordering::Relaxed) < epoch && of.seen.fetch_max(epoch, Ordering::Relaxed) < epoch {
            self.version.fetch_add(1, Ordering::Release);
        }
    }

    /// Another number whenever there was news.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Notes which shards stand in an ended epoch in the Redis that clients ask from now on; whether any does.
    ///
    /// # Errors
    /// Where it does not answer.
    pub(super) async fn note_over(&self, connection: &mut MultiplexedConnection) -> Result<bool, RedisError> {
        let over = self.over(connection).await?;
        for (shard, of) in &self.shards {
            let is_over = over.contains(shard);
            if of.is_over.swap(is_over, Ordering::Relaxed) != is_over {
                let latest = of.latest();
                if is_over {
                    tracing::warn!(%shard, latest, "Redis stands in an epoch that is over; the shard is not asked there");
                } else {
                    tracing::info!(%shard, latest, "Redis stands in the present epoch of the shard again");
                }
            }
        }
        Ok(!over.is_empty())
    }

    /// The shards that stand in an ended epoch in the Redis that is asked. One of which it does not say where it stands decides
    /// nothing either.
    pub(super) async fn over(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<Vec<Shard>, RedisError> {
        let known = self.shards.iter().map(|(shard, of)| (*shard, of.latest()));
        let known: Vec<(Shard, u32)> = known.filter(|(_, latest)| *latest > 0).collect();
        if known.is_empty() {
            return Ok(Vec::new());
        }
        let mut ask = redis::pipe();
        for (shard, _) in &known {
            ask.hget(self.keys.shard(*shard), "epoch");
        }
        let stand: Vec<RedisResult<Option<u32>>> = ask.ignore_errors().query_async(connection).await?;
        let stand = known.into_iter().zip(stand);
        let is_over = |latest, stands: RedisResult<Option<u32>>| {
            stands.is_ok_and(|epoch| epoch.is_some_and(|epoch| epoch < latest))
        };
        Ok(stand.filter_map(|((shard, latest), stands)| is_over(latest, stands).then_some(shard)).collect())
    }
}
