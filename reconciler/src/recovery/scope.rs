//! How much a recovery restores: what Redis lost, or what somebody asked to be rebuilt.

use std::collections::BTreeSet;

use boxoffice_schema::event::EventImage;
use boxoffice_schema::ids::EventId;
use boxoffice_schema::position::Position;
use boxoffice_schema::scripts::Fence;
use boxoffice_schema::shard::Shard;

use crate::open;
use crate::repairs::{self, OpenRebuild, Outcome};

use super::{Recoverer, RecoveryError};

/// What is restored behind the barrier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The shard, if Redis is found to differ.
    Lost,
    /// These events in any case.
    Events(BTreeSet<EventId>),
    /// The shard in any case.
    Shard,
}

impl Scope {
    /// What the open rebuilds of a shard amount to.
    pub(super) fn of(asked: &[OpenRebuild]) -> Self {
        if asked.is_empty() {
            return Self::Lost;
        }
        let events: Option<BTreeSet<EventId>> = asked.iter().map(|rebuild| rebuild.event_id).collect();
        events.map_or(Self::Shard, Self::Events)
    }

    /// The events that alone are restored; none where all are.
    pub(super) fn events(&self) -> Option<&BTreeSet<EventId>> {
        match self {
            Self::Events(events) => Some(events),
            Self::Lost | Self::Shard => None,
        }
    }
}

impl RecoveryError {
    /// Whether trying again is of no use before somebody has mended something else.
    fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Blocked { .. }
                | Self::Doubtful { .. }
                | Self::Unrestorable(_)
                | Self::Outbox { .. }
                | Self::LogBehind { .. }
        )
    }
}

impl Recoverer {
    /// One attempt at a shard, with what was asked for. A rebuild that fails on the way stays asked for, and is
    /// begun again. `Err` holds in words why the shard is not certified.
    pub(super) async fn attend(&self, shard: Shard) -> Result<(), String> {
        let asked = match repairs::open_rebuilds(&self.pool, &[shard]).await {
            Ok(asked) => asked,
            Err(error) => return self.conclude(shard, Err(error.into())).await,
        };
        let scope = Scope::of(&asked);
        if let Err(refusal) = self.check_rebuild(shard, &scope).await {
            // No alarm: the shard is as it was, and the row of the rebuild says why.
            if refusal.is_refusal() {
                self.end(asked, Outcome::Refused, &refusal.to_string())
                    .await
                    .map_err(|error| error.to_string())?;
            }
            return Err(refusal.to_string());
        }
        let result = self.recover(shard, &scope).await;
        let ended = match &result {
            Ok(at) => Some((Outcome::Done, format!("restored and certified at {at}"))),
            Err(error) if error.is_refusal() => Some((Outcome::Refused, error.to_string())),
            Err(_) => None,
        };
        // Before a rebuild ends: the command that waits for it may be what runs this, and goes then.
        let concluded = self.conclude(shard, result.map(drop)).await;
        if let Some((outcome, after)) = ended {
            self.end(asked, outcome, &after).await.map_err(|error| error.to_string())?;
        }
        concluded
    }

    /// A shard that sells is not closed for a rebuild that would be refused.
    async fn check_rebuild(&self, shard: Shard, scope: &Scope) -> Result<(), RecoveryError> {
        if *scope == Scope::Lost {
            return Ok(());
        }
        self.check_unblocked(shard).await?;
        self.check_restorable(shard).await?;
        self.check_counts(shard, scope).await
    }

    async fn end(&self, asked: Vec<OpenRebuild>, outcome: Outcome, after: &str) -> sqlx::Result<()> {
        for rebuild in asked {
            repairs::end(&mut *self.pool.acquire().await?, rebuild.id, outcome, after).await?;
        }
        Ok(())
    }

