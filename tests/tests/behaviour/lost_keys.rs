//! Somebody deletes a key of a Redis that runs and is certified. Whoever misses it closes the shard, and the reconciler
//! that runs anyway puts it right: nobody is told to do anything.

use boxoffice_schema::ids::BookingId;
use futures_util::future::join_all;
use serde_json::json;

use crate::http::{Event, Reply, id};
use crate::world::{World, eventually};

impl World {
    pub async fn delete(&self, key: &str) {
        let deleted: i64 = self.redis(redis::cmd("DEL").arg(key)).await;
        assert_eq!(deleted, 1, "{key}");
    }

    /// The key of the only slot of a small event.
    pub fn slot_key(&self, event: &Event) -> String {
        self.keys.slot(self.shard_of(event), event.id.parse().unwrap(), 0)
    }

    /// Another event of the same shard.
    pub async fn on_sale_beside(&self, other: &Event, draft: &serde_json::Value) -> Event {
        loop {
            let event = self.on_sale(draft).await;
            if self.shard_of(&event) == self.shard_of(other) {
                return event;
            }
        }
    }

    /// A key of the event is gone: a booking closes its shard, which comes back with what was sold before, and it is told.
    async fn comes_back(&self, event: &Event, sold: &Reply, key: &str) {
        self.book(&event.id, "new", &event.request("bob", 1)).await.refused(503, "inventory_unverified");
        let replay = self.retried(event, "sold", &event.request("ann", 3)).await;
        assert_eq!((replay.status, &replay.body), (201, &sold.body));
        self.told_of(key).await;
    }

    /// Asks again and again, as clients do, until it is answered otherwise than that the inventory is being verified.
    async fn retried(&self, event: &Event, key: &str, body: &serde_json::Value) -> Reply {
        let answered = std::cell::RefCell::new(None);
        eventually("sales to go on by themselves", || async {
            let reply = self.book(&event.id, key, body).await;
            if reply.status == 503 {
                reply.refused(503, "inventory_unverified");
                return false;
            }
            answered.replace(Some(reply));
            true
        })
        .await;
        answered.into_inner().unwrap()
    }

    /// The alarm named the key while it was missing, and is resolved.
    async fn told_of(&self, key: &str) {
        eventually("the alarm to be resolved", || async {
            let rows: Vec<(String, bool)> =
                sqlx::query_as("SELECT detail, resolved_at IS NOT NULL FROM alarms")
                    .fetch_all(&self.pool)
                    .await
                    .unwrap();
            rows.iter().any(|(detail, is_resolved)| detail.contains(key) && *is_resolved)
        })
        .await;
    }
}

#[tokio::test]
async fn a_retry_whose_slot_was_deleted_is_never_sold_twice_and_sales_go_on_by_themselves() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let request = event.request("ann", 3);
    let sold = world.book(&event.id, "sold", &request).await;
    sold.expect(201);
    let held = id(&world.book(&event.id, "held", &event.hold("ann", 1)).await.expect(201));
    // Not yet in PostgreSQL, perhaps: recovery brings it there first.
    let key = world.slot_key(&event);
    world.delete(&key).await;
    world.book(&event.id, "sold", &request).await.refused(503, "inventory_unverified");
    let replay = world.retried(&event, "sold", &request).await;
    assert_eq!((replay.status, &replay.body), (201, &sold.body));
    assert_eq!(world.counts(&event, 0).await, (1, 3, 6));
    world.confirm(&event.id, &held, "pay").await.expect(200);
    world.book(&event.id, "rest", &event.request("bob", 6)).await.expect(201);
    world.book(&event.id, "more", &event.request("bob", 1)).await.refused(409, "sold_out");
    world.told_of(&key).await;
    world.drained(&event).await;
    assert_eq!(world.rows_counted(&event, 0).await, (0, 10));
    assert_eq!(world.rows_of(&event).await, 3);
}

#[tokio::test]
async fn holds_run_out_although_the_expiry_set_was_deleted() {
    let world = World::start().await;
    let mut draft = World::draft(&[5]);
    draft["hold_seconds"] = json!(2);
    let event = world.on_sale(&draft).await;
    let held = world.book(&event.id, "held", &event.hold("ann", 3)).await.expect(201);
    let key = world.keys.expiry(world.shard_of(&event));
    world.delete(&key).await;
    // No sale misses it: a hold that is made since is in a new set of its own.
    let since = world.retried(&event, "since", &event.hold("bob", 2)).await;
    since.expect(201);
    eventually("all tickets to come back", || async {
        // While the shard is closed PostgreSQL answers, which may not have heard of the holds yet.
        let left = world.availability(&event.id).await;
        left["stale"] == false && left["ticket_types"][0]["available"] == 5
    })
    .await;
    for booking in [held, since.json()] {
        assert_eq!(world.booking(&event.id, &id(&booking)).await.expect(200)["status"], "expired");
    }
    world.retried(&event, "all", &event.request("cleo", 5)).await.expect(201);
    world.told_of(&key).await;
    world.drained(&event).await;
    assert_eq!(world.rows_counted(&event, 0).await, (0, 5));
}

