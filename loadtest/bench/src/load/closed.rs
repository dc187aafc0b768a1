//! A closed loop: each connection sends its next request when its last one was answered.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::exchange::Exchange;
use super::{Ask, Tally, on_own_thread};

/// How much is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Closed {
    pub(crate) connections: usize,
    /// Before the measured time; its sales count as sales, and not in the rate.
    pub(crate) warm_up: Duration,
    pub(crate) time: Duration,
    /// No more than so many requests.
    pub(crate) requests: u64,
}

struct Loop {
    plan: Closed,
    ask: Arc<dyn Ask>,
    next: Cell<u64>,
    from: Instant,
    tally: RefCell<Tally>,
}

/// Asks as fast as the answers come.
pub(crate) async fn closed(at: SocketAddr, ask: Arc<dyn Ask>, plan: Closed) -> Result<Tally> {
    on_own_thread(plan.warm_up + plan.time, move || run(at, ask, plan)).await
}

async fn run(at: SocketAddr, ask: Arc<dyn Ask>, plan: Closed) -> Result<Tally> {
    let mut connections = Vec::with_capacity(plan.connections);
    for _ in 0..plan.connections {
        connections.push(Exchange::open(at).await?);
    }
    let from = Instant::now() + plan.warm_up;
    let shared = Rc::new(Loop { plan, ask, next: Cell::new(0), from, tally: RefCell::new(Tally::new()?) });
    let clients: Vec<_> = connections
        .into_iter()
        .map(|connection| tokio::task::spawn_local(client(shared.clone(), connection)))
        .collect();
    for client in clients {
        client.await??;
    }
    let mut shared = Rc::into_inner(shared).context("a client still runs")?;
    shared.tally.get_mut().took = shared.from.elapsed();
    Ok(shared.tally.into_inner())
}

async fn client(shared: Rc<Loop>, mut connection: Exchange) -> Result<()> {
    let until = shared.from + shared.plan.time;
    loop {
        let sent = Instant::now();
        let number = shared.next.get();
        if sent >= until || number >= shared.plan.requests {
            return Ok(());
        }
        shared.next.set(number + 1);
        connection.request.clear();
        shared.ask.write(number, &mut connection.request);
        let answer = connection.send().await?;
        shared.tally.borrow_mut().note(&answer, sent >= shared.from, sent.elapsed());
    }
}
