//! What Kafka carries: one JSON record a decision, with the whole booking or event as it is afterwards.
//!
//! Golden files of every kind are in `schema/golden`; a change of the format is a new version beside this one.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::DecodeError;
use crate::event::EventImage;
use crate::fingerprint::{CustomerHash, Fingerprint};
use crate::ids::{BookingId, EventId, TicketTypeId};
use crate::image::{BookingImage, ImageItem};
use crate::money::Currency;
use crate::position::Position;
use crate::shard::Shard;
use crate::status::BookingStatus;
use crate::text::{Caller, Customer, IdempotencyKey, PaymentReference};
use crate::time;

/// The version of the format, in the record and in its header.
pub const VERSION: u16 = 1;

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

            /// From a frame.
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

impl Record {
    /// The key under which Kafka gets it: the event, or the shard for a barrier.
    pub fn key(&self) -> String {
        self.event_id.map_or_else(|| self.shard.to_string(), |event| event.to_string())
    }

    /// The record's headers: names from [`header`], values in decimal.
    pub fn headers(&self) -> [(&'static str, String); 4] {
        [
            (header::VERSION, VERSION.to_string()),
            (header::SHARD, self.shard.number().to_string()),
            (header::EPOCH, self.position.epoch.to_string()),
            (header::SEQUENCE, self.position.sequence.to_string()),
        ]
    }

    /// As JSON. The same record always gives the same bytes, so that a record that was sent twice is known by its
    /// digest.
    pub fn encode(&self) -> Vec<u8> {
        let wire = Wire {
            v: VERSION,
            kind: self.kind,
            shard: self.shard,
            epoch: self.position.epoch,
            sequence: self.position.sequence,
            event_id: self.event_id,
            decided_at: self.decided_at,
            old_epoch: None,
            booking: None,
            ticket_types: None,
            event: None,
        };
        let wire = match &self.change {
            Change::Booking(change) => Wire {
                booking: Some(WireBooking::from(change.as_ref())),
                ticket_types: Some(Cow::Borrowed(&change.totals)),
                ..wire
            },
            Change::Event(event) => Wire { event: Some(Cow::Borrowed(event)), ..wire },
            Change::Barrier { old_epoch } => Wire { old_epoch: Some(*old_epoch), ..wire },
        };
        serde_json::to_vec(&wire).expect("a record has string keys and finite numbers only")
    }

    /// From JSON.
    ///
    /// # Errors
    /// Where it is not JSON, of another version, or lacks what its kind must have.
    pub fn decode(json: &[u8]) -> Result<Self, DecodeError> {
        let wire: Wire<'_> = serde_json::from_slice(json).map_err(|error| unreadable(json, &error))?;
        if wire.v != VERSION {
            return Err(unknown_version(wire.v));
        }
        let position = Position { epoch: wire.epoch, sequence: wire.sequence };
        let lacks = |what: &str| DecodeError::new("record", format!("of kind {:?} lacks {what}", wire.kind));
        let change = if wire.kind.is_of_booking() {
            let booking = wire.booking.ok_or_else(|| lacks("booking"))?;
            let totals = wire.ticket_types.ok_or_else(|| lacks("ticket_types"))?;
            Change::Booking(Box::new(booking.into_change(position, totals.into_owned())?))
        } else if wire.kind == Kind::Barrier {
            Change::Barrier { old_epoch: wire.old_epoch.ok_or_else(|| lacks("old_epoch"))? }
        } else {
            Change::Event(Box::new(wire.event.ok_or_else(|| lacks("event"))?.into_owned()))
        };
        if wire.event_id.is_none() && wire.kind != Kind::Barrier {
            return Err(lacks("event_id"));
        }
        Ok(Self {
            shard: wire.shard,
            position,
            kind: wire.kind,
            event_id: wire.event_id,
            decided_at: wire.decided_at,
            change,
        })
    }
}

#[derive(Deserialize)]
struct WireVersion {
    v: u16,
}

/// Why it is no record of this version: another version has other fields, and says so only where one looks for it.
fn unreadable(json: &[u8], error: &serde_json::Error) -> DecodeError {
    match serde_json::from_slice(json) {
        Err(error) => DecodeError::new("record", format!("is not JSON of a record: {error}")),
        Ok(WireVersion { v }) if v != VERSION => unknown_version(v),
        Ok(_) => DecodeError::new("record", error.to_string()),
    }
}

fn unknown_version(version: u16) -> DecodeError {
    DecodeError::new("record", format!("unknown version {version}, this build reads {VERSION}"))
}

/// Written, it borrows from the record; read, it owns what it has read.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire<'a> {
    v: u16,
    kind: Kind,
    shard: Shard,
    epoch: u32,
    sequence: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<EventId>,
    #[serde(serialize_with = "time::serialize")]
    decided_at: DateTime<Utc>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    old_epoch: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    booking: Option<WireBooking<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ticket_types: Option<Cow<'a, [Totals]>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    event: Option<Cow<'a, EventImage>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireBooking<'a> {
    id: BookingId,
    status: BookingStatus,
    first_status: BookingStatus,
    customer: Cow<'a, Customer>,
    caller: Cow<'a, Caller>,
    idempotency_key: Cow<'a, IdempotencyKey>,
    fingerprint: String,
    customer_hash: String,
    #[serde(serialize_with = "time::serialize")]
    created_at: DateTime<Utc>,
    #[serde(serialize_with = "time::serialize_option")]
    hold_expires_at: Option<DateTime<Utc>>,
    payment_reference: Option<Cow<'a, PaymentReference>>,
    currency: Currency,
    items: Vec<WireItem>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireItem {
    ordinal: u8,
    ticket_type_id: TicketTypeId,
    quantity: u16,
    unit_price: u64,
}

impl<'a> From<&'a BookingChange> for WireBooking<'a> {
    fn from(change: &'a BookingChange) -> Self {
        let image = &change.image;
        Self {
            id: change.id,
            status: image.status,
            first_status: image.first_status,
            customer: Cow::Borrowed(&image.customer),
            caller: Cow::Borrowed(&image.caller),
            idempotency_key: Cow::Borrowed(&image.idempotency_key),
            fingerprint: hex(image.fingerprint.as_bytes()),
            customer_hash: hex(image.customer_hash.as_bytes()),
            created_at: image.created_at,
            hold_expires_at: image.hold_expires_at,
            payment_reference: image.payment_reference.as_ref().map(Cow::Borrowed),
            currency: image.currency,
            items: image
                .items
                .iter()
                .map(|item| WireItem {
                    ordinal: item.ordinal,
                    ticket_type_id: item.ticket_type_id,
                    quantity: item.quantity,
                    unit_price: item.unit_price,
                })
                .collect(),
        }
    }
}

