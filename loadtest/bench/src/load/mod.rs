//! The load generator. It is our own because it has to know what was sold: each answer is read, sales are told from
//! replays and refusals, the ids of all sales are kept to be looked for in PostgreSQL, and latencies are counted from
//! when a request was due. It runs on one thread, with next to no work a request, since it shares the machine with what
//! it measures.

mod ask;
mod closed;
mod exchange;
mod open;
mod tally;

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::LocalSet;

pub(crate) use ask::{Ask, Availability, Booking, Check, Later};
pub(crate) use closed::{Closed, closed};
pub(crate) use open::{Open, open};
pub(crate) use tally::{Kind, Tally};

/// Beyond the planned time of a run; a server that does not answer for so long has failed.
const GRACE: Duration = Duration::from_secs(20);

/// Runs a load on a thread of its own, and gives up where it takes far longer than planned.
async fn on_own_thread<T: Send + 'static, F: Future<Output = Result<T>>>(
    planned: Duration,
    load: impl FnOnce() -> F + Send + 'static,
) -> Result<T> {
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        LocalSet::new().block_on(&runtime, async {
            tokio::time::timeout(planned + GRACE, load())
                .await
                .context("requests were not answered in time")?
        })
    };
    tokio::task::spawn_blocking(run).await?
}
