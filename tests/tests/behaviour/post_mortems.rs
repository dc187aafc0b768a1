//! What has gone wrong elsewhere, and was written down: each failure once more, through the front door.

use futures_util::future::join_all;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::gate::{Gate, Server, gated};
use crate::http::{Event, Reply, id};
use crate::private_redis::PrivateRedis;
use crate::processes::{Process, RECONCILER, program, signal};
use crate::world::{Settings, World, eventually};

/// Books a ticket under each key; whatever is answered.
async fn book_all(world: &World, event: &Event, keys: &[String]) -> Vec<Reply> {
    join_all(keys.iter().map(|key| async move { world.book(&event.id, key, &event.request("ann", 1)).await }))
        .await
}

fn keys(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}-{n}")).collect()
}

/// Waits until the audit shows these gaps and no others.
async fn finds_gaps(world: &World, event: &Event, expected: &Value) {
    eventually("the gap to be found", || async {
        let audit = world.get(&format!("/v1/events/{}/audit", event.id)).await.expect(200);
        audit["gaps"] == *expected
    })
    .await;
}

/// Kyle Kingsbury, "Call me maybe: Redis" (2013), and again "Jepsen: Redis-Raft" (2020): a replica that lagged is
/// promoted, and writes that were acknowledged are gone; 56 % of them in the first report.
#[tokio::test]
async fn redis_fail_over_to_a_replica_that_lagged_loses_no_booking_that_kafka_has() {
    let (mut primary, replica) = (PrivateRedis::start().await, PrivateRedis::start().await);
    let to_replica = Gate::to(primary.address()).await;
    let to_redis = Gate::to(primary.address()).await;
    let mut settings = Settings::fresh().await;
    settings.redis_url = format!("redis://{}/", to_redis.address);
    let world = World::start_in(settings, &["--ack", "kafka"]).await;
    let event = world.on_sale(&World::draft(&[100])).await;
    replica.follow_through(&to_replica.address).await;
    // A first replica changes the replication history.
    eventually("the shard to be certified again", || async {
        world.book(&event.id, "before", &event.request("ann", 1)).await.status == 201
    })
    .await;
    to_replica.freeze();
    let sold = keys("lagged", 30);
    let first = book_all(&world, &event, &sold).await;
    assert!(first.iter().all(|reply| reply.status == 201));
    primary.kill();
    replica.promote().await;
    to_redis.replace_by(replica.address());
    eventually("sales to go on", || async {
        let reply = world.book(&event.id, "after", &event.request("ann", 1)).await;
        assert!([201, 503].contains(&reply.status), "{reply:?}");
        reply.status == 201
    })
    .await;
    let again = book_all(&world, &event, &sold).await;
    for (first, again) in first.iter().zip(&again) {
        assert_eq!((again.status, &again.body), (201, &first.body));
    }
    assert_eq!(world.counts(&event, 0).await, (0, 32, 68));
    world.drained(&event).await;
    assert_eq!(world.rows_of(&event).await, 32);
}

/// "Call me maybe: Kafka" (2013) and the motivation of KIP-98 (2016): a producer that got no answer sends again, and
/// the log holds records twice.
#[tokio::test]
async fn a_log_that_holds_every_record_twice_is_applied_once() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[100])).await;
    book_all(&world, &event, &keys("k", 20)).await;
    let held = id(&world.book(&event.id, "h", &event.hold("ann", 2)).await.expect(201));
    world.cancel(&event.id, &held).await.expect(200);
    world.drained(&event).await;
    assert!(world.settings.repeat_log(world.shard_of(&event)).await >= 23);
    world.book(&event.id, "after", &event.request("ann", 1)).await.expect(201);
    world.drained(&event).await;
    assert_eq!(world.rows_counted(&event, 0).await, (0, 21));
    assert_eq!(world.rows_of(&event).await, 22);
    world.nothing_found().await;
}

/// The zombie of Martin Kleppmann's "How to do distributed locking" (2016), and of every consumer group: a consumer
/// that was paused past its session goes on with the partitions that another has by now.
#[tokio::test]
async fn a_zombie_reconciler_that_lost_its_lease_while_it_was_paused_applies_nothing_twice() {
    let settings = Settings::fresh().await;
    boxoffice_reconciler::migrate::migrate(&settings.reconciler()).await.unwrap();
    let mut arguments = settings.reconciler_arguments();
    "run".clone_into(&mut arguments[0]);
    let mut zombie = program(RECONCILER, &arguments).spawn().unwrap();
    let world = World::around(settings, &[], CancellationToken::new()).await;
    world.selling().await;
    let event = world.on_sale(&World::draft(&[1_000])).await;
    book_all(&world, &event, &keys("before", 50)).await;
    signal(&zombie, "-STOP");
    let stop = CancellationToken::new();
    world.settings.start_reconciler(&stop);
    book_all(&world, &event, &keys("meanwhile", 50)).await;
    eventually("the other reconciler to take over", || async { world.rows_of(&event).await == 100 }).await;
    signal(&zombie, "-CONT");
    book_all(&world, &event, &keys("after", 50)).await;
    eventually("all to be in PostgreSQL", || async { world.rows_of(&event).await == 150 }).await;
    world.drained(&event).await;
    assert_eq!(world.rows_counted(&event, 0).await, (0, 150));
    world.nothing_found().await;
    zombie.kill().unwrap();
    zombie.wait().unwrap();
    stop.cancel();
}

