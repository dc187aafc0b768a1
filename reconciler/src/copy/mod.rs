//! The binary format of PostgreSQL's `COPY` (PostgreSQL manual, "COPY", "Binary Format"), in which many rows go in and out
//! at the least cost for both sides.

mod columns;
mod rows;

pub(crate) use columns::Columns;
pub(crate) use rows::Rows;

/// What every such stream begins with: the signature, no flags, no extension of the header.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// In the place of a row's number of columns: the end of the stream.
const END: i16 = -1;

/// In the place of a value's length: no value.
const NULL: i32 = -1;

/// 2000-01-01, from which PostgreSQL counts, in microseconds since 1970.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;
