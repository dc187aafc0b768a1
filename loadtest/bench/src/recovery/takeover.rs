//! One of two API instances is killed: the other must not fail a request, and must take the shards over.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::boxoffice::Process;
use crate::http::Connection;
use crate::market::Market;
use crate::record;
use crate::table::Goal;

use super::Sale;

/// Between two bookings at the instance that survives.
const PACE: Duration = Duration::from_millis(5);

impl Sale<'_> {
    /// Kills the instance that relays every shard, while bookings are made at another.
    pub(super) async fn take_over(&mut self, relay: Process) -> Result<Process> {
        self.say("killing the API that relays all shards, while another sells");
        let mut address = self.options.listen;
        address.set_port(address.port() + 1);
        let survivor = self.home.api("api-2", address).await?;
        let end = Arc::new(AtomicBool::new(false));
        let load = tokio::spawn(sell_steadily(Arc::clone(&self.market), address, Arc::clone(&end)));
        tokio::time::sleep(Duration::from_secs(1)).await;
        relay.kill().await?;
        let taken_over = self.until_each_is_relayed(address).await;
        end.store(true, Ordering::Relaxed);
        let (answered, failed) = load.await??;
        let failures = f64::from(failed);
        self.figure(
            format!("API killed: failures among {answered} requests to the other"),
            failures,
            "requests",
            Goal::AtMost(0.0),
        );
        self.figure("API killed: until the other relays every shard", taken_over?, "s", Goal::AtMost(5.0));
        Ok(survivor)
    }

    /// Seconds until a booking that each event sells now is in PostgreSQL.
    async fn until_each_is_relayed(&self, api: SocketAddr) -> Result<f64> {
        let start = Instant::now();
        let mut sold = Vec::with_capacity(self.market.events.len());
        for event in &self.market.events {
            sold.push(self.market.until_sold(api, event).await?);
        }
        record::until_written(&self.pool, &sold).await?;
        Ok(start.elapsed().as_secs_f64())
    }
}

/// Books at a steady pace until told to end; returns how many were answered with 201, and how many were not.
async fn sell_steadily(market: Arc<Market>, api: SocketAddr, end: Arc<AtomicBool>) -> Result<(u32, u32)> {
    let mut connection = Connection::open(api).await?;
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut sold, mut failed) = (0, 0);
    while !end.load(Ordering::Relaxed) {
        pace.tick().await;
        match market.book(&mut connection, false).await {
            Ok(answer) if answer.status == 201 => sold += 1,
            _ => {
                failed += 1;
                connection = Connection::open(api).await?;
            }
        }
    }
    ensure!(sold > 0, "nothing was sold at {api}");
    Ok((sold, failed))
}
