//! What the audit finds is mended while tickets are sold, once, and never in silence.

use std::time::Duration;

use boxoffice_schema::fingerprint::IdempotencyField;
use boxoffice_schema::ids::BookingId;
use boxoffice_schema::scripts::{EventChange, Outcome, RestatementReply, restate_event};
use boxoffice_schema::slot;
use boxoffice_schema::status::BookingStatus;

use crate::recovering::{BOUNDS, LiveSale, inventory, restart_redis, sold_in_every_state};
use crate::relaying::{outbox, trim_outbox, while_relayed, while_sold};
use crate::stack::{FIRST, Stack, wait_until};

const OPEN_ALARMS: &str = "SELECT count(*) FROM alarms WHERE resolved_at IS NULL";
const MENDED_STOCK: &str = "SELECT count(*) FROM repairs WHERE kind = 'stock' AND outcome = 'done'";

/// A sale with three bookings in both stores.
pub(crate) async fn sold(stack: &Stack) -> LiveSale {
    stack.wait_until_certified().await;
    let sale = LiveSale::publish(stack, 100_000).await;
    while_relayed(stack, async {
        for key in ["a", "b", "c"] {
            assert!(matches!(sale.book(stack, key).await, Outcome::Changed(_)));
        }
        stack.wait_for_sequence(FIRST, 4).await;
    })
    .await;
    sale
}

pub(crate) async fn redis_integer(stack: &Stack, command: &str, arguments: &[&[u8]]) -> i64 {
    redis::cmd(command).arg(arguments).query_async(&mut stack.redis.clone()).await.unwrap()
}

/// As a defect or a hand would do it.
async fn add_sold(stack: &Stack, sale: &LiveSale, tickets: i64) {
    let key = stack.config.keys().event(FIRST, sale.id());
    redis_integer(stack, "HINCRBY", &[key.as_bytes(), b"sold0", tickets.to_string().as_bytes()]).await;
}

async fn sold_in_redis(stack: &Stack, sale: &LiveSale) -> i64 {
    let key = stack.config.keys().event(FIRST, sale.id());
    redis_integer(stack, "HGET", &[key.as_bytes(), b"sold0"]).await
}

/// The bookings that Redis has as confirmed, each of a ticket.
async fn confirmed_in_redis(stack: &Stack) -> i64 {
    let mut confirmed = 0;
    for (key, fields) in inventory(stack).await {
        if !key.contains(":bookings:") {
            continue;
        }
        for (field, value) in fields {
            // Each slot has an empty field, too.
            let Ok(field) = <[u8; 10]>::try_from(field.as_slice()) else { continue };
            let (_, image) = slot::decode(IdempotencyField::from_bytes(field), &value).unwrap();
            confirmed += i64::from(image.status == BookingStatus::Confirmed);
        }
    }
    confirmed
}

async fn confirmed(stack: &Stack) -> i64 {
    stack.number("SELECT count(*) FROM bookings WHERE status = 'confirmed'").await
}

