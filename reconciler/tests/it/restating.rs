//! Before recovery restores anything, Redis says what PostgreSQL lost: what was acknowledged is not restored away.

use boxoffice_schema::scripts::{EventChange, Outcome};
use boxoffice_schema::status::EventStatus;

use crate::recovering::{LiveSale, restart_redis};
use crate::relaying::{outbox, trim_outbox, while_relayed};
use crate::repairing::{assert_whole, booking_of, insert_frozen_draft, redis_integer, sold};
use crate::stack::{FIRST, Stack, wait_until};

const OPEN_GAPS: &str = "SELECT count(*) FROM gaps WHERE resolved_at IS NULL";
const LOST: &str =
    "SELECT count(*) FROM bookings WHERE idempotency_key LIKE 'lost-%' AND status = 'confirmed'";

/// Books, and the outbox forgets it before it came to Kafka.
async fn lose(stack: &Stack, sale: &LiveSale, key: &str) {
    assert!(matches!(sale.book(stack, key).await, Outcome::Changed(_)));
    trim_outbox(stack, outbox(stack).await.last().unwrap().position).await;
}

/// Redis restarts, and what it lost before shows by the barrier.
async fn recover_past_an_accepted_gap(stack: &Stack) {
    restart_redis(stack).await;
    stack.wait_for_number("the barrier shows the gap", OPEN_GAPS, 1).await;
    assert_eq!(stack.command(&["gaps", "accept", "1"]).await.0, 0);
    stack.wait_until_certified().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recovery_lets_redis_say_what_postgresql_lost_before_it_restores() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    let sale = sold(&stack).await;
    lose(&stack, &sale, "lost-1").await;
    recover_past_an_accepted_gap(&stack).await;
    assert_eq!(stack.number(LOST).await, 1);

    lose(&stack, &sale, "lost-2").await;
    let other = LiveSale::publish(&stack, 10).await;
    while_relayed(&stack, async {
        stack.wait_for_number("the next record shows the gap", OPEN_GAPS, 1).await;
        assert_eq!(stack.command(&["gaps", "accept", "2"]).await.0, 0);
        let (code, printed) = stack.command(&["rebuild", "--event", &sale.id().to_string()]).await;
        assert_eq!(code, 0, "{printed}");
    })
    .await;
    assert_eq!(stack.number(LOST).await, 2);
    for key in ["lost-1", "lost-2"] {
        assert!(matches!(sale.book(&stack, key).await, Outcome::Replayed(..)));
    }
    let said =
        "SELECT count(*) FROM repairs WHERE kind = 'restate' AND asked_by = 'recovery' AND outcome = 'done'";
    assert_eq!(stack.number(said).await, 2);
    assert!(matches!(other.book(&stack, "x").await, Outcome::Changed(_)));
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_an_event_that_only_redis_has_is_kept_where_its_shard_is_restored() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    let sale = sold(&stack).await;
    sale.amend(&stack, EventChange::Capacity(0, 50)).await;
    sale.amend(&stack, EventChange::Status(EventStatus::Paused)).await;
    trim_outbox(&stack, outbox(&stack).await.last().unwrap().position).await;
    // As a recovery leaves it that failed in the middle.
    let interrupted = "INSERT INTO repairs (kind, shard, event_id, asked_by, before) \
                       SELECT 'restate', 0, id, 'recovery', '' FROM events";
    stack.execute(interrupted).await;
    recover_past_an_accepted_gap(&stack).await;
    let told =
        "SELECT concat_ws(' ', status, capacity) FROM events JOIN ticket_types ON event_id = events.id";
    assert_eq!(stack.words(told).await, ["paused 50"]);
    assert!(matches!(sale.book(&stack, "more").await, Outcome::NotOnSale));
    assert_whole(&stack, &sale).await;
    wait_until("all is well", async || stack.command(&["status"]).await.0 == 0).await;
    service.stop().await;
    stack.remove().await;
}

/// As a recovery leaves it that was killed between what Redis said and the alarms that this had made untrue.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alarm_that_an_interrupted_recovery_left_is_resolved_by_the_next_and_not_in_the_way_of_a_loss() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    let sale = sold(&stack).await;
    let left = "INSERT INTO alarms (shard, event_id, kind, detail, ticket_type_id, held_difference, sold_difference) \
                SELECT 0, event_id, 'counts_differ', 'a booking was lacking', id, 0, -1 FROM ticket_types";
    stack.execute(left).await;
    restart_redis(&stack).await;
    stack.wait_until_certified().await;
    assert_eq!(stack.number("SELECT count(*) FROM alarms WHERE resolved_at IS NULL").await, 0);
    stack.wipe_redis().await;
    stack.wait_until_certified().await;
    assert_whole(&stack, &sale).await;
    service.stop().await;
    stack.remove().await;
}

