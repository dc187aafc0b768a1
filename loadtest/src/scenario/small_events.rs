//! Several ticket types in one booking, all or none; some are cancelled, and their stock is sold again.

use rand::{Rng, rngs::StdRng, seq::SliceRandom};

use super::{Errand, Later, Market, Wish, within};
use crate::plan::Role;

/// One to three ticket types with one or two tickets each. One buyer in ten comes again and may meet a limit.
pub(super) fn wish(market: &Market, lot: &mut StdRng, previous: Option<u64>) -> Wish {
    let mut kinds = [0_u8, 1, 2];
    kinds.shuffle(lot);
    let lines = kinds.map(|kind| (kind, lot.random_range(1..=2)));
    let length = lot.random_range(1..=lines.len());
    let customer = previous.filter(|_| lot.random_bool(0.1));
    let event = market.event(Role::Small, lot);
    Wish::Buy(market.order(event, customer, &lines[..length], false), None)
}

/// One booking in eight is cancelled, a few of them twice; a few are replayed, also after the cancellation.
pub(super) fn afterwards(lot: &mut StdRng) -> Vec<Later> {
    let mut later = Vec::new();
    if lot.random_bool(0.125) {
        let when = within(lot, 50..1_000);
        later.push((when, Errand::Cancel));
        if lot.random_bool(0.1) {
            later.push((when + within(lot, 0..200), Errand::Cancel));
        }
    }
    if lot.random_bool(0.04) {
        later.push((within(lot, 0..2_000), Errand::Replay));
    }
    later
}
