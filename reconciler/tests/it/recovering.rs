//! No shard sells before it was found to be whole; then it does.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use boxoffice_schema::ids::{BookingId, EventId};
use boxoffice_schema::image::ImageItem;
use boxoffice_schema::position::Position;
use boxoffice_schema::scripts::{
    Book, Cancel, Confirm, Decision, EventChange, Expire, Fence, OutboxBounds, Outcome, RecoveryReply,
    RecoveryStart, Target, amend, begin_recovery, decision_call, publish, restore_bookings, restore_clear,
    restore_event, restore_shard, restore_unschedule,
};
use boxoffice_schema::text::{Caller, Customer, IdempotencyKey, PaymentReference};
use chrono::{DateTime, TimeDelta, Utc};

use crate::relaying::{outbox, trim_outbox};
use crate::repairing::{insert_frozen_draft, redis_integer};
use crate::sale::event_of;
use crate::stack::{FIRST, SECOND, Stack, wait_until};

/// No relay takes anything away here, and a test moves the clock by hours.
pub(crate) const BOUNDS: OutboxBounds = OutboxBounds { frames: 1_000, bytes: 1 << 20, age_ms: 86_400_000 };

/// An event that is sold by the real scripts, as the API sells it.
pub(crate) struct LiveSale {
    pub(crate) event: boxoffice_schema::event::EventImage,
}

impl LiveSale {
    pub(crate) async fn publish(stack: &Stack, capacity: u32) -> Self {
        let mut event = event_of(FIRST, stack.config.shards, capacity);
        event.sales_open_at = Some(event.created_at - TimeDelta::days(1));
        event.sales_close_at = Some(event.starts_at - TimeDelta::days(1));
        event.per_customer_limit = Some(8);
        event.ticket_types[0].per_customer_limit = Some(6);
        let call = publish(&stack.config.keys(), FIRST, BOUNDS, &event);
        let (letter, _): (String, String) = stack.run_script(&call).await;
        assert_eq!(letter, "C");
        Self { event }
    }

    pub(crate) fn id(&self) -> EventId {
        self.event.id
    }

    /// Books a ticket.
    pub(crate) async fn book(&self, stack: &Stack, key: &str) -> Outcome {
        self.decide(stack, &self.request(key, 0)).await
    }

    /// Holds a ticket; returns the booking's id.
    pub(crate) async fn hold(&self, stack: &Stack, key: &str, hold_ms: u64) -> BookingId {
        let request = self.request(key, hold_ms);
        assert!(matches!(self.decide(stack, &request).await, Outcome::Changed(_)));
        request.target().booking_id
    }

    pub(crate) async fn confirm(&self, stack: &Stack, id: BookingId) {
        let payment_reference = PaymentReference::try_from("payment".to_owned()).unwrap();
        let outcome = self.decide(stack, &Confirm { target: self.target(id), payment_reference }).await;
        assert!(matches!(outcome, Outcome::Changed(_)));
    }

    /// Changes the event.
    pub(crate) async fn amend(&self, stack: &Stack, change: EventChange) {
        let call = amend(&stack.config.keys(), FIRST, BOUNDS, self.id(), None, &[change]);
        let (letter, _): (String, String) = stack.run_script(&call).await;
        assert_eq!(letter, "C");
    }

    /// Puts the event off, and its window of sale with it, which stays open.
    async fn put_off(&self, stack: &Stack) {
        let later = |at: DateTime<Utc>| at + TimeDelta::hours(1);
        for change in [
            EventChange::StartsAt(later(self.event.starts_at)),
            EventChange::SalesOpenAt(self.event.sales_open_at.map(later)),
            EventChange::SalesCloseAt(self.event.sales_close_at.map(later)),
        ] {
            self.amend(stack, change).await;
        }
    }

    pub(crate) async fn cancel(&self, stack: &Stack, id: BookingId) {
        let outcome = self.decide(stack, &Cancel { target: self.target(id) }).await;
        assert!(matches!(outcome, Outcome::Changed(_)));
    }

