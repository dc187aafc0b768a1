//! Redis, its replica, the way to them, and everything that is done to their data.

use std::{
    fs,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use rand::rngs::StdRng;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, InfoDict, aio::MultiplexedConnection, cmd};
use tokio::time::{Instant, sleep};

use crate::{
    aof,
    proxy::{Flow, Proxy},
    server::Server,
};

/// One answer of a Redis that is alive.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// A replica of a few hundred megabytes on the same machine is in step within it.
const IN_STEP_WITHIN: Duration = Duration::from_secs(30);

/// The primary, the replica that takes its place, and the proxies before and between them.
#[derive(Debug)]
pub(crate) struct RedisPair {
    pub(crate) primary: Server,
    replica: Server,
    /// What Boxoffice connects through.
    pub(crate) way: Proxy,
    /// What the replica connects through, and its port.
    link: (Proxy, u16),
    /// In front of every key.
    prefix: String,
}

impl RedisPair {
    pub(crate) fn new(
        primary: Server,
        replica: Server,
        way: Proxy,
        link: (Proxy, u16),
        prefix: &str,
    ) -> Self {
        Self { primary, replica, way, link, prefix: prefix.to_owned() }
    }

    /// Both with empty folders; only the primary runs.
    pub(crate) async fn begin(&self) -> Result<()> {
        // A pair that was left behind by a killed run may be in any state.
        for server in [&self.primary, &self.replica] {
            // It may not run at all.
            let _ = server.kill().await;
            delete_data(server)?;
        }
        self.primary.start().await
    }

    /// kill -9, and the end of its append-only file is gone.
    pub(crate) async fn kill_and_cut_tail(&self, lot: &mut StdRng) -> Result<()> {
        self.primary.kill().await?;
        aof::cut_tail(&self.primary.folder, lot).map(drop)
    }

    /// kill -9, and all its data is gone.
    pub(crate) async fn kill_and_wipe(&self) -> Result<()> {
        self.primary.kill().await?;
        delete_data(&self.primary)
    }

    /// What an operator must never do.
    pub(crate) async fn flush(&self) -> Result<()> {
        ask(&self.primary, &cmd("FLUSHALL")).await
    }

    /// A replica follows, and then receives nothing more.
    pub(crate) async fn leave_replica_behind(&self) -> Result<()> {
        let (link, port) = &self.link;
        link.set(Flow::Open);
        self.replica.start().await?;
        follow(&self.replica, *port).await?;
        link.set(Flow::Frozen);
        Ok(())
    }

    /// The primary is killed, the replica promoted, and clients are led to it.
    pub(crate) async fn fail_over(&self) -> Result<()> {
        self.primary.kill().await?;
        self.link.0.set(Flow::Cut);
        promote(&self.replica).await?;
        self.way.point_at(self.replica.port);
        Ok(())
    }

    /// The old primary follows the replica, is in step with it, and takes its place back.
    pub(crate) async fn fail_back(&self) -> Result<()> {
        self.primary.start().await?;
        follow(&self.primary, self.replica.port).await?;
        self.way.set(Flow::Cut);
        self.wait_until_in_step().await?;
        promote(&self.primary).await?;
        self.way.point_at(self.primary.port);
        self.way.set(Flow::Open);
        self.replica.kill().await?;
        delete_data(&self.replica)
    }

    async fn wait_until_in_step(&self) -> Result<()> {
        let deadline = Instant::now() + IN_STEP_WITHIN;
        loop {
            let of_replica = replication(&self.replica, "master_repl_offset").await?;
            if replication(&self.primary, "slave_repl_offset").await? == of_replica {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the old primary is not in step with the replica after {IN_STEP_WITHIN:?}");
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Since when decisions wait for Kafka, in milliseconds since 1970; now, where none waits. What is lost with Redis
    /// at this moment is younger than that.
    pub(crate) async fn unconfirmed_since(&self) -> Result<u64> {
        let mut since = now_ms();
        for shard in 0..16 {
            let key = |name| format!("{}{{s{shard:02}}}:{name}", self.prefix);
            let frames: u64 = ask(&self.primary, cmd("XLEN").arg(key("outbox"))).await?;
            let head: Option<u64> = ask(&self.primary, cmd("HGET").arg(key("shard")).arg("head_ms")).await?;
            if let Some(head) = head.filter(|_| frames > 0) {
                since = since.min(head);
            }
        }
        Ok(since)
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn delete_data(server: &Server) -> Result<()> {
    match fs::remove_dir_all(server.folder.join("appendonlydir")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("the data in {} cannot be deleted", server.folder.display()))
        }
        _ => Ok(()),
    }
}

/// Makes a server follow another, and waits until it has all of that one's data.
async fn follow(server: &Server, primary: u16) -> Result<()> {
    ask::<()>(server, cmd("REPLICAOF").arg("127.0.0.1").arg(primary)).await?;
    let deadline = Instant::now() + IN_STEP_WITHIN;
    while replication(server, "master_link_status").await? != "up" {
        if Instant::now() > deadline {
            bail!("the Redis at {} does not follow the one at {primary}", server.port);
        }
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

async fn promote(server: &Server) -> Result<()> {
    ask(server, cmd("REPLICAOF").arg("NO").arg("ONE")).await
}

/// A field of `INFO replication`; empty where it is not there.
async fn replication(server: &Server, field: &str) -> Result<String> {
    let info: InfoDict = ask(server, cmd("INFO").arg("replication")).await?;
    Ok(info.get(field).unwrap_or_default())
}

/// Asks over a connection of its own: the server may have been another process a moment ago.
async fn ask<T: FromRedisValue>(server: &Server, command: &Cmd) -> Result<T> {
    let failed = || format!("the Redis at port {} does not answer", server.port);
    let mut connection = connect(server.port).await.with_context(failed)?;
    command.query_async(&mut connection).await.with_context(failed)
}

async fn connect(port: u16) -> redis::RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(ANSWER_WITHIN))
        .set_response_timeout(Some(ANSWER_WITHIN));
    let client = Client::open(format!("redis://127.0.0.1:{port}/"))?;
    client.get_multiplexed_async_connection_with_config(&config).await
}
