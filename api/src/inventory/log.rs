//! Kafka: the log that remembers every decision.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use boxoffice_schema::record::Message;
use boxoffice_schema::scripts::BATCH_MAX;
use boxoffice_schema::shard::ShardCount;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, PurgeConfig, ThreadedProducer};
use tokio::sync::{RwLock, watch};
use tokio_util::sync::CancellationToken;

use super::deliveries::{Deliveries, Round};
use super::{Acknowledge, Settings, Shared};

const CHECK_INTERVAL: Duration = Duration::from_secs(2);
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// After as many failed checks in a row this instance takes itself for cut off, and again after as many more.
const CHECKS_UNTIL_CUT_OFF: u32 = 2;
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(5);

/// How long a record waits for others to go to the broker with it, in milliseconds. A round of the relay is handed over
/// within a fraction of the shorter time; with the longer one the requests of several shards leave in one go, where no
/// client waits.
const fn linger_ms(acknowledge: Acknowledge) -> &'static str {
    match acknowledge {
        Acknowledge::Kafka => "1",
        Acknowledge::Redis => "10",
    }
}

/// A delivery that failed; the frames are still in the outbox, and are sent again from its head.
#[derive(Debug, thiserror::Error)]
#[error("Kafka did not take a record: {error}")]
pub(super) struct NotDelivered {
    error: KafkaError,
    producer: Generation,
}

/// Counts the producers of this process: several shards may report the failure of one.
type Generation = u64;

/// Kafka's client, until something fails.
struct Current {
    generation: Generation,
    client: Arc<ThreadedProducer<Deliveries>>,
    /// Ends the wait for what this client was given: once it is replaced nothing more is heard of that.
    replaced: CancellationToken,
}

impl Current {
    fn new(generation: Generation, config: &ClientConfig) -> Result<Self, KafkaError> {
        let client = Arc::new(config.create_with_context(Deliveries)?);
        Ok(Self { generation, client, replaced: CancellationToken::new() })
    }
}

/// Records of one shard that the client was given, and of which Kafka may not have all yet.
pub(super) struct OnTheWay {
    round: Arc<Round>,
    producer: Generation,
    /// As [`Current::replaced`].
    replaced: CancellationToken,
}

impl OnTheWay {
    /// Waits until Kafka has confirmed them all. Whoever gave up may wait again.
    pub(super) async fn confirmed(&self) -> Result<(), NotDelivered> {
        tokio::select! {
            confirmed = self.round.confirmed() => confirmed.map_err(|error| self.failed(error)),
            () = self.replaced.cancelled() => Err(self.failed(KafkaError::Canceled)),
        }
    }

    /// Whether nothing more will be heard of them.
    pub(super) fn are_taken_back(&self) -> bool {
        self.replaced.is_cancelled()
    }

    fn failed(&self, error: KafkaError) -> NotDelivered {
        NotDelivered { error, producer: self.producer }
    }
}

pub(super) struct DecisionLog {
    topic: String,
    shards: ShardCount,
    config: ClientConfig,
    /// Written only to replace it: while records of one shard are being handed over, no other shard's failure may purge
    /// those that went before and let those that follow through.
    producer: RwLock<Current>,
    health: Mutex<Result<(), String>>,
    /// Counts how often this instance found itself cut off.
    cut_off: watch::Sender<u64>,
}

