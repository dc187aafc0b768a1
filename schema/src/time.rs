//! Times: milliseconds since 1970 in Redis, RFC 3339 in UTC with milliseconds on the wire.

use chrono::{DateTime, SecondsFormat, SubsecRound, Utc};

use crate::DecodeError;

/// From Redis' milliseconds.
///
/// # Errors
/// Where the number is beyond what a calendar holds.
pub fn from_millis(millis: u64) -> Result<DateTime<Utc>, DecodeError> {
    i64::try_from(millis)
        .ok()
        .and_then(DateTime::from_timestamp_millis)
        .ok_or_else(|| DecodeError::new("time", format!("{millis} ms is out of range")))
}

/// To Redis' milliseconds; a time before 1970 is 0.
pub fn to_millis(time: DateTime<Utc>) -> u64 {
    u64::try_from(time.timestamp_millis()).unwrap_or(0)
}

/// Whether Redis' milliseconds say all of it. A leap second, which RFC 3339 allows, is not kept: its milliseconds are those of
/// the next second.
pub(crate) fn is_kept(time: DateTime<Utc>) -> bool {
    from_millis(to_millis(time)) == Ok(time)
}

/// Cut to milliseconds, which is all that Redis keeps.
pub fn truncate(time: DateTime<Utc>) -> DateTime<Utc> {
    time.trunc_subsecs(3)
}

/// `2026-11-21T10:00:00.000Z`.
pub fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// For `#[serde(serialize_with)]` of a time.
///
/// # Errors
/// The serializer's.
pub fn serialize<S: serde::Serializer>(time: &DateTime<Utc>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&rfc3339(*time))
}

/// For `#[serde(serialize_with)]` of an optional time.
///
/// # Errors
/// The serializer's.
pub fn serialize_option<S: serde::Serializer>(
    time: &Option<DateTime<Utc>>,
    to: S,
) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serialize(time, to),
        None => to.serialize_none(),
    }
}