/// Both stores and the bookings agree.
pub(crate) async fn assert_whole(stack: &Stack, sale: &LiveSale) {
    let (code, printed) = stack.command(&["audit", "--deep"]).await;
    assert_eq!(code, 0, "{printed}");
    assert_eq!(sold_in_redis(stack, sale).await, confirmed(stack).await);
    assert_eq!(stack.number("SELECT sum(sold)::int8 FROM ticket_types").await, confirmed(stack).await);
    assert_eq!(stack.number(OPEN_ALARMS).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drift_in_redis_is_mended_while_tickets_are_sold() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    let sale = sold(&stack).await;
    let event = sale.id().to_string();
    for tickets in [3, -2] {
        let mended = stack.number(MENDED_STOCK).await;
        add_sold(&stack, &sale, tickets).await;
        let arguments = ["repair", "--event", &event, "--by", "Ann"];
        let keys = format!("live{tickets}");
        let job = while_sold(&stack, &sale, &keys, stack.command(&arguments));
        let ((_, printed), sold) = while_relayed(&stack, job).await;
        assert!(sold > 20, "{sold} were sold meanwhile: {printed}");
        assert_eq!(stack.number(MENDED_STOCK).await, mended + 1, "{printed}");
        assert!(printed.contains("Ann"), "{printed}");
    }
    while_relayed(&stack, async {
        let last =
            i64::try_from(outbox(&stack).await.last().map_or(0, |record| record.position.sequence)).unwrap();
        stack.wait_for_sequence(FIRST, last).await;
    })
    .await;
    assert_whole(&stack, &sale).await;
    let told = stack
        .words("SELECT concat(before, ' -> ', after) FROM repairs WHERE kind = 'stock' ORDER BY id")
        .await;
    assert!(told[0].contains("held +0, sold +3") && told[1].contains("held +0, sold -2"), "{told:?}");
    assert!(told.iter().all(|told| told.contains("mended at 1-")), "{told:?}");
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drift_that_is_repaired_twice_or_by_two_at_once_is_mended_once() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    let sale = sold(&stack).await;
    add_sold(&stack, &sale, 5).await;
    while_relayed(&stack, async {
        tokio::join!(stack.command(&["repair"]), stack.command(&["repair"]));
        let (code, printed) = stack.command(&["repair"]).await;
        assert_eq!(code, 0, "{printed}");
        assert!(printed.contains("Nothing was mended."), "{printed}");
    })
    .await;
    assert_eq!(stack.number(MENDED_STOCK).await, 1);
    assert_eq!(sold_in_redis(&stack, &sale).await, 3);
    assert_whole(&stack, &sale).await;
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_applies_the_log_itself_where_no_service_runs() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    let sale = sold(&stack).await;
    service.stop().await;
    add_sold(&stack, &sale, 1).await;
    let (code, printed) = while_relayed(&stack, stack.command(&["repair"])).await;
    assert_eq!(code, 0, "{printed}");
    assert_eq!(stack.number(MENDED_STOCK).await, 1);
    assert_whole(&stack, &sale).await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_of_postgresql_are_set_to_the_sums_of_its_bookings() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    let sale = sold(&stack).await;
    let before = inventory(&stack).await;
    stack.execute("UPDATE ticket_types SET held = 7, sold = 1").await;
    let (code, printed) = while_relayed(&stack, stack.command(&["repair", "--by", "Ann"])).await;
    assert_eq!(code, 0, "{printed}");
    assert_eq!(inventory(&stack).await, before);
    let rows =
        stack.words("SELECT concat_ws('|', kind, asked_by, outcome, before, after) FROM repairs").await;
    let ticket_type = sale.event.ticket_types[0].id;
    let told = |counts| format!("PostgreSQL, ticket type {ticket_type}: {counts}");
    assert_eq!(rows, [format!("counts|Ann|done|{}|{}", told("held 7, sold 1"), told("held 0, sold 3"))]);
    assert_whole(&stack, &sale).await;
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_whose_publication_went_with_an_accepted_gap_is_said_again_with_its_bookings() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let sale = LiveSale::publish(&stack, 100).await;
    insert_frozen_draft(&stack, &sale).await;
    for key in ["a", "b"] {
        assert!(matches!(sale.book(&stack, key).await, Outcome::Changed(_)));
    }
    // Neither the publication nor the first booking ever comes to Kafka.
    let records = outbox(&stack).await;
    stack.append(&records[2..]).await;
    trim_outbox(&stack, records.last().unwrap().position).await;
    let open_gaps = "SELECT count(*) FROM gaps WHERE resolved_at IS NULL";
    stack.wait_for_number("the gap is found", open_gaps, 1).await;

    while_relayed(&stack, async {
        assert_eq!(stack.command(&["gaps", "accept", "1"]).await.0, 0);
        stack.wait_for_sequence(FIRST, 3).await;
        assert_eq!(stack.words("SELECT status FROM events").await, ["draft"]);
        let (code, printed) = stack.command(&["repair"]).await;
        assert_eq!(code, 0, "{printed}");
    })
    .await;
    assert_eq!(stack.words("SELECT status FROM events").await, ["on_sale"]);
    assert_eq!(stack.words("SELECT idempotency_key FROM bookings ORDER BY 1").await, ["a", "b"]);
    assert_whole(&stack, &sale).await;
    service.stop().await;
    stack.remove().await;
}

/// As after a backup of PostgreSQL from before somebody made the event, where Kafka has lost what came since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_of_which_postgresql_has_no_row_is_found_by_a_deep_audit_and_said_again_with_its_bookings() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let sale = LiveSale::publish(&stack, 100).await;
    for key in ["a", "b"] {
        assert!(matches!(sale.book(&stack, key).await, Outcome::Changed(_)));
    }
    trim_outbox(&stack, outbox(&stack).await.last().unwrap().position).await;
    let open_gaps = "SELECT count(*) FROM gaps WHERE resolved_at IS NULL";
    stack.wait_for_number("the log is found to lack its end", open_gaps, 1).await;

    while_relayed(&stack, async {
        assert_eq!(stack.command(&["gaps", "accept", "1"]).await.0, 0);
        stack.wait_for_sequence(FIRST, 3).await;
        assert_eq!(stack.number("SELECT count(*) FROM events").await, 0);
        let event = sale.id().to_string();
        for arguments in [&["audit", "--deep"][..], &["audit", "--event", &event]] {
            let (code, printed) = stack.command(arguments).await;
            assert_eq!(code, 1, "{printed}");
            let next = format!("repair --event {event}");
            assert!(printed.contains("has no publication") && printed.contains(&next), "{printed}");
        }
        let (code, printed) = stack.command(&["repair"]).await;
        assert_eq!(code, 0, "{printed}");
    })
    .await;
    assert_eq!(stack.words("SELECT status FROM events").await, ["on_sale"]);
    assert_eq!(stack.words("SELECT idempotency_key FROM bookings ORDER BY 1").await, ["a", "b"]);
    assert_whole(&stack, &sale).await;
    service.stop().await;
    stack.remove().await;
}

