//! `recovery`: what each loss costs, on one installation, one after the other.
//!
//! 1. The reconciler is away while bookings are made, and then catches up. Beside it, the same rows are inserted in bulk.
//! 2. Redis is killed with -9 and loads its append-only file.
//! 3. Redis is killed with -9 and its data folder is deleted; everything comes back from PostgreSQL.
//! 4. An API instance that relays all shards is killed with -9 under load; another takes over.
//!
//! In the end every acknowledged booking must be a row, and nothing may be complained of.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use sqlx::PgPool;
use tokio::time::Instant;

use crate::boxoffice::{Home, Process};
use crate::market::{Market, Order};
use crate::record;
use crate::servers::Redis;
use crate::table::{self, Figure, Goal};

mod bulk;
mod takeover;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Confirmed bookings that Redis holds when it loses its data.
    #[arg(long, default_value_t = 1_000_000)]
    bookings: u64,

    /// Live holds that it holds as well.
    #[arg(long, default_value_t = 10_000)]
    holds: u64,

    /// How many of the bookings are made while the reconciler is away.
    #[arg(long, default_value_t = 600_000)]
    backlog: u64,

    /// Events that the bookings are spread over.
    #[arg(long, default_value_t = 16)]
    events: usize,

    /// Connections that book at the same time.
    #[arg(long, default_value_t = 256)]
    connections: usize,

    /// Folder of the binaries.
    #[arg(long)]
    binaries: PathBuf,

    /// Folder for the logs.
    #[arg(long)]
    logs: PathBuf,

    /// `scripts/stack`.
    #[arg(long)]
    stack: PathBuf,

    /// Redis' data folder.
    #[arg(long)]
    redis_folder: PathBuf,

    /// Redis' address.
    #[arg(long)]
    redis: SocketAddr,

    /// Address of the first API; the second listens at the next port.
    #[arg(long, default_value = "127.0.0.1:22080")]
    listen: SocketAddr,

    /// PostgreSQL.
    #[arg(long, env = "BOXOFFICE_DATABASE_URL", hide_env_values = true)]
    database_url: String,
}

/// An installation with events on sale.
struct Sale<'a> {
    options: &'a Options,
    home: Home,
    redis: Redis,
    pool: PgPool,
    market: Arc<Market>,
    figures: Vec<Figure>,
}

/// Measures everything; true where each goal is reached.
pub(crate) async fn run(options: &Options) -> Result<bool> {
    let home = Home { binaries: options.binaries.clone(), logs: options.logs.clone(), variables: Vec::new() };
    home.migrate().await?;
    let reconciler = home.reconciler()?;
    let api = home.api("api-1", options.listen).await?;
    // Nearly sold out, as an event is after its on-sale; the rest is for the probes.
    let capacity = (options.bookings + options.holds) / options.events as u64 + 10_000;
    let mut sale = Sale {
        options,
        redis: Redis {
            stack: options.stack.clone(),
            folder: options.redis_folder.clone(),
            address: options.redis,
        },
        pool: PgPool::connect_lazy(&options.database_url)?,
        market: Arc::new(Market::open(options.listen, options.events, capacity).await?),
        figures: Vec::new(),
        home,
    };
    let reconciler = sale.catch_up(reconciler).await?;
    sale.fill().await?;
    sale.restart_redis().await?;
    sale.wipe_redis(&reconciler).await?;
    let _survivor = sale.take_over(api).await?;
    sale.check().await?;
    table::print(&sale.figures);
    Ok(sale.figures.iter().all(Figure::is_reached))
}

