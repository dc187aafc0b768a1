//! The live invariant, and the audit that proves it again and again.

use serde_json::json;

use crate::http::{Event, id};
use crate::world::{Settings, World, eventually};

#[tokio::test]
async fn the_audit_shows_both_sides_and_no_drift() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    world.book(&event.id, "a", &event.request("ann", 3)).await.expect(201);
    world.book(&event.id, "b", &event.hold("bob", 2)).await.expect(201);
    let audit = world.drained(&event).await;
    assert_eq!(audit["certified"], true);
    assert_eq!(audit["gaps"], json!([]));
    assert_eq!(
        audit["ticket_types"][0],
        json!({
            "ticket_type_id": event.types[0],
            "redis": {"capacity": 10, "available": 5, "held": 2, "sold": 3},
            "postgres": {"capacity": 10, "held": 2, "sold": 3},
            "drift": 0,
        })
    );
    assert_eq!(audit["redis"]["sequence"], audit["postgres"]["sequence"]);
    eventually("a reconciliation that is in agreement", || async {
        let audit = world.get(&format!("/v1/events/{}/audit", event.id)).await.expect(200);
        audit["last_reconciliation"]["ok"] == true
    })
    .await;
}

#[tokio::test]
async fn a_counter_that_someone_changed_in_redis_is_drift_and_is_not_overwritten() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    world.book(&event.id, "a", &event.request("ann", 3)).await.expect(201);
    world.drained(&event).await;
    let key = world.event_key(&event);
    let _: () = world.redis(redis::cmd("HSET").arg(&key).arg("sold0").arg(1)).await;
    let audit = world.get(&format!("/v1/events/{}/audit", event.id)).await.expect(200);
    assert_eq!(audit["ticket_types"][0]["drift"], 2);
    eventually("the reconciler to record the drift", || async {
        let audit = world.get(&format!("/v1/events/{}/audit", event.id)).await.expect(200);
        audit["last_reconciliation"]["ok"] == false
    })
    .await;
    let sold: String = world.redis(redis::cmd("HGET").arg(&key).arg("sold0")).await;
    assert_eq!(sold, "1", "a difference is an alarm, never an overwrite");
    assert_eq!(world.rows_counted(&event, 0).await, (0, 3));
    let drift: i64 =
        sqlx::query_scalar("SELECT drift FROM reconciliations WHERE NOT ok ORDER BY id DESC LIMIT 1")
            .fetch_one(&world.pool)
            .await
            .unwrap();
    assert_eq!(drift, 2);
}

/// Neither difference makes up for the other.
#[tokio::test]
async fn a_confirmation_that_one_side_lacks_is_drift_of_what_is_held_and_of_what_is_sold() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let held = id(&world.book(&event.id, "a", &event.hold("ann", 1)).await.expect(201));
    world.confirm(&event.id, &held, "pay").await.expect(200);
    world.drained(&event).await;
    let mut command = redis::cmd("HSET");
    command.arg(world.event_key(&event)).arg("held0").arg(1).arg("sold0").arg(0);
    let _: i64 = world.redis(&command).await;
    let audit = world.get(&format!("/v1/events/{}/audit", event.id)).await.expect(200);
    assert_eq!(audit["ticket_types"][0]["drift"], 2, "{audit}");
    eventually("the reconciler to record the same drift", || async {
        let drift: Option<i64> =
            sqlx::query_scalar("SELECT drift FROM reconciliations WHERE NOT ok ORDER BY id DESC LIMIT 1")
                .fetch_optional(&world.pool)
                .await
                .unwrap();
        drift == Some(2)
    })
    .await;
}

/// It came back from an older file, and there is no reconciler that would notice.
#[tokio::test]
async fn what_a_redis_that_is_behind_has_lost_is_drift() {
    let (world, (stop, reconciler)) = World::beside_a_reconciler(Settings::fresh().await).await;
    let event = world.on_sale(&World::draft(&[10])).await;
    world.book(&event.id, "a", &event.request("ann", 3)).await.expect(201);
    world.drained(&event).await;
    stop.cancel();
    reconciler.await.unwrap();
    let path = format!("/v1/events/{}/audit", event.id);
    let _: i64 = world.redis(redis::cmd("HINCRBY").arg(world.shard_key(&event)).arg("seq").arg(-1)).await;
    let _: i64 = world.redis(redis::cmd("HSET").arg(world.event_key(&event)).arg("sold0").arg(0)).await;
    let audit = world.get(&path).await.expect(200);
    assert_eq!((&audit["lag"], &audit["ticket_types"][0]["drift"]), (&json!(0), &json!(3)), "{audit}");
    // Where it has no counts there is nothing to compare.
    let _: i64 = world.redis(redis::cmd("DEL").arg(world.event_key(&event))).await;
    let counts = world.get(&path).await.expect(200)["ticket_types"][0].clone();
    assert!(counts["redis"].is_null() && counts["drift"].is_null(), "{counts}");
}

