//! What Kafka carries: one record a decision, with the whole booking or event as it is afterwards.
//!
//! There are two versions of the format. Decisions about bookings, nearly all of the log, are packed (version 2); those about
//! events, and barriers, are JSON (version 1), which bookings were as well before there was a version 2, and which any record
//! is shown as. Golden files of every kind are in `schema/golden`; a change of the format is a new version beside these.
//!
//! Packed, big-endian: version, 2 (1), shard (2), epoch (4), time of the decision in ms (8); and from here on as the script wrote
//! it into the [frame](crate::frame): kind (1), sequence (8), event (16), booking (16), length (4) and bytes of the booking's
//! [image](crate::image), and for each of its items the ticket type's capacity, held and sold (4 each). Image and decision are
//! part of the version: another layout of either is another version of the record.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::DecodeError;
use crate::event::EventImage;
use crate::ids::{BookingId, EventId, TicketTypeId};
use crate::image::BookingImage;
use crate::position::Position;
use crate::shard::Shard;

mod json;
mod packed;

pub(crate) use packed::{Head, seal};

/// Kafka headers: they give a record's position even where its value cannot be read.
pub mod header {
    /// The format's version.
    pub const VERSION: &str = "boxoffice-version";
    /// The shard's number.
    pub const SHARD: &str = "boxoffice-shard";
    /// The epoch of the position.
    pub const EPOCH: &str = "boxoffice-epoch";
    /// The sequence of the position.
    pub const SEQUENCE: &str = "boxoffice-sequence";
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $code:literal),* $(,)?) => {
        /// What kind of decision a record tells of.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Kind { $($(#[$doc])* $name),* }

        impl Kind {
            /// All kinds.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// As a frame and a packed record have it.
            pub(crate) const fn code(self) -> u8 {
                match self {
                    $(Self::$name => $code),*
                }
            }

            /// From a frame or a packed record.
            ///
            /// # Errors
            /// An unknown code.
            pub fn from_code(code: u8) -> Result<Self, DecodeError> {
                match code {
                    $($code => Ok(Self::$name),)*
                    _ => Err(DecodeError::new("decision kind", format!("unknown code {code}"))),
                }
            }
        }
    };
}

kinds! {
    /// Sold at once.
    Booked = 1,
    /// Reserved.
    Held = 2,
    /// A hold, live or expired, was sold.
    Confirmed = 3,
    /// A booking was given back.
    Cancelled = 4,
    /// A hold ran out.
    Expired = 5,
    /// A booking was said once more, as it is, because PostgreSQL had lost a decision about it.
    Restated = 6,
    /// An event was put on sale.
    Published = 16,
    /// An event's name, times or limit were changed.
    Amended = 17,
    /// Capacities were changed.
    CapacityChanged = 18,
    /// An event was paused.
    Paused = 19,
    /// A paused event is on sale again.
    Resumed = 20,
    /// An event was closed.
    Closed = 21,
    /// An event was said once more, as it is.
    EventRestated = 22,
    /// An event's counters were wrong and are now what its bookings add up to.
    Repaired = 23,
    /// A recovery: nothing of an older epoch behind it counts. It takes no sequence number of its own.
    Barrier = 32,
}

impl Kind {
    /// Whether the record carries a booking.
    pub const fn is_of_booking(self) -> bool {
        matches!(
            self,
            Self::Booked | Self::Held | Self::Confirmed | Self::Cancelled | Self::Expired | Self::Restated
        )
    }

    /// Whether it is the first decision about a booking.
    pub const fn makes_booking(self) -> bool {
        matches!(self, Self::Booked | Self::Held)
    }
}

/// One decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whose history it belongs to.
    pub shard: Shard,
    /// Its place there.
    pub position: Position,
    /// What kind of decision it was.
    pub kind: Kind,
    /// Which event it is about; none for a barrier.
    pub event_id: Option<EventId>,
    /// When it was decided, by Redis' clock.
    pub decided_at: DateTime<Utc>,
    /// What is so from now on.
    pub change: Change,
}

/// What a decision changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A booking.
    Booking(Box<BookingChange>),
    /// An event.
    Event(Box<EventImage>),
    /// A shard's epoch: all decisions up to the record's sequence were made in older epochs.
    Barrier {
        /// The epoch of the decision at the record's sequence: the last one of the Redis that was recovered.
        old_epoch: u32,
    },
}

/// A booking after a decision, with the ticket types that the decision touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BookingChange {
    /// The booking.
    pub id: BookingId,
    /// All of it.
    pub image: BookingImage,
    /// In the order of its items, as Redis counted them right after the decision.
    pub totals: Vec<Totals>,
}

/// The counters of a ticket type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// The ticket type.
    pub ticket_type_id: TicketTypeId,
    /// How many tickets there are.
    pub capacity: u32,
    /// How many are held.
    pub held: u32,
    /// How many are sold.
    pub sold: u32,
}

/// A record as Kafka gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Whose partition it goes to.
    pub shard: Shard,
    /// What its headers say.
    pub position: Position,
    /// Its bytes. The same decision always has the same, so that one that was sent twice is known by its digest.
    pub value: Vec<u8>,
    event_id: Option<EventId>,
    version: u16,
}

impl Message {
    /// The key under which Kafka gets it: the event, or the shard for a barrier.
    pub fn key(&self) -> String {
        self.event_id.map_or_else(|| self.shard.to_string(), |event| event.to_string())
    }

    /// Its headers: names from [`header`], values in decimal.
    pub fn headers(&self) -> [(&'static str, String); 4] {
        [
            (header::VERSION, self.version.to_string()),
            (header::SHARD, self.shard.number().to_string()),
            (header::EPOCH, self.position.epoch.to_string()),
            (header::SEQUENCE, self.position.sequence.to_string()),
        ]
    }
}

impl Record {
    /// As Kafka gets it.
    pub fn message(&self) -> Message {
        let (version, value) = match (&self.change, self.event_id) {
            (Change::Booking(change), Some(event_id)) => {
                (packed::VERSION.into(), packed::encode(self, event_id, change))
            }
            _ => (json::VERSION, self.to_json()),
        };
        let Self { shard, position, event_id, .. } = *self;
        Message { shard, position, value, event_id, version }
    }

    /// As JSON: as a person is shown it, and as Kafka had it of any decision before there was a version 2.
    pub fn to_json(&self) -> Vec<u8> {
        json::encode(self)
    }

    /// From the bytes of either version.
    ///
    /// # Errors
    /// Where they are not a record's, are of another version, or lack what its kind must have.
    pub fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        match value {
            [packed::VERSION, packed @ ..] => packed::decode(packed),
            // No record that was ever written as JSON begins with a control character.
            [version @ ..b' ', ..] => {
                Err(unknown_version("packed", (*version).into(), packed::VERSION.into()))
            }
            json => json::decode(json),
        }
    }
}

fn unknown_version(form: &str, version: u16, known: u16) -> DecodeError {
    DecodeError::new(
        "record",
        format!("is {form} in the unknown version {version}; this build reads {known}"),
    )
}
