//! Two instances of the API as processes: what a dead one left is taken over, and a paused one that still believes in
//! its lease harms nothing.

use std::time::{Duration, Instant};

use boxoffice_schema::shard::ShardCount;
use chrono::{TimeDelta, Utc};
use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::gate::{Gate, Server};
use crate::http::{Event, id};
use crate::processes::Process;
use crate::records::without_gap;
use crate::world::{SHARDS, Settings, World, eventually};

/// Another instance has taken over by then.
const TAKEOVER: TimeDelta = TimeDelta::seconds(5);

/// Two instances; the first holds all leases, and reaches Kafka through a gate.
struct Pair {
    first: Process,
    /// How clients meet the first and the second one.
    by_first: World,
    by_second: World,
    gate: Gate,
    second: Process,
}

impl Pair {
    async fn start() -> Self {
        let settings = Settings::fresh().await;
        boxoffice_reconciler::migrate::migrate(&settings.reconciler()).await.unwrap();
        let stop = CancellationToken::new();
        settings.start_reconciler(&stop);
        let (gated, gate) = settings.gated(Server::Kafka).await;
        let first = Process::api(&gated, &[]).await;
        let by_first = World::looking_at(settings.clone(), first.base.clone(), stop.clone()).await;
        by_first.selling().await;
        eventually("the first instance to hold all leases", || async {
            for shard in ShardCount::new(SHARDS).unwrap().shards() {
                let lease = by_first.keys.lease(shard);
                if by_first.redis::<i64>(redis::cmd("EXISTS").arg(lease)).await == 0 {
                    return false;
                }
            }
            true
        })
        .await;
        let second = Process::api(&settings, &[]).await;
        let by_second = World::looking_at(settings, second.base.clone(), stop).await;
        Self { first, by_first, by_second, gate, second }
    }

    /// Books tickets through the first instance that it cannot bring to Kafka.
    async fn decide_unrelayed(&self, event: &Event, count: usize) {
        self.by_first.drained(event).await;
        self.gate.freeze();
        for n in 0..count {
            let key = format!("unrelayed-{n}");
            self.by_first.book(&event.id, &key, &event.request("ann", 1)).await.expect(201);
        }
    }

    /// The log leaves nothing out, and nobody was alarmed.
    async fn nothing_wrong(&self, event: &Event) {
        let world = &self.by_second;
        world.drained(event).await;
        let logged = without_gap(&world.settings.logged(world.shard_of(event)).await);
        let decided: u64 = world.redis(redis::cmd("HGET").arg(world.shard_key(event)).arg("seq")).await;
        assert_eq!(logged.last(), Some(&decided));
        world.nothing_found().await;
    }
}

#[tokio::test]
async fn what_a_killed_instance_decided_and_held_is_relayed_and_expired_by_another_within_five_seconds() {
    let mut pair = Pair::start().await;
    let mut draft = World::draft(&[100]);
    draft["hold_seconds"] = serde_json::json!(1);
    let event = pair.by_second.on_sale(&draft).await;
    pair.decide_unrelayed(&event, 10).await;
    let held = id(&pair.by_first.book(&event.id, "held", &event.hold("ann", 5)).await.expect(201));
    assert_eq!(pair.by_second.rows_of(&event).await, 0, "nothing of it was relayed");
    let killed = Utc::now();
    pair.first.kill();
    let world = &pair.by_second;
    eventually("the hold to expire", || async { world.counts(&event, 0).await == (0, 10, 90) }).await;
    eventually("all decisions to reach PostgreSQL", || async { world.rows_of(&event).await == 11 }).await;
    assert_eq!(world.booking(&event.id, &held).await.expect(200)["status"], "expired");
    pair.nothing_wrong(&event).await;
    // What says that the hold expired is the last record. A busy machine may be late to look, its own time is not.
    let sent = world.settings.last_sent(world.shard_of(&event)).await;
    assert!(sent - killed < TAKEOVER, "the last record was sent {} after the kill", sent - killed);
}

