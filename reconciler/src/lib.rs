//! Keeps PostgreSQL equal to the decisions in Kafka, proves it, and certifies the inventory in Redis.
//!
//! The pipeline, top to bottom: `consumer` reads a batch of bytes from Kafka, `decode` makes records of them,
//! `sequence` judges each by its position, `fold` reduces what is to be applied to one change a row, and
//! `apply` writes that with the offsets in one transaction. Beside it `recovery` certifies shards and `audit`
//! compares the stores, and `limits` sums up what the rate limits decided.
//!
//! # Why there is no consumer group
//!
//! Partitions are assigned by hand, at the offsets that PostgreSQL holds, to the one process that holds the lease in
//! PostgreSQL. A consumer group would keep a second opinion about ownership and offsets in Kafka, which could differ
//! from the first; here the rows and the offset that leads to them live and die in one transaction. The lease only
//! keeps two processes from doing the same work. A process that slept and still believes in its lease harms nothing:
//! each batch locks its rows of `shards` and skips every position that is applied already.

pub mod cli;
pub mod config;
pub mod migrate;
#[doc(hidden)]
pub mod outside;
pub mod run;

mod alarm;
mod apply;
mod audit;
mod backoff;
mod consumer;
mod copy;
mod dead_letter_topic;
mod dead_letters;
mod decode;
mod deep;
mod epochs;
mod findings;
mod fold;
mod gaps;
mod guarantees;
mod kafka;
mod lease;
mod limits;
mod miscounts;
mod number;
mod once;
mod open;
mod pipeline;
mod postgres;
mod rebuild;
mod recovery;
mod redis_link;
mod repair;
mod repairs;
mod report;
mod sequence;
mod servers;
mod shards;
mod show;
mod snapshot;
mod stand_in;
mod standstill;
mod status;
mod stored;
mod tail;
mod telemetry;

#[cfg(test)]
mod test_records;

pub use config::Config;
pub use run::run;
