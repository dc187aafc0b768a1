//! The checker is checked: with a protection switched off, a run must be bad.

use anyhow::Result;

use crate::{
    cli::Options,
    run,
    schedule::{Ack, Choice},
};

/// A protection that is switched off, and the faults that show it.
#[derive(Clone, Copy, Debug)]
struct Mutant {
    /// As `BOXOFFICE_MUTANT` has it; none for the control.
    name: Option<&'static str>,
    faults: &'static [&'static str],
    seconds: u32,
}

/// Every mutant, and first the control: the same machinery with nothing switched off.
const MUTANTS: &[Mutant] = &[
    Mutant { name: None, faults: &["kafka-pause+redis-wipe", "redis-tail"], seconds: 25 },
    // Redis sells on from an old state before recovery has looked at it.
    Mutant { name: Some("no-fence"), faults: &["redis-tail"], seconds: 20 },
    // A hold that has ended gives its tickets back again.
    Mutant { name: Some("double-expiry"), faults: &["api-kill"], seconds: 15 },
    // What is trimmed and not yet in Kafka dies with the relay.
    Mutant { name: Some("early-trim"), faults: &["kafka-pause+relay-kill"], seconds: 20 },
    // A recovery sends what the relay sends again.
    Mutant { name: Some("no-dedup"), faults: &["kafka-pause+redis-kill"], seconds: 20 },
    // What only Redis knows is acknowledged, and lost with Redis.
    Mutant { name: Some("ack-before-write"), faults: &["kafka-pause+redis-wipe"], seconds: 20 },
];

/// Runs every mutant; whether each was caught and the control was not.
pub(crate) async fn check(options: &Options) -> Result<bool> {
    let mut lines = Vec::new();
    let mut all_seen = true;
    for mutant in MUTANTS {
        let name = mutant.name.unwrap_or("none (control)");
        println!("\n== protection switched off: {name}");
        let only: Result<Vec<Choice>, String> = mutant.faults.iter().map(|fault| fault.parse()).collect();
        let own = Options {
            only: only.map_err(anyhow::Error::msg)?,
            seconds: mutant.seconds,
            ack: Ack::Kafka,
            mutant: mutant.name.map(str::to_owned),
            check_the_checker: false,
            run_dir: options.run_dir.join(name.split(' ').next().unwrap_or(name)),
            ..options.clone()
        };
        let report = run::once(&own, options.seed.unwrap_or(1)).await?;
        let good = report.as_ref().is_none_or(|report| report.is_good());
        if let Some(report) = &report {
            print!("{report}");
        }
        let as_expected = good == mutant.name.is_none();
        all_seen &= as_expected;
        let seen = if good { "good" } else { "violation reported" };
        let remark = if as_expected { "as it must be" } else { "THE CHECKER IS WRONG" };
        lines.push(format!("  {name:<20} {seen:<20} {remark}"));
    }
    println!("\nprotection off       verdict");
    lines.iter().for_each(|line| println!("{line}"));
    Ok(all_seen)
}
