//! One event, one booking of it, one question to the rate limiter, and what was sent for them, for whoever reads the
//! document.

use serde_json::{Value, json};

const EVENT: &str = "0193508e-1b2c-7d3e-8f40-5a6b7c8d9e0f";
const TICKET_TYPE: &str = "0193508e-1b2c-7d3e-8f41-6b7c8d9e0f1a";
const BOOKING: &str = "0193508e-9a8b-7c6d-9e5f-4a3b2c1d0e9f";

/// For `createEvent`.
pub(crate) fn new_event() -> Value {
    json!({
        "name": "A night out",
        "starts_at": "2031-06-01T20:00:00Z",
        "sales_close_at": "2031-06-01T18:00:00Z",
        "per_customer_limit": 8,
        "ticket_types": [{"name": "Stalls", "capacity": 400, "price": {"amount": 2500, "currency": "EUR"}}],
    })
}

/// For `changeEvent`.
pub(crate) fn event_patch() -> Value {
    json!({"per_customer_limit": null, "ticket_types": [{"id": TICKET_TYPE, "capacity": 450}]})
}

/// A published event.
pub(crate) fn event() -> Value {
    let price = json!({"amount": 2500, "currency": "EUR"});
    json!({
        "id": EVENT,
        "name": "A night out",
        "status": "on_sale",
        "starts_at": "2031-06-01T20:00:00.000Z",
        "sales_open_at": null,
        "sales_close_at": "2031-06-01T18:00:00.000Z",
        "per_customer_limit": 8,
        "hold_seconds": 600,
        "ticket_types": [
            {"id": TICKET_TYPE, "name": "Stalls", "capacity": 400, "price": price, "per_customer_limit": null},
        ],
        "created_at": "2031-03-01T09:00:00.000Z",
        "updated_at": "2031-03-01T09:05:00.000Z",
    })
}

/// What is left of it.
pub(crate) fn availability() -> Value {
    let of_type = json!({"ticket_type_id": TICKET_TYPE, "capacity": 400, "available": 398, "held": 2, "sold": 0, "on_sale": true});
    json!({
        "event_id": EVENT,
        "status": "on_sale",
        "as_of": "2031-03-02T10:00:00.000Z",
        "stale": false,
        "ticket_types": [of_type],
    })
}

/// For `createBooking`.
pub(crate) fn new_booking() -> Value {
    json!({
        "customer": "ann@example.com",
        "items": [{"ticket_type_id": TICKET_TYPE, "quantity": 2}],
        "hold": true,
    })
}

/// A hold.
pub(crate) fn booking() -> Value {
    let unit_price = json!({"amount": 2500, "currency": "EUR"});
    json!({
        "id": BOOKING,
        "event_id": EVENT,
        "customer": "ann@example.com",
        "items": [{"ticket_type_id": TICKET_TYPE, "quantity": 2, "unit_price": unit_price}],
        "total": {"amount": 5000, "currency": "EUR"},
        "status": "held",
        "created_at": "2031-03-02T10:00:00.000Z",
        "expires_at": "2031-03-02T10:10:00.000Z",
        "payment_reference": null,
    })
}

/// For `checkRateLimit`.
pub(crate) fn rate_limit_check() -> Value {
    json!({"policy": "mails-per-customer", "key": "ann@example.com", "cost": 1})
}

/// It is allowed.
pub(crate) fn rate_limit_verdict() -> Value {
    json!({
        "allowed": true,
        "policy": "mails-per-customer",
        "limit": 20,
        "remaining": 19,
        "reset_seconds": 51_840,
        "retry_after_seconds": null,
    })
}
