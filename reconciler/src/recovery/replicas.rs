//! After a fail-over the old primary may still be alive, and decides until it notices that its replicas are gone.
//!
//! What it decides in that time reaches Kafka through a relay that is still connected to it. A barrier that came before
//! would end those decisions' epoch, though their clients hold a 201. So where Redis is replicated, the barrier waits
//! until no old primary can be deciding any more: longer than `min-replicas-max-lag` after the new one was fenced.

use std::collections::HashMap;
use std::sync::Once;
use std::time::Duration;

use redis::{ErrorKind, RedisError};
use tokio::time::Instant;

use super::Recoverer;

/// What Redis has unless it is set, in seconds (redis.conf). It is believed where Redis tells nothing.
const DEFAULT_MAX_LAG: u64 = 10;

/// Replicas report every second, so the old primary may notice that much later.
const MARGIN: Duration = Duration::from_secs(1);

/// Each recovery of each shard finds the same setting.
static SAID: Once = Once::new();

impl Recoverer {
    /// Waits until an old primary has stopped to decide; not at all where Redis has no replicas to wait for.
    pub(super) async fn outwait_old_primary(&self, fenced_at: Instant) -> Result<(), RedisError> {
        let reply: Result<HashMap<String, String>, RedisError> =
            self.redis.ask(redis::cmd("CONFIG").arg("GET").arg("min-replicas-*")).await;
        let settings = match reply {
            Ok(settings) => Some(settings),
            // A Redis that forbids CONFIG may have replicas: in doubt, nothing is sold.
            Err(error) if matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) => None,
            Err(error) => return Err(error),
        };
        match OldPrimary::by(settings.as_ref()) {
            OldPrimary::NeedsNoReplica => {}
            OldPrimary::StopsAfter(lag) => tokio::time::sleep_until(fenced_at + lag + MARGIN).await,
            OldPrimary::NeverStops => SAID.call_once(|| {
                tracing::error!(
                    "min-replicas-max-lag is 0, with which Redis ignores min-replicas-to-write: after a fail-over an old \
                     primary never stops deciding, and what it decides is lost; set it to 1 to 10"
                );
            }),
        }
        Ok(())
    }
}

/// What an old primary does when its replicas are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OldPrimary {
    /// Redis runs without replicas, so that there is none.
    NeedsNoReplica,
    /// It refuses writes when it has not heard of its replicas for so long.
    StopsAfter(Duration),
    /// The setting looks like a protection and is none: waiting would not help.
    NeverStops,
}

impl OldPrimary {
    fn by(settings: Option<&HashMap<String, String>>) -> Self {
        let number = |name: &str| settings?.get(name)?.parse::<u64>().ok();
        if number("min-replicas-to-write") == Some(0) {
            return Self::NeedsNoReplica;
        }
        match number("min-replicas-max-lag").unwrap_or(DEFAULT_MAX_LAG) {
            0 => Self::NeverStops,
            lag => Self::StopsAfter(Duration::from_secs(lag)),
        }
    }
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
        let stops_after = |seconds| OldPrimary::StopsAfter(Duration::from_secs(seconds));
        assert_eq!(OldPrimary::by(Some(&settings("0", "10"))), OldPrimary::NeedsNoReplica);
        assert_eq!(OldPrimary::by(Some(&settings("1", "3"))), stops_after(3));
        assert_eq!(OldPrimary::by(None), stops_after(10));
    }

    #[test]
    fn a_lag_of_0_protects_from_nothing_as_redis_reads_it() {
        assert_eq!(OldPrimary::by(Some(&settings("1", "0"))), OldPrimary::NeverStops);
        assert_eq!(OldPrimary::by(Some(&settings("0", "0"))), OldPrimary::NeedsNoReplica);
    }
}
