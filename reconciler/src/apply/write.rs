//! Writes folded changes: a statement or two a table, whatever the number of rows.

use std::collections::HashMap;

use boxoffice_schema::ids::{BookingId, EventId, TicketTypeId};
use boxoffice_schema::record::Totals;
use boxoffice_schema::status::BookingStatus;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::alarm::{Alarm, AlarmKind, CountsDifference};
use crate::copy::Rows;
use crate::fold::{BookingChange, ChangedRow, Changes, Delta, deltas};
use crate::number::{self, int4, int8};

/// A booking with its last change.
type Booking<'a> = (&'a BookingId, &'a BookingChange<'a>);

/// Which bookings are looked for in the table before they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Those that the changes do not make. A booking is made once, and its position has come for the first time: should it
    /// be a row all the same, the primary key refuses the changes.
    ForOld,
    /// All, because the changes may come a second time.
    ForAll,
}

/// Writes the changes and compares the counts with Redis' own. An alarm is returned for each that differs, and for each of
/// which Redis said that it was oversold.
pub(crate) async fn write(
    connection: &mut PgConnection,
    changes: &Changes<'_>,
    look: Look,
) -> sqlx::Result<Vec<Alarm>> {
    let mut capacities = HashMap::new();
    if !changes.events.is_empty() {
        capacities = write_events(connection, changes).await?;
    }
    let mut moved = HashMap::new();
    if !changes.bookings.is_empty() {
        let rows = write_bookings(connection, changes, look).await?;
        #[cfg(feature = "mutants")]
        let rows = with_unchanged(changes, rows);
        moved = deltas(changes, &rows);
    }
    if changes.totals.is_empty() {
        return Ok(Vec::new());
    }
    let mut alarms = write_counts(connection, changes, &capacities, &moved).await?;
    alarms.extend(changes.oversold.values().cloned());
    Ok(alarms)
}

/// Without deduplication a booking counts whenever it is delivered, and not only where its row changed.
#[cfg(feature = "mutants")]
fn with_unchanged(changes: &Changes<'_>, mut rows: Vec<ChangedRow>) -> Vec<ChangedRow> {
    if boxoffice_schema::mutants::is_off("no-dedup") {
        let changed: std::collections::HashSet<BookingId> = rows.iter().map(|row| row.id).collect();
        let unchanged = changes.bookings.keys().filter(|id| !changed.contains(id));
        rows.extend(unchanged.map(|id| ChangedRow { id: *id, before: None }));
    }
    rows
}

/// Returns the capacities of the events that really changed.
async fn write_events(
    connection: &mut PgConnection,
    changes: &Changes<'_>,
) -> sqlx::Result<HashMap<TicketTypeId, u32>> {
    let events: Vec<_> = changes.events.values().collect();
    let changed: Vec<Uuid> = sqlx::query_scalar(include_str!("upsert_events.sql"))
        .bind(column(&events, |e| e.image.id.as_uuid()))
        .bind(column(&events, |e| number::of_shard(e.shard)))
        .bind(column(&events, |e| e.image.name.to_string()))
        .bind(column(&events, |e| e.image.starts_at))
        .bind(column(&events, |e| e.image.sales_open_at))
        .bind(column(&events, |e| e.image.sales_close_at))
        .bind(column(&events, |e| e.image.per_customer_limit.map(int4)))
        .bind(column(&events, |e| int4(e.image.hold_seconds)))
        .bind(column(&events, |e| e.image.currency.to_string()))
        .bind(column(&events, |e| e.image.status.as_str()))
        .bind(column(&events, |e| int4(e.image.slots)))
        .bind(column(&events, |e| e.image.created_at))
        .bind(column(&events, |e| e.image.updated_at))
        .bind(column(&events, |e| int4(e.position.epoch)))
        .bind(column(&events, |e| int8(e.position.sequence)))
        .fetch_all(&mut *connection)
        .await?;
    let types: Vec<_> = changed
        .iter()
        .filter_map(|id| changes.events.get(&EventId::from_uuid(*id)))
        .flat_map(|event| {
            (0_i16..).zip(&event.image.ticket_types).map(|(ordinal, t)| (event.image.id, ordinal, t))
        })
        .collect();
    sqlx::query(include_str!("upsert_ticket_types.sql"))
        .bind(column(&types, |(_, _, t)| t.id.as_uuid()))
        .bind(column(&types, |(event, _, _)| event.as_uuid()))
        .bind(column(&types, |(_, ordinal, _)| *ordinal))
        .bind(column(&types, |(_, _, t)| t.name.to_string()))
        .bind(column(&types, |(_, _, t)| int8(t.price)))
        .bind(column(&types, |(_, _, t)| t.per_customer_limit.map(int4)))
        .bind(column(&types, |(_, _, t)| int4(t.capacity)))
        .execute(&mut *connection)
        .await?;
    Ok(types.into_iter().map(|(_, _, t)| (t.id, t.capacity)).collect())
}

