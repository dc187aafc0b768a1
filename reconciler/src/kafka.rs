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
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer, PurgeConfig};
use tokio::sync::RwLock;
use tokio::time::Instant;

use crate::config::Config;

/// For questions to the brokers; each is asked again later.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the brokers may take to confirm what is appended. Then it counts as failed.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(10);

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
    #[error("Kafka has not confirmed a record within {} s", .0.as_secs())]
    Late(Duration),
    #[error("Kafka does not tell where a shard's log ends: {0}")]
    EndUnknown(KafkaError),
    #[error("the producer was replaced")]
    Replaced,
}

/// Writes to the log and waits for the brokers' confirmation. The shards share it: where one of them fails, what others have under
/// way is taken back as well.
pub(crate) struct LogWriter {
    config: ClientConfig,
    topic: String,
    confirmed_within: Duration,
    /// Written only to replace it: while records of one shard are handed over, no other shard's failure may take back those that
    /// went before and let those that follow through.
    current: RwLock<Current>,
}

/// Kafka's client, until something fails.
struct Current {
    /// Counts them: several shards may report the failure of one.
    generation: u64,
    /// Or why it could not be made.
    producer: Result<FutureProducer, KafkaError>,
}

impl LogWriter {
    pub(crate) fn new(config: &Config) -> Result<Self, KafkaError> {
        Self::with_patience(config, CONFIRMED_WITHIN)
    }

    fn with_patience(config: &Config, confirmed_within: Duration) -> Result<Self, KafkaError> {
        let mut client = client(config);
        client
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // A record that is refused stops those behind it, so that a drain that failed leaves no gap in the log.
            .set("enable.gapless.guarantee", "true")
            // That does not hold for records that time out in the client: the others are sent. So none does, and this writer gives
            // up by itself.
            .set("message.timeout.ms", "0")
            // Of several requests of a producer that a broker does not know yet, one that was refused could be taken for delivered.
            .set("max.in.flight.requests.per.connection", "1")
            .set("linger.ms", "1");
        let producer = Ok(client.create()?);
        let current = RwLock::new(Current { generation: 0, producer });
        Ok(Self { config: client, topic: config.kafka_topic.clone(), confirmed_within, current })
    }

    /// Appends records to their shards' partitions, in order; returns when the brokers have confirmed all. Where it fails, the log
    /// has some of them from the first on, or will have, and nothing behind one that it lacks.
    pub(crate) async fn append(&self, records: &[record::Message]) -> Result<(), LogError> {
        let deadline = Instant::now() + self.confirmed_within;
        loop {
            let current = self.current.read().await;
            let generation = current.generation;
            let handed_over = self.until(deadline, self.hand_over(&current, records)).await;
            drop(current);
            let outcome = match handed_over {
                Ok(deliveries) => self.until(deadline, confirmed(deliveries)).await,
                Err(error) => Err(error),
            };
            // What was taken back because another shard failed goes again, from its first record on: a shard whose partition is away
            // would keep the others from being drained.
            if outcome.is_ok() || self.start_over(generation).await || Instant::now() >= deadline {
                return outcome;
            }
        }
    }

    async fn until<T>(
        &self,
        deadline: Instant,
        work: impl Future<Output = Result<T, LogError>>,
    ) -> Result<T, LogError> {
        let late = LogError::Late(self.confirmed_within);
        tokio::time::timeout_at(deadline, work).await.unwrap_or(Err(late))
    }

    async fn hand_over(
        &self,
        current: &Current,
        records: &[record::Message],
    ) -> Result<Vec<DeliveryFuture>, LogError> {
        let producer = current.producer.as_ref().map_err(Clone::clone)?;
        let mut deliveries = Vec::with_capacity(records.len());
        for record in records {
            let key = record.key();
            let message = FutureRecord::to(&self.topic)
                .partition(record.shard.partition())
                .key(&key)
                .payload(record.value.as_slice())
                .headers(owned(&record.headers()));
            deliveries.push(enqueue(producer, message).await?);
        }
        Ok(deliveries)
    }

    /// After a failure nothing of the old producer may come behind what is sent anew: what it still has is taken back before anybody
    /// sends again, and one that met a fatal error sends nothing any more. `false` where another failure had done so already.
    async fn start_over(&self, failed: u64) -> bool {
        let mut current = self.current.write().await;
        if current.generation != failed {
            return false;
        }
        let producer = self.config.create();
        if let Err(error) = &producer {
            tracing::error!(%error, "cannot make another Kafka producer; trying again when one is needed");
        }
        let old = std::mem::replace(&mut *current, Current { generation: failed + 1, producer });
        if let Ok(old) = old.producer {
            // Both wait for the client's threads, which may be looking for a broker's address.
            let purge = tokio::task::spawn_blocking(move || {
                old.purge(PurgeConfig::default().queue().inflight());
                old
            });
            if let Ok(old) = purge.await {
                tokio::task::spawn_blocking(move || drop(old));
            }
        }
        true
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
        let current = self.current.read().await;
        let (generation, producer) = (current.generation, current.producer.clone());
        drop(current);
        let Ok(producer) = producer else {
            self.start_over(generation).await;
            return Err(LogError::Replaced);
        };
        let topic = self.topic.clone();
        let ask = move || producer.client().fetch_watermarks(&topic, shard.partition(), REQUEST_TIMEOUT);
        let asked = tokio::task::spawn_blocking(ask).await.unwrap_or(Err(KafkaError::Canceled));
        asked.map(|(_, end)| end).map_err(LogError::EndUnknown)
    }
}

