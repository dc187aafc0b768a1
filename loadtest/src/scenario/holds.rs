//! Tickets are held first, then paid, given back, forgotten, or paid too late.

use std::time::Duration;

use rand::{Rng, rngs::StdRng};

use super::{Errand, Later, Market, Wish, within};
use crate::{
    history::Order,
    plan::{Event, Role},
};

/// One to three tickets of one or both types, held. One buyer in ten comes again.
pub(super) fn wish(market: &Market, lot: &mut StdRng, previous: Option<u64>) -> Wish {
    let first = u8::from(lot.random_bool(0.4));
    let lines = [(first, lot.random_range(1..=2)), (1 - first, 1)];
    let length = if lot.random_bool(0.3) { 2 } else { 1 };
    let customer = previous.filter(|_| lot.random_bool(0.1));
    let event = market.event(Role::Holds, lot);
    Wish::Buy(market.order(event, customer, &lines[..length], true), None)
}

/// Of a hundred holds 45 are paid in time, 15 given back, 10 paid too late, 5 paid just as they expire, and 25
/// forgotten. Some are looked at on the way.
pub(super) fn afterwards(event: &Event, order: &Order, lot: &mut StdRng) -> Vec<Later> {
    if !order.hold {
        return Vec::new();
    }
    let length = Duration::from_secs(u64::from(event.plan.hold_seconds.unwrap_or(600)));
    let mut later = Vec::new();
    if lot.random_bool(0.1) {
        later.push((within(lot, 0..3_000), Errand::Look));
    }
    match lot.random_range(0..100) {
        0..45 => later.extend(paid_in_time(lot)),
        45..60 => later.push((within(lot, 50..1_500), Errand::Cancel)),
        60..70 => later.push((length + within(lot, 100..1_500), Errand::Confirm)),
        70..75 => later.push((length - Duration::from_millis(20) + within(lot, 0..40), Errand::Confirm)),
        _ => {}
    }
    later
}

/// One payment in five is reported twice, one in ten is refunded.
fn paid_in_time(lot: &mut StdRng) -> Vec<Later> {
    let paid = within(lot, 50..1_200);
    let mut later = vec![(paid, Errand::Confirm)];
    if lot.random_bool(0.2) {
        later.push((paid + within(lot, 0..500), Errand::Confirm));
    }
    if lot.random_bool(0.1) {
        later.push((paid + within(lot, 200..1_500), Errand::Cancel));
    }
    later
}
