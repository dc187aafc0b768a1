//! What the scripts do when somebody deleted a key under a valid certificate: whoever misses it closes the shard.

use std::collections::HashMap;

use boxoffice_schema::event::EventImage;
use boxoffice_schema::ids::BookingId;
use boxoffice_schema::position::Position;
use boxoffice_schema::record::Change as RecordChange;
use boxoffice_schema::scripts::{
    self, Book, Cancel, Confirm, Decision, Expire, Fence, Outcome, Restate, Target, error_code,
};
use boxoffice_schema::status::BookingStatus;
use boxoffice_schema::text::PaymentReference;

use crate::fence::{code, dump};
use crate::shard::{START_MS, TestShard, book, event};

/// A command that takes something away, and the key that is lost then.
type Loss = fn(&TestShard, &EventImage) -> (Vec<String>, String);

const LOSSES: [Loss; 4] = [
    |shard, event| delete(shard.keys.event(shard.shard, event.id)),
    |shard, event| delete(shard.keys.customers(shard.shard, event.id)),
    |shard, event| delete_field(shard.keys.event(shard.shard, event.id), "held0"),
    |shard, event| delete_field(shard.keys.event(shard.shard, event.id), "status"),
];

fn delete(key: String) -> (Vec<String>, String) {
    (vec!["DEL".into(), key.clone()], key)
}

fn delete_field(key: String, field: &str) -> (Vec<String>, String) {
    (vec!["HDEL".into(), key.clone(), field.into()], key)
}

impl TestShard {
    fn lose(&mut self, words: &[String]) {
        let lost: i64 = redis::cmd(&words[0]).arg(&words[1..]).query(&mut self.redis).unwrap();
        assert_eq!(lost, 1, "{words:?}");
    }

    /// What is refused closes the shard for everybody, and tells recovery which key is missing.
    fn is_closed_by<D: Decision>(&mut self, request: D, key: &str) {
        let sequence = self.shard_field("seq");
        let error = self.decide(&[request]).unwrap_err();
        assert_eq!(code(&error), error_code::UNVERIFIED, "{error}");
        assert!(error.to_string().contains(key), "{error}");
        self.is_closed(key);
        assert_eq!(self.shard_field("seq"), sequence);
    }

    fn is_closed(&mut self, key: &str) {
        assert_eq!(self.lost().as_deref(), Some(key));
        let certificate = self.keys.certificate(self.shard);
        let exists: bool = redis::cmd("EXISTS").arg(certificate).query(&mut self.redis).unwrap();
        assert!(!exists, "the shard still has its certificate");
    }

    /// The key that was found to be missing.
    pub fn lost(&mut self) -> Option<String> {
        let key = self.keys.shard(self.shard);
        redis::cmd("HGET").arg(key).arg("lost").query(&mut self.redis).unwrap()
    }

    fn slot_key(&self, target: &Target) -> String {
        self.keys.slot_of(self.shard, target.event_id, target.booking_id, target.slots)
    }

    fn restore(&mut self, fence: Fence<'_>, event: &EventImage) {
        let call = scripts::restore_event(&self.keys, self.shard, fence, event);
        self.run::<i64>(&call).unwrap();
    }
}

#[test]
fn a_lost_key_of_the_inventory_closes_the_shard_and_is_never_read_as_zero() {
    for lose in LOSSES {
        let mut shard = TestShard::certified();
        let event = event(&[10]);
        shard.publish(&event);
        let (words, key) = lose(&shard, &event);
        shard.lose(&words);
        shard.is_closed_by(book(&event, "k", "ann", 0, &[(0, 1)]), &key);
    }
}

#[test]
fn a_booking_whose_inventory_is_lost_is_neither_confirmed_nor_cancelled_nor_expired() {
    for lose in LOSSES {
        let (mut shard, event, target) = shard_with_a_hold();
        let (words, key) = lose(&shard, &event);
        shard.lose(&words);
        let certificate = shard.keys.certificate(shard.shard);
        let valid: String = redis::cmd("GET").arg(&certificate).query(&mut shard.redis).unwrap();
        let payment_reference = PaymentReference::try_from("pay-1".to_owned()).unwrap();
        shard.is_closed_by(Confirm { target, payment_reference }, &key);
        redis::cmd("SET").arg(&certificate).arg(&valid).query::<()>(&mut shard.redis).unwrap();
        shard.is_closed_by(Cancel { target }, &key);
        redis::cmd("SET").arg(&certificate).arg(&valid).query::<()>(&mut shard.redis).unwrap();
        shard.set_clock(START_MS + 1_001);
        shard.is_closed_by(Expire { target }, &key);
    }
}

