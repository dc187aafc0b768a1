//! Who does the work that one process alone shall do: the holder of a row in PostgreSQL.
//!
//! Losing it is not a matter of safety, since every batch checks positions and every step of a recovery its epoch; it
//! only keeps two processes from doing the same work. A holder steps down when it learns that another took over, and when the
//! one connection over which it renews has broken or been silent for a while: whoever waits for an answer over another one may
//! then wait for ever, and nobody says so. The service begins again with new ones. A renewal over a new connection would hide that.

use std::time::Duration;

use sqlx::{PgConnection, PgPool};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::telemetry::name;

/// For how long a lease is given.
const TTL_SECONDS: f64 = 5.0;

/// How long a renewal may take.
const TAKE_WITHIN: Duration = Duration::from_secs(2);

/// A holder that could not renew for so long begins again with new connections.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// How often it is renewed, and how often it is asked for.
const INTERVAL: Duration = Duration::from_secs(1);

/// The lease of the process that consumes, audits and recovers.
pub(crate) const RECONCILER: &str = "reconciler";

/// A candidate for a lease, for as long as its process lives.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    name: &'static str,
    holder: String,
}

/// A lease that was taken, with the connection over which it was. The pool does not get that back: it would wait for a silent one
/// before it closes.
pub(crate) struct Held {
    lease: Lease,
    connection: PgConnection,
}

impl Lease {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, holder: Uuid::now_v7().to_string() }
    }

    /// Takes the lease; `None` where another holds it.
    pub(crate) async fn take(&self, pool: &PgPool) -> sqlx::Result<Option<Held>> {
        in_time(async {
            let mut connection = pool.acquire().await?;
            let taken = self.write_row(&mut connection).await?;
            Ok(taken.then(|| Held { lease: self.clone(), connection: connection.detach() }))
        })
        .await
    }

    /// Takes or renews it; `false` where another holds it.
    async fn write_row(&self, connection: &mut PgConnection) -> sqlx::Result<bool> {
        let taken = sqlx::query(
            "INSERT INTO leases (name, holder, expires_at) VALUES ($1, $2, now() + make_interval(secs => $3)) \
             ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at \
             WHERE leases.holder = excluded.holder OR leases.expires_at < now()",
        )
        .bind(self.name)
        .bind(&self.holder)
        .bind(TTL_SECONDS)
        .execute(connection)
        .await?;
        Ok(taken.rows_affected() == 1)
    }

    /// Waits until the lease is taken; `None` where the shutdown came first, or PostgreSQL was silent for too long.
    pub(crate) async fn acquire(&self, pool: &PgPool, shutdown: &CancellationToken) -> Option<Held> {
        let mut said = false;
        let mut answered = Instant::now();
        while !shutdown.is_cancelled() {
            match self.take(pool).await {
                Ok(Some(held)) => {
                    metrics::gauge!(name::LEADER).set(1.0);
                    tracing::info!(holder = self.holder, "this process holds the lease");
                    return Some(held);
                }
                Ok(None) => {
                    answered = Instant::now();
                    if !std::mem::replace(&mut said, true) {
                        tracing::info!("another process holds the lease; standing by");
                    }
                }
                Err(_) if answered.elapsed() > SILENCE_MAX => return None,
                Err(error) => tracing::warn!(%error, "the lease cannot be asked for; waiting for PostgreSQL"),
            }
            shutdown.run_until_cancelled(tokio::time::sleep(INTERVAL)).await;
        }
        None
    }

    /// Gives the lease back, so that a standby need not wait for it to run out.
    pub(crate) async fn release(&self, pool: &PgPool) {
        metrics::gauge!(name::LEADER).set(0.0);
        let deleted = sqlx::query("DELETE FROM leases WHERE name = $1 AND holder = $2")
            .bind(self.name)
            .bind(&self.holder)
            .execute(pool);
        if let Err(error) = in_time(deleted).await {
            tracing::warn!(%error, "the lease was not given back; it runs out by itself");
        }
    }
}

impl Held {
    /// Renews the lease until another has it, or its connection breaks or is silent for too long, or the shutdown.
    pub(crate) async fn keep(self, shutdown: CancellationToken) {
        let Self { lease, mut connection } = self;
        let mut renewed = Instant::now();
        while shutdown.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
            match in_time(lease.write_row(&mut connection)).await {
                Ok(true) => renewed = Instant::now(),
                Ok(false) => {
                    tracing::warn!("another process took the lease over; standing by");
                    return;
                }
                Err(error) if is_broken(&error) || renewed.elapsed() > SILENCE_MAX => {
                    tracing::warn!(%error, "PostgreSQL does not answer; giving the lease up");
                    return;
                }
                Err(error) => tracing::warn!(%error, "the lease was not renewed; trying again"),
            }
        }
    }
}

/// Whether the connection will never answer again. One that is only late may.
fn is_broken(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => error.kind() != std::io::ErrorKind::TimedOut,
        // PostgreSQL says that it ends, and closes the connection.
        sqlx::Error::Database(error) => error.code().is_some_and(|code| code.starts_with("57P")),
        sqlx::Error::Protocol(_) | sqlx::Error::Tls(_) => true,
        _ => false,
    }
}

/// Bounds a question about the lease, the wait for a connection included.
async fn in_time<T>(asked: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    tokio::time::timeout(TAKE_WITHIN, asked).await.unwrap_or_else(|_| {
        let late = format!("PostgreSQL did not answer within {} s", TAKE_WITHIN.as_secs());
        Err(std::io::Error::new(std::io::ErrorKind::TimedOut, late).into())
    })
}
