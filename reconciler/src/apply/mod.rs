//! One batch, one transaction: bookings, counts, positions and offsets, or nothing of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use boxoffice_schema::position::Position;
use boxoffice_schema::record::Record;
use boxoffice_schema::shard::Shard;
use sqlx::{Acquire, PgConnection, PgPool, Row};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::alarm::Alarm;
use crate::backoff::Backoff;
use crate::decode::{Content, Incoming};
use crate::epochs::Epochs;
use crate::findings::{self, SetAside};
use crate::fold::Changes;
use crate::number::{self, int4, int8};
use crate::postgres::{self, is_about_data};
use crate::sequence::{Gap, Progress, Verdict};
use crate::shards;
use crate::telemetry::name;

use reached::Reached;
use write::Look;

mod reached;
pub(crate) mod write;

/// The most records of a piece. A batch that violates a guard, or takes too long, is applied in pieces; a piece that violates
/// one, record by record.
const PIECE_MAX: usize = 100;

/// A batch of so many records is a backlog.
const BACKLOG_MIN: usize = 1_000;

/// The transactions in which a backlog is applied at the same time: more than PostgreSQL is likely to have processors
/// for, since each of them waits in between, for what is encoded here or for the disk.
const LANES: usize = 4;

/// Past this a transaction is taken for dead and begun again; what it may have committed is skipped then.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(30);

/// Applies batches to PostgreSQL.
#[derive(Clone)]
pub(crate) struct Applier {
    pub(crate) pool: PgPool,
    reached: Arc<Reached>,
}

/// What a batch came to.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Shards that stopped before a gap, and those of which PostgreSQL has forgotten what it had.
    pub(crate) stopped: BTreeSet<Shard>,
    applied: u64,
}

impl Outcome {
    fn add(&mut self, other: Self) {
        self.stopped.extend(other.stopped);
        self.applied += other.applied;
    }
}

/// How a transaction ended.
enum Attempt {
    Done(Outcome),
    /// Nothing was written, and nothing will be by trying the same again.
    TooMuch(ApplyError),
}

/// What the positions say of a batch.
struct Judged<'a> {
    /// In order.
    decisions: Vec<(&'a Incoming, &'a Record)>,
    set_aside: Vec<SetAside<'a>>,
    stopped: BTreeSet<Shard>,
}

#[derive(Debug, thiserror::Error)]
enum ApplyError {
    #[error("PostgreSQL: {0}")]
    Postgres(#[from] sqlx::Error),
    #[error("the transaction did not end within {} s", TRANSACTION_TIMEOUT.as_secs())]
    Timeout,
}

impl ApplyError {
    /// Whether smaller transactions may succeed where one with so many records failed.
    fn calls_for_pieces(&self, records: usize) -> bool {
        match self {
            Self::Postgres(error) => is_about_data(error),
            Self::Timeout => records > PIECE_MAX,
        }
    }
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
    pub(crate) fn new(pool: PgPool) -> Self {
        Self { pool, reached: Arc::default() }
    }

    /// From here on the shard's records are those from this offset, which was PostgreSQL's.
    pub(crate) fn begin(&self, shard: Shard, offset: i64) {
        self.reached.begin(shard, offset);
    }

    /// The offset up to which the shard was brought since.
    pub(crate) fn reached(&self, shard: Shard) -> i64 {
        self.reached.of(shard)
    }

    /// Applies a batch, trying until it is done: servers come back, and nothing may be left out. `None` where the
    /// shutdown came first.
    ///
    /// A backlog is applied in some transactions at once. Each has shards of its own, and shards share no rows.
    pub(crate) async fn apply(&self, batch: Vec<Incoming>, shutdown: &CancellationToken) -> Option<Outcome> {
        if batch.len() < BACKLOG_MIN {
            return self.apply_part(&batch, shutdown).await;
        }
        let mut lanes: [Vec<Incoming>; LANES] = Default::default();
        for incoming in batch {
            lanes[usize::from(incoming.shard.number()) % LANES].push(incoming);
        }
        let mut applying = JoinSet::new();
        for lane in lanes {
            let (applier, shutdown) = (self.clone(), shutdown.clone());
            applying.spawn(async move { applier.apply_part(&lane, &shutdown).await });
        }
        let mut outcome = Outcome::default();
        while let Some(lane) = applying.join_next().await {
            outcome.add(lane.expect("a lane neither panics nor is aborted while the set is there")?);
        }
        Some(outcome)
    }

