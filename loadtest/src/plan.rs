//! What is put on sale: the events, sized to the requests that they will get.

use rand::{Rng, rngs::StdRng};
use reqwest::Url;
use uuid::Uuid;

use crate::{cli::WEIGHTS, scenario::Scenario};

/// The currency of every price.
pub(crate) const CURRENCY: &str = "EUR";

/// Small events beside the hot one.
const SMALL_EVENTS: usize = 8;

/// Events whose tickets are held before they are paid.
const HOLD_EVENTS: usize = 4;

/// Short, so that holds expire during the run and their stock is sold again.
const HOLD_SECONDS: u32 = 2;

/// What an event is there to show.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Role {
    /// Far more buyers than tickets. Nothing is cancelled, so stock never returns.
    Hot,
    /// Several ticket types, several of them in one booking.
    Small,
    /// Holds that are confirmed, cancelled or abandoned.
    Holds,
    /// Tickets for everybody, and a limit per customer that buyers try to exceed.
    Limited,
}

/// An event to be created.
#[derive(Clone, Debug)]
pub(crate) struct EventPlan {
    pub(crate) role: Role,
    pub(crate) name: String,
    pub(crate) limit: Option<u32>,
    pub(crate) hold_seconds: Option<u32>,
    pub(crate) types: Vec<TypePlan>,
}

impl EventPlan {
    /// Whether no ticket ever comes back here, because nobody holds or cancels. What once did not fit then never fits
    /// again, so refusals can be checked at the end.
    pub(crate) fn returns_nothing(&self) -> bool {
        matches!(self.role, Role::Hot | Role::Limited)
    }
}

/// A ticket type to be created.
#[derive(Clone, Debug)]
pub(crate) struct TypePlan {
    pub(crate) name: &'static str,
    pub(crate) capacity: u32,
    pub(crate) price: i64,
    pub(crate) limit: Option<u32>,
}

/// An event on sale.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) plan: EventPlan,
    pub(crate) id: Uuid,
    /// The ids of the ticket types, in the plan's order.
    pub(crate) type_ids: Vec<Uuid>,
    /// Kept because it is needed for most requests.
    pub(crate) bookings_url: Url,
    pub(crate) availability_url: Url,
}

impl Event {
    /// Whether a customer may be refused for a limit.
    pub(crate) fn has_limit(&self) -> bool {
        self.plan.limit.is_some() || self.plan.types.iter().any(|kind| kind.limit.is_some())
    }

    /// Whether it may be sold out: everywhere but where there are tickets for everybody.
    pub(crate) fn is_scarce(&self) -> bool {
        self.plan.role != Role::Limited
    }
}

/// Plans the events for a schedule of `requests` requests. `lot` draws capacities and prices.
pub(crate) fn events(
    requests: u64,
    hot_capacity: Option<u32>,
    run: &str,
    lot: &mut StdRng,
) -> Vec<EventPlan> {
    let mut plans = vec![hot(share(requests, Scenario::HotEvent), hot_capacity, run)];
    let demand = share(requests, Scenario::SmallEvents) / SMALL_EVENTS as u64;
    plans.extend((1..=SMALL_EVENTS).map(|number| small(demand, number, run, lot)));
    let demand = share(requests, Scenario::Holds) / HOLD_EVENTS as u64;
    plans.extend((1..=HOLD_EVENTS).map(|number| holds(demand, number, run, lot)));
    plans.push(limited(requests, run));
    plans
}

/// The requests that a scenario gets.
fn share(requests: u64, scenario: Scenario) -> u64 {
    requests * scenario.weight() as u64 / WEIGHTS as u64
}

/// A number of tickets that the contract accepts.
fn tickets(number: u64) -> u32 {
    u32::try_from(number.max(1)).unwrap_or(u32::MAX / 2)
}

/// A third as many tickets as requests, in two ticket types.
fn hot(requests: u64, capacity: Option<u32>, run: &str) -> EventPlan {
    let capacity = capacity.unwrap_or_else(|| tickets(requests / 3)).max(2);
    let balcony = (capacity / 5).max(1);
    EventPlan {
        role: Role::Hot,
        name: format!("Load test {run}: the night everybody wants"),
        limit: Some(4),
        hold_seconds: None,
        types: vec![
            TypePlan { name: "Floor", capacity: capacity - balcony, price: 8_900, limit: None },
            TypePlan { name: "Balcony", capacity: balcony, price: 6_400, limit: None },
        ],
    }
}

