//! Rate limits through the front door: who is refused, what they are told, and what happens when something is away.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::gate::{Server, gated};
use crate::http::{Event, Reply, id};
use crate::identity::{KEYS, Key, operated};
use crate::processes::{Process, RECONCILER, program};
use crate::temporary::TemporaryFile;
use crate::world::{World, eventually};

fn policies(text: &str) -> TemporaryFile {
    TemporaryFile::new("limits.toml", text)
}

/// Under these policies, with the client's address as a proxy says it.
fn under(file: &TemporaryFile) -> [&str; 4] {
    ["--rate-limits", file.name(), "--trusted-proxies", "127.0.0.0/8"]
}

fn policy(name: &str, action: &str, per: &str, limit: u32) -> String {
    let per = if per.is_empty() { String::new() } else { format!("per = \"{per}\"\n") };
    // A day is longer than any test, and a bucket has no boundary that a test could meet.
    format!(
        "[[policy]]\nname = \"{name}\"\nfor = \"{action}\"\n{per}algorithm = \"token_bucket\"\nlimit = {limit}\nwindow_seconds = 86400\n\n"
    )
}

impl World {
    async fn book_from(&self, address: &str, event: &Event, key: &str, customer: &str) -> Reply {
        let url = self.url(&format!("/v1/events/{}/bookings", event.id));
        let request = self.http.post(url).header("Idempotency-Key", key).header("X-Forwarded-For", address);
        Reply::of(request.json(&event.request(customer, 1)).send().await.unwrap()).await
    }

    async fn get_from(&self, address: &str, path: &str) -> Reply {
        let request = self.http.get(self.url(path)).header("X-Forwarded-For", address);
        Reply::of(request.send().await.unwrap()).await
    }

    async fn check_rate(&self, policy: &str, key: &str, cost: u32) -> Reply {
        let question = json!({"policy": policy, "key": key, "cost": cost});
        self.post("/v1/rate-limit/check", &question).await
    }
}

#[tokio::test]
async fn a_crowd_that_retries_is_not_counted() {
    let file = policies(&policy("per-customer", "booking", "customer", 2));
    let world = World::start_with(&under(&file)).await;
    let event = world.on_sale(&World::draft(&[100])).await;
    let first = world.book(&event.id, "a", &event.request("ann", 1)).await;
    first.expect(201);
    let retries = join_all((0..20).map(|_| world.book_owned(&event, "a", event.request("ann", 1)))).await;
    for retry in retries {
        assert_eq!((retry.status, &retry.body), (201, &first.body));
        assert_eq!(retry.header("ratelimit"), None);
    }
    world.book(&event.id, "b", &event.request("ann", 1)).await.expect(201);
    world.book(&event.id, "c", &event.request("ann", 1)).await.refused(429, "rate_limited");
    let retry = world.book(&event.id, "a", &event.request("ann", 1)).await;
    assert_eq!((retry.status, &retry.body), (201, &first.body));
}

#[tokio::test]
async fn a_customer_who_books_too_often_gets_429_and_is_told_how_they_stand() {
    let file = policies(&policy("per-customer", "booking", "customer", 2));
    let world = World::start_with(&under(&file)).await;
    let event = world.on_sale(&World::draft(&[100])).await;
    let first = world.book(&event.id, "a", &event.request("ann", 1)).await;
    first.expect(201);
    assert_eq!(first.header("ratelimit-policy"), Some("\"per-customer\";q=2;w=86400"));
    assert_eq!(first.header("ratelimit"), Some("\"per-customer\";r=1;t=43200"));
    world.book(&event.id, "b", &event.request("ann", 1)).await.expect(201);
    let refused = world.book(&event.id, "c", &event.request("ann", 1)).await;
    let problem = refused.refused(429, "rate_limited");
    assert!(problem["detail"].as_str().unwrap().contains("per-customer"), "{problem}");
    let retry_after: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((43_000..=43_200).contains(&retry_after), "{retry_after}");
    assert!(refused.header("ratelimit").unwrap().starts_with("\"per-customer\";r=0;t=86"));
    world.book(&event.id, "d", &event.request("bob", 1)).await.expect(201);
    assert_eq!(world.counts(&event, 0).await, (0, 3, 97));
    world.drained(&event).await;
    world.nothing_found().await;
}

