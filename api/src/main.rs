//! The program: see `cli`.

use std::process::ExitCode;

/// A request takes and frees some dozen small pieces, often on different threads; the system's allocator spends more on
/// that than the request spends on JSON.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
