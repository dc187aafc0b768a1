//! Gathers concurrent checks of rate limits into one script call, as `batcher` does with decisions.

use std::time::Duration;

use boxoffice_schema::scripts::{BATCH_MAX, RateCheck, Standing, check_rates, parse_standings};
use redis::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::batcher::unexpected;
use super::link::Link;
use super::together::together;
use super::{InventoryError, Settings};

/// The longest that a request waits for its check, the queue included.
const WAIT_MAX: Duration = Duration::from_millis(1_000);

type Answer = Result<Vec<Standing>, InventoryError>;

struct Waiting {
    checks: Vec<RateCheck>,
    answer: oneshot::Sender<Answer>,
}

/// The queue of all checks: they belong to no shard.
#[derive(Clone)]
pub(super) struct Rates {
    queue: mpsc::Sender<Waiting>,
}

impl Rates {
    /// The queue's task ends when the last of its handles is dropped.
    pub(super) fn start(settings: &Settings, link: &Link, tasks: &mut JoinSet<()>) -> Self {
        let (queue, receiver) = mpsc::channel(settings.queue);
        tasks.spawn(serve(link.clone(), receiver));
        Self { queue }
    }

    pub(super) async fn check(&self, checks: Vec<RateCheck>) -> Answer {
        let (answer, standings) = oneshot::channel();
        self.queue.try_send(Waiting { checks, answer }).map_err(|_| InventoryError::Overloaded)?;
        match tokio::time::timeout(WAIT_MAX, together(standings)).await {
            Ok(Ok(standings)) => standings,
            Ok(Err(_)) | Err(_) => Err(InventoryError::RedisUnavailable("no answer in time".to_owned())),
        }
    }
}

async fn serve(link: Link, mut queue: mpsc::Receiver<Waiting>) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while queue.recv_many(&mut batch, BATCH_MAX).await > 0 {
        // Whoever gave up is not counted.
        batch.retain(|waiting: &Waiting| !waiting.answer.is_closed());
        if !batch.is_empty() {
            check(&link, &mut batch).await;
        }
    }
}

async fn check(link: &Link, batch: &mut Vec<Waiting>) {
    let call = check_rates(batch.iter().map(|waiting| waiting.checks.as_slice()));
    let mut replies = match link.run_for(batch.len(), &call).await {
        Ok(Value::Array(replies)) if replies.len() == batch.len() => replies.into_iter().map(Ok),
        Ok(_) => return refuse(batch, &unexpected()),
        // A full Redis says so in the words of the outbox, which this is not about.
        Err(InventoryError::OutboxFull) => {
            return refuse(batch, &InventoryError::RedisUnavailable("it is out of memory".to_owned()));
        }
        Err(error) => return refuse(batch, &error),
    };
    for waiting in batch.drain(..) {
        let standings = replies.next().unwrap_or_else(|| Err(unexpected())).and_then(|reply| parse(&reply));
        let _ = waiting.answer.send(standings);
    }
}

fn parse(reply: &Value) -> Answer {
    match reply {
        Value::BulkString(bytes) => Ok(parse_standings(bytes)?.0),
        _ => Err(unexpected()),
    }
}

fn refuse(batch: &mut Vec<Waiting>, error: &InventoryError) {
    for waiting in batch.drain(..) {
        let _ = waiting.answer.send(Err(error.clone()));
    }
}
