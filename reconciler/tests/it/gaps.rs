//! Decisions that are missing in the log stop their shard, and nothing else.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::recovering::restart_redis;
use crate::sale::Sale;
use crate::stack::{FIRST, SECOND, Stack, wait_until, wait_within};

const OPEN_GAPS: &str = "SELECT count(*) FROM gaps WHERE resolved_at IS NULL";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_stops_its_shard_and_no_other() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let mut sale = Sale::new(FIRST, 10);
    let log: Vec<_> =
        std::iter::once(sale.publish()).chain((0..5).map(|n| sale.book(&format!("{n}"), 1))).collect();
    stack.append(&[log[0].clone(), log[1].clone(), log[4].clone(), log[5].clone()]).await;
    stack.wait_for_number("the gap is found", OPEN_GAPS, 1).await;
    let gap: (i16, i64, i64, i64) =
        sqlx::query_as("SELECT shard, from_sequence, to_sequence, kafka_offset FROM gaps")
            .fetch_one(&stack.pool)
            .await
            .unwrap();
    assert_eq!(gap, (0, 3, 4, 3));

    let mut other = Sale::new(SECOND, 10);
    stack.append(&[other.publish(), other.book("a", 1)]).await;
    stack.wait_for_sequence(SECOND, 2).await;
    assert_eq!(stack.position(FIRST).await, (1, 2, 3));
    service.stop().await;

    // It stays stopped over a restart.
    let service = stack.start();
    stack.append(&[other.book("b", 1)]).await;
    stack.wait_for_sequence(SECOND, 3).await;
    assert_eq!(stack.position(FIRST).await, (1, 2, 3));
    assert_eq!(stack.number("SELECT count(*) FROM gaps").await, 1);

    let (code, printed) = stack.command(&["status"]).await;
    assert_eq!(code, 1);
    assert!(printed.contains("decisions 3 to 4"), "{printed}");
    let (code, _) = stack.command(&["gaps", "accept", "1", "--by", "Ann"]).await;
    assert_eq!(code, 0);
    let told = stack.words("SELECT concat_ws('|', kind, asked_by, before, outcome) FROM repairs").await;
    assert_eq!(told, ["gap|Ann|gap 1: decisions 3 to 4 are missing|done"]);
    stack.wait_for_sequence(FIRST, 6).await;
    assert_eq!(stack.number("SELECT count(*) FROM bookings").await, 5);
    assert_eq!(stack.number(OPEN_GAPS).await, 0);
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_out_of_order_are_a_gap_until_the_missing_one_is_sent_in_time() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let mut sale = Sale::new(FIRST, 10);
    let [published, first, second] = [sale.publish(), sale.book("a", 1), sale.book("b", 1)];
    stack.append(&[published, second, first]).await;
    stack.wait_for_number("the gap is found", OPEN_GAPS, 1).await;
    assert_eq!(stack.position(FIRST).await, (1, 1, 2));

    // What is missing before the offset is missing still.
    stack.command(&["gaps", "retry", "1"]).await;
    wait_until("the gap is found again", async || {
        stack.number("SELECT coalesce(max(id), 0) FROM gaps WHERE resolved_at IS NULL").await > 1
    })
    .await;
    assert_eq!(stack.number("SELECT count(*) FROM bookings").await, 0);
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offset_that_kafka_does_not_have_is_a_gap_and_never_a_jump() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let mut sale = Sale::new(FIRST, 10);
    stack.append(&[sale.publish(), sale.book("a", 1)]).await;
    stack.wait_for_sequence(FIRST, 2).await;
    service.stop().await;
    stack.execute("UPDATE shards SET next_offset = 1000 WHERE shard = 0").await;
    let service = stack.start();
    stack.wait_for_number("the gap is found", OPEN_GAPS, 1).await;
    stack.append(&[sale.book("b", 1)]).await;
    assert_eq!(stack.position(FIRST).await, (1, 2, 1_000));

    // The log has everything after all: read from its beginning, the sequence proves it.
    let (code, printed) = stack.command(&["gaps", "retry", "1"]).await;
    assert_eq!(code, 0, "{printed}");
    stack.wait_for_sequence(FIRST, 3).await;
    assert_eq!(stack.number(OPEN_GAPS).await, 0);
    assert_eq!(stack.number("SELECT sum(sold)::int8 FROM ticket_types").await, 2);
    service.stop().await;
    stack.remove().await;
}