/// Returns the rows that really changed. Nobody else writes these bookings meanwhile, since their shard's row is locked:
/// what is no row now is new, and goes in without being looked for once more.
async fn write_bookings(
    connection: &mut PgConnection,
    changes: &Changes<'_>,
    look: Look,
) -> sqlx::Result<Vec<ChangedRow>> {
    let may_be_known = changes.bookings.iter().filter(|(_, change)| look == Look::ForAll || !change.is_new);
    let before = read_statuses(connection, may_be_known.map(|(id, _)| id.as_uuid()).collect()).await?;
    let (known, new): (Vec<Booking<'_>>, Vec<Booking<'_>>) =
        changes.bookings.iter().partition(|(id, _)| before.contains_key(id));
    let mut rows = Vec::with_capacity(changes.bookings.len());
    if !new.is_empty() {
        insert_bookings(connection, &new).await?;
        insert_items(connection, &new).await?;
        rows.extend(new.iter().map(|(id, _)| ChangedRow { id: **id, before: None }));
    }
    if !known.is_empty() {
        let changed = update_bookings(connection, &known).await?;
        rows.extend(changed.into_iter().map(|id| ChangedRow { id, before: before.get(&id).copied() }));
    }
    Ok(rows)
}

/// Which of the bookings are rows already, with their statuses.
async fn read_statuses(
    connection: &mut PgConnection,
    ids: Vec<Uuid>,
) -> sqlx::Result<HashMap<BookingId, BookingStatus>> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = sqlx::query("SELECT id, status FROM bookings WHERE id = ANY ($1)")
        .bind(ids)
        .fetch_all(connection)
        .await?;
    rows.iter()
        .map(|row| {
            let status = BookingStatus::parse(row.try_get(1)?).map_err(|error| {
                sqlx::Error::ColumnDecode { index: "status".to_owned(), source: Box::new(error) }
            })?;
            Ok((BookingId::from_uuid(row.try_get(0)?), status))
        })
        .collect()
}