/// About three tickets are asked for with each request; roughly two thirds of them exist.
fn small(requests: u64, number: usize, run: &str, lot: &mut StdRng) -> EventPlan {
    let mut kind = |name, percent: std::ops::Range<u64>, limit| TypePlan {
        name,
        capacity: tickets(requests * 3 * lot.random_range(percent) / 100),
        price: lot.random_range(1_000..9_000),
        limit,
    };
    EventPlan {
        role: Role::Small,
        name: format!("Load test {run}: small event {number}"),
        limit: Some(6),
        hold_seconds: None,
        types: vec![
            kind("Standard", 25..40, None),
            kind("Reduced", 15..30, None),
            kind("Box", 5..15, Some(2)),
        ],
    }
}

/// About half of the tickets that are asked for exist, so that what expires is bought again.
fn holds(requests: u64, number: usize, run: &str, lot: &mut StdRng) -> EventPlan {
    let mut kind = |name, percent: std::ops::Range<u64>| TypePlan {
        name,
        capacity: tickets(requests * lot.random_range(percent) / 100),
        price: lot.random_range(1_000..9_000),
        limit: None,
    };
    EventPlan {
        role: Role::Holds,
        name: format!("Load test {run}: holds {number}"),
        limit: number.is_multiple_of(2).then_some(4),
        hold_seconds: Some(HOLD_SECONDS),
        types: vec![kind("Seated", 20..35), kind("Standing", 10..25)],
    }
}

/// More tickets than can be asked for.
fn limited(requests: u64, run: &str) -> EventPlan {
    EventPlan {
        role: Role::Limited,
        name: format!("Load test {run}: four a head"),
        limit: Some(4),
        hold_seconds: None,
        types: vec![TypePlan {
            name: "Standard",
            capacity: tickets(requests * 10),
            price: 2_500,
            limit: None,
        }],
    }
}

/// An event on sale with known ids and prices, for tests: type 0 costs 1,000 and type 1 costs 250.
#[cfg(test)]
pub(crate) fn example(role: Role) -> Event {
    let kind = |name, price| TypePlan { name, capacity: 10, price, limit: None };
    let types = vec![kind("A", 1_000), kind("B", 250)];
    let url = Url::parse("http://localhost/v1/events/x/bookings").expect("a URL");
    let limit = (role != Role::Small).then_some(4);
    Event {
        plan: EventPlan { role, name: "example".to_owned(), limit, hold_seconds: Some(HOLD_SECONDS), types },
        id: Uuid::from_u128(1),
        type_ids: vec![Uuid::from_u128(10), Uuid::from_u128(11)],
        availability_url: url.clone(),
        bookings_url: url,
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn the_same_seed_plans_the_same_events() {
        let plan = |seed| format!("{:?}", events(15_000, None, "r", &mut StdRng::seed_from_u64(seed)));
        assert_eq!(plan(1), plan(1));
        assert_ne!(plan(1), plan(2));
    }

    #[test]
    fn the_hot_event_has_a_third_of_the_tickets_that_it_gets_requests() {
        let plans = events(15_000, None, "r", &mut StdRng::seed_from_u64(1));
        let capacity: u32 = plans[0].types.iter().map(|kind| kind.capacity).sum();
        assert_eq!(u64::from(capacity), share(15_000, Scenario::HotEvent) / 3);
        let chosen = events(15_000, Some(77), "r", &mut StdRng::seed_from_u64(1));
        assert_eq!(chosen[0].types.iter().map(|kind| kind.capacity).sum::<u32>(), 77);
    }

    #[test]
    fn the_shortest_run_still_plans_events_that_the_contract_accepts() {
        for plan in events(1, Some(0), "r", &mut StdRng::seed_from_u64(1)) {
            assert!(plan.types.iter().all(|kind| kind.capacity >= 1), "{plan:?}");
        }
    }
}
