//! `redis-benchmark` itself, with commands that it can express.

use std::net::SocketAddr;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::{CheckScript, SetCommand};

/// How many digits it puts in the place of this word.
const RANDOM: &str = "__rand_int__";

/// It tries for ever to connect to a Redis that is not there.
const WITHIN: Duration = Duration::from_secs(60);

/// Commands a second of `SET`, unpipelined; `None` where this machine has no `redis-benchmark`.
pub(crate) async fn set(redis: SocketAddr, connections: usize, set: &SetCommand) -> Result<Option<f64>> {
    let mut command = benchmark(redis, connections, set.times);
    command.args(["SET", set.key, set.value]);
    measured(command, b"").await
}

/// Checks a second by the limiter's script, unpipelined, with the arguments that the API would send; `None` where this
/// machine has no `redis-benchmark`. The packed argument holds zero bytes, and so comes from its input.
pub(crate) async fn check(
    redis: SocketAddr,
    connections: usize,
    times: u32,
    script: &CheckScript,
) -> Result<Option<f64>> {
    let call = script.call(0);
    let [key] = &call.keys[..] else { anyhow::bail!("a check of one subject has one key") };
    let [count, packed] = &call.args[..] else { anyhow::bail!("the limiter's script takes two arguments") };
    // The same number of subjects under names of the same length; which they are makes no difference to the script.
    let name = format!("{}{RANDOM}", &key[..key.len() - RANDOM.len()]);
    let mut command = benchmark(redis, connections, times);
    command.args(["-r", &script.subjects().to_string(), "-x", "EVALSHA", call.script.sha1(), "1", &name]);
    command.arg(std::str::from_utf8(count)?);
    measured(command, packed).await
}

fn benchmark(redis: SocketAddr, connections: usize, times: u32) -> Command {
    let mut command = Command::new("redis-benchmark");
    command.args(["-h", &redis.ip().to_string(), "-p", &redis.port().to_string()]).args([
        "-c",
        &connections.to_string(),
        "-n",
        &times.to_string(),
        "--csv",
    ]);
    command
}

async fn measured(mut command: Command, input: &[u8]) -> Result<Option<f64>> {
    command.kill_on_drop(true).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        child => child?,
    };
    // It is closed behind the input, which `-x` waits for.
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input).await?;
    }
    let ended = tokio::time::timeout(WITHIN, child.wait_with_output()).await;
    let Output { status, stdout, stderr } = ended.context("redis-benchmark does not end")??;
    let (printed, said) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    ensure!(status.success() && !printed.contains("ERR"), "redis-benchmark failed: {printed} {said}");
    Ok(Some(rate(&printed).context("what redis-benchmark prints")?))
}

/// The second column of the last line: `"SET key value","31446.54","1.9",...`.
fn rate(csv: &str) -> Option<f64> {
    let last = csv.lines().rfind(|line| !line.trim().is_empty())?;
    last.split("\",\"").nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_the_second_column() {
        let csv = "\"test\",\"rps\",\"avg_latency_ms\"\n\"SET a b\",\"31446.54\",\"1.931\"\n";
        assert_eq!(rate(csv), Some(31_446.54));
        assert_eq!(rate(""), None);
    }
}