/// As the API leaves it before it asks Redis to publish.
pub(crate) async fn insert_frozen_draft(stack: &Stack, sale: &LiveSale) {
    let (event, of_type) = (&sale.event, &sale.event.ticket_types[0]);
    sqlx::query(
        "WITH draft AS (INSERT INTO events (id, shard, name, starts_at, hold_seconds, currency, slots, frozen_at, \
             created_at, updated_at) VALUES ($1, 0, $2, $3, $4, $5, $6, now(), $7, $7) RETURNING id) \
         INSERT INTO ticket_types (id, event_id, ordinal, name, price, capacity) SELECT $8, id, 0, $9, $10, $11 FROM draft",
    )
    .bind(event.id.as_uuid())
    .bind(event.name.as_str())
    .bind(event.starts_at)
    .bind(i32::try_from(event.hold_seconds).unwrap())
    .bind(event.currency.to_string())
    .bind(i32::try_from(event.slots).unwrap())
    .bind(event.created_at)
    .bind(of_type.id.as_uuid())
    .bind(of_type.name.as_str())
    .bind(i64::try_from(of_type.price).unwrap())
    .bind(i32::try_from(of_type.capacity).unwrap())
    .execute(&stack.pool)
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_accepted_gap_took_from_postgresql_is_said_again_by_redis() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    let sale = sold(&stack).await;
    // Two decisions never come to Kafka, and the outbox forgets them.
    let held = sale.hold(&stack, "held", 600_000).await;
    assert!(matches!(sale.book(&stack, "lost").await, Outcome::Changed(_)));
    let _ = sale.hold(&stack, "lost-hold", 600_000).await;
    assert!(matches!(sale.book(&stack, "late").await, Outcome::Changed(_)));
    let records = outbox(&stack).await;
    let last = records.last().unwrap().position;
    stack.append(&[records[0].clone(), records[3].clone()]).await;
    trim_outbox(&stack, last).await;
    sale.confirm(&stack, held).await;
    let open_gaps = "SELECT count(*) FROM gaps WHERE resolved_at IS NULL";
    stack.wait_for_number("the gap is found", open_gaps, 1).await;

    while_relayed(&stack, async {
        let (code, printed) = stack.command(&["repair"]).await;
        assert_ne!(code, 0, "{printed}");
        assert!(printed.contains("gaps accept 2") && printed.contains("still decisions"), "{printed}");
        assert_eq!(stack.command(&["gaps", "accept", "2"]).await.0, 0);
        let (code, printed) = stack.command(&["repair", "--by", "Ann"]).await;
        assert_eq!(code, 0, "{printed}");
    })
    .await;
    let found = stack.words("SELECT idempotency_key || ' ' || status FROM bookings ORDER BY 1").await;
    assert_eq!(
        found,
        [
            "a confirmed",
            "b confirmed",
            "c confirmed",
            "held confirmed",
            "late confirmed",
            "lost confirmed",
            "lost-hold held"
        ]
    );
    let rows = "SELECT count(*) FROM repairs WHERE kind = 'restate' AND asked_by = 'Ann' AND outcome = 'done' \
                AND before LIKE 'PostgreSQL lacks bookings%' AND after LIKE 'restated, the last at%'";
    assert_eq!(stack.number(rows).await, 1);
    assert!(matches!(sale.book(&stack, "lost").await, Outcome::Replayed(..)));
    assert_whole(&stack, &sale).await;
    service.stop().await;
    stack.remove().await;
}

