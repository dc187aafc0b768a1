//! PostgreSQL: connections, whether it answers, and the time-outs of everything asked of it.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use boxoffice_schema::DecodeError;
use boxoffice_schema::shard::{Shard, ShardCount};
use secrecy::{ExposeSecret, SecretString};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions, PgSslMode};
use sqlx::{ConnectOptions, PgPool, Postgres};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::identity::{self, KeyRingWriter, Mode};
use crate::inventory::Epochs;

/// Everything that one request asks of PostgreSQL, the wait for a connection included.
const ANSWER_WITHIN: Duration = Duration::from_millis(1_200);

/// A wait for a free connection.
const ACQUIRE_WITHIN: Duration = Duration::from_secs(1);

/// For a command.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

const PROBE_INTERVAL: Duration = Duration::from_secs(1);
const PROBE_RETRY_FIRST: Duration = Duration::from_millis(100);
const PROBE_WITHIN: Duration = Duration::from_secs(1);

/// What PostgreSQL is where tables or the installation's row are not there yet.
pub(crate) const NOT_PREPARED: &str = "not prepared; run `boxoffice-reconciler migrate` first";

/// Why PostgreSQL gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DatabaseError {
    /// It passes: away, restarting, busy, not prepared yet.
    #[error("PostgreSQL does not answer: {0}")]
    Unavailable(String),
    /// It would fail for ever: our own fault.
    #[error(transparent)]
    Statement(sqlx::Error),
    /// A row holds what nobody writes.
    #[error(transparent)]
    Corrupt(#[from] DecodeError),
}

impl From<sqlx::Error> for DatabaseError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::Protocol(_)
            | sqlx::Error::WorkerCrashed => Self::Unavailable(error.to_string()),
            sqlx::Error::Database(database) if passes(&database.code().unwrap_or_default()) => {
                Self::Unavailable(error.to_string())
            }
            _ => Self::Statement(error),
        }
    }
}

/// Connections, resources, shutdown and time-outs, locks, serialization, a standby; and tables that are not there yet.
fn passes(sqlstate: &str) -> bool {
    ["08", "53", "57", "55", "40"].iter().any(|class| sqlstate.starts_with(class))
        || ["25006", "3D000"].contains(&sqlstate)
        || is_older(sqlstate)
}

/// A table or a column is not there: `migrate` was not run yet.
fn is_older(sqlstate: &str) -> bool {
    ["42P01", "42703"].contains(&sqlstate)
}

/// Asks PostgreSQL, unless it is known to be away.
#[derive(Clone)]
pub(crate) struct Database {
    pool: PgPool,
    health: watch::Receiver<Result<(), String>>,
}

/// What was fixed when this installation was made, and how often its API keys were changed.
#[derive(sqlx::FromRow)]
struct Installation {
    shards: i16,
    authentication: Option<String>,
    keys_version: i64,
}

/// Watches over PostgreSQL by a connection of its own, so that a crowded pool is not taken for an outage.
pub(crate) struct Probe {
    options: PgConnectOptions,
    shards: ShardCount,
    mode: Mode,
    keys: KeyRingWriter,
    epochs: Arc<Epochs>,
    connection: Option<PgConnection>,
    health: watch::Sender<Result<(), String>>,
}

impl Database {
    /// PostgreSQL does not need to be there yet.
    pub(crate) fn new(
        config: &Config,
        keys: KeyRingWriter,
        epochs: Arc<Epochs>,
    ) -> anyhow::Result<(Self, Probe)> {
        let options = options(&config.database_url)?;
        let (sender, health) = watch::channel(Err("not connected yet".to_owned()));
        let pool = PgPoolOptions::new()
            .max_connections(config.database_pool)
            .acquire_timeout(ACQUIRE_WITHIN)
            .connect_lazy_with(options.clone());
        let probe = Probe {
            options,
            shards: config.inventory.shards,
            mode: config.auth,
            keys,
            epochs,
            connection: None,
            health: sender,
        };
        Ok((Self { pool, health }, probe))
    }

    /// Runs `work` on a connection, within the time that a client waits.
    pub(crate) async fn run<T>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        self.health().map_err(DatabaseError::Unavailable)?;
        let all = async {
            let lent = Lent(Some(self.pool.acquire().await?));
            lent.give_back_after(work).await
        };
        let late =
            || DatabaseError::Unavailable(format!("no answer within {} ms", ANSWER_WITHIN.as_millis()));
        tokio::time::timeout(ANSWER_WITHIN, all).await.unwrap_or_else(|_| Err(late()))
    }

    /// Whether PostgreSQL answers, or why not; from memory.
    pub(crate) fn health(&self) -> Result<(), String> {
        self.health.borrow().clone()
    }
}

/// A connection for a command that a person waits for.
///
/// # Errors
/// Where PostgreSQL does not answer within ten seconds; never shows the URL.
pub(crate) async fn connect(url: &SecretString) -> anyhow::Result<PgConnection> {
    let options = options(url)?;
    let connected = tokio::time::timeout(CONNECT_WITHIN, options.connect()).await;
    connected.context("PostgreSQL did not answer within 10 seconds")?.context("PostgreSQL does not answer")
}

