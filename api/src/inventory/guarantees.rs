//! Whether Redis is set up to keep what it promises. It is looked at once, when Redis first answers; what is wrong is
//! said loudly, because it shows only when something has been lost.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Shared;

const RETRY: Duration = Duration::from_secs(1);

/// A setting, the value that it must have, and what happens otherwise.
const REQUIRED: [(&str, &str, &str); 3] = [
    ("appendonly", "yes", "every booking is lost when Redis restarts"),
    ("appendfsync", "always", "bookings of the last second can be lost with the machine's power"),
    ("maxmemory-policy", "noeviction", "Redis may delete stock and bookings to make room"),
];

pub(super) async fn check(shared: Arc<Shared>, shutdown: CancellationToken) {
    let mut command = redis::cmd("CONFIG");
    command.arg("GET");
    for (setting, ..) in REQUIRED {
        command.arg(setting);
    }
    loop {
        match shared.pool.command::<HashMap<String, String>>(&command).await {
            Ok(settings) => {
                for complaint in complaints(&settings) {
                    tracing::error!("{complaint}");
                }
                return;
            }
            // Without an answer nothing is sold, and the link has said so.
            Err(error) => tracing::debug!(%error, "Redis' settings are not known yet"),
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

fn complaints(settings: &HashMap<String, String>) -> Vec<String> {
    let complaint = |(setting, wanted, consequence): (&str, &str, &str)| {
        let value = settings.get(setting).map_or("hidden", String::as_str);
        (value != wanted).then(|| format!("Redis has {setting} {value}, not {wanted}: {consequence}"))
    };
    REQUIRED.into_iter().filter_map(complaint).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_that_breaks_a_promise_is_named_with_its_consequence() {
        let set = |fsync: &str| {
            [("appendonly", "yes"), ("appendfsync", fsync), ("maxmemory-policy", "noeviction")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into()
        };
        assert_eq!(complaints(&set("always")), Vec::<String>::new());
        let wrong = complaints(&set("everysec"));
        assert_eq!(wrong.len(), 1);
        assert!(wrong[0].contains("appendfsync everysec"), "{wrong:?}");
        assert_eq!(complaints(&HashMap::new()).len(), 3);
    }
}
