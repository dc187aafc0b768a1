use std::time::Duration;

use uuid::Uuid;

use super::*;
use crate::{
    history::{Items, Life},
    plan::{Role, example},
};

const BOOKING: Uuid = Uuid::from_u128(77);

fn names() -> Names {
    Names::new("lt".to_owned())
}

fn attempt(hold: bool) -> Attempt {
    let items = Items::new(&[(0, 2), (1, 1)]);
    Attempt::new(Order { number: 5, customer: 5, event: 0, items, hold }, Instant::now())
}

/// A booking as the contract shows it, with `change` made to the text.
fn booking(change: impl Fn(String) -> String) -> String {
    change(format!(
        r#"{{"id":"{BOOKING}","event_id":"{}","customer":"lt-c5@example.org","items":[
            {{"ticket_type_id":"{}","quantity":2,"unit_price":{{"amount":1000,"currency":"EUR"}}}},
            {{"ticket_type_id":"{}","quantity":1,"unit_price":{{"amount":250,"currency":"EUR"}}}}],
            "total":{{"amount":2250,"currency":"EUR"}},"status":"confirmed",
            "created_at":"2026-01-01T00:00:00Z","expires_at":null,"payment_reference":null}}"#,
        Uuid::from_u128(1),
        Uuid::from_u128(10),
        Uuid::from_u128(11),
    ))
}

fn created(body: String) -> Answer {
    Answer { location: true, ..Answer::of(201, body) }
}

fn replay(body: String) -> Answer {
    Answer { replayed: true, ..created(body) }
}

fn refusal(code: Code) -> Answer {
    let (status, word) = (code.status(), code.word());
    let body = format!(
        r#"{{"type":"t","title":"t","status":{status},"detail":"d","code":"{word}","request_id":"r"}}"#
    );
    Answer { problem: true, retry_after: Some(1), ..Answer::of(status, body) }
}

fn judge_order(answer: &Answer, attempt: &Attempt) -> Result<Finding, Wrong> {
    order(answer, attempt, &example(Role::Hot), &names(), false)
}

fn acknowledged(status: Status) -> Attempt {
    let seen = Acknowledged { booking: BOOKING, body: hash_body(booking(|text| text).as_bytes()) };
    Attempt { acknowledged: Some(seen), life: Life::new(status), ..attempt(false) }
}

/// A held booking whose hold ran out long ago, as far as time is concerned.
fn overdue(status: Status) -> Attempt {
    let first_sent = Instant::now().checked_sub(Duration::from_secs(60)).expect("a machine up for a minute");
    let base = acknowledged(status);
    Attempt { first_sent, order: Order { hold: true, ..base.order }, ..base }
}

#[test]
fn a_new_booking_as_ordered_is_accepted() {
    let found = judge_order(&created(booking(|text| text)), &attempt(false));
    assert!(matches!(found, Ok(Finding::Booked(seen)) if seen.booking == BOOKING), "{found:?}");
}

