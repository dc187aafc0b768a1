//! Reads of events. Whoever asks for an event while others are read shares the next read of it with all who wait for it:
//! nobody is shown a state from before they asked, and a crowd costs Redis one call an event at a time. Who shares a read
//! shares the event itself, and no copy of it.

use std::sync::Arc;

use boxoffice_schema::ids::EventId;
use boxoffice_schema::scripts::{EventReply, EventSnapshot, read_event};
use foldhash::HashMap;
use futures_util::future::join_all;
use tokio::task::JoinSet;

use super::crowd::{Crowd, Turns, Waiting, crowd};
use super::link::Link;
use super::{InventoryError, Shared};

type Answer = Result<EventSnapshot, InventoryError>;

/// Those who want to read an event.
pub(super) struct Reader {
    crowd: Crowd<EventId, Answer>,
}

impl Reader {
    /// The task ends when the reader is dropped and all who waited were answered.
    pub(super) fn start(shared: &Arc<Shared>, link: &Link, tasks: &mut JoinSet<()>) -> Self {
        let (crowd, turns) = crowd(shared.settings.queue);
        tasks.spawn(serve(shared.clone(), link.clone(), turns));
        Self { crowd }
    }

    pub(super) async fn read(&self, event: EventId) -> Answer {
        self.crowd.ask(event).await.unwrap_or(Err(InventoryError::Overloaded))
    }
}

async fn serve(shared: Arc<Shared>, link: Link, mut turns: Turns<EventId, Answer>) {
    while let Some(turn) = turns.next().await {
        let mut readers: HashMap<EventId, Vec<Waiting<EventId, Answer>>> = HashMap::default();
        for waiting in turn {
            readers.entry(waiting.question).or_default().push(waiting);
        }
        join_all(readers.into_iter().map(|(event, readers)| answer(&shared, &link, event, readers))).await;
    }
}

async fn answer(shared: &Shared, link: &Link, event: EventId, readers: Vec<Waiting<EventId, Answer>>) {
    let snapshot = read(shared, link, event).await;
    readers.into_iter().for_each(|reader| reader.tell(snapshot.clone()));
}

async fn read(shared: &Shared, link: &Link, event: EventId) -> Answer {
    let call = read_event(&shared.settings.keys, shared.settings.shards.shard_of(event), event);
    let reply: EventReply = link.run(&call).await?;
    Ok(EventSnapshot::parse(&reply)?)
}
