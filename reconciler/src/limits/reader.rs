//! Reads the topic of the rate limits, which has one partition.

use std::time::{Duration, Instant};

use anyhow::Context;
use boxoffice_schema::rate_record::RateRecord;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::Offset;

use crate::config::Config;
use crate::kafka::{self, REQUEST_TIMEOUT};

pub(super) const PARTITION: i32 = 0;

/// The most records of a batch: with the bound of a record, the most rows of a transaction.
const BATCH_MAX: usize = 50;

/// How long nothing may come before the caller may look around.
const POLL_TIMEOUT: Duration = Duration::from_millis(300);

/// Records that were read, and the offset behind them.
pub(super) struct Batch {
    pub(super) next_offset: i64,
    pub(super) records: Vec<RateRecord>,
}

pub(super) struct Reader {
    consumer: BaseConsumer,
}

impl Reader {
    /// Reads from an offset; from the oldest record where Kafka no longer has it, which loses statistics and is said.
    /// Blocks.
    pub(super) fn at(config: &Config, offset: i64) -> anyhow::Result<Self> {
        let consumer = kafka::consumer(config)?;
        let topic = &config.rate_limit_topic;
        let (low, high) = consumer
            .fetch_watermarks(topic, PARTITION, REQUEST_TIMEOUT)
            .context("Kafka does not tell the bounds of the rate limits' topic")?;
        let begin = if (low..=high).contains(&offset) { offset } else { low };
        if begin != offset {
            tracing::warn!(offset, begin, "Kafka no longer has what the rate limits decided in between");
        }
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, PARTITION, Offset::Offset(begin))?;
        consumer.assign(&list)?;
        Ok(Self { consumer })
    }

    /// What comes within a moment; `None` where nothing does. Blocks.
    pub(super) fn read(self) -> (Self, anyhow::Result<Option<Batch>>) {
        let batch = self.poll();
        (self, batch)
    }

    fn poll(&self) -> anyhow::Result<Option<Batch>> {
        let until = Instant::now() + POLL_TIMEOUT;
        let (mut next_offset, mut records) = (None, Vec::new());
        while records.len() < BATCH_MAX {
            let Some(message) = self.consumer.poll(until.saturating_duration_since(Instant::now())) else {
                break;
            };
            let message = message.context("Kafka does not give what the rate limits decided")?;
            next_offset = Some(message.offset() + 1);
            match RateRecord::decode(message.payload().unwrap_or_default()) {
                Ok(record) => records.push(record),
                // Statistics are not worth a dead letter.
                Err(error) => {
                    tracing::warn!(%error, offset = message.offset(), "a record of the rate limits was left out");
                }
            }
        }
        Ok(next_offset.map(|next_offset| Batch { next_offset, records }))
    }
}
