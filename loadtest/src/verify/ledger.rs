//! Everything that the clients know, in one place.

use rand::{rngs::StdRng, seq::index};

use crate::{
    buyer::{Buyer, LimitRefusal},
    history::Attempt,
};

/// The evidence of all users.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Sorted by the number of the key.
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) limit_refusals: Vec<LimitRefusal>,
    /// By ticket type of the hot event, the fewest tickets that were refused as sold out.
    pub(crate) fewest_sold_out: [Option<u16>; 2],
}

impl Ledger {
    /// Merges what the users know.
    pub(crate) fn new(buyers: Vec<Buyer>) -> Self {
        let mut ledger = Self::default();
        for buyer in buyers {
            ledger.attempts.extend(buyer.attempts);
            ledger.limit_refusals.extend(buyer.limit_refusals);
            for (fewest, own) in ledger.fewest_sold_out.iter_mut().zip(buyer.fewest_sold_out) {
                *fewest = (*fewest).into_iter().chain(own).min();
            }
        }
        ledger.attempts.sort_unstable_by_key(|attempt| attempt.order.number);
        ledger
    }

    /// The position of a key's attempt.
    pub(crate) fn find(&self, number: u64) -> Option<usize> {
        self.attempts.binary_search_by_key(&number, |attempt| attempt.order.number).ok()
    }

    /// The acknowledged attempts.
    pub(crate) fn acknowledged(&self) -> impl Iterator<Item = &Attempt> {
        self.attempts.iter().filter(|attempt| attempt.acknowledged.is_some())
    }

    /// Up to `size` acknowledged attempts, drawn by lot.
    pub(crate) fn sample(&self, size: usize, lot: &mut StdRng) -> Vec<Attempt> {
        let all: Vec<&Attempt> = self.acknowledged().collect();
        index::sample(lot, all.len(), size.min(all.len()))
            .into_iter()
            .map(|position| *all[position])
            .collect()
    }
}
