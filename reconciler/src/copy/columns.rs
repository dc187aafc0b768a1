//! A row on its way out, column by column. PostgreSQL sends each row as a message of its own (manual, "Frontend/Backend
//! Protocol", "COPY Operations").

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{END, HEADER, NULL, POSTGRES_EPOCH_MICROS};

/// A message of PostgreSQL that is not what was asked for.
#[derive(Debug, thiserror::Error)]
#[error("PostgreSQL's copy holds {0}")]
pub(crate) struct Malformed(&'static str);

/// The columns of a row that were not read yet, in the order of the statement.
pub(crate) struct Columns<'a> {
    rest: &'a [u8],
}

impl<'a> Columns<'a> {
    /// The row of a message, of which the first also has the stream's header; none in the last.
    pub(crate) fn of(message: &'a [u8]) -> Result<Option<Self>, Malformed> {
        let mut columns = Self { rest: message.strip_prefix(HEADER).unwrap_or(message) };
        // A stream without rows has a message with the header alone.
        if columns.rest.is_empty() {
            return Ok(None);
        }
        let count = i16::from_be_bytes(columns.array()?);
        Ok((count != END).then_some(columns))
    }

    pub(crate) fn uuid(&mut self) -> Result<Uuid, Malformed> {
        Ok(Uuid::from_bytes(self.fixed()?))
    }

    pub(crate) fn int4(&mut self) -> Result<i32, Malformed> {
        Ok(i32::from_be_bytes(self.fixed()?))
    }

    pub(crate) fn int8(&mut self) -> Result<i64, Malformed> {
        Ok(i64::from_be_bytes(self.fixed()?))
    }

    pub(crate) fn time(&mut self) -> Result<DateTime<Utc>, Malformed> {
        time(self.value()?)
    }

    pub(crate) fn optional_time(&mut self) -> Result<Option<DateTime<Utc>>, Malformed> {
        self.optional()?.map(time).transpose()
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Malformed> {
        text(self.value()?)
    }

    pub(crate) fn optional_text(&mut self) -> Result<Option<&'a str>, Malformed> {
        self.optional()?.map(text).transpose()
    }

    /// Of exactly so many bytes.
    pub(crate) fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.value()?.try_into().map_err(|_| Malformed("a value of another length"))
    }

    fn value(&mut self) -> Result<&'a [u8], Malformed> {
        self.optional()?.ok_or(Malformed("no value where there must be one"))
    }

    fn optional(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        let length = i32::from_be_bytes(self.array()?);
        if length == NULL {
            return Ok(None);
        }
        let length = usize::try_from(length).map_err(|_| Malformed("a negative length"))?;
        self.take(length).map(Some)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed("a value of another length"))
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(Malformed("a row that ends early"))?;
        self.rest = rest;
        Ok(head)
    }
}

fn text(bytes: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed("text that is not UTF-8"))
}

fn time(bytes: &[u8]) -> Result<DateTime<Utc>, Malformed> {
    let micros = i64::from_be_bytes(bytes.try_into().map_err(|_| Malformed("a value of another length"))?);
    let micros = micros.checked_add(POSTGRES_EPOCH_MICROS);
    micros.and_then(DateTime::from_timestamp_micros).ok_or(Malformed("a time that is out of range"))
}

#[cfg(test)]
mod tests {
    use super::super::Rows;
    use super::*;

    #[test]
    fn a_row_that_was_written_is_read_back_column_by_column() {
        let (id, at) = (Uuid::now_v7(), DateTime::from_timestamp(1_800_000_000, 0).unwrap());
        let mut rows = Rows::new(6, 1, 64);
        rows.begin().uuid(id).int4(-7).int8(1 << 40).time(at).text("ü").optional(None::<&str>, Rows::text);
        let bytes = rows.finish();
        let mut columns = Columns::of(&bytes).unwrap().unwrap();
        assert_eq!((columns.uuid().unwrap(), columns.int4().unwrap()), (id, -7));
        assert_eq!((columns.int8().unwrap(), columns.time().unwrap()), (1 << 40, at));
        assert_eq!((columns.text().unwrap(), columns.optional_text().unwrap()), ("ü", None));
        assert!(Columns::of(&END.to_be_bytes()).unwrap().is_none());
    }

    #[test]
    fn a_row_that_is_cut_off_anywhere_is_an_error_and_never_a_panic() {
        let mut rows = Rows::new(2, 1, 64);
        rows.begin().text("customer").int8(1);
        let bytes = rows.finish();
        for end in HEADER.len() + 1..bytes.len() - END.to_be_bytes().len() {
            let read = |bytes| {
                let mut columns = Columns::of(bytes)?.ok_or(Malformed("no row"))?;
                columns.text()?;
                columns.int8()
            };
            assert!(read(&bytes[..end]).is_err(), "{end}");
        }
    }
}
