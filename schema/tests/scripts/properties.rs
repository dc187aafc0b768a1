//! Random sequences of decisions against the real scripts and the model: the same answers, and the same state after
//! each step.

use std::collections::HashMap;

use boxoffice_schema::event::EventImage;
use boxoffice_schema::fingerprint::CustomerHash;
use boxoffice_schema::image::BookingImage;
use boxoffice_schema::record::{Change as RecordChange, Kind, Record};
use boxoffice_schema::scripts::{
    Cancel, Confirm, Decision, EventChange, EventOutcome, Expire, Outcome, Target,
};
use boxoffice_schema::status::{BookingStatus, EventStatus};
use boxoffice_schema::text::{Customer, PaymentReference};
use boxoffice_schema::time;
use proptest::prelude::*;

use crate::model::{Answer, Booking, Change, Event, Model, Request, Type};
use crate::shard::{START_MS, TestShard, book, event};

const EVENTS: usize = 2;
const TYPES: u8 = 3;
const KEYS: u8 = 12;
const CUSTOMERS: u8 = 3;

#[derive(Clone, Debug)]
enum Step {
    Book(Vec<(usize, u8, Request)>),
    Confirm(Vec<(usize, u8)>),
    Cancel(Vec<(usize, u8)>),
    Expire(Vec<(usize, u8)>),
    Amend(usize, Vec<Change>),
    Advance(u64),
}

fn request() -> impl Strategy<Value = Request> {
    let items = proptest::collection::btree_map(0..TYPES, 1..4_u16, 1..=usize::from(TYPES));
    (0..CUSTOMERS, prop_oneof![Just(0), Just(3_000)], items).prop_map(|(customer, hold_ms, items)| Request {
        customer,
        hold_ms,
        items: items.into_iter().collect(),
    })
}

