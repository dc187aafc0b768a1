//! Redis restored because somebody says so.

use boxoffice_schema::ids::BookingId;
use boxoffice_schema::scripts::{Outcome, RecoveryReply, RecoveryStart, begin_recovery, restore_clear};

use crate::recovering::{LiveSale, inventory, sold_in_every_state};
use crate::stack::{FIRST, SECOND, Stack, wait_until};

/// A sale with bookings in every state, in both stores, and no service.
async fn sold() -> (Stack, LiveSale) {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let sale = sold_in_every_state(&stack).await;
    service.stop().await;
    (stack, sale)
}

/// As an operator's mistake does it: the certificate stays valid.
async fn delete_slot_of(stack: &Stack, sale: &LiveSale, booking: BookingId) {
    let key = stack.config.keys().slot_of(FIRST, sale.id(), booking, sale.event.slots);
    let deleted: i64 = redis::cmd("DEL").arg(key).query_async(&mut stack.redis.clone()).await.unwrap();
    assert_eq!(deleted, 1);
}

async fn any_booking(stack: &Stack) -> BookingId {
    let id = sqlx::query_scalar("SELECT id FROM bookings WHERE idempotency_key = 'booked-3'");
    BookingId::from_uuid(id.fetch_one(&stack.pool).await.unwrap())
}

async fn set_hash_field(stack: &Stack, key: String, field: &str, value: &str) {
    let mut command = redis::cmd("HSET");
    let _: i64 = command.arg(key).arg(field).arg(value).query_async(&mut stack.redis.clone()).await.unwrap();
}

