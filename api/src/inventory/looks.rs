//! What requests only ask of Redis: reads, and the looks of those who retry or come too late. They change nothing, so that they
//! need no order among all requests, and each HTTP thread asks for its own, over a connection of its own: no other thread has to
//! be woken for an answer, and more threads answer more. Who has no such thread, as the catalogue that all of them share, asks over
//! the clients' connection.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::Shared;
use super::link::Link;
use super::reader::Reader;
use super::replays::Replays;
use super::sold_out::SoldOut;

/// What is asked over one connection.
pub(super) struct Looks {
    pub(super) link: Link,
    pub(super) reader: Reader,
    pub(super) replays: Replays,
    pub(super) sold_out: SoldOut,
}

impl Looks {
    /// Their tasks run where this is called, and end when the looks are dropped and all who waited were answered.
    pub(super) fn start(shared: &Arc<Shared>, link: Link, tasks: &mut JoinSet<()>) -> Self {
        Self {
            reader: Reader::start(shared, &link, tasks),
            replays: Replays::start(shared, &link, tasks),
            sold_out: SoldOut::start(shared, &link, tasks),
            link,
        }
    }
}

/// The looks of one thread, which end with it.
pub(super) struct OwnLooks {
    pub(super) looks: Looks,
    _tasks: JoinSet<()>,
}

impl OwnLooks {
    /// For the thread that calls this, over a connection beside the given one.
    pub(super) fn start(shared: &Arc<Shared>, link: &Link) -> Self {
        let mut tasks = JoinSet::new();
        let link = link.of_this_thread(&mut tasks);
        Self { looks: Looks::start(shared, link, &mut tasks), _tasks: tasks }
    }
}
