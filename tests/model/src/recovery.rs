//! A recovery, step by step. Between any two steps it may stop for ever, or sleep while another one finishes.

use crate::protection::Protection;
use crate::record::{Booking, Change, Epoch, Position, Record, Stock};
use crate::redis::Identity;
use crate::scenario::Model;
use crate::system::State;

/// What a recovery knows from its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Begun {
    /// Taken in PostgreSQL.
    pub epoch: Epoch,
    /// Of the Redis that it began with.
    pub identity: Identity,
    /// The last decision of that Redis.
    pub last: Position,
}

/// How far an attempt has come; its next step is the name of the function that takes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Recovery {
    /// To come.
    NotStarted,
    /// The epoch is taken.
    Taken(Epoch),
    /// Redis is fenced.
    Begun(Begun),
    /// The outbox is read.
    Drained(Begun, Vec<Record>),
    /// Its records are in Kafka.
    Sent(Begun),
    /// The barrier is in Kafka.
    Bounded(Begun),
    /// Redis is found to lack something.
    Different(Begun),
    /// PostgreSQL is read, and Redis is empty.
    Cleared(Begun, Position, Stock, Vec<Booking>),
    /// Stock and bookings are restored.
    Filled(Begun, Position),
    /// Redis is found to hold what PostgreSQL holds, up to this decision.
    Equal(Begun, Position, bool),
    /// The shard may sell.
    Certified {
        /// Whether Redis had to be restored.
        restored: bool,
    },
    /// Another recovery or another Redis came in between.
    GivenUp,
}

impl Recovery {
    /// The next step, for reports.
    pub const fn next_step(&self) -> &'static str {
        match self {
            Self::NotStarted => "takes the next epoch in PostgreSQL",
            Self::Taken(_) => "begins in Redis, which fences the shard",
            Self::Begun(_) => "reads the outbox",
            Self::Drained(..) => "sends what it read to Kafka",
            Self::Sent(_) => "appends its barrier to the log",
            Self::Bounded(_) => "compares Redis with PostgreSQL",
            Self::Different(_) => "reads PostgreSQL and empties Redis",
            Self::Cleared(..) => "writes stock and bookings into Redis",
            Self::Filled(..) => "writes the position into Redis, and compares again",
            Self::Equal(..) => "certifies the shard",
            Self::Certified { .. } | Self::GivenUp => "is over",
        }
    }
}

/// The next step of an attempt; `None` where it must wait or is over.
pub fn step(model: &Model, state: &State, attempt: usize) -> Option<State> {
    let mut next = state.clone();
    let recovery = match state.recoveries[attempt].clone() {
        Recovery::NotStarted => start(model, &mut next, attempt)?,
        Recovery::Taken(epoch) => begin(&mut next, epoch),
        Recovery::Begun(begun) => drain(model, &next, begun),
        Recovery::Drained(begun, records) => {
            next.log.extend(records);
            Recovery::Sent(begun)
        }
        Recovery::Sent(begun) => append_barrier(model, &mut next, begun),
        Recovery::Bounded(begun) => compare(model, &next, begun)?,
        Recovery::Different(begun) => clear(model, &mut next, begun),
        Recovery::Cleared(begun, last, stock, bookings) => {
            if next.redis.may_restore(model, begun.epoch) {
                next.redis.fill(stock, &bookings);
                Recovery::Filled(begun, last)
            } else {
                Recovery::GivenUp
            }
        }
        Recovery::Filled(begun, last) => finish(model, &mut next, begun, last),
        Recovery::Equal(begun, last, restored) => certify(model, &mut next, begun, last, restored),
        Recovery::Certified { .. } | Recovery::GivenUp => return None,
    };
    next.recoveries[attempt] = recovery;
    Some(next)
}

