//! What cannot be read or applied is set aside: a row, a record in the dead-letter topic, and a command.

use boxoffice_reconciler::migrate;
use boxoffice_schema::ids::{EventId, TicketTypeId};
use boxoffice_schema::record::{Change, Kind, Record};
use rdkafka::message::{Headers, Message, OwnedMessage};

use crate::sale::{Sale, event_of};
use crate::stack::{FIRST, SECOND, Stack, UNCOPIED};

const OPEN: &str = "SELECT count(*) FROM dead_letters WHERE outcome IS NULL";

fn header(message: &OwnedMessage, name: &str) -> String {
    let header = message.headers().unwrap().iter().find(|header| header.key == name);
    String::from_utf8(header.unwrap().value.unwrap().to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_json_is_set_aside_and_its_position_taken() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let mut sale = Sale::new(FIRST, 10);
    let (published, booked) = (sale.publish(), sale.book("a", 1));
    stack.append(&[published]).await;
    stack.append_as(&booked, b"not JSON").await;
    // A reason that quotes what PostgreSQL cannot hold.
    let odd = sale.book("odd", 1);
    let value = String::from_utf8(odd.to_json()).unwrap().replace("booked", "\\u0000");
    stack.append_as(&odd, value.as_bytes()).await;
    stack.append(&[sale.book("b", 1)]).await;
    stack.wait_for_sequence(FIRST, 4).await;

    assert_eq!(
        stack.words("SELECT kind || ' ' || epoch || '-' || sequence FROM dead_letters ORDER BY id").await,
        ["poisoned 1-2", "poisoned 1-3"]
    );
    assert_eq!(stack.words("SELECT idempotency_key FROM bookings").await, ["b"]);
    let sent = stack.dead_letter_topic().await;
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0].payload().unwrap(), b"not JSON");
    assert_eq!(header(&sent[0], "boxoffice-origin-topic"), stack.config.kafka_topic);
    assert_eq!(header(&sent[0], "boxoffice-origin-partition"), "0");
    assert_eq!(header(&sent[0], "boxoffice-origin-offset"), "2");
    assert_eq!(header(&sent[0], "boxoffice-sequence"), "2");
    assert!(header(&sent[0], "boxoffice-reason").contains("JSON"));

    let (code, printed) = stack.command(&["dead-letters", "retry", "1"]).await;
    assert_eq!(code, 2, "{printed}");
    assert!(printed.contains("still cannot be read"), "{printed}");
    let (code, printed) = stack.command(&["dead-letters", "discard", "1"]).await;
    assert_eq!(code, 0, "{printed}");
    assert!(printed.contains("run `boxoffice-reconciler repair`"), "{printed}");
    assert_eq!(stack.number(OPEN).await, 1);
    service.stop().await;
    stack.remove().await;
}

