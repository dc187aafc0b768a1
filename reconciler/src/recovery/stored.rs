//! Events and bookings as PostgreSQL holds them, read as the images that Redis holds.

use std::collections::HashMap;

use boxoffice_schema::event::{EventImage, TicketTypeImage};
use boxoffice_schema::fingerprint::{CustomerHash, Fingerprint};
use boxoffice_schema::ids::{BookingId, EventId, TicketTypeId};
use boxoffice_schema::image::{BookingImage, ImageItem};
use boxoffice_schema::money::Currency;
use boxoffice_schema::position::Position;
use boxoffice_schema::shard::Shard;
use boxoffice_schema::status::{BookingStatus, EventStatus};
use boxoffice_schema::text::{Caller, Customer, IdempotencyKey, Name, PaymentReference};
use boxoffice_schema::time;
use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};
use uuid::Uuid;

use crate::apply::write::int2;

use super::RecoveryError;

/// Bookings in a page, which takes about 2.5 MB until its rows are decoded.
const PAGE: i64 = 1_000;

/// The columns of `stored_bookings.sql`. A name would be looked for once more in each of a million rows.
mod at {
    pub(super) const ID: usize = 0;
    pub(super) const CALLER: usize = 1;
    pub(super) const IDEMPOTENCY_KEY: usize = 2;
    pub(super) const FINGERPRINT: usize = 3;
    pub(super) const CUSTOMER: usize = 4;
    pub(super) const STATUS: usize = 5;
    pub(super) const FIRST_STATUS: usize = 6;
    pub(super) const CURRENCY: usize = 7;
    pub(super) const CREATED_AT: usize = 8;
    pub(super) const EXPIRES_AT: usize = 9;
    pub(super) const PAYMENT_REFERENCE: usize = 10;
    pub(super) const UPDATED_AT: usize = 11;
    pub(super) const EPOCH: usize = 12;
    pub(super) const SEQUENCE: usize = 13;
    pub(super) const TICKET_TYPE_ID: usize = 14;
    pub(super) const QUANTITY: usize = 15;
    pub(super) const UNIT_PRICE: usize = 16;
}

/// An event that was published.
pub(crate) struct StoredEvent {
    pub(crate) image: EventImage,
    /// Closed for a day: nothing is decided about it any more.
    pub(crate) is_finished: bool,
}

/// Where a page ends: the time and id of its last booking.
pub(crate) type Place = (DateTime<Utc>, Uuid);

/// Some bookings of an event, the newest first.
pub(crate) struct Page {
    pub(crate) bookings: Vec<(BookingId, BookingImage)>,
    /// Where the next page begins: behind this.
    pub(crate) last: Place,
    /// The time of the latest decision about one of them.
    pub(crate) newest_ms: u64,
}

/// The published events of a shard, with their counts.
pub(crate) async fn events(pool: &PgPool, shard: Shard) -> Result<Vec<StoredEvent>, RecoveryError> {
    let rows =
        sqlx::query(include_str!("stored_events.sql")).bind(int2(shard.number())).fetch_all(pool).await?;
    let mut events: Vec<StoredEvent> = Vec::new();
    for row in rows {
        let id = EventId::from_uuid(row.try_get("id")?);
        if events.last().is_none_or(|event| event.image.id != id) {
            events.push(StoredEvent { image: event(id, &row)?, is_finished: row.try_get("finished")? });
        }
        if let Some(event) = events.last_mut() {
            event.image.ticket_types.push(ticket_type(&row)?);
        }
    }
    Ok(events)
}

fn event(id: EventId, row: &PgRow) -> Result<EventImage, RecoveryError> {
    Ok(EventImage {
        id,
        name: name(row.try_get("name")?)?,
        starts_at: row.try_get("starts_at")?,
        sales_open_at: row.try_get("sales_open_at")?,
        sales_close_at: row.try_get("sales_close_at")?,
        per_customer_limit: limit(row.try_get("per_customer_limit")?),
        hold_seconds: u32::try_from(row.try_get::<i32, _>("hold_seconds")?).map_err(unrestorable)?,
        currency: Currency::parse(row.try_get("currency")?).map_err(unrestorable)?,
        status: EventStatus::parse(row.try_get("status")?).map_err(unrestorable)?,
        slots: u32::try_from(row.try_get::<i32, _>("slots")?).map_err(unrestorable)?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
        ticket_types: Vec::new(),
    })
}

fn ticket_type(row: &PgRow) -> Result<TicketTypeImage, RecoveryError> {
    let count = |column| u32::try_from(row.try_get::<i32, _>(column)?).map_err(unrestorable);
    Ok(TicketTypeImage {
        id: TicketTypeId::from_uuid(row.try_get("ticket_type_id")?),
        name: name(row.try_get("ticket_type_name")?)?,
        price: u64::try_from(row.try_get::<i64, _>("price")?).map_err(unrestorable)?,
        per_customer_limit: limit(row.try_get("ticket_type_limit")?),
        capacity: count("capacity")?,
        held: count("held")?,
        sold: count("sold")?,
    })
}

