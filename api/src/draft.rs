//! Drafts: events that PostgreSQL alone knows. Freezing one is the last that the API writes there.

use boxoffice_schema::event::{EventImage, slots_for};
use boxoffice_schema::ids::{EventId, TicketTypeId};
use boxoffice_schema::position::Position;
use boxoffice_schema::shard::Shard;
use boxoffice_schema::text::Name;
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::actions::{Action, Actor, Entry};
use crate::database::DatabaseError;
use crate::record::{self, StoredEvent};

/// PostgreSQL keeps limits and capacities as int4, and their bounds fit.
fn int4(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn int8(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Writes a new draft.
pub(crate) async fn create(
    connection: &mut PgConnection,
    shard: Shard,
    event: &EventImage,
    by: &Actor,
) -> Result<(), DatabaseError> {
    let mut transaction = connection.begin().await?;
    sqlx::query(
        "INSERT INTO events (id, shard, name, starts_at, sales_open_at, sales_close_at, per_customer_limit, \
         hold_seconds, currency, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(event.id.as_uuid())
    .bind(i16::try_from(shard.number()).unwrap_or(i16::MAX))
    .bind(event.name.as_str())
    .bind(event.starts_at)
    .bind(event.sales_open_at)
    .bind(event.sales_close_at)
    .bind(event.per_customer_limit.map(int4))
    .bind(int4(event.hold_seconds))
    .bind(event.currency.as_str())
    .bind(event.created_at)
    .bind(event.updated_at)
    .execute(&mut *transaction)
    .await?;
    let types = &event.ticket_types;
    sqlx::query(
        "INSERT INTO ticket_types (id, event_id, ordinal, name, price, per_customer_limit, capacity) \
         SELECT t.id, $1, t.place - 1, t.name, t.price, t.per_customer_limit, t.capacity \
         FROM unnest($2::uuid[], $3::text[], $4::int8[], $5::int4[], $6::int4[]) \
         WITH ORDINALITY AS t (id, name, price, per_customer_limit, capacity, place)",
    )
    .bind(event.id.as_uuid())
    .bind(types.iter().map(|of_type| of_type.id.as_uuid()).collect::<Vec<Uuid>>())
    .bind(types.iter().map(|of_type| of_type.name.as_str()).collect::<Vec<&str>>())
    .bind(types.iter().map(|of_type| int8(of_type.price)).collect::<Vec<i64>>())
    .bind(types.iter().map(|of_type| of_type.per_customer_limit.map(int4)).collect::<Vec<Option<i32>>>())
    .bind(types.iter().map(|of_type| int4(of_type.capacity)).collect::<Vec<i32>>())
    .execute(&mut *transaction)
    .await?;
    Entry::of_event(by, Action::CreateEvent, event.id).record(&mut transaction, event).await?;
    transaction.commit().await?;
    Ok(())
}

/// What PostgreSQL knows of an event that is to be published and that Redis does not have.
pub(crate) enum Frozen {
    /// It was never on sale, and may be published. With the id of the action's entry.
    Unsold { event: StoredEvent, action: Uuid },
    /// It was on sale: where Redis has lost it, publishing it would sell its tickets again.
    Sold(StoredEvent),
    /// Somebody has frozen it before, so that it may have been on sale, and the log is not applied as far as Redis had
    /// decided when it did not have the event.
    Unknown,
}

/// Freezes a draft, so that it may be published; `None` where there is no such event. `absent_at` is where its shard stood
/// when Redis did not have it. Only a draft that may be published is changed.
pub(crate) async fn freeze(
    connection: &mut PgConnection,
    id: EventId,
    shard: Shard,
    absent_at: Position,
    by: &Actor,
) -> Result<Option<Frozen>, DatabaseError> {
    let mut transaction = connection.begin().await?;
    let Some(mut stored) = record::lock_event(&mut transaction, id).await? else { return Ok(None) };
    if stored.applied {
        return Ok(Some(Frozen::Sold(stored)));
    }
    // Nobody applies its publication while its row is locked, so that there is none in what is applied by now.
    if stored.frozen && record::applied(&mut transaction, shard).await? < absent_at {
        return Ok(Some(Frozen::Unknown));
    }
    // Nobody buys before the publication: where somebody did, its word went with a gap that was accepted. Of what was cancelled
    // or has expired the keys are left, which nobody may use again.
    if record::has_bookings(&mut transaction, id).await? {
        return Ok(Some(Frozen::Sold(stored)));
    }
    let entry = Entry::of_event(by, Action::PublishEvent, id).changing(&stored.image);
    let action = entry.begin(&mut transaction).await?;
    if !stored.frozen {
        let capacity = stored.image.ticket_types.iter().map(|of_type| u64::from(of_type.capacity)).sum();
        stored.image.slots = slots_for(capacity);
        stored.frozen = true;
        sqlx::query("UPDATE events SET frozen_at = now(), slots = $2 WHERE id = $1")
            .bind(id.as_uuid())
            .bind(int4(stored.image.slots))
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(Some(Frozen::Unsold { event: stored, action }))
}

/// What of a draft is to be another; `None` leaves it as it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct DraftChanges {
    pub(crate) name: Option<Name>,
    pub(crate) starts_at: Option<DateTime<Utc>>,
    pub(crate) sales_open_at: Option<Option<DateTime<Utc>>>,
    pub(crate) sales_close_at: Option<Option<DateTime<Utc>>>,
    pub(crate) per_customer_limit: Option<Option<u32>>,
    pub(crate) capacities: Vec<(TicketTypeId, u32)>,
}

/// What became of a change.
pub(crate) enum DraftOutcome {
    /// The draft as it is now.
    Changed(Box<EventImage>),
    /// No longer a draft: it changes through Redis.
    Frozen,
    /// Somebody has changed it meanwhile.
    Superseded,
    /// It has no such ticket type.
    NoSuchTicketType,
    /// Sales would close before they open.
    WindowInverted,
}

/// Changes a draft, all or nothing, where it was last changed when that is expected; `None` where there is no such
/// event.
pub(crate) async fn change(
    connection: &mut PgConnection,
    id: EventId,
    changes: &DraftChanges,
    expected: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
    by: &Actor,
) -> Result<Option<DraftOutcome>, DatabaseError> {
    let mut transaction = connection.begin().await?;
    let Some(stored) = record::lock_event(&mut transaction, id).await? else { return Ok(None) };
    if stored.frozen {
        return Ok(Some(DraftOutcome::Frozen));
    }
    if expected.is_some_and(|expected| expected != stored.image.updated_at) {
        return Ok(Some(DraftOutcome::Superseded));
    }
    let mut event = stored.image.clone();
    if !apply(&mut event, changes) {
        return Ok(Some(DraftOutcome::NoSuchTicketType));
    }
    if event.sales_open_at.zip(event.sales_close_at).is_some_and(|(open, close)| close <= open) {
        return Ok(Some(DraftOutcome::WindowInverted));
    }
    if event != stored.image {
        // Never twice the same: by this time a writer knows that nobody was faster.
        event.updated_at = now.max(stored.image.updated_at + TimeDelta::milliseconds(1));
        write(&mut transaction, &event).await?;
        let entry = Entry::of_event(by, Action::AmendEvent, id).changing(&stored.image);
        entry.record(&mut transaction, &event).await?;
        transaction.commit().await?;
    }
    Ok(Some(DraftOutcome::Changed(Box::new(event))))
}

/// Makes the changes of an event in memory; whether it has every ticket type that is to be changed.
pub(crate) fn apply(event: &mut EventImage, changes: &DraftChanges) -> bool {
    let DraftChanges { name, starts_at, sales_open_at, sales_close_at, per_customer_limit, capacities } =
        changes;
    if let Some(name) = name {
        event.name = name.clone();
    }
    event.starts_at = starts_at.unwrap_or(event.starts_at);
    event.sales_open_at = sales_open_at.unwrap_or(event.sales_open_at);
    event.sales_close_at = sales_close_at.unwrap_or(event.sales_close_at);
    event.per_customer_limit = per_customer_limit.unwrap_or(event.per_customer_limit);
    capacities.iter().all(|(id, capacity)| {
        let of_type = event.ticket_types.iter_mut().find(|of_type| of_type.id == *id);
        of_type.map(|of_type| of_type.capacity = *capacity).is_some()
    })
}

async fn write(connection: &mut PgConnection, event: &EventImage) -> Result<(), DatabaseError> {
    sqlx::query(
        "UPDATE events SET name = $2, starts_at = $3, sales_open_at = $4, sales_close_at = $5, \
         per_customer_limit = $6, updated_at = $7 WHERE id = $1",
    )
    .bind(event.id.as_uuid())
    .bind(event.name.as_str())
    .bind(event.starts_at)
    .bind(event.sales_open_at)
    .bind(event.sales_close_at)
    .bind(event.per_customer_limit.map(int4))
    .bind(event.updated_at)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "UPDATE ticket_types SET capacity = t.capacity FROM unnest($1::uuid[], $2::int4[]) AS t (id, capacity) \
         WHERE ticket_types.id = t.id",
    )
    .bind(event.ticket_types.iter().map(|of_type| of_type.id.as_uuid()).collect::<Vec<Uuid>>())
    .bind(event.ticket_types.iter().map(|of_type| int4(of_type.capacity)).collect::<Vec<i32>>())
    .execute(connection)
    .await?;
    Ok(())
}
