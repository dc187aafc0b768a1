//! A look says what is left and what is new in the slots, or nothing at all where `book.lua` must say why not.

use boxoffice_schema::event::EventImage;
use boxoffice_schema::scripts::{
    Cancel, Decision, EventChange, Look, LookReply, Outcome, Sight, SlotSight, Target, look, replays,
};
use boxoffice_schema::status::EventStatus;
use chrono::Duration;

use crate::fence::dump;
use crate::shard::{START_MS, TestShard, book, event};

/// An event with a booking in one of its four slots.
fn booked() -> (TestShard, EventImage, Target) {
    let mut shard = TestShard::certified();
    let event = event(&[5, 7]);
    shard.publish(&event);
    let request = book(&event, "k", "ann", 0, &[(0, 2)]);
    let target = *request.target();
    assert!(matches!(shard.decide(&[request]).unwrap()[..], [Outcome::Changed(_)]));
    (shard, event, target)
}

/// The same, with that slot.
fn shard_with_a_booking() -> (TestShard, EventImage, u32) {
    let (shard, event, target) = booked();
    (shard, event, target.booking_id.slot(target.slots))
}

impl TestShard {
    fn look(&mut self, event: &EventImage, ordinals: &[u8], slots: &[(u32, u32)]) -> Option<Sight> {
        let wanted = Look { ordinals: ordinals.to_vec(), slots: slots.to_vec() };
        let reply: LookReply = self.run(&look(&self.keys, self.shard, event.id, &wanted)).unwrap();
        Sight::parse(&wanted, reply).unwrap()
    }

    fn sees_nothing(&mut self, event: &EventImage, why: &str) {
        assert_eq!(self.look(event, &[0], &[(0, 0), (1, 0), (2, 0), (3, 0)]), None, "{why}");
    }
}

#[test]
fn a_look_says_what_is_left_of_the_types_that_it_asks_for_in_their_order() {
    let (mut shard, event, _) = shard_with_a_booking();
    let before = dump(&mut shard, &event);
    let key = shard.keys.certificate(shard.shard);
    let certificate: String = redis::cmd("GET").arg(key).query(&mut shard.redis).unwrap();
    let sight = Sight { certificate, left: vec![(1, 7), (0, 3)], slots: Vec::new() };
    assert_eq!(shard.look(&event, &[1, 0], &[]), Some(sight));
    assert_eq!(dump(&mut shard, &event), before);
}

#[test]
fn a_look_reads_the_slots_of_which_not_all_is_known() {
    let (mut shard, event, slot) = shard_with_a_booking();
    let other = (slot + 1) % event.slots;
    let sight = shard.look(&event, &[0], &[(other, 0), (slot, 0)]).unwrap();
    let [(first, SlotSight::Same), (second, SlotSight::Fields(fields))] = &sight.slots[..] else {
        panic!("{sight:?}")
    };
    assert_eq!((*first, *second), (other, slot));
    let request = book(&event, "k", "ann", 0, &[(0, 2)]);
    assert_eq!(fields.len(), 2, "the booking's, and the field that every slot has");
    assert!(fields.contains(&request.target().booking_id.field().as_bytes().to_vec()));
    assert_eq!(shard.look(&event, &[0], &[(slot, 2)]).unwrap().slots, [(slot, SlotSight::Same)]);

    let more = (0..).map(|n| book(&event, &format!("k{n}"), "bob", 0, &[(0, 1)]));
    let more = more.into_iter().find(|more| more.target().booking_id.slot(event.slots) == slot).unwrap();
    let field = more.target().booking_id.field().as_bytes().to_vec();
    shard.decide(&[more]).unwrap();
    let sight = shard.look(&event, &[0], &[(slot, 2)]).unwrap();
    assert_eq!(sight.left, [(0, 2)]);
    assert!(matches!(&sight.slots[..], [(_, SlotSight::Fields(fields))] if fields.contains(&field)));
}

#[test]
fn a_cancelled_booking_leaves_its_field_in_the_slot() {
    let (mut shard, event, target) = booked();
    let slot = target.booking_id.slot(target.slots);
    assert!(matches!(shard.decide(&[Cancel { target }]).unwrap()[..], [Outcome::Changed(_)]));
    let sight = shard.look(&event, &[0], &[(slot, 2)]).unwrap();
    assert_eq!((sight.left, sight.slots), (vec![(0, 5)], vec![(slot, SlotSight::Same)]));
}

