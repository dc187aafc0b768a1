//! Golden files of each kind of record: the format that is in Kafka for years, letter by letter. JSON of all kinds, and of
//! those about bookings, which are packed since version 2, the bytes in hexadecimal.
//! A change of the format is a new version; these files then stay and must still be read.

use std::path::PathBuf;

use boxoffice_schema::event::{EventImage, TicketTypeImage};
use boxoffice_schema::fingerprint::{CustomerHash, Fingerprint};
use boxoffice_schema::ids::{BookingId, EventId, TicketTypeId};
use boxoffice_schema::image::{BookingImage, ImageItem};
use boxoffice_schema::money::Currency;
use boxoffice_schema::position::Position;
use boxoffice_schema::record::{BookingChange, Change, Kind, Record, Totals};
use boxoffice_schema::shard::{Shard, ShardCount};
use boxoffice_schema::status::{BookingStatus, EventStatus};
use boxoffice_schema::text::{Caller, Customer, IdempotencyKey, Name, PaymentReference};
use boxoffice_schema::time;

const DECIDED_MS: u64 = 1_763_719_200_123;

fn event_id() -> EventId {
    "01939c5e-7a00-7abc-8def-0123456789ab".parse().unwrap()
}

fn ticket_type() -> TicketTypeId {
    "01939c5e-7a01-7abc-8def-0123456789ab".parse().unwrap()
}

fn name(text: &str) -> Name {
    Name::try_from(text.to_owned()).unwrap()
}

fn event(kind: Kind) -> EventImage {
    let at = |seconds: u64| time::from_millis(DECIDED_MS + 1_000 * seconds).unwrap();
    EventImage {
        id: event_id(),
        name: name("Größenwahn \"live\""),
        starts_at: at(86_400),
        sales_open_at: Some(at(60)),
        sales_close_at: None,
        per_customer_limit: Some(6),
        hold_seconds: 600,
        currency: Currency::parse("EUR").unwrap(),
        status: match kind {
            Kind::Paused => EventStatus::Paused,
            Kind::Closed => EventStatus::Closed,
            _ => EventStatus::OnSale,
        },
        slots: 64,
        created_at: at(0),
        updated_at: at(1),
        ticket_types: vec![TicketTypeImage {
            id: ticket_type(),
            name: name("Floor"),
            price: 4_950,
            per_customer_limit: None,
            capacity: 2_000,
            held: 3,
            sold: 4,
        }],
    }
}

fn booking(kind: Kind, position: Position) -> BookingChange {
    let at = |seconds: u64| time::from_millis(DECIDED_MS + 1_000 * seconds).unwrap();
    let customer = Customer::try_from("ann@example.org".to_owned()).unwrap();
    let (status, paid) = match kind {
        Kind::Booked => (BookingStatus::Confirmed, false),
        Kind::Confirmed => (BookingStatus::Confirmed, true),
        Kind::Cancelled => (BookingStatus::Cancelled, true),
        Kind::Expired => (BookingStatus::Expired, false),
        _ => (BookingStatus::Held, false),
    };
    let sold_at_once = kind == Kind::Booked;
    let image = BookingImage {
        status,
        first_status: if sold_at_once { BookingStatus::Confirmed } else { BookingStatus::Held },
        created_at: at(0),
        hold_expires_at: (!sold_at_once).then(|| at(600)),
        position,
        customer_hash: CustomerHash::of(&customer),
        fingerprint: Fingerprint::of(&customer, [(ticket_type(), 2)], !sold_at_once),
        payment_reference: paid.then(|| PaymentReference::try_from("pay_1".to_owned()).unwrap()),
        caller: Caller::anonymous(),
        idempotency_key: IdempotencyKey::parse(b"order-1").unwrap(),
        customer,
        currency: Currency::parse("EUR").unwrap(),
        items: vec![ImageItem { ordinal: 0, quantity: 2, ticket_type_id: ticket_type(), unit_price: 4_950 }],
    };
    let totals = vec![Totals { ticket_type_id: ticket_type(), capacity: 2_000, held: 3, sold: 4 }];
    BookingChange { id: "01939c5e-7a02-7abc-8def-0123456789ab".parse::<BookingId>().unwrap(), image, totals }
}

