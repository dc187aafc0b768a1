//! `PATCH /v1/events/{event_id}`: changes a draft in PostgreSQL, and a published event by a decision of Redis.

use actix_web::HttpRequest;
use actix_web::http::StatusCode;
use actix_web::web::Payload;
use boxoffice_schema::event::EventImage;
use boxoffice_schema::ids::EventId;
use boxoffice_schema::scripts::{EventChange, EventOutcome};
use boxoffice_schema::status::EventStatus;
use boxoffice_schema::time;
use chrono::Utc;

use super::body::EventBody;
use super::patch::{Amendment, Patch};
use crate::actions::{Action, Actor, Entry};
use crate::draft::{self, DraftOutcome};
use crate::error::{Code, Problem, event_refusal};
use crate::find::Found;
use crate::identity::{Caller, Scope};
use crate::office::Office;
use crate::request::{event_id, parse, read_json};
use crate::routes::{Answer, SharedOffice, in_time, json};

const INTERRUPTED: &str = "The publication of this event did not finish; publish it again.";

pub(crate) async fn amend(
    caller: Caller,
    office: SharedOffice,
    request: HttpRequest,
    payload: Payload,
) -> Answer {
    caller.operates(Scope::EventsWrite)?;
    let id = event_id(&request)?;
    let body = read_json(&request, payload).await?;
    let amendment = parse::<Patch>(&body)?.check(Utc::now())?;
    let by = Actor::of(&caller, &request);
    let event = in_time(change(&office, id, &amendment, &by)).await?;
    json(StatusCode::OK, &EventBody::of(&event))
}

async fn change(
    office: &Office,
    id: EventId,
    amendment: &Amendment,
    by: &Actor,
) -> Result<EventImage, Problem> {
    let found = office.stores.find(id).await?;
    if amendment.names_nothing {
        return Err(Problem::new(Code::TicketTypeNotFound));
    }
    match found {
        Found::Live { event, .. } => change_published(office, *event, amendment, by).await,
        Found::Recorded { stored, .. } if !stored.frozen => change_draft(office, id, amendment, by).await,
        Found::Recorded { redis: Some(error), .. } => Err(error.into()),
        Found::Recorded { stored, .. } if !stored.applied => Err(interrupted()),
        Found::Recorded { stored, .. } if stored.image.status == EventStatus::Closed => {
            Err(event_refusal(&EventOutcome::Closed))
        }
        Found::Recorded { .. } => Err(Problem::new(Code::InventoryUnverified)),
    }
}

fn interrupted() -> Problem {
    Problem::because(Code::InventoryUnverified, INTERRUPTED)
}

async fn change_draft(
    office: &Office,
    id: EventId,
    amendment: &Amendment,
    by: &Actor,
) -> Result<EventImage, Problem> {
    if amendment.status.is_some() {
        return Err(Problem::because(Code::NotOnSale, "The event is a draft; publish it first."));
    }
    let now = time::truncate(Utc::now());
    let write = async |connection: &mut _| draft::change(connection, id, &amendment.fields, now, by).await;
    match office.stores.database.run(write).await?.ok_or_else(|| Problem::new(Code::EventNotFound))? {
        DraftOutcome::Changed(event) => Ok(*event),
        DraftOutcome::NoSuchTicketType => Err(Problem::new(Code::TicketTypeNotFound)),
        DraftOutcome::WindowInverted => Err(event_refusal(&EventOutcome::WindowInverted)),
        // It was frozen since it was found; where its publication went through, Redis has it by now.
        DraftOutcome::Frozen => match office.stores.snapshot(id).await?.event {
            Some(event) => change_published(office, event, amendment, by).await,
            None => Err(interrupted()),
        },
    }
}

async fn change_published(
    office: &Office,
    event: EventImage,
    amendment: &Amendment,
    by: &Actor,
) -> Result<EventImage, Problem> {
    let changes = amendment.as_changes_of(&event)?;
    if changes.is_empty() {
        return Ok(event);
    }
    let entry = Entry::of_event(by, Action::AmendEvent, event.id).changing(&event);
    let action = office.journal.begin(entry).await?;
    let decided = office.stores.inventory.amend(event.id, &changes).await;
    office.journal.end(action, &decided).await;
    match decided? {
        EventOutcome::Changed(event) | EventOutcome::Unchanged(event) => Ok(event),
        refused => Err(event_refusal(&refused)),
    }
}

impl Amendment {
    /// For the script, which names ticket types by their ordinals.
    fn as_changes_of(&self, event: &EventImage) -> Result<Vec<EventChange>, Problem> {
        let fields = &self.fields;
        let mut changes = Vec::new();
        changes.extend(fields.name.clone().map(EventChange::Name));
        changes.extend(fields.starts_at.map(EventChange::StartsAt));
        changes.extend(fields.sales_open_at.map(EventChange::SalesOpenAt));
        changes.extend(fields.sales_close_at.map(EventChange::SalesCloseAt));
        changes.extend(fields.per_customer_limit.map(EventChange::PerCustomerLimit));
        changes.extend(self.status.map(EventChange::Status));
        for (id, capacity) in &fields.capacities {
            let ordinal = event.ticket_types.iter().position(|of_type| of_type.id == *id);
            let ordinal = ordinal.and_then(|ordinal| u8::try_from(ordinal).ok());
            let ordinal = ordinal.ok_or_else(|| Problem::new(Code::TicketTypeNotFound))?;
            changes.push(EventChange::Capacity(ordinal, *capacity));
        }
        Ok(changes)
    }
}
