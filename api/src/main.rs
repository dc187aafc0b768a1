//! The program: see `cli`.

use std::process::ExitCode;

/// A request takes and frees some dozen small pieces, often on different threads; the system's allocator spends more on
/// that than the request spends on JSON.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// HTTP has threads of its own, one a processor. What all of them share, the way of a decision to Redis and to Kafka, is one
/// thread's work: Redis decides on one processor as well, and tasks that wake each other across threads pay for it.
#[tokio::main(flavor = "current_thread")]
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
