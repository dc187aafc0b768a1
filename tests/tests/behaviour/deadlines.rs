//! A server that hangs is treated like one that is dead: every call is answered within two seconds, by whatever still
//! can be said, and nothing piles up behind it.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use reqwest::Method;
use serde_json::{Value, json};

use crate::gate::{Server, gated};
use crate::http::{Event, Reply, id};
use crate::private_redis::PrivateRedis;
use crate::world::{World, eventually};

/// No client waits longer.
const DEADLINE: Duration = Duration::from_secs(2);

/// Every call of the contract on one event, its booking, its holds, a draft to change and one to publish.
struct Calls {
    event: Event,
    draft: String,
    unpublished: String,
    booking: String,
    hold: String,
    other_hold: String,
}

/// As many calls at a time as the API of a test has connections to PostgreSQL.
const CONCURRENT: usize = 4;

/// What a call is expected to answer: a status, and the code of a problem.
type Expected = (u16, Option<&'static str>);

const OK: Expected = (200, None);
const CREATED: Expected = (201, None);
const REDIS: Expected = (503, Some("redis_unavailable"));
const KAFKA: Expected = (503, Some("kafka_unavailable"));
const POSTGRES: Expected = (503, Some("postgres_unavailable"));

impl Calls {
    async fn prepare(world: &World) -> Self {
        let event = world.on_sale(&World::draft(&[1_000])).await;
        let draft = id(&world.post("/v1/events", &World::draft(&[10])).await.expect(201));
        let unpublished = id(&world.post("/v1/events", &World::draft(&[10])).await.expect(201));
        let booking = id(&world.book(&event.id, "booking", &event.request("ann", 1)).await.expect(201));
        let hold = id(&world.book(&event.id, "hold", &event.hold("ann", 1)).await.expect(201));
        let other_hold = id(&world.book(&event.id, "other", &event.hold("ann", 1)).await.expect(201));
        world.drained(&event).await;
        Self { event, draft, unpublished, booking, hold, other_hold }
    }

    /// Method, path, body and name of each.
    fn all(&self) -> Vec<(&'static str, Method, String, Option<Value>)> {
        let (event, draft) = (format!("/v1/events/{}", self.event.id), format!("/v1/events/{}", self.draft));
        let pay = json!({"payment_reference": "pay"});
        vec![
            ("book", Method::POST, format!("{event}/bookings"), Some(self.event.request("bob", 1))),
            ("confirm", Method::POST, format!("{event}/bookings/{}/confirm", self.hold), Some(pay)),
            ("cancel", Method::POST, format!("{event}/bookings/{}/cancel", self.other_hold), None),
            ("booking", Method::GET, format!("{event}/bookings/{}", self.booking), None),
            ("event", Method::GET, event.clone(), None),
            ("availability", Method::GET, format!("{event}/availability"), None),
            ("audit", Method::GET, format!("{event}/audit"), None),
            ("change", Method::PATCH, event.clone(), Some(json!({"name": "Another night"}))),
            ("bookings of an event", Method::GET, format!("{event}/bookings"), None),
            ("bookings of a customer", Method::GET, "/v1/customers/ann/bookings".to_owned(), None),
            ("events", Method::GET, "/v1/events".to_owned(), None),
            ("draft", Method::GET, draft.clone(), None),
            ("create", Method::POST, "/v1/events".to_owned(), Some(World::draft(&[10]))),
            ("change a draft", Method::PATCH, draft.clone(), Some(json!({"name": "Another draft"}))),
            ("publish", Method::POST, format!("/v1/events/{}/publish", self.unpublished), None),
            ("livez", Method::GET, "/livez".to_owned(), None),
            ("metrics", Method::GET, "/metrics".to_owned(), None),
            ("openapi", Method::GET, "/openapi.json".to_owned(), None),
        ]
    }

    /// Makes every call, some at a time, and checks each answer and that it came in time. What is not named answers 200.
    async fn answered(&self, world: &World, key: &str, others: &[(&str, Expected)]) {
        let ask = |(name, method, path, body): (&'static str, Method, String, Option<Value>)| async move {
            let mut request = world.http.request(method, world.url(&path));
            if name == "book" {
                request = request.header("Idempotency-Key", key);
            }
            if let Some(body) = &body {
                request = request.json(body);
            }
            let started = Instant::now();
            let reply = Reply::of(request.send().await.unwrap()).await;
            (name, reply, started.elapsed())
        };
        let replies: Vec<_> = stream::iter(self.all()).map(ask).buffer_unordered(CONCURRENT).collect().await;
        let mut wrong = Vec::new();
        for (name, reply, took) in replies {
            let expected = others.iter().find(|(of, _)| *of == name).map_or(OK, |(_, expected)| *expected);
            let code = (reply.status >= 400).then(|| reply.json()["code"].as_str().unwrap().to_owned());
            if (reply.status, code.as_deref()) != expected || took > DEADLINE {
                wrong.push(format!("{name}: {} {code:?} after {took:?}, not {expected:?}", reply.status));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

/// Readiness names a server that hangs, within its own deadline.
async fn not_ready(world: &World, server: &str) {
    eventually("readiness to name the server that hangs", || async {
        let started = Instant::now();
        let ready = world.get("/readyz").await;
        assert!(started.elapsed() < DEADLINE);
        ready.status == 503 && ready.json()[server]["ready"] == false
    })
    .await;
}

const WITHOUT_REDIS: [(&str, Expected); 6] = [
    ("book", REDIS),
    ("confirm", REDIS),
    ("cancel", REDIS),
    ("change", REDIS),
    ("publish", REDIS),
    ("create", CREATED),
];

#[tokio::test]
async fn every_call_is_answered_in_time_while_redis_is_stopped() {
    let redis = PrivateRedis::start().await;
    let world = World::on(&redis).await;
    let calls = Calls::prepare(&world).await;
    redis.pause();
    // Nobody knows yet that it hangs; then everybody does.
    calls.answered(&world, "at-once", &WITHOUT_REDIS).await;
    not_ready(&world, "redis").await;
    calls.answered(&world, "later", &WITHOUT_REDIS).await;
    for path in ["", "/availability", &format!("/bookings/{}", calls.booking)] {
        let mut took = Vec::new();
        for _ in 0..5 {
            let started = Instant::now();
            let stale = world.get(&format!("/v1/events/{}{path}", calls.event.id)).await;
            took.push(started.elapsed());
            assert_eq!((stale.status, stale.header("boxoffice-stale")), (200, Some("true")), "{path}");
        }
        // A busy machine may be late now and then. Whoever waited for Redis would be so each time.
        let fastest = took.into_iter().min().unwrap();
        assert!(fastest < Duration::from_millis(500), "a hanging Redis was waited for again: {fastest:?}");
    }
    redis.resume();
    let all = [("book", CREATED), ("create", CREATED)];
    eventually("readiness", || async { world.get("/readyz").await.status == 200 }).await;
    calls.answered(&world, "back", &all).await;
    let audit = world.drained(&calls.event).await;
    assert_eq!(audit["epoch"], 1, "the same Redis needs no recovery");
}

#[tokio::test]
async fn every_call_is_answered_in_time_while_the_way_to_redis_is_cut() {
    let (world, gate) = gated(Server::Redis, &[]).await;
    let calls = Calls::prepare(&world).await;
    gate.freeze();
    // It is known before anybody asks for a ticket.
    not_ready(&world, "redis").await;
    calls.answered(&world, "away", &WITHOUT_REDIS).await;
    // Another host has the address now; the connections to the old one are never closed.
    gate.replace();
    eventually("readiness", || async { world.get("/readyz").await.status == 200 }).await;
    calls.answered(&world, "back", &[("book", CREATED), ("create", CREATED)]).await;
    world.drained(&calls.event).await;
}

#[tokio::test]
async fn every_call_is_answered_in_time_while_postgresql_hangs() {
    let (world, gate) = gated(Server::Postgres, &[]).await;
    let calls = Calls::prepare(&world).await;
    gate.freeze();
    let without = [
        ("book", CREATED),
        ("bookings of an event", POSTGRES),
        ("bookings of a customer", POSTGRES),
        ("events", POSTGRES),
        ("draft", POSTGRES),
        ("create", POSTGRES),
        ("change a draft", POSTGRES),
        ("publish", POSTGRES),
    ];
    calls.answered(&world, "at-once", &without).await;
    not_ready(&world, "postgres").await;
    calls.answered(&world, "later", &without).await;
    // Another host has the address now: the pool must not wait for what was asked of the old one.
    gate.replace();
    eventually("readiness", || async { world.get("/readyz").await.status == 200 }).await;
    calls.answered(&world, "back", &[("book", CREATED), ("create", CREATED)]).await;
    eventually("PostgreSQL to have all rows", || async { world.rows_of(&calls.event).await == 6 }).await;
    world.drained(&calls.event).await;
    // Of the two holds one was confirmed and one was cancelled, each exactly once.
    assert_eq!(world.rows_counted(&calls.event, 0).await, (0, 5));
}

#[tokio::test]
async fn every_call_is_answered_in_time_while_kafka_hangs() {
    let (world, gate) = gated(Server::Kafka, &[]).await;
    let calls = Calls::prepare(&world).await;
    gate.freeze();
    let all = [("book", CREATED), ("create", CREATED)];
    calls.answered(&world, "at-once", &all).await;
    not_ready(&world, "kafka").await;
    calls.answered(&world, "later", &all).await;
    gate.open();
    eventually("PostgreSQL to have all rows", || async { world.rows_of(&calls.event).await == 5 }).await;
    world.drained(&calls.event).await;
}

#[tokio::test]
async fn with_ack_kafka_every_answer_that_shows_a_booking_is_refused_in_time_while_kafka_hangs() {
    let (world, gate) = gated(Server::Kafka, &["--ack", "kafka"]).await;
    let calls = Calls::prepare(&world).await;
    gate.freeze();
    let without = [("book", KAFKA), ("confirm", KAFKA), ("cancel", KAFKA), ("create", CREATED)];
    calls.answered(&world, "away", &without).await;
    // The decisions stand, but nobody is shown what Kafka does not have.
    let replay = world.book(&calls.event.id, "away", &calls.event.request("bob", 1)).await;
    replay.refused(503, "kafka_unavailable");
    let shown = world.booking(&calls.event.id, &calls.hold).await;
    shown.refused(503, "kafka_unavailable");
    gate.open();
    eventually("Kafka to confirm", || async {
        world.book(&calls.event.id, "away", &calls.event.request("bob", 1)).await.status == 201
    })
    .await;
    world.drained(&calls.event).await;
    assert_eq!(world.rows_of(&calls.event).await, 4);
}

/// They change nothing, and would show what somebody changed before and Kafka does not have.
#[tokio::test]
async fn with_ack_kafka_an_answer_that_repeats_a_decision_or_tells_of_one_is_refused_while_kafka_hangs() {
    let (world, gate) = gated(Server::Kafka, &["--ack", "kafka"]).await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let hold = async |key: &str| world.book(&event.id, key, &event.hold("ann", 1)).await.expect(201);
    let (paid, cancelled) = (id(&hold("paid").await), id(&hold("cancelled").await));
    let held = hold("expired").await;
    let expired = id(&held);
    let confirm = async |booking: &str| world.confirm(&event.id, booking, "pay").await;
    world.drained(&event).await;
    gate.freeze();
    let (first, cancellation) = tokio::join!(confirm(&paid), world.cancel(&event.id, &cancelled));
    for reply in [first, cancellation] {
        reply.refused(503, "kafka_unavailable");
    }
    // Nothing new is sold, so that the hold that runs out cannot be had again.
    world.patch(&event.id, &json!({"status": "paused"})).await.expect(200);
    world.let_run_out(&event, &held).await;
    eventually("the hold to expire", || async { world.counts(&event, 0).await == (0, 1, 9) }).await;
    let (again, cancelled_again, late, too_late) = tokio::join!(
        confirm(&paid),
        world.cancel(&event.id, &cancelled),
        confirm(&cancelled),
        confirm(&expired),
    );
    for reply in [again, cancelled_again, late, too_late] {
        reply.refused(503, "kafka_unavailable");
    }
    gate.open();
    eventually("Kafka to confirm the last of them", || async { confirm(&expired).await.status == 409 }).await;
    confirm(&expired).await.refused(409, "hold_expired");
    confirm(&cancelled).await.refused(409, "booking_cancelled");
    world.cancel(&event.id, &cancelled).await.expect(200);
    confirm(&paid).await.expect(200);
    world.drained(&event).await;
    assert_eq!(world.rows_counted(&event, 0).await, (0, 1));
}

#[tokio::test]
async fn five_hundred_bookings_at_a_stopped_redis_do_not_pile_up() {
    let redis = PrivateRedis::start().await;
    let world = World::on(&redis).await;
    let event = world.on_sale(&World::draft(&[100_000])).await;
    world.book(&event.id, "before", &event.request("ann", 1)).await.expect(201);
    redis.pause();
    let book = |n: usize| {
        let (world, event) = (&world, &event);
        async move {
            let started = Instant::now();
            let reply = world.book(&event.id, &format!("k{n}"), &event.request("bob", 1)).await;
            reply.refused(503, "redis_unavailable");
            started.elapsed()
        }
    };
    let slowest = join_all((0..500).map(book)).await.into_iter().max().unwrap();
    assert!(slowest < DEADLINE, "{slowest:?}");
    redis.resume();
    let since = Instant::now();
    world.sells_again(&event, "after", "cleo").await;
    // It takes less than a second where nothing else is done, and whoever waited for what has piled up, one request's
    // time-out after the other, minutes.
    assert!(since.elapsed() < Duration::from_secs(5), "sales went on only after {:?}", since.elapsed());
    // Redis may have decided what it was asked before: a retry finds it, and is never a second booking.
    for n in 0..500 {
        world.book(&event.id, &format!("k{n}"), &event.request("bob", 1)).await.expect(201);
    }
    world.drained(&event).await;
    assert_eq!(world.rows_of(&event).await, 502);
}
