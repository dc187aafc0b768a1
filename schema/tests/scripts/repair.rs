//! The decisions that mend: they change what is wrong, once, and never on stale knowledge.

use boxoffice_schema::position::Position;
use boxoffice_schema::record::{Change, Kind};
use boxoffice_schema::scripts::{
    self, Cancel, Decision, EventChange, EventOutcome, Fence, Outcome, Restate, Restatement,
    RestatementReply, StockDifference, error_code,
};

use crate::shard::{START_MS, TestShard, book, event};

const ONE_SOLD_LESS: StockDifference = StockDifference { ordinal: 0, held: 0, sold: -1 };

impl TestShard {
    fn restate_event(&mut self, id: boxoffice_schema::ids::EventId) -> Restatement {
        let call = scripts::restate_event(&self.keys, self.shard, self.bounds, id);
        Restatement::parse(&self.run::<RestatementReply>(&call).unwrap()).unwrap()
    }

    fn mend(
        &mut self,
        id: boxoffice_schema::ids::EventId,
        stated: Position,
        difference: StockDifference,
    ) -> Restatement {
        let call = scripts::mend_stock(&self.keys, self.shard, self.bounds, id, stated, &[difference]);
        Restatement::parse(&self.run::<RestatementReply>(&call).unwrap()).unwrap()
    }

    fn set_sold(&mut self, id: boxoffice_schema::ids::EventId, sold: u32) {
        let key = self.keys.event(self.shard, id);
        redis::cmd("HSET").arg(key).arg("sold0").arg(sold).query::<i64>(&mut self.redis).unwrap();
    }
}

