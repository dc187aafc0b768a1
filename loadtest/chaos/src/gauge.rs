//! What an instance says of itself in its metrics: who relays, who leads.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::timeout;

use crate::http;

/// A process that does not answer within it has nothing to say.
const PATIENCE: Duration = Duration::from_millis(500);

/// The sum of a metric over its labels, as the instance at `port` shows it.
pub(crate) async fn read(port: u16, metric: &str) -> Result<f64> {
    let (_, text) = timeout(PATIENCE, http::get(port, "/metrics")).await.context("no metrics in time")??;
    Ok(sum(&text, metric))
}

/// Sums a metric in Prometheus' text format; a metric that is not there is 0.
fn sum(text: &str, metric: &str) -> f64 {
    let of_metric = |line: &&str| line.strip_prefix(metric).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let value = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
    text.lines().filter(of_metric).filter_map(value).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_labels_and_not_over_its_namesakes() {
        let text = "# TYPE a counter\na{shard=\"s01\"} 3\na{shard=\"s02\"} 4\na_total 100\nb 5\n";
        assert!((sum(text, "a") - 7.0).abs() < 1e-9);
        assert!((sum(text, "b") - 5.0).abs() < 1e-9);
        assert!(sum(text, "c").abs() < 1e-9);
    }
}
