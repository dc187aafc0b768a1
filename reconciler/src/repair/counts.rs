//! PostgreSQL's counts, set to what its own bookings add up to.

use boxoffice_schema::ids::EventId;
use boxoffice_schema::shard::Shard;
use sqlx::PgConnection;

use crate::miscounts::{self, Miscount, Tickets};
use crate::postgres::is_about_data;
use crate::repairs::{self, Intent, Kind};
use crate::shards;

use super::Mender;

impl Mender<'_> {
    /// The shard's row is locked, so that no record is applied between the sum and the mend; the mend and its row are
    /// one transaction.
    pub(super) async fn mend_counts(&mut self, shard: Shard, event: EventId) -> anyhow::Result<()> {
        if self.counts_agree(event).await? {
            return Ok(());
        }
        let mut transaction = self.pool.begin().await?;
        shards::lock(&mut transaction, shard).await?;
        let mut made = Vec::new();
        for wrong in miscounts::read_soon(&mut transaction, Some(event)).await? {
            let before = told(&wrong, wrong.counted);
            let intent =
                Intent { kind: Kind::Counts, shard, event_id: Some(event), by: self.by, before: &before };
            match set(&mut transaction, &wrong).await {
                Ok(()) => {}
                Err(error) if is_about_data(&error) => {
                    self.notes.push(format!(
                        "event {event}: the bookings of ticket type {} add up to {}, which its capacity does not \
                         allow; raise the capacity by PATCH, then run this again",
                        wrong.ticket_type, wrong.summed
                    ));
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
            made.push(repairs::record(&mut transaction, &intent, &told(&wrong, wrong.summed)).await?);
        }
        transaction.commit().await?;
        self.made.extend(made);
        Ok(())
    }

    /// Whether PostgreSQL agrees with its own bookings about an event.
    pub(super) async fn counts_agree(&self, event: EventId) -> sqlx::Result<bool> {
        Ok(miscounts::read(&mut *self.pool.acquire().await?, Some(event)).await?.is_empty())
    }
}

async fn set(connection: &mut PgConnection, wrong: &Miscount) -> sqlx::Result<()> {
    let set = sqlx::query(
        "UPDATE ticket_types SET held = $4::int4, sold = $5::int4 WHERE id = $1 AND held = $2 AND sold = $3",
    )
    .bind(wrong.ticket_type.as_uuid())
    .bind(wrong.counted.held)
    .bind(wrong.counted.sold)
    .bind(wrong.summed.held)
    .bind(wrong.summed.sold)
    .execute(connection)
    .await?;
    if set.rows_affected() == 1 { Ok(()) } else { Err(sqlx::Error::RowNotFound) }
}

fn told(wrong: &Miscount, tickets: Tickets) -> String {
    format!("PostgreSQL, ticket type {}: {tickets}", wrong.ticket_type)
}