/// The topic was made anew while something of the old one was open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_set_aside_at_the_offset_of_an_open_letter_of_another_position_is_a_letter_of_its_own() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let mut sale = Sale::new(FIRST, 10);
    let (published, booked) = (sale.publish(), sale.book("a", 1));
    let old = "INSERT INTO dead_letters (shard, epoch, sequence, kafka_offset, kind, reason, payload) \
               VALUES (0, 1, 99, 2, 'poisoned', 'of the old topic', '')";
    stack.execute(old).await;
    stack.append(&[published]).await;
    stack.append_as(&booked, b"not JSON").await;
    stack.wait_for_sequence(FIRST, 2).await;
    assert_eq!(stack.number(OPEN).await, 2);
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_version_is_set_aside_and_superseded_by_a_later_decision() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let mut sale = Sale::new(FIRST, 10);
    let (published, held) = (sale.publish(), sale.hold("a", 1));
    let confirmed = sale.decide(&held, Kind::Confirmed);
    stack.append(&[published]).await;
    let unknown = String::from_utf8(held.to_json()).unwrap().replacen("\"v\":1", "\"v\":3", 1);
    stack.append_as(&held, unknown.as_bytes()).await;
    stack.append(&[confirmed]).await;
    stack.wait_for_sequence(FIRST, 3).await;
    let (_, printed) = stack.command(&["dead-letters", "show", "1"]).await;
    assert!(printed.contains("unknown version 3; this build reads 1"), "{printed}");

    // A build that reads the version is played by putting the version right.
    sqlx::query("UPDATE dead_letters SET payload = $1")
        .bind(held.message().value)
        .execute(&stack.pool)
        .await
        .unwrap();
    let (code, printed) = stack.command(&["dead-letters", "retry", "1"]).await;
    assert_eq!((code, printed.trim().lines().next().unwrap()), (0, "dead letter 1: superseded"));
    assert_eq!(stack.words("SELECT status FROM bookings").await, ["confirmed"]);
    assert_eq!(stack.number("SELECT sold::int8 FROM ticket_types").await, 1);
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_log_has_is_shown_as_json_whether_it_can_be_read_or_not() {
    let stack = Stack::prepare().await;
    let mut sale = Sale::new(FIRST, 10);
    let (published, booked, held) = (sale.publish(), sale.book("a", 1), sale.hold("b", 1));
    stack.append(&[published.clone(), booked.clone()]).await;
    let cut = &held.message().value[..100];
    stack.append_raw(FIRST, cut, &[]).await;
    let shown = async |arguments: &[&str]| -> (i32, Vec<serde_json::Value>) {
        let (code, printed) = stack.command(&[&["log", "--shard", "0"], arguments].concat()).await;
        (code, printed.lines().map(|line| serde_json::from_str(line).unwrap_or(line.into())).collect())
    };
    let record = |record: &Record| serde_json::from_slice::<serde_json::Value>(&record.to_json()).unwrap();

    let (code, lines) = shown(&[]).await;
    assert_eq!((code, lines.len()), (0, 3));
    assert_eq!((&lines[0]["offset"], &lines[0]["record"]), (&0.into(), &record(&published)));
    assert_eq!((&lines[1]["offset"], &lines[1]["record"]), (&1.into(), &record(&booked)));
    assert_eq!(lines[2]["value"], cut.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    assert!(lines[2]["unreadable"].as_str().unwrap().contains("ends early"), "{}", lines[2]);
    assert_eq!(shown(&["--limit", "2"]).await.1, lines[1..]);
    assert_eq!(shown(&["--from", "1", "--limit", "1"]).await.1, lines[1..2]);
    assert_eq!(shown(&["--from", "3"]).await, (0, Vec::new()));
    let (code, lines) = shown(&["--from", "4"]).await;
    assert_eq!(code, 2);
    assert!(
        lines.iter().any(|line| line.to_string().contains("has no offset 4: it has 0 to 3")),
        "{lines:?}"
    );
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreadable_record_without_a_position_leaves_a_gap_that_a_retry_fills() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let mut sale = Sale::new(FIRST, 10);
    let (published, booked) = (sale.publish(), sale.book("a", 1));
    stack.append(&[published]).await;
    stack.append_raw(FIRST, b"\xff\xfe", &[("boxoffice-epoch", "one")]).await;
    stack.append(&[sale.book("b", 1)]).await;
    stack.wait_for_number("the gap shows", "SELECT count(*) FROM gaps WHERE resolved_at IS NULL", 1).await;
    assert_eq!(stack.number("SELECT count(*) FROM dead_letters WHERE sequence IS NULL").await, 1);
    assert_eq!(stack.position(FIRST).await, (1, 1, 3));

    sqlx::query("UPDATE dead_letters SET payload = $1")
        .bind(booked.message().value)
        .execute(&stack.pool)
        .await
        .unwrap();
    let (code, printed) = stack.command(&["dead-letters", "retry", "1"]).await;
    assert_eq!(code, 0, "{printed}");
    stack.wait_for_sequence(FIRST, 3).await;
    assert_eq!(stack.words("SELECT idempotency_key FROM bookings ORDER BY 1").await, ["a", "b"]);
    assert_eq!(stack.number("SELECT count(*) FROM gaps WHERE resolved_at IS NULL").await, 0);
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_booking_of_an_unknown_event_is_refused_and_the_rest_of_its_batch_applied() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let mut sale = Sale::new(FIRST, 10);
    let (published, first) = (sale.publish(), sale.book("a", 1));
    let mut stray = sale.book("stray", 1);
    stray.event_id = Some(EventId::new());
    sale.ticket_type().sold -= 1;
    let last = sale.book("b", 1);
    stack.append(&[published, first, stray, last]).await;
    stack.wait_for_sequence(FIRST, 4).await;

    assert_eq!(stack.words("SELECT kind FROM dead_letters").await, ["refused"]);
    assert_eq!(stack.words("SELECT kind FROM alarms").await, ["refused"]);
    assert_eq!(stack.words("SELECT idempotency_key FROM bookings ORDER BY 1").await, ["a", "b"]);
    assert_eq!(stack.number("SELECT sold::int8 FROM ticket_types").await, 2);
    assert_eq!(stack.dead_letter_topic().await.len(), 1);
    let (code, printed) = stack.command(&["dead-letters", "retry", "1"]).await;
    assert_eq!(code, 2, "{printed}");
    assert!(printed.contains("refused again"), "{printed}");
    assert_eq!(stack.number(OPEN).await, 1);
    assert_eq!(stack.command(&["dead-letters", "discard", "1"]).await.0, 0);
    assert_eq!(stack.number("SELECT count(*) FROM alarms WHERE resolved_at IS NULL").await, 0);
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_booking_under_one_key_is_refused() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let mut sale = Sale::new(FIRST, 10);
    let log = [sale.publish(), sale.book("a", 1), sale.book("a", 1), sale.book("b", 1)];
    stack.append(&log).await;
    stack.wait_for_sequence(FIRST, 4).await;

    let reasons = stack.words("SELECT reason FROM dead_letters").await;
    assert_eq!(reasons.len(), 1);
    assert!(reasons[0].contains("one_booking_a_key"), "{reasons:?}");
    assert_eq!(stack.number("SELECT sold::int8 FROM ticket_types").await, 2);
    // Redis counts the refused booking and PostgreSQL does not: that is said, too.
    assert_eq!(stack.words("SELECT kind FROM alarms ORDER BY kind").await, ["counts_differ", "refused"]);
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_oversell_is_refused_and_applied_when_there_is_room() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let mut sale = Sale::new(FIRST, 2);
    stack.append(&[sale.publish(), sale.book("a", 2), sale.book("b", 1)]).await;
    stack.wait_for_sequence(FIRST, 3).await;
    stack.append(&[sale.change_capacity(3)]).await;
    stack.wait_for_sequence(FIRST, 4).await;
    let reasons = stack.words("SELECT reason FROM dead_letters").await;
    assert!(reasons[0].contains("never_oversold"), "{reasons:?}");
    assert_eq!(stack.words("SELECT capacity || ' ' || sold FROM ticket_types").await, ["3 2"]);

    let (code, printed) = stack.command(&["dead-letters", "retry", "1"]).await;
    assert_eq!((code, printed.trim().lines().next().unwrap()), (0, "dead letter 1: applied"));
    assert_eq!(stack.words("SELECT capacity || ' ' || sold FROM ticket_types").await, ["3 3"]);
    let (code, printed) = stack.command(&["dead-letters", "retry", "1"]).await;
    assert_eq!(code, 2, "{printed}");
    assert_eq!(stack.number("SELECT sold::int8 FROM ticket_types").await, 3);
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_that_postgresql_cannot_hold_is_refused() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let mut sale = Sale::new(FIRST, 10);
    let published = sale.publish();
    let mut odd = sale.book("a", 1);
    let Change::Booking(change) = &mut odd.change else { unreachable!() };
    change.image.caller = boxoffice_schema::text::Caller::from_stored("nul \0".to_owned());
    stack.append(&[published, odd, sale.book("c", 1)]).await;
    stack.wait_for_sequence(FIRST, 3).await;
    assert_eq!(stack.words("SELECT kind FROM dead_letters").await, ["refused"]);
    assert_eq!(stack.words("SELECT idempotency_key FROM bookings").await, ["c"]);
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_large_batch_the_rest_is_applied_up_to_the_gap_where_one_record_is_refused() {
    let stack = Stack::prepare().await;
    let mut sale = Sale::new(FIRST, 300);
    let mut log = vec![sale.publish()];
    log.extend((0..249).map(|number| sale.book(&number.to_string(), 1)));
    let Change::Booking(change) = &mut log[150].change else { unreachable!() };
    change.image.items[0].ticket_type_id = TicketTypeId::new();
    log.remove(220);
    stack.append(&log).await;
    // Behind the gap a relay that took over sends again what was applied: that, too, is left for when the gap is mended.
    stack.append(&log[..100]).await;
    let service = stack.start();
    stack.wait_for_sequence(FIRST, 220).await;
    stack.wait_for_number("the gap is found", "SELECT count(*) FROM gaps", 1).await;

    assert_eq!(stack.number("SELECT count(*) FROM bookings").await, 218);
    assert_eq!(stack.number("SELECT sold::int8 FROM ticket_types").await, 218);
    assert_eq!(stack.words("SELECT kind || ' ' || sequence FROM dead_letters").await, ["refused 151"]);
    let gap = stack.words("SELECT from_sequence || '-' || to_sequence FROM gaps").await;
    assert_eq!(gap, ["221-221"]);
    assert_eq!(stack.position(FIRST).await.2, 220, "it reads on at the gap");
    service.stop().await;
    stack.remove().await;
}

/// A broker takes a little more in one record than Kafka's client sends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_to_be_copied_is_set_aside_whole_and_nothing_stands_still() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let mut sale = Sale::new(FIRST, 10);
    let (published, large) = (sale.publish(), vec![b'x'; 1_020_000]);
    stack.append(&[published]).await;
    stack.append_raw(FIRST, &large, &[]).await;
    stack.append(&[sale.book("a", 1)]).await;
    stack.wait_for_sequence(FIRST, 2).await;
    let sent = stack.dead_letter_topic().await;
    assert_eq!(sent[0].payload().unwrap(), &large[..512 << 10]);
    assert_eq!(header(&sent[0], "boxoffice-cut-from"), "1020000");
    assert_eq!(stack.number("SELECT length(payload)::int8 FROM dead_letters").await, 1_020_000);
    service.stop().await;
    stack.remove().await;
}

/// No statement takes one row twice, and no other one would be tried.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_names_a_ticket_type_twice_is_set_aside_and_holds_nobody_up() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let (mut sale, mut other) = (Sale::new(FIRST, 10), Sale::new(SECOND, 10));
    let published = sale.publish();
    let again = sale.ticket_type().clone();
    sale.event.ticket_types.push(again);
    let twice = sale.event_record(Kind::CapacityChanged);
    stack.append(&[published, twice, other.publish(), other.book("a", 1)]).await;
    stack.wait_for_sequence(FIRST, 2).await;
    stack.wait_for_sequence(SECOND, 2).await;
    let said = stack.words("SELECT kind || ' ' || sequence || ' ' || reason FROM dead_letters").await;
    assert_eq!(said.len(), 1);
    assert!(said[0].starts_with("poisoned 2 ") && said[0].ends_with("twice"), "{said:?}");
    assert_eq!(stack.words("SELECT idempotency_key FROM bookings").await, ["a"]);
    service.stop().await;
    stack.remove().await;
}

