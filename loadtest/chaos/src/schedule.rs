//! What is broken when: drawn from a seed, before anything runs. The same options draw the same schedule.

use std::{fmt, str::FromStr, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};

/// Before the first fault: the load has just begun.
const LEAD: Duration = Duration::from_secs(3);

/// After the last fault is healed: what it disturbed comes to rest while tickets are still sold.
const REST: Duration = Duration::from_secs(6);

/// A run of a minute or more is planned so much shorter, as a part of its length, so that one that runs late shows most of its faults
/// all the same. A shorter one has too few to leave any out.
const SPARE: u32 = 8;

/// See [`SPARE`].
const MINUTE: Duration = Duration::from_secs(60);

/// Between the two faults of a pair.
const PAIR_LAG: Duration = Duration::from_secs(1);

/// Attempts to draw a second fault that goes with the first.
const PARTNER_TRIES: usize = 100;

/// Whom a fault hits. Two faults at once hit two different ones.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Victim {
    /// One of the two API instances.
    Api,
    /// One of the two reconcilers.
    Reconciler,
    /// Redis, its data, or the way to it.
    Redis,
    /// Kafka, or the way to it.
    Kafka,
    /// PostgreSQL, or the way to it.
    Postgres,
}

/// Declares each kind of fault once: its name on the command line, its victim, how long it may last, and what it does.
macro_rules! kinds {
    ($($variant:ident $name:literal $victim:ident $from:literal..=$to:literal $about:literal,)+) => {
        /// A kind of fault.
        #[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
        pub(crate) enum Kind { $(#[doc = $about] $variant,)+ }

        impl Kind {
            /// Every kind, in the order of the documentation.
            pub(crate) const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The name on the command line and in the report.
            pub(crate) fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// Whom it hits.
            pub(crate) fn victim(self) -> Victim {
                match self { $(Self::$variant => Victim::$victim,)+ }
            }

            /// What it does, in a few words.
            pub(crate) fn about(self) -> &'static str {
                match self { $(Self::$variant => $about,)+ }
            }

            /// The shortest and the longest time until it is healed, in milliseconds.
            fn millis(self) -> std::ops::RangeInclusive<u64> {
                match self { $(Self::$variant => $from..=$to,)+ }
            }
        }
    };
}

kinds! {
    ApiKill "api-kill" Api 500..=4_000 "kill -9 of an API instance, and its restart",
    ApiPause "api-pause" Api 1_000..=8_000 "SIGSTOP of an API instance, then SIGCONT",
    RelayKill "relay-kill" Api 500..=6_000 "kill -9 of the API instance that relays most, and its restart",
    RelayPause "relay-pause" Api 3_500..=8_000 "SIGSTOP of the API instance that relays most, past its leases",
    ReconcilerKill "reconciler-kill" Reconciler 500..=6_000 "kill -9 of the leading reconciler, and its restart",
    ReconcilerPause "reconciler-pause" Reconciler 1_000..=8_000 "SIGSTOP of the leading reconciler, then SIGCONT",
    RedisKill "redis-kill" Redis 0..=3_000 "kill -9 of Redis, and its restart with its append-only file",
    RedisPause "redis-pause" Redis 1_000..=8_000 "SIGSTOP of Redis, then SIGCONT",
    RedisTail "redis-tail" Redis 0..=2_000 "kill -9 of Redis, the tail of its append-only file cut off, and its restart",
    RedisWipe "redis-wipe" Redis 0..=2_000 "kill -9 of Redis, its data folder deleted, and its restart",
    RedisFlushall "redis-flushall" Redis 0..=1_000 "FLUSHALL",
    RedisFailover "redis-failover" Redis 1_000..=3_000 "fail-over to a replica that lagged, and back again",
    KafkaKill "kafka-kill" Kafka 500..=4_000 "kill -9 of Kafka, and its restart",
    KafkaPause "kafka-pause" Kafka 1_000..=8_000 "SIGSTOP of Kafka, then SIGCONT",
    PostgresKill "postgres-kill" Postgres 500..=4_000 "kill -9 of PostgreSQL with all its backends, and its restart",
    PostgresPause "postgres-pause" Postgres 1_000..=8_000 "SIGSTOP of PostgreSQL with all its backends, then SIGCONT",
    RedisCut "cut-redis" Redis 0..=4_000 "connections to Redis reset, and refused for a while",
    KafkaCut "cut-kafka" Kafka 0..=6_000 "connections to Kafka reset, and refused for a while",
    PostgresCut "cut-postgres" Postgres 0..=6_000 "connections to PostgreSQL reset, and refused for a while",
    RedisFreeze "freeze-redis" Redis 1_000..=6_000 "nothing passes to or from Redis, and nobody is told",
    KafkaFreeze "freeze-kafka" Kafka 1_000..=6_000 "nothing passes to or from Kafka, and nobody is told",
    PostgresFreeze "freeze-postgres" Postgres 1_000..=6_000 "nothing passes to or from PostgreSQL, and nobody is told",
}

impl Kind {
    /// What its victim is expected to take from its start until everything sells, and a reconciler leads that says so.
    fn healing(self) -> Duration {
        Duration::from_secs(match self {
            Self::RedisFailover => 6,
            Self::KafkaKill => 8,
            Self::PostgresKill => 3,
            // The lease of the one that was killed runs out.
            Self::ReconcilerKill => 4,
            _ if self.victim() == Victim::Redis => 2,
            _ => 1,
        })
    }

    /// Whether Redis may lose decisions that it has answered: only `BOXOFFICE_ACK=kafka` promises to survive it.
    pub(crate) fn loses_redis(self) -> bool {
        matches!(self, Self::RedisTail | Self::RedisWipe | Self::RedisFlushall | Self::RedisFailover)
    }
}

/// When a booking is acknowledged, as `BOXOFFICE_ACK` has it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum Ack {
    /// When Redis has decided.
    Redis,
    /// When Kafka has confirmed as well.
    Kafka,
}

