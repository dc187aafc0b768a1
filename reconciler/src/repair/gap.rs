//! Gaps: what is missing may be there when the log is read again.

use std::time::Duration;

use boxoffice_schema::shard::Shard;
use tokio::time::Instant;

use crate::gaps::{self, Missing};
use crate::number;
use crate::repairs::{Kind, Outcome};
use crate::shards;

use super::Mender;

/// How long the log may take to show whether the gap is still there.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often that is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A gap, by its number.
#[derive(sqlx::FromRow)]
struct OpenGap {
    id: i64,
    #[sqlx(flatten)]
    missing: Missing,
}

impl Mender<'_> {
    /// The sequence decides: what is still missing is a gap again.
    pub(super) async fn read_gaps_again(&mut self, shard: Shard) -> anyhow::Result<()> {
        let Some(OpenGap { id, missing }) = self.open_gap(shard).await? else { return Ok(()) };
        let row = self.begin(Kind::Gap, shard, None, &missing.to_string()).await?;
        let to = missing.to_sequence;
        gaps::retry(self.config, self.pool, id, None).await?;
        let start = Instant::now();
        let (still_open, applied) = loop {
            let open = self.open_gap(shard).await?;
            let applied = number::int8(shards::applied(self.pool, shard).await?.sequence);
            if open.is_some() || applied >= to || start.elapsed() > PATIENCE {
                break (open, applied);
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        };
        let Some(OpenGap { id, missing }) = still_open else {
            if applied >= to {
                return Ok(self
                    .end(row, Outcome::Done, "the log was read again, and the shard goes on")
                    .await?);
            }
            let slow =
                format!("the log was not read as far as decision {to} within {} s", PATIENCE.as_secs());
            self.end(row, Outcome::Unknown, &slow).await?;
            self.notes.push(format!(
                "shard {shard}: {slow}; `boxoffice-reconciler status` says whether it goes on"
            ));
            return Ok(());
        };
        self.end(row, Outcome::Refused, &format!("read again, and still {missing}")).await?;
        self.notes.push(format!(
            "shard {shard}: the log was read again, and still {missing}. Look at \
             `boxoffice-reconciler dead-letters list`; where the log was cut or made anew, read it from where they lie, by \
             `boxoffice-reconciler gaps retry {id} --from OFFSET`; else `boxoffice-reconciler gaps accept {id}`, and then \
             this again, which lets Redis say what it still knows of them"
        ));
        Ok(())
    }

    async fn open_gap(&self, shard: Shard) -> sqlx::Result<Option<OpenGap>> {
        sqlx::query_as(
            "SELECT id, from_sequence, to_sequence, kafka_offset, offset_lost FROM gaps \
             WHERE shard = $1 AND resolved_at IS NULL ORDER BY id LIMIT 1",
        )
        .bind(number::of_shard(shard))
        .fetch_optional(self.pool)
        .await
    }
}
