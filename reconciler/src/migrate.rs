//! `migrate`: prepares PostgreSQL and Kafka for an installation; run again, it changes nothing.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use boxoffice_schema::shard::ShardCount;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;
use sqlx::migrate::Migrator;
use sqlx::{Connection, PgPool};

use crate::config::Config;
use crate::servers::wait_for;
use crate::{guarantees, kafka, postgres};

/// How long a server may take to come up.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long Kafka keeps what the rate limits decided: a day, as long as PostgreSQL does.
const RATE_LIMITS_RETENTION_MS: &str = "86400000";

/// Creates the tables and topics, and records the number of shards.
///
/// # Errors
/// Where a server stays away for a minute, or where what exists contradicts the configuration.
pub async fn migrate(config: &Config) -> anyhow::Result<()> {
    let pool = postgres::pool(config)?;
    wait_for("PostgreSQL", PATIENCE, || async { sqlx::query("SELECT 1").execute(&pool).await.map(|_| ()) })
        .await?;
    // An index of a large table takes its time. The connection is not used for anything else.
    let mut connection = pool.acquire().await?.detach();
    sqlx::query("SET statement_timeout = 0").execute(&mut connection).await?;
    migrations().run(&mut connection).await.context("the migrations failed")?;
    connection.close().await?;
    install(&pool, config.shards).await?;
    tracing::info!(shards = config.shards.get(), "PostgreSQL is prepared");

    wait_for("Kafka", PATIENCE, || kafka::ping(config)).await?;
    create_topics(config).await?;
    tracing::info!(topic = config.kafka_topic, dead_letters = config.dead_letter_topic, "Kafka is prepared");
    // A topic that exists is not changed: what is wrong with it is said, and is for `run --strict` to refuse.
    guarantees::say(&wait_for("Kafka", PATIENCE, || guarantees::complaints(config)).await?);
    pool.close().await;
    Ok(())
}

/// Those of this version. What a newer one has migrated is left as it is: this one can work with that, and where an
/// installation goes back to it, `migrate` runs first.
fn migrations() -> Migrator {
    let mut migrations = sqlx::migrate!("../schema/migrations");
    migrations.set_ignore_missing(true);
    migrations
}

async fn install(pool: &PgPool, shards: ShardCount) -> anyhow::Result<()> {
    let count = i16::try_from(shards.get())?;
    let mut transaction = pool.begin().await?;
    sqlx::query("INSERT INTO installation (shards) VALUES ($1) ON CONFLICT DO NOTHING")
        .bind(count)
        .execute(&mut *transaction)
        .await?;
    let recorded: i16 =
        sqlx::query_scalar("SELECT shards FROM installation").fetch_one(&mut *transaction).await?;
    postgres::same_shards(recorded, shards)?;
    sqlx::query("INSERT INTO shards (shard) SELECT generate_series(0, $1 - 1) ON CONFLICT DO NOTHING")
        .bind(i32::from(count))
        .execute(&mut *transaction)
        .await?;
    Ok(transaction.commit().await?)
}

async fn create_topics(config: &Config) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> = kafka::client(config).create()?;
    let retention_ms = config.kafka_retention.as_millis().to_string();
    let copies = config.kafka_replication.unwrap_or(1);
    // With three copies or more, a record counts as written when two have it.
    let min_in_sync = if copies >= 3 { "2" } else { "1" };
    let topic = |name| {
        NewTopic::new(name, config.shards.get().into(), TopicReplication::Fixed(copies.into()))
            .set("retention.ms", &retention_ms)
            .set("cleanup.policy", "delete")
            .set("min.insync.replicas", min_in_sync)
    };
    // Statistics need no order among shards, and are of no use after a day.
    let mut rate_limits = topic(&config.rate_limit_topic).set("retention.ms", RATE_LIMITS_RETENTION_MS);
    rate_limits.num_partitions = 1;
    let topics = [topic(&config.kafka_topic), topic(&config.dead_letter_topic), rate_limits];
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(20)));
    for created in admin.create_topics(&topics, &options).await.context("Kafka did not create the topics")? {
        match created {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, code)) => bail!("Kafka did not create topic {name}: {code}"),
        }
    }
    for (name, partitions) in [
        (&config.kafka_topic, config.shards),
        (&config.dead_letter_topic, config.shards),
        (&config.rate_limit_topic, ShardCount::new(1)?),
    ] {
        wait_for_partitions(config, name, partitions).await?;
    }
    Ok(())
}

/// A new topic is known to all brokers a moment after its creation was confirmed.
async fn wait_for_partitions(config: &Config, topic: &str, partitions: ShardCount) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let found = kafka::count_partitions(config, topic).await?;
        match kafka::enough_partitions(topic, found, partitions) {
            Err(_) if found == 0 && start.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            verdict => return verdict,
        }
    }
}
