//! Selling, and saying the same again.

use futures_util::future::join_all;
use serde_json::json;

use crate::http::id;
use crate::world::World;

#[tokio::test]
async fn a_booking_goes_through_redis_and_kafka_into_postgresql() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10, 5])).await;
    let body = json!({"customer": "ann", "items": [
        {"ticket_type_id": event.types[1], "quantity": 2},
        {"ticket_type_id": event.types[0], "quantity": 1},
    ]});
    let reply = world.book(&event.id, "order-1", &body).await;
    let booking = reply.expect(201);
    let booking_id = id(&booking);
    assert_eq!(
        reply.header("location"),
        Some(format!("/v1/events/{}/bookings/{booking_id}", event.id).as_str())
    );
    assert_eq!(reply.header("idempotent-replayed"), None);
    assert_eq!(booking["status"], "confirmed");
    assert_eq!(booking["event_id"], event.id);
    assert_eq!(booking["customer"], "ann");
    assert_eq!(booking["total"], json!({"amount": 2 * 1001 + 1000, "currency": "EUR"}));
    assert_eq!(
        booking["items"][0],
        json!({
            "ticket_type_id": event.types[1], "quantity": 2, "unit_price": {"amount": 1001, "currency": "EUR"}
        })
    );
    assert!(booking["expires_at"].is_null() && booking["payment_reference"].is_null());

    world.drained(&event).await;
    let row: (String, String, i64, String) = sqlx::query_as(
        "SELECT status, customer, total_amount, idempotency_key FROM bookings WHERE id = $1::uuid",
    )
    .bind(&booking_id)
    .fetch_one(&world.pool)
    .await
    .unwrap();
    assert_eq!(row, ("confirmed".into(), "ann".into(), 3002, "order-1".into()));
    let items: Vec<(i16, i32, i64)> = sqlx::query_as(
        "SELECT ordinal, quantity, unit_price FROM booking_items WHERE booking_id = $1::uuid ORDER BY ordinal",
    )
    .bind(&booking_id)
    .fetch_all(&world.pool)
    .await
    .unwrap();
    assert_eq!(items, [(0, 2, 1001), (1, 1, 1000)]);
    assert_eq!(world.rows_counted(&event, 0).await, (0, 1));
    assert_eq!(world.rows_counted(&event, 1).await, (0, 2));
    assert_eq!(world.booking(&event.id, &booking_id).await.expect(200), booking);
    assert_eq!(world.counts(&event, 0).await, (0, 1, 9));
}

#[tokio::test]
async fn a_replay_is_the_same_response_to_the_letter_even_after_the_booking_changed() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let first = world.book(&event.id, "k", &event.hold("ann", 2)).await;
    let booking = id(&first.expect(201));
    world.confirm(&event.id, &booking, "pay-1").await.expect(200);
    world.cancel(&event.id, &booking).await.expect(200);
    let replay = world.book(&event.id, "k", &event.hold("ann", 2)).await;
    assert_eq!(replay.status, 201);
    assert_eq!(replay.body, first.body);
    assert_eq!(replay.header("location"), first.header("location"));
    assert_eq!(replay.header("idempotent-replayed"), Some("true"));
}

#[tokio::test]
async fn white_space_and_the_order_of_members_do_not_make_another_body() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let first = world.book(&event.id, "k", &event.request("ann", 1)).await;
    let text = format!(
        "{{ \"items\" :\n [ {{\"quantity\":1, \"ticket_type_id\":\"{}\"}} ], \"hold\": false, \"customer\":\"ann\" }}",
        event.types[0]
    );
    let request = world.http.post(world.url(&format!("/v1/events/{}/bookings", event.id)));
    let request =
        request.header("Idempotency-Key", "k").header("Content-Type", "application/json").body(text);
    let replay = crate::http::Reply::of(request.send().await.unwrap()).await;
    assert_eq!((replay.status, replay.body), (201, first.body));
}

#[tokio::test]
async fn a_key_is_refused_for_another_body_and_free_for_another_event() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let other = world.on_sale(&World::draft(&[10])).await;
    world.book(&event.id, "k", &event.request("ann", 1)).await.expect(201);
    world.book(&event.id, "k", &event.request("ann", 2)).await.refused(422, "idempotency_key_reused");
    world.book(&event.id, "k", &event.request("bob", 1)).await.refused(422, "idempotency_key_reused");
    world.book(&event.id, "k", &event.hold("ann", 1)).await.refused(422, "idempotency_key_reused");
    let reply = world.book(&other.id, "k", &other.request("ann", 1)).await;
    reply.expect(201);
    assert_eq!(reply.header("idempotent-replayed"), None);
    assert_eq!(world.counts(&event, 0).await, (0, 1, 9));
}

#[tokio::test]
async fn a_refusal_is_not_pinned_to_its_key() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[1])).await;
    let taken = id(&world.book(&event.id, "a", &event.request("ann", 1)).await.expect(201));
    world.book(&event.id, "b", &event.request("bob", 1)).await.refused(409, "sold_out");
    world.cancel(&event.id, &taken).await.expect(200);
    world.book(&event.id, "b", &event.request("bob", 1)).await.expect(201);
}

#[tokio::test]
async fn all_items_are_booked_or_none() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10, 1])).await;
    let body = json!({"customer": "ann", "items": [
        {"ticket_type_id": event.types[0], "quantity": 3},
        {"ticket_type_id": event.types[1], "quantity": 2},
    ]});
    world.book(&event.id, "k", &body).await.refused(409, "sold_out");
    assert_eq!(world.counts(&event, 0).await, (0, 0, 10));
    assert_eq!(world.counts(&event, 1).await, (0, 0, 1));
}

#[tokio::test]
async fn of_200_clients_who_want_the_only_ticket_one_gets_it() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[1])).await;
    let requests =
        (0..200).map(|n| {
            let (world, event) = (&world, &event);
            async move {
                world.book(&event.id, &format!("key-{n}"), &event.request(&format!("buyer-{n}"), 1)).await
            }
        });
    let replies = join_all(requests).await;
    let sold = replies.iter().filter(|reply| reply.status == 201).count();
    for reply in replies.iter().filter(|reply| reply.status != 201) {
        reply.refused(409, "sold_out");
    }
    assert_eq!(sold, 1);
    world.drained(&event).await;
    assert_eq!(world.rows_counted(&event, 0).await, (0, 1));
}

#[tokio::test]
async fn of_64_requests_with_one_key_at_once_one_books_and_63_are_replays() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[100])).await;
    let requests = (0..64).map(|_| world.book_owned(&event, "the-key", event.request("ann", 2)));
    let replies = join_all(requests).await;
    let replayed = replies.iter().filter(|reply| reply.header("idempotent-replayed") == Some("true")).count();
    assert_eq!(replayed, 63);
    assert!(replies.iter().all(|reply| reply.status == 201 && reply.body == replies[0].body));
    assert_eq!(world.counts(&event, 0).await, (0, 2, 98));
    world.drained(&event).await;
    assert_eq!(world.rows_of(&event).await, 1);
}
