//! Holds one answer against the contract and what the client already knows.
//!
//! Nothing here does I/O or changes anything. An `Err` is an answer that the contract does not allow in this situation;
//! it says why, and one is enough for a bad verdict.

use tokio::time::Instant;

use crate::{
    client::Answer,
    contract::{Code, read_refusal},
    history::{Acknowledged, Attempt, Names, Order, hash_body},
    plan::{CURRENCY, Event},
    wire::{Availability, Booking, Money, Status},
};

/// What an answer says.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Finding {
    /// A new booking, confirmed or held as ordered.
    Booked(Acknowledged),
    /// The answer of an earlier request with the same key.
    Replayed(Acknowledged),
    /// Confirmed; the reference kept is that of this confirmation.
    Confirmed { paid_by: u8 },
    /// The booking's state after a cancellation.
    Cancelled(Status),
    /// Something was read and is plausible.
    Read,
    /// Refused.
    Refused(Code),
    /// Wrong, because something is lost that may be.
    Excused,
}

/// Judges the answer to an order. `reused` says that the key was deliberately sent with another body.
pub(crate) fn order(
    answer: &Answer,
    attempt: &Attempt,
    event: &Event,
    names: &Names,
    reused: bool,
) -> Result<Finding, String> {
    if answer.status != 201 {
        return refused_order(read_refusal(answer)?, attempt, event, reused);
    }
    if reused {
        return Err("a key that was used for another body was accepted".to_owned());
    }
    let booking = parse_booking(answer)?;
    check_booking(&booking, &attempt.order, event, names)?;
    if !answer.location {
        return Err("201 without Location".to_owned());
    }
    let seen = Acknowledged { booking: booking.id, body: hash_body(&answer.body) };
    match (answer.replayed, attempt.acknowledged) {
        (false, None) => Ok(Finding::Booked(seen)),
        (false, Some(_)) => Err("one key was sold twice (201 without Idempotent-Replayed)".to_owned()),
        (true, Some(first)) if first.body == seen.body => Ok(Finding::Replayed(seen)),
        (true, Some(_)) => Err("a replay differs from the first answer".to_owned()),
        (true, None) if attempt.unanswered || attempt.refused_in_doubt => Ok(Finding::Replayed(seen)),
        (true, None) => Err("Idempotent-Replayed for a key that was never accepted".to_owned()),
    }
}

/// A key that was acknowledged is answered with its 201 whatever has happened since, or not at all.
fn refused_order(code: Code, attempt: &Attempt, event: &Event, reused: bool) -> Result<Finding, String> {
    let known = attempt.acknowledged.is_some();
    let allowed = match code {
        Code::IdempotencyKeyReused => reused,
        Code::SoldOut => !known && event.is_scarce(),
        Code::LimitExceeded => !known && event.has_limit(),
        code => code.is_unavailable(),
    };
    if allowed {
        return Ok(Finding::Refused(code));
    }
    let known = if known { ", although the key was acknowledged" } else { "" };
    Err(format!("an order for {:?} was refused with {}{known}", event.plan.role, code.word()))
}

/// Judges the answer to a confirmation.
pub(crate) fn confirmation(
    answer: &Answer,
    attempt: &Attempt,
    event: &Event,
    names: &Names,
    now: Instant,
) -> Result<Finding, String> {
    let life = &attempt.life;
    if answer.status != 200 {
        let code = read_refusal(answer)?;
        let over = attempt.hold_may_be_over(event.plan.hold_seconds, now);
        let allowed = match code {
            Code::HoldExpired => life.permits(Status::Expired, over),
            Code::BookingCancelled => life.permits(Status::Cancelled, over),
            code => code.is_unavailable(),
        };
        let refused = || format!("a booking last seen {:?} cannot be confirmed: {}", life.last, code.word());
        return if allowed { Ok(Finding::Refused(code)) } else { Err(refused()) };
    }
    let booking = own_booking(answer, attempt)?;
    if booking.status != Status::Confirmed || life.last == Status::Cancelled {
        return Err(format!("{:?} after confirming a booking last seen {:?}", booking.status, life.last));
    }
    let reference = booking.payment_reference.as_deref().unwrap_or_default();
    let candidates = match life.paid_by {
        Some(first) => first..=first,
        None => 1..=life.confirmations,
    };
    candidates
        .into_iter()
        .find(|attempt_number| names.payment(attempt.order.number, *attempt_number) == reference)
        .map(|paid_by| Finding::Confirmed { paid_by })
        .ok_or_else(|| format!("payment reference {reference:?} is not the first one sent"))
}