    async fn apply_part(&self, batch: &[Incoming], shutdown: &CancellationToken) -> Option<Outcome> {
        if batch.is_empty() {
            return Some(Outcome::default());
        }
        let start = Instant::now();
        let nowhere = BTreeSet::new();
        let outcome = match self.try_until_done(batch, &nowhere, Mode::Together, shutdown).await? {
            Attempt::Done(outcome) => outcome,
            Attempt::TooMuch(error) => {
                tracing::warn!(%error, records = batch.len(), "a batch cannot be applied whole; applying it in pieces");
                self.apply_in_pieces(batch, shutdown).await?
            }
        };
        metrics::histogram!(name::BATCH_RECORDS)
            .record(f64::from(u32::try_from(batch.len()).unwrap_or(u32::MAX)));
        metrics::histogram!(name::APPLY_SECONDS).record(start.elapsed().as_secs_f64());
        metrics::counter!(name::APPLIED_RECORDS).increment(outcome.applied);
        Some(outcome)
    }

    async fn apply_in_pieces(&self, batch: &[Incoming], shutdown: &CancellationToken) -> Option<Outcome> {
        let mut outcome = Outcome::default();
        for piece in batch.chunks(PIECE_MAX) {
            // A batch of one piece was tried just now.
            if batch.len() > PIECE_MAX
                && let Attempt::Done(done) =
                    self.try_until_done(piece, &outcome.stopped, Mode::Together, shutdown).await?
            {
                outcome.add(done);
            } else if let Attempt::Done(done) =
                self.try_until_done(piece, &outcome.stopped, Mode::OneByOne, shutdown).await?
            {
                outcome.add(done);
            }
        }
        Some(outcome)
    }

    /// Nothing is applied of the shards that were stopped before a gap in an earlier piece.
    async fn try_until_done(
        &self,
        batch: &[Incoming],
        stopped: &BTreeSet<Shard>,
        mode: Mode,
        shutdown: &CancellationToken,
    ) -> Option<Attempt> {
        let mut backoff = Backoff::of_a_server();
        loop {
            let attempt = tokio::time::timeout(TRANSACTION_TIMEOUT, self.apply_once(batch, stopped, mode));
            let error = match shutdown.run_until_cancelled(attempt).await? {
                Ok(Ok(outcome)) => return Some(Attempt::Done(outcome)),
                Ok(Err(error)) => error,
                Err(_) => ApplyError::Timeout,
            };
            if matches!(error, ApplyError::Timeout)
                && let Err(error) = postgres::end_abandoned_copies(&self.pool).await
            {
                tracing::warn!(%error, "what holds the rows was not ended");
            }
            if mode == Mode::Together && error.calls_for_pieces(batch.len()) {
                return Some(Attempt::TooMuch(error));
            }
            tracing::warn!(%error, records = batch.len(), "a batch was not applied; trying again");
            if !backoff.wait(shutdown).await {
                return None;
            }
        }
    }

    async fn apply_once(
        &self,
        batch: &[Incoming],
        stopped: &BTreeSet<Shard>,
        mode: Mode,
    ) -> Result<Outcome, ApplyError> {
        let mut transaction = self.pool.begin().await?;
        let mut progress = lock_shards(&mut transaction, batch).await?;
        let behind = self.reached.take_those_behind(&mut progress);
        let stopped = stopped.union(&behind).copied().collect();
        let Judged { decisions, mut set_aside, stopped } =
            judge(&mut transaction, batch, &stopped, &mut progress).await?;
        match mode {
            Mode::Together => apply_together(&mut transaction, &decisions, Look::ForOld).await?,
            Mode::OneByOne => set_aside.extend(apply_one_by_one(&mut transaction, &decisions).await?),
        }
        for aside in &set_aside {
            findings::record_dead_letter(&mut transaction, aside).await?;
        }
        move_shards(&mut transaction, &progress).await?;
        transaction.commit().await?;
        self.reached.note(&progress);
        Ok(Outcome { stopped, applied: decisions.len() as u64 })
    }

    /// Writes down that Kafka no longer has the offset at which a shard would go on.
    pub(crate) async fn record_lost_offset(&self, shard: Shard, wanted: i64) -> sqlx::Result<()> {
        let mut transaction = self.pool.begin().await?;
        let Position { epoch, sequence } = shards::lock(&mut transaction, shard).await?;
        let from = sequence + 1;
        let gap = Gap { epoch, from, to: from, offset: wanted, is_offset_lost: true };
        findings::record_gap(&mut transaction, shard, gap).await?;
        transaction.commit().await
    }
}

/// Judges the records by their positions, and writes down what is wrong with them.
async fn judge<'a>(
    connection: &mut PgConnection,
    batch: &'a [Incoming],
    stopped: &BTreeSet<Shard>,
    progress: &mut BTreeMap<Shard, Progress>,
) -> sqlx::Result<Judged<'a>> {
    let mut judged =
        Judged { decisions: Vec::with_capacity(batch.len()), set_aside: vec![], stopped: stopped.clone() };
    for incoming in batch {
        if judged.stopped.contains(&incoming.shard) {
            continue;
        }
        let Some(progress) = progress.get_mut(&incoming.shard) else { continue };
        let verdict = progress.judge(incoming);
        if matches!(verdict, Verdict::Apply | Verdict::ApplyUnannounced(_))
            && let Content::Record(record) = &incoming.content
        {
            judged.decisions.push((incoming, record));
        }
        match verdict {
            Verdict::Apply | Verdict::Pass => {}
            Verdict::ApplyUnannounced(complaint) | Verdict::Refuse(complaint) => {
                findings::raise(connection, &Alarm::of(incoming.shard, complaint)).await?;
            }
            Verdict::SetAside => judged.set_aside.extend(SetAside::poisoned(incoming)),
            Verdict::Stop(gap) => {
                findings::record_gap(connection, incoming.shard, gap).await?;
                judged.stopped.insert(incoming.shard);
            }
        }
    }
    Ok(judged)
}

