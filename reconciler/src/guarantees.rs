//! Whether the log's topic is set up to keep what an acknowledgement promises. What is wrong is said loudly at start,
//! because otherwise it shows only when something has been lost; with `--strict` it is a refusal.
//!
//! Redis' own settings are looked at by the API, which is the one that answers clients.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, bail};
use boxoffice_schema::shard::ShardCount;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::Consumer;

use crate::config::Config;
use crate::kafka::{self, REQUEST_TIMEOUT};

/// Copies of each record, unless the operator has said that there are to be others.
const REPLICATION: u16 = 3;

/// What Kafka says of the log's topic.
struct TopicSettings {
    /// The number of replicas of each partition.
    replicas: Vec<usize>,
    /// The topic's settings, or why Kafka does not tell them.
    settings: Result<HashMap<String, String>, String>,
}

/// Looks at the topic once, and says each thing that breaks a promise.
///
/// The outer error is Kafka being away, which passes; the inner one is `--strict`, which is final.
pub(crate) async fn check(config: &Config) -> anyhow::Result<anyhow::Result<()>> {
    let found = complaints(config).await?;
    say(&found);
    if config.kafka_replication == Some(1) {
        tracing::warn!(
            topic = config.kafka_topic,
            "there is one copy of each record, as BOXOFFICE_KAFKA_REPLICATION says: decisions that PostgreSQL has not \
             applied are lost with the broker's disk"
        );
    }
    Ok(if config.strict { refuse(&found) } else { Ok(()) })
}

/// One line each.
pub(crate) fn say(complaints: &[String]) {
    for complaint in complaints {
        tracing::error!("{complaint}");
    }
}

/// What is wrong with the topic now.
pub(crate) async fn complaints(config: &Config) -> anyhow::Result<Vec<String>> {
    Ok(judge(config, &read(config).await?))
}

fn refuse(complaints: &[String]) -> anyhow::Result<()> {
    if complaints.is_empty() {
        return Ok(());
    }
    bail!("--strict: Kafka does not keep what is promised:\n- {}", complaints.join("\n- "))
}

async fn read(config: &Config) -> anyhow::Result<TopicSettings> {
    let (asked, topic) = (config.clone(), config.kafka_topic.clone());
    let ask = move || kafka::consumer(&asked)?.fetch_metadata(Some(&topic), REQUEST_TIMEOUT);
    let metadata = tokio::task::spawn_blocking(ask).await??;
    let topic = metadata.topics().iter().find(|topic| topic.name() == config.kafka_topic);
    let replicas = topic.map_or_else(Vec::new, |topic| {
        topic.partitions().iter().map(|partition| partition.replicas().len()).collect()
    });
    let admin: AdminClient<DefaultClientContext> = kafka::client(config).create()?;
    let resource = ResourceSpecifier::Topic(&config.kafka_topic);
    let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
    let mut described = admin.describe_configs([&resource], &options).await.context("Kafka's settings")?;
    let settings = match described.pop().context("Kafka described no topic")? {
        Ok(resource) => {
            let entry = |entry: rdkafka::admin::ConfigEntry| Some((entry.name, entry.value?));
            Ok(resource.entries.into_iter().filter_map(entry).collect())
        }
        Err(code) => Err(code.to_string()),
    };
    Ok(TopicSettings { replicas, settings })
}

/// Each thing that breaks a promise: the setting, its value, what it must be, and what is lost otherwise.
fn judge(config: &Config, found: &TopicSettings) -> Vec<String> {
    let Config { kafka_topic: topic, shards, kafka_replication, kafka_retention, .. } = config;
    let mut complaints = Vec::new();
    complaints.extend(too_few_partitions(topic, found.replicas.len(), *shards));
    let copies = found.replicas.iter().copied().min().unwrap_or_default();
    let wanted = kafka_replication.unwrap_or(REPLICATION);
    if copies < usize::from(wanted) {
        complaints.push(format!(
            "topic {topic} has replication factor {copies}, not {wanted}: decisions that PostgreSQL has not applied \
             are lost with the disks of {copies} brokers; move it to more, or set BOXOFFICE_KAFKA_REPLICATION to \
             {copies} to say that this is meant"
        ));
    }
    match &found.settings {
        Ok(settings) => complaints.extend(wrong_settings(topic, settings, copies, *kafka_retention)),
        Err(why) => complaints.push(format!(
            "Kafka does not tell the settings of topic {topic} ({why}): whether it keeps every decision is not known; \
             allow DescribeConfigs"
        )),
    }
    complaints
}

fn too_few_partitions(topic: &str, found: usize, shards: ShardCount) -> Option<String> {
    let verdict = kafka::enough_partitions(topic, found, shards);
    verdict.err().map(|error| error.to_string())
}

/// A setting, the rule for its value in words and as a test, and what happens otherwise.
type Rule<'a> = (&'static str, String, Box<dyn Fn(&str) -> bool + 'a>, &'static str);

