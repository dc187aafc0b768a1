//! The shapes of the contract, as a client reads them.
//!
//! Written from the contract, not shared with the API. Only what the test looks at is named; a field that the contract
//! promises is not optional here, so that an answer without it is reported as unexpected.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// An amount in minor units.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Money<'a> {
    pub(crate) amount: i64,
    pub(crate) currency: &'a str,
}

/// A booking's state, in the words of the contract and of PostgreSQL.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Held,
    Confirmed,
    Cancelled,
    Expired,
}

impl Status {
    /// Reads the word that PostgreSQL keeps.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        match word {
            "held" => Some(Self::Held),
            "confirmed" => Some(Self::Confirmed),
            "cancelled" => Some(Self::Cancelled),
            "expired" => Some(Self::Expired),
            _ => None,
        }
    }
}

/// A booking as received.
#[derive(Debug, Deserialize)]
pub(crate) struct Booking<'a> {
    pub(crate) id: Uuid,
    pub(crate) event_id: Uuid,
    #[serde(borrow)]
    pub(crate) customer: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) items: Vec<BookedItem<'a>>,
    #[serde(borrow)]
    pub(crate) total: Money<'a>,
    pub(crate) status: Status,
    pub(crate) expires_at: Option<&'a str>,
    #[serde(borrow)]
    pub(crate) payment_reference: Option<Cow<'a, str>>,
}

/// One line of a booking.
#[derive(Debug, Deserialize)]
pub(crate) struct BookedItem<'a> {
    pub(crate) ticket_type_id: Uuid,
    pub(crate) quantity: u32,
    #[serde(borrow)]
    pub(crate) unit_price: Money<'a>,
}

/// A refusal (RFC 9457).
#[derive(Debug, Deserialize)]
pub(crate) struct Problem<'a> {
    #[serde(borrow, rename = "type")]
    pub(crate) kind: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) title: Cow<'a, str>,
    pub(crate) status: u16,
    pub(crate) code: &'a str,
    #[serde(borrow)]
    pub(crate) detail: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) request_id: Cow<'a, str>,
}

/// What is left of an event.
#[derive(Debug, Deserialize)]
pub(crate) struct Availability {
    pub(crate) event_id: Uuid,
    pub(crate) stale: bool,
    pub(crate) ticket_types: Vec<TypeAvailability>,
}

/// What is left of a ticket type.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct TypeAvailability {
    pub(crate) ticket_type_id: Uuid,
    pub(crate) capacity: i64,
    pub(crate) available: i64,
    pub(crate) held: i64,
    pub(crate) sold: i64,
    pub(crate) on_sale: bool,
}

impl TypeAvailability {
    /// Promise P1: nothing below zero, and every ticket in exactly one place.
    pub(crate) fn adds_up(&self) -> bool {
        self.available >= 0
            && self.held >= 0
            && self.sold >= 0
            && self.available + self.held + self.sold == self.capacity
    }
}

/// The live invariant of one event.
#[derive(Debug, Deserialize)]
pub(crate) struct Audit {
    pub(crate) lag: Option<i64>,
    pub(crate) gaps: Vec<serde_json::Value>,
    pub(crate) ticket_types: Vec<AuditedType>,
}

/// Both sides of one ticket type. A side that cannot be reached is null.
#[derive(Debug, Deserialize)]
pub(crate) struct AuditedType {
    pub(crate) ticket_type_id: Uuid,
    pub(crate) redis: Option<LiveCounts>,
    pub(crate) postgres: Option<RecordedCounts>,
    pub(crate) drift: Option<i64>,
}

/// What Redis counts.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct LiveCounts {
    pub(crate) capacity: i64,
    pub(crate) available: i64,
    pub(crate) held: i64,
    pub(crate) sold: i64,
}

/// What PostgreSQL counts.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct RecordedCounts {
    pub(crate) capacity: i64,
    pub(crate) held: i64,
    pub(crate) sold: i64,
}

/// A new event as sent.
#[derive(Debug, Serialize)]
pub(crate) struct NewEvent<'a> {
    pub(crate) name: &'a str,
    pub(crate) starts_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) per_customer_limit: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hold_seconds: Option<u32>,
    pub(crate) ticket_types: Vec<NewTicketType<'a>>,
}

/// A ticket type of a new event as sent.
#[derive(Debug, Serialize)]
pub(crate) struct NewTicketType<'a> {
    pub(crate) name: &'a str,
    pub(crate) capacity: u32,
    pub(crate) price: Money<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) per_customer_limit: Option<u32>,
}

/// An event as received.
#[derive(Debug, Deserialize)]
pub(crate) struct CreatedEvent {
    pub(crate) id: Uuid,
    pub(crate) status: String,
    pub(crate) ticket_types: Vec<CreatedTicketType>,
}

/// A ticket type as received.
#[derive(Debug, Deserialize)]
pub(crate) struct CreatedTicketType {
    pub(crate) id: Uuid,
    pub(crate) name: String,
    pub(crate) capacity: u32,
}

/// One page of an event's bookings.
#[derive(Debug, Deserialize)]
pub(crate) struct BookingPage {
    pub(crate) items: Vec<ListedBooking>,
    pub(crate) next_cursor: Option<String>,
}

/// A booking in a list.
#[derive(Debug, Deserialize)]
pub(crate) struct ListedBooking {
    pub(crate) id: Uuid,
}
