//! Configuration from the environment: parsed once, checked, and never printed where it may hold a password.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use boxoffice_schema::keys::Keys;
use boxoffice_schema::scripts::OutboxBounds;
use boxoffice_schema::shard::ShardCount;
use redis::IntoConnectionInfo;
use secrecy::{ExposeSecret, SecretString};

use crate::identity::{JwksSource, Mode, TokenSettings};
use crate::inventory::{Acknowledge, Settings};
use crate::request::TrustedProxies;
use crate::transport::{Bounds, Origins, TlsFiles};

/// Boxoffice's HTTP API. Every option is an environment variable too; the flag wins.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "boxoffice-api", version)]
pub struct Options {
    /// PostgreSQL, as postgres://user:password@host:port/database; required.
    #[arg(
        long,
        env = "BOXOFFICE_DATABASE_URL",
        value_name = "BOXOFFICE_DATABASE_URL",
        hide_env_values = true
    )]
    pub database_url: Option<SecretString>,
    /// Redis, as redis://user:password@host:port/; required.
    #[arg(long, env = "BOXOFFICE_REDIS_URL", value_name = "BOXOFFICE_REDIS_URL", hide_env_values = true)]
    pub redis_url: Option<SecretString>,
    /// Kafka brokers, as host:port,host:port; required.
    #[arg(long, env = "BOXOFFICE_KAFKA_BROKERS", value_name = "BOXOFFICE_KAFKA_BROKERS")]
    pub kafka_brokers: Option<String>,
    /// Address (ip:port) at which HTTP is served; port 0 takes a free one.
    #[arg(long, env = "BOXOFFICE_LISTEN", value_name = "BOXOFFICE_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// How callers are authenticated, fixed when the installation first starts: `keys`, by API keys; `keys+jwt`, buyers by
    /// tokens as well; `off`, not at all, on a loopback address only.
    #[arg(long, env = "BOXOFFICE_AUTH", value_name = "BOXOFFICE_AUTH", value_enum, default_value = "keys")]
    pub auth: Mode,
    /// Seconds for which API keys that were read are believed while PostgreSQL is away.
    #[arg(long, env = "BOXOFFICE_KEYS_KEPT_SECONDS", value_name = "BOXOFFICE_KEYS_KEPT_SECONDS")]
    #[arg(default_value_t = 3_600)]
    pub keys_kept_seconds: u64,
    /// `iss` of the tokens that are taken, to the letter; with `keys+jwt`.
    #[arg(long, env = "BOXOFFICE_JWT_ISSUER", value_name = "BOXOFFICE_JWT_ISSUER")]
    pub jwt_issuer: Option<String>,
    /// What must be among `aud` of the tokens that are taken; with `keys+jwt`.
    #[arg(long, env = "BOXOFFICE_JWT_AUDIENCE", value_name = "BOXOFFICE_JWT_AUDIENCE")]
    pub jwt_audience: Option<String>,
    /// The issuer's public keys (JSON Web Key Set): a file or an https URL, read every minute; with `keys+jwt`.
    #[arg(long, env = "BOXOFFICE_JWT_JWKS", value_name = "BOXOFFICE_JWT_JWKS", hide_env_values = true)]
    pub jwt_jwks: Option<String>,
    /// Seconds by which our clock and the issuer's may differ, 0 to 300.
    #[arg(long, env = "BOXOFFICE_JWT_LEEWAY_SECONDS", value_name = "BOXOFFICE_JWT_LEEWAY_SECONDS")]
    #[arg(default_value_t = 30)]
    pub jwt_leeway_seconds: u64,
    /// The chain of certificates, in PEM, by which HTTPS is served instead of HTTP; read again when it changes. With
    /// BOXOFFICE_TLS_KEY.
    #[arg(long, env = "BOXOFFICE_TLS_CERT", value_name = "BOXOFFICE_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,
    /// The private key of BOXOFFICE_TLS_CERT, in PEM; read again when it changes.
    #[arg(long, env = "BOXOFFICE_TLS_KEY", value_name = "BOXOFFICE_TLS_KEY")]
    pub tls_key: Option<PathBuf>,
    /// Sites whose pages may call from a browser, as `https://shop.example,http://localhost:3000`. None where unset.
    #[arg(long, env = "BOXOFFICE_CORS_ORIGINS", value_name = "BOXOFFICE_CORS_ORIGINS", default_value = "")]
    pub cors_origins: String,
    /// The most connections of clients at once, shared out equally among the workers. Who comes then has to wait.
    #[arg(long, env = "BOXOFFICE_CONNECTIONS", value_name = "BOXOFFICE_CONNECTIONS")]
    #[arg(default_value_t = 10_000)]
    pub connections: u32,
    /// Seconds, 3 to 300, that a client may take from the first byte of a request to its answer, and for taking an answer.
    #[arg(long, env = "BOXOFFICE_CLIENT_SECONDS", value_name = "BOXOFFICE_CLIENT_SECONDS")]
    #[arg(default_value_t = 20)]
    pub client_seconds: u64,
    /// Threads that serve HTTP; the number of cores unless set.
    #[arg(long, env = "BOXOFFICE_WORKERS", value_name = "BOXOFFICE_WORKERS")]
    pub workers: Option<u16>,
    /// Number of shards, 1 to 1024; fixed at installation.
    #[arg(long, env = "BOXOFFICE_SHARDS", value_name = "BOXOFFICE_SHARDS", default_value_t = 16)]
    pub shards: u16,
    /// Begins the name of every key in Redis; no braces.
    #[arg(
        long,
        env = "BOXOFFICE_REDIS_PREFIX",
        value_name = "BOXOFFICE_REDIS_PREFIX",
        default_value = "bo:"
    )]
    pub redis_prefix: String,
    /// Topic of the decisions, with a partition for each shard.
    #[arg(long, env = "BOXOFFICE_KAFKA_TOPIC", value_name = "BOXOFFICE_KAFKA_TOPIC")]
    #[arg(default_value = "boxoffice.decisions")]
    pub kafka_topic: String,
    /// When a booking is acknowledged: `redis`, once it is decided and on Redis' disk, or `kafka`, once the log has
    /// it too.
    #[arg(long, env = "BOXOFFICE_ACK", value_name = "BOXOFFICE_ACK", value_enum, default_value = "redis")]
    pub ack: Acknowledge,
    /// Replicas that Redis is to have; it is said where fewer are connected. With one or more it must refuse what none of
    /// them confirms.
    #[arg(
        long,
        env = "BOXOFFICE_REDIS_REPLICAS",
        value_name = "BOXOFFICE_REDIS_REPLICAS",
        default_value_t = 0
    )]
    pub redis_replicas: u16,
    /// Refuse to start where Redis is not set up to keep what is promised, instead of saying so.
    #[arg(long, env = "BOXOFFICE_STRICT", value_name = "BOXOFFICE_STRICT", default_value_t = false)]
    #[arg(default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    #[arg(action = clap::ArgAction::Set)]
    pub strict: bool,
    /// Batches of decisions of one shard that may wait for Kafka; past it bookings are refused.
    #[arg(long, env = "BOXOFFICE_OUTBOX_MAX_FRAMES", value_name = "BOXOFFICE_OUTBOX_MAX_FRAMES")]
    #[arg(default_value_t = 100_000)]
    pub outbox_max_frames: u64,
    /// Bytes of one shard's decisions that may wait for Kafka; past it bookings are refused.
    #[arg(long, env = "BOXOFFICE_OUTBOX_MAX_BYTES", value_name = "BOXOFFICE_OUTBOX_MAX_BYTES")]
    #[arg(default_value_t = 256 * 1024 * 1024)]
    pub outbox_max_bytes: u64,
    /// Milliseconds that a decision may wait for Kafka; past it bookings of its shard are refused.
    #[arg(long, env = "BOXOFFICE_OUTBOX_MAX_AGE_MS", value_name = "BOXOFFICE_OUTBOX_MAX_AGE_MS")]
    #[arg(default_value_t = 600_000)]
    pub outbox_max_age_ms: u64,
    /// Requests of one kind that may wait for one shard; past it they are refused as `overloaded`.
    #[arg(long, env = "BOXOFFICE_QUEUE_PER_SHARD", value_name = "BOXOFFICE_QUEUE_PER_SHARD")]
    #[arg(default_value_t = 4_096)]
    pub queue_per_shard: u32,
    /// Milliseconds that one answer of Redis may take, 10 to 1000.
    #[arg(
        long,
        env = "BOXOFFICE_REDIS_TIMEOUT_MS",
        value_name = "BOXOFFICE_REDIS_TIMEOUT_MS",
        default_value_t = 500
    )]
    pub redis_timeout_ms: u64,
    /// Milliseconds after which another instance takes over what a dead one relayed, 100 or more.
    #[arg(long, env = "BOXOFFICE_LEASE_MS", value_name = "BOXOFFICE_LEASE_MS", default_value_t = 3_000)]
    pub lease_ms: u64,
    /// File of the rate limits' policies, in TOML; read again when it changes. No rate limits where unset.
    #[arg(long, env = "BOXOFFICE_RATE_LIMITS", value_name = "BOXOFFICE_RATE_LIMITS")]
    pub rate_limits: Option<PathBuf>,
    /// Topic of what the rate limits decided, summed up by the second.
    #[arg(long, env = "BOXOFFICE_RATE_LIMIT_TOPIC", value_name = "BOXOFFICE_RATE_LIMIT_TOPIC")]
    #[arg(default_value = "boxoffice.rate-limits")]
    pub rate_limit_topic: String,
    /// Networks of the proxies in front, as 10.0.0.0/8,::1: only they are believed when they say by X-Forwarded-For or
    /// Forwarded whom they speak for.
    #[arg(long, env = "BOXOFFICE_TRUSTED_PROXIES", value_name = "BOXOFFICE_TRUSTED_PROXIES")]
    #[arg(default_value = "")]
    pub trusted_proxies: String,
    /// The most connections to PostgreSQL.
    #[arg(
        long,
        env = "BOXOFFICE_DATABASE_POOL",
        value_name = "BOXOFFICE_DATABASE_POOL",
        default_value_t = 16
    )]
    pub database_pool: u32,
    /// Seconds that a shutdown may take: requests in flight are answered, decisions brought to Kafka.
    #[arg(
        long,
        env = "BOXOFFICE_SHUTDOWN_SECONDS",
        value_name = "BOXOFFICE_SHUTDOWN_SECONDS",
        default_value_t = 30
    )]
    pub shutdown_seconds: u64,
    /// What is logged: a level, or levels by module as in tracing's `EnvFilter`. JSON unless stderr is a terminal.
    #[arg(long, env = "BOXOFFICE_LOG", value_name = "BOXOFFICE_LOG", default_value = "info")]
    pub log: String,
}