fn change() -> impl Strategy<Value = Change> {
    let near = |range: std::ops::Range<i64>| {
        proptest::option::of(range.prop_map(|offset| START_MS.checked_add_signed(offset).unwrap()))
    };
    prop_oneof![
        4 => (0..TYPES, 1..15_u32).prop_map(|(ordinal, capacity)| Change::Capacity(ordinal, capacity)),
        4 => prop_oneof![Just(EventStatus::OnSale), Just(EventStatus::Paused)].prop_map(Change::Status),
        1 => Just(Change::Status(EventStatus::Closed)),
        2 => proptest::option::of(1..12_u32).prop_map(Change::Limit),
        1 => near(-5_000..10_000).prop_map(Change::Open),
        1 => near(500..8_000).prop_map(Change::Close),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let id = || (0..EVENTS, 0..KEYS);
    let ids = || proptest::collection::vec(id(), 1..5);
    prop_oneof![
        8 => proptest::collection::vec((0..EVENTS, 0..KEYS, request()), 1..6).prop_map(Step::Book),
        4 => ids().prop_map(Step::Confirm),
        3 => ids().prop_map(Step::Cancel),
        3 => ids().prop_map(Step::Expire),
        2 => (0..EVENTS, proptest::collection::vec(change(), 1..4)).prop_map(|(event, changes)| Step::Amend(event, changes)),
        3 => (1..3_000_u64).prop_map(Step::Advance),
    ]
}

/// The model beside the real thing.
struct Pair {
    model: Model,
    shard: TestShard,
    events: Vec<EventImage>,
    targets: HashMap<(usize, u8), Target>,
}

impl Pair {
    fn new() -> Self {
        let mut shard = TestShard::certified();
        let mut events: Vec<EventImage> = (0..EVENTS).map(|_| event(&[5, 8, 3])).collect();
        events[1].per_customer_limit = Some(6);
        events[1].ticket_types[0].per_customer_limit = Some(2);
        for event in &events {
            assert!(matches!(shard.publish(event), EventOutcome::Changed(_)));
        }
        let of = |event: &EventImage| Event {
            status: event.status,
            open: None,
            close: None,
            limit: event.per_customer_limit,
            types: event
                .ticket_types
                .iter()
                .map(|t| Type { capacity: t.capacity, limit: t.per_customer_limit })
                .collect(),
        };
        let model = Model {
            now: START_MS,
            events: events.iter().map(of).collect(),
            bookings: [].into(),
            decisions: EVENTS as u64,
        };
        Self { model, shard, events, targets: HashMap::new() }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Book(requests) => self.book(requests),
            Step::Confirm(ids) => self.settle(
                ids,
                |target, id| Confirm { target, payment_reference: payment(id) },
                |model, id| model.confirm(id, payment(id).as_str()),
            ),
            Step::Cancel(ids) => self.settle(ids, |target, _| Cancel { target }, Model::cancel),
            Step::Expire(ids) => self.settle(ids, |target, _| Expire { target }, Model::expire),
            Step::Amend(event, changes) => self.amend(*event, changes),
            Step::Advance(ms) => {
                self.model.now += ms;
                self.shard.set_clock(self.model.now);
            }
        }
    }

    fn book(&mut self, requests: &[(usize, u8, Request)]) {
        let batch: Vec<_> = requests
            .iter()
            .map(|(e, key, r)| {
                book(&self.events[*e], &key.to_string(), &r.customer.to_string(), r.hold_ms, &r.items)
            })
            .collect();
        let outcomes = self.shard.decide(&batch).unwrap();
        for (((e, key, request), sent), outcome) in requests.iter().zip(&batch).zip(&outcomes) {
            assert_eq!(answer(outcome), self.model.book(*e, *key, request), "{request:?}");
            if matches!(outcome, Outcome::Changed(_)) {
                self.targets.insert((*e, *key), *sent.target());
            }
        }
    }

    fn settle<D: Decision>(
        &mut self,
        ids: &[(usize, u8)],
        make: impl Fn(Target, (usize, u8)) -> D,
        expect: impl Fn(&mut Model, (usize, u8)) -> Answer,
    ) {
        let known: Vec<_> = ids.iter().copied().filter(|id| self.targets.contains_key(id)).collect();
        let batch: Vec<D> = known.iter().map(|id| make(self.targets[id], *id)).collect();
        let outcomes = self.shard.decide(&batch).unwrap();
        for (id, outcome) in known.into_iter().zip(&outcomes) {
            assert_eq!(answer(outcome), expect(&mut self.model, id), "{id:?}");
        }
    }

    fn amend(&mut self, event: usize, changes: &[Change]) {
        let to_time = |ms: Option<u64>| ms.map(|ms| time::from_millis(ms).unwrap());
        let sent: Vec<EventChange> = changes
            .iter()
            .map(|change| match *change {
                Change::Capacity(ordinal, capacity) => EventChange::Capacity(ordinal, capacity),
                Change::Status(status) => EventChange::Status(status),
                Change::Limit(limit) => EventChange::PerCustomerLimit(limit),
                Change::Open(at) => EventChange::SalesOpenAt(to_time(at)),
                Change::Close(at) => EventChange::SalesCloseAt(to_time(at)),
            })
            .collect();
        let got = match self.shard.amend(self.events[event].id, &sent) {
            EventOutcome::Changed(_) => Answer::Changed,
            EventOutcome::Unchanged(_) => Answer::Unchanged,
            EventOutcome::Closed => Answer::Closed,
            EventOutcome::CapacityBelowSold => Answer::CapacityBelowSold,
            EventOutcome::WindowInverted => Answer::WindowInverted,
            other => panic!("{other:?}"),
        };
        assert_eq!(got, self.model.amend(event, changes), "{changes:?}");
    }

    /// Everything that Redis holds, against the model.
    fn compare(&mut self) {
        for e in 0..EVENTS {
            self.compare_event(e);
            self.compare_customers(e);
        }
        let mut held: Vec<_> =
            self.model.bookings.iter().filter(|(_, b)| b.status == BookingStatus::Held).collect();
        held.sort_by_key(|(_, b)| b.expires);
        let mut expected: Vec<_> =
            held.iter().map(|(id, _)| (self.events[id.0].id, self.targets[id].booking_id)).collect();
        let mut expiries = self.shard.expiries();
        expected.sort();
        expiries.sort();
        assert_eq!(expiries, expected);
        assert_eq!(self.shard.shard_field("seq"), self.model.decisions);
        for (id, booking) in self.model.bookings.clone() {
            let image = self.shard.booking(&self.targets[&id]).expect("an acknowledged booking is there");
            compare_booking(&image, &booking);
        }
    }

    fn compare_event(&mut self, e: usize) {
        let image = self.shard.event(self.events[e].id);
        let model = &self.model.events[e];
        assert_eq!(image.status, model.status);
        assert_eq!(image.per_customer_limit, model.limit);
        assert_eq!(image.sales_open_at.map(time::to_millis), model.open);
        assert_eq!(image.sales_close_at.map(time::to_millis), model.close);
        for (ordinal, (got, expected)) in (0..).zip(image.ticket_types.iter().zip(&model.types)) {
            assert_eq!(got.capacity, expected.capacity);
            assert_eq!(got.held, self.model.count(e, ordinal, BookingStatus::Held), "held of {ordinal}");
            assert_eq!(got.sold, self.model.count(e, ordinal, BookingStatus::Confirmed), "sold of {ordinal}");
            assert!(got.available().is_some(), "oversold: {got:?}");
        }
    }

    fn compare_customers(&mut self, e: usize) {
        let mut counters = self.shard.customers(self.events[e].id);
        assert_eq!(counters.remove(&Vec::new()), Some(0));
        let mut expected = HashMap::new();
        for customer in 0..CUSTOMERS {
            let hash = CustomerHash::of(&Customer::try_from(customer.to_string()).unwrap());
            expected.insert(hash.field().to_vec(), u64::from(self.model.used_by(e, customer, None)));
            for ordinal in (0..TYPES).filter(|o| self.model.events[e].types[usize::from(*o)].limit.is_some())
            {
                let field = [hash.field(), &[ordinal]].concat();
                expected.insert(field, u64::from(self.model.used_by(e, customer, Some(ordinal))));
            }
        }
        expected.retain(|_, count| *count > 0);
        assert_eq!(counters, expected);
    }

    /// The log alone must give the same state: positions without a gap, and in the last record of each booking and
    /// event what Redis holds.
    fn compare_log(&mut self) {
        let records = self.shard.records();
        let sequences: Vec<u64> = records.iter().map(|record| record.position.sequence).collect();
        assert_eq!(sequences, (1..=self.model.decisions).collect::<Vec<_>>());
        let mut bookings = HashMap::new();
        let mut totals = HashMap::new();
        for record in &records {
            assert_eq!(Record::decode(&record.to_json()).as_ref(), Ok(record));
            match &record.change {
                RecordChange::Booking(change) => {
                    assert_eq!(change.image.position, record.position);
                    bookings.insert(change.id, change.image.clone());
                    totals.extend(
                        change.totals.iter().map(|t| (t.ticket_type_id, (t.capacity, t.held, t.sold))),
                    );
                }
                RecordChange::Event(event) => {
                    assert!(record.kind != Kind::Published || event.status == EventStatus::OnSale);
                    totals.extend(event.ticket_types.iter().map(|t| (t.id, (t.capacity, t.held, t.sold))));
                }
                RecordChange::Barrier { .. } => panic!("no recovery took place"),
            }
        }
        for (id, target) in self.targets.clone() {
            assert_eq!(self.shard.booking(&target).as_ref(), bookings.get(&target.booking_id), "{id:?}");
        }
        for e in 0..EVENTS {
            for t in self.shard.event(self.events[e].id).ticket_types {
                assert_eq!(totals[&t.id], (t.capacity, t.held, t.sold));
            }
        }
    }
}

