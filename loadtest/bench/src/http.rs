//! One HTTP/1.1 connection, kept alive: as little client as possible, because it shares the machine with what it
//! measures. It reads the answers of Boxoffice, which always carry a `Content-Length`.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The longest wait for an answer. The contract promises one within two seconds.
const PATIENCE: Duration = Duration::from_secs(3);

/// The most bytes of an answer; none that is asked for here comes near.
const ANSWER_MAX: usize = 1 << 20;

/// A connection to one API instance.
pub(crate) struct Connection {
    address: SocketAddr,
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer in full.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = tokio::time::timeout(PATIENCE, TcpStream::connect(address))
            .await
            .context("connecting took too long")?
            .with_context(|| format!("{address} takes no connection"))?;
        stream.set_nodelay(true)?;
        Ok(Self { address, stream, buffer: Vec::with_capacity(4096) })
    }

    /// Sends a request and waits for its answer. `headers` are whole lines, each ended by CR and LF.
    pub(crate) async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &str,
        body: &str,
    ) -> Result<Answer> {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{headers}\r\n{body}",
            self.address,
            body.len()
        );
        let exchange = async {
            self.stream.write_all(request.as_bytes()).await?;
            self.read_answer().await
        };
        tokio::time::timeout(PATIENCE, exchange).await.context("no answer in time")?
    }

    async fn read_answer(&mut self) -> Result<Answer> {
        self.buffer.clear();
        loop {
            if let Some((status, at, length)) = parse_head(&self.buffer)? {
                while self.buffer.len() < at + length {
                    self.read_more().await?;
                }
                return Ok(Answer { status, body: self.buffer[at..at + length].to_vec() });
            }
            self.read_more().await?;
        }
    }

    async fn read_more(&mut self) -> Result<()> {
        if self.buffer.len() > ANSWER_MAX {
            bail!("{} answers with more than {ANSWER_MAX} bytes", self.address);
        }
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            bail!("{} closed the connection", self.address);
        }
        Ok(())
    }
}

/// Status, where the body begins, and its length; `None` while the head is not complete.
fn parse_head(bytes: &[u8]) -> Result<Option<(u16, usize, usize)>> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&bytes[..end]).context("the head of an answer is not text")?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status line")?;
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(Ok(0), |(_, value)| value.trim().parse())?;
    Ok(Some((status.parse()?, end + 4, length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_only_when_it_is_complete() {
        let whole = b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\nx: y\r\n\r\n{}";
        assert_eq!(parse_head(whole).unwrap(), Some((201, whole.len() - 2, 2)));
        assert_eq!(parse_head(&whole[..40]).unwrap(), None);
        assert!(parse_head(b"nonsense\r\n\r\n").is_err());
    }
}
