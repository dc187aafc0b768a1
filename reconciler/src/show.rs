//! `log`: what was decided, for whoever looks at it. The log's bytes are for machines; here they are JSON, a line a record.

use std::io::{ErrorKind, Write};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use boxoffice_schema::shard::Shard;
use serde_json::json;

use crate::config::Config;
use crate::consumer::{LogReader, Read, or_wait};
use crate::decode::{Content, Fetched, decode, shown};
use crate::kafka;

/// How long Kafka may give nothing of what it says that it has.
const PATIENCE: Duration = Duration::from_secs(10);

/// Writes up to `limit` records of a shard, a line each: from an offset on, or the last ones. Ends where nobody reads on. It
/// blocks: it belongs on a thread of its own.
///
/// # Errors
/// An offset that the log does not have; Kafka's, and those of writing.
pub(crate) fn show(
    config: &Config,
    shard: Shard,
    from: Option<i64>,
    limit: u16,
    mut out: impl Write,
) -> anyhow::Result<()> {
    let (number, count) = (shard.number(), config.shards.get());
    ensure!(number < count, "there is no shard {number}: they are 0 to {}", count - 1);
    let found = kafka::watermarks(&kafka::consumer(config)?, &config.kafka_topic, [shard])?;
    let Some((_, found)) = found.first() else { bail!("Kafka does not say what there is of shard {number}") };
    let mut next = from.unwrap_or((found.high - i64::from(limit)).max(found.low));
    let end = found.high.min(next.saturating_add(limit.into()));
    let mut reader = LogReader::new(config)?;
    if !reader.assign(&[(shard, next)])?.is_empty() {
        bail!("the log of shard {number} has no offset {next}: it has {} to {}", found.low, found.high);
    }
    let mut until = Instant::now() + PATIENCE;
    while next < end {
        ensure!(Instant::now() < until, "Kafka gave nothing for {} s", PATIENCE.as_secs());
        let Some(read) = or_wait(reader.read())? else { continue };
        let Read::Records(records) = read else {
            bail!("Kafka does not give offset {next} of shard {number}")
        };
        for fetched in records.into_iter().take_while(|fetched| fetched.offset < end) {
            next = fetched.offset + 1;
            until = Instant::now() + PATIENCE;
            match out.write_all(&line(fetched)) {
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
                written => written?,
            }
        }
    }
    Ok(())
}

fn line(fetched: Fetched) -> Vec<u8> {
    let incoming = decode(fetched);
    let offset = incoming.offset;
    match incoming.content {
        Content::Record(record) => {
            [format!("{{\"offset\":{offset},\"record\":").as_bytes(), &record.to_json(), b"}\n"].concat()
        }
        Content::Poison { reason, .. } => {
            let value = shown(&incoming.payload);
            format!("{}\n", json!({ "offset": offset, "unreadable": reason, "value": value })).into_bytes()
        }
    }
}
