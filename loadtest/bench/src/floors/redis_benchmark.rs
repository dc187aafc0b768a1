//! `redis-benchmark` itself, with a command that it can express.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use super::SetCommand;

/// Commands a second of `SET`, unpipelined; `None` where this machine has no `redis-benchmark`.
pub(crate) async fn set(redis: SocketAddr, connections: usize, set: &SetCommand) -> Result<Option<f64>> {
    let mut command = Command::new("redis-benchmark");
    command
        .args(["-h", &redis.ip().to_string(), "-p", &redis.port().to_string()])
        .args(["-c", &connections.to_string(), "-n", &set.times.to_string(), "--csv"])
        .args(["SET", set.key, set.value]);
    let output = match command.output().await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        output => output?,
    };
    ensure!(output.status.success(), "redis-benchmark failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(Some(rate(&String::from_utf8_lossy(&output.stdout)).context("what redis-benchmark prints")?))
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
