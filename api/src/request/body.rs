//! A body of JSON: its type, its size and the time that it takes to arrive are bounded.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use actix_web::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap};
use actix_web::web::{Bytes, BytesMut, Payload};
use actix_web::{HttpMessage, HttpRequest};
use futures_util::StreamExt;
use tokio::time::{Duration, Instant, timeout_at};

use crate::error::{Code, Problem};

/// The most bytes of a body.
const SIZE_MAX: usize = 64 * 1024;

/// A client that sends more slowly is let go.
const ARRIVES_WITHIN: Duration = Duration::from_secs(10);

/// Reads the body.
pub(crate) async fn read_json(request: &HttpRequest, mut payload: Payload) -> Result<Bytes, Problem> {
    check_type(request)?;
    if declared_size(request.headers()).is_some_and(|size| size > SIZE_MAX) {
        return Err(Problem::new(Code::BodyTooLarge));
    }
    let late =
        |_| Problem::because(Code::MalformedRequest, "The body did not arrive in time: repeat the request.");
    let deadline = Instant::now() + ARRIVES_WITHIN;
    let mut body = pin!(gather(&mut payload));
    match at_once(body.as_mut()).await {
        Some(body) => body,
        None => timeout_at(deadline, body).await.map_err(late)?,
    }
}

/// What is done when it is polled for the second time. The framework calls a handler before it has parsed the body behind the
/// head, so that the first poll is nearly always too early; by the second nearly every body is there, and needs no timer.
///
/// The first poll asks for no wake-up. A body is fed by the task of its connection, which polls the handler whenever it has fed
/// something; woken as well, it would go through the whole connection once more for each request, and find nothing to do. Where
/// nothing is fed any more, behind another request of a pipeline or behind a question to Redis, the second poll comes when the
/// connection's own time ends, and its body's is long over.
async fn at_once<T>(mut work: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    let mut asked_again = false;
    poll_fn(|context| {
        let waker = if asked_again { context.waker() } else { Waker::noop() };
        match work.as_mut().poll(&mut Context::from_waker(waker)) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if asked_again => Poll::Ready(None),
            Poll::Pending => {
                asked_again = true;
                Poll::Pending
            }
        }
    })
    .await
}

async fn gather(payload: &mut Payload) -> Result<Bytes, Problem> {
    let broken = |_| Problem::because(Code::MalformedRequest, "The body did not arrive completely.");
    // A small body comes in one piece, which is used as it is.
    let Some(first) = payload.next().await.transpose().map_err(broken)? else { return Ok(Bytes::new()) };
    let mut body = BytesMut::new();
    while let Some(next) = payload.next().await.transpose().map_err(broken)? {
        if body.is_empty() {
            body.extend_from_slice(&first);
        }
        body.extend_from_slice(&next);
        if body.len() > SIZE_MAX {
            return Err(Problem::new(Code::BodyTooLarge));
        }
    }
    let whole = if body.is_empty() { first } else { body.freeze() };
    if whole.len() > SIZE_MAX { Err(Problem::new(Code::BodyTooLarge)) } else { Ok(whole) }
}

fn declared_size(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

const ENCODED: &str = "A body must be sent without Content-Encoding.";

/// `application/json`, whatever its parameters.
fn check_type(request: &HttpRequest) -> Result<(), Problem> {
    let is_json = request.content_type().eq_ignore_ascii_case("application/json");
    let is_encoded = request
        .headers()
        .get(CONTENT_ENCODING)
        .is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"));
    match (is_json, is_encoded) {
        (true, false) => Ok(()),
        (true, true) => Err(Problem::because(Code::UnsupportedMediaType, ENCODED)),
        (false, _) => Err(Problem::new(Code::UnsupportedMediaType)),
    }
}
