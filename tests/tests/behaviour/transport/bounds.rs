//! Much, many and slow: what a connection may cost.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::{Raw, booking, booking_head, metric};
use crate::http::{Event, Reply};
use crate::world::{World, eventually};

/// The shortest patience that can be set, so that the tests need not have more.
const IMPATIENT: [&str; 2] = ["--client-seconds", "3"];
const PATIENCE: Duration = Duration::from_secs(3);

const LIVEZ: &str = "GET /livez HTTP/1.1\r\nHost: boxoffice\r\n\r\n";

async fn still_sells(world: &World, event: &Event) {
    world.book(&event.id, "after", &event.request("ann", 1)).await.expect(201);
}

#[tokio::test]
async fn a_head_beyond_128_kib_or_96_fields_is_refused() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let long_field = booking_head(&event.id, "k") + "X-Bomb: ";
    let long_path = format!("GET /v1/events/{} HTTP/1.1\r\nHost: b\r\n\r\n", "a".repeat(140_000));
    let many = booking_head(&event.id, "k") + &"X-Bomb: boom\r\n".repeat(97) + "\r\n";
    for (what, bomb) in [("fields", many), ("a path", long_path)] {
        let mut client = Raw::to(&world).await;
        client.flood(bomb.as_bytes(), 1).await;
        if let Some(answer) = client.answer().await {
            assert!(matches!(answer.status, 400 | 431), "{what}: {answer:?}");
        }
    }
    let mut client = Raw::to(&world).await;
    client.send(long_field).await;
    let sent = client.flood(&[b'x'; 4_096], 100 << 20).await;
    assert!(sent < 16 << 20, "{sent} bytes of one field were taken");
    let enough =
        booking_head(&event.id, "k") + &"X-Fine: fine\r\n".repeat(80) + "Content-Length: 2\r\n\r\n{}";
    let mut client = Raw::to(&world).await;
    client.send(enough).await;
    assert_eq!(client.answer().await.unwrap().status, 422);
    still_sells(&world, &event).await;
}

#[tokio::test]
async fn a_chunked_body_of_100_mb_is_refused_early_and_not_read_to_its_end() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let mut client = Raw::to(&world).await;
    client.send(booking_head(&event.id, "k") + "Transfer-Encoding: chunked\r\n\r\n").await;
    let chunk = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
    client.send(&chunk).await;
    client.send(&chunk).await;
    assert_eq!(client.answer().await.unwrap().status, 413);
    let sent = client.flood(&chunk, 100 << 20).await;
    assert!(sent < 32 << 20, "{sent} bytes of a body that was refused were taken");
    still_sells(&world, &event).await;
}

#[tokio::test]
async fn a_first_head_that_does_not_come_is_answered_408_after_five_seconds() {
    let world = World::start().await;
    let started = Instant::now();
    let mut client = Raw::to(&world).await;
    client.send("GET /livez HTTP/1.1\r\nHo").await;
    assert_eq!(client.answer().await.unwrap().status, 408);
    assert!(started.elapsed() >= Duration::from_secs(4), "{:?}", started.elapsed());
    client.ended().await;
}

/// Behind an answer that ends its connection, actix polls no handler of it any more, and leaves one that was asked in the same
/// breath until the connection is closed.
#[tokio::test]
async fn a_connection_that_only_lingers_keeps_nobody_else_from_an_answer() {
    let world = World::start_with(&["--workers", "1"]).await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let path = format!("/v1/events/{}", event.id);
    let pipeline = format!(
        "GET {path} HTTP/1.1\r\nHost: b\r\nIf-None-Match: *\r\n\r\n\
         GET {path}/availability HTTP/1.1\r\nHost: b\r\nContent-Length: 1\r\n\r\n"
    );
    let (mut lingering, mut took) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let mut client = Raw::to(&world).await;
        client.send(&pipeline).await;
        lingering.push(client);
        let asked = Instant::now();
        world.availability(&event.id).await;
        took.push(asked.elapsed());
    }
    // A busy machine may be late now and then.
    took.sort_unstable();
    assert!(took[took.len() / 2] < Duration::from_millis(200), "{took:?}");
    still_sells(&world, &event).await;
}

