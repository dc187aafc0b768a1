//! `PATCH /v1/events/{event_id}`: changes a draft in PostgreSQL, and a published event by a decision of Redis.

use actix_web::HttpRequest;
use actix_web::http::StatusCode;
use actix_web::http::header::{Header, IF_MATCH, IfMatch};
use actix_web::web::Payload;
use boxoffice_schema::event::{EventImage, TicketTypeImage};
use boxoffice_schema::ids::{EventId, TicketTypeId};
use boxoffice_schema::scripts::{EventChange, EventOutcome, EventSnapshot};
use boxoffice_schema::time;
use chrono::{DateTime, Utc};

use super::body::{EventBody, respond};
use super::patch::{Amendment, Patch};
use crate::actions::{Action, Actor, Entry};
use crate::contract::{DECIDING, EventPath, IfMatchHeader, OPERATING, READ_BODY, refusals};
use crate::draft::{self, DraftOutcome};
use crate::error::{Code, Problem, event_refusal};
use crate::find::Found;
use crate::identity::{Caller, Scope};
use crate::office::Office;
use crate::request::{event_id, parse, read_json};
use crate::routes::{Answer, SharedOffice, in_time, represented};

const INTERRUPTED: &str = "The publication of this event did not finish; publish it again.";

refusals!(AmendRefusals:
    OPERATING,
    READ_BODY,
    &[Code::EventNotFound, Code::TicketTypeNotFound, Code::NotOnSale, Code::CapacityBelowSold],
    &[Code::PreconditionFailed],
    DECIDING,
);

/// Change an event, all or nothing
///
/// Null clears optional times and limits; what is absent stays. `closed` is final; the same value changes nothing.
#[utoipa::path(
    patch,
    path = "/v1/events/{event_id}",
    operation_id = "changeEvent",
    tag = "events",
    security(("apiKey" = [Scope::EventsWrite])),
    params(EventPath, IfMatchHeader),
    request_body = Patch,
    responses(
        (
            status = 200,
            description = "The event as it is after the change.",
            body = EventBody<'_>,
            headers(("ETag" = String, description = "For `If-Match` and `If-None-Match`.")),
        ),
        AmendRefusals,
    ),
)]
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
    let precondition = Precondition::of(&request);
    let by = Actor::of(&caller, &request);
    let event = in_time(change(&office, id, &amendment, &precondition, &by)).await?;
    respond(StatusCode::OK, &event)
}

async fn change(
    office: &Office,
    id: EventId,
    amendment: &Amendment,
    precondition: &Precondition,
    by: &Actor,
) -> Result<EventImage, Problem> {
    let found = office.stores.find(id).await?;
    amendment.names_types_of(found.event())?;
    match found {
        // What Redis says before it was checked may be older than what the caller knows.
        Found::Live { certified: false, .. } => Err(Problem::new(Code::InventoryUnverified)),
        Found::Live { event, .. } => change_published(office, &event, amendment, precondition, by).await,
        Found::Recorded { stored, .. } if !stored.frozen => {
            change_draft(office, &stored.image, amendment, precondition, by).await
        }
        Found::Recorded { redis: Some(error), .. } => Err(error.into()),
        Found::Recorded { stored, .. } if !stored.applied => Err(interrupted()),
        Found::Recorded { stored, .. } if stored.image.is_over(Utc::now()) => {
            change_past(stored.image, amendment, precondition)
        }
        Found::Recorded { .. } => Err(Problem::new(Code::InventoryUnverified)),
    }
}

fn interrupted() -> Problem {
    Problem::because(Code::InventoryUnverified, INTERRUPTED)
}

async fn change_draft(
    office: &Office,
    draft: &EventImage,
    amendment: &Amendment,
    precondition: &Precondition,
    by: &Actor,
) -> Result<EventImage, Problem> {
    if amendment.status.is_some() {
        return Err(Problem::because(Code::NotOnSale, "The event is a draft; publish it first."));
    }
    let expected = precondition.expects(draft)?;
    let now = time::truncate(Utc::now());
    let write = async |connection: &mut _| {
        draft::change(connection, draft.id, &amendment.fields, expected, now, by).await
    };
    match office.stores.database.run(write).await?.ok_or_else(|| Problem::new(Code::EventNotFound))? {
        DraftOutcome::Changed(event) => Ok(*event),
        DraftOutcome::Superseded => Err(event_refusal(&EventOutcome::Superseded)),
        DraftOutcome::NoSuchTicketType => Err(Problem::new(Code::TicketTypeNotFound)),
        DraftOutcome::WindowInverted => Err(event_refusal(&EventOutcome::WindowInverted)),
        // It was frozen since it was found; where its publication went through, Redis has it by now.
        DraftOutcome::Frozen => match office.stores.snapshot(draft.id).await? {
            EventSnapshot { event: None, .. } => Err(interrupted()),
            EventSnapshot { certified: false, .. } => Err(Problem::new(Code::InventoryUnverified)),
            EventSnapshot { event: Some(event), .. } => {
                change_published(office, &event, amendment, precondition, by).await
            }
        },
    }
}

