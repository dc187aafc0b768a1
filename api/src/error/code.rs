//! Every code of the contract with its status, its words, and when to try again.

use actix_web::http::StatusCode;

/// The `code` of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::VariantArray)]
pub(crate) enum Code {
    MalformedRequest,
    IdempotencyKeyMissing,
    IdempotencyKeyInvalid,
    Unauthenticated,
    Forbidden,
    NotFound,
    EventNotFound,
    TicketTypeNotFound,
    BookingNotFound,
    MethodNotAllowed,
    SoldOut,
    LimitExceeded,
    NotOnSale,
    HoldExpired,
    BookingCancelled,
    CapacityBelowSold,
    PreconditionFailed,
    BodyTooLarge,
    UnsupportedMediaType,
    ValidationFailed,
    IdempotencyKeyReused,
    RateLimited,
    InternalError,
    InventoryUnverified,
    OutboxFull,
    RedisUnavailable,
    KafkaUnavailable,
    PostgresUnavailable,
    Overloaded,
}

/// What is said with a code.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) code: &'static str,
    pub(crate) status: StatusCode,
    pub(crate) title: &'static str,
    pub(crate) detail: &'static str,
    pub(crate) retry_after_seconds: Option<u64>,
}

const fn row(code: &'static str, status: StatusCode, title: &'static str, detail: &'static str) -> Row {
    Row { code, status, title, detail, retry_after_seconds: None }
}

/// For a 503: a second is what a restart, a fail-over of a lease or a short queue takes; a retry costs little.
const fn later(code: &'static str, title: &'static str, detail: &'static str) -> Row {
    Row { retry_after_seconds: Some(1), ..row(code, StatusCode::SERVICE_UNAVAILABLE, title, detail) }
}

