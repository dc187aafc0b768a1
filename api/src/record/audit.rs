//! What PostgreSQL says of an event and its shard, for comparing it with Redis.

use boxoffice_schema::ids::{EventId, TicketTypeId};
use boxoffice_schema::position::Position;
use boxoffice_schema::shard::Shard;
use boxoffice_schema::status::EventStatus;
use chrono::{DateTime, Utc};
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::{applied, unsigned};
use crate::database::DatabaseError;

/// An event's counts at one position of its shard, and what the reconciler has found.
#[derive(Debug)]
pub(crate) struct RecordedCounts {
    /// How far the log has been applied.
    pub(crate) position: Position,
    /// By ordinal; none where PostgreSQL does not know the event.
    pub(crate) ticket_types: Vec<RecordedType>,
    /// Open gaps of the shard.
    pub(crate) gaps: Vec<Gap>,
    /// None of what is not compared, a draft or a closed event.
    pub(crate) last_reconciliation: Option<Reconciliation>,
}

/// The counts of one ticket type.
#[derive(Debug)]
pub(crate) struct RecordedType {
    pub(crate) id: TicketTypeId,
    pub(crate) capacity: u32,
    pub(crate) held: u32,
    pub(crate) sold: u32,
}

/// Sequence numbers that never came.
#[derive(Debug)]
pub(crate) struct Gap {
    pub(crate) epoch: u32,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// The reconciler's newest run.
#[derive(Debug)]
pub(crate) struct Reconciliation {
    /// When it began.
    pub(crate) at: DateTime<Utc>,
    /// Whether it found nothing wrong with the event. That it came to compare it is not recorded: of a shard whose log lags during
    /// all tries it does not.
    pub(crate) ok: bool,
}

#[derive(sqlx::FromRow)]
struct CountRow {
    epoch: i32,
    sequence: i64,
    status: String,
    /// The decision that last changed the event.
    changed_at: i64,
    id: Uuid,
    capacity: i32,
    held: i32,
    sold: i32,
}

/// The event's counts.
pub(crate) async fn counts(
    connection: &mut PgConnection,
    shard: Shard,
    event: EventId,
) -> Result<RecordedCounts, DatabaseError> {
    // One statement, and so one moment: counts and position belong together.
    let rows: Vec<CountRow> = sqlx::query_as(
        "SELECT shards.epoch, shards.sequence, events.status, events.sequence AS changed_at, \
                types.id, types.capacity, types.held, types.sold \
         FROM events JOIN shards USING (shard) JOIN ticket_types types ON types.event_id = events.id \
         WHERE events.id = $1 ORDER BY types.ordinal",
    )
    .bind(event.as_uuid())
    .fetch_all(&mut *connection)
    .await?;
    let (position, changed_at) = match rows.first() {
        Some(first) => (first.position()?, first.compared_since()?),
        None => (applied(connection, shard).await?, None),
    };
    let last_reconciliation = match changed_at {
        Some(changed_at) => last_reconciliation(connection, shard, event, changed_at).await?,
        None => None,
    };
    Ok(RecordedCounts {
        position,
        ticket_types: rows.iter().map(CountRow::read).collect::<Result<_, _>>()?,
        gaps: gaps(connection, shard).await?,
        last_reconciliation,
    })
}

impl CountRow {
    fn position(&self) -> Result<Position, DatabaseError> {
        Ok(Position { epoch: unsigned("epoch", self.epoch)?, sequence: unsigned("sequence", self.sequence)? })
    }

    /// The decision that last changed the event, where the audit compares it.
    fn compared_since(&self) -> Result<Option<i64>, DatabaseError> {
        let is_compared =
            matches!(EventStatus::parse(&self.status)?, EventStatus::OnSale | EventStatus::Paused);
        Ok(is_compared.then_some(self.changed_at))
    }

    fn read(&self) -> Result<RecordedType, DatabaseError> {
        Ok(RecordedType {
            id: TicketTypeId::from_uuid(self.id),
            capacity: unsigned("capacity", self.capacity)?,
            held: unsigned("held", self.held)?,
            sold: unsigned("sold", self.sold)?,
        })
    }
}

async fn gaps(connection: &mut PgConnection, shard: Shard) -> Result<Vec<Gap>, DatabaseError> {
    let rows: Vec<(i32, i64, i64)> = sqlx::query_as(
        "SELECT epoch, from_sequence, to_sequence FROM gaps WHERE shard = $1 AND resolved_at IS NULL \
         ORDER BY from_sequence",
    )
    .bind(i32::from(shard.number()))
    .fetch_all(connection)
    .await?;
    let gap = |(epoch, from, to): (i32, i64, i64)| -> Result<Gap, DatabaseError> {
        Ok(Gap {
            epoch: unsigned("epoch", epoch)?,
            from: unsigned("from_sequence", from)?,
            to: unsigned("to_sequence", to)?,
        })
    };
    rows.into_iter().map(gap).collect()
}

/// The newest run, which compared what was on sale or paused in PostgreSQL when it began; none where the event's last change was not
/// applied then.
async fn last_reconciliation(
    connection: &mut PgConnection,
    shard: Shard,
    event: EventId,
    changed_at: i64,
) -> Result<Option<Reconciliation>, DatabaseError> {
    // What was found of its shard as a whole is about the event too. Overdue holds are a note.
    let row: Option<(DateTime<Utc>, bool)> = sqlx::query_as(
        "SELECT started_at, NOT EXISTS ( \
             SELECT 1 FROM reconciliation_findings WHERE reconciliation_id = newest.id AND kind <> 'overdue_holds' \
             AND (event_id = $1 OR (event_id IS NULL AND shard = $2)) \
         ) FROM (SELECT id, started_at, positions FROM reconciliations ORDER BY started_at DESC LIMIT 1) newest \
         WHERE (positions -> $3::text -> 'postgres' ->> 'sequence')::int8 >= $4",
    )
    .bind(event.as_uuid())
    .bind(i32::from(shard.number()))
    .bind(shard.number().to_string())
    .bind(changed_at)
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|(at, ok)| Reconciliation { at, ok }))
}