fn said(restatement: Restatement) -> Position {
    match restatement {
        Restatement::Said(_, position) => position,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_restated_booking_is_the_same_at_a_new_position() {
    let mut shard = TestShard::certified();
    let event = event(&[10]);
    shard.publish(&event);
    let request = book(&event, "k", "ann", 600_000, &[(0, 2)]);
    let target = *request.target();
    shard.decide(&[request]).unwrap();
    let before = shard.booking(&target).unwrap();
    let outcome = shard.decide(&[Restate { target }, Restate { target }]).unwrap();
    assert!(matches!(outcome[..], [Outcome::Changed(_), Outcome::Changed(_)]), "{outcome:?}");

    let after = shard.booking(&target).unwrap();
    assert_eq!(after.position, Position { epoch: 1, sequence: 4 });
    assert_eq!(boxoffice_schema::image::BookingImage { position: before.position, ..after.clone() }, before);
    assert_eq!(shard.event(event.id).ticket_types[0].held, 2);
    assert_eq!(shard.expiries(), [(event.id, target.booking_id)]);
    let record = shard.records().pop().unwrap();
    assert_eq!(record.kind, Kind::Restated);
    let Change::Booking(change) = record.change else { panic!("not of a booking") };
    assert_eq!((change.image, change.totals[0].held), (after, 2));
    // The key still leads to it, and what was bought can still be given back.
    let again = shard.decide(&[book(&event, "k", "ann", 600_000, &[(0, 2)])]).unwrap();
    assert!(matches!(again[..], [Outcome::Replayed(..)]));
    assert!(matches!(shard.decide(&[Cancel { target }]).unwrap()[..], [Outcome::Changed(_)]));
}

#[test]
fn a_recovery_restates_in_its_own_epoch_and_only_before_the_certificate() {
    let mut shard = TestShard::certified();
    let event = event(&[10]);
    shard.publish(&event);
    let request = book(&event, "k", "ann", 0, &[(0, 1)]);
    let target = *request.target();
    shard.decide(&[request]).unwrap();
    let (keys, identity) = (shard.keys.clone(), shard.identity());
    let fence = |epoch| Fence { epoch, identity: &identity };
    let restate = |epoch| scripts::restate_fenced(&keys, shard.shard, fence(epoch), &[Restate { target }]);
    let [certified, older, own] = [restate(1), restate(1), restate(2)];
    assert_eq!(shard.run::<redis::Value>(&certified).unwrap_err().code(), Some(error_code::STALE_EPOCH));
    shard.begin_recovery(2).unwrap();
    assert_eq!(shard.run::<redis::Value>(&older).unwrap_err().code(), Some(error_code::STALE_EPOCH));
    let replies: Vec<Vec<u8>> = shard.run(&own).unwrap();
    assert!(matches!(Outcome::parse(&replies[0]).unwrap(), Outcome::Changed(_)));
    let record = shard.records().pop().unwrap();
    assert_eq!((record.kind, record.position), (Kind::Restated, Position { epoch: 2, sequence: 3 }));
    shard.certify(3);
    assert_eq!(shard.run::<redis::Value>(&own).unwrap_err().code(), Some(error_code::STALE_EPOCH));
}

#[test]
fn what_is_not_there_is_not_restated() {
    let mut shard = TestShard::certified();
    let event = event(&[10]);
    shard.publish(&event);
    let target = *book(&event, "k", "ann", 0, &[(0, 1)]).target();
    assert_eq!(shard.decide(&[Restate { target }]).unwrap(), [Outcome::Missing]);
    assert_eq!(shard.restate_event(crate::shard::event(&[1]).id), Restatement::Unverified);
    assert_eq!(shard.records().len(), 1);
}

/// A hand wrote into it. Nobody could read a frame with it, and nothing behind that would leave the outbox.
#[test]
fn an_event_that_the_log_could_not_be_read_with_is_neither_said_nor_mended_nor_changed() {
    let mut shard = TestShard::certified();
    let event = event(&[10]);
    shard.publish(&event);
    let stated = said(shard.restate_event(event.id));
    let key = shard.keys.event(shard.shard, event.id);
    let another_capacity = EventChange::Capacity(0, 20);
    for (field, spoilt) in [
        ("sold0", Some("-1")),
        ("held0", Some("1.5")),
        ("held0", Some("")),
        ("cap0", Some("4294967296")),
        ("price0", Some("x")),
        ("slots", Some("some")),
        ("open", Some("now")),
        ("types", Some("2")),
        ("types", Some("none")),
        ("name", None),
        ("limit", None),
        ("limit0", None),
        ("id0", None),
    ] {
        let before: String = redis::cmd("HGET").arg(&key).arg(field).query(&mut shard.redis).unwrap();
        let mut spoil = redis::cmd(if spoilt.is_some() { "HSET" } else { "HDEL" });
        spoil.arg(&key).arg(field).arg(spoilt).query::<i64>(&mut shard.redis).unwrap();
        assert_eq!(shard.restate_event(event.id), Restatement::Unverified, "{field} {spoilt:?}");
        assert_eq!(shard.mend(event.id, stated, ONE_SOLD_LESS), Restatement::Unverified, "{field}");
        let changed = shard.amend(event.id, std::slice::from_ref(&another_capacity));
        assert_eq!(changed, EventOutcome::Unverified, "{field} {spoilt:?}");
        redis::cmd("HSET").arg(&key).arg(field).arg(before).query::<i64>(&mut shard.redis).unwrap();
    }
    assert_eq!((shard.records().len(), shard.shard_field("seq")), (2, stated.sequence));
    assert!(matches!(shard.amend(event.id, &[another_capacity]), EventOutcome::Changed(_)));
    assert_eq!(said(shard.restate_event(event.id)).sequence, stated.sequence + 2);
}

#[test]
fn a_restated_event_carries_its_totals_and_changes_nothing() {
    let mut shard = TestShard::certified();
    let event = event(&[10]);
    shard.publish(&event);
    shard.decide(&[book(&event, "k", "ann", 0, &[(0, 2)])]).unwrap();
    let before = shard.event(event.id);
    assert_eq!(said(shard.restate_event(event.id)), Position { epoch: 1, sequence: 3 });
    assert_eq!(shard.event(event.id), before);
    let record = shard.records().pop().unwrap();
    assert_eq!(record.kind, Kind::EventRestated);
    assert_eq!(record.change, Change::Event(Box::new(before)));
}

#[test]
fn a_difference_is_mended_once_while_tickets_are_sold() {
    let mut shard = TestShard::certified();
    let event = event(&[10]);
    shard.publish(&event);
    shard.decide(&[book(&event, "a", "ann", 0, &[(0, 1)])]).unwrap();
    shard.set_sold(event.id, 2);
    let stated = said(shard.restate_event(event.id));
    shard.decide(&[book(&event, "b", "bob", 0, &[(0, 1)])]).unwrap();

    let mended = said(shard.mend(event.id, stated, ONE_SOLD_LESS));
    assert_eq!(shard.event(event.id).ticket_types[0].sold, 2);
    let record = shard.records().pop().unwrap();
    assert_eq!((record.kind, record.position), (Kind::Repaired, mended));
    let Change::Event(image) = record.change else { panic!("not of an event") };
    assert_eq!(image.ticket_types[0].sold, 2);

    assert_eq!(shard.mend(event.id, stated, ONE_SOLD_LESS), Restatement::Stale);
    assert_eq!(shard.event(event.id).ticket_types[0].sold, 2);
    assert_eq!(shard.shard_field("seq"), mended.sequence);
}

#[test]
fn stale_knowledge_mends_nothing() {
    let mut shard = TestShard::certified();
    let event = event(&[10]);
    shard.publish(&event);
    shard.decide(&[book(&event, "a", "ann", 0, &[(0, 1)])]).unwrap();
    let never = Position { epoch: 1, sequence: 1 };
    assert_eq!(shard.mend(event.id, never, ONE_SOLD_LESS), Restatement::Stale);
    let first = said(shard.restate_event(event.id));
    let second = said(shard.restate_event(event.id));
    assert_eq!(shard.mend(event.id, first, ONE_SOLD_LESS), Restatement::Stale);
    shard.certify(2);
    assert_eq!(shard.mend(event.id, second, ONE_SOLD_LESS), Restatement::Stale);
    assert_eq!(shard.event(event.id).ticket_types[0].sold, 1);
}

#[test]
fn no_mend_takes_a_counter_below_0_or_above_the_capacity() {
    let mut shard = TestShard::certified();
    let event = event(&[3]);
    shard.publish(&event);
    shard.decide(&[book(&event, "a", "ann", 0, &[(0, 1)])]).unwrap();
    let stated = said(shard.restate_event(event.id));
    for (held, sold) in [(0, -2), (-1, 0), (0, 3), (2, 1)] {
        let difference = StockDifference { ordinal: 0, held, sold };
        assert_eq!(shard.mend(event.id, stated, difference), Restatement::Impossible, "{difference:?}");
    }
    let elsewhere = StockDifference { ordinal: 7, held: 0, sold: 1 };
    assert_eq!(shard.mend(event.id, stated, elsewhere), Restatement::Unverified);
    assert_eq!(shard.shard_field("seq"), stated.sequence);
}

#[test]
fn a_shard_without_a_certificate_and_a_full_outbox_mend_nothing() {
    let mut shard = TestShard::certified();
    let event = event(&[10]);
    shard.publish(&event);
    let request = book(&event, "k", "ann", 0, &[(0, 1)]);
    let target = *request.target();
    shard.decide(&[request]).unwrap();
    let stated = said(shard.restate_event(event.id));
    let unbounded = shard.bounds;
    shard.bounds.frames = 1;
    assert_eq!(shard.restate_event(event.id), Restatement::OutboxFull);
    assert_eq!(shard.mend(event.id, stated, ONE_SOLD_LESS), Restatement::OutboxFull);
    assert_eq!(shard.decide(&[Restate { target }]).unwrap(), [Outcome::OutboxFull]);
    shard.bounds = unbounded;

    shard.begin_recovery(2).unwrap();
    let (keys, bounds) = (shard.keys.clone(), shard.bounds);
    let calls = [
        scripts::restate_event(&keys, shard.shard, bounds, event.id),
        scripts::mend_stock(&keys, shard.shard, bounds, event.id, stated, &[ONE_SOLD_LESS]),
        scripts::decision_call(&keys, shard.shard, bounds, [&Restate { target }]),
    ];
    for call in &calls {
        let error = shard.run::<redis::Value>(call).unwrap_err();
        assert_eq!(error.code(), Some(error_code::UNVERIFIED), "{error}");
    }
    assert_eq!(shard.shard_field("seq"), stated.sequence);
}

#[test]
fn a_stale_recovery_and_one_of_a_certified_shard_unschedule_nothing() {
    let mut shard = TestShard::certified();
    let event = event(&[10]);
    shard.publish(&event);
    let request = book(&event, "k", "ann", 600_000, &[(0, 1)]);
    let target = *request.target();
    shard.decide(&[request]).unwrap();
    assert!(shard.shard_field("clock") >= START_MS);
    let member = [event.id.as_bytes().as_slice(), target.booking_id.as_bytes()].concat();
    let (keys, identity) = (shard.keys.clone(), shard.identity());
    let fence = |epoch| Fence { epoch, identity: &identity };
    let unschedule =
        |epoch| scripts::restore_unschedule(&keys, shard.shard, fence(epoch), vec![member.clone()]);
    let (certified, slept, live) = (unschedule(1), unschedule(1), unschedule(2));
    let nothing = scripts::restore_unschedule(&keys, shard.shard, fence(2), Vec::new());
    let error = shard.run::<i64>(&certified).unwrap_err();
    assert_eq!(error.code(), Some(error_code::STALE_EPOCH));
    shard.begin_recovery(2).unwrap();
    assert_eq!(shard.run::<i64>(&slept).unwrap_err().code(), Some(error_code::STALE_EPOCH));
    assert_eq!(shard.expiries().len(), 1);
    assert_eq!(shard.run::<i64>(&nothing).unwrap(), 0);
    assert_eq!(shard.run::<i64>(&live).unwrap(), 1);
    assert_eq!(shard.expiries(), []);
}
