//! The audit that runs every few seconds beside the reconciliation, and the gauges that belong to it.

use std::time::Duration;

use sqlx::PgPool;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::open;
use crate::redis_link::RedisLink;
use crate::telemetry::name;

use super::log_end::LogEnd;
use super::{FindingKind, Report, Scope, audit, record};

/// How long the audit lets PostgreSQL catch up.
const PATIENCE: Duration = Duration::from_secs(2);

/// Snapshots of an event that is being sold.
const TRIES: usize = 5;

/// Audits every few seconds until the shutdown.
pub(crate) async fn run(config: Config, pool: PgPool, redis: RedisLink, shutdown: CancellationToken) {
    let scope = Scope {
        shards: config.shards.shards().collect(),
        event: None,
        with_rows: false,
        deep: false,
        patience: PATIENCE,
        tries: TRIES,
    };
    let mut interval = tokio::time::interval(config.audit_interval);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut log_end = LogEnd::default();
    let mut said = String::new();
    while shutdown.run_until_cancelled(interval.tick()).await.is_some() {
        let round = async {
            let report = audit(&pool, &redis, &scope).await?;
            record(&pool, &report).await?;
            publish(&report);
            anyhow::Ok(report)
        };
        let Some(result) = shutdown.run_until_cancelled(round).await else { return };
        let summary = result.as_ref().map_or_else(ToString::to_string, summary);
        if said != summary {
            match result {
                Ok(report) if report.is_ok() => tracing::info!(result = summary, "audit"),
                Ok(_) => tracing::error!(result = summary, "audit"),
                Err(_) => tracing::warn!(error = summary, "the audit could not be made"),
            }
            said = summary;
        }
        // Whatever the audit came to: what is open is a row even while Redis is away.
        if let Err(error) = count_open(&pool).await {
            tracing::warn!(%error, "what is open was not counted");
        }
        let look = log_end.look(&config, &pool, &redis);
        match shutdown.run_until_cancelled(look).await {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::warn!(%error, "how far the log is applied was not seen"),
            None => return,
        }
    }
}

/// What is worth a new line in the log when it changes.
fn summary(report: &Report) -> String {
    let found: Vec<_> =
        report.findings.iter().map(|f| format!("{} {}: {}", f.shard, f.kind.as_str(), f.detail)).collect();
    if found.is_empty() { "the stores agree".to_owned() } else { found.join("; ") }
}

fn publish(report: &Report) {
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    metrics::gauge!(name::DRIFT_TICKETS).set(report.drift as f64);
    // Also those of which nothing was found: what was found before is over.
    for kind in FindingKind::OF_THE_SERVICE {
        metrics::gauge!(name::FINDINGS, "kind" => kind.as_str()).set(count(report, kind));
    }
    for (gauge, kind) in [
        (name::OVERDUE_EVENTS, FindingKind::OverdueHolds),
        (name::REDIS_LOST_SHARDS, FindingKind::RedisBehind),
    ] {
        metrics::gauge!(gauge).set(count(report, kind));
    }
}

fn count(report: &Report, kind: FindingKind) -> u32 {
    let found = report.findings.iter().filter(|finding| finding.kind == kind).count();
    u32::try_from(found).unwrap_or(u32::MAX)
}

async fn count_open(pool: &PgPool) -> sqlx::Result<()> {
    let open = open::counts(pool).await?;
    for (gauge, count) in [
        (name::GAPS_OPEN, open.gaps),
        (name::ALARMS_OPEN, open.alarms),
        (name::DEAD_LETTERS_OPEN, open.dead_letters),
        (name::REPAIRS_OPEN, open.repairs),
    ] {
        metrics::gauge!(gauge).set(u32::try_from(count).unwrap_or(u32::MAX));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use boxoffice_schema::shard::Shard;
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;
    use crate::audit::{Finding, opened};

    #[test]
    fn each_kind_of_finding_is_counted_and_0_again_when_it_is_gone() {
        let sound = opened(chrono::Utc::now(), &BTreeMap::new(), &BTreeMap::new(), &BTreeSet::new());
        let shard = Shard::from_number(3);
        let of_kind = |kind| Finding {
            shard,
            event_id: None,
            ticket_type_id: None,
            kind,
            detail: String::new(),
            drift: 0,
        };
        let mut findings: Vec<Finding> = FindingKind::OF_THE_SERVICE.map(of_kind).into();
        findings.push(of_kind(FindingKind::Oversold));
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        for (report, oversold, others) in [(Report { findings, ..sound.clone() }, 2, 1), (sound, 0, 0)] {
            metrics::with_local_recorder(&recorder, || publish(&report));
            let told = handle.render();
            for kind in FindingKind::OF_THE_SERVICE {
                let count = if kind == FindingKind::Oversold { oversold } else { others };
                let line = format!("boxoffice_reconciler_findings{{kind=\"{}\"}} {count}\n", kind.as_str());
                assert!(told.contains(&line), "{line}{told}");
            }
        }
    }
}
