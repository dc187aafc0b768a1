//! Around every request: its id, its metrics, its line in the log, and problems instead of bare errors.

use std::any::Any;
use std::cell::RefCell;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::Error;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::{HttpMessage, HttpResponse};
use chrono::Utc;
use foldhash::HashMap;
use futures_util::FutureExt;
use metrics::{Counter, Histogram};
use uuid::Uuid;

use crate::error::{Code, Problem};
use crate::routes::limited;
use crate::telemetry::{HTTP_REQUESTS, HTTP_SECONDS};
use crate::transport::{end_instead_of_upgrading, protect};

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The most bytes of a request id that is taken over.
const REQUEST_ID_MAX: usize = 128;

/// The id of a request, among its extensions.
#[derive(Clone)]
pub(crate) struct RequestId(HeaderValue);

impl RequestId {
    /// Visible ASCII, which is text.
    pub(crate) fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

/// Answers one request of a route.
pub(crate) async fn observe(
    route: &'static str,
    request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let started = Instant::now();
    let request_id = RequestId(request_id(request.headers()));
    let http = request.request().clone();
    request.extensions_mut().insert(request_id.clone());
    let answered = async {
        limited::admit(route, request.request()).await?;
        next.call(request).await
    };
    let result = AssertUnwindSafe(answered).catch_unwind().await;
    let response = match result {
        Ok(Ok(response)) => response.into_parts().1,
        Ok(Err(error)) => HttpResponse::from_error(error),
        Err(panic) => HttpResponse::from_error(Problem::internal(format_args!("panic: {}", words(&*panic)))),
    };
    let text = request_id.as_str();
    let (mut response, problem) = answer(response, text);
    let elapsed = started.elapsed();
    measure(route, http.method(), response.status(), elapsed);
    log(route, http.method(), response.status(), elapsed, text, problem.as_ref());
    limited::mark(&http, &mut response);
    protect(route, &http, &mut response);
    end_instead_of_upgrading(&http, &mut response);
    response.headers_mut().insert(REQUEST_ID.clone(), request_id.0);
    Ok(ServiceResponse::new(http, response))
}

/// The client's own where it is sane, otherwise a new one.
pub(crate) fn request_id(headers: &HeaderMap) -> HeaderValue {
    let sent = headers.get(&REQUEST_ID).filter(|value| {
        let bytes = value.as_bytes();
        (1..=REQUEST_ID_MAX).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
    });
    let made = || {
        let mut buffer = Uuid::encode_buffer();
        HeaderValue::from_str(Uuid::now_v7().hyphenated().encode_lower(&mut buffer))
            .unwrap_or(HeaderValue::from_static("-"))
    };
    sent.cloned().unwrap_or_else(made)
}

fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without words")
}

/// Gives an error its body; anything else is left as it is.
fn answer(response: HttpResponse, request_id: &str) -> (HttpResponse, Option<Problem>) {
    let Some(error) = response.error() else { return (response, None) };
    let problem = error.as_error::<Problem>().cloned().unwrap_or_else(|| match response.status() {
        StatusCode::NOT_FOUND => Problem::new(Code::NotFound),
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(Code::BodyTooLarge),
        status if status.is_client_error() => Problem::new(Code::MalformedRequest),
        _ => Problem::internal(error),
    });
    (problem.respond(request_id), Some(problem))
}

/// What is measured of the requests of one route, method and status.
struct Series {
    requests: Counter,
    seconds: Histogram,
}

thread_local! {
    /// The series that this worker has met. Looking them up in the registry, by labels that are made for it, costs more
    /// than the measuring. As many as there are routes with their methods and statuses, a few hundred.
    static SERIES: RefCell<HashMap<(&'static str, &'static str, u16), Series>> = RefCell::default();
}

