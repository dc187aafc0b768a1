//! The way in, tried as an attacker would: by bytes on a socket, where HTTP's clients are too polite.

mod bounds;
mod browsers;
mod malformed;
mod proxies;
mod tls;

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::world::World;

/// No answer of the server, and no cut, takes longer than this in any of these tests.
const DEADLINE: Duration = Duration::from_secs(30);

/// A connection that sends what it is told, byte by byte.
pub struct Raw {
    stream: TcpStream,
    read: Vec<u8>,
}

/// An answer as it came.
#[derive(Debug)]
pub struct RawAnswer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl RawAnswer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let named = |line: &&str| line.split(':').next().is_some_and(|sent| sent.eq_ignore_ascii_case(name));
        self.head.lines().find(named).and_then(|line| line.split_once(": ")).map(|(_, value)| value)
    }
}

impl Raw {
    pub async fn to(world: &World) -> Self {
        let stream = TcpStream::connect(address(world)).await.unwrap();
        Self { stream, read: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Sends the same again and again until the server takes no more, or so many bytes were taken; how many.
    pub async fn flood(&mut self, bytes: &[u8], most: usize) -> usize {
        let mut sent = 0;
        let flooding = async {
            while sent < most && self.stream.write_all(bytes).await.is_ok() {
                sent += bytes.len();
            }
        };
        timeout(DEADLINE, flooding).await.expect("the server neither reads on nor ends the connection");
        sent
    }

    /// The next answer; nothing where the connection ends first.
    pub async fn answer(&mut self) -> Option<RawAnswer> {
        let end = loop {
            if let Some(at) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.receive().await {
                return None;
            }
        };
        let head = String::from_utf8(self.read.drain(..end).collect()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = RawAnswer { status, head, body: Vec::new() };
        let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        while self.read.len() < length {
            assert!(self.receive().await, "the connection ended within an answer: {answer:?}");
        }
        answer.body = self.read.drain(..length).collect();
        Some(answer)
    }

    /// Whether more came before the end of the connection.
    async fn receive(&mut self) -> bool {
        let mut chunk = [0; 16 * 1024];
        let read = timeout(DEADLINE, self.stream.read(&mut chunk)).await;
        let read = read.expect("the server neither answers nor ends the connection").unwrap_or(0);
        self.read.extend_from_slice(&chunk[..read]);
        read > 0
    }

    /// Waits for the end of the connection, and asserts that nothing was answered before it.
    pub async fn ended(mut self) {
        let answer = self.answer().await;
        assert!(answer.is_none(), "answered where the connection should have ended: {answer:?}");
    }

    /// Everything that still comes.
    pub async fn rest(mut self) -> usize {
        while self.receive().await {}
        self.read.len()
    }
}

/// Host and port.
pub fn address(world: &World) -> &str {
    world.base.split_once("://").unwrap().1
}

/// The head of a booking without its end, for fields of a test's own.
pub fn booking_head(event: &str, key: &str) -> String {
    format!(
        "POST /v1/events/{event}/bookings HTTP/1.1\r\nHost: boxoffice\r\nIdempotency-Key: {key}\r\n\
         Content-Type: application/json\r\n"
    )
}

/// A whole booking.
pub fn booking(event: &str, key: &str, body: &str) -> String {
    booking_head(event, key) + &format!("Content-Length: {}\r\n\r\n{body}", body.len())
}

/// A metric of the process, which all of its worlds share.
pub async fn metric(world: &World, line: &str) -> Option<f64> {
    let text = String::from_utf8(world.get("/metrics").await.body).unwrap();
    let found = text.lines().find_map(|shown| shown.strip_prefix(line).map(str::to_owned));
    found.and_then(|value| value.trim().parse().ok())
}
