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
    pub(crate) fn event(&self) -> &EventImage {
        match self {
            Self::Live { event, .. } => event,
            Self::Recorded { stored, .. } => &stored.image,
        }
    }

    /// Whether Redis should have answered instead. A draft is nowhere else, and an event that is over need not be.
    pub(crate) fn is_stale(&self) -> bool {
        match self {
            Self::Live { .. } => false,
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
        let redis = match self.live(id).await {
            Ok(Some(live)) => return Ok(live),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        // Boxed, so that a read which Redis answers does not carry the room for it around, some nine kilobytes.
        let stored = match Box::pin(self.recorded(id)).await {
            Ok(Some(stored)) => Box::new(stored),
            // Every event begins in PostgreSQL, so that it knows.
            Ok(None) => return Err(Problem::new(Code::EventNotFound)),
            Err(problem) => return Err(redis.map_or(problem, Problem::from)),
        };
        // It may have been published after Redis was asked and before PostgreSQL was.
        if stored.frozen && redis.is_none() {
            return match self.live(id).await {
                Ok(Some(live)) => Ok(live),
                Ok(None) => Ok(Found::Recorded { stored, redis: None }),
                Err(error) => Ok(Found::Recorded { stored, redis: Some(error) }),
            };
        }
        Ok(Found::Recorded { stored, redis })
    }

    async fn live(&self, id: EventId) -> Result<Option<Found>, InventoryError> {
        let EventSnapshot { event, certified, now, .. } = self.snapshot(id).await?;
        Ok(event.map(|event| Found::Live { event, certified, now }))
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
