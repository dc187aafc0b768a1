//! A door in front of a server that a test can shut, freeze, or move away.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::world::{Settings, World};

pub struct Gate {
    pub address: String,
    state: Arc<watch::Sender<State>>,
    accepted: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
}

/// What the door does with bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// Carries them.
    Open,
    /// Breaks connections, and closes new ones at once: a dead server.
    Shut,
    /// Accepts connections and keeps what it is sent to itself: a server that hangs, a network that is cut.
    Frozen,
}

#[derive(Clone)]
struct State {
    /// Where new connections lead to.
    target: String,
    flow: Flow,
    /// Connections of an earlier era never carry another byte.
    era: u64,
    /// How a request names the partition of Kafka to which nothing is carried.
    withheld: Option<[Vec<u8>; 2]>,
}

impl State {
    fn withholds(&self, request: &[u8]) -> bool {
        const WRITE: [u8; 2] = [0, 0];
        let is_in_it = |name: &Vec<u8>| request.windows(name.len()).any(|bytes| bytes == name);
        request.starts_with(&WRITE) && self.withheld.iter().flatten().any(is_in_it)
    }
}

/// What a server says of its own address must lead through the door too.
#[derive(Clone, Copy)]
enum Protocol {
    Plain,
    Kafka { from: u16, to: u16 },
}

impl Gate {
    /// Open, in front of `host:port`.
    pub async fn to(target: String) -> Self {
        Self::start(target, |_| Protocol::Plain).await
    }

    /// Open, in front of the Kafka broker at `host:port`, whose answers name this door instead.
    pub async fn to_kafka(target: String) -> Self {
        let from = target.rsplit_once(':').unwrap().1.parse().unwrap();
        Self::start(target, |to| Protocol::Kafka { from, to }).await
    }

    async fn start(target: String, protocol: impl FnOnce(u16) -> Protocol) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let protocol = protocol(address.port());
        let state = Arc::new(watch::Sender::new(State { target, flow: Flow::Open, era: 0, withheld: None }));
        let (accepted, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (shared, let_in, sent_away) = (state.clone(), accepted.clone(), refused.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if shared.borrow().flow == Flow::Shut {
                    sent_away.fetch_add(1, Ordering::Relaxed);
                } else {
                    let_in.fetch_add(1, Ordering::Relaxed);
                    tokio::spawn(carry(client, protocol, shared.subscribe()));
                }
            }
        });
        Self { address: address.to_string(), state, accepted, refused }
    }

    /// How many connections were not closed at once so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// How many connections were closed at once so far, since the door was shut.
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    /// The server died. When it is back, all of its partitions are.
    pub fn shut(&self) {
        self.state.send_modify(|state| (state.flow, state.withheld) = (Flow::Shut, None));
    }

    /// What is to be written to a partition never arrives, and all else is carried: its leader cannot be reached, and another
    /// broker answers.
    pub fn withhold(&self, topic: &str, partition: i32) {
        // A request of librdkafka writes to one partition. It is named behind the topic and how many there are, which is a
        // byte from version 9 of the request on.
        let named = |count: &[u8]| [topic.as_bytes(), count, &partition.to_be_bytes()].concat();
        let names = [named(&[2]), named(&[0, 0, 0, 1])];
        self.state.send_modify(|state| state.withheld = Some(names));
    }

    /// The server hangs, or the network is cut.
    pub fn freeze(&self) {
        self.set(Flow::Frozen);
    }

    /// All is well again; what was frozen arrives.
    pub fn open(&self) {
        self.set(Flow::Open);
    }

    /// Another server answers at this address. Of the old connections nobody ever hears again, not even that they broke.
    pub fn replace(&self) {
        self.state.send_modify(|state| {
            state.flow = Flow::Open;
            state.era += 1;
        });
    }

    /// The same, where the other server is this one: a fail-over.
    pub fn replace_by(&self, target: String) {
        self.lead_to(target);
        self.replace();
    }

    /// The address names another server from now on; who is connected to the old one stays so.
    pub fn lead_to(&self, target: String) {
        self.state.send_modify(|state| state.target = target);
    }

    fn set(&self, flow: Flow) {
        self.state.send_modify(|state| state.flow = flow);
    }
}

