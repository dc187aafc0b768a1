//! From the bytes of a Kafka record to a decision, or to poison. Pure.

use std::collections::HashSet;

use boxoffice_schema::position::Position;
use boxoffice_schema::record::{Change, Record, header};
use boxoffice_schema::shard::Shard;
use sha2::{Digest as _, Sha256};

/// SHA-256 of a record's value.
pub(crate) type Digest = [u8; 32];

fn digest_of(value: &[u8]) -> Digest {
    Sha256::digest(value).into()
}

/// A record as Kafka gave it.
#[derive(Clone, Debug)]
pub(crate) struct Fetched {
    pub(crate) shard: Shard,
    pub(crate) offset: i64,
    pub(crate) payload: Vec<u8>,
    /// The position that its headers give, if they give one of the shard.
    pub(crate) stated: Option<Position>,
}

/// A record as the rest of the pipeline takes it.
#[derive(Clone, Debug)]
pub(crate) struct Incoming {
    pub(crate) shard: Shard,
    pub(crate) offset: i64,
    /// Kept for the case that it must be put aside.
    pub(crate) payload: Vec<u8>,
    pub(crate) digest: Digest,
    pub(crate) content: Content,
}

/// What the bytes were.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    Record(Box<Record>),
    /// Not to be read, for the reason given; its position where the headers tell it.
    Poison {
        position: Option<Position>,
        reason: String,
    },
}

impl Incoming {
    pub(crate) fn position(&self) -> Option<Position> {
        match &self.content {
            Content::Record(record) => Some(record.position),
            Content::Poison { position, .. } => *position,
        }
    }

    /// Whether a digest is of this decision. A relay of an older build and one of this build may both have sent it, each in
    /// its own version of the format.
    pub(crate) fn is_same_as(&self, digest: Digest) -> bool {
        let in_either_version = |record: &Record| {
            [record.to_json(), record.message().value].iter().any(|value| digest_of(value) == digest)
        };
        self.digest == digest || matches!(&self.content, Content::Record(record) if in_either_version(record))
    }
}

/// Reads a record.
pub(crate) fn decode(fetched: Fetched) -> Incoming {
    let digest = digest_of(&fetched.payload);
    let content = match read(&fetched) {
        Ok(record) => Content::Record(Box::new(record)),
        Err(Unreadable { position, reason }) => Content::Poison { position, reason },
    };
    let Fetched { shard, offset, payload, .. } = fetched;
    Incoming { shard, offset, payload, digest, content }
}

/// A record's value for a person: as JSON where it can be read, otherwise as the text that it is, or in hexadecimal.
pub(crate) fn shown(value: &[u8]) -> String {
    let readable = Record::decode(value).map(|record| record.to_json());
    match std::str::from_utf8(readable.as_deref().unwrap_or(value)) {
        Ok(text) => text.to_owned(),
        Err(_) => value.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

struct Unreadable {
    position: Option<Position>,
    reason: String,
}

fn read(fetched: &Fetched) -> Result<Record, Unreadable> {
    let stated = fetched.stated;
    let unreadable = |position, reason| Unreadable { position, reason };
    let record = Record::decode(&fetched.payload).map_err(|error| unreadable(stated, error.to_string()))?;
    if record.shard != fetched.shard {
        let reason =
            format!("the record of shard {} lies in the partition of {}", record.shard, fetched.shard);
        return Err(unreadable(None, reason));
    }
    match stated {
        // Which of the two is true cannot be known; a gap will show where it mattered.
        Some(stated) if stated != record.position => {
            let reason = format!("its headers state position {stated} and its value {}", record.position);
            Err(unreadable(None, reason))
        }
        _ => check_ranges(&record).map_err(|reason| unreadable(stated, reason)).map(|()| record),
    }
}

/// PostgreSQL's integers are signed; what is beyond them was not written by a script. What a booking costs, and the length of
/// its caller, its decoder has seen to.
fn check_ranges(record: &Record) -> Result<(), String> {
    let int4 = |what: &str, value: u32| match i32::try_from(value) {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("{what} {value} is out of range")),
    };
    let int8 = |what: &str, value: u64| match i64::try_from(value) {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("{what} {value} is out of range")),
    };
    int4("epoch", record.position.epoch)?;
    int8("sequence", record.position.sequence)?;
    match &record.change {
        Change::Booking(change) => {
            let items = &change.image.items;
            if items.is_empty() {
                return Err("a booking of nothing".to_owned());
            }
            // The price of what is taken no times is in no sum.
            for item in items {
                int8("unit price", item.unit_price)?;
            }
            for totals in &change.totals {
                int4("capacity", totals.capacity)?;
            }
        }
        Change::Event(event) => {
            int4("hold seconds", event.hold_seconds)?;
            int4("slots", event.slots)?;
            int4("limit", event.per_customer_limit.unwrap_or(0))?;
            for ticket_type in &event.ticket_types {
                int4("capacity", ticket_type.capacity)?;
                int4("limit", ticket_type.per_customer_limit.unwrap_or(0))?;
                int8("price", ticket_type.price)?;
            }
            if event.ticket_types.len() > usize::from(u8::MAX) {
                return Err(format!("{} ticket types are too many", event.ticket_types.len()));
            }
            let mut named = HashSet::with_capacity(event.ticket_types.len());
            if let Some(again) = event.ticket_types.iter().find(|ticket_type| !named.insert(ticket_type.id)) {
                return Err(format!("it names ticket type {} twice", again.id));
            }
            if Some(event.id) != record.event_id {
                return Err("the event that it carries is not the one that it names".to_owned());
            }
        }
        Change::Barrier { .. } => {}
    }
    Ok(())
}

