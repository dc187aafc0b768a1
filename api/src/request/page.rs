//! Pages of a list: `?limit=`, `?cursor=` and, of bookings, `?status=`.

use actix_web::web::Query;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use boxoffice_schema::status::BookingStatus;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::error::{Code, Problem};

const LIMIT_DEFAULT: usize = 50;
const LIMIT_MAX: usize = 200;

/// The last entry of the page before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct After {
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) id: Uuid,
}

/// Which page is asked for.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) limit: usize,
    pub(crate) after: Option<After>,
    pub(crate) status: Option<BookingStatus>,
}

impl Page {
    /// Reads the query of a list; only one of bookings takes a status.
    pub(crate) fn parse(query: &str, takes_status: bool) -> Result<Self, Problem> {
        let malformed = |why: String| Problem::because(Code::MalformedRequest, why);
        let pairs = Query::<Vec<(String, String)>>::from_query(query)
            .map_err(|_| malformed("The query could not be read.".to_owned()))?
            .into_inner();
        let mut page = Self { limit: LIMIT_DEFAULT, after: None, status: None };
        let mut seen: Vec<&str> = Vec::with_capacity(pairs.len());
        for (name, value) in &pairs {
            if seen.contains(&name.as_str()) {
                return Err(malformed(format!("{name} is given twice.")));
            }
            seen.push(name);
            let read = match name.as_str() {
                "limit" => parse_limit(value).map(|limit| page.limit = limit),
                "cursor" => After::decode(value).map(|after| page.after = Some(after)),
                "status" if takes_status => {
                    BookingStatus::parse(value).ok().map(|status| page.status = Some(status))
                }
                _ => return Err(malformed(format!("There is no query parameter {name:?}."))),
            };
            if read.is_none() {
                return Err(malformed(format!("{name} is not one that this list takes.")));
            }
        }
        Ok(page)
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
    fn encode(self) -> String {
        let micros = self.created_at.timestamp_micros().to_be_bytes();
        URL_SAFE_NO_PAD.encode([micros.as_slice(), self.id.as_bytes()].concat())
    }

    fn decode(cursor: &str) -> Option<Self> {
        let bytes: [u8; 24] = URL_SAFE_NO_PAD.decode(cursor).ok()?.try_into().ok()?;
        let (micros, id) = bytes.split_first_chunk::<8>()?;
        let created_at = DateTime::from_timestamp_micros(i64::from_be_bytes(*micros))?;
        // PostgreSQL's calendar ends earlier than ours; no entry is from before 1970 or after the year 9999.
        let is_plausible = (0..=253_402_300_799).contains(&created_at.timestamp());
        is_plausible.then_some(Self { created_at, id: Uuid::from_slice(id).ok()? })
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
        let beyond = [i64::MAX.to_be_bytes().as_slice(), &[0; 16]].concat();
        for bad in ["", "x", "!!!!", &"A".repeat(31), &"A".repeat(33), &URL_SAFE_NO_PAD.encode(beyond)] {
            assert_eq!(After::decode(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_page_is_read_strictly() {
        let page = Page::parse("limit=200&status=held", true).unwrap();
        assert_eq!((page.limit, page.status), (200, Some(BookingStatus::Held)));
        assert_eq!(Page::parse("", false).unwrap().limit, 50);
        for bad in [
            "limit=0",
            "limit=201",
            "limit=%2B5",
            "limit=x",
            "cursor=",
            "status=held",
            "foo=1",
            "limit=1&limit=1",
        ] {
            assert!(Page::parse(bad, false).is_err(), "{bad}");
        }
        assert!(Page::parse("status=sold", true).is_err());
    }
}
