//! Which refusals the contract knows, and how one is read.

use crate::{client::Answer, wire::Problem};

/// Declares the codes once, with the status that belongs to each.
macro_rules! codes {
    ($($variant:ident = $status:literal $word:literal,)+) => {
        /// A refusal's `code`.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub(crate) enum Code { $($variant,)+ }

        impl Code {
            /// Every code, in the order of the contract.
            pub(crate) const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The code as the contract writes it.
            pub(crate) fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// The only status that the code may come with.
            pub(crate) fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)+ }
            }
        }
    };
}

codes! {
    MalformedRequest = 400 "malformed_request",
    IdempotencyKeyMissing = 400 "idempotency_key_missing",
    IdempotencyKeyInvalid = 400 "idempotency_key_invalid",
    Unauthenticated = 401 "unauthenticated",
    Forbidden = 403 "forbidden",
    NotFound = 404 "not_found",
    EventNotFound = 404 "event_not_found",
    TicketTypeNotFound = 404 "ticket_type_not_found",
    BookingNotFound = 404 "booking_not_found",
    MethodNotAllowed = 405 "method_not_allowed",
    SoldOut = 409 "sold_out",
    LimitExceeded = 409 "limit_exceeded",
    NotOnSale = 409 "not_on_sale",
    HoldExpired = 409 "hold_expired",
    BookingCancelled = 409 "booking_cancelled",
    CapacityBelowSold = 409 "capacity_below_sold",
    PreconditionFailed = 412 "precondition_failed",
    BodyTooLarge = 413 "body_too_large",
    UnsupportedMediaType = 415 "unsupported_media_type",
    ValidationFailed = 422 "validation_failed",
    IdempotencyKeyReused = 422 "idempotency_key_reused",
    RateLimited = 429 "rate_limited",
    InternalError = 500 "internal_error",
    InventoryUnverified = 503 "inventory_unverified",
    OutboxFull = 503 "outbox_full",
    RedisUnavailable = 503 "redis_unavailable",
    KafkaUnavailable = 503 "kafka_unavailable",
    PostgresUnavailable = 503 "postgres_unavailable",
    Overloaded = 503 "overloaded",
}

impl Code {
    /// The position in [`Code::ALL`], for counters.
    pub(crate) fn index(self) -> usize {
        self as usize
    }

    /// Whether the caller is asked to come back: 429 and 503.
    pub(crate) fn is_unavailable(self) -> bool {
        matches!(self.status(), 429 | 503)
    }

    /// Whether the decision may have been taken although the answer is a refusal: the API cannot know it where it
    /// asked Redis, or waits for Kafka, and is not answered in time. The other refusals are given before anything is
    /// decided, or are the decision.
    pub(crate) fn leaves_doubt(self) -> bool {
        matches!(self, Self::RedisUnavailable | Self::KafkaUnavailable | Self::Overloaded)
    }
}

/// Reads a refusal, and holds it to the contract: problem+json, a known code with its own status, and `Retry-After`
/// where the caller is asked to come back. The error says in what it falls short.
pub(crate) fn read_refusal(answer: &Answer) -> Result<Code, String> {
    if !answer.problem {
        return Err(format!("status {} without application/problem+json", answer.status));
    }
    let problem: Problem<'_> = serde_json::from_slice(&answer.body)
        .map_err(|error| format!("status {}: not a problem document: {error}", answer.status))?;
    let code = Code::ALL
        .iter()
        .copied()
        .find(|code| code.word() == problem.code)
        .ok_or_else(|| format!("unknown code {:?}", problem.code))?;
    if code.status() != answer.status || problem.status != answer.status {
        return Err(format!(
            "{} with status {} ({} in the body)",
            code.word(),
            answer.status,
            problem.status
        ));
    }
    if problem.kind.is_empty() || problem.title.is_empty() || problem.request_id.is_empty() {
        return Err(format!("{} without type, title or request_id", code.word()));
    }
    if code.is_unavailable() && answer.retry_after.is_none() {
        return Err(format!("{} without Retry-After", code.word()));
    }
    if code == Code::InternalError {
        return Err(format!("internal_error: {}", problem.detail));
    }
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, code: &str) -> Answer {
        let body = format!(
            r#"{{"type":"https://example.org/{code}","title":"No","status":{status},"detail":"d","code":"{code}","request_id":"r"}}"#
        );
        Answer { retry_after: Some(1), problem: true, ..Answer::of(status, body) }
    }

    #[test]
    fn the_codes_are_those_of_the_contract() {
        let document = include_str!("../../docs/openapi.json");
        let document: serde_json::Value = serde_json::from_str(document).unwrap();
        let words: Vec<&str> = Code::ALL.iter().map(|code| code.word()).collect();
        let of_the_contract = &document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"];
        assert_eq!(*of_the_contract, serde_json::json!(words));
    }

    #[test]
    fn every_code_is_read_back() {
        for code in Code::ALL.iter().filter(|code| **code != Code::InternalError) {
            assert_eq!(read_refusal(&refusal(code.status(), code.word())), Ok(*code));
        }
    }

    #[test]
    fn a_refusal_that_breaks_the_contract_is_unexpected() {
        assert!(read_refusal(&Answer { problem: false, ..refusal(409, "sold_out") }).is_err());
        assert!(read_refusal(&Answer { retry_after: None, ..refusal(503, "overloaded") }).is_err());
        assert!(read_refusal(&Answer { body: "sold out".into(), ..refusal(409, "sold_out") }).is_err());
        assert!(read_refusal(&refusal(404, "sold_out")).is_err());
        assert!(read_refusal(&refusal(409, "no_such_code")).is_err());
        assert!(read_refusal(&refusal(500, "internal_error")).is_err());
    }
}
