//! Pages of a list: `?limit=`, `?cursor=`, and what narrows it.

use actix_web::web::Query;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use boxoffice_schema::status::{BookingStatus, EventStatus};
use boxoffice_schema::text::Customer;
use chrono::{DateTime, Utc};
use percent_encoding::percent_decode_str;
use uuid::Uuid;

use crate::error::{Code, Problem};

const LIMIT_DEFAULT: usize = 50;
const LIMIT_MAX: usize = 200;

/// The end of the year 9999.
const LATEST_MICROS: i64 = 253_402_300_799_999_999;

/// The last entry of the page before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct After {
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) id: Uuid,
}

/// Which page of what is asked for.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) limit: usize,
    pub(crate) after: Option<After>,
    /// Only entries in this state; a word of the list's own.
    pub(crate) status: Option<&'static str>,
    /// Only bookings of this customer.
    pub(crate) customer: Option<Customer>,
}

/// By what a list may be narrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListOf {
    /// By their status.
    Events,
    /// By their status and customer.
    BookingsOfEvent,
    /// By their status.
    BookingsOfCustomer,
}

impl ListOf {
    /// The states that its entries may be in.
    fn statuses(self) -> [&'static str; 4] {
        match self {
            Self::Events => EventStatus::ALL.map(EventStatus::as_str),
            _ => BookingStatus::ALL.map(BookingStatus::as_str),
        }
    }
}

impl Page {
    /// Reads the query of a list.
    pub(crate) fn parse(query: &str, of: ListOf) -> Result<Self, Problem> {
        let malformed = |why: String| Problem::because(Code::MalformedRequest, why);
        // What is no UTF-8 would be read as U+FFFD, and that may be in a customer's name.
        if percent_decode_str(query).decode_utf8().is_err() {
            return Err(malformed("The query is not UTF-8.".to_owned()));
        }
        let pairs = Query::<Vec<(String, String)>>::from_query(query)
            .map_err(|_| malformed("The query could not be read.".to_owned()))?
            .into_inner();
        let mut page = Self { limit: LIMIT_DEFAULT, after: None, status: None, customer: None };
        let mut seen: Vec<&str> = Vec::with_capacity(pairs.len());
        for (name, value) in &pairs {
            if seen.contains(&name.as_str()) {
                return Err(malformed(format!("{name} is given twice.")));
            }
            seen.push(name);
            page.take(name, value, of).map_err(malformed)?;
        }
        Ok(page)
    }

    /// Takes a parameter in, or says what it must be.
    fn take(&mut self, name: &str, value: &str, of: ListOf) -> Result<(), String> {
        match name {
            "limit" => {
                let limit = parse_limit(value);
                self.limit = limit.ok_or_else(|| format!("limit must be 1 to {LIMIT_MAX}."))?;
            }
            "cursor" => {
                let after = After::decode(value);
                self.after =
                    Some(after.ok_or("cursor must be the next_cursor of another page of this list.")?);
            }
            "status" => {
                let words = of.statuses();
                let status = words.into_iter().find(|word| *word == value);
                self.status =
                    Some(status.ok_or_else(|| format!("status must be one of {}.", words.join(", ")))?);
            }
            "customer" if of == ListOf::BookingsOfEvent => {
                let customer = Customer::try_from(value.to_owned());
                self.customer = Some(customer.map_err(|error| format!("customer {error}."))?);
            }
            _ => return Err(format!("There is no query parameter {name:?}.")),
        }
        Ok(())
    }

    /// How many rows to read: one more tells whether there is another page.
    pub(crate) fn rows(&self) -> i64 {
        i64::try_from(self.limit).unwrap_or(i64::MAX).saturating_add(1)
    }
}

fn parse_limit(value: &str) -> Option<usize> {
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let limit = if digits { value.parse().ok()? } else { return None };
    (1..=LIMIT_MAX).contains(&limit).then_some(limit)
}

/// Cuts the row that was read beyond the page, and names the last that stays, where there is another page.
pub(crate) fn next_cursor<T>(page: &Page, rows: &mut Vec<T>, place: impl Fn(&T) -> After) -> Option<String> {
    if rows.len() <= page.limit {
        return None;
    }
    rows.truncate(page.limit);
    rows.last().map(|last| place(last).encode())
}

impl After {
    /// Opaque to clients: microseconds since 1970 and the id, as base64url.
    pub(crate) fn encode(self) -> String {
        let micros = self.created_at.timestamp_micros().to_be_bytes();
        URL_SAFE_NO_PAD.encode([micros.as_slice(), self.id.as_bytes()].concat())
    }

    pub(crate) fn decode(cursor: &str) -> Option<Self> {
        let bytes: [u8; 24] = URL_SAFE_NO_PAD.decode(cursor).ok()?.try_into().ok()?;
        let (micros, id) = bytes.split_first_chunk::<8>()?;
        // No entry is from before 1970 or after the year 9999, and PostgreSQL's calendar ends earlier than ours.
        let micros = i64::from_be_bytes(*micros).clamp(0, LATEST_MICROS);
        Some(Self { created_at: DateTime::from_timestamp_micros(micros)?, id: Uuid::from_slice(id).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_went() {
        let after = After {
            created_at: DateTime::from_timestamp_micros(1_763_719_200_123_456).unwrap(),
            id: Uuid::from_u128(7),
        };
        assert_eq!(After::decode(&after.encode()), Some(after));
    }

    #[test]
    fn a_cursor_of_another_make_is_refused() {
        for bad in ["", "x", "!!!!", &"A".repeat(31), &"A".repeat(33), &"=".repeat(32)] {
            assert_eq!(After::decode(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_cursor_beyond_all_calendars_is_one_at_their_end() {
        let at = |micros: i64| URL_SAFE_NO_PAD.encode([micros.to_be_bytes().as_slice(), &[0; 16]].concat());
        let year = |cursor: String| After::decode(&cursor).map(|after| after.created_at.to_rfc3339());
        assert!(year(at(i64::MAX)).unwrap().starts_with("9999-12-31"));
        assert!(year(at(i64::MIN)).unwrap().starts_with("1970-01-01"));
    }

    #[test]
    fn a_page_is_read_strictly() {
        let page = Page::parse("limit=200&status=held&customer=ann", ListOf::BookingsOfEvent).unwrap();
        assert_eq!((page.limit, page.status), (200, Some("held")));
        assert_eq!(page.customer.unwrap().as_str(), "ann");
        assert_eq!(Page::parse("status=on_sale", ListOf::Events).unwrap().status, Some("on_sale"));
        assert_eq!(Page::parse("", ListOf::Events).unwrap().limit, 50);
        for bad in [
            "limit=0",
            "limit=201",
            "limit=%2B5",
            "limit=x",
            "cursor=",
            "status=held",
            "customer=ann",
            "foo=1",
            "limit=1&limit=1",
        ] {
            assert!(Page::parse(bad, ListOf::Events).is_err(), "{bad}");
        }
        assert!(Page::parse("status=sold", ListOf::BookingsOfCustomer).is_err());
        for bad in ["customer=", "customer=%FF", "customer=ann%C3", "customer=%00"] {
            assert!(Page::parse(bad, ListOf::BookingsOfEvent).is_err(), "{bad}");
        }
    }
}
