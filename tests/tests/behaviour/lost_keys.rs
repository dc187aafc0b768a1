//! Somebody deletes a key of a Redis that runs and is certified. Whoever misses it closes the shard, and the reconciler
//! that runs anyway puts it right: nobody is told to do anything.

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
    eventually("all tickets to come back", || async { world.counts(&event, 0).await == (0, 0, 5) }).await;
    for booking in [held, since.json()] {
        assert_eq!(world.booking(&event.id, &id(&booking)).await.expect(200)["status"], "expired");
    }
    world.retried(&event, "all", &event.request("cleo", 5)).await.expect(201);
    world.told_of(&key).await;
    world.drained(&event).await;
    assert_eq!(world.rows_counted(&event, 0).await, (0, 5));
}

#[tokio::test]
async fn sales_go_on_by_themselves_after_a_key_of_the_event_was_deleted() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let sold = world.book(&event.id, "sold", &event.request("ann", 3)).await;
    let customers = world.keys.customers(world.shard_of(&event), event.id.parse().unwrap());
    for key in [customers, world.event_key(&event)] {
        world.delete(&key).await;
        world.book(&event.id, "new", &event.request("bob", 1)).await.refused(503, "inventory_unverified");
        let replay = world.retried(&event, "sold", &event.request("ann", 3)).await;
        assert_eq!((replay.status, &replay.body), (201, &sold.body));
        world.told_of(&key).await;
    }
    world.book(&event.id, "rest", &event.request("bob", 7)).await.expect(201);
    world.drained(&event).await;
    assert_eq!(world.rows_counted(&event, 0).await, (0, 10));
}
