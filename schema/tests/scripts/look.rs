//! A look says what is left and what is new in the slots, or nothing at all where `book.lua` must say why not.

use boxoffice_schema::event::EventImage;
use boxoffice_schema::scripts::{Decision, EventChange, Look, LookReply, Outcome, look};
use boxoffice_schema::status::EventStatus;
use chrono::Duration;

use crate::fence::dump;
use crate::shard::{START_MS, TestShard, book, event};

/// An event with a booking in one of its four slots, and that slot.
fn shard_with_a_booking() -> (TestShard, EventImage, u32) {
    let mut shard = TestShard::certified();
    let event = event(&[5, 7]);
    shard.publish(&event);
    let request = book(&event, "k", "ann", 0, &[(0, 2)]);
    let slot = request.target().booking_id.slot(event.slots);
    assert!(matches!(shard.decide(&[request]).unwrap()[..], [Outcome::Changed(_)]));
    (shard, event, slot)
}

impl TestShard {
    fn look(&mut self, event: &EventImage, ordinals: &[u8], slots: &[(u32, usize)]) -> LookReply {
        let wanted = Look { ordinals: ordinals.to_vec(), slots: slots.to_vec() };
        self.run(&look(&self.keys, self.shard, event.id, &wanted)).unwrap()
    }

    fn sees_nothing(&mut self, event: &EventImage, why: &str) {
        assert_eq!(self.look(event, &[0], &[(0, 0), (1, 0), (2, 0), (3, 0)]), None, "{why}");
    }
}

#[test]
fn a_look_says_what_is_left_of_the_types_that_it_asks_for_in_their_order() {
    let (mut shard, event, _) = shard_with_a_booking();
    let before = dump(&mut shard, &event);
    assert_eq!(shard.look(&event, &[1, 0], &[]), Some((1, vec![7, 3], vec![])));
    assert_eq!(dump(&mut shard, &event), before);
}

#[test]
fn a_look_reads_the_slots_of_which_not_all_is_known() {
    let (mut shard, event, slot) = shard_with_a_booking();
    let other = (slot + 1) % event.slots;
    let (_, _, read) = shard.look(&event, &[0], &[(other, 0), (slot, 0)]).unwrap();
    let [None, Some(fields)] = &read[..] else { panic!("{read:?}") };
    let request = book(&event, "k", "ann", 0, &[(0, 2)]);
    assert_eq!(fields.len(), 3, "the key, its booking, and the field that every slot has");
    assert!(fields.contains(&request.idempotency().as_bytes().to_vec()));
    let (_, _, read) = shard.look(&event, &[0], &[(slot, 3)]).unwrap();
    assert_eq!(read, [None]);

    // Cancelling frees the ticket and keeps the key; another booking in the slot shows.
    let more = (0..).map(|n| book(&event, &format!("k{n}"), "bob", 0, &[(0, 1)]));
    let more = more.into_iter().find(|more| more.target().booking_id.slot(event.slots) == slot).unwrap();
    let key = more.idempotency().as_bytes().to_vec();
    shard.decide(&[more]).unwrap();
    let (_, left, read) = shard.look(&event, &[0], &[(slot, 3)]).unwrap();
    assert_eq!(left, [2]);
    assert!(read[0].as_ref().unwrap().contains(&key));
}

#[test]
fn a_look_reads_no_more_slots_than_one_call_should_take() {
    const SLOTS_READ_MAX: usize = 16;
    let mut shard = TestShard::certified();
    let event = EventImage { slots: 64, ..event(&[1_000]) };
    shard.publish(&event);
    let batch: Vec<_> = (0..100).map(|n| book(&event, &format!("k{n}"), "ann", 0, &[(0, 1)])).collect();
    let written: std::collections::BTreeSet<u32> =
        batch.iter().map(|request| request.target().booking_id.slot(event.slots)).collect();
    assert!(written.len() > SLOTS_READ_MAX);
    shard.decide(&batch).unwrap();
    let slots: Vec<_> = written.into_iter().map(|slot| (slot, 0)).collect();
    let (_, _, read) = shard.look(&event, &[0], &slots).unwrap();
    let is_read = |fields: &Option<Vec<Vec<u8>>>| fields.as_ref().map(|fields| !fields.is_empty());
    assert!(read[..SLOTS_READ_MAX].iter().all(|fields| is_read(fields) == Some(true)));
    assert!(read[SLOTS_READ_MAX..].iter().all(|fields| is_read(fields) == Some(false)));
}

#[test]
fn a_look_says_nothing_of_what_may_not_be_sold_just_now() {
    let (mut shard, event, _) = shard_with_a_booking();
    let opens = event.created_at + Duration::hours(1);
    for change in [EventChange::Status(EventStatus::Paused), EventChange::SalesOpenAt(Some(opens))] {
        shard.amend(event.id, &[change]);
        shard.sees_nothing(&event, "paused, or not open yet");
        shard.amend(event.id, &[EventChange::Status(EventStatus::OnSale)]);
    }
    shard.set_clock(START_MS + 3_600_000);
    assert!(shard.look(&event, &[0], &[]).is_some());
    let missing = self::event(&[1]);
    shard.sees_nothing(&missing, "an event that Redis does not have");
}

#[test]
fn a_look_says_nothing_where_a_key_is_missing_or_the_shard_is_not_certified() {
    let keys: [fn(&TestShard, &EventImage, u32) -> String; 5] = [
        |shard, _, _| shard.keys.shard(shard.shard),
        |shard, _, _| shard.keys.certificate(shard.shard),
        |shard, event, _| shard.keys.event(shard.shard, event.id),
        |shard, event, _| shard.keys.customers(shard.shard, event.id),
        |shard, event, slot| shard.keys.slot(shard.shard, event.id, slot),
    ];
    for key in keys {
        let (mut shard, event, slot) = shard_with_a_booking();
        let key = key(&shard, &event, slot);
        redis::cmd("DEL").arg(&key).query::<i64>(&mut shard.redis).unwrap();
        assert_eq!(shard.look(&event, &[0], &[(slot, 3)]), None, "{key}");
        shard.sees_nothing(&event, &key);
    }
    let (mut shard, event, _) = shard_with_a_booking();
    let key = shard.keys.event(shard.shard, event.id);
    redis::cmd("HDEL").arg(key).arg("sold0").query::<i64>(&mut shard.redis).unwrap();
    shard.sees_nothing(&event, "a counter is missing");
}