/// A violated guard costs the batch nothing but the record that violates it, which is returned.
async fn apply_one_by_one<'a>(
    connection: &mut PgConnection,
    decisions: &[(&'a Incoming, &'a Record)],
) -> sqlx::Result<Vec<SetAside<'a>>> {
    let mut refused = Vec::new();
    for (incoming, record) in decisions {
        let mut savepoint = connection.begin().await?;
        let error = match apply_together(&mut savepoint, &[(incoming, record)], Look::ForAll).await {
            Ok(()) => {
                savepoint.commit().await?;
                continue;
            }
            Err(error) if is_about_data(&error) => error,
            Err(error) => return Err(error),
        };
        savepoint.rollback().await?;
        let reason = error.to_string();
        findings::raise(connection, &Alarm::of_refusal(incoming, record.event_id, &reason)).await?;
        refused.push(SetAside::refused(incoming, &reason));
    }
    Ok(refused)
}

async fn apply_together(
    connection: &mut PgConnection,
    decisions: &[(&Incoming, &Record)],
    look: Look,
) -> sqlx::Result<()> {
    if decisions.is_empty() {
        return Ok(());
    }
    let changes = Changes::of(decisions.iter().map(|(_, record)| *record));
    for alarm in write::write(connection, &changes, look).await? {
        findings::raise(connection, &alarm).await?;
    }
    Ok(())
}

async fn lock_shards(
    connection: &mut PgConnection,
    batch: &[Incoming],
) -> sqlx::Result<BTreeMap<Shard, Progress>> {
    let shards: BTreeSet<i16> = batch.iter().map(|incoming| number::of_shard(incoming.shard)).collect();
    let shards: Vec<i16> = shards.into_iter().collect();
    let rows = sqlx::query(include_str!("lock_shards.sql")).bind(&shards).fetch_all(&mut *connection).await?;
    // When nobody else can write them: whoever moved the row while it was waited for may have begun an epoch.
    let mut epochs = read_epochs(connection, &shards).await?;
    rows.iter()
        .map(|row| {
            let (shard, epoch, sequence): (i16, i32, i64) =
                (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            let digest: Option<&[u8]> = row.try_get(3)?;
            let progress = Progress {
                epoch: number::epoch(epoch),
                sequence: number::sequence(sequence),
                digest: digest.and_then(|digest| digest.try_into().ok()),
                next_offset: row.try_get(4)?,
                epochs: epochs.remove(&shard).unwrap_or_default(),
                begun: Vec::new(),
            };
            Ok((number::shard(shard), progress))
        })
        .collect()
}

async fn read_epochs(connection: &mut PgConnection, shards: &[i16]) -> sqlx::Result<BTreeMap<i16, Epochs>> {
    let rows: Vec<(i16, Vec<i32>, Vec<i64>)> =
        sqlx::query_as(include_str!("read_epochs.sql")).bind(shards).fetch_all(connection).await?;
    let epochs = |(shard, epochs, began_behind)| (shard, Epochs::from_columns(epochs, began_behind));
    Ok(rows.into_iter().map(epochs).collect())
}

async fn move_shards(
    connection: &mut PgConnection,
    progress: &BTreeMap<Shard, Progress>,
) -> sqlx::Result<()> {
    let rows: Vec<_> = progress.iter().collect();
    sqlx::query(include_str!("move_shards.sql"))
        .bind(rows.iter().map(|(shard, _)| number::of_shard(**shard)).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, p)| int4(p.epoch)).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, p)| int8(p.sequence)).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, p)| p.digest.map(|digest| digest.to_vec())).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, p)| p.next_offset).collect::<Vec<_>>())
        .execute(&mut *connection)
        .await?;
    for (shard, progress) in progress {
        Epochs::write(connection, *shard, &progress.begun).await?;
    }
    Ok(())
}
