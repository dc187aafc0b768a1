//! What is open: gaps, alarms and dead letters that nobody has resolved, each with the command that mends it.

use boxoffice_schema::shard::Shard;
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgPool, Row};
use uuid::Uuid;

use crate::alarm::AlarmKind;
use crate::findings::DeadLetterKind;
use crate::gaps::Missing;
use crate::number;

/// The most rows of a kind that are listed; their number is always told.
const LIST_MAX: i64 = 100;

/// Everything that waits for an operator.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Open {
    pub(crate) gaps: i64,
    pub(crate) alarms: i64,
    pub(crate) dead_letters: i64,
    /// Mends that were begun and have not ended.
    pub(crate) repairs: i64,
    /// The oldest of each kind.
    pub(crate) items: Vec<OpenItem>,
}

/// One of them.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct OpenItem {
    pub(crate) kind: &'static str,
    pub(crate) id: i64,
    pub(crate) shard: i16,
    pub(crate) since: DateTime<Utc>,
    pub(crate) what: String,
    pub(crate) mend: String,
}

impl Open {
    pub(crate) fn is_empty(&self) -> bool {
        self.gaps + self.alarms + self.dead_letters + self.repairs == 0
    }
}

/// How much of each kind is open.
#[derive(sqlx::FromRow)]
pub(crate) struct Counts {
    pub(crate) gaps: i64,
    pub(crate) alarms: i64,
    pub(crate) dead_letters: i64,
    pub(crate) repairs: i64,
}

/// Counts what is open.
pub(crate) async fn counts(pool: &PgPool) -> sqlx::Result<Counts> {
    sqlx::query_as(
        "SELECT (SELECT count(*) FROM gaps WHERE resolved_at IS NULL) AS gaps, \
                (SELECT count(*) FROM alarms WHERE resolved_at IS NULL) AS alarms, \
                (SELECT count(*) FROM dead_letters WHERE outcome IS NULL) AS dead_letters, \
                (SELECT count(*) FROM repairs WHERE outcome IS NULL) AS repairs",
    )
    .fetch_one(pool)
    .await
}

/// How much is open on a shard that may stand in its way.
#[derive(sqlx::FromRow)]
pub(crate) struct ShardCounts {
    pub(crate) gaps: i64,
    pub(crate) dead_letters: i64,
    /// Those of the dead letters that could not be read.
    pub(crate) poisoned: i64,
    /// Alarms about its counts.
    pub(crate) differing: i64,
}

/// Counts what is open on a shard.
pub(crate) async fn of_shard(pool: &PgPool, shard: Shard) -> sqlx::Result<ShardCounts> {
    sqlx::query_as(
        "SELECT (SELECT count(*) FROM gaps WHERE shard = $1 AND resolved_at IS NULL) AS gaps, \
                (SELECT count(*) FROM dead_letters WHERE shard = $1 AND outcome IS NULL) AS dead_letters, \
                (SELECT count(*) FROM dead_letters WHERE shard = $1 AND outcome IS NULL AND kind = $2) AS poisoned, \
                (SELECT count(*) FROM alarms WHERE shard = $1 AND resolved_at IS NULL AND kind = $3) AS differing",
    )
    .bind(number::of_shard(shard))
    .bind(DeadLetterKind::Poisoned.as_str())
    .bind(AlarmKind::CountsDiffer.as_str())
    .fetch_one(pool)
    .await
}

/// Reads what is open.
pub(crate) async fn read(pool: &PgPool) -> sqlx::Result<Open> {
    let gaps = gaps(pool).await?;
    let alarms = alarms(pool).await?;
    let dead_letters = dead_letters(pool).await?;
    let repairs = repairs(pool).await?;
    let counts = counts(pool).await?;
    Ok(Open {
        gaps: counts.gaps,
        alarms: counts.alarms,
        dead_letters: counts.dead_letters,
        repairs: counts.repairs,
        items: gaps.into_iter().chain(dead_letters).chain(alarms).chain(repairs).collect(),
    })
}

