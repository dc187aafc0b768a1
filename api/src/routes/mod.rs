//! A file per call: parse, ask, respond.

pub(crate) mod audit;
pub(crate) mod bookings;
pub(crate) mod docs;
pub(crate) mod events;
pub(crate) mod limited;
pub(crate) mod machines;
pub(crate) mod rate_limit;
mod representation;

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;

use crate::error::{Code, Problem};
use crate::office::Office;

pub(crate) use representation::{Reading, listed, represented, shown};

/// What handlers get.
pub(crate) type SharedOffice = Data<Office>;

/// What handlers answer.
pub(crate) type Answer = Result<HttpResponse, Problem>;

/// No client waits longer for us, its own sending apart.
const ANSWER_WITHIN: Duration = Duration::from_millis(1_950);

static STALE: HeaderName = HeaderName::from_static("boxoffice-stale");

/// Bounds the work of one request. The work is boxed, since the framework moves a handler's future several times before it
/// polls it, and the way to the stores makes it some kilobytes large.
fn in_time<T>(work: impl Future<Output = Result<T, Problem>>) -> impl Future<Output = Result<T, Problem>> {
    within(ANSWER_WITHIN, work)
}

/// The same for a read, a confirmation or a cancellation: its client may have waited for Redis' word on the rate limits already.
fn in_time_left<T>(
    request: &HttpRequest,
    work: impl Future<Output = Result<T, Problem>>,
) -> impl Future<Output = Result<T, Problem>> {
    within(ANSWER_WITHIN.saturating_sub(limited::waited(request)), work)
}

fn within<T>(
    time: Duration,
    work: impl Future<Output = Result<T, Problem>>,
) -> impl Future<Output = Result<T, Problem>> {
    let bounded = tokio::time::timeout(time, Box::pin(work));
    async { bounded.await.unwrap_or_else(|_| Err(Problem::new(Code::Overloaded))) }
}

/// Of a booking as a client receives it, or more; other bodies take another piece of memory.
const ORDINARY_BYTES: usize = 512;

/// A JSON response.
fn json(status: StatusCode, body: &impl Serialize) -> Answer {
    Ok(json_response(status, written(body)?))
}

/// A body as JSON.
fn written(body: &impl Serialize) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::with_capacity(ORDINARY_BYTES);
    serde_json::to_writer(&mut bytes, body).map_err(Problem::internal)?;
    Ok(bytes)
}

fn json_response(status: StatusCode, body: Vec<u8>) -> HttpResponse {
    HttpResponse::build(status).content_type("application/json").body(body)
}

/// Says that a Redis that was checked should have answered and did not.
fn marked_stale(mut response: HttpResponse, stale: bool) -> HttpResponse {
    if stale {
        response.headers_mut().insert(STALE.clone(), HeaderValue::from_static("true"));
    }
    response
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use actix_web::test::TestRequest;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_was_let_in_late_waits_no_longer_than_others() {
        let (request, waited) = (TestRequest::default().to_http_request(), Duration::from_millis(200));
        limited::note_wait(&request, waited);
        let since = Instant::now();
        let answer = in_time_left(&request, pending::<Result<(), Problem>>()).await;
        assert_eq!(answer.unwrap_err().code(), Code::Overloaded);
        // A timer may be a millisecond late.
        assert!(waited + since.elapsed() < ANSWER_WITHIN + Duration::from_millis(10));
    }
}