/// A booking that only Redis has is not found then, and PostgreSQL goes on before the counters are looked at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_counter_is_lowered_where_postgresql_stood_still_while_bookings_were_compared() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    let sale = sold(&stack).await;
    assert!(matches!(sale.book(&stack, "lost").await, Outcome::Changed(_)));
    trim_outbox(&stack, outbox(&stack).await.last().unwrap().position).await;
    let open_gaps = "SELECT count(*) FROM gaps WHERE resolved_at IS NULL";
    let ((_, printed), _) = while_relayed(&stack, async {
        assert!(matches!(sale.book(&stack, "next").await, Outcome::Changed(_)));
        stack.wait_for_number("the gap is found", open_gaps, 1).await;
        assert_eq!(stack.command(&["gaps", "accept", "1"]).await.0, 0);
        stack.wait_for_number("the counts differ", OPEN_ALARMS, 1).await;
        while_sold(&stack, &sale, "live", repair_while_nothing_is_applied(&stack)).await
    })
    .await;
    assert_eq!(stack.number(MENDED_STOCK).await, 0, "{printed}");
    assert_eq!(sold_in_redis(&stack, &sale).await, confirmed_in_redis(&stack).await);

    let (code, printed) = while_relayed(&stack, stack.command(&["repair"])).await;
    assert_eq!(code, 0, "{printed}");
    assert_whole(&stack, &sale).await;
    service.stop().await;
    stack.remove().await;
}

/// Holds the row of the first shard, as one does that is slow to apply a batch, for longer than a comparison waits for it.
async fn repair_while_nothing_is_applied(stack: &Stack) -> (i32, String) {
    let mut slow = stack.pool.begin().await.unwrap();
    let lock = "SELECT FROM shards WHERE shard = 0 FOR NO KEY UPDATE";
    sqlx::query(lock).execute(&mut *slow).await.unwrap();
    let release = async {
        tokio::time::sleep(Duration::from_secs(8)).await;
        slow.rollback().await.unwrap();
    };
    tokio::join!(stack.command(&["repair"]), release).0
}

/// Each tells the whole difference at its position.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_alarms_about_a_ticket_type_the_newer_one_is_mended_and_not_their_sum() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    let sale = sold(&stack).await;
    // What the sale may have left there is applied.
    if let Some(last) = outbox(&stack).await.last() {
        trim_outbox(&stack, last.position).await;
    }
    add_sold(&stack, &sale, 1).await;
    let restated = restate_event(&stack.config.keys(), FIRST, BOUNDS, sale.id());
    let (letter, ..): RestatementReply = stack.run_script(&restated).await;
    assert_eq!(letter, "C");
    add_sold(&stack, &sale, 1).await;
    let relay = async {
        // The repair says the event at a later position, at which the difference is another.
        wait_until("the event is said once more", async || outbox(&stack).await.len() == 2).await;
        stack.append(&outbox(&stack).await[..1]).await;
        stack.wait_for_number("the first difference is alarmed", OPEN_ALARMS, 1).await;
        while_relayed(&stack, std::future::pending::<()>()).await;
    };
    let (code, printed) = tokio::select! {
        repaired = stack.command(&["repair"]) => repaired,
        () = relay => unreachable!("the relay does not end"),
    };
    assert_eq!(code, 0, "{printed}");
    assert_eq!(stack.number(MENDED_STOCK).await, 1);
    assert_eq!(sold_in_redis(&stack, &sale).await, 3);
    assert_whole(&stack, &sale).await;
    service.stop().await;
    stack.remove().await;
}

