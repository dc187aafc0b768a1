use super::*;
use crate::{
    history::{Acknowledged, Items, Life, Order},
    plan::{Role, example},
};

const BOOKING: Uuid = Uuid::from_u128(77);

fn names() -> Names {
    Names::new("lt".to_owned())
}

/// An acknowledged booking of two tickets of type 0, and a second key that was never answered.
fn ledger() -> Ledger {
    let order = |number| {
        let (event, items) = (0, Items::new(&[(0, 2)]));
        Order { number, customer: number, event, items, hold: false }
    };
    let seen = Acknowledged { booking: BOOKING, body: 1 };
    let first = Attempt { acknowledged: Some(seen), ..Attempt::new(order(5), Instant::now()) };
    let second = Attempt { unanswered: true, ..Attempt::new(order(6), Instant::now()) };
    Ledger { attempts: vec![first, second], ..Ledger::default() }
}

fn row() -> Row {
    Row {
        id: BOOKING,
        created_at: Utc::now(),
        customer: "lt-c5@example.org".to_owned(),
        idempotency_key: "lt-5".to_owned(),
        status: "confirmed".to_owned(),
        total_amount: 2_000,
        currency: "EUR".to_owned(),
        payment_reference: None,
    }
}

fn item() -> ItemRow {
    ItemRow { booking_id: BOOKING, ticket_type_id: Uuid::from_u128(10), quantity: 2, unit_price: 1_000 }
}

/// What is found in these rows.
fn found(rows: &[(Row, Vec<ItemRow>)], ledger: &Ledger) -> RowCheck {
    let mut check = RowCheck { seen: vec![0; ledger.attempts.len()], ..RowCheck::default() };
    for (row, items) in rows {
        check.take(row, items, 0, &example(Role::Hot), ledger, &names());
    }
    check.find_lost(ledger, &names());
    check
}

fn faults(row: Row, items: Vec<ItemRow>) -> Vec<Fault> {
    let check = found(&[(row, items)], &ledger());
    Fault::ALL.iter().copied().filter(|fault| check.faults.counts.get(*fault) > 0).collect()
}

#[test]
fn a_row_that_was_acknowledged_is_no_fault() {
    let check = found(&[(row(), vec![item()])], &ledger());
    assert!(check.faults.examples.is_empty(), "{:?}", check.faults.examples);
    assert_eq!((check.counts.total, check.counts.acknowledged), (1, 1));
    assert_eq!(check.sums[&(0, 0)], Tickets { held: 0, sold: 2 });
    assert_eq!(check.active[&(0, 5, None)], 2);
}

#[test]
fn an_acknowledged_booking_without_a_row_is_lost() {
    let check = found(&[], &ledger());
    assert_eq!(check.faults.counts.lost, 1, "the unanswered one may be missing");
}

/// Lost, and excused, where it was acknowledged and last told of at these times, and what was acknowledged in a window may be gone.
fn lost(booked_ms: u64, told_ms: u64) -> (u64, u64) {
    let mut ledger = ledger();
    ledger.attempts[0] = Attempt { booked_ms, told_ms, ..ledger.attempts[0] };
    let windows = r#"{"acknowledged":true,"windows":[{"from_ms":100,"to_ms":200}]}"#;
    let windows = serde_json::from_str(windows).unwrap();
    let mut check = RowCheck { seen: vec![0; ledger.attempts.len()], windows, ..RowCheck::default() };
    check.find_lost(&ledger, &names());
    (check.faults.counts.lost, check.counts.excused)
}

#[test]
fn a_booking_may_be_missing_that_was_made_in_a_window_and_not_one_that_was_confirmed_in_it() {
    assert_eq!(lost(150, 180), (0, 1));
    assert_eq!(lost(50, 150), (1, 0));
    assert_eq!(lost(150, 250), (1, 0), "it was there behind the loss");
}

#[test]
fn a_row_that_nobody_asked_for_is_unexplained() {
    let stranger = |key: &str| Row { id: Uuid::from_u128(78), idempotency_key: key.to_owned(), ..row() };
    for key in ["lt-7", "another"] {
        let check = found(&[(row(), vec![item()]), (stranger(key), vec![item()])], &ledger());
        assert_eq!(check.faults.counts.unexplained_rows, 1, "{key}");
        assert_eq!(check.sums[&(0, 0)].sold, 4, "its tickets are gone all the same");
    }
}

#[test]
fn a_row_of_an_unanswered_request_is_explained() {
    let late = Row {
        id: Uuid::from_u128(78),
        idempotency_key: "lt-6".to_owned(),
        customer: "lt-c6@example.org".to_owned(),
        ..row()
    };
    let check = found(&[(row(), vec![item()]), (late, vec![item()])], &ledger());
    assert!(check.faults.examples.is_empty(), "{:?}", check.faults.examples);
    assert_eq!(check.counts.unanswered, 1);
}

#[test]
fn a_second_row_for_a_key_is_a_duplicate() {
    let second = Row { id: Uuid::from_u128(78), ..row() };
    let check = found(&[(row(), vec![item()]), (second, vec![item()])], &ledger());
    assert_eq!(check.faults.counts.duplicate_keys, 1);
    assert_eq!(check.faults.counts.mismatched_rows, 1, "and it is not the booking that was acknowledged");
}

#[test]
fn a_row_that_differs_from_the_order_is_mismatched() {
    let differing = [
        (Row { id: Uuid::from_u128(78), ..row() }, vec![item()]),
        (Row { customer: "lt-c6@example.org".to_owned(), ..row() }, vec![item()]),
        (Row { total_amount: 1, ..row() }, vec![item()]),
        (Row { currency: "USD".to_owned(), ..row() }, vec![item()]),
        (row(), vec![]),
        (row(), vec![item(), item()]),
        (row(), vec![ItemRow { quantity: 3, ..item() }]),
        (row(), vec![ItemRow { unit_price: 3, ..item() }]),
        (row(), vec![ItemRow { ticket_type_id: Uuid::from_u128(11), ..item() }]),
    ];
    for (row, items) in differing {
        let text = format!("{row:?} {items:?}");
        assert_eq!(faults(row, items), [Fault::Mismatched], "{text}");
    }
}

#[test]
fn the_payment_that_was_acknowledged_is_in_the_row() {
    let mut ledger = ledger();
    ledger.attempts[0].life = Life { paid_by: Some(1), ..Life::new(Status::Confirmed) };
    let paid = |reference: &str| Row { payment_reference: Some(reference.to_owned()), ..row() };
    let mismatched = |row| found(&[(row, vec![item()])], &ledger).faults.counts.mismatched_rows;
    assert_eq!(mismatched(paid("lt-p5-1")), 0);
    assert_eq!(mismatched(paid("lt-p5-2")), 1);
    assert_eq!(mismatched(row()), 1);
}

#[test]
fn a_state_that_contradicts_the_last_answer_is_illegal() {
    for status in ["cancelled", "expired", "held", "lost"] {
        let row = Row { status: status.to_owned(), ..row() };
        assert_eq!(faults(row, vec![item()]), [Fault::IllegalStatus], "{status}");
    }
}
