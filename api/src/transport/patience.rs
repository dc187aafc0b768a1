//! A connection whose client has to go on: so many seconds for a request from its first byte to its answer, so many for
//! taking an answer, and a bound on what is sent without waiting for one.
//!
//! actix bounds the head of a connection's first request alone. A later one could come byte by byte for ever, the rest
//! of a body that was refused could go on for ever, and an answer that nobody reads would keep its memory.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// How long an idle connection is kept; clients that buy again within it save a handshake. actix ends it.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// The most bytes that are read without an answer: sixteen requests in a pipeline, each with the largest body, or what a
/// refused body still sends. That is thrown away, so it costs no memory; a client that is cut at once would often lose
/// the answer that says why.
const UNANSWERED_MAX: usize = 16 * 1024 * 1024;

/// What the connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// For a request.
    Idle,
    /// For the rest of a request, or for our answer.
    Request,
    /// For the client to take an answer.
    Answer,
}

/// A connection that is cut where its client does not go on.
pub(super) struct Patient<S> {
    stream: S,
    patience: Duration,
    phase: Phase,
    since: Instant,
    unanswered: usize,
    /// Ends when the phase does or earlier: it is set anew only where it has to, and not for every request.
    timer: Pin<Box<Sleep>>,
}

impl<S> Patient<S> {
    pub(super) fn new(stream: S, patience: Duration) -> Self {
        let since = Instant::now();
        let timer = Box::pin(sleep_until(since + patience));
        Self { stream, patience, phase: Phase::Idle, since, unanswered: 0, timer }
    }

    fn enter(&mut self, phase: Phase) {
        (self.phase, self.since) = (phase, Instant::now());
    }

    fn deadline(&self) -> Instant {
        match self.phase {
            // Longer than actix waits, unless half a request of a pipeline keeps it from noticing.
            Phase::Idle => self.since + KEEP_ALIVE + self.patience,
            Phase::Request | Phase::Answer => self.since + self.patience,
        }
    }

    fn received(&mut self, bytes: usize) -> io::Result<()> {
        if self.phase == Phase::Idle {
            self.enter(Phase::Request);
        }
        self.unanswered = self.unanswered.saturating_add(bytes);
        if self.unanswered > UNANSWERED_MAX { Err(cut("endless")) } else { Ok(()) }
    }

    fn sent(&mut self) {
        self.unanswered = 0;
        if self.phase == Phase::Request {
            self.enter(Phase::Idle);
        }
    }

    /// Nothing to read or no room to write: waits, but not longer than the client is given.
    fn wait<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        let deadline = self.deadline();
        if deadline < self.timer.deadline() {
            self.timer.as_mut().reset(deadline);
        }
        ready!(self.timer.as_mut().poll(context));
        if Instant::now() >= deadline {
            let why = match self.phase {
                Phase::Idle => "idle",
                Phase::Request => "slow_request",
                Phase::Answer => "slow_reader",
            };
            return Poll::Ready(Err(cut(why)));
        }
        self.timer.as_mut().reset(deadline);
        self.timer.as_mut().poll(context).map(|()| Err(cut("idle")))
    }

    /// The same while an answer waits to be taken.
    fn wait_for_reader<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if self.phase != Phase::Answer {
            self.enter(Phase::Answer);
        }
        self.wait(context)
    }
}

fn cut(why: &'static str) -> io::Error {
    metrics::counter!("boxoffice_connections_cut_total", "reason" => why).increment(1);
    io::Error::new(io::ErrorKind::TimedOut, why)
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Ready(Ok(())) => Poll::Ready(self.received(buffer.filled().len() - before)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.wait(context),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(context, bytes) {
            Poll::Pending => self.wait_for_reader(context),
            written => {
                self.sent();
                written
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_flush(context) {
            Poll::Pending => self.wait_for_reader(context),
            flushed => {
                // All of it was taken. A reader that takes a byte now and then never gets here.
                if self.phase == Phase::Answer {
                    self.enter(Phase::Idle);
                }
                flushed
            }
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // TLS says goodbye, for which there must be room.
        match Pin::new(&mut self.stream).poll_shutdown(context) {
            Poll::Pending => self.wait_for_reader(context),
            ended => ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn connection() -> (DuplexStream, Patient<DuplexStream>) {
        let (client, server) = duplex(64);
        (client, Patient::new(server, PATIENCE))
    }

    fn why(error: &io::Error) -> String {
        error.to_string()
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_comes_byte_by_byte_is_cut_after_so_many_seconds_in_all() {
        let (mut client, mut server) = connection();
        let started = Instant::now();
        let trickle = tokio::spawn(async move {
            while client.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(3)).await;
            }
        });
        let mut sink = [0; 8];
        let error = loop {
            if let Err(error) = server.read(&mut sink).await {
                break error;
            }
        };
        assert_eq!(why(&error), "slow_request");
        assert_eq!(started.elapsed().as_secs(), PATIENCE.as_secs());
        drop(server);
        trickle.await.unwrap();
    }

    /// The end of TLS where the client takes nothing any more.
    struct NoRoom(DuplexStream);

    impl AsyncRead for NoRoom {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(context, buffer)
        }
    }

    impl AsyncWrite for NoRoom {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_that_the_client_does_not_take_is_not_waited_for_without_a_bound() {
        let (_client, server) = duplex(64);
        let mut server = Patient::new(NoRoom(server), PATIENCE);
        let started = Instant::now();
        assert_eq!(why(&server.shutdown().await.unwrap_err()), "slow_reader");
        assert_eq!(started.elapsed().as_secs(), PATIENCE.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_starts_the_time_anew() {
        let (mut client, mut server) = connection();
        let mut sink = [0; 8];
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_secs(25)).await;
            client.write_all(b"request").await.unwrap();
            let read = server.read(&mut sink).await.unwrap();
            server.write_all(&sink[..read]).await.unwrap();
            server.flush().await.unwrap();
            client.read_exact(&mut sink[..7]).await.unwrap();
        }
        let started = Instant::now();
        assert_eq!(why(&server.read(&mut sink).await.unwrap_err()), "idle");
        assert_eq!(started.elapsed(), KEEP_ALIVE + PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_read_byte_by_byte_is_cut() {
        let (mut client, mut server) = connection();
        let started = Instant::now();
        let trickle = tokio::spawn(async move {
            let mut byte = [0; 1];
            while client.read_exact(&mut byte).await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let error = server.write_all(&[0; 4_096]).await.unwrap_err();
        assert_eq!(why(&error), "slow_reader");
        assert_eq!(started.elapsed().as_secs(), PATIENCE.as_secs());
        drop(server);
        trickle.await.unwrap();
    }

    #[tokio::test]
    async fn what_is_sent_without_waiting_for_an_answer_is_bounded() {
        let (mut client, mut server) = connection();
        let flood = tokio::spawn(async move { while client.write_all(&[0; 64]).await.is_ok() {} });
        let mut read = 0;
        let mut sink = [0; 64];
        let error = loop {
            match server.read(&mut sink).await {
                Ok(bytes) => read += bytes,
                Err(error) => break error,
            }
        };
        assert_eq!(why(&error), "endless");
        assert!((UNANSWERED_MAX - 64..=UNANSWERED_MAX).contains(&read), "{read}");
        drop(server);
        flood.await.unwrap();
    }
}
