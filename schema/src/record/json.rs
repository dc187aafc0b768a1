//! A record as JSON: what Kafka gets of events and barriers, and what a person is shown of any decision. Builds before version
//! 2 sent bookings so as well, and logs keep them for years.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{BookingChange, Change, Kind, Record, Totals, unknown_version};
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

pub(super) const VERSION: u16 = 1;

pub(super) fn encode(record: &Record) -> Vec<u8> {
    let wire = Wire {
        v: VERSION,
        kind: record.kind,
        shard: record.shard,
        epoch: record.position.epoch,
        sequence: record.position.sequence,
        event_id: record.event_id,
        decided_at: record.decided_at,
        old_epoch: None,
        booking: None,
        ticket_types: None,
        event: None,
    };
    let wire = match &record.change {
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

pub(super) fn decode(json: &[u8]) -> Result<Record, DecodeError> {
    let wire: Wire<'_> = serde_json::from_slice(json).map_err(|error| unreadable(json, &error))?;
    if wire.v != VERSION {
        return Err(unknown_version("JSON", wire.v, VERSION));
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
    if !time::is_kept(wire.decided_at) {
        return Err(DecodeError::new("record", "has a time that is no whole millisecond since 1970"));
    }
    if wire.event_id.is_none() && wire.kind != Kind::Barrier {
        return Err(lacks("event_id"));
    }
    Ok(Record {
        shard: wire.shard,
        position,
        kind: wire.kind,
        event_id: wire.event_id,
        decided_at: wire.decided_at,
        change,
    })
}

#[derive(Deserialize)]
struct WireVersion {
    v: u16,
}

/// Why it is no record of this version: another version has other fields, and says so only where one looks for it.
fn unreadable(json: &[u8], error: &serde_json::Error) -> DecodeError {
    match serde_json::from_slice(json) {
        Err(error) => DecodeError::new("record", format!("is not JSON of a record: {error}")),
        Ok(WireVersion { v }) if v != VERSION => unknown_version("JSON", v, VERSION),
        Ok(_) => DecodeError::new("record", error.to_string()),
    }
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
        let image = image.bounded()?;
        let of_items = image.items.iter().map(|item| item.ticket_type_id);
        if !of_items.eq(totals.iter().map(|totals| totals.ticket_type_id)) {
            return Err(DecodeError::new("record", "has totals of other ticket types than the booking's"));
        }
        Ok(BookingChange { id: self.id, image, totals })
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
