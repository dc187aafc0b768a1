//! Everything that can happen.

use crate::protection::Protection;
use crate::record::{Change, Record};
use crate::relay::Round;
use crate::scenario::Model;
use crate::system::State;

/// One step of one part of the system. Clients, rounds of relays, fetches and recoveries go by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A client asks to book, with its key; the script runs.
    Book(u8),
    /// A client confirms its hold; the script runs.
    Confirm(u8),
    /// A client cancels its booking; the script runs.
    Cancel(u8),
    /// The answer to its latest request reaches a client.
    Answer(u8),
    /// An operator publishes another event of the shard.
    Publish,
    /// Time passes the expiry of all holds.
    RunOut,
    /// The overdue hold of a client is expired.
    Expire(u8),
    /// The overdue hold of a client vanishes by its TTL; only where that is how holds expire.
    Vanish(u8),
    /// A relay takes the lease and reads the outbox.
    Read(usize),
    /// A relay sends its next record, and Kafka confirms it.
    Send(usize),
    /// A relay trims what it sent.
    Trim(usize),
    /// The reconciler applies the next record.
    Apply,
    /// A reconciler fetches the next record.
    Fetch(usize),
    /// A reconciler writes what it fetched.
    Write(usize),
    /// The disk of Redis becomes as its memory.
    Sync,
    /// Redis dies and starts from its disk.
    Restart,
    /// Redis dies and starts with nothing.
    LoseDisk,
    /// The replica becomes as its master.
    Replicate,
    /// The replica is promoted, and its master becomes its replica.
    Promote,
    /// An attempt at recovery takes its next step.
    Recover(usize),
}

/// All that happens in a scenario; what is impossible in a state is left out by [`State::after`].
pub fn candidates(model: &Model, actions: &mut Vec<Action>) {
    let scenario = &model.scenario;
    for client in 0..scenario.clients {
        actions.extend([Action::Book(client), Action::Answer(client)]);
        if scenario.moves > 0 {
            actions.extend([Action::Confirm(client), Action::Cancel(client)]);
        }
        if scenario.holds {
            let expires = model.has(Protection::ExpiryIsADecision);
            actions.push(if expires { Action::Expire(client) } else { Action::Vanish(client) });
        }
    }
    for round in 0..scenario.rounds {
        actions.extend([Action::Read(round), Action::Send(round), Action::Trim(round)]);
    }
    actions.extend((0..scenario.fetches).flat_map(|fetch| [Action::Fetch(fetch), Action::Write(fetch)]));
    actions.extend((0..scenario.recoveries).map(Action::Recover));
    actions.extend([Action::Apply, Action::RunOut, Action::Publish]);
    actions.extend([Action::Sync, Action::Restart, Action::LoseDisk, Action::Replicate, Action::Promote]);
}

/// What an action does in a state, in words.
pub fn describe(state: &State, action: Action) -> String {
    match action {
        Action::Book(client) => format!("client {client} asks to book"),
        Action::Confirm(client) => format!("client {client} confirms its hold"),
        Action::Cancel(client) => format!("client {client} cancels its booking"),
        Action::Answer(client) => format!("client {client} gets its answer"),
        Action::Publish => "an operator publishes another event".to_owned(),
        Action::RunOut => "the holds run out".to_owned(),
        Action::Expire(client) => format!("the hold of client {client} is expired"),
        Action::Vanish(client) => format!("the hold of client {client} vanishes by its TTL"),
        Action::Read(round) => format!("relay {round} takes the lease and reads the outbox"),
        Action::Send(round) => format!("relay {round} sends {}; Kafka confirms it", next_of(state, round)),
        Action::Trim(round) => format!("relay {round} trims what it sent"),
        Action::Apply => format!("the reconciler reads {}", head(state)),
        Action::Fetch(fetch) => format!("reader {fetch} fetches {}", head(state)),
        Action::Write(fetch) => format!("reader {fetch} writes what it fetched"),
        Action::Sync => "Redis syncs its file".to_owned(),
        Action::Restart => "Redis dies and starts from its file".to_owned(),
        Action::LoseDisk => "Redis dies and starts with an empty folder".to_owned(),
        Action::Replicate => "the replica catches up with its master".to_owned(),
        Action::Promote => "the replica is promoted; its master follows it".to_owned(),
        Action::Recover(attempt) => format!("recovery {attempt} {}", state.recoveries[attempt].next_step()),
    }
}

fn next_of(state: &State, round: usize) -> String {
    match &state.rounds[round] {
        Round::Sending(_, records, sent) => name(records.get(*sent)),
        Round::NotStarted | Round::Done => name(None),
    }
}

fn head(state: &State) -> String {
    name(state.log.first())
}

/// Positions are written as everywhere: epoch-sequence.
fn name(record: Option<&Record>) -> String {
    let Some(record) = record else { return "nothing".to_owned() };
    let at = format!("{}-{}", record.position.epoch, record.position.sequence);
    match record.change {
        Change::Booking(booking) => {
            let status = format!("{:?}", booking.status).to_lowercase();
            format!("decision {at} (booking {}: {status})", booking.id)
        }
        Change::Event => format!("decision {at} (published)"),
        Change::Barrier { .. } => format!("the barrier of epoch {}", record.position.epoch),
    }
}
