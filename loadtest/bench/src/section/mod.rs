//! The sections of `scripts/bench`: each brings its own installation, measures in rounds, one thing after the other in
//! each round, and verifies every run.

mod acknowledge;
mod book;
mod growth;
mod limits;
mod open_loop;
mod quick;
mod refuse;
mod stand;

use std::time::Duration;

use anyhow::Result;

use crate::place::Place;
use crate::report::{Report, Section};
use crate::table::Figure;

/// The sections by name, in the order of the default run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Name {
    /// Bookings by connections and events, with the floors beside them.
    Book,
    /// Sold out, replays, availability.
    Refuse,
    /// Checks of rate limits beside their script, and refusals beside bookings.
    Limits,
    /// `ack=kafka` beside `ack=redis`.
    Acknowledge,
    /// Latencies at given rates, from when requests were due.
    Latency,
    /// 100,000 clients for 5,000 tickets.
    OnSale,
    /// Memory, processor time and speed by what is held.
    Growth,
    /// Whether anything grows, or slows down, over time.
    Soak,
    /// The ratios that are stable enough to be guarded.
    Quick,
}

impl Name {
    /// All but the short one.
    pub(crate) const ALL: &[Self] = &[
        Self::Book,
        Self::Refuse,
        Self::Limits,
        Self::Acknowledge,
        Self::Latency,
        Self::OnSale,
        Self::Growth,
        Self::Soak,
    ];
}

/// How long and how often each thing is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) rounds: usize,
    pub(crate) time: Duration,
    pub(crate) warm_up: Duration,
    /// How far an installation is filled.
    pub(crate) bookings: u64,
    /// How long the soak takes.
    pub(crate) soak: Duration,
}

impl Pace {
    /// The same time in so many times as many rounds. What is compared is then measured closer together, on machines whose speed
    /// changes from second to second.
    fn finer(self, times: u32) -> Self {
        Self { rounds: self.rounds * times as usize, time: self.time / times, ..self }
    }
}

/// What a section came to.
pub(crate) struct Outcome {
    pub(crate) ratios: Vec<Figure>,
    pub(crate) section: Section,
}

/// Measures the sections one after the other. One that cannot be verified is void; the others count.
pub(crate) async fn run(place: &Place, names: &[Name], pace: Pace) -> Report {
    let mut report = Report::new(place.shards);
    for name in names {
        match one(place, *name, pace).await {
            Ok(outcome) => {
                report.ratios.extend(outcome.ratios);
                report.sections.push(outcome.section);
            }
            Err(error) => report.void.push(format!("{name:?}: {error:#}")),
        }
    }
    report
}

async fn one(place: &Place, name: Name, pace: Pace) -> Result<Outcome> {
    match name {
        Name::Book => book::run(place, pace).await,
        Name::Refuse => refuse::run(place, pace).await,
        Name::Limits => limits::run(place, pace).await,
        Name::Acknowledge => acknowledge::run(place, pace).await,
        Name::Latency => open_loop::latency(place, pace).await,
        Name::OnSale => open_loop::on_sale(place, pace).await,
        Name::Growth => growth::run(place, pace).await,
        Name::Soak => growth::soak(place, pace).await,
        Name::Quick => quick::run(place, pace).await,
    }
}

/// Tells whoever waits; the figures themselves go to the standard output.
pub(crate) fn say(what: &str) {
    eprintln!("bench: {what}");
}
