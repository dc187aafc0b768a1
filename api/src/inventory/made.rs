//! The bookings that this instance made or changed last, for those who ask [again](super::replays).

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use boxoffice_schema::fingerprint::{Fingerprint, IdempotencyField};
use boxoffice_schema::ids::{BookingId, EventId};
use boxoffice_schema::image::BookingImage;
use boxoffice_schema::position::Position;
use boxoffice_schema::scripts::{Book, Decision, Target};
use foldhash::HashMap;

/// What is remembered takes so many bytes at most, the last bookings: of seven seconds at 5,000 a second.
const BYTES_MAX: usize = 24 * 1024 * 1024;

/// What a booking takes beside what its first response said: two keys, and the room that a map and a queue leave free.
const BYTES_BESIDE: usize = 210;

type Key = (EventId, IdempotencyField);

/// What is remembered.
#[derive(Default)]
pub(super) struct Made(Mutex<Memory>);

#[derive(Default)]
struct Memory {
    bookings: HashMap<Key, Booking>,
    /// The oldest first. What was forgotten and is remembered again is in it twice, and goes when it would first.
    order: VecDeque<Key>,
    bytes: usize,
}

/// A booking as it was made or changed last.
struct Booking {
    id: BookingId,
    position: Position,
    fingerprint: Fingerprint,
    first: First,
}

/// What the first response said, which never changes.
enum First {
    /// It can be made of this image.
    Image(Box<[u8]>),
    /// Its body.
    Response(Box<[u8]>),
}

/// What a request made before.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Again {
    /// The id that the booking has since.
    pub(crate) booking_id: BookingId,
    /// What the first response said.
    pub(crate) first: FirstResponse,
    /// Where the booking was changed last, as far as this instance knows.
    pub(super) position: Position,
}

/// A first response, as far as it is remembered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FirstResponse {
    /// It is made of this booking.
    Of(Box<BookingImage>),
    /// Its body.
    Body(Vec<u8>),
}

impl Made {
    /// Nothing that panics is done with the memory.
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Redis has changed a booking.
    pub(super) fn remember(&self, target: &Target, image: &BookingImage) {
        let key = key_of(target);
        let booking = Booking {
            id: target.booking_id,
            position: image.position,
            fingerprint: image.fingerprint,
            first: First::Image(image.encode().into_boxed_slice()),
        };
        let memory = &mut *self.memory();
        match memory.bookings.get_mut(&key).filter(|known| known.id == booking.id) {
            // What its first response said is remembered already. A confirmation and a cancellation may come in any order.
            Some(known) => known.position = known.position.max(booking.position),
            None => memory.put(key, booking),
        }
    }

    /// A booking's first response was made. Who asks again gets this one, which is made once.
    pub(super) fn keep_response(&self, target: &Target, body: &[u8]) {
        self.memory().keep(&key_of(target), target.booking_id, First::Response(body.into()));
    }

    /// What the request made before, where that was by the same body.
    pub(super) fn recall(&self, request: &Book) -> Option<Again> {
        let memory = self.memory();
        let booking = memory.bookings.get(&key_of(request.target()))?;
        if booking.fingerprint != request.fingerprint() {
            return None;
        }
        let first = match &booking.first {
            First::Response(body) => FirstResponse::Body(body.to_vec()),
            // It was encoded here.
            First::Image(image) => FirstResponse::Of(Box::new(BookingImage::decode(image).ok()?)),
        };
        Some(Again { booking_id: booking.id, first, position: booking.position })
    }

    /// Forgets what the request made, unless it was in this epoch: whether a recovery found it is Redis' to say.
    pub(super) fn forget_unless(&self, epoch: u32, request: &Book) {
        let key = key_of(request.target());
        let memory = &mut *self.memory();
        if memory.bookings.get(&key).is_some_and(|booking| booking.position.epoch != epoch) {
            memory.forget(&key);
        }
    }
}

impl Memory {
    fn put(&mut self, key: Key, booking: Booking) {
        self.bytes += booking.bytes();
        match self.bookings.insert(key, booking) {
            Some(before) => self.bytes -= before.bytes(),
            None => self.order.push_back(key),
        }
        self.keep_within_bounds();
    }

    /// Nothing where the booking is not remembered any more.
    fn keep(&mut self, key: &Key, id: BookingId, first: First) {
        let Some(booking) = self.bookings.get_mut(key).filter(|booking| booking.id == id) else { return };
        self.bytes -= booking.bytes();
        booking.first = first;
        self.bytes += booking.bytes();
        self.keep_within_bounds();
    }

    fn forget(&mut self, key: &Key) {
        if let Some(booking) = self.bookings.remove(key) {
            self.bytes -= booking.bytes();
        }
    }

    /// The queue is as long as the map but for what was forgotten.
    fn keep_within_bounds(&mut self) {
        while (self.bytes > BYTES_MAX || self.order.len() > BYTES_MAX / BYTES_BESIDE)
            && let Some(oldest) = self.order.pop_front()
        {
            self.forget(&oldest);
        }
    }
}

impl Booking {
    fn bytes(&self) -> usize {
        let (First::Image(first) | First::Response(first)) = &self.first;
        first.len() + BYTES_BESIDE
    }
}

fn key_of(target: &Target) -> Key {
    (target.event_id, target.booking_id.field())
}

