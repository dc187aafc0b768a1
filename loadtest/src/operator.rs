//! The organiser's side: puts events on sale, and asks afterwards how they stand.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use crate::{
    client::{Answer, Call, Client},
    plan::{CURRENCY, Event, EventPlan},
    wire::{Audit, Availability, BookingPage, CreatedEvent, Money, NewEvent, NewTicketType},
};

/// Longest wait for the API to answer at all, and for an event to go on sale.
const DEADLINE: Duration = Duration::from_secs(30);

/// How long a question after the run is asked again while the API is busy or away.
const SHORTLY: Duration = Duration::from_millis(700);

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(300);

/// Fails with advice unless the API is there and ready.
pub(crate) async fn check_ready(client: &Client) -> Result<()> {
    let url = client.url("/readyz")?;
    let answer = client.send(Call::get(url.clone())).await.with_context(|| {
        format!("{url} does not answer. Start the API (scripts/demo shows how), or pass --host")
    })?;
    if answer.status != 200 {
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        bail!("{url} says that the API is not ready (status {}): {body}", answer.status);
    }
    Ok(())
}

/// Creates and publishes the events, and waits until every one is on sale.
pub(crate) async fn put_on_sale(client: &Client, plans: Vec<EventPlan>) -> Result<Vec<Event>> {
    let mut events = Vec::with_capacity(plans.len());
    for plan in plans {
        let event = create(client, plan).await?;
        let publish = Call::post(client.event_url(event.id, "/publish")?, None);
        // Fresh stores are checked before anything is sold, and until then publishing is refused with 503.
        let published: CreatedEvent = ask(client, &publish, 200, DEADLINE)
            .await
            .context("publishing an event; if the inventory stays unverified, is the reconciler running?")?;
        if published.status != "on_sale" {
            bail!("event {} is {:?} after it was published, not on_sale", event.id, published.status);
        }
        events.push(event);
    }
    let deadline = Instant::now() + DEADLINE;
    for event in &events {
        while !is_on_sale(client, event).await? {
            if Instant::now() > deadline {
                bail!(
                    "event {} is not on sale {DEADLINE:?} after publishing: is the reconciler running?",
                    event.id
                );
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(events)
}

async fn create(client: &Client, plan: EventPlan) -> Result<Event> {
    let types = plan.types.iter().map(|kind| NewTicketType {
        name: kind.name,
        capacity: kind.capacity,
        price: Money { amount: kind.price, currency: CURRENCY },
        per_customer_limit: kind.limit,
    });
    let wanted = NewEvent {
        name: &plan.name,
        starts_at: (chrono::Utc::now() + chrono::Days::new(30))
            .to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
        per_customer_limit: plan.limit,
        hold_seconds: plan.hold_seconds,
        ticket_types: types.collect(),
    };
    let call = Call::post(client.url("/v1/events")?, Some(serde_json::to_string(&wanted)?));
    let created: CreatedEvent = ask(client, &call, 201, DEADLINE).await.context("creating an event")?;
    let mut type_ids = Vec::with_capacity(plan.types.len());
    for kind in &plan.types {
        let found = created.ticket_types.iter().find(|made| made.name == kind.name);
        let made =
            found.with_context(|| format!("event {} has no ticket type {:?}", created.id, kind.name))?;
        if made.capacity != kind.capacity {
            bail!("ticket type {} has capacity {}, not {}", made.id, made.capacity, kind.capacity);
        }
        type_ids.push(made.id);
    }
    Ok(Event {
        id: created.id,
        type_ids,
        bookings_url: client.event_url(created.id, "/bookings")?,
        availability_url: client.event_url(created.id, "/availability")?,
        plan,
    })
}

async fn is_on_sale(client: &Client, event: &Event) -> Result<bool> {
    Ok(availability(client, event).await?.ticket_types.iter().all(|kind| kind.on_sale))
}

/// What is left of an event.
pub(crate) async fn availability(client: &Client, event: &Event) -> Result<Availability> {
    ask(client, &Call::get(event.availability_url.clone()), 200, SHORTLY).await
}

/// The live invariant of an event.
pub(crate) async fn audit(client: &Client, event: &Event) -> Result<Audit> {
    ask(client, &Call::get(client.event_url(event.id, "/audit")?), 200, SHORTLY).await
}

/// A page of an event's bookings.
pub(crate) async fn bookings(client: &Client, event: &Event, cursor: Option<&str>) -> Result<BookingPage> {
    let mut url = event.bookings_url.clone();
    url.query_pairs_mut().append_pair("limit", "200");
    if let Some(cursor) = cursor {
        url.query_pairs_mut().append_pair("cursor", cursor);
    }
    ask(client, &Call::get(url), 200, SHORTLY).await
}

/// Makes a call and reads its answer; tries again until `patience` is over where the API is only busy. Every call here
/// may be repeated: a refusal changes nothing.
async fn ask<T: DeserializeOwned>(
    client: &Client,
    call: &Call,
    wanted: u16,
    patience: Duration,
) -> Result<T> {
    let start = Instant::now();
    loop {
        let outcome = client.send(call.clone()).await;
        let busy = outcome.as_ref().map_or(true, |answer| matches!(answer.status, 429 | 503));
        if busy && start.elapsed() < patience {
            sleep(PAUSE).await;
            continue;
        }
        let what = || format!("{} {}", call.method, call.url);
        let answer = outcome.with_context(what)?;
        return read(&answer, wanted).with_context(what);
    }
}

fn read<T: DeserializeOwned>(answer: &Answer, wanted: u16) -> Result<T> {
    if answer.status != wanted {
        bail!("status {} instead of {wanted}: {}", answer.status, String::from_utf8_lossy(&answer.body));
    }
    serde_json::from_slice(&answer.body)
        .with_context(|| format!("unreadable answer: {}", String::from_utf8_lossy(&answer.body)))
}
