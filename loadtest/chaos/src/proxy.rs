//! A TCP proxy before a dependency, through which everything of Boxoffice connects: so that connections can be cut and
//! frozen, and clients led to another server, without touching the server.

use std::{io, net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep},
};

/// A port that is still taken after it belongs to somebody else.
const FREE_WITHIN: Duration = Duration::from_secs(3);

/// What to do about that.
const ADVICE: &str = "end what listens there, or set BOXOFFICE_STACK_PORT_BASE";

/// Bytes that are read at once.
const CHUNK: usize = 16 * 1024;

/// What becomes of bytes and connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Flow {
    /// They pass.
    Open,
    /// Connections are reset, and new ones at once.
    Cut,
    /// Nothing passes, and nobody is told.
    Frozen,
}

/// Where connections lead and what becomes of them. A connection whose target is no longer this one is reset.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Rule {
    pub(crate) flow: Flow,
    pub(crate) target: SocketAddr,
}

/// A port on loopback that leads to a server.
#[derive(Debug)]
pub(crate) struct Proxy {
    rule: watch::Sender<Rule>,
    accepting: JoinHandle<()>,
}

impl Drop for Proxy {
    /// Another proxy may listen there next. What is being carried ends by itself: its rule is gone.
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A loopback address.
pub(crate) fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

impl Proxy {
    /// Listens on `port` and leads to `target`.
    pub(crate) async fn start(port: u16, target: u16) -> Result<Self> {
        let listener = listen(port).await?;
        let (rule, rules) = watch::channel(Rule { flow: Flow::Open, target: local(target) });
        let accepting = tokio::spawn(async move {
            loop {
                // An error concerns the one connection that was about to be accepted.
                let Ok((client, _)) = listener.accept().await else { continue };
                let rules = rules.clone();
                tokio::spawn(async move { lead(client, rules).await });
            }
        });
        Ok(Self { rule, accepting })
    }

    /// Lets bytes pass, or not.
    pub(crate) fn set(&self, flow: Flow) {
        self.rule.send_modify(|rule| rule.flow = flow);
    }

    /// Leads to another server from now on.
    pub(crate) fn point_at(&self, target: u16) {
        self.rule.send_modify(|rule| rule.target = local(target));
    }
}

/// Listens on a port of loopback. A listener of an earlier run in this process may still be on its way out.
pub(crate) async fn listen(port: u16) -> Result<TcpListener> {
    let deadline = Instant::now() + FREE_WITHIN;
    loop {
        match TcpListener::bind(local(port)).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                sleep(Duration::from_millis(50)).await;
            }
            bound => return bound.with_context(|| format!("port {port} is taken; {ADVICE}")),
        }
    }
}

/// Leads one connection to the target of the rule at this moment.
async fn lead(client: TcpStream, rules: watch::Receiver<Rule>) {
    let Rule { flow, target } = *rules.borrow();
    let server = if flow == Flow::Cut { None } else { TcpStream::connect(target).await.ok() };
    match server {
        Some(server) => carry(client, server, target, rules).await,
        None => reset(client),
    }
}

/// Carries bytes both ways until one side ends or the rule leads elsewhere.
pub(crate) async fn carry(
    mut client: TcpStream,
    mut server: TcpStream,
    target: SocketAddr,
    rules: watch::Receiver<Rule>,
) {
    // Delays of the proxy's own would be blamed on Boxoffice. A socket that refuses the option is about to end.
    let _ = client.set_nodelay(true).and_then(|()| server.set_nodelay(true));
    let ended = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        tokio::select! {
            ended = copy(from_client, to_server, target, rules.clone()) => ended,
            ended = copy(from_server, to_client, target, rules) => ended,
        }
    };
    if ended.is_err() {
        reset(client);
        reset(server);
    }
}

/// Copies one way. Ends well where the sender closed; fails where the rule or a broken connection ends it.
async fn copy(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    target: SocketAddr,
    mut rules: watch::Receiver<Rule>,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let rule = *rules.borrow_and_update();
        if rule.flow == Flow::Cut || rule.target != target {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let changed = rules.changed();
        let read = tokio::select! {
            // The proxy was dropped: nothing is judged any more.
            gone = changed => { gone.map_err(|_| io::ErrorKind::ConnectionReset)?; continue }
            read = from.read(&mut chunk), if rule.flow == Flow::Open => read?,
        };
        if read == 0 {
            return Ok(());
        }
        to.write_all(&chunk[..read]).await?;
    }
}

/// Ends a connection with RST, as a crashed host's firewall would.
fn reset(stream: TcpStream) {
    // Where it fails the connection is broken already.
    let _ = stream.set_zero_linger();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers each byte with the next higher one; its port.
    async fn successor() -> u16 {
        let listener = TcpListener::bind(local(0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    while let Ok(byte) = stream.read_u8().await {
                        stream.write_u8(byte + 1).await.unwrap();
                    }
                });
            }
        });
        port
    }

    async fn free_port() -> u16 {
        TcpListener::bind(local(0)).await.unwrap().local_addr().unwrap().port()
    }

    async fn ask(stream: &mut TcpStream, byte: u8) -> io::Result<u8> {
        stream.write_u8(byte).await?;
        stream.read_u8().await
    }

    #[tokio::test]
    async fn bytes_pass_both_ways() {
        let port = free_port().await;
        let _proxy = Proxy::start(port, successor().await).await.unwrap();
        let mut stream = TcpStream::connect(local(port)).await.unwrap();
        assert_eq!(ask(&mut stream, 1).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn a_cut_resets_what_is_open_and_what_comes_until_it_is_healed() {
        let port = free_port().await;
        let proxy = Proxy::start(port, successor().await).await.unwrap();
        let mut before = TcpStream::connect(local(port)).await.unwrap();
        assert_eq!(ask(&mut before, 1).await.unwrap(), 2);
        proxy.set(Flow::Cut);
        assert!(before.read_u8().await.is_err());
        let mut meanwhile = TcpStream::connect(local(port)).await.unwrap();
        assert!(ask(&mut meanwhile, 1).await.is_err());
        proxy.set(Flow::Open);
        let mut after = TcpStream::connect(local(port)).await.unwrap();
        assert_eq!(ask(&mut after, 5).await.unwrap(), 6);
    }

    #[tokio::test]
    async fn a_freeze_holds_bytes_back_and_loses_none() {
        let port = free_port().await;
        let proxy = Proxy::start(port, successor().await).await.unwrap();
        let mut stream = TcpStream::connect(local(port)).await.unwrap();
        assert_eq!(ask(&mut stream, 1).await.unwrap(), 2);
        proxy.set(Flow::Frozen);
        stream.write_u8(7).await.unwrap();
        let answer = tokio::time::timeout(Duration::from_millis(100), stream.read_u8()).await;
        assert!(answer.is_err(), "something passed: {answer:?}");
        proxy.set(Flow::Open);
        assert_eq!(stream.read_u8().await.unwrap(), 8);
    }

    #[tokio::test]
    async fn whoever_is_led_elsewhere_must_connect_anew() {
        let port = free_port().await;
        let proxy = Proxy::start(port, successor().await).await.unwrap();
        let mut stream = TcpStream::connect(local(port)).await.unwrap();
        assert_eq!(ask(&mut stream, 1).await.unwrap(), 2);
        proxy.point_at(successor().await);
        assert!(stream.read_u8().await.is_err());
        let mut anew = TcpStream::connect(local(port)).await.unwrap();
        assert_eq!(ask(&mut anew, 3).await.unwrap(), 4);
    }
}