/// Attempts begin in order, when the shard is not certified and nothing blocks it.
fn start(model: &Model, next: &mut State, attempt: usize) -> Option<Recovery> {
    let is_next = attempt == 0 || next.recoveries[attempt - 1] != Recovery::NotStarted;
    if !is_next || next.redis.is_certified(model) || next.postgres.alarms.gap {
        return None;
    }
    Some(Recovery::Taken(next.postgres.take_epoch(next.redis.keys.epoch)))
}

fn begin(next: &mut State, epoch: Epoch) -> Recovery {
    let identity = next.redis.identity;
    match next.redis.begin_recovery(epoch) {
        Some(last) => Recovery::Begun(Begun { epoch, identity, last }),
        None => Recovery::GivenUp,
    }
}

/// Where this is another Redis by now, its outbox need not reach to the decision that the barrier would name.
fn drain(model: &Model, next: &State, begun: Begun) -> Recovery {
    if next.redis.identity != begun.identity && model.has(Protection::DrainChecksIdentity) {
        return Recovery::GivenUp;
    }
    match &next.redis.keys.outbox[..] {
        [] => Recovery::Sent(begun),
        outbox => Recovery::Drained(begun, outbox.to_vec()),
    }
}

fn append_barrier(model: &Model, next: &mut State, begun: Begun) -> Recovery {
    if model.has(Protection::Barrier) {
        let position = Position { epoch: begun.epoch, sequence: begun.last.sequence };
        next.log.push(Record { position, change: Change::Barrier { last: begun.last } });
    }
    Recovery::Bounded(begun)
}

/// Waits until the barrier is applied.
fn compare(model: &Model, next: &State, begun: Begun) -> Option<Recovery> {
    let (redis, postgres) = (&next.redis.keys, &next.postgres);
    if model.has(Protection::Barrier) {
        if postgres.epoch < begun.epoch {
            return None;
        }
        if postgres.epoch > begun.epoch {
            return Some(Recovery::GivenUp);
        }
    } else if postgres.last.sequence < redis.last.sequence {
        return None;
    }
    // The barrier of a later recovery may come at any time, although this Redis has forgotten that it began.
    let is_taken_over =
        postgres.recovery_epoch != begun.epoch && model.has(Protection::CompareChecksTakenEpoch);
    if redis.epoch != begun.epoch || is_taken_over {
        return Some(Recovery::GivenUp);
    }
    Some(if is_equal(model, next) {
        Recovery::Equal(begun, begun.last, false)
    } else {
        Recovery::Different(begun)
    })
}

fn is_equal(model: &Model, state: &State) -> bool {
    let (redis, postgres) = (&state.redis.keys, &state.postgres);
    let same_decision = if model.has(Protection::CompareChecksLastDecision) {
        redis.last == postgres.last
    } else {
        redis.last.sequence == postgres.last.sequence
    };
    same_decision && redis.stock == Some(postgres.stock)
}

fn clear(model: &Model, next: &mut State, begun: Begun) -> Recovery {
    if !next.redis.may_restore(model, begun.epoch) {
        return Recovery::GivenUp;
    }
    next.redis.clear();
    let stored = &next.postgres;
    Recovery::Cleared(begun, stored.last, stored.stock, stored.bookings.clone())
}

fn finish(model: &Model, next: &mut State, begun: Begun, last: Position) -> Recovery {
    if !next.redis.may_restore(model, begun.epoch) {
        return Recovery::GivenUp;
    }
    next.redis.finish(begun.epoch, last);
    if (next.postgres.epoch == begun.epoch || !model.has(Protection::Barrier)) && is_equal(model, next) {
        Recovery::Equal(begun, last, true)
    } else {
        Recovery::GivenUp
    }
}

fn certify(model: &Model, next: &mut State, begun: Begun, last: Position, restored: bool) -> Recovery {
    if !next.redis.certify(model, begun.epoch, last, begun.identity) {
        return Recovery::GivenUp;
    }
    next.verified = Some(begun.identity);
    Recovery::Certified { restored }
}
