use super::*;
use crate::{
    buyer::LimitRefusal,
    plan::{Role, example},
};

/// Ticket type 0 has ten tickets: as counted, and as booked.
fn faults(counter: Counter, booked: Tickets) -> Faults {
    let other = Counter { id: Uuid::from_u128(11), capacity: 10, held: 0, sold: 0 };
    let counters = Counters::from([(counter.id, counter), (other.id, other)]);
    check(&[example(Role::Hot)], &Sums::from([((0, 0), booked)]), &counters)
}

fn counter(held: i32, sold: i32) -> Counter {
    Counter { id: Uuid::from_u128(10), capacity: 10, held, sold }
}

#[test]
fn counters_that_equal_their_bookings_are_no_fault() {
    let faults = faults(counter(3, 7), Tickets { held: 3, sold: 7 });
    assert!(faults.examples.is_empty(), "{:?}", faults.examples);
}

#[test]
fn tickets_beyond_capacity_are_oversold() {
    let faults = faults(counter(3, 9), Tickets { held: 3, sold: 9 });
    assert_eq!(faults.counts.oversold_tickets, 2);
}

#[test]
fn counters_that_differ_from_their_bookings_are_a_fault() {
    for counted in [counter(3, 6), counter(2, 7), Counter { capacity: 11, ..counter(3, 7) }] {
        assert_eq!(faults(counted, Tickets { held: 3, sold: 7 }).counts.count_mismatches, 1, "{counted:?}");
    }
    let missing = Counter { id: Uuid::from_u128(12), ..counter(0, 0) };
    assert_eq!(faults(missing, Tickets::default()).counts.count_mismatches, 1);
}

fn customers(active: &Active, ledger: &Ledger, left: i32) -> FaultsOf {
    let counters = Counters::from([(Uuid::from_u128(10), counter(0, 10 - left))]);
    let events = [example(Role::Hot)];
    let mut found = check_limits(&events, active);
    found.extend(check_refusals(&events, active, ledger, &counters));
    let found = found.counts;
    FaultsOf { breaches: found.limit_breaches, refusals: found.false_refusals }
}

#[derive(Debug, Eq, PartialEq)]
struct FaultsOf {
    breaches: u64,
    refusals: u64,
}

#[test]
fn a_customer_beyond_the_limit_is_a_breach() {
    let has = |tickets| customers(&Active::from([((0, 5, None), tickets)]), &Ledger::default(), 0);
    assert_eq!(has(4), FaultsOf { breaches: 0, refusals: 0 });
    assert_eq!(has(5), FaultsOf { breaches: 1, refusals: 0 });
}

#[test]
fn a_refusal_below_the_limit_is_false() {
    let refusals = vec![LimitRefusal { event: 0, customer: 5, tickets: 2 }];
    let ledger = Ledger { limit_refusals: refusals, ..Ledger::default() };
    let has = |tickets| customers(&Active::from([((0, 5, None), tickets)]), &ledger, 0);
    assert_eq!(has(3), FaultsOf { breaches: 0, refusals: 0 });
    assert_eq!(has(2), FaultsOf { breaches: 0, refusals: 1 });
}

#[test]
fn sold_out_with_tickets_left_is_false() {
    let ledger = Ledger { fewest_sold_out: [Some(2), None], ..Ledger::default() };
    assert_eq!(customers(&Active::new(), &ledger, 1), FaultsOf { breaches: 0, refusals: 0 });
    assert_eq!(customers(&Active::new(), &ledger, 2), FaultsOf { breaches: 0, refusals: 1 });
}
