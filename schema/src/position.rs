//! Where a decision stands in its shard's history.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The position of a decision: the recovery it came after, and its number. Later decisions compare greater.
/// The sequence never restarts: a new epoch goes on above the last sequence of the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// Counts the shard's recoveries, from 1.
    pub epoch: u32,
    /// Counts the shard's decisions, from 1.
    pub sequence: u64,
}

impl fmt::Display for Position {
    /// As the outbox names its entries: `epoch-sequence`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.sequence)
    }
}
