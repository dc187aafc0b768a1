//! What an operation may refuse: its codes, which become statuses with a problem and an example for each code.

use std::collections::BTreeMap;

use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{Object, Type};
use utoipa::openapi::{Header, Ref, RefOr, Response};

use crate::error::{Code, Problem};

/// What any operation may answer: a credential that is not valid is refused even where none is needed.
const EVERYWHERE: &[Code] = &[Code::Unauthenticated, Code::InternalError];

/// Of a call of operators and storefronts. To a buyer it does not exist.
pub(crate) const OPERATING: &[Code] = &[Code::Forbidden, Code::NotFound];

/// Of a call of buyers as well.
pub(crate) const TRADING: &[Code] = &[Code::Forbidden];

/// Of a call with a body.
pub(crate) const READ_BODY: &[Code] =
    &[Code::MalformedRequest, Code::BodyTooLarge, Code::UnsupportedMediaType, Code::ValidationFailed];

/// Of a call that decides something in Redis.
pub(crate) const DECIDING: &[Code] = &[
    Code::InventoryUnverified,
    Code::OutboxFull,
    Code::RedisUnavailable,
    Code::KafkaUnavailable,
    Code::PostgresUnavailable,
    Code::Overloaded,
];

/// Of a call that reads from Redis, or from PostgreSQL where Redis is away.
pub(crate) const READING: &[Code] = &[Code::RedisUnavailable, Code::PostgresUnavailable, Code::Overloaded];

/// Of a call that needs PostgreSQL alone.
pub(crate) const RECORDED: &[Code] = &[Code::PostgresUnavailable, Code::Overloaded];

/// Declares what an operation may refuse, for its `responses(...)`.
macro_rules! refusals {
    ($name:ident: $($codes:expr),+ $(,)?) => {
        /// What this operation may refuse.
        pub(crate) struct $name;

        impl utoipa::IntoResponses for $name {
            fn responses() -> std::collections::BTreeMap<
                String,
                utoipa::openapi::RefOr<utoipa::openapi::Response>,
            > {
                $crate::contract::problems(&[$($codes),+])
            }
        }
    };
}

pub(crate) use refusals;

/// A response for each status among the codes.
pub(crate) fn problems(groups: &[&[Code]]) -> BTreeMap<String, RefOr<Response>> {
    let mut of_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in groups.iter().copied().chain([EVERYWHERE]).flatten() {
        of_status.entry(code.row().status.as_u16()).or_default().push(*code);
    }
    of_status.into_iter().map(|(status, codes)| (status.to_string(), response(&codes).into())).collect()
}

/// The response with these codes, which share a status.
pub(super) fn response(codes: &[Code]) -> Response {
    let mut content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem")));
    let mut response = ResponseBuilder::new();
    let mut said = Vec::new();
    for code in codes {
        let row = code.row();
        said.push(format!("`{}`: {}", row.code, row.detail));
        let example = ExampleBuilder::new().summary(row.title).value(Some(Problem::example(*code))).build();
        content = content.examples_from_iter([(row.code, example)]);
        if row.retry_after_seconds.is_some() {
            response = response.header("Retry-After", seconds("Seconds after which to try again."));
        }
        if matches!(code, Code::Unauthenticated | Code::Forbidden) {
            response = response.header("WWW-Authenticate", challenge());
        }
    }
    response.description(said.join("\n")).content("application/problem+json", content.build()).build()
}

fn challenge() -> Header {
    let description = "A challenge of `Bearer`: what is wrong with the credential, or which scope it lacks.";
    HeaderBuilder::new().schema(Some(Object::with_type(Type::String))).description(Some(description)).build()
}

fn seconds(description: &str) -> Header {
    let mut schema = Object::with_type(Type::Integer);
    schema.minimum = Some(0.into());
    HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build()
}
