//! The first half of a recovery: what Redis decided and Kafka may not have, and the barrier behind it.

use std::collections::HashMap;

use boxoffice_schema::frame;
use boxoffice_schema::position::Position;
use boxoffice_schema::record::{Change, Kind, Record};
use boxoffice_schema::shard::Shard;
use chrono::Utc;

use super::{Recoverer, RecoveryError};

/// Frames that are read at once. A frame has at most 128 decisions of about half a kilobyte each.
const PAGE: usize = 32;

/// An entry of the outbox: its id, and its fields.
type Entry = (String, HashMap<String, Vec<u8>>);

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
            let page: Vec<Entry> = self.redis.ask(&range).await?;
            let Some((last, _)) = page.last() else { return Ok(sent) };
            from = format!("({last}");
            let mut records = Vec::new();
            for (id, fields) in &page {
                let bytes = fields.get(frame::FRAME_FIELD).map_or(&[][..], Vec::as_slice);
                let decoded = frame::messages(shard, bytes);
                records.extend(decoded.map_err(|error| RecoveryError::Outbox { id: id.clone(), error })?);
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
        let barrier = Record {
            shard,
            position: Position { epoch, sequence: last.sequence },
            kind: Kind::Barrier,
            event_id: None,
            decided_at: boxoffice_schema::time::truncate(Utc::now()),
            change: Change::Barrier { old_epoch: last.epoch },
        };
        Ok(self.log.append(&[barrier.message()]).await?)
    }
}
