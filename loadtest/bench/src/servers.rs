//! Redis as `scripts/stack` runs it: killed, wiped, started again, and asked whether it answers.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

/// How long Redis may take to load its file.
const LOADED: Duration = Duration::from_secs(120);

/// The stack's Redis.
#[derive(Clone, Debug)]
pub(crate) struct Redis {
    /// `scripts/stack`.
    pub(crate) stack: PathBuf,
    /// Its data folder.
    pub(crate) folder: PathBuf,
    pub(crate) address: SocketAddr,
}

impl Redis {
    /// `kill -9`.
    pub(crate) async fn kill(&self) -> Result<()> {
        self.run("kill").await
    }

    /// Deletes everything that it has on disk.
    pub(crate) fn wipe(&self) -> Result<()> {
        std::fs::remove_dir_all(self.folder.join("appendonlydir")).context("Redis' data folder")
    }

    /// Starts it; returns when it answered PING, which it does when its file is loaded. `scripts/stack` goes on a little longer.
    pub(crate) async fn start(&self) -> Result<Instant> {
        let start = Instant::now();
        let starting = self.run("start");
        let answering = async {
            while !self.answers().await {
                ensure!(start.elapsed() < LOADED, "Redis does not answer {LOADED:?} after its start");
                sleep(Duration::from_millis(5)).await;
            }
            Ok(Instant::now())
        };
        let (started, answered) = tokio::join!(starting, answering);
        started?;
        answered
    }

    async fn answers(&self) -> bool {
        let exchange = async {
            let mut stream = TcpStream::connect(self.address).await?;
            stream.write_all(b"PING\r\n").await?;
            let mut answer = [0; 7];
            stream.read_exact(&mut answer).await?;
            std::io::Result::Ok(&answer == b"+PONG\r\n")
        };
        matches!(tokio::time::timeout(Duration::from_secs(1), exchange).await, Ok(Ok(true)))
    }

    async fn run(&self, what: &str) -> Result<()> {
        let ended = Command::new(&self.stack).args([what, "redis"]).status().await?;
        ensure!(ended.success(), "`scripts/stack {what} redis` failed");
        Ok(())
    }
}
