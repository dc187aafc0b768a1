//! What keeps a shard from selling when it must not, and what the outbox does.

use boxoffice_schema::event::EventImage;
use boxoffice_schema::position::Position;
use boxoffice_schema::scripts::{
    self, Call, Cancel, Confirm, Decision, EventChange, EventOutcome, Fence, Outcome, RecoveryReply,
    RecoveryStart, Restate, decision_call, error_code,
};
use boxoffice_schema::text::{Name, PaymentReference};

use crate::shard::{START_MS, TestShard, book, event};

pub fn code(error: &redis::RedisError) -> &str {
    error.code().unwrap_or_default()
}

#[test]
fn a_shard_without_a_certificate_decides_nothing() {
    let mut shard = TestShard::blank();
    let event = event(&[10]);
    let request = book(&event, "k", "ann", 0, &[(0, 1)]);
    assert_eq!(code(&shard.decide(std::slice::from_ref(&request)).unwrap_err()), error_code::UNVERIFIED);

    shard.certify(1);
    shard.publish(&event);
    assert!(matches!(shard.decide(&[request]).unwrap()[..], [Outcome::Changed(_)]));
}

#[test]
fn a_certificate_of_another_redis_or_epoch_does_not_open_the_shard() {
    let mut shard = TestShard::certified();
    let event = event(&[10]);
    shard.publish(&event);
    let certificate = shard.keys.certificate(shard.shard);
    let genuine: String = redis::cmd("GET").arg(&certificate).query(&mut shard.redis).unwrap();
    let info: String = redis::cmd("INFO").arg("everything").query(&mut shard.redis).unwrap();
    let of = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    assert_eq!(genuine, format!("{}:{}:1", of("run_id"), of("master_replid")));
    let parts: Vec<&str> = genuine.split(':').collect();
    let other = "0".repeat(40);
    let forged = [
        format!("{other}:{}:{}", parts[1], parts[2]),
        format!("{}:{other}:{}", parts[0], parts[2]),
        format!("{}:{}:2", parts[0], parts[1]),
        format!("{}:{}:", parts[0], parts[1]),
        format!("{}:{}:1x", parts[0], parts[1]),
        format!("{}-{}-1", parts[0], parts[1]),
        format!("{}:{}:1", &parts[0][1..], parts[1]),
        format!("{}:{}:1", parts[0], &parts[1][1..]),
        String::new(),
    ];
    for text in forged {
        redis::cmd("SET").arg(&certificate).arg(&text).query::<()>(&mut shard.redis).unwrap();
        let error = shard.decide(&[book(&event, "k", "ann", 0, &[(0, 1)])]).unwrap_err();
        assert_eq!(code(&error), error_code::UNVERIFIED, "{text}");
    }
    redis::cmd("SET").arg(&certificate).arg(&genuine).query::<()>(&mut shard.redis).unwrap();
    assert!(matches!(
        shard.decide(&[book(&event, "k", "ann", 0, &[(0, 1)])]).unwrap()[..],
        [Outcome::Changed(_)]
    ));
}

#[test]
fn a_lost_shard_hash_fences_the_shard() {
    let mut shard = TestShard::certified();
    let event = event(&[10]);
    shard.publish(&event);
    redis::cmd("DEL").arg(shard.keys.shard(shard.shard)).query::<i64>(&mut shard.redis).unwrap();
    let error = shard.decide(&[book(&event, "k", "ann", 0, &[(0, 1)])]).unwrap_err();
    assert_eq!(code(&error), error_code::UNVERIFIED);
}