#[test]
fn half_an_event_is_not_published_again() {
    for lose in &LOSSES[..2] {
        let mut shard = TestShard::certified();
        let event = event(&[10]);
        shard.publish(&event);
        let (words, key) = lose(&shard, &event);
        shard.lose(&words);
        let call = scripts::publish(&shard.keys, shard.shard, shard.bounds, &event);
        let error = shard.run::<redis::Value>(&call).unwrap_err();
        assert_eq!(code(&error), error_code::UNVERIFIED);
        shard.is_closed(&key);
    }
}

/// One that is long over is not restored: asking for it must not close the shard again and again.
#[test]
fn an_event_of_which_redis_has_nothing_closes_nothing() {
    let mut shard = TestShard::certified();
    let (known, unknown) = (event(&[10]), event(&[10]));
    shard.publish(&known);
    let request = book(&unknown, "k", "ann", 0, &[(0, 1)]);
    let target = *request.target();
    assert_eq!(shard.decide(&[request]).unwrap(), [Outcome::Unverified]);
    assert_eq!(shard.decide(&[Cancel { target }]).unwrap(), [Outcome::Missing]);
    assert_eq!(shard.decide(&[Expire { target }]).unwrap(), [Outcome::Missing]);
    // A ticket type that the event never had is not a lost one.
    assert_eq!(
        shard.decide(&[odd_book(&known, 1), odd_book(&unknown, 0)]).unwrap(),
        [Outcome::Unverified, Outcome::Unverified]
    );
    let sold = shard.decide(&[book(&known, "k", "ann", 0, &[(0, 1)])]).unwrap();
    assert!(matches!(sold[..], [Outcome::Changed(_)]));
}

/// The event's hash says how many slots there are. Whoever expires its holds and has not seen it cannot know.
#[test]
fn a_hold_whose_event_has_lost_its_hash_closes_the_shard_whichever_slot_is_named() {
    let (mut shard, event, target) = shard_with_a_hold();
    shard.set_clock(START_MS + 1_001);
    let anywhere: Vec<Expire> = [1, 2, 64].map(|slots| Expire { target: Target { slots, ..target } }).into();
    let certificate = shard.keys.certificate(shard.shard);
    let valid: String = redis::cmd("GET").arg(&certificate).query(&mut shard.redis).unwrap();
    let (words, key) = delete(shard.keys.event(shard.shard, event.id));
    shard.lose(&words);
    for expire in &anywhere {
        shard.is_closed_by(Expire { target: expire.target }, &key);
        redis::cmd("SET").arg(&certificate).arg(&valid).query::<()>(&mut shard.redis).unwrap();
    }
    shard.lose(&delete(shard.keys.customers(shard.shard, event.id)).0);
    shard.lose(&delete(shard.slot_key(&target)).0);
    assert!(shard.decide(&anywhere).unwrap().iter().all(|outcome| *outcome == Outcome::Missing));
    let exists: bool = redis::cmd("EXISTS").arg(&certificate).query(&mut shard.redis).unwrap();
    assert!(exists, "an event of which nothing is left closed the shard");
}

/// For a ticket type that the event may not have.
fn odd_book(event: &EventImage, ordinal: u8) -> Book {
    let mut wider = event.clone();
    wider.ticket_types.push(wider.ticket_types[0].clone());
    book(&wider, "odd", "ann", 0, &[(ordinal, 1)])
}

/// A shard with a hold of a second.
pub fn shard_with_a_hold() -> (TestShard, EventImage, Target) {
    let mut shard = TestShard::certified();
    let event = event(&[10]);
    shard.publish(&event);
    let request = book(&event, "k", "ann", 1_000, &[(0, 1)]);
    let target = *request.target();
    assert!(matches!(shard.decide(&[request]).unwrap()[..], [Outcome::Changed(_)]));
    (shard, event, target)
}

/// The same, whose slot is lost.
fn shard_without_a_slot() -> (TestShard, EventImage, Target) {
    let (mut shard, event, target) = shard_with_a_hold();
    let key = shard.slot_key(&target);
    shard.lose(&delete(key).0);
    (shard, event, target)
}

#[test]
fn a_retry_whose_slot_is_lost_is_not_sold_again_but_closes_the_shard() {
    let (mut shard, event, target) = shard_without_a_slot();
    let key = shard.slot_key(&target);
    shard.is_closed_by(book(&event, "k", "ann", 1_000, &[(0, 1)]), &key);
}

