//! The rules of the protocol that can be left out, one at a time.

/// A rule whose absence does harm. The table in the crate's documentation says which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protection {
    /// No script decides without a certificate.
    Fence,
    /// The certificate names the process of Redis (`run_id`).
    CertificateNamesProcess,
    /// The certificate names the replication history of Redis (`master_replid`).
    CertificateNamesHistory,
    /// Publishing, too, needs a certificate.
    PublishFence,
    /// Stock of holds comes back by a decision, never by a TTL.
    ExpiryIsADecision,
    /// In `kafka` mode an answer waits until Kafka has confirmed the decision.
    AnswerAfterConfirmation,
    /// In `kafka` mode an answer counts only what was confirmed in the epoch in which its script ran.
    AnswerInItsEpoch,
    /// Frames leave the outbox after Kafka has confirmed them.
    TrimAfterConfirmation,
    /// Only the holder of the lease trims.
    TrimChecksToken,
    /// Only a relay of the present epoch trims.
    TrimChecksEpoch,
    /// Nothing is trimmed in a Redis that is not certified.
    TrimChecksCertificate,
    /// A relay notes as confirmed what it removed from the outbox, and nothing that was gone already.
    NoteWhatWasTrimmed,
    /// The reconciler applies what comes next, and nothing else.
    SequenceCheck,
    /// The offset moves in the transaction that writes what it stands for.
    OffsetInTransaction,
    /// A late record of an ended epoch is an alarm, even where its sequence number was used again.
    EpochEndsAreKept,
    /// Recovery appends a barrier and waits until it is applied.
    Barrier,
    /// Recovery looks again, before the barrier, whether it drained the Redis that it began with.
    DrainChecksIdentity,
    /// Recovery compares the position of the last decision, its epoch included, not its sequence number alone.
    CompareChecksLastDecision,
    /// Recovery gives up where a later epoch was taken in PostgreSQL, even if Redis does not know of it.
    CompareChecksTakenEpoch,
    /// The scripts that restore check the epoch, and that there is no certificate.
    RestoreChecksEpoch,
    /// The script that certifies checks that this is the Redis that was compared.
    CertifyChecksIdentity,
}
