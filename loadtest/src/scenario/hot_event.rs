//! Everybody wants the same night: most are too late.

use rand::{Rng, rngs::StdRng};

use super::{Errand, Later, Market, Wish, within};
use crate::plan::Role;

/// One to four tickets of one type. One buyer in twenty comes again, and may meet the limit of four.
pub(super) fn wish(market: &Market, lot: &mut StdRng, previous: Option<u64>) -> Wish {
    let quantity = match lot.random_range(0..10) {
        0..4 => 1,
        4..8 => 2,
        8 => 3,
        _ => 4,
    };
    let kind = u8::from(lot.random_bool(0.2));
    let customer = previous.filter(|_| lot.random_bool(0.05));
    let event = market.event(Role::Hot, lot);
    Wish::Buy(market.order(event, customer, &[(kind, quantity)], false), None)
}

/// A double click now and then.
pub(super) fn afterwards(lot: &mut StdRng) -> Vec<Later> {
    if lot.random_bool(0.03) { vec![(within(lot, 0..300), Errand::Replay)] } else { Vec::new() }
}