/// A request for another booking that would lie in the same slot.
fn book_beside(shard: &TestShard, event: &EventImage, target: &Target) -> Book {
    let mut requests = (0..).map(|n| book(event, &format!("new-{n}"), "ann", 0, &[(0, 1)]));
    requests.find(|request| shard.slot_key(request.target()) == shard.slot_key(target)).unwrap()
}

#[test]
fn no_request_decides_or_reveals_anything_in_a_slot_that_is_lost() {
    let (mut shard, event, target) = shard_without_a_slot();
    shard.is_closed_by(book_beside(&shard, &event, &target), &shard.slot_key(&target));

    let (mut shard, _, target) = shard_without_a_slot();
    let read = scripts::read_booking(&shard.keys, shard.shard, target);
    assert_eq!(code(&shard.run::<redis::Value>(&read).unwrap_err()), error_code::UNVERIFIED);
    shard.is_closed_by(Cancel { target }, &shard.slot_key(&target));

    let (mut shard, _, target) = shard_without_a_slot();
    let payment_reference = PaymentReference::try_from("pay-1".to_owned()).unwrap();
    shard.is_closed_by(Confirm { target, payment_reference }, &shard.slot_key(&target));

    let (mut shard, _, target) = shard_without_a_slot();
    shard.set_clock(START_MS + 1_001);
    shard.is_closed_by(Expire { target }, &shard.slot_key(&target));

    let (mut shard, _, target) = shard_without_a_slot();
    shard.is_closed_by(Restate { target }, &shard.slot_key(&target));
}

/// The customers hash knows which slots were written. Where it is gone too, the event's own hash shows that it was there.
#[test]
fn a_booking_whose_slot_is_lost_with_the_key_that_knows_it_closes_the_shard_and_is_not_missing() {
    let lost = || {
        let (mut shard, event, target) = shard_without_a_slot();
        let customers = shard.keys.customers(shard.shard, event.id);
        shard.lose(&delete(customers.clone()).0);
        shard.set_clock(START_MS + 1_001);
        (shard, event, target, customers)
    };
    let (mut shard, event, _, key) = lost();
    shard.is_closed_by(book(&event, "k", "ann", 1_000, &[(0, 1)]), &key);
    let (mut shard, _, target, key) = lost();
    let payment_reference = PaymentReference::try_from("pay-1".to_owned()).unwrap();
    shard.is_closed_by(Confirm { target, payment_reference }, &key);
    let (mut shard, _, target, key) = lost();
    shard.is_closed_by(Cancel { target }, &key);
    let (mut shard, _, target, key) = lost();
    shard.is_closed_by(Expire { target }, &key);
    let (mut shard, _, target, key) = lost();
    shard.is_closed_by(Restate { target }, &key);

    let (mut shard, event, target, _) = lost();
    let read = scripts::read_booking(&shard.keys, shard.shard, target);
    assert_eq!(code(&shard.run::<redis::Value>(&read).unwrap_err()), error_code::UNVERIFIED);
    // Of an event of which nothing is left nobody knows that it was there.
    shard.lose(&delete(shard.keys.event(shard.shard, event.id)).0);
    assert_eq!(shard.run::<Option<Vec<u8>>>(&read).unwrap(), None);
    assert_eq!(shard.decide(&[Cancel { target }]).unwrap(), [Outcome::Missing]);
    assert_eq!(shard.lost(), None);
}

type KeyOf = fn(&TestShard, &EventImage, &Target) -> String;

/// The keys without which nothing is decided about a booking.
const KEYS: [KeyOf; 3] = [
    |shard, event, _| shard.keys.event(shard.shard, event.id),
    |shard, event, _| shard.keys.customers(shard.shard, event.id),
    |shard, _, target| shard.slot_key(target),
];

