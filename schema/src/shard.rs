//! Shards: independent histories, each with its own sequence, outbox, certificate and Kafka partition.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::EventId;

/// The number of shards, fixed when Boxoffice is installed and recorded in PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardCount(u16);

/// The number is outside 1 to 1,024.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the number of shards must be 1 to {}", ShardCount::MAX)]
pub struct InvalidShardCount;

impl ShardCount {
    /// Unless set at installation.
    pub const DEFAULT: Self = Self(16);
    /// The most shards an installation may have.
    pub const MAX: u16 = 1024;

    /// Checks the bounds.
    ///
    /// # Errors
    /// Outside 1 to 1,024.
    pub fn new(count: u16) -> Result<Self, InvalidShardCount> {
        if (1..=Self::MAX).contains(&count) { Ok(Self(count)) } else { Err(InvalidShardCount) }
    }

    /// The number itself.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// All shards, in order.
    pub fn shards(self) -> impl Iterator<Item = Shard> {
        (0..self.0).map(Shard)
    }

    /// The shard of an event: CRC-32 (ISO-HDLC, as in zlib) of the id's sixteen bytes, modulo the number of shards.
    pub fn shard_of(self, event: EventId) -> Shard {
        let hash = crc32fast::hash(event.as_bytes());
        let shard = hash % u32::from(self.0);
        Shard(u16::try_from(shard).expect("a remainder of a u16 fits a u16"))
    }
}

/// One shard, numbered from 0; the Kafka partition of the same number is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shard(u16);

impl Shard {
    /// A shard by its number, as a store holds it.
    pub const fn from_number(number: u16) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// Its Kafka partition.
    pub fn partition(self) -> i32 {
        i32::from(self.0)
    }
}

impl fmt::Display for Shard {
    /// As in its hash tag: `s07`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{:02}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors for whoever implements the hash elsewhere; computed with Python's `zlib.crc32`.
    #[test]
    fn the_hash_of_an_event_id_is_the_specified_one() {
        for (id, of_16, of_7) in VECTORS {
            let id: EventId = id.parse().unwrap();
            assert_eq!(ShardCount::DEFAULT.shard_of(id).number(), of_16, "{id}");
            assert_eq!(ShardCount::new(7).unwrap().shard_of(id).number(), of_7, "{id}");
        }
    }

    const VECTORS: [(&str, u16, u16); 4] = [
        ("00000000-0000-0000-0000-000000000000", 5, 1),
        ("ffffffff-ffff-ffff-ffff-ffffffffffff", 10, 0),
        ("01939c5e-7a00-7000-8000-000000000001", 10, 6),
        ("01939c5e-7a00-7abc-8def-0123456789ab", 10, 6),
    ];
}
