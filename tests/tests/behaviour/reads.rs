//! Lists, pages, and what a reader sees right after a decision.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::gate::{Gate, Server, gated};
use crate::http::{Event, id};
use crate::world::{Settings, World, eventually};

#[tokio::test]
async fn a_booking_is_readable_right_after_its_answer() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[50])).await;
    for n in 0..20 {
        let booking = world.book(&event.id, &format!("k{n}"), &event.request("ann", 1)).await.expect(201);
        assert_eq!(world.booking(&event.id, &id(&booking)).await.expect(200), booking);
    }
}

/// A booking in every state, and one of two ticket types that does not name them as the event does; as Redis shows them.
async fn in_every_state(world: &World, event: &Event) -> Vec<Value> {
    let hold = async |key: &str| world.book(&event.id, key, &event.hold(key, 2)).await.expect(201);
    let expired = hold("expired").await;
    // First, since the clock that it needs would let the others run out as well.
    world.let_run_out(event, &expired).await;
    eventually("the hold to expire", || async { world.counts(event, 0).await == (0, 0, 10) }).await;
    let (held, paid, cancelled) = (hold("held").await, hold("paid").await, hold("cancelled").await);
    world.confirm(&event.id, &id(&paid), "pay-1").await.expect(200);
    world.cancel(&event.id, &id(&cancelled)).await.expect(200);
    let mut both = event.request("both", 1);
    both["items"] = json!([
        {"ticket_type_id": event.types[1], "quantity": 3},
        {"ticket_type_id": event.types[0], "quantity": 1},
    ]);
    let both = world.book(&event.id, "both", &both).await.expect(201);
    let mut shown = Vec::new();
    for booking in [expired, held, paid, cancelled, both] {
        let read = world.booking(&event.id, &id(&booking)).await;
        assert_eq!(read.header("boxoffice-stale"), None);
        shown.push(read.expect(200));
    }
    shown
}

#[tokio::test]
async fn a_booking_is_listed_and_shown_from_postgresql_as_it_was_shown_from_redis() {
    let (world, gate) = gated(Server::Redis, &[]).await;
    let mut draft = World::draft(&[10, 10]);
    // So that nothing is too old for the outbox when a hold has run out.
    draft["hold_seconds"] = json!(60);
    let event = world.on_sale(&draft).await;
    let mut shown = in_every_state(&world, &event).await;
    let statuses: Vec<&Value> = shown.iter().map(|booking| &booking["status"]).collect();
    assert_eq!(statuses, ["expired", "held", "confirmed", "cancelled", "confirmed"]);
    assert_eq!(shown[2]["payment_reference"], "pay-1");
    assert_eq!(shown[4]["items"][0]["ticket_type_id"], event.types[1]);
    world.drained(&event).await;
    let list = world.get(&format!("/v1/events/{}/bookings", event.id)).await.expect(200);
    let mut listed = list["items"].as_array().unwrap().clone();
    for bookings in [&mut listed, &mut shown] {
        bookings.sort_by_key(id);
    }
    assert_eq!(listed, shown);
    gate.shut();
    for booking in &shown {
        let read = world.booking(&event.id, &id(booking)).await;
        assert_eq!((&read.expect(200), read.header("boxoffice-stale")), (booking, Some("true")));
    }
}

#[tokio::test]
async fn nobody_in_a_crowd_of_readers_is_shown_less_than_was_sold_before_they_asked() {
    let world = World::start().await;
    let events = [world.on_sale(&World::draft(&[100])).await, world.on_sale(&World::draft(&[100])).await];
    let (sold, over) = ([AtomicI64::new(0), AtomicI64::new(0)], AtomicBool::new(false));
    let sell = async {
        for n in 0..60 {
            let (event, sold) = (&events[n % 2], &sold[n % 2]);
            world.book(&event.id, &format!("k{n}"), &event.request(&format!("c{n}"), 1)).await.expect(201);
            sold.fetch_add(1, Ordering::SeqCst);
        }
        over.store(true, Ordering::SeqCst);
    };
    let read = async |reader: usize| {
        let mut reads = 0;
        while !over.load(Ordering::SeqCst) {
            // One of them reads the other event now and then.
            let at = usize::from(reader == 0 && reads % 3 == 0);
            let before = sold[at].load(Ordering::SeqCst);
            let (_, shown, left) = world.counts(&events[at], 0).await;
            // The booking that is under way may be shown already.
            let after = sold[at].load(Ordering::SeqCst) + 1;
            assert!((before..=after).contains(&shown), "shown {shown}, and {before} to {after} were sold");
            assert_eq!(shown + left, 100);
            reads += 1;
        }
        reads
    };
    let ((), reads) = tokio::join!(sell, join_all((0..24).map(read)));
    assert!(reads.iter().all(|reads| *reads > 0), "{reads:?}");
}

