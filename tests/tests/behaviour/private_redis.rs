//! A Redis of a test's own, to be killed: `redis-server` with the settings that Boxoffice asks for.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::processes::signal;
use crate::world::eventually;

pub struct PrivateRedis {
    port: u16,
    folder: PathBuf,
    process: Child,
}

impl PrivateRedis {
    /// Running, empty.
    pub async fn start() -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = std::env::temp_dir().join(format!("boxoffice-redis-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir_all(&folder).unwrap();
        let redis = Self { port, process: spawn(port, &folder), folder };
        redis.answers().await;
        redis
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
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
        self.process = spawn(self.port, &self.folder);
        self.answers().await;
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

fn spawn(port: u16, folder: &std::path::Path) -> Child {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"])
        .args(["--appendfsync", "always", "--maxmemory-policy", "noeviction", "--dir"])
        .arg(folder)
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
