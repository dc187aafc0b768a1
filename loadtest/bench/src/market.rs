//! Events on sale, and customers who buy as fast as they are answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::http::{Answer, Connection};

/// How long an event may take to come on sale, and a booking that is refused to be accepted again.
const PATIENCE: Duration = Duration::from_secs(120);

/// Between two tries of what was refused.
const PAUSE: Duration = Duration::from_millis(10);

/// An event on sale.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) ticket_type: String,
}

/// The events of a run, and the numbers of its bookings.
pub(crate) struct Market {
    pub(crate) events: Vec<Event>,
    next: AtomicU64,
}

/// What buyers are to buy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order {
    pub(crate) bookings: u64,
    pub(crate) connections: usize,
    pub(crate) hold: bool,
}

impl Market {
    /// Puts events on sale, each with more tickets than will be bought.
    pub(crate) async fn open(api: SocketAddr, events: usize, capacity: u64) -> Result<Self> {
        let mut connection = Connection::open(api).await?;
        let mut opened = Vec::with_capacity(events);
        for number in 0..events {
            opened.push(put_on_sale(&mut connection, number, capacity).await?);
        }
        Ok(Self { events: opened, next: AtomicU64::new(0) })
    }

    /// Bookings that were begun so far.
    pub(crate) fn begun(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Buys one ticket of the event whose turn it is. Only a 201 is a booking.
    pub(crate) async fn book(&self, connection: &mut Connection, hold: bool) -> Result<Answer> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let index = usize::try_from(number)? % self.events.len();
        book(connection, &self.events[index], &format!("bench-{number}"), hold).await
    }

    /// Tries, with one key, until a ticket of the event is sold; the booking's id.
    pub(crate) async fn until_sold(&self, api: SocketAddr, event: &Event) -> Result<Uuid> {
        let key = format!("bench-probe-{}", self.next.fetch_add(1, Ordering::Relaxed));
        let start = Instant::now();
        let mut connection = None;
        loop {
            if let Ok(mut open) = reuse(connection.take(), api).await
                && let Ok(answer) = book(&mut open, event, &key, false).await
            {
                if answer.status == 201 {
                    let booking: Value = serde_json::from_slice(&answer.body)?;
                    return Ok(booking["id"].as_str().context("a booking's id")?.parse()?);
                }
                connection = Some(open);
            }
            ensure!(start.elapsed() < PATIENCE, "event {} sold nothing within {PATIENCE:?}", event.id);
            sleep(PAUSE).await;
        }
    }

    /// Buys as fast as the answers come. Each of the bookings is acknowledged in the end: what the outbox's bound
    /// refuses is asked for again.
    pub(crate) async fn sell(self: &Arc<Self>, api: SocketAddr, order: Order) -> Result<Duration> {
        let left = Arc::new(AtomicU64::new(order.bookings));
        let start = Instant::now();
        let mut buyers = JoinSet::new();
        for _ in 0..order.connections {
            let (market, left) = (Arc::clone(self), Arc::clone(&left));
            buyers.spawn(async move {
                let mut connection = Connection::open(api).await?;
                while take_one(&left) {
                    market.book_patiently(&mut connection, order.hold).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(ended) = buyers.join_next().await {
            ended??;
        }
        Ok(start.elapsed())
    }

    async fn book_patiently(&self, connection: &mut Connection, hold: bool) -> Result<()> {
        let start = Instant::now();
        loop {
            let answer = self.book(connection, hold).await?;
            match answer.status {
                201 => return Ok(()),
                503 if start.elapsed() < PATIENCE => sleep(PAUSE).await,
                status => {
                    anyhow::bail!("a booking got {status}: {}", String::from_utf8_lossy(&answer.body))
                }
            }
        }
    }
}

fn take_one(left: &AtomicU64) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

async fn reuse(connection: Option<Connection>, api: SocketAddr) -> Result<Connection> {
    match connection {
        Some(connection) => Ok(connection),
        None => Connection::open(api).await,
    }
}

async fn book(connection: &mut Connection, event: &Event, key: &str, hold: bool) -> Result<Answer> {
    let mode = if hold { r#","hold":true"# } else { "" };
    let body = format!(
        r#"{{"customer":"{key}","items":[{{"ticket_type_id":"{}","quantity":1}}]{mode}}}"#,
        event.ticket_type
    );
    let path = format!("/v1/events/{}/bookings", event.id);
    connection.send("POST", &path, &format!("Idempotency-Key: {key}\r\n"), &body).await
}

/// Makes an event, and publishes it.
pub(crate) async fn put_on_sale(connection: &mut Connection, number: usize, capacity: u64) -> Result<Event> {
    let starts_at = (chrono::Utc::now() + chrono::Days::new(30)).to_rfc3339();
    let event = json!({
        "name": format!("Bench {number}"),
        "starts_at": starts_at,
        "hold_seconds": 86_400,
        "ticket_types": [{ "name": "Standing", "capacity": capacity, "price": { "amount": 4500, "currency": "EUR" } }],
    });
    let created = ask(connection, "/v1/events", &event.to_string(), 201).await?;
    let text = |value: &Value| value.as_str().map(str::to_owned).context("an id");
    let event = Event { id: text(&created["id"])?, ticket_type: text(&created["ticket_types"][0]["id"])? };
    ask(connection, &format!("/v1/events/{}/publish", event.id), "", 200).await?;
    Ok(event)
}

/// Asks until the wanted status comes: fresh stores are certified before anything may be published.
async fn ask(connection: &mut Connection, path: &str, body: &str, wanted: u16) -> Result<Value> {
    let start = Instant::now();
    loop {
        let answer = connection.send("POST", path, "", body).await?;
        if answer.status == wanted {
            return Ok(serde_json::from_slice(&answer.body)?);
        }
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        ensure!(start.elapsed() < PATIENCE && answer.status == 503, "POST {path}: {} {text}", answer.status);
        sleep(PAUSE).await;
    }
}
