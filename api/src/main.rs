//! The program: see `cli`.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    match boxoffice_api::cli::main().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // For whoever starts it; the logs may not even have begun.
            eprintln!("boxoffice-api: {error:#}");
            ExitCode::FAILURE
        }
    }
}
