//! An event as a client receives it.

use boxoffice_schema::event::{EventImage, TicketTypeImage};
use boxoffice_schema::ids::{EventId, TicketTypeId};
use boxoffice_schema::money::{Currency, Money};
use boxoffice_schema::status::EventStatus;
use boxoffice_schema::time;
use chrono::{DateTime, Utc};
use serde::Serialize;

#[derive(Serialize)]
pub(super) struct EventBody<'a> {
    id: EventId,
    name: &'a str,
    status: EventStatus,
    #[serde(serialize_with = "time::serialize")]
    starts_at: DateTime<Utc>,
    #[serde(serialize_with = "time::serialize_option")]
    sales_open_at: Option<DateTime<Utc>>,
    #[serde(serialize_with = "time::serialize_option")]
    sales_close_at: Option<DateTime<Utc>>,
    per_customer_limit: Option<u32>,
    hold_seconds: u32,
    ticket_types: Vec<TicketTypeBody<'a>>,
    #[serde(serialize_with = "time::serialize")]
    created_at: DateTime<Utc>,
    #[serde(serialize_with = "time::serialize")]
    updated_at: DateTime<Utc>,
}

#[derive(Serialize)]
struct TicketTypeBody<'a> {
    id: TicketTypeId,
    name: &'a str,
    capacity: u32,
    price: Money,
    per_customer_limit: Option<u32>,
}

impl<'a> EventBody<'a> {
    pub(super) fn of(event: &'a EventImage) -> Self {
        Self {
            id: event.id,
            name: event.name.as_str(),
            status: event.status,
            starts_at: event.starts_at,
            sales_open_at: event.sales_open_at,
            sales_close_at: event.sales_close_at,
            per_customer_limit: event.per_customer_limit,
            hold_seconds: event.hold_seconds,
            ticket_types: event
                .ticket_types
                .iter()
                .map(|of_type| ticket_type(of_type, event.currency))
                .collect(),
            created_at: event.created_at,
            updated_at: event.updated_at,
        }
    }
}

fn ticket_type(of_type: &TicketTypeImage, currency: Currency) -> TicketTypeBody<'_> {
    TicketTypeBody {
        id: of_type.id,
        name: of_type.name.as_str(),
        capacity: of_type.capacity,
        price: Money { amount: of_type.price, currency },
        per_customer_limit: of_type.per_customer_limit,
    }
}