fn wrong_settings(
    topic: &str,
    settings: &HashMap<String, String>,
    copies: usize,
    retention: Duration,
) -> Vec<String> {
    let at_least = |minimum: i64| move |value: &str| value.parse::<i64>().is_ok_and(|value| value >= minimum);
    let retention_ms = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
    let in_sync = if copies >= 3 { 2 } else { 1 };
    let rules: [Rule<'_>; 5] = [
        (
            "min.insync.replicas",
            format!("{in_sync} or more"),
            Box::new(at_least(in_sync)),
            "a decision counts as written when one broker has it, and is lost with that broker's disk",
        ),
        (
            "unclean.leader.election.enable",
            "false".to_owned(),
            Box::new(|value| value == "false"),
            "a broker that lags may become the leader, and confirmed decisions disappear from the log",
        ),
        (
            "cleanup.policy",
            "delete".to_owned(),
            Box::new(|value| value == "delete"),
            "compaction removes all but the last decision of each event from the log",
        ),
        (
            "retention.ms",
            format!("{retention_ms} or more, as BOXOFFICE_KAFKA_RETENTION_HOURS says"),
            Box::new(move |value| value == "-1" || at_least(retention_ms)(value)),
            "decisions disappear before PostgreSQL, stopped or restored from a backup, has read them",
        ),
        (
            "retention.bytes",
            "-1".to_owned(),
            Box::new(|value| value == "-1"),
            "a large sale pushes its own decisions out of the log before their time",
        ),
    ];
    let wrong = rules.into_iter().filter_map(|(name, wanted, holds, consequence)| {
        let value = settings.get(name).map_or("hidden", String::as_str);
        (!holds(value)).then(|| format!("topic {topic} has {name} {value}, not {wanted}: {consequence}"))
    });
    wrong.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(kafka_replication: Option<u16>) -> Config {
        Config { kafka_replication, ..crate::test_records::config() }
    }

    fn settings(change: (&str, &str)) -> HashMap<String, String> {
        let mut settings: HashMap<String, String> = [
            ("min.insync.replicas", "2"),
            ("unclean.leader.election.enable", "false"),
            ("cleanup.policy", "delete"),
            ("retention.ms", "3600000"),
            ("retention.bytes", "-1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        settings.insert(change.0.to_owned(), change.1.to_owned());
        settings
    }

    fn found(copies: usize, change: (&str, &str)) -> TopicSettings {
        TopicSettings { replicas: vec![copies; 4], settings: Ok(settings(change)) }
    }

    #[test]
    fn a_topic_that_keeps_every_decision_is_not_complained_about() {
        let undeclared = config(None);
        for change in [("min.insync.replicas", "2"), ("retention.ms", "-1"), ("retention.ms", "9999999999")] {
            assert_eq!(judge(&undeclared, &found(3, change)), Vec::<String>::new());
        }
        let declared = config(Some(1));
        let one_copy = found(1, ("min.insync.replicas", "1"));
        assert_eq!(judge(&declared, &one_copy), Vec::<String>::new());
    }

    #[test]
    fn each_setting_that_breaks_a_promise_is_named_with_its_value_and_what_it_must_be() {
        let table = [
            (("min.insync.replicas", "1"), "min.insync.replicas 1, not 2 or more"),
            (("unclean.leader.election.enable", "true"), "enable true, not false"),
            (("cleanup.policy", "compact"), "cleanup.policy compact, not delete"),
            (("cleanup.policy", "compact,delete"), "cleanup.policy compact,delete, not delete"),
            (("retention.ms", "3599999"), "retention.ms 3599999, not 3600000 or more"),
            (("retention.bytes", "1073741824"), "retention.bytes 1073741824, not -1"),
        ];
        for (change, words) in table {
            let said = judge(&config(None), &found(3, change));
            assert!(said.len() == 1 && said[0].contains(words), "{change:?}: {said:?}");
        }
    }

    #[test]
    fn fewer_copies_than_declared_or_than_three_and_fewer_partitions_than_shards_are_named() {
        let one_copy = found(1, ("min.insync.replicas", "1"));
        let said = judge(&config(None), &one_copy);
        assert!(said.len() == 1 && said[0].contains("replication factor 1, not 3"), "{said:?}");
        let declared = config(Some(2));
        let said = judge(&declared, &one_copy);
        assert!(said.len() == 1 && said[0].contains("replication factor 1, not 2"), "{said:?}");
        let few = TopicSettings { replicas: vec![3; 3], ..found(3, ("retention.ms", "-1")) };
        let said = judge(&config(None), &few);
        assert!(said.len() == 1 && said[0].contains("3 partitions and there are 4 shards"), "{said:?}");
    }

    #[test]
    fn settings_that_are_hidden_are_not_taken_for_safe() {
        let hidden = TopicSettings { replicas: vec![3; 4], settings: Err("not authorized".to_owned()) };
        let said = judge(&config(None), &hidden);
        assert!(said.len() == 1 && said[0].contains("not authorized"), "{said:?}");
        let silent = TopicSettings { replicas: vec![3; 4], settings: Ok(HashMap::new()) };
        assert_eq!(judge(&config(None), &silent).len(), 5);
    }

    #[test]
    fn strict_refuses_and_lists_every_complaint() {
        refuse(&[]).unwrap();
        let refusal = refuse(&["one".to_owned(), "two".to_owned()]).unwrap_err().to_string();
        assert!(refusal.contains("- one\n- two"), "{refusal}");
    }
}