impl Ack {
    /// The value of the variable.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Kafka => "kafka",
        }
    }
}

/// What `--only` names: kinds that happen at once, such as `kafka-pause+redis-wipe`; or any pair.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Choice {
    /// These kinds, each a second after the one before, healed together.
    Kinds(Vec<Kind>),
    /// Two kinds by lot.
    AnyPair,
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "pair" {
            return Ok(Self::AnyPair);
        }
        let find = |name: &str| {
            let found = Kind::ALL.iter().copied().find(|kind| kind.name() == name);
            found.ok_or_else(|| format!("there is no fault {name:?}; --kinds lists them"))
        };
        let kinds = text.split('+').map(find).collect::<Result<Vec<_>, _>>()?;
        let distinct = kinds
            .iter()
            .enumerate()
            .all(|(at, kind)| kinds[..at].iter().all(|other| other.victim() != kind.victim()));
        if distinct {
            Ok(Self::Kinds(kinds))
        } else {
            Err("faults at once must have different victims".to_owned())
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kinds(kinds) => formatter.write_str(&names(kinds)),
            Self::AnyPair => formatter.write_str("pair"),
        }
    }
}

/// As `--only` and the report name kinds that happen at once.
fn names(kinds: &[Kind]) -> String {
    let names: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
    names.join("+")
}

/// What happens at one time: one fault, or several that are healed together.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Fault {
    /// Since the load began.
    pub(crate) at: Duration,
    /// In the order in which they happen, each [`PAIR_LAG`] after the one before.
    pub(crate) kinds: Vec<Kind>,
    /// From the last of them until they are healed, the last one first.
    pub(crate) lasts: Duration,
    /// For what is drawn during the fault: which instance, how much of a file.
    pub(crate) lot: u64,
}

