//! Whether the servers are there, for commands that end by themselves.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::Context;
use sqlx::PgPool;

use crate::backoff::Backoff;
use crate::config::Config;
use crate::redis_link::RedisLink;
use crate::{kafka, postgres};

/// How long a command waits for a server.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for all three, and checks that they are prepared for this installation.
pub(crate) async fn wait_for_all(config: &Config, pool: &PgPool, redis: &RedisLink) -> anyhow::Result<()> {
    let installation = || async { postgres::check_installation(pool, config.shards).await };
    wait_for("PostgreSQL", PATIENCE, installation).await??;
    wait_for("Redis", PATIENCE, || redis.ping()).await?;
    wait_for("Kafka", PATIENCE, || kafka::check_topics(config)).await??;
    Ok(())
}

/// Asks a server until it answers, or until it had its time.
pub(crate) async fn wait_for<T, E, F>(
    server: &str,
    patience: Duration,
    ask: impl Fn() -> F,
) -> anyhow::Result<T>
where
    E: std::fmt::Display + Into<anyhow::Error>,
    F: Future<Output = Result<T, E>>,
{
    let start = Instant::now();
    let mut backoff = Backoff::of_a_server();
    loop {
        let error = match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        if start.elapsed() > patience {
            return Err(error.into())
                .with_context(|| format!("{server} did not answer for {} s", patience.as_secs()));
        }
        tracing::warn!(server, %error, "waiting for a server");
        tokio::time::sleep(backoff.next_delay()).await;
    }
}
