//! What PostgreSQL has, looked for in Redis.

use std::cmp::Ordering;

use boxoffice_schema::ids::BookingId;
use boxoffice_schema::image::BookingImage;
use boxoffice_schema::slot;

use crate::audit::FindingKind;
use crate::stored::{self, Page};

use super::{Comparison, DeepError, Subject};

/// Bookings that are compared at a time, which is how many Redis is asked for in one go.
const PAGE: usize = 1_000;

impl Subject<'_> {
    pub(super) async fn compare_recorded(&self, found: &mut Comparison) -> Result<(), DeepError> {
        let mut page = stored::bookings(self.sources.pool, self.event, None, PAGE).await?;
        while let Some(Page { bookings, last, .. }) = page {
            found.bookings += bookings.len();
            let live = self.read_values(&bookings).await?;
            for ((id, recorded), value) in bookings.iter().zip(live) {
                judge(*id, recorded, value.as_deref(), found);
            }
            page = stored::bookings(self.sources.pool, self.event, Some(last), PAGE).await?;
        }
        Ok(())
    }

    /// What lies where the bookings should; nothing does where a slot's key is of another type.
    async fn read_values(
        &self,
        bookings: &[(BookingId, BookingImage)],
    ) -> Result<Vec<Option<Vec<u8>>>, DeepError> {
        let mut pipeline = redis::pipe();
        for (id, _) in bookings {
            pipeline.cmd("HGET").arg(self.slot_key(*id)).arg(id.field().as_bytes());
        }
        let read: Vec<Option<Option<Vec<u8>>>> = self.sources.redis.ask_each(&mut pipeline).await?;
        Ok(read.into_iter().map(Option::flatten).collect())
    }
}

/// Compares a booking's two images. Where Redis is ahead, nothing follows: that is asked from Redis' side.
fn judge(id: BookingId, recorded: &BookingImage, live: Option<&[u8]>, found: &mut Comparison) {
    let lost = format!("booking {id} is not in Redis");
    let Some(value) = live else {
        found.add(FindingKind::LostBookings, Some(id), lost);
        return;
    };
    let live = match slot::decode(id.field(), value) {
        Ok((other, _)) if other != id => {
            found.add(FindingKind::LostBookings, Some(id), format!("{lost}; its key leads to {other}"));
            return;
        }
        Ok((_, live)) => live,
        Err(error) => {
            found.add(FindingKind::BookingsDiffer, Some(id), format!("booking {id} in Redis: {error}"));
            return;
        }
    };
    match live.position.cmp(&recorded.position) {
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
        Ordering::Equal | Ordering::Greater => {}
    }
}

#[cfg(test)]
mod tests {
    use boxoffice_schema::record::Change;

    use super::*;
    use crate::test_records::booked;

    #[test]
    fn a_booking_whose_key_leads_to_another_one_is_lost() {
        let Change::Booking(change) = booked(1, 1, "a").change else { panic!("not of a booking") };
        let (id, image) = (change.id, &change.image);
        let kinds = |value: &[u8]| {
            let mut found = Comparison::default();
            judge(id, image, Some(value), &mut found);
            found.differences.iter().map(|difference| difference.kind).collect::<Vec<_>>()
        };
        assert_eq!(kinds(&slot::encode(id, image)), []);
        let other = BookingId::from_parts([0; 6], id.field());
        assert_eq!(kinds(&slot::encode(other, image)), [FindingKind::LostBookings]);
    }
}
