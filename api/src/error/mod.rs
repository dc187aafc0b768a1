//! The one place where an outcome becomes a status and a problem (RFC 9457).

mod code;

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU32;

use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, ResponseError};
use boxoffice_schema::scripts::{EventOutcome, Outcome};
use serde::Serialize;
use strum::VariantArray;
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};

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
    /// Where it is not the code's usual time.
    retry_after_seconds: Option<NonZeroU32>,
    /// For the log alone.
    cause: Option<String>,
}

/// What is wrong with one field of a body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct FieldError {
    /// As in `items[0].quantity`; empty for the body as a whole.
    #[schema(examples("items[0].quantity"))]
    pub(crate) field: String,
    /// The same as a JSON pointer (RFC 6901).
    #[schema(format = "json-pointer", examples("/items/0/quantity"))]
    pub(crate) pointer: String,
    /// What it must be, for whoever wrote the client.
    #[schema(examples("must be 1 to 1000"))]
    pub(crate) message: String,
}

impl FieldError {
    /// Of a field that we know, by its path as in `items[0].quantity`.
    pub(crate) fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        let field = field.into();
        let steps = field.split(['.', '[']).filter(|step| !step.is_empty());
        let pointer = steps.flat_map(|step| ["/", step.trim_end_matches(']')]).collect();
        Self { field, pointer, message: message.into() }
    }

    /// Of a field that a client may have named; its steps are the names and the positions that lead there.
    pub(crate) fn at(field: String, steps: impl IntoIterator<Item = String>, message: String) -> Self {
        let escaped = |step: String| format!("/{}", step.replace('~', "~0").replace('/', "~1"));
        Self { field, pointer: steps.into_iter().map(escaped).collect(), message }
    }
}

/// Why a request was refused (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct Body<'a> {
    /// Stable; ends with the code.
    #[schema(format = "uri")]
    r#type: String,
    title: &'static str,
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// For people; may change.
    detail: &'a str,
    /// What a client decides by.
    #[schema(schema_with = code_words)]
    code: &'static str,
    /// As in `X-Request-Id`.
    request_id: &'a str,
    /// Only of `validation_failed`.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
}

/// Every code, from the one table of them.
fn code_words() -> Object {
    let words = Code::VARIANTS.iter().map(|code| code.row().code);
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words)).build()
}

impl Problem {
    /// With the code's usual detail.
    pub(crate) fn new(code: Code) -> Self {
        Self::because(code, code.row().detail)
    }

