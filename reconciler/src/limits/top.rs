//! Who was refused most.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgPool;

/// A subject of a policy that was refused.
#[derive(Clone, Debug, Serialize, sqlx::FromRow)]
pub(crate) struct Offender {
    pub(crate) policy: String,
    /// Empty for all those whom the API did not tell apart.
    pub(crate) key: String,
    pub(crate) allowed: i64,
    pub(crate) refused: i64,
    pub(crate) refused_from_memory: i64,
    /// The last minute in which they were refused.
    pub(crate) last_refused: DateTime<Utc>,
}

/// The subjects that were refused most in the last minutes, worst first; of one policy, where one is named.
pub(crate) async fn offenders(
    pool: &PgPool,
    policy: Option<&str>,
    minutes: u16,
    lines: u16,
) -> sqlx::Result<Vec<Offender>> {
    sqlx::query_as(include_str!("top.sql"))
        .bind(policy)
        .bind(i32::from(minutes))
        .bind(i64::from(lines))
        .fetch_all(pool)
        .await
}
