//! Adds what was read to PostgreSQL: one batch, one transaction.

use std::collections::BTreeMap;

use boxoffice_schema::rate_record::{RateDecisions, RateRecord};
use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use sqlx::PgPool;

use super::reader::PARTITION;

/// Rows of one statement that removes, so that none takes long.
const REMOVE_AT_ONCE: i64 = 10_000;

/// How long rows are kept.
const KEEP_HOURS: i32 = 24;

type Key<'a> = (DateTime<Utc>, &'a str, &'a str);

/// Where reading goes on.
pub(super) async fn next_offset(pool: &PgPool) -> sqlx::Result<i64> {
    sqlx::query_scalar("SELECT next_offset FROM rate_limit_progress WHERE partition = $1")
        .bind(PARTITION)
        .fetch_one(pool)
        .await
}

/// Adds records that were read from `offset` on, and moves it; `false`, and nothing is added, where another process has
/// moved it since.
pub(super) async fn add(pool: &PgPool, offset: i64, next: i64, records: &[RateRecord]) -> sqlx::Result<bool> {
    let mut transaction = pool.begin().await?;
    let moved = sqlx::query(
        "UPDATE rate_limit_progress SET next_offset = $3 WHERE partition = $1 AND next_offset = $2",
    )
    .bind(PARTITION)
    .bind(offset)
    .bind(next)
    .execute(&mut *transaction)
    .await?;
    if moved.rows_affected() != 1 {
        return Ok(false);
    }
    let sums = sum(records);
    let column = |pick: fn(&[i64; 3]) -> i64| sums.values().map(pick).collect::<Vec<i64>>();
    sqlx::query(include_str!("add_minutes.sql"))
        .bind(sums.keys().map(|key| key.0).collect::<Vec<_>>())
        .bind(sums.keys().map(|key| key.1).collect::<Vec<_>>())
        .bind(sums.keys().map(|key| key.2).collect::<Vec<_>>())
        .bind(column(|counts| counts[0]))
        .bind(column(|counts| counts[1]))
        .bind(column(|counts| counts[2]))
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(true)
}

/// Allowed, refused, refused from memory; in the order of the rows' key.
fn sum(records: &[RateRecord]) -> BTreeMap<Key<'_>, [i64; 3]> {
    let mut sums = BTreeMap::new();
    for record in records {
        let minute = record.at.duration_trunc(TimeDelta::minutes(1)).unwrap_or(record.at);
        // PostgreSQL has no text with a NUL, and the API counts none.
        let is_storable =
            |decisions: &&RateDecisions| !decisions.policy.contains('\0') && !decisions.key.contains('\0');
        for decisions in record.decisions.iter().filter(is_storable) {
            let key = (minute, decisions.policy.as_str(), decisions.key.as_str());
            let counts: &mut [i64; 3] = sums.entry(key).or_default();
            let more = [decisions.allowed, decisions.refused, decisions.refused_from_memory];
            for (count, more) in counts.iter_mut().zip(more) {
                *count += i64::from(more);
            }
        }
    }
    sums
}

/// Removes what nobody asks for any more.
pub(super) async fn remove_old(pool: &PgPool) -> sqlx::Result<()> {
    loop {
        let removed = sqlx::query(include_str!("remove_old.sql"))
            .bind(KEEP_HOURS)
            .bind(REMOVE_AT_ONCE)
            .execute(pool)
            .await?;
        if removed.rows_affected() == 0 {
            return Ok(());
        }
    }
}
