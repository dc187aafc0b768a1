//! What the metrics of the service tell: its own process, since a process has one set of them.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::process::Stdio;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::relaying::while_relayed;
use crate::repairing::{redis_integer, sold};
use crate::sale::Sale;
use crate::stack::{FIRST, SECOND, Stack, wait_until};

const NOTHING: Option<[f64; 4]> = Some([0.0; 4]);

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// All metrics that were set so far, by their names and labels.
async fn read(listen: SocketAddr) -> io::Result<HashMap<String, f64>> {
    let mut connection = TcpStream::connect(listen).await?;
    connection.write_all(b"GET /metrics HTTP/1.1\r\nHost: metrics\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    let parse = |line: &str| {
        let (metric, value) = line.rsplit_once(' ')?;
        Some((metric.to_owned(), value.parse::<f64>().ok()?))
    };
    Ok(answer.lines().filter_map(parse).collect())
}

/// The open gaps, the open dead letters, the tickets of drift, and what the second shard has still to apply; none before all of
/// them were set.
async fn shown(listen: SocketAddr) -> Option<[f64; 4]> {
    let metrics = read(listen).await.ok()?;
    let gauge = |name: &str| metrics.get(&format!("boxoffice_reconciler_{name}")).copied();
    let lag = gauge(r#"lag_records{shard="s01"}"#)?;
    Some([gauge("gaps_open")?, gauge("dead_letters_open")?, gauge("drift_tickets")?, lag])
}

/// One decision cannot be read, the next one is missing, and two wait behind it.
async fn spoil_the_second_shard(stack: &Stack) {
    let mut sale = Sale::new(SECOND, 10);
    stack.append(&[sale.publish()]).await;
    stack.append_as(&sale.book("poisoned", 1), b"not JSON").await;
    sale.book("missing", 1);
    // PostgreSQL never hears of the two, so that it counts as if they had not been.
    sale.ticket_type().sold = 0;
    stack.append(&[sale.book("waiting", 1), sale.book("waiting-too", 1)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_told_by_the_metrics_until_somebody_has_put_it_right() {
    let stack = Stack::prepare().await;
    let listen = free_address();
    let mut service = stack
        .binary(&["run"])
        .env("BOXOFFICE_METRICS_LISTEN", listen.to_string())
        .env("BOXOFFICE_AUDIT_INTERVAL_MS", "200")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let sale = sold(&stack).await;
    wait_until("the metrics tell of nothing", async || shown(listen).await == NOTHING).await;

    spoil_the_second_shard(&stack).await;
    let key = stack.config.keys().event(FIRST, sale.id());
    redis_integer(&stack, "HINCRBY", &[key.as_bytes(), b"sold0", b"3"]).await;
    let all = Some([1.0, 1.0, 3.0, 2.0]);
    wait_until("the metrics tell of everything", async || shown(listen).await == all).await;

    for arguments in [["gaps", "accept", "1"], ["dead-letters", "discard", "1"]] {
        let (code, printed) = stack.command(&arguments).await;
        assert_eq!(code, 0, "{printed}");
    }
    let event = sale.id().to_string();
    let (code, printed) = while_relayed(&stack, stack.command(&["repair", "--event", &event])).await;
    assert_eq!(code, 0, "{printed}");
    wait_until("the metrics tell of nothing any more", async || shown(listen).await == NOTHING).await;
    service.kill().await.unwrap();
    stack.remove().await;
}
