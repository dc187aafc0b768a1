//! What Kafka carries of rate limits: how often each subject was allowed and refused in one second, by one instance of
//! the API. A topic of its own, with one partition; losing a record loses a second of statistics and nothing else.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::DecodeError;
use crate::time;

/// The version of the format.
const VERSION: u16 = 1;

/// One second of one instance, or a part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateRecord {
    version: u16,
    /// Which process counted.
    pub instance: String,
    /// When it was counted, by that process' clock.
    #[serde(serialize_with = "time::serialize")]
    pub at: DateTime<Utc>,
    /// What it counted; a policy and key at most once.
    pub decisions: Vec<RateDecisions>,
}

/// How often one subject of one policy was allowed and refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateDecisions {
    /// The policy's name.
    pub policy: String,
    /// Who was counted; empty for all those for whom there was no room.
    pub key: String,
    /// Requests that were allowed.
    pub allowed: u32,
    /// Requests that Redis refused.
    pub refused: u32,
    /// Requests that were refused without asking Redis.
    pub refused_from_memory: u32,
}

impl RateRecord {
    /// The most decisions of a record, so that it stays below Kafka's usual megabyte.
    pub const DECISIONS_MAX: usize = 500;

    /// Of this version.
    pub fn new(instance: String, at: DateTime<Utc>, decisions: Vec<RateDecisions>) -> Self {
        Self { version: VERSION, instance, at, decisions }
    }

    /// For Kafka.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts, numbers and a time always serialize")
    }

    /// From Kafka.
    ///
    /// # Errors
    /// Where it is no record of this version, or longer than one may be.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let wrong = |why: String| DecodeError::new("rate record", why);
        let record: Self = serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
        if record.version != VERSION {
            return Err(wrong(format!("version {} is unknown", record.version)));
        }
        if record.decisions.len() > Self::DECISIONS_MAX {
            return Err(wrong(format!("{} decisions are too many", record.decisions.len())));
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &str = include_str!("../golden/rate_decisions.json");

    #[test]
    fn a_record_is_written_and_read_as_the_golden_file_has_it() {
        let decisions = RateDecisions {
            policy: "bookings-per-address".to_owned(),
            key: "192.0.2.1".to_owned(),
            allowed: 20,
            refused: 7,
            refused_from_memory: 1_200,
        };
        let at = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let record = RateRecord::new("01939c5e-7a00-7000-8000-000000000001".to_owned(), at, vec![decisions]);
        assert_eq!(String::from_utf8(record.encode()).unwrap(), GOLDEN.trim_end());
        assert_eq!(RateRecord::decode(GOLDEN.as_bytes()).unwrap(), record);
    }

    #[test]
    fn anything_else_is_an_error() {
        for bad in ["", "{}", "[]", &GOLDEN.replace("\"version\":1", "\"version\":2")] {
            assert!(RateRecord::decode(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
