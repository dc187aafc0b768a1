//! Configuration from the environment: parsed once, checked, and never printed where it may hold a password.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use boxoffice_schema::keys::Keys;
use boxoffice_schema::shard::ShardCount;
use secrecy::{ExposeSecret, SecretString};

/// What the process is told from outside. Every option is an environment variable; `--help` lists them.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Configuration")]
pub struct Options {
    /// PostgreSQL, as postgres://user:password@host:port/database; required.
    #[arg(long, global = true, env = "BOXOFFICE_DATABASE_URL", value_name = "BOXOFFICE_DATABASE_URL")]
    #[arg(hide_env_values = true)]
    database_url: Option<SecretString>,
    /// Redis, as redis://user:password@host:port/; required.
    #[arg(long, global = true, env = "BOXOFFICE_REDIS_URL", value_name = "BOXOFFICE_REDIS_URL")]
    #[arg(hide_env_values = true)]
    redis_url: Option<SecretString>,
    /// Kafka brokers, as host:port,host:port; required.
    #[arg(long, global = true, env = "BOXOFFICE_KAFKA_BROKERS", value_name = "BOXOFFICE_KAFKA_BROKERS")]
    kafka_brokers: Option<String>,
    /// Number of shards, 1 to 1024; fixed at installation.
    #[arg(
        long,
        global = true,
        env = "BOXOFFICE_SHARDS",
        value_name = "BOXOFFICE_SHARDS",
        default_value_t = 16
    )]
    shards: u16,
    /// Begins the name of every key in Redis; no braces.
    #[arg(long, global = true, env = "BOXOFFICE_REDIS_PREFIX", value_name = "BOXOFFICE_REDIS_PREFIX")]
    #[arg(default_value = "bo:")]
    redis_prefix: String,
    /// Topic of the decisions, with a partition for each shard.
    #[arg(long, global = true, env = "BOXOFFICE_KAFKA_TOPIC", value_name = "BOXOFFICE_KAFKA_TOPIC")]
    #[arg(default_value = "boxoffice.decisions")]
    kafka_topic: String,
    /// Topic of records that could not be read or applied.
    #[arg(
        long,
        global = true,
        env = "BOXOFFICE_DEAD_LETTER_TOPIC",
        value_name = "BOXOFFICE_DEAD_LETTER_TOPIC"
    )]
    #[arg(default_value = "boxoffice.dead-letters")]
    dead_letter_topic: String,
    /// Topic of what the rate limits decided.
    #[arg(
        long,
        global = true,
        env = "BOXOFFICE_RATE_LIMIT_TOPIC",
        value_name = "BOXOFFICE_RATE_LIMIT_TOPIC"
    )]
    #[arg(default_value = "boxoffice.rate-limits")]
    rate_limit_topic: String,
    /// Copies of each partition: 1 unless set where `migrate` creates the topics, at least 3 unless set where `run`
    /// looks whether they keep what is promised.
    #[arg(
        long,
        global = true,
        env = "BOXOFFICE_KAFKA_REPLICATION",
        value_name = "BOXOFFICE_KAFKA_REPLICATION"
    )]
    kafka_replication: Option<u16>,
    /// Hours for which Kafka keeps records; longer than the oldest backup of PostgreSQL that one would restore.
    #[arg(
        long,
        global = true,
        env = "BOXOFFICE_KAFKA_RETENTION_HOURS",
        value_name = "BOXOFFICE_KAFKA_RETENTION_HOURS"
    )]
    #[arg(default_value_t = 720)]
    kafka_retention_hours: u32,
    /// Milliseconds between two audits, 100 or more.
    #[arg(
        long,
        global = true,
        env = "BOXOFFICE_AUDIT_INTERVAL_MS",
        value_name = "BOXOFFICE_AUDIT_INTERVAL_MS"
    )]
    #[arg(default_value_t = 5_000)]
    audit_interval_ms: u64,
    /// Address (ip:port) at which `run` serves Prometheus metrics; none where unset.
    #[arg(long, global = true, env = "BOXOFFICE_METRICS_LISTEN", value_name = "BOXOFFICE_METRICS_LISTEN")]
    metrics_listen: Option<SocketAddr>,
    /// `run` refuses to start where Kafka is not set up to keep what is promised, instead of saying so.
    #[arg(long, global = true, env = "BOXOFFICE_STRICT", value_name = "BOXOFFICE_STRICT")]
    #[arg(default_value_t = false, default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    #[arg(action = clap::ArgAction::Set)]
    strict: bool,
    /// What is logged to stderr: a level, or levels by module as in tracing's `EnvFilter`; JSON unless stderr is a
    /// terminal. By default info for `run` and `migrate`, warn for commands that print a report.
    #[arg(long, global = true, env = "BOXOFFICE_LOG", value_name = "BOXOFFICE_LOG")]
    log: Option<String>,
}

