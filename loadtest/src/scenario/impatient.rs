//! Clients that stop waiting and try again with the same key, as every client library does, and some that use a key
//! wrongly.

use rand::{Rng, rngs::StdRng};

use super::{Errand, Later, Market, Wish, within};
use crate::plan::Role;

/// An order at the hot event or a small one; two in three stop waiting after 1 to 4 ms, about when the answer comes.
pub(super) fn wish(market: &Market, lot: &mut StdRng) -> Wish {
    let role = if lot.random_bool(0.4) { Role::Hot } else { Role::Small };
    let event = market.event(role, lot);
    let lines = [(lot.random_range(0..2), lot.random_range(1..=2))];
    let patience = lot.random_bool(0.67).then(|| within(lot, 1..5));
    Wish::Buy(market.order(event, None, &lines, false), patience)
}

/// Half replay at once, some much later, when the event may be sold out; some send another order under the key.
pub(super) fn afterwards(lot: &mut StdRng) -> Vec<Later> {
    let mut later = Vec::new();
    if lot.random_bool(0.5) {
        later.push((within(lot, 0..100), Errand::Replay));
    }
    if lot.random_bool(0.25) {
        later.push((within(lot, 1_000..8_000), Errand::Replay));
    }
    if lot.random_bool(0.15) {
        later.push((within(lot, 0..1_000), Errand::Reuse));
    }
    later
}
