//! Waits until PostgreSQL has what Redis decided, and until the holds have ended.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep};

use crate::{
    operator,
    plan::Event,
    progress,
    shop::Shop,
    wire::{Audit, AuditedType},
};

/// Between two rounds of questions.
const PAUSE: Duration = Duration::from_millis(250);

/// How the wait ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drained {
    /// Whether every event was at rest in time.
    pub(crate) complete: bool,
    pub(crate) took: Duration,
}

/// Asks for each event's audit until all are at rest, or `patience` is over.
pub(crate) async fn wait(shop: &Shop, patience: Duration, quiet: bool) -> Result<Drained> {
    let start = Instant::now();
    let mut waiting: Vec<&Event> = shop.market.events.iter().collect();
    loop {
        let mut restless = Vec::new();
        for event in waiting {
            // An audit that fails is asked for again: the API may be the part that is recovering.
            let in_time = start.elapsed() <= patience;
            let at_rest =
                in_time && operator::audit(&shop.client, event).await.is_ok_and(|audit| is_at_rest(&audit));
            if !at_rest {
                restless.push(event);
            }
        }
        waiting = restless;
        if waiting.is_empty() || start.elapsed() > patience {
            progress::clear();
            return Ok(Drained { complete: waiting.is_empty(), took: start.elapsed() });
        }
        super::stop_if_interrupted()?;
        let (events, seconds) = (waiting.len(), start.elapsed().as_secs());
        progress::update(quiet, &format!("  {events} events are not at rest after {seconds} s"));
        sleep(PAUSE).await;
    }
}

/// No lag, no drift, and nothing held: every hold of the test is short.
fn is_at_rest(audit: &Audit) -> bool {
    let settled = |kind: &AuditedType| {
        kind.drift == Some(0)
            && kind.redis.is_some_and(|counts| counts.held == 0)
            && kind.postgres.is_some_and(|counts| counts.held == 0)
    };
    audit.lag == Some(0) && audit.ticket_types.iter().all(settled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn audit(lag: &str, drift: &str, held: u32) -> Audit {
        let text = format!(
            r#"{{"lag":{lag},"gaps":[],"ticket_types":[{{
                "ticket_type_id":"018f0000-0000-7000-8000-000000000000",
                "redis":{{"capacity":9,"available":9,"held":{held},"sold":0}},
                "postgres":{{"capacity":9,"held":{held},"sold":0}},"drift":{drift}}}]}}"#
        );
        serde_json::from_str(&text).expect("an audit")
    }

    #[test]
    fn an_event_is_at_rest_without_lag_drift_and_holds() {
        assert!(is_at_rest(&audit("0", "0", 0)));
        assert!(!is_at_rest(&audit("3", "null", 0)));
        assert!(!is_at_rest(&audit("null", "null", 0)));
        assert!(!is_at_rest(&audit("0", "1", 0)));
        assert!(!is_at_rest(&audit("0", "0", 1)));
    }
}
