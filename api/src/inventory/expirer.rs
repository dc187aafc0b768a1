//! Gives the tickets of overdue holds back. The instance that holds a shard's lease does it for that shard; two at
//! once would harm nothing, since expiring is a decision like any other.

use std::collections::HashMap;
use std::time::Duration;

use boxoffice_schema::DecodeError;
use boxoffice_schema::ids::EventId;
use boxoffice_schema::scripts::{self, BATCH_MAX, Expire, OutboxBounds, Outcome, Target, decision_call};
use boxoffice_schema::shard::Shard;
use redis::Value;

use super::{InventoryError, Shared};

/// Stock is back within a second of its hold's expiry; this is how often we look.
const INTERVAL: Duration = Duration::from_millis(200);

/// After a hold that is due could not be expired: an operator must look, and is told no more often than this.
const FAILURE_PAUSE: Duration = Duration::from_secs(5);

/// Slots of events, which never change once an event is published.
const KNOWN_EVENTS_MAX: usize = 10_000;

/// Never returns; dropped when the lease is lost.
pub(super) async fn expire(shared: &Shared, shard: Shard) {
    let mut slots = HashMap::new();
    loop {
        match expire_due(shared, shard, &mut slots).await {
            Ok(BATCH_MAX) => continue,
            Ok(_) => {}
            // A shard that is being verified or a Redis that is away is said elsewhere, once.
            Err(InventoryError::Unverified | InventoryError::RedisUnavailable(_)) => {}
            Err(error) => {
                tracing::error!(%error, %shard, "holds were not expired; trying again");
                tokio::time::sleep(FAILURE_PAUSE).await;
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Expires at most one batch; the number of holds that were expired.
async fn expire_due(
    shared: &Shared,
    shard: Shard,
    slots: &mut HashMap<EventId, u32>,
) -> Result<usize, InventoryError> {
    let members: Vec<Vec<u8>> = shared.background.run(&scripts::due(&shared.settings.keys, shard)).await?;
    let mut due = Vec::with_capacity(members.len());
    for member in &members {
        let (event_id, booking_id) = Target::parse_subject(member)?;
        let slots = slots_of(shared, shard, event_id, slots).await?;
        due.push(Expire { target: Target { event_id, booking_id, slots } });
    }
    if due.is_empty() {
        return Ok(0);
    }
    // Expiring gives stock back, so it may go beyond the bound that stops new bookings; each booking does it once.
    let bounds = OutboxBounds { frames: u64::MAX >> 12, bytes: u64::MAX >> 12, age_ms: u64::MAX >> 12 };
    let call = decision_call(&shared.settings.keys, shard, bounds, &due);
    let replies: Vec<Value> = shared.background.run(&call).await?;
    let mut expired = 0;
    let mut failure = None;
    for reply in &replies {
        let Value::BulkString(bytes) = reply else { continue };
        let outcome = Outcome::parse(bytes)?;
        metrics::counter!("boxoffice_decisions_total", "script" => "expire", "outcome" => outcome.label())
            .increment(1);
        match outcome {
            Outcome::Changed(_) => expired += 1,
            Outcome::Unchanged(_) => {}
            other => failure = Some(other),
        }
    }
    if expired > 0 {
        shared.wake_ups[&shard].notify_one();
    }
    match failure {
        Some(outcome) => {
            Err(DecodeError::new("expiry set", format!("a due hold is {}", outcome.label())).into())
        }
        None => Ok(expired),
    }
}

async fn slots_of(
    shared: &Shared,
    shard: Shard,
    event: EventId,
    known: &mut HashMap<EventId, u32>,
) -> Result<u32, InventoryError> {
    if let Some(slots) = known.get(&event) {
        return Ok(*slots);
    }
    let key = shared.settings.keys.event(shard, event);
    let slots: Option<u32> = shared.background.command(redis::cmd("HGET").arg(key).arg("slots")).await?;
    let slots = slots.ok_or(InventoryError::Unverified)?;
    if known.len() >= KNOWN_EVENTS_MAX {
        known.clear();
    }
    known.insert(event, slots);
    Ok(slots)
}
