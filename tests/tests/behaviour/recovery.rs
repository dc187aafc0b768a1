//! Redis killed in the middle of a sale: nothing is sold until it was verified, and nothing is lost.

use futures_util::future::join_all;
use serde_json::json;
use sqlx::AssertSqlSafe;
use tokio_util::sync::CancellationToken;

use crate::gate::{Server, gated};
use crate::http::{Event, Reply, id};
use crate::private_redis::PrivateRedis;
use crate::world::{Settings, World, eventually};

async fn sell(world: &World, event: &Event, prefix: &str, count: usize) -> Vec<Vec<u8>> {
    let book = |n: usize| async move {
        let reply =
            world.book(&event.id, &format!("{prefix}-{n}"), &event.request(&format!("buyer-{n}"), 1)).await;
        reply.expect(201);
        reply.body
    };
    join_all((0..count).map(book)).await
}

/// Asks again for each booking of [`sell`]; the answers are the same bytes.
async fn are_replayed(world: &World, event: &Event, prefix: &str, sold: &[Vec<u8>]) {
    for (n, body) in sold.iter().enumerate() {
        let replay =
            world.book(&event.id, &format!("{prefix}-{n}"), &event.request(&format!("buyer-{n}"), 1)).await;
        assert_eq!((replay.status, &replay.body), (201, body));
    }
}

#[tokio::test]
async fn after_redis_was_killed_and_restarted_with_its_file_sales_go_on_and_every_booking_is_there() {
    let mut redis = PrivateRedis::start().await;
    let world = World::on(&redis).await;
    let event = world.on_sale(&World::draft(&[500])).await;
    let sold = sell(&world, &event, "before", 100).await;
    redis.kill();
    world.book(&event.id, "while-dead", &event.request("ann", 1)).await.refused(503, "redis_unavailable");
    redis.start_again().await;
    eventually("sales to go on", || async {
        let reply = world.book(&event.id, "after", &event.request("ann", 1)).await;
        assert!([201, 503].contains(&reply.status), "{reply:?}");
        reply.status == 201
    })
    .await;
    are_replayed(&world, &event, "before", &sold).await;
    let audit = world.drained(&event).await;
    assert_eq!(audit["epoch"], 2, "a recovery took place: {audit}");
    assert_eq!(audit["certified"], true);
    assert_eq!(world.rows_counted(&event, 0).await, (0, 101));
    assert_eq!(world.rows_of(&event).await, 101);
}

#[tokio::test]
async fn a_redis_that_lost_its_data_is_restored_before_one_ticket_is_sold() {
    let redis = PrivateRedis::start().await;
    let world = World::on(&redis).await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let first = world.book(&event.id, "a", &event.request("ann", 3)).await;
    first.expect(201);
    let held = id(&world.book(&event.id, "h", &event.hold("ann", 1)).await.expect(201));
    world.drained(&event).await;
    let _: String = world.redis(&redis::cmd("FLUSHALL")).await;
    eventually("the six that are left to be for sale again", || async {
        let too_many = world.book(&event.id, "b", &event.request("bob", 7)).await;
        assert!([503, 409].contains(&too_many.status), "sold twice: {too_many:?}");
        let rest = world.book(&event.id, "c", &event.request("bob", 6)).await;
        assert!([503, 201].contains(&rest.status), "{rest:?}");
        rest.status == 201
    })
    .await;
    assert_eq!(world.counts(&event, 0).await, (1, 9, 0));
    let replay = world.book(&event.id, "a", &event.request("ann", 3)).await;
    assert_eq!((replay.status, replay.body), (201, first.body));
    assert_eq!(world.confirm(&event.id, &held, "pay").await.expect(200)["status"], "confirmed");
    world.drained(&event).await;
    assert_eq!(world.rows_counted(&event, 0).await, (0, 10));
}

/// Its records were on their way to Kafka when Redis died; they arrive behind the barrier of the recovery.
#[tokio::test]
async fn what_a_late_relay_sends_behind_the_barrier_is_known_already_and_harms_nothing() {
    let mut redis = PrivateRedis::start().await;
    let mut settings = Settings::fresh().await;
    settings.redis_url = redis.url();
    let (gated, gate) = settings.gated(Server::Kafka).await;
    let world = World::reached(settings.clone(), &settings, &gated, &[]).await;
    let event = world.on_sale(&World::draft(&[100])).await;
    world.drained(&event).await;
    gate.freeze();
    sell(&world, &event, "late", 10).await;
    redis.kill();
    redis.start_again().await;
    world.sells_again(&event, "after", "ann").await;
    assert!(world.rows_of(&event).await >= 10, "recovery has brought them to Kafka");
    let once = world.settings.logged(world.shard_of(&event)).await.len();
    gate.open();
    eventually("the late records to arrive", || async {
        world.settings.logged(world.shard_of(&event)).await.len() > once + 1
    })
    .await;
    world.drained(&event).await;
    assert_eq!(world.rows_counted(&event, 0).await, (0, 11));
    world.nothing_found().await;
}