async fn insert_bookings(connection: &mut PgConnection, bookings: &[Booking<'_>]) -> sqlx::Result<()> {
    let mut rows = Rows::new(16, bookings.len(), 320);
    for (id, BookingChange { event_id, decided_at, image, .. }) in bookings {
        rows.begin()
            .uuid(id.as_uuid())
            .uuid(event_id.as_uuid())
            .text(image.caller.as_str())
            .text(image.idempotency_key.as_str())
            .value(image.fingerprint.as_bytes())
            .text(image.customer.as_str())
            .text(image.status.as_str())
            .text(image.first_status.as_str())
            .text(image.currency.as_str())
            .int8(int8(image.total()))
            .time(image.created_at)
            .optional(image.hold_expires_at, Rows::time)
            .optional(image.payment_reference.as_ref().map(|p| p.as_str()), Rows::text)
            .time(*decided_at)
            .int4(int4(image.position.epoch))
            .int8(int8(image.position.sequence));
    }
    rows.copy(connection, include_str!("copy_bookings.sql")).await
}

/// The items of new bookings; they never change.
async fn insert_items(connection: &mut PgConnection, bookings: &[Booking<'_>]) -> sqlx::Result<()> {
    let count = bookings.iter().map(|(_, booking)| booking.image.items.len()).sum();
    let mut rows = Rows::new(5, count, 66);
    for (id, booking) in bookings {
        for (ordinal, item) in (0_i16..).zip(&booking.image.items) {
            rows.begin()
                .uuid(id.as_uuid())
                .int2(ordinal)
                .uuid(item.ticket_type_id.as_uuid())
                .int4(i32::from(item.quantity))
                .int8(int8(item.unit_price));
        }
    }
    rows.copy(connection, include_str!("copy_items.sql")).await
}

async fn update_bookings(
    connection: &mut PgConnection,
    bookings: &[Booking<'_>],
) -> sqlx::Result<Vec<BookingId>> {
    let changed: Vec<Uuid> = sqlx::query_scalar(include_str!("update_bookings.sql"))
        .bind(column(bookings, |(id, _)| id.as_uuid()))
        .bind(column(bookings, |(_, b)| b.image.status.as_str()))
        .bind(column(bookings, |(_, b)| b.image.hold_expires_at))
        .bind(column(bookings, |(_, b)| b.image.payment_reference.as_ref().map(|p| p.as_str())))
        .bind(column(bookings, |(_, b)| b.decided_at))
        .bind(column(bookings, |(_, b)| int4(b.image.position.epoch)))
        .bind(column(bookings, |(_, b)| int8(b.image.position.sequence)))
        .fetch_all(connection)
        .await?;
    Ok(changed.into_iter().map(BookingId::from_uuid).collect())
}

async fn write_counts(
    connection: &mut PgConnection,
    changes: &Changes<'_>,
    capacities: &HashMap<TicketTypeId, u32>,
    moved: &HashMap<TicketTypeId, Delta>,
) -> sqlx::Result<Vec<Alarm>> {
    let touched: Vec<TicketTypeId> = changes.totals.keys().copied().collect();
    let delta = |id: &TicketTypeId| moved.get(id).copied().unwrap_or_default();
    let rows = sqlx::query(include_str!("update_ticket_types.sql"))
        .bind(column(&touched, TicketTypeId::as_uuid))
        .bind(column(&touched, |id| capacities.get(id).copied().map(int4)))
        .bind(column(&touched, |id| delta(id).held))
        .bind(column(&touched, |id| delta(id).sold))
        .fetch_all(&mut *connection)
        .await?;
    let mut alarms = Vec::new();
    for row in rows {
        let id = TicketTypeId::from_uuid(row.try_get(0)?);
        let (capacity, held, sold): (i32, i32, i32) = (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        let Some((shard, event_id, totals)) = changes.totals.get(&id) else { continue };
        if let Some(detail) = difference(totals, [capacity, held, sold]) {
            let counts = Some(CountsDifference {
                ticket_type_id: id,
                held: i64::from(held) - i64::from(totals.held),
                sold: i64::from(sold) - i64::from(totals.sold),
            });
            let (shard, event_id) = (*shard, Some(*event_id));
            alarms.push(Alarm { shard, event_id, kind: AlarmKind::CountsDiffer, detail, counts });
        }
    }
    Ok(alarms)
}

/// In words, by how much PostgreSQL's counts differ from Redis' at the same position. Differences, not counts: while
/// tickets are sold they stay the same, and so does the alarm.
fn difference(redis: &Totals, postgres: [i32; 3]) -> Option<String> {
    let [capacity, held, sold] = [redis.capacity, redis.held, redis.sold].map(i64::from);
    let differences =
        [i64::from(postgres[0]) - capacity, i64::from(postgres[1]) - held, i64::from(postgres[2]) - sold];
    let [capacity, held, sold] = differences;
    (differences != [0; 3]).then(|| {
        format!(
            "ticket type {}: PostgreSQL differs from Redis at the same position by capacity {capacity:+}, held \
             {held:+}, sold {sold:+}",
            redis.ticket_type_id
        )
    })
}

/// One column of many rows, as an array parameter.
fn column<T, C>(rows: &[T], value: impl Fn(&T) -> C) -> Vec<C> {
    rows.iter().map(value).collect()
}
