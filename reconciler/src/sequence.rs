//! Judges records by their positions: what comes next is applied, what came before is skipped, and what should not
//! be is named. Pure: the state of a shard is a row that the caller has locked.

use boxoffice_schema::position::Position;
use boxoffice_schema::record::Change;

use crate::alarm::AlarmKind;
use crate::decode::{Content, Digest, Incoming};
use crate::epochs::Epochs;

/// How far a shard's log is applied: its row in `shards`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) epoch: u32,
    pub(crate) sequence: u64,
    /// Of the last applied record.
    pub(crate) digest: Option<Digest>,
    pub(crate) next_offset: i64,
    /// Where its epochs began.
    pub(crate) epochs: Epochs,
    /// Those that began with what was judged, each with the sequence behind which it did; to be written.
    pub(crate) begun: Vec<Position>,
}

/// A run of sequence numbers that are missing in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) epoch: u32,
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) offset: i64,
    /// Kafka does not have that offset: what is missing is known only when reading on.
    pub(crate) is_offset_lost: bool,
}

/// What must be told to an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Complaint {
    pub(crate) kind: AlarmKind,
    pub(crate) detail: String,
}

/// What is to be done with a record. All but a gap move the shard's offset past it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The next decision.
    Apply,
    /// The next decision, of an epoch whose barrier is not in the log.
    ApplyUnannounced(Complaint),
    /// Known already, or a barrier, which changes no table but the shard's row.
    Pass,
    /// Must not be; not applied.
    Refuse(Complaint),
    /// Unreadable; set aside. Where its position was the next one, it was taken.
    SetAside,
    /// Decisions are missing before this one: the shard stops here.
    Stop(Gap),
}

impl Progress {
    /// Judges the shard's next record, and moves past it unless it stops the shard.
    pub(crate) fn judge(&mut self, incoming: &Incoming) -> Verdict {
        if incoming.offset < self.next_offset {
            return Verdict::Pass;
        }
        // An offset that was left out is nothing to stop at: others' transactions take some, and what they take back or a
        // compaction removes is never read. Where a decision is missing the sequence shows it.
        let verdict = match (&incoming.content, incoming.position()) {
            (Content::Record(record), Some(position)) => match record.change {
                Change::Barrier { old_epoch } => self.judge_barrier(position, old_epoch, incoming),
                _ => self.judge_decision(position, incoming),
            },
            (_, Some(position)) => match self.judge_decision(position, incoming) {
                Verdict::Apply | Verdict::ApplyUnannounced(_) => Verdict::SetAside,
                other => other,
            },
            (_, None) => Verdict::SetAside,
        };
        if !matches!(verdict, Verdict::Stop(_)) {
            self.next_offset = incoming.offset + 1;
        }
        verdict
    }

    fn judge_decision(&mut self, position: Position, incoming: &Incoming) -> Verdict {
        if position.sequence <= self.sequence {
            return self.judge_known(position, incoming);
        }
        if position.epoch < self.epoch {
            return self.refuse_late(position, incoming);
        }
        if position.sequence > self.sequence + 1 {
            return Verdict::Stop(self.gap_before(position.sequence, position.epoch, incoming.offset));
        }
        let announced = position.epoch == self.epoch;
        self.take(position, incoming);
        if announced {
            return Verdict::Apply;
        }
        Verdict::ApplyUnannounced(Complaint {
            kind: AlarmKind::MissingBarrier,
            detail: format!("epoch {} began at decision {position} without its barrier", position.epoch),
        })
    }

    /// A decision of an ended epoch that nobody had heard of when the next one began.
    fn refuse_late(&self, position: Position, incoming: &Incoming) -> Verdict {
        Verdict::Refuse(Complaint {
            kind: AlarmKind::EndedEpoch,
            detail: format!(
                "decision {position} (offset {}) came after epoch {} had begun; it was not applied",
                incoming.offset, self.epoch
            ),
        })
    }

    /// A position that was applied: once more the same record, unless something is wrong. Its sequence number may also
    /// have been used again, because its own epoch had ended before it was heard of.
    fn judge_known(&self, position: Position, incoming: &Incoming) -> Verdict {
        #[cfg(feature = "mutants")]
        if boxoffice_schema::mutants::is_off("no-dedup") {
            return Verdict::Apply;
        }
        if self.epochs.is_beyond_end(position) {
            return self.refuse_late(position, incoming);
        }
        let is_last = position.sequence == self.sequence && position.epoch == self.epoch;
        match self.digest {
            Some(digest) if is_last && !incoming.is_same_as(digest) => Verdict::Refuse(Complaint {
                kind: AlarmKind::Contradiction,
                detail: format!(
                    "offset {} holds another record for the applied position {position}; it was not applied",
                    incoming.offset
                ),
            }),
            _ => Verdict::Pass,
        }
    }

