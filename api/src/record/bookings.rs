//! Bookings with what was bought.

use boxoffice_schema::DecodeError;
use boxoffice_schema::ids::{BookingId, EventId, TicketTypeId};
use boxoffice_schema::money::Currency;
use boxoffice_schema::status::BookingStatus;
use boxoffice_schema::text::Customer;
use chrono::{DateTime, Utc};
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::{parsed, unsigned};
use crate::database::DatabaseError;
use crate::request::Page;

/// A booking as PostgreSQL has it.
#[derive(Debug)]
pub(crate) struct StoredBooking {
    pub(crate) id: BookingId,
    pub(crate) event_id: EventId,
    pub(crate) customer: String,
    /// The caller who made it.
    pub(crate) maker: String,
    pub(crate) status: BookingStatus,
    pub(crate) currency: Currency,
    pub(crate) total: u64,
    pub(crate) created_at: DateTime<Utc>,
    /// When its hold runs out, or ran out.
    pub(crate) hold_expires_at: Option<DateTime<Utc>>,
    pub(crate) payment_reference: Option<String>,
    pub(crate) items: Vec<StoredItem>,
}

/// What was bought of one ticket type.
#[derive(Debug)]
pub(crate) struct StoredItem {
    pub(crate) ticket_type_id: TicketTypeId,
    pub(crate) quantity: u16,
    pub(crate) unit_price: u64,
}

/// Whose bookings are listed.
pub(crate) enum Whose<'a> {
    Event(EventId),
    Customer(&'a Customer),
}

#[derive(sqlx::FromRow)]
struct BookingRow {
    id: Uuid,
    event_id: Uuid,
    customer: String,
    caller: String,
    status: String,
    currency: String,
    total_amount: i64,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    payment_reference: Option<String>,
}

#[derive(sqlx::FromRow)]
struct ItemRow {
    booking_id: Uuid,
    ticket_type_id: Uuid,
    quantity: i32,
    unit_price: i64,
}

/// The booking, if the event has it.
pub(crate) async fn booking(
    connection: &mut PgConnection,
    event: EventId,
    id: BookingId,
) -> Result<Option<StoredBooking>, DatabaseError> {
    let row: Option<BookingRow> = sqlx::query_as("SELECT * FROM bookings WHERE id = $1 AND event_id = $2")
        .bind(id.as_uuid())
        .bind(event.as_uuid())
        .fetch_optional(&mut *connection)
        .await?;
    Ok(with_items(connection, row.into_iter().collect()).await?.pop())
}

/// Whether anybody has ever booked of the event, whatever became of it.
pub(crate) async fn has_bookings(
    connection: &mut PgConnection,
    event: EventId,
) -> Result<bool, DatabaseError> {
    let found: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM bookings WHERE event_id = $1)")
        .bind(event.as_uuid())
        .fetch_one(connection)
        .await?;
    Ok(found)
}

/// A page of somebody's bookings and one more, newest first; only those that `maker` made, where one is given.
pub(crate) async fn bookings(
    connection: &mut PgConnection,
    whose: Whose<'_>,
    maker: Option<&str>,
    page: &Page,
) -> Result<Vec<StoredBooking>, DatabaseError> {
    // Two statements that differ in one column: each has an index in just this order.
    let query = match whose {
        Whose::Event(event) => sqlx::query_as(
            "SELECT * FROM bookings WHERE event_id = $1 AND ($2::text IS NULL OR status = $2) \
             AND ($3::timestamptz IS NULL OR (created_at, id) < ($3, $4)) \
             AND ($6::text IS NULL OR caller = $6) AND ($7::text IS NULL OR customer = $7) \
             ORDER BY created_at DESC, id DESC LIMIT $5",
        )
        .bind(event.as_uuid()),
        Whose::Customer(customer) => sqlx::query_as(
            "SELECT * FROM bookings WHERE customer = $1 AND ($2::text IS NULL OR status = $2) \
             AND ($3::timestamptz IS NULL OR (created_at, id) < ($3, $4)) \
             AND ($6::text IS NULL OR caller = $6) AND ($7::text IS NULL OR customer = $7) \
             ORDER BY created_at DESC, id DESC LIMIT $5",
        )
        .bind(customer.as_str()),
    };
    let rows: Vec<BookingRow> = query
        .bind(page.status)
        .bind(page.after.map(|after| after.created_at))
        .bind(page.after.map(|after| after.id))
        .bind(page.rows())
        .bind(maker)
        .bind(page.customer.as_ref().map(Customer::as_str))
        .fetch_all(&mut *connection)
        .await?;
    with_items(connection, rows).await
}

async fn with_items(
    connection: &mut PgConnection,
    rows: Vec<BookingRow>,
) -> Result<Vec<StoredBooking>, DatabaseError> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let items: Vec<ItemRow> =
        sqlx::query_as("SELECT * FROM booking_items WHERE booking_id = ANY($1) ORDER BY booking_id, ordinal")
            .bind(ids)
            .fetch_all(connection)
            .await?;
    let of = |booking: Uuid| items.iter().filter(move |row| row.booking_id == booking);
    Ok(rows.into_iter().map(|row| row.read(of)).collect::<Result<_, _>>()?)
}

impl BookingRow {
    fn read<'a, I: Iterator<Item = &'a ItemRow>>(
        self,
        items_of: impl Fn(Uuid) -> I,
    ) -> Result<StoredBooking, DecodeError> {
        Ok(StoredBooking {
            id: BookingId::from_uuid(self.id),
            event_id: EventId::from_uuid(self.event_id),
            customer: self.customer,
            maker: self.caller,
            status: BookingStatus::parse(&self.status)?,
            currency: parsed("currency", Currency::parse(&self.currency))?,
            total: unsigned("total_amount", self.total_amount)?,
            created_at: self.created_at,
            hold_expires_at: self.expires_at,
            payment_reference: self.payment_reference,
            items: items_of(self.id).map(ItemRow::read).collect::<Result<_, _>>()?,
        })
    }
}

impl ItemRow {
    fn read(&self) -> Result<StoredItem, DecodeError> {
        Ok(StoredItem {
            ticket_type_id: TicketTypeId::from_uuid(self.ticket_type_id),
            quantity: unsigned("quantity", self.quantity)?,
            unit_price: unsigned("unit_price", self.unit_price)?,
        })
    }
}
