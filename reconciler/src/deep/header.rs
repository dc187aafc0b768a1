//! What an event is besides its counters and bookings.

use boxoffice_schema::event::{EventImage, TicketTypeImage};

use crate::audit::FindingKind;
use crate::snapshot;
use crate::stored;
use boxoffice_schema::position::Position;

use super::{Comparison, DeepError, Subject};

/// How often an event that is being changed is looked at.
const TRIES: usize = 3;

impl Subject<'_> {
    /// Names, times, limits, status and capacities. PostgreSQL must have them once it has applied the log as far as
    /// Redis had decided.
    pub(super) async fn compare_header(&self, found: &mut Comparison) -> Result<(), DeepError> {
        for _ in 0..TRIES {
            let (position, live) = match self.live_event().await {
                Ok(Some(read)) => read,
                Ok(None) => {
                    found.add(FindingKind::MissingInventory, None, "the event is not in Redis");
                    return Ok(());
                }
                Err(DeepError::Unreadable(error)) => {
                    found.add(FindingKind::UnreadableInventory, None, error.to_string());
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            if header(&live) == header(self.event) {
                return Ok(());
            }
            if !self.wait_until_applied(position).await? {
                break;
            }
            let stored = stored::events(self.sources.pool, self.shard).await?;
            let stored = stored.into_iter().find(|stored| stored.image.id == self.event.id);
            let again = self.live_event().await?.map(|(_, event)| header(&event));
            if again.as_ref() != Some(&header(&live)) {
                continue;
            }
            let stored = stored.map(|stored| header(&stored.image)).unwrap_or_default();
            for ((field, live), (_, stored)) in header(&live).into_iter().zip(stored) {
                if live != stored {
                    let detail = format!("{field} is {live:?} in Redis and {stored:?} in PostgreSQL");
                    found.add(FindingKind::EventDiffers, None, detail);
                }
            }
            return Ok(());
        }
        found.leave_open(format!(
            "event {}: PostgreSQL never came to Redis' position while the event stayed the same",
            self.event.id
        ));
        Ok(())
    }

    async fn live_event(&self) -> Result<Option<(Position, EventImage)>, DeepError> {
        let snapshots = snapshot::live(self.sources.redis, self.shard, &[self.event.id]).await?;
        let Some((_, snapshot)) = snapshots.into_iter().next() else { return Ok(None) };
        let snapshot = snapshot?;
        Ok(snapshot.position.zip(snapshot.event))
    }
}

/// The fields of an event's hash without the counters, and without the time of the last change.
fn header(event: &EventImage) -> Vec<(String, String)> {
    let without_counters = |t: &TicketTypeImage| TicketTypeImage { held: 0, sold: 0, ..t.clone() };
    let ticket_types = event.ticket_types.iter().map(without_counters).collect();
    EventImage { ticket_types, updated_at: event.created_at, ..event.clone() }.hash_fields()
}
