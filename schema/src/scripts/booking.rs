//! `book.lua`, `confirm.lua`, `cancel.lua` and `expire.lua`: batches of decisions about bookings of one shard.

use std::collections::HashMap;

use crate::DecodeError;
use crate::fingerprint::{CustomerHash, Fingerprint, IdempotencyField};
use crate::ids::{BookingId, EventId};
use crate::image::{BookingImage, ImageItem, encode_behind_header, encode_tail};
use crate::keys::Keys;
use crate::money::Currency;
use crate::shard::Shard;
use crate::slot;
use crate::text::{Caller, Customer, IdempotencyKey, PaymentReference};

use super::rate::PackedRates;
use super::{
    BOOK, BOOK_LIMITED, CANCEL, CONFIRM, Call, DUE, EXPIRE, READ_BOOKING, RateCheck, Script, Standing,
    decimal, parse_standings,
};

/// The most requests of one call: it bounds how long one script keeps Redis from everybody else.
pub const BATCH_MAX: usize = 128;

/// How much may wait in a shard's outbox; past any of these bounds new bookings are refused.
#[derive(Clone, Copy, Debug)]
pub struct OutboxBounds {
    /// Entries of the stream.
    pub frames: u64,
    /// Bytes of all frames.
    pub bytes: u64,
    /// Milliseconds since the oldest frame was decided.
    pub age_ms: u64,
}

impl OutboxBounds {
    /// Whatever waits is at a bound: nothing new is decided, and replays and refusals are answered.
    pub const REACHED: Self = Self { frames: 0, bytes: 0, age_ms: 0 };
}

/// Which booking a request is about, and where it lies.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its event.
    pub event_id: EventId,
    /// The booking, or the id that a new one gets.
    pub booking_id: BookingId,
    /// The slots of the event.
    pub slots: u32,
}

/// The member of the expiry set that stands for a hold.
pub fn expiry_member(event: EventId, booking: BookingId) -> Vec<u8> {
    [event.as_bytes().as_slice(), booking.as_bytes()].concat()
}

/// Reads what [`expiry_member`] wrote.
///
/// # Errors
/// Where it does not have 32 bytes.
pub fn parse_expiry_member(member: &[u8]) -> Result<(EventId, BookingId), DecodeError> {
    let mut read = crate::bytes::Reader::new("expiry member", member);
    let ids = (EventId::from_bytes(read.array()?), BookingId::from_bytes(read.array()?));
    if read.is_empty() { Ok(ids) } else { Err(read.error("has more than 32 bytes")) }
}

/// A request that is decided in batches.
pub trait Decision {
    /// Whether it makes what was not there before.
    const ADDS: bool = false;

    /// The script that decides it.
    fn script() -> &'static Script;

    /// Which booking it is about.
    fn target(&self) -> &Target;

    /// Its own part of the packed request, after the subject, where it has any.
    fn pack(&self, _out: &mut Vec<u8>) {}

    /// The rate limits that are decided with it.
    fn rates(&self) -> &[RateCheck] {
        &[]
    }
}

/// A booking to be made.
pub struct Book {
    target: Target,
    hold_ms: u64,
    items: Vec<ImageItem>,
    customer_hash: CustomerHash,
    fingerprint: Fingerprint,
    tail: Vec<u8>,
    rates: Vec<RateCheck>,
}

impl Book {
    /// `hold_ms` is 0 for a booking that is confirmed at once; `items` are 1 to 20 of ticket types of the event,
    /// each type at most once.
    #[expect(
        clippy::too_many_arguments,
        reason = "a booking has that many independent parts, each of its own type"
    )]
    pub fn new(
        event_id: EventId,
        slots: u32,
        caller: &Caller,
        key: &IdempotencyKey,
        customer: &Customer,
        currency: Currency,
        hold_ms: u64,
        items: Vec<ImageItem>,
    ) -> Self {
        let idempotency = IdempotencyField::of(caller, event_id, key);
        let asked = items.iter().map(|item| (item.ticket_type_id, item.quantity));
        Self {
            target: Target { event_id, booking_id: BookingId::new(idempotency), slots },
            hold_ms,
            customer_hash: CustomerHash::of(customer),
            fingerprint: Fingerprint::of(customer, asked, hold_ms > 0),
            tail: encode_tail(caller, key, customer, currency, &items),
            items,
            rates: Vec::new(),
        }
    }

    /// What it asks for.
    pub fn items(&self) -> &[ImageItem] {
        &self.items
    }

    /// Of what it asks for.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The same, decided together with at most [`super::RATES_MAX`] rate limits.
    #[must_use]
    pub fn limited_by(self, rates: Vec<RateCheck>) -> Self {
        Self { rates, ..self }
    }
}

