//! A decision about a booking as Kafka gets it: as the script wrote it into a frame, with the frame's head. Nobody between
//! Redis and PostgreSQL takes it apart.

use super::{BookingChange, Change, Kind, Message, Record, Totals};
use crate::DecodeError;
use crate::bytes::Reader;
use crate::ids::{BookingId, EventId};
use crate::image::{BookingImage, ITEMS_COUNTED_AT};
use crate::position::Position;
use crate::shard::Shard;
use crate::time;

pub(super) const VERSION: u8 = 2;

/// Of one ticket type.
const TOTALS_BYTES: usize = 12;

/// What all decisions of a frame have in common: epoch and time.
pub(crate) type Head = [u8; 12];

/// The next decision of a frame, which is about a booking. The booking itself is not looked at: whether it can be read is for
/// the reconciler to say, who puts aside what cannot.
pub(crate) fn seal(shard: Shard, head: &Head, read: &mut Reader<'_>) -> Result<Message, DecodeError> {
    let from = read.rest();
    read.u8()?;
    let position = Position { epoch: Reader::new("frame", head).u32()?, sequence: read.u64()? };
    let event_id = EventId::from_bytes(read.array()?);
    read.take(size_of::<BookingId>())?;
    let length = read.u32()? as usize;
    let image = read.take(length)?;
    let items = image.get(ITEMS_COUNTED_AT).ok_or_else(|| read.error("holds a booking that ends early"))?;
    read.take(TOTALS_BYTES * usize::from(*items))?;
    let decision = &from[..from.len() - read.rest().len()];
    let value = [&[VERSION], &shard.number().to_be_bytes()[..], head, decision].concat();
    Ok(Message { shard, position, event_id: Some(event_id), version: VERSION.into(), value })
}

pub(super) fn encode(record: &Record, event_id: EventId, change: &BookingChange) -> Vec<u8> {
    let image = change.image.encode();
    let length = u32::try_from(image.len()).expect("an image has some ten kilobytes at most");
    let mut out = vec![VERSION];
    out.extend_from_slice(&record.shard.number().to_be_bytes());
    out.extend_from_slice(&record.position.epoch.to_be_bytes());
    out.extend_from_slice(&time::to_millis(record.decided_at).to_be_bytes());
    out.push(record.kind.code());
    out.extend_from_slice(&record.position.sequence.to_be_bytes());
    out.extend_from_slice(event_id.as_bytes());
    out.extend_from_slice(change.id.as_bytes());
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&image);
    for totals in &change.totals {
        for count in [totals.capacity, totals.held, totals.sold] {
            out.extend_from_slice(&count.to_be_bytes());
        }
    }
    out
}

/// From what follows the version.
pub(super) fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
    let mut read = Reader::new("record", bytes);
    let shard = Shard::from_number(read.u16()?);
    let epoch = read.u32()?;
    let decided_at = time::from_millis(read.u64()?)?;
    let kind = Kind::from_code(read.u8()?)?;
    if !kind.is_of_booking() {
        return Err(read.error(format!("of kind {kind:?} is not about a booking")));
    }
    let position = Position { epoch, sequence: read.u64()? };
    let event_id = Some(EventId::from_bytes(read.array()?));
    let change = booking(&mut read)?;
    if change.image.position != position {
        let stated = change.image.position;
        return Err(read.error(format!("of decision {position} has a booking as decision {stated} left it")));
    }
    if !read.is_empty() {
        return Err(read.error("has bytes after its end"));
    }
    let change = Change::Booking(Box::new(change));
    Ok(Record { shard, position, kind, event_id, decided_at, change })
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
