//! A booking as it lies in its slot: under the end of its id, which is all that its key says, the time of its id (6 bytes)
//! and its image. See `schema/lua/inventory.lua`.

use crate::DecodeError;
use crate::fingerprint::IdempotencyField;
use crate::ids::BookingId;
use crate::image::BookingImage;

/// What lies under [`BookingId::field`].
pub fn encode(id: BookingId, image: &BookingImage) -> Vec<u8> {
    [id.time().as_slice(), &image.encode()].concat()
}

/// Reads what lies under a field: the booking with its whole id.
///
/// # Errors
/// Where no script wrote it.
pub fn decode(field: IdempotencyField, value: &[u8]) -> Result<(BookingId, BookingImage), DecodeError> {
    let (time, image) =
        value.split_first_chunk().ok_or_else(|| DecodeError::new("slot", "has a booking without an id"))?;
    Ok((BookingId::from_parts(*time, field), BookingImage::decode(image)?))
}
