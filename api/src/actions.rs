//! What operators do, written down with it: in the transaction that does it or, where Redis decides, before Redis is
//! asked. Nothing is done without an entry.

use std::sync::Arc;
use std::time::Duration;

use actix_web::{HttpMessage, HttpRequest};
use boxoffice_schema::event::EventImage;
use boxoffice_schema::ids::EventId;
use boxoffice_schema::scripts::EventOutcome;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::postgres::PgConnection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use crate::database::{Database, DatabaseError};
use crate::error::{Code, Problem};
use crate::identity::Caller;
use crate::inventory::InventoryError;
use crate::observe::RequestId;

/// One write of an entry, so that there is time left to ask Redis.
const WRITTEN_WITHIN: Duration = Duration::from_millis(500);

/// The most entries that wait for PostgreSQL; past it events cannot be changed until it is back.
const WAITING_MAX: usize = 1_000;
const BETWEEN_TRIES: Duration = Duration::from_secs(1);
/// A day of them.
const TRIES_MAX: u32 = 86_400;

/// What was done.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Action {
    CreateEvent,
    PublishEvent,
    AmendEvent,
    CreateKey,
    RevokeKey,
    RotateKey,
}

impl Action {
    const fn as_str(self) -> &'static str {
        match self {
            Self::CreateEvent => "event.create",
            Self::PublishEvent => "event.publish",
            Self::AmendEvent => "event.amend",
            Self::CreateKey => "key.create",
            Self::RevokeKey => "key.revoke",
            Self::RotateKey => "key.rotate",
        }
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// Nothing was changed.
    Refused,
    /// It may have been changed: the log of decisions tells.
    Unknown,
}

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }
}

/// Who does it, and in which request.
#[derive(Clone, Debug)]
pub(crate) struct Actor {
    pub(crate) who: String,
    pub(crate) request_id: String,
}

impl Actor {
    /// Whoever sent a request.
    pub(crate) fn of(caller: &Caller, request: &HttpRequest) -> Self {
        let request_id = request.extensions().get::<RequestId>().map(|id| id.as_str().to_owned());
        Self { who: caller.to_string(), request_id: request_id.unwrap_or_default() }
    }
}

/// An action on one thing.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Its own, so that it is one row however often it has to be written.
    id: Uuid,
    /// When it was done, however much later it is written.
    at: DateTime<Utc>,
    by: Actor,
    action: Action,
    /// As in `event 0198…` or `key 3f…`.
    target: String,
    before: Option<Value>,
}

impl Entry {
    /// Without a state before.
    pub(crate) fn new(by: &Actor, action: Action, target: String) -> Self {
        Self { id: Uuid::now_v7(), at: Utc::now(), by: by.clone(), action, target, before: None }
    }

    /// On an event.
    pub(crate) fn of_event(by: &Actor, action: Action, id: EventId) -> Self {
        Self::new(by, action, format!("event {id}"))
    }

    /// With what was so before.
    pub(crate) fn changing(self, before: &impl Serialize) -> Self {
        Self { before: shown(before), ..self }
    }

    /// Writes what is done in the same transaction.
    pub(crate) async fn record(
        &self,
        connection: &mut PgConnection,
        after: &impl Serialize,
    ) -> sqlx::Result<()> {
        self.insert(connection, Some(&Ended::now(Outcome::Done, shown(after)))).await
    }

    /// Writes what is about to be asked of Redis, and returns its id.
    pub(crate) async fn begin(&self, connection: &mut PgConnection) -> sqlx::Result<Uuid> {
        self.insert(connection, None).await?;
        Ok(self.id)
    }