/// Unclean leader election, on by default until Kafka 0.11 (KAFKA-1028, and the second half of "Call me maybe: Kafka"):
/// confirmed records are missing in the log. Elsewhere the consumer goes on behind them and nobody ever knows.
#[tokio::test]
async fn records_that_disappeared_from_the_log_are_a_gap_and_never_skipped() {
    let (world, (first, reconciler)) = World::beside_a_reconciler(Settings::fresh().await).await;
    let event = world.on_sale(&World::draft(&[100])).await;
    let applied = world.drained(&event).await;
    first.cancel();
    reconciler.await.unwrap();
    let shard = world.shard_of(&event);
    let before = world.settings.logged(shard).await.len();
    book_all(&world, &event, &keys("lost", 10)).await;
    eventually("Kafka to have them", || async { world.settings.logged(shard).await.len() >= before + 10 })
        .await;
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &world.settings.kafka_brokers).create().unwrap();
    let mut gone = TopicPartitionList::new();
    gone.add_partition_offset(&world.settings.topic(), shard.partition(), Offset::End).unwrap();
    admin.delete_records(&gone, &AdminOptions::new()).await.unwrap();
    book_all(&world, &event, &keys("behind", 5)).await;
    let stop = CancellationToken::new();
    world.settings.start_reconciler(&stop);
    // The log has nothing where it is to be read on, so that nobody knows how much is missing before the rest is read.
    let from = applied["postgres"]["sequence"].as_u64().unwrap() + 1;
    let gap = |to: u64| json!([{"epoch": applied["epoch"], "from": from, "to": to}]);
    finds_gaps(&world, &event, &gap(from)).await;
    let mut arguments = world.settings.reconciler_arguments().split_off(1);
    arguments.extend(["gaps", "retry", "1"].map(str::to_owned));
    let mut retry = program(RECONCILER, &arguments);
    // The reconciler runs in this thread, and may have the shard's row.
    let retried = tokio::task::spawn_blocking(move || retry.status().unwrap()).await.unwrap();
    assert!(retried.success());
    finds_gaps(&world, &event, &gap(from + 9)).await;
    assert_eq!(world.rows_of(&event).await, 0, "nothing behind a gap is applied before it is explained");
    world.book(&event.id, "still", &event.request("ann", 1)).await.expect(201);
    stop.cancel();
}

/// The redelivery of every queue (RabbitMQ's "Reliability guide", SQS' "at least once"): the work was done, its
/// acknowledgement was lost, and the same message comes again.
#[tokio::test]
async fn a_batch_whose_commit_was_not_heard_is_counted_once() {
    let (world, gate) = gated(Server::Postgres, &[]).await;
    let event = world.on_sale(&World::draft(&[1_000])).await;
    for round in 0..20 {
        book_all(&world, &event, &keys(&format!("r{round}"), 10)).await;
        // Whatever PostgreSQL has done by now, its answers are lost.
        gate.replace();
    }
    eventually("all to be in PostgreSQL", || async { world.rows_of(&event).await == 200 }).await;
    world.drained(&event).await;
    assert_eq!(world.rows_counted(&event, 0).await, (0, 200));
    world.nothing_found().await;
}