async fn carry(mut client: TcpStream, protocol: Protocol, mut state: watch::Receiver<State>) {
    let era = state.borrow().era;
    may_flow(&mut state, era).await;
    let target = state.borrow().target.clone();
    let Ok(mut server) = TcpStream::connect(target).await else { return };
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let (up, down) = (state.clone(), state.clone());
    tokio::select! {
        () = async {
            match protocol {
                Protocol::Plain => copy(from_client, to_server, up, era).await,
                Protocol::Kafka { .. } => {
                    let may_pass = |state: &State, request: &mut Vec<u8>| !state.withholds(request);
                    copy_messages(from_client, to_server, up, era, may_pass).await;
                }
            }
        } => {}
        () = async {
            match protocol {
                Protocol::Plain => copy(from_server, to_client, down, era).await,
                Protocol::Kafka { from, to } => {
                    let renamed = |_: &State, answer: &mut Vec<u8>| rename(answer, from, to);
                    copy_messages(from_server, to_client, down, era, renamed).await;
                }
            }
        } => {}
        _ = state.wait_for(|state| state.flow == Flow::Shut) => {}
    }
}

/// Returns when bytes of a connection of this era may be carried, if ever.
async fn may_flow(state: &mut watch::Receiver<State>, era: u64) {
    // The gate outlives its connections or its test is over.
    let _ = state.wait_for(|state| state.flow == Flow::Open || state.era != era).await;
    if state.borrow().era != era {
        std::future::pending::<()>().await;
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut state: watch::Receiver<State>,
    era: u64,
) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        may_flow(&mut state, era).await;
        if to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}

/// Carries Kafka's requests or answers, each behind its length, where they may pass.
async fn copy_messages(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut state: watch::Receiver<State>,
    era: u64,
    may_pass: impl Fn(&State, &mut Vec<u8>) -> bool,
) {
    while let Ok(length) = from.read_u32().await {
        let mut message = vec![0; usize::try_from(length).unwrap()];
        if from.read_exact(&mut message).await.is_err() {
            return;
        }
        may_flow(&mut state, era).await;
        let passes = may_pass(&state.borrow(), &mut message);
        if passes && (to.write_u32(length).await.is_err() || to.write_all(&message).await.is_err()) {
            return;
        }
    }
}

/// Puts another port wherever an answer names a broker's address, and lets it pass.
fn rename(answer: &mut [u8], old: u16, new: u16) -> bool {
    let named = |port: u16| [b"127.0.0.1".as_slice(), &u32::from(port).to_be_bytes()].concat();
    let (old, new) = (named(old), named(new));
    let places: Vec<usize> =
        (0..answer.len().saturating_sub(old.len())).filter(|at| answer[*at..].starts_with(&old)).collect();
    for at in places {
        answer[at..at + new.len()].copy_from_slice(&new);
    }
    true
}

/// A server that a world reaches through a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    Redis,
    Kafka,
    Postgres,
}

/// `host:port` of a URL.
pub fn address(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap();
    host.rsplit('@').next().unwrap().to_owned()
}

/// A world whose API and reconciler reach one server through a gate; with more arguments for the API.
pub async fn gated(server: Server, api: &[&str]) -> (World, Gate) {
    let direct = Settings::fresh().await;
    let (gated, gate) = direct.gated(server).await;
    (World::reached(direct, &gated, &gated, api).await, gate)
}

impl Settings {
    /// The same with a gate in front of one server.
    pub async fn gated(&self, server: Server) -> (Self, Gate) {
        let mut settings = self.clone();
        let url = match server {
            Server::Redis => &mut settings.redis_url,
            Server::Kafka => &mut settings.kafka_brokers,
            Server::Postgres => &mut settings.database_url,
        };
        let target = address(url);
        let gate = match server {
            Server::Kafka => Gate::to_kafka(target.clone()).await,
            Server::Redis | Server::Postgres => Gate::to(target.clone()).await,
        };
        *url = url.replace(&target, &gate.address);
        (settings, gate)
    }
}