#[test]
fn a_write_that_fails_midway_fences_the_shard() {
    let mut shard = TestShard::certified();
    let event = event(&[10]);
    shard.publish(&event);
    // A key of another type than the script writes: the stock is changed before the write of the outbox fails.
    let expiry = shard.keys.expiry(shard.shard);
    redis::cmd("DEL").arg(&expiry).query::<i64>(&mut shard.redis).unwrap();
    redis::cmd("HSET").arg(&expiry).arg("a").arg(1).query::<i64>(&mut shard.redis).unwrap();
    let hold = || book(&event, "k", "ann", 60_000, &[(0, 1)]);
    let error = shard.decide(&[hold()]).unwrap_err();
    assert_eq!(code(&error), error_code::WRITE_FAILED);
    let error = shard.decide(&[book(&event, "l", "ann", 0, &[(0, 1)])]).unwrap_err();
    assert_eq!(code(&error), error_code::UNVERIFIED);

    // A recovery takes that key for lost, and what is half written does not outlive the restoration.
    let start = shard.begin_recovery(2).unwrap();
    assert_eq!(shard.lost(), Some(expiry));
    let (keys, number) = (shard.keys.clone(), shard.shard);
    let slots = (0..event.slots).map(|slot| keys.slot(number, event.id, slot));
    let others = [keys.outbox(number), keys.event(number, event.id), keys.customers(number, event.id)];
    let last = Position { epoch: 1, sequence: 1 };
    for call in [
        scripts::restore_clear(&keys, number, start.fence(2), others.into_iter().chain(slots).collect()),
        scripts::restore_event(&keys, number, start.fence(2), &event),
        scripts::restore_shard(&keys, number, start.fence(2), last, START_MS, true),
        scripts::certify(&keys, number, 2, last.sequence, &start),
    ] {
        shard.run::<i64>(&call).unwrap();
    }
    let held = hold();
    let target = *held.target();
    assert!(matches!(shard.decide(&[held]).unwrap()[..], [Outcome::Changed(_)]));
    assert_eq!(shard.expiries(), [(event.id, target.booking_id)]);
    assert_eq!(shard.event(event.id).ticket_types[0].held, 1);
}

#[test]
fn requests_of_one_batch_see_each_other() {
    let mut shard = TestShard::certified();
    let event = event(&[1]);
    shard.publish(&event);
    let outcomes = shard
        .decide(&[
            book(&event, "a", "ann", 0, &[(0, 1)]),
            book(&event, "a", "ann", 0, &[(0, 1)]),
            book(&event, "a", "bob", 0, &[(0, 1)]),
            book(&event, "b", "bob", 0, &[(0, 1)]),
        ])
        .unwrap();
    let [Outcome::Changed(first), Outcome::Replayed(_, replay), Outcome::KeyReused, Outcome::SoldOut] =
        &outcomes[..]
    else {
        panic!("{outcomes:?}");
    };
    assert_eq!(first, replay);
    assert_eq!(shard.shard_field("seq"), 2);
}

#[test]
fn a_retry_in_another_millisecond_gets_the_first_id() {
    let mut shard = TestShard::certified();
    let event = event(&[10]);
    shard.publish(&event);
    let first = book(&event, "a", "ann", 0, &[(0, 1)]);
    let id = first.target().booking_id;
    assert!(matches!(shard.decide(&[first]).unwrap()[..], [Outcome::Changed(_)]));
    let again = || book(&event, "a", "ann", 0, &[(0, 1)]);
    let later = std::iter::repeat_with(again).find(|again| again.target().booking_id != id).unwrap();
    let [Outcome::Replayed(replayed, _)] = shard.decide(&[later]).unwrap()[..] else {
        panic!("not replayed")
    };
    assert_eq!(replayed, id);
}

#[test]
fn a_refusal_writes_nothing() {
    let mut shard = TestShard::certified();
    let event = event(&[1]);
    shard.publish(&event);
    let before: Vec<Vec<u8>> = dump(&mut shard, &event);
    for request in [book(&event, "a", "ann", 0, &[(0, 2)]), book(&event, "b", "ann", 1_000, &[(0, 2)])] {
        assert_eq!(shard.decide(&[request]).unwrap(), [Outcome::SoldOut]);
    }
    assert_eq!(dump(&mut shard, &event), before);
}

pub fn dump(shard: &mut TestShard, event: &EventImage) -> Vec<Vec<u8>> {
    let keys = [
        shard.keys.shard(shard.shard),
        shard.keys.outbox(shard.shard),
        shard.keys.event(shard.shard, event.id),
        shard.keys.customers(shard.shard, event.id),
    ];
    keys.iter().map(|key| redis::cmd("DUMP").arg(key).query(&mut shard.redis).unwrap()).collect()
}

