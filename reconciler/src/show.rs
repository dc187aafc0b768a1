//! `log`: what was decided, for whoever looks at it. The log's bytes are for machines; here they are JSON, a line a record.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use boxoffice_schema::shard::Shard;
use serde_json::json;

use crate::config::Config;
use crate::consumer::{LogReader, Read};
use crate::decode::{Content, Fetched, decode, shown};
use crate::kafka;

/// How long Kafka may give nothing of what it says that it has.
const PATIENCE: Duration = Duration::from_secs(10);

/// Gives `say` up to `limit` records of a shard, a line each: from an offset on, or the last ones. It blocks: it belongs on a
/// thread of its own.
///
/// # Errors
/// An offset that the log does not have; Kafka's.
pub(crate) fn show(
    config: &Config,
    shard: Shard,
    from: Option<i64>,
    limit: u16,
    mut say: impl FnMut(String),
) -> anyhow::Result<()> {
    ensure!(
        shard.number() < config.shards.get(),
        "there is no shard {shard}: they are 0 to {}",
        config.shards.get() - 1
    );
    let found = kafka::watermarks(&kafka::consumer(config)?, &config.kafka_topic, [shard])?;
    let Some((_, found)) = found.first() else { bail!("Kafka does not say what there is of shard {shard}") };
    let mut next = from.unwrap_or((found.high - i64::from(limit)).max(found.low));
    let end = found.high.min(next + i64::from(limit));
    let mut reader = LogReader::new(config)?;
    if !reader.assign(&[(shard, next)])?.is_empty() {
        bail!("the log of shard {shard} has no offset {next}: it has {} to {}", found.low, found.high);
    }
    let mut until = Instant::now() + PATIENCE;
    while next < end {
        let Read::Records(records) = reader.read()? else {
            bail!("Kafka does not give offset {next} of shard {shard}")
        };
        ensure!(
            !records.is_empty() || Instant::now() < until,
            "Kafka gave nothing for {} s",
            PATIENCE.as_secs()
        );
        for fetched in records.into_iter().take_while(|fetched| fetched.offset < end) {
            next = fetched.offset + 1;
            until = Instant::now() + PATIENCE;
            say(line(fetched));
        }
    }
    Ok(())
}

fn line(fetched: Fetched) -> String {
    let incoming = decode(fetched);
    let (offset, value) = (incoming.offset, shown(&incoming.payload));
    match incoming.content {
        Content::Record(_) => format!("{{\"offset\":{offset},\"record\":{value}}}"),
        Content::Poison { reason, .. } => {
            json!({ "offset": offset, "unreadable": reason, "value": value }).to_string()
        }
    }
}
