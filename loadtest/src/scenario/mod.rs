//! Who comes to an on-sale, and what they do.
//!
//! Each scenario is a goose scenario with a weight. What its users do is drawn by lot from their own seeded generator;
//! which user sends which request of the schedule depends on the answers' timing, and so do the details.

mod grabber;
mod holds;
mod hot_event;
mod impatient;
mod small_events;
mod watcher;

use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use rand::{Rng, rngs::StdRng};

use crate::{
    history::{Items, Names, Order},
    plan::{Event, Role},
};

/// A kind of user.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Scenario {
    HotEvent,
    SmallEvents,
    Holds,
    Impatient,
    Watcher,
    Grabber,
}

/// What a user starts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wish {
    /// To buy; with the time after which it loses patience, where that is shorter than usual.
    Buy(Order, Option<Duration>),
    /// To see what is left of an event.
    Watch(usize),
}

/// What a user does later about a booking of its own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Errand {
    /// Send the order again because its outcome is not known.
    Retry,
    /// Send the order again although it was acknowledged.
    Replay,
    /// Send another order under the same key, which must be refused.
    Reuse,
    Confirm,
    Cancel,
    Look,
}

/// An errand and the time until it is due.
pub(crate) type Later = (Duration, Errand);

/// The events on sale, and the numbers that keys and customers are made of.
#[derive(Debug)]
pub(crate) struct Market {
    pub(crate) events: Vec<Event>,
    pub(crate) names: Names,
    numbers: AtomicU64,
    crowd: AtomicU64,
}

impl Market {
    /// A market of these events.
    pub(crate) fn new(events: Vec<Event>, names: Names) -> Self {
        Self { events, names, numbers: AtomicU64::new(0), crowd: AtomicU64::new(0) }
    }

    /// A number that no other order has.
    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// One of the events with this role.
    fn event(&self, role: Role, lot: &mut StdRng) -> usize {
        lot.random_range(self.positions(role))
    }

    /// Where the events with this role are: the plan keeps them together, and has some of each.
    fn positions(&self, role: Role) -> Range<usize> {
        let has_role = |event: &Event| event.plan.role == role;
        let start = self.events.iter().position(has_role).unwrap_or(0);
        let count = self.events.iter().filter(|event| has_role(event)).count();
        start..start + count.max(1)
    }

    /// An order by a customer who has not ordered before, or by `customer`.
    fn order(&self, event: usize, customer: Option<u64>, items: &[(u8, u16)], hold: bool) -> Order {
        let number = self.number();
        Order { number, customer: customer.unwrap_or(number), event, items: Items::new(items), hold }
    }
}

impl Scenario {
    /// Every scenario, in the order in which goose gets them.
    pub(crate) const ALL: [Self; 6] =
        [Self::HotEvent, Self::SmallEvents, Self::Holds, Self::Impatient, Self::Watcher, Self::Grabber];

    /// The scenario's name in goose's report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::HotEvent => "Hot event",
            Self::SmallEvents => "Small events",
            Self::Holds => "Holds",
            Self::Impatient => "Impatient clients",
            Self::Watcher => "Watchers",
            Self::Grabber => "Grabbers",
        }
    }

    /// Users of this scenario among [`crate::cli::WEIGHTS`].
    pub(crate) fn weight(self) -> usize {
        match self {
            Self::HotEvent => 8,
            Self::SmallEvents | Self::Holds => 4,
            Self::Impatient => 2,
            Self::Watcher | Self::Grabber => 1,
        }
    }

    /// What a user of this scenario does next, when nothing else is due. `previous` is the customer it was last.
    pub(crate) fn wish(self, market: &Market, lot: &mut StdRng, previous: Option<u64>) -> Wish {
        match self {
            Self::HotEvent => hot_event::wish(market, lot, previous),
            Self::SmallEvents => small_events::wish(market, lot, previous),
            Self::Holds => holds::wish(market, lot, previous),
            Self::Impatient => impatient::wish(market, lot),
            Self::Watcher => watcher::wish(market, lot),
            Self::Grabber => grabber::wish(market, lot),
        }
    }

    /// What a user of this scenario will do about an order that was just acknowledged.
    pub(crate) fn afterwards(self, event: &Event, order: &Order, lot: &mut StdRng) -> Vec<Later> {
        match self {
            Self::HotEvent => hot_event::afterwards(lot),
            Self::SmallEvents => small_events::afterwards(lot),
            Self::Holds => holds::afterwards(event, order, lot),
            Self::Impatient => impatient::afterwards(lot),
            Self::Watcher | Self::Grabber => Vec::new(),
        }
    }
}

/// A time between two numbers of milliseconds.
fn within(lot: &mut StdRng, millis: Range<u64>) -> Duration {
    Duration::from_millis(lot.random_range(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weights_add_up() {
        assert_eq!(
            Scenario::ALL.iter().map(|scenario| scenario.weight()).sum::<usize>(),
            crate::cli::WEIGHTS
        );
    }
}