/// With that counter in the log nobody could read on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_with_a_counter_below_0_is_not_said_again_and_its_shard_sells_on_until_it_is_rebuilt() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    let sale = sold(&stack).await;
    add_sold(&stack, &sale, -10).await;
    let event = sale.id().to_string();
    while_relayed(&stack, async {
        assert!(matches!(sale.book(&stack, "d").await, Outcome::Changed(_)));
        // So low a number is a very large one in the record, and that is told, too.
        stack.wait_for_number("the difference is alarmed", OPEN_ALARMS, 2).await;
        let (code, printed) = stack.command(&["repair"]).await;
        assert_eq!(code, 1, "{printed}");
        assert!(printed.contains("rebuild --event") && printed.contains("alarms resolve"), "{printed}");
        assert!(matches!(sale.book(&stack, "e").await, Outcome::Changed(_)));
        stack.wait_for_sequence(FIRST, 6).await;

        let (code, printed) = stack.command(&["rebuild", "--event", &event]).await;
        assert_eq!(code, 1, "{printed}");
        for alarm in stack.words("SELECT id::text FROM alarms WHERE resolved_at IS NULL").await {
            assert_eq!(stack.command(&["alarms", "resolve", &alarm]).await.0, 0);
        }
        let (code, printed) = stack.command(&["rebuild", "--event", &event]).await;
        assert_eq!(code, 0, "{printed}");
    })
    .await;
    assert_eq!(confirmed(&stack).await, 5);
    assert_whole(&stack, &sale).await;
    service.stop().await;
    stack.remove().await;
}