fn payment((event, key): (usize, u8)) -> PaymentReference {
    PaymentReference::try_from(format!("pay-{event}-{key}")).unwrap()
}

fn answer(outcome: &Outcome) -> Answer {
    match outcome {
        Outcome::Changed(_) => Answer::Changed,
        Outcome::Replayed(..) | Outcome::Unchanged(_) => Answer::Unchanged,
        Outcome::KeyReused => Answer::KeyReused,
        Outcome::NotOnSale => Answer::NotOnSale,
        Outcome::LimitExceeded => Answer::LimitExceeded,
        Outcome::SoldOut => Answer::SoldOut,
        Outcome::AlreadyCancelled(_) => Answer::AlreadyCancelled,
        Outcome::HoldExpired(_) => Answer::HoldExpired,
        Outcome::Missing | Outcome::OutboxFull | Outcome::Unverified | Outcome::RateLimited => {
            panic!("{outcome:?}")
        }
    }
}

fn compare_booking(image: &BookingImage, booking: &Booking) {
    assert_eq!(image.status, booking.status);
    assert_eq!(image.customer.as_str(), booking.request.customer.to_string());
    assert_eq!(image.payment_reference.as_ref().map(|p| p.as_str().to_owned()), booking.payment);
    let items: Vec<(u8, u16)> = image.items.iter().map(|item| (item.ordinal, item.quantity)).collect();
    assert_eq!(items, booking.request.items);
    let expires = (booking.request.hold_ms > 0).then_some(booking.expires);
    assert_eq!(image.hold_expires_at.map(time::to_millis), expires);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_decisions_leaves_the_state_that_the_model_says(steps in proptest::collection::vec(step(), 1..40)) {
        let mut pair = Pair::new();
        for step in &steps {
            pair.take(step);
            pair.compare();
        }
        pair.compare_log();
    }
}
