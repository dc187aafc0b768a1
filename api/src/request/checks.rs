//! Gathers all that is wrong with a body, so that a client learns it at once.

use std::fmt::Display;
use std::ops::RangeInclusive;

use boxoffice_schema::text::InvalidText;
use chrono::{DateTime, Utc};

use super::shape::Integer;
use crate::error::{FieldError, Problem};

/// The end of the year 9999 in UTC, beyond which RFC 3339 has no times.
const LATEST_SECOND: i64 = 253_402_300_799;

/// What was found wrong so far. A method answers `None` where it found something.
#[derive(Default)]
pub(crate) struct Checks {
    errors: Vec<FieldError>,
}

impl Checks {
    /// Notes a mistake.
    pub(crate) fn wrong(&mut self, field: impl Display, message: impl Display) {
        self.errors.push(FieldError::new(field.to_string(), message.to_string()));
    }

    /// A field that must be there.
    pub(crate) fn required<T>(&mut self, field: impl Display, value: Option<T>) -> Option<T> {
        if value.is_none() {
            self.wrong(field, "is required");
        }
        value
    }

    /// A number within bounds that the type has room for.
    pub(crate) fn number<T: TryFrom<i64>>(
        &mut self,
        field: impl Display,
        Integer(value): Integer,
        bounds: RangeInclusive<i64>,
    ) -> Option<T> {
        let number = bounds.contains(&value).then(|| T::try_from(value).ok()).flatten();
        if number.is_none() {
            self.wrong(field, format_args!("must be {} to {}", bounds.start(), bounds.end()));
        }
        number
    }

    /// A text with bounds of its own.
    pub(crate) fn text<T: TryFrom<String, Error = InvalidText>>(
        &mut self,
        field: impl Display,
        value: String,
    ) -> Option<T> {
        value.try_into().map_err(|error: InvalidText| self.wrong(field, error)).ok()
    }

    /// A time, cut to milliseconds. A leap second is the first second of the next minute, as for every clock that counts
    /// the seconds since 1970, PostgreSQL's and Redis' among them.
    pub(crate) fn time(&mut self, field: impl Display, value: &str) -> Option<DateTime<Utc>> {
        let parsed = DateTime::parse_from_rfc3339(value).ok().filter(|_| is_to_the_letter(value));
        let counted = parsed.and_then(|at| DateTime::from_timestamp_millis(at.timestamp_millis()));
        let in_range = counted.filter(|at| (0..=LATEST_SECOND).contains(&at.timestamp()));
        if in_range.is_none() {
            self.wrong(field, "must be a time as in RFC 3339, from 1970 to 9999 in UTC");
        }
        in_range
    }

    /// A time that has passed is a mistake in a year or a time zone, and would silently sell nothing.
    pub(crate) fn in_future(&mut self, field: impl Display, at: Option<DateTime<Utc>>, now: DateTime<Utc>) {
        if at.is_some_and(|at| at <= now) {
            self.wrong(field, "must be in the future");
        }
    }

    /// The problem with everything that was found; nothing where all was right.
    pub(crate) fn done(self) -> Result<(), Problem> {
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::invalid(self.errors)) }
    }
}

/// Whether a time that could be read is written as RFC 3339 has it (section 5.6). The library is more generous: it takes a
/// blank for the T, a minus sign that is not ASCII's, and an offset that ends with its colon.
fn is_to_the_letter(time: &str) -> bool {
    time.is_ascii() && matches!(time.as_bytes().get(10), Some(b'T' | b't')) && !time.ends_with(':')
}
