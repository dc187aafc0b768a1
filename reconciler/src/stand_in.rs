//! For commands that need the log applied: by the service where one runs, otherwise by this process.

use std::future::Future;
use std::sync::Arc;

use boxoffice_schema::shard::Shard;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::kafka::LogWriter;
use crate::lease::{self, Held, Lease};
use crate::redis_link::RedisLink;
use crate::{pipeline, recovery};

/// Does a job while somebody applies the log. Should the service die meanwhile, this process takes over from it.
/// It recovers the given shards only, where no service does.
pub(crate) async fn while_applied<T>(
    config: &Config,
    pool: &PgPool,
    redis: &RedisLink,
    recovered: Vec<Shard>,
    job: impl Future<Output = T>,
) -> anyhow::Result<T> {
    let stop = CancellationToken::new();
    let lease = Lease::new(lease::RECONCILER);
    let stand_in = async {
        while !stop.is_cancelled() {
            if let Some(held) = lease.acquire(pool, &stop).await {
                serve(config, pool, redis, recovered.clone(), held, &stop.child_token()).await?;
            }
        }
        anyhow::Ok(())
    };
    let job = async {
        let done = job.await;
        stop.cancel();
        done
    };
    let (done, stood_in) = tokio::join!(job, stand_in);
    lease.release(pool).await;
    stood_in.map(|()| done)
}

/// Applies and recovers until the lease is lost or the job is done.
async fn serve(
    config: &Config,
    pool: &PgPool,
    redis: &RedisLink,
    recovered: Vec<Shard>,
    held: Held,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let log = Arc::new(LogWriter::new(config)?);
    let apply = pipeline::run(config.clone(), pool.clone(), Arc::clone(&log), stop.clone());
    let recover = recovery::run(recovered, pool.clone(), redis.clone(), log, stop.clone());
    let keep = async {
        held.keep(stop.clone()).await;
        stop.cancel();
    };
    tokio::join!(apply, recover, keep);
    Ok(())
}
