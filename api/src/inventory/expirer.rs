//! Gives the tickets of overdue holds back. The instance that holds a shard's lease does it for that shard; two at
//! once would harm nothing, since expiring is a decision like any other.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use boxoffice_schema::ids::EventId;
use boxoffice_schema::scripts::{
    self, BATCH_MAX, Call, Expire, OutboxBounds, Outcome, Target, decision_call, parse_expiry_member,
};
use boxoffice_schema::shard::Shard;
use redis::{ErrorKind, FromRedisValue, RedisError, Value};

use super::link::{classify, is_broken};
use super::{InventoryError, Shared};

/// Stock is back within a second of its hold's expiry; this is how often we look.
const INTERVAL: Duration = Duration::from_millis(200);

/// An operator must look at holds that are due and cannot be expired, and is told no more often than this.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(5);

/// Slots of events, which never change once an event is published.
const KNOWN_EVENTS_MAX: usize = 10_000;

/// Of a member of the expiry set that is no hold only the beginning is told; a hold's has 32 bytes.
const MEMBER_TOLD: usize = 64;

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
                (found == BATCH_MAX, failure)
            }
            Err(Failure::SaidElsewhere) => (false, None),
            Err(Failure::Unsaid(error)) => (false, Some(error)),
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
    failure: Option<String>,
}

/// Why there was no round.
enum Failure {
    /// The shard is being verified, or Redis does not answer: others say so, once.
    SaidElsewhere,
    /// Redis answers, and not what it should: nobody else would say so, and holds would stay for ever.
    Unsaid(String),
}

impl From<InventoryError> for Failure {
    fn from(error: InventoryError) -> Self {
        match error {
            InventoryError::Unverified | InventoryError::RedisUnavailable(_) => Self::SaidElsewhere,
            error => Self::Unsaid(error.to_string()),
        }
    }
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        match classify(&error) {
            InventoryError::RedisUnavailable(why) if !is_broken(&error) => Self::Unsaid(why),
            error => error.into(),
        }
    }
}

async fn run<T: FromRedisValue>(shared: &Shared, call: &Call) -> Result<T, Failure> {
    Ok(shared.background.try_run(call).await??)
}

/// Expires at most one batch.
async fn expire_due(
    shared: &Shared,
    shard: Shard,
    passed_over: usize,
    slots: &mut HashMap<EventId, u32>,
) -> Result<Round, Failure> {
    let due = scripts::due(&shared.settings.keys, shard, passed_over);
    let members: Vec<Vec<u8>> = run(shared, &due).await?;
    let mut round = Round { found: members.len(), expired: 0, failure: None };
    let due = holds_of(shared, shard, &members, slots, &mut round).await?;
    if due.is_empty() {
        return Ok(round);
    }
    // Expiring gives stock back, so it may go beyond the bound that stops new bookings; each booking does it once.
    let bounds = OutboxBounds { frames: u64::MAX >> 12, bytes: u64::MAX >> 12, age_ms: u64::MAX >> 12 };
    let call = decision_call(&shared.settings.keys, shard, bounds, &due);
    let replies = match run::<Vec<Value>>(shared, &call).await {
        // Whatever is wrong with these, the holds behind them are tried.
        Err(Failure::Unsaid(error)) => return Ok(Round { failure: Some(error), ..round }),
        replies => replies?,
    };
    for (reply, Expire { target }) in replies.iter().zip(&due) {
        let Value::BulkString(bytes) = reply else { continue };
        let outcome = match Outcome::parse(bytes) {
            Ok(outcome) => outcome,
            Err(error) => {
                round.failure = Some(stuck(target, &error.to_string()));
                continue;
            }
        };
        metrics::counter!("boxoffice_decisions_total", "script" => "expire", "outcome" => outcome.label())
            .increment(1);
        match outcome {
            Outcome::Changed(_) => round.expired += 1,
            Outcome::Unchanged(_) => {}
            other => round.failure = Some(stuck(target, other.label())),
        }
    }
    if round.expired > 0 {
        shared.wake_ups[&shard].notify_one();
    }
    Ok(round)
}

/// The holds for which members of the expiry set stand. What is no hold is left out, and told.
async fn holds_of(
    shared: &Shared,
    shard: Shard,
    members: &[Vec<u8>],
    slots: &mut HashMap<EventId, u32>,
    round: &mut Round,
) -> Result<Vec<Expire>, Failure> {
    let mut unknown = HashSet::new();
    let mut due = Vec::with_capacity(members.len());
    for member in members {
        let (event_id, booking_id) = match parse_expiry_member(member) {
            Ok(ids) => ids,
            Err(error) => {
                let told = member[..member.len().min(MEMBER_TOLD)].escape_ascii();
                round.failure = Some(format!("{told} in the expiry set is no hold: {error}"));
                continue;
            }
        };
        let known =
            if unknown.contains(&event_id) { None } else { slots_of(shared, shard, event_id, slots).await? };
        // Where Redis has lost the event's hash, or something else lies under its key, the script closes the shard, whichever slot
        // is named. Where it has nothing of the event, the holds of others go on.
        let slots = known.unwrap_or_else(|| {
            unknown.insert(event_id);
            1
        });
        due.push(Expire { target: Target { event_id, booking_id, slots } });
    }
    Ok(due)
}

fn stuck(Target { event_id, booking_id, .. }: &Target, why: &str) -> String {
    format!("the due hold {booking_id} of event {event_id}: {why}")
}

/// In how many slots the bookings of an event lie; `None` where Redis does not say so.
async fn slots_of(
    shared: &Shared,
    shard: Shard,
    event: EventId,
    known: &mut HashMap<EventId, u32>,
) -> Result<Option<u32>, Failure> {
    if let Some(slots) = known.get(&event) {
        return Ok(Some(*slots));
    }
    let key = shared.settings.keys.event(shard, event);
    let read: Result<Option<u32>, RedisError> =
        shared.background.try_command(redis::cmd("HGET").arg(key).arg("slots")).await?;
    let slots = match read {
        // The key is of another type, or the field no number: the holds of other events go on.
        Err(error) if error.code() == Some("WRONGTYPE") || error.kind() == ErrorKind::Parse => None,
        read => read?,
    };
    if let Some(slots) = slots {
        if known.len() >= KNOWN_EVENTS_MAX {
            known.clear();
        }
        known.insert(event, slots);
    }
    Ok(slots)
}
