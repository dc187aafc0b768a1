//! Gathers concurrent checks of rate limits into one script call, as `batcher` does with decisions.

use std::time::Duration;

use boxoffice_schema::scripts::{BATCH_MAX, RateCheck, Standing, check_rates, parse_standings};
use redis::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::batcher::{ask, unexpected};
use super::crowd::Waiting;
use super::link::Link;
use super::together::together;
use super::{InventoryError, Settings};

/// The longest that a request waits for its check, the queue included.
const WAIT_MAX: Duration = Duration::from_millis(1_000);

type Answer = Result<Vec<Standing>, InventoryError>;

type Asking = Waiting<Vec<RateCheck>, Answer>;

/// The queue of all checks: they belong to no shard.
#[derive(Clone)]
pub(super) struct Rates {
    queue: mpsc::Sender<Asking>,
}

impl Rates {
    /// The queue's task ends when the last of its handles is dropped.
    pub(super) fn start(settings: &Settings, link: &Link, tasks: &mut JoinSet<()>) -> Self {
        let (queue, receiver) = mpsc::channel(settings.queue);
        tasks.spawn(serve(link.clone(), receiver));
        Self { queue }
    }

    pub(super) async fn check(&self, question: Vec<RateCheck>) -> Answer {
        let (answer, standings) = oneshot::channel();
        self.queue.try_send(Waiting { question, answer }).map_err(|_| InventoryError::Overloaded)?;
        match tokio::time::timeout(WAIT_MAX, together(standings)).await {
            Ok(Ok(standings)) => standings,
            Ok(Err(_)) | Err(_) => Err(InventoryError::RedisUnavailable("no answer in time".to_owned())),
        }
    }
}

async fn serve(link: Link, mut queue: mpsc::Receiver<Asking>) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while queue.recv_many(&mut batch, BATCH_MAX).await > 0 {
        // Whoever gave up is not counted.
        batch.retain(|waiting: &Asking| !waiting.answer.is_closed());
        if !batch.is_empty() {
            check(&link, &mut batch).await;
        }
    }
}

async fn check(link: &Link, batch: &mut Vec<Asking>) {
    let call = check_rates(batch.iter().map(|waiting| waiting.question.as_slice()));
    let replies = ask(link, batch.len(), &call).await.map_err(|error| match error {
        // A full Redis says so in the words of the outbox, which this is not about.
        InventoryError::OutboxFull => InventoryError::RedisUnavailable("it is out of memory".to_owned()),
        error => error,
    });
    match replies {
        Ok(replies) => batch.drain(..).zip(replies).for_each(|(waiting, reply)| waiting.tell(parse(&reply))),
        Err(error) => batch.drain(..).for_each(|waiting| waiting.tell(Err(error.clone()))),
    }
}

fn parse(reply: &Value) -> Answer {
    match reply {
        Value::BulkString(bytes) => Ok(parse_standings(bytes)?.0),
        _ => Err(unexpected()),
    }
}
