//! A row on its way out, column by column. PostgreSQL sends each row as a message of its own (manual, "Frontend/Backend
//! Protocol", "COPY Operations").

use boxoffice_schema::DecodeError;
use boxoffice_schema::bytes::Reader;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{END, HEADER, NULL, POSTGRES_EPOCH_MICROS};

/// The columns of a row that were not read yet, in the order of the statement.
pub(crate) struct Columns<'a> {
    rest: Reader<'a>,
}

impl<'a> Columns<'a> {
    /// The row of a message, of which the first also has the stream's header; none in the last.
    pub(crate) fn of(message: &'a [u8]) -> Result<Option<Self>, DecodeError> {
        let row = message.strip_prefix(HEADER).unwrap_or(message);
        let mut rest = Reader::new("row of PostgreSQL's copy", row);
        // A stream without rows has a message with the header alone.
        if rest.is_empty() {
            return Ok(None);
        }
        let count = i16::from_be_bytes(rest.array()?);
        Ok((count != END).then_some(Self { rest }))
    }

    pub(crate) fn uuid(&mut self) -> Result<Uuid, DecodeError> {
        Ok(Uuid::from_bytes(self.fixed()?))
    }

    pub(crate) fn int4(&mut self) -> Result<i32, DecodeError> {
        Ok(i32::from_be_bytes(self.fixed()?))
    }

    pub(crate) fn int8(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from_be_bytes(self.fixed()?))
    }

    pub(crate) fn time(&mut self) -> Result<DateTime<Utc>, DecodeError> {
        let value = self.value()?;
        self.as_time(value)
    }

    pub(crate) fn optional_time(&mut self) -> Result<Option<DateTime<Utc>>, DecodeError> {
        let value = self.optional()?;
        value.map(|value| self.as_time(value)).transpose()
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, DecodeError> {
        let value = self.value()?;
        self.as_text(value)
    }

    pub(crate) fn optional_text(&mut self) -> Result<Option<&'a str>, DecodeError> {
        let value = self.optional()?;
        value.map(|value| self.as_text(value)).transpose()
    }

    /// Of exactly so many bytes.
    pub(crate) fn fixed<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let value = self.value()?;
        value.try_into().map_err(|_| self.rest.error(format!("{} bytes where {N} are wanted", value.len())))
    }

    fn value(&mut self) -> Result<&'a [u8], DecodeError> {
        self.optional()?.ok_or_else(|| self.rest.error("has no value where there must be one"))
    }

    fn optional(&mut self) -> Result<Option<&'a [u8]>, DecodeError> {
        let length = i32::from_be_bytes(self.rest.array()?);
        if length == NULL {
            return Ok(None);
        }
        let length = usize::try_from(length).map_err(|_| self.rest.error("has a negative length"))?;
        self.rest.take(length).map(Some)
    }

    fn as_text(&self, bytes: &'a [u8]) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(bytes).map_err(|error| self.rest.error(format!("text is not UTF-8: {error}")))
    }

    fn as_time(&self, bytes: &[u8]) -> Result<DateTime<Utc>, DecodeError> {
        let micros = bytes.try_into().ok().map(i64::from_be_bytes);
        let micros = micros.and_then(|micros| micros.checked_add(POSTGRES_EPOCH_MICROS));
        micros
            .and_then(DateTime::from_timestamp_micros)
            .ok_or_else(|| self.rest.error("has no time where there must be one"))
    }
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
                let mut columns = Columns::of(bytes)?.expect("a row");
                columns.text()?;
                columns.int8()
            };
            assert!(read(&bytes[..end]).is_err(), "{end}");
        }
    }
}