/// A record's headers, as the client takes them.
pub(crate) fn owned(headers: &[(&str, String)]) -> OwnedHeaders {
    headers
        .iter()
        .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }))
}

/// Hands a record to the producer. A full queue empties as the brokers confirm, or when somebody gives up.
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

#[cfg(test)]
mod tests {
    use rdkafka::bindings::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS;
    use rdkafka::mocking::MockCluster;
    use rdkafka::types::RDKafkaApiKey;
    use rdkafka::{Message as _, Offset, TopicPartitionList};

    use super::*;
    use crate::test_records::booked;

    const RECORDS: u64 = 20;

    /// The sequence numbers of what the partition has.
    fn logged(config: &Config) -> Vec<u64> {
        let consumer = consumer(config).unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&config.kafka_topic, 0, Offset::Offset(0)).unwrap();
        consumer.assign(&list).unwrap();
        let (_, end) = consumer.fetch_watermarks(&config.kafka_topic, 0, REQUEST_TIMEOUT).unwrap();
        let read = (0..end).map(|_| consumer.poll(REQUEST_TIMEOUT).unwrap().unwrap());
        read.map(|read| Record::decode(read.payload().unwrap()).unwrap().position.sequence).collect()
    }

    /// Whether each number comes for the first time behind all lower ones.
    fn has_no_gap(logged: &[u64]) -> bool {
        let mut last = 0;
        logged.iter().all(|sequence| {
            let is_next = *sequence <= last + 1;
            last = last.max(*sequence);
            is_next
        })
    }

    /// Kafka cannot be asked to lack replicas for a moment: a broker that does is made of its client.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_was_given_up_is_not_sent_when_the_replicas_are_back() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("log", 1, 1).unwrap();
        let mut config = crate::test_records::config();
        config.kafka_brokers = cluster.bootstrap_servers();
        let log = LogWriter::with_patience(&config, Duration::from_secs(2)).unwrap();
        let records: Vec<_> = (1..=RECORDS).map(|n| booked(1, n, &n.to_string()).message()).collect();
        log.append(&records[..2]).await.unwrap();

        cluster.request_errors(RDKafkaApiKey::Produce, &[RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS; 1_000]);
        // What is handed over later has more time left: by the client's own clock it would outlive what is in front of it.
        let later = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            log.append(&records[10..]).await
        };
        let (first, second) = tokio::join!(log.append(&records[2..10]), later);
        assert!(matches!(first, Err(LogError::Late(_))), "{first:?}");
        assert!(second.is_err());
        cluster.clear_request_errors(RDKafkaApiKey::Produce);
        log.append(&records[..5]).await.unwrap();
        log.append(&records[5..]).await.unwrap();

        let logged = tokio::task::spawn_blocking(move || logged(&config)).await.unwrap();
        assert!(has_no_gap(&logged), "{logged:?}");
        assert_eq!(logged.last(), Some(&RECORDS));
    }

    /// What it takes back of the others goes again.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_shard_whose_partition_is_away_fails_alone() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("log", 2, 1).unwrap();
        cluster.partition_leader("log", 1, None).unwrap();
        // Something of the other shard is under way when this one is given up.
        cluster.broker_round_trip_time(1, Duration::from_millis(100)).unwrap();
        let mut config = crate::test_records::config();
        config.kafka_brokers = cluster.bootstrap_servers();
        let log = LogWriter::with_patience(&config, Duration::from_secs(2)).unwrap();
        let mut elsewhere = booked(1, 1, "elsewhere");
        elsewhere.shard = Shard::from_number(1);
        let elsewhere = [elsewhere.message()];
        let others = async {
            for n in 1..=2 * RECORDS {
                log.append(&[booked(1, n, &n.to_string()).message()]).await.unwrap();
            }
        };
        let (failed, ()) = tokio::join!(log.append(&elsewhere), others);
        assert!(matches!(failed, Err(LogError::Late(_))), "{failed:?}");

        let logged = tokio::task::spawn_blocking(move || logged(&config)).await.unwrap();
        assert!(has_no_gap(&logged), "{logged:?}");
        assert_eq!(logged.last(), Some(&(2 * RECORDS)));
    }
}