impl Options {
    /// PostgreSQL alone, for commands that need nothing else.
    ///
    /// # Errors
    /// Names the variable that is missing or wrong; never shows a URL.
    pub fn checked_database_url(self) -> anyhow::Result<SecretString> {
        required("BOXOFFICE_DATABASE_URL", self.database_url).and_then(database_url)
    }
}

/// The checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where HTTP is served.
    pub listen: SocketAddr,
    /// How callers are authenticated.
    pub auth: Mode,
    /// What tokens are taken, where any are.
    pub tokens: Option<TokenSettings>,
    /// How long API keys are believed while PostgreSQL is away.
    pub keys_kept: Duration,
    /// By what HTTPS is served; plain HTTP without it.
    pub(crate) tls: Option<TlsFiles>,
    /// Which sites' pages may call.
    pub(crate) origins: Origins,
    /// The bounds of connections.
    pub(crate) bounds: Bounds,
    /// PostgreSQL.
    pub database_url: SecretString,
    /// The most connections to PostgreSQL.
    pub database_pool: u32,
    /// What the inventory is told: Redis, Kafka and the shards are in it, which others ask for as well.
    pub(crate) inventory: Settings,
    /// Whether to refuse to start on a Redis that does not keep what is promised.
    pub strict: bool,
    /// The policies of the rate limits.
    pub rate_limits: Option<PathBuf>,
    /// Where what they decided is told.
    pub rate_limit_topic: String,
    /// Who is believed about a client's address.
    pub(crate) trusted_proxies: TrustedProxies,
    /// How long a shutdown may take, of which clients get half.
    pub shutdown: Duration,
}

