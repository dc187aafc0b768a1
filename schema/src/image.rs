//! A booking as Redis holds it, and the log: everything about it after its last decision, packed. Since it is part of a
//! [record](crate::record), another layout is a new version of that too, and this one has to be read for as long as logs are kept.
//!
//! The layout, big-endian; the scripts read and write the first part and take the tail as it is:
//!
//! | at | bytes | |
//! |---|---|---|
//! | 0 | 1 | version, 1 |
//! | 1 | 1 | state |
//! | 2 | 1 | state of the first response |
//! | 3 | 1 | number of items, n |
//! | 4 | 8 | created, ms |
//! | 12 | 8 | the hold's expiry, ms; 0 for none |
//! | 20 | 4 + 8 | epoch and sequence of the last change |
//! | 32 | 16 | customer hash |
//! | 48 | 16 | fingerprint |
//! | 64 | 3n | items: ordinal of the ticket type (1), quantity (2) |
//! | 64 + 3n | 2 + length | payment reference; empty for none |
//! | | | tail: caller (1 + length), key (1 + length), customer (2 + length), currency (3), then for each item its ticket type (16) and unit price (8) |

use chrono::{DateTime, Utc};

use crate::DecodeError;
use crate::bytes::Reader;
use crate::fingerprint::{CustomerHash, Fingerprint};
use crate::ids::TicketTypeId;
use crate::money::Currency;
use crate::position::Position;
use crate::status::BookingStatus;
use crate::text::{Caller, Customer, IdempotencyKey, PaymentReference};
use crate::time;

const VERSION: u8 = 1;

/// Where an image says how many items it has.
pub(crate) const ITEMS_COUNTED_AT: usize = 3;

/// Of the image of an ordinary booking, or more; others take another piece of memory.
const ORDINARY_BYTES: usize = 256;

/// A booking in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BookingImage {
    /// The state after the last decision.
    pub status: BookingStatus,
    /// `held` or `confirmed`: what the first response said.
    pub first_status: BookingStatus,
    /// When it was decided, by Redis' clock.
    pub created_at: DateTime<Utc>,
    /// When its hold runs out, or ran out; none where it was never held.
    pub hold_expires_at: Option<DateTime<Utc>>,
    /// Its last change.
    pub position: Position,
    /// Names its customer's allowance.
    pub customer_hash: CustomerHash,
    /// Of the request that made it.
    pub fingerprint: Fingerprint,
    /// The payment that confirmed it, where one was named.
    pub payment_reference: Option<PaymentReference>,
    /// Whose idempotency key it was.
    pub caller: Caller,
    /// The key.
    pub idempotency_key: IdempotencyKey,
    /// Who buys.
    pub customer: Customer,
    /// Of all prices.
    pub currency: Currency,
    /// What was bought, in the order of the request.
    pub items: Vec<ImageItem>,
}

/// One item of a booking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageItem {
    /// The ticket type's place in its event, from 0.
    pub ordinal: u8,
    /// How many tickets, 1 to 1,000.
    pub quantity: u16,
    /// The ticket type.
    pub ticket_type_id: TicketTypeId,
    /// What one ticket cost when it was booked, in minor units.
    pub unit_price: u64,
}

impl BookingImage {
    /// Refuses what has the form of a booking and is none that a script wrote: it could not be added up, or not be put
    /// into Redis again.
    ///
    /// # Errors
    /// More than 255 items, a caller of more than 255 bytes, a price of all items that PostgreSQL has no room for, or a
    /// time that is not one of whole milliseconds since 1970.
    pub(crate) fn bounded(self) -> Result<Self, DecodeError> {
        let bad = |why: &str| Err(DecodeError::new("booking", why));
        if self.items.len() > usize::from(u8::MAX) {
            return bad("has more than 255 items");
        }
        if self.caller.as_str().len() > usize::from(u8::MAX) {
            return bad("has a caller of more than 255 bytes");
        }
        let prices = self.items.iter().map(|item| u128::from(item.quantity) * u128::from(item.unit_price));
        if i64::try_from(prices.sum::<u128>()).is_err() {
            return bad("costs more than 2^63 - 1 minor units");
        }
        // An image says by the beginning of 1970 that there is no hold.
        let is_hold = |at: DateTime<Utc>| time::is_kept(at) && at.timestamp_millis() > 0;
        if !time::is_kept(self.created_at) || !self.hold_expires_at.is_none_or(is_hold) {
            return bad("has a time that is no whole millisecond since 1970");
        }
        Ok(self)
    }

