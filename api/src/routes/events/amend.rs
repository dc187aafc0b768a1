//! `PATCH /v1/events/{event_id}`: changes a draft in PostgreSQL, and a published event by a decision of Redis.

use actix_web::HttpRequest;
use actix_web::http::StatusCode;
use actix_web::web::Payload;
use boxoffice_schema::event::EventImage;
use boxoffice_schema::ids::{EventId, TicketTypeId};
use boxoffice_schema::scripts::{EventChange, EventOutcome};
use boxoffice_schema::status::EventStatus;
use boxoffice_schema::text::Name;
use boxoffice_schema::time;
use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::body::EventBody;
use super::create::{CAPACITY, LIMIT};
use crate::draft::{self, DraftChanges, DraftOutcome};
use crate::error::{Code, Problem, event_refusal, window_inverted};
use crate::find::Found;
use crate::office::Office;
use crate::request::{Checks, Integer, Object, event_id, parse, present, read_json};
use crate::routes::{Answer, SharedOffice, in_time, json};

const TICKET_TYPES_MAX: usize = 100;

const INTERRUPTED: &str = "The publication of this event was interrupted; publish it again.";

/// Null is a value here: it clears what is optional.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Patch {
    #[serde(default, deserialize_with = "present")]
    name: Option<Option<String>>,
    #[serde(default, deserialize_with = "present")]
    starts_at: Option<Option<String>>,
    #[serde(default, deserialize_with = "present")]
    sales_open_at: Option<Option<String>>,
    #[serde(default, deserialize_with = "present")]
    sales_close_at: Option<Option<String>>,
    #[serde(default, deserialize_with = "present")]
    per_customer_limit: Option<Option<Integer>>,
    #[serde(default, deserialize_with = "present")]
    status: Option<Option<String>>,
    #[serde(default, deserialize_with = "present")]
    ticket_types: Option<Option<Vec<Object<NewCapacity>>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewCapacity {
    id: Option<String>,
    capacity: Option<Integer>,
}

/// What is to change, whatever the event is.
struct Amendment {
    fields: DraftChanges,
    status: Option<EventStatus>,
    /// An id that is no UUID names no ticket type of any event.
    names_nothing: bool,
}

pub(crate) async fn amend(office: SharedOffice, request: HttpRequest, payload: Payload) -> Answer {
    let id = event_id(&request)?;
    let body = read_json(&request, payload).await?;
    let amendment = parse::<Patch>(&body)?.check()?;
    let event = in_time(change(&office, id, &amendment)).await?;
    json(StatusCode::OK, &EventBody::of(&event))
}

