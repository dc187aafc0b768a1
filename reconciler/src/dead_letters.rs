//! `dead-letters`: what was set aside, looked at, applied after all, or given up.

use anyhow::{Context, bail};
use boxoffice_schema::position::Position;
use boxoffice_schema::record::{Change, Record};
use boxoffice_schema::shard::Shard;
use serde::Serialize;
use sqlx::{Acquire, PgConnection, PgPool, Row};

use crate::alarm::AlarmKind;
use crate::apply::write::{self, Look};
use crate::decode::{Content, Fetched, decode, shown};
use crate::findings;
use crate::fold::Changes;
use crate::number::{self, int4, int8};
use crate::postgres::is_about_data;
use crate::repairs::{self, Intent, Kind};
use crate::shards;

/// A dead letter in full.
#[derive(Debug, Serialize)]
pub(crate) struct DeadLetter {
    pub(crate) id: i64,
    pub(crate) shard: i16,
    pub(crate) epoch: Option<i32>,
    pub(crate) sequence: Option<i64>,
    pub(crate) kafka_offset: i64,
    pub(crate) kind: String,
    pub(crate) reason: String,
    pub(crate) received_at: chrono::DateTime<chrono::Utc>,
    pub(crate) outcome: Option<String>,
    /// As JSON where it can be read; otherwise as the text that it is, or in hexadecimal.
    pub(crate) payload: String,
    #[serde(skip)]
    bytes: Vec<u8>,
}

/// What became of a retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Its change is in the tables now.
    Applied,
    /// A later decision has touched its booking or event: its own change is part of that one.
    Superseded,
}

impl Outcome {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Superseded => "superseded",
        }
    }
}

/// Reads one dead letter.
pub(crate) async fn show(pool: &PgPool, id: i64) -> anyhow::Result<DeadLetter> {
    let mut connection = pool.acquire().await?;
    read(&mut connection, id).await
}

async fn read(connection: &mut PgConnection, id: i64) -> anyhow::Result<DeadLetter> {
    let row = sqlx::query(
        "SELECT id, shard, epoch, sequence, kafka_offset, kind, reason, received_at, outcome, payload \
         FROM dead_letters WHERE id = $1",
    )
    .bind(id)
    .fetch_optional(connection)
    .await?
    .with_context(|| format!("there is no dead letter {id}"))?;
    let bytes: Vec<u8> = row.try_get(9)?;
    Ok(DeadLetter {
        id: row.try_get(0)?,
        shard: row.try_get(1)?,
        epoch: row.try_get(2)?,
        sequence: row.try_get(3)?,
        kafka_offset: row.try_get(4)?,
        kind: row.try_get(5)?,
        reason: row.try_get(6)?,
        received_at: row.try_get(7)?,
        outcome: row.try_get(8)?,
        payload: shown(&bytes),
        bytes,
    })
}

/// Applies a dead letter after all, in one transaction. The shard's row is locked, so that the reconciler and this
/// take turns.
pub(crate) async fn retry(pool: &PgPool, id: i64, by: &str) -> anyhow::Result<Outcome> {
    let mut transaction = pool.begin().await?;
    let letter = read(&mut transaction, id).await?;
    let applied = shards::lock(&mut transaction, number::shard(letter.shard)).await?;
    // Read again behind the lock: another retry may have been quicker.
    let letter = read(&mut transaction, letter.id).await?;
    if let Some(outcome) = letter.outcome {
        bail!("dead letter {id} was resolved before: {outcome}");
    }
    let record = decoded(&letter)?;
    let position = record.position;
    let is_known = position.sequence <= applied.sequence;
    let is_next = position == Position { sequence: applied.sequence + 1, ..applied };
    if !is_known && !is_next {
        bail!(
            "dead letter {id} is decision {position}, and the shard is applied up to {applied}: what lies between is \
             missing; mend that first"
        );
    }
    let outcome = if is_superseded(&mut transaction, &record).await? {
        Outcome::Superseded
    } else {
        apply(&mut transaction, &record).await?;
        Outcome::Applied
    };
    if is_next {
        fill_gap(&mut transaction, letter.shard, position).await?;
    }
    resolve(&mut transaction, &letter, outcome.as_str(), by).await?;
    transaction.commit().await?;
    Ok(outcome)
}

