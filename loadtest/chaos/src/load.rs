//! The load: `boxoffice-loadtest` as a process, whose verdict is the run's.

use std::{fs, process::Stdio, time::Duration};

use anyhow::{Context, Result, bail};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStderr, Command},
    sync::oneshot,
    time::timeout,
};

use crate::{cli::Options, house::House, windows::Windows};

/// What it says when its last request is answered.
const IS_OVER: &str = "waiting for the log to drain";

/// From its start to its first request: it puts its events on sale.
const BEGINS_WITHIN: Duration = Duration::from_secs(60);

/// Requests that are late may be sent this long after the end of the schedule.
const CATCH_UP_SECONDS: u64 = 20;

/// Checking itself, beside all the waiting.
const CHECKS_WITHIN: Duration = Duration::from_secs(120);

/// The load test, under way.
#[derive(Debug)]
pub(crate) struct Load {
    child: Child,
    over: oneshot::Receiver<()>,
    longest: Duration,
}

impl Load {
    /// Starts it; returns when its first request is due.
    pub(crate) async fn start(
        options: &Options,
        house: &House,
        windows: &Windows,
        seed: u64,
    ) -> Result<Self> {
        let mut child = command(options, house, windows, seed)?.spawn().context("boxoffice-loadtest")?;
        let errors = child.stderr.take().context("boxoffice-loadtest has no standard error")?;
        let mut errors = BufReader::new(errors);
        let mut log = tokio::fs::File::create(options.run_dir.join("loadtest.log")).await?;
        let began = async {
            let mut line = String::new();
            // It says its rate right before the load begins.
            while !line.contains(" requests/s for ") {
                line.clear();
                if errors.read_line(&mut line).await? == 0 {
                    bail!("it ended; see {}", options.run_dir.join("loadtest.log").display());
                }
                log.write_all(line.as_bytes()).await?;
                log.flush().await?;
            }
            Ok(())
        };
        timeout(BEGINS_WITHIN, began)
            .await
            .context("the load did not begin")?
            .context("boxoffice-loadtest")?;
        let (tell_over, over) = oneshot::channel();
        tokio::spawn(keep_log(errors, log, tell_over));
        let longest = Duration::from_secs(u64::from(options.seconds) + CATCH_UP_SECONDS + options.patience);
        Ok(Self { child, over, longest: longest + CHECKS_WITHIN })
    }

    /// Waits for its last request. What it then waits for and checks itself is still to come.
    pub(crate) async fn until_over(&mut self) -> Result<()> {
        // An error is the end of its words: why it ended without this one, its exit code says.
        let _ = timeout(self.longest, &mut self.over).await.context("the load does not end")?;
        Ok(())
    }

    /// Waits for its end; whether its verdict is good.
    pub(crate) async fn finish(mut self) -> Result<bool> {
        let status = timeout(self.longest, self.child.wait()).await.context("boxoffice-loadtest hangs")??;
        match status.code() {
            Some(0) => Ok(true),
            Some(1) => Ok(false),
            _ => bail!("boxoffice-loadtest could not finish ({status}); see loadtest.log"),
        }
    }
}

fn command(options: &Options, house: &House, windows: &Windows, seed: u64) -> Result<Command> {
    let verdict = options.run_dir.join("loadtest.txt");
    let verdict =
        fs::File::create(&verdict).with_context(|| format!("{} cannot be written", verdict.display()))?;
    let mut command = Command::new(options.bin.join("boxoffice-loadtest"));
    command
        .args(["--host", &house.url, "--database-url", &house.database_url])
        .args(["--rate", &options.rate.to_string(), "--seconds", &options.seconds.to_string()])
        .args(["--seed", &seed.to_string(), "--min-rate", "0", "--request-timeout", "3"])
        .args(["--max-turned-away", "100"])
        .args(["--users", &(options.rate / 2).max(40).to_string()])
        .args(["--catch-up", &CATCH_UP_SECONDS.to_string()])
        .args(["--drain-timeout", &options.patience.to_string()])
        .arg("--loss-windows")
        .arg(&windows.path)
        .arg("--summary")
        .arg(options.run_dir.join("loadtest.json"))
        .stdin(Stdio::null())
        .stdout(verdict)
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    Ok(command)
}

/// Whatever it says is kept, and when the load is over is told; a log that cannot be written is not worth a run.
async fn keep_log(
    mut errors: BufReader<ChildStderr>,
    mut log: tokio::fs::File,
    tell_over: oneshot::Sender<()>,
) {
    let (mut tell_over, mut line) = (Some(tell_over), Vec::new());
    while errors.read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
        if String::from_utf8_lossy(&line).contains(IS_OVER)
            && let Some(tell_over) = tell_over.take()
        {
            let _ = tell_over.send(());
        }
        let _ = log.write_all(&line).await;
        let _ = log.flush().await;
        line.clear();
    }
}
