//! One kept-alive connection that sends prepared bytes and reads answers, with as little work as can be.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

use super::tally::Kind;

/// The most bytes of an answer; none that is asked for here comes near.
const ANSWER_MAX: usize = 1 << 20;

/// The most bytes of a body that are shown.
const REFUSAL_MAX: usize = 300;

/// A connection to what is measured.
pub(super) struct Exchange {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// The next request; written by whoever sends it.
    pub(super) request: Vec<u8>,
}

/// What came back.
pub(super) struct Answer {
    pub(super) kind: Kind,
    /// Of what was sold.
    pub(super) booking: Option<Uuid>,
    /// How the answer begins, where it was none that was expected.
    pub(super) refusal: Option<String>,
}

impl Exchange {
    pub(super) async fn open(address: SocketAddr) -> Result<Self> {
        let stream =
            TcpStream::connect(address).await.with_context(|| format!("{address} takes no connection"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(4096), request: Vec::with_capacity(1024) })
    }

    /// Sends the request, and reads its answer.
    pub(super) async fn send(&mut self) -> Result<Answer> {
        self.stream.write_all(&self.request).await?;
        self.buffer.clear();
        loop {
            ensure!(self.buffer.len() <= ANSWER_MAX, "an answer has more than {ANSWER_MAX} bytes");
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("the connection was closed");
            }
            if let Some((head, body)) = split(&self.buffer)? {
                return answer(head, body);
            }
        }
    }
}

/// Head and body; `None` while the answer is not complete.
fn split(bytes: &[u8]) -> Result<Option<(&[u8], &[u8])>> {
    let Some(end) = memmem::find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let (head, body) = (&bytes[..end], &bytes[end + 4..]);
    let at = memmem::find(head, b"ontent-length: ").or_else(|| memmem::find(head, b"ontent-Length: "));
    let at = at.context("an answer without Content-Length")? + b"ontent-length: ".len();
    let digits = head[at..].iter().take_while(|byte| byte.is_ascii_digit());
    let length = digits.fold(0, |length, digit| 10 * length + usize::from(digit - b'0'));
    Ok((body.len() >= length).then(|| (head, &body[..length])))
}

fn answer(head: &[u8], body: &[u8]) -> Result<Answer> {
    let status = head.get(9..12).context("an answer without a status")?;
    let kind = match status {
        b"201" if memmem::find(head, b"idempotent-replayed").is_some() => Kind::Replayed,
        b"201" => Kind::Sold,
        b"200" if body.starts_with(b"{\"allowed\":false") => Kind::TooOften,
        b"200" => Kind::Read,
        b"429" => Kind::TooOften,
        b"409" if memmem::find(body, b"\"sold_out\"").is_some() => Kind::SoldOut,
        _ => Kind::Refused,
    };
    let booking = (kind == Kind::Sold).then(|| booking_id(body)).transpose()?;
    let refusal = (kind == Kind::Refused).then(|| beginning(status, body));
    Ok(Answer { kind, booking, refusal })
}

fn beginning(status: &[u8], body: &[u8]) -> String {
    let body = &body[..body.len().min(REFUSAL_MAX)];
    format!("{} {}", String::from_utf8_lossy(status), String::from_utf8_lossy(body))
}

/// A booking's body begins with its id.
fn booking_id(body: &[u8]) -> Result<Uuid> {
    let id = body.strip_prefix(b"{\"id\":\"").and_then(|rest| rest.get(..36));
    Uuid::try_parse_ascii(id.context("a booking without an id")?).context("a booking's id")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_complete_with_its_body() {
        let whole = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx: y\r\n\r\n{}";
        assert_eq!(split(whole).unwrap().unwrap().1, b"{}");
        assert!(split(&whole[..whole.len() - 1]).unwrap().is_none());
        assert!(split(&whole[..20]).unwrap().is_none());
        assert!(split(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }

    #[test]
    fn sales_are_told_from_replays_and_refusals() {
        let id = Uuid::from_u128(7);
        let body = format!("{{\"id\":\"{id}\"}}").into_bytes();
        let sold = answer(b"HTTP/1.1 201 Created\r\n", &body).unwrap();
        assert_eq!((sold.kind, sold.booking), (Kind::Sold, Some(id)));
        let replayed = answer(b"HTTP/1.1 201 Created\r\nidempotent-replayed: true\r\n", &body).unwrap();
        assert_eq!((replayed.kind, replayed.booking), (Kind::Replayed, None));
        let kind = |head: &[u8], body: &[u8]| answer(head, body).unwrap().kind;
        assert_eq!(kind(b"HTTP/1.1 409 Conflict\r\n", br#"{"code":"sold_out"}"#), Kind::SoldOut);
        assert_eq!(kind(b"HTTP/1.1 409 Conflict\r\n", br#"{"code":"not_on_sale"}"#), Kind::Refused);
        assert_eq!(kind(b"HTTP/1.1 429 Too Many Requests\r\n", b"{}"), Kind::TooOften);
        assert_eq!(kind(b"HTTP/1.1 200 OK\r\n", br#"{"allowed":false}"#), Kind::TooOften);
        assert_eq!(kind(b"HTTP/1.1 200 OK\r\n", br#"{"allowed":true}"#), Kind::Read);
        let refused = answer(b"HTTP/1.1 503 Service Unavailable\r\n", br#"{"code":"overloaded"}"#).unwrap();
        assert_eq!(
            (refused.kind, refused.refusal.as_deref()),
            (Kind::Refused, Some("503 {\"code\":\"overloaded\"}"))
        );
        assert!(answer(b"HTTP/1.1 201 Created\r\n", b"{}").is_err());
    }
}
