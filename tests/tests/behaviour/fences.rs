//! Whatever happens to Redis: no script sells, for the API or for a client that calls it by itself, before recovery has
//! put the shard right. The reconciler is stopped meanwhile, so that nobody does.

use boxoffice_schema::image::ImageItem;
use boxoffice_schema::money::Currency;
use boxoffice_schema::scripts::{Book, OutboxBounds, decision_call, error_code};
use boxoffice_schema::text::{Caller, Customer, IdempotencyKey};
use redis::RedisError;
use redis::aio::MultiplexedConnection;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::http::{Event, id};
use crate::private_redis::PrivateRedis;
use crate::world::{Settings, World, eventually};

/// An event with ten tickets: three are sold, one is held, and all of it is in PostgreSQL.
struct Sale {
    world: World,
    event: Event,
    draft: String,
    held: String,
    sold_body: Vec<u8>,
    reconciler: (CancellationToken, JoinHandle<()>),
}

impl Sale {
    async fn on(redis: &PrivateRedis) -> Self {
        let mut settings = Settings::fresh().await;
        settings.redis_url = redis.url();
        let (world, reconciler) = World::beside_a_reconciler(settings).await;
        let event = world.on_sale(&World::draft(&[10])).await;
        let draft = id(&world.post("/v1/events", &World::draft(&[10])).await.expect(201));
        let sold = world.book(&event.id, "sold", &event.request("ann", 3)).await;
        sold.expect(201);
        let held = id(&world.book(&event.id, "held", &event.hold("ann", 1)).await.expect(201));
        world.drained(&event).await;
        Self { world, event, draft, held, sold_body: sold.body, reconciler }
    }

    /// Nobody puts anything right from here on.
    async fn alone(&mut self) {
        self.reconciler.0.cancel();
        (&mut self.reconciler.1).await.unwrap();
    }

    /// No call decides or reveals anything, and none says that the event is sold out or not there.
    async fn is_closed(&self) {
        let (world, event) = (&self.world, &self.event);
        eventually("Redis to answer the API", || async {
            let reply = world.book(&event.id, "first", &event.request("bob", 1)).await;
            assert_eq!(reply.status, 503, "{reply:?}");
            reply.json()["code"] == "inventory_unverified"
        })
        .await;
        let code = "inventory_unverified";
        world.book(&event.id, "new", &event.request("bob", 1)).await.refused(503, code);
        world.book(&event.id, "sold", &event.request("ann", 3)).await.refused(503, code);
        world.confirm(&event.id, &self.held, "pay").await.refused(503, code);
        world.cancel(&event.id, &self.held).await.refused(503, code);
        world.publish(&self.draft).await.refused(503, code);
        world.patch(&event.id, &serde_json::json!({"status": "closed"})).await.refused(503, code);
        assert_eq!(world.availability(&event.id).await["ticket_types"][0]["on_sale"], false);
        let client = redis::Client::open(world.settings.redis_url.as_str()).unwrap();
        let connection = client.get_multiplexed_async_connection().await.unwrap();
        self.is_closed_to_scripts(connection).await;
    }

    /// The script itself refuses, whoever calls it.
    async fn is_closed_to_scripts(&self, mut redis: MultiplexedConnection) {
        let items = vec![ImageItem {
            ordinal: 0,
            quantity: 1,
            ticket_type_id: self.event.types[0].parse().unwrap(),
            unit_price: 1_000,
        }];
        let request = Book::new(
            self.event.id.parse().unwrap(),
            64,
            &Caller::anonymous(),
            &IdempotencyKey::parse(b"by-itself").unwrap(),
            &Customer::try_from("eve".to_owned()).unwrap(),
            Currency::parse("EUR").unwrap(),
            0,
            items,
        );
        let bounds = OutboxBounds { frames: 1_000, bytes: 1 << 20, age_ms: 600_000 };
        let call = decision_call(&self.world.keys, self.world.shard_of(&self.event), bounds, [&request]);
        let mut load = redis::cmd("SCRIPT");
        let sha1: String = load.arg("LOAD").arg(call.script.source()).query_async(&mut redis).await.unwrap();
        let mut command = redis::cmd("EVALSHA");
        command.arg(sha1).arg(call.keys.len()).arg(&call.keys).arg(&call.args);
        let answer: Result<redis::Value, RedisError> = command.query_async(&mut redis).await;
        assert_eq!(answer.unwrap_err().code(), Some(error_code::UNVERIFIED));
    }

