//! Where PostgreSQL contradicts itself: ticket types whose counts are not what its own bookings add up to.

use std::fmt;

use boxoffice_schema::ids::{EventId, TicketTypeId};
use boxoffice_schema::shard::Shard;
use sqlx::postgres::PgRow;
use sqlx::{Acquire, PgConnection, Row};

use crate::number;

/// Tickets of one type.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tickets {
    pub(crate) held: i64,
    pub(crate) sold: i64,
}

impl fmt::Display for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "held {}, sold {}", self.held, self.sold)
    }
}

/// A ticket type whose counts are not the sums of its bookings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Miscount {
    pub(crate) shard: Shard,
    pub(crate) event: EventId,
    pub(crate) ticket_type: TicketTypeId,
    pub(crate) counted: Tickets,
    pub(crate) summed: Tickets,
}

/// All of them, or those of one event.
pub(crate) async fn read(
    connection: &mut PgConnection,
    event: Option<EventId>,
) -> sqlx::Result<Vec<Miscount>> {
    let mut transaction = connection.begin().await?;
    // All bookings are read, which may take longer than any other statement.
    sqlx::query("SET LOCAL statement_timeout = '30min'").execute(&mut *transaction).await?;
    let found = read_soon(&mut transaction, event).await?;
    // Nothing was written, and the time-out goes with it.
    transaction.rollback().await?;
    Ok(found)
}

/// The same within the time of any statement, for whoever keeps others waiting.
pub(crate) async fn read_soon(
    connection: &mut PgConnection,
    event: Option<EventId>,
) -> sqlx::Result<Vec<Miscount>> {
    let query = sqlx::query(include_str!("miscounts.sql")).bind(event.map(|event| event.as_uuid()));
    query.fetch_all(connection).await?.iter().map(miscount).collect()
}

fn miscount(row: &PgRow) -> sqlx::Result<Miscount> {
    Ok(Miscount {
        shard: number::shard(row.try_get(0)?),
        event: EventId::from_uuid(row.try_get(1)?),
        ticket_type: TicketTypeId::from_uuid(row.try_get(2)?),
        counted: Tickets { held: row.try_get(3)?, sold: row.try_get(4)? },
        summed: Tickets { held: row.try_get(5)?, sold: row.try_get(6)? },
    })
}
