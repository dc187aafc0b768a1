//! Ids in the path. One that is malformed names nothing, and is answered so.

use actix_web::HttpRequest;
use actix_web::web::Path;
use boxoffice_schema::ids::{BookingId, EventId};
use boxoffice_schema::text::Customer;

use crate::error::{Code, Problem};

pub(crate) fn event_id(request: &HttpRequest) -> Result<EventId, Problem> {
    request.match_info().query("event_id").parse().map_err(|_| Problem::new(Code::EventNotFound))
}

pub(crate) fn booking_id(request: &HttpRequest) -> Result<BookingId, Problem> {
    request.match_info().query("booking_id").parse().map_err(|_| Problem::new(Code::BookingNotFound))
}

/// A customer, percent-encoded as a path needs it.
pub(crate) fn customer(path: Path<String>) -> Result<Customer, Problem> {
    let malformed = |error| Problem::because(Code::MalformedRequest, format!("The customer {error}."));
    path.into_inner().try_into().map_err(malformed)
}
