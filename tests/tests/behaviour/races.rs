//! Confirmation, cancellation and expiry of the same booking at once: the stock adds up every time.

use futures_util::StreamExt;
use futures_util::stream;
use serde_json::json;

use crate::http::id;
use crate::world::{World, eventually};

const ROUNDS: usize = 1_000;

/// Each round holds a ticket and lets a confirmation, a cancellation and, in half of the rounds, its expiry race.
async fn round(world: &World, event: &crate::http::Event, n: usize) {
    let held =
        world.book(&event.id, &format!("round-{n}"), &event.hold(&format!("buyer-{n}"), 1)).await.expect(201);
    let booking = id(&held);
    if n.is_multiple_of(2) {
        let expires = held["expires_at"].as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
        let left = expires - chrono::Utc::now();
        // Time itself is what is tested here: the calls go out when the hold runs out.
        tokio::time::sleep(left.to_std().unwrap_or_default()).await;
    }
    let (confirmed, cancelled) =
        tokio::join!(world.confirm(&event.id, &booking, "pay"), world.cancel(&event.id, &booking));
    assert!([200, 409].contains(&confirmed.status), "{confirmed:?}");
    cancelled.expect(200);
}

#[tokio::test]
async fn hold_cancel_expire_and_confirm_raced_a_thousand_times_leave_stock_that_adds_up() {
    let world = World::start().await;
    let mut draft = World::draft(&[2_000]);
    draft["hold_seconds"] = json!(1);
    let event = world.on_sale(&draft).await;
    stream::iter(0..ROUNDS).for_each_concurrent(100, |n| round(&world, &event, n)).await;
    eventually("all holds to be settled", || async { world.counts(&event, 0).await.0 == 0 }).await;
    world.drained(&event).await;

    let by_status: Vec<(String, i64)> = sqlx::query_as(
        "SELECT b.status, sum(i.quantity) FROM bookings b JOIN booking_items i ON i.booking_id = b.id
         WHERE b.event_id = $1::uuid GROUP BY b.status",
    )
    .bind(&event.id)
    .fetch_all(&world.pool)
    .await
    .unwrap();
    let of = |status: &str| by_status.iter().find(|(s, _)| s == status).map_or(0, |(_, count)| *count);
    assert_eq!(of("held"), 0);
    assert_eq!(of("confirmed") + of("cancelled") + of("expired"), ROUNDS as i64, "{by_status:?}");
    assert_eq!(world.counts(&event, 0).await, (0, of("confirmed"), 2_000 - of("confirmed")));
    assert_eq!(world.rows_counted(&event, 0).await, (0, of("confirmed")));
}
