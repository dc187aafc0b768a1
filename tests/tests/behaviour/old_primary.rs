//! Fail-over while the old primary lives on, cut off from its replica and not from everybody.

use redis::aio::MultiplexedConnection;
use tokio_util::sync::CancellationToken;

use crate::gate::Gate;
use crate::http::{Event, Reply, id};
use crate::private_redis::PrivateRedis;
use crate::world::{Settings, World, eventually};

/// An old primary decides for up to this many seconds after it has heard of its replica for the last time.
const MAX_LAG: &str = "7";

const SETTINGS: [&str; 6] =
    ["--min-replicas-to-write", "1", "--min-replicas-max-lag", MAX_LAG, "--repl-diskless-sync-delay", "0"];

impl World {
    async fn certificate(&self, event: &Event, redis: &MultiplexedConnection) -> Option<String> {
        let mut command = redis::cmd("GET");
        command.arg(self.keys.certificate(self.shard_of(event)));
        command.query_async(&mut redis.clone()).await.unwrap()
    }
}

/// Waits until the primary has not heard of its replica for a moment. What was on its way is held back by then, so that
/// nothing will tell the primary that the replica left.
async fn silent_replica(primary: &PrivateRedis) {
    let connection = primary.connection().await;
    eventually("the replica to be silent", || async {
        let mut connection = connection.clone();
        let info: String = redis::cmd("INFO").arg("replication").query_async(&mut connection).await.unwrap();
        let lag = info.lines().find_map(|line| line.strip_prefix("slave0:")?.rsplit_once("lag="));
        lag.is_some_and(|(_, seconds)| seconds.parse::<u64>().unwrap() >= 2)
    })
    .await;
}

/// Books through the old primary's API, one ticket after the other, until that refuses and the promoted Redis is
/// certified; it must be in this order. Returns the keys that were sold, and what was answered.
async fn sell_until_certified(
    old: &World,
    event: &Event,
    promoted: &MultiplexedConnection,
) -> Vec<(String, Vec<u8>)> {
    let before = old.certificate(event, promoted).await;
    let sold = std::cell::RefCell::new(Vec::new());
    let has_refused = std::cell::Cell::new(false);
    eventually("the promoted Redis to be certified", || async {
        // Asked before the booking: what is sold behind it was sold beside a certified primary.
        let now = old.certificate(event, promoted).await;
        let is_certified = now.is_some() && now != before;
        let key = format!("old-{}", sold.borrow().len());
        let reply = old.book(&event.id, &key, &event.request("ann", 1)).await;
        if reply.status == 201 {
            assert!(!is_certified, "both primaries sell");
            sold.borrow_mut().push((key, reply.body));
        } else {
            assert_eq!(reply.status, 503, "{reply:?}");
            has_refused.set(true);
        }
        assert!(!is_certified || has_refused.get(), "certified before the old primary refused");
        is_certified
    })
    .await;
    sold.into_inner()
}

#[tokio::test]
async fn after_a_fail_over_nothing_is_certified_before_an_old_primary_that_lives_on_has_stopped_to_sell() {
    let primary = PrivateRedis::start_with(&SETTINGS).await;
    let (replica, second) =
        (PrivateRedis::start_with(&SETTINGS).await, PrivateRedis::start_with(&SETTINGS).await);
    let between = Gate::to(primary.address()).await;
    replica.follow_through(&between.address).await;
    // The one to be promoted has a replica of its own, without which it would refuse as well.
    second.follow(&replica).await;
    let mut settings = Settings::fresh().await;
    settings.redis_url = primary.url();
    boxoffice_reconciler::migrate::migrate(&settings.reconciler()).await.unwrap();
    let to_redis = Gate::to(primary.address()).await;
    let mut following = settings.clone();
    following.redis_url = format!("redis://{}/", to_redis.address);
    let stop = CancellationToken::new();
    following.start_reconciler(&stop);
    let old = World::around(settings, &["--ack", "kafka"], stop.clone()).await;
    old.selling().await;
    let event = old.on_sale(&World::draft(&[100_000])).await;
    let held = id(&old.book(&event.id, "held", &event.hold("ann", 2)).await.expect(201));
    old.drained(&event).await;
    replica.caught_up_with(&primary).await;

    between.freeze();
    silent_replica(&primary).await;
    // Whether more is sold behind the promotion depends on when the API hears of the epoch.
    let unheard = old.book(&event.id, "unheard", &event.request("ann", 1)).await;
    assert_eq!(unheard.status, 201, "{unheard:?}");
    replica.promote().await;
    to_redis.replace_by(replica.address());
    let promoted = replica.connection().await;
    let mut sold = sell_until_certified(&old, &event, &promoted).await;
    let unanswered = format!("old-{}", sold.len());
    sold.push(("unheard".to_owned(), unheard.body));
    let refusal: Result<(), _> =
        redis::cmd("SET").arg("by-itself").arg(1).query_async(&mut primary.connection().await).await;
    assert_eq!(refusal.unwrap_err().code(), Some("NOREPLICAS"));

    // What the old primary's clients were told meanwhile is kept, and sales go on where everybody is by now.
    let base = following.start_api(&[], &stop).await;
    let new = World::looking_at(following, base, stop).await;
    eventually("sales to go on", || async {
        let reply = new.book(&event.id, "after", &event.request("bob", 1)).await;
        assert!([201, 503].contains(&reply.status), "{reply:?}");
        reply.status == 201
    })
    .await;
    for (key, body) in &sold {
        let replay = new.book(&event.id, key, &event.request("ann", 1)).await;
        assert_eq!((replay.status, &replay.body), (201, body), "{key}");
    }
    // The last request may have been decided there; nobody was told.
    new.book(&event.id, &unanswered, &event.request("ann", 1)).await.expect(201);
    new.confirm(&event.id, &held, "pay").await.expect(200);
    new.drained(&event).await;
    let tickets = i64::try_from(sold.len()).unwrap() + 4;
    assert_eq!(new.rows_counted(&event, 0).await, (0, tickets));
    assert_eq!(new.counts(&event, 0).await, (0, tickets, 100_000 - tickets));
}

