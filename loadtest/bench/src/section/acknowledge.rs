//! `ack=kafka`: a sale is answered only once Kafka has it.

use anyhow::Result;

use crate::installation::Acknowledge;
use crate::place::Place;
use crate::report::{Row, Section};
use crate::table::{Figure, Goal};

use super::stand::{RATE, Stand};
use super::{Outcome, Pace, say};

const REMARK: &str = "Closed loop, one event. The API is restarted between the two ways to acknowledge.";

/// Each of them restarts the API twice.
const ROUNDS_MAX: usize = 3;

pub(super) async fn run(place: &Place, pace: Pace) -> Result<Outcome> {
    let mut stand = Stand::open(place, "acknowledge", pace).await?;
    let event = stand.installation.events(1, 2_000_000).await?;
    let row = |connections: usize| (connections, Row::new(format!("book, {connections} connections"), ""));
    let (mut by_redis, mut by_kafka) = ([64, 256].map(row), [64, 256].map(row));
    for round in 0..pace.rounds.min(ROUNDS_MAX) {
        say(&format!("acknowledge, round {}", round + 1));
        for (acknowledge, rows) in [(Acknowledge::Redis, &mut by_redis), (Acknowledge::Kafka, &mut by_kafka)]
        {
            stand = stand.acknowledging(acknowledge).await?;
            for (connections, row) in rows {
                stand.book(row, &event, *connections).await?;
            }
        }
    }
    stand.close().await?;
    let ratio = |at: usize, goal| {
        let what = format!("ack=kafka / ack=redis, {} connections", by_redis[at].0);
        Figure::ratio(what, by_kafka[at].1.rounds(RATE), by_redis[at].1.rounds(RATE), goal)
    };
    let ratios = vec![ratio(1, Goal::AtLeast(0.5)), ratio(0, Goal::None)];
    let rows = by_redis.into_iter().chain(by_kafka).map(|(_, row)| row).collect();
    Ok(Outcome {
        ratios,
        section: Section { title: "Acknowledged by Kafka", remark: REMARK.to_owned(), rows },
    })
}
