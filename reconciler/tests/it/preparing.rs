//! `migrate`, and what a start refuses.

use boxoffice_reconciler::{migrate, run};
use boxoffice_schema::shard::ShardCount;
use tokio_util::sync::CancellationToken;

use crate::stack::Stack;

fn said<T>(result: anyhow::Result<T>) -> String {
    format!("{:#}", result.err().expect("it is refused"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn preparing_twice_changes_nothing() {
    let stack = Stack::prepare().await;
    stack.execute("UPDATE shards SET sequence = 7 WHERE shard = 1").await;
    migrate::migrate(&stack.config).await.unwrap();
    assert_eq!(stack.number("SELECT sum(sequence)::int8 FROM shards").await, 7);
    assert_eq!(stack.number("SELECT count(*) FROM shards").await, 2);
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_newer_version_has_migrated_is_left_as_it_is() {
    let stack = Stack::prepare().await;
    stack
        .execute(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             VALUES (9999, 'of a newer version', true, '\\x00', 0)",
        )
        .await;
    migrate::migrate(&stack.config).await.unwrap();
    assert_eq!(stack.number("SELECT max(version) FROM _sqlx_migrations").await, 9999);
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_number_of_shards_is_refused() {
    let stack = Stack::prepare().await;
    let mut config = stack.config.clone();
    config.shards = ShardCount::new(3).unwrap();
    let wanted = "this installation has 2 shards and BOXOFFICE_SHARDS is 3";
    let refusal = said(migrate::migrate(&config).await);
    assert!(refusal.contains(wanted), "{refusal}");
    let refusal = said(run(config, CancellationToken::new()).await);
    assert!(refusal.contains(wanted), "{refusal}");
    assert_eq!(stack.number("SELECT count(*) FROM shards").await, 2);
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_with_fewer_partitions_than_shards_is_refused() {
    let stack = Stack::prepare().await;
    let other = Stack::prepare_with(|config| config.shards = ShardCount::new(3).unwrap()).await;
    let mut config = other.config.clone();
    config.kafka_topic.clone_from(&stack.config.kafka_topic);
    let refusal = said(migrate::migrate(&config).await);
    assert!(refusal.contains("has 2 partitions and there are 3 shards"), "{refusal}");
    let refusal = said(run(config, CancellationToken::new()).await);
    assert!(refusal.contains("has 2 partitions and there are 3 shards"), "{refusal}");
    let mut config = stack.config.clone();
    config.dead_letter_topic.push_str("-elsewhere");
    let refusal = said(run(config, CancellationToken::new()).await);
    assert!(refusal.contains("-elsewhere"), "what cannot be read has nowhere to go: {refusal}");
    other.remove().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_without_preparation_says_what_to_do() {
    let stack = Stack::prepare().await;
    stack.execute("TRUNCATE installation").await;
    let refusal = said(run(stack.config.clone(), CancellationToken::new()).await);
    assert!(refusal.contains("run `boxoffice-reconciler migrate` first"), "{refusal}");
    stack.remove().await;
}