fn measure(route: &'static str, method: &Method, status: StatusCode, elapsed: Duration) {
    let method = match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::HEAD => "HEAD",
        _ => "other",
    };
    SERIES.with_borrow_mut(|series| {
        let series = series.entry((route, method, status.as_u16())).or_insert_with(|| Series {
            requests: metrics::counter!(HTTP_REQUESTS, "method" => method, "route" => route, "status" => status.as_str().to_owned()),
            seconds: metrics::histogram!(HTTP_SECONDS, "route" => route),
        });
        series.requests.increment(1);
        series.seconds.record(elapsed);
    });
}

/// What went well is logged for whoever looks closely; our own faults always; and refusals that a whole on-sale may
/// get in the same second, once a second.
fn log(
    route: &'static str,
    method: &Method,
    status: StatusCode,
    elapsed: Duration,
    request_id: &str,
    problem: Option<&Problem>,
) {
    let status = status.as_u16();
    let duration_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
    match problem {
        Some(problem) if status == 503 => {
            if let Some(unsaid) = once_a_second() {
                tracing::warn!(%problem, route, %method, status, duration_us, request_id, unsaid, "request refused");
            }
        }
        Some(problem) if status >= 500 => {
            tracing::error!(%problem, route, %method, status, duration_us, request_id, "request failed");
        }
        Some(problem) => {
            tracing::debug!(%problem, route, %method, status, duration_us, request_id, "request");
        }
        None => tracing::debug!(route, %method, status, duration_us, request_id, "request"),
    }
}

/// How many were not said since the last one, where this one may be said.
fn once_a_second() -> Option<u64> {
    static SAID_AT: AtomicU64 = AtomicU64::new(0);
    static UNSAID: AtomicU64 = AtomicU64::new(0);
    let now = u64::try_from(Utc::now().timestamp()).unwrap_or_default();
    if SAID_AT.swap(now, Ordering::Relaxed) == now {
        UNSAID.fetch_add(1, Ordering::Relaxed);
        return None;
    }
    Some(UNSAID.swap(0, Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use actix_web::middleware::from_fn;
    use actix_web::test::{TestRequest, call_service, init_service, read_body_json};
    use actix_web::{App, web};

    use super::*;

    /// The status and the problem that a client gets from a handler.
    macro_rules! answer_of {
        ($handler:expr) => {{
            let observed = from_fn(|request, next| observe("/", request, next));
            let app = init_service(App::new().service(web::resource("/").wrap(observed).to($handler))).await;
            let request = TestRequest::get().insert_header(("x-request-id", "abc")).to_request();
            let response = call_service(&app, request).await;
            assert_eq!(response.headers().get("x-request-id").unwrap(), "abc");
            (response.status().as_u16(), read_body_json::<serde_json::Value, _>(response).await)
        }};
    }

    #[actix_web::test]
    async fn a_panic_is_an_internal_error_without_its_words() {
        async fn panics() -> HttpResponse {
            panic!("the password is hunter2")
        }
        let (status, problem) = answer_of!(panics);
        assert_eq!(status, 500);
        assert_eq!((&problem["code"], &problem["request_id"]), (&"internal_error".into(), &"abc".into()));
        assert!(!problem.to_string().contains("hunter2"));
    }

    #[actix_web::test]
    async fn an_error_of_the_framework_is_a_problem_too() {
        async fn fails() -> Result<HttpResponse, Error> {
            Err(actix_web::error::ErrorPayloadTooLarge("too large"))
        }
        let (status, problem) = answer_of!(fails);
        assert_eq!((status, &problem["code"]), (413, &"body_too_large".into()));
    }

    fn with_id(id: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID.clone(), HeaderValue::from_bytes(id.as_bytes()).unwrap());
        headers
    }

    #[test]
    fn a_sane_request_id_is_taken_over() {
        assert_eq!(request_id(&with_id("abc-1")), "abc-1");
        let longest = "x".repeat(128);
        assert_eq!(request_id(&with_id(&longest)), longest.as_str());
    }

    #[test]
    fn any_other_request_id_is_replaced() {
        for bad in ["", "a b", "schlüssel", &"x".repeat(129)] {
            assert_eq!(request_id(&with_id(bad)).len(), 36, "{bad}");
        }
    }
}
