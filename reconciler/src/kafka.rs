//! Kafka clients: how each is configured, and what is asked of the brokers besides consuming.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use boxoffice_schema::position::Position;
use boxoffice_schema::record::{self, Change, Kind, Record};
use boxoffice_schema::shard::{Shard, ShardCount};
use chrono::Utc;
use futures_util::future::try_join_all;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer};
use tokio::sync::Mutex;

use crate::config::Config;

/// For questions to the brokers; each is asked again later.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Bounds how long a record may wait for its delivery report before the sender is told that it failed.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);

/// What all clients have in common.
pub(crate) fn client(config: &Config) -> ClientConfig {
    let mut client = ClientConfig::new();
    client
        .set("bootstrap.servers", &config.kafka_brokers)
        .set("client.id", "boxoffice-reconciler")
        .set("socket.keepalive.enable", "true")
        .set("reconnect.backoff.max.ms", "2000")
        // Nobody here writes in transactions. One that somebody else left open must not keep the log back, nor hide its end.
        .set("isolation.level", "read_uncommitted");
    client
}

/// A consumer of partitions that are assigned by hand, at offsets that PostgreSQL holds.
pub(crate) fn consumer(config: &Config) -> Result<BaseConsumer, KafkaError> {
    client(config)
        // The client asks for a name of a group even where none is joined.
        .set("group.id", "boxoffice-reconciler")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        // What the client reads ahead, over all partitions. Each record takes more than its own size beside what is counted
        // here, and the memory is not given back when the backlog ends.
        .set("queued.max.messages.kbytes", "8192")
        .set("fetch.max.bytes", "8388608")
        // Little of each partition at a time, so that a batch of a backlog has records of all of them and its transactions
        // get about as much each.
        .set("max.partition.fetch.bytes", "131072")
        // The brokers gather as well, instead of answering for each record: a request looks at all partitions whenever
        // anything is written to one of them. Less than a partition gives at once, or a backlog of one would wait each time.
        .set("fetch.min.bytes", "98304")
        .set("fetch.wait.max.ms", "100")
        .set("fetch.queue.backoff.ms", "20")
        .set("fetch.error.backoff.ms", "200")
        .create()
}

/// The most partitions that are asked for at the same time, each by a thread that waits.
const ASKED_TOGETHER_MAX: usize = 64;

/// The offsets of a partition's oldest record and of the next one to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Watermarks {
    pub(crate) low: i64,
    pub(crate) high: i64,
}

impl Watermarks {
    /// Whether a reader may go on at an offset.
    pub(crate) fn have(self, offset: i64) -> bool {
        (self.low..=self.high).contains(&offset)
    }
}

/// Asks the brokers for the bounds of each shard's partition. Blocks.
pub(crate) fn watermarks(
    consumer: &BaseConsumer,
    topic: &str,
    shards: impl IntoIterator<Item = Shard>,
) -> Result<Vec<(Shard, Watermarks)>, KafkaError> {
    let answers = each_watermarks(consumer, topic, shards);
    answers.into_iter().map(|(shard, found)| Ok((shard, found?))).collect()
}

/// The same, of each shard by itself: all are asked at the same time, so that a partition whose leader is away keeps nobody from what
/// is known of the others. Without the rest of the shards where nobody answers.
pub(crate) fn each_watermarks(
    consumer: &BaseConsumer,
    topic: &str,
    shards: impl IntoIterator<Item = Shard>,
) -> Vec<(Shard, Result<Watermarks, KafkaError>)> {
    let ask = |shard: Shard| {
        let (low, high) = consumer.fetch_watermarks(topic, shard.partition(), REQUEST_TIMEOUT)?;
        Ok(Watermarks { low, high })
    };
    let shards: Vec<Shard> = shards.into_iter().collect();
    let mut answers = Vec::with_capacity(shards.len());
    for shards in shards.chunks(ASKED_TOGETHER_MAX) {
        std::thread::scope(|scope| {
            let asked: Vec<_> = shards.iter().map(|shard| (*shard, scope.spawn(|| ask(*shard)))).collect();
            let told = asked.into_iter().map(|(shard, asked)| (shard, asked.join()));
            answers.extend(told.map(|(shard, answer)| (shard, answer.unwrap_or(Err(KafkaError::Canceled)))));
        });
        // Kafka as a whole is away: the others would only be waited for.
        if answers.iter().all(|(_, answer)| answer.is_err()) {
            break;
        }
    }
    answers
}

