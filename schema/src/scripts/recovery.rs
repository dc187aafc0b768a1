//! `begin_recovery.lua`, `recovering.lua` and `certify.lua`: the two ends of a shard's recovery, and a look in between;
//! and `end_epoch.lua`, for a Redis that was passed over.

use crate::keys::Keys;
use crate::position::Position;
use crate::shard::Shard;

use super::{BEGIN_RECOVERY, CERTIFY, Call, END_EPOCH, RECOVERING, decimal};

/// Fences the shard and gives it a new epoch, which was taken in PostgreSQL before. Replies a [`RecoveryReply`].
pub fn begin_recovery(keys: &Keys, shard: Shard, epoch: u32) -> Call {
    Call {
        script: &BEGIN_RECOVERY,
        keys: vec![keys.shard(shard), keys.certificate(shard), keys.expiry(shard), keys.outbox(shard)],
        args: vec![decimal(epoch)],
    }
}

/// Asks once more what [`begin_recovery`] replied: where it is the same, it is still the same Redis.
pub fn recovering(keys: &Keys, shard: Shard, epoch: u32) -> Call {
    Call { script: &RECOVERING, keys: vec![keys.shard(shard)], args: vec![decimal(epoch)] }
}

/// Lets the shard sell again, if it still is the one that was checked.
pub fn certify(keys: &Keys, shard: Shard, epoch: u32, sequence: u64, start: &RecoveryStart) -> Call {
    Call {
        script: &CERTIFY,
        keys: vec![keys.shard(shard), keys.certificate(shard)],
        args: vec![decimal(epoch), decimal(sequence), start.identity.as_bytes().to_vec()],
    }
}

/// Closes the shard where it stands in an epoch before `latest`, which somebody began in another Redis. Replies 1 where it had a
/// certificate, otherwise 0.
pub fn end_epoch(keys: &Keys, shard: Shard, latest: u32) -> Call {
    Call {
        script: &END_EPOCH,
        keys: vec![keys.shard(shard), keys.certificate(shard)],
        args: vec![decimal(latest)],
    }
}

/// What a recovery found in Redis when it began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryStart {
    /// `run_id:master_replid` of the Redis that is being checked.
    pub identity: String,
    /// The shard's last decision there; the lowest position where there was none, or it is lost.
    pub last: Position,
}

impl RecoveryStart {
    /// What a script of the recovery that began so must find.
    pub fn fence(&self, epoch: u32) -> Fence<'_> {
        Fence { epoch, identity: &self.identity }
    }
}

/// What a script must find that a recovery calls between its two ends, or it changes nothing.
#[derive(Clone, Copy, Debug)]
pub struct Fence<'a> {
    /// The epoch being recovered.
    pub epoch: u32,
    /// The Redis in which that began, as [`RecoveryStart`] has it.
    pub identity: &'a str,
}

impl Fence<'_> {
    /// As the scripts take it.
    pub(super) fn args(self) -> [Vec<u8>; 2] {
        [decimal(self.epoch), self.identity.as_bytes().to_vec()]
    }
}

/// What [`begin_recovery`] and [`recovering`] reply: identity, epoch and sequence of the last decision.
pub type RecoveryReply = (String, u32, u64);

impl From<RecoveryReply> for RecoveryStart {
    fn from((identity, epoch, sequence): RecoveryReply) -> Self {
        Self { identity, last: Position { epoch, sequence } }
    }
}
