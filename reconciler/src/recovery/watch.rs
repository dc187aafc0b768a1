//! Looks at the certificates, and recovers the shards that lack one or that somebody asked to be rebuilt: several at
//! once, each in a task of its own and with its own pauses.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use boxoffice_schema::scripts::end_epoch;
use boxoffice_schema::shard::Shard;
use sqlx::PgPool;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::alarm::AlarmKind;
use crate::backoff::Backoff;
use crate::findings;
use crate::kafka::LogWriter;
use crate::number;
use crate::redis_link::RedisLink;
use crate::repairs;
use crate::snapshot::{self, LiveShard};
use crate::telemetry::name;

use super::{Outboxes, RESTORATIONS_MAX, Recoverer, RecoveryError};

/// How often certificates are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// The most shards that are recovered at the same time.
const PARALLEL_MAX: usize = 16;

/// Watches the certificates of shards, and recovers what lacks one or is asked to be rebuilt, until the shutdown.
pub(crate) async fn run(
    shards: Vec<Shard>,
    pool: PgPool,
    redis: RedisLink,
    log: Arc<LogWriter>,
    shutdown: CancellationToken,
) {
    let restorations = Semaphore::new(RESTORATIONS_MAX);
    let recoverer = Arc::new(Recoverer { pool, redis, log, restorations, outboxes: Outboxes::default() });
    let mut pauses: BTreeMap<Shard, Pause> = BTreeMap::new();
    // Tasks, so that one shard is encoded on one processor while another is on the other.
    let mut running = JoinSet::new();
    let mut in_progress = BTreeSet::new();
    let mut concluded: BTreeMap<Shard, Instant> = BTreeMap::new();
    // Nothing below waits for anything but the next of these: while it did, no recovery would get on, and recoveries hold
    // the very connections that it would wait for.
    let (seen, mut sightings) = mpsc::channel(1);
    let mut looking = pin!(recoverer.look(&shards, seen));
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = &mut looking => return,
            Some(Sighting { at, shards }) = sightings.recv() => {
                for shard in shards {
                    // What was seen before a recovery ended says nothing of what it left.
                    let is_news = concluded.get(&shard).is_none_or(|concluded| at > *concluded);
                    let due = is_news && pauses.get(&shard).is_none_or(Pause::is_over);
                    if due && running.len() < PARALLEL_MAX && in_progress.insert(shard) {
                        let recoverer = Arc::clone(&recoverer);
                        running.spawn(async move { (shard, recoverer.attend(shard).await) });
                    }
                }
            }
            Some(ended) = running.join_next() => {
                // Nothing cancels a recovery while this runs: it can only have panicked.
                let (shard, outcome) = ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
                in_progress.remove(&shard);
                concluded.insert(shard, Instant::now());
                match outcome {
                    Ok(()) => { pauses.remove(&shard); }
                    Err(said) => pauses.entry(shard).or_default().prolong(shard, &said),
                }
            }
        }
    }
}

/// Shards that are to be recovered, as it was at a moment.
struct Sighting {
    at: Instant,
    shards: Vec<Shard>,
}

/// The wait between two attempts at one shard.
struct Pause {
    backoff: Backoff,
    until: Instant,
    said: String,
}

impl Default for Pause {
    fn default() -> Self {
        let backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(5));
        Self { backoff, until: Instant::now(), said: String::new() }
    }
}

impl Pause {
    fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    /// Logs why, but the same reason only once.
    fn prolong(&mut self, shard: Shard, why: &str) {
        self.until = Instant::now() + self.backoff.next_delay();
        if self.said != why {
            tracing::warn!(%shard, why, "the shard is not certified; trying again");
            why.clone_into(&mut self.said);
        }
    }
}

fn is_before(live: &LiveShard, epoch: u32) -> bool {
    live.position.is_some_and(|at| at.epoch < epoch)
}