/// The same, by a client of its own.
pub(crate) async fn watermarks_of(
    config: &Config,
    shards: Vec<Shard>,
) -> anyhow::Result<Vec<(Shard, Watermarks)>> {
    let config = config.clone();
    let ask = move || watermarks(&consumer(&config)?, &config.kafka_topic, shards);
    tokio::task::spawn_blocking(ask).await?.context("Kafka does not tell the bounds of the log")
}

/// Asks for the bounds of partitions again and again, by one client, which is made when it is first needed.
#[derive(Default)]
pub(crate) struct Bounds(Option<Arc<BaseConsumer>>);

impl Bounds {
    /// Those of each shard for which its partition's leader answers.
    pub(crate) async fn of_each(
        &mut self,
        config: &Config,
        shards: Vec<Shard>,
    ) -> anyhow::Result<BTreeMap<Shard, Watermarks>> {
        let client = match &self.0 {
            Some(client) => Arc::clone(client),
            None => Arc::clone(self.0.insert(Arc::new(consumer(config)?))),
        };
        let topic = config.kafka_topic.clone();
        let ask = move || each_watermarks(&client, &topic, shards);
        let answers = tokio::task::spawn_blocking(ask).await?;
        Ok(answers.into_iter().filter_map(|(shard, found)| Some((shard, found.ok()?))).collect())
    }
}

/// Whether a broker answers.
pub(crate) async fn ping(config: &Config) -> anyhow::Result<()> {
    let config = config.clone();
    let ask = move || consumer(&config)?.fetch_metadata(None, REQUEST_TIMEOUT).map(|_| ());
    Ok(tokio::task::spawn_blocking(ask).await??)
}

/// The number of partitions of a topic; 0 where there is none.
pub(crate) async fn count_partitions(config: &Config, topic: &str) -> anyhow::Result<usize> {
    let (config, topic) = (config.clone(), topic.to_owned());
    let ask = move || {
        let metadata = consumer(&config)?.fetch_metadata(Some(&topic), REQUEST_TIMEOUT)?;
        Ok::<_, KafkaError>(
            metadata.topics().iter().find(|t| t.name() == topic).map_or(0, |t| t.partitions().len()),
        )
    };
    Ok(tokio::task::spawn_blocking(ask).await??)
}

/// Refuses a log, or a topic for what is set aside, with fewer partitions than shards: what is set aside goes to the partition of its
/// shard's number as well.
///
/// The outer error is Kafka being away, which passes; the inner one is final.
pub(crate) async fn check_topics(config: &Config) -> anyhow::Result<anyhow::Result<()>> {
    for topic in [&config.kafka_topic, &config.dead_letter_topic] {
        let found = count_partitions(config, topic).await?;
        if let Err(refusal) = enough_partitions(topic, found, config.shards) {
            return Ok(Err(refusal));
        }
    }
    Ok(Ok(()))
}

/// See [`check_topics`].
pub(crate) fn enough_partitions(topic: &str, found: usize, shards: ShardCount) -> anyhow::Result<()> {
    let wanted = usize::from(shards.get());
    match found {
        0 => bail!("Kafka has no topic {topic}; run `boxoffice-reconciler migrate` first"),
        _ if found < wanted => bail!(
            "topic {topic} has {found} partitions and there are {wanted} shards; each shard needs the partition of \
             its number: add partitions, or name another topic"
        ),
        _ => Ok(()),
    }
}

/// What the log did not do for its writer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    #[error("Kafka refused a record: {0}")]
    Refused(#[from] KafkaError),
    #[error("Kafka does not tell where a shard's log ends: {0}")]
    EndUnknown(KafkaError),
    #[error("the producer was replaced while a record was under way")]
    Replaced,
}

