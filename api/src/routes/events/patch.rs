//! What a change of an event may say, and what is wrong with it.

use boxoffice_schema::ids::TicketTypeId;
use boxoffice_schema::status::EventStatus;
use boxoffice_schema::text::Name;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use utoipa::ToSchema;

use super::create::{CAPACITY, LIMIT, TICKET_TYPES_MAX};
use crate::contract;
use crate::draft::DraftChanges;
use crate::error::{Problem, window_inverted};
use crate::request::{Checks, Integer, Object, present};

/// What is to change. Null is a value here: it clears what is optional.
#[derive(Deserialize, ToSchema)]
#[schema(as = EventPatch, examples(contract::event_patch))]
#[serde(deny_unknown_fields)]
pub(crate) struct Patch {
    #[serde(default, deserialize_with = "present")]
    #[schema(schema_with = contract::name)]
    name: Option<Option<String>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(schema_with = contract::time)]
    starts_at: Option<Option<String>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(schema_with = contract::time_or_null)]
    sales_open_at: Option<Option<String>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(schema_with = contract::time_or_null)]
    sales_close_at: Option<Option<String>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(schema_with = contract::limit_or_null)]
    per_customer_limit: Option<Option<Integer>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(schema_with = contract::next_status)]
    status: Option<Option<String>>,
    /// Capacities are absolute.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Vec<NewCapacity>, max_items = 100, required = false)]
    ticket_types: Option<Option<Vec<Object<NewCapacity>>>>,
}

/// How many tickets of one type there are to be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewCapacity {
    #[schema(schema_with = contract::id, required = true)]
    id: Option<String>,
    #[schema(schema_with = contract::capacity, required = true)]
    capacity: Option<Integer>,
}

/// What is to change, whatever the event is.
pub(super) struct Amendment {
    pub(super) fields: DraftChanges,
    pub(super) status: Option<EventStatus>,
    /// Where the first id stands that is no UUID, and so names no ticket type of any event.
    pub(super) names_nothing: Option<usize>,
}

impl Patch {
    /// Everything that it says, or everything that is wrong with it.
    pub(super) fn check(self, now: DateTime<Utc>) -> Result<Amendment, Problem> {
        let mut checks = Checks::default();
        let name =
            not_null(&mut checks, "name", self.name).and_then(|name| checks.text::<Name>("name", name));
        let starts_at = not_null(&mut checks, "starts_at", self.starts_at);
        let starts_at = starts_at.and_then(|at| checks.time("starts_at", &at));
        let sales_open_at = optional_time(&mut checks, "sales_open_at", self.sales_open_at);
        let sales_close_at = optional_time(&mut checks, "sales_close_at", self.sales_close_at);
        checks.in_future("starts_at", starts_at, now);
        checks.in_future("sales_close_at", sales_close_at.flatten(), now);
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

/// Where the first id stands that can name no ticket type, and all capacities that are right.
fn check_capacities(
    checks: &mut Checks,
    types: Vec<Object<NewCapacity>>,
) -> (Option<usize>, Vec<(TicketTypeId, u32)>) {
    if types.len() > TICKET_TYPES_MAX {
        checks.wrong("ticket_types", format_args!("must have at most {TICKET_TYPES_MAX} entries"));
        return (None, Vec::new());
    }
    let mut names_nothing = None;
    let mut checked: Vec<(TicketTypeId, u32)> = Vec::with_capacity(types.len());
    for (at, Object(of_type)) in types.into_iter().enumerate() {
        let field = |name: &str| format!("ticket_types[{at}].{name}");
        let id = checks.required(field("id"), of_type.id);
        let capacity = checks.required(field("capacity"), of_type.capacity);
        let capacity = capacity.and_then(|capacity| checks.number(field("capacity"), capacity, CAPACITY));
        let (Some(id), Some(capacity)) = (id, capacity) else { continue };
        match id.parse() {
            Err(_) => names_nothing = names_nothing.or(Some(at)),
            Ok(id) if checked.iter().any(|(known, _)| *known == id) => {
                checks.wrong(field("id"), "is given twice");
            }
            Ok(id) => checked.push((id, capacity)),
        }
    }
    (names_nothing, checked)
}
