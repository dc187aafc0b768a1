//! `POST /v1/events`: a draft.

use actix_web::HttpRequest;
use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderValue, LOCATION};
use actix_web::web::Payload;
use boxoffice_schema::event::{EventImage, TicketTypeImage};
use boxoffice_schema::ids::{EventId, TicketTypeId};
use boxoffice_schema::money::Currency;
use boxoffice_schema::status::EventStatus;
use boxoffice_schema::text::Name;
use boxoffice_schema::time;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use utoipa::ToSchema;

use super::body::{EventBody, respond};
use crate::actions::Actor;
use crate::contract::{self, OPERATING, READ_BODY, RECORDED, refusals};
use crate::draft;
use crate::error::{Problem, window_inverted};
use crate::identity::{Caller, Scope};
use crate::request::{Checks, Integer, Object, parse, read_json};
use crate::routes::{Answer, SharedOffice, in_time};

const HOLD_SECONDS_DEFAULT: u32 = 600;
const PRICE_MAX: i64 = 1_000_000_000_000;

/// The most ticket types of an event, and so of a change.
pub(super) const TICKET_TYPES_MAX: usize = 100;
/// The bounds of a capacity, which is how a draft's may be changed too.
pub(super) const CAPACITY: std::ops::RangeInclusive<i64> = 1..=2_147_483_647;
/// The bounds of a limit.
pub(super) const LIMIT: std::ops::RangeInclusive<i64> = 1..=1_000_000;

/// Times are in the future, and sales close after they open.
#[derive(Deserialize, ToSchema)]
#[schema(examples(contract::new_event))]
#[serde(deny_unknown_fields)]
pub(crate) struct NewEvent {
    #[schema(schema_with = contract::name, required = true)]
    name: Option<String>,
    #[schema(schema_with = contract::time, required = true)]
    starts_at: Option<String>,
    #[schema(schema_with = contract::time_or_null)]
    sales_open_at: Option<String>,
    #[schema(schema_with = contract::time_or_null)]
    sales_close_at: Option<String>,
    #[schema(schema_with = contract::limit_or_null)]
    per_customer_limit: Option<Integer>,
    #[schema(schema_with = contract::hold_seconds_or_null)]
    hold_seconds: Option<Integer>,
    /// All in one currency.
    #[schema(value_type = Vec<NewTicketType>, min_items = 1, max_items = 100, required = true)]
    ticket_types: Option<Vec<Object<NewTicketType>>>,
}

/// What is to be sold.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewTicketType {
    #[schema(schema_with = contract::name, required = true)]
    name: Option<String>,
    #[schema(schema_with = contract::capacity, required = true)]
    capacity: Option<Integer>,
    #[schema(value_type = Price, required = true)]
    price: Option<Object<Price>>,
    #[schema(schema_with = contract::limit_or_null)]
    per_customer_limit: Option<Integer>,
}

/// What one ticket costs.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Price {
    #[schema(schema_with = contract::price, required = true)]
    amount: Option<Integer>,
    #[schema(schema_with = contract::currency, required = true)]
    currency: Option<String>,
}

refusals!(CreateRefusals: OPERATING, READ_BODY, RECORDED);

/// Make a draft
///
/// It takes no key: after no answer, or a status from 500 up, look in `GET /v1/events?status=draft` before repeating it.
#[utoipa::path(
    post,
    path = "/v1/events",
    operation_id = "createEvent",
    tag = "events",
    security(("apiKey" = [Scope::EventsWrite])),
    request_body = NewEvent,
    responses(
        (
            status = 201,
            description = "The draft.",
            body = EventBody<'_>,
            headers(
                ("Location" = String, description = "The event's address."),
                ("ETag" = String, description = "For `If-Match` and `If-None-Match`."),
            ),
            links(
                ("read" = (operation_id = "getEvent", parameters(("event_id" = "$response.body#/id")))),
                ("publish" = (operation_id = "publishEvent", parameters(("event_id" = "$response.body#/id")))),
                ("change" = (operation_id = "changeEvent", parameters(("event_id" = "$response.body#/id")))),
            ),
        ),
        CreateRefusals,
    ),
)]
pub(crate) async fn create(
    caller: Caller,
    office: SharedOffice,
    request: HttpRequest,
    payload: Payload,
) -> Answer {
    caller.operates(Scope::EventsWrite)?;
    let body = read_json(&request, payload).await?;
    let event = parse::<NewEvent>(&body)?.check(time::truncate(Utc::now()))?;
    let shard = office.stores.inventory.shard_of(event.id);
    let by = Actor::of(&caller, &request);
    let write = async |connection: &mut _| draft::create(connection, shard, &event, &by).await;
    let written = office.stores.database.run(write);
    in_time(async { Ok(written.await?) }).await?;
    let mut response = respond(StatusCode::CREATED, &event)?;
    let location = HeaderValue::from_str(&format!("/v1/events/{}", event.id)).map_err(Problem::internal)?;
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}

