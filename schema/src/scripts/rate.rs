//! `check_rates.lua`, and the part of a batch of bookings that counts it against rate limits.

use std::collections::HashMap;

use crate::DecodeError;
use crate::bytes::Reader;
use crate::rate::Quota;

use super::{BATCH_MAX, CHECK_RATES, Call, decimal};

/// The most checks of one request. With [`BATCH_MAX`] it bounds how many keys one call reads.
pub const RATES_MAX: usize = 8;

/// One policy's say in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateCheck {
    /// Where its subject's use is counted: [`crate::keys::Keys::rate`].
    pub key: String,
    /// What the subject is granted.
    pub quota: Quota,
    /// How many units the request takes: 1 to the quota's burst.
    pub cost: u16,
}

/// How a subject stands after a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether this check refuses the request.
    pub refuses: bool,
    /// How many units may be taken at once now.
    pub remaining: u32,
    /// After how many milliseconds everything is back.
    pub reset_ms: u32,
    /// After how many milliseconds this request would be allowed, if nobody else takes anything; 0 unless refused.
    pub retry_ms: u32,
}

/// Counts a batch of at most [`BATCH_MAX`] requests, in order, each with at most [`RATES_MAX`] checks. Replies a string
/// a request, for [`parse_standings`].
pub fn check_rates<'a>(batch: impl IntoIterator<Item = &'a [RateCheck]>) -> Call {
    let mut rates = PackedRates::default();
    let count = batch.into_iter().map(|checks| rates.add(checks)).count();
    debug_assert!(count <= BATCH_MAX, "a batch is bounded by its caller");
    let (keys, packed) = rates.finish();
    Call { script: &CHECK_RATES, keys, args: vec![decimal(count), packed] }
}

/// Reads the standings in front of a reply, and what follows them.
///
/// # Errors
/// Where the scripts never answer so.
pub fn parse_standings(reply: &[u8]) -> Result<(Vec<Standing>, &[u8]), DecodeError> {
    let mut read = Reader::new("standings", reply);
    let count = read.u8()?;
    let mut standings = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        standings.push(Standing {
            refuses: read.u8()? != 0,
            remaining: read.u32()?,
            reset_ms: read.u32()?,
            retry_ms: read.u32()?,
        });
    }
    Ok((standings, read.rest()))
}

/// The argument of `rates.lua`: every quota and every key once.
#[derive(Default)]
pub(super) struct PackedRates<'a> {
    quotas: Vec<Quota>,
    keys: HashMap<&'a str, u16>,
    checks: Vec<u8>,
}

impl<'a> PackedRates<'a> {
    /// The next request's.
    pub(super) fn add(&mut self, checks: &'a [RateCheck]) {
        let checks = &checks[..checks.len().min(RATES_MAX)];
        self.checks.push(u8::try_from(checks.len()).expect("at most eight"));
        for RateCheck { key, quota, cost } in checks {
            let number = self.quotas.iter().position(|known| known == quota).unwrap_or_else(|| {
                self.quotas.push(*quota);
                self.quotas.len() - 1
            });
            let next = self.keys.len() + 1;
            let key = *self
                .keys
                .entry(key)
                .or_insert_with(|| u16::try_from(next).expect("a batch has at most 1,024 checks"));
            self.checks.push(u8::try_from(number + 1).expect("there are at most 64 policies"));
            self.checks.extend_from_slice(&key.to_be_bytes());
            self.checks.extend_from_slice(&cost.to_be_bytes());
        }
    }

    /// The keys in the order of their numbers, and the argument.
    pub(super) fn finish(self) -> (Vec<String>, Vec<u8>) {
        let mut keys = vec![String::new(); self.keys.len()];
        for (key, number) in self.keys {
            key.clone_into(&mut keys[usize::from(number) - 1]);
        }
        let mut packed = vec![u8::try_from(self.quotas.len()).expect("there are at most 64 policies")];
        for quota in self.quotas {
            let (burst_us, burst_rest) = quota.burst_us();
            packed.push(quota.algorithm().code());
            packed.extend_from_slice(&quota.limit().to_be_bytes());
            packed.extend_from_slice(&(1_000 * quota.window_seconds()).to_be_bytes());
            packed.extend_from_slice(&burst_us.to_be_bytes());
            packed.extend_from_slice(&burst_rest.to_be_bytes());
        }
        packed.extend_from_slice(&self.checks);
        (keys, packed)
    }
}
