//! Kills, stops and cuts off the real processes of a Boxoffice while the load test sells tickets, heals everything, and
//! judges what is left.
//!
//! It shares no code with what it breaks: it knows processes, ports and the wire. The load and most of the checking are
//! `boxoffice-loadtest`'s; see [`run`] for the order of things and [`schedule`] for what is broken when.

mod aof;
mod balancer;
mod cli;
mod faults;
mod findings;
mod gauge;
mod house;
mod http;
mod load;
mod mutants;
mod prober;
mod program;
mod proxy;
mod redis_pair;
mod report;
mod run;
mod schedule;
mod server;
mod windows;

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    match run::run(cli::Options::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("boxoffice-chaos could not run: {error:#}");
            ExitCode::from(2)
        }
    }
}
