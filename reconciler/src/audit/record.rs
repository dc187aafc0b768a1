//! A row for each run of the audit, and one for each finding.

use sqlx::PgPool;

use crate::number;

use super::Report;

/// The most old reports that one run removes, which writes one: so it catches up after a while in which none was removed, and
/// never takes long.
const REMOVED_MAX: i64 = 100;

/// Writes the report down, and removes some of those that are older than thirty days.
pub(crate) async fn record(pool: &PgPool, report: &Report) -> sqlx::Result<()> {
    let positions: serde_json::Map<_, _> = report
        .shards
        .iter()
        .map(|(shard, at)| {
            (shard.to_string(), serde_json::json!({ "redis": at.redis, "postgres": at.postgres }))
        })
        .collect();
    let mut transaction = pool.begin().await?;
    let id: i64 = sqlx::query_scalar(
        "INSERT INTO reconciliations \
         (started_at, duration_ms, lag, compared, not_compared, drift, ok, positions) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING id",
    )
    .bind(report.started_at)
    .bind(i64::try_from(report.duration_ms).unwrap_or(i64::MAX))
    .bind(i64::try_from(report.lag).unwrap_or(i64::MAX))
    .bind(i32::try_from(report.compared).unwrap_or(i32::MAX))
    .bind(i32::try_from(report.not_compared).unwrap_or(i32::MAX))
    .bind(i64::try_from(report.drift).unwrap_or(i64::MAX))
    .bind(report.is_ok())
    .bind(serde_json::Value::Object(positions))
    .fetch_one(&mut *transaction)
    .await?;
    let found = &report.findings;
    sqlx::query(
        "INSERT INTO reconciliation_findings (reconciliation_id, shard, event_id, ticket_type_id, kind, detail) \
         SELECT $1, * FROM unnest($2::int2[], $3::uuid[], $4::uuid[], $5::text[], $6::text[])",
    )
    .bind(id)
    .bind(found.iter().map(|f| number::of_shard(f.shard)).collect::<Vec<_>>())
    .bind(found.iter().map(|f| f.event_id.map(|id| id.as_uuid())).collect::<Vec<_>>())
    .bind(found.iter().map(|f| f.ticket_type_id.map(|id| id.as_uuid())).collect::<Vec<_>>())
    .bind(found.iter().map(|f| f.kind.as_str()).collect::<Vec<_>>())
    .bind(found.iter().map(|f| f.detail.as_str()).collect::<Vec<_>>())
    .execute(&mut *transaction)
    .await?;
    sqlx::query(
        "DELETE FROM reconciliations WHERE id = ANY (ARRAY( \
         SELECT id FROM reconciliations WHERE started_at < now() - interval '30 days' ORDER BY started_at LIMIT $1))",
    )
    .bind(REMOVED_MAX)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await
}