impl Decision for Book {
    const ADDS: bool = true;

    fn script() -> &'static Script {
        &BOOK
    }

    fn target(&self) -> &Target {
        &self.target
    }

    fn pack(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.hold_ms.to_be_bytes());
        out.push(u8::try_from(self.items.len()).expect("a booking has at most 20 items"));
        let unpaid = "";
        encode_behind_header(out, self.customer_hash, self.fingerprint, &self.items, unpaid, &self.tail);
    }

    fn rates(&self) -> &[RateCheck] {
        &self.rates
    }
}

/// A hold to be confirmed.
pub struct Confirm {
    /// The hold.
    pub target: Target,
    /// What the payment provider calls the payment.
    pub payment_reference: PaymentReference,
}

impl Decision for Confirm {
    fn script() -> &'static Script {
        &CONFIRM
    }

    fn target(&self) -> &Target {
        &self.target
    }

    fn pack(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.payment_reference.as_str().as_bytes());
    }
}

/// A booking to be cancelled.
pub struct Cancel {
    /// The booking.
    pub target: Target,
}

impl Decision for Cancel {
    fn script() -> &'static Script {
        &CANCEL
    }

    fn target(&self) -> &Target {
        &self.target
    }
}

/// A hold to be expired if it is due.
pub struct Expire {
    /// The hold.
    pub target: Target,
}

impl Decision for Expire {
    fn script() -> &'static Script {
        &EXPIRE
    }

    fn target(&self) -> &Target {
        &self.target
    }
}

/// Reads a booking's image; replies none where there is no such booking, and UNVERIFIED where the shard is not
/// certified, or has lost the booking's slot or the key that tells.
pub fn read_booking(keys: &Keys, shard: Shard, target: Target) -> Call {
    let Target { event_id, booking_id, slots } = target;
    Call {
        script: &READ_BOOKING,
        keys: vec![
            keys.shard(shard),
            keys.certificate(shard),
            keys.slot_of(shard, event_id, booking_id, slots),
            keys.customers(shard, event_id),
            keys.event(shard, event_id),
        ],
        args: vec![booking_id.as_bytes().to_vec()],
    }
}

/// Finds at most [`BATCH_MAX`] holds that are due, behind the first `passed_over`; replies the members that
/// [`parse_expiry_member`] reads. A shard whose expiry set is lost replies UNVERIFIED, and is closed.
pub fn due(keys: &Keys, shard: Shard, passed_over: usize) -> Call {
    Call {
        script: &DUE,
        keys: vec![keys.shard(shard), keys.certificate(shard), keys.expiry(shard)],
        args: vec![decimal(passed_over), decimal(BATCH_MAX)],
    }
}

/// The call that decides a batch of at most [`BATCH_MAX`] requests of one shard, in order. Where a request of the batch
/// is subject to rate limits, another script decides them with it; [`Decided::parse`] reads the replies of either.
pub fn decision_call<'a, D: Decision + 'a>(
    keys: &Keys,
    shard: Shard,
    bounds: OutboxBounds,
    batch: impl IntoIterator<Item = &'a D>,
) -> Call {
    let mut call = open_call(D::script(), keys, shard, bounds);
    let count_at = call.args.len();
    call.args.push(Vec::new());
    let mut rates = PackedRates::default();
    let mut places = Places { keys, shard, events: HashMap::new(), slots: HashMap::new() };
    for request in batch {
        rates.add(request.rates());
        let target = request.target();
        let mut packed = Vec::with_capacity(REQUEST_BYTES);
        packed.extend_from_slice(&places.event(target, &mut call.keys).to_be_bytes());
        packed.extend_from_slice(&places.slot(target, &mut call.keys).to_be_bytes());
        packed.extend_from_slice(target.event_id.as_bytes());
        packed.extend_from_slice(target.booking_id.as_bytes());
        request.pack(&mut packed);
        call.args.push(packed);
    }
    call.args[count_at] = decimal(call.args.len() - count_at - 1);
    let (rate_keys, packed) = rates.finish();
    if !rate_keys.is_empty() {
        call.script = &BOOK_LIMITED;
        call.args.extend([packed, decimal(rate_keys.len())]);
        call.keys.extend(rate_keys);
    }
    call
}