    /// Whether the hold was due.
    async fn expire(&self, stack: &Stack, id: BookingId) -> bool {
        matches!(self.decide(stack, &Expire { target: self.target(id) }).await, Outcome::Changed(_))
    }

    pub(crate) fn target(&self, booking_id: BookingId) -> Target {
        Target { event_id: self.event.id, booking_id, slots: self.event.slots }
    }

    pub(crate) fn request(&self, key: &str, hold_ms: u64) -> Book {
        let ticket_type = &self.event.ticket_types[0];
        Book::new(
            self.event.id,
            self.event.slots,
            &Caller::anonymous(),
            &IdempotencyKey::parse(key.as_bytes()).unwrap(),
            &Customer::try_from(format!("customer of {key}")).unwrap(),
            self.event.currency,
            hold_ms,
            vec![ImageItem {
                ordinal: 0,
                quantity: 1,
                ticket_type_id: ticket_type.id,
                unit_price: ticket_type.price,
            }],
        )
    }

    pub(crate) async fn decide<D: Decision>(&self, stack: &Stack, request: &D) -> Outcome {
        let call = decision_call(&stack.config.keys(), FIRST, BOUNDS, [request]);
        let replies: Vec<Vec<u8>> = stack.run_script(&call).await;
        Outcome::parse(&replies[0]).unwrap()
    }
}

