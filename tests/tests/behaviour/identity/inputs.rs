//! Fields and ids that try to be more than they are.

use serde_json::json;

use super::{KEYS, Key, operated};
use crate::http::{Reply, id};
use crate::world::World;

#[tokio::test]
async fn nobody_states_what_is_ours_to_decide() {
    let (mut world, _) = operated(&KEYS).await;
    let mut draft = World::draft(&[10]);
    for (field, value) in [
        ("id", json!(uuid::Uuid::now_v7())),
        ("status", json!("on_sale")),
        ("created_at", json!("2020-01-01T00:00:00Z")),
        ("updated_at", json!("2020-01-01T00:00:00Z")),
        ("currency", json!("EUR")),
        ("slots", json!(1)),
    ] {
        draft[field] = value;
        world.post("/v1/events", &draft).await.refused(422, "validation_failed");
        draft.as_object_mut().unwrap().remove(field);
    }
    let event = world.on_sale(&draft).await;
    for (field, value) in
        [("created_at", json!("2020-01-01T00:00:00Z")), ("id", json!("x")), ("held", json!(0))]
    {
        world.patch(&event.id, &json!({ field: value })).await.refused(422, "validation_failed");
    }
    world.present_key(&Key::storefront(&world.settings, "acme")).await;
    for (field, value) in [
        ("status", json!("confirmed")),
        ("total", json!({"amount": 0, "currency": "EUR"})),
        ("created_at", json!("2020-01-01T00:00:00Z")),
        ("expires_at", json!(null)),
        ("payment_reference", json!("paid")),
        ("caller", json!("operator")),
        ("storefront", json!("other")),
        ("id", json!(uuid::Uuid::now_v7())),
    ] {
        let mut request = event.hold("ann", 1);
        request[field] = value;
        world.book(&event.id, field, &request).await.refused(422, "validation_failed");
    }
    let mut request = event.hold("ann", 1);
    request["items"][0]["unit_price"] = json!({"amount": 0, "currency": "EUR"});
    world.book(&event.id, "price", &request).await.refused(422, "validation_failed");
    assert_eq!(world.counts(&event, 0).await, (0, 0, 10));
}

#[tokio::test]
async fn an_id_of_any_bytes_is_no_id_and_reaches_no_store() {
    let (world, _) = operated(&KEYS).await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let booking = id(&world.book(&event.id, "k", &event.request("ann", 1)).await.expect(201));
    let keys = keys_in_redis(&world).await;
    for tricky in
        ["%00", "..%2F..%2Fetc", "%0d%0aSET%20x%201", "%7B%7D", "%7Bs00%7D", "*", "%2A", "%25s", "%5B%5D"]
    {
        // Behind a right id too: what begins well must not be cut.
        for bad in [tricky.to_owned(), format!("{}{tricky}", event.id), format!("{tricky}{}", event.id)] {
            world.get(&format!("/v1/events/{bad}")).await.refused(404, "event_not_found");
            world.publish(&bad).await.refused(404, "event_not_found");
            world.patch(&bad, &json!({"name": "x"})).await.refused(404, "event_not_found");
            world.book(&bad, "k", &event.request("ann", 1)).await.refused(404, "event_not_found");
        }
        for bad in [tricky.to_owned(), format!("{booking}{tricky}")] {
            world.booking(&event.id, &bad).await.refused(404, "booking_not_found");
            world.cancel(&event.id, &bad).await.refused(404, "booking_not_found");
        }
    }
    assert_eq!(keys_in_redis(&world).await, keys);
}

#[tokio::test]
async fn a_customer_or_an_idempotency_key_of_braces_and_stars_is_only_text() {
    let (world, _) = operated(&KEYS).await;
    let event = world.on_sale(&World::draft(&[50])).await;
    world.book(&event.id, "plain", &event.request("plain", 1)).await.expect(201);
    let keys = keys_in_redis(&world).await;
    for (n, tricky) in
        ["{s00}", "}{", "*", "../..", "%s%n", "[a-z]", "'; DROP TABLE bookings; --"].iter().enumerate()
    {
        let key = tricky.replace(' ', "");
        let made = world.book(&event.id, &key, &event.request(tricky, 1)).await;
        assert_eq!(made.expect(201)["customer"], *tricky);
        let replay = world.book(&event.id, &key, &event.request(tricky, 1)).await;
        assert_eq!(replay.header("idempotent-replayed"), Some("true"), "{n}");
    }
    world.drained(&event).await;
    assert_eq!(world.rows_counted(&event, 0).await, (0, 8));
    // Slots and allowances are hashed: no key of Redis is named by a client.
    let named = keys_in_redis(&world)
        .await
        .into_iter()
        .find(|key| !keys.contains(key) && key.contains(['*', '%', '\'']));
    assert_eq!(named, None);
    for bad in ["a\u{0}b", "a\r\nb"] {
        world.book(&event.id, "control", &event.request(bad, 1)).await.refused(422, "validation_failed");
    }
    let listed = world.http.get(world.url("/v1/customers/%00/bookings")).send().await.unwrap();
    Reply::of(listed).await.refused(400, "malformed_request");
}

async fn keys_in_redis(world: &World) -> Vec<String> {
    let mut command = redis::cmd("KEYS");
    command.arg(format!("{}:*", world.settings.name));
    let mut keys: Vec<String> = world.redis(&command).await;
    keys.sort();
    keys
}
