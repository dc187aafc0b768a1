//! Every parser of bytes from outside as a function of bytes alone, with what must hold whatever they are: for fuzzing
//! (`fuzz/`), for the test that does a little of it on every change, and for benches. Nothing else calls them.

#![allow(clippy::missing_panics_doc, reason = "panicking is how they say that something does not hold")]

use actix_web::http::header::{HeaderName, HeaderValue, IF_MATCH};
use actix_web::test::TestRequest;
use boxoffice_schema::frame;
use boxoffice_schema::record::{Message, Record};
use boxoffice_schema::shard::ShardCount;

use crate::error::Problem;
use crate::identity::try_credential;
use crate::observe::request_id;
use crate::request::{After, ListOf, Page, TrustedProxies, idempotency_key};
use crate::routes::bookings::{try_new_booking, try_payment};
use crate::routes::events::{try_new_event, try_patch, try_precondition};
use crate::transport::Origins;

/// Whether a body is a booking request in bounds.
pub fn is_booking_request(body: &[u8]) -> bool {
    try_new_booking(body).is_ok()
}

/// The bodies of all calls. Whatever is refused is refused with a body of ours, and for a mistake of the client.
pub fn bodies(body: &[u8]) {
    for refusal in [try_new_booking, try_payment, try_new_event, try_patch].map(|read| read(body)) {
        if let Err(problem) = refusal {
            assert_is_clients(&problem);
        }
    }
}

/// The fields of a request's head, a line each as `name: value`: whoever reads any of them reads these.
pub fn fields(lines: &[u8]) {
    let mut request = TestRequest::default().peer_addr(([10, 0, 0, 1], 4_711).into());
    for line in lines.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        // What is no field at all never gets past HTTP's own parser.
        let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) else {
            continue;
        };
        request = request.append_header((name, value));
    }
    let request = request.to_http_request();
    let headers = request.headers();
    if let Ok(key) = idempotency_key(headers) {
        assert!(
            (1..=255).contains(&key.as_str().len())
                && key.as_str().bytes().all(|byte| byte.is_ascii_graphic())
        );
    }
    let id = request_id(headers);
    assert!((1..=128).contains(&id.len()) && id.to_str().is_ok());
    if headers.contains_key(IF_MATCH) {
        try_precondition(&request);
    }
    let proxies: TrustedProxies = "10.0.0.0/8, ::1".parse().expect("two networks");
    assert!(proxies.client_of(&request).is_some(), "a connection has an address");
    assert_eq!(TrustedProxies::default().client_of(&request), request.peer_addr().map(|peer| peer.ip()));
    try_credential(headers, b"");
}

/// A set of an identity provider's keys, up to the first NUL, and behind it a credential. Nothing that a fuzzer writes
/// is signed by a key that it has the other half of.
pub fn credentials(bytes: &[u8]) {
    let (set, credential) = bytes.split_at(bytes.iter().position(|byte| *byte == 0).unwrap_or(0));
    let Ok(value) = HeaderValue::from_bytes(&[b"Bearer ", credential.trim_ascii_start()].concat()) else {
        return;
    };
    let request = TestRequest::default().insert_header(("authorization", value)).to_http_request();
    try_credential(request.headers(), set);
}

/// The query of a list, and a cursor.
pub fn queries(bytes: &[u8]) {
    let Ok(query) = std::str::from_utf8(bytes) else { return };
    for of in [ListOf::Events, ListOf::BookingsOfEvent, ListOf::BookingsOfCustomer] {
        match Page::parse(query, of) {
            Ok(page) => assert!((1..=200).contains(&page.limit)),
            Err(problem) => assert_is_clients(&problem),
        }
    }
    if let Some(after) = After::decode(query) {
        assert_eq!(After::decode(&after.encode()), Some(after), "a cursor leads elsewhere the second time");
    }
}

/// The lists of a configuration, which come from an operator, but by way of files and environments.
pub fn lists(bytes: &[u8]) {
    let Ok(list) = std::str::from_utf8(bytes) else { return };
    let _ = list.parse::<TrustedProxies>();
    let _ = list.parse::<Origins>();
}

/// Whether bytes are a frame of some decisions.
pub fn is_frame(bytes: &[u8]) -> bool {
    let messages = messages_of(bytes);
    !messages.is_empty() && messages.iter().all(|message| Record::decode(&message.value).is_ok())
}

fn messages_of(frame: &[u8]) -> Vec<Message> {
    let shard = ShardCount::new(1).ok().and_then(|count| count.shards().next());
    shard.and_then(|shard| frame::messages(shard, frame).ok()).unwrap_or_default()
}

/// A frame of the outbox, as the relay reads it from Redis. What Kafka gets of it and can be read is written as it was.
pub fn frames(bytes: &[u8]) {
    for message in messages_of(bytes) {
        if let Ok(record) = Record::decode(&message.value) {
            assert_eq!(record.message(), message, "a record is not written as it was");
        }
    }
}

fn assert_is_clients(problem: &Problem) {
    let status = problem.respond("fuzz").status();
    assert!(status.is_client_error(), "{status}: {problem}");
}
