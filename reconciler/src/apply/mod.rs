//! One batch, one transaction: bookings, counts, positions and offsets, or nothing of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use boxoffice_schema::record::Record;
use boxoffice_schema::shard::Shard;
use sqlx::{Acquire, PgConnection, PgPool, Row};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::decode::{Content, Incoming};
use crate::findings::{self, Alarm, DeadLetterKind};
use crate::fold::Changes;
use crate::kafka::{DeadLetterOrigin, LogWriter, SendError};
use crate::postgres::is_about_data;
use crate::sequence::{Gap, Progress, Verdict};
use crate::telemetry::name;

use write::{int2, int4, int8};

pub(crate) mod write;

/// Past this a transaction is taken for dead and begun again; what it may have committed is skipped then.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(30);

/// Applies batches to PostgreSQL.
pub(crate) struct Applier {
    pub(crate) pool: PgPool,
    pub(crate) log: std::sync::Arc<LogWriter>,
}

/// What a batch came to.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// How far each shard of the batch is applied.
    pub(crate) progress: BTreeMap<Shard, Progress>,
    /// Shards that stopped before a gap.
    pub(crate) stopped: BTreeSet<Shard>,
    applied: u64,
}

#[derive(Debug, thiserror::Error)]
enum ApplyError {
    #[error("PostgreSQL: {0}")]
    Postgres(#[from] sqlx::Error),
    #[error("dead-letter topic: {0}")]
    DeadLetterTopic(#[from] SendError),
    #[error("the transaction did not end within {} s", TRANSACTION_TIMEOUT.as_secs())]
    Timeout,
}

/// How the records of a batch are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// All at once.
    Together,
    /// Each behind a savepoint, because one of them violates a guard.
    OneByOne,
}

impl Applier {
    /// Applies a batch, trying until it is done: servers come back, and nothing may be left out. `None` where the
    /// shutdown came first.
    pub(crate) async fn apply(&self, batch: &[Incoming], shutdown: &CancellationToken) -> Option<Outcome> {
        let start = Instant::now();
        let mut backoff = Backoff::of_a_server();
        let mut mode = Mode::Together;
        loop {
            let attempt = tokio::time::timeout(TRANSACTION_TIMEOUT, self.apply_once(batch, mode));
            let error = match shutdown.run_until_cancelled(attempt).await? {
                Ok(Ok(outcome)) => {
                    metrics::histogram!(name::BATCH_RECORDS).record(f64::from(u32::try_from(batch.len()).ok()?));
                    metrics::histogram!(name::APPLY_SECONDS).record(start.elapsed().as_secs_f64());
                    metrics::counter!(name::APPLIED_RECORDS).increment(outcome.applied);
                    return Some(outcome);
                }
                Ok(Err(ApplyError::Postgres(error))) if mode == Mode::Together && is_about_data(&error) => {
                    tracing::warn!(%error, records = batch.len(), "a record violates a guard; applying one by one");
                    mode = Mode::OneByOne;
                    continue;
                }
                Ok(Err(error)) => error,
                Err(_) => ApplyError::Timeout,
            };
            tracing::warn!(%error, records = batch.len(), "a batch was not applied; trying again");
            if !backoff.wait(shutdown).await {
                return None;
            }
        }
    }

    async fn apply_once(&self, batch: &[Incoming], mode: Mode) -> Result<Outcome, ApplyError> {
        let mut transaction = self.pool.begin().await?;
        let mut outcome = Outcome { progress: lock_shards(&mut transaction, batch).await?, ..Outcome::default() };
        let mut decisions: Vec<(&Incoming, &Record)> = Vec::with_capacity(batch.len());
        for incoming in batch {
            if outcome.stopped.contains(&incoming.shard) {
                continue;
            }
            let Some(progress) = outcome.progress.get_mut(&incoming.shard) else { continue };
            let verdict = progress.judge(incoming);
            if matches!(verdict, Verdict::Apply | Verdict::ApplyUnannounced(_))
                && let Content::Record(record) = &incoming.content
            {
                decisions.push((incoming, record));
            }
            if let Verdict::Stop(_) = verdict {
                outcome.stopped.insert(incoming.shard);
            }
            self.report(&mut transaction, incoming, verdict).await?;
        }
        outcome.applied = decisions.len() as u64;
        match mode {
            Mode::Together => apply_together(&mut transaction, &decisions).await?,
            Mode::OneByOne => self.apply_one_by_one(&mut transaction, &decisions).await?,
        }
        move_shards(&mut transaction, &outcome.progress).await?;
        transaction.commit().await?;
        Ok(outcome)
    }

