//! The reconciler's binary; see the library for what it does.

use std::process::ExitCode;

/// A recovery takes and frees millions of small pieces on several threads. The system's allocator keeps an arena a thread
/// and gives little of them back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    match boxoffice_reconciler::cli::main().await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("boxoffice-reconciler: {error:#}");
            // 2 says that a command could not finish; 1 is left to findings.
            ExitCode::from(2)
        }
    }
}
