//! `lease.lua`, `unlease.lua` and `trim.lua`: who relays a shard, and what has left its outbox.

use crate::keys::Keys;
use crate::position::Position;
use crate::shard::Shard;

use super::{Call, LEASE, TRIM, UNLEASE, decimal};

/// Takes or renews the lease for `ttl_ms`. Parse the reply with [`LeaseOutcome::parse`].
pub fn lease(keys: &Keys, shard: Shard, token: &str, ttl_ms: u64) -> Call {
    Call {
        script: &LEASE,
        keys: vec![keys.shard(shard), keys.lease(shard)],
        args: vec![token.as_bytes().to_vec(), decimal(ttl_ms)],
    }
}

/// Gives the lease back; replies 1 or 0.
pub fn unlease(keys: &Keys, shard: Shard, token: &str) -> Call {
    Call { script: &UNLEASE, keys: vec![keys.lease(shard)], args: vec![token.as_bytes().to_vec()] }
}

/// Removes all frames up to and with the one that ends at `confirmed`; replies their number. `epoch` is the one that
/// came with the lease.
pub fn trim(keys: &Keys, shard: Shard, token: &str, epoch: u32, confirmed: Position) -> Call {
    Call {
        script: &TRIM,
        keys: vec![keys.shard(shard), keys.lease(shard), keys.outbox(shard), keys.certificate(shard)],
        args: vec![
            token.as_bytes().to_vec(),
            decimal(epoch),
            decimal(confirmed.epoch),
            decimal(confirmed.sequence),
        ],
    }
}

/// The reply of `lease.lua`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseOutcome {
    /// The lease is the caller's, at this epoch of the shard.
    Ours(u32),
    /// Another instance holds it.
    Anothers,
    /// The shard was never initialised: recovery has not seen it yet.
    NoShard,
}

impl LeaseOutcome {
    /// Reads the reply.
    pub fn parse(reply: i64) -> Self {
        match u32::try_from(reply) {
            Ok(epoch) => Self::Ours(epoch),
            Err(_) if reply == -1 => Self::Anothers,
            Err(_) => Self::NoShard,
        }
    }
}
