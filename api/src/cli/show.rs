//! What the commands print: for people, or JSON for machines.

use anyhow::Context;
use boxoffice_schema::time;
use chrono::{DateTime, Utc};
use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::FromRow;

use crate::database;
use crate::identity::{KeyRow, PREFIX};

#[derive(Args, Debug)]
pub(super) struct AuditLog {
    /// The most entries.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// One event or key only, as in `event 0198…`.
    #[arg(long, value_name = "TARGET")]
    target: Option<String>,
    /// For machines.
    #[arg(long)]
    json: bool,
}

#[derive(FromRow, Serialize)]
struct Entry {
    at: DateTime<Utc>,
    who: String,
    action: String,
    target: String,
    before: Option<Value>,
    after: Option<Value>,
    request_id: String,
    outcome: String,
}

pub(super) async fn run(command: AuditLog, database_url: SecretString) -> anyhow::Result<()> {
    let mut connection = database::connect(&database_url).await?;
    let entries: Vec<Entry> = sqlx::query_as(
        "SELECT * FROM (SELECT * FROM audit_log WHERE $1::text IS NULL OR target = $1 \
         ORDER BY at DESC LIMIT $2) AS latest ORDER BY at",
    )
    .bind(&command.target)
    .bind(i64::from(command.limit))
    .fetch_all(&mut connection)
    .await
    .context("the audit log could not be read")?;
    if command.json {
        println!("{}", serde_json::to_string_pretty(&entries)?);
        return Ok(());
    }
    for entry in &entries {
        let Entry { who, action, target, request_id, outcome, .. } = entry;
        println!(
            "{}  {action}  {target}  {outcome}  by {who}  request {request_id}",
            time::rfc3339(entry.at)
        );
        for (word, state) in [("before", &entry.before), ("after", &entry.after)] {
            if let Some(state) = state {
                println!("    {word:6}  {state}");
            }
        }
    }
    Ok(())
}

/// The only place where a key's text is printed.
pub(super) fn new_key(row: &KeyRow, text: &SecretString, json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", json!({ "key": text.expose_secret(), "details": row }));
        return Ok(());
    }
    keys(std::slice::from_ref(row), false)?;
    println!(
        "\n{}\n\nThis is the whole key. It is shown only now: keep it where secrets are kept.",
        text.expose_secret()
    );
    Ok(())
}

pub(super) fn keys(rows: &[KeyRow], json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(rows)?);
        return Ok(());
    }
    for row in rows {
        let owner = row.storefront.as_deref().map_or("operator".to_owned(), |id| format!("storefront {id}"));
        println!(
            "{PREFIX}{}  {:8}  until {}  {owner}  {}",
            row.id,
            row.state(),
            time::rfc3339(row.expires_at),
            row.name
        );
        println!("    {}", row.scopes.join(" "));
    }
    Ok(())
}