    /// With a detail of its own.
    pub(crate) fn because(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        let challenge = (code == Code::Unauthenticated).then_some(Cow::Borrowed(CHALLENGE));
        Self {
            code,
            detail: detail.into(),
            errors: Vec::new(),
            allow: None,
            challenge,
            retry_after_seconds: None,
            cause: None,
        }
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

    /// A ticket type that the event does not have, by the field that names it.
    pub(crate) fn no_ticket_type(field: impl fmt::Display) -> Self {
        Self::because(Code::TicketTypeNotFound, format!("{field} names no ticket type of this event."))
    }

    /// A key that is valid and does not allow this.
    pub(crate) fn lacks(scope: Scope) -> Self {
        let challenge = format!(r#"{CHALLENGE}, error="insufficient_scope", scope="{scope}""#);
        let detail = format!("This call needs an API key with the scope {scope}.");
        Self { challenge: Some(challenge.into()), ..Self::because(Code::Forbidden, detail) }
    }

    /// A refusal by the policies of these names, until so many seconds have passed.
    pub(crate) fn rate_limited(policies: &[&str], retry_after_seconds: NonZeroU32) -> Self {
        let names = policies.join(", ");
        let detail = format!("Too many requests for the limit {names}; Retry-After says when to go on.");
        Self { retry_after_seconds: Some(retry_after_seconds), ..Self::because(Code::RateLimited, detail) }
    }

    /// Our own fault. The cause is logged and never shown.
    pub(crate) fn internal(cause: impl fmt::Display) -> Self {
        Self { cause: Some(cause.to_string()), ..Self::new(Code::InternalError) }
    }

    pub(crate) fn code(&self) -> Code {
        self.code
    }

    /// Whether it is for a reason of ours, and none of the client's.
    pub(crate) fn is_ours(&self) -> bool {
        self.code.row().status.is_server_error()
    }

    /// What is answered with a code, for the contract.
    pub(crate) fn example(code: Code) -> serde_json::Value {
        let wrong = FieldError::new("name", "is required");
        let problem = match code {
            Code::ValidationFailed => Self::invalid(vec![wrong]),
            code => Self::new(code),
        };
        serde_json::json!(problem.body("0193508e-7c3a-7f21-9d5b-3f2a8b1c4d5e"))
    }

    fn body<'a>(&'a self, request_id: &'a str) -> Body<'a> {
        let row = self.code.row();
        Body {
            r#type: [TYPE_PREFIX, row.code].concat(),
            title: row.title,
            status: row.status.as_u16(),
            detail: &self.detail,
            code: row.code,
            request_id,
            errors: &self.errors,
        }
    }

    /// The response, which names the request.
    pub(crate) fn respond(&self, request_id: &str) -> HttpResponse {
        let row = self.code.row();
        let mut response = HttpResponse::build(row.status);
        response.content_type("application/problem+json");
        let retry_after_seconds = self.retry_after_seconds.map(|seconds| u64::from(seconds.get()));
        if let Some(seconds) = retry_after_seconds.or(row.retry_after_seconds) {
            response.insert_header((RETRY_AFTER, HeaderValue::from(seconds)));
        }
        if let Some(allow) = self.allow {
            response.insert_header((ALLOW, HeaderValue::from_static(allow)));
        }
        if let Some(challenge) = &self.challenge {
            response.insert_header((WWW_AUTHENTICATE, challenge.as_ref()));
        }
        // Texts and numbers always serialize.
        response.body(serde_json::to_vec(&self.body(request_id)).unwrap_or_default())
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
        Outcome::RateLimited => Code::RateLimited,
        Outcome::Changed(_) | Outcome::Replayed(..) | Outcome::Unchanged(_) => Code::InternalError,
    })
}

/// The refusal of a publication or a change of an event.
pub(crate) fn event_refusal(outcome: &EventOutcome) -> Problem {
    match outcome {
        EventOutcome::Closed => Problem::because(Code::NotOnSale, "The event is closed, which is final."),
        EventOutcome::CapacityBelowSold => Problem::new(Code::CapacityBelowSold),
        EventOutcome::Superseded => Problem::new(Code::PreconditionFailed),
        EventOutcome::WindowInverted => Problem::invalid(vec![window_inverted()]),
        EventOutcome::OutboxFull => Problem::new(Code::OutboxFull),
        EventOutcome::Unverified => Problem::new(Code::InventoryUnverified),
        EventOutcome::Changed(_) | EventOutcome::Unchanged(_) => Problem::new(Code::InternalError),
    }
}

/// Sales cannot end before they begin.
pub(crate) fn window_inverted() -> FieldError {
    FieldError::new("sales_close_at", "must be after sales_open_at")
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

    #[test]
    fn a_field_is_named_by_a_json_pointer_too() {
        let pointer = |field: &str| FieldError::new(field, "").pointer;
        assert_eq!(pointer("items[0].quantity"), "/items/0/quantity");
        assert_eq!(pointer("ticket_types[12].price.amount"), "/ticket_types/12/price/amount");
        assert_eq!(pointer("name"), "/name");
        assert_eq!(pointer(""), "");
        let steps = ["items".to_owned(), "0".to_owned(), "a/b~c.d".to_owned()];
        assert_eq!(FieldError::at(String::new(), steps, String::new()).pointer, "/items/0/a~1b~0c.d");
    }

    #[actix_web::test]
    async fn nothing_of_the_inside_is_shown() {
        let response = Problem::internal("password=hunter2").respond("abc");
        let body = to_bytes(response.into_body()).await.unwrap();
        assert!(!String::from_utf8_lossy(&body).contains("hunter2"));
    }
}