/// A ticket is sold by programs that come to Redis by an address, which leads to the primary; the test looks at its replica.
async fn sold_by_the_address(primary: &PrivateRedis, replica: &PrivateRedis) -> (Gate, World, Event, Reply) {
    let mut direct = Settings::fresh().await;
    direct.redis_url = replica.url();
    let to_redis = Gate::to(primary.address()).await;
    let mut following = direct.clone();
    following.redis_url = format!("redis://{}/", to_redis.address);
    let world = World::reached(direct, &following, &following, &[]).await;
    let event = world.on_sale(&World::draft(&[100])).await;
    let sold = world.book(&event.id, "before", &event.request("ann", 1)).await;
    sold.expect(201);
    world.drained(&event).await;
    replica.caught_up_with(primary).await;
    (to_redis, world, event, sold)
}

/// A second ticket is sold, and the first one is there.
async fn sells_on(world: &World, event: &Event, sold: &Reply) {
    world.sells_again(event, "after", "bob").await;
    let replay = world.book(&event.id, "before", &event.request("ann", 1)).await;
    assert_eq!((replay.status, &replay.body), (201, &sold.body));
    world.drained(event).await;
    assert_eq!(world.rows_counted(event, 0).await, (0, 2));
}

/// A fail-over by hand, in which nothing dies: whoever is connected to the old primary is answered by a replica.
#[tokio::test]
async fn sales_go_on_where_the_address_leads_although_nobody_broke_the_connections_to_what_is_a_replica_now()
{
    let (primary, replica) = (PrivateRedis::start().await, PrivateRedis::start().await);
    replica.follow(&primary).await;
    let (to_redis, world, event, sold) = sold_by_the_address(&primary, &replica).await;

    replica.promote().await;
    to_redis.lead_to(replica.address());
    primary.follow(&replica).await;
    sells_on(&world, &event, &sold).await;
}

/// The address leads to the promoted replica, and nothing dies or becomes a replica: the old primary answers every read, and
/// refuses what would write.
#[tokio::test]
async fn sales_go_on_where_the_address_leads_although_an_old_primary_that_misses_its_replica_still_answers() {
    let primary = PrivateRedis::start_with(&SETTINGS).await;
    let (replica, second) =
        (PrivateRedis::start_with(&SETTINGS).await, PrivateRedis::start_with(&SETTINGS).await);
    let between = Gate::to(primary.address()).await;
    replica.follow_through(&between.address).await;
    second.follow(&replica).await;
    let (to_redis, world, event, sold) = sold_by_the_address(&primary, &replica).await;

    between.freeze();
    let connection = primary.connection().await;
    eventually("the old primary to miss its replica", || async {
        let mut command = redis::cmd("SET");
        let set: Result<(), _> = command.arg("by-itself").arg(1).query_async(&mut connection.clone()).await;
        set.is_err_and(|refusal| refusal.code() == Some("NOREPLICAS"))
    })
    .await;
    // As long as nobody else has its address it is not left.
    let read = world.get(&format!("/v1/events/{}", event.id)).await;
    assert_eq!((read.status, read.header("boxoffice-stale")), (200, None));
    world.book(&event.id, "refused", &event.request("bob", 1)).await.refused(503, "redis_unavailable");

    replica.promote().await;
    to_redis.lead_to(replica.address());
    sells_on(&world, &event, &sold).await;
}