fn record(kind: Kind) -> Record {
    let position = Position { epoch: 2, sequence: 41 };
    let shard =
        if kind == Kind::Barrier { Shard::from_number(9) } else { ShardCount::DEFAULT.shard_of(event_id()) };
    Record {
        shard,
        position,
        kind,
        event_id: (kind != Kind::Barrier).then(event_id),
        decided_at: time::from_millis(DECIDED_MS).unwrap(),
        change: match kind {
            Kind::Barrier => Change::Barrier { old_epoch: 1 },
            kind if kind.is_of_booking() => Change::Booking(Box::new(booking(kind, position))),
            kind => Change::Event(Box::new(event(kind))),
        },
    }
}

#[test]
fn a_booking_that_no_script_wrote_is_refused_and_does_not_end_whoever_reads_it() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden/booked.json");
    let booked = std::fs::read_to_string(path).unwrap();
    let wire: serde_json::Value = serde_json::from_str(&booked).unwrap();
    let decode = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut wire = wire.clone();
        change(&mut wire["booking"]);
        Record::decode(wire.to_string().as_bytes())
    };
    assert!(decode(&|_| {}).is_ok());
    assert!(decode(&|booking| booking["items"][0]["unit_price"] = u64::MAX.into()).is_err());
    assert!(decode(&|booking| booking["caller"] = "c".repeat(256).into()).is_err());
    assert!(decode(&|booking| booking["fingerprint"] = format!("+{}", "0".repeat(31)).into()).is_err());
    assert!(decode(&|booking| booking["hold_expires_at"] = "0025-11-21T10:10:00.123Z".into()).is_err());
    assert!(decode(&|booking| booking["created_at"] = "2025-11-21T10:10:00.123456Z".into()).is_err());
    let many = |booking: &mut serde_json::Value| {
        booking["items"] = vec![booking["items"][0].clone(); 256].into();
    };
    assert!(decode(&many).is_err());
}

/// Found by fuzzing: it was read as a decision about an event, and no reconciler could have read what was sent of it.
#[test]
fn a_frame_with_a_barrier_is_refused_since_no_script_decides_one() {
    const BARRIER: u8 = 32;
    let hash = b"{}";
    let mut frame = vec![1];
    frame.extend(2_u32.to_be_bytes());
    frame.extend(1_800_000_000_000_u64.to_be_bytes());
    frame.push(BARRIER);
    frame.extend(45_u64.to_be_bytes());
    frame.extend(event_id().as_bytes());
    frame.extend(u32::try_from(hash.len()).unwrap().to_be_bytes());
    frame.extend(hash);
    let refused = boxoffice_schema::frame::messages(Shard::from_number(0), &frame).unwrap_err();
    assert!(refused.to_string().contains("barrier"), "{refused}");
}