impl Options {
    /// Checks everything that can be checked without a server.
    ///
    /// # Errors
    /// Names the variable that is missing or wrong; never shows a URL.
    pub fn checked(self) -> anyhow::Result<Config> {
        ensure!(!self.redis_prefix.contains(['{', '}']), "BOXOFFICE_REDIS_PREFIX must not hold a brace");
        check_topic("BOXOFFICE_KAFKA_TOPIC", &self.kafka_topic)?;
        check_topic("BOXOFFICE_RATE_LIMIT_TOPIC", &self.rate_limit_topic)?;
        ensure!(
            (10..=1_000).contains(&self.redis_timeout_ms),
            "BOXOFFICE_REDIS_TIMEOUT_MS must be 10 to 1000: a client has its answer within 2 seconds"
        );
        ensure!(self.lease_ms >= 100, "BOXOFFICE_LEASE_MS must be 100 or more");
        ensure!(self.queue_per_shard >= 1, "BOXOFFICE_QUEUE_PER_SHARD must be 1 or more");
        ensure!(self.database_pool >= 1, "BOXOFFICE_DATABASE_POOL must be 1 or more");
        ensure!(self.workers != Some(0), "BOXOFFICE_WORKERS must be 1 or more");
        ensure!(self.keys_kept_seconds >= 5, "BOXOFFICE_KEYS_KEPT_SECONDS must be 5 or more");
        ensure!(
            self.auth != Mode::Off || self.listen.ip().is_loopback(),
            "BOXOFFICE_AUTH=off lets everybody do everything, so it takes a loopback address, and BOXOFFICE_LISTEN is \
             {}; set BOXOFFICE_AUTH=keys and make keys with `boxoffice-api keys create`",
            self.listen
        );
        let tokens = self.tokens()?;
        let bounds = self.bounds()?;
        let outbox = self.outbox()?;
        let brokers = self.kafka_brokers.filter(|brokers| !brokers.is_empty());
        Ok(Config {
            listen: self.listen,
            auth: self.auth,
            tokens,
            keys_kept: Duration::from_secs(self.keys_kept_seconds),
            tls: tls_files(self.tls_cert, self.tls_key)?,
            origins: self.cors_origins.parse().context("BOXOFFICE_CORS_ORIGINS")?,
            bounds,
            database_url: required("BOXOFFICE_DATABASE_URL", self.database_url).and_then(database_url)?,
            database_pool: self.database_pool,
            inventory: Settings {
                redis_url: required("BOXOFFICE_REDIS_URL", self.redis_url).and_then(redis_url)?,
                kafka_brokers: brokers.context("BOXOFFICE_KAFKA_BROKERS is not set")?,
                topic: self.kafka_topic,
                shards: ShardCount::new(self.shards).context("BOXOFFICE_SHARDS")?,
                keys: Keys::new(self.redis_prefix),
                outbox,
                queue: usize::try_from(self.queue_per_shard).context("BOXOFFICE_QUEUE_PER_SHARD")?,
                redis_timeout: Duration::from_millis(self.redis_timeout_ms),
                lease: Duration::from_millis(self.lease_ms),
                acknowledge: self.ack,
                redis_replicas: self.redis_replicas,
            },
            strict: self.strict,
            rate_limits: self.rate_limits.filter(|path| !path.as_os_str().is_empty()),
            rate_limit_topic: self.rate_limit_topic,
            trusted_proxies: self.trusted_proxies.parse().context("BOXOFFICE_TRUSTED_PROXIES")?,
            shutdown: Duration::from_secs(self.shutdown_seconds),
        })
    }
}