/// A Redis that came back from an older file holds bookings as they once were.
#[tokio::test]
async fn what_an_unverified_redis_holds_is_not_shown_as_a_bookings_present_state() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let booking = id(&world.book(&event.id, "a", &event.request("ann", 1)).await.expect(201));
    world.drained(&event).await;
    let certificate = world.keys.certificate(world.shard_of(&event));
    // The reconciler may verify the shard again before the booking is read.
    eventually("the booking as PostgreSQL has it", || async {
        let _: i64 = world.redis(redis::cmd("DEL").arg(&certificate)).await;
        let read = world.booking(&event.id, &booking).await;
        read.expect(200);
        read.header("boxoffice-stale") == Some("true")
    })
    .await;
}

/// Nor that of its event, unless nobody knows better. What is shown is marked in either case.
#[tokio::test]
async fn what_an_unverified_redis_holds_is_not_shown_as_an_events_present_state() {
    let (settings, gate) = Settings::fresh().await.gated(Server::Postgres).await;
    let (world, (stop, reconciler)) = World::beside_a_reconciler(settings).await;
    let event = world.on_sale(&World::draft(&[10])).await;
    world.book(&event.id, "a", &event.request("ann", 3)).await.expect(201);
    world.patch(&event.id, &json!({"status": "paused"})).await.expect(200);
    world.drained(&event).await;
    stop.cancel();
    reconciler.await.unwrap();
    let mut older = redis::cmd("HSET");
    older.arg(world.event_key(&event)).arg("status").arg("on_sale").arg("sold0").arg(0);
    let _: i64 = world.redis(&older).await;
    let certificate = world.keys.certificate(world.shard_of(&event));
    let _: i64 = world.redis(redis::cmd("DEL").arg(&certificate)).await;
    let path = format!("/v1/events/{}", event.id);
    for (status, sold) in [("paused", 3), ("on_sale", 0)] {
        let (read, left) = (world.get(&path).await, world.get(&format!("{path}/availability")).await);
        for reply in [&read, &left] {
            assert_eq!(reply.header("boxoffice-stale"), Some("true"), "{reply:?}");
        }
        assert_eq!(read.expect(200)["status"], status);
        let left = left.expect(200);
        assert_eq!((&left["status"], &left["stale"]), (&json!(status), &json!(true)));
        let tickets = &left["ticket_types"][0];
        assert_eq!((&tickets["sold"], &tickets["on_sale"]), (&json!(sold), &json!(false)));
        gate.shut();
    }
}

/// The host of PostgreSQL was replaced: nobody ever says that the connections to the old one are gone.
#[tokio::test]
async fn a_reconciler_whose_connections_to_postgresql_went_silent_recovers_with_new_ones() {
    let (world, gate) = gated(Server::Postgres, &[]).await;
    let event = world.on_sale(&World::draft(&[100])).await;
    sell(&world, &event, "before", 10).await;
    world.drained(&event).await;
    gate.replace();
    let certificate = world.keys.certificate(world.shard_of(&event));
    let _: i64 = world.redis(redis::cmd("DEL").arg(certificate)).await;
    world.sells_again(&event, "after", "ann").await;
    eventually("PostgreSQL to have all rows", || async { world.rows_of(&event).await == 11 }).await;
}

/// Of the connections from the reconciler those in a state, and for which something holds.
async fn connections(world: &World, state: &str, holds: &str) -> i64 {
    let count = format!(
        "WITH found AS MATERIALIZED (SELECT pid FROM pg_stat_activity WHERE datname = current_database() \
         AND application_name = 'boxoffice-reconciler' AND {state}) SELECT count(*) FROM found WHERE {holds}"
    );
    sqlx::query_scalar(AssertSqlSafe(count)).fetch_one(&world.pool).await.unwrap()
}

