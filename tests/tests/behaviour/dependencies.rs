//! Redis, Kafka or PostgreSQL away: at start, and during the sale.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::gate::{Server, address, gated};
use crate::http::id;
use crate::world::{Settings, World, eventually};

#[tokio::test]
async fn while_redis_is_away_bookings_are_refused_in_time_and_reads_say_that_they_are_stale() {
    let (world, gate) = gated(Server::Redis, &[]).await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let booking = id(&world.book(&event.id, "a", &event.request("ann", 1)).await.expect(201));
    world.drained(&event).await;
    gate.shut();
    for n in 0..20 {
        let started = Instant::now();
        let reply = world.book(&event.id, &format!("away-{n}"), &event.request("bob", 1)).await;
        reply.refused(503, "redis_unavailable");
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    }
    let read = world.booking(&event.id, &booking).await;
    assert_eq!(read.expect(200)["status"], "confirmed");
    assert_eq!(read.header("boxoffice-stale"), Some("true"));
    let availability = world.get(&format!("/v1/events/{}/availability", event.id)).await;
    assert_eq!(availability.header("boxoffice-stale"), Some("true"));
    let availability = availability.expect(200);
    assert_eq!(availability["stale"], true);
    assert_eq!(availability["ticket_types"][0]["on_sale"], false);
    assert_eq!(availability["ticket_types"][0]["sold"], 1);
    let audit = world.get(&format!("/v1/events/{}/audit", event.id)).await.expect(200);
    assert!(audit["redis"].is_null(), "{audit}");
    let ready = world.get("/readyz").await;
    assert_eq!(ready.status, 503);
    assert!(String::from_utf8_lossy(&ready.body).contains("redis"));
    world.get("/livez").await.expect(200);

    gate.open();
    eventually("bookings to go on", || async {
        world.book(&event.id, "back", &event.request("bob", 1)).await.status == 201
    })
    .await;
    world.drained(&event).await;
    assert_eq!(world.rows_counted(&event, 0).await, (0, 2));
}

/// PostgreSQL may be reading on from a backup, and Redis alone have the event.
#[tokio::test]
async fn while_redis_is_away_nobody_is_told_that_there_is_no_such_event() {
    let (world, gate) = gated(Server::Redis, &[]).await;
    let nobodys = uuid::Uuid::now_v7().to_string();
    let (event, booking) = (format!("/v1/events/{nobodys}"), uuid::Uuid::now_v7().to_string());
    let wanted = json!({"customer": "ann", "items": [{"ticket_type_id": booking, "quantity": 1}]});
    gate.shut();
    for reply in [
        world.book(&nobodys, "k", &wanted).await,
        world.confirm(&nobodys, &booking, "pay").await,
        world.cancel(&nobodys, &booking).await,
        world.booking(&nobodys, &booking).await,
        world.get(&event).await,
        world.get(&format!("{event}/availability")).await,
        world.get(&format!("{event}/audit")).await,
        world.get(&format!("{event}/bookings")).await,
        world.publish(&nobodys).await,
        world.patch(&nobodys, &json!({"name": "Another night"})).await,
    ] {
        reply.refused(503, "redis_unavailable");
    }
    gate.open();
    eventually("Redis to say that there is none", || async {
        let reply = world.get(&event).await;
        assert!([503, 404].contains(&reply.status), "{reply:?}");
        reply.status == 404
    })
    .await;
    world.book(&nobodys, "k", &wanted).await.refused(404, "event_not_found");
}

/// The expiry of holds, which reads the event, and the relays of all shards share a connection.
#[tokio::test]
async fn what_nobody_can_read_in_redis_costs_the_others_no_connection() {
    let (world, gate) = gated(Server::Redis, &[]).await;
    let mut draft = World::draft(&[10]);
    draft["hold_seconds"] = json!(1);
    let unreadable = world.on_sale(&draft).await;
    let key = world.event_key(&unreadable);
    let _: i64 = world.redis(redis::cmd("HSET").arg(key).arg("slots").arg("some")).await;
    let mut event = world.on_sale(&draft).await;
    while world.shard_of(&event) == world.shard_of(&unreadable) {
        event = world.on_sale(&draft).await;
    }
    let before = gate.accepted();
    // The second time shows that the first look cost nothing: each due hold of an event whose slots are not known asks for them.
    for key in ["first", "second"] {
        world.book(&unreadable.id, key, &unreadable.hold("ann", 1)).await.expect(201);
        world.book(&event.id, key, &event.hold("bob", 1)).await.expect(201);
        eventually("the hold to expire", || async { world.counts(&event, 0).await == (0, 0, 10) }).await;
    }
    assert_eq!(gate.accepted(), before);
}