#[tokio::test]
async fn lists_go_newest_first_in_pages_that_lose_and_repeat_nothing() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[50])).await;
    let mut made = Vec::new();
    for n in 0..7 {
        let customer = if n % 2 == 0 { "ann" } else { "bob/%? ü" };
        made.push(id(&world
            .book(&event.id, &format!("k{n}"), &event.request(customer, 1))
            .await
            .expect(201)));
    }
    world.drained(&event).await;
    made.reverse();
    let mut seen = Vec::new();
    let mut path = format!("/v1/events/{}/bookings?limit=3", event.id);
    loop {
        let page = world.get(&path).await.expect(200);
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 3);
        seen.extend(items.iter().map(id));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/events/{}/bookings?limit=3&cursor={cursor}", event.id);
    }
    assert_eq!(seen, made);

    let bobs = world.get("/v1/customers/bob%2F%25%3F%20%C3%BC/bookings").await.expect(200);
    assert_eq!(bobs["items"].as_array().unwrap().len(), 3);
    assert!(bobs["next_cursor"].is_null());
    world.cancel(&event.id, &made[0]).await.expect(200);
    world.drained(&event).await;
    let cancelled =
        world.get(&format!("/v1/events/{}/bookings?status=cancelled", event.id)).await.expect(200);
    assert_eq!(cancelled["items"].as_array().unwrap().iter().map(id).collect::<Vec<_>>(), made[..1]);
}

#[tokio::test]
async fn events_are_listed_newest_first() {
    let world = World::start().await;
    let mut made = Vec::new();
    for _ in 0..3 {
        made.push(id(&world.post("/v1/events", &World::draft(&[1])).await.expect(201)));
    }
    made.reverse();
    let first = world.get("/v1/events?limit=2").await.expect(200);
    assert_eq!(first["items"].as_array().unwrap().iter().map(id).collect::<Vec<_>>(), made[..2]);
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = world.get(&format!("/v1/events?limit=2&cursor={cursor}")).await.expect(200);
    assert_eq!(second["items"].as_array().unwrap().iter().map(id).collect::<Vec<_>>(), made[2..]);
}

/// A world in which an event was put on sale that PostgreSQL takes for a draft, since nobody applies the log any more.
async fn with_a_publication_under_way() -> (World, Gate, Event) {
    let (settings, gate) = Settings::fresh().await.gated(Server::Redis).await;
    let (world, (stop, reconciler)) = World::beside_a_reconciler(settings).await;
    stop.cancel();
    reconciler.await.unwrap();
    let event = world.on_sale(&World::draft(&[10])).await;
    (world, gate, event)
}

#[tokio::test]
async fn an_event_that_was_just_put_on_sale_is_in_no_list_of_drafts() {
    let (world, _gate, event) = with_a_publication_under_way().await;
    let draft = world.post("/v1/events", &World::draft(&[10])).await.expect(201);
    let all = world.get("/v1/events").await;
    assert_eq!(all.header("boxoffice-stale"), None);
    let all = all.expect(200);
    assert_eq!((&all["items"][0], id(&all["items"][1])), (&draft, event.id.clone()));
    assert_eq!(all["items"][1]["status"], "on_sale");
    assert_eq!(world.get("/v1/events?status=draft").await.expect(200)["items"], json!([draft]));
    // What a Redis that nobody has verified says of it may be older.
    let certificate = world.keys.certificate(world.shard_of(&event));
    let _: i64 = world.redis(redis::cmd("DEL").arg(&certificate)).await;
    let all = world.get("/v1/events").await;
    assert_eq!(all.header("boxoffice-stale"), Some("true"));
    assert_eq!(all.expect(200)["items"][1]["status"], "on_sale");
}

#[tokio::test]
async fn a_list_without_the_word_of_redis_says_that_it_is_stale() {
    let (world, gate, event) = with_a_publication_under_way().await;
    gate.shut();
    let list = world.get("/v1/events?status=draft").await;
    assert_eq!(list.header("boxoffice-stale"), Some("true"));
    assert_eq!(id(&list.expect(200)["items"][0]), event.id);
    gate.open();
    eventually("Redis to say that the event is on sale", || async {
        let list = world.get("/v1/events?status=draft").await;
        list.header("boxoffice-stale").is_none() && list.expect(200)["items"] == json!([])
    })
    .await;
}

