//! A process of Boxoffice: started here, killed here.

use std::{
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use tokio::{
    process::{Child, Command},
    time::timeout,
};

/// How long an orderly end may take; past it the process is killed.
const STOP_WITHIN: Duration = Duration::from_secs(35);

/// A program with its settings; running or not.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) name: String,
    binary: PathBuf,
    arguments: Vec<String>,
    settings: Vec<(String, String)>,
    log: PathBuf,
    child: Option<Child>,
}

impl Program {
    /// A program that does not run yet. Its output is appended to `NAME.log` in `run_dir`.
    pub(crate) fn new(name: &str, binary: PathBuf, run_dir: &Path) -> Self {
        let log = run_dir.join(format!("{name}.log"));
        Self { name: name.to_owned(), binary, arguments: Vec::new(), settings: Vec::new(), log, child: None }
    }

    /// With these arguments.
    pub(crate) fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// With these environment variables.
    pub(crate) fn settings(mut self, settings: &[(String, String)]) -> Self {
        self.settings.extend_from_slice(settings);
        self
    }

    /// With one environment variable more.
    pub(crate) fn setting(self, name: &str, value: &str) -> Self {
        self.settings(&[(name.to_owned(), value.to_owned())])
    }

    /// The command, with its output going to the log.
    pub(crate) fn command(&self) -> Result<Command> {
        let open = || OpenOptions::new().create(true).append(true).open(&self.log);
        let failed = || format!("{} cannot be written", self.log.display());
        let mut command = Command::new(&self.binary);
        command
            .args(&self.arguments)
            .envs(self.settings.iter().cloned())
            .stdin(Stdio::null())
            .stdout(open().with_context(failed)?)
            .stderr(open().with_context(failed)?)
            // A Ctrl-C in the terminal is for us alone; we end our children in order.
            .process_group(0)
            .kill_on_drop(true);
        Ok(command)
    }

    /// Starts it, unless it runs.
    pub(crate) fn start(&mut self) -> Result<()> {
        if self.pid().is_none() {
            let child = self.command()?.spawn();
            self.child = Some(child.with_context(|| format!("{} cannot be started", self.binary.display()))?);
        }
        Ok(())
    }

    /// Runs it to its end, which must be a good one.
    pub(crate) async fn finish(&mut self) -> Result<()> {
        let status = self.command()?.status().await?;
        anyhow::ensure!(status.success(), "{} ended with {status}; see {}", self.name, self.log.display());
        Ok(())
    }

    /// Runs it to its end; what it said where that was not a good one, or did not come within `patience`.
    pub(crate) async fn complaint(&self, patience: Duration) -> Result<Option<String>> {
        let how = match timeout(patience, self.command()?.status()).await {
            Ok(ended) => {
                let status = ended?;
                if status.success() {
                    return Ok(None);
                }
                format!("ended with {status}")
            }
            Err(_) => format!("did not end within {patience:?}"),
        };
        let said = fs::read_to_string(&self.log)?;
        Ok(Some(format!("{} {how}:\n{}", self.name, said.trim_end())))
    }

    /// Its process id, as long as it runs.
    pub(crate) fn pid(&mut self) -> Option<u32> {
        let child = self.child.as_mut()?;
        if matches!(child.try_wait(), Ok(None)) { child.id() } else { None }
    }

    /// # Errors
    /// Where it ended by itself.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        anyhow::ensure!(self.pid().is_some(), "{} ended by itself; see {}", self.name, self.log.display());
        Ok(())
    }

    /// kill -9. Returns when it is gone.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().await.with_context(|| format!("{} cannot be killed", self.name))?;
        }
        Ok(())
    }

    /// Sends a signal; nothing where it does not run.
    pub(crate) fn signal(&mut self, signal: Signal) -> Result<()> {
        match self.pid() {
            Some(pid) => send(pid, signal),
            None => Ok(()),
        }
    }

    /// Asks it to end and waits for that; kills it where it takes too long.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        self.signal(Signal::SIGCONT)?;
        self.signal(Signal::SIGTERM)?;
        if let Some(child) = &mut self.child
            && timeout(STOP_WITHIN, child.wait()).await.is_err()
        {
            eprintln!("{} did not end within {STOP_WITHIN:?} and is killed", self.name);
        }
        self.kill().await
    }
}

/// Sends a signal to a process.
pub(crate) fn send(pid: u32, signal: Signal) -> Result<()> {
    let id = i32::try_from(pid).context("a process id beyond any process id")?;
    signal::kill(Pid::from_raw(id), signal).with_context(|| format!("{signal} cannot be sent to {pid}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_that_does_not_end_well_says_why() {
        let folder = std::env::temp_dir().join(format!("boxoffice-program-{}", uuid::Uuid::now_v7()));
        fs::create_dir_all(&folder).unwrap();
        let complaint = async |name: &'static str, script: &'static str, patience| {
            let shell = Program::new(name, PathBuf::from("/bin/sh"), &folder).arguments(&["-c", script]);
            shell.complaint(Duration::from_secs(patience)).await.unwrap()
        };
        assert_eq!(complaint("good", "echo all is well", 60).await, None);
        let found = complaint("bad", "echo a booking is lost; exit 1", 60).await.unwrap();
        assert!(found.contains("exit status: 1") && found.ends_with("a booking is lost"), "{found}");
        let late = complaint("late", "exec sleep 100", 1).await.unwrap();
        assert!(late.contains("did not end within 1s"), "{late}");
        fs::remove_dir_all(&folder).unwrap();
    }
}