/// The log was cut, or made anew, and has grown past the shard's offset since: that one is there, and the decisions lie before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decisions_that_lie_before_the_shards_offset_are_applied_when_it_is_told_where() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let mut sale = Sale::new(FIRST, 10);
    stack.append(&[sale.publish(), sale.book("a", 1)]).await;
    stack.wait_for_offset(FIRST, 3).await;
    service.stop().await;
    stack.append(&["b", "c", "d"].map(|key| sale.book(key, 1))).await;
    stack.execute("UPDATE shards SET next_offset = 5 WHERE shard = 0").await;
    let service = stack.start();
    stack.wait_for_number("the gap is found", OPEN_GAPS, 1).await;
    let gap: (i64, i64, i64) = sqlx::query_as("SELECT from_sequence, to_sequence, kafka_offset FROM gaps")
        .fetch_one(&stack.pool)
        .await
        .unwrap();
    assert_eq!(gap, (3, 4, 5));
    let (_, printed) = stack.command(&["status"]).await;
    assert!(printed.contains("gaps retry 1 --from OFFSET"), "{printed}");

    let (code, printed) = stack.command(&["gaps", "retry", "1", "--from", "1000"]).await;
    assert_eq!(code, 2, "{printed}");
    assert!(printed.contains("has no offset 1000: it has 0 to 6"), "{printed}");
    assert_eq!(stack.number(OPEN_GAPS).await, 1);
    let (code, printed) = stack.command(&["gaps", "retry", "1", "--from", "0"]).await;
    assert_eq!(code, 0, "{printed}");
    stack.wait_for_offset(FIRST, 6).await;
    assert_eq!(stack.position(FIRST).await, (1, 5, 6));
    assert_eq!(stack.words("SELECT idempotency_key FROM bookings ORDER BY 1").await, ["a", "b", "c", "d"]);
    assert_eq!(stack.number("SELECT sum(sold)::int8 FROM ticket_types").await, 4);
    assert_eq!(stack.number("SELECT count(*) FROM gaps").await, 1);
    service.stop().await;
    stack.remove().await;
}

/// A gap at the end of the log stops nothing, and nothing may come by which the reader would learn that it is to go back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_runs_is_read_again_where_its_offset_is_moved_back() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let mut sale = Sale::new(FIRST, 10);
    stack.append(&[sale.publish(), sale.book("a", 1)]).await;
    stack.wait_for_offset(FIRST, 3).await;
    // The reader passes what lies before the shard's offset.
    stack.execute("UPDATE shards SET next_offset = 5, updated_at = 'epoch' WHERE shard = 0").await;
    stack.append(&["b", "c"].map(|key| sale.book(key, 1))).await;
    let passed = "SELECT count(*) FROM shards WHERE shard = 0 AND updated_at > 'epoch'";
    stack.wait_for_number("they are passed", passed, 1).await;
    stack
        .execute(
            "INSERT INTO gaps (shard, epoch, from_sequence, to_sequence, kafka_offset) VALUES (0, 1, 3, 4, 5)",
        )
        .await;
    let (code, printed) = stack.command(&["gaps", "retry", "1", "--from", "0"]).await;
    assert_eq!(code, 0, "{printed}");
    stack.wait_for_sequence(FIRST, 4).await;
    assert_eq!(stack.words("SELECT idempotency_key FROM bookings ORDER BY 1").await, ["a", "b", "c"]);
    service.stop().await;
    stack.remove().await;
}