    /// With a reconciler exactly the six tickets that are left are sold, and everybody has what they had.
    async fn opens_again_whole(self) {
        let stop = CancellationToken::new();
        let _running = self.world.settings.start_reconciler(&stop);
        let (world, event) = (&self.world, &self.event);
        eventually("the six that are left to be for sale", || async {
            let too_many = world.book(&event.id, "seven", &event.request("bob", 7)).await;
            assert!([503, 409].contains(&too_many.status), "sold twice: {too_many:?}");
            let rest = world.book(&event.id, "six", &event.request("bob", 6)).await;
            assert!([503, 201].contains(&rest.status), "{rest:?}");
            rest.status == 201
        })
        .await;
        let replay = world.book(&event.id, "sold", &event.request("ann", 3)).await;
        assert_eq!((replay.status, &replay.body), (201, &self.sold_body));
        world.confirm(&event.id, &self.held, "pay").await.expect(200);
        world.drained(event).await;
        assert_eq!(world.rows_counted(event, 0).await, (0, 10));
        assert_eq!(world.rows_of(event).await, 3);
        stop.cancel();
    }
}

#[tokio::test]
async fn after_a_restart_no_script_sells_before_recovery() {
    let mut redis = PrivateRedis::start().await;
    let mut sale = Sale::on(&redis).await;
    sale.alone().await;
    redis.kill();
    redis.start_again().await;
    sale.is_closed().await;
    sale.opens_again_whole().await;
}

#[tokio::test]
async fn after_fail_over_and_fail_back_no_script_sells_on_either_side_before_recovery() {
    let (redis, replica) = (PrivateRedis::start().await, PrivateRedis::start().await);
    let mut sale = Sale::on(&redis).await;
    replica.follow(&redis).await;
    // The first replica changes the replication history, which costs a recovery.
    sale.world.selling().await;
    eventually("the shard to be certified again", || async {
        sale.world.book(&sale.event.id, "sold", &sale.event.request("ann", 3)).await.status == 201
    })
    .await;
    sale.world.drained(&sale.event).await;
    sale.alone().await;
    replica.caught_up_with(&redis).await;
    replica.promote().await;
    sale.is_closed_to_scripts(replica.connection().await).await;
    // Back again: the same process as before, so that its run_id says nothing.
    redis.follow(&replica).await;
    redis.promote().await;
    sale.is_closed().await;
    sale.opens_again_whole().await;
}

#[tokio::test]
async fn on_a_restored_snapshot_no_script_sells_before_recovery() {
    let mut redis = PrivateRedis::start().await;
    let empty = redis.backup();
    let mut sale = Sale::on(&redis).await;
    let old = redis.backup();
    let late = sale.world.book(&sale.event.id, "late", &sale.event.request("ann", 1)).await.expect(201);
    sale.world.cancel(&sale.event.id, &id(&late)).await.expect(200);
    sale.world.drained(&sale.event).await;
    sale.alone().await;
    for backup in [&empty, &old] {
        redis.kill();
        redis.restore(backup);
        redis.start_again().await;
        sale.is_closed().await;
    }
    let stop = CancellationToken::new();
    let _running = sale.world.settings.start_reconciler(&stop);
    eventually("the late decision to be back", || async {
        let replay = sale.world.book(&sale.event.id, "late", &sale.event.request("ann", 1)).await;
        assert!([503, 201].contains(&replay.status), "{replay:?}");
        replay.status == 201 && id(&replay.json()) == id(&late)
    })
    .await;
    assert_eq!(sale.world.counts(&sale.event, 0).await, (1, 3, 6));
    stop.cancel();
}

