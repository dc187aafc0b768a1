//! Kafka away: the sale goes on until the outbox is at a bound, is refused without harm, and goes on by itself. Redis full:
//! the same, and what empties it goes on. Redis hanging: only so many wait for it.

use std::cell::Cell;
use std::collections::HashSet;
use std::time::{Duration, Instant};

use boxoffice_schema::scripts;
use futures_util::future::join_all;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use serde_json::{Value, json};

use crate::gate::{Server, gated};
use crate::http::{Event, id};
use crate::private_redis::PrivateRedis;
use crate::records::without_gap;
use crate::world::{World, eventually};

/// Books one ticket after the other until the outbox is full; the keys of those that were sold.
async fn sell_until_full(world: &World, event: &Event) -> Vec<String> {
    let mut sold = Vec::new();
    for n in 0..1_000 {
        let key = format!("k{n}");
        let reply = world.book(&event.id, &key, &event.request("ann", 1)).await;
        if reply.status == 503 {
            reply.refused(503, "outbox_full");
            return sold;
        }
        reply.expect(201);
        sold.push(key);
    }
    panic!("the outbox never was full");
}

/// Kafka is back: the outbox drains in order, each decision is a row, and sales go on without anybody's doing.
async fn goes_on(world: &World, event: &Event, sold: &[String]) {
    world.sells_again(event, "back", "bob").await;
    for key in sold {
        let replay = world.book(&event.id, key, &event.request("ann", 1)).await;
        assert_eq!((replay.status, replay.header("idempotent-replayed")), (201, Some("true")));
    }
    world.drained(event).await;
    let logged = without_gap(&world.settings.logged(world.shard_of(event)).await);
    let decided: u64 = world.redis(redis::cmd("HGET").arg(world.shard_key(event)).arg("seq")).await;
    assert_eq!(logged.last(), Some(&decided));
}

#[tokio::test]
async fn sales_go_on_until_as_many_batches_wait_for_kafka_as_may_and_resume_by_themselves() {
    let (world, gate) = gated(Server::Kafka, &["--outbox-max-frames", "20"]).await;
    let event = world.on_sale(&World::draft(&[1_000])).await;
    world.drained(&event).await;
    gate.freeze();
    let sold = sell_until_full(&world, &event).await;
    assert!((19..=21).contains(&sold.len()), "{}", sold.len());
    // What is sold can still be shown and replayed.
    let first = world.book(&event.id, &sold[0], &event.request("ann", 1)).await.expect(201);
    assert_eq!(world.booking(&event.id, &id(&first)).await.expect(200)["status"], "confirmed");
    world.book(&event.id, "more", &event.request("bob", 1)).await.refused(503, "outbox_full");
    gate.open();
    goes_on(&world, &event, &sold).await;
    let sold = i64::try_from(sold.len()).unwrap();
    assert_eq!(world.rows_counted(&event, 0).await, (0, sold + 1));
}

#[tokio::test]
async fn sales_go_on_until_a_decision_has_waited_for_kafka_as_long_as_it_may_and_resume_by_themselves() {
    let (world, gate) = gated(Server::Kafka, &["--outbox-max-age-ms", "1000"]).await;
    let event = world.on_sale(&World::draft(&[1_000])).await;
    world.drained(&event).await;
    gate.freeze();
    world.book(&event.id, "first", &event.request("ann", 1)).await.expect(201);
    eventually("the outbox to be too old", || async {
        let key = uuid::Uuid::now_v7().to_string();
        let reply = world.book(&event.id, &key, &event.request("bob", 1)).await;
        assert!(reply.status == 201 || reply.json()["code"] == "outbox_full", "{reply:?}");
        reply.status == 503
    })
    .await;
    gate.open();
    goes_on(&world, &event, &["first".to_owned()]).await;
}

