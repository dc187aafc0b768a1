//! Reduces decisions to one change a row: the last image of each booking and event. Pure.

use std::collections::{BTreeMap, HashMap};

use boxoffice_schema::event::EventImage;
use boxoffice_schema::ids::{BookingId, EventId, TicketTypeId};
use boxoffice_schema::image::BookingImage;
use boxoffice_schema::record::{Change, Record, Totals};
use boxoffice_schema::status::BookingStatus;
use chrono::{DateTime, Utc};

use boxoffice_schema::position::Position;
use boxoffice_schema::shard::Shard;

use crate::alarm::{Alarm, AlarmKind};

/// What a run of decisions amounts to.
#[derive(Debug, Default)]
pub(crate) struct Changes<'a> {
    /// Events by id, as their last decision left them.
    pub(crate) events: BTreeMap<EventId, EventChange<'a>>,
    /// Bookings by id, as their last decision left them. Ordered, so that two writers lock rows in one order.
    pub(crate) bookings: BTreeMap<BookingId, BookingChange<'a>>,
    /// What Redis counted right after the last decision that touched a ticket type.
    pub(crate) totals: BTreeMap<TicketTypeId, (Shard, EventId, Totals)>,
    /// Ticket types of which Redis counted more than there is, after whichever decision: a later one may have given it back.
    pub(crate) oversold: BTreeMap<TicketTypeId, Alarm>,
}

#[derive(Debug)]
pub(crate) struct EventChange<'a> {
    pub(crate) shard: Shard,
    pub(crate) position: Position,
    pub(crate) image: &'a EventImage,
}

#[derive(Debug)]
pub(crate) struct BookingChange<'a> {
    /// Whether the booking was made by one of the decisions, so that it should be no row yet.
    pub(crate) is_new: bool,
    pub(crate) event_id: EventId,
    pub(crate) decided_at: DateTime<Utc>,
    pub(crate) image: &'a BookingImage,
}

impl<'a> Changes<'a> {
    /// The changes of decisions that are given in the order of each shard's sequence.
    pub(crate) fn of(records: impl IntoIterator<Item = &'a Record>) -> Self {
        let mut changes = Self::default();
        for record in records {
            changes.add(record);
        }
        changes
    }

    fn add(&mut self, record: &'a Record) {
        let Some(event_id) = record.event_id else { return };
        match &record.change {
            Change::Booking(change) => {
                let before = self.bookings.get(&change.id);
                let is_new = record.kind.makes_booking() || before.is_some_and(|before| before.is_new);
                let (decided_at, image) = (record.decided_at, &change.image);
                self.bookings.insert(change.id, BookingChange { is_new, event_id, decided_at, image });
                for totals in &change.totals {
                    self.note(record.shard, event_id, *totals);
                }
            }
            Change::Event(image) => {
                let folded = EventChange { shard: record.shard, position: record.position, image };
                self.events.insert(event_id, folded);
                for ticket_type in &image.ticket_types {
                    let totals = Totals {
                        ticket_type_id: ticket_type.id,
                        capacity: ticket_type.capacity,
                        held: ticket_type.held,
                        sold: ticket_type.sold,
                    };
                    self.note(record.shard, event_id, totals);
                }
            }
            Change::Barrier { .. } => {}
        }
    }

    /// Of the totals the last ones stay, but each must add up: what was sold twice and given back within one batch leaves no
    /// trace in any count. No decision may say more than its capacity: none is lowered below what is held and sold, and what
    /// is only said once more or was mended is Redis' counters as they are.
    fn note(&mut self, shard: Shard, event_id: EventId, totals: Totals) {
        if u64::from(totals.held) + u64::from(totals.sold) > u64::from(totals.capacity) {
            let alarm = || Alarm::of_overselling(shard, event_id, totals.ticket_type_id);
            self.oversold.entry(totals.ticket_type_id).or_insert_with(alarm);
        }
        self.totals.insert(totals.ticket_type_id, (shard, event_id, totals));
    }
}

impl Alarm {
    /// Without numbers: they change with every decision, and the alarm shall stay one.
    fn of_overselling(shard: Shard, event_id: EventId, ticket_type: TicketTypeId) -> Self {
        let detail = format!(
            "ticket type {ticket_type}: after a decision Redis held and sold more than the capacity, even if it no longer does"
        );
        Self { shard, event_id: Some(event_id), kind: AlarmKind::Oversold, detail, counts: None }
    }
}

/// A booking row that a statement really changed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChangedRow {
    pub(crate) id: BookingId,
    /// None where the row is new.
    pub(crate) before: Option<BookingStatus>,
}

/// By how much the counts of a ticket type change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Delta {
    pub(crate) held: i64,
    pub(crate) sold: i64,
}

/// The changes of the counts that follow from the rows that changed, and from nothing else.
pub(crate) fn deltas(changes: &Changes<'_>, rows: &[ChangedRow]) -> HashMap<TicketTypeId, Delta> {
    let mut deltas: HashMap<TicketTypeId, Delta> = HashMap::new();
    for row in rows {
        let Some(change) = changes.bookings.get(&row.id) else { continue };
        for item in &change.image.items {
            let delta = deltas.entry(item.ticket_type_id).or_default();
            let quantity = i64::from(item.quantity);
            delta.move_by(row.before, -quantity);
            delta.move_by(Some(change.image.status), quantity);
        }
    }
    deltas
}