impl Sale<'_> {
    fn say(&self, what: &str) {
        eprintln!("bench: {what}");
    }

    fn figure(&mut self, what: impl Into<String>, value: f64, unit: &'static str, goal: Goal) {
        self.figures.push(Figure::new(what, value, unit, goal));
    }

    /// Sells, and returns bookings a second.
    async fn sell(&self, bookings: u64, hold: bool) -> Result<f64> {
        let order = Order { bookings, connections: self.options.connections, hold };
        let took = self.market.sell(self.options.listen, order).await?;
        Ok(per_second(bookings, took))
    }

    /// The reconciler is killed, bookings are made, and another one applies them.
    async fn catch_up(&mut self, reconciler: Process) -> Result<Process> {
        let backlog = self.options.backlog;
        self.say(&format!("selling {backlog} tickets without a reconciler"));
        let before = record::applied(&self.pool).await?;
        reconciler.kill().await?;
        let rate = self.sell(backlog, false).await?;
        self.figure("bookings while the reconciler was away", rate, "/s", Goal::None);
        self.say("waiting until Kafka has them");
        self.until_relayed().await?;
        let reconciler = self.home.reconciler()?;
        record::until_applied(&self.pool, before + 1).await?;
        let at_start = record::applied(&self.pool).await?;
        let wanted = before + i64::try_from(backlog)?;
        let took = record::until_applied(&self.pool, wanted).await?;
        let rate = per_second(u64::try_from(wanted - at_start)?, took);
        self.figure(format!("backlog of {backlog} decisions applied"), rate, "/s", Goal::AtLeast(30_000.0));
        self.insert_in_bulk(rate).await?;
        Ok(reconciler)
    }

    /// Brings the stores to the size at which they fail.
    async fn fill(&mut self) -> Result<()> {
        let Options { bookings, backlog, holds, .. } = *self.options;
        let rest = bookings.saturating_sub(backlog);
        self.say(&format!("selling {rest} tickets more, and {holds} holds"));
        let rate = self.sell(rest, false).await?;
        self.figure("bookings with everything running", rate, "/s", Goal::None);
        self.sell(holds, true).await?;
        self.until_applied().await
    }

    async fn restart_redis(&mut self) -> Result<()> {
        self.say("killing Redis and starting it with its append-only file");
        self.redis.kill().await?;
        let started = Instant::now();
        let answered = self.redis.start().await?;
        let sold = self.until_all_sold(answered).await?;
        let loaded = answered.duration_since(started).as_secs_f64();
        self.figure("Redis killed: loading its file until PING", loaded, "s", Goal::None);
        self.figure("Redis killed: from PING until every event sells", sold, "s", Goal::AtMost(2.0));
        self.until_applied().await
    }

    async fn wipe_redis(&mut self, reconciler: &Process) -> Result<()> {
        self.say("killing Redis and deleting its data folder");
        reconciler.forget_peak_memory()?;
        self.redis.kill().await?;
        self.redis.wipe()?;
        let answered = self.redis.start().await?;
        let sold = self.until_all_sold(answered).await?;
        let peak = reconciler.peak_memory()? >> 20;
        self.figure("Redis' data deleted: until every event sells", sold, "s", Goal::AtMost(10.0));
        let megabytes = f64::from(u32::try_from(peak)?);
        self.figure("Redis' data deleted: the reconciler's memory", megabytes, "MB", Goal::AtMost(200.0));
        self.until_applied().await
    }

    /// Seconds since then until each event has sold a ticket again.
    async fn until_all_sold(&self, since: Instant) -> Result<f64> {
        for event in &self.market.events {
            self.market.until_sold(self.options.listen, event).await?;
        }
        Ok(since.elapsed().as_secs_f64())
    }

    /// Waits until every booking that was begun is a decision that was applied.
    async fn until_applied(&self) -> Result<()> {
        let published = i64::try_from(self.market.events.len())?;
        record::until_applied(&self.pool, published + i64::try_from(self.market.begun())?).await?;
        Ok(())
    }

    /// Every acknowledged booking is a row, and nothing is complained of.
    async fn check(&self) -> Result<()> {
        self.until_applied().await?;
        let (rows, begun) = (record::bookings(&self.pool).await?, self.market.begun());
        ensure!(
            rows == i64::try_from(begun)?,
            "{begun} bookings were acknowledged and {rows} are in PostgreSQL"
        );
        let complaints = record::complaints(&self.pool).await?;
        ensure!(complaints == 0, "{complaints} gaps, alarms or dead letters are open");
        self.say(&format!(
            "{begun} bookings were acknowledged, {rows} are in PostgreSQL; nothing is complained of"
        ));
        Ok(())
    }

    /// The API reports what its outboxes still hold.
    async fn until_relayed(&self) -> Result<()> {
        let mut connection = crate::http::Connection::open(self.options.listen).await?;
        let start = Instant::now();
        loop {
            let answer = connection.send("GET", "/metrics", "", "").await?;
            let text = String::from_utf8(answer.body).context("metrics")?;
            if waiting_frames(&text) == 0.0 {
                return Ok(());
            }
            ensure!(start.elapsed() < Duration::from_secs(120), "the outboxes do not empty");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

fn per_second(count: u64, took: Duration) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / took.as_secs_f64()
}

/// The sum of `boxoffice_outbox_frames` over all shards.
fn waiting_frames(metrics: &str) -> f64 {
    metrics
        .lines()
        .filter(|line| line.starts_with("boxoffice_outbox_frames{"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_that_wait_are_added_up_over_the_shards() {
        let metrics = "# TYPE x gauge\nboxoffice_outbox_frames{shard=\"s00\"} 3\nboxoffice_outbox_frames{shard=\"s01\"} 4\nother 9\n";
        assert!((waiting_frames(metrics) - 7.0).abs() < f64::EPSILON);
        assert!((per_second(10, Duration::from_secs(2)) - 5.0).abs() < f64::EPSILON);
    }
}
