//! What the scripts should do, as plainly as it can be said: no counter is kept, everything is counted from the
//! bookings.

use std::collections::BTreeMap;

use boxoffice_schema::status::{BookingStatus, EventStatus};

/// A ticket type.
#[derive(Clone, Debug)]
pub struct Type {
    pub capacity: u32,
    pub limit: Option<u32>,
}

/// An event.
#[derive(Clone, Debug)]
pub struct Event {
    pub status: EventStatus,
    pub open: Option<u64>,
    pub close: Option<u64>,
    pub limit: Option<u32>,
    pub types: Vec<Type>,
}

/// What a booking request says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub customer: u8,
    pub hold_ms: u64,
    pub items: Vec<(u8, u16)>,
}

/// A booking.
#[derive(Clone, Debug)]
pub struct Booking {
    pub event: usize,
    pub request: Request,
    pub status: BookingStatus,
    pub expires: u64,
    pub payment: Option<String>,
}

/// What a change of an event says.
#[derive(Clone, Debug)]
pub enum Change {
    Capacity(u8, u32),
    Status(EventStatus),
    Limit(Option<u32>),
    Open(Option<u64>),
    Close(Option<u64>),
}

/// What should become of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Changed,
    Unchanged,
    KeyReused,
    NotOnSale,
    LimitExceeded,
    SoldOut,
    AlreadyCancelled,
    HoldExpired,
    CapacityBelowSold,
    Closed,
    WindowInverted,
}

/// All events and bookings of a shard; a booking is known by its event and the number of its key.
#[derive(Clone, Debug)]
pub struct Model {
    pub now: u64,
    pub events: Vec<Event>,
    pub bookings: BTreeMap<(usize, u8), Booking>,
    pub decisions: u64,
}

/// Whether one decision may move a booking from one state to the next.
fn may_become(status: BookingStatus, next: BookingStatus) -> bool {
    matches!(
        (status, next),
        (BookingStatus::Held, BookingStatus::Confirmed | BookingStatus::Cancelled | BookingStatus::Expired)
            | (BookingStatus::Confirmed, BookingStatus::Cancelled)
            | (BookingStatus::Expired, BookingStatus::Confirmed)
    )
}

impl Model {
    pub fn count(&self, event: usize, ordinal: u8, status: BookingStatus) -> u32 {
        self.tickets(|b| b.event == event && b.status == status, |o| o == ordinal)
    }

    pub fn used_by(&self, event: usize, customer: u8, ordinal: Option<u8>) -> u32 {
        let live = |b: &Booking| matches!(b.status, BookingStatus::Held | BookingStatus::Confirmed);
        self.tickets(
            |b| b.event == event && b.request.customer == customer && live(b),
            |o| ordinal.is_none_or(|ordinal| ordinal == o),
        )
    }

    fn tickets(&self, of: impl Fn(&Booking) -> bool, ordinal: impl Fn(u8) -> bool) -> u32 {
        let items = self.bookings.values().filter(|b| of(b)).flat_map(|b| &b.request.items);
        items.filter(|(o, _)| ordinal(*o)).map(|(_, quantity)| u32::from(*quantity)).sum()
    }

    fn check_take(&self, event: usize, request: &Request, counted: bool) -> Option<Answer> {
        let e = &self.events[event];
        let in_window =
            e.open.is_none_or(|open| self.now >= open) && e.close.is_none_or(|close| self.now < close);
        if e.status != EventStatus::OnSale || !in_window {
            return Some(Answer::NotOnSale);
        }
        let extra = |quantity: u16| if counted { 0 } else { u32::from(quantity) };
        let short = request.items.iter().any(|(ordinal, quantity)| {
            let taken = self.count(event, *ordinal, BookingStatus::Held)
                + self.count(event, *ordinal, BookingStatus::Confirmed);
            e.types[usize::from(*ordinal)].capacity - taken < extra(*quantity)
        });
        if short {
            return Some(Answer::SoldOut);
        }
        for (ordinal, quantity) in &request.items {
            let used = self.used_by(event, request.customer, Some(*ordinal));
            if e.types[usize::from(*ordinal)].limit.is_some_and(|limit| used + extra(*quantity) > limit) {
                return Some(Answer::LimitExceeded);
            }
        }
        let total: u32 = request.items.iter().map(|(_, quantity)| extra(*quantity)).sum();
        if e.limit.is_some_and(|limit| self.used_by(event, request.customer, None) + total > limit) {
            return Some(Answer::LimitExceeded);
        }
        None
    }

