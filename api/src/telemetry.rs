//! Logs to standard error, and the metrics of the process.

use std::io::IsTerminal;
use std::sync::OnceLock;

use anyhow::Context;
use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

/// Requests by method, route and status.
pub(crate) const HTTP_REQUESTS: &str = "boxoffice_http_requests_total";
/// Time from a request's head to its answer.
pub(crate) const HTTP_SECONDS: &str = "boxoffice_http_request_seconds";

const SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5];
const BATCH: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];

/// Starts the logs: for a person on a terminal, JSON otherwise.
///
/// # Errors
/// Where BOXOFFICE_LOG is not a filter, or the process has logs already.
pub(crate) fn start_logs(filter: &str) -> anyhow::Result<()> {
    // Kafka's client says the same thing many times a second while a broker is away. What matters of it we say once.
    let quieter = format!("warn,rdkafka=off,librdkafka=off,boxoffice_api={filter}");
    let filter = EnvFilter::try_new(if filter.contains(['=', ',']) { filter } else { &quieter })
        .context("BOXOFFICE_LOG")?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        logs.finish().try_init()?;
    } else {
        logs.json().flatten_event(true).finish().try_init()?;
    }
    Ok(())
}

/// The metrics of this process; the first call starts them. Every application of a process shares them.
///
/// # Errors
/// Where something else in the process records metrics already.
pub(crate) fn metrics() -> anyhow::Result<PrometheusHandle> {
    static HANDLE: OnceLock<Result<PrometheusHandle, String>> = OnceLock::new();
    HANDLE
        .get_or_init(|| start_metrics().map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(anyhow::Error::msg)
}

fn start_metrics() -> anyhow::Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new()
        .set_buckets(&SECONDS)?
        .set_buckets_for_metric(Matcher::Full("boxoffice_batch_requests".to_owned()), &BATCH)?
        .install_recorder()?;
    describe_counter!(HTTP_REQUESTS, Unit::Count, "Requests by method, route and status");
    describe_histogram!(HTTP_SECONDS, Unit::Seconds, "Time from a request's head to its answer, by route");
    describe_counter!(
        "boxoffice_decisions_total",
        Unit::Count,
        "Decisions asked of Redis, by script and outcome"
    );
    describe_histogram!("boxoffice_batch_requests", Unit::Count, "Requests in one script call, by script");
    describe_histogram!("boxoffice_script_seconds", Unit::Seconds, "Time of one script call, by script");
    describe_counter!("boxoffice_relayed_records_total", Unit::Count, "Decisions that Kafka confirmed");
    describe_gauge!(
        "boxoffice_outbox_frames",
        Unit::Count,
        "Batches of decisions that wait for Kafka, by shard"
    );
    describe_gauge!("boxoffice_outbox_age_seconds", Unit::Seconds, "Age of the oldest of them, by shard");
    describe_gauge!(
        "boxoffice_relay_lag_records",
        Unit::Count,
        "Decisions that Kafka has not confirmed, by shard"
    );
    describe_gauge!(
        "boxoffice_rate_limits_file_valid",
        Unit::Count,
        "0 where the file of the rate limits is broken and an older one is in force"
    );
    describe_counter!(
        "boxoffice_rate_checks_unanswered_total",
        Unit::Count,
        "Requests that were let in because Redis did not say whether they may be"
    );
    describe_counter!(
        "boxoffice_rate_records_lost_total",
        Unit::Count,
        "Records of what the rate limits decided that Kafka did not take"
    );
    describe_gauge!(
        "boxoffice_tls_certificate_valid",
        Unit::Count,
        "0 where the files of the TLS certificate are broken and an older one is served"
    );
    describe_counter!(
        "boxoffice_tls_handshakes_failed_total",
        Unit::Count,
        "Connections that ended before there was TLS on them"
    );
    describe_counter!(
        "boxoffice_connections_cut_total",
        Unit::Count,
        "Connections that were cut because a client is too slow or sends without end, by reason"
    );
    describe_gauge!("boxoffice_redis_used_memory_bytes", Unit::Bytes, "Memory that Redis uses");
    describe_gauge!("boxoffice_dependency_up", Unit::Count, "1 where PostgreSQL, Redis or Kafka answers");
    Ok(handle)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// All that is written in a folder.
    fn sources(folder: &Path) -> String {
        let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let texts =
            paths.map(|path| if path.is_dir() { sources(&path) } else { fs::read_to_string(path).unwrap() });
        texts.collect()
    }

    #[test]
    fn every_metric_is_described() {
        let described = include_str!("telemetry.rs");
        let written = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
        let is_name = |text: &&str| text.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase());
        let names = written.split('"').filter(|text| text.starts_with("boxoffice_")).filter(is_name);
        for name in names {
            assert!(described.contains(&format!("\"{name}\"")), "{name} is not described");
        }
    }
}
