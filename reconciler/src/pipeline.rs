//! The way of a record: a thread that reads and decodes, a channel of two batches, and a task that applies.
//!
//! While PostgreSQL does not take a batch the task tries it again and again, the channel fills, and the thread waits in it
//! without reading on; no group expects it to poll. When PostgreSQL takes it the channel empties, and reading goes on where
//! it was. Where its connections break or stay silent, the lease ends all of it, and it begins again at PostgreSQL's offsets.
//!
//! A shard that meets a gap stops: it is taken out of the assignment, and what was read ahead of it is dropped. It is
//! read again from PostgreSQL's offset when its gap is resolved. All shards begin in that state. A shard that runs is read again
//! where somebody moved that offset back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use boxoffice_schema::shard::Shard;
use rdkafka::error::KafkaError;
use sqlx::PgPool;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::apply::Applier;
use crate::backoff::Backoff;
use crate::config::Config;
use crate::consumer::{LogReader, LostOffset, Read, or_wait};
use crate::decode::{Incoming, decode};
use crate::kafka::LogWriter;
use crate::{dead_letter_topic, number, tail};

/// Batches between the thread and the task; with the one being applied it bounds what is in memory.
const BATCHES_AHEAD: usize = 2;

/// How often stopped shards are looked at.
const RESUME_INTERVAL: Duration = Duration::from_millis(500);

/// What the thread sends.
enum Delivery {
    Batch(Vec<Incoming>),
    /// From here on the shard's records are those from PostgreSQL's offset.
    Resumed(Shard, i64),
    Lost(LostOffset),
}

/// What the thread is told.
enum Command {
    Stop(Shard),
    Resume(Shard, i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Stopped,
    /// The thread was told; what comes before its answer was read earlier and is dropped.
    Resuming,
    Running,
}

/// Applies the log until the shutdown, passes what nobody can read at its end, and copies what is set aside.
pub(crate) async fn run(config: Config, pool: PgPool, log: Arc<LogWriter>, shutdown: CancellationToken) {
    let apply = apply_log(&config, &pool, &shutdown);
    let pass = tail::watch(&config, &pool, &log, &shutdown);
    let copy = dead_letter_topic::watch(&config, &pool, &shutdown);
    tokio::join!(apply, pass, copy);
}

async fn apply_log(config: &Config, pool: &PgPool, shutdown: &CancellationToken) {
    let mut backoff = Backoff::of_a_server();
    while !shutdown.is_cancelled() {
        let applier = Applier::new(pool.clone());
        match run_once(config, applier, shutdown).await {
            Ok(()) => backoff.reset(),
            Err(error) => {
                tracing::error!(%error, "reading the log failed; starting over at PostgreSQL's offsets");
            }
        }
        backoff.wait(shutdown).await;
    }
}

async fn run_once(config: &Config, applier: Applier, shutdown: &CancellationToken) -> anyhow::Result<()> {
    let (deliveries, received) = mpsc::channel(BATCHES_AHEAD);
    let (commands, commanded) = std::sync::mpsc::channel();
    let stop = shutdown.child_token();
    let _stop_thread = stop.clone().drop_guard();
    let reader = LogReader::new(config)?;
    let thread = tokio::task::spawn_blocking(move || read_log(reader, &deliveries, &commanded, &stop));
    let states = config.shards.shards().map(|shard| (shard, State::Stopped)).collect();
    Pipeline { applier, commands, states }.run(received, shutdown).await;
    drop(_stop_thread);
    Ok(thread.await??)
}

/// The thread: blocks in Kafka's client and in the channel, nowhere else.
fn read_log(
    mut reader: LogReader,
    deliveries: &mpsc::Sender<Delivery>,
    commands: &std::sync::mpsc::Receiver<Command>,
    stop: &CancellationToken,
) -> Result<(), KafkaError> {
    let mut resuming: BTreeMap<Shard, i64> = BTreeMap::new();
    while !stop.is_cancelled() {
        for command in commands.try_iter() {
            match command {
                Command::Stop(shard) => reader.unassign(shard)?,
                Command::Resume(shard, offset) => {
                    resuming.insert(shard, offset);
                }
            }
        }
        let Some(resumed) = or_wait(resume(&mut reader, &mut resuming))? else { continue };
        // Before anything is read: a shard of which nobody hears that it was resumed would be dropped for ever.
        if !send(deliveries, resumed) {
            return Ok(());
        }
        let Some(read) = or_wait(reader.read())? else { continue };
        let is_stuck = matches!(read, Read::Stuck);
        if !send(deliveries, delivered(read)) {
            return Ok(());
        }
        if is_stuck {
            tracing::warn!(
                "nothing comes from Kafka's log although there may be more; reading on with a new client"
            );
            return Ok(());
        }
    }
    Ok(())
}

/// Blocks while the channel is full; `false` where nobody receives any more.
fn send(channel: &mpsc::Sender<Delivery>, deliveries: Vec<Delivery>) -> bool {
    deliveries.into_iter().all(|delivery| channel.blocking_send(delivery).is_ok())
}

/// Assigns the shards that are to be resumed; they stay in `resuming` where Kafka is away.
fn resume(reader: &mut LogReader, resuming: &mut BTreeMap<Shard, i64>) -> Result<Vec<Delivery>, KafkaError> {
    if resuming.is_empty() {
        return Ok(Vec::new());
    }
    for shard in resuming.keys() {
        reader.unassign(*shard)?;
    }
    let offsets: Vec<_> = resuming.iter().map(|(shard, offset)| (*shard, *offset)).collect();
    let lost = reader.assign(&offsets)?;
    resuming.clear();
    let resumed = offsets.into_iter().map(|(shard, offset)| Delivery::Resumed(shard, offset));
    Ok(resumed.chain(lost.into_iter().map(Delivery::Lost)).collect())
}

fn delivered(read: Read) -> Vec<Delivery> {
    match read {
        Read::Records(records) if records.is_empty() => Vec::new(),
        Read::Records(records) => vec![Delivery::Batch(records.into_iter().map(decode).collect())],
        Read::Lost(lost) => lost.into_iter().map(Delivery::Lost).collect(),
        Read::Stuck => Vec::new(),
    }
}

struct Pipeline {
    applier: Applier,
    commands: std::sync::mpsc::Sender<Command>,
    states: BTreeMap<Shard, State>,
}

impl Pipeline {
    /// Ends with the shutdown, or when the thread has ended.
    async fn run(mut self, mut received: mpsc::Receiver<Delivery>, shutdown: &CancellationToken) {
        let mut look = tokio::time::interval(RESUME_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                // A PostgreSQL that is silent is waited for no longer than the lease lasts.
                _ = look.tick() => match shutdown.run_until_cancelled(self.resume()).await {
                    Some(Ok(())) => {}
                    Some(Err(error)) => {
                        tracing::warn!(%error, "PostgreSQL does not tell which shards may go on; asking again");
                    }
                    None => return,
                },
                delivery = received.recv() => match delivery {
                    Some(delivery) => if self.take(delivery, shutdown).await.is_none() { return },
                    None => return,
                },
            }
        }
    }

