//! `boxoffice-api keys`: made, listed, ended, exchanged.

use std::os::unix::fs::MetadataExt;

use anyhow::{Context, ensure};
use chrono::{TimeDelta, Utc};
use clap::{Args, Subcommand};
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use super::show;
use crate::actions::Actor;
use crate::database;
use crate::identity::{self, Grant, KeyId, KeyRow, PREFIX, Scope, Scopes};

/// What a storefront's key may be allowed.
const OF_STOREFRONTS: [Scope; 3] = [Scope::BookingsWrite, Scope::BookingsRead, Scope::LimitsCheck];

#[derive(Debug, Subcommand)]
pub(super) enum Keys {
    /// Make a key. It is shown once, now; only its hash is kept.
    Create {
        /// What to call it, for people.
        name: String,
        #[command(flatten)]
        owner: Owner,
        /// What it may do, by commas: events:write, bookings:write, bookings:read, audit:read, limits:check.
        #[arg(long, value_name = "SCOPES", value_delimiter = ',', required = true, value_parser = scope)]
        scopes: Vec<Scope>,
        #[command(flatten)]
        life: Life,
        #[command(flatten)]
        manner: Manner,
    },
    /// Show the keys that are valid now, without their secrets.
    List {
        /// Those that were revoked or have expired as well.
        #[arg(long)]
        all: bool,
        /// For machines.
        #[arg(long)]
        json: bool,
    },
    /// End a key. Every API refuses it within 5 seconds.
    Revoke {
        /// Its id, with or without the prefix; or the whole key.
        id: SecretString,
        #[command(flatten)]
        manner: Manner,
    },
    /// Make another key for the same holder; the old one stays valid for a while.
    Rotate {
        /// The old one's id, with or without the prefix; or the whole key.
        id: SecretString,
        /// Hours for which both are valid; 0 ends the old one now.
        #[arg(long, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(u32).range(0..=8_760))]
        overlap_hours: u32,
        #[command(flatten)]
        life: Life,
        #[command(flatten)]
        manner: Manner,
    },
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(super) struct Owner {
    /// The storefront that it is for: 1 to 63 lower-case letters, digits and hyphens. Its keys share idempotency keys, and
    /// reach only bookings that were made with them.
    #[arg(long, value_name = "ID", value_parser = storefront)]
    storefront: Option<String>,
    /// For whoever operates the installation: reaches every booking.
    #[arg(long)]
    operator: bool,
}

#[derive(Args, Debug)]
pub(super) struct Life {
    /// Days after which it expires.
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3_650))]
    expires_in_days: u32,
}

#[derive(Args, Debug)]
pub(super) struct Manner {
    /// Who does it, for the table of operators' actions.
    #[arg(long = "by", value_name = "NAME", default_value_t = default_name())]
    by: String,
    /// For machines.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(command: Keys, database_url: SecretString) -> anyhow::Result<()> {
    let mut connection = database::connect(&database_url).await?;
    match command {
        Keys::Create { name, owner, scopes, life, manner } => {
            let grant = grant(name, owner.storefront, &scopes, &life)?;
            let (row, text) = identity::create(&mut connection, &grant, &manner.actor()).await?;
            show::new_key(&row, &text, manner.json)
        }
        Keys::List { all, json } => show::keys(&identity::list(&mut connection, all).await?, json),
        Keys::Revoke { id, manner } => {
            let row = identity::revoke(&mut connection, key_id(&id)?, &manner.actor()).await?;
            show::keys(&[row], manner.json)
        }
        Keys::Rotate { id, overlap_hours, life, manner } => {
            let id = key_id(&id)?;
            let overlap = TimeDelta::hours(i64::from(overlap_hours));
            let (expires_at, by) = (life.end(), manner.actor());
            let (row, text) = identity::rotate(&mut connection, id, overlap, expires_at, &by).await?;
            show::new_key(&row, &text, manner.json)
        }
    }
}

fn grant(name: String, storefront: Option<String>, scopes: &[Scope], life: &Life) -> anyhow::Result<Grant> {
    ensure!((1..=100).contains(&name.chars().count()), "a key's name has 1 to 100 characters");
    ensure!(!name.chars().any(char::is_control), "a key's name has no control characters");
    if storefront.is_some() {
        for scope in scopes {
            ensure!(OF_STOREFRONTS.contains(scope), "the scope {scope} is for operators' keys");
        }
    }
    Ok(Grant { name, storefront, scopes: scopes.iter().copied().collect::<Scopes>(), expires_at: life.end() })
}

impl Life {
    fn end(&self) -> chrono::DateTime<Utc> {
        Utc::now() + TimeDelta::days(i64::from(self.expires_in_days))
    }
}

impl Manner {
    fn actor(&self) -> Actor {
        Actor { who: self.by.clone(), request_id: format!("cli-{}", Uuid::now_v7()) }
    }
}

/// The user of this process and its host.
fn default_name() -> String {
    let user = std::env::var("USER").ok().filter(|user| !user.is_empty()).or_else(|| {
        let owner = std::fs::metadata("/proc/self").ok()?.uid();
        Some(format!("uid {owner}"))
    });
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}@{}", user.unwrap_or_else(|| "unknown".to_owned()), host.trim())
}

fn scope(name: &str) -> Result<Scope, String> {
    Scope::parse(name).ok_or_else(|| {
        let names: Vec<&str> = Scope::ALL.into_iter().map(Scope::as_str).collect();
        format!("there are the scopes {}", names.join(", "))
    })
}

/// Also of a whole key: whoever pastes one wants it to end. It is not for the parser of the command line to read, which
/// repeats what it refuses.
fn key_id(text: &SecretString) -> anyhow::Result<KeyId> {
    let text = text.expose_secret();
    let text = text.strip_prefix(PREFIX).unwrap_or(text);
    let (id, _secret) = text.split_once('_').unwrap_or((text, ""));
    KeyId::parse(id).context("an id has 16 hexadecimal digits, as `keys list` shows it")
}

fn storefront(text: &str) -> Result<String, String> {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_id = (1..=63).contains(&text.len()) && text.bytes().all(legal) && !text.starts_with('-');
    is_id.then(|| text.to_owned()).ok_or_else(|| "1 to 63 lower-case letters, digits and hyphens".to_owned())
}

impl KeyRow {
    /// As in the list.
    pub(super) fn state(&self) -> &'static str {
        match (self.revoked_at, self.expires_at > Utc::now(), &self.replaced_by) {
            (Some(_), ..) => "revoked",
            (None, false, _) => "expired",
            (None, true, Some(_)) => "replaced",
            (None, true, None) => "valid",
        }
    }
}
