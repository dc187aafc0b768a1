//! `once`: the job for cron. It consumes to the end of the log as it stood at start, audits, and says what is wrong.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use boxoffice_schema::shard::Shard;
use serde::Serialize;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::audit::{self, Report, Scope};
use crate::config::Config;
use crate::kafka::{self, LogWriter};
use crate::lease::{self, Lease};
use crate::open::{self, Open};
use crate::redis_link::RedisLink;
use crate::standstill::Standstill;
use crate::{pipeline, postgres, servers};

/// The longest that the log may stand still before the job gives up.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How often PostgreSQL is asked how far the log is applied.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// What the job found.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) verdict: Verdict,
    /// Whether another process holds the lease and applied the log.
    pub(crate) applied_elsewhere: bool,
    /// Records in Kafka, as the log stood at start, that are not applied: behind a gap.
    pub(crate) unapplied_records: BTreeMap<u16, i64>,
    pub(crate) audit: Report,
    pub(crate) open: Open,
}

/// What a job comes to, and its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// Everything was compared, and the stores agree.
    Agreement,
    /// Something needs mending.
    Findings,
    /// Nothing wrong was found, but not everything could be compared.
    Unfinished,
}

impl Verdict {
    pub(crate) const fn exit_code(self) -> u8 {
        match self {
            Self::Agreement => 0,
            Self::Findings => 1,
            Self::Unfinished => 2,
        }
    }
}

/// Consumes, audits, and sums up.
pub(crate) async fn once(config: &Config) -> anyhow::Result<Summary> {
    let pool = postgres::pool(config)?;
    let redis = RedisLink::new(config)?;
    servers::wait_for_all(config, &pool, &redis).await?;
    let ends: Vec<(Shard, i64)> = kafka::watermarks_of(config, config.shards.shards().collect())
        .await?
        .into_iter()
        .map(|(shard, found)| (shard, found.high))
        .collect();
    let lease = Lease::new(lease::RECONCILER);
    let held = lease.take(&pool).await?;
    let applied_elsewhere = held.is_none();
    let stop = CancellationToken::new();
    let _stop_at_the_end = stop.clone().drop_guard();
    let job = async {
        let unapplied_records = wait_for_end(&pool, &ends).await?;
        let scope = Scope::by_hand(config, None, false);
        let report = audit::audit(&pool, &redis, &scope).await?;
        audit::record(&pool, &report).await?;
        let open = open::read(&pool).await?;
        let verdict = verdict(&report, &open);
        anyhow::Ok(Summary { verdict, applied_elsewhere, unapplied_records, audit: report, open })
    };
    let summary = if let Some(held) = held {
        let log = Arc::new(LogWriter::new(config)?);
        let (summary, (), ()) = tokio::join!(
            async {
                let summary = job.await;
                stop.cancel();
                summary
            },
            pipeline::run(config.clone(), pool.clone(), log, stop.clone()),
            held.keep(stop.clone()),
        );
        lease.release(&pool).await;
        summary
    } else {
        job.await
    };
    pool.close().await;
    summary
}

fn verdict(report: &Report, open: &Open) -> Verdict {
    if !report.is_ok() || !open.is_empty() {
        Verdict::Findings
    } else if report.not_compared > 0 {
        Verdict::Unfinished
    } else {
        Verdict::Agreement
    }
}

/// Waits until every shard is applied to its end or stands before a gap; returns what is left behind gaps.
async fn wait_for_end(pool: &PgPool, ends: &[(Shard, i64)]) -> anyhow::Result<BTreeMap<u16, i64>> {
    let mut standstill = Standstill::new();
    loop {
        let rows: Vec<(i16, i64, bool)> = sqlx::query_as(
            "SELECT shard, next_offset, \
                    EXISTS (SELECT FROM gaps WHERE gaps.shard = shards.shard AND resolved_at IS NULL) \
             FROM shards ORDER BY shard",
        )
        .fetch_all(pool)
        .await?;
        let behind = |is_stopped: bool| {
            ends.iter()
                .zip(&rows)
                .filter(move |((_, end), (_, next_offset, stopped))| {
                    next_offset < end && *stopped == is_stopped
                })
                .map(|((shard, end), (_, next_offset, _))| (shard.number(), end - next_offset))
        };
        // Others may be sold from all the time.
        let waited_for: Vec<(u16, i64)> = behind(false).collect();
        let Some((shard, records)) = waited_for.first().copied() else { return Ok(behind(true).collect()) };
        if standstill.lasts(waited_for) > STALL_TIMEOUT {
            bail!(
                "the log was not applied to its end: shard {} has had {records} records to go for {} s; see the \
                 log of the process that holds the lease (`boxoffice-reconciler status`)",
                Shard::from_number(shard),
                STALL_TIMEOUT.as_secs()
            );
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