/// Of an ordinary booking; others take another piece of memory.
const REQUEST_BYTES: usize = 192;

/// Which key of a call is which event's and which slot's: each is named once, and by its place in every request.
struct Places<'a> {
    keys: &'a Keys,
    shard: Shard,
    events: HashMap<EventId, u16>,
    slots: HashMap<(EventId, u32), u16>,
}

impl Places<'_> {
    /// The event's hash; its customers' is the next one.
    fn event(&mut self, target: &Target, into: &mut Vec<String>) -> u16 {
        *self.events.entry(target.event_id).or_insert_with(|| {
            let place = next_place(into);
            into.push(self.keys.event(self.shard, target.event_id));
            into.push(self.keys.customers(self.shard, target.event_id));
            place
        })
    }

    fn slot(&mut self, target: &Target, into: &mut Vec<String>) -> u16 {
        let slot = target.booking_id.slot(target.slots);
        *self.slots.entry((target.event_id, slot)).or_insert_with(|| {
            let place = next_place(into);
            into.push(self.keys.slot(self.shard, target.event_id, slot));
            place
        })
    }
}

/// Of the next key, counted from 1 as Lua does.
fn next_place(keys: &[String]) -> u16 {
    u16::try_from(keys.len() + 1).expect("a batch of 128 requests has at most 388 keys")
}

/// What every deciding script has in front: the shard's four keys and the bounds of its outbox.
pub(super) fn open_call(script: &'static Script, keys: &Keys, shard: Shard, bounds: OutboxBounds) -> Call {
    Call {
        script,
        keys: vec![keys.shard(shard), keys.certificate(shard), keys.outbox(shard), keys.expiry(shard)],
        args: vec![decimal(bounds.frames), decimal(bounds.bytes), decimal(bounds.age_ms)],
    }
}

/// What became of one request, and how it stands with its rate limits: in their order, or empty where it was not counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// What became of it.
    pub outcome: Outcome,
    /// How its subjects stand.
    pub standings: Vec<Standing>,
}

impl Decided {
    /// Reads one string of the reply to a call.
    ///
    /// # Errors
    /// Where the scripts never answer so.
    pub fn parse(call: &Call, reply: &[u8]) -> Result<Self, DecodeError> {
        if !std::ptr::eq(call.script, &*BOOK_LIMITED) {
            return Ok(Self { outcome: Outcome::parse(reply)?, standings: Vec::new() });
        }
        let (standings, rest) = parse_standings(reply)?;
        Ok(Self { outcome: Outcome::parse(rest)?, standings })
    }
}

/// What became of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The decision was made: the booking as it is now.
    Changed(BookingImage),
    /// The key made this booking before: its id, and the booking as it is.
    Replayed(BookingId, BookingImage),
    /// There was nothing to do: the booking as it is.
    Unchanged(BookingImage),
    /// The key was used with another body.
    KeyReused,
    /// Paused, closed, or outside the sale window.
    NotOnSale,
    /// The customer would have more than a limit allows.
    LimitExceeded,
    /// Not enough left.
    SoldOut,
    /// The booking to be confirmed was cancelled.
    AlreadyCancelled(BookingImage),
    /// The hold ran out, and its tickets cannot be taken again.
    HoldExpired(BookingImage),
    /// Redis has no such booking.
    Missing,
    /// Too much waits for Kafka.
    OutboxFull,
    /// Redis has nothing of the event, or what lies in the booking's place cannot be read. Where it has a part of the event, the
    /// whole call is refused with UNVERIFIED.
    Unverified,
    /// Too often; nothing was decided.
    RateLimited,
}

