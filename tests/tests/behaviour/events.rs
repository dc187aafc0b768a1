//! Drafts, publication, and changes during the sale.

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::gate::{Server, gated};
use crate::http::{Event, id};
use crate::world::{Settings, World, eventually};

#[tokio::test]
async fn a_draft_is_shown_but_not_sold_until_it_is_published() {
    let world = World::start().await;
    let reply = world.post("/v1/events", &World::draft(&[10])).await;
    let draft = reply.expect(201);
    let event = id(&draft);
    assert_eq!(reply.header("location"), Some(format!("/v1/events/{event}").as_str()));
    assert_eq!(draft["status"], "draft");
    assert_eq!(draft["hold_seconds"], 600);
    for absent in ["sales_open_at", "sales_close_at", "per_customer_limit"] {
        assert!(draft.get(absent).is_some_and(Value::is_null), "{absent} is null, not absent");
    }
    assert_eq!(world.get(&format!("/v1/events/{event}")).await.expect(200), draft);
    let availability = world.availability(&event).await;
    assert_eq!(availability["status"], "draft");
    assert_eq!(availability["ticket_types"][0]["available"], 0);
    assert_eq!(availability["ticket_types"][0]["on_sale"], false);
    let body = json!({"customer": "ann", "items": [{"ticket_type_id": draft["ticket_types"][0]["id"], "quantity": 1}]});
    world.book(&event, "k", &body).await.refused(409, "not_on_sale");

    let published = world.publish(&event).await.expect(200);
    assert_eq!(published["status"], "on_sale");
    let availability = world.availability(&event).await;
    assert_eq!(availability["ticket_types"][0]["available"], 10);
    assert_eq!(availability["ticket_types"][0]["on_sale"], true);
    assert_eq!(availability["stale"], false);
    world.book(&event, "k", &body).await.expect(201);
}

#[tokio::test]
async fn publishing_again_or_many_times_at_once_changes_nothing() {
    let world = World::start().await;
    let event = id(&world.post("/v1/events", &World::draft(&[10])).await.expect(201));
    let replies = join_all((0..8).map(|_| world.publish(&event))).await;
    for reply in &replies {
        assert_eq!(reply.expect(200), replies[0].expect(200));
    }
    let audit = world.get(&format!("/v1/events/{event}/audit")).await.expect(200);
    assert_eq!(audit["redis"]["sequence"], 1, "one decision: {audit}");
}

#[tokio::test]
async fn a_draft_can_be_changed_freely() {
    let world = World::start().await;
    let draft = world.post("/v1/events", &World::draft(&[10, 20])).await.expect(201);
    let change = json!({
        "name": "Another night", "sales_close_at": "2099-05-01T00:00:00Z", "per_customer_limit": 3,
        "ticket_types": [{"id": draft["ticket_types"][1]["id"], "capacity": 5}],
    });
    let changed = world.patch(&id(&draft), &change).await.expect(200);
    assert_eq!(changed["name"], "Another night");
    assert_eq!(changed["ticket_types"][1]["capacity"], 5);
    assert_eq!(changed["ticket_types"][0], draft["ticket_types"][0]);
    let published = world.publish(&id(&draft)).await.expect(200);
    assert_eq!(published["per_customer_limit"], 3);
    for status in ["on_sale", "paused", "closed"] {
        let other = id(&world.post("/v1/events", &World::draft(&[1])).await.expect(201));
        world.patch(&other, &json!({"status": status})).await.refused(409, "not_on_sale");
    }
}

/// None of them is that of another, nor that of a draft as the tests send it.
fn other_times() -> Value {
    json!({
        "starts_at": "2098-06-01T20:00:00.000Z",
        "sales_open_at": "2021-02-03T04:05:06.789Z",
        "sales_close_at": "2098-05-31T12:00:00.000Z",
    })
}

#[track_caller]
fn has_times(event: &Value, times: &Value) {
    for (field, time) in times.as_object().unwrap() {
        assert_eq!(event[field.as_str()], *time, "{field}: {event}");
    }
}

#[tokio::test]
async fn the_times_of_a_draft_can_be_changed_and_its_window_be_taken_away() {
    let world = World::start().await;
    let draft = id(&world.post("/v1/events", &World::draft(&[10])).await.expect(201));
    for times in [other_times(), json!({"sales_open_at": null, "sales_close_at": null})] {
        let changed = world.patch(&draft, &times).await.expect(200);
        has_times(&changed, &times);
        assert_eq!(world.get(&format!("/v1/events/{draft}")).await.expect(200), changed);
    }
}

