//! `GET /v1/events/{event_id}/bookings` and `GET /v1/customers/{customer}/bookings`, from PostgreSQL.

use actix_web::HttpRequest;
use actix_web::http::StatusCode;
use actix_web::web::Path;
use serde::Serialize;

use super::body::BookingBody;
use crate::error::{Code, Problem};
use crate::identity::{Caller, Scope};
use crate::office::Office;
use crate::record::{self, StoredBooking, Whose};
use crate::request::{After, Page, customer, event_id, next_cursor};
use crate::routes::{Answer, SharedOffice, in_time, json};

#[derive(Serialize)]
struct ListBody<'a> {
    items: Vec<BookingBody<'a>>,
    next_cursor: Option<String>,
}

pub(crate) async fn of_event(caller: Caller, office: SharedOffice, request: HttpRequest) -> Answer {
    caller.operates(Scope::BookingsRead)?;
    let event = event_id(&request)?;
    let page = Page::parse(request.query_string(), true)?;
    in_time(async {
        let bookings = read(&office, &caller, Whose::Event(event), &page).await?;
        // An empty list is right only for an event that exists.
        if bookings.is_empty() && office.stores.recorded(event).await?.is_none() {
            return Err(Problem::new(Code::EventNotFound));
        }
        respond(&page, bookings)
    })
    .await
}

pub(crate) async fn of_customer(
    caller: Caller,
    office: SharedOffice,
    request: HttpRequest,
    path: Path<String>,
) -> Answer {
    caller.trades(Scope::BookingsRead)?;
    let customer = customer(path)?;
    if caller.customer().is_some_and(|own| *own != customer) {
        return Err(Problem::new(Code::NotFound));
    }
    let page = Page::parse(request.query_string(), true)?;
    respond(&page, in_time(read(&office, &caller, Whose::Customer(&customer), &page)).await?)
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

fn respond(page: &Page, mut bookings: Vec<StoredBooking>) -> Answer {
    let next_cursor = next_cursor(page, &mut bookings, |booking| After {
        created_at: booking.created_at,
        id: booking.id.as_uuid(),
    });
    let items = bookings.iter().map(BookingBody::recorded).collect();
    json(StatusCode::OK, &ListBody { items, next_cursor })
}