impl Options {
    fn bounds(&self) -> anyhow::Result<Bounds> {
        let cores = || std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let workers = self.workers.map_or_else(cores, usize::from);
        let connections = usize::try_from(self.connections).context("BOXOFFICE_CONNECTIONS")?;
        ensure!(
            connections >= workers,
            "BOXOFFICE_CONNECTIONS must be {workers} or more: one for each worker"
        );
        ensure!((3..=300).contains(&self.client_seconds), "BOXOFFICE_CLIENT_SECONDS must be 3 to 300");
        Ok(Bounds {
            workers,
            connections,
            patience: Duration::from_secs(self.client_seconds),
            // The other half, and what clients leave of this one, is for the relay.
            shutdown: Duration::from_secs(self.shutdown_seconds) / 2,
        })
    }

    /// None may be 0, by which nobody can mean what it does.
    fn outbox(&self) -> anyhow::Result<OutboxBounds> {
        for (name, bound) in [
            ("BOXOFFICE_OUTBOX_MAX_FRAMES", self.outbox_max_frames),
            ("BOXOFFICE_OUTBOX_MAX_BYTES", self.outbox_max_bytes),
            ("BOXOFFICE_OUTBOX_MAX_AGE_MS", self.outbox_max_age_ms),
        ] {
            ensure!(
                bound >= 1,
                "{name} must be 1 or more: 0 would refuse bookings, and is not \"without bound\""
            );
        }
        Ok(OutboxBounds {
            frames: self.outbox_max_frames,
            bytes: self.outbox_max_bytes,
            age_ms: self.outbox_max_age_ms,
        })
    }

