//! Holds one answer against the contract and what the client already knows.
//!
//! Nothing here does I/O or changes anything. An `Err` is an answer that the contract does not allow in this situation;
//! it says why, and one is enough for a bad verdict, unless what explains it is a loss that the mode allows.

use std::fmt;

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

/// Why an answer is not allowed.
#[derive(Clone, Debug)]
pub(crate) struct Wrong {
    pub(crate) why: String,
    /// What must be lost for it to be right. None, where no loss explains it: a 500, an answer that breaks the contract,
    /// somebody else's booking.
    pub(crate) if_lost: Option<Lost>,
}

/// What a client was told, and a fault may have taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Lost {
    /// The booking, with whatever was decided about it.
    Booking,
    /// The last decision about it.
    Change,
}

impl Wrong {
    /// Wrong, unless this is lost.
    pub(crate) fn unless(lost: Lost, why: impl Into<String>) -> Self {
        Self { why: why.into(), if_lost: Some(lost) }
    }
}

impl From<String> for Wrong {
    fn from(why: String) -> Self {
        Self { why, if_lost: None }
    }
}

impl From<&str> for Wrong {
    fn from(why: &str) -> Self {
        why.to_owned().into()
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.why)
    }
}

/// Judges the answer to an order. `reused` says that the key was deliberately sent with another body.
pub(crate) fn order(
    answer: &Answer,
    attempt: &Attempt,
    event: &Event,
    names: &Names,
    reused: bool,
) -> Result<Finding, Wrong> {
    if answer.status != 201 {
        return refused_order(read_refusal(answer)?, attempt, event, reused);
    }
    let booking = parse_booking(answer)?;
    if reused {
        check_buyer(&booking, &attempt.order, event, names)?;
        return Err(Wrong::unless(Lost::Booking, "a key that was used for another body was accepted"));
    }
    check_booking(&booking, &attempt.order, event, names)?;
    if !answer.location {
        return Err("201 without Location".into());
    }
    let seen = Acknowledged { booking: booking.id, body: hash_body(&answer.body) };
    match (answer.replayed, attempt.acknowledged) {
        (false, None) => Ok(Finding::Booked(seen)),
        (false, Some(_)) => {
            Err(Wrong::unless(Lost::Booking, "one key was sold twice (201 without Idempotent-Replayed)"))
        }
        (true, Some(first)) if first.body == seen.body => Ok(Finding::Replayed(seen)),
        (true, Some(first)) if first.booking == seen.booking => {
            Err("a replay differs from the first answer".into())
        }
        // Of a booking that the key made since.
        (true, Some(_)) => {
            Err(Wrong::unless(Lost::Booking, "a replay shows another booking than the first answer"))
        }
        (true, None) if attempt.unanswered || attempt.refused_in_doubt => Ok(Finding::Replayed(seen)),
        (true, None) => Err("Idempotent-Replayed for a key that was never accepted".into()),
    }
}

/// A key that was acknowledged is answered with its 201 whatever has happened since, or not at all.
fn refused_order(code: Code, attempt: &Attempt, event: &Event, reused: bool) -> Result<Finding, Wrong> {
    let known = attempt.acknowledged.is_some();
    let is_possible = match code {
        Code::SoldOut => event.is_scarce(),
        Code::LimitExceeded => event.has_limit(),
        _ => false,
    };
    let allowed = match code {
        Code::IdempotencyKeyReused => reused,
        Code::SoldOut | Code::LimitExceeded => !known && is_possible,
        code => code.is_unavailable(),
    };
    if allowed {
        return Ok(Finding::Refused(code));
    }
    let although = if known { ", although the key was acknowledged" } else { "" };
    let why = format!("an order for {:?} was refused with {}{although}", event.plan.role, code.word());
    // Without its booking a key is as good as new, and another body may have been accepted under it since.
    let would_be_right = is_possible || code == Code::IdempotencyKeyReused;
    Err(if known && would_be_right { Wrong::unless(Lost::Booking, why) } else { why.into() })
}

/// A refusal of something about a booking that was acknowledged. That there is none may be true.
fn refused(code: Code, why: String) -> Wrong {
    if code == Code::BookingNotFound { Wrong::unless(Lost::Booking, why) } else { why.into() }
}

/// A state in which the booking is shown, and may not be. It may be an earlier one, or what has become of that.
fn shown(status: Status, attempt: &Attempt, over: bool, why: String) -> Wrong {
    if attempt.may_have_gone_back_to(status, over) { Wrong::unless(Lost::Change, why) } else { why.into() }
}

