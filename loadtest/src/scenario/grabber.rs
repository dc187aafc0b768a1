//! Buyers who want more than they may have, and send several orders at once to get it.

use std::sync::atomic::Ordering;

use rand::{Rng, rngs::StdRng};

use super::{Market, Wish};
use crate::plan::Role;

/// Orders that one customer sends before the next one's turn.
const ORDERS_A_CUSTOMER: u64 = 6;

/// All users of this scenario are the same customer at the same time, so that their orders race for the limit.
pub(super) fn wish(market: &Market, lot: &mut StdRng) -> Wish {
    let turn = market.crowd.fetch_add(1, Ordering::Relaxed);
    // Beyond every key's number, so that no other customer has it.
    let customer = u64::MAX / 2 + turn / ORDERS_A_CUSTOMER;
    let event = market.event(Role::Limited, lot);
    Wish::Buy(market.order(event, Some(customer), &[(0, lot.random_range(1..=3))], false), None)
}
