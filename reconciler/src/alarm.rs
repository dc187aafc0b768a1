//! Alarms: what must not be, apart from gaps and dead letters.

use boxoffice_schema::ids::{EventId, TicketTypeId};
use boxoffice_schema::shard::Shard;

use crate::sequence::Complaint;

/// What kinds of alarms there are; docs/OPERATIONS.md says of each what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AlarmKind {
    /// A guard of the tables refused a record.
    Refused,
    /// PostgreSQL counts otherwise than a record says that Redis did.
    CountsDiffer,
    /// A record says that Redis held and sold more than there was.
    Oversold,
    /// An offset holds another record for a position that was applied.
    Contradiction,
    /// A decision of an epoch that had ended.
    EndedEpoch,
    /// An epoch began without its barrier.
    MissingBarrier,
    /// Recovery found Redis behind PostgreSQL.
    RedisLost,
    /// Recovery found something else in Redis than in PostgreSQL at the same position.
    RecoveryMismatch,
    /// Recovery cannot read an entry of the outbox.
    OutboxUnreadable,
    /// Redis differs, and PostgreSQL may be the one that lacks something.
    RestoreDoubtful,
    /// What PostgreSQL has cannot be restored.
    Unrestorable,
}

impl AlarmKind {
    const ALL: [Self; 11] = [
        Self::Refused,
        Self::CountsDiffer,
        Self::Oversold,
        Self::Contradiction,
        Self::EndedEpoch,
        Self::MissingBarrier,
        Self::RedisLost,
        Self::RecoveryMismatch,
        Self::OutboxUnreadable,
        Self::RestoreDoubtful,
        Self::Unrestorable,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::CountsDiffer => "counts_differ",
            Self::Oversold => "oversold",
            Self::Contradiction => "contradiction",
            Self::EndedEpoch => "ended_epoch",
            Self::MissingBarrier => "missing_barrier",
            Self::RedisLost => "redis_lost",
            Self::RecoveryMismatch => "recovery_mismatch",
            Self::OutboxUnreadable => "outbox_unreadable",
            Self::RestoreDoubtful => "restore_doubtful",
            Self::Unrestorable => "unrestorable",
        }
    }

    /// As it stands in a row, which another version may have written.
    pub(crate) fn of_row(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// Those that a recovery raises, which the next certificate of the shard resolves.
    pub(crate) fn of_recovery() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|kind| match kind {
            Self::RedisLost
            | Self::RecoveryMismatch
            | Self::OutboxUnreadable
            | Self::RestoreDoubtful
            | Self::Unrestorable => true,
            Self::Refused
            | Self::CountsDiffer
            | Self::Oversold
            | Self::Contradiction
            | Self::EndedEpoch
            | Self::MissingBarrier => false,
        })
    }
}

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Alarm {
    pub(crate) shard: Shard,
    pub(crate) event_id: Option<EventId>,
    pub(crate) kind: AlarmKind,
    pub(crate) detail: String,
    /// Where it is about counts: by how much PostgreSQL's differ from Redis'.
    pub(crate) counts: Option<CountsDifference>,
}

/// By how much PostgreSQL's counts of a ticket type differ from Redis' at the same position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CountsDifference {
    pub(crate) ticket_type_id: TicketTypeId,
    pub(crate) held: i64,
    pub(crate) sold: i64,
}

impl Alarm {
    pub(crate) fn of(shard: Shard, complaint: Complaint) -> Self {
        Self { shard, event_id: None, kind: complaint.kind, detail: complaint.detail, counts: None }
    }
}
