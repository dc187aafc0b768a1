//! Answers retries without a decision of each one's own: all of a thread who retry at a time share one look at Redis.
//!
//! Clients that time out ask again, and most of all when there is too much to do already. What a booking's first response
//! said never changes, so the bookings that this instance made or changed last are remembered. That they still exist is
//! not: a Redis that lost its data lost them as well. So nobody is answered from [memory](super::made) alone. A look is made after
//! everyone who shares it has asked, and says in which epoch the shard may sell and that their slots are there. Within an
//! epoch bookings are only added; one that was changed in that epoch is there. Whoever's booking is not remembered, is of
//! another epoch, or was asked for by another body, is decided as ever.

use std::collections::HashSet;
use std::sync::Arc;

use boxoffice_schema::scripts::{Book, Decision, REPLAYS, Target, replays};
use boxoffice_schema::shard::Shard;
use foldhash::HashMap;
use futures_util::future::join_all;
use metrics::Counter;
use tokio::task::JoinSet;

use super::crowd::{Crowd, Turns, Waiting, crowd};
use super::link::Link;
use super::made::Again;
use super::{InventoryError, Shared};

/// The epoch in which a shard may sell, where the slots are there of all who asked.
type Epoch = Option<u32>;

/// Those, of one thread and all shards, who retry what this instance has booked.
pub(super) struct Replays {
    shared: Arc<Shared>,
    crowd: Crowd<Target, Epoch>,
    replayed: Counter,
}

impl Replays {
    /// The task ends when the crowd is dropped and all who waited were answered.
    pub(super) fn start(shared: &Arc<Shared>, link: &Link, tasks: &mut JoinSet<()>) -> Self {
        let (crowd, turns) = crowd(shared.settings.queue);
        tasks.spawn(serve(shared.clone(), link.clone(), turns));
        let replayed =
            metrics::counter!("boxoffice_decisions_total", "script" => REPLAYS.name, "outcome" => "replayed");
        Self { shared: shared.clone(), crowd, replayed }
    }

    /// What the request made before, where a look says that it is there. Rate limits do not count who retries.
    ///
    /// # Errors
    /// See [`Crowd::look`].
    pub(super) async fn of(&self, request: &Book) -> Result<Option<Again>, InventoryError> {
        let made = &self.shared.made;
        let Some(again) = made.recall(request) else { return Ok(None) };
        let Some(epoch) = self.crowd.look(*request.target()).await? else { return Ok(None) };
        if again.position.epoch != epoch {
            made.forget_unless(epoch, request);
            return Ok(None);
        }
        self.replayed.increment(1);
        Ok(Some(again))
    }
}

async fn serve(shared: Arc<Shared>, link: Link, mut turns: Turns<Target, Epoch>) {
    let mut failing = HashSet::new();
    while let Some(turn) = turns.next().await {
        let mut shards: HashMap<Shard, Vec<Waiting<Target, Epoch>>> = HashMap::default();
        for waiting in turn {
            let shard = shared.settings.shards.shard_of(waiting.question.event_id);
            shards.entry(shard).or_default().push(waiting);
        }
        let looks = shards.into_iter().map(|(shard, crowd)| answer(&shared, &link, shard, crowd));
        for (shard, look) in join_all(looks).await {
            match look {
                Ok(()) => drop(failing.remove(&shard)),
                Err(error) if failing.insert(shard) => {
                    tracing::warn!(%shard, %error, "cannot look for retries; until that works each of them is decided");
                }
                Err(_) => {}
            }
        }
    }
}

/// Tells those who retry in one shard; where the look fails, each is decided and told why that fails too.
async fn answer(
    shared: &Shared,
    link: &Link,
    shard: Shard,
    crowd: Vec<Waiting<Target, Epoch>>,
) -> (Shard, Result<(), InventoryError>) {
    let call = replays(&shared.settings.keys, shard, crowd.iter().map(|waiting| &waiting.question));
    let look: Result<Epoch, _> = link.run_for(crowd.len(), &call).await;
    let epoch = look.as_ref().ok().copied().flatten();
    crowd.into_iter().for_each(|waiting| waiting.tell(epoch));
    (shard, look.map(drop))
}