#[test]
fn a_look_reads_no_more_fields_than_one_call_should() {
    const FIELDS_READ_MAX: u32 = 4_096;
    let mut shard = TestShard::certified();
    let event = EventImage { slots: 2, ..event(&[10_000]) };
    shard.publish(&event);
    let mut count_of = [0_u32; 2];
    for batch in 0..40 {
        let batch: Vec<_> =
            (0..120).map(|n| book(&event, &format!("k{batch}-{n}"), "ann", 0, &[(0, 1)])).collect();
        batch.iter().for_each(|request| count_of[request.target().booking_id.slot(2) as usize] += 1);
        shard.decide(&batch).unwrap();
    }
    let fields_of = |slot: usize| count_of[slot] + 1;
    assert!(fields_of(0) <= FIELDS_READ_MAX && fields_of(0) + fields_of(1) > FIELDS_READ_MAX);
    let sight = shard.look(&event, &[0], &[(0, 0), (1, 0)]).unwrap();
    let [(0, SlotSight::Fields(fields)), (1, SlotSight::Unread)] = &sight.slots[..] else { panic!() };
    assert_eq!(fields.len(), fields_of(0) as usize);
    let sight = shard.look(&event, &[0], &[(0, fields_of(0)), (1, 0)]).unwrap();
    assert!(matches!(&sight.slots[..], [(0, SlotSight::Same), (1, SlotSight::Fields(_))]));
}

#[test]
fn a_reply_that_does_not_fit_the_question_is_no_sight() {
    let wanted = Look { ordinals: vec![0, 1], slots: vec![(0, 0)] };
    let parse = |left: &[u32], added_to: &[usize], fields: usize| {
        Sight::parse(&wanted, Some((String::new(), left.to_vec(), added_to.to_vec(), vec![vec![]; fields])))
    };
    assert!(parse(&[5], &[], 0).is_err(), "a ticket type is missing");
    assert!(parse(&[5, 7], &[0], 0).is_err(), "the fields are missing");
    assert!(parse(&[5, 7], &[1], 1).is_err(), "there is no such slot");
    assert!(parse(&[5, 7], &[0], 1).unwrap().is_some());
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
        assert_eq!(shard.look(&event, &[0], &[(slot, 2)]), None, "{key}");
        shard.sees_nothing(&event, &key);
    }
    let (mut shard, event, _) = shard_with_a_booking();
    let key = shard.keys.event(shard.shard, event.id);
    redis::cmd("HDEL").arg(key).arg("sold0").query::<i64>(&mut shard.redis).unwrap();
    shard.sees_nothing(&event, "a counter is missing");
}

impl TestShard {
    fn epoch_of(&mut self, booked: &[Target]) -> Option<u32> {
        self.run(&replays(&self.keys, self.shard, booked)).unwrap()
    }
}

#[test]
fn who_retries_hears_of_the_epoch_in_which_the_shard_may_sell() {
    let (mut shard, event, target) = booked();
    let before = dump(&mut shard, &event);
    assert_eq!(shard.epoch_of(&[target, target]), Some(1));
    assert_eq!(dump(&mut shard, &event), before);
    shard.begin_recovery(2).unwrap();
    assert_eq!(shard.epoch_of(&[target]), None, "it is being recovered");
    shard.certify(3);
    assert_eq!(shard.epoch_of(&[target]), Some(3));
}

#[test]
fn who_retries_hears_nothing_of_a_shard_that_has_lost_a_slot_of_theirs_or_is_not_certified() {
    let keys: [fn(&TestShard, &Target) -> String; 3] = [
        |shard, _| shard.keys.shard(shard.shard),
        |shard, _| shard.keys.certificate(shard.shard),
        |shard, target| shard.keys.slot_of(shard.shard, target.event_id, target.booking_id, target.slots),
    ];
    for key in keys {
        let (mut shard, event, target) = booked();
        let mut others = (0..).map(|n| book(&event, &format!("k{n}"), "bob", 0, &[(0, 1)]));
        let slot = |target: &Target| target.booking_id.slot(event.slots);
        let other = others.find(|other| slot(other.target()) != slot(&target)).unwrap();
        let both = [*other.target(), target];
        shard.decide(&[other]).unwrap();
        assert_eq!(shard.epoch_of(&both), Some(1));
        let key = key(&shard, &target);
        redis::cmd("DEL").arg(&key).query::<i64>(&mut shard.redis).unwrap();
        assert_eq!(shard.epoch_of(&both), None, "{key}");
    }
}