#[cfg(test)]
pub(super) mod tests {
    use boxoffice_schema::fingerprint::CustomerHash;
    use boxoffice_schema::ids::TicketTypeId;
    use boxoffice_schema::image::ImageItem;
    use boxoffice_schema::money::Currency;
    use boxoffice_schema::status::BookingStatus;
    use boxoffice_schema::text::{Caller, Customer, IdempotencyKey};
    use boxoffice_schema::time;

    use super::*;

    /// Ann's, of an event with one slot.
    pub(in crate::inventory) fn request(key: &str, quantity: u16) -> Book {
        let id = TicketTypeId::from_bytes([1; 16]);
        let item = ImageItem { ordinal: 0, quantity, ticket_type_id: id, unit_price: 4_500 };
        let key = IdempotencyKey::parse(key.as_bytes()).unwrap();
        let customer = Customer::try_from("ann".to_owned()).unwrap();
        let (event, currency) = (EventId::from_bytes([2; 16]), Currency::parse("EUR").unwrap());
        Book::new(event, 1, &Caller::anonymous(), &key, &customer, currency, 0, vec![item])
    }

    /// What `request(key, 1)` makes.
    fn booking(key: &str, epoch: u32) -> BookingImage {
        let customer = Customer::try_from("ann".to_owned()).unwrap();
        BookingImage {
            status: BookingStatus::Confirmed,
            first_status: BookingStatus::Confirmed,
            created_at: time::from_millis(1_800_000_000_000).unwrap(),
            hold_expires_at: None,
            position: Position { epoch, sequence: 7 },
            customer_hash: CustomerHash::of(&customer),
            fingerprint: request(key, 1).fingerprint(),
            payment_reference: None,
            caller: Caller::anonymous(),
            idempotency_key: IdempotencyKey::parse(key.as_bytes()).unwrap(),
            customer,
            currency: Currency::parse("EUR").unwrap(),
            items: request(key, 1).items().to_vec(),
        }
    }

    fn remember(made: &Made, key: &str, epoch: u32) -> Again {
        let (target, image) = (*request(key, 1).target(), booking(key, epoch));
        made.remember(&target, &image);
        let position = image.position;
        Again { booking_id: target.booking_id, first: FirstResponse::Of(Box::new(image)), position }
    }

    #[test]
    fn what_was_made_by_the_same_body_is_recalled() {
        let made = Made::default();
        let again = remember(&made, "k", 3);
        assert_eq!(made.recall(&request("k", 1)), Some(again));
        assert_eq!(made.recall(&request("k", 2)), None, "another body");
        assert_eq!(made.recall(&request("other", 1)), None, "another key");
    }

    #[test]
    fn a_response_that_was_made_once_is_told_again_whatever_becomes_of_the_booking() {
        let made = Made::default();
        let again = remember(&made, "k", 3);
        let target = Target { booking_id: again.booking_id, ..*request("k", 1).target() };
        made.keep_response(&target, b"{}");
        made.keep_response(request("other", 1).target(), b"of a booking that is not remembered");
        let changed = BookingImage {
            status: BookingStatus::Cancelled,
            position: Position { epoch: 4, sequence: 8 },
            ..booking("k", 3)
        };
        made.remember(&target, &changed);
        let again = Again { first: FirstResponse::Body(b"{}".to_vec()), position: changed.position, ..again };
        assert_eq!(made.recall(&request("k", 1)), Some(again));
    }

    #[test]
    fn a_booking_that_was_made_anew_is_told_by_its_own_response() {
        let made = Made::default();
        let before = *request("k", 1).target();
        made.remember(&before, &booking("k", 3));
        made.keep_response(&before, b"before");
        let [time @ .., _] = before.booking_id.as_bytes().first_chunk::<6>().unwrap();
        let mut bytes = *before.booking_id.as_bytes();
        bytes[..5].copy_from_slice(&time.map(|byte| byte.wrapping_add(1)));
        let anew = Target { booking_id: BookingId::from_bytes(bytes), ..before };
        made.remember(&anew, &booking("k", 4));
        made.keep_response(&before, b"too late");
        let again = made.recall(&request("k", 1)).unwrap();
        assert_eq!(again.booking_id, anew.booking_id);
        assert_eq!(again.first, FirstResponse::Of(Box::new(booking("k", 4))));
    }

    #[test]
    fn what_was_made_in_another_epoch_is_forgotten_and_what_was_made_in_this_one_is_not() {
        let made = Made::default();
        remember(&made, "k", 3);
        made.forget_unless(4, &request("k", 1));
        assert_eq!(made.recall(&request("k", 1)), None);
        let anew = remember(&made, "k", 4);
        made.forget_unless(4, &request("k", 1));
        assert_eq!(made.recall(&request("k", 1)), Some(anew));
    }

    #[test]
    fn no_more_bytes_are_remembered_than_may_be_and_the_oldest_are_forgotten_first() {
        let made = Made::default();
        let key = |n: usize| format!("{n:06}");
        let size = booking(&key(0), 1).encode().len() + BYTES_BESIDE;
        let room = BYTES_MAX / size;
        (0..=room).for_each(|n| drop(remember(&made, &key(n), 1)));
        let has = |n: usize| made.recall(&request(&key(n), 1)).is_some();
        assert!(!has(0) && has(1) && has(room));
        let memory = made.memory();
        assert_eq!((memory.bookings.len(), memory.order.len(), memory.bytes), (room, room, room * size));
    }
}
