//! What PostgreSQL has, looked for in Redis.

use std::cmp::Ordering;

use boxoffice_schema::ids::BookingId;
use boxoffice_schema::image::BookingImage;
use boxoffice_schema::position::Position;
use uuid::Uuid;

use crate::audit::FindingKind;
use crate::recovery::stored::{self, Page};

use super::{Comparison, DeepError, Subject};

/// A booking of Redis that PostgreSQL may not have yet, with its position there.
pub(super) type Ahead = (BookingId, Position);

impl Subject<'_> {
    pub(super) async fn compare_recorded(&self, found: &mut Comparison) -> Result<(), DeepError> {
        let mut page = stored::bookings(self.sources.pool, self.event, None).await?;
        while let Some(Page { bookings, last, .. }) = page {
            found.bookings += bookings.len();
            let live = self.read_images(&bookings).await?;
            let mut ahead = Vec::new();
            for ((id, recorded), bytes) in bookings.iter().zip(live) {
                ahead.extend(judge(*id, recorded, bytes.as_deref(), found));
            }
            self.settle_ahead(&ahead, found).await?;
            page = stored::bookings(self.sources.pool, self.event, Some(last)).await?;
        }
        Ok(())
    }

    async fn read_images(
        &self,
        bookings: &[(BookingId, BookingImage)],
    ) -> Result<Vec<Option<Vec<u8>>>, DeepError> {
        let mut pipeline = redis::pipe();
        for (id, _) in bookings {
            pipeline.cmd("HGET").arg(self.slot_key(*id)).arg(id.as_bytes());
        }
        Ok(pipeline.query_async(&mut self.sources.redis.connection()).await?)
    }

    /// What PostgreSQL lacks, or has older, although it has applied the decision: it lost one.
    pub(super) async fn settle_ahead(
        &self,
        ahead: &[Ahead],
        found: &mut Comparison,
    ) -> Result<(), DeepError> {
        let Some(last) = ahead.iter().map(|(_, position)| *position).max() else { return Ok(()) };
        if !self.wait_until_applied(last).await? {
            found.not_compared.push(format!(
                "event {}: {} bookings of Redis are ahead of PostgreSQL, which stands still before decision {last}",
                self.event.id,
                ahead.len()
            ));
            return Ok(());
        }
        let ids: Vec<Uuid> = ahead.iter().map(|(id, _)| id.as_uuid()).collect();
        let rows: Vec<(Uuid, i32, i64)> =
            sqlx::query_as("SELECT id, epoch, sequence FROM bookings WHERE id = ANY ($1)")
                .bind(ids)
                .fetch_all(self.sources.pool)
                .await?;
        let rows: std::collections::HashMap<Uuid, Position> =
            rows.into_iter().map(|(id, epoch, sequence)| (id, position(epoch, sequence))).collect();
        for (id, live) in ahead {
            match rows.get(&id.as_uuid()) {
                Some(recorded) if recorded >= live => {}
                Some(recorded) => found.add(
                    FindingKind::UnrecordedBookings,
                    Some(*id),
                    format!("PostgreSQL has booking {id} as of {recorded} and Redis as of {live}"),
                ),
                None => found.add(
                    FindingKind::UnrecordedBookings,
                    Some(*id),
                    format!("PostgreSQL does not have booking {id}, which Redis has as of {live}"),
                ),
            }
        }
        Ok(())
    }
}

fn position(epoch: i32, sequence: i64) -> Position {
    Position { epoch: u32::try_from(epoch).unwrap_or(0), sequence: u64::try_from(sequence).unwrap_or(0) }
}

/// Compares a booking's two images. Returns Redis' position where Redis is ahead.
fn judge(
    id: BookingId,
    recorded: &BookingImage,
    live: Option<&[u8]>,
    found: &mut Comparison,
) -> Option<Ahead> {
    let Some(bytes) = live else {
        found.add(FindingKind::LostBookings, Some(id), format!("booking {id} is not in Redis"));
        return None;
    };
    let live = match BookingImage::decode(bytes) {
        Ok(live) => live,
        Err(error) => {
            found.add(FindingKind::BookingsDiffer, Some(id), format!("booking {id} in Redis: {error}"));
            return None;
        }
    };
    match live.position.cmp(&recorded.position) {
        Ordering::Greater => return Some((id, live.position)),
        Ordering::Less => found.add(
            FindingKind::LostBookings,
            Some(id),
            format!(
                "Redis has booking {id} as of {} and PostgreSQL as of {}",
                live.position, recorded.position
            ),
        ),
        Ordering::Equal if live != *recorded => found.add(
            FindingKind::BookingsDiffer,
            Some(id),
            format!("booking {id} has two contents at position {}", live.position),
        ),
        Ordering::Equal => {}
    }
    None
}
