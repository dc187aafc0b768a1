//! The life of a hold: confirmed, cancelled, expired, and taken again.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::http::id;
use crate::world::{World, eventually};

#[tokio::test]
async fn a_hold_shows_its_expiry_and_is_confirmed_with_its_payment() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let held = world.book(&event.id, "k", &event.hold("ann", 2)).await.expect(201);
    assert_eq!(held["status"], "held");
    let created = held["created_at"].as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
    let expires = held["expires_at"].as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
    assert_eq!((expires - created).num_seconds(), 600);
    assert_eq!(world.counts(&event, 0).await, (2, 0, 8));

    let confirmed = world.confirm(&event.id, &id(&held), "pay-1").await.expect(200);
    assert_eq!(confirmed["status"], "confirmed");
    assert_eq!(confirmed["payment_reference"], "pay-1");
    assert!(confirmed["expires_at"].is_null());
    assert_eq!(world.counts(&event, 0).await, (0, 2, 8));
    let again = world.confirm(&event.id, &id(&held), "pay-2").await.expect(200);
    assert_eq!(again, confirmed, "the first reference is kept");
    world.drained(&event).await;
    assert_eq!(world.rows_counted(&event, 0).await, (0, 2));
}

#[tokio::test]
async fn a_cancelled_booking_gives_its_stock_back_once_and_cannot_be_confirmed() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    for body in [event.hold("ann", 3), event.request("ann", 3)] {
        let key = if body["hold"].is_null() { "sale" } else { "hold" };
        let booking = id(&world.book(&event.id, key, &body).await.expect(201));
        for _ in 0..3 {
            assert_eq!(world.cancel(&event.id, &booking).await.expect(200)["status"], "cancelled");
        }
        assert_eq!(world.counts(&event, 0).await, (0, 0, 10));
        world.confirm(&event.id, &booking, "late").await.refused(409, "booking_cancelled");
    }
    world.drained(&event).await;
    assert_eq!(world.rows_counted(&event, 0).await, (0, 0));
}

#[tokio::test]
async fn an_expired_hold_returns_its_stock_within_a_second() {
    let world = World::start().await;
    let mut draft = World::draft(&[2]);
    // Long enough for a look meanwhile, and short enough that nothing grows too old in the outbox when it has run out.
    draft["hold_seconds"] = json!(60);
    let event = world.on_sale(&draft).await;
    let mut took = Vec::new();
    for key in ["first", "second", "third", "fourth", "fifth"] {
        let held = world.book(&event.id, key, &event.hold("ann", 2)).await.expect(201);
        world.book(&event.id, "other", &event.request("bob", 1)).await.refused(409, "sold_out");
        let expired = Instant::now();
        world.let_run_out(&event, &held).await;
        eventually("the stock to come back", || async { world.counts(&event, 0).await == (0, 0, 2) }).await;
        took.push(expired.elapsed());
        let now = world.booking(&event.id, &id(&held)).await.expect(200);
        assert_eq!(now["status"], "expired");
        assert_eq!(now["expires_at"], held["expires_at"]);
        assert_eq!(world.cancel(&event.id, &id(&held)).await.expect(200)["status"], "expired");
    }
    // A busy machine may be late now and then.
    took.sort_unstable();
    assert!(took[took.len() / 2] < Duration::from_secs(1), "{took:?}");
    world.drained(&event).await;
    assert_eq!(world.rows_counted(&event, 0).await, (0, 0));
}

#[tokio::test]
async fn a_late_payment_takes_the_stock_again_if_it_can() {
    let world = World::start().await;
    let mut draft = World::draft(&[2]);
    draft["hold_seconds"] = json!(1);
    let event = world.on_sale(&draft).await;
    let lucky = id(&world.book(&event.id, "lucky", &event.hold("ann", 1)).await.expect(201));
    let late = id(&world.book(&event.id, "late", &event.hold("bob", 1)).await.expect(201));
    eventually("both holds to expire", || async { world.counts(&event, 0).await == (0, 0, 2) }).await;
    world.book(&event.id, "third", &event.request("cleo", 1)).await.expect(201);
    let confirmed = world.confirm(&event.id, &lucky, "pay").await.expect(200);
    assert_eq!(confirmed["status"], "confirmed");
    world.confirm(&event.id, &late, "pay").await.refused(409, "hold_expired");
    assert_eq!(world.counts(&event, 0).await, (0, 2, 0));
    world.drained(&event).await;
    assert_eq!(world.rows_counted(&event, 0).await, (0, 2));
}

#[tokio::test]
async fn a_live_hold_is_confirmed_although_the_event_is_paused_or_closed() {
    let world = World::start().await;
    for status in ["paused", "closed"] {
        let event = world.on_sale(&World::draft(&[2])).await;
        let held = id(&world.book(&event.id, "k", &event.hold("ann", 1)).await.expect(201));
        world.patch(&event.id, &json!({"status": status})).await.expect(200);
        world.book(&event.id, "l", &event.request("bob", 1)).await.refused(409, "not_on_sale");
        assert_eq!(world.confirm(&event.id, &held, "pay").await.expect(200)["status"], "confirmed");
    }
}

#[tokio::test]
async fn an_expired_hold_of_a_paused_event_cannot_be_taken_again() {
    let world = World::start().await;
    let mut draft = World::draft(&[2]);
    draft["hold_seconds"] = json!(1);
    let event = world.on_sale(&draft).await;
    let held = id(&world.book(&event.id, "k", &event.hold("ann", 1)).await.expect(201));
    world.patch(&event.id, &json!({"status": "paused"})).await.expect(200);
    eventually("the hold to expire", || async { world.counts(&event, 0).await == (0, 0, 2) }).await;
    world.confirm(&event.id, &held, "pay").await.refused(409, "hold_expired");
    world.patch(&event.id, &json!({"status": "on_sale"})).await.expect(200);
    world.confirm(&event.id, &held, "pay").await.expect(200);
}
