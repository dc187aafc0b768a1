//! What Kafka holds, read back from the beginning.

use std::time::Duration;

use boxoffice_schema::record::header;
use boxoffice_schema::shard::Shard;
use chrono::{DateTime, Utc};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message, OwnedMessage};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::world::Settings;

const PATIENCE: Duration = Duration::from_secs(10);

impl Settings {
    /// The positions (epoch, sequence) of a shard's decisions and barriers, in the order of the log.
    pub async fn logged(&self, shard: Shard) -> Vec<(u32, u64)> {
        let settings = self.clone();
        tokio::task::spawn_blocking(move || read(&settings, shard)).await.unwrap()
    }
}

impl Settings {
    /// When the last record of a shard was given to Kafka's client.
    pub async fn last_sent(&self, shard: Shard) -> DateTime<Utc> {
        let settings = self.clone();
        let records = tokio::task::spawn_blocking(move || messages(&settings, shard)).await.unwrap();
        let sent_ms = records.last().and_then(|record| record.timestamp().to_millis());
        DateTime::from_timestamp_millis(sent_ms.expect("a record has a time")).unwrap()
    }
}

impl Settings {
    /// Appends all records of a shard once more, as a producer does that retries without being idempotent.
    pub async fn repeat_log(&self, shard: Shard) -> usize {
        let settings = self.clone();
        let records = tokio::task::spawn_blocking(move || messages(&settings, shard)).await.unwrap();
        let producer: FutureProducer =
            ClientConfig::new().set("bootstrap.servers", &self.kafka_brokers).create().unwrap();
        let topic = self.topic();
        for record in &records {
            let mut again = FutureRecord::to(&topic).partition(shard.partition());
            again = again.key(record.key().unwrap()).payload(record.payload().unwrap());
            producer.send(again.headers(record.headers().unwrap().clone()), PATIENCE).await.unwrap();
        }
        records.len()
    }
}

fn read(settings: &Settings, shard: Shard) -> Vec<(u32, u64)> {
    let position = |message: &OwnedMessage| {
        (number(message, header::EPOCH), u64::from(number(message, header::SEQUENCE)))
    };
    messages(settings, shard).iter().map(position).collect()
}

fn messages(settings: &Settings, shard: Shard) -> Vec<OwnedMessage> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &settings.kafka_brokers)
        .set("group.id", "boxoffice-tests")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let (topic, partition) = (settings.topic(), shard.partition());
    let (_, end) = consumer.fetch_watermarks(&topic, partition, PATIENCE).unwrap();
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(&topic, partition, Offset::Beginning).unwrap();
    consumer.assign(&assignment).unwrap();
    let mut messages = Vec::new();
    let mut next = 0;
    while next < end {
        let message = consumer.poll(PATIENCE).expect("the log can be read to its end").unwrap();
        next = message.offset() + 1;
        messages.push(message.detach());
    }
    messages
}

fn number(message: &OwnedMessage, name: &str) -> u32 {
    let headers = message.headers().expect("a record has headers");
    let value = headers.iter().find(|header| header.key == name).and_then(|header| header.value);
    std::str::from_utf8(value.expect("a record has a position")).unwrap().parse().unwrap()
}

/// The sequences in the order in which each first appears, which must leave none out.
#[track_caller]
pub fn without_gap(positions: &[(u32, u64)]) -> Vec<u64> {
    let mut firsts: Vec<u64> = Vec::new();
    for (_, sequence) in positions {
        let next = firsts.last().map_or(*sequence, |last| last + 1);
        assert!(*sequence <= next, "{sequence} before {next}: {positions:?}");
        if *sequence == next {
            firsts.push(*sequence);
        }
    }
    firsts
}
