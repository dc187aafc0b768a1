//! The ids of events, ticket types and bookings: `UUIDv7` (RFC 9562) behind a type each.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::fingerprint::IdempotencyField;

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
    /// A booking. Its last two bytes name its slot, see [`BookingId::new`].
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
    /// A new id whose last two bytes come from the idempotency field. A booking and the record of its key then lie
    /// in one slot, so that a retry finds both under one declared key, and so does a reader who has only the id.
    /// 58 random bits remain.
    pub fn new(idempotency: &IdempotencyField) -> Self {
        let mut bytes = *Uuid::now_v7().as_bytes();
        bytes[14..].copy_from_slice(&idempotency.as_bytes()[..2]);
        Self::from_bytes(bytes)
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
