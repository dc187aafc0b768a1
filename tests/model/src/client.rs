//! Clients, which ask, repeat and wait; what becomes of their holds; and the operator who publishes.

use crate::protection::Protection;
use crate::record::{Booking, Epoch, Status};
use crate::redis::Outcome;
use crate::scenario::{Acknowledge, Model};
use crate::system::State;

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

impl State {
    pub(crate) fn book(&self, model: &Model, client: u8) -> Option<Self> {
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

    pub(crate) fn confirm(&self, model: &Model, client: u8) -> Option<Self> {
        let (mut next, booking) = self.begin_move(client)?;
        if !model.scenario.holds || self.clients[usize::from(client)].cancels {
            return None;
        }
        let outcome = next.redis.confirm(model, booking.id);
        next.reply(client, outcome)
    }

    pub(crate) fn cancel(&self, model: &Model, client: u8) -> Option<Self> {
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

    pub(crate) fn answer(&self, model: &Model, client: u8) -> Option<Self> {
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

    pub(crate) fn publish(&self, model: &Model) -> Option<Self> {
        let mut next = self.clone();
        next.left.publications = next.left.publications.checked_sub(1)?;
        if !next.redis.publish(model) {
            return None;
        }
        next.mark_guess();
        Some(next)
    }

    pub(crate) fn run_out(&self, model: &Model) -> Option<Self> {
        (model.scenario.holds && !self.overdue).then(|| Self { overdue: true, ..self.clone() })
    }

    pub(crate) fn expire(&self, model: &Model, client: u8) -> Option<Self> {
        let booking = self.hold_of(client)?;
        let mut next = self.clone();
        match next.redis.expire(model, booking.id) {
            Outcome::Known(_) => next.mark_guess(),
            Outcome::SoldOut | Outcome::Missing | Outcome::Refused => return None,
        }
        Some(next)
    }

    pub(crate) fn vanish(&self, client: u8) -> Option<Self> {
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
}
