//! Gathers concurrent requests for one shard into one script call, without a timer: a batch forms while the last one
//! is in flight.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use boxoffice_schema::scripts::{BATCH_MAX, Call, Decided, Decision, Outcome, decision_call};
use boxoffice_schema::shard::Shard;
use redis::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::link::Link;
use super::{InventoryError, Shared};

/// The longest that a request waits for its outcome, the queue included.
const WAIT_MAX: Duration = Duration::from_millis(1_500);

type Answer = Result<Decided, InventoryError>;

struct Waiting<D> {
    request: D,
    since: Instant,
    answer: oneshot::Sender<Answer>,
}

/// A queue for each shard, for one kind of decision.
pub(super) struct Batcher<D> {
    shared: Arc<Shared>,
    queues: HashMap<Shard, mpsc::Sender<Waiting<D>>>,
}

impl<D: Decision + Send + Sync + 'static> Batcher<D> {
    /// The queues' tasks end when the batcher is dropped and what was in the queues is answered.
    pub(super) fn start(shared: &Arc<Shared>, link: &Link, tasks: &mut JoinSet<()>) -> Self {
        let queues = shared.settings.shards.shards().map(|shard| {
            let (sender, receiver) = mpsc::channel(shared.settings.queue);
            tasks.spawn(serve(shared.clone(), link.clone(), shard, receiver));
            (shard, sender)
        });
        Self { queues: queues.collect(), shared: shared.clone() }
    }

    /// The outcome with the shard that decided it.
    pub(super) async fn decide(&self, request: D) -> Result<(Shard, Decided), InventoryError> {
        let shard = self.shared.settings.shards.shard_of(request.target().event_id);
        let (answer, outcome) = oneshot::channel();
        let waiting = Waiting { request, since: Instant::now(), answer };
        self.queues[&shard].try_send(waiting).map_err(|_| InventoryError::Overloaded)?;
        match tokio::time::timeout(WAIT_MAX, outcome).await {
            Ok(Ok(decided)) => Ok((shard, decided?)),
            Ok(Err(_)) | Err(_) => Err(InventoryError::Overloaded),
        }
    }
}

async fn serve<D: Decision>(
    shared: Arc<Shared>,
    link: Link,
    shard: Shard,
    mut queue: mpsc::Receiver<Waiting<D>>,
) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while queue.recv_many(&mut batch, BATCH_MAX).await > 0 {
        // Whoever gave up is not asked for: nothing was sent on their behalf.
        batch
            .retain(|waiting: &Waiting<D>| !waiting.answer.is_closed() && waiting.since.elapsed() < WAIT_MAX);
        if !batch.is_empty() {
            decide(&shared, &link, shard, &mut batch).await;
        }
    }
}

async fn decide<D: Decision>(shared: &Shared, link: &Link, shard: Shard, batch: &mut Vec<Waiting<D>>) {
    let script = D::script().name;
    let requests = batch.iter().map(|waiting| &waiting.request);
    let call = decision_call(&shared.settings.keys, shard, shared.settings.outbox, requests);
    let started = Instant::now();
    let reply = link.run(&call).await;
    metrics::histogram!("boxoffice_script_seconds", "script" => script).record(started.elapsed());
    #[expect(clippy::cast_precision_loss, reason = "a batch has at most 128 requests")]
    metrics::histogram!("boxoffice_batch_requests", "script" => script).record(batch.len() as f64);

    let mut replies = match reply {
        Ok(Value::Array(replies)) if replies.len() == batch.len() => replies.into_iter(),
        Ok(other) => {
            tracing::error!(script, ?other, "a script answered what it never should");
            return refuse(batch, &unexpected());
        }
        Err(error) => return refuse(batch, &error),
    };
    let mut changed = false;
    for waiting in batch.drain(..) {
        let decided = replies.next().map_or_else(|| Err(unexpected()), |reply| parse(&call, &reply));
        if let Ok(Decided { outcome, .. }) = &decided {
            changed |= matches!(outcome, Outcome::Changed(_));
            metrics::counter!("boxoffice_decisions_total", "script" => script, "outcome" => outcome.label())
                .increment(1);
        }
        // A receiver that is gone retries with its key and finds the decision.
        let _ = waiting.answer.send(decided);
    }
    if changed {
        shared.wake_ups[&shard].notify_one();
    }
}

fn parse(call: &Call, reply: &Value) -> Answer {
    match reply {
        Value::BulkString(bytes) => Ok(Decided::parse(call, bytes)?),
        _ => Err(unexpected()),
    }
}

pub(super) fn unexpected() -> InventoryError {
    InventoryError::RedisUnavailable("unexpected answer".to_owned())
}

fn refuse<D>(batch: &mut Vec<Waiting<D>>, error: &InventoryError) {
    for waiting in batch.drain(..) {
        let _ = waiting.answer.send(Err(error.clone()));
    }
}
