//! Logs to standard error, and metrics for Prometheus.

use std::io::IsTerminal;
use std::net::SocketAddr;

use anyhow::Context;
use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::PrometheusBuilder;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

/// The names of the metrics.
pub(crate) mod name {
    pub(crate) const APPLIED_RECORDS: &str = "boxoffice_reconciler_applied_records_total";
    pub(crate) const BATCH_RECORDS: &str = "boxoffice_reconciler_batch_records";
    pub(crate) const APPLY_SECONDS: &str = "boxoffice_reconciler_apply_duration_seconds";
    pub(crate) const LAG_RECORDS: &str = "boxoffice_reconciler_lag_records";
    pub(crate) const GAPS_OPEN: &str = "boxoffice_reconciler_gaps_open";
    pub(crate) const ALARMS_OPEN: &str = "boxoffice_reconciler_alarms_open";
    pub(crate) const DEAD_LETTERS_OPEN: &str = "boxoffice_reconciler_dead_letters_open";
    pub(crate) const DEAD_LETTERS_UNCOPIED: &str = "boxoffice_reconciler_dead_letters_uncopied";
    pub(crate) const REPAIRS_OPEN: &str = "boxoffice_reconciler_repairs_open";
    pub(crate) const FINDINGS: &str = "boxoffice_reconciler_findings";
    pub(crate) const DRIFT_TICKETS: &str = "boxoffice_reconciler_drift_tickets";
    pub(crate) const OVERDUE_EVENTS: &str = "boxoffice_reconciler_events_with_overdue_holds";
    pub(crate) const CERTIFIED_SHARDS: &str = "boxoffice_reconciler_certified_shards";
    pub(crate) const REDIS_LOST_SHARDS: &str = "boxoffice_reconciler_redis_lost_shards";
    pub(crate) const RECOVERIES: &str = "boxoffice_reconciler_recoveries_total";
    pub(crate) const LEADER: &str = "boxoffice_reconciler_leader";
}

/// Starts the logs: for a person on a terminal, JSON otherwise.
///
/// # Errors
/// Where BOXOFFICE_LOG is not a filter.
pub(crate) fn start_logs(filter: &str) -> anyhow::Result<()> {
    // Kafka's client says the same thing many times while a broker is away; what matters of it is logged here.
    let quieter = format!("{filter},rdkafka=error,librdkafka=error,sqlx=warn");
    let filter =
        EnvFilter::try_new(if filter.contains('=') { filter } else { &quieter }).context("BOXOFFICE_LOG")?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        logs.finish().try_init()?;
    } else {
        logs.json().flatten_event(true).finish().try_init()?;
    }
    Ok(())
}

/// Serves the metrics at an address.
///
/// # Errors
/// Where the address cannot be bound.
pub(crate) fn serve_metrics(listen: SocketAddr) -> anyhow::Result<()> {
    PrometheusBuilder::new()
        .set_buckets(&[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0])?
        .set_buckets_for_metric(
            metrics_exporter_prometheus::Matcher::Full(name::BATCH_RECORDS.to_owned()),
            &[1.0, 10.0, 50.0, 100.0, 500.0, 1_000.0, 2_000.0, 4_000.0, 16_000.0],
        )?
        .with_http_listener(listen)
        .install()
        .context("BOXOFFICE_METRICS_LISTEN")?;
    describe();
    Ok(())
}

fn describe() {
    describe_counter!(name::APPLIED_RECORDS, Unit::Count, "Decisions applied to PostgreSQL");
    describe_histogram!(name::BATCH_RECORDS, Unit::Count, "Records in a batch");
    describe_histogram!(name::APPLY_SECONDS, Unit::Seconds, "Time to apply a batch, in one transaction");
    describe_gauge!(name::LAG_RECORDS, Unit::Count, "Records in Kafka that are not applied, by shard");
    describe_gauge!(name::GAPS_OPEN, Unit::Count, "Gaps in a shard's sequence that are not resolved");
    describe_gauge!(name::ALARMS_OPEN, Unit::Count, "Alarms that are not resolved");
    describe_gauge!(name::DEAD_LETTERS_OPEN, Unit::Count, "Dead letters that are not resolved");
    describe_gauge!(
        name::DEAD_LETTERS_UNCOPIED,
        Unit::Count,
        "Dead letters that the dead-letter topic does not have yet"
    );
    describe_gauge!(name::REPAIRS_OPEN, Unit::Count, "Repairs and rebuilds that have not ended");
    describe_gauge!(name::FINDINGS, Unit::Count, "Findings of the last audit, by kind");
    describe_gauge!(
        name::DRIFT_TICKETS,
        Unit::Count,
        "Tickets by which Redis and PostgreSQL differ at equal positions"
    );
    describe_gauge!(
        name::OVERDUE_EVENTS,
        Unit::Count,
        "Events with holds that should have expired more than 10 s ago"
    );
    describe_gauge!(name::CERTIFIED_SHARDS, Unit::Count, "Shards that may sell");
    describe_gauge!(name::REDIS_LOST_SHARDS, Unit::Count, "Shards whose Redis is behind PostgreSQL");
    describe_counter!(name::RECOVERIES, Unit::Count, "Recoveries of shards, by outcome");
    describe_gauge!(name::LEADER, Unit::Count, "1 where this process holds the lease");
}