#[test]
fn past_a_bound_of_the_outbox_new_bookings_are_refused_and_replays_are_not() {
    let mut shard = TestShard::certified();
    let event = event(&[10]);
    shard.publish(&event);
    let first = || book(&event, "a", "ann", 0, &[(0, 1)]);
    let second = || book(&event, "b", "ann", 0, &[(0, 1)]);
    assert!(matches!(shard.decide(&[first()]).unwrap()[..], [Outcome::Changed(_)]));

    let unbounded = shard.bounds;
    shard.bounds.frames = 2;
    assert_eq!(shard.decide(&[second()]).unwrap(), [Outcome::OutboxFull]);
    assert!(matches!(shard.decide(&[first()]).unwrap()[..], [Outcome::Replayed(..)]));
    shard.bounds = unbounded;
    shard.bounds.bytes = 10;
    assert_eq!(shard.decide(&[second()]).unwrap(), [Outcome::OutboxFull]);
    shard.bounds = unbounded;
    shard.bounds.age_ms = 1_000;
    shard.set_clock(START_MS + 1_001);
    assert_eq!(shard.decide(&[second()]).unwrap(), [Outcome::OutboxFull]);

    // What Kafka confirmed is trimmed, and the bookings go on.
    let last = shard.records().last().unwrap().position;
    shard.run::<i64>(&scripts::lease(&shard.keys, shard.shard, "relay", 10_000)).unwrap();
    assert_eq!(shard.run::<i64>(&scripts::trim(&shard.keys, shard.shard, "relay", 1, last)).unwrap(), 2);
    shard.bounds = unbounded;
    shard.bounds.frames = 1;
    shard.bounds.bytes = 10;
    assert!(matches!(shard.decide(&[second()]).unwrap()[..], [Outcome::Changed(_)]));
    assert_eq!(shard.shard_field("conf_seq"), last.sequence);
}

#[test]
fn past_a_bound_of_the_outbox_no_booking_and_no_event_is_changed_and_what_is_done_already_is_told() {
    let mut shard = TestShard::certified();
    let (event, unpublished) = (event(&[10]), event(&[10]));
    shard.publish(&event);
    let requests = ["held", "paid", "cancelled"].map(|key| book(&event, key, "ann", 600_000, &[(0, 1)]));
    let [held, paid, cancelled] = requests.each_ref().map(|request| *request.target());
    let payment_reference = PaymentReference::try_from("pay-1".to_owned()).unwrap();
    let confirm = |target| Confirm { target, payment_reference: payment_reference.clone() };
    shard.decide(&requests).unwrap();
    shard.decide(&[confirm(paid)]).unwrap();
    shard.decide(&[Cancel { target: cancelled }]).unwrap();
    let before = dump(&mut shard, &event);
    shard.bounds.frames = 1;

    assert_eq!(shard.decide(&[confirm(held)]).unwrap(), [Outcome::OutboxFull]);
    for target in [held, paid] {
        assert_eq!(shard.decide(&[Cancel { target }]).unwrap(), [Outcome::OutboxFull]);
    }
    assert_eq!(shard.publish(&unpublished), EventOutcome::OutboxFull);
    let renamed = EventChange::Name(Name::try_from("Another night".to_owned()).unwrap());
    assert_eq!(shard.amend(event.id, &[renamed]), EventOutcome::OutboxFull);

    assert!(matches!(shard.decide(&[confirm(paid)]).unwrap()[..], [Outcome::Unchanged(_)]));
    assert!(matches!(shard.decide(&[confirm(cancelled)]).unwrap()[..], [Outcome::AlreadyCancelled(_)]));
    let again = shard.decide(&[Cancel { target: cancelled }]).unwrap();
    assert!(matches!(again[..], [Outcome::Unchanged(_)]), "{again:?}");
    assert!(matches!(shard.publish(&event), EventOutcome::Unchanged(_)));
    let same = EventChange::Name(event.name.clone());
    assert!(matches!(shard.amend(event.id, &[same]), EventOutcome::Unchanged(_)));
    assert_eq!(dump(&mut shard, &event), before);
}

#[test]
fn a_relay_without_the_lease_or_of_an_older_epoch_or_of_an_unverified_redis_trims_nothing() {
    let mut shard = TestShard::certified();
    let event = event(&[10]);
    shard.publish(&event);
    let last = shard.records().last().unwrap().position;
    let trim = |shard: &mut TestShard, token: &str, epoch| {
        shard.run::<i64>(&scripts::trim(&shard.keys, shard.shard, token, epoch, last))
    };
    assert_eq!(code(&trim(&mut shard, "a", 1).unwrap_err()), error_code::LEASE_LOST);
    assert_eq!(shard.run::<i64>(&scripts::lease(&shard.keys, shard.shard, "a", 10_000)).unwrap(), 1);
    assert_eq!(shard.run::<i64>(&scripts::lease(&shard.keys, shard.shard, "b", 10_000)).unwrap(), -1);
    assert_eq!(code(&trim(&mut shard, "b", 1).unwrap_err()), error_code::LEASE_LOST);
    let start = shard.begin_recovery(2).unwrap();
    assert_eq!(code(&trim(&mut shard, "a", 1).unwrap_err()), error_code::EPOCH_CHANGED);
    // An old master that is back has the epoch of its time, and no certificate.
    assert_eq!(code(&trim(&mut shard, "a", 2).unwrap_err()), error_code::UNVERIFIED);
    assert_eq!(shard.records().len(), 1);
    shard.run::<i64>(&scripts::certify(&shard.keys, shard.shard, 2, start.last.sequence, &start)).unwrap();
    assert_eq!(trim(&mut shard, "a", 2).unwrap(), 1);
    assert_eq!(trim(&mut shard, "a", 2).unwrap(), 0);
    assert_eq!(shard.run::<i64>(&scripts::unlease(&shard.keys, shard.shard, "b")).unwrap(), 0);
    assert_eq!(shard.run::<i64>(&scripts::unlease(&shard.keys, shard.shard, "a")).unwrap(), 1);
}

