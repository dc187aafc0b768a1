//! Events with their ticket types.

use boxoffice_schema::DecodeError;
use boxoffice_schema::event::{EventImage, TicketTypeImage};
use boxoffice_schema::ids::{EventId, TicketTypeId};
use boxoffice_schema::money::Currency;
use boxoffice_schema::status::EventStatus;
use chrono::{DateTime, Utc};
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::{parsed, unsigned};
use crate::database::DatabaseError;
use crate::request::Page;

/// An event as PostgreSQL knows it.
#[derive(Clone, Debug)]
pub(crate) struct StoredEvent {
    /// The event; its status is `draft` until its publication has come through the log.
    pub(crate) image: EventImage,
    /// Whether it was handed to Redis, or at least was about to be: it changes only through the log.
    pub(crate) frozen: bool,
    /// Whether its publication has come through the log, so that Redis must know the event.
    pub(crate) applied: bool,
}

#[derive(sqlx::FromRow)]
struct EventRow {
    id: Uuid,
    name: String,
    starts_at: DateTime<Utc>,
    sales_open_at: Option<DateTime<Utc>>,
    sales_close_at: Option<DateTime<Utc>>,
    per_customer_limit: Option<i32>,
    hold_seconds: i32,
    currency: String,
    status: String,
    slots: Option<i32>,
    frozen_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    sequence: i64,
}

#[derive(sqlx::FromRow)]
struct TicketTypeRow {
    id: Uuid,
    event_id: Uuid,
    name: String,
    price: i64,
    per_customer_limit: Option<i32>,
    capacity: i32,
    held: i32,
    sold: i32,
}

/// The event, if there is one.
pub(crate) async fn event(
    connection: &mut PgConnection,
    id: EventId,
) -> Result<Option<StoredEvent>, DatabaseError> {
    one(connection, "SELECT * FROM events WHERE id = $1", id).await
}

/// The event, which nobody else changes before the transaction ends.
pub(crate) async fn lock_event(
    connection: &mut PgConnection,
    id: EventId,
) -> Result<Option<StoredEvent>, DatabaseError> {
    one(connection, "SELECT * FROM events WHERE id = $1 FOR UPDATE", id).await
}

async fn one(
    connection: &mut PgConnection,
    select: &'static str,
    id: EventId,
) -> Result<Option<StoredEvent>, DatabaseError> {
    let row: Option<EventRow> =
        sqlx::query_as(select).bind(id.as_uuid()).fetch_optional(&mut *connection).await?;
    Ok(with_ticket_types(connection, row.into_iter().collect()).await?.pop())
}

/// A page of events and one more, newest first.
pub(crate) async fn events(
    connection: &mut PgConnection,
    page: &Page,
) -> Result<Vec<StoredEvent>, DatabaseError> {
    let rows: Vec<EventRow> = sqlx::query_as(
        "SELECT * FROM events \
         WHERE ($1::timestamptz IS NULL OR (created_at, id) < ($1, $2)) \
         AND ($4::text IS NULL OR status = $4) \
         ORDER BY created_at DESC, id DESC LIMIT $3",
    )
    .bind(page.after.map(|after| after.created_at))
    .bind(page.after.map(|after| after.id))
    .bind(page.rows())
    .bind(page.status)
    .fetch_all(&mut *connection)
    .await?;
    with_ticket_types(connection, rows).await
}

async fn with_ticket_types(
    connection: &mut PgConnection,
    rows: Vec<EventRow>,
) -> Result<Vec<StoredEvent>, DatabaseError> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let types: Vec<TicketTypeRow> =
        sqlx::query_as("SELECT * FROM ticket_types WHERE event_id = ANY($1) ORDER BY event_id, ordinal")
            .bind(ids)
            .fetch_all(connection)
            .await?;
    let of = |event: Uuid| types.iter().filter(move |row| row.event_id == event);
    Ok(rows.into_iter().map(|row| row.read(of)).collect::<Result<_, _>>()?)
}

impl EventRow {
    fn read<'a, I: Iterator<Item = &'a TicketTypeRow>>(
        self,
        types_of: impl Fn(Uuid) -> I,
    ) -> Result<StoredEvent, DecodeError> {
        let image = EventImage {
            id: EventId::from_uuid(self.id),
            name: parsed("event name", self.name.try_into())?,
            starts_at: self.starts_at,
            sales_open_at: self.sales_open_at,
            sales_close_at: self.sales_close_at,
            per_customer_limit: self.per_customer_limit.map(|n| unsigned("event limit", n)).transpose()?,
            hold_seconds: unsigned("hold_seconds", self.hold_seconds)?,
            currency: parsed("currency", Currency::parse(&self.currency))?,
            status: EventStatus::parse(&self.status)?,
            slots: unsigned("slots", self.slots.unwrap_or_default())?,
            created_at: self.created_at,
            updated_at: self.updated_at,
            ticket_types: types_of(self.id).map(TicketTypeRow::read).collect::<Result<_, _>>()?,
        };
        Ok(StoredEvent { image, frozen: self.frozen_at.is_some(), applied: self.sequence > 0 })
    }
}

impl TicketTypeRow {
    fn read(&self) -> Result<TicketTypeImage, DecodeError> {
        Ok(TicketTypeImage {
            id: TicketTypeId::from_uuid(self.id),
            name: parsed("ticket type name", self.name.clone().try_into())?,
            price: unsigned("price", self.price)?,
            per_customer_limit: self
                .per_customer_limit
                .map(|n| unsigned("ticket type limit", n))
                .transpose()?,
            capacity: unsigned("capacity", self.capacity)?,
            held: unsigned("held", self.held)?,
            sold: unsigned("sold", self.sold)?,
        })
    }
}
