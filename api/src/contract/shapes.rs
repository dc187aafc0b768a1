//! What single values look like on the wire, with the bounds of the contract.

use std::borrow::Cow;

use boxoffice_schema::status::{BookingStatus, EventStatus};
use serde_json::json;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{KnownFormat, Object, ObjectBuilder, Schema, SchemaFormat, SchemaType, Type};
use utoipa::{PartialSchema, ToSchema};

/// Text without control characters.
const PRINTABLE: &str = r"^[^\x00-\x1f\x7f-\x9f]+$";

/// A type and null.
fn or_null(of: Type) -> SchemaType {
    SchemaType::from_iter([of, Type::Null])
}

fn uuid(of: impl Into<SchemaType>) -> Object {
    let format = Some(SchemaFormat::KnownFormat(KnownFormat::Uuid));
    ObjectBuilder::new().schema_type(of).format(format).build()
}

/// A UUID.
pub(crate) fn id() -> Object {
    uuid(Type::String)
}

fn instant(of: impl Into<SchemaType>) -> Object {
    ObjectBuilder::new()
        .schema_type(of)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
        .examples([json!("2031-06-01T20:00:00.000Z")])
        .build()
}

/// A time.
pub(crate) fn time() -> Object {
    instant(Type::String)
}

/// A time or null.
pub(crate) fn time_or_null() -> Object {
    instant(or_null(Type::String))
}

fn text(of: impl Into<SchemaType>, max: usize, example: &str) -> Object {
    ObjectBuilder::new()
        .schema_type(of)
        .min_length(Some(1))
        .max_length(Some(max))
        .pattern(Some(PRINTABLE))
        .examples([json!(example)])
        .build()
}

/// The name of an event or a ticket type.
pub(crate) fn name() -> Object {
    text(Type::String, 200, "A night out")
}

/// Whoever buys, as the storefront knows them.
pub(crate) fn customer() -> Object {
    text(Type::String, 255, "ann@example.com")
}

/// Whoever buys, who may be known already.
pub(crate) fn customer_unless_known() -> Object {
    let mut schema = customer();
    schema.description = Some("Whoever buys; may be left out with a token, whose subject it is.".to_owned());
    schema
}

/// The payment provider's own.
pub(crate) fn payment_reference() -> Object {
    text(Type::String, 255, "pay_8c1f")
}

/// The payment provider's own, or null.
pub(crate) fn payment_reference_or_null() -> Object {
    text(or_null(Type::String), 255, "pay_8c1f")
}

fn integer(of: impl Into<SchemaType>, minimum: i64, maximum: i64) -> Object {
    let format = if maximum > i64::from(i32::MAX) { KnownFormat::Int64 } else { KnownFormat::Int32 };
    ObjectBuilder::new()
        .schema_type(of)
        .format(Some(SchemaFormat::KnownFormat(format)))
        .minimum(Some(minimum))
        .maximum(Some(maximum))
        .build()
}

/// How many tickets there are.
pub(crate) fn capacity() -> Object {
    integer(Type::Integer, 1, i64::from(i32::MAX))
}

/// How many tickets are free, held or sold.
pub(crate) fn count() -> Object {
    integer(Type::Integer, 0, i64::from(i32::MAX))
}

/// How many tickets a customer may have; null for any number.
pub(crate) fn limit_or_null() -> Object {
    integer(or_null(Type::Integer), 1, 1_000_000)
}

/// How long a hold lasts.
pub(crate) fn hold_seconds() -> Object {
    integer(Type::Integer, 1, 86_400)
}

/// How long a hold is to last; null for the usual time.
pub(crate) fn hold_seconds_or_null() -> Object {
    let mut schema = integer(or_null(Type::Integer), 1, 86_400);
    schema.default = Some(json!(600));
    schema
}

/// Minor units of a price.
pub(crate) fn price() -> Object {
    integer(Type::Integer, 0, 1_000_000_000_000)
}

/// Minor units of a sum.
pub(crate) fn amount() -> Object {
    integer(Type::Integer, 0, i64::MAX)
}

/// How many tickets of one type.
pub(crate) fn quantity() -> Object {
    integer(Type::Integer, 1, 1_000)
}

/// A policy of the rate limiter that is for other services.
pub(crate) fn policy_name() -> Object {
    let schema = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[a-z0-9_-]{1,64}$"));
    schema.examples([json!("mails-per-customer")]).build()
}

/// Whom it counts.
pub(crate) fn rate_subject() -> Object {
    text(Type::String, 255, "ann@example.com")
}

/// How many units are asked for; null for one.
pub(crate) fn cost_or_null() -> Object {
    let mut schema = integer(or_null(Type::Integer), 1, 1_000);
    schema.default = Some(json!(1));
    schema
}

/// ISO 4217.
pub(crate) fn currency() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some("^[A-Z]{3}$"))
        .examples([json!("EUR")])
        .build()
}

/// Whether to hold instead of to sell; null for no.
pub(crate) fn hold_or_null() -> Object {
    ObjectBuilder::new()
        .schema_type(or_null(Type::Boolean))
        .default(Some(json!(false)))
        .description(Some("Reserve for hold_seconds instead of selling."))
        .build()
}

/// One of these words.
pub(crate) fn one_of(words: &[&'static str]) -> Object {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words.iter().copied())).build()
}

/// What an event may become by a change.
pub(crate) fn next_status() -> Object {
    let words = EventStatus::ALL.into_iter().filter(|status| *status != EventStatus::Draft);
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words.map(EventStatus::as_str))).build()
}

/// Declares a named schema whose values are the words of a type.
macro_rules! words {
    ($schema:ident, $of:ident, $name:literal) => {
        /// Stands for the type of the same name in the document.
        pub(crate) struct $schema;

        impl PartialSchema for $schema {
            fn schema() -> RefOr<Schema> {
                let words = $of::ALL.map($of::as_str);
                ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words)).into()
            }
        }

        impl ToSchema for $schema {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed($name)
            }
        }
    };
}

words!(EventStatusWords, EventStatus, "EventStatus");
words!(BookingStatusWords, BookingStatus, "BookingStatus");

// Stands for `boxoffice_schema::money::Money` in the document.
/// An amount of money.
#[derive(ToSchema)]
#[schema(as = Money)]
#[expect(dead_code, reason = "only its shape is of interest")]
pub(crate) struct MoneyShape {
    /// In minor units.
    #[schema(schema_with = amount)]
    amount: u64,
    #[schema(schema_with = currency)]
    currency: String,
}

/// An OpenAPI document.
#[derive(ToSchema)]
pub(crate) struct Anything {}