impl DecisionLog {
    pub(super) fn new(settings: &Settings, instance: &str) -> anyhow::Result<Self> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &settings.kafka_brokers)
            .set("client.id", format!("boxoffice-api-{instance}"))
            .set("acks", "all")
            .set("enable.idempotence", "true")
            // A record that fails stops the ones behind it, so that a shard's log has no gap.
            .set("enable.gapless.guarantee", "true")
            // A decision never goes stale: it waits in the outbox anyway until it is delivered.
            .set("message.timeout.ms", "0")
            .set("linger.ms", linger_ms(settings.acknowledge))
            .set("compression.type", "lz4")
            .set("queue.buffering.max.messages", "500000")
            .set("socket.nagle.disable", "true");
        Ok(Self {
            topic: settings.topic.clone(),
            shards: settings.shards,
            producer: RwLock::new(Current::new(0, &config)?),
            config,
            health: Mutex::new(Err("not checked yet".to_owned())),
            cut_off: watch::Sender::new(0),
        })
    }

    pub(super) fn health(&self) -> Result<(), String> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns when Kafka has not answered this instance for some seconds. Another instance may reach it.
    pub(super) async fn cut_off(&self) {
        // The sender lives as long as this log.
        let _ = self.cut_off.subscribe().changed().await;
    }

    /// Ends what waits for the producer, and then takes back what it holds: by the time that Kafka is there again others
    /// may have sent it long ago.
    async fn let_go(&self) {
        self.cut_off.send_modify(|times| *times += 1);
        tokio::task::yield_now().await;
        let producer = self.producer.read().await.generation;
        self.start_over(&NotDelivered { error: KafkaError::Canceled, producer }).await;
    }

    /// Gives records of one shard to the client, in order. Dropping the future takes nothing back.
    pub(super) async fn hand_over(&self, records: &[Message]) -> Result<OnTheWay, NotDelivered> {
        let producer = self.producer.read().await;
        let (round, replaced) = (Round::of(records.len()), producer.replaced.clone());
        let on_the_way = OnTheWay { round, producer: producer.generation, replaced };
        for some in records.chunks(BATCH_MAX) {
            for record in some {
                let sent = self.send(&producer.client, record, &on_the_way.round).await;
                sent.map_err(|error| on_the_way.failed(error))?;
            }
            // The thread is the batchers' too.
            tokio::task::yield_now().await;
        }
        Ok(on_the_way)
    }

    async fn send(
        &self,
        client: &ThreadedProducer<Deliveries>,
        record: &Message,
        round: &Arc<Round>,
    ) -> Result<(), KafkaError> {
        let key = record.key();
        let mut headers = OwnedHeaders::new_with_capacity(4);
        for (name, value) in record.headers() {
            headers = headers.insert(Header { key: name, value: Some(&value) });
        }
        let mut message = BaseRecord::with_opaque_to(&self.topic, round.clone())
            .partition(record.shard.partition())
            .key(&key)
            .payload(&record.value)
            .headers(headers);
        loop {
            match client.send(message) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), returned)) => {
                    message = returned;
                    tokio::time::sleep(QUEUE_FULL_PAUSE).await;
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// After a failed delivery: nothing of the old producer may arrive behind what is sent anew, and a producer with
    /// a fatal error never recovers.
    pub(super) async fn start_over(&self, failure: &NotDelivered) {
        let mut producer = self.producer.write().await;
        if producer.generation != failure.producer {
            return;
        }
        producer.client.purge(PurgeConfig::default().queue().inflight());
        match Current::new(failure.producer + 1, &self.config) {
            Ok(fresh) => {
                let old = std::mem::replace(&mut *producer, fresh);
                old.replaced.cancel();
                // Its end waits for its thread, which must not hold up the relays.
                tokio::task::spawn_blocking(move || drop(old));
            }
            Err(error) => {
                tracing::error!(%error, "cannot make another Kafka producer; the old one is tried again");
            }
        }
    }

    /// Blocks for up to a second.
    fn check(&self, producer: &ThreadedProducer<Deliveries>) -> Result<(), String> {
        let metadata = producer
            .client()
            .fetch_metadata(Some(&self.topic), CHECK_TIMEOUT)
            .map_err(|error| error.to_string())?;
        let partitions =
            metadata.topics().iter().find(|t| t.name() == self.topic).map_or(0, |t| t.partitions().len());
        if partitions < usize::from(self.shards.get()) {
            return Err(format!(
                "topic {} has {partitions} partitions, {} are needed: run boxoffice-reconciler migrate",
                self.topic,
                self.shards.get()
            ));
        }
        Ok(())
    }
}

/// Looks every two seconds whether Kafka is there.
pub(super) async fn watch(shared: Arc<Shared>, shutdown: CancellationToken) {
    let mut failed = 0;
    loop {
        let (checked, producer) = (shared.clone(), shared.log.producer.read().await.client.clone());
        let now = tokio::task::spawn_blocking(move || checked.log.check(&producer))
            .await
            .unwrap_or_else(|_| Err("the check was ended".to_owned()));
        let before = std::mem::replace(
            &mut *shared.log.health.lock().unwrap_or_else(PoisonError::into_inner),
            now.clone(),
        );
        failed = if now.is_ok() { 0 } else { failed + 1 };
        if failed == CHECKS_UNTIL_CUT_OFF {
            shared.log.let_go().await;
            failed = 0;
        }
        match (before, now) {
            (Err(_), Ok(())) => tracing::info!("Kafka is there"),
            (Ok(()), Err(reason)) => tracing::warn!(reason, "Kafka is away; decisions wait in the outbox"),
            _ => {}
        }
        tokio::select! {
            () = tokio::time::sleep(CHECK_INTERVAL) => {}
            () = shutdown.cancelled() => return,
        }
    }
}
