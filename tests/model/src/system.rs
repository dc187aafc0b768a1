//! The whole system as one state, and everything that can happen to it next.

use crate::action::Action;
use crate::postgres::Postgres;
use crate::protection::Protection;
use crate::record::{Booking, Epoch, Position, Record, Status, Stock};
use crate::recovery::{self, Recovery};
use crate::redis::{Identity, Keys, Outcome, Redis};
use crate::scenario::{Acknowledge, Model};

/// A request whose script has run, and whose answer waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Waiting {
    /// What will be answered.
    pub booking: Booking,
    /// The epoch in which the script ran.
    pub epoch: Epoch,
}

/// A client, which repeats its request with the same key when it has no answer, or for no reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Client {
    /// Requests to book that it sent.
    pub asked: u8,
    /// Its latest request. An answer to an earlier one reaches nobody.
    pub waiting: Option<Waiting>,
    /// The booking as it was acknowledged last.
    pub acknowledged: Option<Booking>,
    /// It wants its booking no more.
    pub cancels: bool,
    /// It was told two different things under one key.
    pub deceived: bool,
}

/// A relay's way from reading the outbox to trimming it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Round {
    /// To come.
    NotStarted,
    /// Read in this epoch; so many records are sent.
    Sending(Epoch, Vec<Record>, usize),
    /// Trimmed, or refused.
    Done,
}

/// A record on its way from Kafka to PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Fetch {
    /// To come.
    NotStarted,
    /// Fetched from PostgreSQL's own offset.
    Fresh(Record),
    /// Another reconciler has applied it meanwhile.
    Stale(Record),
    /// Applied, or passed over.
    Done,
}

/// What may still happen, of what the scenario bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Left {
    /// Requests to book.
    pub asks: u8,
    /// Requests to confirm or cancel.
    pub moves: u8,
    /// Restarts of Redis.
    pub restarts: u8,
    /// Losses of Redis' folder.
    pub losses: u8,
    /// Promotions of the replica.
    pub promotions: u8,
    /// Publications.
    pub publications: u8,
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The Redis that everybody talks to.
    pub redis: Redis,
    /// What is on its disk.
    pub disk: Keys,
    /// Its replica; in scenarios without one it is never promoted.
    pub replica: Redis,
    /// The next name of a process or a history.
    pub fresh_name: u8,
    /// The part of the log that PostgreSQL's offset has not passed.
    pub log: Vec<Record>,
    /// The record.
    pub postgres: Postgres,
    /// Clients.
    pub clients: Vec<Client>,
    /// Rounds of relays; the number is the token.
    pub rounds: Vec<Round>,
    /// Fetches of the reconcilers.
    pub fetches: Vec<Fetch>,
    /// Attempts at recovery.
    pub recoveries: Vec<Recovery>,
    /// How far the API instances know the shard to be confirmed.
    pub noted: Position,
    /// Time is past the expiry of all holds.
    pub overdue: bool,
    /// What may still happen.
    pub left: Left,
    /// Not in any store: the Redis that was really compared with the log last, and has not changed since.
    pub verified: Option<Identity>,
    /// Not in any store: something was decided in a Redis that was not verified.
    pub guessed: bool,
}

impl State {
    /// A certified shard with nothing sold.
    pub fn new(model: &Model) -> Self {
        let scenario = &model.scenario;
        let identity = Identity { process: 0, history: 0 };
        let keys = Keys {
            epoch: 1,
            certificate: Some((identity, 1)),
            stock: Some(Stock::default()),
            ..Keys::default()
        };
        Self {
            redis: Redis { identity, keys: keys.clone() },
            disk: keys.clone(),
            replica: Redis { identity: Identity { process: 1, history: 0 }, keys },
            fresh_name: 2,
            log: vec![],
            postgres: Postgres::default(),
            clients: vec![Client::default(); scenario.clients.into()],
            rounds: vec![Round::NotStarted; scenario.rounds],
            fetches: vec![Fetch::NotStarted; scenario.fetches],
            recoveries: vec![Recovery::NotStarted; scenario.recoveries],
            noted: Position { epoch: 1, sequence: 0 },
            overdue: false,
            left: Left {
                asks: scenario.asks,
                moves: scenario.moves,
                restarts: scenario.restarts,
                losses: scenario.losses,
                promotions: scenario.promotions,
                publications: scenario.publications,
            },
            verified: Some(identity),
            guessed: false,
        }
    }

    /// What is so afterwards; `None` where it cannot happen.
    pub fn after(&self, model: &Model, action: Action) -> Option<Self> {
        match action {
            Action::Book(client) => self.book(model, client),
            Action::Confirm(client) => self.confirm(model, client),
            Action::Cancel(client) => self.cancel(model, client),
            Action::Answer(client) => self.answer(model, client),
            Action::Publish => self.publish(model),
            Action::RunOut => self.run_out(model),
            Action::Expire(client) => self.expire(model, client),
            Action::Vanish(client) => self.vanish(client),
            Action::Read(round) => self.read(model, round),
            Action::Send(round) => self.send(round),
            Action::Trim(round) => self.trim(model, round),
            Action::Apply => self.apply(model),
            Action::Fetch(fetch) => self.fetch(model, fetch),
            Action::Write(fetch) => self.write(model, fetch),
            Action::Recover(attempt) => recovery::step(model, self, attempt),
            Action::Sync | Action::Restart | Action::LoseDisk => self.fail(model, action),
            Action::Replicate | Action::Promote => self.fail_over(action),
        }
    }

