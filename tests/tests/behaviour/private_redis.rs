//! A Redis of a test's own, to be killed: `redis-server` with the settings that Boxoffice asks for.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::processes::signal;
use crate::world::eventually;

pub struct PrivateRedis {
    port: u16,
    folder: PathBuf,
    process: Child,
    more: Vec<String>,
}

impl PrivateRedis {
    /// Running, empty.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With other settings.
    pub async fn start_with(more: &[&str]) -> Self {
        let more: Vec<String> = more.iter().map(|arg| (*arg).to_owned()).collect();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = std::env::temp_dir().join(format!("boxoffice-redis-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir_all(&folder).unwrap();
        let redis = Self { port, process: spawn(port, &folder, &more), folder, more };
        redis.answers().await;
        redis
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// It hangs: the process stands still, its connections stay.
    pub fn pause(&self) {
        signal(&self.process, "-STOP");
    }

    /// It goes on where it stood.
    pub fn resume(&self) {
        signal(&self.process, "-CONT");
    }

    /// Starts again on what is in its folder.
    pub async fn start_again(&mut self) {
        let more: Vec<String> = std::mem::take(&mut self.more);
        self.start_again_with(more).await;
    }

    /// Starts again with other settings.
    pub async fn start_again_with(&mut self, more: Vec<String>) {
        self.process = spawn(self.port, &self.folder, &more);
        self.more = more;
        self.answers().await;
    }

    /// What is on its disk, kept aside.
    pub fn backup(&self) -> Backup {
        let folder = std::env::temp_dir().join(format!("boxoffice-backup-{}", uuid::Uuid::now_v7()));
        copy(&self.folder, &folder);
        Backup(folder)
    }

    /// Puts a backup in the place of what is on the disk of a Redis that does not run.
    pub fn restore(&self, backup: &Backup) {
        std::fs::remove_dir_all(&self.folder).unwrap();
        copy(&backup.0, &self.folder);
    }

    /// Becomes a replica of another; returns when it has all that the other has.
    pub async fn follow(&self, primary: &Self) {
        self.follow_through(&primary.address()).await;
    }

    /// The same with a way of its own to the other.
    pub async fn follow_through(&self, address: &str) {
        let (host, port) = address.rsplit_once(':').unwrap();
        let connection = self.connection().await;
        let mut command = redis::cmd("REPLICAOF");
        command.arg(host).arg(port).query_async::<()>(&mut connection.clone()).await.unwrap();
        eventually("the replica to be in step", || async {
            let mut connection = connection.clone();
            let info: String =
                redis::cmd("INFO").arg("replication").query_async(&mut connection).await.unwrap();
            info.contains("master_link_status:up")
        })
        .await;
    }

    /// Waits until it has all that its primary has written.
    pub async fn caught_up_with(&self, primary: &Self) {
        let mut connection = primary.connection().await;
        let mut command = redis::cmd("WAIT");
        let replicas: i64 = command.arg(1).arg(5_000).query_async(&mut connection).await.unwrap();
        assert_eq!(replicas, 1);
    }

    /// From now on it takes writes only while so many replicas follow it.
    pub async fn needs_replicas(&self, count: u8) {
        let mut connection = self.connection().await;
        let mut command = redis::cmd("CONFIG");
        command.arg("SET").arg("min-replicas-to-write").arg(count);
        command.query_async::<()>(&mut connection).await.unwrap();
    }

    /// So many percent of its memory are left from now on.
    pub async fn has_left(&self, percent: u64) {
        let used = self.fill().await;
        self.may_use(used * 100 / (100 - percent)).await;
    }

    /// From now on it uses twice as much memory as it may, whatever is given back.
    pub async fn uses_too_much(&self) {
        let used = self.fill().await;
        self.may_use(used / 2).await;
    }

    /// It has as much memory as it had at its start.
    pub async fn has_memory_again(&self) {
        self.may_use(256 << 20).await;
    }

    /// Takes so much memory that what a few clients need is next to nothing beside it; returns how much is used.
    async fn fill(&self) -> u64 {
        let mut connection = self.connection().await;
        let mut fill = redis::cmd("SETRANGE");
        fill.arg("filling").arg(20_000_000).arg("x").query_async::<()>(&mut connection).await.unwrap();
        let info: String = redis::cmd("INFO").arg("memory").query_async(&mut connection).await.unwrap();
        let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
        used.parse().unwrap()
    }

    async fn may_use(&self, bytes: u64) {
        let mut connection = self.connection().await;
        let mut command = redis::cmd("CONFIG");
        command.arg("SET").arg("maxmemory").arg(bytes);
        command.query_async::<()>(&mut connection).await.unwrap();
    }

    /// How often it has run a command, by clients or in scripts.
    pub async fn calls(&self, command: &str) -> usize {
        let mut connection = self.connection().await;
        let stats: String =
            redis::cmd("INFO").arg("commandstats").query_async(&mut connection).await.unwrap();
        let line = format!("cmdstat_{command}:calls=");
        let count = stats.lines().find_map(|stats| stats.strip_prefix(&line)?.split(',').next());
        count.map_or(0, |count| count.parse().unwrap())
    }

    /// Ends its replication and takes writes: a fail-over.
    pub async fn promote(&self) {
        let mut connection = self.connection().await;
        let mut command = redis::cmd("REPLICAOF");
        command.arg("NO").arg("ONE").query_async::<()>(&mut connection).await.unwrap();
    }

    pub async fn connection(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(self.url()).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }

    async fn answers(&self) {
        let client = redis::Client::open(self.url()).unwrap();
        eventually("the private Redis to answer", || async {
            let timeout = Duration::from_secs(1);
            let Ok(Ok(mut connection)) =
                tokio::time::timeout(timeout, client.get_multiplexed_async_connection()).await
            else {
                return false;
            };
            redis::cmd("PING").query_async::<String>(&mut connection).await.is_ok()
        })
        .await;
    }
}

pub struct Backup(PathBuf);

impl Drop for Backup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (entry, to) = (entry.path(), to.join(entry.file_name()));
        if entry.is_dir() {
            copy(&entry, &to);
        } else {
            std::fs::copy(&entry, &to).unwrap();
        }
    }
}

fn spawn(port: u16, folder: &Path, more: &[String]) -> Child {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"])
        .args([
            "--appendfsync",
            "always",
            "--maxmemory-policy",
            "noeviction",
            "--maxmemory",
            "256mb",
            "--dir",
        ])
        .arg(folder)
        .args(more)
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is on the PATH; scripts/test installs it")
}

impl Drop for PrivateRedis {
    fn drop(&mut self) {
        // It may have been killed by its test already.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
