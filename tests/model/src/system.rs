//! The whole system as one state, and everything that can happen to it next.

use crate::action::Action;
use crate::client::Client;
use crate::postgres::Postgres;
use crate::reader::Fetch;
use crate::record::{Position, Record, Stock};
use crate::recovery::{self, Recovery};
use crate::redis::{Identity, Keys, Redis};
use crate::relay::Round;
use crate::scenario::Model;

/// What may still happen, of what the scenario bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Left {
    /// Requests to book.
    pub asks: u8,
    /// Requests to confirm or cancel.
    pub moves: u8,
    /// Restarts of Redis.
    pub restarts: u8,
    /// Losses of Redis' folder.
    pub losses: u8,
    /// Promotions of the replica.
    pub promotions: u8,
    /// Publications.
    pub publications: u8,
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The Redis that everybody talks to.
    pub redis: Redis,
    /// What is on its disk.
    pub disk: Keys,
    /// Its replica; in scenarios without one it is never promoted.
    pub replica: Redis,
    /// The next name of a process or a history.
    pub fresh_name: u8,
    /// The part of the log that PostgreSQL's offset has not passed.
    pub log: Vec<Record>,
    /// The record.
    pub postgres: Postgres,
    /// Clients.
    pub clients: Vec<Client>,
    /// Rounds of relays; the number is the token.
    pub rounds: Vec<Round>,
    /// Fetches of the reconcilers.
    pub fetches: Vec<Fetch>,
    /// Attempts at recovery.
    pub recoveries: Vec<Recovery>,
    /// How far the API instances know the shard to be confirmed.
    pub noted: Position,
    /// Time is past the expiry of all holds.
    pub overdue: bool,
    /// What may still happen.
    pub left: Left,
    /// Not in any store: the Redis that was really compared with the log last, and has not changed since.
    pub verified: Option<Identity>,
    /// Not in any store: something was decided in a Redis that was not verified.
    pub guessed: bool,
}

impl State {
    /// A certified shard with nothing sold.
    pub fn new(model: &Model) -> Self {
        let scenario = &model.scenario;
        let identity = Identity { process: 0, history: 0 };
        let keys = Keys {
            epoch: 1,
            certificate: Some((identity, 1)),
            stock: Some(Stock::default()),
            ..Keys::default()
        };
        Self {
            redis: Redis { identity, keys: keys.clone() },
            disk: keys.clone(),
            replica: Redis { identity: Identity { process: 1, history: 0 }, keys },
            fresh_name: 2,
            log: vec![],
            postgres: Postgres::default(),
            clients: vec![Client::default(); scenario.clients.into()],
            rounds: vec![Round::NotStarted; scenario.rounds],
            fetches: vec![Fetch::NotStarted; scenario.fetches],
            recoveries: vec![Recovery::NotStarted; scenario.recoveries],
            noted: Position { epoch: 1, sequence: 0 },
            overdue: false,
            left: Left {
                asks: scenario.asks,
                moves: scenario.moves,
                restarts: scenario.restarts,
                losses: scenario.losses,
                promotions: scenario.promotions,
                publications: scenario.publications,
            },
            verified: Some(identity),
            guessed: false,
        }
    }

    /// What is so afterwards; `None` where it cannot happen.
    pub fn after(&self, model: &Model, action: Action) -> Option<Self> {
        match action {
            Action::Book(client) => self.book(model, client),
            Action::Confirm(client) => self.confirm(model, client),
            Action::Cancel(client) => self.cancel(model, client),
            Action::Answer(client) => self.answer(model, client),
            Action::Publish => self.publish(model),
            Action::RunOut => self.run_out(model),
            Action::Expire(client) => self.expire(model, client),
            Action::Vanish(client) => self.vanish(client),
            Action::Read(round) => self.read(model, round),
            Action::Send(round) => self.send(round),
            Action::Trim(round) => self.trim(model, round),
            Action::Apply => self.apply(model),
            Action::Fetch(fetch) => self.fetch(model, fetch),
            Action::Write(fetch) => self.write(model, fetch),
            Action::Recover(attempt) => recovery::step(model, self, attempt),
            Action::Sync | Action::Restart | Action::LoseDisk => self.fail(model, action),
            Action::Replicate | Action::Promote => self.fail_over(action),
        }
    }
}
