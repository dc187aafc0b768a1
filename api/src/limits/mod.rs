//! How often: the policies of a file, whom they count, and who is refused from memory.
//!
//! An asker ([`Limits::ask`]) names what is to be done and who wants it, and gets what must be checked ([`Asked`]). A
//! booking takes the checks along into the script call that decides it; everything else has them decided by
//! [`crate::inventory::Inventory::check_rates`]. What Redis said goes back into [`Asked::decided`].

mod file;
mod flood;
mod policy;
mod tally;

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use anyhow::Context;
use boxoffice_schema::ids::EventId;
use boxoffice_schema::keys::Keys;
use boxoffice_schema::rate::SubjectHash;
use boxoffice_schema::scripts::{RateCheck, Standing};
use tokio_util::sync::CancellationToken;

use crate::identity::KeyId;
use flood::Floods;
use policy::{Per, Policies};
use tally::Tally;

pub(crate) use policy::{Action, Policy};
pub(crate) use tally::Stream;

/// Limits of one application.
pub(crate) struct Limits {
    policies: RwLock<Arc<Policies>>,
    floods: Floods,
    tally: Tally,
    keys: Keys,
}

/// Who wants something, as far as that is known.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Subjects<'a> {
    pub(crate) api_key: Option<KeyId>,
    pub(crate) customer: Option<&'a str>,
    pub(crate) address: Option<IpAddr>,
    pub(crate) event: Option<EventId>,
}

/// One policy's say.
#[derive(Clone)]
struct Say {
    policy: Arc<Policy>,
    subject: String,
    check: RateCheck,
}

/// What must be checked before something may be done.
#[derive(Clone, Default)]
pub(crate) struct Asked {
    limits: Option<Arc<Limits>>,
    says: Vec<Say>,
}

/// How a request stands with the policies that had a say in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) standings: Vec<(Arc<Policy>, Standing)>,
}

impl Limits {
    /// The policies of a file, which is looked at again until the shutdown.
    ///
    /// # Errors
    /// Where the file cannot be read or is wrong.
    pub(crate) fn start(
        path: PathBuf,
        keys: Keys,
        stream: Stream,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Arc<Self>> {
        let (text, policies) = file::read(&path).context("BOXOFFICE_RATE_LIMITS")?;
        tracing::info!(policies = policies.len(), path = %path.display(), "rate limits are in force");
        let limits = Arc::new(Self {
            policies: RwLock::new(Arc::new(policies)),
            floods: Floods::default(),
            tally: Tally::default(),
            keys,
        });
        tokio::spawn(file::watch(limits.clone(), path, text, shutdown.clone()));
        tokio::spawn(stream.serve(limits.clone(), shutdown.clone()));
        Ok(limits)
    }

    fn policies(&self) -> Arc<Policies> {
        self.policies.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, policies: Policies) {
        *self.policies.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(policies);
        self.floods.forget();
    }

    /// Whether anybody may be refused from memory.
    pub(crate) fn has_floods(&self) -> bool {
        self.floods.are_there(Instant::now())
    }

    /// What the policies for an action want checked. A policy whose subject is not known has no say.
    pub(crate) fn ask(self: &Arc<Self>, action: Action, subjects: &Subjects<'_>) -> Asked {
        let policies = self.policies();
        let says = policies.of(action).filter_map(|policy| {
            let subject = subjects.of(policy.per)?;
            Some(self.say(policy, subject, 1))
        });
        Asked { says: says.collect(), limits: Some(self.clone()) }
    }

    /// What a policy for services wants checked; `None` where there is none of this name.
    pub(crate) fn ask_for_service(self: &Arc<Self>, policy: &str, key: &str, cost: u16) -> Option<Asked> {
        let policies = self.policies();
        let policy = policies.of_service(policy)?;
        Some(Asked { says: vec![self.say(policy, key.to_owned(), cost)], limits: Some(self.clone()) })
    }

    fn say(&self, policy: &Arc<Policy>, subject: String, cost: u16) -> Say {
        let key = self.keys.rate(&policy.name, &policy.quota, SubjectHash::of(&subject));
        Say { check: RateCheck { key, quota: policy.quota, cost }, policy: policy.clone(), subject }
    }
}

impl Subjects<'_> {
    fn of(&self, per: Per) -> Option<String> {
        match per {
            Per::ApiKey => self.api_key.map(|key| key.to_string()),
            Per::Customer => self.customer.map(str::to_owned),
            Per::Address => self.address.map(network),
            Per::Event => self.event.map(|event| event.to_string()),
            Per::Key => None,
        }
    }
}

