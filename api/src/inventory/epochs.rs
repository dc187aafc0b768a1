//! Which epoch each shard is in at least, as far as this instance has heard, and what that closes.
//!
//! A Redis that was passed over in a fail-over does not know that its epoch is over, and its certificates hold. Where the address
//! of Redis leads there again, it would sell what is sold elsewhere. So nobody uses a connection before it was asked for its
//! epochs, and a shard that stands in an ended one is closed there; and again when a later epoch is heard of. That is heard from
//! PostgreSQL, where a recovery takes its epoch before Redis hears of it, and from Redis' own answers.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use boxoffice_schema::keys::Keys;
use boxoffice_schema::scripts::end_epoch;
use boxoffice_schema::shard::{Shard, ShardCount};
use foldhash::HashMap;
use redis::aio::MultiplexedConnection;
use redis::{RedisError, RedisResult};

/// The latest epoch of each shard that was heard of; 0 where none was.
#[derive(Debug)]
pub(crate) struct Epochs {
    keys: Keys,
    latest: HashMap<Shard, AtomicU32>,
    /// How often there was news.
    version: AtomicU64,
}

impl Epochs {
    /// Nothing was heard yet.
    pub(crate) fn new(keys: Keys, shards: ShardCount) -> Self {
        let latest = shards.shards().map(|shard| (shard, AtomicU32::new(0))).collect();
        Self { keys, latest, version: AtomicU64::new(0) }
    }

    /// In which epoch the shard is, or has been.
    pub(super) fn latest(&self, shard: Shard) -> u32 {
        self.latest.get(&shard).map_or(0, |latest| latest.load(Ordering::Relaxed))
    }

    /// Somebody says that the shard has come to this epoch. A shard that there is not is none of ours.
    pub(crate) fn raise(&self, shard: Shard, epoch: u32) {
        let is_news = |latest: &AtomicU32| latest.fetch_max(epoch, Ordering::Relaxed) < epoch;
        // Most of what is heard is no news, and then nothing is written.
        if self.latest(shard) < epoch && self.latest.get(&shard).is_some_and(is_news) {
            self.version.fetch_add(1, Ordering::Release);
        }
    }

    /// Another number whenever something was heard that [`Self::close_what_is_over`] is to know of.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Closes the shards that stand in an ended epoch in the Redis that is asked. A shard of which it does not say where it stands
    /// decides nothing either.
    ///
    /// # Errors
    /// Where it does not answer, or does not let a shard be closed: it is not to be asked for anything then.
    pub(super) async fn close_what_is_over(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<(), RedisError> {
        let shards = self.latest.keys().map(|shard| (*shard, self.latest(*shard)));
        let known: Vec<(Shard, u32)> = shards.filter(|(_, latest)| *latest > 0).collect();
        if known.is_empty() {
            return Ok(());
        }
        let mut ask = redis::pipe();
        for (shard, _) in &known {
            ask.hget(self.keys.shard(*shard), "epoch");
        }
        let stand: Vec<RedisResult<Option<u32>>> = ask.ignore_errors().query_async(connection).await?;
        for ((shard, latest), stands) in known.into_iter().zip(stand) {
            if stands.is_ok_and(|epoch| epoch.is_some_and(|epoch| epoch < latest)) {
                self.close(shard, latest, connection).await?;
            }
        }
        Ok(())
    }

    async fn close(
        &self,
        shard: Shard,
        latest: u32,
        connection: &mut MultiplexedConnection,
    ) -> Result<(), RedisError> {
        let call = end_epoch(&self.keys, shard, latest);
        let mut command = redis::cmd("EVAL");
        command.arg(call.script.source()).arg(call.keys.len()).arg(&call.keys).arg(&call.args);
        if command.query_async::<u8>(connection).await? == 1 {
            tracing::warn!(%shard, latest, "Redis sells in an epoch that is over; the shard was closed there");
        }
        Ok(())
    }
}
