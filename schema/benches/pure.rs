//! The pure parts of a booking's way, without any I/O: `cargo bench -p boxoffice-schema`.

use std::hint::black_box;

use boxoffice_schema::fingerprint::{CustomerHash, Fingerprint, IdempotencyField};
use boxoffice_schema::frame;
use boxoffice_schema::ids::{BookingId, EventId, TicketTypeId};
use boxoffice_schema::image::{BookingImage, ImageItem};
use boxoffice_schema::keys::Keys;
use boxoffice_schema::money::Currency;
use boxoffice_schema::position::Position;
use boxoffice_schema::record::Record;
use boxoffice_schema::scripts::{Book, Decision, OutboxBounds, Outcome, decision_call};
use boxoffice_schema::shard::Shard;
use boxoffice_schema::status::BookingStatus;
use boxoffice_schema::text::{Caller, Customer, IdempotencyKey};
use chrono::{DateTime, Utc};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const SHARD: Shard = Shard::from_number(7);
const BATCH: u8 = 64;
const BOUNDS: OutboxBounds = OutboxBounds { frames: 100_000, bytes: 1 << 28, age_ms: 600_000 };

fn event() -> EventId {
    EventId::from_bytes([1; 16])
}

fn item() -> ImageItem {
    ImageItem {
        ordinal: 0,
        quantity: 2,
        ticket_type_id: TicketTypeId::from_bytes([2; 16]),
        unit_price: 4_500,
    }
}

fn names(number: u8) -> (IdempotencyKey, Customer) {
    let key = IdempotencyKey::parse(format!("5f0c1d9e-key-{number:03}").as_bytes()).expect("a key");
    let customer = Customer::try_from(format!("customer-{number:03}@example.org")).expect("a customer");
    (key, customer)
}

fn book(number: u8) -> Book {
    let (key, customer) = names(number);
    let currency = Currency::parse("EUR").expect("a currency");
    Book::new(event(), 32_768, &Caller::anonymous(), &key, &customer, currency, 0, vec![item()])
}

fn image(number: u8) -> BookingImage {
    let (idempotency_key, customer) = names(number);
    BookingImage {
        status: BookingStatus::Confirmed,
        first_status: BookingStatus::Confirmed,
        created_at: DateTime::<Utc>::from_timestamp_millis(1_780_000_000_000).expect("a time"),
        hold_expires_at: None,
        position: Position { epoch: 1, sequence: u64::from(number) },
        customer_hash: CustomerHash::of(&customer),
        fingerprint: Fingerprint::of(&customer, [(item().ticket_type_id, 2)], false),
        payment_reference: None,
        caller: Caller::anonymous(),
        idempotency_key,
        customer,
        currency: Currency::parse("EUR").expect("a currency"),
        items: vec![item()],
    }
}

/// As the scripts build it.
fn frame_of_a_batch() -> Vec<u8> {
    let mut bytes = vec![1];
    bytes.extend_from_slice(&1_u32.to_be_bytes());
    bytes.extend_from_slice(&1_780_000_000_000_u64.to_be_bytes());
    for number in 0..BATCH {
        let image = image(number).encode();
        bytes.push(1);
        bytes.extend_from_slice(&u64::from(number).to_be_bytes());
        bytes.extend_from_slice(event().as_bytes());
        bytes.extend_from_slice(BookingId::from_bytes([number; 16]).as_bytes());
        bytes.extend_from_slice(&u32::try_from(image.len()).expect("an image is short").to_be_bytes());
        bytes.extend_from_slice(&image);
        for total in [1_000_000_u32, 0, u32::from(number)] {
            bytes.extend_from_slice(&total.to_be_bytes());
        }
    }
    bytes
}

fn fingerprints(criterion: &mut Criterion) {
    let (key, customer) = names(0);
    let caller = Caller::anonymous();
    criterion.bench_function("the three hashes of a request", |bencher| {
        bencher.iter(|| {
            let field = IdempotencyField::of(&caller, event(), black_box(&key));
            let customer_hash = CustomerHash::of(black_box(&customer));
            (field, customer_hash, Fingerprint::of(&customer, [(item().ticket_type_id, 2)], false))
        });
    });
}

fn script_arguments(criterion: &mut Criterion) {
    let keys = Keys::new("bo:");
    let requests: Vec<Book> = (0..BATCH).map(book).collect();
    let mut group = criterion.benchmark_group("arguments of book.lua");
    group.throughput(Throughput::Elements(u64::from(BATCH)));
    group.bench_function("64 requests made", |bencher| {
        bencher.iter(|| (0..BATCH).map(|number| book(black_box(number)).target().booking_id).max());
    });
    group.bench_function("64 requests encoded", |bencher| {
        bencher.iter(|| decision_call(&keys, SHARD, BOUNDS, black_box(&requests)));
    });
    group.finish();
}

fn replies(criterion: &mut Criterion) {
    let reply = [b"B".as_slice(), &image(0).encode()].concat();
    criterion.bench_function("a reply of book.lua decoded", |bencher| {
        bencher.iter(|| Outcome::parse(black_box(&reply)).expect("a reply"));
    });
}

fn log(criterion: &mut Criterion) {
    let bytes = frame_of_a_batch();
    let sent = frame::messages(SHARD, &bytes).expect("a frame");
    let mut group = criterion.benchmark_group("the log");
    group.throughput(Throughput::Elements(u64::from(BATCH)));
    group.bench_function("a frame of 64 bookings made into records", |bencher| {
        bencher.iter(|| frame::messages(SHARD, black_box(&bytes)).expect("a frame"));
    });
    group.bench_function("64 records decoded", |bencher| {
        bencher.iter(|| {
            let decoded =
                sent.iter().map(|message| Record::decode(black_box(&message.value)).expect("a record"));
            decoded.map(|record| record.position.sequence).max()
        });
    });
    group.finish();
}

criterion_group!(pure, fingerprints, script_arguments, replies, log);
criterion_main!(pure);
