//! The promises, as properties of every state.

use stateright::Property;

use crate::record::{Status, Stock};
use crate::recovery::Recovery;
use crate::scenario::{Acknowledge, Model};
use crate::system::State;

/// Never oversold.
pub const P1: &str = "P1 never oversold";
/// One key, one outcome.
pub const P2: &str = "P2 one key, one outcome";
/// Nothing acknowledged is lost.
pub const P3: &str = "P3 nothing acknowledged is lost";
/// Stock comes back exactly once.
pub const P4: &str = "P4 stock comes back exactly once";
/// Nothing silent.
pub const P5_SILENT: &str = "P5 nothing silent";
/// The sequence has no gap, and names each decision once.
pub const P5_GAP: &str = "P5 no gap and no contradiction";
/// In doubt, refuse.
pub const P6: &str = "P6 in doubt, refuse";

/// All that must hold in every state.
pub fn promises() -> Vec<Property<Model>> {
    vec![
        Property::always(P1, |model: &Model, state: &State| is_not_oversold(model, state)),
        Property::always(P2, |_, state: &State| has_one_outcome(state)),
        Property::always(P3, |model: &Model, state: &State| has_lost_nothing(model, state)),
        Property::always(P4, |model: &Model, state: &State| adds_up(model, state)),
        Property::always(P5_SILENT, |_, state: &State| !state.postgres.silent),
        Property::always(P5_GAP, |_, state: &State| {
            !state.postgres.alarms.gap && !state.postgres.alarms.contradiction
        }),
        Property::always(P6, |_, state: &State| !state.guessed),
    ]
}

/// In a certified Redis, among the acknowledged bookings, and in PostgreSQL, whose guards never have to refuse.
fn is_not_oversold(model: &Model, state: &State) -> bool {
    let redis = state.redis.keys.stock.filter(|_| state.redis.is_certified(model));
    let promised = state.clients.iter().filter(|client| {
        !client.cancels && client.acknowledged.is_some_and(|booking| booking.status == Status::Confirmed)
    });
    redis.is_none_or(|stock| stock.taken() <= model.scenario.capacity)
        && i8::try_from(promised.count()).is_ok_and(|promised| promised <= model.scenario.capacity)
        && !state.postgres.alarms.refused
}

/// For each client, and in PostgreSQL for each key.
fn has_one_outcome(state: &State) -> bool {
    let rows = &state.postgres.bookings;
    state.clients.iter().all(|client| !client.deceived)
        && rows.iter().enumerate().all(|(at, row)| rows[..at].iter().all(|other| other.client != row.client))
}

/// What a client was told is in PostgreSQL, or will be, whatever happens next: in `kafka` mode with what the log holds
/// beyond PostgreSQL's offset, in `redis` mode with what the outbox holds too.
fn has_lost_nothing(model: &Model, state: &State) -> bool {
    let acknowledged = || state.clients.iter().filter_map(|client| client.acknowledged);
    if acknowledged().all(|booking| state.postgres.holds(&booking)) {
        return true;
    }
    let mut postgres = state.postgres.clone();
    let outbox = state.redis.keys.outbox.iter().filter(|_| model.scenario.acknowledge == Acknowledge::Redis);
    for record in state.log.iter().chain(outbox) {
        if !postgres.apply(model, record) {
            break;
        }
    }
    acknowledged().all(|booking| postgres.holds(&booking))
}

/// The counters are what the bookings amount to: no ticket is given back twice, and none is forgotten.
fn adds_up(model: &Model, state: &State) -> bool {
    let redis = &state.redis.keys;
    let postgres = &state.postgres;
    (!state.redis.is_certified(model) || redis.stock == Some(Stock::of(&redis.bookings)))
        && postgres.stock == Stock::of(&postgres.bookings)
}

/// What must be possible, so that the promises are not kept by doing nothing.
pub fn possibilities(model: &Model) -> Vec<Property<Model>> {
    let scenario = &model.scenario;
    let mut properties = vec![Property::sometimes("a booking is acknowledged", |_, state: &State| {
        state.clients.iter().any(|client| client.acknowledged.is_some())
    })];
    if scenario.asks > 1 {
        properties.push(Property::sometimes("a retry finds the booking", |_, state: &State| {
            state.clients.iter().any(|client| client.acknowledged.is_some() && client.waiting.is_some())
        }));
    }
    if scenario.recoveries > 0 {
        properties.push(Property::sometimes(
            "a booking is acknowledged after a recovery",
            |_, state: &State| {
                let mut acknowledged = state.clients.iter().filter_map(|client| client.acknowledged);
                acknowledged.any(|booking| booking.position.epoch > 1)
            },
        ));
    }
    if scenario.acknowledge == Acknowledge::Kafka {
        properties.push(Property::sometimes("Redis is restored", |_, state: &State| {
            state.recoveries.contains(&Recovery::Certified { restored: true })
        }));
        properties.push(Property::sometimes("a late record is refused, and said", |_, state: &State| {
            state.postgres.alarms.ended_epoch
        }));
    }
    if scenario.promotions > 1 {
        properties.push(Property::sometimes("a recovery ends after a fail-back", |model, state: &State| {
            state.left.promotions == 0 && state.redis.is_certified(model)
        }));
    }
    if scenario.holds {
        properties.push(Property::sometimes("an expired hold's ticket is sold again", |_, state: &State| {
            state.postgres.resold()
        }));
    }
    properties
}
