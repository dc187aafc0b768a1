//! Bookings with everything running, and what they are held against.

use std::time::Duration;

use anyhow::Result;

use crate::floors::{Drive, SetCommand, hot_row, redis_benchmark};
use crate::place::Place;
use crate::report::{Row, Section};
use crate::table::{Figure, Goal};

use super::stand::{RATE, Stand, redis_address};
use super::{Outcome, Pace, say};

const REMARK: &str = "Closed loop: each connection books one ticket after the other, each with a key and a customer of \
its own. API, relay, Kafka, reconciler and PostgreSQL run all the time, on the same processors. The handler without a \
store parses, checks and answers the same requests. The script is `schema/lua/book.lua` with the arguments that the API \
would send for one booking, prepared before the clock starts, each answer of which must be a booking. `SET` of 100 bytes \
shows that our driver measures what `redis-benchmark` does, which cannot express the script's binary arguments. The hot \
row is `UPDATE ... WHERE available >= 1` and an `INSERT` in one transaction. Processor time is user and system of all \
threads, until PostgreSQL had every booking.";

const VALUE: &str =
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789";

/// Rounds in which the wider matrix is measured too.
const MATRIX_ROUNDS: usize = 3;

pub(super) async fn run(place: &Place, pace: Pace) -> Result<Outcome> {
    let mut stand = Stand::open(place, "book", pace).await?;
    let one = stand.installation.events(1, 2_000_000).await?;
    let sixteen = stand.installation.events(16, 200_000).await?;
    let thousand = stand.installation.events(1_000, 10_000).await?;
    let redis = redis_address(place)?;
    let durability = stand.installation.durability.clone();
    let aof = durability.split(", ack").next().unwrap_or_default().to_owned();
    let mut floor = Row::new("handler without a store, 64 connections", "none");
    let mut script = Row::new("script, 64 connections", &aof);
    let mut pipelined = Row::new("script, 64 connections, 16 calls under way on each", &aof);
    let mut set = Row::new("`SET` by our driver, 64 connections", &aof);
    let mut set_by_tool = Row::new("`SET` by `redis-benchmark`, 64 connections", &aof);
    let mut hot = Row::new("PostgreSQL's hot row, 16 clients", "fsync on, synchronous_commit on");
    let mut by_connections: Vec<(usize, Row)> = [64, 1, 8, 256, 1_024]
        .map(|connections| (connections, Row::new(format!("book, {connections} connections, 1 event"), "")))
        .into();
    let mut of_sixteen = Row::new("book, 64 connections, 16 events", "");
    let mut of_thousand = Row::new("book, 64 connections, 1,000 events", "");
    for round in 0..pace.rounds {
        say(&format!("book, round {} of {}", round + 1, pace.rounds));
        stand.floor(&mut floor, &one, 64).await?;
        stand.script(&mut script, 64, 1).await?;
        stand.book(&mut by_connections[0].1, &one, 64).await?;
        stand.book(&mut of_thousand, &thousand, 64).await?;
        stand.script(&mut pipelined, 64, 16).await?;
        hot.note(RATE, hot_row::sell(&place.database_url, pace.time).await?.rate());
        if round >= MATRIX_ROUNDS {
            continue;
        }
        stand.book(&mut of_sixteen, &sixteen, 64).await?;
        for (connections, row) in &mut by_connections[1..] {
            stand.book(row, &one, *connections).await?;
        }
        compare_drivers(redis, &mut set, &mut set_by_tool, pace.time / 2).await?;
    }
    stand.close().await?;
    let booked = &by_connections[0].1;
    let ratio = |what: &str, row: &Row, under: &Row, goal| {
        Figure::ratio(what, row.rounds(RATE), under.rounds(RATE), goal)
    };
    let ratios = vec![
        ratio("book / script, 64 connections", booked, &script, Goal::AtLeast(0.8)),
        ratio("book / handler without a store", booked, &floor, Goal::AtLeast(0.25)),
        ratio("book, 1,000 events / 1 event", &of_thousand, booked, Goal::AtLeast(0.8)),
        ratio("book / PostgreSQL's hot row", booked, &hot, Goal::AtLeast(15.0)),
        ratio("script: our driver / `redis-benchmark`, by `SET`", &set, &set_by_tool, Goal::None),
    ];
    let mut rows = vec![floor, script, pipelined, set, set_by_tool, hot];
    by_connections.sort_by_key(|(connections, _)| *connections);
    rows.extend(by_connections.into_iter().map(|(_, row)| row));
    rows.extend([of_sixteen, of_thousand]);
    Ok(Outcome { ratios, section: Section { title: "Bookings", remark: REMARK.to_owned(), rows } })
}

/// The same command by our driver and by `redis-benchmark`.
pub(super) async fn compare_drivers(
    redis: std::net::SocketAddr,
    ours: &mut Row,
    tool: &mut Row,
    time: Duration,
) -> Result<()> {
    let set = SetCommand { key: "bench-set", value: VALUE, times: 50_000 };
    ours.note(RATE, set.drive(redis, Drive { connections: 64, pipeline: 1, time }).await?.rate());
    if let Some(rate) = redis_benchmark::set(redis, 64, &set).await? {
        tool.note(RATE, rate);
    }
    Ok(())
}
