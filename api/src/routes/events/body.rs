//! An event as a client receives it.

use actix_web::http::StatusCode;
use actix_web::http::header::{ETAG, HeaderValue};
use boxoffice_schema::event::{EventImage, TicketTypeImage};
use boxoffice_schema::ids::{EventId, TicketTypeId};
use boxoffice_schema::money::{Currency, Money};
use boxoffice_schema::status::EventStatus;
use boxoffice_schema::time;
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::contract;
use crate::error::Problem;
use crate::routes::{Answer, json_response, represented};

/// An event.
#[derive(Serialize, ToSchema)]
#[schema(as = Event, examples(contract::event))]
pub(crate) struct EventBody<'a> {
    #[schema(schema_with = contract::id)]
    id: EventId,
    #[schema(schema_with = contract::name)]
    name: &'a str,
    #[schema(value_type = contract::EventStatusWords)]
    status: EventStatus,
    #[serde(serialize_with = "time::serialize")]
    #[schema(schema_with = contract::time)]
    starts_at: DateTime<Utc>,
    #[serde(serialize_with = "time::serialize_option")]
    #[schema(schema_with = contract::time_or_null, required = true)]
    sales_open_at: Option<DateTime<Utc>>,
    #[serde(serialize_with = "time::serialize_option")]
    #[schema(schema_with = contract::time_or_null, required = true)]
    sales_close_at: Option<DateTime<Utc>>,
    #[schema(schema_with = contract::limit_or_null, required = true)]
    per_customer_limit: Option<u32>,
    #[schema(schema_with = contract::hold_seconds)]
    hold_seconds: u32,
    ticket_types: Vec<TicketTypeBody<'a>>,
    #[serde(serialize_with = "time::serialize")]
    #[schema(schema_with = contract::time)]
    created_at: DateTime<Utc>,
    #[serde(serialize_with = "time::serialize")]
    #[schema(schema_with = contract::time)]
    updated_at: DateTime<Utc>,
}

/// What can be bought of an event.
#[derive(Serialize, ToSchema)]
#[schema(as = TicketType)]
struct TicketTypeBody<'a> {
    #[schema(schema_with = contract::id)]
    id: TicketTypeId,
    #[schema(schema_with = contract::name)]
    name: &'a str,
    #[schema(schema_with = contract::capacity)]
    capacity: u32,
    #[schema(value_type = contract::MoneyShape)]
    price: Money,
    #[schema(schema_with = contract::limit_or_null, required = true)]
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

/// The event after a call has made or changed it, with the tag that the next change may name.
pub(super) fn respond(status: StatusCode, event: &EventImage) -> Answer {
    let (bytes, tag) = represented(&EventBody::of(event))?;
    let mut response = json_response(status, bytes);
    let tag = HeaderValue::from_str(&tag.to_string()).map_err(Problem::internal)?;
    response.headers_mut().insert(ETAG, tag);
    Ok(response)
}
