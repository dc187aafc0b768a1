//! Where a section measures: an installation, the handler without a store beside it, and one way to measure each.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::boxoffice::Process;
use crate::floors::{CheckScript, Drive, Script};
use crate::installation::{Acknowledge, Installation};
use crate::load::{Ask, Availability, Booking, Closed, Kind, closed};
use crate::market::Event;
use crate::place::Place;
use crate::processor::per_booking;
use crate::report::Row;

use super::Pace;

/// The first column of every row.
pub(super) const RATE: &str = "a second";

/// Columns of the processor time of each booking or request.
pub(super) const API: &str = "API, µs each";
pub(super) const REDIS: &str = "Redis, µs";

/// Script calls that are prepared for each second: more than Redis gets through.
const CALLS_A_SECOND: u32 = 60_000;

/// Keys of one run: more than are booked in it.
const KEYS: u64 = 900_000_000;

/// How long it may take to fill an installation.
const FILLED_WITHIN: Duration = Duration::from_secs(600);

pub(super) struct Stand {
    pub(super) installation: Installation,
    floor: Process,
    pace: Pace,
    runs: u64,
}

impl Stand {
    pub(super) async fn open(place: &Place, name: &str, pace: Pace) -> Result<Self> {
        Self::under(place, name, pace, None).await
    }

    /// Under rate limits.
    pub(super) async fn limited(place: &Place, name: &str, pace: Pace, policies: &str) -> Result<Self> {
        Self::under(place, name, pace, Some(policies)).await
    }

    async fn under(place: &Place, name: &str, pace: Pace, policies: Option<&str>) -> Result<Self> {
        let installation = Installation::open(place, name, policies).await?;
        let floor = installation.floor().await?;
        Ok(Self { installation, floor, pace, runs: 0 })
    }

    pub(super) async fn close(self) -> Result<()> {
        self.floor.kill().await?;
        self.installation.close().await
    }

    /// Restarts the API where it acknowledges in another way.
    pub(super) async fn acknowledging(self, acknowledge: Acknowledge) -> Result<Self> {
        Ok(Self { installation: self.installation.acknowledging(acknowledge).await?, ..self })
    }

    fn closed(&self, connections: usize) -> Closed {
        Closed { connections, warm_up: self.pace.warm_up, time: self.pace.time, requests: u64::MAX }
    }

    /// Keys that no run had before.
    pub(super) fn booking(&mut self, events: &[Event]) -> Arc<Booking> {
        self.runs += 1;
        let tag = format!("run-{:04}", self.runs);
        Arc::new(Booking { events: events.to_vec(), tag, keys: KEYS, customers: KEYS })
    }

    /// Bookings as fast as they are answered; then the audit.
    pub(super) async fn book(&mut self, row: &mut Row, events: &[Event], connections: usize) -> Result<()> {
        let crew = self.installation.crew()?;
        let before = crew.spent()?;
        let asks = self.booking(events);
        let tally = closed(self.installation.address(), asks, self.closed(connections)).await?;
        let behind = self.installation.drained().await?;
        let after = crew.spent()?;
        self.installation.verify(&tally).await?;
        row.durability.clone_from(&self.installation.durability);
        note(row, &tally, Kind::Sold);
        row.note("refused", as_f64(tally.others(Kind::Sold)));
        row.note("until all is in PostgreSQL, s", behind.as_secs_f64());
        for (name, micros) in per_booking(&before, &after, as_f64(tally.sold.len() as u64)) {
            row.note(column_of(name), micros);
        }
        Ok(())
    }

    /// So many bookings, as fast as they are answered.
    pub(super) async fn fill(&mut self, events: &[Event], bookings: u64) -> Result<()> {
        let asks = self.booking(events);
        let plan =
            Closed { connections: 64, warm_up: Duration::ZERO, time: FILLED_WITHIN, requests: bookings };
        let tally = closed(self.installation.address(), asks, plan).await?;
        ensure!(
            tally.count(Kind::Sold) == bookings,
            "only {} of {bookings} were sold",
            tally.count(Kind::Sold)
        );
        self.installation.verify(&tally).await
    }

    /// The handler without a store, under the same requests.
    pub(super) async fn floor(&mut self, row: &mut Row, events: &[Event], connections: usize) -> Result<()> {
        let asks = self.booking(events);
        let at = self.installation.place().floor();
        let tally = closed(at, asks, self.closed(connections)).await?;
        ensure!(tally.others(Kind::Sold) == 0, "the handler without a store refused");
        note(row, &tally, Kind::Sold);
        Ok(())
    }

    /// The script alone, on the same Redis.
    pub(super) async fn script(&mut self, row: &mut Row, connections: usize, pipeline: usize) -> Result<()> {
        let time = self.pace.time;
        let redis = redis_address(self.installation.place())?;
        let script = Script::open(&self.installation.redis, redis).await?;
        let driven = script.sell(self.calls()?, Drive { connections, pipeline, time }).await?;
        row.note(RATE, driven.rate());
        Ok(())
    }

