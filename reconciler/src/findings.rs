//! Rows for what is not as it should be: gaps, alarms, dead letters. Each is logged when its row is new.

use boxoffice_schema::ids::{EventId, TicketTypeId};
use boxoffice_schema::shard::Shard;
use sqlx::{PgConnection, PgPool};

use crate::alarm::{Alarm, AlarmKind, CountsDifference};
use crate::decode::{Content, Incoming};
use crate::number::{self, int4, int8};
use crate::repairs::{self, Intent, Kind};
use crate::sequence::Gap;

/// Raises an alarm, unless the same one is open.
pub(crate) async fn raise(connection: &mut PgConnection, alarm: &Alarm) -> sqlx::Result<()> {
    let raised = sqlx::query(
        "INSERT INTO alarms (shard, event_id, kind, detail, ticket_type_id, held_difference, sold_difference) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
    )
    .bind(number::of_shard(alarm.shard))
    .bind(alarm.event_id.map(|id| id.as_uuid()))
    .bind(alarm.kind.as_str())
    .bind(&alarm.detail)
    .bind(alarm.counts.map(|counts| counts.ticket_type_id.as_uuid()))
    .bind(alarm.counts.map(|counts| counts.held))
    .bind(alarm.counts.map(|counts| counts.sold))
    .execute(connection)
    .await?
    .rows_affected();
    if raised > 0 {
        tracing::error!(shard = %alarm.shard, kind = alarm.kind.as_str(), detail = alarm.detail, "alarm");
    }
    Ok(())
}

impl Alarm {
    /// That a guard of the tables refused a record.
    pub(crate) fn of_refusal(incoming: &Incoming, event_id: Option<EventId>, reason: &str) -> Self {
        let position = incoming.position().map_or_else(String::new, |position| position.to_string());
        let detail = format!(
            "{}decision {position} was refused: {}",
            refusal_prefix(incoming.offset),
            storable(reason)
        );
        Self { shard: incoming.shard, event_id, kind: AlarmKind::Refused, detail, counts: None }
    }
}

/// How the detail of a refusal begins, by which its dead letter finds it.
fn refusal_prefix(offset: i64) -> String {
    format!("offset {offset}: ")
}

/// Resolves the alarm that belongs to a dead letter.
pub(crate) async fn resolve_refusal(
    connection: &mut PgConnection,
    shard: i16,
    offset: i64,
) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE alarms SET resolved_at = now() \
         WHERE shard = $1 AND kind = $2 AND starts_with(detail, $3) AND resolved_at IS NULL",
    )
    .bind(shard)
    .bind(AlarmKind::Refused.as_str())
    .bind(refusal_prefix(offset))
    .execute(connection)
    .await?;
    Ok(())
}

/// Resolves one alarm on an operator's word; `false` where it is not open.
pub(crate) async fn resolve_one(pool: &PgPool, id: i64, by: &str) -> sqlx::Result<bool> {
    let mut transaction = pool.begin().await?;
    let resolved: Option<(i16, Option<uuid::Uuid>, String, String)> = sqlx::query_as(
        "UPDATE alarms SET resolved_at = now() WHERE id = $1 AND resolved_at IS NULL \
         RETURNING shard, event_id, kind, detail",
    )
    .bind(id)
    .fetch_optional(&mut *transaction)
    .await?;
    let Some((shard, event, kind, detail)) = resolved else { return Ok(false) };
    let before = format!("alarm {id}, {kind}: {detail}");
    let intent = Intent {
        kind: Kind::Alarm,
        shard: number::shard(shard),
        event_id: event.map(EventId::from_uuid),
        by,
        before: &before,
    };
    repairs::record(&mut transaction, &intent, "resolved").await?;
    transaction.commit().await?;
    Ok(true)
}

/// By how much the counts of an event's ticket types differ, as its open alarms say: of each type the newest one. Each of them tells
/// the whole difference at its position, and not what was added to it since the one before.
pub(crate) async fn differing_counts(pool: &PgPool, event: EventId) -> sqlx::Result<Vec<CountsDifference>> {
    let rows: Vec<(uuid::Uuid, i64, i64)> = sqlx::query_as(
        "SELECT DISTINCT ON (ticket_type_id) ticket_type_id, held_difference, sold_difference FROM alarms \
         WHERE event_id = $1 AND kind = $2 AND resolved_at IS NULL AND ticket_type_id IS NOT NULL \
         ORDER BY ticket_type_id, id DESC",
    )
    .bind(event.as_uuid())
    .bind(AlarmKind::CountsDiffer.as_str())
    .fetch_all(pool)
    .await?;
    let difference = |(ticket_type, held, sold)| CountsDifference {
        ticket_type_id: TicketTypeId::from_uuid(ticket_type),
        held,
        sold,
    };
    Ok(rows.into_iter().map(difference).collect())
}

/// Resolves all alarms about the counts of an event, and returns their numbers.
pub(crate) async fn resolve_differing_counts(pool: &PgPool, event: EventId) -> sqlx::Result<Vec<i64>> {
    sqlx::query_scalar(
        "UPDATE alarms SET resolved_at = now() \
         WHERE event_id = $1 AND kind = $2 AND resolved_at IS NULL RETURNING id",
    )
    .bind(event.as_uuid())
    .bind(AlarmKind::CountsDiffer.as_str())
    .fetch_all(pool)
    .await
}