/// Judges the answer to a confirmation.
pub(crate) fn confirmation(
    answer: &Answer,
    attempt: &Attempt,
    event: &Event,
    names: &Names,
    now: Instant,
) -> Result<Finding, Wrong> {
    let life = &attempt.life;
    if answer.status != 200 {
        let code = read_refusal(answer)?;
        let over = attempt.hold_may_be_over(event.plan.hold_seconds, now);
        let implied = match code {
            Code::HoldExpired => Some(Status::Expired),
            Code::BookingCancelled => Some(Status::Cancelled),
            _ => None,
        };
        if implied.map_or(code.is_unavailable(), |status| life.permits(status, over)) {
            return Ok(Finding::Refused(code));
        }
        let why = format!("a booking last seen {:?} cannot be confirmed: {}", life.last, code.word());
        return Err(match implied {
            Some(status) => shown(status, attempt, over, why),
            None => refused(code, why),
        });
    }
    let booking = own_booking(answer, attempt)?;
    if booking.status != Status::Confirmed || life.last == Status::Cancelled {
        let why = format!("{:?} after confirming a booking last seen {:?}", booking.status, life.last);
        // A cancellation may be lost; a confirmation that confirms nothing is wrong whatever was.
        let may_be_lost = booking.status == Status::Confirmed;
        return Err(if may_be_lost { Wrong::unless(Lost::Change, why) } else { why.into() });
    }
    let reference = booking.payment_reference.as_deref().unwrap_or_default();
    let paid_by =
        (1..=life.confirmations).find(|number| names.payment(attempt.order.number, *number) == reference);
    let why = || format!("payment reference {reference:?} is not the first one sent");
    match (paid_by, life.paid_by) {
        (Some(paid_by), first) if first.is_none_or(|first| first == paid_by) => {
            Ok(Finding::Confirmed { paid_by })
        }
        (Some(_), _) => Err(Wrong::unless(Lost::Change, why())),
        (None, _) => Err(why().into()),
    }
}

/// Judges the answer to a cancellation.
pub(crate) fn cancellation(
    answer: &Answer,
    attempt: &Attempt,
    event: &Event,
    now: Instant,
) -> Result<Finding, Wrong> {
    if answer.status != 200 {
        let code = read_refusal(answer)?;
        let why = || format!("a cancellation was refused with {}", code.word());
        return if code.is_unavailable() { Ok(Finding::Refused(code)) } else { Err(refused(code, why())) };
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
    let why = format!("{:?} after cancelling a booking last seen {:?}", booking.status, life.last);
    Err(match booking.status {
        // That it had expired may be lost.
        Status::Cancelled => Wrong::unless(Lost::Change, why),
        Status::Expired => shown(booking.status, attempt, over, why),
        Status::Held | Status::Confirmed => why.into(),
    })
}

/// Judges a booking that was read.
pub(crate) fn look(
    answer: &Answer,
    attempt: &Attempt,
    event: &Event,
    now: Instant,
) -> Result<Finding, Wrong> {
    if answer.status != 200 {
        let code = read_refusal(answer)?;
        let why = || format!("an acknowledged booking cannot be read: {}", code.word());
        return if code.is_unavailable() { Ok(Finding::Refused(code)) } else { Err(refused(code, why())) };
    }
    let booking = own_booking(answer, attempt)?;
    let over = attempt.hold_may_be_over(event.plan.hold_seconds, now);
    if answer.stale || attempt.life.permits(booking.status, over) {
        return Ok(Finding::Read);
    }
    let why = format!("a booking last seen {:?} is shown as {:?}", attempt.life.last, booking.status);
    Err(shown(booking.status, attempt, over, why))
}

/// Judges an event's availability: whatever is being sold meanwhile, each ticket is in exactly one place.
pub(crate) fn availability(answer: &Answer, event: &Event) -> Result<Finding, Wrong> {
    if answer.status != 200 {
        let code = read_refusal(answer)?;
        let why = || format!("availability was refused with {}", code.word());
        return if code.is_unavailable() { Ok(Finding::Refused(code)) } else { Err(why().into()) };
    }
    let shown: Availability =
        serde_json::from_slice(&answer.body).map_err(|error| format!("availability: {error}"))?;
    if shown.event_id != event.id || shown.ticket_types.len() != event.type_ids.len() {
        return Err("availability of another event".into());
    }
    match shown.ticket_types.iter().find(|kind| !kind.adds_up()) {
        Some(kind) if !shown.stale => Err(format!("availability does not add up: {kind:?}").into()),
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

fn check_buyer(booking: &Booking<'_>, order: &Order, event: &Event, names: &Names) -> Result<(), String> {
    if booking.event_id == event.id && booking.customer == names.customer(order.customer) {
        Ok(())
    } else {
        Err("a booking of another event or customer".to_owned())
    }
}

/// Whether a booking is the one that was ordered, in the state in which it was made.
fn check_booking(booking: &Booking<'_>, order: &Order, event: &Event, names: &Names) -> Result<(), String> {
    check_buyer(booking, order, event, names)?;
    let status = if order.hold { Status::Held } else { Status::Confirmed };
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