async fn change(office: &Office, id: EventId, amendment: &Amendment) -> Result<EventImage, Problem> {
    let found = office.stores.find(id).await?;
    if amendment.names_nothing {
        return Err(Problem::new(Code::TicketTypeNotFound));
    }
    match found {
        Found::Live { event, .. } => change_published(office, *event, amendment).await,
        Found::Recorded { stored, .. } if !stored.frozen => change_draft(office, id, amendment).await,
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

async fn change_draft(office: &Office, id: EventId, amendment: &Amendment) -> Result<EventImage, Problem> {
    if amendment.status.is_some() {
        return Err(Problem::because(Code::NotOnSale, "The event is a draft; publish it first."));
    }
    let now = time::truncate(Utc::now());
    let write = async |connection: &mut _| draft::change(connection, id, &amendment.fields, now).await;
    match office.stores.database.run(write).await?.ok_or_else(|| Problem::new(Code::EventNotFound))? {
        DraftOutcome::Changed(event) => Ok(*event),
        DraftOutcome::NoSuchTicketType => Err(Problem::new(Code::TicketTypeNotFound)),
        DraftOutcome::WindowInverted => Err(event_refusal(&EventOutcome::WindowInverted)),
        // It was frozen since it was found; where its publication went through, Redis has it by now.
        DraftOutcome::Frozen => match office.stores.snapshot(id).await?.event {
            Some(event) => change_published(office, event, amendment).await,
            None => Err(interrupted()),
        },
    }
}

async fn change_published(
    office: &Office,
    event: EventImage,
    amendment: &Amendment,
) -> Result<EventImage, Problem> {
    let changes = amendment.as_changes_of(&event)?;
    if changes.is_empty() {
        return Ok(event);
    }
    match office.stores.inventory.amend(event.id, &changes).await? {
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

impl Patch {
    fn check(self) -> Result<Amendment, Problem> {
        let mut checks = Checks::default();
        let name =
            not_null(&mut checks, "name", self.name).and_then(|name| checks.text::<Name>("name", name));
        let starts_at = not_null(&mut checks, "starts_at", self.starts_at);
        let starts_at = starts_at.and_then(|at| checks.time("starts_at", &at));
        let sales_open_at = optional_time(&mut checks, "sales_open_at", self.sales_open_at);
        let sales_close_at = optional_time(&mut checks, "sales_close_at", self.sales_close_at);
        if sales_open_at.flatten().zip(sales_close_at.flatten()).is_some_and(|(open, close)| close <= open) {
            let inverted = window_inverted();
            checks.wrong(inverted.field, inverted.message);
        }
        let limit = |limit: Option<Integer>| {
            limit.and_then(|limit| checks.number("per_customer_limit", limit, LIMIT))
        };
        let per_customer_limit = self.per_customer_limit.map(limit);
        let status = not_null(&mut checks, "status", self.status);
        let status = status.and_then(|word| check_status(&mut checks, &word));
        let types = not_null(&mut checks, "ticket_types", self.ticket_types).unwrap_or_default();
        let (names_nothing, capacities) = check_capacities(&mut checks, types);
        checks.done()?;
        let fields =
            DraftChanges { name, starts_at, sales_open_at, sales_close_at, per_customer_limit, capacities };
        Ok(Amendment { fields, status, names_nothing })
    }
}

fn not_null<T>(checks: &mut Checks, field: &str, value: Option<Option<T>>) -> Option<T> {
    if matches!(value, Some(None)) {
        checks.wrong(field, "must not be null");
    }
    value.flatten()
}

fn optional_time(
    checks: &mut Checks,
    field: &str,
    value: Option<Option<String>>,
) -> Option<Option<DateTime<Utc>>> {
    value.map(|value| value.and_then(|at| checks.time(field, &at)))
}

fn check_status(checks: &mut Checks, word: &str) -> Option<EventStatus> {
    let status = EventStatus::parse(word).ok().filter(|status| *status != EventStatus::Draft);
    if status.is_none() {
        checks.wrong("status", "must be paused, on_sale or closed");
    }
    status
}

/// Whether an id can name no ticket type, and all capacities that are right.
fn check_capacities(
    checks: &mut Checks,
    types: Vec<Object<NewCapacity>>,
) -> (bool, Vec<(TicketTypeId, u32)>) {
    if types.len() > TICKET_TYPES_MAX {
        checks.wrong("ticket_types", format_args!("must have at most {TICKET_TYPES_MAX} entries"));
        return (false, Vec::new());
    }
    let mut names_nothing = false;
    let mut checked: Vec<(TicketTypeId, u32)> = Vec::with_capacity(types.len());
    for (at, Object(of_type)) in types.into_iter().enumerate() {
        let field = |name: &str| format!("ticket_types[{at}].{name}");
        let id = checks.required(field("id"), of_type.id);
        let capacity = checks.required(field("capacity"), of_type.capacity);
        let capacity = capacity.and_then(|capacity| checks.number(field("capacity"), capacity, CAPACITY));
        let (Some(id), Some(capacity)) = (id, capacity) else { continue };
        match id.parse() {
            Err(_) => names_nothing = true,
            Ok(id) if checked.iter().any(|(known, _)| *known == id) => {
                checks.wrong(field("id"), "is given twice")
            }
            Ok(id) => checked.push((id, capacity)),
        }
    }
    (names_nothing, checked)
}