/// Nobody knows whether a decision went with the offset: none did.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_an_offset_that_kafka_does_not_have_is_accepted_the_next_decision_is_applied() {
    let stack = Stack::prepare().await;
    let mut sale = Sale::new(FIRST, 10);
    stack.execute("UPDATE shards SET next_offset = 1000 WHERE shard = 0").await;
    let service = stack.start();
    stack.wait_for_number("the gap is found", OPEN_GAPS, 1).await;
    // By the time somebody comes, the log has grown beyond the offset.
    stack.execute("UPDATE shards SET next_offset = 1 WHERE shard = 0").await;
    stack.append(&[sale.publish(), sale.book("a", 1)]).await;
    let (_, printed) = stack.command(&["status"]).await;
    assert!(printed.contains("Kafka does not have offset 1000,"), "{printed}");
    assert!(!printed.contains("decisions 1 to 1"), "nobody knows that: {printed}");
    let (code, printed) = stack.command(&["gaps", "accept", "1"]).await;
    assert_eq!(code, 0, "{printed}");
    assert!(printed.contains("reads on from the oldest record"), "{printed}");
    let told = stack.words("SELECT before FROM repairs").await;
    assert_eq!(told, ["gap 1: Kafka does not have offset 1000, at which the shard goes on"]);
    stack.wait_for_sequence(FIRST, 2).await;
    assert_eq!(stack.number("SELECT sum(sold)::int8 FROM ticket_types").await, 1);
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_barrier_beyond_the_applied_sequence_is_a_gap() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let mut sale = Sale::new(FIRST, 10);
    stack.append(&[sale.publish()]).await;
    sale.book("lost", 1);
    sale.position.epoch = 2;
    stack.append(&[sale.barrier()]).await;
    stack.wait_for_number("the gap is found", OPEN_GAPS, 1).await;
    let gap: (i64, i64) =
        sqlx::query_as("SELECT from_sequence, to_sequence FROM gaps").fetch_one(&stack.pool).await.unwrap();
    assert_eq!(gap, (2, 2));
    assert_eq!(stack.position(FIRST).await, (1, 1, 2));
    service.stop().await;
    stack.remove().await;
}

/// Others' transactions take offsets that nobody ever reads: their markers, and what they took back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_of_somebody_else_leaves_no_gap() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let mut sale = Sale::new(FIRST, 10);
    stack.append(&[sale.publish()]).await;
    let (brokers, topic) = (stack.config.kafka_brokers.clone(), stack.config.kafka_topic.clone());
    tokio::task::spawn_blocking(move || take_back_a_record(&brokers, &topic)).await.unwrap();
    stack.append(&[sale.book("a", 1)]).await;
    stack.wait_for_sequence(FIRST, 2).await;
    assert_eq!(stack.number("SELECT count(*) FROM gaps").await, 0);
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_of_somebody_else_at_the_end_of_the_log_keeps_no_recovery_back() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let (brokers, topic) = (stack.config.kafka_brokers.clone(), stack.config.kafka_topic.clone());
    tokio::task::spawn_blocking(move || take_back_a_record(&brokers, &topic)).await.unwrap();
    let open = "SELECT count(*) FROM dead_letters WHERE outcome IS NULL";
    stack.wait_for_number("the record is set aside", open, 1).await;
    assert_eq!(stack.command(&["dead-letters", "discard", "1"]).await.0, 0);
    restart_redis(&stack).await;
    stack.wait_until_certified().await;
    service.stop().await;
    stack.remove().await;
}

/// Nothing is lost, and yet the shard would be told of as one that stands still, until the next decision.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_of_somebody_else_at_the_end_of_a_quiet_log_is_passed() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let (brokers, topic) = (stack.config.kafka_brokers.clone(), stack.config.kafka_topic.clone());
    tokio::task::spawn_blocking(move || take_back_a_record(&brokers, &topic)).await.unwrap();
    // Behind the barrier of the first start: what was taken back, its marker, and the barrier that is read behind it.
    let is_passed = async || stack.position(FIRST).await.2 == 4;
    wait_within(Duration::from_secs(60), "the marker is passed", is_passed).await;
    assert_eq!(stack.position(FIRST).await, (1, 0, 4));
    assert_eq!(stack.number("SELECT count(*) FROM gaps").await, 0);
    service.stop().await;
    stack.remove().await;
}

fn take_back_a_record(brokers: &str, topic: &str) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("transactional.id", topic)
        .create()
        .unwrap();
    let patience = Duration::from_secs(30);
    producer.init_transactions(patience).unwrap();
    producer.begin_transaction().unwrap();
    let record = BaseRecord::<(), [u8]>::to(topic).partition(FIRST.partition()).payload(b"taken back");
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(patience).unwrap();
    producer.abort_transaction(patience).unwrap();
}
