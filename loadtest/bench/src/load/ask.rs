//! What is asked for, as the bytes of whole HTTP requests.

use std::io::Write as _;

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
}

impl Ask for Booking {
    fn write(&self, number: u64, into: &mut Vec<u8>) {
        let number = number % self.keys;
        let event = &self.events[index(number, self.events.len())];
        // Of a fixed width, so that every request is of one length.
        let key = format_args!("{}-{number:09}", self.tag);
        let key_length = self.tag.len() + 10;
        let around = r#"{"customer":"","items":[{"ticket_type_id":"","quantity":1}]}"#.len();
        let length = around + key_length + event.ticket_type.len();
        // Writing into memory does not fail.
        let _ = write!(
            into,
            "POST /v1/events/{}/bookings HTTP/1.1\r\nHost: boxoffice\r\nContent-Type: application/json\r\n\
             Idempotency-Key: {key}\r\nContent-Length: {length}\r\n\r\n\
             {{\"customer\":\"{key}\",\"items\":[{{\"ticket_type_id\":\"{}\",\"quantity\":1}}]}}",
            event.id, event.ticket_type
        );
    }
}

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
        let booking = Booking { events: vec![event], tag: "tag".to_owned(), keys: 5 };
        let mut bytes = Vec::new();
        booking.write(7, &mut bytes);
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{text}");
        assert!(head.contains("Idempotency-Key: tag-000000002\r\n"), "{text}");
    }
}
