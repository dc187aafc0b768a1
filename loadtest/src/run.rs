//! The order of things: look, plan, put on sale, attack, verify, report.

use std::{fs, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use rand::{SeedableRng, rngs::StdRng};
use sqlx::Connection;

use crate::{
    attack,
    buyer::Buyer,
    cli::Options,
    client::Client,
    history::Names,
    idle::Idle,
    losses::Losses,
    operator, plan, progress,
    scenario::Market,
    schedule::Schedule,
    shop::Shop,
    summary::Summary,
    tally::Tally,
    verify::{self, Ledger},
};

/// Runs the load test; true where the verdict is good. An error means that it could not be run.
pub(crate) async fn run(options: &Options) -> Result<bool> {
    let client = Client::new(options.base(), options.token.as_deref(), options.patience())?;
    // Both are asked before anything is sold: a run that cannot be verified is not worth its minutes.
    operator::check_ready(&client).await?;
    verify::connect(&options.database_url).await?.close().await?;

    // 32 bits of it, so that every reader of the summary's JSON can hold the number.
    let seed = options.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let shop = Arc::new(open(options, client, seed).await?);
    let (rate, seconds, users) = (options.rate, options.seconds, options.users());
    progress::say(options.quiet, &format!("{rate} requests/s for {seconds} s, {users} users, seed {seed}"));
    let idle = Idle::open(&options.host, options.idle_connections).await?;
    let buyers = attack(options, &shop, seed).await?;
    idle.check()?;
    drop(idle);
    let totals = shop.tally.totals();

    let ledger = Ledger::new(buyers);
    let acknowledged = ledger.acknowledged().count() as u64;
    let verified = verify::verify(&shop, ledger, options, seed).await?;
    let summary = Summary::new(options, seed, &shop, totals, acknowledged, verified);
    if let Some(path) = &options.summary {
        let text = serde_json::to_string_pretty(&summary)?;
        fs::write(path, text + "\n")
            .with_context(|| format!("--summary {} cannot be written", path.display()))?;
    }
    print!("{summary}");
    Ok(summary.is_good())
}

/// Puts the events on sale.
async fn open(options: &Options, client: Client, seed: u64) -> Result<Shop> {
    // Two runs of one seed against one database must still differ in their keys and customers.
    let run = format!("lt{:08x}", rand::random::<u32>());
    let plans =
        plan::events(options.requests(), options.hot_capacity, &run, &mut StdRng::seed_from_u64(seed));
    progress::say(options.quiet, &format!("putting {} events on sale", plans.len()));
    let events =
        operator::put_on_sale(&client, plans).await.context("the events could not be put on sale")?;
    let catch_up = Duration::from_secs(options.catch_up);
    Ok(Shop {
        client,
        market: Market::new(events, Names::new(run)),
        schedule: Schedule::new(options.rate, options.requests(), options.users(), catch_up),
        tally: Tally::new(),
        losses: Losses::new(options.loss_windows.clone()),
    })
}

async fn attack(options: &Options, shop: &Arc<Shop>, seed: u64) -> Result<Vec<Buyer>> {
    let watching = (!options.quiet).then(|| tokio::spawn(progress::watch(shop.clone())));
    let longest = shop.schedule.length() + Duration::from_secs(options.catch_up + options.request_timeout);
    let buyers = attack::run(shop.clone(), options.users(), seed, longest, options.report.as_deref()).await;
    if let Some(watching) = watching {
        watching.abort();
        progress::clear();
    }
    buyers
}