#[tokio::test]
async fn the_retry_of_a_booking_that_succeeded_is_answered_however_little_is_left() {
    let file = policies(&policy("per-customer", "booking", "customer", 1));
    let world = World::start_with(&under(&file)).await;
    let event = world.on_sale(&World::draft(&[100])).await;
    let booked = world.book(&event.id, "a", &event.request("ann", 1)).await;
    booked.expect(201);
    world.book(&event.id, "b", &event.request("ann", 1)).await.refused(429, "rate_limited");
    let replay = world.book(&event.id, "a", &event.request("ann", 1)).await;
    replay.expect(201);
    assert_eq!(replay.header("idempotent-replayed"), Some("true"));
    assert_eq!(replay.body, booked.body);
}

#[tokio::test]
async fn a_refusal_by_one_policy_takes_nothing_from_another() {
    let both = policy("per-address", "booking", "address", 1) + &policy("per-event", "booking", "event", 2);
    let file = policies(&both);
    let world = World::start_with(&under(&file)).await;
    let event = world.on_sale(&World::draft(&[100])).await;
    world.book_from("192.0.2.1", &event, "a", "ann").await.expect(201);
    for n in 0..3 {
        let refused = world.book_from("192.0.2.1", &event, &format!("again-{n}"), "bob").await;
        refused.refused(429, "rate_limited");
    }
    world.book_from("192.0.2.2", &event, "b", "bob").await.expect(201);
    let refused = world.book_from("192.0.2.3", &event, "c", "cid").await.refused(429, "rate_limited");
    assert!(refused["detail"].as_str().unwrap().contains("per-event"), "{refused}");
}

#[tokio::test]
async fn readers_are_limited_by_address_and_others_read_on() {
    let file = policies(&policy("reads", "reading", "address", 3));
    let world = World::start_with(&under(&file)).await;
    let event = world.on_sale(&World::draft(&[1])).await;
    let path = format!("/v1/events/{}/availability", event.id);
    for left in [2, 1, 0] {
        let reply = world.get_from("192.0.2.1", &path).await;
        reply.expect(200);
        assert!(reply.header("ratelimit").unwrap().starts_with(&format!("\"reads\";r={left};")));
    }
    world.get_from("192.0.2.1", &path).await.refused(429, "rate_limited");
    world.get_from("192.0.2.1", "/v1/events").await.refused(429, "rate_limited");
    world.get_from("192.0.2.2", &path).await.expect(200);
    world.get_from("192.0.2.1", "/livez").await.expect(200);
}

#[tokio::test]
async fn without_policies_for_an_action_nothing_is_counted() {
    let file = policies(&policy("reads", "reading", "address", 1_000));
    let world = World::start_with(&under(&file)).await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let booked = world.book(&event.id, "a", &event.request("ann", 1)).await;
    booked.expect(201);
    assert_eq!(booked.header("ratelimit"), None);
    let cancelled = world.cancel(&event.id, &id(&booked.json())).await;
    cancelled.expect(200);
    assert_eq!(cancelled.header("ratelimit"), None);
}

#[tokio::test]
async fn what_never_reaches_the_decision_is_counted_too() {
    let file = policies(&policy("per-address", "booking", "address", 2));
    let world = World::start_with(&under(&file)).await;
    let missing =
        Event { id: uuid::Uuid::now_v7().to_string(), types: vec![uuid::Uuid::now_v7().to_string()] };
    for key in ["a", "b"] {
        world.book_from("192.0.2.1", &missing, key, "ann").await.refused(404, "event_not_found");
    }
    world.book_from("192.0.2.1", &missing, "c", "ann").await.refused(429, "rate_limited");
}

#[tokio::test]
async fn what_fails_for_a_reason_of_ours_before_the_decision_is_not_counted() {
    let file = policies(&policy("per-address", "booking", "address", 1));
    let (world, gate) = gated(Server::Postgres, &under(&file)).await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let unknown =
        Event { id: uuid::Uuid::now_v7().to_string(), types: vec![uuid::Uuid::now_v7().to_string()] };
    gate.shut();
    for n in 0..3 {
        let refused = world.book_from("192.0.2.1", &unknown, &format!("unknown-{n}"), "ann").await;
        refused.refused(503, "postgres_unavailable");
    }
    world.book_from("192.0.2.1", &event, "a", "ann").await.expect(201);
    world.book_from("192.0.2.1", &event, "b", "ann").await.refused(429, "rate_limited");
}

