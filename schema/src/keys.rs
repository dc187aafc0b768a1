//! The names of the keys in Redis. All keys of a shard share its hash tag (`{s07}`), so that one script may touch
//! them on Redis Cluster too. What rate limits count belongs to no shard and has a hash tag of its own.

use std::fmt::{self, Write as _};

use crate::ids::{BookingId, EventId};
use crate::rate::{self, PolicyName, Quota, SubjectHash};
use crate::shard::Shard;

/// Of the name of a slot, or more: hash tag, id and number.
const LONGEST_NAME: usize = 64;

/// Names the keys of one installation, or of one test: all begin with its prefix.
#[derive(Clone, Debug)]
pub struct Keys {
    prefix: String,
}

impl Keys {
    /// A prefix must not hold a brace, which would move the hash tag.
    ///
    /// # Panics
    /// On a brace: the prefix comes from the configuration, which refuses it before.
    pub fn new(prefix: impl Into<String>) -> Self {
        let prefix = prefix.into();
        assert!(!prefix.contains(['{', '}']), "a key prefix must not hold a brace");
        Self { prefix }
    }

    fn of_shard(&self, shard: Shard, name: fmt::Arguments<'_>) -> String {
        let mut key = String::with_capacity(self.prefix.len() + LONGEST_NAME);
        // Writing into a text does not fail.
        let _ = write!(key, "{}{{{shard}}}:{name}", self.prefix);
        key
    }

    /// Hash: the shard's epoch, sequence, clock and the accounts of its outbox, and what was found to be lost.
    pub fn shard(&self, shard: Shard) -> String {
        self.of_shard(shard, format_args!("shard"))
    }

    /// String: the certificate, without which nothing is decided.
    pub fn certificate(&self, shard: Shard) -> String {
        self.of_shard(shard, format_args!("certificate"))
    }

    /// Stream: decisions on their way to Kafka, a frame an entry.
    pub fn outbox(&self, shard: Shard) -> String {
        self.of_shard(shard, format_args!("outbox"))
    }

    /// Sorted set: holds by their expiry, and an empty member, without which the set is lost.
    pub fn expiry(&self, shard: Shard) -> String {
        self.of_shard(shard, format_args!("expiry"))
    }

    /// String with a time to live: the instance that relays and expires this shard.
    pub fn lease(&self, shard: Shard) -> String {
        self.of_shard(shard, format_args!("lease"))
    }

    /// Hash: an event and the counters of its ticket types.
    pub fn event(&self, shard: Shard, event: EventId) -> String {
        self.of_shard(shard, format_args!("event:{event}"))
    }

    /// What the keys of all events match, as `SCAN` reads a pattern; and perhaps others, see [`Self::event_of`].
    pub fn events_pattern(&self) -> String {
        let mut pattern = String::with_capacity(self.prefix.len() + LONGEST_NAME);
        for character in self.prefix.chars() {
            // The prefix may hold what means something in a pattern.
            if matches!(character, '*' | '?' | '[' | '\\') {
                pattern.push('\\');
            }
            pattern.push(character);
        }
        pattern + "{s*}:event:*"
    }

    /// The event whose key this is, with its shard.
    pub fn event_of(&self, key: &str) -> Option<(Shard, EventId)> {
        let (number, id) = key.strip_prefix(&self.prefix)?.strip_prefix("{s")?.split_once("}:event:")?;
        let (shard, id) = (Shard::from_number(number.parse().ok()?), id.parse().ok()?);
        // An id may be read in other letters than those in which it is written.
        (self.event(shard, id) == key).then_some((shard, id))
    }

    /// Hash: how many tickets each customer has of an event, and which of its slots were written. A field of 12 bytes is
    /// a customer, of 13 a customer and a ticket type; a shorter one is the number of a slot, and the empty one is always
    /// there.
    pub fn customers(&self, shard: Shard, event: EventId) -> String {
        self.of_shard(shard, format_args!("customers:{event}"))
    }

    /// Hash: some of an event's bookings, each under what its key says ([`crate::slot`]), so that it is its own idempotency
    /// record. Small hashes are stored compactly, which is why an event has many slots. An empty field is in each slot that
    /// was ever written. Fields are only ever added: under one certificate, as many are the same ones.
    pub fn slot(&self, shard: Shard, event: EventId, slot: u32) -> String {
        self.of_shard(shard, format_args!("bookings:{event}:{slot}"))
    }

    /// String with a time to live: what a subject has used of a policy's quota. A subject is counted once whatever
    /// event it asks for, and so its key cannot share a shard's hash tag.
    pub fn rate(&self, policy: &PolicyName, quota: &Quota, subject: SubjectHash) -> String {
        format!("{}{{rate}}:{}", self.prefix, rate::count_name(policy, quota, subject))
    }

    /// The slot of a booking.
    pub fn slot_of(&self, shard: Shard, event: EventId, booking: BookingId, slots: u32) -> String {
        self.slot(shard, event, booking.slot(slots))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate::Algorithm;

    #[test]
    fn all_keys_of_a_shard_share_its_hash_tag() {
        let keys = Keys::new("bo:");
        let shard = Shard::from_number(7);
        let event = EventId::from_bytes([0; 16]);
        assert_eq!(keys.shard(shard), "bo:{s07}:shard");
        for key in [keys.certificate(shard), keys.event(shard, event), keys.slot(shard, event, 3)] {
            assert!(key.starts_with("bo:{s07}:"), "{key}");
        }
    }

    #[test]
    fn an_events_key_is_known_among_others_whatever_the_prefix_holds() {
        let (shard, id) = (Shard::from_number(7), EventId::from_bytes([0xab; 16]));
        let prefixes = [("bo:", "bo:{s*}:event:*"), (r"a*b?[c]\:", r"a\*b\?\[c]\\:{s*}:event:*")];
        for (prefix, pattern) in prefixes {
            let keys = Keys::new(prefix);
            assert_eq!(keys.events_pattern(), pattern);
            let key = keys.event(shard, id);
            assert_eq!(keys.event_of(&key), Some((shard, id)));
            let others = [
                keys.customers(shard, id),
                key.replace("ab", "AB"),
                key.replace("s07", "s7"),
                format!("{key}0"),
                keys.shard(shard),
            ];
            for other in others {
                assert_eq!(keys.event_of(&other), None, "{other}");
            }
        }
    }

    #[test]
    fn the_scripts_find_a_slots_number_where_the_key_of_the_customers_ends() {
        let keys = Keys::new("any:prefix:");
        let (shard, event) = (Shard::from_number(123), EventId::new());
        let number = keys.customers(shard, event).len();
        assert_eq!(keys.slot(shard, event, 40_960)[number..], *"40960");
    }

    #[test]
    fn nothing_that_a_client_sends_reaches_the_name_of_a_rate_limits_key() {
        let quota = Quota::new(Algorithm::TokenBucket, 10, 60, None).unwrap();
        let policy = PolicyName::parse("per-customer").unwrap();
        for subject in ["", "{s07}", "a}{b", "*", "a\0b", "a\r\nb", "../x", "größer", &"x".repeat(10_000)] {
            let key = Keys::new("bo:").rate(&policy, &quota, SubjectHash::of(subject));
            let hash = key.strip_prefix("bo:{rate}:per-customer:t10-60:").unwrap();
            assert_eq!(hash.len(), 32, "{key}");
            assert!(hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{key}");
        }
    }
}