/// A page of an event's bookings; none where there are no more.
pub(crate) async fn bookings(
    pool: &PgPool,
    event: &EventImage,
    after: Option<Place>,
) -> Result<Option<Page>, RecoveryError> {
    let rows = sqlx::query(include_str!("stored_bookings.sql"))
        .bind(event.id.as_uuid())
        .bind(after.map(|(created_at, _)| created_at))
        .bind(after.map(|(_, id)| id))
        .bind(PAGE)
        .fetch_all(pool)
        .await?;
    let Some(last) = rows.last() else { return Ok(None) };
    let last = (last.try_get(at::CREATED_AT)?, last.try_get(at::ID)?);
    let ordinals: HashMap<TicketTypeId, u8> =
        (0_u8..).zip(&event.ticket_types).map(|(ordinal, t)| (t.id, ordinal)).collect();
    let mut newest_ms = 0;
    let mut bookings = Vec::with_capacity(rows.len());
    for rows in rows.chunk_by(same_booking) {
        newest_ms = newest_ms.max(time::to_millis(rows[0].try_get(at::UPDATED_AT)?));
        bookings.push((BookingId::from_uuid(rows[0].try_get(at::ID)?), booking(rows, &ordinals)?));
    }
    Ok(Some(Page { bookings, last, newest_ms }))
}

fn same_booking(one: &PgRow, next: &PgRow) -> bool {
    let id = |row: &PgRow| row.try_get::<Uuid, _>(at::ID).ok();
    id(one) == id(next)
}

/// A booking from its rows, one for each item.
fn booking(rows: &[PgRow], ordinals: &HashMap<TicketTypeId, u8>) -> Result<BookingImage, RecoveryError> {
    let row = &rows[0];
    let customer = Customer::try_from(row.try_get::<String, _>(at::CUSTOMER)?).map_err(unrestorable)?;
    let fingerprint: [u8; 16] = row.try_get::<&[u8], _>(at::FINGERPRINT)?.try_into().map_err(unrestorable)?;
    let payment: Option<String> = row.try_get(at::PAYMENT_REFERENCE)?;
    Ok(BookingImage {
        status: BookingStatus::parse(row.try_get(at::STATUS)?).map_err(unrestorable)?,
        first_status: BookingStatus::parse(row.try_get(at::FIRST_STATUS)?).map_err(unrestorable)?,
        created_at: row.try_get(at::CREATED_AT)?,
        hold_expires_at: row.try_get(at::EXPIRES_AT)?,
        position: Position {
            epoch: u32::try_from(row.try_get::<i32, _>(at::EPOCH)?).map_err(unrestorable)?,
            sequence: u64::try_from(row.try_get::<i64, _>(at::SEQUENCE)?).map_err(unrestorable)?,
        },
        customer_hash: CustomerHash::of(&customer),
        fingerprint: Fingerprint::from_bytes(fingerprint),
        payment_reference: payment.map(PaymentReference::try_from).transpose().map_err(unrestorable)?,
        caller: Caller::from_stored(row.try_get(at::CALLER)?),
        idempotency_key: IdempotencyKey::parse(row.try_get::<&str, _>(at::IDEMPOTENCY_KEY)?.as_bytes())
            .map_err(unrestorable)?,
        customer,
        currency: Currency::parse(row.try_get(at::CURRENCY)?).map_err(unrestorable)?,
        items: rows.iter().map(|row| item(row, ordinals)).collect::<Result<_, _>>()?,
    })
}

fn item(row: &PgRow, ordinals: &HashMap<TicketTypeId, u8>) -> Result<ImageItem, RecoveryError> {
    let ticket_type_id = TicketTypeId::from_uuid(row.try_get(at::TICKET_TYPE_ID)?);
    Ok(ImageItem {
        ordinal: *ordinals
            .get(&ticket_type_id)
            .ok_or_else(|| unrestorable(format!("ticket type {ticket_type_id} is of another event")))?,
        quantity: u16::try_from(row.try_get::<i32, _>(at::QUANTITY)?).map_err(unrestorable)?,
        ticket_type_id,
        unit_price: u64::try_from(row.try_get::<i64, _>(at::UNIT_PRICE)?).map_err(unrestorable)?,
    })
}

fn name(text: String) -> Result<Name, RecoveryError> {
    Name::try_from(text).map_err(unrestorable)
}

fn limit(limit: Option<i32>) -> Option<u32> {
    limit.and_then(|limit| u32::try_from(limit).ok())
}

fn unrestorable(error: impl ToString) -> RecoveryError {
    RecoveryError::Unrestorable(error.to_string())
}
