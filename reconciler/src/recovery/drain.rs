//! The first half of a recovery: what Redis decided and Kafka may not have, and the barrier behind it.

use boxoffice_schema::frame;
use boxoffice_schema::position::Position;
use boxoffice_schema::shard::Shard;
use redis::streams::StreamRangeReply;

use super::{Recoverer, RecoveryError};

/// Frames that are read at once. A frame has at most 128 decisions of about half a kilobyte each.
const PAGE: usize = 32;

impl Recoverer {
    /// Sends everything that waits in the outbox; returns how many decisions that were. Nothing is trimmed: that is
    /// the relay's work, which sends them again. A record that comes twice is known by its position.
    pub(super) async fn drain(&self, shard: Shard) -> Result<usize, RecoveryError> {
        let key = self.redis.keys.outbox(shard);
        let mut from = "-".to_owned();
        let mut sent = 0;
        loop {
            let mut range = redis::cmd("XRANGE");
            range.arg(&key).arg(&from).arg("+").arg("COUNT").arg(PAGE);
            let page: StreamRangeReply = self.redis.ask(&range).await?;
            let Some(last) = page.ids.last() else { return Ok(sent) };
            from = format!("({}", last.id);
            let mut records = Vec::new();
            for entry in &page.ids {
                let bytes: Vec<u8> = entry.get(frame::FRAME_FIELD).unwrap_or_default();
                let unreadable = |error| RecoveryError::Outbox { id: entry.id.clone(), error };
                records.extend(frame::messages(shard, &bytes).map_err(unreadable)?);
            }
            self.log.append(&records).await?;
            sent += records.len();
        }
    }

    /// Ends all older epochs in the log, and names the last decision of the Redis that is recovered.
    pub(super) async fn append_barrier(
        &self,
        shard: Shard,
        epoch: u32,
        last: Position,
    ) -> Result<(), RecoveryError> {
        Ok(self.log.append_barrier(shard, epoch, last).await?)
    }
}
