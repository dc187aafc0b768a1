//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::Parser;
use reqwest::Url;

/// The number of goose users is a multiple of this, so that the scenarios' weights are met exactly.
pub(crate) const WEIGHTS: usize = 20;

/// Sells tickets as an on-sale does, at an open rate, and verifies every answer afterwards.
///
/// Creates its own events over the API, sends requests at the times of a fixed schedule however slow the answers are,
/// waits until the log has drained, and compares what its clients were told with PostgreSQL and the public API.
///
/// Exit code: 0 the verdict is good; 1 it is not; 2 the test could not run.
#[derive(Debug, Parser)]
#[command(name = "boxoffice-loadtest", version)]
pub(crate) struct Options {
    /// Base URL of the API.
    #[arg(long, env = "BOXOFFICE_URL", value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub(crate) host: Url,

    /// API key or JWT, sent as a bearer token with every call. None is sent unless given.
    #[arg(long, env = "BOXOFFICE_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,

    /// PostgreSQL that the reconciler writes to; only read, in read-only transactions, after the run. On a development
    /// machine `eval "$(scripts/stack env)"` sets it.
    #[arg(long, env = "BOXOFFICE_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub(crate) database_url: String,

    /// Requests a second over all scenarios, as an open target: slow answers do not slow the schedule.
    #[arg(long, value_name = "PER_SECOND", default_value_t = 500,
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) rate: u32,

    /// Length of the schedule in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30,
          value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) seconds: u32,

    /// Seed of everything that is drawn by lot. Drawn itself, and printed, unless given.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seed: Option<u64>,

    /// Tickets of the hot event. A third of the requests it will get unless given.
    #[arg(long, value_name = "TICKETS")]
    pub(crate) hot_capacity: Option<u32>,

    /// Concurrent goose users, rounded up to a multiple of 20. A tenth of the rate, from 40 to 1,000, unless given:
    /// so many requests can be unanswered before the schedule runs late.
    #[arg(long, value_name = "USERS")]
    pub(crate) users: Option<usize>,

    /// Writes goose's HTML report here.
    #[arg(long, value_name = "FILE.html", value_parser = html_file)]
    pub(crate) report: Option<PathBuf>,

    /// Writes every number of the run here, as JSON.
    #[arg(long, value_name = "FILE.json")]
    pub(crate) summary: Option<PathBuf>,

    /// Longest wait in seconds, after the run, for lag 0, drift 0 and every hold to end.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) drain_timeout: u64,

    /// Seconds after which a client stops waiting for an answer, except where a scenario is impatient on purpose.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub(crate) request_timeout: u64,

    /// Seconds after the end of the schedule in which requests that are late may still be sent.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) catch_up: u64,

    /// Part of the rate that must be reached for a good verdict, in percent. 0 judges no rate, for fault tests.
    #[arg(long, value_name = "PERCENT", default_value_t = 95.0)]
    pub(crate) min_rate: f64,

    /// Part of the requests that may be turned away (503, 429, no answer) in a good run, in percent. 100 judges none, for
    /// fault tests.
    #[arg(long, value_name = "PERCENT", default_value_t = 1.0)]
    pub(crate) max_turned_away: f64,

    /// Highest p99 from the intended start for a good verdict, in milliseconds. Not judged unless given.
    #[arg(long, value_name = "MILLISECONDS")]
    pub(crate) max_p99: Option<f64>,

    /// Connections that ask for nothing and stay, as an attacker keeps them, for as long as the schedule lasts.
    #[arg(long, value_name = "CONNECTIONS", default_value_t = 0)]
    pub(crate) idle_connections: usize,

    /// Acknowledged keys that are sent once more after the run, to see whether the answer is the same bytes.
    #[arg(long, value_name = "KEYS", default_value_t = 200)]
    pub(crate) replay_sample: usize,

    /// Times in which a fault test made Redis lose decisions, as JSON: {"acknowledged": whether acknowledged bookings may
    /// be gone, "windows": [{"from_ms", "to_ms"}]}, in milliseconds since 1970. Read whenever something is wrong.
    #[arg(long, value_name = "FILE.json")]
    pub(crate) loss_windows: Option<PathBuf>,

    /// Prints the table and the verdict only, no progress.
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

impl Options {
    /// The requests that the schedule holds.
    pub(crate) fn requests(&self) -> u64 {
        u64::from(self.rate) * u64::from(self.seconds)
    }

    /// The goose users, a multiple of [`WEIGHTS`].
    pub(crate) fn users(&self) -> usize {
        let derived = usize::try_from(self.rate / 10).unwrap_or(1_000).clamp(40, 1_000);
        self.users.unwrap_or(derived).max(1).next_multiple_of(WEIGHTS)
    }

    /// How long a patient client waits for an answer.
    pub(crate) fn patience(&self) -> Duration {
        Duration::from_secs(self.request_timeout.max(1))
    }

    /// The base URL without a slash at its end, ready for a path.
    pub(crate) fn base(&self) -> String {
        self.host.as_str().trim_end_matches('/').to_owned()
    }
}

/// Goose chooses the kind of report by the file's ending, so another ending would silently give another report.
fn html_file(text: &str) -> Result<PathBuf, String> {
    if text.ends_with(".html") || text.ends_with(".htm") {
        Ok(PathBuf::from(text))
    } else {
        Err("the report is HTML: end the name in .html".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Options {
        let fixed = ["boxoffice-loadtest", "--database-url", "postgres://localhost/x"];
        Options::try_parse_from(fixed.iter().chain(arguments)).expect("valid arguments")
    }

    #[test]
    fn users_follow_the_rate_in_whole_sets_of_weights() {
        assert_eq!(parse(&[]).users(), 60);
        assert_eq!(parse(&["--rate", "5000"]).users(), 500);
        assert_eq!(parse(&["--rate", "1"]).users(), 40);
        assert_eq!(parse(&["--users", "21"]).users(), 40);
    }

    #[test]
    fn a_report_that_is_not_html_is_refused() {
        assert!(html_file("report.html").is_ok());
        assert!(html_file("report.json").is_err());
    }
}
