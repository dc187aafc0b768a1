//! `run`: the service. It waits for its servers, then for the lease, and then does four things side by side.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::config::Config;
use crate::kafka::LogWriter;
use crate::lease::{self, Held, Lease};
use crate::redis_link::RedisLink;
use crate::{audit, guarantees, kafka, limits, pipeline, postgres, recovery};

/// How long the work may take to end when it is told to.
const END_WITHIN: Duration = Duration::from_secs(10);

/// How long connections may take to close.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// Reconciles until the shutdown.
///
/// # Errors
/// Where the installation contradicts the configuration, or was not prepared. A server that is away is waited for.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let redis = RedisLink::new(&config)?;
    if !wait_until_ready(&config, &postgres::pool(&config)?, &shutdown).await? {
        return Ok(());
    }
    // The same holder in each turn, so that none waits for the last one's lease to run out.
    let lease = Lease::new(lease::RECONCILER);
    while !shutdown.is_cancelled() {
        // Each turn has connections of its own: those of the last one may be silent for ever.
        let pool = postgres::pool(&config)?;
        if let Some(held) = lease.acquire(&pool, &shutdown).await {
            lead(&config, &pool, &redis, held, &shutdown).await?;
            lease.release(&pool).await;
        }
        // A pool waits for connections that are lent; the work that had them has ended.
        let _ = tokio::time::timeout(CLOSE_WITHIN, pool.close()).await;
    }
    Ok(())
}

/// Waits for PostgreSQL and Kafka, and checks what they say; `false` where the shutdown came first.
async fn wait_until_ready(
    config: &Config,
    pool: &sqlx::PgPool,
    shutdown: &CancellationToken,
) -> anyhow::Result<bool> {
    let installation = || postgres::check_installation(pool, config.shards);
    Ok(answered("PostgreSQL", installation, shutdown).await?
        && answered("Kafka", || kafka::check_topics(config), shutdown).await?
        && answered("Kafka", || guarantees::check(config), shutdown).await?)
}

/// Asks a server until it answers, and gives its verdict; `false` where the shutdown came first.
async fn answered<E: std::fmt::Display, F: Future<Output = Result<anyhow::Result<()>, E>>>(
    server: &str,
    ask: impl Fn() -> F,
    shutdown: &CancellationToken,
) -> anyhow::Result<bool> {
    let mut backoff = Backoff::of_a_server();
    loop {
        match ask().await {
            Ok(verdict) => return verdict.map(|()| true),
            Err(error) => tracing::warn!(server, %error, "waiting for a server"),
        }
        if !backoff.wait(shutdown).await {
            return Ok(false);
        }
    }
}

/// The work of the lease's holder; ends when the lease is lost or the shutdown comes.
async fn lead(
    config: &Config,
    pool: &sqlx::PgPool,
    redis: &RedisLink,
    held: Held,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let log = Arc::new(LogWriter::new(config)?);
    let stop = shutdown.child_token();
    let mut work = JoinSet::new();
    work.spawn(pipeline::run(config.clone(), pool.clone(), Arc::clone(&log), stop.clone()));
    let shards = config.shards.shards().collect();
    work.spawn(recovery::run(shards, pool.clone(), redis.clone(), log, stop.clone()));
    work.spawn(audit::run(config.clone(), pool.clone(), redis.clone(), stop.clone()));
    work.spawn(limits::run(config.clone(), pool.clone(), stop.clone()));
    work.spawn(held.keep(stop.clone()));
    // Whichever ends first, by a lost lease, the shutdown or a panic, ends the others.
    let mut failure = None;
    if let Some(first) = work.join_next().await {
        stop.cancel();
        failure = first.err();
    }
    let others = async {
        while let Some(ended) = work.join_next().await {
            failure = failure.take().or(ended.err());
        }
    };
    if tokio::time::timeout(END_WITHIN, others).await.is_err() {
        // Whatever waits for a server that is silent may be dropped at any point: that is what positions are for.
        work.shutdown().await;
    }
    failure.map_or(Ok(()), |panic| Err(panic.into()))
}
