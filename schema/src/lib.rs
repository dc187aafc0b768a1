//! The contract of Boxoffice's three stores, and nothing else: there is no I/O here.
//!
//! - What things are: [`ids`], [`text`], [`money`], [`status`], [`position`], [`shard`].
//! - What Redis holds and does: [`keys`], [`slot`], [`image`], [`event`], [`frame`], [`fingerprint`], [`rate`], [`scripts`];
//!   how much of it there may be: [`memory`].
//! - What Kafka carries: [`record`], and of rate limits [`rate_record`].
//! - What PostgreSQL holds: the numbered files in `schema/migrations`.
//!
//! `api` and `reconciler` both depend on this crate and never on each other.

pub mod bytes;
pub mod event;
pub mod fingerprint;
pub mod frame;
pub mod ids;
pub mod image;
pub mod keys;
pub mod memory;
pub mod money;
#[cfg(feature = "mutants")]
pub mod mutants;
pub mod position;
pub mod rate;
pub mod rate_record;
pub mod record;
pub mod scripts;
pub mod shard;
pub mod slot;
pub mod status;
pub mod text;
pub mod time;

/// A value from outside that is not what this crate writes: a truncated image, an unknown version, a bad field.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{what}: {why}")]
pub struct DecodeError {
    what: &'static str,
    why: String,
}

impl DecodeError {
    /// `what` names the thing that was read, `why` says what is wrong with it.
    pub fn new(what: &'static str, why: impl Into<String>) -> Self {
        Self { what, why: why.into() }
    }
}
