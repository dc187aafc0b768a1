//! PostgreSQL, and what the reconciler writes into it. Each method is one transaction.

use crate::protection::Protection;
use crate::record::{Booking, Change, Epoch, Position, Record, Status, Stock};
use crate::scenario::Model;

/// What operators are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Alarms {
    /// Decisions are missing; the shard stands still until somebody looks.
    pub gap: bool,
    /// A position names two decisions.
    pub contradiction: bool,
    /// A record came behind the barrier that ended its epoch.
    pub ended_epoch: bool,
    /// A guard of the tables refused a record.
    pub refused: bool,
}

/// The shard's rows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Postgres {
    /// Of the last recovery that began.
    pub recovery_epoch: Epoch,
    /// Of the last barrier.
    pub epoch: Epoch,
    /// The last decision that was applied.
    pub last: Position,
    /// Each epoch with the sequence number behind which it began.
    pub epochs: Vec<Position>,
    /// In the order of their making.
    pub bookings: Vec<Booking>,
    /// Counted from the rows that changed.
    pub stock: Stock,
    /// Open alarms.
    pub alarms: Alarms,
    /// What was applied. Only the digest of the last is known to the real reconciler.
    pub applied: Vec<Record>,
    /// Not a column: a record was passed over that had not been applied, and nobody was told.
    pub silent: bool,
}

/// A shard in its first epoch, with nothing sold.
impl Default for Postgres {
    fn default() -> Self {
        Self {
            recovery_epoch: 1,
            epoch: 1,
            last: Position::default(),
            epochs: vec![Position { epoch: 1, sequence: 0 }],
            bookings: vec![],
            stock: Stock::default(),
            alarms: Alarms::default(),
            applied: vec![],
            silent: false,
        }
    }
}

impl Postgres {
    /// Takes the next epoch, above all that PostgreSQL or Redis know.
    pub fn take_epoch(&mut self, live: Epoch) -> Epoch {
        self.recovery_epoch = self.recovery_epoch.max(self.epoch).max(live) + 1;
        self.recovery_epoch
    }

    /// Judges the next record of the log, and applies it where it is the next decision. Whether the log goes on.
    pub fn apply(&mut self, model: &Model, record: &Record) -> bool {
        match record.change {
            Change::Barrier { last } => self.apply_barrier(model, record.position.epoch, last),
            Change::Booking(_) | Change::Event => self.apply_decision(model, record),
        }
    }

    fn apply_decision(&mut self, model: &Model, record: &Record) -> bool {
        let position = record.position;
        if model.has(Protection::SequenceCheck) {
            if position.sequence <= self.last.sequence {
                self.pass(model, record);
                return true;
            }
            if position.epoch < self.epoch {
                self.alarms.ended_epoch = true;
                return true;
            }
            if position.sequence > self.last.sequence + 1 {
                self.alarms.gap = true;
                return false;
            }
            self.epoch = position.epoch;
            self.last = position;
            self.applied.push(*record);
        }
        if let Change::Booking(booking) = record.change {
            self.write(model, booking);
        }
        true
    }

    /// A sequence number that was applied.
    fn pass(&mut self, model: &Model, record: &Record) {
        if self.applied.contains(record) {
            return;
        }
        let is_last = record.position == self.last && self.last.epoch == self.epoch;
        let is_late = record.position.sequence > self.end_of(record.position.epoch);
        if is_last {
            self.alarms.contradiction = true;
        } else if is_late && model.has(Protection::EpochEndsAreKept) {
            self.alarms.ended_epoch = true;
        } else {
            self.silent = true;
        }
    }

    fn apply_barrier(&mut self, model: &Model, epoch: Epoch, last: Position) -> bool {
        if epoch <= self.epoch {
            return true;
        }
        let of_an_ended_epoch =
            model.has(Protection::CompareChecksLastDecision) && last.sequence > self.end_of(last.epoch);
        if last.sequence > self.last.sequence && !of_an_ended_epoch {
            self.alarms.gap = true;
            return false;
        }
        self.epoch = epoch;
        self.epochs.push(Position { epoch, sequence: self.last.sequence });
        true
    }

    /// The last sequence number of an epoch: that behind which the next one began.
    fn end_of(&self, epoch: Epoch) -> u8 {
        self.epochs.iter().find(|begun| begun.epoch > epoch).map_or(u8::MAX, |begun| begun.sequence)
    }

    /// An update that goes forward only, behind the tables' guards.
    fn write(&mut self, model: &Model, booking: Booking) {
        let before = self.bookings.iter().position(|row| row.id == booking.id);
        if before.is_some_and(|at| self.bookings[at].position >= booking.position) {
            return;
        }
        let mut stock = self.stock;
        if let Some(at) = before {
            stock.count(self.bookings[at].status, -1);
        }
        stock.count(booking.status, 1);
        let key_is_taken =
            self.bookings.iter().any(|row| row.client == booking.client && row.id != booking.id);
        if key_is_taken || stock.taken() > model.scenario.capacity {
            self.alarms.refused = true;
            return;
        }
        self.stock = stock;
        match before {
            Some(at) => self.bookings[at] = booking,
            None => self.bookings.push(booking),
        }
    }

    /// Whether a booking is there as it was acknowledged, or as a later decision left it.
    pub fn holds(&self, acknowledged: &Booking) -> bool {
        self.bookings.iter().any(|row| {
            row.id == acknowledged.id && (row == acknowledged || row.position > acknowledged.position)
        })
    }

    /// Whether a hold ran out here and its ticket was sold again.
    pub fn resold(&self) -> bool {
        self.bookings.iter().any(|row| row.status == Status::Expired)
            && self.bookings.iter().any(|row| row.status == Status::Confirmed)
    }
}
