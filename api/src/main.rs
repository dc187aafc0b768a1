//! Telemetry, configuration, build, run.

use boxoffice_api::config::Options;
use boxoffice_api::startup::{Application, shutdown_signal};
use boxoffice_api::telemetry;
use clap::Parser;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    telemetry::start_logs(&options.log)?;
    let shutdown = shutdown_signal()?;
    Application::build(options.checked()?).await?.run_until_stopped(shutdown).await
}