impl Fault {
    /// The pause between two faults that happen at once.
    pub(crate) fn lag() -> Duration {
        PAIR_LAG
    }

    /// As the report names it.
    pub(crate) fn name(&self) -> String {
        names(&self.kinds)
    }

    /// When it is to be healed, since the load began.
    fn end(&self) -> Duration {
        self.end_from(self.at)
    }

    /// When it is to be healed where it begins at `at`.
    fn end_from(&self, at: Duration) -> Duration {
        let lags = u32::try_from(self.kinds.len()).unwrap_or(1).saturating_sub(1);
        at + PAIR_LAG * lags + self.lasts
    }

    /// What its servers are expected to take to start again and to sell, all of it, so that the schedule need not run late.
    fn healing(&self) -> Duration {
        self.kinds.iter().map(|kind| kind.healing()).max().unwrap_or_default()
    }

    /// Whether it may still begin at `at` in a run of `length`: servers take their time to start again, so that a
    /// schedule may run late.
    pub(crate) fn fits(&self, at: Duration, length: Duration) -> bool {
        self.end_from(at) + REST <= length
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, lasts) = (self.at.as_secs_f64(), self.lasts.as_secs_f64());
        write!(formatter, "{at:7.1} s  {:<34} {lasts:4.1} s", self.name())
    }
}

/// How long a run of `length` is planned to be at most.
fn planned(length: Duration) -> Duration {
    if length < MINUTE { length } else { length - length / SPARE }
}

/// Draws the faults of a run of `length`. Every kind comes up once before any comes up twice.
pub(crate) fn draw(seed: u64, length: Duration, ack: Ack, only: &[Choice]) -> Vec<Fault> {
    let mut lot = StdRng::seed_from_u64(seed);
    let choices = if only.is_empty() { all(ack) } else { only.to_vec() };
    let (mut faults, mut bag) = (Vec::new(), Vec::new());
    let mut at = LEAD;
    loop {
        if bag.is_empty() {
            bag.clone_from(&choices);
            bag.shuffle(&mut lot);
        }
        let Some(choice) = bag.pop() else { return faults };
        let kinds = match choice {
            Choice::Kinds(kinds) => kinds,
            Choice::AnyPair => any_pair(ack, &mut lot),
        };
        let lasts = kinds.last().map_or(0..=0, |kind| kind.millis());
        let lasts = Duration::from_millis(lot.random_range(lasts));
        let fault = Fault { at, kinds, lasts, lot: lot.random() };
        if !fault.fits(at, planned(length)) {
            return faults;
        }
        at = fault.end() + fault.healing() + Duration::from_millis(lot.random_range(2_000..=4_000));
        faults.push(fault);
    }
}

/// Every kind that the mode promises to survive, and several pairs for each round of them.
fn all(ack: Ack) -> Vec<Choice> {
    let mut choices: Vec<_> = survivable(ack).map(|kind| Choice::Kinds(vec![kind])).collect();
    choices.extend(std::iter::repeat_n(Choice::AnyPair, choices.len() / 4));
    choices
}

fn survivable(ack: Ack) -> impl Iterator<Item = Kind> {
    Kind::ALL.iter().copied().filter(move |kind| ack == Ack::Kafka || !kind.loses_redis())
}