impl Outcome {
    /// Reads one string of a script's reply.
    ///
    /// # Errors
    /// Where the scripts never answer so.
    pub fn parse(reply: &[u8]) -> Result<Self, DecodeError> {
        let (letter, rest) =
            reply.split_first().ok_or_else(|| DecodeError::new("script reply", "is an empty string"))?;
        let image = || BookingImage::decode(rest);
        Ok(match letter {
            b'B' | b'C' => Self::Changed(image()?),
            b'R' => {
                let mut read = crate::bytes::Reader::new("script reply", rest);
                let field = IdempotencyField::from_bytes(read.array()?);
                let (id, image) = slot::decode(field, read.rest())?;
                Self::Replayed(id, image)
            }
            b'P' => Self::Unchanged(image()?),
            b'F' => Self::KeyReused,
            b'N' => Self::NotOnSale,
            b'L' => Self::LimitExceeded,
            b'S' => Self::SoldOut,
            b'X' => Self::AlreadyCancelled(image()?),
            b'E' => Self::HoldExpired(image()?),
            b'M' => Self::Missing,
            b'O' => Self::OutboxFull,
            b'U' => Self::Unverified,
            b'T' => Self::RateLimited,
            other => return Err(DecodeError::new("script reply", format!("unknown outcome {other:#04x}"))),
        })
    }

    /// For metrics: one word.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Changed(_) => "changed",
            Self::Replayed(..) => "replayed",
            Self::Unchanged(_) => "unchanged",
            Self::KeyReused => "key_reused",
            Self::NotOnSale => "not_on_sale",
            Self::LimitExceeded => "limit_exceeded",
            Self::SoldOut => "sold_out",
            Self::AlreadyCancelled(_) => "already_cancelled",
            Self::HoldExpired(_) => "hold_expired",
            Self::Missing => "missing",
            Self::OutboxFull => "outbox_full",
            Self::Unverified => "unverified",
            Self::RateLimited => "rate_limited",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn booking(event: u8, customer: &str) -> Book {
        let key = IdempotencyKey::parse(customer.as_bytes()).unwrap();
        let item = ImageItem {
            ordinal: 0,
            quantity: 1,
            ticket_type_id: crate::ids::TicketTypeId::from_bytes([9; 16]),
            unit_price: 4_500,
        };
        let event = EventId::from_bytes([event; 16]);
        let customer = Customer::try_from(customer.to_owned()).unwrap();
        let currency = Currency::parse("EUR").unwrap();
        Book::new(event, 4, &Caller::anonymous(), &key, &customer, currency, 0, vec![item])
    }

    #[test]
    fn a_call_names_each_key_once_and_each_request_finds_its_own() {
        let keys = Keys::new("bo:");
        let shard = Shard::from_number(3);
        let bounds = OutboxBounds { frames: 1, bytes: 1, age_ms: 1 };
        let batch: Vec<Book> = (0..128_u8).map(|n| booking(n % 3, &format!("c{n}"))).collect();
        let call = decision_call(&keys, shard, bounds, &batch);
        assert_eq!(call.keys.iter().collect::<HashSet<_>>().len(), call.keys.len());
        assert_eq!(call.keys.len(), 4 + 3 * (2 + 4), "events, customers, and all slots of each event");
        assert_eq!(call.args[3], b"128");
        for (request, book) in call.args[4..].iter().zip(&batch) {
            // Lua counts from 1.
            let place = |at: usize| usize::from(u16::from_be_bytes([request[at], request[at + 1]])) - 1;
            let Target { event_id, booking_id, slots } = book.target;
            assert_eq!(call.keys[place(0)], keys.event(shard, event_id));
            assert_eq!(call.keys[place(0) + 1], keys.customers(shard, event_id));
            assert_eq!(call.keys[place(2)], keys.slot_of(shard, event_id, booking_id, slots));
            assert_eq!(request[4..20], *event_id.as_bytes());
            assert_eq!(request[20..36], *booking_id.as_bytes());
        }
    }
}