impl Code {
    /// The table.
    pub(crate) const fn row(self) -> Row {
        use StatusCode as S;
        match self {
            Self::MalformedRequest => row(
                "malformed_request",
                S::BAD_REQUEST,
                "Malformed request",
                "The request could not be read.",
            ),
            Self::IdempotencyKeyMissing => row(
                "idempotency_key_missing",
                S::BAD_REQUEST,
                "Idempotency key missing",
                "A booking needs the header Idempotency-Key, the same for every retry.",
            ),
            Self::IdempotencyKeyInvalid => row(
                "idempotency_key_invalid",
                S::BAD_REQUEST,
                "Idempotency key invalid",
                "Idempotency-Key must be sent once and have 1 to 255 visible ASCII characters.",
            ),
            Self::Unauthenticated => row(
                "unauthenticated",
                S::UNAUTHORIZED,
                "Unauthenticated",
                "This call needs a valid API key or token in the header Authorization: Bearer.",
            ),
            Self::Forbidden => {
                row("forbidden", S::FORBIDDEN, "Forbidden", "This API key does not allow this call.")
            }
            Self::NotFound => {
                row("not_found", S::NOT_FOUND, "Not found", "There is nothing at this address.")
            }
            Self::EventNotFound => {
                row("event_not_found", S::NOT_FOUND, "Event not found", "There is no such event.")
            }
            Self::TicketTypeNotFound => row(
                "ticket_type_not_found",
                S::NOT_FOUND,
                "Ticket type not found",
                "The event has no such ticket type.",
            ),
            Self::BookingNotFound => {
                row("booking_not_found", S::NOT_FOUND, "Booking not found", "The event has no such booking.")
            }
            Self::MethodNotAllowed => row(
                "method_not_allowed",
                S::METHOD_NOT_ALLOWED,
                "Method not allowed",
                "This address does not take this method; Allow lists those that it takes.",
            ),
            Self::SoldOut => row("sold_out", S::CONFLICT, "Sold out", "There are not enough tickets left."),
            Self::LimitExceeded => row(
                "limit_exceeded",
                S::CONFLICT,
                "Limit exceeded",
                "The customer would have more tickets than the limit allows.",
            ),
            Self::NotOnSale => row(
                "not_on_sale",
                S::CONFLICT,
                "Not on sale",
                "The event is not on sale; its status, sales_open_at and sales_close_at say why.",
            ),
            Self::HoldExpired => row(
                "hold_expired",
                S::CONFLICT,
                "Hold expired",
                "The hold ran out and its tickets cannot be taken again.",
            ),
            Self::BookingCancelled => {
                row("booking_cancelled", S::CONFLICT, "Booking cancelled", "The booking was cancelled.")
            }
            Self::CapacityBelowSold => row(
                "capacity_below_sold",
                S::CONFLICT,
                "Capacity below sold",
                "A capacity would be less than the tickets that are held and sold.",
            ),
            Self::PreconditionFailed => row(
                "precondition_failed",
                S::PRECONDITION_FAILED,
                "Precondition failed",
                "The event is not the one that If-Match names; read it again.",
            ),
            Self::BodyTooLarge => row(
                "body_too_large",
                S::PAYLOAD_TOO_LARGE,
                "Body too large",
                "A body may have at most 64 KiB.",
            ),
            Self::UnsupportedMediaType => row(
                "unsupported_media_type",
                S::UNSUPPORTED_MEDIA_TYPE,
                "Unsupported media type",
                "A body must be sent as application/json.",
            ),
            Self::ValidationFailed => row(
                "validation_failed",
                S::UNPROCESSABLE_ENTITY,
                "Validation failed",
                "The body is not what is asked for; errors lists why.",
            ),
            Self::IdempotencyKeyReused => row(
                "idempotency_key_reused",
                S::UNPROCESSABLE_ENTITY,
                "Idempotency key reused",
                "The key was used with another request; a new request needs a new key.",
            ),
            Self::RateLimited => Row {
                // Whoever refuses knows better.
                retry_after_seconds: Some(1),
                ..row(
                    "rate_limited",
                    S::TOO_MANY_REQUESTS,
                    "Rate limited",
                    "Too many requests; Retry-After says when to go on.",
                )
            },
            Self::InternalError => row(
                "internal_error",
                S::INTERNAL_SERVER_ERROR,
                "Internal error",
                "Something went wrong on our side; request_id finds it in our logs.",
            ),
            Self::InventoryUnverified => later(
                "inventory_unverified",
                "Inventory unverified",
                "The inventory is being checked against the log; nothing is sold until then.",
            ),
            Self::OutboxFull => later(
                "outbox_full",
                "Outbox full",
                "Too many decisions wait to be written to the log; nothing more is decided until then.",
            ),
            Self::RedisUnavailable => later(
                "redis_unavailable",
                "Redis unavailable",
                "The inventory did not answer in time and may have done what was asked: repeat the request, \
                 a booking with the same key.",
            ),
            Self::KafkaUnavailable => later(
                "kafka_unavailable",
                "Kafka unavailable",
                "The log did not confirm in time; repeat the request with the same key.",
            ),
            Self::PostgresUnavailable => {
                later("postgres_unavailable", "PostgreSQL unavailable", "The record cannot be reached.")
            }
            Self::Overloaded => later(
                "overloaded",
                "Overloaded",
                "Too many requests are waiting, or the answer took too long and it may have been done: repeat \
                 the request, a booking with the same key.",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use strum::VariantArray;

    use super::*;

    #[test]
    fn the_page_for_storefronts_says_what_to_do_about_every_code() {
        let page = include_str!("../../../docs/STOREFRONT.md");
        for code in Code::VARIANTS {
            let row = code.row();
            let said = format!("| {} | `{}` |", row.status.as_u16(), row.code);
            assert!(page.contains(&said), "docs/STOREFRONT.md has no row {said}");
        }
        let rows = page
            .lines()
            .filter(|line| line.starts_with("| ") && line.contains(" | `") && !line.contains("`code`"));
        assert_eq!(
            rows.count(),
            Code::VARIANTS.len(),
            "docs/STOREFRONT.md has rows of codes that there are not"
        );
    }

    /// Whoever took it for a refusal, and booked with another key, would have booked twice.
    #[test]
    fn what_may_come_after_a_decision_says_that_a_booking_is_repeated_with_the_same_key() {
        let page = include_str!("../../../docs/STOREFRONT.md");
        for code in [Code::RedisUnavailable, Code::KafkaUnavailable, Code::Overloaded] {
            let row = code.row();
            let said = format!("| {} | `{}` |", row.status.as_u16(), row.code);
            let line = page.lines().find(|line| line.starts_with(&said)).unwrap();
            assert!(line.contains("the same key"), "docs/STOREFRONT.md: {line}");
            assert!(row.detail.contains("the same key"), "{code:?}: {}", row.detail);
        }
    }

    #[test]
    fn a_503_says_when_to_try_again() {
        let codes = [
            Code::InventoryUnverified,
            Code::OutboxFull,
            Code::RedisUnavailable,
            Code::KafkaUnavailable,
            Code::PostgresUnavailable,
            Code::Overloaded,
        ];
        for code in codes {
            let row = code.row();
            assert_eq!(row.status, StatusCode::SERVICE_UNAVAILABLE, "{code:?}");
            assert_eq!(row.retry_after_seconds, Some(1), "{code:?}");
        }
    }
}
