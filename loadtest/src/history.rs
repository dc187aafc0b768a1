//! What each client asked for and was told: the evidence that PostgreSQL is held to.
//!
//! An attempt is one idempotency key. Only attempts that may have a row are kept, so memory is bounded by the tickets
//! and the unanswered requests (about 120 bytes each), not by the refusals that make up most of an on-sale.

use std::{
    hash::{DefaultHasher, Hasher},
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::time::{Duration, Instant};
use uuid::Uuid;

use crate::wire::Status;

/// The clock of the server that ends a hold and the clock here need not tick alike; a hold may seem this much shorter.
const CLOCK_TOLERANCE: Duration = Duration::from_millis(250);

/// Most ticket types in one booking.
pub(crate) const MAX_ITEMS: usize = 3;

/// The lines of an order: ticket types by their position in the event, with quantities, without an allocation.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Items {
    lines: [(u8, u16); MAX_ITEMS],
    length: u8,
}

impl Items {
    /// The lines given. More than [`MAX_ITEMS`] are cut off.
    pub(crate) fn new(lines: &[(u8, u16)]) -> Self {
        let mut items = Self::default();
        for (slot, line) in items.lines.iter_mut().zip(lines) {
            *slot = *line;
            items.length += 1;
        }
        items
    }

    /// The lines in the order in which they are sent.
    pub(crate) fn lines(&self) -> &[(u8, u16)] {
        &self.lines[..usize::from(self.length)]
    }

    /// Tickets over all lines.
    pub(crate) fn tickets(&self) -> u64 {
        self.lines().iter().map(|(_, quantity)| u64::from(*quantity)).sum()
    }
}

/// What a buyer wants. Key and customer are kept as numbers and written out by [`Names`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order {
    /// The number of the key.
    pub(crate) number: u64,
    /// The number of the customer.
    pub(crate) customer: u64,
    /// The event's position in the plan.
    pub(crate) event: usize,
    pub(crate) items: Items,
    pub(crate) hold: bool,
}

/// Writes and reads keys, customers and payment references; the run's name keeps runs apart.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    run: String,
}

impl Names {
    /// Names of the run `run`.
    pub(crate) fn new(run: String) -> Self {
        Self { run }
    }

    /// The run's own name.
    pub(crate) fn run(&self) -> &str {
        &self.run
    }

    /// The idempotency key of a number.
    pub(crate) fn key(&self, number: u64) -> String {
        format!("{}-{number}", self.run)
    }

    /// The number of an idempotency key, if it is one of this run's.
    pub(crate) fn key_number(&self, key: &str) -> Option<u64> {
        key.strip_prefix(&self.run)?.strip_prefix('-')?.parse().ok()
    }

    /// The customer of a number.
    pub(crate) fn customer(&self, number: u64) -> String {
        format!("{}-c{number}@example.org", self.run)
    }

    /// The payment reference of a key's `attempt`-th confirmation.
    pub(crate) fn payment(&self, number: u64, attempt: u8) -> String {
        format!("{}-p{number}-{attempt}", self.run)
    }
}

/// The first 201 that was seen for a key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acknowledged {
    pub(crate) booking: Uuid,
    /// A hash of the body's bytes; every replay must have the same.
    pub(crate) body: u64,
}

/// Hashes a body, for comparison within this process only.
pub(crate) fn hash_body(body: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(body);
    hasher.finish()
}

/// The life of a booking after its 201, as far as the client knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    /// The last state that an answer showed.
    pub(crate) last: Status,
    /// A confirmation was sent whose effect is unknown, and it may still take effect.
    pub(crate) may_confirm: bool,
    /// A cancellation was sent whose effect is unknown, and it may still take effect.
    pub(crate) may_cancel: bool,
    /// Confirmations sent.
    pub(crate) confirmations: u8,
    /// The confirmation whose reference must have been kept, where that is certain.
    pub(crate) paid_by: Option<u8>,
}

impl Life {
    /// A booking as its 201 shows it.
    pub(crate) fn new(last: Status) -> Self {
        Self { last, may_confirm: false, may_cancel: false, confirmations: 0, paid_by: None }
    }

    /// Whether the booking may now be found in state `found`, where `over` says whether its hold may have ended.
    pub(crate) fn permits(&self, found: Status, over: bool) -> bool {
        match (self.last, found) {
            (last, found) if last == found => true,
            (Status::Cancelled, _) => false,
            (Status::Confirmed, Status::Cancelled) => self.may_cancel,
            (Status::Confirmed, _) => false,
            (Status::Held, Status::Expired) => over,
            (Status::Held | Status::Expired, Status::Confirmed) => self.may_confirm,
            (Status::Held, Status::Cancelled) => self.may_cancel,
            (Status::Expired, Status::Cancelled) => self.may_confirm && self.may_cancel,
            (Status::Held | Status::Expired, _) => false,
        }
    }
}

/// One idempotency key and what became of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    pub(crate) order: Order,
    pub(crate) first_sent: Instant,
    pub(crate) acknowledged: Option<Acknowledged>,
    pub(crate) life: Life,
    /// When the first 201 was seen, in milliseconds since 1970; 0 where none was.
    pub(crate) booked_ms: u64,
    /// When an answer last told something that must be kept, the first 201 or a later state.
    pub(crate) told_ms: u64,
    /// Some request with this key was never answered, so it may have been, or may yet be, carried out.
    pub(crate) unanswered: bool,
    /// Some request with this key was refused in a way that leaves its effect open.
    pub(crate) refused_in_doubt: bool,
    /// Times that the order was sent again.
    pub(crate) resent: u8,
}