    /// All of them or, where no tokens are taken, none: one that has no effect would be a mistake.
    fn tokens(&self) -> anyhow::Result<Option<TokenSettings>> {
        let settings = [
            ("BOXOFFICE_JWT_ISSUER", &self.jwt_issuer),
            ("BOXOFFICE_JWT_AUDIENCE", &self.jwt_audience),
            ("BOXOFFICE_JWT_JWKS", &self.jwt_jwks),
        ];
        if self.auth != Mode::KeysAndTokens {
            for (name, value) in settings {
                ensure!(
                    value.is_none(),
                    "{name} is set, and BOXOFFICE_AUTH is {}, not keys+jwt",
                    self.auth.as_str()
                );
            }
            return Ok(None);
        }
        let [issuer, audience, jwks] = settings.map(|(name, value)| {
            let value = value.as_deref().filter(|value| !value.is_empty());
            value.with_context(|| format!("{name} is not set, and BOXOFFICE_AUTH is keys+jwt"))
        });
        ensure!(self.jwt_leeway_seconds <= 300, "BOXOFFICE_JWT_LEEWAY_SECONDS must be 0 to 300");
        Ok(Some(TokenSettings {
            issuer: issuer?.to_owned(),
            audience: audience?.to_owned(),
            jwks: jwks?
                .parse::<JwksSource>()
                .map_err(|why| anyhow::anyhow!("BOXOFFICE_JWT_JWKS is {why}"))?,
            leeway: Duration::from_secs(self.jwt_leeway_seconds),
            kept: Duration::from_secs(self.keys_kept_seconds),
        }))
    }
}

/// Both or neither: half of a pair would be a mistake that serves plain HTTP.
fn tls_files(certificate: Option<PathBuf>, key: Option<PathBuf>) -> anyhow::Result<Option<TlsFiles>> {
    let set = |path: Option<PathBuf>| path.filter(|path| !path.as_os_str().is_empty());
    match (set(certificate), set(key)) {
        (Some(certificate), Some(key)) => Ok(Some(TlsFiles { certificate, key })),
        (None, None) => Ok(None),
        (Some(_), None) => bail!("BOXOFFICE_TLS_CERT is set and BOXOFFICE_TLS_KEY is not: TLS needs both"),
        (None, Some(_)) => bail!("BOXOFFICE_TLS_KEY is set and BOXOFFICE_TLS_CERT is not: TLS needs both"),
    }
}

fn check_topic(name: &'static str, topic: &str) -> anyhow::Result<()> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    ensure!(
        (1..=249).contains(&topic.len()) && topic.chars().all(legal),
        "{name} must be 1 to 249 letters, digits, dots, underscores and hyphens"
    );
    Ok(())
}

fn required(name: &'static str, value: Option<SecretString>) -> anyhow::Result<SecretString> {
    value.filter(|secret| !secret.expose_secret().is_empty()).with_context(|| format!("{name} is not set"))
}

fn database_url(url: SecretString) -> anyhow::Result<SecretString> {
    let is_postgres =
        ["postgres://", "postgresql://"].iter().any(|scheme| url.expose_secret().starts_with(scheme));
    ensure!(is_postgres, "BOXOFFICE_DATABASE_URL is not a PostgreSQL URL");
    Ok(url)
}

/// The parser's error does not repeat the URL.
fn redis_url(url: SecretString) -> anyhow::Result<SecretString> {
    url.expose_secret().into_connection_info().context("BOXOFFICE_REDIS_URL is not a Redis URL")?;
    Ok(url)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn options(flag: &'static str, value: &'static str) -> Options {
        let servers = ["--database-url=postgres://h/d", "--redis-url=redis://h/", "--kafka-brokers=h:9092"];
        Options::parse_from(["boxoffice-api"].into_iter().chain(servers).chain([flag, value]))
    }

    #[test]
    fn a_bound_of_the_outbox_by_which_nothing_is_sold_is_refused() {
        for (flag, name) in [
            ("--outbox-max-frames", "BOXOFFICE_OUTBOX_MAX_FRAMES"),
            ("--outbox-max-bytes", "BOXOFFICE_OUTBOX_MAX_BYTES"),
            ("--outbox-max-age-ms", "BOXOFFICE_OUTBOX_MAX_AGE_MS"),
        ] {
            let refusal = options(flag, "0").checked().unwrap_err().to_string();
            assert!(refusal.starts_with(name), "{refusal}");
            options(flag, "1").checked().unwrap();
        }
    }
}
