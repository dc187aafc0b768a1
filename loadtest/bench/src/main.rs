//! Measures Boxoffice on real processes: `scripts/bench` builds everything, starts the servers and runs this.
//!
//! It speaks literal HTTP, and reads PostgreSQL to see that what was sold is there; a figure whose sales cannot be found
//! afterwards is an error and not a figure.

mod boxoffice;
mod floors;
mod http;
mod installation;
mod load;
mod market;
mod place;
mod processor;
mod record;
mod recovery;
mod report;
mod section;
mod servers;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};

use place::Place;
use section::{Name, Pace};

/// Measures Boxoffice on this machine.
#[derive(Debug, Parser)]
#[command(name = "boxoffice-bench", version)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// How fast it is, and beside what.
    Speed(Speed),
    /// How long each loss and each absence stops the sale, and how fast what waited is caught up with.
    Recovery(recovery::Options),
}

#[derive(Debug, Args)]
struct Speed {
    /// What to measure; everything unless named.
    #[arg(value_enum)]
    sections: Vec<Name>,

    #[command(flatten)]
    place: Place,

    /// How often each thing is measured.
    #[arg(long, default_value_t = 5)]
    rounds: usize,

    /// For how long, in milliseconds.
    #[arg(long, default_value_t = 2_000)]
    milliseconds: u64,

    /// Bookings that an installation is filled with.
    #[arg(long, default_value_t = 1_000_000)]
    bookings: u64,

    /// Minutes of the soak.
    #[arg(long, default_value_t = 1)]
    soak: u64,

    /// Where the figures go as JSON; they are printed as Markdown in any case.
    #[arg(long)]
    json: PathBuf,
}

impl Speed {
    /// True where each goal is reached; an error where a figure is void.
    async fn run(&self) -> Result<bool> {
        let pace = Pace {
            rounds: self.rounds.max(1),
            time: Duration::from_millis(self.milliseconds),
            warm_up: Duration::from_millis(300),
            bookings: self.bookings,
            soak: Duration::from_secs(60 * self.soak),
        };
        let names = if self.sections.is_empty() { Name::ALL } else { &self.sections };
        let report = section::run(&self.place, names, pace).await;
        let json = serde_json::to_string_pretty(&report)?;
        std::fs::write(&self.json, json).with_context(|| self.json.display().to_string())?;
        println!("{}", report.markdown());
        anyhow::ensure!(report.is_valid(), "not every figure counts: {}", report.void.join("; "));
        Ok(report.is_reached())
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let reached = match Cli::parse().what {
        What::Speed(speed) => speed.run().await,
        What::Recovery(options) => recovery::run(&options).await,
    };
    match reached {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("boxoffice-bench could not finish: {error:#}");
            ExitCode::from(2)
        }
    }
}