/// The bound is there for what is new. A hold is expired once, and somebody waits for its tickets.
#[tokio::test]
async fn while_the_outbox_is_full_holds_run_out_all_the_same() {
    let (world, gate) = gated(Server::Kafka, &["--outbox-max-frames", "20"]).await;
    let event = world.on_sale(&World::draft(&[1_000])).await;
    let held = world.book(&event.id, "held", &event.hold("bob", 5)).await.expect(201);
    world.drained(&event).await;
    gate.freeze();
    let keys = sell_until_full(&world, &event).await;
    for reply in [
        world.confirm(&event.id, &id(&held), "pay").await,
        world.cancel(&event.id, &id(&held)).await,
        world.patch(&event.id, &json!({"name": "Another night"})).await,
    ] {
        reply.refused(503, "outbox_full");
    }
    let sold = i64::try_from(keys.len()).unwrap();
    assert_eq!(world.counts(&event, 0).await, (5, sold, 995 - sold));
    world.let_run_out(&event, &held).await;
    eventually("the hold to expire", || async { world.counts(&event, 0).await == (0, sold, 1_000 - sold) })
        .await;
    world.book(&event.id, "more", &event.request("bob", 1)).await.refused(503, "outbox_full");
    gate.open();
    goes_on(&world, &event, &keys).await;
    assert_eq!(world.booking(&event.id, &id(&held)).await.expect(200)["status"], "expired");
    assert_eq!(world.rows_counted(&event, 0).await, (0, sold + 1));
}

/// No batch of records is so small.
const TAKES_NOTHING: &str = "1";
/// As a broker has it unless it is told otherwise.
const TAKES_ALL: &str = "1048588";

/// How many bytes a batch of records may have for the broker to take it, some milliseconds after this. All else that was set of
/// the topic is the broker's own from then on, which a test can do with.
async fn kafka_takes(world: &World, bytes: &str) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &world.settings.kafka_brokers).create().unwrap();
    let topic = world.settings.topic();
    let change = AlterConfig::new(ResourceSpecifier::Topic(&topic)).set("max.message.bytes", bytes);
    let altered = admin.alter_configs([&change], &AdminOptions::new()).await.unwrap();
    assert!(altered.iter().all(Result::is_ok), "{altered:?}");
}

/// Kafka is there and answers. Its client gives a record that is refused up for good, and every later one with it.
#[tokio::test]
async fn while_kafka_refuses_every_record_sales_go_on_until_the_outbox_is_full_and_nothing_is_left_out() {
    let world = World::start_with(&["--outbox-max-frames", "20"]).await;
    let event = world.on_sale(&World::draft(&[1_000])).await;
    world.drained(&event).await;
    kafka_takes(&world, TAKES_NOTHING).await;
    let sold = sell_until_full(&world, &event).await;
    let first = world.book(&event.id, &sold[0], &event.request("ann", 1)).await.expect(201);
    assert_eq!(world.booking(&event.id, &id(&first)).await.expect(200)["status"], "confirmed");
    world.book(&event.id, "more", &event.request("bob", 1)).await.refused(503, "outbox_full");
    kafka_takes(&world, TAKES_ALL).await;
    goes_on(&world, &event, &sold).await;
    let sold = i64::try_from(sold.len()).unwrap();
    assert_eq!(world.rows_counted(&event, 0).await, (0, sold + 1));
    world.nothing_found().await;
}

#[tokio::test]
async fn with_ack_kafka_what_kafka_refuses_is_not_acknowledged_before_it_takes_it() {
    let world = World::start_with(&["--ack", "kafka"]).await;
    let event = world.on_sale(&World::draft(&[100_000])).await;
    world.drained(&event).await;
    kafka_takes(&world, TAKES_NOTHING).await;
    let (request, sold) = (event.request("ann", 1), Cell::new(0));
    eventually("Kafka to refuse a record", || async {
        let reply = world.book(&event.id, &format!("k{}", sold.get()), &request).await;
        if reply.status == 503 {
            reply.refused(503, "kafka_unavailable");
            return true;
        }
        reply.expect(201);
        sold.set(sold.get() + 1);
        false
    })
    .await;
    let refused = format!("k{}", sold.get());
    world.book(&event.id, &refused, &request).await.refused(503, "kafka_unavailable");
    kafka_takes(&world, TAKES_ALL).await;
    world.sells_again(&event, &refused, "ann").await;
    world.drained(&event).await;
    without_gap(&world.settings.logged(world.shard_of(&event)).await);
    assert_eq!(world.rows_counted(&event, 0).await, (0, sold.get() + 1));
    world.nothing_found().await;
}