impl Attempt {
    /// An order about to be sent for the first time.
    pub(crate) fn new(order: Order, now: Instant) -> Self {
        let life = Life::new(if order.hold { Status::Held } else { Status::Confirmed });
        let (unanswered, refused_in_doubt) = (false, false);
        Self {
            order,
            first_sent: now,
            acknowledged: None,
            life,
            booked_ms: 0,
            told_ms: 0,
            unanswered,
            refused_in_doubt,
            resent: 0,
        }
    }

    /// Notes that the first 201 was just seen.
    pub(crate) fn note_booked(&mut self) {
        self.note_told();
        self.booked_ms = self.told_ms;
    }

    /// Notes that an answer has just told something that must be kept.
    pub(crate) fn note_told(&mut self) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.told_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    }

    /// Whether PostgreSQL may have a row for it, so that it must be remembered.
    pub(crate) fn may_have_a_row(&self) -> bool {
        self.acknowledged.is_some() || self.unanswered || self.refused_in_doubt
    }

    /// Whether the booking may be found in state `found` where the last decision about it is lost: in an earlier state, or in
    /// what has become of that. `over` says whether its hold may have ended.
    pub(crate) fn may_have_gone_back_to(&self, found: Status, over: bool) -> bool {
        match found {
            Status::Held => self.order.hold,
            Status::Expired => self.order.hold && over,
            Status::Confirmed => !self.order.hold || self.life.confirmations > 0,
            Status::Cancelled => self.life.may_cancel,
        }
    }

    /// Whether its hold may have ended by `now`. The hold began after the request was sent.
    pub(crate) fn hold_may_be_over(&self, hold_seconds: Option<u32>, now: Instant) -> bool {
        let length = Duration::from_secs(u64::from(hold_seconds.unwrap_or(600)));
        self.order.hold && now.saturating_duration_since(self.first_sent) + CLOCK_TOLERANCE >= length
    }
}

#[cfg(test)]
mod tests {
    use Status::{Cancelled, Confirmed, Expired, Held};

    use super::*;

    const ALL: [Status; 4] = [Held, Confirmed, Cancelled, Expired];

    fn permitted(life: Life, over: bool) -> Vec<Status> {
        ALL.into_iter().filter(|found| life.permits(*found, over)).collect()
    }

    #[test]
    fn what_was_answered_last_stands() {
        for last in ALL {
            assert_eq!(permitted(Life::new(last), false), [last]);
        }
    }

    #[test]
    fn a_hold_may_expire_only_when_its_time_is_over() {
        assert_eq!(permitted(Life::new(Held), false), [Held]);
        assert_eq!(permitted(Life::new(Held), true), [Held, Expired]);
    }

    #[test]
    fn an_unanswered_confirmation_may_have_worked() {
        let life = |last| Life { may_confirm: true, ..Life::new(last) };
        assert_eq!(permitted(life(Held), true), [Held, Confirmed, Expired]);
        assert_eq!(permitted(life(Expired), true), [Confirmed, Expired]);
        assert_eq!(permitted(life(Cancelled), true), [Cancelled]);
    }

    #[test]
    fn an_unanswered_cancellation_may_have_worked() {
        let life = |last| Life { may_cancel: true, ..Life::new(last) };
        assert_eq!(permitted(life(Confirmed), false), [Confirmed, Cancelled]);
        assert_eq!(permitted(life(Held), false), [Held, Cancelled]);
        assert_eq!(permitted(life(Expired), true), [Expired]);
    }

    #[test]
    fn a_booking_whose_last_decision_is_lost_is_as_before_or_as_that_has_become() {
        let gone_back = |hold, life, over| {
            let order = Order { number: 1, customer: 1, event: 0, items: Items::default(), hold };
            let attempt = Attempt { life, ..Attempt::new(order, Instant::now()) };
            ALL.into_iter().filter(|found| attempt.may_have_gone_back_to(*found, over)).collect::<Vec<_>>()
        };
        let confirmed = Life { confirmations: 1, ..Life::new(Confirmed) };
        assert_eq!(gone_back(true, confirmed, false), [Held, Confirmed]);
        assert_eq!(gone_back(true, confirmed, true), [Held, Confirmed, Expired]);
        assert_eq!(gone_back(true, Life::new(Cancelled), false), [Held]);
        assert_eq!(gone_back(false, Life::new(Cancelled), true), [Confirmed]);
        let in_doubt = Life { may_cancel: true, ..Life::new(Confirmed) };
        assert_eq!(gone_back(false, in_doubt, true), [Confirmed, Cancelled]);
    }

    #[test]
    fn keys_are_read_back_and_those_of_others_are_not() {
        let names = Names::new("lt0a1b2c3d".to_owned());
        assert_eq!(names.key_number(&names.key(17)), Some(17));
        assert_eq!(names.key_number("lt0a1b2c3d-x"), None);
        assert_eq!(names.key_number("somebody-else-17"), None);
    }

    #[test]
    fn items_keep_their_order_and_number() {
        let items = Items::new(&[(2, 1), (0, 3)]);
        assert_eq!(items.lines(), [(2, 1), (0, 3)]);
        assert_eq!(items.tickets(), 4);
    }
}
