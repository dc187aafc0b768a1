//! `GET /v1/events/{event_id}/bookings` and `GET /v1/customers/{customer}/bookings`, from PostgreSQL.

use actix_web::HttpRequest;
use serde::Serialize;
use utoipa::ToSchema;

use super::body::BookingBody;
use crate::contract::{
    BookingStatusQuery, CustomerPath, CustomerQuery, EventPath, OPERATING, PageQuery, READING, RECORDED,
    TRADING, refusals,
};
use crate::error::{Code, Problem};
use crate::find::unknown;
use crate::identity::{Caller, Scope};
use crate::office::Office;
use crate::record::{self, StoredBooking, Whose};
use crate::request::{After, ListOf, Page, customer, event_id, next_cursor};
use crate::routes::{Answer, SharedOffice, in_time_left, listed};

/// A page of bookings, newest first.
#[derive(Serialize, ToSchema)]
#[schema(as = BookingList)]
pub(crate) struct ListBody<'a> {
    #[schema(max_items = 200)]
    items: Vec<BookingBody<'a>>,
    /// For `cursor`; null on the last page.
    #[schema(required = true)]
    next_cursor: Option<String>,
}

refusals!(OfEventRefusals:
    OPERATING,
    &[Code::MalformedRequest, Code::EventNotFound, Code::InventoryUnverified],
    READING,
);
refusals!(OfCustomerRefusals: TRADING, &[Code::MalformedRequest, Code::NotFound], RECORDED);

/// List an event's bookings, newest first
///
/// From PostgreSQL, a moment behind the sale.
#[utoipa::path(
    get,
    path = "/v1/events/{event_id}/bookings",
    operation_id = "listEventBookings",
    tag = "bookings",
    security(("apiKey" = [Scope::BookingsRead])),
    params(EventPath, PageQuery, BookingStatusQuery, CustomerQuery),
    responses(
        (
            status = 200,
            description = "A page.",
            body = ListBody<'_>,
            headers(("Link" = String, description = "The next page, as `rel=\"next\"`; absent on the last one.")),
        ),
        OfEventRefusals,
    ),
)]
pub(crate) async fn of_event(caller: Caller, office: SharedOffice, request: HttpRequest) -> Answer {
    caller.operates(Scope::BookingsRead)?;
    let event = event_id(&request)?;
    let page = Page::parse(request.query_string(), ListOf::BookingsOfEvent)?;
    in_time_left(&request, async {
        let bookings = read(&office, &caller, Whose::Event(event), &page).await?;
        // An empty list is right only for an event that PostgreSQL knows.
        if bookings.is_empty() && office.stores.recorded(event).await?.is_none() {
            return Err(unknown(office.stores.snapshot(event).await));
        }
        respond(&request, &page, bookings)
    })
    .await
}

/// List a customer's bookings, newest first
///
/// From PostgreSQL, a moment behind the sale.
#[utoipa::path(
    get,
    path = "/v1/customers/{customer}/bookings",
    operation_id = "listCustomerBookings",
    tag = "bookings",
    security(("apiKey" = [Scope::BookingsRead]), ("token" = [])),
    params(CustomerPath, PageQuery, BookingStatusQuery),
    responses(
        (
            status = 200,
            description = "A page.",
            body = ListBody<'_>,
            headers(("Link" = String, description = "The next page, as `rel=\"next\"`; absent on the last one.")),
        ),
        OfCustomerRefusals,
    ),
)]
pub(crate) async fn of_customer(caller: Caller, office: SharedOffice, request: HttpRequest) -> Answer {
    caller.trades(Scope::BookingsRead)?;
    let customer = customer(&request)?;
    if caller.customer().is_some_and(|own| *own != customer) {
        return Err(Problem::new(Code::NotFound));
    }
    let page = Page::parse(request.query_string(), ListOf::BookingsOfCustomer)?;
    let bookings = read(&office, &caller, Whose::Customer(&customer), &page);
    respond(&request, &page, in_time_left(&request, bookings).await?)
}

async fn read(
    office: &Office,
    caller: &Caller,
    whose: Whose<'_>,
    page: &Page,
) -> Result<Vec<StoredBooking>, Problem> {
    let maker = caller.lists_only();
    let read = async |connection: &mut _| record::bookings(connection, whose, maker, page).await;
    Ok(office.stores.database.run(read).await?)
}

fn respond(request: &HttpRequest, page: &Page, mut bookings: Vec<StoredBooking>) -> Answer {
    let next_cursor = next_cursor(page, &mut bookings, |booking| After {
        created_at: booking.created_at,
        id: booking.id.as_uuid(),
    });
    let items = bookings.iter().map(BookingBody::recorded).collect();
    listed(request, next_cursor.as_deref(), &ListBody { items, next_cursor: next_cursor.clone() })
}