/// Of an event with as many ticket types as there may be, however well their names are compressed.
fn large_draft() -> Value {
    let name =
        || std::iter::repeat_with(|| uuid::Uuid::new_v4().simple().to_string()).take(6).collect::<String>();
    let types =
        (0..100).map(|_| json!({"name": name(), "capacity": 1, "price": {"amount": 1, "currency": "EUR"}}));
    json!({"name": "Large", "starts_at": "2099-06-01T20:00:00Z", "ticket_types": types.collect::<Vec<_>>()})
}

/// Published in another shard, and nothing of it in that of the other event.
async fn publish_elsewhere(world: &World, other: &Event, draft: &Value) -> Event {
    loop {
        let id = id(&world.post("/v1/events", draft).await.expect(201));
        let event = Event { id, types: Vec::new() };
        if world.shard_of(&event) != world.shard_of(other) {
            world.publish(&event.id).await.expect(200);
            return event;
        }
    }
}

/// All shards of an instance share Kafka's client, which gives up what it has of all where a broker refuses a record of one.
#[tokio::test]
async fn a_record_that_kafka_refuses_for_good_does_not_hold_up_another_shard() {
    let world = World::start_with(&[]).await;
    // Ordinary records are smaller by far, and by the time that these have come through the broker knows.
    kafka_takes(&world, "8000").await;
    let event = world.on_sale(&World::draft(&[1_000])).await;
    world.drained(&event).await;
    let large = publish_elsewhere(&world, &event, &large_draft()).await;
    let waiting = async |event: &Event| {
        let mut command = redis::cmd("XLEN");
        world.redis::<u64>(command.arg(world.keys.outbox(world.shard_of(event)))).await
    };
    for crowd in 0..5 {
        let request = event.request("ann", 1);
        let keys: Vec<String> = (0..6).map(|n| format!("{crowd}-{n}")).collect();
        let booked = join_all(keys.iter().map(|key| world.book(&event.id, key, &request))).await;
        booked.iter().for_each(|reply| assert_eq!(reply.status, 201, "{reply:?}"));
        eventually("the other shard's to be in Kafka", || async { waiting(&event).await == 0 }).await;
    }
    assert!(waiting(&large).await > 0, "Kafka took what is too large");
    kafka_takes(&world, TAKES_ALL).await;
    world.drained(&large).await;
    world.drained(&event).await;
    without_gap(&world.settings.logged(world.shard_of(&event)).await);
    world.nothing_found().await;
}

/// The instance has nobody to leave the shard to: it takes it again and again.
#[tokio::test]
async fn while_the_leader_of_one_partition_is_away_no_other_shard_is_held_up_and_nothing_is_sent_twice() {
    let (world, gate) = gated(Server::Kafka, &["--ack", "kafka"]).await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let other = world.on_sale_elsewhere(&event, &World::draft(&[100_000])).await;
    world.drained(&event).await;
    let request = event.request("ann", 1);
    gate.withhold(&world.settings.topic(), world.shard_of(&event).partition());
    world.book(&event.id, "a", &request).await.refused(503, "kafka_unavailable");
    let (lease, sold) = (world.keys.lease(world.shard_of(&event)), Cell::new(0));
    for is_held in [false, true, false] {
        eventually("the shard to be given back, taken again, and given back", || async {
            let key = format!("other-{}", sold.replace(sold.get() + 1));
            world.book(&other.id, &key, &other.request("bob", 1)).await.expect(201);
            world.redis::<bool>(redis::cmd("EXISTS").arg(&lease)).await == is_held
        })
        .await;
    }
    gate.shut();
    eventually("all connections to be broken", || async { gate.refused() > 0 }).await;
    gate.open();
    eventually("the decision to be confirmed", || async {
        world.book(&event.id, "a", &request).await.status == 201
    })
    .await;
    for event in [&event, &other] {
        world.drained(event).await;
        let logged = world.settings.logged(world.shard_of(event)).await;
        without_gap(&logged);
        assert_eq!(logged.iter().collect::<HashSet<_>>().len(), logged.len(), "{logged:?}");
    }
    assert_eq!(world.rows_counted(&event, 0).await, (0, 1));
    assert_eq!(world.rows_counted(&other, 0).await, (0, sold.get()));
}