#[tokio::test]
async fn a_hundred_clients_at_once_never_get_more_than_the_limit() {
    let file = policies(&policy("per-event", "booking", "event", 40));
    let world = World::start_with(&under(&file)).await;
    let event = world.on_sale(&World::draft(&[1_000])).await;
    let one = |n: usize| {
        let (world, event) = (&world, &event);
        async move { world.book(&event.id, &format!("k{n}"), &event.request(&format!("c{n}"), 1)).await.status }
    };
    let statuses = join_all((0..100).map(one)).await;
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 40, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 60, "{statuses:?}");
    assert_eq!(world.counts(&event, 0).await.1, 40);
}

#[tokio::test]
async fn policies_change_without_a_restart_and_a_broken_file_changes_nothing() {
    let file = policies(&policy("per-customer", "booking", "customer", 1));
    let mut world = World::start().await;
    // A process of its own, since it has metrics of its own.
    let process = Process::api(&world.settings, &under(&file)).await;
    world.base.clone_from(&process.base);
    let event = world.on_sale(&World::draft(&[100])).await;
    world.book(&event.id, "a", &event.request("ann", 1)).await.expect(201);
    world.book(&event.id, "b", &event.request("ann", 1)).await.refused(429, "rate_limited");

    file.replace("[[policy]]\nname = ");
    eventually("the broken file to be noticed", || async {
        let metrics = world.get("/metrics").await;
        String::from_utf8_lossy(&metrics.body)
            .lines()
            .any(|line| line == "boxoffice_rate_limits_file_valid 0")
    })
    .await;
    world.book(&event.id, "b", &event.request("ann", 1)).await.refused(429, "rate_limited");

    file.replace(&policy("per-customer", "booking", "customer", 2));
    eventually("the new limit to be in force", || async {
        world.book(&event.id, "b", &event.request("ann", 1)).await.status == 201
    })
    .await;
    std::fs::remove_file(file.path()).unwrap();
    world.book(&event.id, "c", &event.request("ann", 1)).await.expect(201);
    world.book(&event.id, "d", &event.request("ann", 1)).await.refused(429, "rate_limited");
}

#[tokio::test]
async fn whoever_may_not_read_a_customers_bookings_uses_nothing_of_that_customers_limit_up() {
    let file = policies(&policy("reads", "reading", "customer", 3));
    let (mut world, operator) = operated(&[&KEYS[..], &under(&file)].concat()).await;
    world.present(None);
    for _ in 0..5 {
        world.get("/v1/customers/ann+b/bookings").await.refused(401, "unauthenticated");
    }
    world.present_key(&operator).await;
    // One customer, however the name is written in an address.
    for written in ["ann+b", "ann%2Bb", "ann+b"] {
        world.get(&format!("/v1/customers/{written}/bookings")).await.expect(200);
    }
    world.get("/v1/customers/ann%2Bb/bookings").await.refused(429, "rate_limited");
}

#[tokio::test]
async fn while_redis_is_away_bookings_are_refused_and_reads_are_let_in() {
    let both = policy("bookings", "booking", "customer", 100) + &policy("reads", "reading", "address", 1);
    let file = policies(&both);
    let (world, gate) = gated(Server::Redis, &under(&file)).await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let path = format!("/v1/events/{}", event.id);
    world.get(&path).await.expect(200);
    world.get(&path).await.refused(429, "rate_limited");
    gate.shut();
    world.book(&event.id, "a", &event.request("ann", 1)).await.refused(503, "redis_unavailable");
    eventually("reads to be let in", || async { world.get(&path).await.status == 200 }).await;
    for _ in 0..5 {
        world.get(&path).await.expect(200);
    }
    gate.freeze();
    for _ in 0..5 {
        let started = Instant::now();
        world.get(&path).await.expect(200);
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    }
    gate.open();
    eventually("reads to be limited again", || async { world.get(&path).await.status == 429 }).await;
    eventually("bookings to go on", || async {
        world.book(&event.id, "a", &event.request("ann", 1)).await.status == 201
    })
    .await;
}

#[tokio::test]
async fn an_obvious_flood_is_refused_from_memory() {
    let file = policies(&policy("per-address", "booking", "address", 1));
    let (world, gate) = gated(Server::Redis, &under(&file)).await;
    let event = world.on_sale(&World::draft(&[10])).await;
    world.book_from("192.0.2.1", &event, "a", "ann").await.expect(201);
    for n in 0..15 {
        let refused = world.book_from("192.0.2.1", &event, &format!("flood-{n}"), "ann").await;
        refused.refused(429, "rate_limited");
    }
    // Redis can no longer be asked, and need not be.
    gate.shut();
    let refused = world.book_from("192.0.2.1", &event, "more", "ann").await;
    refused.refused(429, "rate_limited");
    let retry_after: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((86_000..=86_400).contains(&retry_after), "{retry_after}");
    world.book_from("192.0.2.2", &event, "b", "bob").await.refused(503, "redis_unavailable");
}

