//! API keys in PostgreSQL. Every change of them counts the installation's version on, in the same transaction, so that
//! an API sees it at its next look.

use std::sync::Arc;

use anyhow::{Context, ensure};
use boxoffice_schema::text;
use chrono::{DateTime, TimeDelta, Utc};
use secrecy::SecretString;
use serde::Serialize;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, FromRow};

use super::caller::{KeyHolder, KeyId};
use super::keyring::LiveKey;
use super::scope::{Scope, Scopes};
use super::secret::{KeyDigest, NewKey};
use crate::actions::{Action, Actor, Entry};
use crate::database::NOT_PREPARED;

/// The most keys that may be valid at once: every API has them all in memory.
pub(crate) const KEYS_MAX: i64 = 10_000;

/// What a new key is to be.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) name: String,
    /// `None` for an operator's.
    pub(crate) storefront: Option<String>,
    pub(crate) scopes: Scopes,
    pub(crate) expires_at: DateTime<Utc>,
}

/// A key as it may be shown to anybody.
#[derive(Clone, Debug, FromRow, Serialize)]
pub(crate) struct KeyRow {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) storefront: Option<String>,
    pub(crate) scopes: Vec<String>,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) expires_at: DateTime<Utc>,
    pub(crate) revoked_at: Option<DateTime<Utc>>,
    pub(crate) replaced_by: Option<String>,
}

const SHOWN: &str = "id, name, storefront, scopes, created_at, expires_at, revoked_at, replaced_by";

type LiveRow = (String, String, Option<String>, Vec<String>, Vec<u8>, DateTime<Utc>);

/// The keys that are valid now.
pub(crate) async fn live(connection: &mut PgConnection) -> sqlx::Result<Vec<LiveKey>> {
    let rows: Vec<LiveRow> = sqlx::query_as(
        "SELECT id, name, storefront, scopes, digest, expires_at FROM api_keys \
         WHERE revoked_at IS NULL AND expires_at > now() ORDER BY created_at LIMIT $1",
    )
    .bind(KEYS_MAX)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().filter_map(read).collect())
}

/// The table's constraints let nothing in that could not be read; scopes of a newer version allow nothing here.
fn read((id, name, storefront, scopes, digest, expires_at): LiveRow) -> Option<LiveKey> {
    let holder = KeyHolder {
        id: KeyId::parse(&id)?,
        name,
        is_operator: storefront.is_none(),
        owner: storefront.map_or_else(text::Caller::operator, |id| text::Caller::storefront(&id)),
        scopes: scopes.iter().filter_map(|scope| Scope::parse(scope)).collect(),
    };
    Some(LiveKey {
        digest: KeyDigest::from_bytes(digest.try_into().ok()?),
        expires_at,
        holder: Arc::new(holder),
    })
}

/// Every key, or those that are valid now, oldest first.
pub(crate) async fn list(connection: &mut PgConnection, all: bool) -> sqlx::Result<Vec<KeyRow>> {
    let query = format!(
        "SELECT {SHOWN} FROM api_keys WHERE $1 OR (revoked_at IS NULL AND expires_at > now()) ORDER BY created_at, id"
    );
    sqlx::query_as(sqlx::AssertSqlSafe(query)).bind(all).fetch_all(connection).await
}

/// Makes a key. Its text is known to nobody afterwards but to whoever gets it from here.
pub(crate) async fn create(
    connection: &mut PgConnection,
    grant: &Grant,
    by: &Actor,
) -> anyhow::Result<(KeyRow, SecretString)> {
    let mut transaction = connection.begin().await?;
    count_on(&mut transaction).await?;
    let (row, text) = insert(&mut transaction, grant).await?;
    let entry = Entry::new(by, Action::CreateKey, target(&row.id));
    entry.record(&mut transaction, &row).await?;
    transaction.commit().await?;
    Ok((row, text))
}