/// Two of five tickets came back, and then the capacity was lowered to three; PostgreSQL heard of neither.
async fn shrunk(stack: &Stack) -> LiveSale {
    stack.wait_until_certified().await;
    let sale = LiveSale::publish(stack, 5).await;
    for key in ["a", "b", "c", "d", "e"] {
        assert!(matches!(sale.book(stack, key).await, Outcome::Changed(_)));
    }
    let records = outbox(stack).await;
    stack.append(&records).await;
    trim_outbox(stack, records.last().unwrap().position).await;
    stack.wait_for_sequence(FIRST, 6).await;
    for key in ["a", "b"] {
        sale.cancel(stack, booking_of(stack, key).await).await;
    }
    sale.amend(stack, EventChange::Capacity(0, 3)).await;
    trim_outbox(stack, outbox(stack).await.last().unwrap().position).await;
    sale
}

async fn assert_shrunk(stack: &Stack, sale: &LiveSale) {
    assert_eq!(stack.number("SELECT count(*) FROM dead_letters").await, 0);
    assert_eq!(stack.words("SELECT capacity || ' ' || sold FROM ticket_types").await, ["3 3"]);
    assert_whole(stack, sale).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_capacity_that_was_lowered_to_what_is_left_is_said_by_recovery_behind_what_came_back() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    let sale = shrunk(&stack).await;
    recover_past_an_accepted_gap(&stack).await;
    assert_shrunk(&stack, &sale).await;
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_capacity_that_was_lowered_to_what_is_left_is_said_by_a_repair_behind_what_came_back() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    let sale = shrunk(&stack).await;
    stack.wait_for_number("the log is found to lack its end", OPEN_GAPS, 1).await;
    while_relayed(&stack, async {
        assert_eq!(stack.command(&["gaps", "accept", "1"]).await.0, 0);
        let (code, printed) = stack.command(&["repair"]).await;
        assert_eq!(code, 0, "{printed}");
    })
    .await;
    assert_shrunk(&stack, &sale).await;
    service.stop().await;
    stack.remove().await;
}

/// What a hand wrote into Redis is no change that anybody was told of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_capacity_that_was_written_into_redis_by_hand_is_restored_from_postgresql() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    let sale = sold(&stack).await;
    let key = stack.config.keys().event(FIRST, sale.id());
    assert_eq!(redis_integer(&stack, "HSET", &[key.as_bytes(), b"cap0", b"200000"]).await, 0);
    restart_redis(&stack).await;
    stack.wait_until_certified().await;
    assert_eq!(redis_integer(&stack, "HGET", &[key.as_bytes(), b"cap0"]).await, 100_000);
    assert_whole(&stack, &sale).await;
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_whose_key_is_of_another_type_is_named_by_the_audit_and_restored() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    let sale = sold(&stack).await;
    overwrite(&stack, &stack.config.keys().event(FIRST, sale.id())).await;
    let (code, printed) = stack.command(&["audit"]).await;
    assert_eq!(code, 1, "{printed}");
    assert!(printed.contains(&sale.id().to_string()) && printed.contains("WRONGTYPE"), "{printed}");
    restart_redis(&stack).await;
    stack.wait_until_certified().await;
    assert_whole(&stack, &sale).await;
    service.stop().await;
    stack.remove().await;
}

