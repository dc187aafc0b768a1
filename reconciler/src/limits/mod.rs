//! Sums up what the rate limits decided: from their topic into `rate_limit_minutes`, for `limits top`.
//!
//! The API tells what it counted at most once: a second of it is lost with a process, or with a Kafka that is away for
//! long. From Kafka on it is counted exactly once: the offset moves in the transaction that adds the counts. It is
//! apart from the log of decisions: nothing here can hold that up, and nothing is lost by being late.

mod apply;
mod reader;
mod top;

use std::time::{Duration, Instant};

use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::config::Config;
use reader::{Batch, Reader};

pub(crate) use top::{Offender, offenders};

/// How often what is too old is removed.
const TIDY_INTERVAL: Duration = Duration::from_secs(600);

/// Sums up until the shutdown. Whatever fails is tried again from PostgreSQL's offset, and said once until it is well.
pub(crate) async fn run(config: Config, pool: PgPool, shutdown: CancellationToken) {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));
    let mut said = false;
    while !shutdown.is_cancelled() {
        let since = Instant::now();
        match follow(&config, &pool, &shutdown).await {
            Ok(()) => {}
            Err(error) if std::mem::replace(&mut said, true) => {
                tracing::debug!(error = format!("{error:#}"), "rate limits are still not summed up");
            }
            Err(error) => tracing::warn!(
                error = format!("{error:#}"),
                topic = config.rate_limit_topic,
                "rate limits are not summed up; trying again (where the topic is missing, run `migrate`)"
            ),
        }
        if since.elapsed() > TIDY_INTERVAL {
            backoff.reset();
            said = false;
        }
        backoff.wait(&shutdown).await;
    }
}

async fn follow(config: &Config, pool: &PgPool, shutdown: &CancellationToken) -> anyhow::Result<()> {
    let mut offset = apply::next_offset(pool).await?;
    let settings = config.clone();
    let mut reader = tokio::task::spawn_blocking(move || Reader::at(&settings, offset)).await??;
    let mut tidied: Option<Instant> = None;
    while !shutdown.is_cancelled() {
        if tidied.is_none_or(|tidied| tidied.elapsed() > TIDY_INTERVAL) {
            apply::remove_old(pool).await?;
            tidied = Some(Instant::now());
        }
        let batch;
        (reader, batch) = tokio::task::spawn_blocking(move || reader.read()).await?;
        let Some(batch) = batch? else { continue };
        let Batch { next_offset, records } = batch;
        if !apply::add(pool, offset, next_offset, &records).await? {
            // Another process was faster; it reads on from there.
            return Ok(());
        }
        offset = next_offset;
    }
    Ok(())
}
