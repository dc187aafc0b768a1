//! The command line.

use std::process::ExitCode;

use boxoffice_schema::ids::EventId;
use clap::{Parser, Subcommand};

use crate::config::Options;
use crate::{migrate, repairs, telemetry};

mod commands;

/// Keeps PostgreSQL equal to the decisions in Kafka, proves it, and certifies the inventory in Redis.
///
/// Exit codes: 0 all is well, 1 something was found that needs mending, 2 the command could not finish.
#[derive(Debug, Parser)]
#[command(name = "boxoffice-reconciler", version, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Prepare PostgreSQL and Kafka; run again, it changes nothing.
    Migrate,
    /// Run the service: apply the log, audit, and certify shards. Of several instances one works, the others wait.
    Run,
    /// Apply the log to its end, audit everything, and report; for cron.
    Once {
        /// For machines.
        #[arg(long)]
        json: bool,
    },
    /// Show where every shard stands, and what is open.
    Status {
        /// For machines.
        #[arg(long)]
        json: bool,
    },
    /// Compare Redis with PostgreSQL at equal positions, and PostgreSQL's counts with its bookings.
    Audit {
        /// One event only.
        #[arg(long, value_name = "ID")]
        event: Option<EventId>,
        /// Booking by booking as well: lost keys, lost expiries, customers' counts.
        #[arg(long)]
        deep: bool,
        /// For machines.
        #[arg(long)]
        json: bool,
    },
    /// Mend what the audit finds, while tickets are being sold.
    ///
    /// Reads gaps again; sets PostgreSQL's counts to what its bookings add up to; lets Redis say once more what
    /// PostgreSQL lost; moves Redis' counters by what they differ. Every mend is compare-and-set and a row of
    /// `repairs`. What Redis lost is left to `rebuild`, which the report names.
    Repair {
        /// One event only.
        #[arg(long, value_name = "ID")]
        event: Option<EventId>,
        #[command(flatten)]
        manner: Manner,
    },
    /// Restore Redis from PostgreSQL, which by then has all of the log. Sales of the shard pause meanwhile.
    ///
    /// Works with and without a running service. Refuses where PostgreSQL may be the one that lacks something: while
    /// gaps, dead letters or alarms about counts are open. Interrupted, it is begun again by the service.
    Rebuild {
        #[command(flatten)]
        what: What,
        #[command(flatten)]
        manner: Manner,
    },
    /// Mends that were made: who, when, what, before and after.
    #[command(subcommand)]
    Repairs(Repairs),
    /// Records that were set aside because they could not be read or applied.
    #[command(subcommand)]
    DeadLetters(DeadLetters),
    /// Decisions that are missing in the log.
    #[command(subcommand)]
    Gaps(Gaps),
    /// Show what Kafka has of a shard: a line of JSON for each record.
    Log {
        /// The shard's number.
        #[arg(long, value_name = "N")]
        shard: u16,
        /// Where to begin; where it is left out, the last records are shown.
        #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
        from: Option<i64>,
        /// The most records.
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1_000))]
        limit: u16,
    },
    /// Contradictions that were found.
    #[command(subcommand)]
    Alarms(Alarms),
    /// What the rate limits decided.
    #[command(subcommand)]
    Limits(Limits),
}

/// What is to be rebuilt.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct What {
    /// One event; the others of its shard stay as they are.
    #[arg(long, value_name = "ID")]
    event: Option<EventId>,
    /// One shard, by its number.
    #[arg(long, value_name = "N")]
    shard: Option<u16>,
    /// Every shard.
    #[arg(long)]
    all: bool,
}

/// How something is mended.
#[derive(Debug, clap::Args)]
struct Manner {
    /// Only say what differs; change nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    by: By,
    /// For machines.
    #[arg(long)]
    json: bool,
}

/// Who mends.
#[derive(Debug, clap::Args)]
struct By {
    /// Who mends, for the table of repairs.
    #[arg(long = "by", value_name = "NAME", default_value_t = repairs::default_name())]
    name: String,
}

#[derive(Debug, Subcommand)]
enum Repairs {
    /// List the latest, oldest first.
    List {
        /// For machines.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
enum Limits {
    /// List whom they refused most, worst first.
    Top {
        /// One policy only.
        #[arg(long, value_name = "NAME")]
        policy: Option<String>,
        /// How far to look back, up to a day.
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u16).range(1..=1_440))]
        minutes: u16,
        /// The most lines.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1_000))]
        lines: u16,
        /// For machines.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
enum DeadLetters {
    /// List what is open, oldest first.
    List,
    /// Show one in full.
    Show {
        /// Its number.
        id: i64,
    },
    /// Apply it after all; only where no later decision has touched its booking.
    Retry {
        /// Its number.
        id: i64,
        #[command(flatten)]
        by: By,
    },
    /// Give it up. Repair afterwards.
    Discard {
        /// Its number.
        id: i64,
        #[command(flatten)]
        by: By,
    },
}

#[derive(Debug, Subcommand)]
enum Gaps {
    /// List what is open, oldest first.
    List,
    /// Read on: the missing decisions may be there now. What is still missing is a gap again.
    Retry {
        /// Its number.
        id: i64,
        /// Where the log has them, in front of the shard's offset or behind it. What was applied is passed.
        #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
        from: Option<i64>,
    },
    /// Take the missing decisions for lost: the shard goes on behind them. Repair afterwards.
    Accept {
        /// Its number.
        id: i64,
        #[command(flatten)]
        by: By,
    },
}

#[derive(Debug, Subcommand)]
enum Alarms {
    /// List what is open, oldest first.
    List,
    /// Close one whose cause was found.
    Resolve {
        /// Its number.
        id: i64,
        #[command(flatten)]
        by: By,
    },
}

/// Parses the command line and does what it says.
///
/// # Errors
/// What stopped the command, for a person to read.
pub async fn main() -> anyhow::Result<ExitCode> {
    let Cli { command, options } = Cli::parse();
    let default_filter = if matches!(command, Command::Run | Command::Migrate) { "info" } else { "warn" };
    telemetry::start_logs(options.log_filter().unwrap_or(default_filter))?;
    let config = options.checked()?;
    match command {
        Command::Migrate => migrate::migrate(&config).await?,
        Command::Run => commands::serve(config).await?,
        Command::Once { json } => return commands::once(&config, json).await,
        Command::Status { json } => return commands::status(&config, json).await,
        Command::Audit { event, deep, json } => return commands::audit(&config, event, deep, json).await,
        Command::Repair { event, manner } => return commands::repair(&config, event, &manner).await,
        Command::Rebuild { what, manner } => return commands::rebuild(&config, &what, &manner).await,
        Command::Repairs(Repairs::List { json }) => commands::list_repairs(&config, json).await?,
        Command::DeadLetters(command) => commands::dead_letters(&config, command).await?,
        Command::Gaps(command) => commands::gaps(&config, command).await?,
        Command::Log { shard, from, limit } => commands::log(config, shard, from, limit).await?,
        Command::Alarms(command) => return commands::alarms(&config, command).await,
        Command::Limits(Limits::Top { policy, minutes, lines, json }) => {
            commands::top_offenders(&config, policy.as_deref(), minutes, lines, json).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
