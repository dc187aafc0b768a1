//! People who look what is left, mostly of the hot event.

use rand::{Rng, rngs::StdRng};

use super::{Market, Wish};

/// Looks at the hot event or at any event.
pub(super) fn wish(market: &Market, lot: &mut StdRng) -> Wish {
    Wish::Watch(if lot.random_bool(0.5) { 0 } else { lot.random_range(0..market.events.len()) })
}
