//! The command line. `scripts/chaos` gives the paths and ports; a person gives the rest.

use std::path::PathBuf;

use clap::Parser;

use crate::schedule::{Ack, Choice};

/// Breaks a running Boxoffice again and again while tickets are sold, and judges what is left.
///
/// Exit code: 0 nothing was lost and nothing sold twice; 1 something was, or too few faults came in time to show that nothing is;
/// 2 the run could not be made.
#[derive(Clone, Debug, Parser)]
#[command(name = "boxoffice-chaos", version)]
pub(crate) struct Options {
    /// Length of the load in seconds; the faults lie within it.
    #[arg(long, value_name = "SECONDS", default_value_t = 120,
          value_parser = clap::value_parser!(u32).range(15..=86_400))]
    pub(crate) seconds: u32,

    /// Seed of the schedule and of the load. Drawn itself, and printed, unless given.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seed: Option<u64>,

    /// Only this kind of fault; repeat it for several. KIND+KIND happen at once, `pair` is two by lot.
    #[arg(long, value_name = "KIND")]
    pub(crate) only: Vec<Choice>,

    /// When a booking is acknowledged.
    #[arg(long, value_name = "MODE", value_enum, default_value = "kafka")]
    pub(crate) ack: Ack,

    /// Requests a second of the load.
    #[arg(long, value_name = "PER_SECOND", default_value_t = 300,
          value_parser = clap::value_parser!(u32).range(10..=10_000))]
    pub(crate) rate: u32,

    /// Prints the schedule and ends.
    #[arg(long)]
    pub(crate) list: bool,

    /// Prints the kinds of faults and ends.
    #[arg(long)]
    pub(crate) kinds: bool,

    /// Runs once with each protection switched off, and expects each time that the violation is seen. The binaries must
    /// have been built with the feature `mutants`.
    #[arg(long)]
    pub(crate) check_the_checker: bool,

    /// Longest wait in seconds for sales to resume after a fault, and for the log to drain after the load.
    #[arg(long, value_name = "SECONDS", default_value_t = 90)]
    pub(crate) patience: u64,

    /// Runs with this protection switched off (`BOXOFFICE_MUTANT`).
    #[arg(long, value_name = "MUTANT", hide = true)]
    pub(crate) mutant: Option<String>,

    /// Folder with boxoffice-api, boxoffice-reconciler and boxoffice-loadtest.
    #[arg(long, env = "BOXOFFICE_CHAOS_BIN", value_name = "FOLDER", default_value = "target/debug")]
    pub(crate) bin: PathBuf,

    /// The checkout, for scripts/stack.
    #[arg(long, env = "BOXOFFICE_CHAOS_CHECKOUT", value_name = "FOLDER", default_value = ".")]
    pub(crate) checkout: PathBuf,

    /// Folder for logs.
    #[arg(long, env = "BOXOFFICE_CHAOS_RUN_DIR", value_name = "FOLDER", default_value = ".run/chaos")]
    pub(crate) run_dir: PathBuf,

    /// Name of the stack that is broken; the replica's is NAME-replica.
    #[arg(long, env = "BOXOFFICE_STACK_NAME", value_name = "NAME", default_value = "chaos")]
    pub(crate) stack: String,

    /// The stack's ports begin here, the replica's 1,000 higher; ports of our own are in between.
    #[arg(long, env = "BOXOFFICE_STACK_PORT_BASE", value_name = "PORT", default_value_t = 28_000,
          value_parser = clap::value_parser!(u16).range(1_024..=60_000))]
    pub(crate) port_base: u16,
}
