//! `GET /v1/events/{event_id}/availability`.

use std::cell::RefCell;
use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse};
use boxoffice_schema::DecodeError;
use boxoffice_schema::event::{EventImage, TicketTypeImage};
use boxoffice_schema::ids::{EventId, TicketTypeId};
use boxoffice_schema::status::EventStatus;
use boxoffice_schema::time;
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::contract::{self, EventPath, READING, refusals};
use crate::error::{Code, Problem};
use crate::find::Found;
use crate::identity::Caller;
use crate::request::event_id;
use crate::routes::{Answer, Reading, SharedOffice, in_time_left, marked_stale};

/// What is left of an event.
#[derive(Serialize, ToSchema)]
#[schema(as = Availability, examples(contract::availability))]
pub(crate) struct AvailabilityBody {
    #[schema(schema_with = contract::id)]
    event_id: EventId,
    #[schema(value_type = contract::EventStatusWords)]
    status: EventStatus,
    #[serde(serialize_with = "time::serialize")]
    #[schema(schema_with = contract::time)]
    as_of: DateTime<Utc>,
    /// Whether Redis is away or is being verified, so that this may be older.
    stale: bool,
    ticket_types: Vec<TypeBody>,
}

/// What is left of one ticket type.
#[derive(Serialize, ToSchema)]
#[schema(as = TicketTypeAvailability)]
struct TypeBody {
    #[schema(schema_with = contract::id)]
    ticket_type_id: TicketTypeId,
    #[schema(schema_with = contract::capacity)]
    capacity: u32,
    /// 0 for a draft.
    #[schema(schema_with = contract::count)]
    available: u32,
    #[schema(schema_with = contract::count)]
    held: u32,
    #[schema(schema_with = contract::count)]
    sold: u32,
    /// Published, within its window and certified, whatever the stock.
    on_sale: bool,
}

refusals!(AvailabilityRefusals: &[Code::EventNotFound, Code::InventoryUnverified], READING);

/// What is left
#[utoipa::path(
    get,
    path = "/v1/events/{event_id}/availability",
    operation_id = "getAvailability",
    tag = "events",
    security((), ("apiKey" = []), ("token" = [])),
    params(EventPath),
    responses(
        (
            status = 200,
            description = "The stock of each ticket type.",
            body = AvailabilityBody,
            headers(("Boxoffice-Stale" = String, description = "`true` where Redis is away or is being verified, so that this may be older.")),
        ),
        AvailabilityRefusals,
    ),
)]
pub(crate) async fn availability(_: Caller, office: SharedOffice, request: HttpRequest) -> Answer {
    let found = in_time_left(&request, office.stores.find_to_show(event_id(&request)?)).await?;
    Ok(marked_stale(show(&request, &found)?, found.is_stale()))
}

thread_local! {
    /// What this worker was shown last by Redis, and what it made of it. A crowd that shares a read shares the answer.
    static LAST: RefCell<Option<(Arc<EventImage>, Reading)>> = const { RefCell::new(None) };
}

fn show(request: &HttpRequest, found: &Found) -> Result<HttpResponse, Problem> {
    let Found::Live { event, .. } = found else { return Ok(reading(found)?.shown(request)) };
    LAST.with_borrow_mut(|last| match last {
        // As long as it is kept, no other read has the same address.
        Some((kept, reading)) if Arc::ptr_eq(kept, event) => Ok(reading.shown(request)),
        _ => Ok(last.insert((event.clone(), reading(found)?)).1.shown(request)),
    })
}

fn reading(found: &Found) -> Result<Reading, Problem> {
    let body = AvailabilityBody::of(found).map_err(Problem::internal)?;
    Reading::new(&(body.status, body.stale, &body.ticket_types), &body)
}

impl AvailabilityBody {
    fn of(found: &Found) -> Result<Self, DecodeError> {
        let (as_of, on_sale) = match found {
            Found::Live { event, certified, now } => (*now, *certified && is_on_sale(event, *now)),
            Found::Recorded { .. } => (Utc::now(), false),
        };
        let event = found.event();
        let types = event.ticket_types.iter().map(|of_type| TypeBody::of(of_type, event.status, on_sale));
        Ok(Self {
            event_id: event.id,
            status: event.status,
            as_of,
            stale: found.is_stale(),
            ticket_types: types.collect::<Result<_, _>>()?,
        })
    }
}

/// Published and within its window, as the scripts see it.
fn is_on_sale(event: &EventImage, now: DateTime<Utc>) -> bool {
    event.status == EventStatus::OnSale
        && event.sales_open_at.is_none_or(|open| now >= open)
        && event.sales_close_at.is_none_or(|close| now < close)
}

impl TypeBody {
    fn of(of_type: &TicketTypeImage, status: EventStatus, on_sale: bool) -> Result<Self, DecodeError> {
        let left =
            of_type.available().ok_or_else(|| DecodeError::new("ticket type", "holds and sells too much"))?;
        Ok(Self {
            ticket_type_id: of_type.id,
            capacity: of_type.capacity,
            available: if status == EventStatus::Draft { 0 } else { left },
            held: of_type.held,
            sold: of_type.sold,
            on_sale,
        })
    }
}
