//! Decisions become rows, once.

use std::str::FromStr;
use std::time::Duration;

use boxoffice_schema::record::{Kind, Record};
use secrecy::ExposeSecret;
use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;

use crate::link::Link;
use crate::sale::Sale;
use crate::stack::{FIRST, SECOND, Stack, wait_until, wait_within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bookings_and_counts_follow_the_log() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let mut sale = Sale::new(FIRST, 10);
    let mut log = vec![sale.publish(), sale.book("a", 2)];
    let [b, c, d, e] = ["b", "c", "d", "e"].map(|key| sale.hold(key, 1));
    log.extend([b.clone(), c.clone(), d.clone(), e]);
    log.extend([
        sale.decide(&b, Kind::Confirmed),
        sale.decide(&c, Kind::Cancelled),
        sale.decide(&d, Kind::Expired),
    ]);
    let paused = sale.event_record(Kind::Paused);
    log.push(paused);
    stack.append(&log).await;
    stack.wait_for_sequence(FIRST, 10).await;

    let counts: (i32, i32, i32) =
        sqlx::query_as("SELECT capacity, held, sold FROM ticket_types").fetch_one(&stack.pool).await.unwrap();
    assert_eq!(counts, (10, 1, 3));
    let states = stack.words("SELECT idempotency_key || ' ' || status FROM bookings ORDER BY 1").await;
    assert_eq!(states, ["a confirmed", "b confirmed", "c cancelled", "d expired", "e held"]);
    assert_eq!(stack.number("SELECT count(*) FROM booking_items").await, 5);
    assert_eq!(stack.number("SELECT sum(total_amount)::int8 FROM bookings").await, 6 * 5_000);
    assert_eq!(stack.number("SELECT count(*) FROM alarms").await, 0);
    service.stop().await;
    stack.remove().await;
}

/// As it is while the APIs are replaced one by one, and over a log that is older than the format of now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bookings_as_json_are_applied_beside_packed_ones_and_either_may_repeat_the_other() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let mut sale = Sale::new(FIRST, 10);
    let (published, held) = (sale.publish(), sale.hold("a", 1));
    let (confirmed, booked) = (sale.decide(&held, Kind::Confirmed), sale.book("b", 2));
    let as_json = async |record: &Record| stack.append_as(record, &record.to_json()).await;
    stack.append(&[published]).await;
    as_json(&held).await;
    stack.append(&[held.clone(), confirmed.clone()]).await;
    as_json(&confirmed).await;
    as_json(&booked).await;
    stack.append(&[booked]).await;
    stack.wait_for_offset(FIRST, 7).await;

    let states = stack.words("SELECT idempotency_key || ' ' || status FROM bookings ORDER BY 1").await;
    assert_eq!(states, ["a confirmed", "b confirmed"]);
    assert_eq!(stack.number("SELECT sum(sold)::int8 FROM ticket_types").await, 3);
    assert_eq!(stack.number("SELECT count(*) FROM alarms").await, 0);
    assert_eq!(stack.number("SELECT count(*) FROM dead_letters").await, 0);
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_comes_again_changes_nothing() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let mut sale = Sale::new(FIRST, 10);
    let first = [sale.publish(), sale.hold("a", 1)];
    let later = [sale.decide(&first[1], Kind::Confirmed), sale.book("b", 2)];
    stack.append(&first).await;
    stack.append(&first).await;
    stack.append(&later).await;
    stack.append(&first).await;
    stack.append(&later).await;
    let other = Sale::new(SECOND, 1).publish();
    stack.append(&[other]).await;
    stack.wait_for_offset(FIRST, 11).await;

    assert_eq!(stack.position(FIRST).await, (1, 4, 11));
    assert_eq!(stack.number("SELECT sum(sold)::int8 FROM ticket_types").await, 3);
    assert_eq!(stack.number("SELECT sum(held)::int8 FROM ticket_types").await, 0);
    assert_eq!(stack.number("SELECT count(*) FROM bookings").await, 2);
    assert_eq!(stack.number("SELECT count(*) FROM alarms").await, 0);
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draft_is_published_and_changed_by_the_log_alone() {
    let stack = Stack::prepare().await;
    let mut sale = Sale::new(FIRST, 10);
    sqlx::query(
        "INSERT INTO events (id, shard, name, starts_at, hold_seconds, currency, created_at, updated_at) \
         VALUES ($1, 0, 'Draft', now(), 600, 'EUR', now(), now())",
    )
    .bind(sale.event.id.as_uuid())
    .execute(&stack.pool)
    .await
    .unwrap();
    sqlx::query(
        "INSERT INTO ticket_types (id, event_id, ordinal, name, price, capacity) VALUES ($1, $2, 0, 'Old', 1, 3)",
    )
    .bind(sale.ticket_type().id.as_uuid())
    .bind(sale.event.id.as_uuid())
    .execute(&stack.pool)
    .await
    .unwrap();
    let service = stack.start();
    stack.wait_until_certified().await;
    stack.append(&[sale.publish(), sale.book("a", 7), sale.change_capacity(7)]).await;
    stack.wait_for_sequence(FIRST, 3).await;

    assert_eq!(stack.words("SELECT status || ' ' || name FROM events").await, ["on_sale Concert"]);
    assert_eq!(
        stack.words("SELECT name || capacity || ' ' || sold FROM ticket_types").await,
        ["Standing7 7"]
    );
    assert_eq!(stack.number("SELECT count(*) FROM alarms").await, 0);
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_capacity_that_shrinks_behind_cancellations_violates_nothing() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let mut sale = Sale::new(FIRST, 10);
    let (published, booked) = (sale.publish(), sale.book("a", 10));
    let cancelled = sale.decide(&booked, Kind::Cancelled);
    let shrunk = sale.change_capacity(5);
    let sold = sale.book("b", 5);
    let grown = sale.change_capacity(8);
    let more = sale.book("c", 3);
    stack.append(&[published, booked, cancelled, shrunk, sold, grown, more]).await;
    stack.wait_for_sequence(FIRST, 7).await;

    assert_eq!(
        stack.words("SELECT capacity || ' ' || held || ' ' || sold FROM ticket_types").await,
        ["8 0 8"]
    );
    assert_eq!(stack.number("SELECT count(*) FROM dead_letters").await, 0);
    assert_eq!(stack.number("SELECT count(*) FROM alarms").await, 0);
    service.stop().await;
    stack.remove().await;
}

