//! Copies what was set aside to the dead-letter topic, for whoever listens there. The row is the record: it is written with the
//! position that it takes, and its copy follows when Kafka takes it. A topic that is away keeps nobody from being applied.

use std::time::Duration;

use boxoffice_schema::record;
use rdkafka::error::KafkaError;
use rdkafka::producer::{FutureProducer, FutureRecord};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::kafka;
use crate::number;
use crate::telemetry::name;

/// How often is looked for something new.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// How long a copy may take before it is tried again.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the copies of what was set aside last may take at the shutdown. Whoever applies the log next makes the others.
const LAST_WITHIN: Duration = Duration::from_secs(2);

/// The most bytes of a record that are copied. Anybody's record may be as large as the broker takes, which together with these
/// headers is more than Kafka's client sends; the table has the whole.
const COPY_MAX: i32 = 512 << 10;

/// Headers of the dead-letter topic, beside those of the position.
mod header {
    pub(super) const ORIGIN_TOPIC: &str = "boxoffice-origin-topic";
    pub(super) const ORIGIN_PARTITION: &str = "boxoffice-origin-partition";
    pub(super) const ORIGIN_OFFSET: &str = "boxoffice-origin-offset";
    pub(super) const REASON: &str = "boxoffice-reason";
    /// How many bytes the record had, where its copy is cut.
    pub(super) const CUT_FROM: &str = "boxoffice-cut-from";
}

/// A dead letter, as far as it is copied.
#[derive(sqlx::FromRow)]
struct Letter {
    id: i64,
    shard: i16,
    epoch: Option<i32>,
    sequence: Option<i64>,
    kafka_offset: i64,
    reason: String,
    /// Its first bytes.
    beginning: Vec<u8>,
    bytes: i32,
}

impl Letter {
    fn headers(&self, origin: &str) -> Vec<(&'static str, String)> {
        let mut headers = vec![
            (header::ORIGIN_TOPIC, origin.to_owned()),
            (header::ORIGIN_PARTITION, number::shard(self.shard).partition().to_string()),
            (header::ORIGIN_OFFSET, self.kafka_offset.to_string()),
            (header::REASON, self.reason.clone()),
        ];
        if let (Some(epoch), Some(sequence)) = (self.epoch, self.sequence) {
            headers.push((record::header::EPOCH, epoch.to_string()));
            headers.push((record::header::SEQUENCE, sequence.to_string()));
        }
        if self.bytes > COPY_MAX {
            headers.push((header::CUT_FROM, self.bytes.to_string()));
        }
        headers
    }
}

/// Copies until the shutdown.
pub(crate) async fn watch(config: &Config, pool: &PgPool, shutdown: &CancellationToken) {
    let mut copier = Copier { config, pool, producer: None };
    let mut is_late = false;
    while let Some(round) = shutdown.run_until_cancelled(copier.copy_all()).await {
        match round {
            Ok(Ok(())) => {
                if std::mem::replace(&mut is_late, false) {
                    tracing::info!("the dead-letter topic has everything that was set aside");
                }
            }
            Ok(Err(error)) => {
                if !std::mem::replace(&mut is_late, true) {
                    tracing::error!(%error, "the dead-letter topic lacks what was set aside; trying again until it takes it");
                }
            }
            Err(error) => {
                tracing::debug!(%error, "what is to be copied to the dead-letter topic is not known");
            }
        }
        if shutdown.run_until_cancelled(tokio::time::sleep(LOOK_INTERVAL)).await.is_none() {
            break;
        }
    }
    // A job that applies the log and ends has just set something aside, perhaps.
    let _ = tokio::time::timeout(LAST_WITHIN, copier.copy_all()).await;
}

struct Copier<'a> {
    config: &'a Config,
    pool: &'a PgPool,
    /// Made when there is something to copy, and anew after a failure: it would ask only now and then for a topic that it took for
    /// gone.
    producer: Option<FutureProducer>,
}

impl Copier<'_> {
    /// Copies until nothing is left. The outer error is PostgreSQL's, of which others tell; the inner one Kafka's.
    async fn copy_all(&mut self) -> sqlx::Result<Result<(), KafkaError>> {
        loop {
            let oldest = self.read_oldest().await?;
            if oldest.is_empty() {
                metrics::gauge!(name::DEAD_LETTERS_UNCOPIED).set(0);
                return Ok(Ok(()));
            }
            let (copied, failure) = self.send(&oldest).await;
            sqlx::query("UPDATE dead_letters SET copied_at = now() WHERE id = ANY ($1)")
                .bind(copied)
                .execute(self.pool)
                .await?;
            if let Some(error) = failure {
                self.give_producer_up();
                self.count_uncopied().await?;
                return Ok(Err(error));
            }
        }
    }

    /// The oldest of each shard: a partition that is away keeps no other shard from having its copies.
    async fn read_oldest(&self) -> sqlx::Result<Vec<Letter>> {
        sqlx::query_as(
            "SELECT oldest.* FROM shards CROSS JOIN LATERAL ( \
                 SELECT id, shard, epoch, sequence, kafka_offset, reason, \
                        substring(payload FROM 1 FOR $1) AS beginning, length(payload) AS bytes \
                 FROM dead_letters WHERE shard = shards.shard AND copied_at IS NULL ORDER BY id LIMIT 1) AS oldest",
        )
        .bind(COPY_MAX)
        .fetch_all(self.pool)
        .await
    }

    /// Returns the numbers of those that Kafka has confirmed, and why it did not confirm another one.
    async fn send(&mut self, letters: &[Letter]) -> (Vec<i64>, Option<KafkaError>) {
        let producer = match self.producer() {
            Ok(producer) => producer,
            Err(error) => return (Vec::new(), Some(error)),
        };
        let (mut sent, mut copied, mut failure) = (Vec::new(), Vec::new(), None);
        for letter in letters {
            let shard = number::shard(letter.shard);
            let key = shard.to_string();
            let message = FutureRecord::to(&self.config.dead_letter_topic)
                .partition(shard.partition())
                .key(&key)
                .payload(letter.beginning.as_slice())
                .headers(kafka::owned(&letter.headers(&self.config.kafka_topic)));
            match producer.send_result(message) {
                Ok(delivery) => sent.push((letter.id, delivery)),
                Err((error, _)) => failure = Some(error),
            }
        }
        for (id, delivery) in sent {
            match delivery.await {
                Ok(Ok(_)) => copied.push(id),
                Ok(Err((error, _))) => failure = Some(error),
                Err(_) => failure = Some(KafkaError::Canceled),
            }
        }
        (copied, failure)
    }

    fn producer(&mut self) -> Result<FutureProducer, KafkaError> {
        if let Some(producer) = &self.producer {
            return Ok(producer.clone());
        }
        let producer: FutureProducer = kafka::client(self.config)
            .set("acks", "all")
            .set("message.timeout.ms", DELIVERY_TIMEOUT.as_millis().to_string())
            .create()?;
        Ok(self.producer.insert(producer).clone())
    }

    fn give_producer_up(&mut self) {
        if let Some(producer) = self.producer.take() {
            // Its end waits for its thread.
            tokio::task::spawn_blocking(move || drop(producer));
        }
    }

    async fn count_uncopied(&self) -> sqlx::Result<()> {
        let uncopied: i64 = sqlx::query_scalar("SELECT count(*) FROM dead_letters WHERE copied_at IS NULL")
            .fetch_one(self.pool)
            .await?;
        metrics::gauge!(name::DEAD_LETTERS_UNCOPIED).set(u32::try_from(uncopied).unwrap_or(u32::MAX));
        Ok(())
    }
}
