//! What the commands do, between the command line and the modules that do the work.

use std::process::ExitCode;

use anyhow::ensure;
use boxoffice_schema::ids::EventId;
use boxoffice_schema::shard::Shard;
use serde::Serialize;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::audit::{Report, Scope};
use crate::config::Config;
use crate::once::Verdict;
use crate::rebuild::Selection;
use crate::redis_link::RedisLink;
use crate::snapshot;
use crate::{findings, limits, open, postgres, rebuild, repairs, report, run, servers, telemetry};

use super::{Alarms, DeadLetters, Gaps, Manner, What};

pub(super) async fn serve(config: Config) -> anyhow::Result<()> {
    if let Some(listen) = config.metrics_listen {
        telemetry::serve_metrics(listen)?;
        // There before a lease is: of a process that never gets one, a sum over all would say nothing.
        metrics::gauge!(telemetry::name::LEADER).set(0.0);
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

pub(super) async fn status(config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    let status = crate::status::status(config).await?;
    print(json, &status, || report::of_status(&status))?;
    Ok(ExitCode::from(u8::from(!status.healthy)))
}

/// A machine gets an object even where the job could not finish.
pub(super) async fn once(config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    match crate::once::once(config).await {
        Ok(summary) => {
            print(json, &summary, || report::of_once(&summary))?;
            Ok(ExitCode::from(summary.verdict.exit_code()))
        }
        Err(error) if json => {
            let why = format!("{error:#}");
            println!("{}", serde_json::json!({ "verdict": Verdict::Unfinished, "error": why }));
            Ok(ExitCode::from(Verdict::Unfinished.exit_code()))
        }
        Err(error) => Err(error),
    }
}

pub(super) async fn audit(
    config: &Config,
    event: Option<EventId>,
    deep: bool,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let found = compare(config, &Scope::by_hand(config, event, deep)).await?;
    // An audit of one event is not a reconciliation of the installation.
    if event.is_none() {
        crate::audit::record(&postgres::pool(config)?, &found).await?;
    }
    print(json, &found, || report::of_audit(&found))?;
    Ok(ExitCode::from(report::audit_verdict(&found).exit_code()))
}

async fn compare(config: &Config, scope: &Scope) -> anyhow::Result<Report> {
    let pool = postgres::pool(config)?;
    let redis = RedisLink::new(config)?;
    servers::wait_for_all(config, &pool, &redis).await?;
    if let Some(event) = scope.event {
        let shard = config.shards.shard_of(event);
        snapshot::check_published(&pool, &redis, shard, event).await?;
    }
    Ok(crate::audit::audit(&pool, &redis, scope).await?)
}

/// Says what differs, booking by booking, and changes nothing.
async fn run_dry(config: &Config, scope: &Scope, json: bool) -> anyhow::Result<ExitCode> {
    let found = compare(config, scope).await?;
    print(json, &found, || report::of_dry_run(&found))?;
    Ok(ExitCode::from(report::audit_verdict(&found).exit_code()))
}

pub(super) async fn repair(
    config: &Config,
    event: Option<EventId>,
    manner: &Manner,
) -> anyhow::Result<ExitCode> {
    if manner.dry_run {
        return run_dry(config, &Scope::by_hand(config, event, true), manner.json).await;
    }
    let summary = crate::repair::repair(config, event, &manner.by.name).await?;
    print(manner.json, &summary, || report::of_repair(&summary))?;
    Ok(ExitCode::from(report::repair_verdict(&summary).exit_code()))
}

pub(super) async fn dead_letters(config: &Config, command: DeadLetters) -> anyhow::Result<()> {
    let pool = prepared_pool(config).await?;
    match command {
        DeadLetters::List => print!("{}", report::of_items(&open::dead_letters(&pool).await?)),
        DeadLetters::Show { id } => {
            print!("{}", report::of_dead_letter(&crate::dead_letters::show(&pool, id).await?));
        }
        DeadLetters::Retry { id, by } => {
            let outcome = crate::dead_letters::retry(&pool, id, &by.name).await?;
            println!("dead letter {id}: {}", outcome.as_str());
        }
        DeadLetters::Discard { id, by } => {
            crate::dead_letters::discard(&pool, id, &by.name).await?;
            println!(
                "dead letter {id}: discarded; run `boxoffice-reconciler repair`, by which Redis says again what it still knows"
            );
        }
    }
    Ok(())
}

pub(super) async fn log(config: Config, shard: u16, from: Option<i64>, limit: u16) -> anyhow::Result<()> {
    let shard = Shard::from_number(shard);
    let show = move || crate::show::show(&config, shard, from, limit, std::io::stdout().lock());
    tokio::task::spawn_blocking(show).await?
}

pub(super) async fn gaps(config: &Config, command: Gaps) -> anyhow::Result<()> {
    let pool = prepared_pool(config).await?;
    match command {
        Gaps::List => print!("{}", report::of_items(&open::gaps(&pool).await?)),
        Gaps::Retry { id, from } => {
            crate::gaps::retry(config, &pool, id, from).await?;
            println!(
                "gap {id}: the shard reads on; see `boxoffice-reconciler status` for whether it stopped again"
            );
        }
        Gaps::Accept { id, by } => {
            let after = crate::gaps::accept(config, &pool, id, &by.name).await?;
            println!(
                "gap {id}: {after}. Then run `boxoffice-reconciler repair`, by which Redis says again what it still knows"
            );
        }
    }
    Ok(())
}

pub(super) async fn alarms(config: &Config, command: Alarms) -> anyhow::Result<ExitCode> {
    let pool = prepared_pool(config).await?;
    match command {
        Alarms::List => print!("{}", report::of_items(&open::alarms(&pool).await?)),
        Alarms::Resolve { id, by } => {
            if !findings::resolve_one(&pool, id, &by.name).await? {
                println!("there is no open alarm {id}");
                return Ok(ExitCode::FAILURE);
            }
            println!("alarm {id}: resolved");
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn rebuild(config: &Config, what: &What, manner: &Manner) -> anyhow::Result<ExitCode> {
    let selection = match (what.event, what.shard) {
        (Some(event), _) => Selection::Event(event),
        (_, Some(number)) => {
            let shards = config.shards.get();
            ensure!(
                number < shards,
                "there is no shard {number}: they are numbered from 0 to {}",
                shards - 1
            );
            Selection::Shard(Shard::from_number(number))
        }
        (None, None) => Selection::All,
    };
    if manner.dry_run {
        let scope = Scope { shards: selection.shards(config), ..Scope::by_hand(config, what.event, true) };
        return run_dry(config, &scope, manner.json).await;
    }
    let rows = rebuild::rebuild(config, selection, &manner.by.name).await?;
    print(manner.json, &rows, || report::of_rebuilds(&rows))?;
    Ok(ExitCode::from(rebuild::exit_code(&rows)))
}

pub(super) async fn list_repairs(config: &Config, json: bool) -> anyhow::Result<()> {
    let rows = repairs::list(&prepared_pool(config).await?).await?;
    print(json, &rows, || report::of_repairs(&rows))
}

pub(super) async fn top_offenders(
    config: &Config,
    policy: Option<&str>,
    minutes: u16,
    lines: u16,
    json: bool,
) -> anyhow::Result<()> {
    let rows = limits::offenders(&prepared_pool(config).await?, policy, minutes, lines).await?;
    print(json, &rows, || report::of_offenders(&rows))
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