/// An alarm about counts is no reason to keep a shard closed where it is certain that Redis was wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_known_drift_does_not_keep_recovery_from_restoring_what_postgresql_is_certain_of() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    let sale = sold(&stack).await;
    add_sold(&stack, &sale, 4).await;
    while_relayed(&stack, async {
        assert!(matches!(sale.book(&stack, "d").await, Outcome::Changed(_)));
        stack.wait_for_number("the drift is alarmed", OPEN_ALARMS, 1).await;
    })
    .await;
    stack.execute("UPDATE ticket_types SET sold = sold + 1").await;
    restart_redis(&stack).await;
    let doubtful = "SELECT count(*) FROM alarms WHERE kind = 'restore_doubtful' AND resolved_at IS NULL";
    stack.wait_for_number("PostgreSQL does not count rightly itself", doubtful, 1).await;
    // A repair sets its counts right. Whether it finds the shard still closed afterwards, and says so, or restored by the
    // service already, depends on who is faster.
    let (_, printed) = stack.command(&["repair"]).await;
    assert!(printed.contains("counts event"), "{printed}");
    stack.wait_until_certified().await;
    stack.wait_for_number("all alarms are resolved", OPEN_ALARMS, 0).await;
    assert_eq!(sold_in_redis(&stack, &sale).await, 4);
    assert_whole(&stack, &sale).await;
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_discarded_record_is_said_again_and_nothing_is_mended_while_it_is_open() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    let sale = sold(&stack).await;
    stack.execute("ALTER TABLE bookings ADD CONSTRAINT unlucky CHECK (idempotency_key <> 'd')").await;
    while_relayed(&stack, async {
        for key in ["d", "e"] {
            assert!(matches!(sale.book(&stack, key).await, Outcome::Changed(_)));
        }
        stack.wait_for_number("it is set aside", "SELECT count(*) FROM dead_letters", 1).await;
        stack.wait_for_sequence(FIRST, 6).await;
        let (code, printed) = stack.command(&["status"]).await;
        assert_eq!(code, 1);
        assert!(printed.contains(&format!("repair --event {}", sale.id())), "{printed}");

        // Redis says it again, and it is refused again; a counter is not taken back from the one who has the 201.
        let (code, printed) = stack.command(&["repair"]).await;
        assert_eq!(code, 1, "{printed}");
        assert!(printed.contains("dead letters of its shard are open"), "{printed}");
        assert_eq!(stack.number(MENDED_STOCK).await, 0);
        assert_eq!(sold_in_redis(&stack, &sale).await, 5);

        stack.execute("ALTER TABLE bookings DROP CONSTRAINT unlucky").await;
        for id in ["1", "2"] {
            assert_eq!(stack.command(&["dead-letters", "discard", id]).await.0, 0);
        }
        let (code, printed) = stack.command(&["repair"]).await;
        assert_eq!(code, 0, "{printed}");
    })
    .await;
    assert_eq!(stack.number("SELECT count(*) FROM bookings WHERE idempotency_key = 'd'").await, 1);
    assert_whole(&stack, &sale).await;
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_event_is_comes_from_redis() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    let sale = sold(&stack).await;
    stack.execute("UPDATE events SET name = 'Konzert', per_customer_limit = 1").await;
    stack.execute("UPDATE ticket_types SET capacity = 50").await;
    let (code, printed) = stack.command(&["audit", "--deep"]).await;
    assert_eq!(code, 1, "{printed}");
    assert!(printed.contains(r#"name is "Concert" in Redis and "Konzert" in PostgreSQL"#), "{printed}");
    let (code, printed) = while_relayed(&stack, stack.command(&["repair"])).await;
    assert_eq!(code, 0, "{printed}");
    let told = "SELECT concat_ws(' ', events.name, events.per_customer_limit, capacity) \
                FROM events JOIN ticket_types ON event_id = events.id";
    assert_eq!(stack.words(told).await, ["Concert 8 100000"]);
    assert_whole(&stack, &sale).await;
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sold_beyond_a_capacity_that_postgresql_knows_is_said_again_behind_the_new_capacity() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let sale = LiveSale::publish(&stack, 3).await;
    let held = sale.hold(&stack, "held", 600_000).await;
    stack.append(&outbox(&stack).await).await;
    stack.wait_for_sequence(FIRST, 2).await;
    sale.amend(&stack, EventChange::Capacity(0, 10)).await;
    for key in ["a", "b", "c", "d"] {
        assert!(matches!(sale.book(&stack, key).await, Outcome::Changed(_)));
    }
    trim_outbox(&stack, outbox(&stack).await.last().unwrap().position).await;
    while_relayed(&stack, async {
        sale.cancel(&stack, held).await;
        stack
            .wait_for_number("the gap is found", "SELECT count(*) FROM gaps WHERE resolved_at IS NULL", 1)
            .await;
        assert_eq!(stack.command(&["gaps", "accept", "1"]).await.0, 0);
        stack.wait_for_sequence(FIRST, 8).await;
        let (code, printed) = stack.command(&["repair"]).await;
        assert_eq!(code, 0, "{printed}");
    })
    .await;
    assert_eq!(stack.number("SELECT count(*) FROM dead_letters").await, 0);
    assert_eq!(stack.number("SELECT capacity::int8 FROM ticket_types").await, 10);
    assert_eq!(confirmed(&stack).await, 4);
    assert_whole(&stack, &sale).await;
    service.stop().await;
    stack.remove().await;
}

/// Kafka had confirmed it, and lost it with a topic that was made anew or with its only disk; and nothing is decided any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_lost_its_end_is_a_gap_although_no_record_comes_behind_it() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    let sale = sold(&stack).await;
    for key in ["d", "e"] {
        assert!(matches!(sale.book(&stack, key).await, Outcome::Changed(_)));
    }
    trim_outbox(&stack, outbox(&stack).await.last().unwrap().position).await;
    let gap = "SELECT count(*) FROM gaps WHERE from_sequence = 5 AND to_sequence = 6 AND resolved_at IS NULL";
    stack.wait_for_number("the gap is found", gap, 1).await;
    while_relayed(&stack, async {
        assert_eq!(stack.command(&["gaps", "accept", "1"]).await.0, 0);
        let (code, printed) = stack.command(&["repair"]).await;
        assert_eq!(code, 0, "{printed}");
    })
    .await;
    assert_eq!(confirmed(&stack).await, 5);
    assert_whole(&stack, &sale).await;
    service.stop().await;
    stack.remove().await;
}