    /// The price of all items, in minor units.
    pub fn total(&self) -> u64 {
        self.items.iter().map(|item| u64::from(item.quantity) * item.unit_price).sum()
    }

    /// The expiry that a reader is shown: only of what is held or expired.
    pub fn shown_expiry(&self, status: BookingStatus) -> Option<DateTime<Utc>> {
        matches!(status, BookingStatus::Held | BookingStatus::Expired)
            .then_some(self.hold_expires_at)
            .flatten()
    }

    /// Writes the image as the scripts write it.
    ///
    /// # Panics
    /// Where a caller has more than 255 bytes, or a booking more than 255 items: neither gets into any store.
    pub fn encode(&self) -> Vec<u8> {
        let payment = self.payment_reference.as_ref().map_or("", PaymentReference::as_str);
        let count = u8::try_from(self.items.len()).expect("a booking has at most 20 items");
        let mut out = Vec::with_capacity(ORDINARY_BYTES);
        out.extend_from_slice(&[VERSION, self.status.code(), self.first_status.code(), count]);
        out.extend_from_slice(&time::to_millis(self.created_at).to_be_bytes());
        out.extend_from_slice(&self.hold_expires_at.map_or(0, time::to_millis).to_be_bytes());
        out.extend_from_slice(&self.position.epoch.to_be_bytes());
        out.extend_from_slice(&self.position.sequence.to_be_bytes());
        let tail =
            encode_tail(&self.caller, &self.idempotency_key, &self.customer, self.currency, &self.items);
        encode_behind_header(&mut out, self.customer_hash, self.fingerprint, &self.items, payment, &tail);
        out
    }

    /// Reads an image.
    ///
    /// # Errors
    /// Where it is not one that [`crate::scripts`] write.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut read = Reader::new("booking image", bytes);
        let version = read.u8()?;
        if version != VERSION {
            return Err(read.error(format!("unknown version {version}")));
        }
        let status = BookingStatus::from_code(read.u8()?)?;
        let first_status = BookingStatus::from_code(read.u8()?)?;
        let count = usize::from(read.u8()?);
        let created_at = time::from_millis(read.u64()?)?;
        let hold_expires_at = match read.u64()? {
            0 => None,
            millis => Some(time::from_millis(millis)?),
        };
        let position = Position { epoch: read.u32()?, sequence: read.u64()? };
        let customer_hash = CustomerHash::from_bytes(read.array()?);
        let fingerprint = Fingerprint::from_bytes(read.array()?);
        let mut taken = Vec::with_capacity(count);
        for _ in 0..count {
            taken.push((read.u8()?, read.u16()?));
        }
        let payment_length = usize::from(read.u16()?);
        let payment_reference = match read.utf8(payment_length)? {
            "" => None,
            text => {
                Some(text.to_owned().try_into().map_err(|e| read.error(format!("payment reference {e}")))?)
            }
        };
        let tail = Tail::decode(&mut read, count)?;
        if !read.is_empty() {
            return Err(read.error("has bytes after its end"));
        }
        let items =
            taken.into_iter().zip(tail.prices).map(|((ordinal, quantity), (ticket_type_id, unit_price))| {
                ImageItem { ordinal, quantity, ticket_type_id, unit_price }
            });
        let image = Self {
            status,
            first_status,
            created_at,
            hold_expires_at,
            position,
            customer_hash,
            fingerprint,
            payment_reference,
            caller: tail.caller,
            idempotency_key: tail.idempotency_key,
            customer: tail.customer,
            currency: tail.currency,
            items: items.collect(),
        };
        image.bounded()
    }
}

/// The part of an image that no script looks into.
struct Tail {
    caller: Caller,
    idempotency_key: IdempotencyKey,
    customer: Customer,
    currency: Currency,
    prices: Vec<(TicketTypeId, u64)>,
}

impl Tail {
    fn decode(read: &mut Reader<'_>, count: usize) -> Result<Self, DecodeError> {
        let length = usize::from(read.u8()?);
        let caller = Caller::from_stored(read.utf8(length)?.to_owned());
        let length = usize::from(read.u8()?);
        let key = read.take(length)?;
        let idempotency_key =
            IdempotencyKey::parse(key).map_err(|e| read.error(format!("idempotency key {e}")))?;
        let length = usize::from(read.u16()?);
        let customer = read.utf8(length)?.to_owned();
        let customer = customer.try_into().map_err(|e| read.error(format!("customer {e}")))?;
        let code = read.utf8(3)?;
        let currency = Currency::parse(code).map_err(|e| read.error(format!("currency {e}")))?;
        let mut prices = Vec::with_capacity(count);
        for _ in 0..count {
            prices.push((TicketTypeId::from_bytes(read.array()?), read.u64()?));
        }
        Ok(Self { caller, idempotency_key, customer, currency, prices })
    }
}