fn any_pair(ack: Ack, lot: &mut StdRng) -> Vec<Kind> {
    let kinds: Vec<Kind> = survivable(ack).collect();
    let first = kinds[lot.random_range(0..kinds.len())];
    let mut second = first;
    for _ in 0..PARTNER_TRIES {
        if second.victim() != first.victim() {
            break;
        }
        second = kinds[lot.random_range(0..kinds.len())];
    }
    if second.victim() == first.victim() { vec![first] } else { vec![first, second] }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const HALF_AN_HOUR: Duration = Duration::from_secs(1_800);

    #[test]
    fn the_same_seed_draws_the_same_schedule() {
        assert_eq!(draw(7, HALF_AN_HOUR, Ack::Kafka, &[]), draw(7, HALF_AN_HOUR, Ack::Kafka, &[]));
        assert_ne!(draw(7, HALF_AN_HOUR, Ack::Kafka, &[]), draw(8, HALF_AN_HOUR, Ack::Kafka, &[]));
    }

    #[test]
    fn half_an_hour_holds_sixty_faults_of_every_kind() {
        for seed in 0..20 {
            let faults = draw(seed, HALF_AN_HOUR, Ack::Kafka, &[]);
            let kinds: BTreeSet<Kind> = faults.iter().flat_map(|fault| fault.kinds.clone()).collect();
            assert!(faults.len() >= 60, "seed {seed} draws {} faults", faults.len());
            assert_eq!(kinds.len(), Kind::ALL.len(), "seed {seed}");
            assert!(faults.iter().any(|fault| fault.kinds.len() == 2), "seed {seed} draws no pair");
        }
    }

    #[test]
    fn every_fault_is_healed_before_the_end_and_before_the_next_one() {
        let faults = draw(3, HALF_AN_HOUR, Ack::Kafka, &[]);
        assert!(faults.windows(2).all(|two| two[0].end() < two[1].at));
        assert!(faults.iter().all(|fault| fault.end() + REST <= HALF_AN_HOUR));
    }

    #[test]
    fn a_fault_that_comes_late_is_left_out_where_it_would_not_be_healed_in_time() {
        let length = Duration::from_secs(60);
        for fault in draw(5, length, Ack::Kafka, &[]) {
            assert!(fault.fits(fault.at, planned(length)) && fault.fits(fault.at + length / SPARE, length));
            assert!(!fault.fits(length - fault.lasts - REST + Duration::from_millis(1), length));
        }
    }

    #[test]
    fn the_redis_mode_is_spared_what_it_does_not_promise_to_survive() {
        for seed in 0..20 {
            let faults = draw(seed, HALF_AN_HOUR, Ack::Redis, &[]);
            assert!(faults.iter().flat_map(|fault| &fault.kinds).all(|kind| !kind.loses_redis()));
        }
        let asked = [Choice::Kinds(vec![Kind::RedisWipe])];
        assert!(!draw(1, HALF_AN_HOUR, Ack::Redis, &asked).is_empty());
    }

    #[test]
    fn faults_at_once_have_different_victims() {
        let faults = draw(11, HALF_AN_HOUR * 4, Ack::Kafka, &[Choice::AnyPair]);
        for fault in faults {
            assert_eq!(fault.kinds.len(), 2);
            assert_ne!(fault.kinds[0].victim(), fault.kinds[1].victim());
        }
    }

    #[test]
    fn only_what_is_asked_for_is_drawn() {
        let only: Choice = "kafka-pause+redis-wipe".parse().expect("two kinds");
        for fault in draw(1, HALF_AN_HOUR, Ack::Kafka, &[only]) {
            assert_eq!(fault.kinds, [Kind::KafkaPause, Kind::RedisWipe]);
        }
    }

    #[test]
    fn a_choice_is_read_by_its_names() {
        assert_eq!("pair".parse(), Ok(Choice::AnyPair));
        for kind in Kind::ALL {
            assert_eq!(kind.name().parse(), Ok(Choice::Kinds(vec![*kind])));
        }
        for text in ["pair", "redis-tail", "kafka-pause+redis-wipe"] {
            assert_eq!(text.parse::<Choice>().map(|choice| choice.to_string()).as_deref(), Ok(text));
        }
        assert!("redis-melt".parse::<Choice>().is_err());
        assert!("redis-kill+redis-pause".parse::<Choice>().is_err());
    }

    #[test]
    fn a_run_that_is_too_short_for_any_fault_has_none() {
        assert_eq!(draw(1, Duration::from_secs(5), Ack::Kafka, &[]), []);
    }
}