/// Of a batch that has both no statement takes the row twice: they are applied one by one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_events_that_name_one_ticket_type_hold_nobody_up() {
    let stack = Stack::prepare().await;
    let (mut sale, mut other) = (Sale::new(FIRST, 10), Sale::new(SECOND, 10));
    let published = sale.publish();
    let mut event = event_of(FIRST, stack.config.shards, 10);
    event.ticket_types = sale.event.ticket_types.clone();
    let mut twin = Sale { shard: FIRST, position: sale.position, event };
    stack.append(&[published, twin.publish(), other.publish(), other.book("a", 1)]).await;
    let service = stack.start();
    stack.wait_for_sequence(FIRST, 2).await;
    stack.wait_for_sequence(SECOND, 2).await;
    assert_eq!(stack.number("SELECT count(*) FROM events").await, 3);
    assert_eq!(stack.words("SELECT idempotency_key FROM bookings").await, ["a"]);
    service.stop().await;
    stack.remove().await;
}

/// The row is the record. Its copy waits for the topic, and nobody else does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_set_aside_while_the_dead_letter_topic_is_away_holds_nobody_up_and_is_copied_later() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    stack.delete_topic(&stack.config.dead_letter_topic).await;
    let (mut sale, mut other) = (Sale::new(FIRST, 10), Sale::new(SECOND, 10));
    let (published, booked) = (sale.publish(), sale.book("a", 1));
    stack.append(&[published]).await;
    stack.append_as(&booked, b"not a record").await;
    stack.append(&[sale.book("b", 1), other.publish(), other.book("c", 1)]).await;
    stack.wait_for_sequence(FIRST, 3).await;
    stack.wait_for_sequence(SECOND, 2).await;
    assert_eq!(stack.number(OPEN).await, 1);
    assert_eq!(stack.number(UNCOPIED).await, 1);

    // The topic is made again, and nothing else is changed.
    migrate::migrate(&stack.config).await.unwrap();
    let sent = stack.dead_letter_topic().await;
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].payload().unwrap(), b"not a record");
    service.stop().await;
    stack.remove().await;
}

/// A topic that was made anew begins at offset 0 again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_is_set_aside_although_another_was_at_its_offset_once() {
    let stack = Stack::prepare().await;
    stack
        .execute(
            "INSERT INTO dead_letters (shard, kafka_offset, kind, reason, payload, outcome, resolved_at) \
             SELECT 0, n, 'poisoned', 'x', '', 'discarded', now() FROM generate_series(0, 9) AS n",
        )
        .await;
    let service = stack.start();
    stack.wait_until_certified().await;
    stack.append_raw(FIRST, b"not a record", &[]).await;
    stack.wait_for_number("it is set aside", OPEN, 1).await;
    service.stop().await;
    stack.remove().await;
}
