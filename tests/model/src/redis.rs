//! Redis, and the scripts that run in it. Each is one atomic step, as in the real one.

use crate::protection::Protection;
use crate::record::{Booking, Change, Epoch, Position, Record, Status, Stock};
use crate::scenario::Model;

/// What tells one Redis from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// `run_id`: another with each start of the process.
    pub process: u8,
    /// `master_replid`: another with each promotion, and after the loss of all data.
    pub history: u8,
}

/// The keys of the shard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Keys {
    /// 0 where the shard is lost.
    pub epoch: Epoch,
    /// The last decision.
    pub last: Position,
    /// Whom it names, and in which epoch.
    pub certificate: Option<(Identity, Epoch)>,
    /// `None` where the counters are lost.
    pub stock: Option<Stock>,
    /// In the order of their making; they are the idempotency records as well.
    pub bookings: Vec<Booking>,
    /// Decisions that are not known to be in Kafka.
    pub outbox: Vec<Record>,
    /// How far Kafka has confirmed the shard.
    pub confirmed: Position,
    /// The token of the relay that leased the shard last.
    pub lease: Option<u8>,
}

/// A Redis process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Redis {
    /// Its names.
    pub identity: Identity,
    /// What it holds in memory.
    pub keys: Keys,
}

/// What a deciding script answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The booking as it is now: changed, or found.
    Known(Booking),
    /// There is no ticket left.
    SoldOut,
    /// There is no such booking.
    Missing,
    /// 503, or an answer that promises nothing.
    Refused,
}

impl Redis {
    /// Whether the certificate names this Redis, by the rules that are in force.
    pub fn is_certified(&self, model: &Model) -> bool {
        self.keys.certificate.is_some_and(|(named, epoch)| {
            epoch == self.keys.epoch
                && (named.process == self.identity.process || !model.has(Protection::CertificateNamesProcess))
                && (named.history == self.identity.history || !model.has(Protection::CertificateNamesHistory))
        })
    }

    fn may_decide(&self, model: &Model) -> bool {
        self.keys.stock.is_some() && (self.is_certified(model) || !model.has(Protection::Fence))
    }

    /// `book.lua`: `id` is used where a booking is made.
    pub fn book(&mut self, model: &Model, client: u8, id: u8) -> Outcome {
        if !self.may_decide(model) {
            return Outcome::Refused;
        }
        if let Some(known) = self.keys.bookings.iter().find(|booking| booking.client == client) {
            return Outcome::Known(*known);
        }
        if !self.has_ticket(model) {
            return Outcome::SoldOut;
        }
        let status = if model.scenario.holds { Status::Held } else { Status::Confirmed };
        self.keys.bookings.push(Booking { id, client, status, position: self.keys.last });
        self.count(status, 1);
        Outcome::Known(self.decide(self.keys.bookings.len() - 1))
    }

    /// `confirm.lua`: a hold has its own ticket, overdue or not; one that was expired needs another.
    pub fn confirm(&mut self, model: &Model, id: u8) -> Outcome {
        let at = match self.find(model, id) {
            Ok(at) => at,
            Err(outcome) => return outcome,
        };
        let booking = self.keys.bookings[at];
        match booking.status {
            Status::Confirmed => return Outcome::Known(booking),
            Status::Cancelled => return Outcome::Refused,
            Status::Expired if !self.has_ticket(model) => return Outcome::Refused,
            Status::Expired | Status::Held => {}
        }
        self.change(at, Status::Confirmed)
    }

    /// `cancel.lua`.
    pub fn cancel(&mut self, model: &Model, id: u8) -> Outcome {
        match self.find(model, id) {
            Ok(at) if matches!(self.keys.bookings[at].status, Status::Cancelled | Status::Expired) => {
                Outcome::Known(self.keys.bookings[at])
            }
            Ok(at) => self.change(at, Status::Cancelled),
            Err(outcome) => outcome,
        }
    }

    /// `expire.lua`, for a hold that is overdue.
    pub fn expire(&mut self, model: &Model, id: u8) -> Outcome {
        match self.find(model, id) {
            Ok(at) if self.keys.bookings[at].status == Status::Held => self.change(at, Status::Expired),
            Ok(_) => Outcome::Refused,
            Err(outcome) => outcome,
        }
    }

    /// What a TTL does: the key is gone, and nobody counts.
    pub fn forget(&mut self, id: u8) {
        self.keys.bookings.retain(|booking| booking.id != id || booking.status != Status::Held);
    }