/// As after a restoration from a backup that was made before the event was, until the log is read so far.
#[tokio::test]
async fn an_event_on_sale_that_postgresql_does_not_know_yet_is_not_said_not_to_exist() {
    let (world, _gate, event) = with_a_publication_under_way().await;
    for delete in
        ["DELETE FROM ticket_types WHERE event_id = $1::uuid", "DELETE FROM events WHERE id = $1::uuid"]
    {
        sqlx::query(delete).bind(&event.id).execute(&world.pool).await.unwrap();
    }
    world.book(&event.id, "a", &event.request("ann", 2)).await.expect(201);
    let path = format!("/v1/events/{}", event.id);
    let read = world.get(&path).await;
    assert_eq!((&read.expect(200)["status"], read.header("boxoffice-stale")), (&json!("on_sale"), None));
    assert_eq!(world.publish(&event.id).await.expect(200)["status"], "on_sale");
    let audit = world.get(&format!("{path}/audit")).await.expect(200);
    assert_eq!(audit["postgres"]["sequence"], 0, "{audit}");
    assert_eq!(audit["lag"], audit["redis"]["sequence"], "{audit}");
    let counts = &audit["ticket_types"][0];
    assert_eq!((&counts["redis"]["sold"], &counts["ticket_type_id"]), (&json!(2), &json!(event.types[0])));
    assert!(counts["postgres"].is_null() && counts["drift"].is_null(), "{audit}");
    world.get(&format!("{path}/bookings")).await.refused(503, "postgres_unavailable");
}

#[tokio::test]
async fn a_bad_page_is_a_malformed_request() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[1])).await;
    for query in [
        "limit=0",
        "limit=201",
        "limit=x",
        "limit=-1",
        "cursor=%00",
        "cursor=!!",
        "cursor=AAAA",
        "status=sold",
        "page=2",
    ] {
        let reply = world.get(&format!("/v1/events/{}/bookings?{query}", event.id)).await;
        reply.refused(400, "malformed_request");
    }
    world.get("/v1/events?limit=201").await.refused(400, "malformed_request");
    world.get("/v1/customers/ann/bookings?cursor=zzz").await.refused(400, "malformed_request");
}

#[tokio::test]
async fn who_asks_for_a_page_that_there_is_not_is_told_what_would_be_right() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[1])).await;
    let bookings = format!("/v1/events/{}/bookings", event.id);
    for (path, right) in [
        (format!("{bookings}?limit=201"), "limit must be 1 to 200"),
        (format!("{bookings}?cursor=!!"), "next_cursor"),
        (format!("{bookings}?status=sold"), "held, confirmed, cancelled, expired"),
        (format!("{bookings}?customer="), "customer must have 1 to 255 characters"),
        ("/v1/events?status=sold".to_owned(), "draft, on_sale, paused, closed"),
    ] {
        let problem = world.get(&path).await.refused(400, "malformed_request");
        assert!(problem["detail"].as_str().unwrap().contains(right), "{path}: {problem}");
    }
}

#[tokio::test]
async fn machines_can_ask_for_health_metrics_and_the_contract() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[5])).await;
    world.book(&event.id, "k", &event.request("ann", 1)).await.expect(201);
    world.get("/livez").await.expect(200);
    world.get("/readyz").await.expect(200);
    let openapi = world.get("/openapi.json").await.expect(200);
    assert!(openapi["openapi"].as_str().unwrap().starts_with("3.1"));
    assert!(openapi["paths"]["/v1/events/{event_id}/bookings"]["post"].is_object());
    for metric in [
        "boxoffice_decisions_total",
        "boxoffice_batch_requests",
        "boxoffice_script_seconds",
        "boxoffice_outbox_frames",
        "boxoffice_outbox_age_seconds",
        "boxoffice_relay_lag_records",
        "boxoffice_http_requests",
    ] {
        eventually(metric, || async {
            let text = world.get("/metrics").await;
            text.status == 200 && String::from_utf8_lossy(&text.body).contains(metric)
        })
        .await;
    }
}

#[tokio::test]
async fn a_request_id_is_taken_or_made_and_always_returned() {
    let world = World::start().await;
    let ask = |value: &'static str| world.http.get(world.url("/livez")).header("X-Request-Id", value).send();
    assert_eq!(ask("abc-1").await.unwrap().headers()["x-request-id"], "abc-1");
    assert_ne!(ask("has space").await.unwrap().headers()["x-request-id"], "has space");
    assert!(world.get("/livez").await.header("x-request-id").is_some_and(|made| !made.is_empty()));
    let problem = world.http.get(world.url("/nowhere")).header("X-Request-Id", "abc-2").send().await.unwrap();
    assert_eq!(problem.json::<Value>().await.unwrap()["request_id"], json!("abc-2"));
}