/// Somebody wrote something else under the name of a key.
async fn overwrite(stack: &Stack, key: &str) {
    let _: String = redis::cmd("SET").arg(key).arg("x").query_async(&mut stack.redis.clone()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn customers_and_slots_whose_key_is_of_another_type_are_named_by_a_deep_audit_and_restored() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    let sale = sold(&stack).await;
    let (keys, event) = (stack.config.keys(), sale.id().to_string());
    let slot = keys.slot_of(FIRST, sale.id(), booking_of(&stack, "a").await, sale.event.slots);
    let customers = keys.customers(FIRST, sale.id());
    for key in [&customers, &slot] {
        overwrite(&stack, key).await;
        let (code, printed) = stack.command(&["audit", "--deep"]).await;
        assert_eq!(code, 1, "{printed}");
        let next = format!("rebuild --event {event}");
        assert!(printed.contains(key) && printed.contains(&next), "{printed}");
        let (code, printed) = stack.command(&["rebuild", "--event", &event]).await;
        assert_eq!(code, 0, "{printed}");
        assert_whole(&stack, &sale).await;
    }
    // A recovery that nobody asked for finds the customers by itself.
    overwrite(&stack, &customers).await;
    restart_redis(&stack).await;
    stack.wait_until_certified().await;
    assert_whole(&stack, &sale).await;
    service.stop().await;
    stack.remove().await;
}

/// Nobody can read what it held, but the bookings are in their slots.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outbox_of_another_type_is_a_gap_behind_which_redis_says_again_what_was_in_it() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    let sale = sold(&stack).await;
    assert!(matches!(sale.book(&stack, "lost-1").await, Outcome::Changed(_)));
    overwrite(&stack, &stack.config.keys().outbox(FIRST)).await;
    recover_past_an_accepted_gap(&stack).await;
    assert_eq!(stack.number(LOST).await, 1);
    assert!(matches!(sale.book(&stack, "lost-1").await, Outcome::Replayed(..)));
    assert_whole(&stack, &sale).await;
    service.stop().await;
    stack.remove().await;
}

/// An event without its hash, or without its customers', could not say its bookings, nor could one that has something else there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_booking_that_only_redis_has_is_kept_where_redis_has_lost_another_key_of_its_event() {
    for (which, is_overwritten) in [(0, false), (1, false), (0, true), (1, true)] {
        let stack = Stack::prepare().await;
        let service = stack.start();
        let sale = sold(&stack).await;
        lose(&stack, &sale, "lost-1").await;
        let keys = stack.config.keys();
        let key = [keys.event(FIRST, sale.id()), keys.customers(FIRST, sale.id())][which].clone();
        if is_overwritten {
            overwrite(&stack, &key).await;
        } else {
            assert_eq!(redis_integer(&stack, "DEL", &[key.as_bytes()]).await, 1);
        }
        recover_past_an_accepted_gap(&stack).await;
        assert_eq!(stack.number(LOST).await, 1, "{key}");
        assert!(matches!(sale.book(&stack, "lost-1").await, Outcome::Replayed(..)), "{key}");
        wait_until("all is well", async || stack.command(&["status"]).await.0 == 0).await;
        assert_whole(&stack, &sale).await;
        service.stop().await;
        stack.remove().await;
    }
}

/// As after a backup of PostgreSQL that is older than Redis' last recovery, where Kafka has lost what came between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_booking_that_only_redis_has_is_kept_where_the_beginning_of_its_epoch_was_lost_too() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    let sale = sold(&stack).await;
    restart_redis(&stack).await;
    wait_until("another epoch has begun", async || stack.position(FIRST).await.0 == 2).await;
    stack.wait_until_certified().await;
    service.stop().await;
    lose(&stack, &sale, "lost-1").await;
    stack.execute("DELETE FROM epochs WHERE shard = 0 AND epoch = 2").await;
    stack.execute("UPDATE shards SET epoch = 1, recovery_epoch = 1 WHERE shard = 0").await;

    let service = stack.start();
    recover_past_an_accepted_gap(&stack).await;
    assert_eq!(stack.number(LOST).await, 1);
    assert!(matches!(sale.book(&stack, "lost-1").await, Outcome::Replayed(..)));
    service.stop().await;
    stack.remove().await;
}

/// PostgreSQL has a draft, and Redis sells it: neither the publication nor the first booking ever came to Kafka.
async fn draft_on_sale(stack: &Stack) -> LiveSale {
    let sale = LiveSale::publish(stack, 100).await;
    insert_frozen_draft(stack, &sale).await;
    // As in a backup from before somebody asked for the publication.
    stack.execute("UPDATE events SET frozen_at = NULL, slots = NULL").await;
    let _ = sale.hold(stack, "held", 600_000).await;
    assert!(matches!(sale.book(stack, "a").await, Outcome::Changed(_)));
    let records = outbox(stack).await;
    stack.append(&records[2..]).await;
    trim_outbox(stack, records.last().unwrap().position).await;
    stack.wait_for_number("the gap is found", OPEN_GAPS, 1).await;
    assert_eq!(stack.command(&["gaps", "accept", "1"]).await.0, 0);
    stack.wait_for_sequence(FIRST, 3).await;
    set_alarms_aside(stack).await;
    sale
}

/// PostgreSQL counts otherwise than Redis, since it lacks the first booking; that alone keeps recovery from restoring.
async fn set_alarms_aside(stack: &Stack) {
    stack.execute("UPDATE alarms SET resolved_at = now() WHERE kind = 'counts_differ'").await;
}