    /// `publish.lua`, for another event of the shard; whether it was published.
    pub fn publish(&mut self, model: &Model) -> bool {
        if !self.is_certified(model) && model.has(Protection::PublishFence) {
            return false;
        }
        self.append(|_| Change::Event);
        true
    }

    /// `lease.lua`, and reading the outbox.
    pub fn lease(&mut self, token: u8) -> (Epoch, Vec<Record>) {
        self.keys.lease = Some(token);
        (self.keys.epoch, self.keys.outbox.clone())
    }

    /// `trim.lua`: what was sent leaves the outbox; whether it did.
    pub fn trim(&mut self, model: &Model, token: u8, epoch: Epoch, sent: Position) -> bool {
        if (model.has(Protection::TrimChecksToken) && self.keys.lease != Some(token))
            || (model.has(Protection::TrimChecksEpoch) && self.keys.epoch != epoch)
            || (model.has(Protection::TrimChecksCertificate) && !self.is_certified(model))
        {
            return false;
        }
        let is_there = self.keys.outbox.iter().any(|record| record.position == sent);
        if is_there {
            self.keys.outbox.retain(|record| record.position > sent);
            self.keys.confirmed = sent;
        }
        is_there || !model.has(Protection::NoteWhatWasTrimmed)
    }

    /// `begin_recovery.lua`: the last decision, or `None` where this epoch or a later one was seen.
    pub fn begin_recovery(&mut self, epoch: Epoch) -> Option<Position> {
        if self.keys.epoch >= epoch {
            return None;
        }
        self.keys.certificate = None;
        self.keys.epoch = epoch;
        Some(self.keys.last)
    }

    /// What all scripts that restore check first.
    pub fn may_restore(&self, model: &Model, epoch: Epoch) -> bool {
        !model.has(Protection::RestoreChecksEpoch)
            || (self.keys.epoch == epoch && self.keys.certificate.is_none())
    }

    /// `restore_clear.lua`: what is half restored looks lost.
    pub fn clear(&mut self) {
        self.keys.last = Position::default();
        self.keys.stock = None;
        self.keys.bookings.clear();
        self.keys.outbox.clear();
    }

    /// `restore_event.lua` and `restore_bookings.lua`.
    pub fn fill(&mut self, stock: Stock, bookings: &[Booking]) {
        self.keys.stock = Some(stock);
        self.keys.bookings = bookings.to_vec();
    }

    /// `restore_shard.lua`.
    pub fn finish(&mut self, epoch: Epoch, last: Position) {
        self.keys.last = last;
        self.keys.confirmed = Position { epoch, sequence: last.sequence };
    }

    /// `certify.lua`: whether it was certified.
    pub fn certify(&mut self, model: &Model, epoch: Epoch, last: Position, compared: Identity) -> bool {
        if self.keys.epoch != epoch
            || self.keys.last.sequence != last.sequence
            || (self.identity != compared && model.has(Protection::CertifyChecksIdentity))
        {
            return false;
        }
        self.keys.certificate = Some((self.identity, epoch));
        true
    }

    fn find(&self, model: &Model, id: u8) -> Result<usize, Outcome> {
        if !self.may_decide(model) {
            return Err(Outcome::Refused);
        }
        self.keys.bookings.iter().position(|booking| booking.id == id).ok_or(Outcome::Missing)
    }

    fn has_ticket(&self, model: &Model) -> bool {
        self.keys.stock.is_some_and(|stock| stock.taken() < model.scenario.capacity)
    }

    fn change(&mut self, at: usize, status: Status) -> Outcome {
        self.count(self.keys.bookings[at].status, -1);
        self.count(status, 1);
        self.keys.bookings[at].status = status;
        Outcome::Known(self.decide(at))
    }

    fn count(&mut self, status: Status, sign: i8) {
        if let Some(stock) = &mut self.keys.stock {
            stock.count(status, sign);
        }
    }

    fn decide(&mut self, at: usize) -> Booking {
        let mut booking = self.keys.bookings[at];
        self.append(|position| {
            booking.position = position;
            Change::Booking(booking)
        });
        self.keys.bookings[at] = booking;
        booking
    }

    fn append(&mut self, change: impl FnOnce(Position) -> Change) {
        let position = Position { epoch: self.keys.epoch, sequence: self.keys.last.sequence + 1 };
        self.keys.last = position;
        self.keys.outbox.push(Record { position, change: change(position) });
    }
}
