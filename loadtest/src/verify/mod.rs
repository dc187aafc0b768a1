//! Compares what the clients were told with what the system kept.

mod drain;
mod ledger;
mod live;
mod replays;
mod rows;
mod stock;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use rand::{SeedableRng, rngs::StdRng};
use sqlx::{
    ConnectOptions, Connection, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};

pub(crate) use self::{drain::Drained, ledger::Ledger, rows::RowCounts};
use crate::{
    cli::Options,
    progress,
    shop::Shop,
    verdict::{Fault, Faults},
};

/// What verification found.
#[derive(Debug)]
pub(crate) struct Verified {
    pub(crate) drained: Drained,
    pub(crate) rows: RowCounts,
    pub(crate) replays_checked: u64,
    pub(crate) faults: Faults,
}

/// A connection on which nothing can be written, whatever the user may do.
pub(crate) async fn connect(url: &str) -> Result<PgConnection> {
    let advice = "PostgreSQL cannot be reached: check --database-url (BOXOFFICE_DATABASE_URL)";
    let options: PgConnectOptions = url.parse().context(advice)?;
    let options = options.options([("default_transaction_read_only", "on")]).ssl_mode(PgSslMode::Prefer);
    options.disable_statement_logging().connect().await.context(advice)
}

/// Waits for the log, then checks everything. Fails only where it cannot look; what it finds is in the answer.
pub(crate) async fn verify(
    shop: &Shop,
    mut ledger: Ledger,
    options: &Options,
    seed: u64,
) -> Result<Verified> {
    let quiet = options.quiet;
    progress::say(quiet, "waiting for the log to drain and for holds to end");
    let drained = drain::wait(shop, Duration::from_secs(options.drain_timeout), quiet).await?;
    let mut faults = Faults::default();

    progress::say(quiet, "sending acknowledged keys again");
    let mut lot = StdRng::seed_from_u64(seed);
    let sample = ledger.sample(options.replay_sample, &mut lot);
    faults.extend(replays::check(shop, &sample).await);
    stop_if_interrupted()?;

    progress::say(quiet, "comparing every booking with PostgreSQL");
    // Only now: PostgreSQL may have been the part that was away while the load ended.
    let mut database = connect(&options.database_url).await?;
    let mut snapshot = database.begin_with("BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ").await?;
    let windows = shop.losses.read()?;
    let rows = rows::check(&mut snapshot, shop, &mut ledger, &windows, quiet).await?;
    let counted = stock::counters(&mut snapshot, &shop.market.events).await?;
    snapshot.rollback().await?;
    faults.extend(stock::check(&shop.market.events, &rows.sums, &counted));
    faults.extend(stock::check_limits(&shop.market.events, &rows.active));
    // A refusal may rest on a decision that was lost before anybody was told of it.
    if !windows.any() {
        faults.extend(stock::check_refusals(&shop.market.events, &rows.active, &ledger, &counted));
    }
    faults.extend(live::check(shop, &counted, &rows.counts).await);
    faults.extend(rows.faults);
    progress::clear();
    Ok(Verified { drained, rows: rows.counts, replays_checked: sample.len() as u64, faults })
}

/// Goose leaves a handler behind that only notes a Ctrl-C.
fn stop_if_interrupted() -> Result<()> {
    if goose::is_killswitch_triggered() {
        bail!("interrupted");
    }
    Ok(())
}

/// A check that could not be made is a fault of its own: what was not seen is not good.
fn unreadable(faults: &mut Faults, what: &str, error: &anyhow::Error) {
    faults.add(Fault::Unreadable, format!("{what}: {error:#}"));
}
