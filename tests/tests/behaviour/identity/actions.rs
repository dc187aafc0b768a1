//! What operators do is written down with it.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{KEYS, Key, command, operated};
use crate::gate::{Server, gated};
use crate::http::{Event, Reply, id};
use crate::world::{World, eventually};

fn audit_log(world: &World, target: &str) -> Vec<Value> {
    let printed = command(&world.settings, &["audit-log", "--target", target, "--json"]).unwrap();
    serde_json::from_str(&printed).unwrap()
}

#[tokio::test]
async fn what_is_done_to_an_event_is_written_down_with_who_and_before_and_after() {
    let (world, operator) = operated(&KEYS).await;
    let event = id(&world.post("/v1/events", &World::draft(&[10])).await.expect(201));
    world.patch(&event, &json!({"name": "Another night"})).await.expect(200);
    world.patch(&event, &json!({"name": "Another night"})).await.expect(200);
    world.publish(&event).await.expect(200);
    let url = world.url(&format!("/v1/events/{event}"));
    let paused = world.http.patch(url).header("X-Request-Id", "req-1").json(&json!({"status": "paused"}));
    Reply::of(paused.send().await.unwrap()).await.expect(200);
    world.patch(&event, &json!({"status": "closed"})).await.expect(200);
    world.patch(&event, &json!({"status": "on_sale"})).await.refused(409, "not_on_sale");

    let log = audit_log(&world, &format!("event {event}"));
    let told: Vec<_> =
        log.iter().map(|e| (e["action"].as_str().unwrap(), e["outcome"].as_str().unwrap())).collect();
    let expected = [
        ("event.create", "done"),
        ("event.amend", "done"),
        ("event.publish", "done"),
        ("event.amend", "done"),
        ("event.amend", "done"),
        ("event.amend", "refused"),
    ];
    assert_eq!(told, expected);
    assert!(log.iter().all(|entry| entry["who"] == format!("key {} (a key)", operator.id)), "{log:?}");
    assert_eq!(
        (&log[1]["before"]["name"], &log[1]["after"]["name"]),
        (&json!("A night out"), &json!("Another night"))
    );
    assert_eq!(
        (&log[3]["before"]["status"], &log[3]["after"]["status"]),
        (&json!("on_sale"), &json!("paused"))
    );
    assert_eq!(log[3]["request_id"], "req-1");
    assert!(log[5]["after"].is_null());
}

/// How often a row of the table says that the event was changed, and how often that it was done.
async fn amendments(world: &World, event: &Event) -> (i64, i64) {
    let count = "SELECT count(*), count(*) FILTER (WHERE outcome = 'done') FROM operator_actions \
                 WHERE target = $1 AND action = 'event.amend'";
    sqlx::query_as(count).bind(format!("event {}", event.id)).fetch_one(&world.pool).await.unwrap()
}

#[tokio::test]
async fn an_event_can_be_paused_while_postgresql_is_away_and_that_is_written_down_when_it_is_back() {
    let (mut world, gate) = gated(Server::Postgres, &KEYS).await;
    let operator = Key::operator(&world.settings);
    world.present_key(&operator).await;
    let event = world.on_sale(&World::draft(&[10])).await;
    world.drained(&event).await;
    gate.shut();
    let mut done = Vec::new();
    for (status, booked) in [("paused", 409), ("on_sale", 201)] {
        let before = Utc::now();
        world.patch(&event.id, &json!({"status": status})).await.expect(200);
        done.push((status, before, Utc::now()));
        world.book(&event.id, "k", &event.request("ann", 1)).await.expect(booked);
    }
    gate.open();
    eventually("the entries to be written", || async { amendments(&world, &event).await.1 == 2 }).await;
    assert_eq!(amendments(&world, &event).await, (2, 2));
    let log = audit_log(&world, &format!("event {}", event.id));
    let amended: Vec<_> = log.iter().filter(|entry| entry["action"] == "event.amend").collect();
    let mut status = "on_sale";
    for (entry, (next, before, after)) in amended.into_iter().zip(done) {
        assert_eq!((&entry["before"]["status"], &entry["after"]["status"]), (&json!(status), &json!(next)));
        // It was done then, and not when PostgreSQL was back.
        let at: DateTime<Utc> = entry["at"].as_str().unwrap().parse().unwrap();
        assert!((before..=after).contains(&at), "{next}: {at} is not {before} to {after}");
        status = next;
    }
}

/// PostgreSQL had it already and only its answer came too late, so that it was written once more.
#[tokio::test]
async fn an_entry_that_was_written_although_it_was_given_up_is_one_row() {
    // Over one connection, which has written an entry before: then the whole statement is sent before it has to wait.
    let (world, _) = operated(&["--auth", "keys", "--database-pool", "1"]).await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let mut lock = world.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE operator_actions IN SHARE MODE").execute(&mut *lock).await.unwrap();
    world.patch(&event.id, &json!({"status": "paused"})).await.expect(200);
    lock.rollback().await.unwrap();
    eventually("the entry to be ended", || async {
        let (all, done) = amendments(&world, &event).await;
        assert!(all <= 1, "{all} rows");
        done == 1
    })
    .await;
}

#[tokio::test]
async fn what_is_done_to_a_key_is_written_down_in_the_same_transaction() {
    let (world, _) = operated(&KEYS).await;
    let key = Key::storefront(&world.settings, "acme");
    let next = key.rotate(&world.settings, "1");
    command(&world.settings, &["keys", "revoke", &key.id, "--by", "eve"]).unwrap();
    // Again: it changes nothing.
    command(&world.settings, &["keys", "revoke", &key.id, "--by", "mallory"]).unwrap();
    let log = audit_log(&world, &format!("key {}", key.id));
    let told: Vec<_> = log.iter().map(|entry| entry["action"].as_str().unwrap()).collect();
    assert_eq!(told, ["key.create", "key.rotate", "key.revoke"]);
    assert_eq!((&log[1]["before"]["id"], &log[1]["after"]["id"]), (&json!(key.id), &json!(next.id)));
    assert_eq!(log[2]["who"], "eve");
    assert!(log[2]["before"]["revoked_at"].is_null() && log[2]["after"]["revoked_at"].is_string());
    // Where the entry cannot be written the action does not happen.
    sqlx::query("ALTER TABLE operator_actions ADD CHECK (who <> 'mallory')")
        .execute(&world.pool)
        .await
        .unwrap();
    command(&world.settings, &["keys", "revoke", &next.id, "--by", "mallory"]).unwrap_err();
    let listed = command(&world.settings, &["keys", "list", "--json"]).unwrap();
    assert!(listed.contains(&next.id), "{listed}");
}

#[tokio::test]
async fn an_entry_is_neither_changed_nor_taken_away() {
    let (world, _) = operated(&KEYS).await;
    for statement in [
        "UPDATE operator_actions SET who = 'nobody'",
        "UPDATE operator_actions SET outcome = 'refused', ended_at = now()",
        "DELETE FROM operator_actions",
        "TRUNCATE operator_actions",
    ] {
        let refused = sqlx::query(statement).execute(&world.pool).await.unwrap_err();
        assert!(refused.to_string().contains("only added to"), "{statement}: {refused}");
    }
}
