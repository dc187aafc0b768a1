//! Relays: from the outbox to the log.

use crate::protection::Protection;
use crate::record::{Epoch, Record};
use crate::scenario::Model;
use crate::system::State;

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

impl State {
    pub(crate) fn read(&self, model: &Model, round: usize) -> Option<Self> {
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

    pub(crate) fn send(&self, round: usize) -> Option<Self> {
        let mut next = self.clone();
        let Round::Sending(_, records, sent) = &mut next.rounds[round] else { return None };
        next.log.push(*records.get(*sent)?);
        *sent += 1;
        Some(next)
    }

    /// What was trimmed is noted by the instance, for the answers that wait.
    pub(crate) fn trim(&self, model: &Model, round: usize) -> Option<Self> {
        let Round::Sending(epoch, records, sent) = &self.rounds[round] else { return None };
        let last = records.last().filter(|_| *sent == records.len())?.position;
        let mut next = self.clone();
        next.rounds[round] = Round::Done;
        if next.redis.trim(model, token(round), *epoch, last) {
            next.noted = next.noted.max(last);
        }
        Some(next)
    }
}

fn token(round: usize) -> u8 {
    u8::try_from(round).expect("a scenario has a handful of rounds")
}
