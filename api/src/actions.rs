//! What operators do, written down with it: in the transaction that does it or, where Redis decides, before Redis is
//! asked. Nothing is done without an entry.

use actix_web::{HttpMessage, HttpRequest};
use boxoffice_schema::event::EventImage;
use boxoffice_schema::ids::EventId;
use boxoffice_schema::scripts::EventOutcome;
use serde::Serialize;
use serde_json::Value;
use sqlx::postgres::PgConnection;

use crate::database::Database;
use crate::identity::Caller;
use crate::inventory::InventoryError;
use crate::observe::RequestId;

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
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome {
    Done,
    /// Nothing was changed.
    Refused,
    /// Redis did not answer: the log of decisions tells.
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
        let request_id = request.extensions().get::<RequestId>().map(|RequestId(id)| id.clone());
        Self { who: caller.to_string(), request_id: request_id.unwrap_or_default() }
    }
}

/// An action on one thing.
pub(crate) struct Entry<'a> {
    pub(crate) by: &'a Actor,
    pub(crate) action: Action,
    /// As in `event 0198…` or `key 3f…`.
    pub(crate) target: String,
    pub(crate) before: Option<Value>,
}

impl<'a> Entry<'a> {
    /// Without a state before.
    pub(crate) fn new(by: &'a Actor, action: Action, target: String) -> Self {
        Self { by, action, target, before: None }
    }

    /// On an event.
    pub(crate) fn of_event(by: &'a Actor, action: Action, id: EventId) -> Self {
        Self::new(by, action, format!("event {id}"))
    }

    /// With what was so before.
    pub(crate) fn changing(self, before: &impl Serialize) -> Self {
        Self { before: shown(before), ..self }
    }

    /// Writes what is done in the same transaction.
    pub(crate) async fn record(
        self,
        connection: &mut PgConnection,
        after: &impl Serialize,
    ) -> sqlx::Result<()> {
        self.insert(connection, Some(Outcome::Done), shown(after)).await.map(drop)
    }

    /// Writes what is about to be asked of Redis, and returns its number for [`end`].
    pub(crate) async fn begin(self, connection: &mut PgConnection) -> sqlx::Result<i64> {
        self.insert(connection, None, None).await
    }

    async fn insert(
        self,
        connection: &mut PgConnection,
        outcome: Option<Outcome>,
        after: Option<Value>,
    ) -> sqlx::Result<i64> {
        sqlx::query_scalar(
            "INSERT INTO operator_actions (who, action, target, before, after, request_id, outcome, ended_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, CASE WHEN $7 IS NOT NULL THEN now() END) RETURNING id",
        )
        .bind(&self.by.who)
        .bind(self.action.as_str())
        .bind(self.target)
        .bind(self.before)
        .bind(after)
        .bind(&self.by.request_id)
        .bind(outcome.map(Outcome::as_str))
        .fetch_one(connection)
        .await
    }
}

/// Says how an action ended that Redis decided. The decision stands whether or not this can be written: without it the
/// entry says that the outcome is unknown, and the log of decisions tells.
pub(crate) async fn end(database: &Database, id: i64, decided: &Result<EventOutcome, InventoryError>) {
    let (outcome, after) = outcome_of(decided);
    let after = after.and_then(shown);
    let write = async |connection: &mut PgConnection| {
        sqlx::query("UPDATE operator_actions SET outcome = $2, after = $3, ended_at = now() WHERE id = $1")
            .bind(id)
            .bind(outcome.as_str())
            .bind(&after)
            .execute(connection)
            .await?;
        Ok(())
    };
    if let Err(error) = database.run(write).await {
        tracing::warn!(%error, id, outcome = outcome.as_str(), "the outcome of an operator's action was not written");
    }
}

fn outcome_of(decided: &Result<EventOutcome, InventoryError>) -> (Outcome, Option<&EventImage>) {
    match decided {
        Ok(EventOutcome::Changed(event) | EventOutcome::Unchanged(event)) => (Outcome::Done, Some(event)),
        Ok(_) | Err(InventoryError::Unverified | InventoryError::OutboxFull | InventoryError::Overloaded) => {
            (Outcome::Refused, None)
        }
        Err(_) => (Outcome::Unknown, None),
    }
}

/// Our own types always serialize.
fn shown(state: &impl Serialize) -> Option<Value> {
    serde_json::to_value(state).ok()
}