#[tokio::test]
async fn after_flushall_no_script_sells_before_recovery() {
    let redis = PrivateRedis::start().await;
    let mut sale = Sale::on(&redis).await;
    sale.alone().await;
    let _: String = sale.world.redis(&redis::cmd("FLUSHALL")).await;
    sale.is_closed().await;
    sale.opens_again_whole().await;
}

#[tokio::test]
async fn a_reload_of_what_redis_holds_loses_nothing() {
    let redis = PrivateRedis::start_with(&["--enable-debug-command", "yes"]).await;
    let mut sale = Sale::on(&redis).await;
    sale.alone().await;
    let _: String = sale.world.redis(redis::cmd("DEBUG").arg("RELOAD")).await;
    // Process and history are the same, and so is the inventory: the certificate may stand.
    assert_eq!(sale.world.counts(&sale.event, 0).await, (1, 3, 6));
    sale.opens_again_whole().await;
}

#[tokio::test]
async fn a_lost_key_closes_what_depends_on_it_before_recovery() {
    let redis = PrivateRedis::start().await;
    let kinds: [fn(&Sale) -> String; 5] = [
        |sale| sale.world.keys.certificate(sale.world.shard_of(&sale.event)),
        |sale| sale.world.shard_key(&sale.event),
        |sale| sale.world.event_key(&sale.event),
        |sale| {
            let (shard, event) = (sale.world.shard_of(&sale.event), sale.event.id.parse().unwrap());
            sale.world.keys.customers(shard, event)
        },
        |sale| sale.world.slot_key(&sale.event),
    ];
    for key_of in kinds {
        let mut sale = Sale::on(&redis).await;
        sale.alone().await;
        let key = key_of(&sale);
        let lost: i64 = sale.world.redis(redis::cmd("DEL").arg(&key)).await;
        assert_eq!(lost, 1, "{key}");
        let (world, event) = (&sale.world, &sale.event);
        for (key, body) in [("new", event.request("bob", 1)), ("sold", event.request("ann", 3))] {
            world.book(&event.id, key, &body).await.refused(503, "inventory_unverified");
        }
        world.confirm(&event.id, &sale.held, "pay").await.refused(503, "inventory_unverified");
        world.cancel(&event.id, &sale.held).await.refused(503, "inventory_unverified");
        // Not only what depends on it, and not only for those who know of it.
        sale.is_closed_to_scripts(redis.connection().await).await;
        sale.opens_again_whole().await;
    }
}

/// A closed event may be gone from Redis because it is long over. This one is gone because Redis lost it.
#[tokio::test]
async fn a_retry_is_not_refused_for_good_by_an_api_that_first_asked_while_redis_had_lost_the_closed_event() {
    let redis = PrivateRedis::start().await;
    let mut sale = Sale::on(&redis).await;
    sale.world.patch(&sale.event.id, &serde_json::json!({"status": "closed"})).await.expect(200);
    sale.world.drained(&sale.event).await;
    sale.alone().await;
    let _: String = sale.world.redis(&redis::cmd("FLUSHALL")).await;
    let another = World::around(sale.world.settings.clone(), &[], CancellationToken::new()).await;
    let (event, request) = (&sale.event, sale.event.request("ann", 3));
    another.book(&event.id, "sold", &request).await.refused(503, "inventory_unverified");
    let stop = CancellationToken::new();
    let _running = another.settings.start_reconciler(&stop);
    eventually("the retry to get its answer", || async {
        let reply = another.book(&event.id, "sold", &request).await;
        assert!([503, 201].contains(&reply.status), "{reply:?}");
        reply.status == 201 && reply.body == sale.sold_body
    })
    .await;
    another.book(&event.id, "new", &request).await.refused(409, "not_on_sale");
    stop.cancel();
}
