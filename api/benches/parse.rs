//! What a booking's handler does before it asks anybody: `cargo bench -p boxoffice-api`.

use std::hint::black_box;

use boxoffice_api::outside::is_booking_request;
use criterion::{Criterion, criterion_group, criterion_main};

const BODY: &[u8] = br#"{"customer":"customer-001@example.org","items":[{"ticket_type_id":"01939c5e-7a00-7abc-8def-0123456789ab","quantity":2}],"hold":false}"#;
const WRONG: &[u8] = br#"{"customer":"","items":[{"ticket_type_id":"01939c5e-7a00-7abc-8def-0123456789ab","quantity":0}],"seat":1}"#;

fn parse(criterion: &mut Criterion) {
    assert!(is_booking_request(BODY) && !is_booking_request(WRONG));
    criterion.bench_function("a booking request parsed", |bencher| {
        bencher.iter(|| is_booking_request(black_box(BODY)));
    });
    criterion.bench_function("a wrong one refused", |bencher| {
        bencher.iter(|| is_booking_request(black_box(WRONG)));
    });
}

criterion_group!(requests, parse);
criterion_main!(requests);
