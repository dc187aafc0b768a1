//! A frame: the decisions of one script call, as they wait in the outbox for Kafka.
//!
//! Big-endian: version (1), epoch (4), time of the decisions in ms (8); then for each decision its kind (1), its
//! sequence (8) and its event (16), followed by
//! - for a booking: booking id (16), length (4) and bytes of its image, and for each of its items the ticket type's
//!   capacity, held and sold (4 each);
//! - for an event: length (4) and bytes of the JSON object of its hash.

use crate::DecodeError;
use crate::bytes::Reader;
use crate::event::EventImage;
use crate::ids::{BookingId, EventId};
use crate::image::BookingImage;
use crate::position::Position;
use crate::record::{BookingChange, Change, Kind, Record, Totals};
use crate::shard::Shard;
use crate::time;

const VERSION: u8 = 1;

/// The field of an outbox entry that holds the frame's bytes.
pub const FRAME_FIELD: &str = "f";

/// Reads a frame into the records that Kafka gets, in order.
///
/// # Errors
/// Where it is not a frame that [`crate::scripts`] write.
pub fn decode(shard: Shard, bytes: &[u8]) -> Result<Vec<Record>, DecodeError> {
    let mut read = Reader::new("frame", bytes);
    let version = read.u8()?;
    if version != VERSION {
        return Err(read.error(format!("unknown version {version}")));
    }
    let epoch = read.u32()?;
    let decided_at = time::from_millis(read.u64()?)?;
    let mut records = Vec::new();
    while !read.is_empty() {
        let kind = Kind::from_code(read.u8()?)?;
        // Recovery writes barriers, and writes them to Kafka: no script decides one.
        if kind == Kind::Barrier {
            return Err(read.error("holds a barrier, which is no decision"));
        }
        let position = Position { epoch, sequence: read.u64()? };
        let event_id = EventId::from_bytes(read.array()?);
        let change = if kind.is_of_booking() {
            Change::Booking(Box::new(booking(&mut read)?))
        } else {
            let length = read.u32()? as usize;
            Change::Event(Box::new(EventImage::from_hash_json(read.take(length)?)?))
        };
        records.push(Record { shard, position, kind, event_id: Some(event_id), decided_at, change });
    }
    Ok(records)
}

fn booking(read: &mut Reader<'_>) -> Result<BookingChange, DecodeError> {
    let id = BookingId::from_bytes(read.array()?);
    let length = read.u32()? as usize;
    let image = BookingImage::decode(read.take(length)?)?;
    let mut totals = Vec::with_capacity(image.items.len());
    for item in &image.items {
        totals.push(Totals {
            ticket_type_id: item.ticket_type_id,
            capacity: read.u32()?,
            held: read.u32()?,
            sold: read.u32()?,
        });
    }
    Ok(BookingChange { id, image, totals })
}