#[test]
fn a_recovery_that_slept_changes_nothing() {
    let mut shard = TestShard::certified();
    let slept = shard.begin_recovery(2).unwrap();
    let start = shard.begin_recovery(3).unwrap();
    assert_eq!(code(&shard.begin_recovery(2).unwrap_err()), error_code::STALE_EPOCH);
    let late = scripts::certify(&shard.keys, shard.shard, 2, slept.last.sequence, &slept);
    assert_eq!(code(&shard.run::<i64>(&late).unwrap_err()), error_code::STALE_EPOCH);
    let elsewhere = scripts::certify(&shard.keys, shard.shard, 3, start.last.sequence + 1, &start);
    assert_eq!(code(&shard.run::<i64>(&elsewhere).unwrap_err()), error_code::MOVED);
    let mut other = start.clone();
    other.identity = "another:redis".to_owned();
    let other = scripts::certify(&shard.keys, shard.shard, 3, start.last.sequence, &other);
    assert_eq!(code(&shard.run::<i64>(&other).unwrap_err()), error_code::REDIS_CHANGED);
    shard.run::<i64>(&scripts::certify(&shard.keys, shard.shard, 3, start.last.sequence, &start)).unwrap();
}

/// An old primary's certificate names its process, its history and its epoch.
#[test]
fn a_shard_is_closed_where_it_stands_in_an_epoch_that_is_over_and_left_alone_otherwise() {
    let mut shard = TestShard::certified();
    let event = event(&[10]);
    shard.publish(&event);
    let end = |shard: &mut TestShard, latest| {
        shard.run::<i64>(&scripts::end_epoch(&shard.keys, shard.shard, latest)).unwrap()
    };
    assert_eq!(end(&mut shard, 1), 0);
    assert!(matches!(
        shard.decide(&[book(&event, "a", "ann", 0, &[(0, 1)])]).unwrap()[..],
        [Outcome::Changed(_)]
    ));
    assert_eq!((end(&mut shard, 2), end(&mut shard, 2)), (1, 0));
    let refused = shard.decide(&[book(&event, "b", "ann", 0, &[(0, 1)])]).unwrap_err();
    assert_eq!(code(&refused), error_code::UNVERIFIED);

    shard.certify(2);
    assert_eq!(end(&mut shard, 2), 0);
    let key = shard.keys.shard(shard.shard);
    redis::cmd("DEL").arg(key).query::<()>(&mut shard.redis).unwrap();
    assert_eq!(end(&mut shard, 3), 0, "there is nothing to be closed");
}

#[test]
fn a_recovery_is_told_whether_this_is_still_the_redis_in_which_it_began() {
    let mut shard = TestShard::certified();
    shard.publish(&event(&[10]));
    let start = shard.begin_recovery(2).unwrap();
    assert_eq!((start.last.epoch, start.last.sequence), (1, 1));
    let ask = |shard: &mut TestShard| {
        shard.run::<RecoveryReply>(&scripts::recovering(&shard.keys, shard.shard, 2)).map(RecoveryStart::from)
    };
    assert_eq!(ask(&mut shard).unwrap(), start);
    shard.begin_recovery(3).unwrap();
    assert_eq!(code(&ask(&mut shard).unwrap_err()), error_code::STALE_EPOCH);
    let key = shard.keys.shard(shard.shard);
    redis::cmd("DEL").arg(key).query::<()>(&mut shard.redis).unwrap();
    assert_eq!(code(&ask(&mut shard).unwrap_err()), error_code::STALE_EPOCH);
}