/// Parses and checks a body, for fuzzing.
pub(crate) fn try_new_event(body: &[u8]) -> Result<(), Problem> {
    parse::<NewEvent>(body)?.check(time::truncate(Utc::now())).map(drop)
}

impl NewEvent {
    fn check(self, now: DateTime<Utc>) -> Result<EventImage, Problem> {
        let mut checks = Checks::default();
        let name = checks.required("name", self.name).and_then(|name| checks.text::<Name>("name", name));
        let starts_at = checks.required("starts_at", self.starts_at);
        let starts_at = starts_at.and_then(|at| checks.time("starts_at", &at));
        let sales_open_at = self.sales_open_at.and_then(|at| checks.time("sales_open_at", &at));
        let sales_close_at = self.sales_close_at.and_then(|at| checks.time("sales_close_at", &at));
        checks.in_future("starts_at", starts_at, now);
        checks.in_future("sales_close_at", sales_close_at, now);
        if sales_open_at.zip(sales_close_at).is_some_and(|(open, close)| close <= open) {
            let inverted = window_inverted();
            checks.wrong(inverted.field, inverted.message);
        }
        let limit = |limit| checks.number("per_customer_limit", limit, LIMIT);
        let per_customer_limit = self.per_customer_limit.and_then(limit);
        let hold_seconds = match self.hold_seconds {
            Some(seconds) => checks.number("hold_seconds", seconds, 1..=86_400),
            None => Some(HOLD_SECONDS_DEFAULT),
        };
        let types = checks.required("ticket_types", self.ticket_types).unwrap_or_default();
        let (currency, ticket_types) = check_types(&mut checks, types);
        checks.done()?;
        // Whatever is missing was noted above.
        let (Some(name), Some(starts_at), Some(hold_seconds), Some(currency)) =
            (name, starts_at, hold_seconds, currency)
        else {
            return Err(Problem::internal("a check let something through"));
        };
        Ok(EventImage {
            id: EventId::new(),
            name,
            starts_at,
            sales_open_at,
            sales_close_at,
            per_customer_limit,
            hold_seconds,
            currency,
            status: EventStatus::Draft,
            slots: 0,
            created_at: now,
            updated_at: now,
            ticket_types,
        })
    }
}

/// All ticket types that are right, and their one currency.
fn check_types(
    checks: &mut Checks,
    types: Vec<Object<NewTicketType>>,
) -> (Option<Currency>, Vec<TicketTypeImage>) {
    if types.is_empty() || types.len() > TICKET_TYPES_MAX {
        checks.wrong("ticket_types", format_args!("must have 1 to {TICKET_TYPES_MAX} entries"));
        return (None, Vec::new());
    }
    let mut currency = None;
    let mut checked = Vec::with_capacity(types.len());
    for (at, Object(of_type)) in types.into_iter().enumerate() {
        let field = |name: &str| format!("ticket_types[{at}].{name}");
        let (price, own) = check_price(checks, at, of_type.price.map(|Object(price)| price));
        if own.is_some() && currency.is_some() && own != currency {
            checks.wrong(field("price.currency"), "must be the same for all ticket types of an event");
        }
        currency = currency.or(own);
        let name = checks.required(field("name"), of_type.name);
        let name = name.and_then(|name| checks.text::<Name>(field("name"), name));
        let capacity = checks.required(field("capacity"), of_type.capacity);
        let capacity = capacity.and_then(|capacity| checks.number(field("capacity"), capacity, CAPACITY));
        let limit = |limit| checks.number(field("per_customer_limit"), limit, LIMIT);
        let per_customer_limit = of_type.per_customer_limit.and_then(limit);
        if let (Some(name), Some(price), Some(capacity)) = (name, price, capacity) {
            let id = TicketTypeId::new();
            checked.push(TicketTypeImage { id, name, price, per_customer_limit, capacity, held: 0, sold: 0 });
        }
    }
    (currency, checked)
}

fn check_price(checks: &mut Checks, at: usize, price: Option<Price>) -> (Option<u64>, Option<Currency>) {
    let field = |name: &str| format!("ticket_types[{at}].price{name}");
    let Some(price) = checks.required(field(""), price) else { return (None, None) };
    let amount = checks.required(field(".amount"), price.amount);
    let amount = amount.and_then(|amount| checks.number(field(".amount"), amount, 0..=PRICE_MAX));
    let code = checks.required(field(".currency"), price.currency);
    let currency = code.and_then(|code| {
        Currency::parse(&code).map_err(|error| checks.wrong(field(".currency"), error)).ok()
    });
    (amount, currency)
}