/// The shard's outbox is empty: it is Redis itself that has no room.
#[tokio::test]
async fn while_redis_is_short_of_memory_only_what_is_new_is_refused() {
    let redis = PrivateRedis::start().await;
    let world = World::on(&redis).await;
    let event = world.on_sale(&World::draft(&[1_000])).await;
    let booked = world.book(&event.id, "a", &event.request("ann", 1)).await;
    booked.expect(201);
    redis.has_left(15).await;
    eventually("new bookings to be refused", || async {
        let key = uuid::Uuid::now_v7().to_string();
        world.book(&event.id, &key, &event.request("bob", 1)).await.status == 503
    })
    .await;
    world.book(&event.id, "b", &event.request("bob", 1)).await.refused(503, "outbox_full");
    let again = world.book(&event.id, "a", &event.request("ann", 1)).await;
    assert_eq!((again.status, &again.body), (201, &booked.body));
    world.book(&event.id, "a", &event.request("ann", 2)).await.refused(422, "idempotency_key_reused");
    redis.has_left(90).await;
    world.sells_again(&event, "b", "bob").await;
}

/// As long as there is memory every script runs. Past it Redis refuses those that do not say that they may go on.
#[tokio::test]
async fn in_a_redis_that_is_over_its_memory_tickets_come_back_the_outbox_drains_and_shards_recover() {
    let redis = PrivateRedis::start().await;
    let world = World::on(&redis).await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let mut sold = Vec::new();
    for key in ["a", "b", "c"] {
        sold.push(id(&world.book(&event.id, key, &event.request("ann", 1)).await.expect(201)));
    }
    let held = world.book(&event.id, "held", &event.hold("bob", 2)).await.expect(201);
    world.drained(&event).await;
    redis.uses_too_much().await;
    world.book(&event.id, "new", &event.request("cleo", 1)).await.refused(503, "outbox_full");
    world.cancel(&event.id, &sold[0]).await.expect(200);
    world.patch(&event.id, &json!({"name": "Another night"})).await.expect(200);

    // As if whoever held it had died.
    let (shard, lease) = (world.shard_of(&event), world.keys.lease(world.shard_of(&event)));
    let _: i64 = world.redis(redis::cmd("DEL").arg(&lease)).await;
    eventually("somebody to take the lease", || async {
        world.redis::<bool>(redis::cmd("EXISTS").arg(&lease)).await
    })
    .await;
    world.let_run_out(&event, &held).await;
    eventually("the hold to expire", || async { world.counts(&event, 0).await == (0, 2, 8) }).await;
    let outbox = world.keys.outbox(shard);
    eventually("the outbox to be empty", || async {
        world.redis::<u64>(redis::cmd("XLEN").arg(&outbox)).await == 0
    })
    .await;

    let _: i64 = world.redis(redis::cmd("DEL").arg(world.keys.certificate(shard))).await;
    world.selling().await;
    world.cancel(&event.id, &sold[1]).await.expect(200);
    world.delete(&world.event_key(&event)).await;
    world.cancel(&event.id, &sold[2]).await.refused(503, "inventory_unverified");
    eventually("the shard to be restored", || async {
        let reply = world.cancel(&event.id, &sold[2]).await;
        assert!([503, 200].contains(&reply.status), "{reply:?}");
        reply.status == 200
    })
    .await;
    assert_eq!(world.counts(&event, 0).await, (0, 0, 10));
    world.book(&event.id, "new", &event.request("cleo", 1)).await.refused(503, "outbox_full");

    redis.has_memory_again().await;
    world.sells_again(&event, "new", "cleo").await;
    world.drained(&event).await;
    assert_eq!(world.rows_counted(&event, 0).await, (0, 1));
}

