//! How memory, processor time and speed grow with what is held, and over time.

use std::time::Duration;

use anyhow::Result;

use crate::load::Open;
use crate::market::Event;
use crate::place::Place;
use crate::report::{Row, Section};
use crate::table::{Figure, Goal};

use super::stand::{RATE, Stand, as_f64};
use super::{Outcome, Pace, say};

const REMARK: &str = "One installation with 16 events is filled, and measured at each size: what Redis uses beyond what \
it used with the events alone, when the outbox is empty, and then bookings on 64 connections.";

const BYTES: &str = "Redis, bytes a booking";

/// How often bookings are measured at each size.
const ROUNDS_MAX: usize = 3;

pub(super) async fn run(place: &Place, pace: Pace) -> Result<Outcome> {
    let mut stand = Stand::open(place, "growth", pace).await?;
    let events = stand.installation.events(16, pace.bookings / 8).await?;
    stand.installation.drained().await?;
    let empty = stand.installation.redis_memory().await?;
    let mut rows = Vec::new();
    for held in sizes(pace.bookings) {
        say(&format!("growth, to {held} bookings"));
        let missing = held.saturating_sub(stand.installation.sold());
        stand.fill(&events, missing).await?;
        let mut row = Row::new(format!("{held} bookings held"), "");
        measure(&mut stand, &mut row, empty).await?;
        for _ in 0..pace.rounds.min(ROUNDS_MAX) {
            stand.book(&mut row, &events, 64).await?;
        }
        rows.push(row);
    }
    stand.close().await?;
    let last = rows.last().cloned().unwrap_or_else(|| Row::new("", ""));
    let first = rows.first().cloned().unwrap_or_else(|| Row::new("", ""));
    let what = last.what.trim_end_matches(" held").to_owned();
    let ratios = vec![
        Figure::of_rounds(
            format!("Redis memory a booking, {what}"),
            last.rounds(BYTES),
            "bytes",
            Goal::AtMost(300.0),
        ),
        Figure::ratio(
            format!("book with {what} held / with 10,000"),
            last.rounds(RATE),
            first.rounds(RATE),
            Goal::None,
        ),
    ];
    Ok(Outcome {
        ratios,
        section: Section { title: "Growth with bookings held", remark: REMARK.to_owned(), rows },
    })
}

/// Powers of ten from 10,000, and the size that was asked for.
fn sizes(bookings: u64) -> Vec<u64> {
    let smaller = [10_000, 100_000, 1_000_000, 10_000_000].into_iter().filter(|size| *size < bookings);
    smaller.chain([bookings]).collect()
}

#[expect(clippy::cast_precision_loss, reason = "bytes are far below 2^52")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}

async fn measure(stand: &mut Stand, row: &mut Row, empty: u64) -> Result<()> {
    let used = stand.installation.redis_memory().await?;
    let held = as_f64(stand.installation.sold());
    // The rate is the first column of every row, so the name is taken before its values are.
    row.columns.push(crate::report::Column { name: RATE, rounds: Vec::new() });
    row.note(BYTES, as_f64(used.saturating_sub(empty)) / held);
    row.note("API, MB resident", megabytes(stand.installation.api.memory()?));
    row.note("reconciler, MB resident", megabytes(stand.installation.reconciler.memory()?));
    Ok(())
}

const SOAK_REMARK: &str = "Open loop, 2,000 bookings due a second on 64 connections, in slices of ten seconds; each row is \
the median of a third of the slices. Memory is what was resident at the end of a slice.";

const SLICE_SECONDS: u64 = 10;
const SOAK_RATE: u32 = 2_000;

/// What a process may grow by without being said to grow: buffers reach their size in the first minute.
const GROWTH_MAX: f64 = 16.0;

pub(super) async fn soak(place: &Place, pace: Pace) -> Result<Outcome> {
    let mut stand = Stand::open(place, "soak", pace).await?;
    let slices = (pace.soak.as_secs() / SLICE_SECONDS).max(3);
    let bookings = u64::from(SOAK_RATE) * SLICE_SECONDS * (slices + 1);
    let events: Vec<Event> = stand.installation.events(16, bookings).await?;
    let mut rows = ["first third", "second third", "last third"].map(|third| Row::new(third, ""));
    let plan = Open {
        rate: SOAK_RATE,
        requests: u64::from(SOAK_RATE) * SLICE_SECONDS,
        warm_up: u64::from(SOAK_RATE),
        connections: 64,
    };
    for slice in 0..slices {
        say(&format!("soak, slice {} of {slices}", slice + 1));
        let row = &mut rows[usize::try_from(3 * slice / slices)?];
        stand.book_at(row, &events, plan).await?;
        row.note("API, MB resident", megabytes(stand.installation.api.memory()?));
        row.note("reconciler, MB resident", megabytes(stand.installation.reconciler.memory()?));
        let used = stand.installation.redis_memory().await?;
        row.note(BYTES, as_f64(used) / as_f64(stand.installation.sold()));
    }
    stand.close().await?;
    let minutes = Duration::from_secs(slices * SLICE_SECONDS).as_secs_f64() / 60.0;
    let first_and_last = |column: &str| (median(&rows[0], column), median(&rows[2], column));
    let mut ratios = Vec::new();
    let (first, last) = first_and_last("p99 ms");
    ratios.push(Figure::new(
        format!("soak of {minutes:.0} min: p99 of the last third / first third"),
        last / first,
        "",
        Goal::AtMost(1.5),
    ));
    for (who, column) in [("API", "API, MB resident"), ("reconciler", "reconciler, MB resident")] {
        let (first, last) = first_and_last(column);
        let what = format!("soak: growth of the {who}, last third - first third");
        ratios.push(Figure::new(what, last - first, "MB", Goal::AtMost(GROWTH_MAX)));
    }
    Ok(Outcome {
        ratios,
        section: Section { title: "Soak", remark: SOAK_REMARK.to_owned(), rows: rows.into() },
    })
}

fn median(row: &Row, column: &str) -> f64 {
    crate::table::spread(row.rounds(column)).1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_ten_up_to_what_was_asked_for() {
        assert_eq!(sizes(1_000_000), [10_000, 100_000, 1_000_000]);
        assert_eq!(sizes(50_000), [10_000, 50_000]);
        assert_eq!(sizes(5_000), [5_000]);
    }
}
