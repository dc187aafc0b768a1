//! An open loop: requests are due at fixed times, whatever became of the earlier ones, and a latency counts from when
//! the request was due. A client that waits for its answer before it asks again would ask less while the server is
//! slow, and so leave out the very requests that would have waited (coordinated omission).

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::mpsc;

use super::exchange::Exchange;
use super::{Ask, Tally, on_own_thread};

/// How much is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Open {
    /// Requests a second, evenly spread.
    pub(crate) rate: u32,
    pub(crate) requests: u64,
    /// The first so many are not counted.
    pub(crate) warm_up: u64,
    /// Where all of them wait for an answer, requests wait too, and the wait counts.
    pub(crate) connections: usize,
}

/// The pacemaker sleeps no shorter: at higher rates a few requests are due at a time, none more than this too late.
const SHORTEST_SLEEP: Duration = Duration::from_micros(200);

impl Open {
    fn due(&self, start: Instant, number: u64) -> Instant {
        let nanos = u128::from(number) * 1_000_000_000 / u128::from(self.rate);
        start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn time(&self) -> Duration {
        let start = Instant::now();
        self.due(start, self.requests).duration_since(start)
    }
}

/// How long after the last request was due the loop is given up, where the server does not keep up.
const OVERTIME: Duration = Duration::from_secs(5);

/// Asks at a steady rate.
pub(crate) async fn open(at: SocketAddr, ask: Arc<dyn Ask>, plan: Open) -> Result<Tally> {
    on_own_thread(plan.time(), move || run(at, ask, plan)).await
}

async fn run(at: SocketAddr, ask: Arc<dyn Ask>, plan: Open) -> Result<Tally> {
    let (free, mut idle) = mpsc::unbounded_channel();
    for _ in 0..plan.connections {
        let _ = free.send(Exchange::open(at).await?);
    }
    let tally = Rc::new(RefCell::new(Tally::new()?));
    let start = Instant::now() + Duration::from_millis(10);
    let give_up_at = plan.due(start, plan.requests) + OVERTIME;
    let mut due = pacemaker(plan, start);
    let mut asking = Vec::with_capacity(usize::try_from(plan.requests)?);
    while let Some(number) = due.recv().await {
        if Instant::now() > give_up_at {
            tally.borrow_mut().give_up(plan.due(start, number).elapsed());
            continue;
        }
        let mut connection = idle.recv().await.context("no connection is left")?;
        connection.request.clear();
        ask.write(number, &mut connection.request);
        let (tally, free) = (tally.clone(), free.clone());
        asking.push(tokio::task::spawn_local(async move {
            let answer = connection.send().await;
            let answer = match answer {
                Ok(answer) => answer,
                Err(error) => {
                    tally.borrow_mut().break_off(&format!("{error:#}"), number >= plan.warm_up);
                    let _ = free.send(Exchange::open(at).await?);
                    return anyhow::Ok(());
                }
            };
            let late = plan.due(start, number).elapsed();
            tally.borrow_mut().note(&answer, number >= plan.warm_up, late);
            let _ = free.send(connection);
            Ok(())
        }));
    }
    for one in asking {
        one.await??;
    }
    let mut tally = Rc::into_inner(tally).context("a request is still under way")?.into_inner();
    tally.took = plan.due(start, plan.warm_up).elapsed();
    tally.started = Some(start);
    Ok(tally)
}

/// Says which request is due. A thread of its own, because a runtime's timers are a millisecond apart.
fn pacemaker(plan: Open, start: Instant) -> mpsc::UnboundedReceiver<u64> {
    let (say, due) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for number in 0..plan.requests {
            let left = plan.due(start, number).saturating_duration_since(Instant::now());
            if !left.is_zero() {
                std::thread::sleep(left.max(SHORTEST_SLEEP));
            }
            if say.send(number).is_err() {
                return;
            }
        }
    });
    due
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::load::Kind;

    struct Anything;

    impl Ask for Anything {
        fn write(&self, _number: u64, into: &mut Vec<u8>) {
            into.extend_from_slice(b"GET / HTTP/1.1\r\n\r\n");
        }
    }

    /// Answers at once, and each tenth time closes the connection instead.
    async fn serve(mut stream: TcpStream, asked: Arc<AtomicU64>) {
        let mut request = [0; 64];
        while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
            if asked.fetch_add(1, Ordering::Relaxed) % 10 == 9 || stream.write_all(answer).await.is_err() {
                return;
            }
        }
    }

    #[tokio::test]
    async fn a_request_whose_connection_broke_is_among_the_longest_and_not_left_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let asked = Arc::new(AtomicU64::new(0));
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, asked.clone()));
            }
        });
        let plan = Open { rate: 2_000, requests: 400, warm_up: 100, connections: 8 };
        let tally = open(at, Arc::new(Anything), plan).await.unwrap();
        assert_eq!(tally.unanswered, 40);
        assert_eq!(tally.count(Kind::Read) + tally.count(Kind::Refused), 300);
        let quantiles = tally.quantiles_of_all(&[0.5, 0.99]).unwrap();
        assert!(quantiles[0] < 10_000.0 && quantiles[1] > 59_000.0, "{quantiles:?}");
    }
}