/// The same while it waits for an answer. Who asks later may find a new connection, and who waits already would wait for ever.
#[tokio::test]
async fn a_reconciler_that_was_asking_postgresql_when_it_went_silent_asks_again_over_new_connections() {
    let (world, gate) = gated(Server::Postgres, &[]).await;
    let event = world.on_sale(&World::draft(&[100])).await;
    world.drained(&event).await;
    let mut lock = world.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE shards IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    let looking = "wait_event_type = 'Lock' AND query LIKE 'SELECT shard, recovery_epoch%'";
    eventually("the reconciler to ask which epochs were taken", || async {
        connections(&world, looking, "true").await > 0
    })
    .await;
    // Its pool makes new ones then, where silent ones would be noticed by whoever takes them.
    let idle = "state = 'idle' AND query NOT LIKE 'INSERT INTO leases%'";
    eventually("its idle connections to be gone", || async {
        connections(&world, idle, "pg_terminate_backend(pid)").await == 0
    })
    .await;
    gate.replace();
    lock.rollback().await.unwrap();
    let certificate = world.keys.certificate(world.shard_of(&event));
    let _: i64 = world.redis(redis::cmd("DEL").arg(certificate)).await;
    world.sells_again(&event, "after", "ann").await;
    eventually("PostgreSQL to have the row", || async { world.rows_of(&event).await == 1 }).await;
}

/// The same of Kafka: its client would wait a minute for the answer to what it asked last.
#[tokio::test]
async fn a_reconciler_whose_connection_to_kafka_went_silent_reads_on_with_a_new_one() {
    let direct = Settings::fresh().await;
    let (gated, gate) = direct.gated(Server::Kafka).await;
    let world = World::reached(direct.clone(), &gated, &direct, &[]).await;
    let event = world.on_sale(&World::draft(&[100])).await;
    sell(&world, &event, "before", 10).await;
    world.drained(&event).await;
    gate.replace();
    sell(&world, &event, "after", 10).await;
    eventually("PostgreSQL to have all rows", || async { world.rows_of(&event).await == 20 }).await;
}

/// Its recoveries would take numbers of epochs that the log has already, and find their barriers there before it was read.
#[tokio::test]
async fn a_restored_postgresql_reads_the_log_to_its_end_before_an_empty_redis_is_restored_from_it() {
    let redis = PrivateRedis::start().await;
    let mut settings = Settings::fresh().await;
    settings.redis_url = redis.url();
    let first = World::start_in(settings.clone(), &[]).await;
    let event = first.on_sale(&World::draft(&[1_000])).await;
    first.drained(&event).await;
    drop(first);
    let restored = settings.copy_of_database().await;

    let stop = CancellationToken::new();
    settings.start_reconciler(&stop);
    let second = World::around(settings, &[], stop).await;
    let _: String = second.redis(&redis::cmd("FLUSHALL")).await;
    second.sells_again(&event, "ann", "ann").await;
    let sold = sell(&second, &event, "late", 300).await;
    second.drained(&event).await;
    let _: String = second.redis(&redis::cmd("FLUSHALL")).await;
    drop(second);

    let stop = CancellationToken::new();
    restored.start_reconciler(&stop);
    let third = World::around(restored, &[], stop).await;
    third.sells_again(&event, "bob", "bob").await;
    are_replayed(&third, &event, "late", &sold).await;
    let audit = third.drained(&event).await;
    assert_eq!(audit["epoch"], 3, "the second is in the log: {audit}");
    assert_eq!(third.rows_counted(&event, 0).await, (0, 302));
    let alarms: Vec<String> =
        sqlx::query_scalar("SELECT kind FROM alarms").fetch_all(&third.pool).await.unwrap();
    assert_eq!(alarms, ["redis_lost"], "and none about the log");
}

/// Sales end long before the event takes place.
#[tokio::test]
async fn bookings_of_an_event_that_was_closed_long_ago_and_is_yet_to_come_are_restored_and_can_be_cancelled()
{
    let redis = PrivateRedis::start().await;
    let world = World::on(&redis).await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let booked = id(&world.book(&event.id, "a", &event.request("ann", 3)).await.expect(201));
    world.patch(&event.id, &json!({"status": "closed"})).await.expect(200);
    world.drained(&event).await;
    sqlx::query("UPDATE events SET updated_at = now() - interval '40 days'")
        .execute(&world.pool)
        .await
        .unwrap();
    let _: String = world.redis(&redis::cmd("FLUSHALL")).await;
    eventually("the booking to be cancelled", || async {
        let reply = world.cancel(&event.id, &booked).await;
        assert!([503, 200].contains(&reply.status), "{reply:?}");
        reply.status == 200
    })
    .await;
    world.drained(&event).await;
    assert_eq!(world.rows_counted(&event, 0).await, (0, 0));
}

