//! A model of the protocol: one shard as a state machine, whose every interleaving is visited up to a bound.
//!
//! The tests of the other crates run the real thing and see the orders of events that happen to happen. This crate
//! runs no server and sees all of them: each script, each record sent, each transaction and each step of a recovery is
//! one [`Action`](action::Action), and between any two of them Redis may die, be promoted or lose its folder, and
//! anybody may sleep. The [promises](promise) P1 to P6 must hold in every state of every [`Scenario`].
//!
//! A model that finds nothing proves nothing. Each [`Protection`] can therefore be left out, and then the promise that
//! it keeps must be broken (`tests/faults.rs`, which prints the steps):
//!
//! | left out | what goes wrong |
//! |---|---|
//! | [`Fence`](Protection::Fence) | A Redis that forgot a booking sells its ticket again. |
//! | [`CertificateNamesProcess`](Protection::CertificateNamesProcess) | The same, after a restart from a shorter file. |
//! | [`CertificateNamesHistory`](Protection::CertificateNamesHistory) | The same, after fail-over and fail-back: the old master is the same process. |
//! | [`PublishFence`](Protection::PublishFence) | A publication takes a position that a lost booking had; Kafka holds two decisions for one position. |
//! | [`ExpiryIsADecision`](Protection::ExpiryIsADecision) | The hold vanishes; its ticket stays taken for ever, and its key makes another booking. |
//! | [`AnswerAfterConfirmation`](Protection::AnswerAfterConfirmation) | Redis loses the tail of its file, and with it what was acknowledged. |
//! | [`AnswerInItsEpoch`](Protection::AnswerInItsEpoch) | An answer that waits for 1-5, which Redis lost, takes the confirmation of 2-5 for its own. |
//! | [`TrimAfterConfirmation`](Protection::TrimAfterConfirmation) | The relay dies with what it took out of the outbox: a gap, and a lost booking. |
//! | [`TrimChecksEpoch`](Protection::TrimChecksEpoch), [`TrimChecksToken`](Protection::TrimChecksToken), [`TrimChecksCertificate`](Protection::TrimChecksCertificate), [`NoteWhatWasTrimmed`](Protection::NoteWhatWasTrimmed) together | A relay that slept sends behind the barrier, trims, and what PostgreSQL refuses is acknowledged. |
//! | [`TrimChecksCertificate`](Protection::TrimChecksCertificate) | The same by way of the former master, promoted again with its old outbox and its old epoch. |
//! | [`NoteWhatWasTrimmed`](Protection::NoteWhatWasTrimmed) | The same where recovery has removed the frame meanwhile. |
//! | [`SequenceCheck`](Protection::SequenceCheck) | A record that came behind the barrier is applied, and its ticket is sold twice. |
//! | [`OffsetInTransaction`](Protection::OffsetInTransaction) | The reconciler dies between offset and rows. |
//! | [`EpochEndsAreKept`](Protection::EpochEndsAreKept) | A late 1-5 is passed over in silence once 2-5 was applied: it looks like a repetition. |
//! | [`Barrier`](Protection::Barrier) | A late record takes the place of an acknowledged one; or Redis is restored from a PostgreSQL that lags. |
//! | [`DrainChecksIdentity`](Protection::DrainChecksIdentity) | The barrier names a decision that Redis lost between fence and drain: a gap that nobody can close. |
//! | [`CompareChecksLastDecision`](Protection::CompareChecksLastDecision) | Redis holds 1-5 and PostgreSQL 2-5, with equal counts: another history is certified. |
//! | [`CompareChecksTakenEpoch`](Protection::CompareChecksTakenEpoch) | A later recovery, which Redis forgot, wakes and ends the epoch in which tickets are being sold. |
//! | [`RestoreChecksEpoch`](Protection::RestoreChecksEpoch) | A recoverer that slept empties a shard in which tickets were sold since. |
//! | [`CertifyChecksIdentity`](Protection::CertifyChecksIdentity) | A Redis that nobody compared is certified. |
//!
//! [`TrimChecksToken`](Protection::TrimChecksToken) alone loses nothing: the token only keeps two relays from doing the
//! same work, and a test says so.
//!
//! What is left out of the model, and why that is sound, is in `docs/adr/0013-a-model-of-the-protocol.md`.

pub mod action;
pub mod client;
pub mod explore;
mod outage;
pub mod postgres;
pub mod promise;
pub mod protection;
pub mod reader;
pub mod record;
pub mod recovery;
pub mod redis;
pub mod relay;
pub mod scenario;
pub mod system;

pub use protection::Protection;
pub use scenario::{Model, Scenario};
