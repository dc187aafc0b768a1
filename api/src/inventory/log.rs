//! Kafka: the log that remembers every decision.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use boxoffice_schema::record::Message;
use boxoffice_schema::scripts::BATCH_MAX;
use boxoffice_schema::shard::{Shard, ShardCount};
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

/// Kafka knows a producer as the writer of a partition for a day after its last record there (`producer.id.expiration.ms`).
const KNOWN_FOR: Duration = Duration::from_secs(3_600);

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

impl NotDelivered {
    /// Whether a broker refused a record of this very shard, rather than that the client gave everything up.
    pub(super) fn is_refused(&self) -> bool {
        use RDKafkaErrorCode::{Fatal, PurgeInflight, PurgeQueue};
        matches!(&self.error, KafkaError::MessageProduction(code) if ![Fatal, PurgeInflight, PurgeQueue].contains(code))
    }
}

/// Counts the producers of this process: several shards may report the failure of one.
type Generation = u64;

/// Kafka's client, until something fails.
struct Current {
    generation: Generation,
    client: Arc<ThreadedProducer<Deliveries>>,
    /// Ends the wait for what this client was given: once it is replaced nothing more is heard of that.
    replaced: CancellationToken,
    written: Arc<Written>,
}

impl Current {
    fn new(generation: Generation, config: &ClientConfig) -> Result<Self, KafkaError> {
        let client = Arc::new(config.create_with_context(Deliveries)?);
        Ok(Self { generation, client, replaced: CancellationToken::new(), written: Arc::default() })
    }
}

/// When Kafka last confirmed what a client wrote to the partitions of shards.
#[derive(Default)]
struct Written(Mutex<HashMap<Shard, Instant>>);

impl Written {
    fn times(&self) -> MutexGuard<'_, HashMap<Shard, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, shard: Shard) {
        self.times().insert(shard, Instant::now());
    }

    fn is_known(&self, shard: Shard) -> bool {
        self.times().get(&shard).is_some_and(|at| at.elapsed() < KNOWN_FOR)
    }
}

/// Records of one shard that the client was given, and of which Kafka may not have all yet.
pub(super) struct OnTheWay {
    shard: Shard,
    records: usize,
    round: Arc<Round>,
    producer: Generation,
    /// As [`Current::replaced`].
    replaced: CancellationToken,
    written: Arc<Written>,
}

impl OnTheWay {
    /// How many they are.
    pub(super) fn records(&self) -> usize {
        self.records
    }

    /// Waits until Kafka has confirmed them all. Whoever gave up may wait again.
    pub(super) async fn confirmed(&self) -> Result<(), NotDelivered> {
        let confirmed = tokio::select! {
            confirmed = self.round.confirmed() => confirmed,
            () = self.replaced.cancelled() => Err(KafkaError::Canceled),
        };
        confirmed.map_err(|error| self.failed(error))?;
        self.written.note(self.shard);
        Ok(())
    }

    /// Whether nothing more will be heard of them.
    pub(super) fn are_taken_back(&self) -> bool {
        self.replaced.is_cancelled()
    }

    fn failed(&self, error: KafkaError) -> NotDelivered {
        NotDelivered { error, producer: self.producer }
    }
}