/// Judges the answer to a cancellation.
pub(crate) fn cancellation(
    answer: &Answer,
    attempt: &Attempt,
    event: &Event,
    now: Instant,
) -> Result<Finding, String> {
    if answer.status != 200 {
        let code = read_refusal(answer)?;
        let refused = || format!("a cancellation was refused with {}", code.word());
        return if code.is_unavailable() { Ok(Finding::Refused(code)) } else { Err(refused()) };
    }
    let life = &attempt.life;
    let booking = own_booking(answer, attempt)?;
    let over = attempt.hold_may_be_over(event.plan.hold_seconds, now);
    let allowed = match booking.status {
        Status::Cancelled => life.last != Status::Expired || life.may_confirm,
        Status::Expired => life.permits(Status::Expired, over),
        Status::Held | Status::Confirmed => false,
    };
    if allowed {
        return Ok(Finding::Cancelled(booking.status));
    }
    Err(format!("{:?} after cancelling a booking last seen {:?}", booking.status, life.last))
}

/// Judges a booking that was read.
pub(crate) fn look(
    answer: &Answer,
    attempt: &Attempt,
    event: &Event,
    now: Instant,
) -> Result<Finding, String> {
    if answer.status != 200 {
        let code = read_refusal(answer)?;
        let refused = || format!("an acknowledged booking cannot be read: {}", code.word());
        return if code.is_unavailable() { Ok(Finding::Refused(code)) } else { Err(refused()) };
    }
    let booking = own_booking(answer, attempt)?;
    let over = attempt.hold_may_be_over(event.plan.hold_seconds, now);
    if answer.stale || attempt.life.permits(booking.status, over) {
        return Ok(Finding::Read);
    }
    Err(format!("a booking last seen {:?} is shown as {:?}", attempt.life.last, booking.status))
}

/// Judges an event's availability: whatever is being sold meanwhile, each ticket is in exactly one place.
pub(crate) fn availability(answer: &Answer, event: &Event) -> Result<Finding, String> {
    if answer.status != 200 {
        let code = read_refusal(answer)?;
        let refused = || format!("availability was refused with {}", code.word());
        return if code.is_unavailable() { Ok(Finding::Refused(code)) } else { Err(refused()) };
    }
    let shown: Availability =
        serde_json::from_slice(&answer.body).map_err(|error| format!("availability: {error}"))?;
    if shown.event_id != event.id || shown.ticket_types.len() != event.type_ids.len() {
        return Err("availability of another event".to_owned());
    }
    match shown.ticket_types.iter().find(|kind| !kind.adds_up()) {
        Some(kind) if !shown.stale => Err(format!("availability does not add up: {kind:?}")),
        _ => Ok(Finding::Read),
    }
}

fn parse_booking(answer: &Answer) -> Result<Booking<'_>, String> {
    serde_json::from_slice(&answer.body).map_err(|error| format!("status {}: {error}", answer.status))
}

fn own_booking<'a>(answer: &'a Answer, attempt: &Attempt) -> Result<Booking<'a>, String> {
    let booking = parse_booking(answer)?;
    match attempt.acknowledged {
        Some(first) if first.booking == booking.id => Ok(booking),
        _ => Err("another booking was answered".to_owned()),
    }
}

/// Whether a booking is the one that was ordered, in the state in which it was made.
fn check_booking(booking: &Booking<'_>, order: &Order, event: &Event, names: &Names) -> Result<(), String> {
    let status = if order.hold { Status::Held } else { Status::Confirmed };
    if booking.event_id != event.id || booking.customer != names.customer(order.customer) {
        return Err("a booking of another event or customer".to_owned());
    }
    if booking.status != status || booking.expires_at.is_some() != order.hold {
        return Err(format!(
            "ordered {status:?}, booked {:?} until {:?}",
            booking.status, booking.expires_at
        ));
    }
    let lines = order.items.lines();
    let mut total = 0;
    for &(kind, quantity) in lines {
        let price = event.plan.types[usize::from(kind)].price;
        let id = event.type_ids[usize::from(kind)];
        total += price * i64::from(quantity);
        let booked = booking.items.iter().any(|item| {
            item.ticket_type_id == id
                && item.quantity == u32::from(quantity)
                && is_amount(item.unit_price, price)
        });
        if !booked {
            return Err(format!("{quantity} of {id} at {price} were ordered, booked: {:?}", booking.items));
        }
    }
    if booking.items.len() != lines.len() || !is_amount(booking.total, total) {
        return Err(format!(
            "ordered {lines:?} for {total}, booked {:?} for {:?}",
            booking.items, booking.total
        ));
    }
    Ok(())
}

fn is_amount(money: Money<'_>, amount: i64) -> bool {
    money.amount == amount && money.currency == CURRENCY
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
