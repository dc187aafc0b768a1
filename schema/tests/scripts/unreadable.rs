//! What the scripts do with a booking that none of them wrote: whoever asks for it is told so, and nobody else notices.

use boxoffice_schema::scripts::{Cancel, Confirm, Decision, Expire, Outcome, Restate, Target};
use boxoffice_schema::text::PaymentReference;

use crate::fence::dump;
use crate::lost::shard_with_a_hold;
use crate::shard::{START_MS, TestShard, book, event};

/// What becomes of the value under a booking's field.
type Garble = fn(&mut Vec<u8>);

/// Where the image begins in that value, behind the time of the booking's id.
const IMAGE: usize = 6;

/// Of a booking with one item.
const GARBLES: [Garble; 13] = [
    |value| *value = b"x".to_vec(),
    |value| *value = b"what no script has ever written ".repeat(4),
    // Without an image; and with one that ends in its header, in its item, in the length of the payment reference, and before the tail.
    |value| value.truncate(IMAGE),
    |value| value.truncate(IMAGE + 31),
    |value| value.truncate(IMAGE + 65),
    |value| value.truncate(IMAGE + 68),
    |value| value.truncate(IMAGE + 69),
    // Of another version, in a state that is none, with no item and with too many, and with too long a payment reference.
    |value| value[IMAGE] = 2,
    |value| value[IMAGE + 1] = 0,
    |value| value[IMAGE + 1] = 5,
    |value| value[IMAGE + 3] = 0,
    |value| value[IMAGE + 3] = 255,
    |value| value[IMAGE + 67] = 255,
];

impl TestShard {
    fn garble(&mut self, target: &Target, garble: Garble) {
        let key = self.keys.slot_of(self.shard, target.event_id, target.booking_id, target.slots);
        let field = target.booking_id.field();
        let mut value: Vec<u8> =
            redis::cmd("HGET").arg(&key).arg(field.as_bytes()).query(&mut self.redis).unwrap();
        garble(&mut value);
        let mut write = redis::cmd("HSET");
        write.arg(&key).arg(field.as_bytes()).arg(value.as_slice());
        assert_eq!(write.query::<i64>(&mut self.redis).unwrap(), 0, "there was no such booking");
    }
}

/// Two holds are due, and the first cannot be read.
fn decides_the_other_of_two<D: Decision>(garble: Garble, request: impl Fn(Target) -> D) {
    let (mut shard, broken, unreadable) = shard_with_a_hold();
    let whole = event(&[10]);
    shard.publish(&whole);
    let held = book(&whole, "k", "bob", 1_000, &[(0, 1)]);
    let readable = *held.target();
    shard.decide(&[held]).unwrap();
    shard.garble(&unreadable, garble);
    shard.set_clock(START_MS + 1_001);
    let before = dump(&mut shard, &broken);
    let outcomes = shard.decide(&[request(unreadable), request(readable)]).unwrap();
    assert!(matches!(outcomes[..], [Outcome::Unverified, Outcome::Changed(_)]), "{outcomes:?}");
    assert_eq!(dump(&mut shard, &broken)[2..], before[2..], "the event and its customers");
    assert!(shard.expiries().contains(&(broken.id, unreadable.booking_id)));
    assert_eq!(shard.lost(), None);
}

#[test]
fn a_booking_that_cannot_be_read_is_refused_and_the_others_of_its_batch_are_decided() {
    for garble in GARBLES {
        let payment_reference = PaymentReference::try_from("pay-1".to_owned()).unwrap();
        decides_the_other_of_two(garble, |target| Expire { target });
        decides_the_other_of_two(garble, |target| Cancel { target });
        decides_the_other_of_two(garble, |target| Restate { target });
        decides_the_other_of_two(garble, |target| Confirm {
            target,
            payment_reference: payment_reference.clone(),
        });
    }
}

/// Who is told so makes another key, and books again.
#[test]
fn a_retry_whose_booking_cannot_be_read_is_not_told_that_its_key_was_used_with_another_body() {
    for garble in &GARBLES[..4] {
        let (mut shard, event, target) = shard_with_a_hold();
        shard.garble(&target, *garble);
        let retry = book(&event, "k", "ann", 1_000, &[(0, 1)]);
        assert_eq!(shard.decide(&[retry]).unwrap(), [Outcome::Unverified]);
    }
}
