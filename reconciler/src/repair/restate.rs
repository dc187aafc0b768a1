//! Bookings that Redis has and PostgreSQL lost: Redis says them once more, and they come by the normal way.

use boxoffice_schema::event::EventImage;
use boxoffice_schema::ids::BookingId;
use boxoffice_schema::position::Position;
use boxoffice_schema::scripts::{BATCH_MAX, Outcome as Decided, Restate, Target, decision_call};
use boxoffice_schema::shard::Shard;

use crate::audit::FindingKind;
use crate::deep::Comparison;
use crate::repairs::{Kind, Outcome};

use super::{BOUNDS, Mender};

/// Bookings that a row names; their number is always told.
const NAMED_MAX: usize = 10;

/// What became of the bookings that PostgreSQL lacks.
#[derive(Default)]
pub(super) struct Restated {
    /// The position of the last one that was said once more.
    pub(super) last: Option<Position>,
    /// How many were not, as far as is known.
    pub(super) left_out: usize,
}

impl Mender<'_> {
    pub(super) async fn restate_bookings(
        &mut self,
        shard: Shard,
        event: &EventImage,
        found: &Comparison,
    ) -> anyhow::Result<Restated> {
        let bookings = found.bookings_with(FindingKind::UnrecordedBookings);
        let mut restated = Restated::default();
        for batch in bookings.chunks(BATCH_MAX) {
            let before = format!("PostgreSQL lacks {}, or has them older", named(batch));
            let row = self.begin(Kind::Restate, shard, Some(event.id), &before).await?;
            let (left_out, outcome, after) = match self.restate(shard, event, batch).await {
                Ok((position, missed)) => {
                    restated.last = restated.last.max(position);
                    let said = position.map_or_else(
                        || "nothing was restated".to_owned(),
                        |position| format!("restated, the last at {position}"),
                    );
                    let outcome = if position.is_some() { Outcome::Done } else { Outcome::Refused };
                    (missed.len(), outcome, said + &missed.concat())
                }
                Err(error) => (batch.len(), Outcome::of_failure(&error), error.to_string()),
            };
            self.end(row, outcome, &after).await?;
            restated.left_out += left_out;
            if left_out > 0 {
                self.notes.push(format!("event {}: {after}", event.id));
            }
        }
        Ok(restated)
    }

    /// Returns the last position, and in words each booking that was not restated.
    async fn restate(
        &self,
        shard: Shard,
        event: &EventImage,
        batch: &[BookingId],
    ) -> anyhow::Result<(Option<Position>, Vec<String>)> {
        let target = |id: &BookingId| Target { event_id: event.id, booking_id: *id, slots: event.slots };
        let requests: Vec<Restate> = batch.iter().map(|id| Restate { target: target(id) }).collect();
        let call = decision_call(&self.redis.keys, shard, BOUNDS, &requests);
        let replies: Vec<Vec<u8>> = self.redis.run(&call).await?;
        let (mut last, mut missed) = (None, Vec::new());
        for (id, reply) in batch.iter().zip(replies) {
            match Decided::parse(&reply)? {
                Decided::Changed(image) => last = last.max(Some(image.position)),
                other => missed.push(format!("; booking {id}: {}", other.label())),
            }
        }
        Ok((last, missed))
    }
}

fn named(bookings: &[BookingId]) -> String {
    let names: Vec<String> = bookings.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    match bookings.len() - names.len() {
        0 => format!("bookings {}", names.join(", ")),
        more => format!("bookings {} and {more} more", names.join(", ")),
    }
}
