//! A frame: the decisions of one script call, as they wait in the outbox for Kafka.
//!
//! Big-endian: version (1), epoch (4), time of the decisions in ms (8); then the decisions. Those about bookings are as Kafka
//! gets them ([layout](crate::record)); those about events have kind (1), sequence (8), event (16), and length (4) and bytes of
//! the JSON object of its hash.

use crate::DecodeError;
use crate::bytes::Reader;
use crate::event::EventImage;
use crate::ids::EventId;
use crate::position::Position;
use crate::record::{Change, Head, Kind, Message, Record, seal};
use crate::shard::Shard;
use crate::time;

const VERSION: u8 = 1;

/// The field of an outbox entry that holds the frame's bytes.
pub const FRAME_FIELD: &str = "f";

/// What Kafka gets of a frame, in order.
///
/// # Errors
/// Where it is not a frame that [`crate::scripts`] write.
pub fn messages(shard: Shard, bytes: &[u8]) -> Result<Vec<Message>, DecodeError> {
    let mut read = Reader::new("frame", bytes);
    let version = read.u8()?;
    if version != VERSION {
        return Err(read.error(format!("unknown version {version}")));
    }
    let head: Head = read.array()?;
    let mut messages = Vec::new();
    while let Some(code) = read.rest().first() {
        let kind = Kind::from_code(*code)?;
        messages.push(if kind.is_of_booking() {
            seal(shard, &head, &mut read)?
        } else {
            of_event(shard, &head, &mut read)?.message()
        });
    }
    Ok(messages)
}

fn of_event(shard: Shard, head: &Head, read: &mut Reader<'_>) -> Result<Record, DecodeError> {
    let mut head = Reader::new("frame", head);
    let epoch = head.u32()?;
    let decided_at = time::from_millis(head.u64()?)?;
    let kind = Kind::from_code(read.u8()?)?;
    // Recovery writes barriers, and writes them to Kafka: no script decides one.
    if kind == Kind::Barrier {
        return Err(read.error("holds a barrier, which is no decision"));
    }
    let position = Position { epoch, sequence: read.u64()? };
    let event_id = Some(EventId::from_bytes(read.array()?));
    let length = read.u32()? as usize;
    let change = Change::Event(Box::new(EventImage::from_hash_json(read.take(length)?)?));
    Ok(Record { shard, position, kind, event_id, decided_at, change })
}