/// A handler may be asked for the first time before its body is there, and when half of it is, and behind another one.
#[tokio::test]
async fn two_bookings_in_one_breath_are_made_at_once_wherever_their_bytes_are_parted() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[100])).await;
    let body = event.request("ann", 1).to_string();
    let two = booking(&event.id, "a-0", &body).len();
    let (one, half) = (two - body.len(), body.len() / 2);
    for (at, cut) in
        [one - 1, one, one + half, two, two + one - 1, two + one, two + one + half].into_iter().enumerate()
    {
        let both = ["a", "b"].map(|key| booking(&event.id, &format!("{key}-{at}"), &body)).concat();
        let (first, rest) = both.split_at(cut);
        let mut client = Raw::to(&world).await;
        client.send(first).await;
        // Long enough to be read by itself, and shorter than anything that the server waits for.
        tokio::time::sleep(Duration::from_millis(50)).await;
        client.send(rest).await;
        let sent = Instant::now();
        for key in ["a", "b"] {
            let answer = client.answer().await.unwrap();
            assert_eq!(answer.status, 201, "{key}, cut at {cut} of {}: {answer:?}", both.len());
        }
        assert!(sent.elapsed() < Duration::from_secs(2), "cut at {cut}: {:?}", sent.elapsed());
    }
    let mut polite = Raw::to(&world).await;
    polite
        .send(
            booking_head(&event.id, "polite") + "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n",
        )
        .await;
    assert_eq!(polite.answer().await.unwrap().status, 100);
    polite.send(format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())).await;
    assert_eq!(polite.answer().await.unwrap().status, 201);
}

#[tokio::test]
async fn a_later_head_or_a_body_that_comes_byte_by_byte_is_cut() {
    let world = World::start_with(&IMPATIENT).await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let head = async {
        let mut client = Raw::to(&world).await;
        client.send(LIVEZ).await;
        assert_eq!(client.answer().await.unwrap().status, 200);
        trickled(client, "GET /livez HTTP/1.1\r\nX-Slow: ").await
    };
    let body = async {
        let client = Raw::to(&world).await;
        trickled(client, &(booking_head(&event.id, "k") + "Content-Length: 1000\r\n\r\n")).await
    };
    let chunked = async {
        let client = Raw::to(&world).await;
        trickled(client, &(booking_head(&event.id, "k") + "Transfer-Encoding: chunked\r\n\r\n3e8\r\n")).await
    };
    // Half a request behind a whole one: what is left over must not be forgotten.
    let pipelined = async {
        let client = Raw::to(&world).await;
        trickled(client, &(LIVEZ.to_owned() + "GET /livez HTTP/1.1\r\nX-Slow: ")).await
    };
    let (head, body, chunked, pipelined) = tokio::join!(head, body, chunked, pipelined);
    for (what, lasted) in [("head", head), ("body", body), ("chunks", chunked), ("pipeline", pipelined)] {
        assert!(lasted < PATIENCE + Duration::from_secs(5), "{what} lasted {lasted:?}");
    }
    still_sells(&world, &event).await;
}

/// Sends a beginning, then byte by byte without end; how long the server went along.
async fn trickled(mut client: Raw, beginning: &str) -> Duration {
    let started = Instant::now();
    client.send(beginning).await;
    while client.flood(b"x", 1).await > 0 {
        // Time itself is what is tested here: the client is slow.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    started.elapsed()
}

#[tokio::test]
async fn a_body_that_stops_is_answered_400_after_ten_seconds() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let mut client = Raw::to(&world).await;
    client.send(booking_head(&event.id, "k") + "Content-Length: 1000\r\n\r\n{\"customer\":").await;
    let answer = client.answer().await.unwrap();
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(String::from_utf8(answer.body).unwrap().contains("did not arrive in time"));
    client.ended().await;
}

#[tokio::test]
async fn a_body_that_stops_behind_another_request_is_answered_400_within_the_connections_time() {
    let world = World::start_with(&["--client-seconds", "11"]).await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let first = booking(&event.id, "k", &event.request("ann", 1).to_string());
    let stopped = booking_head(&event.id, "stopped") + "Content-Length: 1000\r\n\r\n{\"customer\":";
    let mut client = Raw::to(&world).await;
    let started = Instant::now();
    client.send(first + &stopped).await;
    assert_eq!(client.answer().await.unwrap().status, 201);
    let answer = client.answer().await.unwrap();
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(String::from_utf8(answer.body).unwrap().contains("did not arrive in time"));
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    client.ended().await;
}