/// All of them, also those that few recoveries need.
#[tokio::test]
async fn a_redis_that_is_over_its_memory_runs_what_drains_or_restores_it_and_nothing_that_sells() {
    let redis = PrivateRedis::start().await;
    redis.uses_too_much().await;
    let drain_or_restore = [
        &scripts::READ_EVENTS,
        &scripts::LEASE,
        &scripts::UNLEASE,
        &scripts::TRIM,
        &scripts::DUE,
        &scripts::EXPIRE,
        &scripts::CANCEL,
        &scripts::AMEND,
        &scripts::BEGIN_RECOVERY,
        &scripts::RECOVERING,
        &scripts::RESTATE_FENCED,
        &scripts::RESTATE_EVENT_FENCED,
        &scripts::NOTE_LOST,
        &scripts::RESTORE_CLEAR,
        &scripts::RESTORE_EVENT,
        &scripts::RESTORE_BOOKINGS,
        &scripts::RESTORE_UNSCHEDULE,
        &scripts::RESTORE_SHARD,
        &scripts::CERTIFY,
    ];
    let sell = [&scripts::BOOK, &scripts::BOOK_LIMITED, &scripts::PUBLISH];
    let running = drain_or_restore.into_iter().map(|script| (script, false));
    for (script, is_refused) in running.chain(sell.into_iter().map(|script| (script, true))) {
        // Without keys none of them gets far. Redis looks at its memory before it begins with one.
        let mut command = redis::cmd("EVAL");
        command.arg(script.source()).arg(0);
        let answer: Result<redis::Value, _> = command.query_async(&mut redis.connection().await).await;
        let refusal = answer.as_ref().is_err_and(|error| error.code() == Some("OOM"));
        assert_eq!(refusal, is_refused, "{}: {answer:?}", script.name);
    }
}

/// Redis hangs, so that nothing leaves the queue but the first batch.
#[tokio::test]
async fn who_finds_no_room_in_a_shards_queue_is_refused_in_time_and_buys_once_with_the_same_key_later() {
    const CROWD: usize = 20;
    // A client has its answer within two seconds, and a busy machine may be late to look.
    const BOUND: Duration = Duration::from_millis(2_500);
    let (world, gate) = gated(Server::Redis, &["--queue-per-shard", "2"]).await;
    let event = world.on_sale(&World::draft(&[100])).await;
    let request = event.request("ann", 1);
    // Whoever comes next need not ask what the event is.
    world.book(&event.id, "before", &request).await.expect(201);
    let keys: Vec<String> = (0..CROWD).map(|n| format!("k{n}")).collect();
    gate.freeze();
    let book = async |n: usize| {
        let started = Instant::now();
        (world.book(&event.id, &keys[n], &request).await, started.elapsed())
    };
    let mut overloaded = 0;
    for (reply, took) in join_all((0..CROWD).map(book)).await {
        assert!(took < BOUND, "{took:?}: {reply:?}");
        if reply.json()["code"] == "overloaded" {
            reply.refused(503, "overloaded");
            overloaded += 1;
        } else {
            reply.refused(503, "redis_unavailable");
        }
    }
    assert!(overloaded > 0, "there was room for everybody");

    gate.open();
    for key in &keys {
        world.sells_again(&event, key, "ann").await;
    }
    world.drained(&event).await;
    let mut made = HashSet::new();
    for key in &keys {
        let replay = world.book(&event.id, key, &request).await;
        assert_eq!((replay.status, replay.header("idempotent-replayed")), (201, Some("true")));
        made.insert(id(&replay.json()));
    }
    assert_eq!(made.len(), CROWD);
    assert_eq!(world.rows_of(&event).await, 21);
    assert_eq!(world.rows_counted(&event, 0).await, (0, 21));
}
