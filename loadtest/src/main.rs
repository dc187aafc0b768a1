//! Drives an on-sale against a running Boxoffice and then checks every acknowledgement it was given.
//!
//! It speaks literal HTTP and JSON, written from the contract alone, and shares no code with the API: a mistake in a
//! shared type would otherwise cancel itself out. See [`run`] for the order of things.

mod attack;
mod buyer;
mod cli;
mod client;
mod contract;
mod counts;
mod history;
mod idle;
mod judge;
mod losses;
mod operator;
mod plan;
mod progress;
mod report;
mod run;
mod scenario;
mod schedule;
mod shop;
mod summary;
mod tally;
mod verdict;
mod verify;
mod wire;

use std::process::ExitCode;

use clap::Parser;

/// One thread drives everything: the load generator shares its machine with what it measures, and at the rates it is
/// made for (measured: a sixth of a core at 5,000 requests a second) waking a second thread costs more than it helps.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let options = cli::Options::parse();
    match run::run(&options).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("boxoffice-loadtest could not run: {error:#}");
            ExitCode::from(2)
        }
    }
}
