//! Telemetry, configuration, build, run.

use std::process::ExitCode;

use boxoffice_api::config::Options;
use boxoffice_api::startup::{Application, shutdown_signal};
use boxoffice_api::telemetry;
use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    match run(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // For whoever starts it; the logs may not even have begun.
            eprintln!("boxoffice-api: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> anyhow::Result<()> {
    telemetry::start_logs(&options.log)?;
    let shutdown = shutdown_signal()?;
    Application::build(options.checked()?).await?.run_until_stopped(shutdown).await
}
