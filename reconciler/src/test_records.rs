//! Records for unit tests: one event, one ticket type, one shard; and a configuration.

use std::time::Duration;

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
use chrono::DateTime;

use crate::config::Config;
use crate::decode::{Fetched, Incoming, decode};

/// Of servers that nobody asks.
pub(crate) fn config() -> Config {
    Config {
        database_url: "postgres://x".to_owned().into(),
        redis_url: "redis://x".to_owned().into(),
        kafka_brokers: "x:1".to_owned(),
        shards: ShardCount::new(4).unwrap(),
        redis_prefix: String::new(),
        kafka_topic: "log".to_owned(),
        dead_letter_topic: "letters".to_owned(),
        rate_limit_topic: "limits".to_owned(),
        kafka_replication: None,
        kafka_retention: Duration::from_secs(3_600),
        strict: false,
        audit_interval: Duration::from_secs(1),
        metrics_listen: None,
    }
}

const SHARD: Shard = Shard::from_number(0);
const EVENT: EventId = EventId::from_bytes([1; 16]);
const TICKET_TYPE: TicketTypeId = TicketTypeId::from_bytes([2; 16]);

pub(crate) fn incoming(offset: i64, record: &Record) -> Incoming {
    decode(Fetched { shard: record.shard, offset, payload: record.message().value, stated: None })
}

fn record(epoch: u32, sequence: u64, kind: Kind, event_id: Option<EventId>, change: Change) -> Record {
    let position = Position { epoch, sequence };
    Record { shard: SHARD, position, kind, event_id, decided_at: DateTime::UNIX_EPOCH, change }
}

pub(crate) fn barrier(epoch: u32, sequence: u64) -> Record {
    record(epoch, sequence, Kind::Barrier, None, Change::Barrier { old_epoch: epoch - 1 })
}

pub(crate) fn published(epoch: u32, sequence: u64) -> Record {
    let name = |text: &str| Name::try_from(text.to_owned()).unwrap();
    let event = EventImage {
        id: EVENT,
        name: name("Concert"),
        starts_at: DateTime::UNIX_EPOCH,
        sales_open_at: None,
        sales_close_at: None,
        per_customer_limit: None,
        hold_seconds: 600,
        currency: Currency::parse("EUR").unwrap(),
        status: EventStatus::OnSale,
        slots: 1,
        created_at: DateTime::UNIX_EPOCH,
        updated_at: DateTime::UNIX_EPOCH,
        ticket_types: vec![TicketTypeImage {
            id: TICKET_TYPE,
            name: name("Standing"),
            price: 5_000,
            per_customer_limit: None,
            capacity: 10,
            held: 0,
            sold: 0,
        }],
    };
    record(epoch, sequence, Kind::Published, Some(EVENT), Change::Event(Box::new(event)))
}

pub(crate) fn booked(epoch: u32, sequence: u64, key: &str) -> Record {
    booking(epoch, sequence, key, Kind::Booked, BookingStatus::Confirmed)
}

pub(crate) fn held(epoch: u32, sequence: u64, key: &str) -> Record {
    booking(epoch, sequence, key, Kind::Held, BookingStatus::Held)
}

fn booking(epoch: u32, sequence: u64, key: &str, kind: Kind, status: BookingStatus) -> Record {
    let key = IdempotencyKey::parse(key.as_bytes()).unwrap();
    let customer = Customer::try_from("ann".to_owned()).unwrap();
    let id = BookingId::new(IdempotencyField::of(&Caller::anonymous(), EVENT, &key));
    let held = status == BookingStatus::Held;
    let image = BookingImage {
        status,
        first_status: status,
        created_at: DateTime::UNIX_EPOCH,
        hold_expires_at: held.then_some(DateTime::UNIX_EPOCH),
        position: Position { epoch, sequence },
        customer_hash: CustomerHash::of(&customer),
        fingerprint: Fingerprint::of(&customer, [(TICKET_TYPE, 1)], held),
        payment_reference: None,
        caller: Caller::anonymous(),
        idempotency_key: key,
        customer,
        currency: Currency::parse("EUR").unwrap(),
        items: vec![ImageItem { ordinal: 0, quantity: 1, ticket_type_id: TICKET_TYPE, unit_price: 5_000 }],
    };
    let (held, sold) = if held { (1, 0) } else { (0, 1) };
    let totals = vec![Totals { ticket_type_id: TICKET_TYPE, capacity: 10, held, sold }];
    record(epoch, sequence, kind, Some(EVENT), Change::Booking(Box::new(BookingChange { id, image, totals })))
}

/// What a later decision made of a booking.
pub(crate) fn decided(earlier: &Record, sequence: u64, kind: Kind) -> Record {
    let Change::Booking(change) = &earlier.change else { panic!("not of a booking") };
    let mut change = change.clone();
    let position = Position { sequence, ..earlier.position };
    change.image.position = position;
    change.image.status = match kind {
        Kind::Confirmed => BookingStatus::Confirmed,
        Kind::Cancelled => BookingStatus::Cancelled,
        _ => BookingStatus::Expired,
    };
    Record { position, kind, change: Change::Booking(change), ..earlier.clone() }
}
