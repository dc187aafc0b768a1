//! The one place where an outcome becomes a status and a problem (RFC 9457).

mod code;

use std::borrow::Cow;
use std::fmt;

use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, ResponseError};
use boxoffice_schema::scripts::{EventOutcome, Outcome};
use serde::Serialize;

use crate::database::DatabaseError;
use crate::identity::Scope;
use crate::inventory::InventoryError;

pub(crate) use code::Code;

/// In front of a code, the stable `type` of its problem.
const TYPE_PREFIX: &str = "https://boxoffice.example/problems/";

const CHALLENGE: &str = r#"Bearer realm="boxoffice""#;
const CHALLENGE_INVALID: &str = r#"Bearer realm="boxoffice", error="invalid_token""#;

/// What a client is told when it does not get what it asked for.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    code: Code,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    allow: Option<&'static str>,
    /// What credential is asked for (RFC 6750).
    challenge: Option<Cow<'static, str>>,
    /// For the log alone.
    cause: Option<String>,
}

/// What is wrong with one field of a body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FieldError {
    /// As in `items[0].quantity`; empty for the body as a whole.
    pub(crate) field: String,
    pub(crate) message: String,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: &'static str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
}

impl Problem {
    /// With the code's usual detail.
    pub(crate) fn new(code: Code) -> Self {
        Self::because(code, code.row().detail)
    }

    /// With a detail of its own.
    pub(crate) fn because(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        let challenge = (code == Code::Unauthenticated).then_some(Cow::Borrowed(CHALLENGE));
        Self { code, detail: detail.into(), errors: Vec::new(), allow: None, challenge, cause: None }
    }

    /// All that is wrong with a body that could be read.
    pub(crate) fn invalid(errors: Vec<FieldError>) -> Self {
        Self { errors, ..Self::new(Code::ValidationFailed) }
    }

    /// A method that the resource does not have; `allow` lists those that it has.
    pub(crate) fn method_not_allowed(allow: &'static str) -> Self {
        Self { allow: Some(allow), ..Self::new(Code::MethodNotAllowed) }
    }

    /// A credential that was sent and is not valid. The cause is logged and never shown: it would tell a thief how near
    /// they came.
    pub(crate) fn invalid_credential(cause: impl fmt::Display) -> Self {
        let challenge = Some(Cow::Borrowed(CHALLENGE_INVALID));
        Self { challenge, cause: Some(cause.to_string()), ..Self::new(Code::Unauthenticated) }
    }

    /// With another detail.
    pub(crate) fn saying(self, detail: &'static str) -> Self {
        Self { detail: detail.into(), ..self }
    }

    /// A key that is valid and does not allow this.
    pub(crate) fn lacks(scope: Scope) -> Self {
        let challenge = format!(r#"{CHALLENGE}, error="insufficient_scope", scope="{scope}""#);
        let detail = format!("This call needs an API key with the scope {scope}.");
        Self { challenge: Some(challenge.into()), ..Self::because(Code::Forbidden, detail) }
    }

    /// Our own fault. The cause is logged and never shown.
    pub(crate) fn internal(cause: impl fmt::Display) -> Self {
        Self { cause: Some(cause.to_string()), ..Self::new(Code::InternalError) }
    }

    pub(crate) fn code(&self) -> Code {
        self.code
    }

    /// The response, which names the request.
    pub(crate) fn respond(&self, request_id: &str) -> HttpResponse {
        let row = self.code.row();
        let body = Body {
            r#type: [TYPE_PREFIX, row.code].concat(),
            title: row.title,
            status: row.status.as_u16(),
            detail: &self.detail,
            code: row.code,
            request_id,
            errors: &self.errors,
        };
        let mut response = HttpResponse::build(row.status);
        response.content_type("application/problem+json");
        if let Some(seconds) = row.retry_after_seconds {
            response.insert_header((RETRY_AFTER, HeaderValue::from(seconds)));
        }
        if let Some(allow) = self.allow {
            response.insert_header((ALLOW, HeaderValue::from_static(allow)));
        }
        if let Some(challenge) = &self.challenge {
            response.insert_header((WWW_AUTHENTICATE, challenge.as_ref()));
        }
        // Texts and numbers always serialize.
        response.body(serde_json::to_vec(&body).unwrap_or_default())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.row().code, self.detail)?;
        match &self.cause {
            Some(cause) => write!(f, " ({cause})"),
            None => Ok(()),
        }
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.code.row().status
    }