/// Open gaps, oldest first.
pub(crate) async fn gaps(pool: &PgPool) -> sqlx::Result<Vec<OpenItem>> {
    let rows = sqlx::query(
        "SELECT id, shard, detected_at, epoch, from_sequence, to_sequence, kafka_offset, offset_lost FROM gaps \
         WHERE resolved_at IS NULL ORDER BY id LIMIT $1",
    )
    .bind(LIST_MAX)
    .fetch_all(pool)
    .await?;
    let item = |row: PgRow| {
        let (id, epoch): (i64, i32) = (row.try_get("id")?, row.try_get("epoch")?);
        let missing = Missing::from_row(&row)?;
        let (what, mend) = if missing.offset_lost {
            (
                format!("{missing}: retention removed it, or the topic was made anew"),
                format!(
                    "boxoffice-reconciler gaps accept {id}   (after migrate, where the topic was made anew. The shard reads on \
                     from the oldest record, and what is missing is a gap again. Then repair, by which Redis says it again)"
                ),
            )
        } else {
            (
                format!("{missing} (epoch {epoch}) before offset {}", missing.kafka_offset),
                format!(
                    "boxoffice-reconciler repair   (reads the log again; where it was cut or made anew, and has grown past that \
                     offset since, they lie elsewhere in it: gaps retry {id} --from OFFSET; should they be lost for good: gaps \
                     accept {id}, then repair, by which Redis says them again)"
                ),
            )
        };
        Ok(OpenItem {
            kind: "gap",
            id,
            shard: row.try_get("shard")?,
            since: row.try_get("detected_at")?,
            what: what + "; the shard's application stands still",
            mend,
        })
    };
    rows.into_iter().map(item).collect()
}

/// Open alarms, oldest first.
pub(crate) async fn alarms(pool: &PgPool) -> sqlx::Result<Vec<OpenItem>> {
    let rows = sqlx::query(
        "SELECT id, shard, event_id, raised_at, kind, detail FROM alarms \
         WHERE resolved_at IS NULL ORDER BY id LIMIT $1",
    )
    .bind(LIST_MAX)
    .fetch_all(pool)
    .await?;
    let item = |row: PgRow| {
        let (id, shard, kind, detail): (i64, i16, &str, &str) =
            (row.try_get("id")?, row.try_get("shard")?, row.try_get("kind")?, row.try_get("detail")?);
        Ok(OpenItem {
            kind: "alarm",
            id,
            shard,
            since: row.try_get("raised_at")?,
            what: format!("{kind}: {detail}"),
            mend: mend_alarm(id, shard, kind, detail, row.try_get("event_id")?),
        })
    };
    rows.into_iter().map(item).collect()
}

/// What to do about an alarm. Those of recovery are resolved by the shard's next certificate; one may be left where the
/// reconciler ended just then.
fn mend_alarm(id: i64, shard: i16, kind: &str, detail: &str, event: Option<Uuid>) -> String {
    let event = event.map_or_else(String::new, |event| format!(" --event {event}"));
    match AlarmKind::of_row(kind) {
        Some(AlarmKind::Refused) => "boxoffice-reconciler dead-letters list".to_owned(),
        Some(AlarmKind::CountsDiffer) => {
            format!(
                "boxoffice-reconciler dead-letters list, and when none is open repair{event}   (closes this)"
            )
        }
        Some(AlarmKind::Oversold) => format!(
            "boxoffice-reconciler audit --deep{event}   (says whether it still is: then pause the event. More clients may hold a \
             201 than there are tickets; once each of them is served or told, alarms resolve {id})"
        ),
        Some(AlarmKind::RedisLost | AlarmKind::RecoveryMismatch) => format!(
            "boxoffice-reconciler status   (`run` restores and certifies the shard, which closes this; where it is certified \
             already: alarms resolve {id})"
        ),
        Some(AlarmKind::Unrestorable) => {
            "put right in PostgreSQL what this names; where Redis has what PostgreSQL lacks, copy Redis' data first, as \
             docs/OPERATIONS.md says   (then `run` goes on, and closes this)"
                .to_owned()
        }
        Some(AlarmKind::OutboxUnreadable) => {
            "deploy the reconciler that belongs to the API   (then `run` goes on, and closes this)".to_owned()
        }
        Some(AlarmKind::RestoreDoubtful) => {
            "boxoffice-reconciler dead-letters list, and alarms list   (resolve those, then `run` goes on)"
                .to_owned()
        }
        Some(AlarmKind::Contradiction) => format!(
            "{}   (find out who else writes into this topic. Its client may hold a 201: book again by hand, or tell the \
             customer. Then alarms resolve {id})",
            show_record(shard, detail)
        ),
        Some(AlarmKind::EndedEpoch) => format!(
            "{}   (its client may hold a 201: book again by hand, or tell the customer. Then alarms resolve {id})",
            show_record(shard, detail)
        ),
        Some(AlarmKind::MissingBarrier) => format!(
            "boxoffice-reconciler audit --deep   (not needed where a gap was just retried or accepted. When nothing differs: \
             alarms resolve {id})"
        ),
        None => format!(
            "boxoffice-reconciler alarms resolve {id}   (once its cause is known; a newer version raised this, and its \
             docs/OPERATIONS.md says more)"
        ),
    }
}