    /// Script calls that are prepared for the time of a run.
    fn calls(&self) -> Result<u32> {
        let milliseconds = u64::try_from(self.pace.time.as_millis())?;
        Ok(u32::try_from(u64::from(CALLS_A_SECOND) * milliseconds / 1_000)?)
    }

    /// The script of the rate limiter alone, on the same Redis.
    pub(super) async fn check_script(&mut self, row: &mut Row, script: &CheckScript) -> Result<()> {
        let redis = redis_address(self.installation.place())?;
        script.load(&mut self.installation.redis).await?;
        let plan = Drive { connections: 64, pipeline: 1, time: self.pace.time };
        row.note(RATE, script.drive(redis, self.calls()?, plan).await?.rate());
        Ok(())
    }

    /// Something that sells nothing: every answer must be of one kind, and nothing may have been sold. How many answers
    /// there were, the warm-up's included.
    pub(super) async fn ask(
        &mut self,
        row: &mut Row,
        asks: Arc<dyn Ask>,
        connections: usize,
        kind: Kind,
    ) -> Result<u64> {
        let crew = self.installation.crew()?;
        let before = crew.spent()?;
        let tally = closed(self.installation.address(), asks, self.closed(connections)).await?;
        let after = crew.spent()?;
        self.installation.verify(&tally).await?;
        ensure!(tally.others(kind) == 0, "{} answers were not as they should be", tally.others(kind));
        row.durability.clone_from(&self.installation.durability);
        note(row, &tally, kind);
        for (name, micros) in per_booking(&before, &after, as_f64(tally.answered)) {
            if ["API", "Redis"].contains(&name) {
                row.note(column_of(name), micros);
            }
        }
        Ok(tally.answered)
    }

    /// Requests that find an event with nothing left.
    pub(super) async fn sold_out(&mut self, event: &Event) -> Result<Arc<dyn Ask>> {
        let asks = self.booking(std::slice::from_ref(event));
        let buy = Closed { connections: 1, warm_up: Duration::ZERO, time: self.pace.time * 10, requests: 2 };
        let tally = closed(self.installation.address(), asks.clone(), buy).await?;
        ensure!(tally.count(Kind::Sold) <= 1 && tally.count(Kind::SoldOut) >= 1, "the event is not sold out");
        self.installation.verify(&tally).await?;
        Ok(self.booking(std::slice::from_ref(event)))
    }

    /// Requests for bookings by so many customers, each of whom has booked once.
    pub(super) async fn once_each(&mut self, events: &[Event], customers: u64) -> Result<Arc<dyn Ask>> {
        let Booking { events, tag, keys, .. } = &*self.booking(events);
        let asks: Arc<dyn Ask> =
            Arc::new(Booking { events: events.clone(), tag: tag.clone(), keys: *keys, customers });
        let once =
            Closed { connections: 64, warm_up: Duration::ZERO, time: FILLED_WITHIN, requests: customers };
        let tally = closed(self.installation.address(), asks.clone(), once).await?;
        ensure!(
            tally.count(Kind::Sold) == customers,
            "only {} of {customers} were sold",
            tally.count(Kind::Sold)
        );
        self.installation.verify(&tally).await?;
        Ok(asks)
    }

    /// Requests whose keys have all been used.
    pub(super) async fn replays(&mut self, events: &[Event], keys: u64) -> Result<Arc<dyn Ask>> {
        let first = self.booking(events);
        let once =
            Closed { connections: 64, warm_up: Duration::ZERO, time: self.pace.time * 30, requests: keys };
        let tally = closed(self.installation.address(), first.clone(), once).await?;
        ensure!(tally.count(Kind::Sold) == keys, "only {} of {keys} were sold", tally.count(Kind::Sold));
        self.installation.verify(&tally).await?;
        let Booking { events, tag, .. } = &*first;
        Ok(Arc::new(Booking { events: events.clone(), tag: tag.clone(), keys, customers: KEYS }))
    }

    /// Reads of how many tickets are left.
    pub(super) fn availability(&self, events: &[Event]) -> Arc<dyn Ask> {
        Arc::new(Availability { events: events.to_vec() })
    }
}

fn note(row: &mut Row, tally: &crate::load::Tally, kind: Kind) {
    row.note(RATE, tally.rate(kind));
    row.note("p50 ms", tally.quantile(kind, 0.5));
    row.note("p99 ms", tally.quantile(kind, 0.99));
}

fn column_of(process: &str) -> &'static str {
    match process {
        "API" => API,
        "reconciler" => "reconciler, µs",
        "Redis" => REDIS,
        "Kafka" => "Kafka, µs",
        "PostgreSQL" => "PostgreSQL, µs",
        _ => "load generator, µs",
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub(super) fn as_f64(count: u64) -> f64 {
    count as f64
}

pub(super) fn redis_address(place: &Place) -> Result<SocketAddr> {
    let address = place.redis_url.trim_start_matches("redis://").trim_end_matches('/');
    address.parse().context("BOXOFFICE_REDIS_URL must be redis://ip:port/")
}
