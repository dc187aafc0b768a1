//! The floor: the handler of a booking without any store. It reads the same request, checks it by the same rules and
//! answers with a body of the same members and size, on the same HTTP server with as many workers. What Boxoffice
//! does beside that (metrics, ids of requests, batches, Redis) is what a ratio to it shows.

use std::net::SocketAddr;

use actix_web::http::header::LOCATION;
use actix_web::web::{self, Bytes};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use boxoffice_schema::ids::{BookingId, EventId, TicketTypeId};
use boxoffice_schema::text::{Caller, Customer, IdempotencyKey};
use chrono::Utc;
use clap::Parser;
use serde::{Deserialize, Serialize};

/// A booking's handler without a store.
#[derive(Debug, Parser)]
#[command(name = "boxoffice-bench-floor", version)]
struct Cli {
    /// Where it listens.
    listen: SocketAddr,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    customer: String,
    items: Vec<WantedItem>,
    hold: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedItem {
    ticket_type_id: String,
    quantity: u16,
}

#[derive(Serialize)]
struct Price {
    amount: u64,
    currency: &'static str,
}

#[derive(Serialize)]
struct Item {
    ticket_type_id: TicketTypeId,
    quantity: u16,
    unit_price: Price,
}

#[derive(Serialize)]
struct Booking<'a> {
    id: BookingId,
    event_id: EventId,
    customer: &'a str,
    items: Vec<Item>,
    total: Price,
    status: &'static str,
    #[serde(serialize_with = "boxoffice_schema::time::serialize")]
    created_at: chrono::DateTime<Utc>,
    expires_at: Option<chrono::DateTime<Utc>>,
    payment_reference: Option<&'a str>,
}

/// What one ticket costs here, as in the measured events.
const PRICE: u64 = 4_500;

fn answer(request: &HttpRequest, body: &[u8]) -> Option<HttpResponse> {
    let key = request.headers().get("idempotency-key")?;
    let key = IdempotencyKey::parse(key.as_bytes()).ok()?;
    let wanted: Wanted = serde_json::from_slice(body).ok()?;
    let event_id: EventId = request.match_info().get("event_id")?.parse().ok()?;
    let customer = Customer::try_from(wanted.customer).ok()?;
    let items: Option<Vec<Item>> = wanted.items.into_iter().map(item).collect();
    let items = items.filter(|items| (1..=20).contains(&items.len()))?;
    let idempotency =
        boxoffice_schema::fingerprint::IdempotencyField::of(&Caller::anonymous(), event_id, &key);
    let id = BookingId::new(idempotency);
    let amount = items.iter().map(|item| u64::from(item.quantity) * PRICE).sum();
    let booking = Booking {
        id,
        event_id,
        customer: customer.as_str(),
        items,
        total: Price { amount, currency: "EUR" },
        status: if wanted.hold == Some(true) { "held" } else { "confirmed" },
        created_at: Utc::now(),
        expires_at: None,
        payment_reference: None,
    };
    Some(
        HttpResponse::Created()
            .content_type("application/json")
            .insert_header((LOCATION, format!("/v1/events/{event_id}/bookings/{id}")))
            .insert_header(("x-request-id", id.to_string()))
            .body(serde_json::to_vec(&booking).ok()?),
    )
}

fn item(wanted: WantedItem) -> Option<Item> {
    let ticket_type_id = wanted.ticket_type_id.parse().ok()?;
    let quantity = Some(wanted.quantity).filter(|quantity| (1..=1_000).contains(quantity))?;
    Some(Item { ticket_type_id, quantity, unit_price: Price { amount: PRICE, currency: "EUR" } })
}

async fn book(request: HttpRequest, body: Bytes) -> HttpResponse {
    answer(&request, &body).unwrap_or_else(|| HttpResponse::UnprocessableEntity().finish())
}

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let listen = Cli::parse().listen;
    let workers = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    HttpServer::new(|| App::new().route("/v1/events/{event_id}/bookings", web::post().to(book)))
        .workers(workers)
        .bind(listen)?
        .run()
        .await
}