/// Opens alarms again that were resolved too early, unless the same ones were raised since.
pub(crate) async fn reopen(pool: &PgPool, ids: &[i64]) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE alarms SET resolved_at = NULL WHERE id = ANY ($1) AND NOT EXISTS ( \
             SELECT FROM alarms AS same WHERE same.resolved_at IS NULL \
             AND (same.shard, same.kind, same.detail) = (alarms.shard, alarms.kind, alarms.detail))",
    )
    .bind(ids)
    .execute(pool)
    .await?;
    Ok(())
}

/// Resolves what recovery has put right.
pub(crate) async fn resolve(
    connection: &mut PgConnection,
    shard: Shard,
    kinds: impl Iterator<Item = AlarmKind>,
) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE alarms SET resolved_at = now() WHERE shard = $1 AND kind = ANY ($2) AND resolved_at IS NULL",
    )
    .bind(number::of_shard(shard))
    .bind(kinds.map(AlarmKind::as_str).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// Resolves the alarms about counts of a shard's events that are compared at each look, which are those on sale or paused.
pub(crate) async fn resolve_counts_compared(pool: &PgPool, shard: Shard) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE alarms SET resolved_at = now() WHERE shard = $1 AND kind = $2 AND resolved_at IS NULL \
         AND event_id IN (SELECT id FROM events WHERE shard = $1 AND status IN ('on_sale', 'paused'))",
    )
    .bind(number::of_shard(shard))
    .bind(AlarmKind::CountsDiffer.as_str())
    .execute(pool)
    .await?;
    Ok(())
}

/// Closes the gaps whose decisions came after all, from the first on: the sequence has gone on behind it. What is still missing of one
/// is a gap again.
pub(crate) async fn resolve_filled_gaps(pool: &PgPool) -> anyhow::Result<()> {
    let filled: Vec<i64> = sqlx::query_scalar(
        "UPDATE gaps SET resolved_at = now() FROM shards \
         WHERE gaps.shard = shards.shard AND resolved_at IS NULL AND NOT offset_lost AND from_sequence <= sequence \
         RETURNING gaps.id",
    )
    .fetch_all(pool)
    .await?;
    for id in filled {
        tracing::warn!(id, "what was missing came after all: the gap is closed");
    }
    Ok(())
}

/// Records a gap, unless it is open already.
pub(crate) async fn record_gap(connection: &mut PgConnection, shard: Shard, gap: Gap) -> sqlx::Result<()> {
    let recorded = sqlx::query(
        "INSERT INTO gaps (shard, epoch, from_sequence, to_sequence, kafka_offset, offset_lost) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
    )
    .bind(number::of_shard(shard))
    .bind(int4(gap.epoch))
    .bind(int8(gap.from))
    .bind(int8(gap.to))
    .bind(gap.offset)
    .bind(gap.is_offset_lost)
    .execute(connection)
    .await?
    .rows_affected();
    if recorded > 0 {
        tracing::error!(%shard, from = gap.from, to = gap.to, offset = gap.offset, "gap: the shard stops here");
    }
    Ok(())
}

/// Why a record was put aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeadLetterKind {
    /// It could not be read.
    Poisoned,
    /// A guard of the tables said no.
    Refused,
}

impl DeadLetterKind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Poisoned => "poisoned",
            Self::Refused => "refused",
        }
    }
}

/// A record that is put aside, and why.
#[derive(Debug)]
pub(crate) struct SetAside<'a> {
    pub(crate) incoming: &'a Incoming,
    pub(crate) kind: DeadLetterKind,
    pub(crate) reason: String,
}

impl<'a> SetAside<'a> {
    /// A record that could not be read.
    pub(crate) fn poisoned(incoming: &'a Incoming) -> Option<Self> {
        match &incoming.content {
            Content::Poison { reason, .. } => Some(Self::new(incoming, DeadLetterKind::Poisoned, reason)),
            Content::Record(_) => None,
        }
    }

    /// A record that a guard of the tables refused.
    pub(crate) fn refused(incoming: &'a Incoming, reason: &str) -> Self {
        Self::new(incoming, DeadLetterKind::Refused, reason)
    }

    fn new(incoming: &'a Incoming, kind: DeadLetterKind, reason: &str) -> Self {
        Self { incoming, kind, reason: storable(reason) }
    }
}

/// A reason quotes what somebody sent: PostgreSQL holds no NUL, and nobody reads a page of it.
fn storable(reason: &str) -> String {
    reason.chars().take(1_000).map(|c| if c == '\0' { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Keeps a record that was put aside, once. Its copy in the dead-letter topic follows.
pub(crate) async fn record_dead_letter(
    connection: &mut PgConnection,
    aside: &SetAside<'_>,
) -> sqlx::Result<()> {
    let SetAside { incoming, kind, reason } = aside;
    let position = incoming.position();
    let recorded = sqlx::query(
        "INSERT INTO dead_letters (shard, epoch, sequence, kafka_offset, kind, reason, payload, copied_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, NULL) ON CONFLICT DO NOTHING",
    )
    .bind(number::of_shard(incoming.shard))
    .bind(position.map(|position| int4(position.epoch)))
    .bind(position.map(|position| int8(position.sequence)))
    .bind(incoming.offset)
    .bind(kind.as_str())
    .bind(reason)
    .bind(&incoming.payload)
    .execute(connection)
    .await?
    .rows_affected();
    if recorded > 0 {
        tracing::error!(
            shard = %incoming.shard,
            offset = incoming.offset,
            position = position.map(tracing::field::display),
            kind = kind.as_str(),
            reason,
            "dead letter"
        );
    }
    Ok(())
}
