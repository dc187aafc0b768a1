//! The command line: the API itself, its contract, and what is done to its keys.

mod keys;
mod show;

use clap::{Parser, Subcommand};

use crate::config::Options;
use crate::contract;
use crate::startup::{Application, shutdown_signal};
use crate::telemetry;

/// Boxoffice's HTTP API; without a command it serves. Every option is an environment variable too; the flag wins.
#[derive(Debug, Parser)]
#[command(name = "boxoffice-api", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// API keys: who may do what. They need PostgreSQL alone, and are seen by every API within 5 seconds.
    #[command(subcommand)]
    Keys(keys::Keys),
    /// What operators did, latest last: who, when, what, before and after.
    AuditLog(show::AuditLog),
    /// Print the contract as an OpenAPI 3.1 document; nothing of the configuration is needed.
    Openapi,
}

/// Parses the command line and does what it says.
///
/// # Errors
/// What stopped it, for a person to read.
pub async fn main() -> anyhow::Result<()> {
    let Cli { command, options } = Cli::parse();
    match command {
        None => {
            telemetry::start_logs(&options.log)?;
            let shutdown = shutdown_signal()?;
            Application::build(options.checked()?).await?.run_until_stopped(shutdown).await
        }
        Some(Command::Keys(command)) => keys::run(command, options.checked_database_url()?).await,
        Some(Command::AuditLog(command)) => show::run(command, options.checked_database_url()?).await,
        Some(Command::Openapi) => {
            print!("{}", contract::document());
            Ok(())
        }
    }
}
