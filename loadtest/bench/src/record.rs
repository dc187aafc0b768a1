//! What PostgreSQL has: read only, and only to see whether everything arrived.

use std::time::Duration;

use anyhow::{Result, ensure};
use sqlx::PgPool;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// How long the log may take to be applied.
const PATIENCE: Duration = Duration::from_secs(300);

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(50);

/// The sequences of all shards added up: a number that is cheap to read and grows with each decision.
pub(crate) async fn applied(pool: &PgPool) -> Result<i64> {
    Ok(sqlx::query_scalar("SELECT coalesce(sum(sequence), 0)::int8 FROM shards").fetch_one(pool).await?)
}

/// Waits until so many decisions were applied; how long that took.
pub(crate) async fn until_applied(pool: &PgPool, decisions: i64) -> Result<Duration> {
    let start = Instant::now();
    loop {
        let now = applied(pool).await?;
        if now >= decisions {
            return Ok(start.elapsed());
        }
        ensure!(
            start.elapsed() < PATIENCE,
            "only {now} of {decisions} decisions were applied in {PATIENCE:?}"
        );
        sleep(PAUSE).await;
    }
}

/// Waits until each of these bookings is a row.
pub(crate) async fn until_written(pool: &PgPool, bookings: &[Uuid]) -> Result<()> {
    let start = Instant::now();
    loop {
        let written: i64 = sqlx::query_scalar("SELECT count(*) FROM bookings WHERE id = ANY ($1)")
            .bind(bookings)
            .fetch_one(pool)
            .await?;
        if usize::try_from(written)? == bookings.len() {
            return Ok(());
        }
        ensure!(start.elapsed() < PATIENCE, "only {written} of {} bookings were written", bookings.len());
        sleep(PAUSE).await;
    }
}

/// Waits until the sums of a rate limit say that it allowed so many requests, and no others.
pub(crate) async fn until_summed(pool: &PgPool, policy: &str, allowed: u64) -> Result<()> {
    let start = Instant::now();
    loop {
        let summed: i64 = sqlx::query_scalar(
            "SELECT coalesce(sum(allowed), 0)::int8 FROM rate_limit_minutes WHERE policy = $1",
        )
        .bind(policy)
        .fetch_one(pool)
        .await?;
        if u64::try_from(summed)? == allowed {
            return Ok(());
        }
        ensure!(
            start.elapsed() < PATIENCE,
            "the limit {policy} allowed {allowed}, and PostgreSQL says {summed}"
        );
        sleep(PAUSE).await;
    }
}

/// Bookings by their rows.
pub(crate) async fn bookings(pool: &PgPool) -> Result<i64> {
    Ok(sqlx::query_scalar("SELECT count(*) FROM bookings").fetch_one(pool).await?)
}

/// What the reconciler holds for wrong.
pub(crate) async fn complaints(pool: &PgPool) -> Result<i64> {
    let open = "SELECT (SELECT count(*) FROM gaps WHERE resolved_at IS NULL) \
                     + (SELECT count(*) FROM alarms WHERE resolved_at IS NULL) \
                     + (SELECT count(*) FROM dead_letters WHERE outcome IS NULL)";
    Ok(sqlx::query_scalar(open).fetch_one(pool).await?)
}
