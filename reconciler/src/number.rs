//! Numbers as PostgreSQL has them, which has no unsigned ones.
//!
//! What does not fit is written as a number that every constraint of the tables refuses, and that is no row's. A number in a row
//! that is none of ours is read as 0, which is no position's, and the first shard's.

use boxoffice_schema::position::Position;
use boxoffice_schema::shard::Shard;

pub(crate) fn of_shard(shard: Shard) -> i16 {
    i16::try_from(shard.number()).unwrap_or(i16::MIN)
}

pub(crate) fn int4(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MIN)
}

pub(crate) fn int8(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MIN)
}

pub(crate) fn shard(number: i16) -> Shard {
    Shard::from_number(u16::try_from(number).unwrap_or(0))
}

pub(crate) fn epoch(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

pub(crate) fn sequence(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

pub(crate) fn position(of_epoch: i32, of_sequence: i64) -> Position {
    Position { epoch: epoch(of_epoch), sequence: sequence(of_sequence) }
}
