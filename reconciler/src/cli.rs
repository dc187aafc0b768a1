//! The command line.

use std::process::ExitCode;
use std::time::Duration;

use boxoffice_schema::ids::EventId;
use boxoffice_schema::shard::Shard;
use clap::{Parser, Subcommand};
use serde::Serialize;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::audit::{self, Scope};
use crate::config::{Config, Options};
use crate::redis_link::RedisLink;
use crate::{
    dead_letters, findings, gaps, migrate, once, open, postgres, report, run, servers, status, telemetry,
};

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
        /// For machines.
        #[arg(long)]
        json: bool,
    },
    /// Records that were set aside because they could not be read or applied.
    #[command(subcommand)]
    DeadLetters(DeadLetters),
    /// Decisions that are missing in the log.
    #[command(subcommand)]
    Gaps(Gaps),
    /// Contradictions that were found.
    #[command(subcommand)]
    Alarms(Alarms),
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
    },
    /// Give it up.
    Discard {
        /// Its number.
        id: i64,
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
    },
    /// Take the missing decisions for lost: the shard goes on behind them. Audit afterwards.
    Accept {
        /// Its number.
        id: i64,
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
    },
}

/// How long an audit by hand lets PostgreSQL catch up, and how often it looks again.
const AUDIT_PATIENCE: Duration = Duration::from_secs(10);
const AUDIT_TRIES: usize = 500;

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
        Command::Run => serve(config).await?,
        Command::Once { json } => return run_once(&config, json).await,
        Command::Status { json } => {
            let status = status::status(&config).await?;
            print(json, &status, || report::of_status(&status))?;
            return Ok(ExitCode::from(u8::from(!status.healthy)));
        }
        Command::Audit { event, json } => return run_audit(&config, event, json).await,
        Command::DeadLetters(command) => run_dead_letters(&config, command).await?,
        Command::Gaps(command) => run_gaps(&config, command).await?,
        Command::Alarms(command) => return run_alarms(&config, command).await,
    }
    Ok(ExitCode::SUCCESS)
}

async fn serve(config: Config) -> anyhow::Result<()> {
    if let Some(listen) = config.metrics_listen {
        telemetry::serve_metrics(listen)?;
    }
    let shutdown = CancellationToken::new();
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let asked = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        tracing::info!("shutting down");
        asked.cancel();
    });
    run::run(config, shutdown).await
}

/// A machine gets an object even where the job could not finish.
async fn run_once(config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    match once::once(config).await {
        Ok(summary) => {
            print(json, &summary, || report::of_once(&summary, &config.keys()))?;
            Ok(ExitCode::from(summary.verdict.exit_code()))
        }
        Err(error) if json => {
            let why = format!("{error:#}");
            println!("{}", serde_json::json!({ "verdict": once::Verdict::Unfinished, "error": why }));
            Ok(ExitCode::from(once::Verdict::Unfinished.exit_code()))
        }
        Err(error) => Err(error),
    }
}

async fn run_audit(config: &Config, event: Option<EventId>, json: bool) -> anyhow::Result<ExitCode> {
    let pool = postgres::pool(config)?;
    let redis = RedisLink::new(config)?;
    servers::wait_for_all(config, &pool, &redis).await?;
    let shards: Vec<Shard> = match event {
        Some(event) => vec![config.shards.shard_of(event)],
        None => config.shards.shards().collect(),
    };
    let scope = Scope { shards, event, with_rows: true, patience: AUDIT_PATIENCE, tries: AUDIT_TRIES };
    let found = audit::audit(&pool, &redis, &config.keys(), &scope).await?;
    // An audit of one event is not a reconciliation of the installation.
    if event.is_none() {
        audit::record(&pool, &found).await?;
    }
    print(json, &found, || report::of_audit(&found, &config.keys()))?;
    Ok(ExitCode::from(report::audit_verdict(&found).exit_code()))
}

async fn run_dead_letters(config: &Config, command: DeadLetters) -> anyhow::Result<()> {
    let pool = prepared_pool(config).await?;
    match command {
        DeadLetters::List => print!("{}", report::of_items(&open::dead_letters(&pool).await?)),
        DeadLetters::Show { id } => {
            print!("{}", report::of_dead_letter(&dead_letters::show(&pool, id).await?));
        }
        DeadLetters::Retry { id } => {
            let outcome = dead_letters::retry(&pool, id).await?;
            println!("dead letter {id}: {}", outcome.as_str());
        }
        DeadLetters::Discard { id } => {
            dead_letters::discard(&pool, id).await?;
            println!("dead letter {id}: discarded");
        }
    }
    Ok(())
}

async fn run_gaps(config: &Config, command: Gaps) -> anyhow::Result<()> {
    let pool = prepared_pool(config).await?;
    match command {
        Gaps::List => print!("{}", report::of_items(&open::gaps(&pool).await?)),
        Gaps::Retry { id } => {
            gaps::retry(config, &pool, id).await?;
            println!(
                "gap {id}: the shard reads on; see `boxoffice-reconciler status` for whether it stopped again"
            );
        }
        Gaps::Accept { id } => {
            gaps::accept(config, &pool, id).await?;
            println!("gap {id}: accepted as lost; run `boxoffice-reconciler audit` for what that costs");
        }
    }
    Ok(())
}

async fn run_alarms(config: &Config, command: Alarms) -> anyhow::Result<ExitCode> {
    let pool = prepared_pool(config).await?;
    match command {
        Alarms::List => print!("{}", report::of_items(&open::alarms(&pool).await?)),
        Alarms::Resolve { id } => {
            if !findings::resolve_one(&pool, id).await? {
                println!("there is no open alarm {id}");
                return Ok(ExitCode::FAILURE);
            }
            println!("alarm {id}: resolved");
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn prepared_pool(config: &Config) -> anyhow::Result<PgPool> {
    let pool = postgres::pool(config)?;
    postgres::check_installation(&pool, config.shards).await??;
    Ok(pool)
}

fn print<T: Serialize>(json: bool, value: &T, text: impl FnOnce() -> String) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(value)?);
    } else {
        print!("{}", text());
    }
    Ok(())
}
