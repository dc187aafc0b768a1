//! What became of the requests, counted apart.

use crate::{contract::Code, history::Order, judge::Finding};

/// What became of the requests.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    pub(crate) sold: u64,
    pub(crate) sold_tickets: u64,
    pub(crate) held: u64,
    pub(crate) held_tickets: u64,
    pub(crate) replayed: u64,
    pub(crate) confirmed: u64,
    pub(crate) cancelled: u64,
    pub(crate) reads: u64,
    /// By [`Code::index`]; refusals and unavailability together.
    pub(crate) refusals: Vec<u64>,
    /// The scenario stopped waiting on purpose.
    pub(crate) abandoned: u64,
    /// The server did not answer in time, or the connection broke.
    pub(crate) unanswered: u64,
    pub(crate) unexpected: u64,
    /// Answers that a loss explains which the mode allows.
    pub(crate) excused: u64,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            sold: 0,
            sold_tickets: 0,
            held: 0,
            held_tickets: 0,
            replayed: 0,
            confirmed: 0,
            cancelled: 0,
            reads: 0,
            refusals: vec![0; Code::ALL.len()],
            abandoned: 0,
            unanswered: 0,
            unexpected: 0,
            excused: 0,
        }
    }
}

impl Counts {
    /// Counts what an answer said; `order` is set where it answers an order.
    pub(crate) fn note(&mut self, finding: &Finding, order: Option<&Order>) {
        match (finding, order) {
            (Finding::Booked(_), Some(order)) if order.hold => {
                self.held += 1;
                self.held_tickets += order.items.tickets();
            }
            (Finding::Booked(_), order) => {
                self.sold += 1;
                self.sold_tickets += order.map_or(0, |order| order.items.tickets());
            }
            (Finding::Replayed(_), _) => self.replayed += 1,
            (Finding::Confirmed { .. }, _) => self.confirmed += 1,
            (Finding::Cancelled(_), _) => self.cancelled += 1,
            (Finding::Read, _) => self.reads += 1,
            (Finding::Excused, _) => self.excused += 1,
            (Finding::Refused(code), _) => self.refusals[code.index()] += 1,
        }
    }

    /// Adds another shard's counts.
    pub(crate) fn add(&mut self, other: &Self) {
        self.sold += other.sold;
        self.sold_tickets += other.sold_tickets;
        self.held += other.held;
        self.held_tickets += other.held_tickets;
        self.replayed += other.replayed;
        self.confirmed += other.confirmed;
        self.cancelled += other.cancelled;
        self.reads += other.reads;
        self.abandoned += other.abandoned;
        self.unanswered += other.unanswered;
        self.unexpected += other.unexpected;
        self.excused += other.excused;
        for (sum, more) in self.refusals.iter_mut().zip(&other.refusals) {
            *sum += more;
        }
    }

    /// Refusals that are decisions, such as `sold_out`.
    pub(crate) fn refused(&self) -> u64 {
        self.by_code(|code| !code.is_unavailable()).map(|(_, count)| count).sum()
    }

    /// Refusals that ask the client to come back: 503 and 429.
    pub(crate) fn unavailable(&self) -> u64 {
        self.by_code(Code::is_unavailable).map(|(_, count)| count).sum()
    }

    /// The codes that `wanted` chooses and that occurred, with their numbers.
    pub(crate) fn by_code(&self, wanted: impl Fn(Code) -> bool) -> impl Iterator<Item = (Code, u64)> {
        let counted = Code::ALL.iter().copied().zip(self.refusals.iter().copied());
        counted.filter(move |(code, count)| *count > 0 && wanted(*code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_apart_from_unavailability() {
        let mut counts = Counts::default();
        for code in [Code::SoldOut, Code::SoldOut, Code::Overloaded, Code::RateLimited] {
            counts.note(&Finding::Refused(code), None);
        }
        assert_eq!((counts.refused(), counts.unavailable()), (2, 2));
        assert_eq!(counts.by_code(|_| true).count(), 3);
    }
}
