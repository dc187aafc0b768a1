//! Events and bookings as PostgreSQL holds them, read as the images that Redis holds.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use boxoffice_schema::DecodeError;
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
use chrono::{DateTime, SecondsFormat, Utc};
use futures_util::TryStreamExt;
use sqlx::postgres::{PgPoolCopyExt, PgRow};
use sqlx::{PgPool, Row};
use uuid::Uuid;

use crate::copy::Columns;
use crate::number;

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoredError {
    #[error("PostgreSQL: {0}")]
    Postgres(#[from] sqlx::Error),
    /// A row that the reconciler does not write.
    #[error("a row of PostgreSQL cannot be read: {0}")]
    Unreadable(String),
}

impl From<DecodeError> for StoredError {
    fn from(error: DecodeError) -> Self {
        Self::Unreadable(error.to_string())
    }
}

impl StoredError {
    /// Names what cannot be read.
    fn of(self, what: fmt::Arguments<'_>) -> Self {
        match self {
            Self::Unreadable(why) => Self::Unreadable(format!("{what}: {why}")),
            other => other,
        }
    }
}

/// An event that was published.
pub(crate) struct StoredEvent {
    pub(crate) image: EventImage,
    /// Nothing is decided about it any more, see [`EventImage::is_over`].
    pub(crate) is_over: bool,
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
pub(crate) async fn events(pool: &PgPool, shard: Shard) -> Result<Vec<StoredEvent>, StoredError> {
    let rows =
        sqlx::query(include_str!("stored_events.sql")).bind(number::of_shard(shard)).fetch_all(pool).await?;
    let mut events: Vec<StoredEvent> = Vec::new();
    for row in rows {
        let id = EventId::from_uuid(row.try_get("id")?);
        if events.last().is_none_or(|event| event.image.id != id) {
            let image = event(id, &row).map_err(|error| error.of(format_args!("event {id}")))?;
            events.push(StoredEvent { is_over: image.is_over(Utc::now()), image });
        }
        if let Some(event) = events.last_mut() {
            event.image.ticket_types.push(ticket_type(&row)?);
        }
    }
    Ok(events)
}

/// Those of some events of which PostgreSQL has no publication: it takes them for drafts, or has no row of them.
pub(crate) async fn unpublished(pool: &PgPool, events: &BTreeSet<EventId>) -> sqlx::Result<Vec<EventId>> {
    let ids: Vec<Uuid> = events.iter().map(EventId::as_uuid).collect();
    let ids: Vec<Uuid> = sqlx::query_scalar(
        "SELECT id FROM unnest($1::uuid[]) AS asked (id) \
         WHERE NOT EXISTS (SELECT FROM events WHERE events.id = asked.id AND events.status <> 'draft') ORDER BY id",
    )
    .bind(ids)
    .fetch_all(pool)
    .await?;
    Ok(ids.into_iter().map(EventId::from_uuid).collect())
}

fn event(id: EventId, row: &PgRow) -> Result<EventImage, StoredError> {
    Ok(EventImage {
        id,
        name: name(row.try_get("name")?)?,
        starts_at: row.try_get("starts_at")?,
        sales_open_at: row.try_get("sales_open_at")?,
        sales_close_at: row.try_get("sales_close_at")?,
        per_customer_limit: limit(row.try_get("per_customer_limit")?),
        hold_seconds: u32::try_from(row.try_get::<i32, _>("hold_seconds")?).map_err(unreadable)?,
        currency: Currency::parse(row.try_get("currency")?).map_err(unreadable)?,
        status: EventStatus::parse(row.try_get("status")?).map_err(unreadable)?,
        slots: u32::try_from(row.try_get::<i32, _>("slots")?).map_err(unreadable)?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
        ticket_types: Vec::new(),
    })
}

fn ticket_type(row: &PgRow) -> Result<TicketTypeImage, StoredError> {
    let count = |column| u32::try_from(row.try_get::<i32, _>(column)?).map_err(unreadable);
    Ok(TicketTypeImage {
        id: TicketTypeId::from_uuid(row.try_get("ticket_type_id")?),
        name: name(row.try_get("ticket_type_name")?)?,
        price: u64::try_from(row.try_get::<i64, _>("price")?).map_err(unreadable)?,
        per_customer_limit: limit(row.try_get("ticket_type_limit")?),
        capacity: count("capacity")?,
        held: count("held")?,
        sold: count("sold")?,
    })
}

/// A page of an event's bookings, at most `limit`; none where there are no more. Rows are decoded as they come.
pub(crate) async fn bookings(
    pool: &PgPool,
    event: &EventImage,
    after: Option<Place>,
    limit: usize,
) -> Result<Option<Page>, StoredError> {
    let ordinals: HashMap<TicketTypeId, u8> =
        (0_u8..).zip(&event.ticket_types).map(|(ordinal, t)| (t.id, ordinal)).collect();
    let (mut bookings, mut newest_ms) = (Vec::<(BookingId, BookingImage)>::with_capacity(limit), 0);
    let statement = page_statement(event.id, after, limit);
    let mut rows = pool.copy_out_raw(&statement).await?;
    while let Some(row) = rows.try_next().await? {
        let Some(mut row) = Columns::of(&row)? else { continue };
        let id = BookingId::from_uuid(row.uuid()?);
        let of_it = |error: StoredError| error.of(format_args!("booking {id}"));
        let item = item(&mut row, &ordinals).map_err(of_it)?;
        match bookings.last_mut().filter(|(last, _)| *last == id) {
            Some((_, image)) => image.items.push(item),
            None => {
                newest_ms = newest_ms.max(time::to_millis(row.time()?));
                bookings.push((id, booking(&mut row, item).map_err(of_it)?));
            }
        }
    }
    let Some((id, image)) = bookings.last() else { return Ok(None) };
    let last = (image.created_at, id.as_uuid());
    Ok(Some(Page { bookings, last, newest_ms }))
}

/// `COPY` takes no parameters; ids and times have no form in which they could be anything else.
fn page_statement(event: EventId, after: Option<Place>, limit: usize) -> String {
    let (created_at, id) = after.map_or_else(
        || ("infinity".to_owned(), event.as_uuid()),
        |(created_at, id)| (created_at.to_rfc3339_opts(SecondsFormat::Micros, true), id),
    );
    format!(
        include_str!("copy_stored_bookings.sql"),
        event = event.as_uuid(),
        created_at = created_at,
        id = id,
        limit = limit
    )
}

/// A booking with its first item. The columns are read in the order of `copy_stored_bookings.sql`.
fn booking(row: &mut Columns<'_>, first: ImageItem) -> Result<BookingImage, StoredError> {
    let caller = Caller::from_stored(row.text()?.to_owned());
    let idempotency_key = IdempotencyKey::parse(row.text()?.as_bytes()).map_err(unreadable)?;
    let fingerprint = Fingerprint::from_bytes(row.fixed()?);
    let customer = Customer::try_from(row.text()?.to_owned()).map_err(unreadable)?;
    Ok(BookingImage {
        caller,
        idempotency_key,
        fingerprint,
        customer_hash: CustomerHash::of(&customer),
        customer,
        status: BookingStatus::parse(row.text()?).map_err(unreadable)?,
        first_status: BookingStatus::parse(row.text()?).map_err(unreadable)?,
        currency: Currency::parse(row.text()?).map_err(unreadable)?,
        created_at: row.time()?,
        hold_expires_at: row.optional_time()?,
        payment_reference: payment_reference(row.optional_text()?)?,
        position: Position {
            epoch: u32::try_from(row.int4()?).map_err(unreadable)?,
            sequence: u64::try_from(row.int8()?).map_err(unreadable)?,
        },
        items: vec![first],
    })
}

fn payment_reference(text: Option<&str>) -> Result<Option<PaymentReference>, StoredError> {
    text.map(|text| PaymentReference::try_from(text.to_owned())).transpose().map_err(unreadable)
}

fn item(row: &mut Columns<'_>, ordinals: &HashMap<TicketTypeId, u8>) -> Result<ImageItem, StoredError> {
    let ticket_type_id = TicketTypeId::from_uuid(row.uuid()?);
    Ok(ImageItem {
        ordinal: *ordinals
            .get(&ticket_type_id)
            .ok_or_else(|| unreadable(format!("ticket type {ticket_type_id} is of another event")))?,
        quantity: u16::try_from(row.int4()?).map_err(unreadable)?,
        ticket_type_id,
        unit_price: u64::try_from(row.int8()?).map_err(unreadable)?,
    })
}

fn name(text: String) -> Result<Name, StoredError> {
    Name::try_from(text).map_err(unreadable)
}

fn limit(limit: Option<i32>) -> Option<u32> {
    limit.and_then(|limit| u32::try_from(limit).ok())
}

fn unreadable(error: impl ToString) -> StoredError {
    StoredError::Unreadable(error.to_string())
}