/// Gives a dead letter up.
pub(crate) async fn discard(pool: &PgPool, id: i64, by: &str) -> anyhow::Result<()> {
    let mut transaction = pool.begin().await?;
    let letter = read(&mut transaction, id).await?;
    shards::lock(&mut transaction, number::shard(letter.shard)).await?;
    let letter = read(&mut transaction, id).await?;
    if let Some(outcome) = letter.outcome {
        bail!("dead letter {id} was resolved before: {outcome}");
    }
    resolve(&mut transaction, &letter, "discarded", by).await?;
    Ok(transaction.commit().await?)
}

/// The record as this build reads it, which may know more than the one that set it aside.
fn decoded(letter: &DeadLetter) -> anyhow::Result<Record> {
    let incoming = decode(Fetched {
        shard: Shard::from_number(u16::try_from(letter.shard)?),
        offset: letter.kafka_offset,
        payload: letter.bytes.clone(),
        stated: None,
    });
    let record = match incoming.content {
        Content::Record(record) => *record,
        Content::Poison { reason, .. } => {
            bail!(
                "dead letter {} still cannot be read ({reason}); discard it, or retry with a build that reads it",
                letter.id
            )
        }
    };
    let stated = letter.epoch.zip(letter.sequence);
    if stated.is_some_and(|stated| stated != (int4(record.position.epoch), int8(record.position.sequence))) {
        bail!("dead letter {} states another position than its headers did; discard it", letter.id);
    }
    Ok(record)
}

/// Whether a later position has touched what the record changes.
async fn is_superseded(connection: &mut PgConnection, record: &Record) -> anyhow::Result<bool> {
    let (table, id) = match &record.change {
        Change::Booking(change) => {
            ("SELECT epoch, sequence FROM bookings WHERE id = $1 FOR UPDATE", change.id.as_uuid())
        }
        Change::Event(image) => {
            ("SELECT epoch, sequence FROM events WHERE id = $1 FOR UPDATE", image.id.as_uuid())
        }
        Change::Barrier { .. } => bail!("a barrier cannot be retried; the next recovery appends another"),
    };
    let row: Option<(i32, i64)> = sqlx::query_as(table).bind(id).fetch_optional(connection).await?;
    Ok(row.is_some_and(|(epoch, sequence)| {
        (epoch, sequence) >= (int4(record.position.epoch), int8(record.position.sequence))
    }))
}

async fn apply(connection: &mut PgConnection, record: &Record) -> anyhow::Result<()> {
    let changes = Changes::of([record]);
    let mut savepoint = connection.begin().await?;
    match write::write(&mut savepoint, &changes, Look::ForAll).await {
        // Redis' counts belong to the record's position, which may be long past: that they differ proves nothing now. That they
        // exceed the capacity does, whenever it was.
        Ok(alarms) => {
            for alarm in alarms.iter().filter(|alarm| alarm.kind == AlarmKind::Oversold) {
                findings::raise(&mut savepoint, alarm).await?;
            }
            Ok(savepoint.commit().await?)
        }
        Err(error) if is_about_data(&error) => bail!("refused again: {error}"),
        Err(error) => Err(error.into()),
    }
}

/// A record without a usable position left a gap; now that it is applied, the shard moves past it.
async fn fill_gap(connection: &mut PgConnection, shard: i16, position: Position) -> sqlx::Result<()> {
    let sequence = int8(position.sequence);
    sqlx::query("UPDATE shards SET sequence = $2, digest = NULL, updated_at = now() WHERE shard = $1")
        .bind(shard)
        .bind(sequence)
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "UPDATE gaps SET \
             resolved_at   = CASE WHEN to_sequence = $2 THEN now() END, \
             from_sequence = CASE WHEN to_sequence = $2 THEN from_sequence ELSE $2 + 1 END \
         WHERE shard = $1 AND from_sequence = $2 AND resolved_at IS NULL",
    )
    .bind(shard)
    .bind(sequence)
    .execute(connection)
    .await?;
    Ok(())
}

async fn resolve(
    connection: &mut PgConnection,
    letter: &DeadLetter,
    outcome: &str,
    by: &str,
) -> anyhow::Result<()> {
    sqlx::query("UPDATE dead_letters SET outcome = $2, resolved_at = now() WHERE id = $1")
        .bind(letter.id)
        .bind(outcome)
        .execute(&mut *connection)
        .await?;
    findings::resolve_refusal(connection, letter.shard, letter.kafka_offset).await?;
    let before = format!(
        "dead letter {}, {} at offset {}: {}",
        letter.id, letter.kind, letter.kafka_offset, letter.reason
    );
    let shard = Shard::from_number(u16::try_from(letter.shard)?);
    let intent = Intent { kind: Kind::DeadLetter, shard, event_id: None, by, before: &before };
    repairs::record(connection, &intent, outcome).await?;
    Ok(())
}