impl Recoverer {
    /// Looks again and again which shards are to be recovered, for as long as somebody listens.
    async fn look(&self, shards: &[Shard], seen: mpsc::Sender<Sighting>) {
        let mut tick = tokio::time::interval(LOOK_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut redis_answers = true;
        loop {
            tick.tick().await;
            let at = Instant::now();
            let mut due = self.uncertified(shards, &mut redis_answers).await;
            due.extend(self.asked_for(shards).await);
            if !due.is_empty() && seen.send(Sighting { at, shards: due }).await.is_err() {
                return;
            }
        }
    }

    /// The shards that may not sell; none while Redis does not answer. An old master that is back has a certificate of
    /// its own, but of an epoch that PostgreSQL knows to be over. It loses that here, since its recovery may be kept waiting.
    async fn uncertified(&self, shards: &[Shard], redis_answers: &mut bool) -> Vec<Shard> {
        let begun = self.taken_epochs(shards).await.unwrap_or_default();
        match snapshot::live_shards(&self.redis, shards).await {
            Ok(found) => {
                if !std::mem::replace(redis_answers, true) {
                    tracing::info!("Redis answers again");
                }
                // Where it takes no writes the link has heard that, and the next look goes where the address leads.
                let _ = self.redis.beat().await;
                let mut uncertified = Vec::new();
                for (shard, live) in found {
                    if live.certified {
                        let Some(latest) = begun.get(&shard).filter(|latest| is_before(&live, **latest))
                        else {
                            continue;
                        };
                        self.close(shard, *latest).await;
                    }
                    uncertified.push(shard);
                }
                let certified = u32::try_from(shards.len() - uncertified.len()).unwrap_or(u32::MAX);
                metrics::gauge!(name::CERTIFIED_SHARDS).set(certified);
                uncertified
            }
            Err(error) => {
                if std::mem::replace(redis_answers, false) {
                    tracing::warn!(%error, "Redis does not answer; looking again until it does");
                }
                metrics::gauge!(name::CERTIFIED_SHARDS).set(0);
                Vec::new()
            }
        }
    }

    /// Closes a shard in which another epoch than the last one sells. Where that fails it is tried at the next look.
    async fn close(&self, shard: Shard, latest: u32) {
        match self.redis.run(&end_epoch(&self.redis.keys, shard, latest)).await {
            Ok(0) => {}
            Ok(_) => {
                tracing::warn!(%shard, latest, "Redis stands in an epoch that is over; its certificate was taken away");
            }
            // A Redis that takes no writes sells nothing either, and its recovery says why it does not come on.
            Err(error) => tracing::debug!(%error, %shard, "a shard whose epoch is over was not closed"),
        }
    }

    /// The epochs of the last recoveries that began.
    pub(super) async fn taken_epochs(&self, shards: &[Shard]) -> sqlx::Result<BTreeMap<Shard, u32>> {
        let numbers: Vec<i16> = shards.iter().copied().map(number::of_shard).collect();
        let rows: Vec<(i16, i32)> =
            sqlx::query_as("SELECT shard, recovery_epoch FROM shards WHERE shard = ANY ($1)")
                .bind(numbers)
                .fetch_all(&self.pool)
                .await?;
        Ok(rows.into_iter().map(|(shard, epoch)| (number::shard(shard), number::epoch(epoch))).collect())
    }

    /// The shards that somebody asked to be rebuilt. While PostgreSQL does not answer nothing is rebuilt anyway, and
    /// others say so.
    async fn asked_for(&self, shards: &[Shard]) -> Vec<Shard> {
        let open = repairs::open_rebuilds(&self.pool, shards).await.unwrap_or_default();
        open.into_iter().map(|rebuild| rebuild.shard).collect()
    }

    /// Counts and records what an attempt came to; `Err` holds the reason in words.
    pub(super) async fn conclude(
        &self,
        shard: Shard,
        result: Result<(), RecoveryError>,
    ) -> Result<(), String> {
        let outcome = match &result {
            Ok(()) => "certified",
            Err(error) => error.alarm().map_or("failed", AlarmKind::as_str),
        };
        metrics::counter!(name::RECOVERIES, "outcome" => outcome).increment(1);
        let recorded = match &result {
            Ok(()) => self.resolve_alarms(shard).await,
            Err(error) => self.raise(shard, error).await,
        };
        if let Err(error) = recorded {
            tracing::warn!(%shard, %error, "the outcome of a recovery was not recorded");
        }
        result.map_err(|error| error.to_string())
    }

    async fn resolve_alarms(&self, shard: Shard) -> sqlx::Result<()> {
        findings::resolve(&mut *self.pool.acquire().await?, shard, AlarmKind::of_recovery()).await
    }
}
