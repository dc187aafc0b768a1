//! Counts decisions, and streams the counts to Kafka once a second: off the way of requests, with bounded memory. What
//! was counted in the last second is lost with the process, and so is what Kafka does not take within half a minute.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use boxoffice_schema::rate_record::{RateDecisions, RateRecord};
use chrono::{DateTime, Utc};
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use tokio_util::sync::CancellationToken;

use super::Limits;

const INTERVAL: Duration = Duration::from_secs(1);

/// The most subjects that are told apart within a second; the others are counted together.
const SUBJECTS_MAX: usize = 1_000;

/// How long the last counts may take at the end.
const LAST_WITHIN: Duration = Duration::from_secs(1);

/// What became of a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Allowed,
    Refused,
    FromMemory,
}

#[derive(Default)]
pub(super) struct Tally {
    counted: Mutex<Counted>,
}

#[derive(Default)]
struct Counted {
    by_policy: HashMap<String, HashMap<String, Counts>>,
    subjects: usize,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    allowed: u32,
    refused: u32,
    from_memory: u32,
}

impl Counts {
    fn add(&mut self, kind: Kind) {
        let count = match kind {
            Kind::Allowed => &mut self.allowed,
            Kind::Refused => &mut self.refused,
            Kind::FromMemory => &mut self.from_memory,
        };
        *count = count.saturating_add(1);
    }
}

impl Tally {
    pub(super) fn count(&self, policy: &str, subject: &str, kind: Kind) {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner).count(policy, subject, kind);
    }

    fn take(&self) -> Vec<RateDecisions> {
        let counted = std::mem::take(&mut *self.counted.lock().unwrap_or_else(PoisonError::into_inner));
        let decisions = |policy: String, subjects: HashMap<String, Counts>| {
            subjects.into_iter().map(move |(key, counts)| RateDecisions {
                policy: policy.clone(),
                key,
                allowed: counts.allowed,
                refused: counts.refused,
                refused_from_memory: counts.from_memory,
            })
        };
        counted.by_policy.into_iter().flat_map(|(policy, subjects)| decisions(policy, subjects)).collect()
    }
}

impl Counted {
    fn count(&mut self, policy: &str, subject: &str, kind: Kind) {
        if !self.by_policy.contains_key(policy) {
            self.by_policy.insert(policy.to_owned(), HashMap::new());
        }
        let Some(subjects) = self.by_policy.get_mut(policy) else { return };
        if let Some(counts) = subjects.get_mut(subject) {
            return counts.add(kind);
        }
        let key = if self.subjects < SUBJECTS_MAX {
            self.subjects += 1;
            subject
        } else {
            ""
        };
        subjects.entry(key.to_owned()).or_default().add(kind);
    }
}

/// Where the counts go.
pub(crate) struct Stream {
    producer: ThreadedProducer<Losses>,
    topic: String,
    instance: String,
}

/// Counts what Kafka did not take.
struct Losses;

impl ClientContext for Losses {}

impl ProducerContext for Losses {
    type DeliveryOpaque = ();

    fn delivery(&self, delivered: &DeliveryResult<'_>, (): ()) {
        if delivered.is_err() {
            lost();
        }
    }
}

fn lost() {
    metrics::counter!("boxoffice_rate_records_lost_total").increment(1);
}

impl Stream {
    /// Kafka need not be there yet.
    ///
    /// # Errors
    /// Where the client cannot be made.
    pub(crate) fn new(brokers: &str, topic: String, instance: String) -> anyhow::Result<Self> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("client.id", format!("boxoffice-api-limits-{instance}"))
            // A record that is sent again is not written twice: the reconciler adds up what it reads.
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.timeout.ms", "30000")
            .set("linger.ms", "50")
            .set("compression.type", "lz4")
            .set("queue.buffering.max.messages", "2000")
            .set("queue.buffering.max.kbytes", "16384")
            .create_with_context(Losses)?;
        Ok(Self { producer, topic, instance })
    }

    /// Sends what was counted, once a second, and the rest at the end.
    pub(super) async fn serve(self, limits: Arc<Limits>, shutdown: CancellationToken) {
        loop {
            let goes_on = shutdown.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some();
            self.send(limits.tally.take(), Utc::now());
            if !goes_on {
                break;
            }
        }
        let flush = move || self.producer.flush(LAST_WITHIN);
        if !matches!(tokio::task::spawn_blocking(flush).await, Ok(Ok(()))) {
            lost();
        }
    }

    /// Never waits: what does not fit into the producer's queue is lost.
    fn send(&self, mut decisions: Vec<RateDecisions>, at: DateTime<Utc>) {
        while !decisions.is_empty() {
            let rest = decisions.split_off(decisions.len().min(RateRecord::DECISIONS_MAX));
            let record = RateRecord::new(self.instance.clone(), at, std::mem::replace(&mut decisions, rest));
            let payload = record.encode();
            let message = BaseRecord::<(), _>::to(&self.topic).partition(0).payload(&payload);
            if self.producer.send(message).is_err() {
                lost();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_summed_by_subject_and_begin_anew_when_taken() {
        let tally = Tally::default();
        for kind in [Kind::Allowed, Kind::Allowed, Kind::Refused, Kind::FromMemory] {
            tally.count("p", "ann", kind);
        }
        tally.count("q", "ann", Kind::Allowed);
        let mut taken = tally.take();
        taken.sort_by(|a, b| a.policy.cmp(&b.policy));
        assert_eq!(taken.len(), 2);
        assert_eq!((taken[0].allowed, taken[0].refused, taken[0].refused_from_memory), (2, 1, 1));
        assert!(tally.take().is_empty());
    }

    #[test]
    fn past_the_bound_subjects_are_counted_together() {
        let tally = Tally::default();
        for n in 0..SUBJECTS_MAX + 100 {
            tally.count("p", &n.to_string(), Kind::Refused);
        }
        tally.count("p", "0", Kind::Refused);
        let taken = tally.take();
        assert_eq!(taken.len(), SUBJECTS_MAX + 1);
        assert_eq!(taken.iter().find(|d| d.key.is_empty()).unwrap().refused, 100);
        assert_eq!(taken.iter().find(|d| d.key == "0").unwrap().refused, 2);
    }
}
