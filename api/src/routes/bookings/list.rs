//! `GET /v1/events/{event_id}/bookings` and `GET /v1/customers/{customer}/bookings`, from PostgreSQL.

use actix_web::HttpRequest;
use actix_web::http::StatusCode;
use actix_web::web::Path;
use serde::Serialize;

use super::body::BookingBody;
use crate::error::{Code, Problem};
use crate::office::Office;
use crate::record::{self, StoredBooking, Whose};
use crate::request::{After, Page, customer, event_id, next_cursor};
use crate::routes::{Answer, SharedOffice, in_time, json};

#[derive(Serialize)]
struct ListBody<'a> {
    items: Vec<BookingBody<'a>>,
    next_cursor: Option<String>,
}

pub(crate) async fn of_event(office: SharedOffice, request: HttpRequest) -> Answer {
    let event = event_id(&request)?;
    let page = Page::parse(request.query_string(), true)?;
    in_time(async {
        let bookings = read(&office, Whose::Event(event), &page).await?;
        // An empty list is right only for an event that exists.
        if bookings.is_empty() && office.stores.recorded(event).await?.is_none() {
            return Err(Problem::new(Code::EventNotFound));
        }
        respond(&page, bookings)
    })
    .await
}

pub(crate) async fn of_customer(office: SharedOffice, request: HttpRequest, path: Path<String>) -> Answer {
    let customer = customer(path)?;
    let page = Page::parse(request.query_string(), true)?;
    respond(&page, in_time(read(&office, Whose::Customer(&customer), &page)).await?)
}

async fn read(office: &Office, whose: Whose<'_>, page: &Page) -> Result<Vec<StoredBooking>, Problem> {
    Ok(office.stores.database.run(async |connection| record::bookings(connection, whose, page).await).await?)
}

fn respond(page: &Page, mut bookings: Vec<StoredBooking>) -> Answer {
    let next_cursor = next_cursor(page, &mut bookings, |booking| After {
        created_at: booking.created_at,
        id: booking.id.as_uuid(),
    });
    let items = bookings.iter().map(BookingBody::recorded).collect();
    json(StatusCode::OK, &ListBody { items, next_cursor })
}