async fn has_hash_field(stack: &Stack, key: String, field: &str) -> bool {
    redis::cmd("HEXISTS").arg(key).arg(field).query_async(&mut stack.redis.clone()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_slot_key_comes_back_by_a_rebuild_without_a_service() {
    let (stack, sale) = sold().await;
    let before = inventory(&stack).await;
    let epoch = stack.position(FIRST).await.0;
    delete_slot_of(&stack, &sale, any_booking(&stack).await).await;
    assert_ne!(inventory(&stack).await, before);

    let event = sale.id().to_string();
    let (code, printed) = stack.command(&["rebuild", "--event", &event, "--by", "Ann"]).await;
    assert_eq!(code, 0, "{printed}");
    assert_eq!(inventory(&stack).await, before);
    assert!(stack.is_certified(FIRST).await);
    assert_eq!(stack.position(FIRST).await.0, epoch + 1);
    assert!(matches!(sale.book(&stack, "booked-3").await, Outcome::Replayed(..)));
    assert!(matches!(sale.book(&stack, "new").await, Outcome::Changed(_)));
    assert_eq!(stack.number("SELECT count(*) FROM alarms").await, 0);
    assert_eq!(stack.number("SELECT count(*) FROM leases").await, 0);

    let rows = stack
        .words(
            "SELECT concat_ws('|', kind, shard, event_id, asked_by, outcome, ended_at IS NULL) FROM repairs",
        )
        .await;
    assert_eq!(rows, [format!("rebuild|0|{event}|Ann|done|f")]);
    let (code, printed) = stack.command(&["repairs", "list"]).await;
    assert_eq!(code, 0, "{printed}");
    for said in ["Ann", "before  Redis at ", "after   restored and certified at ", &event] {
        assert!(printed.contains(said), "{said}: {printed}");
    }
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_in_redis_is_named_by_a_deep_audit_and_gone_after_a_rebuild() {
    let (stack, sale) = sold().await;
    let before = inventory(&stack).await;
    let (known, unknown) = (any_booking(&stack).await, BookingId::from_uuid(uuid::Uuid::from_bytes([7; 16])));
    let spoil = async |booking: BookingId, field: &[u8], value: &[u8]| {
        let slot = stack.config.keys().slot_of(FIRST, sale.id(), booking, sale.event.slots);
        let mut command = redis::cmd("HSET");
        command.arg(slot).arg(field).arg(value);
        let _: i64 = command.query_async(&mut stack.redis.clone()).await.unwrap();
    };
    spoil(unknown, unknown.field().as_bytes(), &[unknown.time().as_slice(), b"no image"].concat()).await;
    spoil(unknown, b"short", b"").await;
    // Of this one PostgreSQL has a row, whatever is left of its id in Redis.
    spoil(known, known.field().as_bytes(), b"spoilt").await;

    let (code, printed) = stack.command(&["audit", "--deep"]).await;
    assert_eq!(code, 1, "{printed}");
    for said in
        ["unreadable_bookings", &unknown.to_string(), "field short", "may hold a 201", "rebuild --event"]
    {
        assert!(printed.contains(said), "{said}: {printed}");
    }
    assert_eq!(printed.matches("a slot's field").count(), 2, "{printed}");
    assert_eq!(printed.matches("bookings_differ").count(), 1, "{printed}");
    assert_eq!(stack.command(&["rebuild", "--event", &sale.id().to_string()]).await.0, 0);
    assert_eq!(inventory(&stack).await, before);
    assert_eq!(stack.command(&["audit", "--deep"]).await.0, 0);
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_of_one_event_leaves_the_others_alone_and_one_of_the_shard_does_not() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let other = LiveSale::publish(&stack, 10).await;
    other.hold(&stack, "of-the-other", 600_000).await;
    let sale = sold_in_every_state(&stack).await;
    let keys = stack.config.keys();
    let mark = |sale: &LiveSale| keys.slot(FIRST, sale.id(), 0);
    for sale in [&sale, &other] {
        set_hash_field(&stack, mark(sale), "mark", "x").await;
    }
    let elsewhere = keys.slot(SECOND, sale.id(), 0);
    set_hash_field(&stack, elsewhere.clone(), "mark", "x").await;
    let mut before = inventory(&stack).await;

    let (code, printed) = stack.command(&["rebuild", "--event", &sale.id().to_string()]).await;
    assert_eq!(code, 0, "{printed}");
    before.get_mut(&mark(&sale)).unwrap().remove(b"mark".as_slice());
    assert_eq!(inventory(&stack).await, before);

    let (code, printed) = stack.command(&["rebuild", "--shard", "0"]).await;
    assert_eq!(code, 0, "{printed}");
    before.get_mut(&mark(&other)).unwrap().remove(b"mark".as_slice());
    before.retain(|_, fields| !fields.is_empty());
    assert_eq!(inventory(&stack).await, before);
    assert!(has_hash_field(&stack, elsewhere, "mark").await);

    let (code, printed) = stack.command(&["rebuild", "--all"]).await;
    assert_eq!(code, 0, "{printed}");
    assert_eq!(inventory(&stack).await, before);
    stack.wait_until_certified().await;
    assert_eq!(stack.number("SELECT count(*) FROM alarms").await, 0);
    assert_eq!(stack.number("SELECT count(*) FROM repairs WHERE outcome = 'done'").await, 4);
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_event_that_is_wrong_as_well_is_restored_before_the_certificate() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let other = LiveSale::publish(&stack, 10).await;
    let sale = sold_in_every_state(&stack).await;
    let before = inventory(&stack).await;
    set_hash_field(&stack, stack.config.keys().event(FIRST, other.id()), "sold0", "7").await;
    let (code, printed) = stack.command(&["rebuild", "--event", &sale.id().to_string()]).await;
    assert_eq!(code, 0, "{printed}");
    assert_eq!(inventory(&stack).await, before);
    assert_eq!(stack.words("SELECT DISTINCT kind FROM alarms").await, ["recovery_mismatch"]);
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_whose_command_was_killed_is_done_by_the_next_service() {
    let (stack, sale) = sold().await;
    let before = inventory(&stack).await;
    delete_slot_of(&stack, &sale, any_booking(&stack).await).await;
    // A service that does nothing holds the lease, so that the command can only ask.
    stack.execute("INSERT INTO leases VALUES ('reconciler', 'somebody', now() + interval '1 hour')").await;
    let mut command = stack.binary(&["rebuild", "--all"]).spawn().unwrap();
    stack.wait_for_number("both rebuilds are asked for", "SELECT count(*) FROM repairs", 2).await;
    command.kill().await.unwrap();
    let (code, printed) = stack.command(&["status"]).await;
    assert_eq!(code, 1);
    assert!(printed.contains("rebuild"), "{printed}");

    stack.execute("DELETE FROM leases").await;
    let service = stack.start();
    let done = "SELECT count(*) FROM repairs WHERE outcome = 'done'";
    stack.wait_for_number("both rebuilds are done", done, 2).await;
    assert_eq!(inventory(&stack).await, before);
    service.stop().await;
    stack.remove().await;
}

/// Whatever another recoverer had done when it died, the rebuild begins anew above its epoch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_that_another_interrupted_in_the_middle_starts_over_and_ends_the_same() {
    let (stack, sale) = sold().await;
    let before = inventory(&stack).await;
    let (keys, epoch) = (stack.config.keys(), u32::try_from(stack.position(FIRST).await.0).unwrap() + 1);
    stack.execute("UPDATE shards SET recovery_epoch = recovery_epoch + 1 WHERE shard = 0").await;
    let begun: RecoveryReply = stack.run_script(&begin_recovery(&keys, FIRST, epoch)).await;
    let start = RecoveryStart::from(begun);
    let fence = start.fence(epoch);
    let doomed = vec![keys.event(FIRST, sale.id()), keys.slot(FIRST, sale.id(), 1)];
    let _: i64 = stack.run_script(&restore_clear(&keys, FIRST, fence, doomed)).await;

    let (code, printed) = stack.command(&["rebuild", "--event", &sale.id().to_string()]).await;
    assert_eq!(code, 0, "{printed}");
    assert_eq!(inventory(&stack).await, before);
    assert!(stack.is_certified(FIRST).await);
    // The one that was interrupted wakes up.
    let late = restore_clear(&keys, FIRST, fence, vec![keys.event(FIRST, sale.id())]);
    assert_eq!(stack.try_script::<i64>(&late).await.unwrap_err().code(), Some("STALEEPOCH"));
    assert_eq!(inventory(&stack).await, before);
    stack.remove().await;
}

/// Its sequence is 0 until all of it is there again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_is_being_rebuilt_is_not_said_to_have_lost_decisions() {
    let (stack, _) = sold().await;
    let (keys, epoch) = (stack.config.keys(), u32::try_from(stack.position(FIRST).await.0).unwrap() + 1);
    // As far as the removal of what Redis had, behind a barrier that was applied.
    stack.execute("UPDATE shards SET recovery_epoch = epoch + 1, epoch = epoch + 1 WHERE shard = 0").await;
    let begun: RecoveryReply = stack.run_script(&begin_recovery(&keys, FIRST, epoch)).await;
    let begun = RecoveryStart::from(begun);
    let _: i64 = stack.run_script(&restore_clear(&keys, FIRST, begun.fence(epoch), Vec::new())).await;
    let (code, printed) = stack.command(&["audit"]).await;
    assert_eq!(code, 1, "nobody has asked for it: {printed}");
    assert!(printed.contains("redis_behind"), "{printed}");
    let asked = "INSERT INTO repairs (kind, shard, asked_by, before) VALUES ('rebuild', 0, 'Ann', '')";
    stack.execute(asked).await;
    let (code, printed) = stack.command(&["audit"]).await;
    assert_eq!(code, 2, "its event cannot be compared: {printed}");
    assert!(!printed.contains("redis_behind"), "{printed}");
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_is_refused_while_postgresql_may_lack_something_and_the_shard_goes_on_selling() {
    let (stack, sale) = sold().await;
    let before = inventory(&stack).await;
    stack
        .execute(
            "INSERT INTO dead_letters (shard, kafka_offset, kind, reason, payload) VALUES (0, 0, 'refused', 'x', '')",
        )
        .await;
    let service = stack.start();
    let (code, printed) = stack.command(&["rebuild", "--shard", "0"]).await;
    assert_eq!(code, 1, "{printed}");
    assert!(printed.contains("1 refused records") && printed.contains("next: "), "{printed}");
    assert!(stack.is_certified(FIRST).await);
    assert_eq!(inventory(&stack).await, before);
    assert_eq!(stack.number("SELECT count(*) FROM alarms").await, 0, "the shard is as it was");
    assert!(matches!(sale.book(&stack, "new").await, Outcome::Changed(_)));

    assert_eq!(stack.command(&["dead-letters", "discard", "1"]).await.0, 0);
    let (code, printed) = stack.command(&["rebuild", "--shard", "0"]).await;
    assert_eq!(code, 0, "{printed}");
    assert_eq!(
        stack.words("SELECT concat(kind, ' ', outcome) FROM repairs ORDER BY id").await,
        ["rebuild refused", "dead_letter done", "rebuild done"]
    );
    wait_until("the new booking is applied", async || {
        stack.number("SELECT count(*) FROM bookings WHERE idempotency_key = 'new'").await == 1
    })
    .await;
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_rebuilt_is_said_before_anything_is_asked_for() {
    let stack = Stack::prepare().await;
    let nobody = boxoffice_schema::ids::EventId::new().to_string();
    for (arguments, said) in [
        (["rebuild", "--event", &nobody], "no published event"),
        (["rebuild", "--shard", "2"], "there is no shard 2"),
        (["rebuild", "--all", "--shard=1"], "cannot be used with"),
        (["rebuild", "--by", "Ann"], "required"),
    ] {
        let (code, printed) = stack.command(&arguments).await;
        assert_eq!(code, 2, "{arguments:?}: {printed}");
        assert!(printed.contains(said), "{arguments:?}: {printed}");
    }
    assert_eq!(stack.number("SELECT count(*) FROM repairs").await, 0);
    stack.remove().await;
}