    fn book(&self, model: &Model, client: u8) -> Option<Self> {
        // Clients are alike: they begin in their order.
        if client > 0 && self.clients[usize::from(client) - 1].asked == 0 {
            return None;
        }
        let mut next = self.clone();
        next.left.asks = next.left.asks.checked_sub(1)?;
        let asking = &mut next.clients[usize::from(client)];
        asking.asked += 1;
        let id = client * 10 + asking.asked;
        let outcome = next.redis.book(model, client, id);
        next.reply(client, outcome)
    }

    fn confirm(&self, model: &Model, client: u8) -> Option<Self> {
        let (mut next, booking) = self.begin_move(client)?;
        if !model.scenario.holds || self.clients[usize::from(client)].cancels {
            return None;
        }
        let outcome = next.redis.confirm(model, booking.id);
        next.reply(client, outcome)
    }

    fn cancel(&self, model: &Model, client: u8) -> Option<Self> {
        let (mut next, booking) = self.begin_move(client)?;
        next.clients[usize::from(client)].cancels = true;
        let outcome = next.redis.cancel(model, booking.id);
        next.reply(client, outcome)
    }

    fn begin_move(&self, client: u8) -> Option<(Self, Booking)> {
        let booking = self.clients[usize::from(client)].acknowledged?;
        let mut next = self.clone();
        next.left.moves = next.left.moves.checked_sub(1)?;
        Some((next, booking))
    }

    /// What a script answered to a client.
    fn reply(mut self, client: u8, outcome: Outcome) -> Option<Self> {
        let epoch = self.redis.keys.epoch;
        let asking = &mut self.clients[usize::from(client)];
        match outcome {
            Outcome::Known(booking) => asking.waiting = Some(Waiting { booking, epoch }),
            Outcome::SoldOut | Outcome::Missing if asking.acknowledged.is_some() => {
                asking.waiting = None;
                asking.deceived = true;
            }
            Outcome::SoldOut | Outcome::Missing | Outcome::Refused => return None,
        }
        self.mark_guess();
        Some(self)
    }

    /// Any decision, and any answer, of a Redis that nobody verified is a guess.
    fn mark_guess(&mut self) {
        self.guessed |= self.verified != Some(self.redis.identity);
    }

    fn answer(&self, model: &Model, client: u8) -> Option<Self> {
        let waiting = self.clients[usize::from(client)].waiting?;
        if !self.may_answer(model, waiting) {
            return None;
        }
        let mut next = self.clone();
        let asking = &mut next.clients[usize::from(client)];
        asking.waiting = None;
        match asking.acknowledged {
            Some(before) if before.id != waiting.booking.id => asking.deceived = true,
            Some(before) if before.position > waiting.booking.position => {}
            _ => asking.acknowledged = Some(waiting.booking),
        }
        Some(next)
    }

    fn may_answer(&self, model: &Model, waiting: Waiting) -> bool {
        if model.scenario.acknowledge == Acknowledge::Redis || !model.has(Protection::AnswerAfterConfirmation)
        {
            return true;
        }
        let position = waiting.booking.position;
        let mut confirmed = [self.noted, self.redis.keys.confirmed].into_iter();
        if !model.has(Protection::AnswerInItsEpoch) {
            return confirmed.any(|confirmed| confirmed >= position);
        }
        // What was decided in an earlier epoch than the one in which the script found it was restored or compared.
        position.epoch < waiting.epoch
            || confirmed.any(|now| now.epoch == waiting.epoch && now.sequence >= position.sequence)
    }

    fn publish(&self, model: &Model) -> Option<Self> {
        let mut next = self.clone();
        next.left.publications = next.left.publications.checked_sub(1)?;
        if !next.redis.publish(model) {
            return None;
        }
        next.mark_guess();
        Some(next)
    }

    fn run_out(&self, model: &Model) -> Option<Self> {
        (model.scenario.holds && !self.overdue).then(|| Self { overdue: true, ..self.clone() })
    }

    fn expire(&self, model: &Model, client: u8) -> Option<Self> {
        let booking = self.hold_of(client)?;
        let mut next = self.clone();
        match next.redis.expire(model, booking.id) {
            Outcome::Known(_) => next.mark_guess(),
            Outcome::SoldOut | Outcome::Missing | Outcome::Refused => return None,
        }
        Some(next)
    }

    fn vanish(&self, client: u8) -> Option<Self> {
        let booking = self.hold_of(client)?;
        let mut next = self.clone();
        next.redis.forget(booking.id);
        Some(next)
    }

    fn hold_of(&self, client: u8) -> Option<Booking> {
        let bookings = &self.redis.keys.bookings;
        bookings
            .iter()
            .find(|booking| self.overdue && booking.client == client && booking.status == Status::Held)
            .copied()
    }