/// Somebody has taken a counter out of Redis: whoever looks for what is wrong is shown the other side, and no error.
#[tokio::test]
async fn a_side_that_cannot_be_read_is_null_as_one_that_cannot_be_reached() {
    let (world, (stop, reconciler)) = World::beside_a_reconciler(Settings::fresh().await).await;
    let event = world.on_sale(&World::draft(&[10])).await;
    world.book(&event.id, "a", &event.request("ann", 3)).await.expect(201);
    world.drained(&event).await;
    stop.cancel();
    reconciler.await.unwrap();
    let taken: i64 = world.redis(redis::cmd("HDEL").arg(world.event_key(&event)).arg("held0")).await;
    assert_eq!(taken, 1);
    let audit = world.get(&format!("/v1/events/{}/audit", event.id)).await.expect(200);
    assert!(audit["redis"].is_null() && audit["lag"].is_null(), "{audit}");
    let counts = &audit["ticket_types"][0];
    assert!(counts["redis"].is_null() && counts["drift"].is_null(), "{audit}");
    assert_eq!(counts["postgres"], json!({"capacity": 10, "held": 0, "sold": 3}), "{audit}");
}

/// The log stands still, so that no look finds both sides at one position, and five of them would take too long.
#[tokio::test]
async fn an_audit_answers_what_it_has_seen_where_the_next_look_takes_too_long() {
    let (world, (stop, reconciler)) = World::beside_a_reconciler(Settings::fresh().await).await;
    let event = world.on_sale(&World::draft(&[10])).await;
    stop.cancel();
    reconciler.await.unwrap();
    world.book(&event.id, "a", &event.request("ann", 3)).await.expect(201);
    for slowing in [
        "ALTER TABLE events RENAME TO all_events",
        "CREATE VIEW events AS SELECT * FROM all_events WHERE pg_sleep(0.45) IS NOT NULL",
    ] {
        sqlx::query(slowing).execute(&world.pool).await.unwrap();
    }
    let audit = world.get(&format!("/v1/events/{}/audit", event.id)).await.expect(200);
    assert!(audit["lag"].as_u64().is_some_and(|lag| lag > 0), "{audit}");
    assert_eq!(audit["ticket_types"][0]["redis"]["sold"], 3, "{audit}");
}

/// A run that has found this, and is the newest whatever the service records meanwhile; it saw the shard at this sequence.
async fn record_run(world: &World, event: &Event, hours: i32, sequence: i64, kind: &str, is_of_event: bool) {
    sqlx::query(
        "WITH run AS (INSERT INTO reconciliations \
             (started_at, duration_ms, lag, compared, not_compared, drift, ok, positions) \
             VALUES (now() + make_interval(hours => $1), 1, 0, 0, 0, 0, true, \
                     jsonb_build_object($2::text, jsonb_build_object('postgres', jsonb_build_object('sequence', $5)))) \
             RETURNING id) \
         INSERT INTO reconciliation_findings (reconciliation_id, shard, event_id, kind, detail) \
         SELECT id, $2, $3::uuid, $4, '' FROM run",
    )
    .bind(hours)
    .bind(i16::try_from(world.shard_of(event).number()).unwrap())
    .bind(is_of_event.then_some(&event.id))
    .bind(kind)
    .bind(sequence)
    .execute(&world.pool)
    .await
    .unwrap();
}

#[tokio::test]
async fn the_last_reconciliation_of_an_event_counts_what_was_found_of_its_shard_and_not_what_is_a_note() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    world.drained(&event).await;
    let path = format!("/v1/events/{}/audit", event.id);
    for (hours, kind, of_event, ok) in [(1, "overdue_holds", true, true), (2, "redis_behind", false, false)] {
        record_run(&world, &event, hours, 1_000, kind, of_event).await;
        let audit = world.get(&path).await.expect(200);
        assert_eq!(audit["last_reconciliation"]["ok"], ok, "{kind}: {audit}");
    }
}

#[tokio::test]
async fn of_an_event_that_the_audit_did_not_look_at_there_is_no_last_reconciliation() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let draft = id(&world.post("/v1/events", &World::draft(&[10])).await.expect(201));
    world.drained(&event).await;
    let last_of = async |event: &str| {
        world.get(&format!("/v1/events/{event}/audit")).await.expect(200)["last_reconciliation"].clone()
    };
    record_run(&world, &event, 1, 1_000, "overdue_holds", true).await;
    assert_eq!(last_of(&event.id).await["ok"], true);
    assert!(last_of(&draft).await.is_null());
    // It was put on sale since.
    record_run(&world, &event, 2, 0, "overdue_holds", true).await;
    assert!(last_of(&event.id).await.is_null());
    record_run(&world, &event, 3, 1_000, "overdue_holds", true).await;
    world.patch(&event.id, &json!({"status": "closed"})).await.expect(200);
    world.drained(&event).await;
    assert!(last_of(&event.id).await.is_null());
}
