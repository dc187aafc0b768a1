//! A server of a stack: started by `scripts/stack`, which knows its settings and its user; signalled here.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use tokio::{
    process::Command,
    time::{Instant, sleep},
};

use crate::program::send;

/// A process that was killed with -9 is gone within it, unless the machine is in trouble.
const GONE_WITHIN: Duration = Duration::from_secs(20);

/// Redis, PostgreSQL or Kafka of a stack in native mode.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    /// As `scripts/stack` calls it.
    name: &'static str,
    stack: String,
    script: PathBuf,
    /// Where its data, its log and its pid file are.
    pub(crate) folder: PathBuf,
    pub(crate) port: u16,
}

impl Server {
    /// The server `name` of the stack `stack` under the checkout.
    pub(crate) fn new(checkout: &Path, stack: &str, name: &'static str, port: u16) -> Self {
        Self {
            name,
            stack: stack.to_owned(),
            script: checkout.join("scripts/stack"),
            folder: checkout.join(".stack").join(stack).join(name),
            port,
        }
    }

    /// Starts it where it does not run, and waits until it is healthy.
    pub(crate) async fn start(&self) -> Result<()> {
        let mut command = Command::new(&self.script);
        command.args(["start", self.name]).env("BOXOFFICE_STACK_NAME", &self.stack);
        // The lock and the ports of the stack are found by its name.
        command.env_remove("BOXOFFICE_STACK_PORT_BASE").stdin(Stdio::null()).process_group(0);
        let output = command.output().await.context("scripts/stack cannot be started")?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{} of stack {} did not start: {said}", self.name, self.stack);
        Ok(())
    }

    /// The pid of the main process.
    fn pid(&self) -> Result<u32> {
        let file = self.folder.join("pid");
        let text = fs::read_to_string(&file).with_context(|| format!("{} cannot be read", file.display()))?;
        let first = text.lines().next().unwrap_or_default();
        first.parse().with_context(|| format!("{} holds no pid", file.display()))
    }

    /// The main process and its children, the main process first.
    fn pids(&self) -> Result<Vec<u32>> {
        let main = self.pid()?;
        let mut pids = vec![main];
        pids.extend(children_of(main));
        Ok(pids)
    }

    /// kill -9 of all its processes. Returns when the main process is gone.
    pub(crate) async fn kill(&self) -> Result<()> {
        let pids = self.pids()?;
        for pid in &pids {
            // A child may have ended since it was listed.
            let _ = send(*pid, Signal::SIGKILL);
        }
        let deadline = Instant::now() + GONE_WITHIN;
        while pids.iter().any(|pid| lives(*pid)) {
            if Instant::now() > deadline {
                bail!("{} survived kill -9 for {GONE_WITHIN:?}", self.name);
            }
            sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// SIGSTOP to all its processes.
    pub(crate) fn pause(&self) -> Result<()> {
        self.pids()?.into_iter().for_each(|pid| drop(send(pid, Signal::SIGSTOP)));
        Ok(())
    }

    /// SIGCONT to all its processes.
    pub(crate) fn resume(&self) -> Result<()> {
        self.pids()?.into_iter().for_each(|pid| drop(send(pid, Signal::SIGCONT)));
        Ok(())
    }
}

/// Of `/proc/PID/stat`, behind the name: the state, and the parent.
fn stat(pid: u32) -> Option<(String, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}

/// A zombie has ended.
fn lives(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != "Z")
}

fn children_of(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| stat(*pid).is_some_and(|(_, of)| of == parent)).collect()
}