impl Options {
    /// The filter of the logs, where one is set.
    pub fn log_filter(&self) -> Option<&str> {
        self.log.as_deref().filter(|filter| !filter.is_empty())
    }

    /// Checks everything that can be checked without a server.
    ///
    /// # Errors
    /// Names the variable that is missing or wrong; never shows a URL.
    pub fn checked(self) -> anyhow::Result<Config> {
        let shards = ShardCount::new(self.shards).context("BOXOFFICE_SHARDS")?;
        ensure!(!self.redis_prefix.contains(['{', '}']), "BOXOFFICE_REDIS_PREFIX must not hold a brace");
        ensure!(self.audit_interval_ms >= 100, "BOXOFFICE_AUDIT_INTERVAL_MS must be 100 or more");
        ensure!(self.kafka_replication != Some(0), "BOXOFFICE_KAFKA_REPLICATION must be 1 or more");
        ensure!(self.kafka_retention_hours >= 1, "BOXOFFICE_KAFKA_RETENTION_HOURS must be 1 or more");
        for (name, topic) in [
            ("BOXOFFICE_KAFKA_TOPIC", &self.kafka_topic),
            ("BOXOFFICE_DEAD_LETTER_TOPIC", &self.dead_letter_topic),
            ("BOXOFFICE_RATE_LIMIT_TOPIC", &self.rate_limit_topic),
        ] {
            let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            ensure!(
                (1..=249).contains(&topic.len()) && topic.chars().all(legal),
                "{name} must be 1 to 249 letters, digits, dots, underscores and hyphens"
            );
        }
        Ok(Config {
            database_url: required("BOXOFFICE_DATABASE_URL", self.database_url)?,
            redis_url: required("BOXOFFICE_REDIS_URL", self.redis_url)?,
            kafka_brokers: self
                .kafka_brokers
                .filter(|brokers| !brokers.is_empty())
                .context("BOXOFFICE_KAFKA_BROKERS is not set")?,
            shards,
            redis_prefix: self.redis_prefix,
            kafka_topic: self.kafka_topic,
            dead_letter_topic: self.dead_letter_topic,
            rate_limit_topic: self.rate_limit_topic,
            kafka_replication: self.kafka_replication,
            kafka_retention: Duration::from_secs(3_600 * u64::from(self.kafka_retention_hours)),
            strict: self.strict,
            audit_interval: Duration::from_millis(self.audit_interval_ms),
            metrics_listen: self.metrics_listen,
        })
    }
}

fn required(name: &'static str, value: Option<SecretString>) -> anyhow::Result<SecretString> {
    value.filter(|secret| !secret.expose_secret().is_empty()).with_context(|| format!("{name} is not set"))
}

/// The checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// PostgreSQL.
    pub database_url: SecretString,
    /// Redis.
    pub redis_url: SecretString,
    /// Kafka's bootstrap brokers.
    pub kafka_brokers: String,
    /// How many shards there are.
    pub shards: ShardCount,
    /// In front of every key; holds no brace.
    pub redis_prefix: String,
    /// The log.
    pub kafka_topic: String,
    /// Where unreadable and refused records go.
    pub dead_letter_topic: String,
    /// What the rate limits decided.
    pub rate_limit_topic: String,
    /// Copies of each record, where the operator has said how many: 1 otherwise where topics are created, 3 where they are
    /// looked at.
    pub kafka_replication: Option<u16>,
    /// For topics that are created, and the least that is enough.
    pub kafka_retention: Duration,
    /// Whether nothing starts where Kafka is not set up to keep what is promised.
    pub strict: bool,
    /// Between two audits.
    pub audit_interval: Duration,
    /// Where metrics are served.
    pub metrics_listen: Option<SocketAddr>,
}

impl Config {
    /// The names of the keys in Redis.
    pub fn keys(&self) -> Keys {
        Keys::new(self.redis_prefix.clone())
    }
}
