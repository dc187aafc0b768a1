//! Reads the log: partitions assigned by hand at PostgreSQL's offsets, in batches.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use boxoffice_schema::shard::Shard;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::Offset;

use crate::config::Config;
use crate::decode::{Fetched, stated_position};
use crate::kafka::{self, Watermarks};

/// The most records of a batch.
const BATCH_MAX: usize = 16_000;

/// A batch of so many bytes takes no further record: large ones are fewer.
const BATCH_BYTES: usize = 12 << 20;

/// How long a batch gathers after its first record. Nobody waits for PostgreSQL during a sale, and a transaction for
/// each handful of records would take the processors from those who are waited for.
const GATHER: Duration = Duration::from_millis(25);

/// How long an empty log is waited for before the caller may look around.
const POLL_TIMEOUT: Duration = Duration::from_millis(50);

/// When nothing came for so long, the brokers are asked whether there is nothing.
const QUIET_MAX: Duration = Duration::from_secs(4);

/// A reader of the partitions of some shards. It blocks: it belongs on a thread of its own.
pub(crate) struct LogReader {
    consumer: BaseConsumer,
    /// Asks the brokers where their partitions begin and end. On the consumer's connection each question would wait behind
    /// a request for records, for as long as the brokers gather.
    questions: BaseConsumer,
    topic: String,
    /// Where each assigned shard goes on.
    offsets: BTreeMap<Shard, i64>,
    /// An error that came behind records which were given first.
    pending: Option<KafkaError>,
    /// When something came last, or the brokers were last asked.
    heard_at: Instant,
    /// Whether the brokers did not say, when they were last asked, that there is nothing.
    is_suspicious: bool,
}

/// An offset at which a shard would go on, and which the log does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LostOffset {
    pub(crate) shard: Shard,
    pub(crate) wanted: i64,
    pub(crate) found: Watermarks,
}

/// What a read gave.
#[derive(Debug)]
pub(crate) enum Read {
    /// Whatever was there, up to a batch.
    Records(Vec<Fetched>),
    /// Some shards were taken out of the assignment, because their offsets are not in the log.
    Lost(Vec<LostOffset>),
    /// Nothing comes, although there is more, or nobody knows: the client must be replaced. Seen after its brokers had
    /// been down; and a connection that went silent is noticed by the client only after a minute.
    Stuck,
}

impl LogReader {
    pub(crate) fn new(config: &Config) -> Result<Self, KafkaError> {
        Ok(Self {
            consumer: kafka::consumer(config)?,
            questions: kafka::consumer(config)?,
            topic: config.kafka_topic.clone(),
            offsets: BTreeMap::new(),
            pending: None,
            heard_at: Instant::now(),
            is_suspicious: false,
        })
    }

    /// Begins to read shards at offsets; returns those whose offsets the log does not have, and leaves them out.
    /// A new shard has offset 0, which is the beginning only if nothing was removed from the log. A shard whose leader does not answer
    /// while another's does is read as soon as it answers; what the log does not have of it shows then.
    pub(crate) fn assign(&mut self, offsets: &[(Shard, i64)]) -> Result<Vec<LostOffset>, KafkaError> {
        let found = self.each_watermarks(offsets.iter().map(|(shard, _)| *shard))?;
        let (mut begun, mut lost) = (Vec::new(), Vec::new());
        let mut list = TopicPartitionList::new();
        for (shard, wanted) in offsets.iter().copied() {
            match found.get(&shard) {
                Some(found) if !found.have(wanted) => lost.push(LostOffset { shard, wanted, found: *found }),
                _ => {
                    list.add_partition_offset(&self.topic, shard.partition(), Offset::Offset(wanted))?;
                    begun.push((shard, wanted));
                }
            }
        }
        if list.count() > 0 {
            self.consumer.incremental_assign(&list)?;
        }
        self.offsets.extend(begun);
        Ok(lost)
    }

    /// The bounds of those partitions whose leaders answer.
    ///
    /// # Errors
    /// Where none does.
    fn each_watermarks(
        &self,
        shards: impl Iterator<Item = Shard>,
    ) -> Result<BTreeMap<Shard, Watermarks>, KafkaError> {
        let (mut found, mut failure) = (BTreeMap::new(), None);
        for (shard, answer) in kafka::each_watermarks(&self.questions, &self.topic, shards) {
            match answer {
                Ok(bounds) => {
                    found.insert(shard, bounds);
                }
                Err(error) => {
                    tracing::warn!(%shard, %error, "the leader of the shard's partition does not answer");
                    failure = Some(error);
                }
            }
        }
        failure.filter(|_| found.is_empty()).map_or(Ok(found), Err)
    }

