//! Each HTTP thread of an instance asks Redis over a connection of its own, and no client can tell which thread serves them.

use std::cell::Cell;
use std::collections::HashSet;
use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::gate::Gate;
use crate::http::Event;
use crate::private_redis::PrivateRedis;
use crate::transport::{Raw, RawAnswer, booking};
use crate::world::{World, eventually};

/// Connections are handed to the two threads of a world in turn.
async fn clients(world: &World) -> Vec<Raw> {
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(Raw::to(world).await);
    }
    clients
}

async fn book(client: &mut Raw, event: &Event, key: &str) -> RawAnswer {
    client.send(booking(&event.id, key, &event.request("ann", 1).to_string())).await;
    client.answer().await.unwrap()
}

async fn available(client: &mut Raw, event: &Event) -> Value {
    client.send(format!("GET /v1/events/{}/availability HTTP/1.1\r\nHost: b\r\n\r\n", event.id)).await;
    let answer = client.answer().await.unwrap();
    assert_eq!((answer.status, answer.header("boxoffice-stale")), (200, None));
    serde_json::from_slice::<Value>(&answer.body).unwrap()["ticket_types"][0]["available"].clone()
}

#[tokio::test]
async fn what_is_booked_on_one_thread_is_read_replayed_and_refused_on_all() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[8])).await;
    let mut clients = clients(&world).await;
    for left in (0..8).rev() {
        let key = format!("k{left}");
        let at = left % clients.len();
        let booked = book(&mut clients[at], &event, &key).await;
        assert_eq!(booked.status, 201, "{booked:?}");
        for client in &mut clients {
            assert_eq!(available(client, &event).await, left);
            let replay = book(client, &event, &key).await;
            assert_eq!((replay.status, replay.header("idempotent-replayed")), (201, Some("true")));
            assert_eq!(replay.body, booked.body);
        }
    }
    // The first refusals are decided, and the others looked for.
    for round in 0..4 {
        for (at, client) in clients.iter_mut().enumerate() {
            let refused = book(client, &event, &format!("late-{round}-{at}")).await;
            assert_eq!(refused.status, 409, "{refused:?}");
            assert_eq!(book(client, &event, &format!("k{round}")).await.status, 201);
        }
    }
    world.drained(&event).await;
    assert_eq!(world.counts(&event, 0).await, (0, 8, 0));
}

/// The connections of clients that Redis has, by their ids.
async fn connected(redis: &PrivateRedis) -> HashSet<u64> {
    let list: String =
        redis::cmd("CLIENT").arg("LIST").query_async(&mut redis.connection().await).await.unwrap();
    let id = |line: &str| line.strip_prefix("id=")?.split(' ').next()?.parse().ok();
    list.lines().filter_map(id).collect()
}

/// So that a thread never reads a Redis that the decisions have left, nor the relays relay one: an address may come to name another.
#[tokio::test]
async fn the_connections_of_all_threads_and_of_the_relays_are_made_anew_with_that_of_the_decisions() {
    const THREADS: usize = 3;
    let redis = PrivateRedis::start().await;
    let world = World::on(&redis).await;
    let event = world.on_sale(&World::draft(&[100])).await;
    let gate = Gate::to(redis.address()).await;
    let mut settings = world.settings.clone();
    settings.redis_url = format!("redis://{}/", gate.address);
    let others = connected(&redis).await;
    let stop = CancellationToken::new();
    let base = settings.start_api(&["--workers", &THREADS.to_string()], &stop).await;
    eventually("a connection for each thread and two more", || async { gate.accepted() == THREADS + 2 })
        .await;

    // Which of them is that of the decisions, Redis does not say.
    let made_at_once = Cell::new(0);
    for id in connected(&redis).await.difference(&others) {
        let before = gate.accepted();
        let kill = redis::cmd("CLIENT").arg(&["KILL", "ID", &id.to_string()]).to_owned();
        let killed: i64 = kill.query_async(&mut redis.connection().await).await.unwrap();
        if killed == 0 {
            continue;
        }
        let more = eventually("connections to be made anew", || async {
            made_at_once.set(made_at_once.get().max(gate.accepted() - before));
            made_at_once.get() > THREADS + 1
        });
        let _ = timeout(Duration::from_secs(2), more).await;
    }
    assert_eq!(made_at_once.get(), THREADS + 2);
    let behind = World::looking_at(world.settings.clone(), base, stop).await;
    behind.book(&event.id, "k", &event.request("ann", 1)).await.expect(201);
}