    /// Writes down what a verdict has to tell.
    async fn report(
        &self,
        connection: &mut PgConnection,
        incoming: &Incoming,
        verdict: Verdict,
    ) -> Result<(), ApplyError> {
        match verdict {
            Verdict::Apply | Verdict::Pass => {}
            Verdict::ApplyUnannounced(complaint) | Verdict::Refuse(complaint) => {
                findings::raise(connection, &Alarm::of(incoming.shard, complaint)).await?;
            }
            Verdict::Stop(gap) => findings::record_gap(connection, incoming.shard, gap).await?,
            Verdict::SetAside => {
                let reason = match &incoming.content {
                    Content::Poison { reason, .. } => reason.as_str(),
                    Content::Record(_) => "set aside",
                };
                self.set_aside(connection, DeadLetterKind::Poisoned, incoming, reason).await?;
            }
        }
        Ok(())
    }

    /// Puts a record aside: first into the topic, then, with this transaction, into the table. A crash in between
    /// only sends it twice.
    async fn set_aside(
        &self,
        connection: &mut PgConnection,
        kind: DeadLetterKind,
        incoming: &Incoming,
        reason: &str,
    ) -> Result<(), ApplyError> {
        let position = incoming.position();
        let origin = DeadLetterOrigin { shard: incoming.shard, offset: incoming.offset, position, reason };
        self.log.put_aside(&incoming.payload, &origin).await?;
        findings::record_dead_letter(connection, kind, incoming, position, reason).await?;
        Ok(())
    }

    /// A violated guard costs the batch nothing but the record that violates it.
    async fn apply_one_by_one(
        &self,
        connection: &mut PgConnection,
        decisions: &[(&Incoming, &Record)],
    ) -> Result<(), ApplyError> {
        for (incoming, record) in decisions {
            let mut savepoint = connection.begin().await?;
            let error = match apply_together(&mut savepoint, &[(incoming, record)]).await {
                Ok(()) => {
                    savepoint.commit().await?;
                    continue;
                }
                Err(error) if is_about_data(&error) => error,
                Err(error) => return Err(error.into()),
            };
            savepoint.rollback().await?;
            let reason = error.to_string();
            self.set_aside(connection, DeadLetterKind::Refused, incoming, &reason).await?;
            findings::raise(connection, &Alarm::of_refusal(incoming, record.event_id, &reason)).await?;
        }
        Ok(())
    }

    /// Writes down that Kafka no longer has the offset at which a shard would go on.
    pub(crate) async fn record_lost_offset(&self, shard: Shard, wanted: i64) -> sqlx::Result<()> {
        let mut transaction = self.pool.begin().await?;
        let row = sqlx::query("SELECT epoch, sequence FROM shards WHERE shard = $1 FOR UPDATE")
            .bind(int2(shard.number()))
            .fetch_one(&mut *transaction)
            .await?;
        let (epoch, sequence): (i32, i64) = (row.try_get(0)?, row.try_get(1)?);
        // How many decisions are missing is known only when reading on.
        let from = u64::try_from(sequence).unwrap_or(0) + 1;
        let gap = Gap { epoch: u32::try_from(epoch).unwrap_or(0), from, to: from, offset: wanted };
        findings::record_gap(&mut transaction, shard, gap).await?;
        transaction.commit().await
    }
}

async fn apply_together(
    connection: &mut PgConnection,
    decisions: &[(&Incoming, &Record)],
) -> sqlx::Result<()> {
    if decisions.is_empty() {
        return Ok(());
    }
    let changes = Changes::of(decisions.iter().map(|(_, record)| *record));
    for alarm in write::write(connection, &changes).await? {
        findings::raise(connection, &alarm).await?;
    }
    Ok(())
}

async fn lock_shards(connection: &mut PgConnection, batch: &[Incoming]) -> sqlx::Result<BTreeMap<Shard, Progress>> {
    let shards: BTreeSet<i16> = batch.iter().map(|incoming| int2(incoming.shard.number())).collect();
    let rows = sqlx::query(include_str!("lock_shards.sql"))
        .bind(shards.into_iter().collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    rows.iter()
        .map(|row| {
            let (shard, epoch, sequence): (i16, i32, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            let digest: Option<&[u8]> = row.try_get(3)?;
            let progress = Progress {
                epoch: u32::try_from(epoch).unwrap_or(0),
                sequence: u64::try_from(sequence).unwrap_or(0),
                digest: digest.and_then(|digest| digest.try_into().ok()),
                next_offset: row.try_get(4)?,
            };
            Ok((Shard::from_number(u16::try_from(shard).unwrap_or(0)), progress))
        })
        .collect()
}

async fn move_shards(connection: &mut PgConnection, progress: &BTreeMap<Shard, Progress>) -> sqlx::Result<()> {
    let rows: Vec<_> = progress.iter().collect();
    sqlx::query(include_str!("move_shards.sql"))
        .bind(rows.iter().map(|(shard, _)| int2(shard.number())).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, p)| int4(p.epoch)).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, p)| int8(p.sequence)).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, p)| p.digest.map(|digest| digest.to_vec())).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, p)| p.next_offset).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}