    /// Stops reading a shard. What was read ahead of it is dropped.
    pub(crate) fn unassign(&mut self, shard: Shard) -> Result<(), KafkaError> {
        if self.offsets.remove(&shard).is_none() {
            return Ok(());
        }
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topic, shard.partition());
        self.consumer.incremental_unassign(&list)
    }

    /// What comes within a moment, up to a batch; waits a little where nothing does.
    pub(crate) fn read(&mut self) -> Result<Read, KafkaError> {
        let (mut records, mut bytes) = (Vec::new(), 0);
        let mut until = Instant::now() + POLL_TIMEOUT;
        while self.pending.is_none() && records.len() < BATCH_MAX && bytes < BATCH_BYTES {
            match self.consumer.poll(until.saturating_duration_since(Instant::now())) {
                None => break,
                Some(Ok(message)) => {
                    if records.is_empty() {
                        until = Instant::now() + GATHER;
                    }
                    bytes += message.payload_len();
                    records.extend(fetched(&message));
                }
                // What was read before the error comes first.
                Some(Err(error)) => self.pending = Some(error),
            }
        }
        for record in &records {
            self.offsets.insert(record.shard, record.offset + 1);
        }
        match self.pending.take_if(|_| records.is_empty()) {
            Some(error) if is_lost_offset(&error) => {
                let lost = self.find_lost();
                // The client says it once, and reads that partition no more: it is asked for again.
                if lost.is_err() {
                    self.pending = Some(error);
                }
                lost
            }
            Some(error) => Err(error),
            None if records.is_empty() && self.is_stuck() => Ok(Read::Stuck),
            None => {
                if !records.is_empty() {
                    (self.heard_at, self.is_suspicious) = (Instant::now(), false);
                }
                Ok(Read::Records(records))
            }
        }
    }

    /// Whether nothing came between two questions, and neither time those brokers that answered said that there is nothing.
    fn is_stuck(&mut self) -> bool {
        if self.offsets.is_empty() || self.heard_at.elapsed() < QUIET_MAX {
            return false;
        }
        let is_at_end = self.each_watermarks(self.offsets.keys().copied()).is_ok_and(|found| {
            found.iter().all(|(shard, found)| self.offsets.get(shard).is_some_and(|at| *at >= found.high))
        });
        let was_suspicious = std::mem::replace(&mut self.is_suspicious, !is_at_end);
        self.heard_at = Instant::now();
        was_suspicious && self.is_suspicious
    }

    /// The client says that an offset is out of range, and not which: the brokers are asked. Where all are in range by now, the
    /// client does not read that partition any more.
    fn find_lost(&mut self) -> Result<Read, KafkaError> {
        let found = self.each_watermarks(self.offsets.keys().copied())?;
        let lost: Vec<_> = found
            .into_iter()
            .filter_map(|(shard, found)| {
                let wanted = *self.offsets.get(&shard)?;
                (!found.have(wanted)).then_some(LostOffset { shard, wanted, found })
            })
            .collect();
        if lost.is_empty() {
            return Ok(Read::Stuck);
        }
        for LostOffset { shard, .. } in &lost {
            self.unassign(*shard)?;
        }
        Ok(Read::Lost(lost))
    }
}

fn fetched(message: &BorrowedMessage<'_>) -> Option<Fetched> {
    let partition = u16::try_from(message.partition()).ok()?;
    let shard = Shard::from_number(partition);
    let stated = message.headers().and_then(|headers| {
        let pairs = (0..headers.count()).map(|at| headers.get(at));
        stated_position(shard, pairs.map(|header| (header.key, header.value.unwrap_or_default())))
    });
    Some(Fetched {
        shard,
        offset: message.offset(),
        payload: message.payload().unwrap_or_default().to_vec(),
        stated,
    })
}

fn is_lost_offset(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)
    )
}

/// Whether the client must be replaced; from all other errors it recovers by itself.
fn is_fatal(error: &KafkaError) -> bool {
    matches!(error, KafkaError::MessageConsumptionFatal(_))
}

/// `None` after a while where Kafka cannot be asked now.
pub(crate) fn or_wait<T>(asked: Result<T, KafkaError>) -> Result<Option<T>, KafkaError> {
    match asked {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if is_fatal(&error) => Err(error),
        Err(error) => {
            tracing::warn!(%error, "Kafka's log cannot be read now");
            std::thread::sleep(Duration::from_millis(200));
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::ClientConfig;
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

    use super::*;

    const SHARDS: [Shard; 2] = [Shard::from_number(0), Shard::from_number(1)];

    /// Reads until something comes, and nothing else.
    fn read(reader: &mut LogReader) -> Vec<Fetched> {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(30) {
            match reader.read() {
                Ok(Read::Records(records)) if !records.is_empty() => return records,
                Ok(Read::Records(_)) | Err(_) => {}
                Ok(other) => panic!("{other:?}"),
            }
        }
        panic!("nothing came");
    }

    /// Kafka cannot be asked to take one partition's leader away: a cluster that can is made of its client.
    #[test]
    fn a_shard_whose_partition_has_no_leader_keeps_no_other_from_being_read_and_is_read_when_it_has_one() {
        let cluster = MockCluster::<DefaultProducerContext>::new(1).unwrap();
        cluster.create_topic("log", 2, 1).unwrap();
        let mut producer = ClientConfig::new();
        producer.set("bootstrap.servers", cluster.bootstrap_servers());
        let producer: ThreadedProducer<DefaultProducerContext> = producer.create().unwrap();
        for shard in SHARDS {
            producer.send(BaseRecord::<(), _>::to("log").partition(shard.partition()).payload("x")).unwrap();
        }
        producer.flush(Duration::from_secs(10)).unwrap();
        cluster.partition_leader("log", 1, None).unwrap();

        let mut config = crate::test_records::config();
        config.kafka_brokers = cluster.bootstrap_servers();
        let mut reader = LogReader::new(&config).unwrap();
        assert_eq!(reader.assign(&SHARDS.map(|shard| (shard, 0))).unwrap(), []);
        assert_eq!(read(&mut reader)[0].shard, SHARDS[0]);
        cluster.partition_leader("log", 1, Some(1)).unwrap();
        assert_eq!(read(&mut reader)[0].shard, SHARDS[1]);
    }
}
