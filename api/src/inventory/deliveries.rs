//! What became of records that were handed to Kafka's client together: one signal for all of them, since the relay removes a
//! round's frames together, or none.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use rdkafka::ClientContext;
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;
use tokio::sync::Notify;

/// Tells rounds what the brokers said of their records.
pub(super) struct Deliveries;

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Arc<Round>;

    fn delivery(&self, result: &DeliveryResult<'_>, round: Arc<Round>) {
        round.note(result.as_ref().err().map(|(error, _)| error));
    }
}

/// Records that are on their way.
pub(super) struct Round {
    unconfirmed: AtomicUsize,
    failure: OnceLock<KafkaError>,
    /// Told when no record is left, and before that when one has failed.
    decided: Notify,
}

impl Round {
    /// Each record has to carry it.
    pub(super) fn of(records: usize) -> Arc<Self> {
        let (failure, decided) = (OnceLock::new(), Notify::new());
        Arc::new(Self { unconfirmed: AtomicUsize::new(records), failure, decided })
    }

    fn note(&self, failure: Option<&KafkaError>) {
        if let Some(failure) = failure {
            // The first one counts.
            let _ = self.failure.set(failure.clone());
            self.decided.notify_one();
        }
        if self.unconfirmed.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.decided.notify_one();
        }
    }

    /// Waits until Kafka has confirmed all records, or refused one. Only one may wait at a time.
    pub(super) async fn confirmed(&self) -> Result<(), KafkaError> {
        while self.failure.get().is_none() && self.unconfirmed.load(Ordering::Acquire) > 0 {
            self.decided.notified().await;
        }
        self.failure.get().map_or(Ok(()), |failure| Err(failure.clone()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const MOMENT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_round_is_confirmed_with_its_last_record_even_where_nobody_waited_yet() {
        let round = Round::of(3);
        round.note(None);
        round.note(None);
        assert!(timeout(MOMENT, round.confirmed()).await.is_err());
        round.note(None);
        for _ in 0..2 {
            assert_eq!(timeout(MOMENT, round.confirmed()).await, Ok(Ok(())));
        }
    }

    #[tokio::test]
    async fn a_round_fails_with_its_first_failure_and_before_the_rest_is_known() {
        let round = Round::of(3);
        let (wait, fail) = (timeout(MOMENT, round.confirmed()), async {
            round.note(None);
            round.note(Some(&KafkaError::Canceled));
        });
        let (failed, ()) = tokio::join!(wait, fail);
        assert_eq!(failed, Ok(Err(KafkaError::Canceled)));
    }
}