    /// A barrier names the last decision of the Redis that is recovered. Where Redis knew less than was applied, or had
    /// gone on in an epoch that had ended, it is not the log that lacks something: the sequence never goes back, and
    /// recovery restores that Redis.
    fn judge_barrier(&mut self, position: Position, last_epoch: u32, incoming: &Incoming) -> Verdict {
        if position.epoch <= self.epoch {
            return Verdict::Pass;
        }
        let last = Position { epoch: last_epoch, sequence: position.sequence };
        if position.sequence > self.sequence && !self.epochs.is_beyond_end(last) {
            return Verdict::Stop(self.gap_before(position.sequence + 1, self.epoch, incoming.offset));
        }
        self.take(Position { epoch: position.epoch, sequence: self.sequence }, incoming);
        Verdict::Pass
    }

    fn take(&mut self, position: Position, incoming: &Incoming) {
        if position.epoch != self.epoch {
            self.epochs.begin(position.epoch, self.sequence);
            self.begun.push(Position { epoch: position.epoch, sequence: self.sequence });
        }
        self.epoch = position.epoch;
        self.sequence = position.sequence;
        self.digest = Some(incoming.digest);
    }

    fn gap_before(&self, sequence: u64, epoch: u32, offset: i64) -> Gap {
        Gap { epoch, from: self.sequence + 1, to: sequence - 1, offset, is_offset_lost: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{Fetched, decode};
    use boxoffice_schema::record::Record;

    use crate::test_records::{barrier, booked, incoming};

    fn progress(epoch: u32, sequence: u64) -> Progress {
        let mut epochs = Epochs::default();
        epochs.begin(epoch, 0);
        Progress { epoch, sequence, digest: None, next_offset: 0, epochs, begun: vec![] }
    }

    fn complaint(verdict: Verdict) -> AlarmKind {
        match verdict {
            Verdict::Refuse(complaint) | Verdict::ApplyUnannounced(complaint) => complaint.kind,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_next_decision_is_applied_and_an_earlier_one_passed() {
        let mut at = progress(1, 4);
        assert_eq!(at.judge(&incoming(0, &booked(1, 5, "a"))), Verdict::Apply);
        assert_eq!(at.judge(&incoming(1, &booked(1, 3, "b"))), Verdict::Pass);
        assert_eq!(at.judge(&incoming(2, &booked(1, 6, "c"))), Verdict::Apply);
        assert_eq!((at.epoch, at.sequence, at.next_offset), (1, 6, 3));
    }

    #[test]
    fn an_offset_that_was_applied_is_passed_whatever_it_holds() {
        let mut at = Progress { next_offset: 10, ..progress(1, 4) };
        assert_eq!(at.judge(&incoming(9, &booked(1, 9, "a"))), Verdict::Pass);
        assert_eq!(at, Progress { next_offset: 10, ..progress(1, 4) });
    }

    #[test]
    fn the_last_position_with_another_digest_is_a_contradiction() {
        let mut at = progress(1, 4);
        let record = booked(1, 5, "a");
        assert_eq!(at.judge(&incoming(0, &record)), Verdict::Apply);
        assert_eq!(at.judge(&incoming(1, &record)), Verdict::Pass);
        assert_eq!(complaint(at.judge(&incoming(2, &booked(1, 5, "b")))), AlarmKind::Contradiction);
        assert_eq!((at.sequence, at.next_offset), (5, 3));
    }

    #[test]
    fn a_decision_that_two_builds_sent_in_two_versions_of_the_format_is_one() {
        let record = booked(1, 5, "a");
        let as_json = |offset, record: &Record| {
            decode(Fetched { shard: record.shard, offset, payload: record.to_json(), stated: None })
        };
        let mut at = progress(1, 4);
        assert_eq!(at.judge(&as_json(0, &record)), Verdict::Apply);
        assert_eq!(at.judge(&incoming(1, &record)), Verdict::Pass);
        assert_eq!(complaint(at.judge(&incoming(2, &booked(1, 5, "b")))), AlarmKind::Contradiction);
        assert_eq!(at.judge(&incoming(3, &booked(1, 6, "c"))), Verdict::Apply);
        assert_eq!(at.judge(&as_json(4, &booked(1, 6, "c"))), Verdict::Pass);
        assert_eq!(complaint(at.judge(&as_json(5, &booked(1, 6, "d")))), AlarmKind::Contradiction);
    }

    #[test]
    fn a_jump_stops_the_shard_before_the_record() {
        let mut at = progress(1, 4);
        let gap = Gap { epoch: 1, from: 5, to: 7, offset: 0, is_offset_lost: false };
        assert_eq!(at.judge(&incoming(0, &booked(1, 8, "a"))), Verdict::Stop(gap));
        assert_eq!(at, progress(1, 4));
    }

    #[test]
    fn a_hole_in_the_offsets_is_no_gap_where_no_decision_is_missing() {
        let mut at = progress(1, 4);
        let unplaced = Fetched { shard: booked(1, 1, "a").shard, offset: 1, payload: vec![], stated: None };
        assert_eq!(at.judge(&decode(unplaced)), Verdict::SetAside);
        assert_eq!(at.judge(&incoming(3, &booked(1, 5, "a"))), Verdict::Apply);
        assert_eq!((at.sequence, at.next_offset), (5, 4));
        let gap = Gap { epoch: 1, from: 6, to: 6, offset: 9, is_offset_lost: false };
        assert_eq!(at.judge(&incoming(9, &booked(1, 7, "b"))), Verdict::Stop(gap));
    }

    #[test]
    fn an_unreadable_record_takes_its_position_only_if_it_is_the_next() {
        let record = booked(1, 5, "a");
        let poison = |offset, sequence: u64| {
            let stated = Some(Position { epoch: 1, sequence });
            decode(Fetched { shard: record.shard, offset, payload: b"x".to_vec(), stated })
        };
        let mut at = progress(1, 4);
        assert_eq!(at.judge(&poison(0, 5)), Verdict::SetAside);
        assert_eq!((at.sequence, at.next_offset), (5, 1));
        assert_eq!(at.judge(&poison(1, 5)), Verdict::Pass);
        assert!(matches!(at.judge(&poison(2, 7)), Verdict::Stop(_)));
        let unplaced = decode(Fetched { shard: record.shard, offset: 2, payload: vec![], stated: None });
        assert_eq!(at.judge(&unplaced), Verdict::SetAside);
        assert_eq!((at.sequence, at.next_offset), (5, 3));
    }

    #[test]
    fn a_barrier_begins_an_epoch_and_ends_the_older_ones() {
        let mut at = progress(1, 4);
        assert_eq!(at.judge(&incoming(0, &barrier(2, 4))), Verdict::Pass);
        assert_eq!((at.epoch, at.sequence), (2, 4));
        assert_eq!(at.judge(&incoming(1, &booked(1, 4, "known"))), Verdict::Pass);
        assert_eq!(complaint(at.judge(&incoming(2, &booked(1, 5, "late")))), AlarmKind::EndedEpoch);
        assert_eq!(at.judge(&incoming(3, &barrier(1, 9))), Verdict::Pass);
        assert_eq!(at.judge(&incoming(4, &booked(2, 5, "a"))), Verdict::Apply);
        assert_eq!((at.epoch, at.sequence, at.next_offset), (2, 5, 5));
    }

    #[test]
    fn a_barrier_beyond_the_applied_sequence_is_a_gap_and_one_below_never_goes_back() {
        let mut at = progress(1, 4);
        let gap = Gap { epoch: 1, from: 5, to: 6, offset: 0, is_offset_lost: false };
        assert_eq!(at.judge(&incoming(0, &barrier(2, 6))), Verdict::Stop(gap));
        assert_eq!(at.judge(&incoming(0, &barrier(2, 1))), Verdict::Pass);
        assert_eq!((at.epoch, at.sequence), (2, 4));
    }

    #[test]
    fn a_late_decision_is_complained_of_although_its_sequence_number_was_used_again() {
        let mut at = progress(1, 4);
        at.judge(&incoming(0, &barrier(2, 4)));
        at.judge(&incoming(1, &booked(2, 5, "a")));
        assert_eq!(complaint(at.judge(&incoming(2, &booked(1, 5, "late")))), AlarmKind::EndedEpoch);
        assert_eq!(at.judge(&incoming(3, &booked(1, 4, "known"))), Verdict::Pass);
        assert_eq!(at.begun, [Position { epoch: 2, sequence: 4 }]);
    }

    #[test]
    fn a_barrier_of_a_redis_that_went_on_in_an_ended_epoch_is_no_gap() {
        let mut at = progress(1, 4);
        at.judge(&incoming(0, &barrier(2, 4)));
        let mut forked = barrier(3, 9);
        forked.change = Change::Barrier { old_epoch: 1 };
        assert_eq!(at.judge(&incoming(1, &forked)), Verdict::Pass);
        assert_eq!((at.epoch, at.sequence), (3, 4));
    }

    #[test]
    fn an_epoch_without_its_barrier_is_applied_and_complained_of() {
        let mut at = progress(1, 4);
        assert_eq!(complaint(at.judge(&incoming(0, &booked(2, 5, "a")))), AlarmKind::MissingBarrier);
        assert_eq!((at.epoch, at.sequence), (2, 5));
    }
}
