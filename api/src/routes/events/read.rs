//! `GET /v1/events/{event_id}`.

use actix_web::HttpRequest;

use super::body::EventBody;
use crate::contract::{EventPath, READING, refusals};
use crate::error::Code;
use crate::identity::Caller;
use crate::request::event_id;
use crate::routes::{Answer, SharedOffice, in_time_left, marked_stale, shown};

refusals!(ReadRefusals: &[Code::EventNotFound, Code::InventoryUnverified], READING);

/// The event as it is now
#[utoipa::path(
    get,
    path = "/v1/events/{event_id}",
    operation_id = "getEvent",
    tag = "events",
    security((), ("apiKey" = []), ("token" = [])),
    params(EventPath),
    responses(
        (
            status = 200,
            description = "The event.",
            body = EventBody<'_>,
            headers(("Boxoffice-Stale" = String, description = "`true` where Redis is away or is being verified, so that this may be older.")),
        ),
        ReadRefusals,
    ),
)]
pub(crate) async fn read(_: Caller, office: SharedOffice, request: HttpRequest) -> Answer {
    let found = in_time_left(&request, office.stores.find_to_show(event_id(&request)?)).await?;
    Ok(marked_stale(shown(&request, &EventBody::of(found.event()))?, found.is_stale()))
}