#[tokio::test]
async fn an_event_whose_times_were_changed_while_it_was_sold_is_in_postgresql_as_it_is_in_redis() {
    let (world, gate) = gated(Server::Redis, &[]).await;
    let event = world.on_sale(&World::draft(&[10])).await;
    // The change comes to a row that is there already, and is not the publication's.
    world.drained(&event).await;
    let changed = world.patch(&event.id, &other_times()).await.expect(200);
    has_times(&changed, &other_times());
    let path = format!("/v1/events/{}", event.id);
    let live = world.get(&path).await;
    assert_eq!((live.expect(200), live.header("boxoffice-stale")), (changed.clone(), None));
    world.drained(&event).await;
    gate.shut();
    let recorded = world.get(&path).await;
    assert_eq!((recorded.expect(200), recorded.header("boxoffice-stale")), (changed, Some("true")));
}

#[tokio::test]
async fn an_event_can_be_paused_resumed_and_closed_for_good() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    world.patch(&event.id, &json!({"status": "paused"})).await.expect(200);
    world.book(&event.id, "a", &event.request("ann", 1)).await.refused(409, "not_on_sale");
    assert_eq!(world.availability(&event.id).await["ticket_types"][0]["on_sale"], false);
    world.patch(&event.id, &json!({"status": "on_sale"})).await.expect(200);
    world.book(&event.id, "a", &event.request("ann", 1)).await.expect(201);
    assert_eq!(world.patch(&event.id, &json!({"status": "closed"})).await.expect(200)["status"], "closed");
    world.patch(&event.id, &json!({"status": "closed"})).await.expect(200);
    world.patch(&event.id, &json!({"status": "on_sale"})).await.refused(409, "not_on_sale");
    world.publish(&event.id).await.refused(409, "not_on_sale");
    world.book(&event.id, "b", &event.request("ann", 1)).await.refused(409, "not_on_sale");
    world.drained(&event).await;
    let status: String = sqlx::query_scalar("SELECT status FROM events WHERE id = $1::uuid")
        .bind(&event.id)
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert_eq!(status, "closed");
}

#[tokio::test]
async fn a_capacity_can_be_raised_and_lowered_but_not_below_what_is_gone() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[5])).await;
    world.book(&event.id, "a", &event.request("ann", 3)).await.expect(201);
    world.book(&event.id, "h", &event.hold("ann", 1)).await.expect(201);
    let to = |capacity: i64| json!({"name": "renamed", "ticket_types": [{"id": event.types[0], "capacity": capacity}]});
    world.patch(&event.id, &to(3)).await.refused(409, "capacity_below_sold");
    let unchanged = world.get(&format!("/v1/events/{}", event.id)).await.expect(200);
    assert_eq!(unchanged["name"], "A night out", "all or nothing");
    world.patch(&event.id, &to(4)).await.expect(200);
    world.book(&event.id, "b", &event.request("bob", 1)).await.refused(409, "sold_out");
    world.patch(&event.id, &to(6)).await.expect(200);
    world.book(&event.id, "b", &event.request("bob", 2)).await.expect(201);
    world.drained(&event).await;
    assert_eq!(world.rows_counted(&event, 0).await, (1, 5));
    let row: (i32, String) = sqlx::query_as(
        "SELECT t.capacity, e.name FROM ticket_types t JOIN events e ON e.id = t.event_id WHERE e.id = $1::uuid",
    )
    .bind(&event.id)
    .fetch_one(&world.pool)
    .await
    .unwrap();
    assert_eq!(row, (6, "renamed".into()));
}

#[tokio::test]
async fn the_same_value_changes_nothing() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[5])).await;
    let before = world.get(&format!("/v1/events/{}", event.id)).await.expect(200);
    let same = json!({"name": "A night out", "status": "on_sale", "ticket_types": [{"id": event.types[0], "capacity": 5}]});
    assert_eq!(world.patch(&event.id, &same).await.expect(200), before);
    assert_eq!(world.patch(&event.id, &json!({})).await.expect(200), before);
}

#[tokio::test]
async fn sales_open_and_close_by_their_window() {
    let world = World::start().await;
    let mut draft = World::draft(&[5]);
    draft["sales_open_at"] = json!("2098-01-01T00:00:00Z");
    let event = world.on_sale(&draft).await;
    assert_eq!(world.availability(&event.id).await["ticket_types"][0]["on_sale"], false);
    world.book(&event.id, "a", &event.request("ann", 1)).await.refused(409, "not_on_sale");
    world.patch(&event.id, &json!({"sales_open_at": null})).await.expect(200);
    assert_eq!(world.availability(&event.id).await["ticket_types"][0]["on_sale"], true);
    world.book(&event.id, "a", &event.request("ann", 1)).await.expect(201);

    let soon = chrono::Utc::now() + chrono::Duration::milliseconds(1_500);
    world.patch(&event.id, &json!({"sales_close_at": soon.to_rfc3339()})).await.expect(200);
    eventually("sales to close", || async {
        world.availability(&event.id).await["ticket_types"][0]["on_sale"] == false
    })
    .await;
    world.book(&event.id, "b", &event.request("ann", 1)).await.refused(409, "not_on_sale");
}