/// The position that headers give, if they give one of this shard.
pub(crate) fn stated_position<'a>(
    shard: Shard,
    headers: impl Iterator<Item = (&'a str, &'a [u8])> + Clone,
) -> Option<Position> {
    let text = |name: &str| {
        let (_, value) = headers.clone().find(|(key, _)| *key == name)?;
        std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let named: u16 = text(header::SHARD)?.parse().ok()?;
    let epoch: u32 = text(header::EPOCH)?.parse().ok()?;
    let sequence: u64 = text(header::SEQUENCE)?.parse().ok()?;
    let in_range = i32::try_from(epoch).is_ok() && i64::try_from(sequence).is_ok();
    (in_range && named == shard.number()).then_some(Position { epoch, sequence })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_records::{barrier, booked, published};

    fn fetched(payload: &[u8], headers: &[(&str, &str)]) -> Fetched {
        let shard = Shard::from_number(0);
        let stated = stated_position(shard, headers.iter().map(|(name, value)| (*name, value.as_bytes())));
        Fetched { shard, offset: 7, payload: payload.to_vec(), stated }
    }

    fn with_headers(record: &Record, payload: &[u8]) -> Fetched {
        let headers = record.message().headers();
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        fetched(payload, &headers)
    }

    fn poison(fetched: Fetched) -> (Option<Position>, String) {
        match decode(fetched).content {
            Content::Poison { position, reason } => (position, reason),
            Content::Record(record) => panic!("read: {record:?}"),
        }
    }

    #[test]
    fn a_record_is_read_with_and_without_its_headers() {
        for record in [published(1, 1), booked(1, 2, "a"), barrier(2, 2)] {
            let (sent, json) = (record.message().value, record.to_json());
            for fetched in [with_headers(&record, &sent), with_headers(&record, &json), fetched(&sent, &[])] {
                match decode(fetched).content {
                    Content::Record(read) => assert_eq!(*read, record),
                    Content::Poison { reason, .. } => panic!("{reason}"),
                }
            }
        }
    }

    #[test]
    fn what_is_not_a_record_keeps_the_position_of_its_headers() {
        let record = booked(3, 9, "a");
        let value = String::from_utf8(record.to_json()).unwrap();
        let unreadable = [
            String::new(),
            "{}".to_owned(),
            "[".repeat(100_000),
            value[..value.len() / 2].to_owned(),
            value.replace("\"v\":1", "\"v\":7"),
            value.replace("booked", "gifted"),
            value.replace("booked", "\\u0000"),
            value.replace("\"quantity\":1", "\"quantity\":-1"),
            value.replace("\"quantity\":1", "\"quantity\":1,\"more\":1"),
            value.replace("\"caller\":\"-\"", &format!("\"caller\":\"{}\"", "c".repeat(256))),
            value.replace("\"capacity\":10", "\"capacity\":4000000000"),
            value.replace("\"unit_price\":5000", "\"unit_price\":18446744073709551615"),
            value
                .replace("\"unit_price\":5000", "\"unit_price\":9223372036854775807")
                .replace("\"quantity\":1", "\"quantity\":9"),
            value
                .replace("\"unit_price\":5000", "\"unit_price\":9223372036854775808")
                .replace("\"quantity\":1", "\"quantity\":0"),
        ];
        for payload in unreadable {
            let (position, _) = poison(with_headers(&record, payload.as_bytes()));
            assert_eq!(position, Some(record.position), "{}", payload.chars().take(300).collect::<String>());
        }
    }

    #[test]
    fn headers_that_are_no_position_of_the_shard_give_none() {
        let good = [(header::SHARD, "0"), (header::EPOCH, "1"), (header::SEQUENCE, "5")];
        assert_eq!(poison(fetched(b"x", &good)).0, Some(Position { epoch: 1, sequence: 5 }));
        for (at, bad) in [
            (0, "1"),
            (0, ""),
            (1, "-1"),
            (1, "+1"),
            (1, "2147483648"),
            (2, "5.0"),
            (2, "9223372036854775808"),
            (2, "99999999999999999999999"),
            (2, "\u{665}"),
        ] {
            let mut headers = good;
            headers[at].1 = bad;
            assert_eq!(poison(fetched(b"x", &headers)).0, None, "{headers:?}");
        }
        assert_eq!(poison(fetched(b"x", &good[..2])).0, None);
    }

    #[test]
    fn a_record_that_contradicts_its_place_has_no_position() {
        let record = booked(1, 2, "a");
        let other = booked(1, 3, "a");
        assert_eq!(poison(with_headers(&other, &record.message().value)).0, None);
        let mut elsewhere = with_headers(&record, &record.message().value);
        elsewhere.shard = Shard::from_number(1);
        assert_eq!(poison(elsewhere).0, None);
    }

    #[test]
    fn an_event_that_is_not_the_one_named_is_poison() {
        let mut record = published(1, 1);
        record.event_id = Some(boxoffice_schema::ids::EventId::new());
        let (position, reason) = poison(with_headers(&record, &record.message().value));
        assert_eq!(position, Some(record.position));
        assert!(reason.contains("not the one that it names"), "{reason}");
    }

    #[test]
    fn an_event_that_names_a_ticket_type_twice_is_poison() {
        let mut record = published(1, 1);
        let Change::Event(event) = &mut record.change else { panic!("not of an event") };
        let again = event.ticket_types[0].clone();
        event.ticket_types.push(again);
        let (position, reason) = poison(with_headers(&record, &record.message().value));
        assert_eq!(position, Some(record.position));
        assert!(reason.ends_with("twice"), "{reason}");
    }
}