#[tokio::test]
async fn a_flood_that_is_counted_with_others_keeps_nobody_from_the_answer_to_a_retry() {
    let file = policies(&policy("per-event", "booking", "event", 1));
    let world = World::start_with(&under(&file)).await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let booked = world.book_from("192.0.2.1", &event, "a", "ann").await;
    booked.expect(201);
    for n in 0..15 {
        let refused = world.book_from("192.0.2.2", &event, &format!("flood-{n}"), "bob").await;
        refused.refused(429, "rate_limited");
    }
    let retry = world.book_from("192.0.2.1", &event, "a", "ann").await;
    assert_eq!((retry.status, retry.body), (201, booked.body));
}

#[tokio::test]
async fn refusals_with_something_allowed_between_them_are_no_flood() {
    let file = policies(&policy("mails", "service", "", 5));
    let (world, gate) = gated(Server::Redis, &under(&file)).await;
    for _ in 0..2 {
        assert_eq!(world.check_rate("mails", "ann", 1).await.expect(200)["allowed"], true);
        for _ in 0..6 {
            assert_eq!(world.check_rate("mails", "ann", 5).await.expect(200)["allowed"], false);
        }
    }
    // Only Redis can say it, which can no longer be asked.
    gate.shut();
    world.check_rate("mails", "ann", 5).await.refused(503, "redis_unavailable");
}

#[tokio::test]
async fn other_services_ask_before_they_work() {
    let file = policies(&(policy("mails", "service", "", 5) + &policy("bookings", "booking", "customer", 5)));
    let world = World::start_with(&under(&file)).await;
    let allowed = world.check_rate("mails", "ann", 3).await.expect(200);
    assert_eq!(
        (&allowed["allowed"], &allowed["remaining"], &allowed["limit"]),
        (&json!(true), &json!(2), &json!(5))
    );
    assert_eq!(allowed["retry_after_seconds"], Value::Null);
    let refused = world.check_rate("mails", "ann", 3).await.expect(200);
    assert_eq!((&refused["allowed"], &refused["remaining"]), (&json!(false), &json!(2)));
    assert!(refused["retry_after_seconds"].as_u64().unwrap() > 0);
    assert_eq!(world.check_rate("mails", "ann", 2).await.expect(200)["allowed"], true);
    for hostile in ["{s00}", "*", "a}{b", "../x", "größer", "%00"] {
        assert_eq!(world.check_rate("mails", hostile, 5).await.expect(200)["allowed"], true, "{hostile}");
        assert_eq!(world.check_rate("mails", hostile, 1).await.expect(200)["allowed"], false, "{hostile}");
    }
    for (policy, key, cost, field) in [
        ("mails", "ann", 6, "cost"),
        ("nonsense", "ann", 1, "policy"),
        ("bookings", "ann", 1, "policy"),
        ("mails", "", 1, "key"),
        ("mails", "a\u{0}b", 1, "key"),
        ("mails", "ann", 0, "cost"),
    ] {
        let problem = world.check_rate(policy, key, cost).await.refused(422, "validation_failed");
        assert_eq!(problem["errors"][0]["field"], field, "{problem}");
    }
}

#[tokio::test]
async fn what_the_limits_decided_is_summed_up_and_the_worst_offender_is_named() {
    let file = policies(&policy("per-address", "booking", "address", 2));
    let world = World::start_with(&under(&file)).await;
    let event = world.on_sale(&World::draft(&[100])).await;
    for n in 0..30 {
        world.book_from("192.0.2.1", &event, &format!("a{n}"), "ann").await;
    }
    for n in 0..3 {
        world.book_from("192.0.2.2", &event, &format!("b{n}"), "bob").await;
    }
    let sums = "SELECT key, sum(allowed)::int8, sum(refused)::int8, sum(refused_from_memory)::int8 \
                FROM rate_limit_minutes WHERE policy = 'per-address' GROUP BY key ORDER BY key";
    eventually("the decisions to be in PostgreSQL", || async {
        let rows: Vec<(String, i64, i64, i64)> = sqlx::query_as(sums).fetch_all(&world.pool).await.unwrap();
        let expected = [("192.0.2.1".to_owned(), 2, 10, 18), ("192.0.2.2".to_owned(), 2, 1, 0)];
        rows == expected
    })
    .await;
    let mut arguments: Vec<String> = world.settings.reconciler_arguments().split_off(1);
    arguments.extend(["limits", "top", "--json"].map(str::to_owned));
    let mut command = program(RECONCILER, &arguments);
    let output = command.stdout(std::process::Stdio::piped()).output().unwrap();
    let offenders: Value = serde_json::from_slice(&output.stdout).unwrap();
    let found: Vec<_> =
        offenders.as_array().unwrap().iter().map(|row| (&row["key"], &row["refused"])).collect();
    assert_eq!(found, [(&json!("192.0.2.1"), &json!(10)), (&json!("192.0.2.2"), &json!(1))], "{offenders}");
}