    /// `None` where the shutdown came first.
    async fn take(&mut self, delivery: Delivery, shutdown: &CancellationToken) -> Option<()> {
        match delivery {
            Delivery::Resumed(shard, offset) => {
                self.applier.begin(shard, offset);
                self.states.insert(shard, State::Running);
            }
            Delivery::Lost(lost) => self.record_lost(lost, shutdown).await?,
            Delivery::Batch(mut batch) => {
                batch.retain(|incoming| self.states.get(&incoming.shard) == Some(&State::Running));
                if batch.is_empty() {
                    return Some(());
                }
                let outcome = self.applier.apply(batch, shutdown).await?;
                for shard in outcome.stopped {
                    self.states.insert(shard, State::Stopped);
                    // A closed channel means that the thread has ended; `run` sees that next.
                    let _ = self.commands.send(Command::Stop(shard));
                }
            }
        }
        Some(())
    }

    async fn record_lost(&mut self, lost: LostOffset, shutdown: &CancellationToken) -> Option<()> {
        let LostOffset { shard, wanted, found } = lost;
        tracing::error!(
            %shard, wanted, oldest = found.low, next = found.high,
            "Kafka does not have the offset at which this shard goes on"
        );
        let mut backoff = Backoff::of_a_server();
        while let Err(error) = self.applier.record_lost_offset(shard, wanted).await {
            tracing::warn!(%error, "a gap was not recorded; trying again");
            if !backoff.wait(shutdown).await {
                return None;
            }
        }
        self.states.insert(shard, State::Stopped);
        Some(())
    }

    /// Reads on where a stopped shard has no open gap (any more), and anew where PostgreSQL's offset of a shard lies before what was
    /// brought there: nothing is under way to it now.
    async fn resume(&mut self) -> sqlx::Result<()> {
        let reached = |(shard, state): (&Shard, &State)| match state {
            State::Stopped => Some((number::of_shard(*shard), None)),
            State::Running => Some((number::of_shard(*shard), Some(self.applier.reached(*shard)))),
            State::Resuming => None,
        };
        let (shards, reached): (Vec<i16>, Vec<Option<i64>>) = self.states.iter().filter_map(reached).unzip();
        let rows: Vec<(i16, i64)> = sqlx::query_as(
            "SELECT shard, next_offset \
             FROM shards JOIN unnest($1::int2[], $2::int8[]) AS reader (shard, reached) USING (shard) \
             WHERE (reached IS NULL OR next_offset < reached) \
             AND NOT EXISTS (SELECT FROM gaps WHERE gaps.shard = shards.shard AND resolved_at IS NULL)",
        )
        .bind(shards)
        .bind(reached)
        .fetch_all(&self.applier.pool)
        .await?;
        for (shard, offset) in rows {
            let shard = number::shard(shard);
            if self.states.insert(shard, State::Resuming) == Some(State::Running) {
                tracing::warn!(%shard, offset, "the shard's offset was moved back; reading it again from there");
            }
            let _ = self.commands.send(Command::Resume(shard, offset));
        }
        Ok(())
    }
}
