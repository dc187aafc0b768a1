//! The order of things: schedule, start, sell, break and heal, check, report.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rand::{SeedableRng, rngs::StdRng};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep, sleep_until},
};

use crate::{
    cli::Options,
    faults::{self, Remedy},
    findings,
    house::{self, House},
    load::Load,
    mutants,
    prober::Prober,
    report::{Line, Report},
    schedule::{self, Fault, Kind},
    windows::Windows,
};

/// Sales go on for so long, at least, between two faults.
const QUIET: Duration = Duration::from_secs(1);

/// Does what the options ask for; whether the verdict is good. An error means that the run could not be made.
pub(crate) async fn run(options: Options) -> Result<bool> {
    if options.kinds {
        for kind in Kind::ALL {
            println!("  {:<18} {}", kind.name(), kind.about());
        }
        return Ok(true);
    }
    if options.check_the_checker {
        return mutants::check(&options).await;
    }
    // 32 bits of it, so that every reader of the load test's summary can hold the number.
    let seed = options.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let report = once(&options, seed).await?;
    if let Some(report) = &report {
        print!("{report}");
    }
    Ok(report.is_none_or(|report| report.is_good()))
}

/// One run with this seed. `None` where only the schedule was asked for.
pub(crate) async fn once(options: &Options, seed: u64) -> Result<Option<Report>> {
    let length = Duration::from_secs(u64::from(options.seconds));
    let faults = schedule::draw(seed, length, options.ack, &options.only);
    if options.list {
        faults.iter().for_each(|fault| println!("{fault}"));
        return Ok(None);
    }
    ensure!(!faults.is_empty(), "{length:?} are too short for any fault, so nothing would be shown");
    let (count, ack, rate) = (faults.len(), options.ack.word(), options.rate);
    println!("chaos: seed {seed}, {count} faults in {length:?}, ack={ack}, {rate} requests/s");
    house::make_run_dir(&options.run_dir)?;
    // A name of its own for database, topics and keys: what an earlier run left behind does not matter.
    let run = format!("chaos{:08x}", rand::random::<u32>());
    let mut house = tokio::select! {
        house = House::start(options, &run) => house?,
        () = interruption()? => bail!("interrupted"),
    };
    let outcome = tokio::select! {
        outcome = act(options, &mut house, &run, seed, &faults) => outcome.map(Some),
        () = interruption()? => Ok(None),
    };
    house.stop().await;
    let Some(report) = outcome? else { bail!("interrupted") };
    Ok(Some(report))
}

/// SIGINT or SIGTERM.
fn interruption() -> Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Everything between the start of the house and its end.
async fn act(options: &Options, house: &mut House, run: &str, seed: u64, faults: &[Fault]) -> Result<Report> {
    let mut windows = Windows::new(options.run_dir.join("windows.json"), options.ack)?;
    let prober = Prober::start(&house.url, run, options.seconds).await.context("the probes' events")?;
    let mut load = Load::start(options, house, &windows, seed).await?;
    let lines = break_and_heal(options, house, faults, &prober, &mut windows).await?;
    println!("all faults are healed; the load goes on to its end, then everything is checked");
    prober.buy_no_more();
    load.until_over().await?;
    // Both wait for the log until patience is over: one after the other, a run that never comes to rest would wait twice.
    let patience = Duration::from_secs(options.patience);
    let (load_is_good, probes) =
        tokio::try_join!(load.finish(), prober.judge(&house.database_url, &windows, patience))?;
    house.check_alive()?;
    // At rest: whatever differs now stays so. Before the rest is looked up, to which it adds what it finds.
    let mut findings: Vec<String> = house::audit(options, run).await?.into_iter().collect();
    findings.extend(findings::all(&house.database_url, windows.any()).await?);
    let load = tokio::fs::read_to_string(options.run_dir.join("loadtest.txt")).await?;
    let again = again(options, seed);
    Ok(Report { drawn: faults.len(), lines, probes, findings, load, load_is_good, again })
}

/// The command that makes the same run once more: the faults, and not what they meet.
fn again(options: &Options, seed: u64) -> String {
    if options.mutant.is_some() {
        return format!("scripts/chaos --check-the-checker --seed {seed}");
    }
    let (seconds, ack, rate) = (options.seconds, options.ack.word(), options.rate);
    let only: String = options.only.iter().map(|choice| format!(" --only {choice}")).collect();
    format!("scripts/chaos --seconds {seconds} --seed {seed} --ack {ack} --rate {rate}{only}")
}

/// One fault after the other, each at its time, or later, when sales have gone on for a moment since the one before.
/// What would come too late for that is left out.
async fn break_and_heal(
    options: &Options,
    house: &mut House,
    faults: &[Fault],
    prober: &Prober,
    windows: &mut Windows,
) -> Result<Vec<Line>> {
    let (start, length) = (Instant::now(), Duration::from_secs(u64::from(options.seconds)));
    let patience = Duration::from_secs(options.patience);
    let mut lines = Vec::with_capacity(faults.len());
    for fault in faults {
        sleep_until(start + fault.at).await;
        let began = Instant::now();
        if !fault.fits(began - start, length) {
            break;
        }
        house.check_alive()?;
        carry_out(house, fault, windows).await.with_context(|| fault.name())?;
        let lasted = began.elapsed();
        let sells = prober.wait_for_sales(Instant::now(), patience).await;
        let outage = prober.outage(began, Instant::now());
        let resumed = sells && are_certified(house, patience).await;
        let line = Line { name: fault.name(), at: began - start, lasted, outage, resumed };
        println!("{line}");
        lines.push(line);
        sleep(QUIET).await;
    }
    Ok(lines)
}

/// Whether all shards may sell again in time: the probed events lie on a few of them.
async fn are_certified(house: &House, patience: Duration) -> bool {
    let waited = house.wait_until_certified(patience).await;
    if let Err(error) = &waited {
        println!("  ! {error:#}");
    }
    waited.is_ok()
}

/// Harms and heals. Where the harm fails halfway, what was done is healed all the same.
async fn carry_out(house: &mut House, fault: &Fault, windows: &mut Windows) -> Result<()> {
    let mut lot = StdRng::seed_from_u64(fault.lot);
    let mut remedies: Vec<Remedy> = Vec::new();
    let mut failure = None;
    for (at, kind) in fault.kinds.iter().enumerate() {
        if at > 0 {
            sleep(Fault::lag()).await;
        }
        match faults::harm(house, *kind, windows, &mut lot).await {
            Ok(remedy) => remedies.push(remedy),
            Err(error) => failure = failure.or(Some(error.context(kind.name()))),
        }
    }
    sleep(fault.lasts).await;
    // What stands still is let go on even where something else cannot be healed.
    for remedy in remedies.into_iter().rev() {
        if let Err(error) = faults::heal(house, remedy, windows).await {
            failure = failure.or(Some(error));
        }
    }
    failure.map_or(Ok(()), Err)
}