/// The dual write of the usual ticket shop, `DECR` in Redis and then a message to a queue: killed in between, stock is
/// gone that nobody has bought, and a client that tries again buys twice (52 and 180 orders in a peer that we ran).
#[tokio::test]
async fn a_kill_between_decision_and_answer_neither_leaks_stock_nor_sells_twice() {
    let settings = Settings::fresh().await;
    boxoffice_reconciler::migrate::migrate(&settings.reconciler()).await.unwrap();
    let stop = CancellationToken::new();
    settings.start_reconciler(&stop);
    let mut first = Process::api(&settings, &[]).await;
    let world = World::looking_at(settings.clone(), first.base.clone(), stop.clone()).await;
    world.selling().await;
    let event = world.on_sale(&World::draft(&[1_000])).await;
    let all = keys("k", 400);
    let buy = |key: String| {
        let (request, url) =
            (event.request("ann", 1), world.url(&format!("/v1/events/{}/bookings", event.id)));
        let request = world.http.post(url).header("Idempotency-Key", key).json(&request);
        async move {
            let answer = request.send().await.ok()?;
            (answer.status() == 201).then_some(())?;
            Some(answer.json::<Value>().await.ok()?["id"].clone())
        }
    };
    let buyers = join_all(all.iter().cloned().map(buy));
    let kill = async {
        let key = world.shard_key(&event);
        let (at, sold_by) = (&key, &world);
        eventually("a hundred decisions", || async move {
            sold_by.redis::<u64>(redis::cmd("HGET").arg(at).arg("seq")).await > 100
        })
        .await;
        first.kill();
    };
    let (told, ()) = tokio::join!(buyers, kill);
    let second = Process::api(&settings, &[]).await;
    let world = World::looking_at(settings, second.base.clone(), stop).await;
    for (key, told) in all.iter().zip(told) {
        let booking = world.book(&event.id, key, &event.request("ann", 1)).await.expect(201);
        assert!(told.is_none_or(|told| told == booking["id"]), "{key} was sold twice");
    }
    assert_eq!(world.counts(&event, 0).await, (0, 400, 600));
    eventually("all to be in PostgreSQL", || async { world.rows_of(&event).await == 400 }).await;
    assert_eq!(world.rows_counted(&event, 0).await, (0, 400));
}

/// Idempotency by a lock with a time to live (as in Svix' and Brandur Leach's write-ups): the first request takes longer
/// than the lock lives, and the retry runs it a second time.
#[tokio::test]
async fn a_request_that_outlives_every_time_out_and_is_retried_meanwhile_is_one_booking() {
    let redis = PrivateRedis::start().await;
    let world = World::on(&redis).await;
    let event = world.on_sale(&World::draft(&[10])).await;
    redis.pause();
    // The first may reach Redis' socket and be decided there much later; nobody is told.
    for _ in 0..4 {
        join_all((0..5).map(|_| async {
            world.book(&event.id, "key", &event.request("ann", 1)).await.refused(503, "redis_unavailable");
        }))
        .await;
    }
    redis.resume();
    eventually("an answer", || async {
        world.book(&event.id, "key", &event.request("ann", 1)).await.status == 201
    })
    .await;
    let ids =
        join_all((0..10).map(|_| async {
            id(&world.book(&event.id, "key", &event.request("ann", 1)).await.expect(201))
        }))
        .await;
    assert!(ids.iter().all(|each| *each == ids[0]), "{ids:?}");
    assert_eq!(world.counts(&event, 0).await, (0, 1, 9));
    world.drained(&event).await;
    assert_eq!(world.rows_of(&event).await, 1);
}

/// Holds as keys with a time to live: they vanish while nobody watches, or their notification is lost, and their stock
/// never comes back.
#[tokio::test]
async fn a_hold_that_ran_out_while_no_api_was_there_gives_its_stock_back_once() {
    let settings = Settings::fresh().await;
    boxoffice_reconciler::migrate::migrate(&settings.reconciler()).await.unwrap();
    let stop = CancellationToken::new();
    settings.start_reconciler(&stop);
    let mut first = Process::api(&settings, &[]).await;
    let world = World::looking_at(settings.clone(), first.base.clone(), stop.clone()).await;
    world.selling().await;
    let mut draft = World::draft(&[5]);
    draft["hold_seconds"] = json!(1);
    let event = world.on_sale(&draft).await;
    let held = world.book(&event.id, "held", &event.hold("ann", 5)).await.expect(201);
    first.kill();
    // Only the lease, which gives nothing back, may vanish by itself.
    let names: Vec<String> = world.redis(redis::cmd("KEYS").arg(format!("{}:*", settings.name))).await;
    for name in names.iter().filter(|name| !name.ends_with(":lease")) {
        let lives: i64 = world.redis(redis::cmd("TTL").arg(name)).await;
        assert_eq!(lives, -1, "{name}");
    }
    let expires = held["expires_at"].as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
    eventually("the hold to run out", || async { chrono::Utc::now() > expires }).await;
    let second = Process::api(&settings, &[]).await;
    let world = World::looking_at(settings, second.base.clone(), stop).await;
    eventually("the stock to come back", || async { world.counts(&event, 0).await == (0, 0, 5) }).await;
    assert_eq!(world.cancel(&event.id, &id(&held)).await.expect(200)["status"], "expired");
    world.book(&event.id, "all", &event.request("bob", 5)).await.expect(201);
    world.book(&event.id, "more", &event.request("bob", 1)).await.refused(409, "sold_out");
    world.drained(&event).await;
    assert_eq!(world.rows_counted(&event, 0).await, (0, 5));
    world.nothing_found().await;
}
