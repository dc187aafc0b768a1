//! Latency at a given rate, and the minute of an on-sale.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::load::{Kind, Open, Tally, open};
use crate::place::Place;
use crate::report::{Row, Section};
use crate::table::{Figure, Goal};

use super::stand::{RATE, Stand, as_f64};
use super::{Outcome, Pace, say};

const LATENCY_REMARK: &str = "Open loop: bookings are due at fixed times, whatever became of the earlier ones, and a \
latency counts from when its request was due. A closed loop would ask less while the server is slow and so leave out \
the requests that would have waited (coordinated omission). Of oha and our own generator we take our own: it verifies \
every sale. 256 connections, one event. Where the server does not keep up, the loop is given up five seconds after the \
last request was due; what had not been asked for by then counts with the time it had waited.";

/// Bookings a second, and for how many seconds.
const RATES: [(u32, u64); 3] = [(500, 10), (5_000, 8), (20_000, 6)];

/// Rounds are long here, and latencies of many requests need fewer of them.
const ROUNDS_MAX: usize = 3;

pub(super) async fn latency(place: &Place, pace: Pace) -> Result<Outcome> {
    let mut stand = Stand::open(place, "latency", pace).await?;
    let event = stand.installation.events(1, 2_000_000).await?;
    let mut rows = RATES.map(|(rate, _)| Row::new(format!("book, {rate} due a second"), ""));
    for round in 0..pace.rounds.min(ROUNDS_MAX) {
        say(&format!("latency, round {}", round + 1));
        for (row, (rate, seconds)) in rows.iter_mut().zip(RATES) {
            let requests = u64::from(rate) * (seconds + 1);
            let plan = Open { rate, requests, warm_up: u64::from(rate), connections: 256 };
            stand.book_at(row, &event, plan).await?;
        }
    }
    stand.close().await?;
    let figure = |what: &str, at: usize, column: &str, goal| {
        Figure::of_rounds(what, rows[at].rounds(column), "ms", Goal::AtMost(goal))
    };
    let ratios = vec![
        figure("open loop, 500 a second: p99", 0, "p99 ms", 5.0),
        figure("open loop, 500 a second: p99.9", 0, "p99.9 ms", 15.0),
        figure("open loop, 20,000 a second: p99", 2, "p99 ms", 15.0),
    ];
    let section = Section { title: "Latency", remark: LATENCY_REMARK.to_owned(), rows: rows.into() };
    Ok(Outcome { ratios, section })
}

impl Stand {
    /// Bookings at a steady rate; then the audit.
    pub(super) async fn book_at(
        &mut self,
        row: &mut Row,
        events: &[crate::market::Event],
        plan: Open,
    ) -> Result<()> {
        let asks = self.booking(events);
        let tally = open(self.installation.address(), asks, plan).await?;
        self.installation.verify(&tally).await?;
        row.durability.clone_from(&self.installation.durability);
        row.note(RATE, tally.rate(Kind::Sold));
        let quantiles = tally.quantiles_of_all(&[0.5, 0.99, 0.999, 1.0])?;
        for (name, value) in ["p50 ms", "p99 ms", "p99.9 ms", "max ms"].into_iter().zip(quantiles) {
            row.note(name, value);
        }
        row.note("given up", as_f64(tally.count(Kind::GivenUp)));
        row.note("refused", as_f64(tally.others(Kind::Sold) - tally.count(Kind::GivenUp)));
        Ok(())
    }
}

const ON_SALE_REMARK: &str = "100,000 clients, each with a key and a name of its own, want one of 5,000 tickets within \
five seconds: 20,000 requests are due each second, evenly, on 1,024 connections. Latencies count from when a request was \
due. Exactly 5,000 must be sold, and everybody else be told that nothing is left.";

const CLIENTS: u64 = 100_000;
const TICKETS: u64 = 5_000;
const ON_SALE: Open = Open { rate: 20_000, requests: CLIENTS, warm_up: 0, connections: 1_024 };

pub(super) async fn on_sale(place: &Place, pace: Pace) -> Result<Outcome> {
    let mut stand = Stand::open(place, "on_sale", pace).await?;
    let mut row = Row::new("100,000 clients, 5,000 tickets", "");
    for round in 0..pace.rounds.min(ROUNDS_MAX) {
        say(&format!("on_sale, round {}", round + 1));
        let event = stand.installation.events(1, TICKETS).await?;
        let asks = stand.booking(&event);
        let tally = open(stand.installation.address(), Arc::clone(&asks) as _, ON_SALE).await?;
        stand.installation.verify(&tally).await?;
        let (sold, sold_out) = (tally.sold.len() as u64, tally.count(Kind::SoldOut));
        ensure!(
            sold == TICKETS && sold_out == CLIENTS - TICKETS,
            "{sold} of {TICKETS} tickets were sold, and {sold_out} of {CLIENTS} clients told that nothing is left"
        );
        row.durability.clone_from(&stand.installation.durability);
        note(&mut row, &tally)?;
    }
    stand.close().await?;
    let last =
        Figure::of_rounds("on-sale minute: until the last ticket is sold", row.rounds(LAST), "s", Goal::None);
    let winners =
        Figure::of_rounds("on-sale minute: p99 of the winners", row.rounds(WINNERS), "ms", Goal::None);
    let section = Section { title: "The on-sale minute", remark: ON_SALE_REMARK.to_owned(), rows: vec![row] };
    Ok(Outcome { ratios: vec![last, winners], section })
}

const LAST: &str = "last ticket sold after, s";
const WINNERS: &str = "winners p99 ms";

fn note(row: &mut Row, tally: &Tally) -> Result<()> {
    let start: Instant = tally.started.context("an open loop has a start")?;
    let last = tally.last_sale.context("nothing was sold")?;
    row.note(LAST, last.duration_since(start).as_secs_f64());
    row.note("winners p50 ms", tally.quantile(Kind::Sold, 0.5));
    row.note(WINNERS, tally.quantile(Kind::Sold, 0.99));
    row.note("sold out p50 ms", tally.quantile(Kind::SoldOut, 0.5));
    row.note("sold out p99 ms", tally.quantile(Kind::SoldOut, 0.99));
    row.note("all answered after, s", tally.took.as_secs_f64());
    Ok(())
}
