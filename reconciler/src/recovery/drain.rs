//! The first half of a recovery: what Redis decided and Kafka may not have.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use boxoffice_schema::frame;
use boxoffice_schema::scripts::RecoveryStart;
use boxoffice_schema::shard::Shard;
use redis::streams::StreamRangeReply;

use super::{Recoverer, RecoveryError};

/// Frames that are read at once. A frame has at most 128 decisions of about half a kilobyte each.
const PAGE: usize = 32;

/// What was drained.
#[derive(Default)]
pub(super) struct Drained {
    /// How many decisions.
    pub(super) records: usize,
    /// The id of the last entry.
    last: Option<String>,
}

/// Up to where the outboxes of shards are drained and applied that were not certified behind that. Their next attempts begin there:
/// who is to resolve what keeps a shard closed may come late, and each attempt would append its whole outbox once more.
#[derive(Default)]
pub(super) struct Outboxes(Mutex<BTreeMap<Shard, Applied>>);

struct Applied {
    start: RecoveryStart,
    entry: String,
}

impl Outboxes {
    fn applied(&self) -> MutexGuard<'_, BTreeMap<Shard, Applied>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what is not of the Redis in which a recovery begins now: of another one, or of one that has gone back.
    pub(super) fn keep(&self, shard: Shard, start: &RecoveryStart) {
        let is_same =
            |known: &Applied| known.start.identity == start.identity && known.start.last <= start.last;
        let mut applied = self.applied();
        if !applied.get(&shard).is_some_and(is_same) {
            applied.remove(&shard);
        }
    }

    /// Everything that was drained is applied.
    pub(super) fn note(&self, shard: Shard, start: &RecoveryStart, drained: Drained) {
        if let Some(entry) = drained.last {
            self.applied().insert(shard, Applied { start: start.clone(), entry });
        }
    }

    /// From now on others write into the outbox, and trim it.
    pub(super) fn forget(&self, shard: Shard) {
        self.applied().remove(&shard);
    }

    /// Where a range begins with what is not applied.
    fn rest(&self, shard: Shard) -> String {
        self.applied().get(&shard).map_or_else(|| "-".to_owned(), |applied| format!("({}", applied.entry))
    }
}

impl Recoverer {
    /// Sends everything that waits in the outbox, but what is known to be applied. Nothing is trimmed: that is the relay's
    /// work, which sends them again. A record that comes twice is known by its position.
    pub(super) async fn drain(&self, shard: Shard) -> Result<Drained, RecoveryError> {
        let key = self.redis.keys.outbox(shard);
        let mut from = self.outboxes.rest(shard);
        let mut drained = Drained::default();
        loop {
            let mut range = redis::cmd("XRANGE");
            range.arg(&key).arg(&from).arg("+").arg("COUNT").arg(PAGE);
            let page: StreamRangeReply = self.redis.ask(&range).await?;
            let Some(last) = page.ids.last() else { return Ok(drained) };
            from = format!("({}", last.id);
            drained.last = Some(last.id.clone());
            let mut records = Vec::new();
            for entry in &page.ids {
                let bytes: Vec<u8> = entry.get(frame::FRAME_FIELD).unwrap_or_default();
                let unreadable = |error| RecoveryError::Outbox { id: entry.id.clone(), error };
                records.extend(frame::messages(shard, &bytes).map_err(unreadable)?);
            }
            self.log.append(&records).await?;
            drained.records += records.len();
        }
    }
}
