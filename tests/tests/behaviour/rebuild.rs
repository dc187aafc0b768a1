//! Redis rebuilt in the middle of a sale, by the service that runs anyway.

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::http::Event;
use crate::world::{World, eventually};

const CLIENTS: usize = 8;
/// While rebuilds are under way, at most.
const BOOKINGS_EACH_MAX: usize = 5_000;

/// Asks for a rebuild of the event, as the command does, and waits until it is done.
async fn rebuild(world: &World, event: &Event) {
    let row: i64 = sqlx::query_scalar(
        "INSERT INTO repairs (kind, shard, event_id, asked_by, before) \
         VALUES ('rebuild', $1, $2::uuid, 'test', '') RETURNING id",
    )
    .bind(i16::try_from(world.shard_of(event).number()).unwrap())
    .bind(&event.id)
    .fetch_one(&world.pool)
    .await
    .unwrap();
    eventually("the rebuild to end", || async {
        let outcome: Option<String> = sqlx::query_scalar("SELECT outcome FROM repairs WHERE id = $1")
            .bind(row)
            .fetch_one(&world.pool)
            .await
            .unwrap();
        assert_ne!(outcome.as_deref(), Some("refused"));
        outcome.is_some()
    })
    .await;
}

/// Books one after another until the token is cancelled, each with its key until it is acknowledged; returns how often it
/// was refused meanwhile.
async fn buy(
    world: &World,
    event: &Event,
    client: usize,
    enough: &CancellationToken,
) -> (Vec<(String, Vec<u8>)>, usize) {
    let (mut acknowledged, mut refused) = (Vec::new(), 0);
    for n in 0..BOOKINGS_EACH_MAX {
        if enough.is_cancelled() {
            break;
        }
        let key = format!("client-{client}-{n}");
        loop {
            let reply = world.book(&event.id, &key, &event.request(&key, 1)).await;
            if reply.status == 201 {
                acknowledged.push((key, reply.body));
                break;
            }
            reply.refused(503, "inventory_unverified");
            refused += 1;
            // The pace of a client that tries again; the condition is its 201.
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
    (acknowledged, refused)
}

#[tokio::test]
async fn a_rebuild_in_the_middle_of_a_sale_keeps_every_acknowledged_booking_and_sales_go_on() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[100_000])).await;
    let enough = CancellationToken::new();
    let rebuilds = async {
        for _ in 0..2 {
            rebuild(&world, &event).await;
        }
        enough.cancel();
    };
    let clients = (0..CLIENTS).map(|client| buy(&world, &event, client, &enough));
    let (bought, ()) = tokio::join!(join_all(clients), rebuilds);
    assert!(bought.iter().any(|(_, refused)| *refused > 0), "no rebuild came in the middle of the sale");
    for (key, body) in bought.iter().flat_map(|(acknowledged, _)| acknowledged) {
        let replay = world.book(&event.id, key, &event.request(key, 1)).await;
        assert_eq!((replay.status, &replay.body), (201, body), "{key}");
    }
    world.drained(&event).await;
    let sold =
        i64::try_from(bought.iter().map(|(acknowledged, _)| acknowledged.len()).sum::<usize>()).unwrap();
    assert_eq!(world.rows_counted(&event, 0).await, (0, sold));
    assert_eq!(world.rows_of(&event).await, sold);
    assert_eq!(world.counts(&event, 0).await, (0, sold, 100_000 - sold));
}