/// As a restart leaves it: everything is there, and the certificate names a Redis that is no more.
pub(crate) async fn restart_redis(stack: &Stack) {
    for shard in [FIRST, SECOND] {
        let key = stack.config.keys().certificate(shard);
        let gone = format!("{}:{}:1", "0".repeat(40), "0".repeat(40));
        let _: () = redis::cmd("SET").arg(key).arg(gone).query_async(&mut stack.redis.clone()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_start_certifies_all_empty_shards_soon() {
    let stack = Stack::prepare().await;
    assert!(!stack.is_certified(FIRST).await);
    let start = Instant::now();
    let service = stack.start();
    stack.wait_until_certified().await;
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!(stack.position(FIRST).await, (1, 0, 1));
    assert_eq!(stack.number("SELECT count(*) FROM alarms").await, 0);
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_redis_is_drained_compared_and_certified_again() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let sale = LiveSale::publish(&stack, 100).await;
    for n in 0..50 {
        assert!(matches!(sale.book(&stack, &format!("key-{n}")).await, Outcome::Changed(_)));
    }
    // No relay runs here: all of it waits in the outbox.
    assert_eq!(stack.number("SELECT count(*) FROM bookings").await, 0);
    restart_redis(&stack).await;
    stack.wait_until_certified().await;

    assert_eq!(stack.number("SELECT count(*) FROM bookings").await, 50);
    assert_eq!(stack.number("SELECT sold::int8 FROM ticket_types").await, 50);
    assert_eq!(stack.position(FIRST).await.0, 2);
    let replay = sale.book(&stack, "key-0").await;
    assert!(matches!(replay, Outcome::Replayed(..)), "{replay:?}");
    assert!(matches!(sale.book(&stack, "after").await, Outcome::Changed(_)));
    // What was drained is still in the outbox and comes again.
    restart_redis(&stack).await;
    wait_until("the shard is certified with another epoch", async || {
        stack.position(FIRST).await.0 == 3 && stack.is_certified(FIRST).await
    })
    .await;
    assert_eq!(stack.number("SELECT sold::int8 FROM ticket_types").await, 51);
    assert_eq!(stack.number("SELECT count(*) FROM alarms").await, 0);
    service.stop().await;
    stack.remove().await;
}

/// Everything that a script looks at in the first shard, apart from the shard's own hash and its outbox.
pub(crate) async fn inventory(stack: &Stack) -> BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut redis = stack.redis.clone();
    let mut found = BTreeMap::new();
    for key in stack.redis_keys().await {
        let kind = key.rsplit_once("}:").unwrap().1.split(':').next().unwrap().to_owned();
        let command = match kind.as_str() {
            "event" | "customers" | "bookings" if key.contains("{s00}") => {
                redis::cmd("HGETALL").arg(&key).to_owned()
            }
            "expiry" if key.contains("{s00}") => {
                redis::cmd("ZRANGE").arg(&key).arg(0).arg(-1).arg("WITHSCORES").to_owned()
            }
            _ => continue,
        };
        let fields: Vec<Vec<u8>> = command.query_async(&mut redis).await.unwrap();
        found.insert(key, fields.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect());
    }
    found
}

/// A sale with bookings in every state and with other times than it began with, drained into PostgreSQL.
pub(crate) async fn sold_in_every_state(stack: &Stack) -> LiveSale {
    let sale = LiveSale::publish(stack, 100).await;
    // The row is there before the log comes to it, as the API leaves it, and has none of the times that the event has then.
    insert_frozen_draft(stack, &sale).await;
    sale.put_off(stack).await;
    for n in 0..20 {
        assert!(matches!(sale.book(stack, &format!("booked-{n}")).await, Outcome::Changed(_)));
        let held = sale.hold(stack, &format!("held-{n}"), 600_000).await;
        match n % 4 {
            0 => sale.confirm(stack, held).await,
            1 => sale.cancel(stack, held).await,
            _ => {}
        }
    }
    let due = sale.hold(stack, "expired", 1).await;
    wait_until("the hold is due", async || sale.expire(stack, due).await).await;
    restart_redis(stack).await;
    stack.wait_until_certified().await;
    sale
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_lost_all_its_data_gets_back_every_key_as_it_was() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let sale = sold_in_every_state(&stack).await;
    let before = inventory(&stack).await;
    assert!(before.keys().any(|key| key.contains("bookings")), "{:?}", before.keys());
    let epoch = stack.position(FIRST).await.0;
    stack.wipe_redis().await;

    wait_until("the shard is certified in a new epoch", async || {
        stack.position(FIRST).await.0 > epoch && stack.is_certified(FIRST).await
    })
    .await;
    assert_eq!(inventory(&stack).await, before);
    assert!(matches!(sale.book(&stack, "booked-3").await, Outcome::Replayed(..)));
    assert!(matches!(sale.book(&stack, "new").await, Outcome::Changed(_)));
    let said = stack.words("SELECT kind FROM alarms ORDER BY id").await;
    assert_eq!(said, ["redis_lost"]);
    stack
        .wait_for_number("the alarm is resolved", "SELECT count(*) FROM alarms WHERE resolved_at IS NULL", 0)
        .await;
    // The new decision goes on above the highest known sequence, through the outbox and the log.
    restart_redis(&stack).await;
    wait_until("it is certified once more", async || stack.position(FIRST).await.0 > epoch + 1).await;
    stack.wait_until_certified().await;
    assert_eq!(stack.number("SELECT count(*) FROM bookings WHERE idempotency_key = 'new'").await, 1);
    assert_eq!(stack.number("SELECT count(*) FROM alarms").await, 1);
    service.stop().await;
    let (code, printed) = stack.command(&["once"]).await;
    assert_eq!(code, 0, "{printed}");
    stack.remove().await;
}

/// The clock of the Redis that is restored may be behind it, and a hold that had run out would be alive again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_is_restored_goes_on_at_the_time_of_its_last_decision_whatever_that_was_about() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let sale = LiveSale::publish(&stack, 100).await;
    let shard = stack.config.keys().shard(FIRST);
    for (hours, is_about_the_event) in [(1, true), (2, false)] {
        let ahead = (Utc::now() + TimeDelta::hours(hours)).timestamp_millis();
        redis_integer(&stack, "HSET", &[shard.as_bytes(), b"clock", ahead.to_string().as_bytes()]).await;
        if is_about_the_event {
            sale.put_off(&stack).await;
        } else {
            assert!(matches!(sale.book(&stack, "a").await, Outcome::Changed(_)));
        }
        restart_redis(&stack).await;
        stack.wait_until_certified().await;
        let epoch = stack.position(FIRST).await.0;
        stack.wipe_redis().await;
        wait_until("the shard is certified in a new epoch", async || {
            stack.position(FIRST).await.0 > epoch && stack.is_certified(FIRST).await
        })
        .await;
        let clock = redis_integer(&stack, "HGET", &[shard.as_bytes(), b"clock"]).await;
        assert!(clock >= ahead, "{clock} is before {ahead}");
    }
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_went_back_in_time_is_brought_forward() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let sale = LiveSale::publish(&stack, 100).await;
    let early = sale.hold(&stack, "early", 600_000).await;
    let dump = stack.dump_redis().await;
    sale.confirm(&stack, early).await;
    assert!(matches!(sale.book(&stack, "late").await, Outcome::Changed(_)));
    restart_redis(&stack).await;
    stack.wait_until_certified().await;
    let before = inventory(&stack).await;
    let epoch = stack.position(FIRST).await.0;
    // The tail of the file is lost: the decision that PostgreSQL has is gone, and the old certificate is back.
    stack.wipe_redis().await;
    stack.load_redis(&dump).await;
    restart_redis(&stack).await;
    wait_until("the shard is certified in a new epoch", async || {
        stack.position(FIRST).await.0 > epoch && stack.is_certified(FIRST).await
    })
    .await;
    assert_eq!(inventory(&stack).await, before);
    let outbox = stack.config.keys().outbox(FIRST);
    let waiting: i64 = redis::cmd("XLEN").arg(outbox).query_async(&mut stack.redis.clone()).await.unwrap();
    assert_eq!(waiting, 0);
    assert!(matches!(sale.book(&stack, "late").await, Outcome::Replayed(..)));
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_that_differ_behind_the_barrier_are_said_and_put_right() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let sale = LiveSale::publish(&stack, 100).await;
    assert!(matches!(sale.book(&stack, "a").await, Outcome::Changed(_)));
    let key = stack.config.keys().event(FIRST, sale.id());
    let _: i64 =
        redis::cmd("HSET").arg(&key).arg("sold0").arg(0).query_async(&mut stack.redis.clone()).await.unwrap();
    restart_redis(&stack).await;
    stack.wait_until_certified().await;
    let sold: i64 =
        redis::cmd("HGET").arg(&key).arg("sold0").query_async(&mut stack.redis.clone()).await.unwrap();
    assert_eq!(sold, 1);
    stack
        .wait_for_number(
            "the alarm is there and resolved",
            "SELECT count(*) FROM alarms WHERE kind = 'recovery_mismatch' AND resolved_at IS NOT NULL",
            1,
        )
        .await;
    service.stop().await;
    stack.remove().await;
}

/// PostgreSQL refuses one of three bookings, by the constraint `unlucky`, and the shard is not certified for that.
async fn sold_with_a_booking_refused(stack: &Stack) -> LiveSale {
    let sale = LiveSale::publish(stack, 100).await;
    stack.execute("ALTER TABLE bookings ADD CONSTRAINT unlucky CHECK (idempotency_key <> 'b')").await;
    for key in ["a", "b", "c"] {
        assert!(matches!(sale.book(stack, key).await, Outcome::Changed(_)));
    }
    restart_redis(stack).await;
    let doubt = "SELECT count(*) FROM alarms WHERE kind = 'restore_doubtful' AND resolved_at IS NULL";
    stack.wait_for_number("the doubt is said", doubt, 1).await;
    assert!(!stack.is_certified(FIRST).await);
    sale
}

/// PostgreSQL refused a booking for which somebody holds a 201: restoring would sell its ticket again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_restored_while_postgresql_lacks_a_refused_record() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let sale = sold_with_a_booking_refused(&stack).await;
    stack.execute("ALTER TABLE bookings DROP CONSTRAINT unlucky").await;
    assert_eq!(stack.command(&["dead-letters", "retry", "1"]).await.0, 0);
    stack.execute("UPDATE alarms SET resolved_at = now() WHERE kind = 'counts_differ'").await;
    stack.wait_until_certified().await;
    assert!(matches!(sale.book(&stack, "b").await, Outcome::Replayed(..)));
    assert_eq!(stack.number("SELECT sold::int8 FROM ticket_types").await, 3);
    service.stop().await;
    stack.remove().await;
}