async fn change_published(
    office: &Office,
    event: &EventImage,
    amendment: &Amendment,
    precondition: &Precondition,
    by: &Actor,
) -> Result<EventImage, Problem> {
    let expected = precondition.expects(event)?;
    let changes = amendment.as_changes_of(event)?;
    if changes.is_empty() {
        return Ok(event.clone());
    }
    let entry = Entry::of_event(by, Action::AmendEvent, event.id).changing(event);
    let action = office.journal.begin(entry).await?;
    let decided = office.stores.inventory.amend(event.id, expected, &changes).await;
    office.journal.end(action, &decided).await;
    match decided? {
        EventOutcome::Changed(event) | EventOutcome::Unchanged(event) => Ok(event),
        EventOutcome::CapacityBelowSold => Err(amendment.below_sold_of(event)),
        refused => Err(event_refusal(&refused)),
    }
}

/// An event that is over and gone from Redis is for good as PostgreSQL has it; what it is already changes nothing.
fn change_past(
    event: EventImage,
    amendment: &Amendment,
    precondition: &Precondition,
) -> Result<EventImage, Problem> {
    precondition.expects(&event)?;
    let mut changed = event.clone();
    changed.status = amendment.status.unwrap_or(event.status);
    if !draft::apply(&mut changed, &amendment.fields) {
        return Err(Problem::new(Code::TicketTypeNotFound));
    }
    if changed == event { Ok(event) } else { Err(event_refusal(&EventOutcome::Closed)) }
}

fn type_of(event: &EventImage, id: TicketTypeId) -> Option<&TicketTypeImage> {
    event.ticket_types.iter().find(|of_type| of_type.id == id)
}

/// Parses and checks a body, for fuzzing.
pub(crate) fn try_patch(body: &[u8]) -> Result<(), Problem> {
    parse::<Patch>(body)?.check(Utc::now()).map(drop)
}

/// The header `If-Match`, for fuzzing.
pub(crate) fn try_precondition(request: &HttpRequest) {
    let Precondition(tags) = Precondition::of(request);
    let is_there = request.headers().contains_key(IF_MATCH);
    assert_eq!(tags.is_some(), is_there, "a precondition was forgotten");
}

/// The header `If-Match`.
struct Precondition(Option<IfMatch>);

impl Precondition {
    fn of(request: &HttpRequest) -> Self {
        let is_there = request.headers().contains_key(IF_MATCH);
        // Whoever sends one that cannot be read wants no change that was not meant.
        Self(is_there.then(|| IfMatch::parse(request).unwrap_or(IfMatch::Items(Vec::new()))))
    }

    /// When the event must have been changed last, so that whoever decides can see that nobody was faster; `None`
    /// where any event will do. An event never has two changes at the same time.
    fn expects(&self, event: &EventImage) -> Result<Option<DateTime<Utc>>, Problem> {
        let Some(IfMatch::Items(tags)) = &self.0 else { return Ok(None) };
        let (_, tag) = represented(&EventBody::of(event))?;
        if tags.iter().any(|known| known.strong_eq(&tag)) {
            Ok(Some(event.updated_at))
        } else {
            Err(event_refusal(&EventOutcome::Superseded))
        }
    }
}

impl Amendment {
    /// Says which ticket type the event does not have; it never gets another one. What may be named stands where it
    /// stands in the body.
    fn names_types_of(&self, event: &EventImage) -> Result<(), Problem> {
        let is_unknown = |(id, _): &(TicketTypeId, u32)| type_of(event, *id).is_none();
        let unknown = self.names_nothing.or_else(|| self.fields.capacities.iter().position(is_unknown));
        let refuse = |at: usize| Err(Problem::no_ticket_type(format_args!("ticket_types[{at}].id")));
        unknown.map_or(Ok(()), refuse)
    }

    /// The refusal of a capacity, by its place where the event as it was read shows which one it is. Redis does not say,
    /// and tickets may have been sold since.
    fn below_sold_of(&self, event: &EventImage) -> Problem {
        let is_too_low = |(id, capacity): &(TicketTypeId, u32)| {
            type_of(event, *id).is_some_and(|of_type| *capacity < of_type.held + of_type.sold)
        };
        match self.fields.capacities.iter().position(is_too_low) {
            Some(at) => {
                let why = format!(
                    "ticket_types[{at}].capacity would be less than the tickets that are held and sold."
                );
                Problem::because(Code::CapacityBelowSold, why)
            }
            None => event_refusal(&EventOutcome::CapacityBelowSold),
        }
    }

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
