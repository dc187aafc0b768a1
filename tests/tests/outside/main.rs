#![expect(clippy::unwrap_used, reason = "a test that meets what it did not expect has failed")]
//! A little fuzzing on every change: the seeds of `fuzz/seeds`, and thousands of inputs made of them by lot, through the
//! same functions as the fuzz targets. `scripts/fuzz` looks longer and follows what the code does.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use boxoffice_api::outside as api;
use boxoffice_reconciler::outside as reconciler;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// Inputs for each target.
const INPUTS: usize = 30_000;

/// The most bytes of an input that was made.
const SIZE_MAX: usize = 8 * 1024;

/// What parsers of lengths, numbers, lists and texts stumble over.
const TRICKY: [&[u8]; 20] = [
    b"\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff\xff\xff\xff\xff",
    b"\x80\x00\x00\x00\x00\x00\x00\x00",
    b"18446744073709551616",
    b"-9223372036854775809",
    b"1e999",
    b"-0",
    b"\"",
    b"\\u0000",
    b"\\ud800",
    b"\xed\xa0\x80",
    b"[[[[[[[[[[[[[[[[",
    b"{\"\":{\"\":",
    b"null",
    b",,",
    b"%00",
    b"::",
    b"\r\n",
    b"9999-12-31T23:59:60+99:99",
];

/// One input or another made into a third.
fn made(seeds: &[Vec<u8>], lot: &mut StdRng) -> Vec<u8> {
    let mut bytes = seeds.choose(lot).unwrap().clone();
    for _ in 0..lot.random_range(1..=4) {
        let at = lot.random_range(0..=bytes.len());
        match lot.random_range(0..6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << lot.random_range(0..8),
            1 if at < bytes.len() => bytes[at] = lot.random(),
            2 => bytes.truncate(at),
            3 => {
                let end = lot.random_range(at..=bytes.len());
                bytes.drain(at..end);
            }
            4 => {
                let other = seeds.choose(lot).unwrap();
                bytes.truncate(at);
                bytes.extend_from_slice(&other[lot.random_range(0..=other.len())..]);
            }
            _ => {
                bytes.splice(at..at, TRICKY.choose(lot).unwrap().iter().copied());
            }
        }
    }
    bytes.truncate(SIZE_MAX);
    bytes
}

fn seeds_of(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{target} has no seeds");
    files.into_iter().map(|file| std::fs::read(file).unwrap()).collect()
}

fn holds(target: &str, try_bytes: fn(&[u8])) {
    let seed: u64 = rand::random();
    let mut lot = StdRng::seed_from_u64(seed);
    let seeds = seeds_of(target);
    let random = (0..INPUTS).map(|_| made(&seeds, &mut lot));
    for (n, bytes) in seeds.clone().into_iter().chain(random).enumerate() {
        let tried = catch_unwind(AssertUnwindSafe(|| try_bytes(&bytes)));
        assert!(tried.is_ok(), "input {n} of seed {seed} for {target}: b\"{}\"", bytes.escape_ascii());
    }
}

#[test]
fn whatever_is_in_a_body_is_taken_or_refused_as_the_clients_mistake() {
    holds("bodies", api::bodies);
}

#[test]
fn whatever_is_in_a_head_is_taken_or_refused() {
    holds("fields", api::fields);
}

#[test]
fn whatever_is_sent_as_a_credential_lets_nobody_in() {
    holds("credentials", api::credentials);
}

#[test]
fn whatever_is_in_a_query_is_taken_or_refused() {
    holds("queries", api::queries);
}

#[test]
fn whatever_is_in_a_list_of_the_configuration_is_taken_or_refused() {
    holds("lists", api::lists);
}

#[test]
fn whatever_is_in_a_frame_is_records_or_an_error() {
    holds("frames", api::frames);
}

#[test]
fn whatever_is_in_the_log_is_a_record_or_poison() {
    holds("records", reconciler::records);
}

#[test]
fn whatever_is_in_the_log_of_rate_limits_is_a_record_or_an_error() {
    holds("rate_records", reconciler::rate_records);
}

/// The seeds have to get past the first check of their parsers, or all of this proves nothing.
#[test]
fn the_seeds_are_what_the_parsers_take() {
    let booking =
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/bodies/booking.json"));
    assert!(api::is_booking_request(&booking.unwrap()));
    for seed in seeds_of("frames") {
        assert!(api::is_frame(&seed));
    }
    for seed in seeds_of("records") {
        assert!(reconciler::is_record(&seed));
    }
}
