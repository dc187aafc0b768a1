//! After a fail-over the old primary may still be alive, and decides until it notices that its replicas are gone.
//!
//! What it decides in that time reaches Kafka through a relay that is still connected to it. A barrier that came before
//! would end those decisions' epoch, though their clients hold a 201. So where Redis is replicated, the barrier waits
//! until no old primary can be deciding any more: longer than `min-replicas-max-lag` after the new one was fenced.

use std::collections::HashMap;
use std::time::Duration;

use redis::{ErrorKind, RedisError};
use tokio::time::Instant;

use super::Recoverer;

/// What Redis has unless it is set, in seconds (redis.conf). It is believed where Redis tells nothing.
const DEFAULT_MAX_LAG: u64 = 10;

/// Replicas report every second, so the old primary may notice that much later.
const MARGIN: Duration = Duration::from_secs(1);

impl Recoverer<'_> {
    /// Waits until an old primary has stopped to decide; not at all where Redis has no replicas to wait for.
    pub(super) async fn outwait_old_primary(&self, fenced_at: Instant) -> Result<(), RedisError> {
        let reply: Result<HashMap<String, String>, RedisError> = redis::cmd("CONFIG")
            .arg("GET")
            .arg("min-replicas-*")
            .query_async(&mut self.redis.connection())
            .await;
        let settings = match reply {
            Ok(settings) => Some(settings),
            // A Redis that forbids CONFIG may have replicas: in doubt, nothing is sold.
            Err(error) if matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) => None,
            Err(error) => return Err(error),
        };
        if let Some(lag) = max_lag(settings.as_ref()) {
            tokio::time::sleep_until(fenced_at + lag + MARGIN).await;
        }
        Ok(())
    }
}

/// How long an old primary goes on without its replicas; `None` where Redis runs without any.
fn max_lag(settings: Option<&HashMap<String, String>>) -> Option<Duration> {
    let number = |name: &str| settings?.get(name)?.parse::<u64>().ok();
    if number("min-replicas-to-write") == Some(0) {
        return None;
    }
    Some(Duration::from_secs(number("min-replicas-max-lag").unwrap_or(DEFAULT_MAX_LAG)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(to_write: &str, max_lag: &str) -> HashMap<String, String> {
        let pairs = [("min-replicas-to-write", to_write), ("min-replicas-max-lag", max_lag)];
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    #[test]
    fn only_a_redis_that_needs_no_replicas_is_not_waited_for() {
        assert_eq!(max_lag(Some(&settings("0", "10"))), None);
        assert_eq!(max_lag(Some(&settings("1", "3"))), Some(Duration::from_secs(3)));
        assert_eq!(max_lag(None), Some(Duration::from_secs(10)));
    }
}
