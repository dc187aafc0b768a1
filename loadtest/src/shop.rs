//! What all users share, and how one request of theirs is sent, timed and listed.

use std::{fmt::Write as _, time::Duration};

use reqwest::Url;
use tokio::time::Instant;

use crate::{
    client::{Answer, Call, Client, Silence},
    history::{Attempt, Items, Order},
    judge::{Finding, Wrong},
    losses::Losses,
    plan::Event,
    scenario::Market,
    schedule::{Schedule, Slot},
    tally::{Tally, Timing},
};

/// What all users share.
#[derive(Debug)]
pub(crate) struct Shop {
    pub(crate) client: Client,
    pub(crate) market: Market,
    pub(crate) schedule: Schedule,
    pub(crate) tally: Tally,
    pub(crate) losses: Losses,
}

/// How a request is listed in goose's report.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    pub(crate) method: &'static str,
    pub(crate) name: &'static str,
    pub(crate) took: Duration,
    /// 0 where there was no answer.
    pub(crate) status: u16,
    /// Whether the answer is one that the contract allows, refusals included.
    pub(crate) good: bool,
}

/// An answer held against the contract; `None` where there was no answer.
pub(crate) type Judged = Option<Result<Finding, Wrong>>;

/// A request that was sent, with its answer or silence.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) answer: Result<Answer, Silence>,
    pub(crate) timing: Timing,
}

impl Sent {
    /// Holds the answer, if there is one, against the contract.
    pub(crate) fn judge(&self, judge: impl FnOnce(&Answer) -> Result<Finding, Wrong>) -> Judged {
        self.answer.as_ref().ok().map(judge)
    }

    /// Whether the client stopped waiting.
    pub(crate) fn timed_out(&self) -> bool {
        matches!(self.answer, Err(Silence::TimedOut))
    }

    /// How goose's report lists it.
    pub(crate) fn line(&self, method: &'static str, name: &'static str, good: bool) -> Line {
        let status = self.answer.as_ref().map_or(0, |answer| answer.status);
        Line { method, name, took: self.timing.service, status, good }
    }
}

/// Sends a request and times it, from the send and from the time in the schedule.
pub(crate) async fn exchange(shop: &Shop, slot: Slot, call: Call) -> Sent {
    let start = Instant::now();
    shop.schedule.note_sent(start);
    let answer = shop.client.send(call).await;
    let end = Instant::now();
    let timing = Timing {
        service: end - start,
        intended: end - start.min(slot.intended),
        lag: start.saturating_duration_since(slot.intended),
    };
    Sent { answer, timing }
}

/// The call that books `items` under the order's key.
pub(crate) fn order_call(shop: &Shop, order: &Order, items: Items) -> Call {
    let event = &shop.market.events[order.event];
    let mut body = String::with_capacity(256);
    let customer = shop.market.names.customer(order.customer);
    let _infallible = write!(body, r#"{{"customer":"{customer}","items":["#);
    for (position, &(kind, quantity)) in items.lines().iter().enumerate() {
        let comma = if position == 0 { "" } else { "," };
        let id = event.type_ids[usize::from(kind)];
        let _infallible = write!(body, r#"{comma}{{"ticket_type_id":"{id}","quantity":{quantity}}}"#);
    }
    body.push_str(if order.hold { r#"],"hold":true}"# } else { "]}" });
    let key = Some(shop.market.names.key(order.number));
    Call { key, ..Call::post(event.bookings_url.clone(), Some(body)) }
}

/// The URL of an acknowledged booking.
pub(crate) fn own_url(event: &Event, attempt: &Attempt, tail: &str) -> Url {
    let mut url = event.bookings_url.clone();
    if let Some(seen) = attempt.acknowledged {
        url.set_path(&format!("{}/{}{tail}", url.path(), seen.booking));
    }
    url
}