/// Writes what an image has behind its header.
pub(crate) fn encode_behind_header(
    out: &mut Vec<u8>,
    customer_hash: CustomerHash,
    fingerprint: Fingerprint,
    items: &[ImageItem],
    payment: &str,
    tail: &[u8],
) {
    let payment_length = u16::try_from(payment.len()).expect("a payment reference has at most 1,020 bytes");
    out.extend_from_slice(customer_hash.as_bytes());
    out.extend_from_slice(fingerprint.as_bytes());
    for item in items {
        out.push(item.ordinal);
        out.extend_from_slice(&item.quantity.to_be_bytes());
    }
    out.extend_from_slice(&payment_length.to_be_bytes());
    out.extend_from_slice(payment.as_bytes());
    out.extend_from_slice(tail);
}

/// Writes the tail of an image; the caller's and the key's bounds make their lengths fit a byte.
pub(crate) fn encode_tail(
    caller: &Caller,
    key: &IdempotencyKey,
    customer: &Customer,
    currency: Currency,
    items: &[ImageItem],
) -> Vec<u8> {
    fn length_u8(text: &str) -> u8 {
        u8::try_from(text.len()).expect("callers and keys have at most 255 bytes")
    }
    let (caller, key, customer) = (caller.as_str(), key.as_str(), customer.as_str());
    let customer_length = u16::try_from(customer.len()).expect("a customer has at most 1,020 bytes");
    let mut out = Vec::with_capacity(7 + caller.len() + key.len() + customer.len() + 24 * items.len());
    out.push(length_u8(caller));
    out.extend_from_slice(caller.as_bytes());
    out.push(length_u8(key));
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(&customer_length.to_be_bytes());
    out.extend_from_slice(customer.as_bytes());
    out.extend_from_slice(currency.as_str().as_bytes());
    for item in items {
        out.extend_from_slice(item.ticket_type_id.as_bytes());
        out.extend_from_slice(&item.unit_price.to_be_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> BookingImage {
        let customer = Customer::try_from("Anne Müller".to_owned()).unwrap();
        BookingImage {
            status: BookingStatus::Expired,
            first_status: BookingStatus::Held,
            created_at: time::from_millis(1_700_000_000_123).unwrap(),
            hold_expires_at: Some(time::from_millis(1_700_000_600_123).unwrap()),
            position: Position { epoch: 3, sequence: 1 << 40 },
            customer_hash: CustomerHash::of(&customer),
            fingerprint: Fingerprint::from_bytes([7; 16]),
            payment_reference: None,
            caller: Caller::anonymous(),
            idempotency_key: IdempotencyKey::parse(&[b'k'; 255]).unwrap(),
            customer,
            currency: Currency::parse("EUR").unwrap(),
            items: (0..20)
                .map(|ordinal| ImageItem {
                    ordinal,
                    quantity: 1_000,
                    ticket_type_id: TicketTypeId::from_bytes([ordinal; 16]),
                    unit_price: 1_000_000_000_000,
                })
                .collect(),
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let never_held = BookingImage {
            status: BookingStatus::Confirmed,
            first_status: BookingStatus::Confirmed,
            hold_expires_at: None,
            payment_reference: Some("ü".repeat(255).try_into().unwrap()),
            ..image()
        };
        for image in [image(), never_held] {
            let bytes = image.encode();
            assert_eq!(BookingImage::decode(&bytes), Ok(image));
            assert!(BookingImage::decode(&bytes[..bytes.len() - 1]).is_err());
        }
    }

    #[test]
    fn a_time_that_redis_cannot_keep_is_none_of_a_booking() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        // A leap second is the same millisecond as one of the next second.
        let bad =
            ["1969-12-31T23:59:59.999Z", "2025-11-21T10:00:00.1235Z", "2025-11-21T10:00:60.123Z"].map(at);
        for time in bad {
            assert!(BookingImage { created_at: time, ..image() }.bounded().is_err(), "created at {time}");
            let held = BookingImage { hold_expires_at: Some(time), ..image() };
            assert!(held.bounded().is_err(), "held until {time}");
        }
        assert!(image().bounded().is_ok());
    }
}