/// The service is killed again and again while it applies; positions, offsets and rows must always belong together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_reconciler_counts_nothing_twice() {
    // More than two batches, so that the first kill always leaves some.
    const BOOKINGS: u16 = 40_000;
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    service.stop().await;
    let mut sale = Sale::new(FIRST, u32::from(BOOKINGS));
    let mut log = vec![sale.publish()];
    log.extend((0..BOOKINGS).map(|n| sale.book(&format!("key-{n}"), 1)));
    stack.append(&log).await;

    let end = i64::from(BOOKINGS) + 1;
    let mut kills = 0;
    while stack.position(FIRST).await.1 < end {
        let before = stack.position(FIRST).await.1;
        let mut child = stack.binary(&["run"]).stderr(std::process::Stdio::null()).spawn().unwrap();
        wait_until("the killed reconciler has applied something", async || {
            stack.position(FIRST).await.1 > before
        })
        .await;
        child.kill().await.unwrap();
        kills += 1;
        let (sequence, next_offset, bookings, sold): (i64, i64, i64, i64) = sqlx::query_as(
            "SELECT sequence, next_offset, (SELECT count(*) FROM bookings), (SELECT sum(sold)::int8 FROM ticket_types) \
             FROM shards WHERE shard = 0",
        )
        .fetch_one(&stack.pool)
        .await
        .unwrap();
        // Offset 0 is the barrier of the first start.
        assert_eq!((next_offset, bookings, sold), (sequence + 1, sequence - 1, sequence - 1));
        // The lease of the killed process would be waited for; its expiry has a test of its own.
        stack.execute("DELETE FROM leases").await;
    }
    assert!(kills > 1, "it was never killed in the middle");
    assert_eq!(stack.number("SELECT count(*) FROM booking_items").await, i64::from(BOOKINGS));
    assert_eq!(stack.number("SELECT count(*) FROM alarms WHERE kind <> 'redis_lost'").await, 0);
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_fails_is_tried_until_it_succeeds() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    // A sequence counts the attempts, since it does not roll back.
    stack.execute("CREATE SEQUENCE attempts").await;
    stack
        .execute(
            "CREATE FUNCTION fail_thrice() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF nextval('attempts') <= 3 THEN RAISE 'not now' USING ERRCODE = 'serialization_failure'; END IF; \
             RETURN NULL; END $$",
        )
        .await;
    stack.execute("CREATE TRIGGER fail_thrice AFTER INSERT ON bookings EXECUTE FUNCTION fail_thrice()").await;
    let mut sale = Sale::new(FIRST, 10);
    let log: Vec<_> =
        std::iter::once(sale.publish()).chain((0..5).map(|n| sale.book(&format!("{n}"), 1))).collect();
    stack.append(&log).await;
    stack.wait_for_sequence(FIRST, 6).await;

    assert!(stack.number("SELECT last_value FROM attempts").await > 3);
    assert_eq!(stack.number("SELECT count(*) FROM bookings").await, 5);
    assert_eq!(stack.number("SELECT sold::int8 FROM ticket_types").await, 5);
    assert_eq!(stack.number("SELECT count(*) FROM dead_letters").await, 0);
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgresql_that_is_away_is_waited_for() {
    const BOOKINGS: i64 = 3_000;
    let stack = Stack::prepare().await;
    let mut link = Link::to(stack.config.database_url.expose_secret()).await;
    let service = stack.start_with(|config| config.database_url = link.url().into());
    stack.wait_until_certified().await;
    let mut sale = Sale::new(FIRST, 10_000);
    stack.append(&[sale.publish(), sale.book("first", 1)]).await;
    stack.wait_for_sequence(FIRST, 2).await;

    link.cut();
    let log: Vec<_> = (0..BOOKINGS).map(|n| sale.book(&format!("{n}"), 1)).collect();
    stack.append(&log).await;
    assert_eq!(stack.position(FIRST).await.1, 2);
    link.mend().await;
    stack.wait_for_sequence(FIRST, 2 + BOOKINGS).await;
    assert_eq!(stack.number("SELECT sold::int8 FROM ticket_types").await, 1 + BOOKINGS);
    assert_eq!(stack.number("SELECT count(*) FROM dead_letters").await, 0);
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_instance_stands_by_and_takes_over() {
    let stack = Stack::prepare().await;
    let first = stack.start();
    stack.wait_until_certified().await;
    let second = stack.start();
    let holder = stack.words("SELECT holder FROM leases").await;
    let mut sale = Sale::new(FIRST, 10);
    stack.append(&[sale.publish(), sale.book("a", 1)]).await;
    stack.wait_for_sequence(FIRST, 2).await;
    assert_eq!(stack.words("SELECT holder FROM leases").await, holder);

    first.stop().await;
    stack.append(&[sale.book("b", 1)]).await;
    stack.wait_for_sequence(FIRST, 3).await;
    assert_ne!(stack.words("SELECT holder FROM leases").await, holder);
    second.stop().await;
    assert_eq!(stack.number("SELECT count(*) FROM leases").await, 0);
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_ran_out_is_taken_over() {
    let stack = Stack::prepare().await;
    stack.execute("INSERT INTO leases VALUES ('reconciler', 'killed', now() + interval '1 second')").await;
    let service = stack.start();
    stack.wait_until_certified().await;
    assert_ne!(stack.words("SELECT holder FROM leases").await, ["killed"]);
    service.stop().await;
    stack.remove().await;
}

/// PostgreSQL takes a session that waits for the rest of a `COPY` for active, and gives it no time-out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reconciler_that_was_paused_in_the_middle_of_a_copy_does_not_hold_up_its_successor_for_ever() {
    let stack = Stack::prepare().await;
    let options = PgConnectOptions::from_str(stack.config.database_url.expose_secret()).unwrap();
    let mut paused = options.application_name("boxoffice-reconciler").connect().await.unwrap();
    sqlx::query("BEGIN").execute(&mut paused).await.unwrap();
    sqlx::query("SELECT FROM shards FOR NO KEY UPDATE").execute(&mut paused).await.unwrap();
    let copy = paused.copy_in_raw("COPY booking_items FROM STDIN").await.unwrap();

    let service = stack.start();
    let mut sale = Sale::new(FIRST, 1_000);
    let mut log = vec![sale.publish()];
    log.extend((0..200).map(|n| sale.book(&format!("k{n}"), 1)));
    stack.append(&log).await;
    let is_applied = async || stack.position(FIRST).await.1 == 201;
    wait_within(Duration::from_secs(50), "its rows are free", is_applied).await;
    drop(copy);
    service.stop().await;
    stack.remove().await;
}

/// A fail-over to a server that lacked the last transactions, before anybody noticed that the connections had changed sides.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_postgresql_has_forgotten_is_read_again_and_no_gap() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let mut sale = Sale::new(FIRST, 10);
    stack.append(&[sale.publish(), sale.book("a", 1)]).await;
    stack.wait_for_sequence(FIRST, 2).await;
    stack.execute("CREATE TABLE kept AS SELECT * FROM shards WHERE shard = 0").await;
    stack.append(&[sale.book("b", 1), sale.book("c", 1)]).await;
    stack.wait_for_sequence(FIRST, 4).await;
    let go_back = "DO $$ BEGIN \
         DELETE FROM booking_items WHERE booking_id IN (SELECT id FROM bookings WHERE idempotency_key <> 'a'); \
         DELETE FROM bookings WHERE idempotency_key <> 'a'; \
         UPDATE ticket_types SET sold = 1; \
         UPDATE shards SET sequence = kept.sequence, digest = kept.digest, next_offset = kept.next_offset \
             FROM kept WHERE kept.shard = shards.shard; \
         END $$";
    stack.execute(go_back).await;
    stack.append(&[sale.book("d", 1)]).await;
    stack.wait_for_sequence(FIRST, 5).await;

    assert_eq!(stack.number("SELECT count(*) FROM gaps").await, 0);
    assert_eq!(stack.words("SELECT idempotency_key FROM bookings ORDER BY 1").await, ["a", "b", "c", "d"]);
    assert_eq!(stack.number("SELECT sum(sold)::int8 FROM ticket_types").await, 4);
    assert_eq!(stack.number("SELECT count(*) FROM alarms").await, 0);
    service.stop().await;
    stack.remove().await;
}
