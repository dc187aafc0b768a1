//! Policies: who may do what how often. Parsed from TOML, checked as a whole.

use std::sync::Arc;

use boxoffice_schema::rate::{Algorithm, PolicyName, Quota};
use boxoffice_schema::scripts::RATES_MAX;
use serde::Deserialize;

/// The most policies of a file.
const POLICIES_MAX: usize = 64;

/// What a policy limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Action {
    /// A request for a booking.
    Booking,
    /// Confirming or cancelling one.
    Changing,
    /// Reading events and bookings.
    Reading,
    /// What another service asks for by `POST /v1/rate-limit/check`.
    Service,
}

/// Who is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Per {
    ApiKey,
    Customer,
    Address,
    Event,
    /// Whoever the asking service names.
    Key,
}

/// One policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) name: PolicyName,
    pub(crate) action: Action,
    pub(crate) per: Per,
    pub(crate) quota: Quota,
}

impl Policy {
    /// Whether those whom it refuses again and again may be refused without being looked at. Not where it counts the bookings of
    /// many: one who floods would keep the others from the answers to their retries.
    pub(crate) fn tells_floods(&self) -> bool {
        self.action != Action::Booking || matches!(self.per, Per::Customer | Per::Address)
    }
}

/// Every policy of a file, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Policies {
    all: Vec<Arc<Policy>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    policy: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    r#for: Action,
    per: Option<Per>,
    algorithm: Algorithm,
    limit: u32,
    window_seconds: u32,
    burst: Option<u32>,
}

/// What is wrong with a file, in words for whoever wrote it.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum InvalidPolicies {
    #[error("{0}")]
    Syntax(String),
    #[error("policy {name}: {why}")]
    Policy { name: String, why: String },
    #[error("there may be at most {POLICIES_MAX} policies")]
    TooMany,
    #[error("there may be at most {RATES_MAX} policies for {0:?}: each is a key that Redis reads")]
    TooManyFor(Action),
}

impl Policies {
    /// Reads a file.
    ///
    /// # Errors
    /// Names the policy and what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidPolicies> {
        let file: File = toml::from_str(text).map_err(|error| InvalidPolicies::Syntax(error.to_string()))?;
        if file.policy.len() > POLICIES_MAX {
            return Err(InvalidPolicies::TooMany);
        }
        let mut policies = Self::default();
        for entry in file.policy {
            let name = entry.name.clone();
            let wrong = |why: String| InvalidPolicies::Policy { name: name.clone(), why };
            let policy = entry.check().map_err(wrong)?;
            if policies.all.iter().any(|other| other.name == policy.name) {
                return Err(wrong("is there twice".to_owned()));
            }
            policies.all.push(Arc::new(policy));
        }
        // One check of a service names one policy.
        for action in [Action::Booking, Action::Changing, Action::Reading] {
            if policies.of(action).count() > RATES_MAX {
                return Err(InvalidPolicies::TooManyFor(action));
            }
        }
        Ok(policies)
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Those that limit an action.
    pub(crate) fn of(&self, action: Action) -> impl Iterator<Item = &Arc<Policy>> {
        self.all.iter().filter(move |policy| policy.action == action)
    }

    /// The policy of this name that other services may ask about.
    pub(crate) fn of_service(&self, name: &str) -> Option<&Arc<Policy>> {
        self.of(Action::Service).find(|policy| policy.name.as_str() == name)
    }
}

impl Entry {
    fn check(self) -> Result<Policy, String> {
        let name = PolicyName::parse(&self.name).map_err(|error| error.to_string())?;
        let per = match (self.r#for, self.per) {
            (Action::Service, None | Some(Per::Key)) => Per::Key,
            (Action::Service, Some(_)) => {
                return Err("per must be left out for service: the asking service names the key".to_owned());
            }
            (_, None | Some(Per::Key)) => {
                return Err("per must be api_key, customer, address or event".to_owned());
            }
            (_, Some(per)) => per,
        };
        let quota = Quota::new(self.algorithm, self.limit, self.window_seconds, self.burst)
            .map_err(|error| error.to_string())?;
        Ok(Policy { name, action: self.r#for, per, quota })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(lines: &str) -> String {
        format!("[[policy]]\n{lines}\n")
    }

    const GOOD: &str = "name = \"a\"\nfor = \"booking\"\nper = \"address\"\nalgorithm = \"token_bucket\"\nlimit = 5\nwindow_seconds = 10\nburst = 20";

    #[test]
    fn a_file_is_read() {
        let service =
            "name = \"b\"\nfor = \"service\"\nalgorithm = \"fixed_window\"\nlimit = 1\nwindow_seconds = 1";
        let policies = Policies::parse(&(policy(GOOD) + &policy(service))).unwrap();
        let booking: Vec<_> = policies.of(Action::Booking).collect();
        assert_eq!((booking.len(), booking[0].per), (1, Per::Address));
        assert_eq!(booking[0].quota.burst(), 20);
        assert_eq!(policies.of_service("b").unwrap().per, Per::Key);
        assert!(policies.of_service("a").is_none());
        assert_eq!(Policies::parse("").unwrap().len(), 0);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (from, to, words) in [
            ("limit = 5", "limit = 0", "policy a: limit must be 1"),
            ("limit = 5", "limits = 5", "limits"),
            ("\"address\"", "\"moon\"", "moon"),
            ("per = \"address\"", "", "policy a: per must be"),
            ("\"token_bucket\"", "\"fixed_window\"", "policy a: burst is for token_bucket"),
            ("\"a\"", "\"A b\"", "policy A b: a policy's name must be"),
            ("\"booking\"", "\"service\"", "policy a: per must be left out"),
        ] {
            let error = Policies::parse(&policy(&GOOD.replace(from, to))).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        let twice = policy(GOOD).repeat(2);
        assert!(Policies::parse(&twice).unwrap_err().to_string().contains("is there twice"));
        let many: String = (0..9).map(|n| policy(&GOOD.replace("\"a\"", &format!("\"a{n}\"")))).collect();
        assert_eq!(Policies::parse(&many), Err(InvalidPolicies::TooManyFor(Action::Booking)));
    }
}
