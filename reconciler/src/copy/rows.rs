//! Rows on their way in: the cheapest one for rows that are known to be new.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{END, HEADER, NULL, POSTGRES_EPOCH_MICROS};

/// Rows on their way into one table.
pub(crate) struct Rows {
    bytes: Vec<u8>,
    columns: i16,
}

impl Rows {
    /// No rows yet. `row_bytes` is about how long one will be.
    pub(crate) fn new(columns: i16, rows: usize, row_bytes: usize) -> Self {
        let mut bytes = Vec::with_capacity(HEADER.len() + rows * row_bytes);
        bytes.extend_from_slice(HEADER);
        Self { bytes, columns }
    }

    /// Begins a row; its values follow in the order of the statement's columns.
    pub(crate) fn begin(&mut self) -> &mut Self {
        self.bytes.extend_from_slice(&self.columns.to_be_bytes());
        self
    }

    pub(crate) fn uuid(&mut self, value: Uuid) -> &mut Self {
        self.value(value.as_bytes())
    }

    pub(crate) fn text(&mut self, value: &str) -> &mut Self {
        self.value(value.as_bytes())
    }

    pub(crate) fn int2(&mut self, value: i16) -> &mut Self {
        self.value(&value.to_be_bytes())
    }

    pub(crate) fn int4(&mut self, value: i32) -> &mut Self {
        self.value(&value.to_be_bytes())
    }

    pub(crate) fn int8(&mut self, value: i64) -> &mut Self {
        self.value(&value.to_be_bytes())
    }

    pub(crate) fn time(&mut self, value: DateTime<Utc>) -> &mut Self {
        self.int8(value.timestamp_micros().saturating_sub(POSTGRES_EPOCH_MICROS))
    }

    /// A value, or none.
    pub(crate) fn optional<T>(
        &mut self,
        value: Option<T>,
        put: impl Fn(&mut Self, T) -> &mut Self,
    ) -> &mut Self {
        match value {
            Some(value) => put(self, value),
            None => {
                self.bytes.extend_from_slice(&NULL.to_be_bytes());
                self
            }
        }
    }

    /// A value in PostgreSQL's binary form. One of 2 GB or more does not get here; its length would be refused.
    pub(crate) fn value(&mut self, value: &[u8]) -> &mut Self {
        let length = i32::try_from(value.len()).unwrap_or(i32::MAX);
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(value);
        self
    }

    /// The whole stream.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&END.to_be_bytes());
        self.bytes
    }

    /// Sends them. `statement` is a `COPY ... FROM STDIN (FORMAT binary)`.
    pub(crate) async fn copy(self, connection: &mut PgConnection, statement: &str) -> sqlx::Result<()> {
        let mut copy = connection.copy_in_raw(statement).await?;
        copy.send(self.finish()).await?;
        copy.finish().await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_its_number_of_columns_and_each_value_behind_its_length() {
        let mut rows = Rows::new(3, 1, 32);
        let time = DateTime::from_timestamp(946_684_801, 0).unwrap();
        rows.begin().time(time).optional(None::<&str>, Rows::text).optional(Some("ü"), Rows::text);
        let mut expected = HEADER.to_vec();
        expected.extend_from_slice(&[0, 3]);
        expected.extend_from_slice(&[0, 0, 0, 8, 0, 0, 0, 0, 0, 0x0f, 0x42, 0x40]);
        expected.extend_from_slice(&[0xff; 4]);
        expected.extend_from_slice(&[0, 0, 0, 2, 0xc3, 0xbc]);
        assert_eq!(rows.bytes, expected);
    }
}
