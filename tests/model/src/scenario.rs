//! Which part of the system a model looks at, and how far: the bounds of its exploration.

use crate::protection::Protection;

/// When a booking is acknowledged (`BOXOFFICE_ACK`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledge {
    /// As soon as Redis has decided. Redis loses nothing then.
    Redis,
    /// When Kafka has confirmed the decision. Redis may lose its latest decisions, or all.
    Kafka,
}

/// What there is, and how often it may happen. Everything else happens at any time, in any order.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// For reports.
    pub name: &'static str,
    /// The mode.
    pub acknowledge: Acknowledge,
    /// Tickets.
    pub capacity: i8,
    /// Clients, each with one idempotency key.
    pub clients: u8,
    /// How often clients ask for a booking, with their keys: the first time and retries of all clients together.
    pub asks: u8,
    /// Bookings are holds at first.
    pub holds: bool,
    /// How often clients confirm or cancel what they hold, all together.
    pub moves: u8,
    /// How often an operator publishes another event of the shard.
    pub publications: u8,
    /// Whether the disk of Redis may lag behind its memory.
    pub disk_lags: bool,
    /// How often Redis dies and starts again from its disk.
    pub restarts: u8,
    /// How often Redis loses everything.
    pub losses: u8,
    /// How often the replica, which lags, is promoted; the former master becomes its replica with what it has.
    pub promotions: u8,
    /// How often recovery is attempted. An attempt may stop for ever before each of its steps, or go on late.
    pub recoveries: usize,
    /// How often a relay reads the outbox. It may stop for ever before each record and before it trims, or go on late;
    /// meanwhile another reads.
    pub rounds: usize,
    /// How often the reconciler fetches a record apart from applying it, and may die or sleep in between. Where it is
    /// 0, both are one step.
    pub fetches: usize,
}

/// The system in a scenario, with all protections or with one left out.
#[derive(Clone, Debug)]
pub struct Model {
    /// What happens.
    pub scenario: Scenario,
    /// The protections that are left out.
    pub left_out: Vec<Protection>,
    /// The only property that is looked at; all where there is none.
    pub only: Option<&'static str>,
}

impl Model {
    /// With all protections.
    pub fn new(scenario: Scenario) -> Self {
        Self::without(scenario, &[])
    }

    /// Without some.
    pub fn without(scenario: Scenario, left_out: &[Protection]) -> Self {
        Self { scenario, left_out: left_out.to_vec(), only: None }
    }

    /// Whether a protection is in force.
    pub fn has(&self, protection: Protection) -> bool {
        !self.left_out.contains(&protection)
    }
}

impl Scenario {
    /// Nothing fails, and one client books one ticket.
    const QUIET: Self = Self {
        name: "quiet",
        acknowledge: Acknowledge::Redis,
        capacity: 1,
        clients: 1,
        asks: 1,
        holds: false,
        moves: 0,
        publications: 0,
        disk_lags: false,
        restarts: 0,
        losses: 0,
        promotions: 0,
        recoveries: 0,
        rounds: 0,
        fetches: 0,
    };

    /// Redis dies and loses the tail of its file.
    pub const fn lost_tail() -> Self {
        Self {
            name: "lost tail",
            acknowledge: Acknowledge::Kafka,
            clients: 2,
            asks: 3,
            disk_lags: true,
            restarts: 1,
            recoveries: 2,
            rounds: 2,
            ..Self::QUIET
        }
    }

    /// Redis dies and loses the tail of its file twice, the second time during a recovery.
    pub const fn lost_tails() -> Self {
        Self { name: "lost tails", asks: 2, restarts: 2, rounds: 1, ..Self::lost_tail() }
    }

    /// Redis loses the tail of its file while an operator publishes.
    pub const fn publication() -> Self {
        Self { name: "publication", asks: 1, publications: 1, recoveries: 1, ..Self::lost_tail() }
    }

    /// Redis loses its folder.
    pub const fn lost_disk() -> Self {
        Self {
            name: "lost disk",
            asks: 2,
            disk_lags: false,
            restarts: 0,
            losses: 1,
            recoveries: 3,
            ..Self::lost_tail()
        }
    }

    /// A replica that lags is promoted, and the former master after it.
    pub const fn fail_over() -> Self {
        Self {
            name: "fail-over and fail-back",
            acknowledge: Acknowledge::Kafka,
            clients: 2,
            asks: 2,
            promotions: 2,
            recoveries: 2,
            rounds: 2,
            ..Self::QUIET
        }
    }

    /// Relays that sleep, readers that sleep, Redis that restarts without loss.
    pub const fn takeover() -> Self {
        Self {
            name: "takeover",
            clients: 2,
            asks: 2,
            capacity: 2,
            restarts: 1,
            recoveries: 1,
            rounds: 2,
            fetches: 4,
            ..Self::QUIET
        }
    }

    /// Holds that are confirmed, cancelled and expired at once.
    pub const fn holds() -> Self {
        Self { name: "holds", clients: 2, asks: 3, holds: true, moves: 3, rounds: 1, ..Self::QUIET }
    }
}
