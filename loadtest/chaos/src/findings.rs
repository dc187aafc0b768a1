//! What Boxoffice itself says is wrong, after everything was healed: open gaps, dead letters and alarms. And what it said
//! meanwhile: a difference that a recovery has restored away was a broken promise all the same.

use anyhow::Result;
use sqlx::{Connection, PgConnection};

/// What recovery says where Redis lost decisions that were never acknowledged, and a late relay sent them all the same:
/// refusing them is right, and only a fault that takes data from Redis can lead to it.
const AFTER_A_LOSS: &str = "ended_epoch";

/// What an audit finds at an equal position only, or within one store. No fault leads to it: a Redis that lost decisions is at
/// another position, and stays there until it is restored whole. Where it is behind, or holds are overdue, is left out.
const NEVER_RIGHT: [&str; 4] = ["drift", "oversold", "rows_differ", "unreadable_inventory"];

/// PostgreSQL counted otherwise than a record says that Redis did.
const COUNTS_DIFFER: &str = "counts_differ";

/// Recovery found something else in Redis than in PostgreSQL at the same position.
const MISMATCH: &str = "recovery_mismatch";

/// Of that, what no fault leads to: counters that differ, and a Redis that knows more than the log. A lost key is left out.
const MISMATCHES: [&str; 2] = ["%: ticket type %: Redis has %", "the last decision of Redis is %"];

/// Lists what is wrong or was. `lossy` says that faults took data from Redis.
pub(crate) async fn all(database_url: &str, lossy: bool) -> Result<Vec<String>> {
    let mut connection = PgConnection::connect(database_url).await?;
    let found: Vec<(String, String, String, i64)> = sqlx::query_as(include_str!("findings.sql"))
        .bind(lossy)
        .bind(AFTER_A_LOSS)
        .bind(NEVER_RIGHT.to_vec())
        .bind(COUNTS_DIFFER)
        .bind(MISMATCH)
        .bind(MISMATCHES.to_vec())
        .fetch_all(&mut connection)
        .await?;
    Ok(found
        .into_iter()
        .map(|(state, what, which, count)| format!("{count} {state}: {what} {which}"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing is shared with the reconciler. Said in other words, it would not be found any more, and nobody would know.
    #[test]
    fn what_is_looked_for_is_what_the_reconciler_says() {
        let (audit, alarm) = (
            include_str!("../../../reconciler/src/audit/mod.rs"),
            include_str!("../../../reconciler/src/alarm.rs"),
        );
        assert!(NEVER_RIGHT.iter().all(|kind| audit.contains(&format!("=> \"{kind}\","))));
        let alarms = [AFTER_A_LOSS, COUNTS_DIFFER, MISMATCH];
        assert!(alarms.iter().all(|kind| alarm.contains(&format!("=> \"{kind}\","))));
        let compare = include_str!("../../../reconciler/src/recovery/compare.rs");
        assert!(compare.contains("\"ticket type {}: Redis has {}; PostgreSQL has {}\""));
        let recovery = include_str!("../../../reconciler/src/recovery/mod.rs");
        assert!(recovery.contains("\"Redis does not hold what PostgreSQL holds at the same position: {0}\""));
        assert!(recovery.contains("\"the last decision of Redis is {redis}, "));
    }
}
