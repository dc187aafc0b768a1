//! Hashes that stand for what a client sent: SHA-256, cut to sixteen bytes (a collision among 10^12 requests has a
//! chance of about 10^-15) or less.

use sha2::{Digest, Sha256};

use crate::ids::{EventId, TicketTypeId};
use crate::text::{Caller, Customer, IdempotencyKey};

macro_rules! hash_type {
    ($(#[$doc:meta])* $name:ident, $length:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $name([u8; $length]);

        impl $name {
            /// From a store.
            pub const fn from_bytes(bytes: [u8; $length]) -> Self {
                Self(bytes)
            }

            /// For a store.
            pub const fn as_bytes(&self) -> &[u8; $length] {
                &self.0
            }
        }
    };
}

hash_type!(
    /// What a booking is called in its slot: caller, event and key. It is the end of the booking's id as well, all that a
    /// `UUIDv7` (RFC 9562) has behind its time, so that 74 of its 80 bits are the hash's. Among 10^6 bookings of an event
    /// two share it with a chance of about 10^-11; the second of them is taken for a retry of the first.
    IdempotencyField, 10
);
hash_type!(
    /// The name of a customer's allowance within its event.
    CustomerHash, 16
);
hash_type!(
    /// What was asked for: the parsed request, so that white space and the order of JSON members do not matter.
    Fingerprint, 16
);

/// Each part is preceded by its length, so that no two lists of parts give the same bytes.
fn hash(parts: &[&[u8]]) -> [u8; 16] {
    let mut sha = Sha256::new();
    for part in parts {
        sha.update((part.len() as u64).to_be_bytes());
        sha.update(part);
    }
    let mut out = [0; 16];
    out.copy_from_slice(&sha.finalize()[..16]);
    out
}

impl IdempotencyField {
    /// The scope of a key is its caller and its event.
    pub fn of(caller: &Caller, event: EventId, key: &IdempotencyKey) -> Self {
        let hash = hash(&[caller.as_str().as_bytes(), event.as_bytes(), key.as_str().as_bytes()]);
        let [mut version, a, mut variant, b, c, d, e, f, g, h, ..] = hash;
        version = 0x70 | (version & 0x0f);
        variant = 0x80 | (variant & 0x3f);
        Self([version, a, variant, b, c, d, e, f, g, h])
    }
}

impl CustomerHash {
    /// The bytes of [`Self::field`]. A text of 12 takes 16 of Redis' memory, one of 16 takes 24, and there is one for each
    /// customer. Among 10^6 customers of an event two share a field with a chance of about 10^-17.
    pub const FIELD: usize = 12;

    /// Of the customer alone: its counters are kept by event.
    pub fn of(customer: &Customer) -> Self {
        Self(hash(&[customer.as_str().as_bytes()]))
    }

    /// The field of the customers hash that counts its tickets.
    pub fn field(&self) -> &[u8] {
        &self.0[..Self::FIELD]
    }
}

impl Fingerprint {
    /// Of all that a booking request says besides its key. The order of the items matters.
    pub fn of(customer: &Customer, items: impl IntoIterator<Item = (TicketTypeId, u16)>, hold: bool) -> Self {
        let mut list = Vec::with_capacity(18);
        for (ticket_type, quantity) in items {
            list.extend_from_slice(ticket_type.as_bytes());
            list.extend_from_slice(&quantity.to_be_bytes());
        }
        Self(hash(&[customer.as_str().as_bytes(), &[u8::from(hold)], &list]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is stored: another hash would not find the bookings that were made before.
    #[test]
    fn a_caller_an_event_and_a_key_make_the_same_field_for_ever() {
        let event = "01939c5e-7a00-7abc-8def-0123456789ab".parse().unwrap();
        let key = IdempotencyKey::parse(b"order-1").unwrap();
        let field = IdempotencyField::of(&Caller::anonymous(), event, &key);
        assert_eq!(field.0, [0x73, 0xe2, 0x87, 0x49, 0xfe, 0x60, 0xee, 0x3d, 0x6f, 0x76]);
    }
}