/// Somebody wrote something else under their names.
#[test]
fn a_key_of_another_type_is_lost_and_closes_the_shard() {
    for key_of in KEYS {
        let replaced = || {
            let (mut shard, event, target) = shard_with_a_hold();
            let key = key_of(&shard, &event, &target);
            redis::cmd("SET").arg(&key).arg("x").query::<()>(&mut shard.redis).unwrap();
            shard.set_clock(START_MS + 1_001);
            (shard, event, target, key)
        };
        let (mut shard, event, target, key) = replaced();
        let request = book_beside(&shard, &event, &target);
        shard.is_closed_by(request, &key);
        let (mut shard, _, target, key) = replaced();
        let payment_reference = PaymentReference::try_from("pay-1".to_owned()).unwrap();
        shard.is_closed_by(Confirm { target, payment_reference }, &key);
        let (mut shard, _, target, key) = replaced();
        shard.is_closed_by(Expire { target }, &key);
        let (mut shard, _, target, key) = replaced();
        shard.is_closed_by(Restate { target }, &key);
        // The second request of a call looks into what the first has read.
        let (mut shard, _, target, key) = replaced();
        let twice = [Cancel { target }, Cancel { target }];
        assert_eq!(code(&shard.decide(&twice).unwrap_err()), error_code::UNVERIFIED);
        shard.is_closed(&key);
    }
}

#[test]
fn a_counter_that_is_no_number_is_lost_and_closes_the_shard() {
    for field in [Some("types"), Some("cap0"), Some("held0"), Some("sold0"), None] {
        let (mut shard, event, target) = shard_with_a_hold();
        let (key, field) = match field {
            Some(field) => (shard.keys.event(shard.shard, event.id), field.as_bytes().to_vec()),
            None => {
                let customer = shard.customers(event.id).into_keys().find(|field| !field.is_empty());
                (shard.keys.customers(shard.shard, event.id), customer.unwrap())
            }
        };
        let mut write = redis::cmd("HSET");
        write.arg(&key).arg(field.as_slice()).arg("x").query::<i64>(&mut shard.redis).unwrap();
        shard.is_closed_by(Cancel { target }, &key);
    }
}

#[test]
fn a_booking_in_a_slot_of_another_type_is_not_read_as_one_that_never_was() {
    let (mut shard, event, target) = shard_with_a_hold();
    let slot = shard.slot_key(&target);
    redis::cmd("SET").arg(&slot).arg("x").query::<()>(&mut shard.redis).unwrap();
    let read = scripts::read_booking(&shard.keys, shard.shard, target);
    assert_eq!(code(&shard.run::<redis::Value>(&read).unwrap_err()), error_code::UNVERIFIED);
    // What lies under the name of a slot closes nothing once nothing of its event is left: recovery does not look for it then.
    shard.lose(&delete(shard.keys.event(shard.shard, event.id)).0);
    shard.lose(&delete(shard.keys.customers(shard.shard, event.id)).0);
    assert_eq!(shard.run::<Option<Vec<u8>>>(&read).unwrap(), None);
    assert_eq!(shard.decide(&[Cancel { target }]).unwrap(), [Outcome::Missing]);
    assert_eq!(shard.lost(), None);
}

#[test]
fn an_id_with_another_time_is_of_no_booking() {
    let (mut shard, event, held) = shard_with_a_hold();
    let target = Target { booking_id: BookingId::from_parts([0; 6], held.booking_id.field()), ..held };
    shard.set_clock(START_MS + 1_001);
    let before = dump(&mut shard, &event);
    let payment_reference = PaymentReference::try_from("pay-1".to_owned()).unwrap();
    let missing = [
        shard.decide(&[Confirm { target, payment_reference }]),
        shard.decide(&[Cancel { target }]),
        shard.decide(&[Expire { target }]),
        shard.decide(&[Restate { target }]),
    ];
    assert!(missing.into_iter().all(|outcomes| outcomes.unwrap() == [Outcome::Missing]));
    let read = |target| scripts::read_booking(&shard.keys, shard.shard, target);
    let reads = [read(target), read(held)];
    let found: Vec<Option<Vec<u8>>> = reads.iter().map(|read| shard.run(read).unwrap()).collect();
    assert!(matches!(&found[..], [None, Some(_)]));
    assert_eq!(dump(&mut shard, &event), before);
    assert_eq!(shard.booking(&held).unwrap().status, BookingStatus::Held);
    assert_eq!(shard.expiries(), [(event.id, held.booking_id)]);
}

#[test]
fn a_batch_with_a_lost_slot_decides_nothing_at_all() {
    let (mut shard, event, target) = shard_without_a_slot();
    let (other, key) = (self::event(&[10]), shard.slot_key(&target));
    shard.publish(&other);
    let before = dump(&mut shard, &other);
    let batch = [book(&other, "a", "ann", 0, &[(0, 1)]), book(&event, "k", "ann", 1_000, &[(0, 1)])];
    assert_eq!(code(&shard.decide(&batch).unwrap_err()), error_code::UNVERIFIED);
    shard.is_closed(&key);
    assert_eq!(dump(&mut shard, &other)[1..], before[1..]);
}

