//! Sold out, as those who come too late are told it: by looks that they share, and never from memory.

use futures_util::future::join_all;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::http::{Event, id};
use crate::private_redis::PrivateRedis;
use crate::world::{World, eventually};

impl World {
    /// An event without tickets left that this API has looked at: it has read the only slot.
    async fn sold_out(&self) -> (Event, String) {
        let event = self.on_sale(&World::draft(&[1])).await;
        let booking = id(&self.book(&event.id, "taken", &event.request("ann", 1)).await.expect(201));
        for n in 0..3 {
            self.is_sold_out(&event, &format!("too-late-{n}")).await;
        }
        (event, booking)
    }

    async fn is_sold_out(&self, event: &Event, key: &str) {
        self.book(&event.id, key, &event.request("bob", 1)).await.refused(409, "sold_out");
    }

    /// Another API in the same world.
    async fn beside(&self) -> World {
        World::around(self.settings.clone(), &[], CancellationToken::new()).await
    }
}

#[tokio::test]
async fn a_retry_of_a_booking_that_succeeded_gets_it_although_all_is_sold_out() {
    let world = World::start().await;
    let (event, _) = world.sold_out().await;
    let replay = world.book(&event.id, "taken", &event.request("ann", 1)).await;
    replay.expect(201);
    assert_eq!(replay.header("idempotent-replayed"), Some("true"));
    world.book(&event.id, "taken", &event.request("ann", 2)).await.refused(422, "idempotency_key_reused");
    world.is_sold_out(&event, "too-late-0").await;
}

#[tokio::test]
async fn a_booking_that_another_instance_made_since_is_found_by_its_key() {
    let world = World::start().await;
    let (event, mut booking) = world.sold_out().await;
    let other = world.beside().await;
    for n in 0..10 {
        other.cancel(&event.id, &booking).await.expect(200);
        let key = format!("elsewhere-{n}");
        let made = other.book(&event.id, &key, &event.request("cleo", 1)).await;
        booking = id(&made.expect(201));
        let replay = world.book(&event.id, &key, &event.request("cleo", 1)).await;
        assert_eq!((replay.status, &replay.body), (201, &made.body));
        world.is_sold_out(&event, &format!("later-{n}")).await;
    }
    world.drained(&event).await;
    assert_eq!(world.rows_counted(&event, 0).await, (0, 1));
    assert_eq!(world.rows_of(&event).await, 11);
}

#[tokio::test]
async fn a_ticket_that_comes_back_is_had_by_the_next_who_asks() {
    let world = World::start().await;
    let (event, mut booking) = world.sold_out().await;
    for n in 0..10 {
        world.cancel(&event.id, &booking).await.expect(200);
        booking = id(&world.book(&event.id, &format!("k-{n}"), &event.request("bob", 1)).await.expect(201));
        world.is_sold_out(&event, &format!("later-{n}")).await;
    }
    world
        .patch(&event.id, &json!({"ticket_types": [{"id": event.types[0], "capacity": 3}]}))
        .await
        .expect(200);
    world.book(&event.id, "two", &event.request("cleo", 2)).await.expect(201);
    world.is_sold_out(&event, "too-late").await;
}

#[tokio::test]
async fn a_ticket_that_comes_back_by_another_instance_is_had_by_the_next_who_asks() {
    let world = World::start().await;
    let (event, mut booking) = world.sold_out().await;
    let other = world.beside().await;
    for n in 0..10 {
        other.cancel(&event.id, &booking).await.expect(200);
        booking = id(&world.book(&event.id, &format!("k-{n}"), &event.request("bob", 1)).await.expect(201));
        world.is_sold_out(&event, &format!("later-{n}")).await;
    }
    other
        .patch(&event.id, &json!({"ticket_types": [{"id": event.types[0], "capacity": 3}]}))
        .await
        .expect(200);
    world.book(&event.id, "two", &event.request("cleo", 2)).await.expect(201);
    world.drained(&event).await;
    assert_eq!(world.rows_counted(&event, 0).await, (0, 3));
}

#[tokio::test]
async fn of_an_event_that_is_partly_sold_out_the_rest_is_sold() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[2, 5])).await;
    let of = |customer: &str, first: i64, second: i64| {
        let items = [(0, first), (1, second)].into_iter().filter(|(_, quantity)| *quantity > 0);
        let items: Vec<_> = items
            .map(|(at, quantity)| json!({"ticket_type_id": event.types[at], "quantity": quantity}))
            .collect();
        json!({"customer": customer, "items": items})
    };
    for n in 0..3 {
        world.book(&event.id, &format!("three-{n}"), &of("ann", 3, 0)).await.refused(409, "sold_out");
    }
    world.book(&event.id, "one", &of("ann", 1, 0)).await.expect(201);
    world.book(&event.id, "both", &of("bob", 1, 1)).await.expect(201);
    for n in 0..3 {
        world.book(&event.id, &format!("both-{n}"), &of("cleo", 1, 1)).await.refused(409, "sold_out");
        world.book(&event.id, &format!("second-{n}"), &of("cleo", 0, 1)).await.expect(201);
    }
    assert_eq!(world.counts(&event, 1).await, (0, 4, 1));
}