/// Whoever is to resolve what keeps it closed may come late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_is_refused_again_and_again_appends_its_outbox_once() {
    const BOOKINGS: i64 = 60;
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let sale = LiveSale::publish(&stack, 100).await;
    stack.execute("ALTER TABLE bookings ADD CONSTRAINT unlucky CHECK (idempotency_key <> '0')").await;
    for n in 0..BOOKINGS {
        assert!(matches!(sale.book(&stack, &n.to_string()).await, Outcome::Changed(_)));
    }
    restart_redis(&stack).await;
    let attempted = "SELECT recovery_epoch::int8 FROM shards WHERE shard = 0";
    wait_until("several attempts were made", async || stack.number(attempted).await > 5).await;
    let (epoch, _, next_offset) = stack.position(FIRST).await;
    // Each epoch has its barrier.
    assert!(next_offset < i64::from(epoch) + 2 * BOOKINGS, "{next_offset} records in epoch {epoch}");

    stack.execute("ALTER TABLE bookings DROP CONSTRAINT unlucky").await;
    assert_eq!(stack.command(&["dead-letters", "retry", "1"]).await.0, 0);
    stack.execute("UPDATE alarms SET resolved_at = now() WHERE kind = 'counts_differ'").await;
    stack.wait_until_certified().await;
    // From now on the outbox is as any other.
    assert!(matches!(sale.book(&stack, "after").await, Outcome::Changed(_)));
    restart_redis(&stack).await;
    stack.wait_for_number("all are there", "SELECT count(*) FROM bookings", BOOKINGS + 1).await;
    stack.wait_until_certified().await;
    service.stop().await;
    stack.remove().await;
}

