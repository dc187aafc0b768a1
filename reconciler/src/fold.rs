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

/// What a run of decisions amounts to.
#[derive(Debug, Default)]
pub(crate) struct Changes<'a> {
    /// Events by id, as their last decision left them.
    pub(crate) events: BTreeMap<EventId, EventChange<'a>>,
    /// Bookings by id, as their last decision left them. Ordered, so that two writers lock rows in one order.
    pub(crate) bookings: BTreeMap<BookingId, BookingChange<'a>>,
    /// What Redis counted right after the last decision that touched a ticket type.
    pub(crate) totals: BTreeMap<TicketTypeId, (Shard, EventId, Totals)>,
}

#[derive(Debug)]
pub(crate) struct EventChange<'a> {
    pub(crate) shard: Shard,
    pub(crate) position: Position,
    pub(crate) image: &'a EventImage,
}

#[derive(Debug)]
pub(crate) struct BookingChange<'a> {
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
                let folded = BookingChange { event_id, decided_at: record.decided_at, image: &change.image };
                self.bookings.insert(change.id, folded);
                for totals in &change.totals {
                    self.totals.insert(totals.ticket_type_id, (record.shard, event_id, *totals));
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
                    self.totals.insert(ticket_type.id, (record.shard, event_id, totals));
                }
            }
            Change::Barrier { .. } => {}
        }
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