#[tokio::test]
async fn a_client_that_takes_no_answers_is_cut() {
    let world = World::start_with(&IMPATIENT).await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let one = world.get("/openapi.json").await.body.len();
    let mut client = Raw::to(&world).await;
    let ask = "GET /openapi.json HTTP/1.1\r\nHost: boxoffice\r\n\r\n".repeat(16);
    // Answers that nobody reads fill the sockets, then the server stops reading too.
    let asked = client.flood(ask.as_bytes(), 256 * ask.len()).await / (ask.len() / 16);
    eventually("the reader to be cut", || async {
        metric(&world, "boxoffice_connections_cut_total{reason=\"slow_reader\"}").await.unwrap_or(0.0) > 0.0
    })
    .await;
    let got = client.rest().await;
    assert!(got < asked * one, "all {asked} answers of {one} bytes came");
    still_sells(&world, &event).await;
}

/// All eight connections that there may be.
async fn all_taken(world: &mut World) -> Vec<Raw> {
    // A client that keeps no connection of its own.
    world.http = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
    let mut held = Vec::new();
    for _ in 0..8 {
        let mut client = Raw::to(world).await;
        client.send(LIVEZ).await;
        assert_eq!(client.answer().await.unwrap().status, 200);
        held.push(client);
    }
    held
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_until_there_is_room() {
    let mut world = World::start_with(&["--connections", "8"]).await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let url = world.url("/livez");
    let mut held = all_taken(&mut world).await;
    let fresh = || reqwest::Client::builder().timeout(Duration::from_secs(1)).build().unwrap();
    let kept_out = fresh().get(&url).send().await;
    assert!(kept_out.unwrap_err().is_timeout(), "the ninth was served");
    held.clear();
    eventually("the next to be served", || async { fresh().get(&url).send().await.is_ok() }).await;
    still_sells(&world, &event).await;
}

/// When a sale opens, thousands come in one moment. With a short queue the kernel drops most of them, who try again after seconds,
/// and lets some believe that they are connected, whose connections break when they ask.
#[tokio::test]
async fn a_crowd_that_comes_while_there_is_no_room_waits_its_turn_and_nobody_is_turned_away() {
    const CROWD: usize = 400;
    let mut world = World::start_with(&["--connections", "8"]).await;
    let mut held = all_taken(&mut world).await;
    let crowd = (0..CROWD).map(|_| async {
        let mut client = Raw::to(&world).await;
        client.send(LIVEZ).await;
        client
    });
    let soon = Duration::from_secs(10);
    let crowd = tokio::time::timeout(soon, join_all(crowd)).await.expect("somebody cannot connect");
    held.clear();
    let served =
        crowd.into_iter().map(|mut client| async move { client.answer().await.map(|answer| answer.status) });
    let served = tokio::time::timeout(soon, join_all(served)).await;
    assert_eq!(served.expect("somebody still waits"), [Some(200); CROWD]);
}

#[tokio::test]
async fn a_thousand_keys_of_255_bytes_are_refused_or_kept_and_cost_nothing_more() {
    let world = World::start().await;
    let event = world.on_sale(&World::draft(&[10])).await;
    let (world, event) = (&world, &event);
    let book = |n: usize| async move {
        world.book(&event.id, &format!("{n:0>255}"), &event.request("ann", 1)).await
    };
    for block in 0..10 {
        let booked = join_all((0..100).map(|n| book(block * 100 + n))).await;
        assert!(booked.iter().all(|reply| matches!(reply.status, 201 | 409)));
    }
    assert_eq!(world.counts(event, 0).await, (0, 10, 0));
    // Refusals are not kept: only ten keys are there, and they are found again.
    let mut replayed = 0;
    for block in 0..10 {
        let again = join_all((0..100).map(|n| book(block * 100 + n))).await;
        replayed += again.iter().filter(|reply| is_replay(reply)).count();
    }
    assert_eq!(replayed, 10);
    let mut names = redis::cmd("KEYS");
    names.arg(format!("{}:*", world.settings.name));
    let mut kept = 0_i64;
    for name in world.redis::<Vec<String>>(&names).await {
        let mut usage = redis::cmd("MEMORY");
        kept += world.redis::<Option<i64>>(usage.arg("USAGE").arg(name)).await.unwrap_or(0);
    }
    // The refused keys alone have nearly four times as many bytes.
    assert!(kept < 1 << 16, "{kept} bytes are kept for ten bookings");
}

fn is_replay(reply: &Reply) -> bool {
    reply.header("idempotent-replayed") == Some("true")
}
