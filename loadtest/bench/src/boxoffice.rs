//! The processes of Boxoffice itself: started, killed and measured by their ids.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::http::Connection;

/// How long a process may take to be ready.
const READY: Duration = Duration::from_secs(60);

/// How long a process may take to stop.
const STOPPED: Duration = Duration::from_secs(40);

/// Where the binaries are, and where the logs go.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    pub(crate) binaries: PathBuf,
    pub(crate) logs: PathBuf,
    /// What each process is told beside what this one's environment says.
    pub(crate) variables: Vec<(&'static str, String)>,
}

/// A process; it is killed when this is dropped.
pub(crate) struct Process {
    child: Child,
    name: String,
}

impl Home {
    /// Prepares PostgreSQL and Kafka.
    pub(crate) async fn migrate(&self) -> Result<()> {
        let mut child = self.start("boxoffice-reconciler", "migrate", &["migrate"], &[])?;
        let ended = child.child.wait().await?;
        ensure!(ended.success(), "the migration failed; see {}", self.logs.join("migrate.log").display());
        Ok(())
    }

    pub(crate) fn reconciler(&self) -> Result<Process> {
        self.start("boxoffice-reconciler", "reconciler", &["run"], &[])
    }

    /// Starts an API and waits until it is ready.
    pub(crate) async fn api(&self, name: &str, address: SocketAddr) -> Result<Process> {
        self.api_told(name, address, &[]).await
    }

    /// Starts an API that is told something of its own, and waits until it is ready.
    pub(crate) async fn api_told(
        &self,
        name: &str,
        address: SocketAddr,
        variables: &[(&str, &str)],
    ) -> Result<Process> {
        let listen = address.to_string();
        let own = [("BOXOFFICE_LISTEN", listen.as_str()), ("BOXOFFICE_AUTH", "off")];
        let variables = [variables, &own].concat();
        let mut process = self.start("boxoffice-api", name, &[], &variables)?;
        let start = Instant::now();
        loop {
            if let Ok(mut connection) = Connection::open(address).await
                && let Ok(answer) = connection.send("GET", "/readyz", "", "").await
                && answer.status == 200
            {
                return Ok(process);
            }
            ensure!(
                start.elapsed() < READY && process.child.try_wait()?.is_none(),
                "{name} is not ready after {READY:?}; see {}",
                self.logs.display()
            );
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Starts the handler without a store.
    pub(crate) async fn floor(&self, address: SocketAddr) -> Result<Process> {
        let process = self.start("boxoffice-bench-floor", "floor", &[&address.to_string()], &[])?;
        let start = Instant::now();
        while Connection::open(address).await.is_err() {
            ensure!(start.elapsed() < READY, "the floor does not listen at {address} after {READY:?}");
            sleep(Duration::from_millis(20)).await;
        }
        Ok(process)
    }

    /// Whether the reconciler's audit finds Redis and PostgreSQL equal.
    pub(crate) async fn audit(&self) -> Result<bool> {
        let mut child = self.start("boxoffice-reconciler", "audit", &["audit"], &[])?;
        Ok(child.child.wait().await?.success())
    }

    fn start(
        &self,
        binary: &str,
        name: &str,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<Process> {
        let log = open_log(&self.logs.join(format!("{name}.log")))?;
        let child = Command::new(self.binaries.join(binary))
            .args(arguments)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stderr(log.try_clone()?)
            .stdout(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{binary} cannot be started; scripts/bench builds it"))?;
        Ok(Process { child, name: name.to_owned() })
    }
}

fn open_log(path: &Path) -> Result<File> {
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("{} cannot be written", path.display()))
}

impl Process {
    /// Kills it with signal 9, and waits until it is gone.
    pub(crate) async fn kill(mut self) -> Result<()> {
        self.child.kill().await.with_context(|| format!("{} was not killed", self.name))
    }

    /// Its id, while it runs.
    pub(crate) fn id(&self) -> Result<u32> {
        self.child.id().with_context(|| format!("{} has ended", self.name))
    }

    /// Ends it in order (SIGTERM), and waits until it is gone.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let id = Pid::from_raw(i32::try_from(self.id()?)?);
        signal::kill(id, Signal::SIGTERM)?;
        let ended = tokio::time::timeout(STOPPED, self.child.wait()).await;
        ended.with_context(|| format!("{} does not stop", self.name))??;
        Ok(())
    }

    /// Memory that it has resident, in bytes (`VmRSS` of proc(5)).
    pub(crate) fn memory(&self) -> Result<u64> {
        self.status_bytes("VmRSS:")
    }

    /// The most memory that it ever had resident, in bytes (`VmHWM` of proc(5)).
    pub(crate) fn peak_memory(&self) -> Result<u64> {
        self.status_bytes("VmHWM:")
    }

    fn status_bytes(&self, field: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()?))?;
        let kilobytes = status
            .lines()
            .find_map(|line| line.strip_prefix(field))
            .and_then(|line| line.trim().strip_suffix(" kB"))
            .with_context(|| format!("no {field} in /proc"))?;
        Ok(kilobytes.trim().parse::<u64>()? * 1024)
    }

    /// The peak counts from here on.
    pub(crate) fn forget_peak_memory(&self) -> Result<()> {
        let pid = self.id()?;
        // 5 resets the peak: proc(5), clear_refs.
        fs::write(format!("/proc/{pid}/clear_refs"), "5").context("the peak cannot be reset")
    }
}