/// Writes to the log and waits for the brokers' confirmation.
pub(crate) struct LogWriter {
    config: ClientConfig,
    topic: String,
    producer: Mutex<FutureProducer>,
}

impl LogWriter {
    pub(crate) fn new(config: &Config) -> Result<Self, KafkaError> {
        let mut client = client(config);
        client
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // A record that times out stops those behind it, so that a drain that failed leaves no gap in the log.
            .set("enable.gapless.guarantee", "true")
            // Of several requests of a producer that a broker does not know yet, one that was refused could be taken for delivered.
            .set("max.in.flight.requests.per.connection", "1")
            .set("linger.ms", "1")
            .set("message.timeout.ms", DELIVERY_TIMEOUT.as_millis().to_string());
        let producer = Mutex::new(client.create()?);
        Ok(Self { config: client, topic: config.kafka_topic.clone(), producer })
    }

    /// Appends records to their shards' partitions, in order; returns when the brokers have confirmed all.
    pub(crate) async fn append(&self, records: &[record::Message]) -> Result<(), LogError> {
        let producer = self.producer().await?;
        let mut deliveries = Vec::with_capacity(records.len());
        for record in records {
            let key = record.key();
            let message = FutureRecord::to(&self.topic)
                .partition(record.shard.partition())
                .key(&key)
                .payload(record.value.as_slice())
                .headers(owned(&record.headers()));
            deliveries.push(enqueue(&producer, message).await?);
        }
        confirmed(deliveries).await
    }

    /// Appends a barrier. That of an epoch which has not begun ends all older ones, and names the last decision of the Redis that is
    /// recovered; another one says nothing, and is passed by every reader.
    pub(crate) async fn append_barrier(
        &self,
        shard: Shard,
        epoch: u32,
        last: Position,
    ) -> Result<(), LogError> {
        let barrier = Record {
            shard,
            position: Position { epoch, sequence: last.sequence },
            kind: Kind::Barrier,
            event_id: None,
            decided_at: boxoffice_schema::time::truncate(Utc::now()),
            change: Change::Barrier { old_epoch: last.epoch },
        };
        self.append(&[barrier.message()]).await
    }

    /// The offset behind the last record of a shard's partition.
    pub(crate) async fn end_of(&self, shard: Shard) -> Result<i64, LogError> {
        let (producer, topic) = (self.producer().await?, self.topic.clone());
        let ask = move || producer.client().fetch_watermarks(&topic, shard.partition(), REQUEST_TIMEOUT);
        let asked = tokio::task::spawn_blocking(ask).await.unwrap_or(Err(KafkaError::Canceled));
        asked.map(|(_, end)| end).map_err(LogError::EndUnknown)
    }

    /// The producer; a new one where the last met an error after which it sends nothing any more.
    async fn producer(&self) -> Result<FutureProducer, LogError> {
        let mut producer = self.producer.lock().await;
        if producer.client().fatal_error().is_some() {
            *producer = self.config.create()?;
        }
        Ok(producer.clone())
    }
}

/// A record's headers, as the client takes them.
pub(crate) fn owned(headers: &[(&str, String)]) -> OwnedHeaders {
    headers
        .iter()
        .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }))
}

/// Hands a record to the producer. A full queue empties as the brokers confirm, or as deliveries time out.
async fn enqueue(
    producer: &FutureProducer,
    mut message: FutureRecord<'_, String, [u8]>,
) -> Result<DeliveryFuture, LogError> {
    loop {
        match producer.send_result(message) {
            Ok(delivery) => return Ok(delivery),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), returned)) => {
                message = returned;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err((error, _)) => return Err(error.into()),
        }
    }
}

async fn confirmed(deliveries: Vec<DeliveryFuture>) -> Result<(), LogError> {
    let each = deliveries.into_iter().map(|delivery| async {
        match delivery.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err((error, _))) => Err(LogError::Refused(error)),
            Err(_) => Err(LogError::Replaced),
        }
    });
    try_join_all(each).await.map(|_| ())
}