/// The parser's error does not repeat the URL.
fn options(url: &SecretString) -> anyhow::Result<PgConnectOptions> {
    let options = PgConnectOptions::from_str(url.expose_secret())
        .context("BOXOFFICE_DATABASE_URL is not a PostgreSQL URL")?
        .application_name("boxoffice-api")
        .disable_statement_logging();
    ensure!(
        matches!(options.get_ssl_mode(), PgSslMode::Disable | PgSslMode::Allow | PgSslMode::Prefer),
        "BOXOFFICE_DATABASE_URL or PGSSLMODE demands TLS, which this build does not speak: keep PostgreSQL in a private \
         network, and the mode at `prefer`"
    );
    // Compiling a statement (`jit`) takes PostgreSQL longer than running any of ours.
    Ok(options.options([
        ("statement_timeout", "1500"),
        ("idle_in_transaction_session_timeout", "5000"),
        ("jit", "off"),
    ]))
}

/// A connection of the pool for one piece of work. Where that is abandoned, the connection is closed: the pool would
/// take it back only once the server has answered what was asked, and a server that hangs or is cut off never does.
struct Lent(Option<PoolConnection<Postgres>>);

impl Lent {
    async fn give_back_after<T>(
        mut self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        let connection = self.0.as_mut().expect("it is given back only below");
        let done = work(connection).await;
        drop(self.0.take());
        done
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(abandoned) = self.0.take() {
            drop(abandoned.detach());
        }
    }
}

impl Probe {
    /// Looks once.
    ///
    /// # Errors
    /// Where this installation is another one than the configuration says, which is final.
    pub(crate) async fn look(&mut self) -> anyhow::Result<bool> {
        let installation = tokio::time::timeout(PROBE_WITHIN, self.installation()).await;
        let found = match installation {
            Ok(Ok(installation)) => {
                check_shards(installation.shards, self.shards)?;
                check_mode(installation.authentication.as_deref(), self.mode)?;
                Ok(())
            }
            Ok(Err(error)) => Err(describe(&error)),
            Err(_) => Err(format!("no answer within {} ms", PROBE_WITHIN.as_millis())),
        };
        if found.is_err() {
            self.connection = None;
        }
        let up = found.is_ok();
        self.note(found);
        Ok(up)
    }

    /// Looks again and again, until shutdown.
    ///
    /// # Errors
    /// As [`Probe::look`].
    pub(crate) async fn watch(mut self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let mut pause = PROBE_RETRY_FIRST;
        loop {
            pause = if self.look().await? { PROBE_INTERVAL } else { (2 * pause).min(PROBE_INTERVAL) };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.cancelled() => return Ok(()),
            }
        }
    }

    /// The first API that looks fixes what was left open.
    async fn installation(&mut self) -> sqlx::Result<Installation> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.options.connect().await?,
        };
        let connection = self.connection.insert(connection);
        let query = sqlx::query_as("SELECT shards, authentication, keys_version FROM installation");
        let mut found: Installation = query.fetch_one(&mut *connection).await?;
        if found.authentication.is_none() {
            let fix = "UPDATE installation SET authentication = coalesce(authentication, $1) \
                       RETURNING shards, authentication, keys_version";
            found = sqlx::query_as(fix).bind(self.mode.as_str()).fetch_one(&mut *connection).await?;
        }
        // The version was read before the keys: a change in between is read again the next time.
        if self.mode == Mode::Off || self.keys.version() == Some(found.keys_version) {
            self.keys.seen();
        } else {
            self.keys.replace(found.keys_version, identity::live(connection).await?);
        }
        self.hear_epochs().await?;
        Ok(found)
    }

    /// A recovery takes its epoch in PostgreSQL before any Redis hears of it.
    async fn hear_epochs(&mut self) -> sqlx::Result<()> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        let query = sqlx::query_as("SELECT shard, recovery_epoch FROM shards");
        let begun: Vec<(i16, i32)> = query.fetch_all(connection).await?;
        for (shard, epoch) in begun {
            // Neither is ever below 0.
            self.epochs.note_begun(Shard::from_number(shard.unsigned_abs()), epoch.unsigned_abs());
        }
        Ok(())
    }

    /// An outage is said once, and so is its end.
    fn note(&self, found: Result<(), String>) {
        self.health.send_if_modified(|health| {
            let changed = *health != found;
            match &found {
                Ok(()) if changed => tracing::info!("PostgreSQL answers"),
                Err(reason) if changed => {
                    tracing::error!(reason, "PostgreSQL does not answer; sales go on, trying again");
                }
                _ => {}
            }
            *health = found;
            changed
        });
    }
}

fn check_shards(installed: i16, configured: ShardCount) -> anyhow::Result<()> {
    if i32::from(installed) != i32::from(configured.get()) {
        bail!(
            "BOXOFFICE_SHARDS is {}, and this installation has {installed} shards; the number is fixed at installation",
            configured.get()
        );
    }
    Ok(())
}

fn check_mode(installed: Option<&str>, configured: Mode) -> anyhow::Result<()> {
    let configured = configured.as_str();
    let installed = installed.unwrap_or(configured);
    if installed != configured {
        bail!(
            "BOXOFFICE_AUTH is {configured}, and this installation was first started with {installed}; the mode is fixed \
             at installation, since another one would make new bookings of retries"
        );
    }
    Ok(())
}

fn describe(error: &sqlx::Error) -> String {
    let is_prepared = match error {
        sqlx::Error::RowNotFound => false,
        sqlx::Error::Database(database) => !is_older(&database.code().unwrap_or_default()),
        _ => true,
    };
    if is_prepared { error.to_string() } else { NOT_PREPARED.to_owned() }
}
