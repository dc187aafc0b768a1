//! Whether Redis is set up to keep what an acknowledgement promises. What is wrong is said loudly, at start and
//! whenever another Redis answers or its settings change, because otherwise it shows only when something has been lost.
//! Where the operator asked to be strict, nothing starts on such a Redis.
//!
//! Kafka's settings are looked at by the reconciler, which creates the topic.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use redis::InfoDict;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::link::Link;
use super::{Acknowledge, Epochs, InventoryError, Settings, Shared};

/// How often Redis is looked at.
const INTERVAL: Duration = Duration::from_secs(2);

/// How long a strict start waits for Redis to answer.
const PATIENCE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(200);

/// Recovery waits until a primary that was cut off refuses to sell, and nothing is sold meanwhile; in seconds.
const REPLICAS_MAX_LAG: u64 = 10;

const READ: [&str; 7] = [
    "appendonly",
    "appendfsync",
    "no-appendfsync-on-rewrite",
    "maxmemory-policy",
    "maxmemory",
    "min-replicas-to-write",
    "min-replicas-max-lag",
];

/// What Redis says of itself.
struct Standing {
    /// Names the process.
    run_id: String,
    /// Replicas that are connected at the moment.
    replicas: u64,
    /// The settings, or why Redis does not tell them.
    settings: Result<HashMap<String, String>, String>,
}

