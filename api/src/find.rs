//! Finding an event: in Redis where it is published, in PostgreSQL where it is a draft, is over, or Redis is away.

use std::sync::Arc;
use std::time::Duration;

use boxoffice_schema::event::EventImage;
use boxoffice_schema::ids::EventId;
use boxoffice_schema::scripts::EventSnapshot;
use boxoffice_schema::status::EventStatus;
use chrono::{DateTime, Utc};

use crate::database::Database;
use crate::error::{Code, Problem};
use crate::inventory::{Inventory, InventoryError};
use crate::record::{self, StoredEvent};

/// A read of Redis, so that there is time left for asking PostgreSQL.
const READ_WITHIN: Duration = Duration::from_millis(700);

/// The two stores that know events.
#[derive(Clone)]
pub(crate) struct Stores {
    pub(crate) inventory: Inventory,
    pub(crate) database: Database,
}

/// Where an event was found.
pub(crate) enum Found {
    /// In Redis.
    Live {
        /// The same one for all who share the read.
        event: Arc<EventImage>,
        /// Whether its shard may sell.
        certified: bool,
        /// Redis' clock.
        now: DateTime<Utc>,
    },
    /// In PostgreSQL.
    Recorded {
        stored: Box<StoredEvent>,
        /// Why Redis did not answer, unless it did.
        redis: Option<InventoryError>,
    },
}

impl Found {
    /// What Redis has shown, where it has the event.
    fn live(snapshot: &EventSnapshot) -> Option<Self> {
        let EventSnapshot { event, certified, now, .. } = snapshot;
        event.clone().map(|event| Self::Live { event, certified: *certified, now: *now })
    }

    pub(crate) fn event(&self) -> &EventImage {
        match self {
            Self::Live { event, .. } => event,
            Self::Recorded { stored, .. } => &stored.image,
        }
    }

    /// Whether a Redis that was checked should have answered instead. A draft is nowhere else, and an event that is over need not be.
    pub(crate) fn is_stale(&self) -> bool {
        match self {
            Self::Live { certified, .. } => !certified,
            Self::Recorded { stored, redis: Some(_) } => stored.frozen,
            Self::Recorded { stored, redis: None } => {
                stored.applied && stored.image.status != EventStatus::Closed
            }
        }
    }
}

impl Stores {
    /// The event, wherever it is.
    pub(crate) async fn find(&self, id: EventId) -> Result<Found, Problem> {
        let seen = self.snapshot(id).await;
        if let Some(live) = seen.as_ref().ok().and_then(Found::live) {
            return Ok(live);
        }
        // Boxed, so that a read which Redis answers does not carry the room for it around, some nine kilobytes.
        let stored = match Box::pin(self.recorded(id)).await {
            Ok(Some(stored)) => Box::new(stored),
            Ok(None) => return Err(unknown(seen)),
            Err(problem) => return Err(seen.err().map_or(problem, Problem::from)),
        };
        let redis = seen.err();
        // It may have been published after Redis was asked and before PostgreSQL was.
        if stored.frozen && redis.is_none() {
            return match self.snapshot(id).await {
                Ok(snapshot) => Ok(Found::live(&snapshot).unwrap_or(Found::Recorded { stored, redis: None })),
                Err(error) => Ok(Found::Recorded { stored, redis: Some(error) }),
            };
        }
        Ok(Found::Recorded { stored, redis })
    }

    /// The event as it may be shown. What an unverified Redis holds may be older than what was acknowledged, so that PostgreSQL comes
    /// before it, unless that does not answer, or has yet to hear of the publication.
    pub(crate) async fn find_to_show(&self, id: EventId) -> Result<Found, Problem> {
        let found = self.find(id).await?;
        if !matches!(found, Found::Live { certified: false, .. }) {
            return Ok(found);
        }
        match Box::pin(self.recorded(id)).await {
            Ok(Some(stored)) if stored.image.status != EventStatus::Draft => {
                Ok(Found::Recorded { stored: Box::new(stored), redis: Some(InventoryError::Unverified) })
            }
            _ => Ok(found),
        }
    }

    /// As PostgreSQL has it.
    pub(crate) async fn recorded(&self, id: EventId) -> Result<Option<StoredEvent>, Problem> {
        Ok(self.database.run(async |connection| record::event(connection, id).await).await?)
    }

    /// As Redis has it.
    pub(crate) async fn snapshot(&self, id: EventId) -> Result<EventSnapshot, InventoryError> {
        let late =
            || InventoryError::RedisUnavailable(format!("no answer within {} ms", READ_WITHIN.as_millis()));
        let read = tokio::time::timeout(READ_WITHIN, self.inventory.event(id));
        read.await.unwrap_or_else(|_| Err(late()))
    }
}

const BEHIND: &str = "PostgreSQL does not know this event yet: it has not applied the log as far.";

/// What is said of an event that PostgreSQL does not know, by what Redis has shown. Every event begins in PostgreSQL, which may be
/// reading on from a backup: there is no such event only where a Redis that was checked does not have it either.
pub(crate) fn unknown(seen: Result<EventSnapshot, InventoryError>) -> Problem {
    match seen {
        Ok(EventSnapshot { event: Some(_), .. }) => Problem::because(Code::PostgresUnavailable, BEHIND),
        Ok(EventSnapshot { certified: true, .. }) => Problem::new(Code::EventNotFound),
        Ok(_) => Problem::new(Code::InventoryUnverified),
        Err(error) => error.into(),
    }
}