/// Whom an address stands for. Who has one address of IPv6 has its whole network of 2^64.
fn network(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            format!("{}/64", std::net::Ipv6Addr::from_bits(network))
        }
    }
}

impl Asked {
    /// Nothing is to be checked.
    pub(crate) fn is_empty(&self) -> bool {
        self.says.is_empty()
    }

    /// For Redis.
    pub(crate) fn checks(&self) -> Vec<RateCheck> {
        self.says.iter().map(|say| say.check.clone()).collect()
    }

    /// The largest cost that could ever be allowed.
    pub(crate) fn cost_max(&self) -> u32 {
        self.says.iter().map(|say| say.policy.quota.burst()).min().unwrap_or(u32::MAX)
    }

    /// The refusal of an obvious flood, for which Redis is not asked.
    pub(crate) fn refused_from_memory(&self) -> Option<Verdict> {
        let limits = self.limits.as_ref()?;
        let now = Instant::now();
        let refusal = |say: &Say| Some((say.policy.clone(), limits.floods.refusal(&say.check, now)?));
        let standings: Vec<_> = self.says.iter().filter_map(refusal).collect();
        if standings.is_empty() {
            return None;
        }
        let refuses = |say: &&Say| standings.iter().any(|(policy, _)| policy.name == say.policy.name);
        for say in self.says.iter().filter(refuses) {
            limits.tally.count(say.policy.name.as_str(), &say.subject, tally::Kind::FromMemory);
        }
        Some(Verdict { standings })
    }

    /// What Redis said of the checks, in their order; `None` where it did not count the request.
    pub(crate) fn decided(&self, standings: &[Standing]) -> Option<Verdict> {
        let limits = self.limits.as_ref()?;
        if standings.is_empty() || standings.len() != self.says.len() {
            return None;
        }
        let now = Instant::now();
        let is_refused = standings.iter().any(|standing| standing.refuses);
        for (say, standing) in self.says.iter().zip(standings) {
            let kind = if standing.refuses {
                if say.policy.tells_floods() {
                    limits.floods.refused(&say.check, standing.retry_ms, now);
                }
                tally::Kind::Refused
            } else if is_refused {
                // What another policy refused was neither taken nor refused by this one.
                continue;
            } else {
                limits.floods.allowed(&say.check, now);
                tally::Kind::Allowed
            };
            limits.tally.count(say.policy.name.as_str(), &say.subject, kind);
        }
        let policies = self.says.iter().map(|say| say.policy.clone());
        Some(Verdict { standings: policies.zip(standings.iter().copied()).collect() })
    }
}

impl Verdict {
    /// Those that refuse.
    pub(crate) fn refusals(&self) -> impl Iterator<Item = &(Arc<Policy>, Standing)> {
        self.standings.iter().filter(|(_, standing)| standing.refuses)
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.refusals().next().is_some()
    }

    /// After how many whole seconds the request would be allowed, at least one.
    pub(crate) fn retry_after_seconds(&self) -> NonZeroU32 {
        let longest = self.refusals().map(|(_, standing)| standing.retry_ms).max();
        NonZeroU32::new(longest.unwrap_or_default().div_ceil(1_000)).unwrap_or(NonZeroU32::MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_ipv6_stands_for_its_network() {
        for (address, subject) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ] {
            assert_eq!(network(address.parse().unwrap()), subject);
        }
    }
}
