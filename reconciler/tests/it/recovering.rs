//! No shard sells before it was found to be whole; then it does.

use std::time::{Duration, Instant};

use boxoffice_schema::ids::EventId;
use boxoffice_schema::image::ImageItem;
use boxoffice_schema::scripts::{Book, Outcome, OutboxBounds, decision_call, publish};
use boxoffice_schema::text::{Caller, Customer, IdempotencyKey};

use crate::sale::event_of;
use crate::stack::{FIRST, SECOND, Stack, wait_until};

const BOUNDS: OutboxBounds = OutboxBounds { frames: 1_000, bytes: 1 << 20, age_ms: 600_000 };

/// An event that is sold by the real scripts, as the API sells it.
pub(crate) struct LiveSale {
    event: boxoffice_schema::event::EventImage,
}

impl LiveSale {
    pub(crate) async fn publish(stack: &Stack, capacity: u32) -> Self {
        let event = event_of(FIRST, stack.config.shards, capacity);
        let call = publish(&stack.config.keys(), FIRST, BOUNDS, &event);
        let (letter, _): (String, String) = stack.run_script(&call).await;
        assert_eq!(letter, "C");
        Self { event }
    }

    pub(crate) fn id(&self) -> EventId {
        self.event.id
    }

    pub(crate) async fn book(&self, stack: &Stack, key: &str) -> Outcome {
        let customer = Customer::try_from("ann".to_owned()).unwrap();
        let ticket_type = &self.event.ticket_types[0];
        let items =
            vec![ImageItem { ordinal: 0, quantity: 1, ticket_type_id: ticket_type.id, unit_price: ticket_type.price }];
        let key = IdempotencyKey::parse(key.as_bytes()).unwrap();
        let book = Book::new(
            self.event.id,
            self.event.slots,
            &Caller::anonymous(),
            &key,
            &customer,
            self.event.currency,
            0,
            items,
        );
        let call = decision_call(&stack.config.keys(), FIRST, BOUNDS, [&book]);
        let replies: Vec<Vec<u8>> = stack.run_script(&call).await;
        Outcome::parse(&replies[0]).unwrap()
    }
}

/// As a restart leaves it: everything is there, and the certificate names a Redis that is no more.
pub(crate) async fn restart_redis(stack: &Stack) {
    for shard in [FIRST, SECOND] {
        let key = stack.config.keys().certificate(shard);
        let gone = format!("{}:{}:1", "0".repeat(40), "0".repeat(40));
        let _: () = redis::cmd("SET").arg(key).arg(gone).query_async(&mut stack.redis.clone()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_start_certifies_all_empty_shards_soon() {
    let stack = Stack::prepare().await;
    assert!(!stack.is_certified(FIRST).await);
    let start = Instant::now();
    let service = stack.start();
    stack.wait_until_certified().await;
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!(stack.position(FIRST).await, (1, 0, 1));
    assert_eq!(stack.number("SELECT count(*) FROM alarms").await, 0);
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_redis_is_drained_compared_and_certified_again() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let sale = LiveSale::publish(&stack, 100).await;
    for n in 0..50 {
        assert!(matches!(sale.book(&stack, &format!("key-{n}")).await, Outcome::Changed(_)));
    }
    // No relay runs here: all of it waits in the outbox.
    assert_eq!(stack.number("SELECT count(*) FROM bookings").await, 0);
    restart_redis(&stack).await;
    stack.wait_until_certified().await;

    assert_eq!(stack.number("SELECT count(*) FROM bookings").await, 50);
    assert_eq!(stack.number("SELECT sold::int8 FROM ticket_types").await, 50);
    assert_eq!(stack.position(FIRST).await.0, 2);
    let replay = sale.book(&stack, "key-0").await;
    assert!(matches!(replay, Outcome::Replayed(..)), "{replay:?}");
    assert!(matches!(sale.book(&stack, "after").await, Outcome::Changed(_)));
    // What was drained is still in the outbox and comes again.
    restart_redis(&stack).await;
    wait_until("the shard is certified with another epoch", async || {
        stack.position(FIRST).await.0 == 3 && stack.is_certified(FIRST).await
    })
    .await;
    assert_eq!(stack.number("SELECT sold::int8 FROM ticket_types").await, 51);
    assert_eq!(stack.number("SELECT count(*) FROM alarms").await, 0);
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_lost_its_data_is_not_certified() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let sale = LiveSale::publish(&stack, 100).await;
    assert!(matches!(sale.book(&stack, "a").await, Outcome::Changed(_)));
    restart_redis(&stack).await;
    stack.wait_until_certified().await;
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg(format!("{}*", stack.config.redis_prefix))
        .query_async(&mut stack.redis.clone())
        .await
        .unwrap();
    let _: i64 = redis::cmd("DEL").arg(keys).query_async(&mut stack.redis.clone()).await.unwrap();

    stack
        .wait_for_number("the loss is said", "SELECT count(*) FROM alarms WHERE kind = 'redis_lost'", 1)
        .await;
    wait_until("the empty shard is certified again", async || stack.is_certified(SECOND).await).await;
    assert!(!stack.is_certified(FIRST).await);
    assert_eq!(stack.number("SELECT count(*) FROM alarms").await, 1);
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_that_differ_behind_the_barrier_are_not_certified() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let sale = LiveSale::publish(&stack, 100).await;
    assert!(matches!(sale.book(&stack, "a").await, Outcome::Changed(_)));
    let key = stack.config.keys().event(FIRST, sale.id());
    let _: i64 = redis::cmd("HSET").arg(&key).arg("sold0").arg(0).query_async(&mut stack.redis.clone()).await.unwrap();
    restart_redis(&stack).await;
    stack
        .wait_for_number(
            "the difference is said",
            "SELECT count(*) FROM alarms WHERE kind = 'recovery_mismatch' AND resolved_at IS NULL",
            1,
        )
        .await;
    assert!(!stack.is_certified(FIRST).await);

    // Put right, it is certified, and the alarm is resolved with it.
    let _: i64 = redis::cmd("HSET").arg(&key).arg("sold0").arg(1).query_async(&mut stack.redis.clone()).await.unwrap();
    stack.wait_until_certified().await;
    stack
        .wait_for_number("the alarm is resolved", "SELECT count(*) FROM alarms WHERE resolved_at IS NULL", 0)
        .await;
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_with_an_unresolved_poisoned_record_is_not_certified() {
    let stack = Stack::prepare().await;
    stack
        .execute(
            "INSERT INTO dead_letters (shard, kafka_offset, kind, reason, payload) VALUES (0, 0, 'poisoned', 'x', '')",
        )
        .await;
    let service = stack.start();
    wait_until("the other shard is certified", async || stack.is_certified(SECOND).await).await;
    assert!(!stack.is_certified(FIRST).await);
    assert_eq!(stack.command(&["dead-letters", "discard", "1"]).await.0, 0);
    stack.wait_until_certified().await;
    service.stop().await;
    stack.remove().await;
}
