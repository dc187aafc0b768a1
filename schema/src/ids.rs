//! The ids of events, ticket types and bookings: `UUIDv7` (RFC 9562) behind a type each.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::fingerprint::IdempotencyField;
use crate::time;

/// The text is not a UUID. The contract answers it as an id that does not exist.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a UUID")]
pub struct InvalidId;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// From a UUID that one of the stores holds.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// From the sixteen bytes that images and frames hold.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            /// The sixteen bytes in network order.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// The id as a UUID, for PostgreSQL.
            pub const fn as_uuid(&self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            /// Takes the hyphenated form only, so that one thing has one name.
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                if text.len() != 36 {
                    return Err(InvalidId);
                }
                Uuid::try_parse(text).map(Self).map_err(|_| InvalidId)
            }
        }
    };
}

id!(
    /// An event: one on-sale with its ticket types.
    EventId
);
id!(
    /// A ticket type of an event.
    TicketTypeId
);
id!(
    /// A booking: when it was asked for, and the key that made it. See [`BookingId::new`].
    BookingId
);

#[expect(clippy::new_without_default, reason = "a new id is a side effect of the clock, not a default value")]
impl EventId {
    /// A new id, ordered by time.
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }
}

#[expect(clippy::new_without_default, reason = "a new id is a side effect of the clock, not a default value")]
impl TicketTypeId {
    /// A new id, ordered by time.
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }
}

impl BookingId {
    /// A new id: the present millisecond, and behind it the idempotency field. A booking lies under that field in its
    /// slot, so that a retry, which has only the key, finds it as a reader does, who has only the id.
    pub fn new(idempotency: IdempotencyField) -> Self {
        Self::at(Utc::now(), idempotency)
    }

    /// The id of a request that comes at this time.
    pub fn at(time: DateTime<Utc>, idempotency: IdempotencyField) -> Self {
        let [_, _, time @ ..] = time::to_millis(time).to_be_bytes();
        Self::from_parts(time, idempotency)
    }

    /// From the time of an id and the field that its booking lies under.
    pub fn from_parts(time: [u8; 6], idempotency: IdempotencyField) -> Self {
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&time);
        bytes[6..].copy_from_slice(idempotency.as_bytes());
        Self::from_bytes(bytes)
    }

    /// Milliseconds since 1970, big-endian.
    pub fn time(&self) -> [u8; 6] {
        let [a, b, c, d, e, f, ..] = *self.as_bytes();
        [a, b, c, d, e, f]
    }

    /// The field of its slot that it lies under.
    pub fn field(&self) -> IdempotencyField {
        let [_, _, _, _, _, _, field @ ..] = *self.as_bytes();
        IdempotencyField::from_bytes(field)
    }

    /// The booking's slot among `slots` of its event, which is a power of two up to 65,536.
    pub fn slot(&self, slots: u32) -> u32 {
        let bytes = self.as_bytes();
        u32::from(u16::from_be_bytes([bytes[14], bytes[15]])) & slots.saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{Caller, IdempotencyKey};

    #[test]
    fn a_bookings_id_is_a_uuid_of_version_7_that_says_when_it_was_asked_for_and_by_which_key() {
        let event = EventId::new();
        let field = |key: &[u8]| {
            IdempotencyField::of(&Caller::anonymous(), event, &IdempotencyKey::parse(key).unwrap())
        };
        let before = BookingId::at(Utc::now(), field(b"a"));
        let id = BookingId::new(field(b"a"));
        assert!(id.time() >= before.time() && id.time() <= BookingId::new(field(b"b")).time());
        assert_eq!(id.as_uuid().get_version_num(), 7);
        assert_eq!(id.as_uuid().get_variant(), uuid::Variant::RFC4122);
        let asked_at = DateTime::from_timestamp_millis(0x0193_9c5e_7a02).unwrap();
        assert_eq!(BookingId::at(asked_at, field(b"a")).time(), [0x01, 0x93, 0x9c, 0x5e, 0x7a, 0x02]);
        assert_eq!((id.field(), BookingId::from_parts(id.time(), field(b"a"))), (field(b"a"), id));
        assert_ne!(id.field(), field(b"b"));
    }

    #[test]
    fn an_id_takes_the_hyphenated_form_only() {
        let id = EventId::new();
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in
            ["", "x", "0193", &id.as_uuid().simple().to_string(), &format!("{{{id}}}"), &format!("{id}\0")]
        {
            assert_eq!(bad.parse::<EventId>(), Err(InvalidId), "{bad:?}");
        }
    }
}
