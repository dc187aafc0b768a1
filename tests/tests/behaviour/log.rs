//! The way through Kafka: duplicates, poison, restarts, takeovers. Records that only a producer can make are tested
//! in the reconciler's own tests.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use tokio_util::sync::CancellationToken;

use crate::gate::{Server, gated};
use crate::http::id;
use crate::private_redis::PrivateRedis;
use crate::records::without_gap;
use crate::world::{Settings, World, eventually};

#[tokio::test]
async fn poison_in_the_log_is_set_aside_and_the_sale_goes_on() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let producer: FutureProducer =
        ClientConfig::new().set("bootstrap.servers", &world.settings.kafka_brokers).create().unwrap();
    let topic = world.settings.topic();
    let shard = world.shard_of(&event);
    let poison = FutureRecord::to(&topic).partition(shard.partition()).key("x").payload("not json at all");
    producer.send(poison, Duration::from_secs(5)).await.unwrap();
    world.book(&event.id, "k", &event.request("ann", 1)).await.expect(201);
    world.drained(&event).await;
    assert_eq!(world.rows_counted(&event, 0).await, (0, 1));
    eventually("a dead letter", || async {
        let letters: i64 = sqlx::query_scalar("SELECT count(*) FROM dead_letters WHERE shard = $1")
            .bind(i16::try_from(shard.number()).unwrap())
            .fetch_one(&world.pool)
            .await
            .unwrap();
        letters == 1
    })
    .await;
}

#[tokio::test]
async fn a_reconciler_that_is_replaced_counts_nothing_twice() {
    let settings = Settings::fresh().await;
    boxoffice_reconciler::migrate::migrate(&settings.reconciler()).await.unwrap();
    let (first, api) = (CancellationToken::new(), CancellationToken::new());
    settings.start_reconciler(&first);
    let world = World::around(settings.clone(), &[], api.clone()).await;
    world.selling().await;
    let event = world.on_sale(&World::draft(&[1_000])).await;
    for n in 0..40 {
        world.book(&event.id, &format!("a{n}"), &event.request("ann", 1)).await.expect(201);
    }
    first.cancel();
    for n in 0..40 {
        world.book(&event.id, &format!("b{n}"), &event.request("ann", 1)).await.expect(201);
    }
    settings.start_reconciler(&api);
    world.drained(&event).await;
    assert_eq!(world.rows_counted(&event, 0).await, (0, 80));
}

#[tokio::test]
async fn a_second_api_takes_over_relay_and_expiry_when_the_first_ends() {
    let world = World::start().await;
    let stop = CancellationToken::new();
    let mut draft = World::draft(&[10]);
    draft["hold_seconds"] = serde_json::json!(2);
    let event = world.on_sale(&draft).await;
    let second = World::around(world.settings.clone(), &[], stop).await;
    world.book(&event.id, "a", &event.request("ann", 1)).await.expect(201);
    let held = id(&second.book(&event.id, "b", &event.hold("bob", 1)).await.expect(201));
    world.stop();
    second.book(&event.id, "c", &event.request("cleo", 1)).await.expect(201);
    eventually("the hold to expire by the second instance", || async {
        second.booking(&event.id, &held).await.expect(200)["status"] == "expired"
    })
    .await;
    eventually("all decisions to be in the log", || async {
        let logged = without_gap(&second.settings.logged(second.shard_of(&event)).await);
        let decided: u64 = second.redis(redis::cmd("HGET").arg(second.shard_key(&event)).arg("seq")).await;
        logged.last() == Some(&decided)
    })
    .await;
}

#[tokio::test]
async fn with_ack_kafka_an_answer_means_that_kafka_has_it() {
    let world = World::start_with(&["--ack", "kafka"]).await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let key = world.keys.shard(world.shard_of(&event));
    for n in 0..5 {
        let booking = world.book(&event.id, &format!("k{n}"), &event.hold("ann", 1)).await.expect(201);
        let confirmed: u64 = world.redis(redis::cmd("HGET").arg(&key).arg("conf_seq")).await;
        assert!(confirmed >= n + 2, "publication and {} bookings, {confirmed} confirmed", n + 1);
        world.confirm(&event.id, &id(&booking), "pay").await.expect(200);
        world.cancel(&event.id, &id(&booking)).await.expect(200);
    }
    world.drained(&event).await;
    assert_eq!(world.rows_of(&event).await, 5);
}