/// What is asked of Kafka's client, whichever Kafka it is.
fn client(acknowledge: Acknowledge) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("acks", "all")
        .set("enable.idempotence", "true")
        // A record that fails stops the ones behind it, so that a shard's log has no gap.
        .set("enable.gapless.guarantee", "true")
        // A decision never goes stale: it waits in the outbox anyway until it is delivered.
        .set("message.timeout.ms", "0")
        .set("linger.ms", linger_ms(acknowledge))
        .set("compression.type", "lz4")
        .set("queue.buffering.max.messages", "500000")
        .set("socket.nagle.disable", "true");
    config
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
        let mut config = client(settings.acknowledge);
        config
            .set("bootstrap.servers", &settings.kafka_brokers)
            .set("client.id", format!("boxoffice-api-{instance}"));
        Ok(Self::of(config, settings.topic.clone(), settings.shards)?)
    }

    fn of(config: ClientConfig, topic: String, shards: ShardCount) -> Result<Self, KafkaError> {
        Ok(Self {
            topic,
            shards,
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

    /// Gives records of one shard to the client, in order; the first alone where Kafka may not know this client as a writer of
    /// the shard's partition. Dropping the future takes nothing back.
    ///
    /// A broker takes the first request of a producer that it does not know whatever its sequence. Where it refused one of several
    /// that were under way, because the partition had no leader yet, say, it would take the next; and the client takes that for
    /// the proof that it has both (`rd_kafka_dr_implicit_ack` of librdkafka; KAFKA-14359).
    pub(super) async fn hand_over(
        &self,
        shard: Shard,
        records: &[Message],
    ) -> Result<OnTheWay, NotDelivered> {
        let producer = self.producer.read().await;
        let records =
            if producer.written.is_known(shard) { records } else { &records[..records.len().min(1)] };
        let on_the_way = OnTheWay {
            shard,
            records: records.len(),
            round: Round::of(records.len()),
            producer: producer.generation,
            replaced: producer.replaced.clone(),
            written: producer.written.clone(),
        };
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

#[cfg(test)]
mod tests {
    use boxoffice_schema::position::Position;
    use boxoffice_schema::record::{Change, Kind, Record};
    use rdkafka::bindings::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION;
    use rdkafka::consumer::{BaseConsumer, Consumer};
    use rdkafka::mocking::MockCluster;
    use rdkafka::types::RDKafkaApiKey;
    use rdkafka::{Message as _, Offset, TopicPartitionList};

    use super::*;

    const SHARD: Shard = Shard::from_number(0);

    const RECORDS: u64 = 20;

    fn record(sequence: u64) -> Message {
        Record {
            shard: SHARD,
            position: Position { epoch: 1, sequence },
            kind: Kind::Barrier,
            event_id: None,
            decided_at: chrono::DateTime::UNIX_EPOCH,
            change: Change::Barrier { old_epoch: 0 },
        }
        .message()
    }

    /// What the partition has.
    fn logged(cluster: &str) -> Vec<Vec<u8>> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", cluster).set("group.id", "reader");
        let consumer: BaseConsumer = config.create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("decisions", 0, Offset::Beginning).unwrap();
        consumer.assign(&list).unwrap();
        let (_, end) = consumer.fetch_watermarks("decisions", 0, Duration::from_secs(10)).unwrap();
        let read = (0..end).map(|_| consumer.poll(Duration::from_secs(10)).unwrap().unwrap());
        read.map(|record| record.payload().unwrap().to_vec()).collect()
    }

    /// Kafka cannot be asked to refuse one request, and to take the next: a broker that does is made of Kafka's client.
    #[tokio::test]
    async fn what_a_broker_refused_before_it_knew_the_producer_is_not_taken_for_delivered() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("decisions", 1, 1).unwrap();
        // Requests leave before the first is answered.
        cluster.broker_round_trip_time(1, Duration::from_millis(100)).unwrap();
        cluster.request_errors(RDKafkaApiKey::Produce, &[RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION]);
        let mut config = client(Acknowledge::Redis);
        // Behind a request of so few the client sends another; the clock may cut a round there.
        config.set("bootstrap.servers", cluster.bootstrap_servers()).set("batch.num.messages", "2");
        let log = DecisionLog::of(config, "decisions".to_owned(), ShardCount::new(1).unwrap()).unwrap();
        let records: Vec<Message> = (1..=RECORDS).map(record).collect();
        let mut rest = records.as_slice();
        while !rest.is_empty() {
            let on_the_way = log.hand_over(SHARD, rest).await.unwrap();
            on_the_way.confirmed().await.unwrap();
            rest = &rest[on_the_way.records()..];
        }
        let bootstrap = cluster.bootstrap_servers();
        let logged = tokio::task::spawn_blocking(move || logged(&bootstrap)).await.unwrap();
        assert_eq!(logged.len(), records.len());
        assert!(logged.iter().zip(&records).all(|(logged, record)| *logged == record.value));
    }
}
