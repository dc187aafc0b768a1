//! The API keys that are valid now, in memory: a booking waits for no database.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::watch;
use tokio::time::Instant;

use super::caller::{KeyHolder, KeyId};
use super::secret::{self, KeyDigest};
use crate::error::{Code, Problem};

/// A key that was neither revoked nor had expired when it was read.
#[derive(Debug)]
pub(crate) struct LiveKey {
    pub(super) digest: KeyDigest,
    pub(super) expires_at: DateTime<Utc>,
    pub(super) holder: Arc<KeyHolder>,
}

/// The keys as they were last read, and when it was last seen that they still are so.
#[derive(Clone)]
struct Known {
    keys: Arc<HashMap<KeyId, LiveKey>>,
    version: i64,
    seen_at: Instant,
}

/// Looks keys up.
#[derive(Clone)]
pub(crate) struct KeyRing {
    known: watch::Receiver<Option<Known>>,
    kept: Duration,
}

/// Tells a [`KeyRing`] what has changed.
pub(crate) struct KeyRingWriter(watch::Sender<Option<Known>>);

impl KeyRing {
    /// An empty one. What it is told is believed for as long as `kept` while nothing newer is heard.
    pub(crate) fn new(kept: Duration) -> (Self, KeyRingWriter) {
        let (sender, known) = watch::channel(None);
        (Self { known, kept }, KeyRingWriter(sender))
    }

    /// Whoever holds the key of this text.
    pub(super) fn holder(&self, text: &str, now: DateTime<Utc>) -> Result<Arc<KeyHolder>, Problem> {
        let Some((id, digest)) = secret::read(text) else {
            return Err(Problem::invalid_credential("not the form of an API key"));
        };
        let known = self.known.borrow();
        let Some(known) = known.as_ref().filter(|known| known.seen_at.elapsed() < self.kept) else {
            return Err(Problem::because(Code::PostgresUnavailable, "API keys cannot be checked now."));
        };
        let refused = |why| Err(Problem::invalid_credential(format_args!("API key {id}: {why}")));
        match known.keys.get(&id) {
            None => refused("unknown, revoked or expired"),
            Some(key) if !key.digest.is(&digest) => refused("not its secret"),
            Some(key) if key.expires_at <= now => refused("expired"),
            Some(key) => Ok(key.holder.clone()),
        }
    }
}

impl KeyRingWriter {
    /// The version of the keys that are known.
    pub(crate) fn version(&self) -> Option<i64> {
        self.0.borrow().as_ref().map(|known| known.version)
    }

    /// They are still so.
    pub(crate) fn seen(&self) {
        self.0.send_modify(|known| {
            if let Some(known) = known {
                known.seen_at = Instant::now();
            }
        });
    }

    /// They are these now.
    pub(crate) fn replace(&self, version: i64, keys: Vec<LiveKey>) {
        let keys = keys.into_iter().map(|key| (key.holder.id, key)).collect();
        self.0.send_replace(Some(Known { keys: Arc::new(keys), version, seen_at: Instant::now() }));
    }
}