#[tokio::test]
async fn a_key_is_counted_for_itself_and_a_bad_one_by_its_address() {
    let both = policy("per-key", "booking", "api_key", 2) + &policy("per-address", "booking", "address", 4);
    let file = policies(&both);
    let (mut world, _operator) = operated(&[&KEYS[..], &under(&file)].concat()).await;
    let event = world.on_sale(&World::draft(&[100])).await;
    let (first, second) = (Key::storefront(&world.settings, "one"), Key::storefront(&world.settings, "two"));
    world.present_key(&first).await;
    world.book_from("192.0.2.1", &event, "a", "ann").await.expect(201);
    world.book_from("192.0.2.1", &event, "b", "bob").await.expect(201);
    let refused = world.book_from("192.0.2.1", &event, "c", "cid").await.refused(429, "rate_limited");
    assert!(refused["detail"].as_str().unwrap().contains("per-key"), "{refused}");
    world.present_key(&second).await;
    world.book_from("192.0.2.1", &event, "d", "ann").await.expect(201);

    world.present(Some("bo_0000000000000000_nonsense"));
    for n in 0..4 {
        let refused = world.book_from("192.0.2.9", &event, &format!("bad-{n}"), "eve").await;
        refused.refused(401, "unauthenticated");
    }
    world.book_from("192.0.2.9", &event, "bad", "eve").await.refused(429, "rate_limited");
}

#[tokio::test]
async fn whoever_asks_for_bookings_without_being_allowed_to_book_is_counted_too() {
    let file = policies(&policy("per-address", "booking", "address", 2));
    let (mut world, _operator) = operated(&[&KEYS[..], &under(&file)].concat()).await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let reader = Key::create(&world.settings, &["--storefront", "one"], "bookings:read");
    world.present_key(&reader).await;
    for key in ["a", "b"] {
        world.book_from("192.0.2.1", &event, key, "ann").await.refused(403, "forbidden");
    }
    world.book_from("192.0.2.1", &event, "c", "ann").await.refused(429, "rate_limited");
    world.present(None);
    for key in ["a", "b"] {
        world.book_from("192.0.2.2", &event, key, "ann").await.refused(401, "unauthenticated");
    }
    world.book_from("192.0.2.2", &event, "c", "ann").await.refused(429, "rate_limited");
}

#[tokio::test]
async fn whoever_is_not_allowed_to_book_uses_up_nothing_of_an_event() {
    let file = policies(&policy("per-event", "booking", "event", 2));
    let (mut world, _operator) = operated(&[&KEYS[..], &under(&file)].concat()).await;
    let event = world.on_sale(&World::draft(&[10])).await;
    world.present(None);
    for key in ["a", "b", "c", "d"] {
        world.book_from("192.0.2.1", &event, key, "ann").await.refused(401, "unauthenticated");
    }
    let shop = Key::create(&world.settings, &["--storefront", "one"], "bookings:write");
    world.present_key(&shop).await;
    world.book_from("192.0.2.2", &event, "e", "bob").await.expect(201);
}

#[tokio::test]
async fn only_a_key_with_the_scope_may_ask_the_limiter() {
    let file = policies(&policy("mails", "service", "", 5));
    let (mut world, _operator) = operated(&[&KEYS[..], &under(&file)].concat()).await;
    world.check_rate("mails", "ann", 1).await.refused(403, "forbidden");
    let service = Key::create(&world.settings, &["--operator"], "limits:check");
    world.present_key(&service).await;
    assert_eq!(world.check_rate("mails", "ann", 1).await.expect(200)["allowed"], true);
    world.present(None);
    world.check_rate("mails", "ann", 1).await.refused(401, "unauthenticated");
}
