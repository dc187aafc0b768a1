//! What the rate limits decided, summed up.

use boxoffice_schema::rate_record::{RateDecisions, RateRecord};
use chrono::{DateTime, Utc};

use crate::stack::{Stack, wait_until};

/// A minute that is never too old.
const MINUTE: i64 = 4_102_444_800;

fn record(at: DateTime<Utc>, key: &str, allowed: u32, refused: u32) -> Vec<u8> {
    let (policy, key) = ("per-address".to_owned(), key.to_owned());
    let decisions = RateDecisions { policy, key, allowed, refused, refused_from_memory: 0 };
    RateRecord::new("instance".to_owned(), at, vec![decisions]).encode()
}

fn in_minute(minute: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(MINUTE + 60 * minute + 7, 0).unwrap()
}

async fn sums(stack: &Stack) -> Vec<(i64, i64)> {
    sqlx::query_as("SELECT allowed, refused FROM rate_limit_minutes ORDER BY minute")
        .fetch_all(&stack.pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn decisions_are_summed_by_minute_and_what_cannot_be_read_is_left_out() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.append_rates(&record(in_minute(0), "ann", 3, 1)).await;
    stack.append_rates(b"nonsense").await;
    stack.append_rates(&record(in_minute(0), "ann", 2, 2)).await;
    stack.append_rates(&record(in_minute(1), "ann", 5, 0)).await;
    wait_until("the decisions are summed up", async || sums(&stack).await == [(5, 3), (5, 0)]).await;
    service.stop().await;
    stack.remove().await;
}

#[tokio::test]
async fn decisions_are_counted_once_although_two_services_read_them_at_the_same_time() {
    let stack = Stack::prepare().await;
    let (first, second) = (stack.start(), stack.start());
    for round in 1..=20 {
        for _ in 0..20 {
            stack.append_rates(&record(in_minute(0), "ann", 1, 2)).await;
        }
        // Whoever stands by takes the lease at once, and for up to a second its former holder does not know.
        stack.execute("DELETE FROM leases").await;
        let next = stack.number("SELECT next_offset FROM rate_limit_progress").await;
        wait_until("reading goes on", async || {
            // All of it may have been read by then.
            stack.number("SELECT next_offset FROM rate_limit_progress").await > next.min(20 * round - 1)
        })
        .await;
    }
    wait_until("all is read", async || {
        stack.number("SELECT next_offset FROM rate_limit_progress").await == 400
    })
    .await;
    first.stop().await;
    second.stop().await;
    assert_eq!(sums(&stack).await, [(400, 800)]);
    stack.remove().await;
}

#[tokio::test]
async fn the_worst_offenders_are_listed_and_what_is_old_is_removed() {
    let stack = Stack::prepare().await;
    stack.append_rates(&record(Utc::now() - chrono::TimeDelta::days(2), "old", 1, 1_000)).await;
    stack.append_rates(&record(Utc::now(), "ann", 50, 0)).await;
    stack.append_rates(&record(Utc::now(), "bob", 5, 70)).await;
    stack.append_rates(&record(Utc::now(), "", 5, 80)).await;
    let service = stack.start();
    stack.wait_for_number("all is summed up", "SELECT next_offset FROM rate_limit_progress", 4).await;
    let (code, text) = stack.command(&["limits", "top"]).await;
    let lines: Vec<&str> = text.lines().skip(1).collect();
    assert_eq!((code, lines.len()), (0, 2), "{text}");
    assert!(lines[0].trim_start().starts_with("80 ") && lines[0].ends_with("per-address (others)"), "{text}");
    assert!(lines[1].trim_start().starts_with("70 ") && lines[1].ends_with("per-address bob"), "{text}");
    let (_, text) = stack.command(&["limits", "top", "--policy", "another"]).await;
    assert_eq!(text, "Nobody was refused.\n");
    service.stop().await;

    // What is old goes when a service begins.
    let service = stack.start();
    stack.wait_for_number("the old is gone", "SELECT count(*) FROM rate_limit_minutes", 3).await;
    service.stop().await;
    stack.remove().await;
}
