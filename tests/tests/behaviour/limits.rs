//! How many tickets one customer may have.

use serde_json::json;

use crate::http::id;
use crate::world::{World, eventually};

#[tokio::test]
async fn a_customer_gets_no_more_than_the_event_allows_over_all_types_and_bookings() {
    let world = World::start().await;
    let mut draft = World::draft(&[100, 100]);
    draft["per_customer_limit"] = json!(4);
    let event = world.on_sale(&draft).await;
    let of_second = |quantity: i64| json!({"customer": "ann", "items": [{"ticket_type_id": event.types[1], "quantity": quantity}]});
    world.book(&event.id, "a", &event.request("ann", 5)).await.refused(409, "limit_exceeded");
    world.book(&event.id, "b", &event.request("ann", 3)).await.expect(201);
    world.book(&event.id, "c", &of_second(2)).await.refused(409, "limit_exceeded");
    world.book(&event.id, "d", &of_second(1)).await.expect(201);
    world.book(&event.id, "e", &event.request("ann", 1)).await.refused(409, "limit_exceeded");
    world.book(&event.id, "f", &event.request("bob", 4)).await.expect(201);
}

#[tokio::test]
async fn a_customer_gets_no_more_of_a_type_than_it_allows() {
    let world = World::start().await;
    let mut draft = World::draft(&[100, 100]);
    draft["ticket_types"][0]["per_customer_limit"] = json!(2);
    let event = world.on_sale(&draft).await;
    world.book(&event.id, "a", &event.request("ann", 2)).await.expect(201);
    world.book(&event.id, "b", &event.request("ann", 1)).await.refused(409, "limit_exceeded");
    let second = json!({"customer": "ann", "items": [{"ticket_type_id": event.types[1], "quantity": 50}]});
    world.book(&event.id, "c", &second).await.expect(201);
}

#[tokio::test]
async fn cancelled_and_expired_tickets_give_the_allowance_back() {
    let world = World::start().await;
    let mut draft = World::draft(&[100]);
    draft["per_customer_limit"] = json!(2);
    draft["hold_seconds"] = json!(1);
    let event = world.on_sale(&draft).await;
    let sold = id(&world.book(&event.id, "a", &event.request("ann", 2)).await.expect(201));
    world.book(&event.id, "b", &event.hold("ann", 2)).await.refused(409, "limit_exceeded");
    world.cancel(&event.id, &sold).await.expect(200);
    world.book(&event.id, "b", &event.hold("ann", 2)).await.expect(201);
    world.book(&event.id, "c", &event.request("ann", 1)).await.refused(409, "limit_exceeded");
    eventually("the hold to expire", || async { world.counts(&event, 0).await == (0, 0, 100) }).await;
    world.book(&event.id, "c", &event.request("ann", 2)).await.expect(201);
}

#[tokio::test]
async fn a_limit_can_be_changed_and_lifted_during_the_sale() {
    let world = World::start().await;
    let mut draft = World::draft(&[100]);
    draft["per_customer_limit"] = json!(1);
    let event = world.on_sale(&draft).await;
    world.book(&event.id, "a", &event.request("ann", 1)).await.expect(201);
    world.book(&event.id, "b", &event.request("ann", 1)).await.refused(409, "limit_exceeded");
    world.patch(&event.id, &json!({"per_customer_limit": 2})).await.expect(200);
    world.book(&event.id, "b", &event.request("ann", 1)).await.expect(201);
    world.patch(&event.id, &json!({"per_customer_limit": null})).await.expect(200);
    world.book(&event.id, "c", &event.request("ann", 50)).await.expect(201);
}