/// The command that shows the record of which the detail of an alarm names the offset.
fn show_record(shard: i16, detail: &str) -> String {
    let digits = detail.split_once("offset ").map(|(_, behind)| {
        let end = behind.find(|c: char| !c.is_ascii_digit()).unwrap_or(behind.len());
        &behind[..end]
    });
    let offset = digits.filter(|digits| !digits.is_empty()).unwrap_or("OFFSET");
    format!("boxoffice-reconciler log --shard {shard} --from {offset} --limit 1")
}

/// Open dead letters, oldest first.
pub(crate) async fn dead_letters(pool: &PgPool) -> sqlx::Result<Vec<OpenItem>> {
    let rows = sqlx::query(
        "SELECT id, shard, received_at, kind, reason, kafka_offset, sequence FROM dead_letters \
         WHERE outcome IS NULL ORDER BY id LIMIT $1",
    )
    .bind(LIST_MAX)
    .fetch_all(pool)
    .await?;
    let item = |row: PgRow| {
        let (id, offset): (i64, i64) = (row.try_get("id")?, row.try_get("kafka_offset")?);
        let (kind, reason): (&str, &str) = (row.try_get("kind")?, row.try_get("reason")?);
        let sequence: Option<i64> = row.try_get("sequence")?;
        let sequence = sequence.map_or_else(|| "unknown".to_owned(), |sequence| sequence.to_string());
        Ok(OpenItem {
            kind: "dead letter",
            id,
            shard: row.try_get("shard")?,
            since: row.try_get("received_at")?,
            what: format!("{kind} at offset {offset}, decision {sequence}: {reason}"),
            mend: mend_dead_letter(id, kind),
        })
    };
    rows.into_iter().map(item).collect()
}

/// What to do about a dead letter.
fn mend_dead_letter(id: i64, kind: &str) -> String {
    let retry = if kind == DeadLetterKind::Refused.as_str() {
        "when what stood in its way is gone"
    } else {
        "if a newer version wrote it: deploy that reconciler, then"
    };
    format!(
        "boxoffice-reconciler dead-letters show {id}   ({retry} dead-letters retry {id}; otherwise dead-letters discard \
         {id}, then repair)"
    )
}

/// Mends that have not ended, oldest first: under way, or interrupted.
async fn repairs(pool: &PgPool) -> sqlx::Result<Vec<OpenItem>> {
    let rows = sqlx::query(
        "SELECT id, shard, asked_at, kind, event_id, asked_by FROM repairs \
         WHERE outcome IS NULL ORDER BY id LIMIT $1",
    )
    .bind(LIST_MAX)
    .fetch_all(pool)
    .await?;
    let item = |row: PgRow| {
        let (kind, by): (&str, &str) = (row.try_get("kind")?, row.try_get("asked_by")?);
        let event: Option<Uuid> = row.try_get("event_id")?;
        let of = event.map_or_else(|| "the shard".to_owned(), |event| format!("event {event}"));
        let event = event.map_or_else(String::new, |event| format!(" --event {event}"));
        Ok(OpenItem {
            kind: "repair",
            id: row.try_get("id")?,
            shard: row.try_get("shard")?,
            since: row.try_get("asked_at")?,
            what: format!("the {kind} of {of}, asked for by {by}, has not ended"),
            mend: match kind {
                "rebuild" => "boxoffice-reconciler run   (a running service goes on with it)".to_owned(),
                _ => format!(
                    "boxoffice-reconciler repair{event}   (if nobody is at it: finds out what is left)"
                ),
            },
        })
    };
    rows.into_iter().map(item).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_of_somebody_who_may_hold_a_201_is_shown_before_its_alarm_is_closed() {
        let details = [
            (AlarmKind::Contradiction, "offset 17 holds another record for the applied position 1-3"),
            (AlarmKind::EndedEpoch, "decision 1-3 (offset 17) came after epoch 2 had begun"),
        ];
        for (kind, detail) in details {
            let mend = mend_alarm(7, 3, kind.as_str(), detail, None);
            assert!(mend.starts_with("boxoffice-reconciler log --shard 3 --from 17 --limit 1 "), "{mend}");
            assert!(mend.contains("may hold a 201") && mend.contains("alarms resolve 7"), "{mend}");
        }
        let mend = mend_alarm(7, 3, AlarmKind::EndedEpoch.as_str(), "another version's words", None);
        assert!(mend.contains("--from OFFSET "), "{mend}");
    }

    #[test]
    fn a_dead_letter_that_cannot_be_retried_is_discarded_and_then_repaired() {
        for kind in [DeadLetterKind::Poisoned, DeadLetterKind::Refused] {
            let mend = mend_dead_letter(7, kind.as_str());
            assert!(
                mend.contains("dead-letters retry 7; otherwise dead-letters discard 7, then repair"),
                "{mend}"
            );
        }
    }
}