/// A rebuild of its shard brings the event to PostgreSQL with a booking and a hold, and leaves Redis whole.
async fn assert_said_by_a_rebuild(stack: &Stack, sale: &LiveSale) {
    let (code, printed) = stack.command(&["rebuild", "--shard", "0"]).await;
    assert_eq!(code, 0, "{printed}");
    assert_eq!(stack.words("SELECT status FROM events").await, ["on_sale"]);
    assert_eq!(
        stack.words("SELECT idempotency_key || ' ' || status FROM bookings ORDER BY 1").await,
        ["a confirmed", "held held"]
    );
    assert_whole(stack, sale).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_whose_publication_postgresql_lost_keeps_its_holds_where_its_shard_is_restored() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let sale = draft_on_sale(&stack).await;
    assert_said_by_a_rebuild(&stack, &sale).await;
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_is_a_draft_in_postgresql_is_not_left_as_a_redis_has_it_that_went_back_in_time() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let sale = draft_on_sale(&stack).await;
    let dump = stack.dump_redis().await;
    while_relayed(&stack, async {
        assert!(matches!(sale.book(&stack, "late").await, Outcome::Changed(_)));
        stack.wait_for_sequence(FIRST, 4).await;
    })
    .await;
    set_alarms_aside(&stack).await;
    stack.wipe_redis().await;
    stack.load_redis(&dump).await;
    restart_redis(&stack).await;
    let said = "SELECT count(*) FROM alarms WHERE kind = 'unrestorable' AND resolved_at IS NULL \
                AND detail LIKE '%is on_sale in Redis%takes it for a draft%'";
    stack.wait_for_number("the event is named", said, 1).await;
    assert!(!stack.is_certified(FIRST).await);

    let update = stack
        .words("SELECT substring(detail FROM '[(](UPDATE .*)[)]') FROM alarms WHERE kind = 'unrestorable'");
    sqlx::query(sqlx::AssertSqlSafe(update.await.remove(0))).execute(&stack.pool).await.unwrap();
    stack.command(&["repair"]).await;
    stack.wait_until_certified().await;
    assert!(matches!(sale.book(&stack, "late").await, Outcome::Replayed(..)));
    service.stop().await;
    stack.remove().await;
}

/// PostgreSQL has no row of an event that Redis sells: a backup is from before somebody made it, and Kafka has lost the rest.
async fn unknown_on_sale(stack: &Stack) -> LiveSale {
    let sale = LiveSale::publish(stack, 100).await;
    let _ = sale.hold(stack, "held", 600_000).await;
    assert!(matches!(sale.book(stack, "a").await, Outcome::Changed(_)));
    trim_outbox(stack, outbox(stack).await.last().unwrap().position).await;
    stack.wait_for_number("the log is found to lack its end", OPEN_GAPS, 1).await;
    assert_eq!(stack.command(&["gaps", "accept", "1"]).await.0, 0);
    stack.wait_for_sequence(FIRST, 3).await;
    assert_eq!(stack.number("SELECT count(*) FROM events").await, 0);
    sale
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_of_which_postgresql_has_no_row_keeps_its_holds_where_its_shard_is_restored() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let sale = unknown_on_sale(&stack).await;
    assert_said_by_a_rebuild(&stack, &sale).await;
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_of_which_postgresql_has_no_row_is_not_left_as_a_redis_has_it_that_went_back_in_time() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let sale = unknown_on_sale(&stack).await;
    let dump = stack.dump_redis().await;
    let other = LiveSale::publish(&stack, 10).await;
    while_relayed(&stack, stack.wait_for_sequence(FIRST, 4)).await;
    stack.wipe_redis().await;
    stack.load_redis(&dump).await;
    restart_redis(&stack).await;
    let said = "SELECT count(*) FROM alarms WHERE kind = 'unrestorable' AND resolved_at IS NULL \
                AND detail LIKE '%is on_sale in Redis%has no row of it%'";
    stack.wait_for_number("the event is named", said, 1).await;
    assert!(!stack.is_certified(FIRST).await);

    let keys = stack.config.keys();
    for key in [keys.event(FIRST, sale.id()), keys.customers(FIRST, sale.id())] {
        assert_eq!(redis_integer(&stack, "DEL", &[key.as_bytes()]).await, 1);
    }
    stack.wait_until_certified().await;
    assert!(matches!(other.book(&stack, "x").await, Outcome::Changed(_)));
    service.stop().await;
    stack.remove().await;
}