/// Refuses a Redis that does not keep what is promised, for a strict start.
///
/// # Errors
/// Lists everything that is wrong; or says that Redis did not answer for ten seconds.
pub(crate) async fn refuse_unsafe(settings: &Settings, epochs: Arc<Epochs>) -> anyhow::Result<()> {
    let mut keepers = JoinSet::new();
    let link = Link::start(settings, epochs, &mut keepers)?;
    let since = Instant::now();
    let standing = loop {
        match read(&link).await {
            Ok(standing) => break standing,
            Err(error) if since.elapsed() > PATIENCE => {
                bail!("--strict: whether Redis keeps what is promised is not known: {error}");
            }
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    };
    let complaints = complaints(&standing, settings.acknowledge, settings.redis_replicas);
    if !complaints.is_empty() {
        bail!("--strict: Redis does not keep what is promised:\n- {}", complaints.join("\n- "));
    }
    Ok(())
}

/// Looks again and again, and says what is wrong once for each process that answers, and again when it changes.
pub(super) async fn watch(shared: Arc<Shared>, shutdown: CancellationToken) {
    let mut said = (String::new(), Vec::new());
    loop {
        match read(&shared.background).await {
            Ok(standing) => {
                let Settings { acknowledge, redis_replicas, .. } = shared.settings;
                let mut complaints = complaints(&standing, acknowledge, redis_replicas);
                complaints.extend(missing_replicas(&standing, redis_replicas));
                let now = (standing.run_id, complaints);
                if now != said {
                    now.1.iter().for_each(|complaint| tracing::error!("{complaint}"));
                    said = now;
                }
            }
            // Without an answer nothing is sold, and the link has said so.
            Err(error) => tracing::debug!(%error, "Redis' settings are not known"),
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

async fn read(link: &Link) -> Result<Standing, InventoryError> {
    let info: InfoDict = link.command(redis::cmd("INFO").arg("server").arg("replication")).await?;
    let settings = match link.try_command(redis::cmd("CONFIG").arg("GET").arg(&READ)).await? {
        Ok(settings) => Ok(settings),
        // Anything but a refusal is no answer.
        Err(error) if error.code().is_none() => return Err(super::link::classify(&error)),
        Err(error) => Err(error.to_string()),
    };
    Ok(Standing {
        run_id: info.get("run_id").unwrap_or_default(),
        replicas: info.get("connected_slaves").unwrap_or_default(),
        settings,
    })
}

/// A setting, the rule for its value in words and as a test, and what happens otherwise.
type Rule = (&'static str, &'static str, fn(&str) -> bool, &'static str);

const ALWAYS: [Rule; 3] = [
    ("appendonly", "yes", |value| value == "yes", "what Kafka does not have yet is lost when Redis restarts"),
    (
        "maxmemory-policy",
        "noeviction",
        |value| value == "noeviction",
        "Redis may delete stock and bookings to make room",
    ),
    (
        "maxmemory",
        "a limit",
        |value| is_in(value, 1, u64::MAX),
        "bookings are not refused in time, and the machine may kill Redis when its memory is used up",
    ),
];

/// Where an answer means that Redis has it on its disk.
const IN_REDIS_MODE: [Rule; 2] = [
    (
        "appendfsync",
        "always",
        |value| value == "always",
        "acknowledged bookings of the last second can be lost with the machine's power; or use BOXOFFICE_ACK=kafka",
    ),
    (
        "no-appendfsync-on-rewrite",
        "no",
        |value| value == "no",
        "bookings that are acknowledged while Redis rewrites its file can be lost with the machine's power; or use \
         BOXOFFICE_ACK=kafka",
    ),
];

const WITH_REPLICAS: [Rule; 2] = [
    (
        "min-replicas-to-write",
        "1 or more",
        |value| is_in(value, 1, u64::MAX),
        "a primary that is cut off goes on selling what the replica that took over sells as well",
    ),
    (
        "min-replicas-max-lag",
        "1 to 10",
        |value| is_in(value, 1, REPLICAS_MAX_LAG),
        "after a fail-over nothing is sold for longer than that, or a primary that is cut off never stops",
    ),
];

fn is_in(value: &str, least: u64, most: u64) -> bool {
    value.parse().is_ok_and(|number: u64| (least..=most).contains(&number))
}

/// Each thing that breaks a promise: the setting, its value, what it must be, and what is lost otherwise.
fn complaints(standing: &Standing, acknowledge: Acknowledge, replicas: u16) -> Vec<String> {
    let settings = match &standing.settings {
        Ok(settings) => settings,
        Err(why) => {
            return vec![format!(
                "Redis does not tell its settings ({why}): whether it keeps a booking is not known; allow CONFIG GET"
            )];
        }
    };
    let mut rules = ALWAYS.to_vec();
    if acknowledge == Acknowledge::Redis {
        rules.extend(IN_REDIS_MODE);
    }
    if replicas > 0 || standing.replicas > 0 {
        rules.extend(WITH_REPLICAS);
    }
    let complaint = |(setting, wanted, holds, consequence): Rule| {
        let value = settings.get(setting).map_or("hidden", String::as_str);
        (!holds(value)).then(|| format!("Redis has {setting} {value}, not {wanted}: {consequence}"))
    };
    rules.into_iter().filter_map(complaint).collect()
}

/// That fewer replicas are connected than the operator or Redis itself demands. A strict start does not fail for it: unlike a
/// setting it passes by itself, and an API that is started again meanwhile is not to make it worse.
fn missing_replicas(standing: &Standing, demanded: u16) -> Option<String> {
    let settings = standing.settings.as_ref().ok();
    let to_write = settings.and_then(|settings| settings.get("min-replicas-to-write")?.parse::<u64>().ok());
    let (connected, needed) = (standing.replicas, u64::from(demanded).max(to_write.unwrap_or_default()));
    (connected < needed).then(|| {
        format!(
            "Redis has {connected} of the {needed} replicas that BOXOFFICE_REDIS_REPLICAS or min-replicas-to-write demands: \
             fewer can take its place, and below min-replicas-to-write nothing is sold"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Redis that keeps everything, but for one setting.
    fn standing(replicas: u64, change: (&str, &str)) -> Standing {
        let mut settings: HashMap<String, String> = [
            ("appendonly", "yes"),
            ("appendfsync", "always"),
            ("no-appendfsync-on-rewrite", "no"),
            ("maxmemory-policy", "noeviction"),
            ("maxmemory", "1073741824"),
            ("min-replicas-to-write", "1"),
            ("min-replicas-max-lag", "10"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        settings.insert(change.0.to_owned(), change.1.to_owned());
        Standing { run_id: "r".to_owned(), replicas, settings: Ok(settings) }
    }

    #[test]
    fn each_setting_that_breaks_a_promise_is_named_with_its_value_and_what_it_must_be() {
        let table = [
            (("appendonly", "no"), "appendonly no, not yes"),
            (("appendfsync", "everysec"), "appendfsync everysec, not always"),
            (("no-appendfsync-on-rewrite", "yes"), "no-appendfsync-on-rewrite yes, not no"),
            (("maxmemory-policy", "allkeys-lru"), "maxmemory-policy allkeys-lru, not noeviction"),
            (("maxmemory", "0"), "maxmemory 0, not a limit"),
            (("min-replicas-to-write", "0"), "min-replicas-to-write 0, not 1 or more"),
            (("min-replicas-max-lag", "0"), "min-replicas-max-lag 0, not 1 to 10"),
            (("min-replicas-max-lag", "60"), "min-replicas-max-lag 60, not 1 to 10"),
        ];
        for (change, words) in table {
            let said = complaints(&standing(1, change), Acknowledge::Redis, 0);
            assert!(said.len() == 1 && said[0].contains(words), "{change:?}: {said:?}");
        }
        assert_eq!(complaints(&standing(1, ("maxmemory", "1")), Acknowledge::Redis, 1), Vec::<String>::new());
    }

    #[test]
    fn replicas_matter_where_there_are_some_or_are_to_be_some() {
        let alone = ("min-replicas-to-write", "0");
        assert_eq!(complaints(&standing(0, alone), Acknowledge::Redis, 0), Vec::<String>::new());
        assert_eq!(complaints(&standing(1, alone), Acknowledge::Kafka, 0).len(), 1);
        assert_eq!(complaints(&standing(0, alone), Acknowledge::Kafka, 1).len(), 1);
    }

    #[test]
    fn replicas_that_are_missing_are_counted_by_what_the_operator_and_redis_demand() {
        let missing = |connected, to_write, demanded| {
            missing_replicas(&standing(connected, ("min-replicas-to-write", to_write)), demanded)
        };
        for enough in [missing(0, "0", 0), missing(2, "1", 2), missing(2, "2", 1), missing(3, "1", 0)] {
            assert_eq!(enough, None);
        }
        for (missing, words) in [
            (missing(0, "1", 1), "0 of the 1 replicas"),
            (missing(1, "1", 2), "1 of the 2 replicas"),
            (missing(1, "2", 0), "1 of the 2 replicas"),
        ] {
            assert!(missing.as_ref().is_some_and(|said| said.contains(words)), "{words}: {missing:?}");
        }
    }

    #[test]
    fn an_answer_that_waits_for_kafka_does_not_need_the_disk_of_redis() {
        for lazy in [("appendfsync", "everysec"), ("no-appendfsync-on-rewrite", "yes")] {
            assert_eq!(complaints(&standing(0, lazy), Acknowledge::Kafka, 0), Vec::<String>::new());
        }
    }

    #[test]
    fn settings_that_are_hidden_are_not_taken_for_safe() {
        let forbidden = Standing { settings: Err("NOPERM".to_owned()), ..standing(0, ("maxmemory", "1")) };
        let said = complaints(&forbidden, Acknowledge::Redis, 0);
        assert!(said.len() == 1 && said[0].contains("NOPERM"), "{said:?}");
        let silent = Standing { settings: Ok(HashMap::new()), ..forbidden };
        assert_eq!(complaints(&silent, Acknowledge::Redis, 1).len(), 7);
    }
}
