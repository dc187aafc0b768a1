//! Measures Boxoffice on real processes: `scripts/bench` builds everything, starts the servers and runs this.
//!
//! It speaks literal HTTP, and reads PostgreSQL to see that what was sold is there; a figure whose sales cannot be found
//! afterwards is an error and not a figure.

mod boxoffice;
mod http;
mod market;
mod record;
mod recovery;
mod servers;
mod table;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures Boxoffice on this machine.
#[derive(Debug, Parser)]
#[command(name = "boxoffice-bench", version)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// How long each loss and each absence stops the sale, and how fast what waited is caught up with.
    Recovery(recovery::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    let What::Recovery(options) = Cli::parse().what;
    match recovery::run(&options).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("boxoffice-bench could not finish: {error:#}");
            ExitCode::from(2)
        }
    }
}