/// A broker that was cut off from the others told of an end that was none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_end_of_the_log_comes_after_all_its_gap_is_closed() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    let sale = sold(&stack).await;
    assert!(matches!(sale.book(&stack, "d").await, Outcome::Changed(_)));
    let records = outbox(&stack).await;
    trim_outbox(&stack, records.last().unwrap().position).await;
    let open_gaps = "SELECT count(*) FROM gaps WHERE resolved_at IS NULL";
    stack.wait_for_number("the gap is found", open_gaps, 1).await;
    stack.append(&records).await;
    stack.wait_for_number("the gap is closed", open_gaps, 0).await;
    assert_whole(&stack, &sale).await;
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_changes_nothing_and_names_what_differs_with_its_command() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    let sale = sold(&stack).await;
    service.stop().await;
    add_sold(&stack, &sale, 2).await;
    let slot = stack.config.keys().slot(FIRST, sale.id(), slot_of_a(&stack, &sale).await);
    redis_integer(&stack, "DEL", &[slot.as_bytes()]).await;
    let tables = "SELECT md5(string_agg(t::text, '|')) FROM (\
                      SELECT shards::text FROM shards UNION ALL SELECT ticket_types::text FROM ticket_types \
                      UNION ALL SELECT repairs::text FROM repairs UNION ALL SELECT alarms::text FROM alarms \
                      UNION ALL SELECT id::text FROM reconciliations) AS t";
    // What relayed the sale held a lease, which would run out meanwhile.
    redis_integer(&stack, "DEL", &[stack.config.keys().lease(FIRST).as_bytes()]).await;
    let before = (sorted(stack.dump_redis().await), stack.words(tables).await);

    let event = sale.id().to_string();
    for arguments in [
        &["repair", "--dry-run"][..],
        &["repair", "--dry-run", "--event", &event],
        &["rebuild", "--dry-run", "--event", &event],
        &["rebuild", "--dry-run", "--shard", "0"],
        &["rebuild", "--dry-run", "--all"],
    ] {
        let (code, printed) = stack.command(arguments).await;
        assert_eq!(code, 1, "{arguments:?}: {printed}");
        for said in [
            "Redis has capacity 100000, held 0, sold 5; PostgreSQL has capacity 100000, held 0, sold 3",
            "is not in Redis",
            &format!("repair --event {event}"),
            &format!("rebuild --event {event}"),
            "nothing was changed",
        ] {
            assert!(printed.contains(said), "{arguments:?}, {said}: {printed}");
        }
    }
    assert!((sorted(stack.dump_redis().await), stack.words(tables).await) == before);
    stack.remove().await;
}

fn sorted(mut dump: Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    dump.sort();
    dump
}

pub(crate) async fn booking_of(stack: &Stack, key: &'static str) -> BookingId {
    let id = sqlx::query_scalar("SELECT id FROM bookings WHERE idempotency_key = $1").bind(key);
    BookingId::from_uuid(id.fetch_one(&stack.pool).await.unwrap())
}

async fn slot_of_a(stack: &Stack, sale: &LiveSale) -> u32 {
    booking_of(stack, "a").await.slot(sale.event.slots)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_found_wrong_only_because_tickets_are_sold_meanwhile() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    let sale = sold(&stack).await;
    let audits = async {
        for _ in 0..5 {
            let (code, printed) = stack.command(&["audit", "--deep"]).await;
            assert_ne!(code, 1, "{printed}");
            assert!(printed.contains("one by one"), "{printed}");
        }
    };
    let ((), sold) = while_relayed(&stack, while_sold(&stack, &sale, "live", audits)).await;
    assert!(sold > 20, "{sold} were sold meanwhile");
    service.stop().await;
    stack.remove().await;
}