/// The address leads to the old primary again, but only those who connect now: the reconciler and the first API stay where they are.
/// The other API has heard nothing from any Redis.
#[tokio::test]
async fn nothing_is_sold_by_an_old_primary_to_which_only_another_api_is_led() {
    let (primary, replica) = (PrivateRedis::start().await, PrivateRedis::start().await);
    replica.follow(&primary).await;
    let (to_redis, world, event, sold) = sold_by_the_address(&primary, &replica).await;
    replica.promote().await;
    to_redis.replace_by(replica.address());
    sells_on(&world, &event, &sold).await;
    let old = primary.connection().await;
    let stock = async || {
        let mut command = redis::cmd("HGETALL");
        command.arg(world.keys.event(world.shard_of(&event), event.id.parse().unwrap()));
        command.query_async::<std::collections::BTreeMap<String, String>>(&mut old.clone()).await.unwrap()
    };
    let before = stock().await;
    assert!(world.certificate(&event, &old).await.is_some(), "it would sell");

    to_redis.lead_to(primary.address());
    let mut led = world.settings.clone();
    led.redis_url = format!("redis://{}/", to_redis.address);
    let stop = CancellationToken::new();
    let base = led.start_api(&[], &stop).await;
    let other = World::looking_at(led, base, stop).await;
    for key in ["late", "before"] {
        let request = event.request("ann", 1);
        eventually("the old primary to be refused", || async {
            let reply = other.book(&event.id, key, &request).await;
            assert_eq!(reply.status, 503, "{reply:?}");
            reply.json()["code"] == "inventory_unverified"
        })
        .await;
    }
    let read = other.get(&format!("/v1/events/{}/availability", event.id)).await;
    assert_eq!((read.status, read.header("boxoffice-stale")), (200, Some("true")));
    assert_eq!(stock().await, before, "nothing was decided there");
    world.book(&event.id, "last", &event.request("bob", 1)).await.expect(201);
    world.drained(&event).await;
    assert_eq!(world.rows_counted(&event, 0).await, (0, 3));
}

/// Back at the old primary without a resynchronisation: its process and its history are the same, so that its certificate holds,
/// and nobody but the API knows that its epoch is over.
#[tokio::test]
async fn nothing_is_acknowledged_that_an_old_primary_decides_in_an_epoch_that_is_known_to_be_over() {
    let (primary, replica) = (PrivateRedis::start().await, PrivateRedis::start().await);
    let to_redis = Gate::to(primary.address()).await;
    let mut settings = Settings::fresh().await;
    settings.redis_url = format!("redis://{}/", to_redis.address);
    let (world, (stop, reconciler)) = World::beside_a_reconciler(settings).await;
    replica.follow(&primary).await;
    let event = world.on_sale(&World::draft(&[100])).await;
    world.sells_again(&event, "before", "ann").await;
    let before = id(&world.book(&event.id, "before", &event.request("ann", 1)).await.expect(201));
    world.drained(&event).await;
    replica.caught_up_with(&primary).await;

    replica.promote().await;
    to_redis.replace_by(replica.address());
    world.sells_again(&event, "after", "ann").await;
    let promoted = replica.connection().await;
    eventually("the API to hear that Kafka has it", || async {
        let mut command = redis::cmd("XLEN");
        command.arg(world.keys.outbox(world.shard_of(&event)));
        command.query_async::<u64>(&mut promoted.clone()).await.unwrap() == 0
    })
    .await;
    stop.cancel();
    reconciler.await.unwrap();

    to_redis.replace_by(primary.address());
    eventually("the old primary to answer", || async {
        let reply = world.book(&event.id, "late", &event.request("bob", 1)).await;
        assert_eq!(reply.status, 503, "{reply:?}");
        reply.json()["code"] == "inventory_unverified"
    })
    .await;
    for (key, customer) in [("late", "bob"), ("before", "ann")] {
        let retry = world.book(&event.id, key, &event.request(customer, 1)).await;
        retry.refused(503, "inventory_unverified");
    }
    let read = world.booking(&event.id, &before).await;
    assert_eq!((read.status, read.header("boxoffice-stale")), (200, Some("true")));
    world.cancel(&event.id, &before).await.refused(503, "inventory_unverified");
    let paused = world.patch(&event.id, &serde_json::json!({"status": "paused"})).await;
    paused.refused(503, "inventory_unverified");
}
