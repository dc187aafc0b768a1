//! Kafka away: the sale goes on until the outbox is at a bound, is refused without harm, and goes on by itself.

use std::cell::Cell;
use std::collections::HashSet;

use crate::gate::{Gate, Server, gated};
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
async fn goes_on(world: &World, gate: &Gate, event: &Event, sold: &[String]) {
    gate.open();
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
    goes_on(&world, &gate, &event, &sold).await;
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
    goes_on(&world, &gate, &event, &["first".to_owned()]).await;
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
