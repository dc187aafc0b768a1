//! What PostgreSQL holds, read into the types that Redis' side has too.

mod audit;
mod bookings;
mod events;
mod shards;

pub(crate) use audit::{RecordedCounts, RecordedType, counts};
pub(crate) use bookings::{StoredBooking, Whose, booking, bookings, has_bookings};
pub(crate) use events::{StoredEvent, event, events, lock_event};
pub(crate) use shards::applied;

use boxoffice_schema::DecodeError;

/// PostgreSQL's integers are signed; what we keep in them is not.
fn unsigned<T: TryFrom<i64>>(field: &'static str, value: impl Into<i64>) -> Result<T, DecodeError> {
    let value = value.into();
    T::try_from(value).map_err(|_| DecodeError::new(field, format!("{value} is out of range")))
}

/// A text or a code that was checked before it was written.
fn parsed<T, E: std::fmt::Display>(field: &'static str, value: Result<T, E>) -> Result<T, DecodeError> {
    value.map_err(|error| DecodeError::new(field, error.to_string()))
}
