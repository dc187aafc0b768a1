//! What the reconciler reads from outside as functions of bytes alone, with what must hold whatever they are: for fuzzing
//! (`fuzz/`), and for the test that does a little of it on every change. Nothing else calls them.

#![allow(clippy::missing_panics_doc, reason = "panicking is how they say that something does not hold")]

use boxoffice_schema::image::BookingImage;
use boxoffice_schema::rate_record::RateRecord;
use boxoffice_schema::record::{Change, Record};
use boxoffice_schema::shard::ShardCount;

use crate::decode::{Content, Fetched, decode, stated_position};

/// A record of the log: up to the first NUL its headers, a line each as `name: value`, and behind it the value. It is read
/// or poison, and what is read comes back as it went.
pub fn records(bytes: &[u8]) {
    let Some(Content::Record(record)) = content(bytes) else { return };
    for written in [record.message().value, record.to_json()] {
        let again = Record::decode(&written).map(|record| record.to_json());
        assert_eq!(again, Ok(record.to_json()), "a record does not come back as it went");
    }
    if let Change::Booking(change) = record.change {
        // What is put into Redis again by a recovery.
        let _ = change.image.total();
        let restored = BookingImage::decode(&change.image.encode());
        assert_eq!(restored.as_ref(), Ok(&change.image), "an image does not come back as it went");
    }
}

/// Whether bytes are a record with its headers, as [`records`] has it.
pub fn is_record(bytes: &[u8]) -> bool {
    matches!(content(bytes), Some(Content::Record(_)))
}

fn content(bytes: &[u8]) -> Option<Content> {
    fn header(line: &[u8]) -> Option<(&str, &[u8])> {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = std::str::from_utf8(&line[..colon]).ok()?;
        Some((name, line[colon + 1..].trim_ascii()))
    }
    // Any of the sixteen will do: the one that the value names, so that it is not refused for that.
    let (head, value) = bytes.split_at(bytes.iter().position(|byte| *byte == 0).unwrap_or(0));
    let value = value.strip_prefix(b"\0").unwrap_or(value);
    let named = Record::decode(value).map(|record| record.shard);
    let shard = named.ok().or_else(|| ShardCount::new(16).ok()?.shards().next())?;
    let headers = head.split(|byte| *byte == b'\n').filter_map(header);
    let stated = stated_position(shard, headers);
    Some(decode(Fetched { shard, offset: 0, payload: value.to_vec(), stated }).content)
}

/// What the rate limits decided, as the log of that has it.
pub fn rate_records(bytes: &[u8]) {
    if let Ok(record) = RateRecord::decode(bytes) {
        let written = record.encode();
        let again = RateRecord::decode(&written).map(|record| record.encode());
        assert_eq!(again.as_deref(), Ok(written.as_slice()), "a record does not come back as it went");
    }
}
