//! Connections that asked for something once and then stay, as an attacker keeps them, or a shop's whole waiting room.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use reqwest::Url;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

/// Files that the load test has open beside them.
const OTHER_FILES: u64 = 2_048;

/// How long it may take until all of them are there.
const WITHIN: Duration = Duration::from_secs(60);

/// Between two tries of one of them.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// The connections; dropped, they end.
pub(crate) struct Idle {
    count: usize,
    held: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Idle {
    /// Opens so many connections to a host.
    pub(crate) async fn open(host: &Url, count: usize) -> Result<Self> {
        let address = host.socket_addrs(|| None).context("--host names no address")?;
        let address = *address.first().context("--host names no address")?;
        ensure!(count == 0 || host.scheme() == "http", "--idle-connections takes a host of plain HTTP");
        allow_files(count as u64 + OTHER_FILES)?;
        let (held, mut tasks) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
        for _ in 0..count {
            let held = held.clone();
            tasks.spawn(async move {
                loop {
                    // The server ends an idle connection after a while; whoever keeps many makes the next.
                    let _ = hold(address, &held).await;
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
            });
        }
        let idle = Self { count, held, _tasks: tasks };
        let started = Instant::now();
        while idle.held() < count && started.elapsed() < WITHIN {
            tokio::time::sleep(AGAIN_AFTER).await;
        }
        idle.check()?;
        Ok(idle)
    }

    fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether they are there, but for some that are being made anew.
    pub(crate) fn check(&self) -> Result<()> {
        let held = self.held();
        ensure!(held * 10 >= self.count * 9, "only {held} of {} idle connections are held", self.count);
        Ok(())
    }
}

/// Asks once, and then waits for the end.
async fn hold(address: std::net::SocketAddr, held: &AtomicUsize) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: boxoffice\r\n\r\n").await?;
    let mut answer = [0; 2_048];
    if stream.read(&mut answer).await? == 0 {
        return Ok(());
    }
    held.fetch_add(1, Ordering::Relaxed);
    while stream.read(&mut answer).await.is_ok_and(|read| read > 0) {}
    held.fetch_sub(1, Ordering::Relaxed);
    Ok(())
}

fn allow_files(needed: u64) -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    ensure!(
        hard >= needed,
        "{needed} open files are needed and {hard} allowed: raise the limit (ulimit -Hn)"
    );
    if soft < needed {
        setrlimit(Resource::RLIMIT_NOFILE, needed, hard)?;
    }
    Ok(())
}