    /// Where it is written already, by an attempt whose answer came too late, it is only ended.
    async fn insert(&self, connection: &mut PgConnection, ended: Option<&Ended>) -> sqlx::Result<()> {
        sqlx::query(
            "INSERT INTO operator_actions \
             (entry_id, at, who, action, target, before, request_id, after, outcome, ended_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
             ON CONFLICT (entry_id) DO UPDATE \
             SET after = excluded.after, outcome = excluded.outcome, ended_at = excluded.ended_at \
             WHERE operator_actions.outcome IS NULL",
        )
        .bind(self.id)
        .bind(self.at)
        .bind(&self.by.who)
        .bind(self.action.as_str())
        .bind(&self.target)
        .bind(&self.before)
        .bind(&self.by.request_id)
        .bind(ended.and_then(|ended| ended.after.as_ref()))
        .bind(ended.map(|ended| ended.outcome.as_str()))
        .bind(ended.map(|ended| ended.at))
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// How an action ended, and when.
#[derive(Debug)]
struct Ended {
    outcome: Outcome,
    after: Option<Value>,
    at: DateTime<Utc>,
}

impl Ended {
    fn now(outcome: Outcome, after: Option<Value>) -> Self {
        Self { outcome, after, at: Utc::now() }
    }
}

/// Entries of what Redis decides. PostgreSQL may be away while an event must stop selling: then the entry is said in the
/// log, and written as soon as PostgreSQL is back.
#[derive(Clone)]
pub(crate) struct Journal {
    database: Database,
    /// How many more may wait.
    waiting: Arc<Semaphore>,
}

/// An entry whose outcome is not known yet.
pub(crate) enum Begun {
    /// Written, under this id.
    Written(Uuid),
    /// Not written.
    Waiting(Box<Entry>, OwnedSemaphorePermit),
}

impl Journal {
    pub(crate) fn new(database: Database) -> Self {
        Self { database, waiting: Arc::new(Semaphore::new(WAITING_MAX)) }
    }

    /// Writes what is about to be asked of Redis.
    pub(crate) async fn begin(&self, entry: Entry) -> Result<Begun, Problem> {
        let write = self.database.run(async |connection| Ok(entry.begin(connection).await?));
        match tokio::time::timeout(WRITTEN_WITHIN, write).await {
            Ok(Ok(id)) => return Ok(Begun::Written(id)),
            Ok(Err(DatabaseError::Unavailable(_))) | Err(_) => {}
            Ok(Err(error)) => return Err(error.into()),
        }
        let place = self.waiting.clone().try_acquire_owned();
        let place = place.map_err(|_| Problem::new(Code::PostgresUnavailable))?;
        tracing::warn!(?entry, "an operator's action is written down once PostgreSQL is back");
        Ok(Begun::Waiting(Box::new(entry), place))
    }

    /// Says how it ended. The decision stands whether or not this can be written: an entry without it says that the
    /// outcome is unknown, and the log of decisions tells.
    pub(crate) async fn end(&self, begun: Begun, decided: &Result<EventOutcome, InventoryError>) {
        let (outcome, after) = outcome_of(decided);
        let ended = Ended::now(outcome, after.and_then(shown));
        match begun {
            Begun::Written(id) => {
                let write = self.database.run(async |connection| Ok(update(connection, id, &ended).await?));
                if !matches!(tokio::time::timeout(WRITTEN_WITHIN, write).await, Ok(Ok(()))) {
                    tracing::warn!(%id, ?outcome, "the outcome of an operator's action was not written");
                }
            }
            Begun::Waiting(entry, place) => {
                tokio::spawn(self.clone().write_later(entry, ended, place));
            }
        }
    }

    async fn write_later(self, entry: Box<Entry>, ended: Ended, _place: OwnedSemaphorePermit) {
        for _ in 0..TRIES_MAX {
            tokio::time::sleep(BETWEEN_TRIES).await;
            let write =
                self.database.run(async |connection| Ok(entry.insert(connection, Some(&ended)).await?));
            if write.await.is_ok() {
                return;
            }
        }
        tracing::error!(
            ?entry,
            ?ended,
            "an operator's action was never written down: PostgreSQL stayed away"
        );
    }
}

async fn update(connection: &mut PgConnection, id: Uuid, ended: &Ended) -> sqlx::Result<()> {
    sqlx::query("UPDATE operator_actions SET outcome = $2, after = $3, ended_at = $4 WHERE entry_id = $1")
        .bind(id)
        .bind(ended.outcome.as_str())
        .bind(&ended.after)
        .bind(ended.at)
        .execute(connection)
        .await?;
    Ok(())
}

/// Only what Redis refused is known to have changed nothing. Unverified is also what it wrote in part, and what an old primary has
/// decided; and the inventory is overloaded where that could not be found out behind the decision.
fn outcome_of(decided: &Result<EventOutcome, InventoryError>) -> (Outcome, Option<&EventImage>) {
    match decided {
        Ok(EventOutcome::Changed(event) | EventOutcome::Unchanged(event)) => (Outcome::Done, Some(event)),
        Ok(_) | Err(InventoryError::OutboxFull) => (Outcome::Refused, None),
        Err(_) => (Outcome::Unknown, None),
    }
}

/// Our own types always serialize.
fn shown(state: &impl Serialize) -> Option<Value> {
    serde_json::to_value(state).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_certainly_changed_nothing_is_said_to_be_refused() {
        let told = |decided: Result<EventOutcome, InventoryError>| outcome_of(&decided).0;
        for refusal in [
            Ok(EventOutcome::Closed),
            Ok(EventOutcome::OutboxFull),
            Ok(EventOutcome::Unverified),
            Err(InventoryError::OutboxFull),
        ] {
            let said = format!("{refusal:?}");
            assert_eq!(told(refusal), Outcome::Refused, "{said}");
        }
        for error in [
            InventoryError::Unverified,
            InventoryError::Overloaded,
            InventoryError::RedisUnavailable("away".to_owned()),
            InventoryError::KafkaUnavailable,
        ] {
            assert_eq!(told(Err(error.clone())), Outcome::Unknown, "{error}");
        }
    }
}