#[tokio::test]
async fn no_request_to_the_other_instance_fails_while_one_is_killed() {
    let mut pair = Pair::start().await;
    let event = pair.by_second.on_sale(&World::draft(&[100_000])).await;
    let (world, until) = (&pair.by_second, Instant::now() + Duration::from_secs(6));
    let buy = |buyer: usize| {
        let event = &event;
        async move {
            let mut sold = 0;
            while Instant::now() < until {
                let key = format!("{buyer}-{sold}");
                let booking = world.book(&event.id, &key, &event.request("ann", 1)).await.expect(201);
                world.booking(&event.id, &id(&booking)).await.expect(200);
                world.availability(&event.id).await;
                sold += 1;
            }
            sold
        }
    };
    let kill = async {
        tokio::task::yield_now().await;
        eventually("the sale to be under way", || async { world.counts(&event, 0).await.1 > 50 }).await;
        pair.first.kill();
    };
    let (sold, ()) = tokio::join!(join_all((0..8).map(buy)), kill);
    let sold: i64 = sold.iter().sum();
    eventually("all to be in PostgreSQL", || async { world.rows_of(&event).await == sold }).await;
    pair.nothing_wrong(&event).await;
}

#[tokio::test]
async fn an_instance_that_alone_cannot_reach_kafka_leaves_its_shards_to_one_that_can() {
    let pair = Pair::start().await;
    let event = pair.by_second.on_sale(&World::draft(&[100])).await;
    pair.decide_unrelayed(&event, 10).await;
    let world = &pair.by_second;
    eventually("the second instance to relay", || async { world.rows_of(&event).await == 10 }).await;
    // The first one still sells; what it decides is brought to Kafka by the second.
    let booking = pair.by_first.book(&event.id, "cut-off", &event.request("bob", 1)).await;
    booking.expect(201);
    eventually("its decision to be relayed too", || async { world.rows_of(&event).await == 11 }).await;
    pair.gate.open();
    eventually("the first instance to reach Kafka again", || async {
        pair.by_first.get("/readyz").await.status == 200
    })
    .await;
    pair.nothing_wrong(&event).await;
}

#[tokio::test]
async fn an_instance_that_does_not_reach_the_leader_of_one_partition_leaves_that_shard_to_one_that_does() {
    let pair = Pair::start().await;
    let world = &pair.by_second;
    let event = world.on_sale(&World::draft(&[100])).await;
    let other = world.on_sale_elsewhere(&event, &World::draft(&[100])).await;
    world.drained(&event).await;
    let holder = async |event: &Event| -> Option<String> {
        world.redis(redis::cmd("GET").arg(world.keys.lease(world.shard_of(event)))).await
    };
    let first = holder(&other).await;
    pair.gate.withhold(&world.settings.topic(), world.shard_of(&event).partition());
    for n in 0..10 {
        let key = format!("unreached-{n}");
        pair.by_first.book(&event.id, &key, &event.request("ann", 1)).await.expect(201);
    }
    eventually("the second instance to relay", || async { world.rows_of(&event).await == 10 }).await;
    pair.by_first.book(&other.id, "other", &other.request("bob", 1)).await.expect(201);
    world.drained(&other).await;
    assert_eq!(holder(&other).await, first, "the first instance gave up a shard whose leader it reaches");
    // What the first one still holds arrives at last.
    let once = world.settings.logged(world.shard_of(&event)).await.len();
    pair.gate.shut();
    eventually("its connections to be broken", || async { pair.gate.refused() > 0 }).await;
    pair.gate.open();
    eventually("its records to arrive a second time", || async {
        world.settings.logged(world.shard_of(&event)).await.len() > once
    })
    .await;
    pair.nothing_wrong(&event).await;
}

#[tokio::test]
async fn a_paused_instance_that_still_believes_in_its_leases_harms_nothing() {
    let pair = Pair::start().await;
    let event = pair.by_second.on_sale(&World::draft(&[100])).await;
    // Its records are on their way to Kafka when it is paused, and arrive when all is over.
    pair.decide_unrelayed(&event, 10).await;
    pair.first.pause();
    let world = &pair.by_second;
    eventually("the second instance to take over", || async { world.rows_of(&event).await == 10 }).await;
    for n in 0..10 {
        world.book(&event.id, &format!("second-{n}"), &event.request("bob", 1)).await.expect(201);
    }
    world.drained(&event).await;
    let once = world.settings.logged(world.shard_of(&event)).await.len();
    pair.gate.open();
    pair.first.resume();
    eventually("the first one's records to arrive a second time", || async {
        world.settings.logged(world.shard_of(&event)).await.len() > once
    })
    .await;
    // It has learnt that its leases are gone, and serves as any other.
    for n in 0..10 {
        let booking = pair.by_first.book(&event.id, &format!("first-{n}"), &event.request("cleo", 1)).await;
        booking.expect(201);
    }
    eventually("all to be in PostgreSQL", || async { world.rows_of(&event).await == 30 }).await;
    assert_eq!(world.rows_counted(&event, 0).await, (0, 30));
    pair.nothing_wrong(&event).await;
    drop(pair.second);
}
