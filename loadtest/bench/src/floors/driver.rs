//! Redis under prepared commands, as `redis-benchmark` does it: so many connections, so many commands under way on each.
//! It is our own because `redis-benchmark` cannot express the script's arguments (they hold zero bytes, and a booking's
//! slot follows from its key); that both measure the same is shown with a command that both can express.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use memchr::memchr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

/// Beyond the planned time.
const GRACE: Duration = Duration::from_secs(20);

/// Commands, encoded one after the other.
pub(super) struct Commands {
    pub(super) bytes: Vec<u8>,
    /// Where each ends.
    pub(super) ends: Vec<usize>,
    /// How the answer to each begins when it did what it should.
    pub(super) wanted: &'static [u8],
}

impl Commands {
    fn of(&self, from: usize, to: usize) -> &[u8] {
        let at = |number: usize| if number == 0 { 0 } else { self.ends[number - 1] };
        &self.bytes[at(from)..at(to)]
    }
}

/// How to drive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drive {
    pub(crate) connections: usize,
    /// Commands under way on each connection; 1: unpipelined.
    pub(crate) pipeline: usize,
    pub(crate) time: Duration,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Driven {
    /// Commands that did what they should.
    pub(crate) done: u64,
    pub(crate) took: Duration,
}

impl Driven {
    /// A second.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub(crate) fn rate(&self) -> f64 {
        self.done as f64 / self.took.as_secs_f64()
    }
}

struct Shared {
    commands: Commands,
    plan: Drive,
    next: Cell<usize>,
    done: RefCell<u64>,
    until: Instant,
}

/// Sends the commands until the time or the commands have run out. Any other answer than the wanted one is an error.
pub(super) async fn send(redis: SocketAddr, commands: Commands, plan: Drive) -> Result<Driven> {
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        LocalSet::new().block_on(&runtime, async {
            let all = send_all(redis, commands, plan);
            tokio::time::timeout(plan.time + GRACE, all).await.context("Redis did not answer in time")?
        })
    };
    tokio::task::spawn_blocking(run).await?
}

async fn send_all(redis: SocketAddr, commands: Commands, plan: Drive) -> Result<Driven> {
    let mut connections = Vec::with_capacity(plan.connections);
    for _ in 0..plan.connections {
        let stream = TcpStream::connect(redis).await.context("Redis takes no connection")?;
        stream.set_nodelay(true)?;
        connections.push(stream);
    }
    let start = Instant::now();
    let until = start + plan.time;
    let shared = Rc::new(Shared { commands, plan, next: Cell::new(0), done: RefCell::new(0), until });
    let clients: Vec<_> = connections
        .into_iter()
        .map(|stream| tokio::task::spawn_local(client(shared.clone(), stream)))
        .collect();
    for client in clients {
        client.await??;
    }
    let done = *shared.done.borrow();
    Ok(Driven { done, took: start.elapsed() })
}

async fn client(shared: Rc<Shared>, mut stream: TcpStream) -> Result<()> {
    let mut buffer = Vec::with_capacity(16 * 1024);
    loop {
        let from = shared.next.get();
        let to = (from + shared.plan.pipeline).min(shared.commands.ends.len());
        if Instant::now() >= shared.until || from == to {
            return Ok(());
        }
        shared.next.set(to);
        stream.write_all(shared.commands.of(from, to)).await?;
        buffer.clear();
        let mut read = 0;
        for _ in from..to {
            let end = loop {
                if let Some(end) = end_of_reply(&buffer[read..])? {
                    break read + end;
                }
                ensure!(stream.read_buf(&mut buffer).await? > 0, "Redis closed the connection");
            };
            let reply = &buffer[read..end];
            if !is_wanted(reply, shared.commands.wanted) {
                bail!("Redis answers {}", String::from_utf8_lossy(reply).escape_debug());
            }
            read = end;
        }
        *shared.done.borrow_mut() += (to - from) as u64;
    }
}

/// An array of one string, as the scripts reply, or a simple reply; the string's beginning decides.
fn is_wanted(reply: &[u8], wanted: &[u8]) -> bool {
    let Some(array) = reply.strip_prefix(b"*1\r\n$") else { return reply.starts_with(wanted) };
    let at = memchr(b'\n', array).map_or(array.len(), |at| at + 1);
    array[at..].starts_with(wanted)
}

/// Where the first reply ends, once it is complete.
fn end_of_reply(bytes: &[u8]) -> Result<Option<usize>> {
    let Some(line) = memchr(b'\n', bytes) else { return Ok(None) };
    let number = || -> Result<i64> { Ok(std::str::from_utf8(&bytes[1..line.saturating_sub(1)])?.parse()?) };
    match bytes[0] {
        b'+' | b'-' | b':' => Ok(Some(line + 1)),
        b'$' => {
            let length = usize::try_from(number()?).unwrap_or_default();
            let end = line + 1 + length + 2;
            Ok((bytes.len() >= end).then_some(end))
        }
        b'*' => {
            let mut end = line + 1;
            for _ in 0..number()? {
                let Some(next) = end_of_reply(&bytes[end..])? else { return Ok(None) };
                end += next;
            }
            Ok(Some(end))
        }
        other => bail!("Redis answers with {other:#04x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_ends_where_its_last_part_ends() {
        let whole = b"*1\r\n$3\r\nBcd\r\n+OK\r\n";
        assert_eq!(end_of_reply(whole).unwrap(), Some(13));
        assert_eq!(end_of_reply(&whole[..12]).unwrap(), None);
        assert_eq!(end_of_reply(&whole[13..]).unwrap(), Some(5));
        assert!(is_wanted(&whole[..13], b"B"));
        assert!(!is_wanted(b"*1\r\n$1\r\nS\r\n", b"B"));
        assert!(is_wanted(b"+OK\r\n", b"+OK"));
    }
}
