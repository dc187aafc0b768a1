//! What calls take in their paths, queries and headers.

use boxoffice_schema::status::{BookingStatus, EventStatus};
use utoipa::IntoParams;
use utoipa::openapi::Required;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};

use super::shapes;

/// Declares parameters, for the `params(...)` of an operation.
macro_rules! parameters {
    ($(#[$doc:meta])* $name:ident: $($parameter:expr),+ $(,)?) => {
        $(#[$doc])*
        pub(crate) struct $name;

        impl IntoParams for $name {
            fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
                vec![$($parameter),+]
            }
        }
    };
}

parameters! {
    /// Which event.
    EventPath: in_path("event_id", "One that is malformed names no event.", shapes::id())
}
parameters! {
    /// Which booking of which event.
    BookingPath:
        in_path("event_id", "One that is malformed names no event.", shapes::id()),
        in_path("booking_id", "One that is malformed names no booking.", shapes::id())
}
parameters! {
    /// Whose bookings.
    CustomerPath: in_path("customer", "Percent-encoded UTF-8.", shapes::customer())
}
parameters! {
    /// Which page of a list.
    PageQuery:
        in_query("limit", "The most entries of the page.", page_limit()),
        in_query("cursor", "`next_cursor` of the page before; opaque.", cursor())
}
parameters! {
    /// Only events in this state.
    EventStatusQuery: in_query(
        "status",
        "Only events in this state, as PostgreSQL knows it: a moment behind.",
        shapes::one_of(&EventStatus::ALL.map(EventStatus::as_str)),
    )
}
parameters! {
    /// Only bookings in this state.
    BookingStatusQuery: in_query(
        "status",
        "Only bookings in this state.",
        shapes::one_of(&BookingStatus::ALL.map(BookingStatus::as_str)),
    )
}
parameters! {
    /// Only bookings of this customer.
    CustomerQuery: in_query("customer", "Only bookings of this customer.", shapes::customer())
}
parameters! {
    /// What a reader has already.
    IfNoneMatchHeader: header(
        "If-None-Match",
        "`ETag` of what was read before: 304 where it is still right.",
        Required::False,
        Object::with_type(Type::String),
    )
}
parameters! {
    /// What a writer has read.
    IfMatchHeader: header(
        "If-Match",
        "`ETag` of the event that was read: 412 where it has changed since. Without it, the last change wins.",
        Required::False,
        Object::with_type(Type::String),
    )
}
parameters! {
    /// What makes a booking safe to repeat.
    KeyHeader: header(
        "Idempotency-Key",
        "The same for every retry of one booking, another for every other booking. Its scope is the caller and the event.",
        Required::True,
        visible(255),
    )
}

fn in_path(name: &str, description: &str, schema: Object) -> Parameter {
    parameter(name, description, ParameterIn::Path, Required::True, schema)
}

fn in_query(name: &str, description: &str, schema: Object) -> Parameter {
    parameter(name, description, ParameterIn::Query, Required::False, schema)
}

fn header(name: &str, description: &str, required: Required, schema: Object) -> Parameter {
    parameter(name, description, ParameterIn::Header, required, schema)
}

fn parameter(
    name: &str,
    description: &str,
    place: ParameterIn,
    required: Required,
    schema: Object,
) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .description(Some(description))
        .parameter_in(place)
        .required(required)
        .schema(Some(schema))
        .build()
}

fn cursor() -> Object {
    ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[A-Za-z0-9_-]{32}$")).build()
}

fn page_limit() -> Object {
    let schema = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(200));
    schema.default(Some(50.into())).build()
}

/// 1 to `max` visible ASCII characters.
fn visible(max: usize) -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(max))
        .pattern(Some("^[!-~]+$"))
        .build()
}