    /// Only a stand-in: `observe` answers with [`Problem::respond`], since it knows the request's id.
    fn error_response(&self) -> HttpResponse {
        HttpResponse::new(self.status_code())
    }
}

impl From<InventoryError> for Problem {
    fn from(error: InventoryError) -> Self {
        let code = match &error {
            InventoryError::Unverified => Code::InventoryUnverified,
            InventoryError::OutboxFull => Code::OutboxFull,
            InventoryError::Overloaded => Code::Overloaded,
            InventoryError::RedisUnavailable(_) => Code::RedisUnavailable,
            InventoryError::KafkaUnavailable => Code::KafkaUnavailable,
            InventoryError::Corrupt(_) => Code::InternalError,
        };
        Self { cause: Some(error.to_string()), ..Self::new(code) }
    }
}

impl From<DatabaseError> for Problem {
    fn from(error: DatabaseError) -> Self {
        let code = match &error {
            DatabaseError::Unavailable(_) => Code::PostgresUnavailable,
            DatabaseError::Statement(_) | DatabaseError::Corrupt(_) => Code::InternalError,
        };
        Self { cause: Some(error.to_string()), ..Self::new(code) }
    }
}

/// The refusal of a booking, a confirmation or a cancellation. Whoever decided has answered the outcomes that carry a
/// booking before.
pub(crate) fn refusal(outcome: &Outcome) -> Problem {
    Problem::new(match outcome {
        Outcome::KeyReused => Code::IdempotencyKeyReused,
        Outcome::NotOnSale => Code::NotOnSale,
        Outcome::LimitExceeded => Code::LimitExceeded,
        Outcome::SoldOut => Code::SoldOut,
        Outcome::AlreadyCancelled(_) => Code::BookingCancelled,
        Outcome::HoldExpired(_) => Code::HoldExpired,
        Outcome::Missing => Code::BookingNotFound,
        Outcome::OutboxFull => Code::OutboxFull,
        Outcome::Unverified => Code::InventoryUnverified,
        Outcome::Changed(_) | Outcome::Replayed(..) | Outcome::Unchanged(_) => Code::InternalError,
    })
}

/// The refusal of a publication or a change of an event.
pub(crate) fn event_refusal(outcome: &EventOutcome) -> Problem {
    match outcome {
        EventOutcome::Closed => Problem::because(Code::NotOnSale, "The event is closed, which is final."),
        EventOutcome::CapacityBelowSold => Problem::new(Code::CapacityBelowSold),
        EventOutcome::WindowInverted => Problem::invalid(vec![window_inverted()]),
        EventOutcome::OutboxFull => Problem::new(Code::OutboxFull),
        EventOutcome::Unverified => Problem::new(Code::InventoryUnverified),
        EventOutcome::Changed(_) | EventOutcome::Unchanged(_) => Problem::new(Code::InternalError),
    }
}

/// Sales cannot end before they begin.
pub(crate) fn window_inverted() -> FieldError {
    FieldError { field: "sales_close_at".to_owned(), message: "must be after sales_open_at".to_owned() }
}

#[cfg(test)]
mod tests {
    use actix_web::body::to_bytes;

    use super::*;

    #[actix_web::test]
    async fn a_problem_names_its_request_and_says_when_to_come_back() {
        let response = Problem::new(Code::Overloaded).respond("abc");
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers().get("content-type").unwrap(), "application/problem+json");
        assert_eq!(response.headers().get("retry-after").unwrap(), "1");
        let body: serde_json::Value =
            serde_json::from_slice(&to_bytes(response.into_body()).await.unwrap()).unwrap();
        assert_eq!(body["code"], "overloaded");
        assert_eq!(body["status"], 503);
        assert_eq!(body["request_id"], "abc");
        assert_eq!(body.get("errors"), None);
    }

    #[actix_web::test]
    async fn nothing_of_the_inside_is_shown() {
        let response = Problem::internal("password=hunter2").respond("abc");
        let body = to_bytes(response.into_body()).await.unwrap();
        assert!(!String::from_utf8_lossy(&body).contains("hunter2"));
    }
}
