//! Ids in the path. One that is malformed names nothing, and is answered so.

use actix_web::HttpRequest;
use boxoffice_schema::ids::{BookingId, EventId};
use boxoffice_schema::text::Customer;
use percent_encoding::percent_decode_str;

use crate::error::{Code, Problem};

pub(crate) fn event_id(request: &HttpRequest) -> Result<EventId, Problem> {
    request.match_info().query("event_id").parse().map_err(|_| Problem::new(Code::EventNotFound))
}

pub(crate) fn booking_id(request: &HttpRequest) -> Result<BookingId, Problem> {
    request.match_info().query("booking_id").parse().map_err(|_| Problem::new(Code::BookingNotFound))
}

/// A customer, percent-encoded as a path needs it: the third part of the path as it was sent. The framework has decoded it, and
/// read as U+FFFD what is no UTF-8, and that may be in a customer's name.
pub(crate) fn customer(request: &HttpRequest) -> Result<Customer, Problem> {
    let malformed = |why: String| Problem::because(Code::MalformedRequest, why);
    let sent = request.uri().path().split('/').nth(3).unwrap_or_default();
    let text = percent_decode_str(sent).decode_utf8();
    let text = text.map_err(|_| malformed("The customer is not UTF-8.".to_owned()))?;
    Customer::try_from(text.into_owned()).map_err(|error| malformed(format!("The customer {error}.")))
}