#[test]
fn a_hold_must_say_until_when() {
    let held = |text: String| text.replace("confirmed", "held");
    assert!(judge_order(&created(booking(held)), &attempt(true)).is_err());
    let until = |text| held(text).replace(r#""expires_at":null"#, r#""expires_at":"2026-01-01T00:00:02Z""#);
    assert!(judge_order(&created(booking(until)), &attempt(true)).is_ok());
    assert!(judge_order(&created(booking(until)), &attempt(false)).is_err(), "nobody asked for a hold");
}

#[test]
fn a_booking_that_is_not_what_was_ordered_is_unexpected() {
    let changes = [
        (r#""quantity":2"#, r#""quantity":3"#),
        (r#""amount":1000"#, r#""amount":1"#),
        (r#""amount":2250"#, r#""amount":2251"#),
        (r#""currency":"EUR""#, r#""currency":"USD""#),
        ("lt-c5@example.org", "lt-c6@example.org"),
        ("confirmed", "cancelled"),
        ("created_at\"", "x"),
    ];
    for (old, new) in changes {
        let answer = created(booking(|text| text.replace(old, new)));
        assert!(judge_order(&answer, &attempt(false)).is_err(), "{new}");
    }
    let nowhere = Answer { location: false, ..created(booking(|text| text)) };
    assert!(judge_order(&nowhere, &attempt(false)).is_err());
}

#[test]
fn a_replay_must_be_the_same_bytes() {
    let known = acknowledged(Status::Cancelled);
    assert!(matches!(judge_order(&replay(booking(|text| text)), &known), Ok(Finding::Replayed(_))));
    assert!(judge_order(&replay(booking(|text| text + " ")), &known).is_err());
    assert!(judge_order(&created(booking(|text| text)), &known).is_err(), "it is not sold a second time");
}

#[test]
fn a_key_that_was_never_accepted_cannot_be_replayed() {
    let answer = replay(booking(|text| text));
    assert!(judge_order(&answer, &attempt(false)).is_err());
    let unanswered = Attempt { unanswered: true, ..attempt(false) };
    assert!(judge_order(&answer, &unanswered).is_ok());
}

#[test]
fn refusals_are_allowed_where_they_can_be_true() {
    let refused = |code, role, attempt: &Attempt| {
        order(&refusal(code), attempt, &example(role), &names(), false).is_ok()
    };
    let new = attempt(false);
    assert!(refused(Code::SoldOut, Role::Hot, &new));
    assert!(!refused(Code::SoldOut, Role::Limited, &new), "there are tickets for everybody");
    assert!(refused(Code::LimitExceeded, Role::Limited, &new));
    assert!(!refused(Code::LimitExceeded, Role::Small, &new), "there is no limit");
    assert!(refused(Code::Overloaded, Role::Hot, &new));
    assert!(!refused(Code::NotOnSale, Role::Hot, &new));
    assert!(!refused(Code::ValidationFailed, Role::Hot, &new));
    let known = acknowledged(Status::Confirmed);
    assert!(!refused(Code::SoldOut, Role::Hot, &known), "its retry gets its 201");
    assert!(refused(Code::RedisUnavailable, Role::Hot, &known));
}

#[test]
fn another_body_under_a_key_must_be_refused_as_such() {
    let known = acknowledged(Status::Confirmed);
    let judged = |answer: &Answer| order(answer, &known, &example(Role::Hot), &names(), true);
    assert!(judged(&refusal(Code::IdempotencyKeyReused)).is_ok());
    assert!(judged(&refusal(Code::SoldOut)).is_err());
    assert!(judged(&replay(booking(|text| text))).is_err());
    assert!(judge_order(&refusal(Code::IdempotencyKeyReused), &known).is_err(), "the body was the same");
}

fn confirmed(reference: &str) -> Answer {
    Answer::of(
        200,
        booking(|text| text.replace(r#"reference":null"#, &format!(r#"reference":"{reference}""#))),
    )
}

fn judge_confirmation(answer: &Answer, attempt: &Attempt) -> Result<Finding, Wrong> {
    confirmation(answer, attempt, &example(Role::Holds), &names(), Instant::now())
}

#[test]
fn the_first_payment_reference_is_kept() {
    let mut known = acknowledged(Status::Held);
    known.life.confirmations = 2;
    let found = judge_confirmation(&confirmed("lt-p5-2"), &known);
    assert!(
        matches!(found, Ok(Finding::Confirmed { paid_by: 2 })),
        "the first may have been lost: {found:?}"
    );
    known.life.paid_by = Some(1);
    assert!(judge_confirmation(&confirmed("lt-p5-2"), &known).is_err());
    assert!(judge_confirmation(&confirmed("lt-p5-1"), &known).is_ok());
    assert!(judge_confirmation(&confirmed("lt-p6-1"), &known).is_err(), "somebody else's");
}

#[test]
fn a_confirmation_is_refused_only_for_a_reason() {
    let judged = |code, attempt: &Attempt| judge_confirmation(&refusal(code), attempt).is_ok();
    assert!(!judged(Code::HoldExpired, &acknowledged(Status::Held)), "its time is not over");
    assert!(judged(Code::HoldExpired, &overdue(Status::Held)));
    assert!(!judged(Code::HoldExpired, &overdue(Status::Confirmed)), "it was confirmed before");
    assert!(judged(Code::BookingCancelled, &acknowledged(Status::Cancelled)));
    assert!(!judged(Code::BookingCancelled, &acknowledged(Status::Held)));
    assert!(!judged(Code::SoldOut, &overdue(Status::Expired)), "the contract says hold_expired");
    assert!(judge_confirmation(&confirmed("lt-p5-1"), &acknowledged(Status::Cancelled)).is_err());
}

#[test]
fn a_cancellation_ends_a_booking_and_wakes_none() {
    let event = example(Role::Holds);
    let judged = |word: &str, attempt: &Attempt| {
        let body = booking(|text| text.replace("confirmed", word));
        cancellation(&Answer::of(200, body), attempt, &event, Instant::now()).is_ok()
    };
    assert!(judged("cancelled", &acknowledged(Status::Confirmed)));
    assert!(judged("cancelled", &acknowledged(Status::Cancelled)));
    assert!(judged("expired", &overdue(Status::Held)));
    assert!(!judged("expired", &acknowledged(Status::Held)), "its time is not over");
    assert!(!judged("cancelled", &overdue(Status::Expired)), "expired stays expired");
    assert!(!judged("confirmed", &acknowledged(Status::Confirmed)));
    let refused = refusal(Code::BookingNotFound);
    assert!(cancellation(&refused, &acknowledged(Status::Held), &event, Instant::now()).is_err());
}

#[test]
fn a_booking_that_is_read_is_as_it_was_left() {
    let event = example(Role::Holds);
    let answer = |stale| Answer { stale, ..Answer::of(200, booking(|text| text)) };
    let judged = |stale, status| look(&answer(stale), &acknowledged(status), &event, Instant::now());
    assert!(judged(false, Status::Confirmed).is_ok());
    assert!(judged(false, Status::Cancelled).is_err());
    assert!(judged(true, Status::Cancelled).is_ok(), "a stale answer may be behind");
    let other = Attempt { acknowledged: None, ..acknowledged(Status::Confirmed) };
    assert!(look(&answer(false), &other, &event, Instant::now()).is_err());
}

/// What must be lost for the answer to be right.
fn if_lost(judged: Result<Finding, Wrong>) -> Option<Lost> {
    judged.expect_err("wrong").if_lost
}

#[test]
fn a_key_whose_booking_is_lost_is_as_good_as_new() {
    let known = acknowledged(Status::Confirmed);
    let anew = booking(|text| text.replace(&BOOKING.to_string(), &Uuid::from_u128(78).to_string()));
    for answer in
        [created(anew.clone()), replay(anew), refusal(Code::SoldOut), refusal(Code::IdempotencyKeyReused)]
    {
        assert_eq!(if_lost(judge_order(&answer, &known)), Some(Lost::Booking), "{answer:?}");
    }
    let reused = order(&created(booking(|text| text)), &known, &example(Role::Hot), &names(), true);
    assert_eq!(if_lost(reused), Some(Lost::Booking));
    let other_bytes = replay(booking(|text| text + " "));
    let foreign = created(booking(|text| text.replace("lt-c5", "lt-c6")));
    for answer in [other_bytes, foreign, refusal(Code::InternalError), Answer::of(502, String::new())] {
        assert_eq!(if_lost(judge_order(&answer, &known)), None, "{answer:?}");
    }
    let limited = order(&refusal(Code::SoldOut), &known, &example(Role::Limited), &names(), false);
    assert_eq!(if_lost(limited), None, "there are tickets for everybody");
    assert_eq!(if_lost(judge_order(&refusal(Code::NotOnSale), &attempt(false))), None);
}

#[test]
fn a_booking_whose_last_decision_is_lost_is_as_it_was_before() {
    let event = example(Role::Holds);
    let mut known = overdue(Status::Confirmed);
    (known.life.confirmations, known.life.paid_by) = (2, Some(1));
    assert_eq!(if_lost(judge_confirmation(&confirmed("lt-p5-2"), &known)), Some(Lost::Change));
    assert_eq!(if_lost(judge_confirmation(&confirmed("lt-p6-1"), &known)), None, "somebody else's");
    assert_eq!(if_lost(judge_confirmation(&refusal(Code::HoldExpired), &known)), Some(Lost::Change));
    assert_eq!(if_lost(judge_confirmation(&refusal(Code::BookingCancelled), &known)), None, "by whom?");
    assert_eq!(if_lost(judge_confirmation(&refusal(Code::BookingNotFound), &known)), Some(Lost::Booking));
    assert_eq!(if_lost(judge_confirmation(&refusal(Code::InternalError), &known)), None);
    let cancelled = acknowledged(Status::Cancelled);
    assert_eq!(if_lost(judge_confirmation(&confirmed("lt-p5-1"), &cancelled)), Some(Lost::Change));

    let shown = |word: &str| Answer::of(200, booking(|text| text.replace("confirmed", word)));
    let cancelling =
        |word, attempt: &Attempt| if_lost(cancellation(&shown(word), attempt, &event, Instant::now()));
    assert_eq!(cancelling("expired", &known), Some(Lost::Change));
    assert_eq!(cancelling("cancelled", &overdue(Status::Expired)), Some(Lost::Change));
    assert_eq!(cancelling("held", &known), None, "a cancellation cancels");
    let looking = |word, attempt: &Attempt| if_lost(look(&shown(word), attempt, &event, Instant::now()));
    assert_eq!(looking("held", &known), Some(Lost::Change));
    assert_eq!(looking("cancelled", &known), None);
    assert_eq!(looking("held", &acknowledged(Status::Confirmed)), None, "it was never held");
}

#[test]
fn availability_must_add_up() {
    let event = example(Role::Hot);
    let shown = |available: i64, sold: i64| {
        let kind = |id| {
            format!(
                r#"{{"ticket_type_id":"{id}","capacity":10,"available":{available},"held":0,"sold":{sold},"on_sale":true}}"#
            )
        };
        let (a, b) = (kind(event.type_ids[0]), kind(event.type_ids[1]));
        let head = format!(r#""event_id":"{}","status":"on_sale","as_of":"x","stale":false"#, event.id);
        Answer::of(200, format!(r#"{{{head},"ticket_types":[{a},{b}]}}"#))
    };
    assert!(availability(&shown(7, 3), &event).is_ok());
    assert!(availability(&shown(7, 4), &event).is_err());
    assert!(availability(&shown(-1, 11), &event).is_err());
    assert!(availability(&refusal(Code::RedisUnavailable), &event).is_ok());
    assert!(availability(&refusal(Code::EventNotFound), &event).is_err());
}