/// RFC 3339 has leap seconds, and no clock of ours does.
#[tokio::test]
async fn a_leap_second_is_the_first_second_of_the_next_minute() {
    let world = World::start().await;
    let mut draft = World::draft(&[5]);
    draft["sales_open_at"] = json!("2031-06-30T23:59:60.5Z");
    draft["sales_close_at"] = json!("2031-07-01T00:00:00Z");
    world.post("/v1/events", &draft).await.refused(422, "validation_failed");
    draft["sales_close_at"] = json!("9999-12-31T23:59:60Z");
    world.post("/v1/events", &draft).await.refused(422, "validation_failed");
    draft["sales_close_at"] = json!("2031-07-01T00:00:01Z");
    let created = world.post("/v1/events", &draft).await;
    let event = created.expect(201);
    assert_eq!(event["sales_open_at"], "2031-07-01T00:00:00.500Z");
    let read = world.get(&format!("/v1/events/{}", id(&event))).await;
    assert_eq!((read.expect(200), read.header("etag")), (event, created.header("etag")));
}

/// The word of its publication went with a gap that was accepted, and Redis has lost the event since. Its booking counts nowhere
/// any more, and its key is used.
#[tokio::test]
async fn an_event_that_was_sold_is_not_published_anew_although_postgresql_takes_it_for_a_draft() {
    let world = World::start().await;
    let draft = world.post("/v1/events", &World::draft(&[10])).await.expect(201);
    let event = draft["id"].as_str().unwrap();
    let cancelled = "INSERT INTO bookings (id, event_id, caller, idempotency_key, fingerprint, customer, status, first_status, \
                     currency, total_amount, created_at, updated_at, epoch, sequence) \
                     VALUES (gen_random_uuid(), $1::uuid, '-', 'k', '', 'ann', 'cancelled', 'confirmed', 'EUR', 1000, now(), \
                     now(), 1, 2)";
    sqlx::query(cancelled).bind(event).execute(&world.pool).await.unwrap();
    world.publish(event).await.refused(503, "inventory_unverified");
    sqlx::query("DELETE FROM bookings WHERE event_id = $1::uuid")
        .bind(event)
        .execute(&world.pool)
        .await
        .unwrap();
    world.publish(event).await.expect(200);
}

/// Nobody applies the log, so that PostgreSQL takes for a draft what is sold out.
#[tokio::test]
async fn an_event_that_redis_lost_is_not_published_anew_before_the_log_tells_that_it_was_on_sale() {
    let (world, (stop, reconciler)) = World::beside_a_reconciler(Settings::fresh().await).await;
    stop.cancel();
    reconciler.await.unwrap();
    let event = world.on_sale(&World::draft(&[10])).await;
    for n in 0..10 {
        world.book(&event.id, &format!("k{n}"), &event.request("ann", 1)).await.expect(201);
    }
    // As long as Redis has it nobody else is asked.
    assert_eq!(world.publish(&event.id).await.expect(200)["status"], "on_sale");
    let mut lose = redis::cmd("DEL");
    lose.arg(world.event_key(&event));
    lose.arg(world.keys.customers(world.shard_of(&event), event.id.parse().unwrap()));
    assert_eq!(world.redis::<i64>(&lose).await, 2);
    let is_refused = async || {
        world.publish(&event.id).await.refused(503, "inventory_unverified");
        world.book(&event.id, "new", &event.request("bob", 1)).await.refused(503, "inventory_unverified");
    };
    is_refused().await;
    let stop = CancellationToken::new();
    world.settings.start_reconciler(&stop);
    eventually("all to be applied", || async { world.rows_of(&event).await == 10 }).await;
    is_refused().await;
    stop.cancel();
}

/// Whoever froze the draft died before Redis was asked. Meanwhile another event is sold, and the log is behind.
#[tokio::test]
async fn an_interrupted_publication_is_finished_once_the_log_is_applied_as_far_as_redis_had_decided() {
    let (world, (stop, reconciler)) = World::beside_a_reconciler(Settings::fresh().await).await;
    let draft = id(&world.post("/v1/events", &World::draft(&[10])).await.expect(201));
    let draft = Event { id: draft, types: Vec::new() };
    let frozen = "UPDATE events SET frozen_at = now(), slots = 1 WHERE id = $1::uuid";
    sqlx::query(frozen).bind(&draft.id).execute(&world.pool).await.unwrap();
    stop.cancel();
    reconciler.await.unwrap();
    world.on_sale_beside(&draft, &World::draft(&[10])).await;
    world.publish(&draft.id).await.refused(503, "inventory_unverified");
    let stop = CancellationToken::new();
    world.settings.start_reconciler(&stop);
    eventually("the publication to be finished", || async {
        let reply = world.publish(&draft.id).await;
        assert!([503, 200].contains(&reply.status), "{reply:?}");
        reply.status == 200
    })
    .await;
    assert_eq!(world.availability(&draft.id).await["ticket_types"][0]["available"], 10);
    stop.cancel();
}