    fn read(&self, model: &Model, round: usize) -> Option<Self> {
        let is_next = self.rounds[round] == Round::NotStarted
            && (round == 0 || self.rounds[round - 1] != Round::NotStarted);
        if !is_next || self.redis.keys.outbox.is_empty() {
            return None;
        }
        let mut next = self.clone();
        let (epoch, records) = next.redis.lease(token(round));
        if !model.has(Protection::TrimAfterConfirmation) {
            next.redis.keys.outbox.clear();
        }
        next.rounds[round] = Round::Sending(epoch, records, 0);
        Some(next)
    }

    fn send(&self, round: usize) -> Option<Self> {
        let mut next = self.clone();
        let Round::Sending(_, records, sent) = &mut next.rounds[round] else { return None };
        next.log.push(*records.get(*sent)?);
        *sent += 1;
        Some(next)
    }

    /// What was trimmed is noted by the instance, for the answers that wait.
    fn trim(&self, model: &Model, round: usize) -> Option<Self> {
        let Round::Sending(epoch, records, sent) = &self.rounds[round] else { return None };
        let last = records.last().filter(|_| *sent == records.len())?.position;
        let mut next = self.clone();
        next.rounds[round] = Round::Done;
        if next.redis.trim(model, token(round), *epoch, last) {
            next.noted = next.noted.max(last);
        }
        Some(next)
    }

    fn apply(&self, model: &Model) -> Option<Self> {
        if !self.fetches.is_empty() {
            return None;
        }
        let mut next = self.clone();
        next.advance(model).then_some(next)
    }

    /// Applies the record at PostgreSQL's offset, and moves the offset; whether anything changed.
    fn advance(&mut self, model: &Model) -> bool {
        let Some(record) = self.log.first().copied() else { return false };
        let stood = self.postgres.alarms.gap;
        if self.postgres.apply(model, &record) {
            self.log.remove(0);
            return true;
        }
        !stood
    }

    fn fetch(&self, model: &Model, fetch: usize) -> Option<Self> {
        let is_next = self.fetches[fetch] == Fetch::NotStarted
            && (fetch == 0 || self.fetches[fetch - 1] != Fetch::NotStarted);
        if !is_next {
            return None;
        }
        let record = *self.log.first()?;
        let mut next = self.clone();
        next.fetches[fetch] = Fetch::Fresh(record);
        if !model.has(Protection::OffsetInTransaction) {
            next.log.remove(0);
        }
        Some(next)
    }

    fn write(&self, model: &Model, fetch: usize) -> Option<Self> {
        let mut next = self.clone();
        match &self.fetches[fetch] {
            Fetch::Fresh(record) if !model.has(Protection::OffsetInTransaction) => {
                next.postgres.apply(model, record);
            }
            Fetch::Fresh(_) => {
                next.advance(model);
                for other in &mut next.fetches {
                    if let Fetch::Fresh(record) = other {
                        *other = Fetch::Stale(*record);
                    }
                }
            }
            // Its offset has passed: whatever it holds is left alone.
            Fetch::Stale(_) => {}
            Fetch::NotStarted | Fetch::Done => return None,
        }
        next.fetches[fetch] = Fetch::Done;
        Some(next)
    }

    fn fail(&self, model: &Model, action: Action) -> Option<Self> {
        let mut next = self.clone();
        match action {
            // A disk that is never read again need not be kept.
            Action::Sync
                if model.scenario.disk_lags && self.left.restarts > 0 && self.disk != self.redis.keys =>
            {
                next.disk = self.redis.keys.clone();
                return Some(next);
            }
            Action::Restart => {
                next.left.restarts = next.left.restarts.checked_sub(1)?;
                if model.scenario.disk_lags {
                    next.redis.keys = self.disk.clone();
                }
                if next.left.restarts == 0 {
                    next.disk = Keys::default();
                }
            }
            Action::LoseDisk => {
                next.left.losses = next.left.losses.checked_sub(1)?;
                next.redis.keys = Keys::default();
                next.redis.identity.history = next.fresh_name;
            }
            _ => return None,
        }
        next.redis.identity.process = next.fresh_name;
        next.fresh_name += 1;
        next.verified = None;
        Some(next)
    }

    /// The former master becomes the replica. Until it has copied its new master, it has what it had.
    fn fail_over(&self, action: Action) -> Option<Self> {
        if self.left.promotions == 0 {
            return None;
        }
        let mut next = self.clone();
        if action == Action::Replicate {
            next.replica.keys = self.redis.keys.clone();
            next.replica.identity.history = self.redis.identity.history;
            return (next != *self).then_some(next);
        }
        next.left.promotions -= 1;
        std::mem::swap(&mut next.redis, &mut next.replica);
        // A replica that is never promoted need not be kept.
        if next.left.promotions == 0 {
            next.replica.keys = Keys::default();
        }
        next.redis.identity.history = next.fresh_name;
        next.fresh_name += 1;
        next.verified = None;
        Some(next)
    }
}

fn token(round: usize) -> u8 {
    u8::try_from(round).expect("a scenario has a handful of rounds")
}