impl WireBooking<'_> {
    fn into_change(self, position: Position, totals: Vec<Totals>) -> Result<BookingChange, DecodeError> {
        let items = self.items.into_iter().map(|item| ImageItem {
            ordinal: item.ordinal,
            quantity: item.quantity,
            ticket_type_id: item.ticket_type_id,
            unit_price: item.unit_price,
        });
        let image = BookingImage {
            status: self.status,
            first_status: self.first_status,
            created_at: self.created_at,
            hold_expires_at: self.hold_expires_at,
            position,
            customer_hash: CustomerHash::from_bytes(unhex(&self.customer_hash)?),
            fingerprint: Fingerprint::from_bytes(unhex(&self.fingerprint)?),
            payment_reference: self.payment_reference.map(Cow::into_owned),
            caller: self.caller.into_owned(),
            idempotency_key: self.idempotency_key.into_owned(),
            customer: self.customer.into_owned(),
            currency: self.currency,
            items: items.collect(),
        };
        Ok(BookingChange { id: self.id, image: image.bounded()?, totals })
    }
}

fn hex(bytes: &[u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(*bytes))
}

fn unhex(text: &str) -> Result<[u8; 16], DecodeError> {
    let bad = || DecodeError::new("record", format!("{text:?} is not 32 hexadecimal digits"));
    if text.len() != 32 {
        return Err(bad());
    }
    // A sign would be taken for a digit.
    if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(bad());
    }
    u128::from_str_radix(text, 16).map(u128::to_be_bytes).map_err(|_| bad())
}
