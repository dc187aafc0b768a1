//! The ratios that are stable enough to be guarded, in short rounds on one installation. `scripts/test` runs this.

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::floors::CheckScript;
use crate::load::Kind;
use crate::place::Place;
use crate::report::{Row, Section};
use crate::table::{Figure, Goal};

use super::limits::{OF_CHECKS, SUBJECTS, check};
use super::stand::{RATE, Stand};
use super::{Outcome, Pace, say};

const REMARK: &str = "Closed loop on 64 connections, short rounds, the best of each. The goal is 60 % of what was measured when \
`loadtest/bench/guarded.json` was last written.";

/// Bookings of each round that are asked for again later in it: an API remembers what it booked last.
const REPLAYED: u64 = 5_000;

/// What was measured, by ratio.
const GUARDED: &str = include_str!("../../guarded.json");

/// How much of that must be left.
const GENEROUS: f64 = 0.6;

#[derive(Deserialize)]
struct Guarded {
    book_to_script: f64,
    book_to_floor: f64,
    thousand_events_to_one: f64,
    sold_out_to_floor: f64,
    replays_to_floor: f64,
    availability_to_floor: f64,
    check_to_script: f64,
}

pub(super) async fn run(place: &Place, pace: Pace) -> Result<Outcome> {
    // A policy that says nothing of bookings.
    let mut stand = Stand::limited(place, "quick", pace, OF_CHECKS).await?;
    let one = stand.installation.events(1, 1_000_000).await?;
    let thousand = stand.installation.events(1_000, 10_000).await?;
    let gone = stand.installation.events(1, 1).await?;
    let sold_out = stand.sold_out(&gone[0]).await?;
    let reads = stand.availability(&one);
    let mut floor = Row::new("handler without a store", "none");
    let mut script = Row::new("script", "as below, without an API");
    let mut booked = Row::new("book, 1 event", "");
    let mut of_thousand = Row::new("book, 1,000 events", "");
    let mut refused = Row::new("sold out", "");
    let mut replayed = Row::new("replays", "");
    let mut read = Row::new("availability", "");
    let checks = CheckScript::new(SUBJECTS)?;
    let mut check_script = Row::new("script of a check", "as below, without an API");
    let mut checked = Row::new("check of a rate limit", "");
    for round in 0..pace.rounds {
        say(&format!("quick, round {} of {}", round + 1, pace.rounds));
        let replays = stand.replays(&one, REPLAYED).await?;
        stand.script(&mut script, 64, 1).await?;
        stand.book(&mut booked, &one, 64).await?;
        stand.floor(&mut floor, &one, 64).await?;
        stand.book(&mut of_thousand, &thousand, 64).await?;
        stand.ask(&mut refused, sold_out.clone(), 64, Kind::SoldOut).await?;
        stand.ask(&mut replayed, replays, 64, Kind::Replayed).await?;
        stand.ask(&mut read, reads.clone(), 64, Kind::Read).await?;
        stand.check_script(&mut check_script, &checks).await?;
        stand.ask(&mut checked, check(), 64, Kind::Read).await?;
    }
    stand.close().await?;
    let guarded: Guarded = serde_json::from_str(GUARDED).context("guarded.json")?;
    let ratio = |what: &str, row: &Row, under: &Row, measured: f64| {
        Figure::best_ratio(what, row.rounds(RATE), under.rounds(RATE), Goal::AtLeast(GENEROUS * measured))
    };
    let ratios = vec![
        ratio("book / script", &booked, &script, guarded.book_to_script),
        ratio("book / handler without a store", &booked, &floor, guarded.book_to_floor),
        ratio("book, 1,000 events / 1 event", &of_thousand, &booked, guarded.thousand_events_to_one),
        ratio("sold out / handler without a store", &refused, &floor, guarded.sold_out_to_floor),
        ratio("replays / handler without a store", &replayed, &floor, guarded.replays_to_floor),
        ratio("availability / handler without a store", &read, &floor, guarded.availability_to_floor),
        ratio("check / its script", &checked, &check_script, guarded.check_to_script),
    ];
    let rows = vec![floor, script, booked, of_thousand, refused, replayed, read, check_script, checked];
    Ok(Outcome { ratios, section: Section { title: "Quick", remark: REMARK.to_owned(), rows } })
}