/// Under such an id a retry would not find it, and book again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_booking_whose_id_is_not_that_of_its_key_is_not_restored() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let sale = sold_in_every_state(&stack).await;
    stack.execute("UPDATE bookings SET idempotency_key = 'renamed' WHERE idempotency_key = 'booked-3'").await;
    stack.wipe_redis().await;
    let said = "SELECT count(*) FROM alarms WHERE kind = 'unrestorable' AND resolved_at IS NULL \
                AND detail LIKE '%idempotency key%'";
    stack.wait_for_number("the row is named", said, 1).await;
    assert!(!stack.is_certified(FIRST).await);

    stack.execute("UPDATE bookings SET idempotency_key = 'booked-3' WHERE idempotency_key = 'renamed'").await;
    stack.wait_until_certified().await;
    assert!(matches!(sale.book(&stack, "booked-3").await, Outcome::Replayed(..)));
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recoverer_that_slept_restores_nothing() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let sale = sold_in_every_state(&stack).await;
    let Outcome::Replayed(id, image) = sale.book(&stack, "booked-0").await else { panic!("it was booked") };
    service.stop().await;
    let before = inventory(&stack).await;
    let (keys, epoch) = (stack.config.keys(), u32::try_from(stack.position(FIRST).await.0).unwrap());
    // In which Redis it began is asked for last.
    let [slept, own] = [epoch - 1, epoch].map(|epoch| Fence { epoch, identity: "any:redis" });
    let mut bookings = [(id, image)];
    let mut late: Vec<_> = restore_bookings(&keys, FIRST, slept, &sale.event, &mut bookings).collect();
    late.extend([
        restore_clear(&keys, FIRST, slept, vec![keys.expiry(FIRST)]),
        restore_event(&keys, FIRST, slept, &sale.event),
        restore_shard(&keys, FIRST, slept, Position { epoch: 1, sequence: 1 }, 0, true),
        restore_unschedule(&keys, FIRST, slept, Vec::new()),
        // Its own epoch, but the shard is certified since.
        restore_clear(&keys, FIRST, own, vec![keys.expiry(FIRST)]),
    ]);
    for call in &late {
        let refusal = stack.try_script::<i64>(call).await.unwrap_err();
        assert_eq!(refusal.code(), Some("STALEEPOCH"), "{refusal}");
    }
    assert_eq!(inventory(&stack).await, before);
    assert!(stack.is_certified(FIRST).await);
    stack.remove().await;
}