/// A replica that was promoted since has the epoch, and may lack some of what was restored before.
#[test]
fn a_recovery_writes_into_no_other_redis_than_that_in_which_it_began() {
    let mut shard = TestShard::certified();
    let event = event(&[10]);
    shard.publish(&event);
    let request = book(&event, "k", "ann", 600_000, &[(0, 1)]);
    let target = *request.target();
    shard.decide(&[request]).unwrap();
    shard.begin_recovery(2).unwrap();
    let image = shard.booking(&target).unwrap();
    let before = (dump(&mut shard, &event), shard.expiries());
    let (keys, number) = (shard.keys.clone(), shard.shard);
    let elsewhere = Fence { epoch: 2, identity: "another:redis" };
    let member = scripts::expiry_member(event.id, target.booking_id);
    let last = Position { epoch: 1, sequence: 2 };
    let mut bookings = [(target.booking_id, image.clone())];
    let mut calls: Vec<Call> =
        scripts::restore_bookings(&keys, number, elsewhere, &event, &mut bookings).collect();
    calls.extend([
        scripts::note_lost(&keys, number, elsewhere, keys.event(number, event.id)),
        scripts::restore_clear(&keys, number, elsewhere, vec![keys.expiry(number)]),
        scripts::restore_event(&keys, number, elsewhere, &event),
        scripts::restore_unschedule(&keys, number, elsewhere, vec![member]),
        scripts::restore_shard(&keys, number, elsewhere, last, START_MS, true),
        scripts::restate_fenced(&keys, number, elsewhere, &[Restate { target }]),
        scripts::restate_event_fenced(&keys, number, elsewhere, event.id),
    ]);
    for call in &calls {
        let error = shard.run::<redis::Value>(call).unwrap_err();
        assert_eq!(code(&error), error_code::REDIS_CHANGED, "{}", call.script.name);
    }
    assert_eq!((dump(&mut shard, &event), shard.expiries()), before);
    assert_eq!(shard.booking(&target), Some(image));
}

/// A call that was on its way when the recovery began, and arrives while it is under way and again behind it.
#[test]
fn a_stalled_script_decides_nothing_during_a_recovery_and_in_the_new_epoch_behind_it() {
    let mut shard = TestShard::certified();
    let event = event(&[10]);
    shard.publish(&event);
    let request = book(&event, "a", "ann", 0, &[(0, 1)]);
    let stalled = decision_call(&shard.keys, shard.shard, shard.bounds, [&request]);
    let before = dump(&mut shard, &event);
    let start = shard.begin_recovery(2).unwrap();
    assert_eq!(code(&shard.run::<redis::Value>(&stalled).unwrap_err()), error_code::UNVERIFIED);
    assert_eq!(dump(&mut shard, &event)[1..], before[1..]);
    shard.run::<i64>(&scripts::certify(&shard.keys, shard.shard, 2, start.last.sequence, &start)).unwrap();
    shard.run::<redis::Value>(&stalled).unwrap();
    assert!(matches!(shard.decide(&[request]).unwrap()[..], [Outcome::Replayed(..)]));
    let positions: Vec<String> = shard.records().iter().map(|record| record.position.to_string()).collect();
    assert_eq!(positions, ["1-1", "2-2"]);
}

/// Redis' own time is long before both.
#[test]
fn a_restored_shard_goes_on_at_the_later_of_its_own_time_and_what_it_is_told() {
    let mut shard = TestShard::blank();
    let start = shard.begin_recovery(1).unwrap();
    let last = Position { epoch: 0, sequence: 0 };
    for (told, then) in [(START_MS, START_MS), (START_MS - 1, START_MS), (START_MS + 1, START_MS + 1)] {
        let call = scripts::restore_shard(&shard.keys, shard.shard, start.fence(1), last, told, true);
        shard.run::<i64>(&call).unwrap();
        assert_eq!(shard.shard_field("clock"), then);
    }
}

#[test]
fn a_shards_sequence_goes_on_after_a_recovery() {
    let mut shard = TestShard::certified();
    let event = event(&[10]);
    shard.publish(&event);
    shard.certify(2);
    let request = book(&event, "a", "ann", 600_000, &[(0, 1)]);
    let target = *request.target();
    shard.decide(&[request]).unwrap();
    let payment_reference = PaymentReference::try_from("pay-1".to_owned()).unwrap();
    shard.decide(&[Confirm { target, payment_reference }]).unwrap();
    shard.decide(&[Cancel { target }]).unwrap();
    let positions: Vec<String> = shard.records().iter().map(|record| record.position.to_string()).collect();
    assert_eq!(positions, ["1-1", "2-2", "2-3", "2-4"]);
}