#[tokio::test]
async fn while_postgresql_is_away_the_sale_goes_on_and_the_reconciler_catches_up() {
    let (world, gate) = gated(Server::Postgres, &[]).await;
    let event = world.on_sale(&World::draft(&[100])).await;
    world.book(&event.id, "before", &event.request("ann", 1)).await.expect(201);
    world.drained(&event).await;
    gate.shut();
    for n in 0..30 {
        let booking = world.book(&event.id, &format!("k{n}"), &event.request("ann", 1)).await.expect(201);
        world.booking(&event.id, &id(&booking)).await.expect(200);
    }
    assert_eq!(world.availability(&event.id).await["ticket_types"][0]["sold"], 31);
    world.get("/v1/events").await.refused(503, "postgres_unavailable");
    let audit = world.get(&format!("/v1/events/{}/audit", event.id)).await.expect(200);
    assert!(audit["postgres"].is_null() && audit["ticket_types"][0]["drift"].is_null(), "{audit}");
    eventually("readiness to name PostgreSQL", || async {
        let ready = world.get("/readyz").await;
        ready.status == 503 && String::from_utf8_lossy(&ready.body).contains("postgres")
    })
    .await;
    gate.open();
    eventually("PostgreSQL to have all rows", || async { world.rows_of(&event).await == 31 }).await;
    world.drained(&event).await;
    assert_eq!(world.rows_counted(&event, 0).await, (0, 31));
}

/// A reader that begins while Kafka is away finds, when Kafka is back, the errors of that time in front of the first
/// record, right behind the news that its shards are read again. Neither may cost the other.
#[tokio::test]
async fn a_reconciler_that_began_to_read_while_kafka_was_away_applies_everything_when_it_is_back() {
    let settings = Settings::fresh().await;
    let (behind_gate, gate) = settings.gated(Server::Kafka).await;
    let world = World::reached(settings.clone(), &behind_gate, &settings, &[]).await;
    let event = world.on_sale(&World::draft(&[100])).await;
    world.book(&event.id, "before", &event.request("ann", 1)).await.expect(201);
    world.drained(&event).await;
    gate.shut();
    // Another has the lease for a moment, so that the reconciler begins anew, with all shards to be resumed.
    let other =
        "UPDATE leases SET holder = 'another', expires_at = now() + interval '3 s' WHERE name = 'reconciler'";
    assert_eq!(sqlx::query(other).execute(&world.pool).await.unwrap().rows_affected(), 1);
    eventually("the reconciler to lead again", || async {
        let holder: String = sqlx::query_scalar("SELECT holder FROM leases WHERE name = 'reconciler'")
            .fetch_one(&world.pool)
            .await
            .unwrap();
        holder != "another"
    })
    .await;
    let until = gate.refused() + 30;
    eventually("its clients to have been refused often", || async { gate.refused() >= until }).await;
    for n in 0..20 {
        world.book(&event.id, &format!("k{n}"), &event.request("ann", 1)).await.expect(201);
    }
    gate.open();
    eventually("all rows to be in PostgreSQL", || async { world.rows_of(&event).await == 21 }).await;
    world.drained(&event).await;
    assert_eq!(world.rows_counted(&event, 0).await, (0, 21));
    world.nothing_found().await;
}

#[tokio::test]
async fn an_api_whose_servers_are_not_there_yet_starts_and_says_which_are_missing() {
    let mut settings = Settings::fresh().await;
    let closed = "127.0.0.1:9";
    let (redis, database) = (address(&settings.redis_url), address(&settings.database_url));
    settings.redis_url = settings.redis_url.replace(&redis, closed);
    settings.database_url = settings.database_url.replace(&database, closed);
    settings.kafka_brokers = closed.to_owned();
    let stop = CancellationToken::new();
    let base = settings.start_api(&[], &stop).await;
    let http = reqwest::Client::new();
    assert_eq!(http.get(format!("{base}/livez")).send().await.unwrap().status(), 200);
    eventually("readiness to name all three", || async {
        let ready = http.get(format!("{base}/readyz")).send().await.unwrap();
        let (status, text) = (ready.status(), ready.text().await.unwrap());
        status == 503 && ["redis", "kafka", "postgres"].iter().all(|name| text.contains(name))
    })
    .await;
    let event = uuid::Uuid::now_v7();
    let started = Instant::now();
    let reply = http.get(format!("{base}/v1/events/{event}")).send().await.unwrap();
    assert_eq!(reply.status(), 503);
    assert!(started.elapsed() < Duration::from_secs(2));
    stop.cancel();
}

#[tokio::test]
async fn without_a_reconciler_nothing_is_sold_because_nothing_was_verified() {
    let settings = Settings::fresh().await;
    boxoffice_reconciler::migrate::migrate(&settings.reconciler()).await.unwrap();
    let stop = CancellationToken::new();
    let world = World::around(settings.clone(), &[], stop.clone()).await;
    let draft = world.post("/v1/events", &World::draft(&[10])).await.expect(201);
    eventually("redis to answer", || async {
        world.publish(&id(&draft)).await.json()["code"] == "inventory_unverified"
    })
    .await;
    world.publish(&id(&draft)).await.refused(503, "inventory_unverified");
    // A refusal changes nothing: it is a draft that may be changed still.
    let changed = world.patch(&id(&draft), &serde_json::json!({"name": "Another"})).await.expect(200);
    assert_eq!((&changed["name"], &changed["status"]), (&"Another".into(), &"draft".into()));
    settings.start_reconciler(&stop);
    world.selling().await;
    assert_eq!(world.publish(&id(&draft)).await.expect(200)["status"], "on_sale");
}