    /// Compares; lets Redis say what PostgreSQL lost; restores what is to be restored, and looks again. `last` is the last
    /// decision of Redis; returns that which it has then.
    pub(super) async fn put_in_order(
        &self,
        shard: Shard,
        fence: Fence<'_>,
        last: Position,
        scope: &Scope,
    ) -> Result<Position, RecoveryError> {
        // Of an attempt that failed while Redis said something.
        repairs::end_interrupted(&self.pool, shard, true).await?;
        let mut found = self.compare(shard, fence.epoch, last).await;
        let mut at = last;
        let shall_look = match &found {
            // An attempt that ended in the middle may have left alarms that were true before Redis said what it did.
            Ok(()) => *scope != Scope::Lost || open::of_shard(&self.pool, shard).await?.differing > 0,
            Err(difference) => matches!(difference, RecoveryError::Mismatch(_)),
        };
        if shall_look {
            let is_restored = found.is_err() || *scope != Scope::Lost;
            at = self.restate_unrecorded(shard, fence, last, is_restored).await?;
            // It is equal by now, or something was found to be lost on the way.
            found = self.compare(shard, fence.epoch, at).await;
        }
        match (found, scope) {
            (Ok(()), Scope::Lost) => Ok(at),
            (Ok(()), Scope::Shard) => self.restore_and_compare(shard, fence, scope).await,
            (found @ (Ok(()) | Err(RecoveryError::Mismatch(_))), Scope::Events(_)) => {
                if let Err(difference) = &found {
                    self.raise(shard, difference).await?;
                }
                match self.restore_and_compare(shard, fence, scope).await {
                    // Something else of the shard is wrong as well.
                    Err(difference @ RecoveryError::Mismatch(_)) => {
                        self.put_right(shard, fence, &difference).await
                    }
                    restored => restored,
                }
            }
            (Err(difference @ (RecoveryError::RedisLost { .. } | RecoveryError::Mismatch(_))), _) => {
                self.put_right(shard, fence, &difference).await
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Says that Redis is not what it should be, and restores the shard.
    async fn put_right(
        &self,
        shard: Shard,
        fence: Fence<'_>,
        difference: &RecoveryError,
    ) -> Result<Position, RecoveryError> {
        self.raise(shard, difference).await?;
        self.restore_and_compare(shard, fence, &Scope::Shard).await
    }

    async fn restore_and_compare(
        &self,
        shard: Shard,
        fence: Fence<'_>,
        scope: &Scope,
    ) -> Result<Position, RecoveryError> {
        self.check_restorable(shard).await?;
        if scope.events().is_none() {
            self.check_unpublished(shard).await?;
        }
        let last = self.restore(shard, fence, scope.events()).await?;
        self.compare(shard, fence.epoch, last).await?;
        Ok(last)
    }

    /// What PostgreSQL takes for a draft, or does not know, is not restored, and must not go on in a Redis that went back in time,
    /// nor lose its holds with those of the others.
    async fn check_unpublished(&self, shard: Shard) -> Result<(), RecoveryError> {
        let Some(EventImage { id, status, slots, .. }) =
            self.live_unpublished(shard, &self.live_events(shard).await?).await?.pop()
        else {
            return Ok(());
        };
        let has_row: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM events WHERE id = $1)")
            .bind(id.as_uuid())
            .fetch_one(&self.pool)
            .await?;
        let why = if has_row {
            format!(
                "PostgreSQL, which lost its publication, takes it for a draft: make it there what it is (UPDATE events SET \
                 status = '{status}', slots = {slots}, frozen_at = now() WHERE id = '{id}')"
            )
        } else {
            let keys = &self.redis.keys;
            format!(
                "PostgreSQL has no row of it: copy Redis' data, and then insert it there with its ticket types, as it stands in \
                 Redis, or give it up, with all of its bookings (DEL '{}' '{}' in Redis)",
                keys.event(shard, id),
                keys.customers(shard, id)
            )
        };
        Err(RecoveryError::Unrestorable(format!("event {id} is {status} in Redis, and {why}")))
    }
}
