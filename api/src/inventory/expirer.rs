//! Gives the tickets of overdue holds back. The instance that holds a shard's lease does it for that shard; two at
//! once would harm nothing, since expiring is a decision like any other.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use boxoffice_schema::DecodeError;
use boxoffice_schema::ids::EventId;
use boxoffice_schema::scripts::{
    self, BATCH_MAX, Expire, OutboxBounds, Outcome, Target, decision_call, parse_expiry_member,
};
use boxoffice_schema::shard::Shard;
use redis::Value;

use super::{InventoryError, Shared};

/// Stock is back within a second of its hold's expiry; this is how often we look.
const INTERVAL: Duration = Duration::from_millis(200);

/// An operator must look at holds that are due and cannot be expired, and is told no more often than this.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(5);

/// Slots of events, which never change once an event is published.
const KNOWN_EVENTS_MAX: usize = 10_000;

/// Never returns; dropped when the lease is lost.
pub(super) async fn expire(shared: &Shared, shard: Shard) {
    let mut slots = HashMap::new();
    let mut complained: Option<Instant> = None;
    // Holds that could not be expired stay in front of those that can: while there are more, they are passed over.
    let mut passed_over = 0;
    loop {
        let (is_full, failure) = match expire_due(shared, shard, passed_over, &mut slots).await {
            Ok(Round { found, expired, failure }) => {
                passed_over += found - expired;
                (found == BATCH_MAX, failure.map(InventoryError::from))
            }
            // A shard that is being verified or a Redis that is away is said elsewhere, once.
            Err(InventoryError::Unverified | InventoryError::RedisUnavailable(_)) => (false, None),
            Err(error) => (false, Some(error)),
        };
        if let Some(error) = failure
            && complained.is_none_or(|complained| complained.elapsed() > COMPLAINT_INTERVAL)
        {
            tracing::error!(%error, %shard, "holds were not expired; trying again");
            complained = Some(Instant::now());
        }
        if !is_full {
            passed_over = 0;
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

/// What became of the holds of a batch.
struct Round {
    found: usize,
    expired: usize,
    /// Why one of the others was not, unless it was due no more.
    failure: Option<DecodeError>,
}

/// Expires at most one batch.
async fn expire_due(
    shared: &Shared,
    shard: Shard,
    passed_over: usize,
    slots: &mut HashMap<EventId, u32>,
) -> Result<Round, InventoryError> {
    let due = scripts::due(&shared.settings.keys, shard, passed_over);
    let members: Vec<Vec<u8>> = shared.background.run(&due).await?;
    let mut round = Round { found: members.len(), expired: 0, failure: None };
    let mut unknown = HashSet::new();
    let mut due = Vec::with_capacity(members.len());
    for member in &members {
        let (event_id, booking_id) = parse_expiry_member(member)?;
        let known =
            if unknown.contains(&event_id) { None } else { slots_of(shared, shard, event_id, slots).await? };
        // Where Redis has lost the event's hash, the script closes the shard, whichever slot is named. Where it has nothing
        // of the event, the holds of others go on.
        let slots = known.unwrap_or_else(|| {
            unknown.insert(event_id);
            1
        });
        due.push(Expire { target: Target { event_id, booking_id, slots } });
    }
    if due.is_empty() {
        return Ok(round);
    }
    // Expiring gives stock back, so it may go beyond the bound that stops new bookings; each booking does it once.
    let bounds = OutboxBounds { frames: u64::MAX >> 12, bytes: u64::MAX >> 12, age_ms: u64::MAX >> 12 };
    let call = decision_call(&shared.settings.keys, shard, bounds, &due);
    let replies: Vec<Value> = shared.background.run(&call).await?;
    for (reply, Expire { target }) in replies.iter().zip(&due) {
        let Value::BulkString(bytes) = reply else { continue };
        let outcome = Outcome::parse(bytes)?;
        metrics::counter!("boxoffice_decisions_total", "script" => "expire", "outcome" => outcome.label())
            .increment(1);
        match outcome {
            Outcome::Changed(_) => round.expired += 1,
            Outcome::Unchanged(_) => {}
            other => round.failure = Some(stuck(target.event_id, &other)),
        }
    }
    if round.expired > 0 {
        shared.wake_ups[&shard].notify_one();
    }
    Ok(round)
}

fn stuck(event: EventId, outcome: &Outcome) -> DecodeError {
    DecodeError::new("expiry set", format!("a due hold of event {event} is {}", outcome.label()))
}

/// In how many slots the bookings of an event lie; `None` where Redis does not have the event.
async fn slots_of(
    shared: &Shared,
    shard: Shard,
    event: EventId,
    known: &mut HashMap<EventId, u32>,
) -> Result<Option<u32>, InventoryError> {
    if let Some(slots) = known.get(&event) {
        return Ok(Some(*slots));
    }
    let key = shared.settings.keys.event(shard, event);
    let slots: Option<u32> = shared.background.command(redis::cmd("HGET").arg(key).arg("slots")).await?;
    if let Some(slots) = slots {
        if known.len() >= KNOWN_EVENTS_MAX {
            known.clear();
        }
        known.insert(event, slots);
    }
    Ok(slots)
}
