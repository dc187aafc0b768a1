//! Rate limits: how often something may happen, and under which name Redis counts it.

use std::fmt;

use serde::Deserialize;
use sha2::{Digest, Sha256};

/// How use is counted; read as in `token_bucket`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// Windows that follow one another by the clock; around the end of one, twice the limit may pass.
    FixedWindow,
    /// The last window's length at every moment, approximated by two counters: what the window before used is taken
    /// to be spread evenly over it.
    SlidingWindow,
    /// A bucket of `burst` tokens into which `limit` a window flow (GCRA).
    TokenBucket,
}

impl Algorithm {
    /// As in the script's arguments.
    pub const fn code(self) -> u8 {
        match self {
            Self::FixedWindow => 1,
            Self::SlidingWindow => 2,
            Self::TokenBucket => 3,
        }
    }

    /// As in the names of keys.
    const fn letter(self) -> char {
        match self {
            Self::FixedWindow => 'f',
            Self::SlidingWindow => 's',
            Self::TokenBucket => 't',
        }
    }
}

/// Why there is no such quota.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidQuota {
    /// Outside 1 to 1,000,000.
    #[error("limit must be 1 to {}", Quota::LIMIT_MAX)]
    Limit,
    /// Outside 1 s to a day.
    #[error("window_seconds must be 1 to {}", Quota::WINDOW_SECONDS_MAX)]
    Window,
    /// Outside 1 to 1,000,000.
    #[error("burst must be 1 to {}", Quota::LIMIT_MAX)]
    Burst,
    /// A burst where there is no bucket.
    #[error("burst is for token_bucket; a window's burst is its limit")]
    BurstOfWindow,
    /// It would take too long to fill the bucket.
    #[error("burst must fill up within {} days at this limit", Quota::FILL_DAYS_MAX)]
    BurstTooSlow,
}

/// What a policy grants each of its subjects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quota {
    algorithm: Algorithm,
    limit: u32,
    window_seconds: u32,
    burst: u32,
}

impl Quota {
    /// The most that a limit or a burst may be.
    pub const LIMIT_MAX: u32 = 1_000_000;
    /// A day. Longer limits would fill Redis with the keys of everybody who ever came by.
    pub const WINDOW_SECONDS_MAX: u32 = 86_400;
    /// The longest that an empty bucket may take to fill, and so the longest life of a key.
    pub const FILL_DAYS_MAX: u32 = 7;

    /// Checks the bounds, within which the script counts exactly. Without a `burst` a bucket holds `limit` tokens.
    ///
    /// # Errors
    /// Names what is out of bounds.
    pub fn new(
        algorithm: Algorithm,
        limit: u32,
        window_seconds: u32,
        burst: Option<u32>,
    ) -> Result<Self, InvalidQuota> {
        let counts = 1..=Self::LIMIT_MAX;
        if !counts.contains(&limit) {
            return Err(InvalidQuota::Limit);
        }
        if !(1..=Self::WINDOW_SECONDS_MAX).contains(&window_seconds) {
            return Err(InvalidQuota::Window);
        }
        if burst.is_some_and(|burst| !counts.contains(&burst)) {
            return Err(InvalidQuota::Burst);
        }
        if burst.is_some() && algorithm != Algorithm::TokenBucket {
            return Err(InvalidQuota::BurstOfWindow);
        }
        let burst = burst.unwrap_or(limit);
        let fill_seconds = u64::from(burst) * u64::from(window_seconds) / u64::from(limit);
        if fill_seconds > u64::from(Self::FILL_DAYS_MAX) * 86_400 {
            return Err(InvalidQuota::BurstTooSlow);
        }
        Ok(Self { algorithm, limit, window_seconds, burst })
    }

    /// How use is counted.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// How many units a window grants.
    pub const fn limit(&self) -> u32 {
        self.limit
    }

    /// The window in seconds.
    pub const fn window_seconds(&self) -> u32 {
        self.window_seconds
    }

    /// The most units at once; a check that costs more can never be allowed.
    pub const fn burst(&self) -> u32 {
        self.burst
    }

    /// The time in which a full bucket flows in: whole microseconds, and a rest in parts of the limit.
    pub fn burst_us(&self) -> (u64, u32) {
        let product = u64::from(self.burst) * u64::from(self.window_seconds) * 1_000_000;
        let rest = product % u64::from(self.limit);
        (product / u64::from(self.limit), u32::try_from(rest).expect("a remainder of a u32 fits a u32"))
    }
}

/// The name of a policy: 1 to 64 lower-case letters, digits, hyphens and underscores.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyName(String);

/// The name is not one.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("a policy's name must be 1 to 64 lower-case letters, digits, hyphens and underscores")]
pub struct InvalidPolicyName;

impl PolicyName {
    /// Checks it.
    ///
    /// # Errors
    /// Where it holds anything that a key's name or a header would have to escape.
    pub fn parse(name: &str) -> Result<Self, InvalidPolicyName> {
        let legal = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
        let is_name = (1..=64).contains(&name.len()) && name.bytes().all(legal);
        if is_name { Ok(Self(name.to_owned())) } else { Err(InvalidPolicyName) }
    }

    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A hash of whom a policy counts: SHA-256, cut to sixteen bytes. What a client sent never reaches a key's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SubjectHash([u8; 16]);

impl SubjectHash {
    /// The subject's hash: an address, a customer, an event, an API key, or what another service calls it.
    pub fn of(subject: &str) -> Self {
        let mut out = [0; 16];
        out.copy_from_slice(&Sha256::digest(subject.as_bytes())[..16]);
        Self(out)
    }
}

impl fmt::Display for SubjectHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The part of a key's name that says what is counted: policy, algorithm and window, so that a policy that counts in
/// another way begins anew instead of misreading what it finds. A window whose limit changes goes on with what was used;
/// a bucket holds its use as time at its rate, which at another rate would be another use.
pub(crate) fn count_name(policy: &PolicyName, quota: &Quota, subject: SubjectHash) -> String {
    let (letter, window) = (quota.algorithm.letter(), quota.window_seconds);
    match quota.algorithm {
        Algorithm::FixedWindow | Algorithm::SlidingWindow => format!("{policy}:{letter}{window}:{subject}"),
        Algorithm::TokenBucket => format!("{policy}:{letter}{}-{window}:{subject}", quota.limit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_out_of_bounds_are_refused_by_name() {
        let quota = |limit, window, burst| Quota::new(Algorithm::TokenBucket, limit, window, burst);
        assert_eq!(quota(0, 1, None), Err(InvalidQuota::Limit));
        assert_eq!(quota(1_000_001, 1, None), Err(InvalidQuota::Limit));
        assert_eq!(quota(1, 0, None), Err(InvalidQuota::Window));
        assert_eq!(quota(1, 86_401, None), Err(InvalidQuota::Window));
        assert_eq!(quota(1, 1, Some(0)), Err(InvalidQuota::Burst));
        assert_eq!(quota(1, 86_400, Some(8)), Err(InvalidQuota::BurstTooSlow));
        assert_eq!(Quota::new(Algorithm::FixedWindow, 1, 1, Some(1)), Err(InvalidQuota::BurstOfWindow));
        assert!(quota(1_000_000, 86_400, Some(1_000_000)).is_ok());
    }

    #[test]
    fn a_policys_name_needs_no_escape_anywhere() {
        for bad in ["", "A", "a b", "a:b", "{a}", "a\"", "ä", &"a".repeat(65)] {
            assert_eq!(PolicyName::parse(bad), Err(InvalidPolicyName), "{bad}");
        }
        assert!(PolicyName::parse("per-address_1").is_ok());
    }
}
