//! `begin_recovery.lua` and `certify.lua`: the two ends of a shard's recovery.

use crate::keys::Keys;
use crate::shard::Shard;

use super::{BEGIN_RECOVERY, CERTIFY, Call, decimal};

/// Fences the shard and gives it a new epoch, which was taken in PostgreSQL before. Replies a [`RecoveryStart`] as
/// the pair of its fields.
pub fn begin_recovery(keys: &Keys, shard: Shard, epoch: u32) -> Call {
    Call {
        script: &BEGIN_RECOVERY,
        keys: vec![keys.shard(shard), keys.certificate(shard)],
        args: vec![decimal(epoch)],
    }
}

/// Lets the shard sell again, if it still is the one that was checked.
pub fn certify(keys: &Keys, shard: Shard, epoch: u32, sequence: u64, start: &RecoveryStart) -> Call {
    Call {
        script: &CERTIFY,
        keys: vec![keys.shard(shard), keys.certificate(shard)],
        args: vec![decimal(epoch), decimal(sequence), start.identity.as_bytes().to_vec()],
    }
}

/// What a recovery found in Redis when it began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryStart {
    /// `run_id:master_replid` of the Redis that is being checked.
    pub identity: String,
    /// The shard's last sequence there.
    pub sequence: u64,
}