/// Whatever a restoration had done when its process died, the next one ends the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_restoration_starts_over() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let sale = sold_in_every_state(&stack).await;
    service.stop().await;
    let before = inventory(&stack).await;
    let mut event = sale.event.clone();
    let counts: (i32, i32) =
        sqlx::query_as("SELECT held, sold FROM ticket_types").fetch_one(&stack.pool).await.unwrap();
    event.ticket_types[0].held = u32::try_from(counts.0).unwrap();
    event.ticket_types[0].sold = u32::try_from(counts.1).unwrap();
    // Another process had begun: its epoch is in PostgreSQL and Redis, and the event is back without its bookings.
    let epoch = u32::try_from(stack.position(FIRST).await.0).unwrap() + 1;
    stack.execute("UPDATE shards SET recovery_epoch = recovery_epoch + 1 WHERE shard = 0").await;
    let keys = stack.config.keys();
    let begun: RecoveryReply = stack.run_script(&begin_recovery(&keys, FIRST, epoch)).await;
    let start = RecoveryStart::from(begun);
    let slots = (0..event.slots).map(|slot| keys.slot(FIRST, event.id, slot)).collect();
    let _: i64 = stack.run_script(&restore_clear(&keys, FIRST, start.fence(epoch), slots)).await;
    let _: i64 = stack.run_script(&restore_event(&keys, FIRST, start.fence(epoch), &event)).await;
    assert_ne!(inventory(&stack).await, before);

    let service = stack.start();
    stack.wait_until_certified().await;
    assert_eq!(inventory(&stack).await, before);
    service.stop().await;
    stack.remove().await;
}

/// Two masters went on from the same state, and each decided once: sequence, counts and the old one's own certificate
/// are as they should be, and yet it holds another booking.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_master_that_is_back_is_restored_although_its_counters_agree() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let sale = LiveSale::publish(&stack, 100).await;
    assert!(matches!(sale.book(&stack, "before").await, Outcome::Changed(_)));
    restart_redis(&stack).await;
    stack.wait_until_certified().await;
    service.stop().await;
    let parting = stack.dump_redis().await;
    assert!(matches!(sale.book(&stack, "old").await, Outcome::Changed(_)));
    let old_master = stack.dump_redis().await;

    stack.wipe_redis().await;
    stack.load_redis(&parting).await;
    restart_redis(&stack).await;
    let service = stack.start();
    stack.wait_until_certified().await;
    assert!(matches!(sale.book(&stack, "new").await, Outcome::Changed(_)));
    restart_redis(&stack).await;
    stack.wait_until_certified().await;
    service.stop().await;
    assert_eq!(stack.words("SELECT idempotency_key FROM bookings ORDER BY 1").await, ["before", "new"]);
    let epoch = stack.position(FIRST).await.0;

    stack.wipe_redis().await;
    stack.load_redis(&old_master).await;
    assert!(stack.is_certified(FIRST).await, "its certificate names the process and the history that it has");
    let service = stack.start();
    wait_until("a recovery in a later epoch", async || stack.position(FIRST).await.0 > epoch).await;
    stack.wait_until_certified().await;
    assert!(matches!(sale.book(&stack, "new").await, Outcome::Replayed(..)));
    let sold = "SELECT sold::int8 FROM ticket_types";
    assert_eq!(stack.number(sold).await, 2);
    // What the old master sold on its own is told, and not silently forgotten; that Redis lost something is over.
    let open = "SELECT kind FROM alarms WHERE resolved_at IS NULL";
    wait_until("only what is lost to be told", async || stack.words(open).await == ["ended_epoch"]).await;
    service.stop().await;
    stack.remove().await;
}

