//! Records that contradict what was applied are rows and alarms, and are never applied.

use boxoffice_schema::record::{Change, Kind};
use boxoffice_schema::text::PaymentReference;

use crate::sale::Sale;
use crate::stack::{FIRST, Stack};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_record_for_an_applied_position_is_an_alarm() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let mut sale = Sale::new(FIRST, 10);
    let (published, booked) = (sale.publish(), sale.book("a", 1));
    let mut forged = booked.clone();
    let Change::Booking(change) = &mut forged.change else { unreachable!() };
    change.image.payment_reference = Some(PaymentReference::try_from("other".to_owned()).unwrap());
    stack.append(&[published, booked, forged]).await;
    stack.wait_for_offset(FIRST, 4).await;

    assert_eq!(stack.words("SELECT kind FROM alarms").await, ["contradiction"]);
    assert_eq!(stack.number("SELECT count(*) FROM bookings WHERE payment_reference IS NULL").await, 1);
    stack.append(&[sale.book("b", 1)]).await;
    stack.wait_for_sequence(FIRST, 3).await;
    let (code, printed) = stack.command(&["alarms", "list"]).await;
    assert_eq!(code, 0);
    assert!(printed.contains("log --shard 0 --from 3 --limit 1"), "{printed}");
    assert!(printed.contains("alarms resolve 1"), "{printed}");
    assert_eq!(stack.command(&["alarms", "resolve", "1"]).await.0, 0);
    assert_eq!(stack.command(&["alarms", "resolve", "1"]).await.0, 1);
    let told = stack.words("SELECT concat_ws('|', kind, outcome, after) FROM repairs").await;
    assert_eq!(told, ["alarm|done|resolved"]);
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_of_an_ended_epoch_behind_the_barrier_is_never_applied() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let mut sale = Sale::new(FIRST, 10);
    let (published, booked) = (sale.publish(), sale.book("a", 1));
    // The old Redis decided once more; the new one knows nothing of it.
    let mut old = Sale { shard: FIRST, position: sale.position, event: sale.event.clone() };
    let late = old.book("late", 1);
    sale.position.epoch = 2;
    let barrier = sale.barrier();
    stack.append(&[published, booked.clone(), barrier, booked, late, sale.book("b", 1)]).await;
    stack.wait_for_sequence(FIRST, 3).await;

    // That Redis, which decided nothing here, is behind is told as well, sooner or later, and a recovery begins an epoch.
    assert_eq!(stack.words("SELECT kind FROM alarms WHERE kind <> 'redis_lost'").await, ["ended_epoch"]);
    assert_eq!(stack.words("SELECT idempotency_key FROM bookings ORDER BY 1").await, ["a", "b"]);
    assert!(stack.position(FIRST).await.0 >= 2);
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_record_is_an_alarm_although_its_sequence_number_was_used_again() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let mut sale = Sale::new(FIRST, 10);
    let (published, booked) = (sale.publish(), sale.book("a", 1));
    let mut old = Sale { shard: FIRST, position: sale.position, event: sale.event.clone() };
    let late = old.book("late", 1);
    sale.position.epoch = 2;
    let barrier = sale.barrier();
    stack.append(&[published, booked.clone(), barrier, sale.book("b", 1)]).await;
    stack.wait_for_sequence(FIRST, 3).await;
    service.stop().await;

    // Another process knows it too.
    let service = stack.start();
    stack.append(&[booked, late, sale.book("c", 1)]).await;
    stack.wait_for_sequence(FIRST, 4).await;
    assert_eq!(stack.words("SELECT kind FROM alarms WHERE kind <> 'redis_lost'").await, ["ended_epoch"]);
    assert_eq!(stack.words("SELECT idempotency_key FROM bookings ORDER BY 1").await, ["a", "b", "c"]);
    service.stop().await;
    stack.remove().await;
}

/// Another reconciler, which believed in its lease, began an epoch while this one waited for the shard's row.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_record_is_an_alarm_although_its_epoch_ended_while_the_shard_was_waited_for() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let mut sale = Sale::new(FIRST, 10);
    stack.append(&[sale.publish(), sale.book("a", 1)]).await;
    stack.wait_for_sequence(FIRST, 2).await;

    let mut other = stack.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM shards WHERE shard = 0 FOR NO KEY UPDATE").execute(&mut *other).await.unwrap();
    stack.append(&[sale.book("late", 1)]).await;
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                   AND wait_event_type = 'Lock' AND query LIKE '%next_offset%FOR NO KEY UPDATE%'";
    stack.wait_for_number("the shard is waited for", waiting, 1).await;
    let begin = "WITH begun AS (INSERT INTO epochs (shard, epoch, began_behind) VALUES (0, 2, 2)) \
                 UPDATE shards SET epoch = 2, recovery_epoch = 2, sequence = 3, digest = NULL WHERE shard = 0";
    sqlx::query(begin).execute(&mut *other).await.unwrap();
    other.commit().await.unwrap();

    let late = "SELECT count(*) FROM alarms WHERE kind = 'ended_epoch'";
    stack.wait_for_number("the late record is told of", late, 1).await;
    assert_eq!(stack.words("SELECT idempotency_key FROM bookings").await, ["a"]);
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_that_differ_from_redis_at_the_same_position_are_one_alarm_and_are_not_overwritten() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let mut sale = Sale::new(FIRST, 10);
    stack.append(&[sale.publish()]).await;
    sale.ticket_type().sold = 4;
    for key in ["a", "b", "c"] {
        stack.append(&[sale.book(key, 1)]).await;
    }
    stack.wait_for_sequence(FIRST, 4).await;

    assert_eq!(stack.words("SELECT kind FROM alarms").await, ["counts_differ"]);
    assert_eq!(stack.number("SELECT sold::int8 FROM ticket_types").await, 3);
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_booking_that_is_made_a_second_time_is_one_row_that_counts_once() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let mut sale = Sale::new(FIRST, 10);
    let (published, made) = (sale.publish(), sale.book("a", 2));
    stack.append(&[published, made.clone()]).await;
    stack.wait_for_sequence(FIRST, 2).await;
    let before = sale.book("b", 1);
    let again = sale.decide(&made, Kind::Booked);
    stack.append(&[before, again, sale.book("c", 1)]).await;
    stack.wait_for_sequence(FIRST, 5).await;

    let rows = stack.words("SELECT idempotency_key || ' ' || sequence FROM bookings ORDER BY 1").await;
    assert_eq!(rows, ["a 4", "b 3", "c 5"]);
    assert_eq!(stack.number("SELECT sold::int8 FROM ticket_types").await, 4);
    assert_eq!(stack.number("SELECT count(*) FROM booking_items").await, 3);
    assert_eq!(stack.number("SELECT count(*) FROM dead_letters").await, 0);
    assert_eq!(stack.number("SELECT count(*) FROM alarms").await, 0);
    service.stop().await;
    stack.remove().await;
}