/// Closes an event, and loses it once it took place so long ago that no restoration brings it back. The world of another API:
/// one that knows the event from before asks Redis for a minute.
async fn over(world: &World, event: &Event) -> World {
    world.patch(&event.id, &json!({"status": "closed"})).await.expect(200);
    world.drained(event).await;
    let long_ago =
        "UPDATE events SET starts_at = now() - interval '40 days', updated_at = now() - interval '40 days'";
    sqlx::query(long_ago).execute(&world.pool).await.unwrap();
    let _: String = world.redis(&redis::cmd("FLUSHALL")).await;
    World::around(world.settings.clone(), &[], CancellationToken::new()).await
}

#[tokio::test]
async fn what_became_of_the_bookings_of_an_event_that_is_over_is_answered_without_redis_and_stays() {
    let redis = PrivateRedis::start().await;
    let world = World::on(&redis).await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let booked = id(&world.book(&event.id, "a", &event.request("ann", 3)).await.expect(201));
    let held = id(&world.book(&event.id, "b", &event.hold("bob", 2)).await.expect(201));
    let cancelled = id(&world.book(&event.id, "c", &event.request("eve", 1)).await.expect(201));
    let answer = world.cancel(&event.id, &cancelled).await.expect(200);
    let in_the_way = "INSERT INTO dead_letters (shard, kafka_offset, kind, reason, payload) \
                      SELECT shard, 1000000, 'poisoned', 'x', '' FROM shards";
    sqlx::query(in_the_way).execute(&world.pool).await.unwrap();
    let another = over(&world, &event).await;
    // A Redis that nobody has verified says nothing, and PostgreSQL need not know all that it did.
    for booking in [&booked, &cancelled] {
        another.cancel(&event.id, booking).await.refused(503, "inventory_unverified");
        another.confirm(&event.id, booking, "pay").await.refused(503, "inventory_unverified");
    }
    let discarded = "UPDATE dead_letters SET outcome = 'discarded', resolved_at = now()";
    sqlx::query(discarded).execute(&world.pool).await.unwrap();
    eventually("the event to be over", || async {
        let reply = another.cancel(&event.id, &cancelled).await;
        assert!([503, 200].contains(&reply.status), "{reply:?}");
        reply.status == 200
    })
    .await;
    assert_eq!(another.cancel(&event.id, &cancelled).await.expect(200), answer);
    another.cancel(&event.id, &booked).await.refused(409, "not_on_sale");
    another.confirm(&event.id, &booked, "pay").await.expect(200);
    another.confirm(&event.id, &held, "pay").await.refused(409, "hold_expired");
    another.confirm(&event.id, &cancelled, "pay").await.refused(409, "booking_cancelled");
    another.confirm(&event.id, &id(&answer).replace('0', "1"), "pay").await.refused(404, "booking_not_found");
    assert_eq!(world.rows_counted(&event, 0).await, (2, 3));
}

#[tokio::test]
async fn the_same_value_changes_nothing_of_an_event_that_is_over_and_gone_from_redis() {
    let redis = PrivateRedis::start().await;
    let world = World::on(&redis).await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let another = over(&world, &event).await;
    let same = json!({"name": "A night out", "status": "closed", "ticket_types": [{"id": event.types[0], "capacity": 10}]});
    eventually("the change to be answered", || async {
        let reply = another.patch(&event.id, &same).await;
        assert!([503, 200].contains(&reply.status), "{reply:?}");
        reply.status == 200
    })
    .await;
    let path = format!("/v1/events/{}", event.id);
    let (changed, shown) = (another.patch(&event.id, &same).await, another.get(&path).await);
    assert_eq!((changed.expect(200), changed.header("etag")), (shown.expect(200), shown.header("etag")));
    for other in [json!({"name": "Another night"}), json!({"status": "on_sale"})] {
        another.patch(&event.id, &other).await.refused(409, "not_on_sale");
    }
    let of_another = another.http.patch(another.url(&path)).header("If-Match", "\"another\"").json(&same);
    Reply::of(of_another.send().await.unwrap()).await.refused(412, "precondition_failed");
}