/// Nothing is decided after the takeover, so nothing else would tell the new relay how far Kafka has confirmed.
#[tokio::test]
async fn with_ack_kafka_whoever_takes_a_quiet_shard_over_knows_what_was_confirmed() {
    let kafka = ["--ack", "kafka"];
    let world = World::start_with(&kafka).await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let booking = world.book(&event.id, "a", &event.request("ann", 1)).await.expect(201);
    let lease = world.keys.lease(world.shard_of(&event));
    let first: Option<String> = world.redis(redis::cmd("GET").arg(&lease)).await;
    world.stop();
    let second = World::around(world.settings.clone(), &kafka, CancellationToken::new()).await;
    eventually("the second instance to hold the shard's lease", || async {
        let holder: Option<String> = world.redis(redis::cmd("GET").arg(&lease)).await;
        holder.is_some() && holder != first
    })
    .await;
    eventually("the replay of a confirmed booking", || async {
        second.book(&event.id, "a", &event.request("ann", 1)).await.status == 201
    })
    .await;
    assert_eq!(second.booking(&event.id, &id(&booking)).await.expect(200)["status"], "confirmed");
}

/// A restoration writes how far the shard is confirmed, and may end after an instance took the lease of a shard in which
/// nothing is decided any more.
#[tokio::test]
async fn with_ack_kafka_what_a_restoration_says_after_the_lease_was_taken_is_heard() {
    let kafka = ["--ack", "kafka"];
    let world = World::start_with(&kafka).await;
    let event = world.on_sale(&World::draft(&[10])).await;
    world.book(&event.id, "a", &event.request("ann", 1)).await.expect(201);
    world.drained(&event).await;
    let (shard, lease) = (world.keys.shard(world.shard_of(&event)), world.keys.lease(world.shard_of(&event)));
    let confirmed: (u64, u64) =
        world.redis(redis::cmd("HMGET").arg(&shard).arg("conf_epoch").arg("conf_seq")).await;
    let note = async |epoch: u64, sequence: u64| {
        let mut command = redis::cmd("HSET");
        command.arg(&shard).arg("conf_epoch").arg(epoch).arg("conf_seq").arg(sequence);
        let _: i64 = world.redis(&command).await;
    };
    let first: Option<String> = world.redis(redis::cmd("GET").arg(&lease)).await;
    world.stop();
    // As it stands between the beginning of a recovery and the end of its restoration.
    note(0, 0).await;
    let second = World::around(world.settings.clone(), &kafka, CancellationToken::new()).await;
    eventually("the second instance to hold the shard's lease", || async {
        let holder: Option<String> = world.redis(redis::cmd("GET").arg(&lease)).await;
        holder.is_some() && holder != first
    })
    .await;
    second.book(&event.id, "a", &event.request("ann", 1)).await.refused(503, "kafka_unavailable");
    note(confirmed.0, confirmed.1).await;
    second.book(&event.id, "a", &event.request("ann", 1)).await.expect(201);
}

/// Redis shows the booking under the epoch that made it, and the first thing that this instance hears of Kafka is of a later
/// one.
#[tokio::test]
async fn with_ack_kafka_an_instance_that_has_not_heard_of_a_recovery_shows_what_was_booked_before_it() {
    let kafka = ["--ack", "kafka"];
    let redis = PrivateRedis::start().await;
    let mut settings = Settings::fresh().await;
    settings.redis_url = redis.url();
    let world = World::start_in(settings, &kafka).await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let booked = world.book(&event.id, "a", &event.request("ann", 1)).await;
    let booking = id(&booked.expect(201));
    world.drained(&event).await;
    let _: String = world.redis(&redis::cmd("FLUSHALL")).await;
    world.sells_again(&event, "b", "bob").await;

    // Each of them asks of the shard for the first time.
    let second = World::around(world.settings.clone(), &kafka, CancellationToken::new()).await;
    let replay = second.book(&event.id, "a", &event.request("ann", 1)).await;
    assert_eq!((replay.status, replay.body), (201, booked.body));
    let third = World::around(world.settings.clone(), &kafka, CancellationToken::new()).await;
    assert_eq!(third.booking(&event.id, &booking).await.expect(200)["status"], "confirmed");
}

/// A client that is told that the inventory is being verified takes it that nothing was decided.
#[tokio::test]
async fn with_ack_kafka_a_recovery_that_comes_between_leaves_what_was_decided_in_doubt() {
    let (world, gate) = gated(Server::Kafka, &["--ack", "kafka"]).await;
    let event = world.on_sale(&World::draft(&[10])).await;
    world.drained(&event).await;
    let (shard, certificate) = (world.shard_key(&event), world.keys.certificate(world.shard_of(&event)));
    let sequence = async || world.redis::<u64>(redis::cmd("HGET").arg(&shard).arg("seq")).await;
    let before = sequence().await;
    gate.freeze();
    let recovery = async {
        eventually("the decision", || async { sequence().await > before }).await;
        // As it stands between the restoration of a shard and its certificate.
        let _: i64 = world.redis(redis::cmd("DEL").arg(&certificate)).await;
        let mut command = redis::cmd("HSET");
        let _: i64 = world.redis(command.arg(&shard).arg("conf_epoch").arg(9).arg("conf_seq").arg(0)).await;
    };
    let request = event.request("ann", 1);
    let (reply, ()) = tokio::join!(world.book(&event.id, "a", &request), recovery);
    reply.refused(503, "kafka_unavailable");
}
