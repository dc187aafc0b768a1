//! How far this reader has brought each shard. A PostgreSQL that stands before that has gone back: it failed over to a server that
//! lacked some transactions. What it has forgotten is in the log, and no gap.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use boxoffice_schema::shard::Shard;

use crate::sequence::Progress;

/// The offset at which each shard was begun, or that behind its last record which was committed since.
#[derive(Default)]
pub(super) struct Reached(Mutex<BTreeMap<Shard, i64>>);

impl Reached {
    fn offsets(&self) -> MutexGuard<'_, BTreeMap<Shard, i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin(&self, shard: Shard, offset: i64) {
        self.offsets().insert(shard, offset);
    }

    pub(super) fn of(&self, shard: Shard) -> i64 {
        self.offsets().get(&shard).copied().unwrap_or_default()
    }

    pub(super) fn note(&self, progress: &BTreeMap<Shard, Progress>) {
        self.offsets().extend(progress.iter().map(|(shard, progress)| (*shard, progress.next_offset)));
    }

    /// Takes those shards out that PostgreSQL has gone back with. They have to be begun again at its offsets.
    pub(super) fn take_those_behind(&self, progress: &mut BTreeMap<Shard, Progress>) -> BTreeSet<Shard> {
        let offsets = self.offsets();
        let mut behind = BTreeSet::new();
        progress.retain(|shard, progress| {
            let reached = offsets.get(shard).copied().unwrap_or_default();
            if progress.next_offset >= reached {
                return true;
            }
            tracing::error!(
                %shard, reached, found = progress.next_offset,
                "PostgreSQL has forgotten what it had applied of this shard; reading on at its offset"
            );
            behind.insert(*shard);
            false
        });
        behind
    }
}
