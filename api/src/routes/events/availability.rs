//! `GET /v1/events/{event_id}/availability`.

use actix_web::HttpRequest;
use actix_web::http::StatusCode;
use boxoffice_schema::DecodeError;
use boxoffice_schema::event::{EventImage, TicketTypeImage};
use boxoffice_schema::ids::{EventId, TicketTypeId};
use boxoffice_schema::status::EventStatus;
use boxoffice_schema::time;
use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::error::Problem;
use crate::find::Found;
use crate::identity::Caller;
use crate::request::event_id;
use crate::routes::{Answer, SharedOffice, in_time, json, marked_stale};

#[derive(Serialize)]
struct AvailabilityBody {
    event_id: EventId,
    status: EventStatus,
    #[serde(serialize_with = "time::serialize")]
    as_of: DateTime<Utc>,
    stale: bool,
    ticket_types: Vec<TypeBody>,
}

#[derive(Serialize)]
struct TypeBody {
    ticket_type_id: TicketTypeId,
    capacity: u32,
    available: u32,
    held: u32,
    sold: u32,
    on_sale: bool,
}

pub(crate) async fn availability(_: Caller, office: SharedOffice, request: HttpRequest) -> Answer {
    let found = in_time(office.stores.find(event_id(&request)?)).await?;
    let stale = found.is_stale();
    let body = AvailabilityBody::of(&found).map_err(Problem::internal)?;
    Ok(marked_stale(json(StatusCode::OK, &body)?, stale))
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
