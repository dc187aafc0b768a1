//! The smallest HTTP client there is, for probes and metrics of one instance on loopback.

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::proxy::local;

/// Largest answer that is read; metrics of 16 shards are a tenth of it.
const ANSWER_MAX: u64 = 1024 * 1024;

/// The status and body of `GET path`, over a connection of its own. It has no deadline; its callers have.
pub(crate) async fn get(port: u16, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(local(port)).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer without an end of its head")?;
    let status = head.split(' ').nth(1).context("an answer without a status")?;
    Ok((status.parse().context("a status that is no number")?, body.to_owned()))
}
