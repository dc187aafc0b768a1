//! What most requests of an on-sale are: refused because nothing is left, asked again, or reads.

use anyhow::Result;

use crate::load::Kind;
use crate::place::Place;
use crate::report::{Row, Section};
use crate::table::{Figure, Goal};

use super::stand::{RATE, Stand};
use super::{Outcome, Pace, say};

const REMARK: &str = "Closed loop on 64 connections, one event. A refusal is `409 sold_out` to a key that is new; a \
replay is a 201 marked as such, to one of 20,000 keys that the same API booked before; nothing may be sold meanwhile.";

/// Bookings that are asked for again.
const REPLAYED: u64 = 20_000;

/// Nothing is sold here, so that no round has to wait for PostgreSQL.
const FINER: u32 = 3;

pub(super) async fn run(place: &Place, pace: Pace) -> Result<Outcome> {
    let pace = pace.finer(FINER);
    let mut stand = Stand::open(place, "refuse", pace).await?;
    let open = stand.installation.events(1, 1_000_000).await?;
    let gone = stand.installation.events(1, 1).await?;
    let sold_out = stand.sold_out(&gone[0]).await?;
    let replays = stand.replays(&open, REPLAYED).await?;
    let reads = stand.availability(&open);
    let mut floor = Row::new("handler without a store", "none");
    let mut refused = Row::new("sold out", "");
    let mut replayed = Row::new("replays", "");
    let mut read = Row::new("availability", "");
    for round in 0..pace.rounds {
        say(&format!("refuse, round {} of {}", round + 1, pace.rounds));
        stand.floor(&mut floor, &open, 64).await?;
        stand.ask(&mut refused, sold_out.clone(), 64, Kind::SoldOut).await?;
        stand.ask(&mut replayed, replays.clone(), 64, Kind::Replayed).await?;
        stand.ask(&mut read, reads.clone(), 64, Kind::Read).await?;
    }
    stand.close().await?;
    let ratio = |what: &str, row: &Row, goal| Figure::ratio(what, row.rounds(RATE), floor.rounds(RATE), goal);
    let ratios = vec![
        ratio("sold out / handler without a store", &refused, Goal::AtLeast(0.8)),
        ratio("replays / handler without a store", &replayed, Goal::AtLeast(0.6)),
        ratio("availability / handler without a store", &read, Goal::AtLeast(0.6)),
    ];
    let rows = vec![floor, refused, replayed, read];
    Ok(Outcome {
        ratios,
        section: Section { title: "Refusals, replays, reads", remark: REMARK.to_owned(), rows },
    })
}
