//! Retries of what was booked a moment ago, as those are told it who retry at the same time: by looks that they share,
//! and never from memory alone.

use futures_util::future::join_all;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::gate::Server;
use crate::http::{Event, Reply, id};
use crate::private_redis::PrivateRedis;
use crate::world::{Settings, World, eventually};

impl World {
    async fn books(&self, event: &Event, key: &str) -> Reply {
        let reply = self.book(&event.id, key, &event.request("ann", 1)).await;
        reply.expect(201);
        assert_eq!(reply.header("idempotent-replayed"), None);
        reply
    }

    /// How many were told by looks, of all APIs of this process.
    async fn told(&self) -> usize {
        let metrics = String::from_utf8(self.get("/metrics").await.body).unwrap();
        let line = r#"boxoffice_decisions_total{script="replays",outcome="replayed"} "#;
        let told = metrics.lines().find_map(|metric| metric.strip_prefix(line));
        told.map_or(0, |told| told.parse().unwrap())
    }

    async fn replays(&self, event: &Event, key: &str, first: &Reply) {
        let reply = self.book(&event.id, key, &event.request("ann", 1)).await;
        assert_eq!((reply.status, &reply.body), (201, &first.body));
        assert_eq!(reply.header("idempotent-replayed"), Some("true"));
        assert_eq!(reply.header("location"), first.header("location"));
    }
}

#[tokio::test]
async fn a_crowd_that_retries_shares_a_few_looks_and_gets_the_same_bytes() {
    const CROWD: usize = 100;
    let redis = PrivateRedis::start().await;
    let world = World::on(&redis).await;
    let event = world.on_sale(&World::draft(&[1_000])).await;
    let keys: Vec<String> = (0..CROWD).map(|n| format!("crowd-{n}")).collect();
    let first = join_all(keys.iter().map(|key| world.books(&event, key))).await;
    let told = world.told().await;
    // They share as many looks as they come apart, which on a machine that does much else they may.
    eventually("a crowd to come together", || async {
        let looks = redis.calls("exists").await;
        join_all(keys.iter().zip(&first).map(|(key, first)| world.replays(&event, key, first))).await;
        (1..CROWD / 4).contains(&(redis.calls("exists").await - looks))
    })
    .await;
    assert!(world.told().await - told >= CROWD, "they were decided one by one");
    world.drained(&event).await;
    assert_eq!(world.rows_of(&event).await, 100);
    assert_eq!(world.rows_counted(&event, 0).await, (0, 100));
    world.nothing_found().await;
}

#[tokio::test]
async fn a_retry_gets_the_first_answer_whatever_became_of_the_booking_and_of_the_sale() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let held = world.book(&event.id, "held", &event.hold("ann", 1)).await;
    let booking = id(&held.expect(201));
    world.confirm(&event.id, &booking, "pay").await.expect(200);
    let sold = world.books(&event, "sold").await;
    world.cancel(&event.id, &id(&sold.expect(201))).await.expect(200);
    for status in ["paused", "on_sale", "closed"] {
        world.patch(&event.id, &json!({"status": status})).await.expect(200);
        world.replays(&event, "sold", &sold).await;
        let again = world.book(&event.id, "held", &event.hold("ann", 1)).await;
        assert_eq!((again.status, &again.body), (201, &held.body));
    }
}

#[tokio::test]
async fn a_key_with_another_body_is_refused_as_ever() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let first = world.books(&event, "k").await;
    world.book(&event.id, "k", &event.request("ann", 2)).await.refused(422, "idempotency_key_reused");
    world.book(&event.id, "k", &event.request("bob", 1)).await.refused(422, "idempotency_key_reused");
    world.replays(&event, "k", &first).await;
}

#[tokio::test]
async fn a_redis_that_may_not_take_writes_replays_nothing() {
    let redis = PrivateRedis::start().await;
    let world = World::on(&redis).await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let first = world.books(&event, "k").await;
    redis.needs_replicas(1).await;
    world.book(&event.id, "k", &event.request("ann", 1)).await.refused(503, "redis_unavailable");
    redis.needs_replicas(0).await;
    world.replays(&event, "k", &first).await;
}

