//! The checker is checked: with a protection switched off, a run must be bad.

use anyhow::Result;

use crate::{
    cli::Options,
    report::Report,
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
    /// One of these words must be in the report: a run may also be bad because a machine is slow.
    seen: &'static [&'static str],
}

/// For a run that is expected to be bad, in seconds.
const PATIENCE: u64 = 15;

/// Every mutant, and first the control: the same machinery with nothing switched off.
const MUTANTS: &[Mutant] = &[
    Mutant { name: None, faults: &["kafka-pause+redis-wipe", "redis-tail"], seconds: 30, seen: &[] },
    // Redis sells on from an old state before recovery has looked at it.
    Mutant { name: Some("no-fence"), faults: &["redis-tail"], seconds: 24, seen: LOST },
    // A hold that has ended gives its tickets back again.
    Mutant { name: Some("double-expiry"), faults: &["api-kill"], seconds: 16, seen: MISCOUNTED },
    // What is trimmed and not yet in Kafka dies with the relay.
    Mutant {
        name: Some("early-trim"),
        faults: &["kafka-pause+relay-kill"],
        seconds: 18,
        seen: &["open: gap"],
    },
    // A recovery sends what the relay sends again.
    Mutant { name: Some("no-dedup"), faults: &["kafka-pause+redis-kill"], seconds: 18, seen: MISCOUNTED },
    // What only Redis knows is acknowledged, and lost with Redis.
    Mutant { name: Some("ack-before-write"), faults: &["kafka-pause+redis-wipe"], seconds: 18, seen: LOST },
];

/// What a report says of acknowledged bookings that are lost.
const LOST: &[&str] = &["acknowledged bookings are missing", "PostgreSQL has []"];

/// What a report says of counts that differ between the stores, or from their bookings.
const MISCOUNTED: &[&str] = &["tickets of drift", "are counted wrongly", "alarm counts_differ"];

/// Runs every mutant; whether each was caught and the control was not. What went as it must is said in a line: the reports
/// of runs that had to be bad are long, and would bury the one that somebody has to read. That one comes last.
pub(crate) async fn check(options: &Options) -> Result<bool> {
    let (mut lines, mut surprises) = (Vec::new(), Vec::new());
    for mutant in MUTANTS {
        let name = mutant.name.unwrap_or("none (control)");
        println!("\n== protection switched off: {name}");
        let Some(report) = run::once(&mutant.options(options)?, options.seed.unwrap_or(1)).await? else {
            return Ok(true);
        };
        let (unharmed, text) = (report.is_unharmed(), report.to_string());
        let as_expected = match mutant.name {
            None => unharmed && mutant.has_shown_its_faults(&report),
            Some(_) => !unharmed && mutant.seen.iter().any(|word| text.contains(word)),
        };
        let seen = if unharmed { "nothing wrong" } else { "violation reported" };
        let remark = if as_expected { "as it must be" } else { "NOT AS IT MUST BE" };
        let line = format!("  {name:<20} {seen:<20} {remark}");
        println!("{line}");
        lines.push(line);
        if !as_expected {
            let faults = mutant.faults.join(", ");
            surprises
                .push(format!("\n== the report of {name}, which is not as it must be ({faults})\n{text}"));
        }
    }
    println!("\nprotection off       verdict");
    lines.iter().for_each(|line| println!("{line}"));
    surprises.iter().for_each(|report| print!("{report}"));
    Ok(surprises.is_empty())
}

impl Mutant {
    /// Whether each of its faults came at least once. How often does not matter: it is a short run, perhaps on a slow machine.
    fn has_shown_its_faults(&self, report: &Report) -> bool {
        let came = |fault: &&str| report.lines.iter().any(|line| line.name == **fault);
        self.faults.iter().all(came)
    }

    /// Those of its run.
    fn options(&self, options: &Options) -> Result<Options> {
        let only: Result<Vec<Choice>, String> = self.faults.iter().map(|fault| fault.parse()).collect();
        Ok(Options {
            only: only.map_err(anyhow::Error::msg)?,
            seconds: self.seconds,
            ack: Ack::Kafka,
            mutant: self.name.map(str::to_owned),
            check_the_checker: false,
            // A violation may well be that something never comes to rest.
            patience: if self.name.is_some() { PATIENCE } else { options.patience },
            run_dir: options.run_dir.join(self.name.unwrap_or("control")),
            ..options.clone()
        })
    }
}
