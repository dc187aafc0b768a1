//! What PostgreSQL says of itself: counts against bookings, and holds that nobody expired.

use std::collections::BTreeMap;

use boxoffice_schema::ids::{EventId, TicketTypeId};
use sqlx::{PgPool, Row};

use crate::number;

use super::{Finding, FindingKind, ShardPositions};

/// Ticket types whose counts are not the sums of their bookings.
pub(crate) async fn differing(pool: &PgPool, event: Option<EventId>) -> sqlx::Result<Vec<Finding>> {
    let mut transaction = pool.begin().await?;
    // All bookings are read, which may take longer than any other statement.
    sqlx::query("SET LOCAL statement_timeout = '30min'").execute(&mut *transaction).await?;
    let rows = sqlx::query(include_str!("rows_differ.sql"))
        .bind(event.map(|event| event.as_uuid()))
        .fetch_all(&mut *transaction)
        .await?;
    transaction.commit().await?;
    rows.iter()
        .map(|row| {
            let [held, sold, held_rows, sold_rows] =
                [row.try_get(3)?, row.try_get(4)?, row.try_get(5)?, row.try_get::<i64, _>(6)?];
            Ok(Finding {
                shard: number::shard(row.try_get(0)?),
                event_id: Some(EventId::from_uuid(row.try_get(1)?)),
                ticket_type_id: Some(TicketTypeId::from_uuid(row.try_get(2)?)),
                kind: FindingKind::RowsDiffer,
                detail: format!(
                    "PostgreSQL counts held {held}, sold {sold}; its bookings add up to held {held_rows}, sold \
                     {sold_rows}"
                ),
                drift: (held - held_rows).unsigned_abs() + (sold - sold_rows).unsigned_abs(),
            })
        })
        .collect()
}

/// Holds that ran out more than ten seconds ago and are still held, in shards that are not behind.
pub(super) async fn overdue_holds(
    pool: &PgPool,
    event: Option<EventId>,
    positions: &BTreeMap<u16, ShardPositions>,
) -> sqlx::Result<Vec<Finding>> {
    let rows = sqlx::query(include_str!("overdue_holds.sql"))
        .bind(event.map(|event| event.as_uuid()))
        .fetch_all(pool)
        .await?;
    let mut findings = Vec::new();
    for row in rows {
        let shard = number::shard(row.try_get(0)?);
        let in_step = positions
            .get(&shard.number())
            .is_some_and(|at| at.redis.is_some_and(|redis| redis.sequence == at.postgres.sequence));
        if !in_step {
            continue;
        }
        let (event, holds, seconds): (_, i64, f64) = (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        findings.push(Finding {
            shard,
            event_id: Some(EventId::from_uuid(event)),
            ticket_type_id: None,
            kind: FindingKind::OverdueHolds,
            detail: format!(
                "{holds} holds should have expired, the oldest {seconds:.0} s ago; is an API running?"
            ),
            drift: 0,
        });
    }
    Ok(findings)
}