#[tokio::test]
async fn a_redis_that_must_be_verified_first_replays_nothing() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let certificate = world.keys.certificate(world.shard_of(&event));
    let bookings = std::cell::RefCell::new(Vec::new());
    eventually("somebody to ask before recovery has certified the shard again", || async {
        world.selling().await;
        // What was made before the last recovery is decided as ever.
        let key = format!("k-{}", bookings.borrow().len());
        let first = world.books(&event, &key).await;
        world.replays(&event, &key, &first).await;
        let _: i64 = world.redis(redis::cmd("DEL").arg(&certificate)).await;
        let reply = world.book(&event.id, &key, &event.request("ann", 1)).await;
        let is_refused = reply.status == 503;
        if is_refused {
            reply.refused(503, "inventory_unverified");
        } else {
            assert_eq!((reply.status, &reply.body), (201, &first.body));
        }
        bookings.borrow_mut().push((key, first));
        is_refused
    })
    .await;
    world.selling().await;
    for (key, first) in bookings.into_inner() {
        world.replays(&event, &key, &first).await;
    }
}

#[tokio::test]
async fn who_retries_in_a_shard_that_may_sell_hears_nothing_of_one_that_may_not() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let other = loop {
        let other = world.on_sale(&World::draft(&[10])).await;
        if world.shard_of(&other) != world.shard_of(&event) {
            break other;
        }
    };
    let certificate = world.keys.certificate(world.shard_of(&other));
    eventually("both to retry before recovery has certified the other's shard again", || async {
        world.selling().await;
        let key = uuid::Uuid::now_v7().to_string();
        let first = (world.books(&event, &key).await, world.books(&other, &key).await);
        let _: i64 = world.redis(redis::cmd("DEL").arg(&certificate)).await;
        let of_other = world.book_owned(&other, &key, other.request("ann", 1));
        let ((), of_other) = tokio::join!(world.replays(&event, &key, &first.0), of_other);
        if of_other.status == 201 {
            assert_eq!(of_other.body, first.1.body);
            return false;
        }
        of_other.refused(503, "inventory_unverified");
        true
    })
    .await;
}

/// The API that made them remembers them, and Redis came back from an older file: they were never made.
#[tokio::test]
async fn bookings_that_redis_lost_before_kafka_had_them_are_made_anew() {
    let mut redis = PrivateRedis::start().await;
    let mut settings = Settings::fresh().await;
    settings.redis_url = redis.url();
    let (gated, gate) = settings.gated(Server::Kafka).await;
    let world = World::reached(settings.clone(), &settings, &gated, &[]).await;
    let event = world.on_sale(&World::draft(&[100])).await;
    let kept = world.books(&event, "kept").await;
    world.drained(&event).await;
    gate.freeze();
    redis.kill();
    let older = redis.backup();
    redis.start_again().await;
    world.sells_again(&event, "kept", "ann").await;
    let lost = [world.books(&event, "lost-0").await, world.books(&event, "lost-1").await];
    world.replays(&event, "lost-0", &lost[0]).await;
    redis.kill();
    redis.restore(&older);
    redis.start_again().await;
    world.sells_again(&event, "kept", "ann").await;
    world.replays(&event, "kept", &kept).await;
    let anew = world.books(&event, "lost-0").await;
    assert_ne!(anew.body, lost[0].body);
    world.replays(&event, "lost-0", &anew).await;
    // Another instance books the other one anew.
    let other = World::around(world.settings.clone(), &[], CancellationToken::new()).await;
    let anew = other.books(&event, "lost-1").await;
    assert_ne!(anew.body, lost[1].body);
    world.replays(&event, "lost-1", &anew).await;
    assert_eq!(world.counts(&event, 0).await, (0, 3, 97));
}