#[test]
fn a_slot_that_was_never_written_is_not_lost() {
    let mut shard = TestShard::certified();
    let event = event(&[1_000]);
    shard.publish(&event);
    for n in 0..20 {
        let request = book(&event, &format!("k{n}"), "ann", 0, &[(0, 1)]);
        let target = *request.target();
        assert_eq!(shard.decide(&[Cancel { target }]).unwrap(), [Outcome::Missing]);
        let read = scripts::read_booking(&shard.keys, shard.shard, target);
        assert_eq!(shard.run::<Option<Vec<u8>>>(&read).unwrap(), None);
        assert!(matches!(shard.decide(&[request]).unwrap()[..], [Outcome::Changed(_)]));
        assert!(shard.run::<Option<Vec<u8>>>(&read).unwrap().is_some());
    }
}

#[test]
fn a_restored_slot_is_known_when_it_is_lost_again() {
    let (mut shard, event, target) = shard_without_a_slot();
    let (key, request) = (shard.slot_key(&target), book(&event, "k", "ann", 1_000, &[(0, 1)]));
    let image = shard.records().into_iter().find_map(|record| match record.change {
        RecordChange::Booking(change) => Some(change.image),
        _ => None,
    });
    let start = shard.begin_recovery(2).unwrap();
    let fence = start.fence(2);
    shard.restore(fence, &event);
    let mut bookings = [(target.booking_id, image.unwrap())];
    let keys = shard.keys.clone();
    for call in scripts::restore_bookings(&keys, shard.shard, fence, &event, &mut bookings) {
        shard.run::<i64>(&call).unwrap();
    }
    shard.certify(3);
    assert!(matches!(shard.decide(std::slice::from_ref(&request)).unwrap()[..], [Outcome::Replayed(..)]));
    shard.lose(&delete(key.clone()).0);
    shard.is_closed_by(request, &key);
}

#[test]
fn bookings_of_one_slot_are_restored_however_many_they_are_and_however_often_a_customer_came() {
    let mut shard = TestShard::certified();
    let event = EventImage { slots: 1, ..event(&[2_000]) };
    shard.publish(&event);
    for batch in 0..12 {
        let one = |n: usize| book(&event, &format!("{batch}-{n}"), &format!("{}", n % 60), 1_000, &[(0, 1)]);
        shard.decide(&(0..100).map(one).collect::<Vec<_>>()).unwrap();
    }
    let slot = shard.keys.slot(shard.shard, event.id, 0);
    let contents = |shard: &mut TestShard| {
        let fields: HashMap<Vec<u8>, Vec<u8>> =
            redis::cmd("HGETALL").arg(&slot).query(&mut shard.redis).unwrap();
        (fields, shard.customers(event.id), shard.expiries())
    };
    let before = contents(&mut shard);
    let bookings = shard.records().into_iter().filter_map(|record| match record.change {
        RecordChange::Booking(change) => Some((change.id, change.image)),
        _ => None,
    });
    let mut bookings: Vec<_> = bookings.collect();
    let (keys, stored) = (shard.keys.clone(), shard.event(event.id));
    let start = shard.begin_recovery(2).unwrap();
    let fence = start.fence(2);
    let doomed = vec![slot.clone(), keys.customers(shard.shard, event.id), keys.expiry(shard.shard)];
    shard.run::<i64>(&scripts::restore_clear(&keys, shard.shard, fence, doomed)).unwrap();
    shard.restore(fence, &stored);
    for call in scripts::restore_bookings(&keys, shard.shard, fence, &stored, &mut bookings) {
        shard.run::<i64>(&call).unwrap();
    }
    assert_eq!(contents(&mut shard), before);
    assert_eq!((before.0.len(), before.2.len()), (1_200 + 1, 1_200));
}

fn due(shard: &mut TestShard) -> Result<Vec<Vec<u8>>, redis::RedisError> {
    shard.run(&scripts::due(&shard.keys, shard.shard, 0))
}

#[test]
fn holds_are_due_when_their_time_has_come() {
    let mut shard = TestShard::certified();
    let event = event(&[10]);
    shard.publish(&event);
    let requests = [1_000, 2_000].map(|hold| book(&event, &hold.to_string(), "ann", hold, &[(0, 1)]));
    shard.decide(&requests).unwrap();
    shard.set_clock(START_MS + 1_999);
    let found = due(&mut shard).unwrap();
    let target = *requests[0].target();
    assert_eq!(found.len(), 1);
    assert_eq!(scripts::parse_expiry_member(&found[0]).unwrap(), (event.id, target.booking_id));
    shard.decide(&[Expire { target }]).unwrap();
    assert_eq!(due(&mut shard).unwrap(), Vec::<Vec<u8>>::new());
}

