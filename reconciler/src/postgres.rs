//! The connection to PostgreSQL, and what every start checks there.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use boxoffice_schema::shard::ShardCount;
use secrecy::ExposeSecret;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use sqlx::{PgPool, Row};

use crate::config::Config;

/// How long a connection may take; also the bound of a wait for a free one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// One for each shard that is recovered, and as many for applying, auditing and the lease.
const CONNECTIONS: u32 = 24;

/// By which the sessions of all reconcilers are known.
const APPLICATION_NAME: &str = "boxoffice-reconciler";

/// A pool that connects when it is first used.
pub(crate) fn pool(config: &Config) -> anyhow::Result<PgPool> {
    let url = config.database_url.expose_secret();
    // The parser takes any scheme; its error does not repeat the URL.
    ensure!(
        url.starts_with("postgres://") || url.starts_with("postgresql://"),
        "BOXOFFICE_DATABASE_URL must begin with postgres:// or postgresql://"
    );
    let options =
        PgConnectOptions::from_str(url).context("BOXOFFICE_DATABASE_URL is not a PostgreSQL URL")?;
    ensure!(
        matches!(options.get_ssl_mode(), PgSslMode::Disable | PgSslMode::Allow | PgSslMode::Prefer),
        "BOXOFFICE_DATABASE_URL or PGSSLMODE demands TLS, which this build does not speak: keep PostgreSQL in a private \
         network, and the mode at `prefer`"
    );
    let options = options
        .application_name(APPLICATION_NAME)
        // A statement that PostgreSQL itself gives up is better than one that is waited for in vain. A process that was
        // paused or cut off in the middle of a batch holds the rows that its successor needs: it is given longer than a mend
        // of a gap asks Kafka where the log begins, which is the longest wait within a transaction.
        // One whose machine is gone is noticed by keep-alives.
        // Compiling a statement (`jit`) takes PostgreSQL longer than running any of ours.
        .options([
            ("statement_timeout", "60s"),
            ("idle_in_transaction_session_timeout", "15s"),
            ("tcp_keepalives_idle", "5"),
            ("tcp_keepalives_interval", "2"),
            ("tcp_keepalives_count", "5"),
            ("jit", "off"),
        ]);
    Ok(PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(CONNECT_TIMEOUT)
        .connect_lazy_with(options))
}

/// Ends what another process of ours left in the middle of a `COPY`, whose transaction holds rows that are waited for: it was
/// paused there, or is cut off. PostgreSQL takes such a session for active, and gives it no time-out.
pub(crate) async fn end_abandoned_copies(pool: &PgPool) -> sqlx::Result<()> {
    let ended: Vec<bool> = sqlx::query_scalar(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE datname = current_database() AND usename = current_user AND application_name = $1 \
         AND state = 'active' AND wait_event = 'ClientRead' AND xact_start < now() - interval '15 s'",
    )
    .bind(APPLICATION_NAME)
    .fetch_all(pool)
    .await?;
    if !ended.is_empty() {
        tracing::warn!(
            sessions = ended.len(),
            "sessions that had stopped in the middle of a COPY were ended"
        );
    }
    Ok(())
}

/// Whether an error is about the data of a statement, so that the same statement would fail for ever; all other
/// errors are about servers and networks, and pass.
pub(crate) fn is_about_data(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(database) => {
            let code = database.code().unwrap_or_default();
            // One row twice in a statement, data exceptions, violated constraints, and values too large for an index.
            ["21", "22", "23", "54"].iter().any(|class| code.starts_with(class))
        }
        sqlx::Error::Encode(_) => true,
        _ => false,
    }
}

/// Whether the installation is what the configuration says.
///
/// The outer error is PostgreSQL being away, which passes; the inner one is final.
pub(crate) async fn check_installation(
    pool: &PgPool,
    shards: ShardCount,
) -> Result<anyhow::Result<()>, sqlx::Error> {
    let installed: Option<String> =
        sqlx::query_scalar("SELECT to_regclass('installation')::text").fetch_one(pool).await?;
    let row = match installed {
        Some(_) => sqlx::query("SELECT shards FROM installation").fetch_optional(pool).await?,
        None => None,
    };
    let Some(row) = row else {
        return Ok(Err(anyhow::anyhow!(
            "PostgreSQL is not prepared; run `boxoffice-reconciler migrate` first"
        )));
    };
    let recorded: i16 = row.try_get(0)?;
    Ok(same_shards(recorded, shards))
}

/// Refuses a number of shards other than the one that was recorded.
pub(crate) fn same_shards(recorded: i16, configured: ShardCount) -> anyhow::Result<()> {
    if i32::from(recorded) != i32::from(configured.get()) {
        bail!(
            "this installation has {recorded} shards and BOXOFFICE_SHARDS is {}; the number is fixed at installation",
            configured.get()
        );
    }
    Ok(())
}