/// The event's hash says in how many slots its holds lie, and whoever expires them reads that when the first one is due.
#[tokio::test]
async fn holds_run_out_although_the_hash_of_their_event_was_deleted_before_any_was_due() {
    let world = World::start().await;
    let mut draft = World::draft(&[5]);
    draft["hold_seconds"] = json!(2);
    let event = world.on_sale(&draft).await;
    let held = id(&world.book(&event.id, "held", &event.hold("ann", 3)).await.expect(201));
    let key = world.event_key(&event);
    world.delete(&key).await;
    // Nobody asks for the event: only its hold is due.
    world.told_of(&key).await;
    eventually("the tickets to come back", || async { world.counts(&event, 0).await == (0, 0, 5) }).await;
    assert_eq!(world.booking(&event.id, &held).await.expect(200)["status"], "expired");
    world.drained(&event).await;
    assert_eq!(world.rows_counted(&event, 0).await, (0, 0));
}

#[tokio::test]
async fn sales_go_on_by_themselves_after_a_key_of_the_event_was_deleted() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let sold = world.book(&event.id, "sold", &event.request("ann", 3)).await;
    let customers = world.keys.customers(world.shard_of(&event), event.id.parse().unwrap());
    for key in [customers, world.event_key(&event)] {
        world.delete(&key).await;
        world.comes_back(&event, &sold, &key).await;
    }
    world.book(&event.id, "rest", &event.request("bob", 7)).await.expect(201);
    world.drained(&event).await;
    assert_eq!(world.rows_counted(&event, 0).await, (0, 10));
}

/// Somebody wrote something else under its name.
#[tokio::test]
async fn sales_go_on_by_themselves_after_a_key_of_the_event_became_one_of_another_type() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let sold = world.book(&event.id, "sold", &event.request("ann", 3)).await;
    let customers = world.keys.customers(world.shard_of(&event), event.id.parse().unwrap());
    for key in [world.slot_key(&event), customers, world.event_key(&event)] {
        let _: String = world.redis(redis::cmd("SET").arg(&key).arg("x")).await;
        world.comes_back(&event, &sold, &key).await;
    }
    world.book(&event.id, "rest", &event.request("bob", 7)).await.expect(201);
    world.drained(&event).await;
    assert_eq!(world.rows_counted(&event, 0).await, (0, 10));
}

/// Somebody wrote into a slot and into the expiry set what no script writes: the first holds that are due, again and again.
#[tokio::test]
async fn holds_run_out_although_one_that_is_due_before_them_cannot_be_read() {
    let world = World::start().await;
    let mut draft = World::draft(&[5]);
    draft["hold_seconds"] = json!(2);
    let broken = world.on_sale(&draft).await;
    let event = world.on_sale_beside(&broken, &draft).await;
    let unreadable = id(&world.book(&broken.id, "broken", &broken.hold("ann", 1)).await.expect(201));
    let field = unreadable.parse::<BookingId>().unwrap().field();
    let mut write = redis::cmd("HSET");
    write.arg(world.slot_key(&broken)).arg(field.as_bytes()).arg("x");
    assert_eq!(world.redis::<i64>(&write).await, 0, "there is no such booking");
    let mut write = redis::cmd("ZADD");
    write.arg(world.keys.expiry(world.shard_of(&event))).arg(0).arg("no hold");
    assert_eq!(world.redis::<i64>(&write).await, 1);
    let held = id(&world.book(&event.id, "held", &event.hold("ann", 3)).await.expect(201));
    eventually("the tickets to come back", || async { world.counts(&event, 0).await == (0, 0, 5) }).await;
    assert_eq!(world.booking(&event.id, &held).await.expect(200)["status"], "expired");
    // Who asks for the other one is not told that it does not exist, and no shard was closed.
    world.confirm(&broken.id, &unreadable, "pay").await.refused(503, "inventory_unverified");
    assert_eq!(world.counts(&broken, 0).await, (1, 0, 4));
    world.book(&broken.id, "rest", &broken.request("bob", 4)).await.expect(201);
}

/// An event of which both hashes are gone closes nothing: nobody can tell it from one that is long over.
#[tokio::test]
async fn holds_run_out_although_those_of_an_event_that_is_gone_from_redis_are_due_before_them() {
    let world = World::start().await;
    let mut draft = World::draft(&[200]);
    draft["hold_seconds"] = json!(2);
    let gone = world.on_sale(&draft).await;
    let event = world.on_sale_beside(&gone, &draft).await;
    // More than are looked at together.
    let (sold_by, of) = (&world, &gone);
    let hold = |n: usize| async move {
        sold_by.book(&of.id, &format!("gone-{n}"), &of.hold("ann", 1)).await.expect(201);
    };
    join_all((0..130).map(hold)).await;
    let shard = world.shard_of(&gone);
    let customers = world.keys.customers(shard, gone.id.parse().unwrap());
    for key in [customers, world.event_key(&gone)] {
        world.delete(&key).await;
    }
    let held = id(&world.book(&event.id, "held", &event.hold("ann", 3)).await.expect(201));
    eventually("the tickets to come back", || async { world.counts(&event, 0).await == (0, 0, 200) }).await;
    assert_eq!(world.booking(&event.id, &held).await.expect(200)["status"], "expired");
}
