//! A load balancer before the API instances, as small as one can be: it asks each for `/livez`, leads new connections in
//! turn to those that answer, and ends the connections of one that stopped answering.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use tokio::{
    net::TcpStream,
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{
    http,
    proxy::{Flow, Rule, carry, listen, local},
};

/// Between two questions to one instance.
const INTERVAL: Duration = Duration::from_millis(250);

/// After which an instance counts as dead.
const PATIENCE: Duration = Duration::from_millis(500);

/// A balancer; it ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Balancer {
    accepting: JoinHandle<()>,
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Listens on `port` and leads to the instances at `ports`.
pub(crate) async fn start(port: u16, ports: &[u16]) -> Result<Balancer> {
    let listener = listen(port).await?;
    let instances: Arc<Vec<watch::Receiver<Rule>>> = Arc::new(ports.iter().copied().map(watch_one).collect());
    let turn = Arc::new(AtomicUsize::new(0));
    let accepting = tokio::spawn(async move {
        loop {
            let Ok((client, _)) = listener.accept().await else { continue };
            let (instances, turn) = (instances.clone(), turn.clone());
            tokio::spawn(async move { lead(client, &instances, &turn).await });
        }
    });
    Ok(Balancer { accepting })
}

/// Asks an instance again and again whether it lives.
fn watch_one(port: u16) -> watch::Receiver<Rule> {
    let (rule, rules) = watch::channel(Rule { flow: Flow::Cut, target: local(port) });
    tokio::spawn(async move {
        while !rule.is_closed() {
            let alive = matches!(timeout(PATIENCE, http::get(port, "/livez")).await, Ok(Ok((200, _))));
            let flow = if alive { Flow::Open } else { Flow::Cut };
            rule.send_if_modified(|rule| std::mem::replace(&mut rule.flow, flow) != flow);
            sleep(INTERVAL).await;
        }
    });
    rules
}

/// To the next instance that lives; nobody lives: the connection ends.
async fn lead(client: TcpStream, instances: &[watch::Receiver<Rule>], turn: &AtomicUsize) {
    let first = turn.fetch_add(1, Ordering::Relaxed);
    for at in 0..instances.len() {
        let rules = &instances[(first + at) % instances.len()];
        let Rule { flow, target } = *rules.borrow();
        if flow != Flow::Open {
            continue;
        }
        if let Ok(Ok(server)) = timeout(PATIENCE, TcpStream::connect(target)).await {
            return carry(client, server, target, rules.clone()).await;
        }
    }
}