#[test]
fn a_lost_expiry_set_closes_the_shard_even_if_another_hold_was_made_since() {
    for is_held_since in [false, true] {
        let mut shard = TestShard::certified();
        let event = event(&[10]);
        shard.publish(&event);
        shard.decide(&[book(&event, "a", "ann", 1_000, &[(0, 1)])]).unwrap();
        let key = shard.keys.expiry(shard.shard);
        shard.lose(&delete(key.clone()).0);
        if is_held_since {
            shard.decide(&[book(&event, "b", "ann", 1_000, &[(0, 1)])]).unwrap();
        }
        assert_eq!(code(&due(&mut shard).unwrap_err()), error_code::UNVERIFIED);
        shard.is_closed(&key);
        assert_eq!(code(&due(&mut shard).unwrap_err()), error_code::UNVERIFIED);
    }
}

/// Somebody wrote something else under its name.
#[test]
fn an_expiry_set_of_another_type_is_lost_and_closes_the_shard() {
    let mut shard = TestShard::certified();
    let key = shard.keys.expiry(shard.shard);
    redis::cmd("SET").arg(&key).arg("x").query::<()>(&mut shard.redis).unwrap();
    assert_eq!(code(&due(&mut shard).unwrap_err()), error_code::UNVERIFIED);
    shard.is_closed(&key);
    // What is in its place is no expiry set for a recovery either.
    shard.certify(2);
    assert_eq!(shard.lost(), Some(key));
    assert_eq!(due(&mut shard).unwrap(), Vec::<Vec<u8>>::new());
}

#[test]
fn an_outbox_of_another_type_is_lost_for_a_recovery() {
    let mut shard = TestShard::certified();
    shard.publish(&event(&[10]));
    let key = shard.keys.outbox(shard.shard);
    redis::cmd("SET").arg(&key).arg("x").query::<()>(&mut shard.redis).unwrap();
    let start = shard.begin_recovery(2).unwrap();
    assert_eq!((start.last, shard.lost()), (Position { epoch: 1, sequence: 1 }, Some(key)));
    assert!(shard.records().is_empty());
}

#[test]
fn a_recovery_finds_by_itself_that_the_expiry_set_is_lost_and_restoring_ends_it() {
    let mut shard = TestShard::certified();
    let event = event(&[10]);
    let key = shard.keys.expiry(shard.shard);
    shard.begin_recovery(2).unwrap();
    assert_eq!(shard.lost(), None);
    shard.certify(3);
    shard.publish(&event);
    shard.decide(&[book(&event, "a", "ann", 1_000, &[(0, 1)])]).unwrap();
    shard.lose(&delete(key.clone()).0);
    let start = shard.begin_recovery(4).unwrap();
    assert_eq!(shard.lost(), Some(key.clone()));
    let last = Position { epoch: 3, sequence: 2 };
    for (is_whole, lost) in [(false, Some(key)), (true, None)] {
        let call = scripts::restore_shard(&shard.keys, shard.shard, start.fence(4), last, START_MS, is_whole);
        shard.run::<i64>(&call).unwrap();
        assert_eq!(shard.lost(), lost);
    }
    shard.certify(5);
    assert!(due(&mut shard).is_ok());
}

#[test]
fn an_expiry_set_from_before_it_had_its_empty_member_is_not_lost_but_gets_it() {
    let mut shard = TestShard::certified();
    let event = event(&[10]);
    shard.publish(&event);
    shard.decide(&[book(&event, "a", "ann", 1_000, &[(0, 1)])]).unwrap();
    let (key, of_shard) = (shard.keys.expiry(shard.shard), shard.keys.shard(shard.shard));
    shard.lose(&["ZREM".to_owned(), key.clone(), String::new()]);
    shard.lose(&delete_field(of_shard, "expiry").0);
    assert!(due(&mut shard).is_ok());
    shard.begin_recovery(2).unwrap();
    assert_eq!((shard.lost(), shard.expiries().len()), (None, 1));
    shard.certify(3);
    shard.lose(&delete(key.clone()).0);
    assert_eq!(code(&due(&mut shard).unwrap_err()), error_code::UNVERIFIED);
    shard.is_closed(&key);
}
