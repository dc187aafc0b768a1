//! The processes of Boxoffice itself: started, killed and measured by their ids.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::http::Connection;

/// How long a process may take to be ready.
const READY: Duration = Duration::from_secs(60);

/// Where the binaries are, and where the logs go.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    pub(crate) binaries: PathBuf,
    pub(crate) logs: PathBuf,
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
        let process = self.start(
            "boxoffice-api",
            name,
            &[],
            &[("BOXOFFICE_LISTEN", &address.to_string()), ("BOXOFFICE_AUTH", "off")],
        )?;
        let start = Instant::now();
        loop {
            if let Ok(mut connection) = Connection::open(address).await
                && let Ok(answer) = connection.send("GET", "/readyz", "", "").await
                && answer.status == 200
            {
                return Ok(process);
            }
            ensure!(
                start.elapsed() < READY,
                "{name} is not ready after {READY:?}; see {}",
                self.logs.display()
            );
            sleep(Duration::from_millis(50)).await;
        }
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

    /// The most memory that it ever had resident, in bytes (`VmHWM` of proc(5)).
    pub(crate) fn peak_memory(&self) -> Result<u64> {
        let Some(pid) = self.child.id() else { bail!("{} has ended", self.name) };
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let kilobytes = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .and_then(|line| line.trim().strip_suffix(" kB"))
            .context("no VmHWM in /proc")?;
        Ok(kilobytes.trim().parse::<u64>()? * 1024)
    }

    /// The peak counts from here on.
    pub(crate) fn forget_peak_memory(&self) -> Result<()> {
        let Some(pid) = self.child.id() else { bail!("{} has ended", self.name) };
        // 5 resets the peak: proc(5), clear_refs.
        fs::write(format!("/proc/{pid}/clear_refs"), "5").context("the peak cannot be reset")
    }
}
