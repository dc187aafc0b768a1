//! `POST /v1/events/{event_id}/bookings`: the hot path.

use actix_web::HttpRequest;
use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderName, HeaderValue, LOCATION};
use actix_web::web::Payload;
use boxoffice_schema::ids::{BookingId, EventId, TicketTypeId};
use boxoffice_schema::image::{BookingImage, ImageItem};
use boxoffice_schema::scripts::{Book, Decision, Outcome, Target};
use boxoffice_schema::text::{Customer, IdempotencyKey};
use serde::Deserialize;
use utoipa::ToSchema;

use super::body::BookingBody;
use crate::catalogue::Listing;
use crate::contract::{self, DECIDING, EventPath, KeyHeader, READ_BODY, TRADING, refusals};
use crate::error::{Code, Problem, refusal};
use crate::identity::{Caller, Scope};
use crate::inventory::{Again, Booked, FirstResponse};
use crate::limits::Action;
use crate::office::Office;
use crate::request::{Checks, Integer, Object, event_id, idempotency_key, parse, read_json};
use crate::routes::{Answer, SharedOffice, in_time, json_response, limited, written};

const ITEMS_MAX: usize = 20;

static REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// All items or none.
#[derive(Deserialize, ToSchema)]
#[schema(examples(contract::new_booking))]
#[serde(deny_unknown_fields)]
pub(crate) struct NewBooking {
    #[schema(schema_with = contract::customer_unless_known)]
    customer: Option<String>,
    /// Each ticket type once.
    #[schema(value_type = Vec<NewItem>, min_items = 1, max_items = 20, required = true)]
    items: Option<Vec<Object<NewItem>>>,
    #[schema(schema_with = contract::hold_or_null)]
    hold: Option<bool>,
}

/// How many of which ticket type.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewItem {
    #[schema(schema_with = contract::id, required = true)]
    ticket_type_id: Option<String>,
    #[schema(schema_with = contract::quantity, required = true)]
    quantity: Option<Integer>,
}

/// A booking request whose every part is in bounds; whether its event has its ticket types is another matter.
struct Wanted {
    customer: Customer,
    /// An id that is no UUID names no ticket type.
    items: Vec<(Option<TicketTypeId>, u16)>,
    hold: bool,
}

refusals!(CreateRefusals:
    TRADING,
    READ_BODY,
    &[Code::IdempotencyKeyMissing, Code::IdempotencyKeyInvalid, Code::IdempotencyKeyReused],
    &[Code::EventNotFound, Code::TicketTypeNotFound],
    &[Code::SoldOut, Code::LimitExceeded, Code::NotOnSale],
    DECIDING,
);

