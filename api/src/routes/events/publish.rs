//! `POST /v1/events/{event_id}/publish`: puts an event on sale.

use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::StatusCode;
use boxoffice_schema::event::EventImage;
use boxoffice_schema::ids::EventId;
use boxoffice_schema::position::Position;
use boxoffice_schema::scripts::{EventOutcome, EventSnapshot};
use boxoffice_schema::status::EventStatus;
use tokio::time::{Instant, sleep};

use super::body::{EventBody, respond};
use crate::actions::{Actor, Begun};
use crate::contract::{DECIDING, EventPath, OPERATING, refusals};
use crate::draft::{self, Frozen};
use crate::error::{Code, Problem, event_refusal};
use crate::identity::{Caller, Scope};
use crate::office::Office;
use crate::record::StoredEvent;
use crate::request::event_id;
use crate::routes::{Answer, SharedOffice, in_time};

refusals!(PublishRefusals: OPERATING, &[Code::EventNotFound, Code::NotOnSale], DECIDING);

/// Put an event on sale
///
/// No body. The same answer on repeats; a closed event is `not_on_sale`.
#[utoipa::path(
    post,
    path = "/v1/events/{event_id}/publish",
    operation_id = "publishEvent",
    tag = "events",
    security(("apiKey" = [Scope::EventsWrite])),
    params(EventPath),
    responses(
        (
            status = 200,
            description = "Published, now or before.",
            body = EventBody<'_>,
            headers(("ETag" = String, description = "For `If-Match` and `If-None-Match`.")),
            links(
                ("availability" = (operation_id = "getAvailability", parameters(("event_id" = "$response.body#/id")))),
                ("book" = (operation_id = "createBooking", parameters(("event_id" = "$response.body#/id")))),
                ("bookings" = (operation_id = "listEventBookings", parameters(("event_id" = "$response.body#/id")))),
                ("audit" = (operation_id = "auditEvent", parameters(("event_id" = "$response.body#/id")))),
            ),
        ),
        PublishRefusals,
    ),
)]
pub(crate) async fn publish(caller: Caller, office: SharedOffice, request: HttpRequest) -> Answer {
    caller.operates(Scope::EventsWrite)?;
    let id = event_id(&request)?;
    let event = in_time(put_on_sale(&office, id, &Actor::of(&caller, &request))).await?;
    if event.status == EventStatus::Closed {
        return Err(event_refusal(&EventOutcome::Closed));
    }
    respond(StatusCode::OK, &event)
}

/// How long a publication waits for the log to be applied, so that there is time left to ask Redis.
const APPLIED_WITHIN: Duration = Duration::from_millis(700);
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

const NOT_APPLIED: &str = "The publication of this event did not finish, and the log is not applied yet, which tells whether it \
                           was on sale; publish it again.";

/// The event as it is in Redis, where this or an earlier call has put it.
async fn put_on_sale(office: &Office, id: EventId, by: &Actor) -> Result<EventImage, Problem> {
    // A draft whose shard is being verified may be changed still. And what Redis says of an event before it was checked may be
    // older than what the caller knows.
    let EventSnapshot { certified, event, position, .. } = office.stores.snapshot(id).await?;
    if !certified {
        return Err(Problem::new(Code::InventoryUnverified));
    }
    if let Some(event) = event {
        return Ok(Arc::unwrap_or_clone(event));
    }
    let (event, action) = match freeze(office, id, position.unwrap_or_default(), by).await? {
        Frozen::Unsold { event, action } => (event, action),
        Frozen::Sold(stored) => return already_on_sale(office, stored).await,
        Frozen::Unknown => return Err(Problem::because(Code::InventoryUnverified, NOT_APPLIED)),
    };
    let decided = office.stores.inventory.publish(&event.image).await;
    office.journal.end(Begun::Written(action), &decided).await;
    match decided? {
        EventOutcome::Changed(event) | EventOutcome::Unchanged(event) => Ok(event),
        refused => Err(event_refusal(&refused)),
    }
}

/// Freezes the event. Where somebody did so before, it may have been sold and lost since: the log is waited for, which tells.
async fn freeze(office: &Office, id: EventId, absent_at: Position, by: &Actor) -> Result<Frozen, Problem> {
    let shard = office.stores.inventory.shard_of(id);
    let until = Instant::now() + APPLIED_WITHIN;
    loop {
        let freeze = async |connection: &mut _| draft::freeze(connection, id, shard, absent_at, by).await;
        let frozen = office.stores.database.run(freeze).await?;
        let frozen = frozen.ok_or_else(|| Problem::new(Code::EventNotFound))?;
        if !matches!(frozen, Frozen::Unknown) || Instant::now() >= until {
            return Ok(frozen);
        }
        sleep(BETWEEN_LOOKS).await;
    }
}

/// The log says that Redis had this event. Where it is gone, its sales are gone too: it is recovery's to bring them
/// back, and publishing again would sell the same tickets twice.
async fn already_on_sale(office: &Office, stored: StoredEvent) -> Result<EventImage, Problem> {
    match office.stores.snapshot(stored.image.id).await?.event {
        Some(event) => Ok(Arc::unwrap_or_clone(event)),
        None if stored.image.status == EventStatus::Closed => Ok(stored.image),
        None => Err(Problem::new(Code::InventoryUnverified)),
    }
}
