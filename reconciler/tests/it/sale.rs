//! An on-sale as Redis would decide it: the records of one shard, with counts that add up.

use boxoffice_schema::event::{EventImage, TicketTypeImage};
use boxoffice_schema::fingerprint::{CustomerHash, Fingerprint, IdempotencyField};
use boxoffice_schema::ids::{BookingId, EventId, TicketTypeId};
use boxoffice_schema::image::{BookingImage, ImageItem};
use boxoffice_schema::money::Currency;
use boxoffice_schema::position::Position;
use boxoffice_schema::record::{BookingChange, Change, Kind, Record, Totals};
use boxoffice_schema::shard::{Shard, ShardCount};
use boxoffice_schema::status::{BookingStatus, EventStatus};
use boxoffice_schema::text::{Caller, Customer, IdempotencyKey, Name};
use boxoffice_schema::time::truncate;
use chrono::{TimeDelta, Utc};

/// One event with one ticket type, and its shard's position.
pub(crate) struct Sale {
    pub(crate) shard: Shard,
    pub(crate) position: Position,
    pub(crate) event: EventImage,
}

fn name(text: &str) -> Name {
    Name::try_from(text.to_owned()).unwrap()
}

/// An event whose id belongs to the shard.
pub(crate) fn event_of(shard: Shard, shards: ShardCount, capacity: u32) -> EventImage {
    let id = std::iter::repeat_with(EventId::new).find(|id| shards.shard_of(*id) == shard).unwrap();
    let now = truncate(Utc::now());
    EventImage {
        id,
        name: name("Concert"),
        starts_at: now + TimeDelta::days(30),
        sales_open_at: None,
        sales_close_at: None,
        per_customer_limit: None,
        hold_seconds: 600,
        currency: Currency::parse("EUR").unwrap(),
        status: EventStatus::OnSale,
        slots: 4,
        created_at: now,
        updated_at: now,
        ticket_types: vec![TicketTypeImage {
            id: TicketTypeId::new(),
            name: name("Standing"),
            price: 5_000,
            per_customer_limit: None,
            capacity,
            held: 0,
            sold: 0,
        }],
    }
}

impl Sale {
    /// An event that is not on sale yet, in an epoch that a first recovery has begun.
    pub(crate) fn new(shard: Shard, capacity: u32) -> Self {
        let event = event_of(shard, ShardCount::new(2).unwrap(), capacity);
        Self { shard, position: Position { epoch: 1, sequence: 0 }, event }
    }

    pub(crate) fn ticket_type(&mut self) -> &mut TicketTypeImage {
        &mut self.event.ticket_types[0]
    }

    /// The barrier with which the present epoch began.
    pub(crate) fn barrier(&self) -> Record {
        let old_epoch = self.position.epoch - 1;
        Record {
            shard: self.shard,
            position: self.position,
            kind: Kind::Barrier,
            event_id: None,
            decided_at: truncate(Utc::now()),
            change: Change::Barrier { old_epoch },
        }
    }

    fn next(&mut self) -> Position {
        self.position.sequence += 1;
        self.position
    }

    /// A decision about the event as it is now.
    pub(crate) fn event_record(&mut self, kind: Kind) -> Record {
        let position = self.next();
        Record {
            shard: self.shard,
            position,
            kind,
            event_id: Some(self.event.id),
            decided_at: truncate(Utc::now()),
            change: Change::Event(Box::new(self.event.clone())),
        }
    }

    /// The event is put on sale.
    pub(crate) fn publish(&mut self) -> Record {
        self.event_record(Kind::Published)
    }

    /// The event has another capacity.
    pub(crate) fn change_capacity(&mut self, capacity: u32) -> Record {
        self.ticket_type().capacity = capacity;
        self.event_record(Kind::CapacityChanged)
    }

    /// Tickets are sold at once.
    pub(crate) fn book(&mut self, key: &str, quantity: u16) -> Record {
        self.make(key, quantity, Kind::Booked)
    }

    /// Tickets are reserved.
    pub(crate) fn hold(&mut self, key: &str, quantity: u16) -> Record {
        self.make(key, quantity, Kind::Held)
    }

    fn make(&mut self, key: &str, quantity: u16, kind: Kind) -> Record {
        let position = self.next();
        let now = truncate(Utc::now());
        let held = kind == Kind::Held;
        let status = if held { BookingStatus::Held } else { BookingStatus::Confirmed };
        let (caller, key) = (Caller::anonymous(), IdempotencyKey::parse(key.as_bytes()).unwrap());
        let customer = Customer::try_from("ann".to_owned()).unwrap();
        let ticket_type_id = self.ticket_type().id;
        let image = BookingImage {
            status,
            first_status: status,
            created_at: now,
            hold_expires_at: held.then(|| now + TimeDelta::minutes(10)),
            position,
            customer_hash: CustomerHash::of(&customer),
            fingerprint: Fingerprint::of(&customer, [(ticket_type_id, quantity)], held),
            payment_reference: None,
            caller: caller.clone(),
            idempotency_key: key.clone(),
            customer,
            currency: self.event.currency,
            items: vec![ImageItem { ordinal: 0, quantity, ticket_type_id, unit_price: 5_000 }],
        };
        self.count(status, i64::from(quantity));
        // No two bookings in one millisecond, so that two of one key have two ids.
        let asked_at = now + TimeDelta::milliseconds(i64::try_from(position.sequence).unwrap());
        let id = BookingId::at(asked_at, IdempotencyField::of(&caller, self.event.id, &key));
        self.booking_record(kind, id, image)
    }

    /// A booking that a record tells of is decided upon again.
    pub(crate) fn decide(&mut self, earlier: &Record, kind: Kind) -> Record {
        let Change::Booking(change) = &earlier.change else { panic!("not of a booking") };
        let mut image = change.image.clone();
        let quantity = i64::from(image.items[0].quantity);
        self.count(image.status, -quantity);
        image.status = match kind {
            Kind::Booked | Kind::Confirmed => BookingStatus::Confirmed,
            Kind::Cancelled => BookingStatus::Cancelled,
            Kind::Expired => BookingStatus::Expired,
            _ => panic!("not a move of a booking"),
        };
        self.count(image.status, quantity);
        image.position = self.next();
        self.booking_record(kind, change.id, image)
    }

    fn count(&mut self, status: BookingStatus, quantity: i64) {
        let ticket_type = self.ticket_type();
        let counter = match status {
            BookingStatus::Held => &mut ticket_type.held,
            BookingStatus::Confirmed => &mut ticket_type.sold,
            BookingStatus::Cancelled | BookingStatus::Expired => return,
        };
        *counter = u32::try_from(i64::from(*counter) + quantity).unwrap();
    }

    fn booking_record(&mut self, kind: Kind, id: BookingId, image: BookingImage) -> Record {
        let TicketTypeImage { id: ticket_type_id, capacity, held, sold, .. } = *self.ticket_type();
        let totals = vec![Totals { ticket_type_id, capacity, held, sold }];
        Record {
            shard: self.shard,
            position: image.position,
            kind,
            event_id: Some(self.event.id),
            decided_at: truncate(Utc::now()),
            change: Change::Booking(Box::new(BookingChange { id, image, totals })),
        }
    }
}
