//! Gathers concurrent requests into one script call a shard, without a timer: batches form while the last ones are in
//! flight. Those of all shards leave together, so that many events make few calls: Redis decides one after the other
//! anyway, and flushes its file once for what it reads at once.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use boxoffice_schema::scripts::{BATCH_MAX, Call, Decided, Decision, OutboxBounds, Outcome, decision_call};
use boxoffice_schema::shard::Shard;
use foldhash::HashMap;
use futures_util::future::join_all;
use redis::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::task::coop::unconstrained;

use super::link::Link;
use super::together::together;
use super::{InventoryError, Shared};

/// Whoever has waited for so long when its turn comes is refused. The others are answered within the time-outs of the connection
/// to Redis.
const WAIT_MAX: Duration = Duration::from_millis(1_500);

/// The most requests of a round, of one kind of decision. Each call of a round has its time-out from when all were sent, and Redis
/// needs some 100 µs for a request.
const ROUND_MAX: usize = 1_024;

type Answer = Result<Decided, InventoryError>;

struct Waiting<D> {
    request: D,
    since: Instant,
    answer: oneshot::Sender<Answer>,
}

impl<D> Waiting<D> {
    /// Whoever is gone retries with their key and finds the decision.
    fn tell(self, answer: Answer) {
        let _ = self.answer.send(answer);
    }
}

/// A queue for each shard, for one kind of decision: a flood for one event fills its own shard's alone.
pub(super) struct Batcher<D> {
    shared: Arc<Shared>,
    queues: HashMap<Shard, mpsc::Sender<Waiting<D>>>,
}

/// The end of a shard's queue, and what was taken from it for the next round.
struct Queue<D> {
    shard: Shard,
    waiting: mpsc::Receiver<Waiting<D>>,
    batch: Vec<Waiting<D>>,
}

impl<D: Decision + Send + Sync + 'static> Batcher<D> {
    /// The queues' task ends when the batcher is dropped and what was in the queues is answered.
    pub(super) fn start(shared: &Arc<Shared>, link: &Link, tasks: &mut JoinSet<()>) -> Self {
        let (mut queues, mut ends) = (HashMap::default(), Vec::new());
        for shard in shared.settings.shards.shards() {
            let (sender, waiting) = mpsc::channel(shared.settings.queue);
            queues.insert(shard, sender);
            ends.push(Queue { shard, waiting, batch: Vec::with_capacity(BATCH_MAX) });
        }
        tasks.spawn(serve(shared.clone(), link.clone(), ends));
        Self { queues, shared: shared.clone() }
    }

    /// How long this takes is bounded by the handler's time; whoever gave up is not asked for.
    pub(super) async fn decide(&self, request: D) -> Result<Decided, InventoryError> {
        let shard = self.shared.settings.shards.shard_of(request.target().event_id);
        let (answer, outcome) = oneshot::channel();
        let waiting = Waiting { request, since: Instant::now(), answer };
        self.queues[&shard].try_send(waiting).map_err(|_| InventoryError::Overloaded)?;
        // A timer for each would only say a little sooner that it has waited for too long.
        together(outcome).await.unwrap_or(Err(InventoryError::Overloaded))
    }
}

async fn serve<D: Decision>(shared: Arc<Shared>, link: Link, mut queues: Vec<Queue<D>>) {
    // Tokio would cut a look at many full queues short, and it would always be the last ones that wait.
    while unconstrained(poll_fn(|context| gather(&mut queues, context))).await {
        let batches = queues.iter_mut().filter(|queue| !queue.batch.is_empty());
        join_all(batches.map(|queue| decide(&shared, &link, queue.shard, &mut queue.batch))).await;
    }
}

/// Ready where a batch has formed for at least one shard, or, with `false`, where all queues are closed and empty.
fn gather<D>(queues: &mut [Queue<D>], context: &mut Context<'_>) -> Poll<bool> {
    let (mut open, mut room, mut filled) = (false, ROUND_MAX, 0);
    for queue in queues.iter_mut() {
        if room == 0 {
            break;
        }
        open |= queue.fill(context, room.min(BATCH_MAX));
        room -= queue.batch.len();
        filled += 1;
    }
    if room == ROUND_MAX {
        return if open { Poll::Pending } else { Poll::Ready(false) };
    }
    // Those for whom there was no room come first in the next round.
    queues.rotate_left(filled);
    Poll::Ready(true)
}

impl<D> Queue<D> {
    /// Takes a batch of what waits, of `room` at most; whether more may come. Where nothing waits the task is woken when something does.
    fn fill(&mut self, context: &mut Context<'_>, room: usize) -> bool {
        while self.batch.is_empty() {
            match self.waiting.poll_recv_many(context, &mut self.batch, room) {
                Poll::Ready(0) => return false,
                // Whoever gave up is not asked for: nothing was sent on their behalf.
                Poll::Ready(_) => self
                    .batch
                    .retain(|waiting| !waiting.answer.is_closed() && waiting.since.elapsed() < WAIT_MAX),
                Poll::Pending => return true,
            }
        }
        true
    }
}

async fn decide<D: Decision>(shared: &Shared, link: &Link, shard: Shard, batch: &mut Vec<Waiting<D>>) {
    let script = D::script().name;
    let requests = batch.iter().map(|waiting| &waiting.request);
    // What is left of the memory is for draining it. Only the script knows who needs none of it.
    let has_room = !(D::ADDS && shared.pressure.memory_is_short());
    let outbox = if has_room { shared.settings.outbox } else { OutboxBounds::REACHED };
    let call = decision_call(&shared.settings.keys, shard, outbox, requests);
    let replies = match ask(link, batch.len(), &call).await {
        Ok(replies) => replies,
        Err(error) => {
            return batch.drain(..).for_each(|waiting| waiting.tell(Err(error.clone())));
        }
    };
    let mut changed = false;
    let mut outcomes: HashMap<&'static str, u64> = HashMap::default();
    for (waiting, reply) in batch.drain(..).zip(replies) {
        let decided = parse(&call, &reply);
        if let Ok(Decided { outcome, .. }) = &decided {
            if let Outcome::Changed(image) = outcome {
                // Here, since the client may be gone by now, and come again.
                shared.made.remember(waiting.request.target(), image);
                shared.epochs.note_seen(shard, image.position.epoch);
                changed = true;
            }
            *outcomes.entry(outcome.label()).or_default() += 1;
        }
        waiting.tell(decided);
    }
    for (outcome, count) in outcomes {
        metrics::counter!("boxoffice_decisions_total", "script" => script, "outcome" => outcome)
            .increment(count);
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

/// Runs a script that answers so many requests together: an answer for each of them.
pub(super) async fn ask(link: &Link, requests: usize, call: &Call) -> Result<Vec<Value>, InventoryError> {
    match link.run_for::<Value>(requests, call).await? {
        Value::Array(replies) if replies.len() == requests => Ok(replies),
        other => {
            tracing::error!(script = call.script.name, ?other, "a script answered what it never should");
            Err(unexpected())
        }
    }
}

pub(super) fn unexpected() -> InventoryError {
    InventoryError::RedisUnavailable("unexpected answer".to_owned())
}
