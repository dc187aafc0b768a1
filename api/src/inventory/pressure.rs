//! Refuses new bookings while Redis is short of memory: what is left must do for draining it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use boxoffice_schema::memory::{LIMIT_PERCENT, is_short};
use redis::InfoDict;
use tokio_util::sync::CancellationToken;

use super::Shared;

const INTERVAL: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Pressure {
    short: AtomicBool,
}

impl Pressure {
    pub(super) fn memory_is_short(&self) -> bool {
        self.short.load(Ordering::Relaxed)
    }
}

pub(super) async fn watch(shared: Arc<Shared>, shutdown: CancellationToken) {
    loop {
        let mut command = redis::cmd("INFO");
        command.arg("memory");
        // Without an answer bookings are refused anyway, and the link has said so.
        if let Ok(info) = shared.background.command::<InfoDict>(&command).await {
            note(&shared.pressure, &info);
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

fn note(pressure: &Pressure, info: &InfoDict) {
    let number = |name| info.get::<u64>(name);
    let (Some(used), Some(max)) = (number("used_memory"), number("maxmemory")) else { return };
    #[expect(clippy::cast_precision_loss, reason = "a gauge needs no more than 52 bits")]
    metrics::gauge!("boxoffice_redis_used_memory_bytes").set(used as f64);
    let short = is_short(used, max);
    if short != pressure.short.swap(short, Ordering::Relaxed) {
        if short {
            tracing::error!(
                used,
                max,
                "Redis is past {LIMIT_PERCENT} % of maxmemory; bookings are refused: raise it"
            );
        } else {
            tracing::info!(used, max, "Redis has memory again; bookings go on");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_redis_is_read() {
        let pressure = Pressure::default();
        let note = |info| note(&pressure, &InfoDict::new(info));
        note("# Memory\r\nused_memory:900\r\nused_memory_human:900B\r\nmaxmemory:1000\r\n");
        assert!(pressure.memory_is_short());
        note("used_memory:100\r\nmaxmemory:1000\r\n");
        assert!(!pressure.memory_is_short());
    }
}