/// All of it under a valid certificate, where no counter differs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_redis_lost_of_bookings_is_found_one_by_one_and_put_back_by_a_rebuild() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let sale = sold_in_every_state(&stack).await;
    let before = inventory(&stack).await;
    let keys = stack.config.keys();
    let id = booking_of(&stack, "held-3").await;
    let (slot, expiry) = (keys.slot_of(FIRST, sale.id(), id, sale.event.slots), keys.expiry(FIRST));
    let customers = keys.customers(FIRST, sale.id());
    let field = id.field();
    let member = [sale.id().as_bytes().as_slice(), id.as_bytes()].concat();
    let losses: [(&str, &str, Vec<&[u8]>); 4] = [
        ("lost_bookings", "DEL", vec![slot.as_bytes()]),
        ("lost_bookings", "HDEL", vec![slot.as_bytes(), field.as_bytes()]),
        ("lost_expiries", "ZREM", vec![expiry.as_bytes(), &member]),
        ("allowances_differ", "HINCRBY", vec![customers.as_bytes(), b"0123456789ab", b"1"]),
    ];
    let event = sale.id().to_string();
    for (kind, command, arguments) in losses {
        assert!(redis_integer(&stack, command, &arguments).await > 0);
        // The counters alone do not show it.
        assert_eq!(stack.command(&["audit"]).await.0, 0);
        let (code, printed) = stack.command(&["audit", "--event", &event, "--deep"]).await;
        assert_eq!(code, 1, "{kind}: {printed}");
        assert!(printed.contains(kind), "{kind}: {printed}");
        assert!(
            printed.contains(&format!("next: boxoffice-reconciler rebuild --event {event}")),
            "{printed}"
        );
        let (code, printed) = stack.command(&["rebuild", "--event", &event]).await;
        assert_eq!(code, 0, "{printed}");
        assert_eq!(inventory(&stack).await, before, "{kind}");
    }
    assert_eq!(stack.command(&["audit", "--deep"]).await.0, 0);
    service.stop().await;
    stack.remove().await;
}

/// Somebody wrote something else under its name, and no script has asked for it since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_redis_lost_by_a_key_of_another_type_is_found_and_put_back_by_a_rebuild() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let sale = sold_in_every_state(&stack).await;
    let before = inventory(&stack).await;
    let keys = stack.config.keys();
    let id = booking_of(&stack, "held-3").await;
    let slot = keys.slot_of(FIRST, sale.id(), id, sale.event.slots);
    let customers = keys.customers(FIRST, sale.id());
    let event = sale.id().to_string();
    for (kind, key) in [("lost_bookings", slot), ("allowances_differ", customers)] {
        let mut write = redis::cmd("SET");
        let _: String = write.arg(key).arg("x").query_async(&mut stack.redis.clone()).await.unwrap();
        let (code, printed) = stack.command(&["audit", "--event", &event, "--deep"]).await;
        assert_eq!(code, 1, "{kind}: {printed}");
        assert!(printed.contains(kind), "{kind}: {printed}");
        let (code, printed) = stack.command(&["rebuild", "--event", &event]).await;
        assert_eq!(code, 0, "{printed}");
        assert_eq!(inventory(&stack).await, before, "{kind}");
    }
    assert_eq!(stack.command(&["audit", "--deep"]).await.0, 0);
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_mend_is_said_to_be_unknown_by_the_next_repair() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    let sale = sold(&stack).await;
    stack
        .execute(
            "INSERT INTO repairs (kind, shard, asked_by, before) VALUES ('stock', 0, 'Bob', 'something')",
        )
        .await;
    let (code, printed) = stack.command(&["status"]).await;
    assert_eq!(code, 1);
    assert!(printed.contains("asked for by Bob"), "{printed}");
    let (code, printed) = while_relayed(&stack, stack.command(&["repair"])).await;
    assert_eq!(code, 0, "{printed}");
    assert_eq!(stack.words("SELECT outcome FROM repairs").await, ["unknown"]);
    wait_until("all is well", async || stack.command(&["status"]).await.0 == 0).await;
    assert_whole(&stack, &sale).await;
    service.stop().await;
    stack.remove().await;
}