/// A golden file, which must say what is written now. BOXOFFICE_WRITE_GOLDEN=1 writes that of a kind that is new.
#[track_caller]
fn assert_golden(kind: Kind, extension: &str, written: &str) {
    let name = serde_json::to_value(kind).unwrap();
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(format!("{}.{extension}", name.as_str().unwrap()));
    if std::env::var_os("BOXOFFICE_WRITE_GOLDEN").is_some() && !path.exists() {
        std::fs::write(&path, format!("{written}\n")).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert_eq!(written, golden.trim_end(), "{}", path.display());
}

#[test]
fn each_kind_of_record_is_written_and_read_as_its_golden_file_says() {
    for kind in Kind::ALL {
        let (record, json) = (record(*kind), record(*kind).to_json());
        assert_golden(*kind, "json", std::str::from_utf8(&json).unwrap());
        assert_eq!(Record::decode(&json).as_ref(), Ok(&record));
        let sent = record.message().value;
        if kind.is_of_booking() {
            assert_golden(*kind, "hex", &sent.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
            assert_eq!(Record::decode(&sent), Ok(record));
        } else {
            assert_eq!(sent, json);
        }
    }
}

#[test]
fn what_is_not_a_record_of_this_version_is_refused_with_its_reason() {
    let golden = String::from_utf8(record(Kind::Booked).to_json()).unwrap();
    let (booking, totals) = golden.split_once("\"ticket_types\"").unwrap();
    let of_another_type = format!("{booking}\"ticket_types\"{}", totals.replacen("7a01", "7a0f", 1));
    for (text, reason) in [
        ("not json".to_owned(), "is not JSON"),
        (golden.replacen("\"v\":1", "\"v\":2", 1), "JSON in the unknown version 2; this build reads 1"),
        (golden.replacen("\"capacity\"", "\"held\":1,\"capacity\"", 1), "duplicate field"),
        (golden.replacen("\"ticket_types\":[{", "\"ticket_types\":[{},{", 1), "missing field"),
        (of_another_type, "totals of other ticket types"),
        (golden.replacen(".123Z\",\"booking\"", ".1234Z\",\"booking\"", 1), "no whole millisecond"),
        (golden.replacen("\"booking\"", "\"boking\"", 1), "unknown field"),
        (golden.replacen("booked", "invented", 1), "unknown variant"),
        (golden.replacen("\"kind\":\"booked\"", "\"kind\":\"barrier\"", 1), "lacks old_epoch"),
        (golden.replacen("\"kind\":\"booked\"", "\"kind\":\"closed\"", 1), "lacks event"),
        (golden[..golden.len() / 2].to_owned(), "is not JSON"),
    ] {
        let error = Record::decode(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(reason), "{error} should say {reason:?}");
    }
}

#[test]
fn what_is_not_a_packed_record_is_refused_with_its_reason() {
    const KIND_AT: usize = 15;
    const SEQUENCE_AT: usize = 23;
    const BOOKING_AT: usize = 60;
    let packed = record(Kind::Booked).message().value;
    let with = |at: usize, byte: u8| {
        let mut bytes = packed.clone();
        bytes[at] = byte;
        bytes
    };
    for (bytes, reason) in [
        (with(0, 3), "packed in the unknown version 3; this build reads 2"),
        (with(KIND_AT, 99), "unknown code 99"),
        (with(KIND_AT, 21), "Closed is not about a booking"),
        (with(SEQUENCE_AT, 40), "decision 2-40 has a booking as decision 2-41 left it"),
        (with(BOOKING_AT, 9), "unknown version 9"),
        (packed[..packed.len() - 1].to_vec(), "ends early"),
        ([packed.as_slice(), b"x"].concat(), "bytes after its end"),
    ] {
        let error = Record::decode(&bytes).unwrap_err().to_string();
        assert!(error.contains(reason), "{error} should say {reason:?}");
    }
}

#[test]
fn a_booking_that_cannot_be_read_is_sent_as_it_is_with_the_others_of_its_frame() {
    let records = [Kind::Held, Kind::Confirmed].map(record);
    let [mut first, second] = records.each_ref().map(|record| record.message().value);
    // The customer's text is in the image, of which the relay wants nothing but how many items it has.
    let text = first.windows(3).position(|bytes| bytes == b"ann").unwrap();
    first[text] = 0xff;
    let (head, decision) = first[3..].split_at(12);
    let frame = [&[1], head, decision, &second[15..]].concat();
    let sent = boxoffice_schema::frame::messages(records[0].shard, &frame).unwrap();
    assert_eq!(sent.iter().map(|message| message.value.clone()).collect::<Vec<_>>(), [first, second]);
    assert!(Record::decode(&sent[0].value).is_err());
    assert_eq!(sent[0].headers(), records[0].message().headers());
    assert_eq!(Record::decode(&sent[1].value).as_ref(), Ok(&records[1]));
}