/// Its recovery waits for a person, and would close it only then. Here it is the epoch that moves, and not the Redis.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_master_that_is_back_is_closed_although_its_recovery_cannot_begin() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    stack
        .execute(
            "INSERT INTO dead_letters (shard, kafka_offset, kind, reason, payload) VALUES (0, 0, 'poisoned', 'x', '')",
        )
        .await;
    stack.execute("UPDATE shards SET recovery_epoch = recovery_epoch + 1 WHERE shard = 0").await;
    wait_until("the shard to be closed", async || !stack.is_certified(FIRST).await).await;
    assert!(stack.is_certified(SECOND).await);
    assert_eq!(stack.command(&["dead-letters", "discard", "1"]).await.0, 0);
    stack.wait_until_certified().await;
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_with_an_unresolved_poisoned_record_is_not_certified() {
    let stack = Stack::prepare().await;
    stack
        .execute(
            "INSERT INTO dead_letters (shard, kafka_offset, kind, reason, payload) VALUES (0, 0, 'poisoned', 'x', '')",
        )
        .await;
    let service = stack.start();
    wait_until("the other shard is certified", async || stack.is_certified(SECOND).await).await;
    assert!(!stack.is_certified(FIRST).await);
    assert_eq!(stack.command(&["dead-letters", "discard", "1"]).await.0, 0);
    stack.wait_until_certified().await;
    service.stop().await;
    stack.remove().await;
}

/// The counters do not show it: it changed an event.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_is_not_certified_where_a_poisoned_record_was_applied_only_after_its_recovery_had_begun() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let sale = LiveSale::publish(&stack, 100).await;
    restart_redis(&stack).await;
    stack.wait_until_certified().await;
    service.stop().await;
    sale.amend(&stack, EventChange::Name("Another night".to_owned().try_into().unwrap())).await;
    let renamed = outbox(&stack).await.pop().unwrap();
    stack.append_as(&renamed, b"not a record").await;
    trim_outbox(&stack, renamed.position).await;
    let epoch = stack.position(FIRST).await.0;
    restart_redis(&stack).await;

    let service = stack.start();
    wait_until("the barrier is applied", async || stack.position(FIRST).await.0 > epoch).await;
    let (code, printed) = stack.command(&["status"]).await;
    assert_eq!(code, 1, "{printed}");
    assert!(printed.contains("poisoned"), "{printed}");
    assert!(!stack.is_certified(FIRST).await);
    assert_eq!(stack.command(&["dead-letters", "discard", "1"]).await.0, 0);
    stack.wait_until_certified().await;
    service.stop().await;
    stack.remove().await;
}

/// Each attempt takes an epoch, and an operator may come late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_booking_that_only_redis_has_is_kept_however_many_recoveries_began_since_it_was_made() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let sale = sold_with_a_booking_refused(&stack).await;
    service.stop().await;
    stack
        .execute(
            "INSERT INTO epochs (shard, epoch, began_behind) \
             SELECT shard, epoch + n, sequence FROM shards, generate_series(1, 200) AS n WHERE shard = 0",
        )
        .await;
    stack
        .execute("UPDATE shards SET epoch = epoch + 200, recovery_epoch = epoch + 200 WHERE shard = 0")
        .await;

    stack.execute("ALTER TABLE bookings DROP CONSTRAINT unlucky").await;
    assert_eq!(stack.command(&["dead-letters", "discard", "1"]).await.0, 0);
    stack.execute("UPDATE alarms SET resolved_at = now() WHERE kind = 'counts_differ'").await;
    let service = stack.start();
    stack.wait_until_certified().await;
    assert!(matches!(sale.book(&stack, "b").await, Outcome::Replayed(..)), "it was taken back");
    service.stop().await;
    stack.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_that_the_bookings_do_not_add_up_to_are_not_restored() {
    let stack = Stack::prepare().await;
    let service = stack.start();
    stack.wait_until_certified().await;
    let sale = sold_in_every_state(&stack).await;
    stack.execute("UPDATE ticket_types SET sold = sold - 5").await;
    stack.wipe_redis().await;
    let said = "SELECT count(*) FROM alarms WHERE kind = 'unrestorable' AND resolved_at IS NULL \
                AND detail LIKE '%add up to 10 and 25%'";
    stack.wait_for_number("the count is named", said, 1).await;
    assert!(!stack.is_certified(FIRST).await);

    stack.command(&["repair", "--event", &sale.id().to_string()]).await;
    stack.wait_until_certified().await;
    assert!(matches!(sale.book(&stack, "booked-3").await, Outcome::Replayed(..)));
    assert_eq!(stack.number("SELECT sold::int8 FROM ticket_types").await, 25);
    service.stop().await;
    stack.remove().await;
}