#[tokio::test]
async fn whoever_is_too_late_for_a_sale_that_is_paused_hears_of_the_pause() {
    let world = World::start().await;
    let (event, _) = world.sold_out().await;
    world.patch(&event.id, &json!({"status": "paused"})).await.expect(200);
    world.book(&event.id, "k", &event.request("bob", 1)).await.refused(409, "not_on_sale");
    world.patch(&event.id, &json!({"status": "on_sale"})).await.expect(200);
    world.is_sold_out(&event, "k").await;
}

#[tokio::test]
async fn whoever_is_too_late_for_a_sale_that_is_closed_hears_that_it_is() {
    let world = World::start().await;
    let (event, _) = world.sold_out().await;
    world.patch(&event.id, &json!({"status": "closed"})).await.expect(200);
    for n in 0..3 {
        let reply = world.book(&event.id, &format!("closed-{n}"), &event.request("bob", 1)).await;
        reply.refused(409, "not_on_sale");
    }
}

#[tokio::test]
async fn where_nothing_is_left_nobody_hears_of_their_limit() {
    let world = World::start().await;
    let mut draft = World::draft(&[1]);
    draft["per_customer_limit"] = json!(1);
    let event = world.on_sale(&draft).await;
    world.book(&event.id, "taken", &event.request("ann", 1)).await.expect(201);
    for n in 0..3 {
        let reply = world.book(&event.id, &format!("more-{n}"), &event.request("ann", 1)).await;
        reply.refused(409, "sold_out");
    }
}

#[tokio::test]
async fn a_redis_that_may_not_take_writes_never_reads_as_sold_out() {
    let redis = PrivateRedis::start().await;
    let world = World::on(&redis).await;
    let (event, _) = world.sold_out().await;
    redis.needs_replicas(1).await;
    world.book(&event.id, "k", &event.request("bob", 1)).await.refused(503, "redis_unavailable");
    redis.needs_replicas(0).await;
    world.is_sold_out(&event, "k").await;
}

#[tokio::test]
async fn a_redis_that_has_lost_something_of_the_event_never_reads_as_sold_out() {
    let world = World::start().await;
    let (event, _) = world.sold_out().await;
    let customers = world.keys.customers(world.shard_of(&event), event.id.parse().unwrap());
    for key in [world.event_key(&event), customers, world.slot_key(&event)] {
        world.delete(&key).await;
        world.book(&event.id, "new", &event.request("bob", 1)).await.refused(503, "inventory_unverified");
        world.selling().await;
        world.is_sold_out(&event, "new").await;
        world.book(&event.id, "taken", &event.request("ann", 1)).await.expect(201);
    }
    let certificate = world.keys.certificate(world.shard_of(&event));
    eventually("somebody to ask before recovery has certified the shard again", || async {
        let _: i64 = world.redis(redis::cmd("DEL").arg(&certificate)).await;
        let reply = world.book(&event.id, "new", &event.request("bob", 1)).await;
        if reply.status == 409 {
            reply.refused(409, "sold_out");
            return false;
        }
        reply.refused(503, "inventory_unverified");
        true
    })
    .await;
}

#[tokio::test]
async fn a_crowd_that_comes_too_late_shares_a_few_looks() {
    const CROWD: usize = 200;
    let redis = PrivateRedis::start().await;
    let world = World::on(&redis).await;
    let (event, _) = world.sold_out().await;
    let writes = redis.calls("xadd").await;
    assert!(redis.calls("hlen").await > 0, "nobody has looked");
    let round = std::cell::Cell::new(0);
    // They share as many looks as they come apart, which on a machine that does much else they may.
    eventually("a crowd to come together", || async {
        let (looks, number) = (redis.calls("hlen").await, round.replace(round.get() + 1));
        let keys: Vec<String> = (0..CROWD).map(|n| format!("crowd-{number}-{n}")).collect();
        join_all(keys.iter().map(|key| world.is_sold_out(&event, key))).await;
        (1..CROWD / 4).contains(&(redis.calls("hlen").await - looks))
    })
    .await;
    assert_eq!(redis.calls("xadd").await, writes);
    eventually("the log to be read", || async { world.rows_of(&event).await == 1 }).await;
    world.nothing_found().await;
}