    pub fn book(&mut self, event: usize, key: u8, request: &Request) -> Answer {
        if let Some(known) = self.bookings.get(&(event, key)) {
            return if known.request == *request { Answer::Unchanged } else { Answer::KeyReused };
        }
        if let Some(refusal) = self.check_take(event, request, false) {
            return refusal;
        }
        let status = if request.hold_ms > 0 { BookingStatus::Held } else { BookingStatus::Confirmed };
        let booking = Booking {
            event,
            request: request.clone(),
            status,
            expires: self.now + request.hold_ms,
            payment: None,
        };
        self.bookings.insert((event, key), booking);
        self.decisions += 1;
        Answer::Changed
    }

    pub fn confirm(&mut self, id: (usize, u8), payment: &str) -> Answer {
        let booking = self.bookings[&id].clone();
        let refusal = match booking.status {
            BookingStatus::Confirmed => return Answer::Unchanged,
            BookingStatus::Cancelled => return Answer::AlreadyCancelled,
            BookingStatus::Held if self.now < booking.expires => None,
            BookingStatus::Held => self.check_take(booking.event, &booking.request, true),
            BookingStatus::Expired => self.check_take(booking.event, &booking.request, false),
        };
        if refusal.is_some() {
            return Answer::HoldExpired;
        }
        self.set(id, BookingStatus::Confirmed);
        self.bookings.get_mut(&id).unwrap().payment = Some(payment.to_owned());
        Answer::Changed
    }

    pub fn cancel(&mut self, id: (usize, u8)) -> Answer {
        match self.bookings[&id].status {
            BookingStatus::Cancelled | BookingStatus::Expired => Answer::Unchanged,
            BookingStatus::Held | BookingStatus::Confirmed => self.set(id, BookingStatus::Cancelled),
        }
    }

    pub fn expire(&mut self, id: (usize, u8)) -> Answer {
        let booking = &self.bookings[&id];
        if booking.status == BookingStatus::Held && self.now >= booking.expires {
            self.set(id, BookingStatus::Expired)
        } else {
            Answer::Unchanged
        }
    }

    fn set(&mut self, id: (usize, u8), status: BookingStatus) -> Answer {
        let booking = self.bookings.get_mut(&id).unwrap();
        assert!(may_become(booking.status, status), "{:?} -> {status:?}", booking.status);
        booking.status = status;
        self.decisions += 1;
        Answer::Changed
    }

    /// The answer, and of how many kinds of decision it consists.
    pub fn amend(&mut self, event: usize, changes: &[Change]) -> Answer {
        let before = self.events[event].clone();
        let mut after = before.clone();
        let (mut amended, mut capacity, mut status) = (false, false, false);
        for change in changes {
            match *change {
                Change::Capacity(ordinal, value) => {
                    let held = self.count(event, ordinal, BookingStatus::Held);
                    let taken = held + self.count(event, ordinal, BookingStatus::Confirmed);
                    let current = &mut after.types[usize::from(ordinal)].capacity;
                    if *current != value && value < taken {
                        return Answer::CapacityBelowSold;
                    }
                    capacity |= *current != value;
                    *current = value;
                }
                Change::Status(value) => {
                    if after.status != value && after.status == EventStatus::Closed {
                        return Answer::Closed;
                    }
                    status |= after.status != value;
                    after.status = value;
                }
                Change::Limit(value) => amended |= std::mem::replace(&mut after.limit, value) != value,
                Change::Open(value) => amended |= std::mem::replace(&mut after.open, value) != value,
                Change::Close(value) => amended |= std::mem::replace(&mut after.close, value) != value,
            }
        }
        if let (Some(open), Some(close)) = (after.open, after.close)
            && close <= open
        {
            return Answer::WindowInverted;
        }
        if !(amended || capacity || status) {
            return Answer::Unchanged;
        }
        self.events[event] = after;
        self.decisions += u64::from(amended) + u64::from(capacity) + u64::from(status);
        Answer::Changed
    }
}