/// Ends a key now. One that has ended is left as it is.
pub(crate) async fn revoke(connection: &mut PgConnection, id: KeyId, by: &Actor) -> anyhow::Result<KeyRow> {
    let mut transaction = connection.begin().await?;
    count_on(&mut transaction).await?;
    let before = find(&mut transaction, id).await?;
    if before.revoked_at.is_some() {
        return Ok(before);
    }
    let query = format!("UPDATE api_keys SET revoked_at = now() WHERE id = $1 RETURNING {SHOWN}");
    let after: KeyRow =
        sqlx::query_as(sqlx::AssertSqlSafe(query)).bind(&before.id).fetch_one(&mut *transaction).await?;
    let entry = Entry::new(by, Action::RevokeKey, target(&after.id)).changing(&before);
    entry.record(&mut transaction, &after).await?;
    transaction.commit().await?;
    Ok(after)
}

/// Makes another key for the same holder; the old one ends after the overlap, in which both are valid.
pub(crate) async fn rotate(
    connection: &mut PgConnection,
    id: KeyId,
    overlap: TimeDelta,
    expires_at: DateTime<Utc>,
    by: &Actor,
) -> anyhow::Result<(KeyRow, SecretString)> {
    let mut transaction = connection.begin().await?;
    count_on(&mut transaction).await?;
    let old = find(&mut transaction, id).await?;
    ensure!(old.revoked_at.is_none(), "key {id} was revoked; create another one");
    ensure!(old.expires_at > Utc::now(), "key {id} has expired; create another one");
    let scopes = old.scopes.iter().filter_map(|scope| Scope::parse(scope)).collect();
    let grant = Grant { name: old.name.clone(), storefront: old.storefront.clone(), scopes, expires_at };
    let (row, text) = insert(&mut transaction, &grant).await?;
    sqlx::query("UPDATE api_keys SET expires_at = least(expires_at, $2), replaced_by = $3 WHERE id = $1")
        .bind(&old.id)
        .bind(Utc::now() + overlap)
        .bind(&row.id)
        .execute(&mut *transaction)
        .await?;
    let entry = Entry::new(by, Action::RotateKey, target(&old.id)).changing(&old);
    entry.record(&mut transaction, &row).await?;
    transaction.commit().await?;
    Ok((row, text))
}

fn target(id: &str) -> String {
    format!("key {id}")
}

/// First in every transaction: its lock also keeps two changes apart.
async fn count_on(connection: &mut PgConnection) -> anyhow::Result<()> {
    let counted = sqlx::query("UPDATE installation SET keys_version = keys_version + 1")
        .execute(connection)
        .await
        .with_context(|| format!("PostgreSQL is {NOT_PREPARED}"))?;
    ensure!(counted.rows_affected() == 1, "PostgreSQL is {NOT_PREPARED}");
    Ok(())
}

async fn find(connection: &mut PgConnection, id: KeyId) -> anyhow::Result<KeyRow> {
    let query = format!("SELECT {SHOWN} FROM api_keys WHERE id = $1");
    let found = sqlx::query_as(sqlx::AssertSqlSafe(query)).bind(id.to_string()).fetch_optional(connection);
    found.await?.with_context(|| format!("there is no key {id}; `keys list --all` shows which there are"))
}

async fn insert(connection: &mut PgConnection, grant: &Grant) -> anyhow::Result<(KeyRow, SecretString)> {
    let count = "SELECT count(*) FROM api_keys WHERE revoked_at IS NULL AND expires_at > now()";
    let count: i64 = sqlx::query_scalar(count).fetch_one(&mut *connection).await?;
    ensure!(count < KEYS_MAX, "{KEYS_MAX} keys are valid, which is the most; revoke those that nobody uses");
    let key = NewKey::random()?;
    let query = format!(
        "INSERT INTO api_keys (id, name, storefront, scopes, digest, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6) RETURNING {SHOWN}"
    );
    let row = sqlx::query_as(sqlx::AssertSqlSafe(query))
        .bind(key.id.to_string())
        .bind(&grant.name)
        .bind(&grant.storefront)
        .bind(grant.scopes.iter().map(Scope::as_str).collect::<Vec<_>>())
        .bind(key.digest.as_bytes().as_slice())
        .bind(grant.expires_at)
        .fetch_one(connection)
        .await?;
    Ok((row, key.text))
}
