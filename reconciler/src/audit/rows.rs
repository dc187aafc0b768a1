//! What PostgreSQL says of itself: counts against bookings, and holds that nobody expired.

use std::collections::BTreeMap;

use boxoffice_schema::ids::EventId;
use sqlx::{PgPool, Row};

use crate::miscounts::{self, Miscount};
use crate::number;

use super::{Finding, FindingKind, ShardPositions};

/// Ticket types whose counts are not the sums of their bookings.
pub(super) async fn differing(pool: &PgPool, event: Option<EventId>) -> sqlx::Result<Vec<Finding>> {
    let miscounts = miscounts::read(&mut *pool.acquire().await?, event).await?;
    let finding = |Miscount { shard, event, ticket_type, counted, summed }| Finding {
        shard,
        event_id: Some(event),
        ticket_type_id: Some(ticket_type),
        kind: FindingKind::RowsDiffer,
        detail: format!("PostgreSQL counts {counted}; its bookings add up to {summed}"),
        drift: (counted.held - summed.held).unsigned_abs() + (counted.sold - summed.sold).unsigned_abs(),
    };
    Ok(miscounts.into_iter().map(finding).collect())
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