impl Delta {
    fn move_by(&mut self, status: Option<BookingStatus>, quantity: i64) {
        match status {
            Some(BookingStatus::Held) => self.held += quantity,
            Some(BookingStatus::Confirmed) => self.sold += quantity,
            Some(BookingStatus::Cancelled | BookingStatus::Expired) | None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_records::{booked, decided, held, published};
    use boxoffice_schema::record::Kind;

    fn rows(changes: &Changes<'_>, before: Option<BookingStatus>) -> Vec<ChangedRow> {
        changes.bookings.keys().map(|id| ChangedRow { id: *id, before }).collect()
    }

    fn only_delta(changes: &Changes<'_>, rows: &[ChangedRow]) -> Delta {
        deltas(changes, rows).into_values().next().unwrap_or_default()
    }

    #[test]
    fn a_booking_that_is_decided_upon_twice_is_one_change_with_its_last_image() {
        let held = held(1, 2, "a");
        let confirmed = decided(&held, 3, Kind::Confirmed);
        let log = [held, confirmed];
        let changes = Changes::of(&log);
        assert_eq!(changes.bookings.len(), 1);
        let change = changes.bookings.values().next().unwrap();
        assert_eq!(change.image.status, BookingStatus::Confirmed);
        assert_eq!(change.image.first_status, BookingStatus::Held);
        assert_eq!(change.image.position.sequence, 3);
        assert!(change.is_new, "the first of both has made it");
        assert_eq!(only_delta(&changes, &rows(&changes, None)), Delta { held: 0, sold: 1 });
    }

    #[test]
    fn counts_move_from_the_status_before_to_the_status_after() {
        let start = held(1, 2, "a");
        let cases = [
            (Kind::Confirmed, Some(BookingStatus::Held), Delta { held: -1, sold: 1 }),
            (Kind::Cancelled, Some(BookingStatus::Held), Delta { held: -1, sold: 0 }),
            (Kind::Cancelled, Some(BookingStatus::Confirmed), Delta { held: 0, sold: -1 }),
            (Kind::Expired, Some(BookingStatus::Held), Delta { held: -1, sold: 0 }),
            (Kind::Confirmed, Some(BookingStatus::Expired), Delta { held: 0, sold: 1 }),
            (Kind::Cancelled, None, Delta { held: 0, sold: 0 }),
            (Kind::Confirmed, None, Delta { held: 0, sold: 1 }),
        ];
        for (kind, before, wanted) in cases {
            let log = [decided(&start, 3, kind)];
            let changes = Changes::of(&log);
            assert_eq!(only_delta(&changes, &rows(&changes, before)), wanted, "{kind:?} after {before:?}");
        }
    }

    #[test]
    fn a_row_that_did_not_change_moves_no_count() {
        let log = [booked(1, 2, "a"), booked(1, 3, "b")];
        let changes = Changes::of(&log);
        assert!(deltas(&changes, &[]).is_empty());
    }

    #[test]
    fn the_totals_are_those_of_the_last_decision_that_touched_a_ticket_type() {
        let log = [published(1, 1), booked(1, 2, "a")];
        let changes = Changes::of(&log);
        assert_eq!(changes.events.len(), 1);
        let (_, _, totals) = changes.totals.values().next().unwrap();
        assert_eq!((changes.totals.len(), totals.sold), (1, 1));
        let log = [booked(1, 2, "a"), published(1, 3)];
        let changes = Changes::of(&log);
        assert_eq!(changes.totals.values().next().unwrap().2.sold, 0);
    }

    /// The record, of a Redis that counts so many as sold of one ticket.
    fn of_one_ticket(mut record: Record, sold: u32) -> Record {
        let Change::Booking(change) = &mut record.change else { panic!("not of a booking") };
        for totals in &mut change.totals {
            *totals = Totals { capacity: 1, held: 0, sold, ..*totals };
        }
        record
    }

    #[test]
    fn what_was_oversold_and_given_back_in_one_batch_is_an_alarm() {
        let (first, second) = (booked(1, 2, "a"), booked(1, 3, "b"));
        let cancelled = decided(&second, 4, Kind::Cancelled);
        let log = [of_one_ticket(first, 1), of_one_ticket(second, 2), of_one_ticket(cancelled, 1)];
        let changes = Changes::of(&log);
        assert_eq!(changes.totals.values().next().unwrap().2.sold, 1, "nobody else would see it");
        let alarms: Vec<_> = changes.oversold.values().collect();
        assert_eq!(alarms.len(), 1);
        assert_eq!((alarms[0].kind, alarms[0].event_id), (AlarmKind::Oversold, log[0].event_id));
        assert!(Changes::of(&log[..1]).oversold.is_empty(), "the last ticket may be sold");
    }

    #[test]
    fn an_event_that_is_said_with_more_than_its_capacity_is_an_alarm() {
        let mut record = published(1, 1);
        let Change::Event(event) = &mut record.change else { panic!("not of an event") };
        event.ticket_types[0].held = event.ticket_types[0].capacity;
        assert!(Changes::of([&record]).oversold.is_empty());
        let Change::Event(event) = &mut record.change else { panic!("not of an event") };
        event.ticket_types[0].sold = 1;
        assert_eq!(Changes::of([&record]).oversold.len(), 1);
    }
}
