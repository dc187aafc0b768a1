//! The header `Idempotency-Key`.

use actix_web::http::header::{HeaderMap, HeaderName};
use boxoffice_schema::text::IdempotencyKey;

use crate::error::{Code, Problem};

static NAME: HeaderName = HeaderName::from_static("idempotency-key");

/// The key of a booking request.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<IdempotencyKey, Problem> {
    let mut sent = headers.get_all(&NAME);
    let Some(key) = sent.next() else { return Err(Problem::new(Code::IdempotencyKeyMissing)) };
    if sent.next().is_some() {
        return Err(Problem::new(Code::IdempotencyKeyInvalid));
    }
    IdempotencyKey::parse(key.as_bytes()).map_err(|_| Problem::new(Code::IdempotencyKeyInvalid))
}
