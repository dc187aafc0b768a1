//! Reads of events. Whoever asks for an event while another read of it is in flight shares the next one with all who
//! wait for it: nobody is shown a state from before they asked, and a crowd costs Redis one call at a time.

use std::sync::Arc;

use boxoffice_schema::ids::EventId;
use boxoffice_schema::scripts::{EventReply, EventSnapshot, read_event};
use foldhash::HashMap;
use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::link::Link;
use super::{InventoryError, Shared};

/// The most readers that are served at a time, each perhaps of another event.
const READERS_MAX: usize = 256;

type Answer = Result<EventSnapshot, InventoryError>;

struct Waiting {
    event: EventId,
    answer: oneshot::Sender<Answer>,
}

/// The queue of those who want to read an event.
pub(super) struct Reader {
    queue: mpsc::Sender<Waiting>,
}

impl Reader {
    /// The task ends when the reader is dropped and all who waited were answered.
    pub(super) fn start(shared: &Arc<Shared>, link: &Link, tasks: &mut JoinSet<()>) -> Self {
        let (queue, waiting) = mpsc::channel(shared.settings.queue);
        tasks.spawn(serve(shared.clone(), link.clone(), waiting));
        Self { queue }
    }

    pub(super) async fn read(&self, event: EventId) -> Answer {
        let (answer, snapshot) = oneshot::channel();
        self.queue.try_send(Waiting { event, answer }).map_err(|_| InventoryError::Overloaded)?;
        snapshot.await.unwrap_or(Err(InventoryError::Overloaded))
    }
}

async fn serve(shared: Arc<Shared>, link: Link, mut queue: mpsc::Receiver<Waiting>) {
    let mut crowd = Vec::with_capacity(READERS_MAX);
    while queue.recv_many(&mut crowd, READERS_MAX).await > 0 {
        let mut readers: HashMap<EventId, Vec<oneshot::Sender<Answer>>> = HashMap::default();
        // Whoever gave up is not asked for.
        for waiting in crowd.drain(..).filter(|waiting| !waiting.answer.is_closed()) {
            readers.entry(waiting.event).or_default().push(waiting.answer);
        }
        join_all(readers.into_iter().map(|(event, readers)| answer(&shared, &link, event, readers))).await;
    }
}

async fn answer(shared: &Shared, link: &Link, event: EventId, readers: Vec<oneshot::Sender<Answer>>) {
    let snapshot = read(shared, link, event).await;
    for reader in readers {
        // One that is gone does not need it.
        let _ = reader.send(snapshot.clone());
    }
}

async fn read(shared: &Shared, link: &Link, event: EventId) -> Answer {
    let call = read_event(&shared.settings.keys, shared.settings.shards.shard_of(event), event);
    let reply: EventReply = link.run(&call).await?;
    Ok(EventSnapshot::parse(&reply)?)
}
