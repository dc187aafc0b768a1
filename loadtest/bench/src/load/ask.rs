//! What is asked for, as the bytes of whole HTTP requests.

use std::io::Write as _;
use std::sync::Arc;

use crate::market::Event;

/// Writes request after request.
pub(crate) trait Ask: Send + Sync + 'static {
    /// The bytes of the request of this number.
    fn write(&self, number: u64, into: &mut Vec<u8>);
}

/// A ticket each; the events take turns.
pub(crate) struct Booking {
    pub(crate) events: Vec<Event>,
    /// Begins each idempotency key: another run books with other keys, and the same keys again are replays.
    pub(crate) tag: String,
    /// The keys begin again after so many.
    pub(crate) keys: u64,
    /// The customers begin again after so many.
    pub(crate) customers: u64,
}

impl Ask for Booking {
    fn write(&self, number: u64, into: &mut Vec<u8>) {
        let number = number % self.keys;
        let event = &self.events[index(number, self.events.len())];
        // Of a fixed width, so that every request is of one length.
        let key = format_args!("{}-{number:09}", self.tag);
        let customer = format_args!("{}-{:09}", self.tag, number % self.customers);
        let key_length = self.tag.len() + 10;
        let around = r#"{"customer":"","items":[{"ticket_type_id":"","quantity":1}]}"#.len();
        let length = around + key_length + event.ticket_type.len();
        // Writing into memory does not fail.
        let _ = write!(
            into,
            "POST /v1/events/{}/bookings HTTP/1.1\r\nHost: boxoffice\r\nContent-Type: application/json\r\n\
             Idempotency-Key: {key}\r\nContent-Length: {length}\r\n\r\n\
             {{\"customer\":\"{customer}\",\"items\":[{{\"ticket_type_id\":\"{}\",\"quantity\":1}}]}}",
            event.id, event.ticket_type
        );
    }
}

/// The same requests from a later one on: what was asked before is not asked again.
pub(crate) struct Later {
    pub(crate) ask: Arc<dyn Ask>,
    pub(crate) first: u64,
}

impl Ask for Later {
    fn write(&self, number: u64, into: &mut Vec<u8>) {
        self.ask.write(self.first + number, into);
    }
}

/// What other services ask the rate limiter, about one subject after the other.
pub(crate) struct Check {
    pub(crate) policy: &'static str,
    /// The subjects begin again after so many.
    pub(crate) subjects: u64,
}

impl Ask for Check {
    fn write(&self, number: u64, into: &mut Vec<u8>) {
        // Of a fixed width, so that every request is of one length.
        let subject = number % self.subjects;
        let length = r#"{"policy":"","key":"","cost":1}"#.len() + self.policy.len() + SUBJECT_LENGTH;
        let _ = write!(
            into,
            "POST /v1/rate-limit/check HTTP/1.1\r\nHost: boxoffice\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n\
             {{\"policy\":\"{}\",\"key\":\"subject-{subject:012}\",\"cost\":1}}",
            self.policy
        );
    }
}

const SUBJECT_LENGTH: usize = "subject-".len() + 12;

/// How many tickets are left; the events take turns.
pub(crate) struct Availability {
    pub(crate) events: Vec<Event>,
}

impl Ask for Availability {
    fn write(&self, number: u64, into: &mut Vec<u8>) {
        let event = &self.events[index(number, self.events.len())];
        let _ = write!(into, "GET /v1/events/{}/availability HTTP/1.1\r\nHost: boxoffice\r\n\r\n", event.id);
    }
}

fn index(number: u64, count: usize) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX) % count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_booking_declares_the_length_of_its_body() {
        let event = Event { id: "e".repeat(36), ticket_type: "t".repeat(36) };
        let booking = Booking { events: vec![event], tag: "tag".to_owned(), keys: 5, customers: 2 };
        let mut bytes = Vec::new();
        booking.write(7, &mut bytes);
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{text}");
        assert!(head.contains("Idempotency-Key: tag-000000002\r\n"), "{text}");
        assert!(body.contains("\"customer\":\"tag-000000000\""), "{text}");
    }

    #[test]
    fn a_check_declares_the_length_of_its_body() {
        let mut bytes = Vec::new();
        Check { policy: "checks", subjects: 5 }.write(7, &mut bytes);
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())), "{text}");
        assert!(body.contains("\"subject-000000000002\""), "{text}");
    }
}