/// Book, or hold
#[utoipa::path(
    post,
    path = "/v1/events/{event_id}/bookings",
    operation_id = "createBooking",
    tag = "bookings",
    security(("apiKey" = [Scope::BookingsWrite]), ("token" = [])),
    params(EventPath, KeyHeader),
    request_body = NewBooking,
    responses(
        (
            status = 201,
            description = "Booked or held; a repeat with the same key gets the same bytes.",
            body = BookingBody<'_>,
            headers(
                ("Location" = String, description = "The booking's address."),
                ("Idempotent-Replayed" = String, description = "`true` on a repeat."),
            ),
            links(
                ("read" = (operation_id = "getBooking", parameters(
                    ("event_id" = "$response.body#/event_id"), ("booking_id" = "$response.body#/id")
                ))),
                ("confirm" = (operation_id = "confirmBooking", parameters(
                    ("event_id" = "$response.body#/event_id"), ("booking_id" = "$response.body#/id")
                ))),
                ("cancel" = (operation_id = "cancelBooking", parameters(
                    ("event_id" = "$response.body#/event_id"), ("booking_id" = "$response.body#/id")
                ))),
                ("ofCustomer" = (operation_id = "listCustomerBookings", parameters(
                    ("customer" = "$response.body#/customer")
                ))),
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
    caller.trades(Scope::BookingsWrite)?;
    let body = read_json(&request, payload).await?;
    let key = idempotency_key(request.headers())?;
    let wanted = parse::<NewBooking>(&body)?.check(caller.customer())?;
    let event = event_id(&request)?;
    let customer = Some(wanted.customer.as_str());
    let asked = limited::ask(&office, Action::Booking, &request, Some(&caller), customer, Some(event))?;
    let (target, booked) = in_time(async {
        let booking = match prepare(&office, &caller, event, &key, wanted).await {
            Ok(booking) => booking.limited_by(asked.checks()),
            Err(problem) if problem.is_ours() => return Err(problem),
            Err(problem) => {
                // What never reaches the decision is counted all the same.
                limited::charge(&office, &request, &asked).await?;
                return Err(problem);
            }
        };
        let target = *booking.target();
        Ok((target, office.stores.inventory.book(booking).await?))
    })
    .await?;
    let first_response = |booking_id, image: &BookingImage| {
        let body = written(&BookingBody::at_first(event, booking_id, image))?;
        office.stores.inventory.keep_response(&Target { booking_id, ..target }, &body);
        Ok::<_, Problem>(body)
    };
    let (id, body, replayed) = match booked {
        Booked::Again(Again { booking_id, first, .. }) => match first {
            FirstResponse::Body(body) => (booking_id, body, true),
            FirstResponse::Of(image) => (booking_id, first_response(booking_id, &image)?, true),
        },
        Booked::Decided(decided) => {
            limited::stand(&request, asked.decided(&decided.standings))?;
            match decided.outcome {
                Outcome::Changed(image) => {
                    (target.booking_id, first_response(target.booking_id, &image)?, false)
                }
                Outcome::Replayed(id, image) => (id, first_response(id, &image)?, true),
                refused => return Err(refusal(&refused)),
            }
        }
    };
    respond(event, id, body, replayed)
}

/// What Redis is to decide.
async fn prepare(
    office: &Office,
    caller: &Caller,
    event: EventId,
    key: &IdempotencyKey,
    wanted: Wanted,
) -> Result<Book, Problem> {
    let listing = office.catalogue.listing(event).await?;
    let items = wanted.items_of(&listing)?;
    if listing.over {
        return Err(Problem::new(Code::NotOnSale));
    }
    let hold_ms = if wanted.hold { 1_000 * u64::from(listing.hold_seconds) } else { 0 };
    let caller = caller.idempotency_scope();
    Ok(Book::new(event, listing.slots, &caller, key, &wanted.customer, listing.currency, hold_ms, items))
}

/// The same bytes for the first response and every replay.
fn respond(event: EventId, id: BookingId, body: Vec<u8>, replayed: bool) -> Answer {
    let location = format!("/v1/events/{event}/bookings/{id}");
    let mut response = json_response(StatusCode::CREATED, body);
    response.headers_mut().insert(LOCATION, HeaderValue::from_str(&location).map_err(Problem::internal)?);
    if replayed {
        response.headers_mut().insert(REPLAYED.clone(), HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// Parses and checks a body, for the bench and the fuzzing of just that.
pub(crate) fn try_new_booking(body: &[u8]) -> Result<(), Problem> {
    parse::<NewBooking>(body)?.check(None).map(drop)
}

impl Wanted {
    /// The items with their ordinals and prices.
    fn items_of(&self, listing: &Listing) -> Result<Vec<ImageItem>, Problem> {
        self.items.iter().enumerate().map(|(at, item)| item_of(listing, at, *item)).collect()
    }
}

/// An item with its ordinal and price; `at` is its place in the body.
fn item_of(
    listing: &Listing,
    at: usize,
    (id, quantity): (Option<TicketTypeId>, u16),
) -> Result<ImageItem, Problem> {
    let known = id.and_then(|id| Some((id, listing.ticket_type(id)?)));
    let Some((ticket_type_id, (ordinal, unit_price))) = known else {
        return Err(Problem::no_ticket_type(format_args!("items[{at}].ticket_type_id")));
    };
    Ok(ImageItem { ordinal, quantity, ticket_type_id, unit_price })
}

impl NewBooking {
    /// A token says who the customer is; the body may repeat it.
    fn check(self, known: Option<&Customer>) -> Result<Wanted, Problem> {
        let mut checks = Checks::default();
        let customer = match (known, self.customer) {
            (Some(known), stated) => {
                if stated.is_some_and(|stated| stated != known.as_str()) {
                    checks.wrong("customer", "must be the token's subject, or be left out");
                }
                Some(known.clone())
            }
            (None, stated) => {
                let stated = checks.required("customer", stated);
                stated.and_then(|customer| checks.text("customer", customer))
            }
        };
        let items = checks.required("items", self.items).map(|items| check_items(&mut checks, items));
        checks.done()?;
        // Whatever is missing was noted above.
        let (Some(customer), Some(items)) = (customer, items) else {
            return Err(Problem::internal("a check let something through"));
        };
        Ok(Wanted { customer, items, hold: self.hold.unwrap_or_default() })
    }
}

fn check_items(checks: &mut Checks, items: Vec<Object<NewItem>>) -> Vec<(Option<TicketTypeId>, u16)> {
    if items.is_empty() || items.len() > ITEMS_MAX {
        checks.wrong("items", format_args!("must have 1 to {ITEMS_MAX} entries"));
        return Vec::new();
    }
    let mut checked: Vec<(Option<TicketTypeId>, u16)> = Vec::with_capacity(items.len());
    for (at, Object(item)) in items.into_iter().enumerate() {
        let id = checks.required(format_args!("items[{at}].ticket_type_id"), item.ticket_type_id);
        let id = id.and_then(|id| id.parse().ok());
        if id.is_some() && checked.iter().any(|(known, _)| *known == id) {
            checks.wrong(format_args!("items[{at}].ticket_type_id"), "is given twice");
        }
        let quantity = checks.required(format_args!("items[{at}].quantity"), item.quantity);
        let quantity = quantity
            .and_then(|quantity| checks.number(format_args!("items[{at}].quantity"), quantity, 1..=1_000));
        checked.push((id, quantity.unwrap_or_default()));
    }
    checked
}
