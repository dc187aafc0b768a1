//! `GET /v1/events/{event_id}/audit`: the live invariant, Redis and PostgreSQL side by side.

use std::time::Duration;

use actix_web::HttpRequest;
use boxoffice_schema::event::TicketTypeImage;
use boxoffice_schema::ids::{EventId, TicketTypeId};
use boxoffice_schema::position::Position;
use boxoffice_schema::scripts::EventSnapshot;
use boxoffice_schema::shard::Shard;
use boxoffice_schema::time;
use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout_at};
use utoipa::ToSchema;

use super::{Answer, SharedOffice, in_time_left, shown};
use crate::contract::{self, EventPath, OPERATING, READING, refusals};
use crate::error::{Code, Problem};
use crate::find::unknown;
use crate::identity::{Caller, Scope};
use crate::inventory::InventoryError;
use crate::office::Office;
use crate::record::{self, RecordedCounts, RecordedType};
use crate::request::event_id;

/// While tickets are sold the log is a moment behind. A few looks find both sides at one position where there is one.
const LOOKS: u32 = 5;
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// All looks behind the first one end after so long: what was seen before them is an answer too, and a client waits for it.
const LOOKS_WITHIN: Duration = Duration::from_millis(500);

/// What Redis and PostgreSQL say of an event at one moment; a side that cannot be reached or read is null.
#[derive(Serialize, ToSchema)]
#[schema(as = Audit)]
pub(crate) struct AuditBody {
    #[schema(schema_with = contract::id)]
    event_id: EventId,
    #[schema(value_type = u16)]
    shard: Shard,
    /// Whether the shard may sell.
    certified: bool,
    #[schema(required = true)]
    epoch: Option<u32>,
    #[schema(required = true)]
    redis: Option<SequenceBody>,
    #[schema(value_type = Option<PositionShape>, required = true)]
    postgres: Option<Position>,
    /// Decisions of Redis that PostgreSQL does not have yet, 0 also where Redis is behind; null where `redis` or `postgres` is.
    #[schema(required = true)]
    lag: Option<u64>,
    #[schema(required = true)]
    gaps: Option<Vec<GapBody>>,
    ticket_types: Vec<TypeBody>,
    #[schema(required = true)]
    last_reconciliation: Option<ReconciliationBody>,
}

/// A shard's last decision in Redis.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditedSequence)]
struct SequenceBody {
    sequence: u64,
}

// Stands for `Position` in the document.
/// A shard's last decision in PostgreSQL.
#[derive(ToSchema)]
#[schema(as = AuditedPosition)]
#[expect(dead_code, reason = "only its shape is of interest")]
struct PositionShape {
    epoch: u32,
    sequence: u64,
}

/// Decisions that the log does not hold.
#[derive(Serialize, ToSchema)]
#[schema(as = Gap)]
struct GapBody {
    epoch: u32,
    from: u64,
    to: u64,
}

/// The counts of a ticket type on both sides.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditedTicketType)]
struct TypeBody {
    #[schema(schema_with = contract::id)]
    ticket_type_id: TicketTypeId,
    #[schema(required = true)]
    redis: Option<LiveBody>,
    #[schema(required = true)]
    postgres: Option<RecordedBody>,
    /// The sum of the absolute differences of held and sold; null unless `lag` is 0 and both sides have the ticket type.
    #[schema(required = true)]
    drift: Option<u64>,
}

/// In Redis.
#[derive(Serialize, ToSchema)]
#[schema(as = LiveCounts)]
struct LiveBody {
    #[schema(schema_with = contract::capacity)]
    capacity: u32,
    available: i64,
    #[schema(schema_with = contract::count)]
    held: u32,
    #[schema(schema_with = contract::count)]
    sold: u32,
}

/// In PostgreSQL.
#[derive(Serialize, ToSchema)]
#[schema(as = RecordedCounts)]
struct RecordedBody {
    #[schema(schema_with = contract::capacity)]
    capacity: u32,
    #[schema(schema_with = contract::count)]
    held: u32,
    #[schema(schema_with = contract::count)]
    sold: u32,
}

/// The audit's last run, where it began after the event's last change; null for what is not compared, a draft or a closed event.
#[derive(Serialize, ToSchema)]
#[schema(as = Reconciliation)]
struct ReconciliationBody {
    #[serde(serialize_with = "time::serialize")]
    #[schema(schema_with = contract::time)]
    at: DateTime<Utc>,
    /// Whether it found nothing wrong with the event or its shard. Where the log lagged behind a sale all the while, it compared nothing.
    ok: bool,
}

refusals!(AuditRefusals: OPERATING, &[Code::EventNotFound, Code::InventoryUnverified], READING);

/// Both sides, one of them perhaps out of reach.
struct Sides {
    redis: Option<EventSnapshot>,
    postgres: Option<RecordedCounts>,
}

/// The live invariant
#[utoipa::path(
    get,
    path = "/v1/events/{event_id}/audit",
    operation_id = "auditEvent",
    tag = "events",
    security(("apiKey" = [Scope::AuditRead])),
    params(EventPath),
    responses((status = 200, description = "Both sides.", body = AuditBody), AuditRefusals),
)]
pub(crate) async fn audit(caller: Caller, office: SharedOffice, request: HttpRequest) -> Answer {
    caller.operates(Scope::AuditRead)?;
    let id = event_id(&request)?;
    let shard = office.stores.inventory.shard_of(id);
    let sides = in_time_left(&request, look_for_one_position(&office, shard, id)).await?;
    shown(&request, &sides.compare(id, shard))
}

/// What was seen last of both sides, at one position where the looks find one in time.
async fn look_for_one_position(office: &Office, shard: Shard, id: EventId) -> Result<Sides, Problem> {
    let until = Instant::now() + LOOKS_WITHIN;
    let mut sides = look(office, shard, id).await?;
    for _ in 1..LOOKS {
        if sides.lag().is_none_or(|lag| lag == 0) {
            break;
        }
        let again = async {
            sleep(BETWEEN_LOOKS).await;
            look(office, shard, id).await
        };
        match timeout_at(until, again).await {
            Ok(Ok(later)) if later.redis.is_some() && later.postgres.is_some() => sides = later,
            // It is late, or has seen less than is known already.
            _ => break,
        }
    }
    Ok(sides)
}

/// PostgreSQL first: it follows Redis, so that the other order could see it ahead.
async fn look(office: &Office, shard: Shard, id: EventId) -> Result<Sides, Problem> {
    let counts = async |connection: &mut _| record::counts(connection, shard, id).await;
    let postgres = office.stores.database.run(counts).await;
    let redis = office.stores.snapshot(id).await;
    let is_live = redis.as_ref().is_ok_and(|snapshot| snapshot.event.is_some());
    match postgres {
        Ok(counts) if counts.ticket_types.is_empty() && !is_live => Err(unknown(redis)),
        // One that does not know the event yet tells how far it is.
        Ok(counts) => Ok(Sides { postgres: Some(counts), redis: reached(id, redis)? }),
        Err(_) if is_live => Ok(Sides { postgres: None, redis: redis.ok() }),
        Err(error) => Err(error.into()),
    }
}

/// A Redis of which more is asked than it can answer is as far out of reach as one that is away. Where it holds what cannot be
/// read, an audit is asked for more than ever, and has the other side to show.
fn reached(
    id: EventId,
    redis: Result<EventSnapshot, InventoryError>,
) -> Result<Option<EventSnapshot>, Problem> {
    match redis {
        Ok(snapshot) => Ok(Some(snapshot)),
        Err(InventoryError::RedisUnavailable(_) | InventoryError::Overloaded) => Ok(None),
        Err(error @ InventoryError::Corrupt(_)) => {
            tracing::error!(event = %id, %error, "an audit cannot read Redis' side of an event and leaves it out");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

impl Sides {
    /// Decisions of Redis that PostgreSQL does not have yet.
    fn lag(&self) -> Option<u64> {
        let (redis, postgres) = (self.redis.as_ref()?.position?, self.postgres.as_ref()?.position);
        Some(redis.sequence.saturating_sub(postgres.sequence))
    }

    fn compare(self, event_id: EventId, shard: Shard) -> AuditBody {
        let position = self.redis.as_ref().and_then(|snapshot| snapshot.position);
        let lag = self.lag();
        let last_reconciliation =
            self.postgres.as_ref().and_then(|counts| counts.last_reconciliation.as_ref());
        AuditBody {
            event_id,
            shard,
            certified: self.redis.as_ref().is_some_and(|snapshot| snapshot.certified),
            epoch: position.map(|position| position.epoch),
            redis: position.map(|position| SequenceBody { sequence: position.sequence }),
            postgres: self.postgres.as_ref().map(|counts| counts.position),
            lag,
            gaps: self.postgres.as_ref().map(|counts| {
                counts
                    .gaps
                    .iter()
                    .map(|gap| GapBody { epoch: gap.epoch, from: gap.from, to: gap.to })
                    .collect()
            }),
            ticket_types: self.ticket_types(lag == Some(0)),
            last_reconciliation: last_reconciliation.map(|run| ReconciliationBody { at: run.at, ok: run.ok }),
        }
    }

    /// Both sides know the types in the same order, since none is ever added. A Redis that is behind has lost decisions, and
    /// what its counts lack is drift as well.
    fn ticket_types(&self, comparable: bool) -> Vec<TypeBody> {
        let event = self.redis.as_ref().and_then(|snapshot| snapshot.event.as_ref());
        let live: &[TicketTypeImage] = event.map_or(&[], |event| &event.ticket_types);
        let recorded: &[RecordedType] = self.postgres.as_ref().map_or(&[], |counts| &counts.ticket_types);
        let at = |at: usize| -> Option<TypeBody> {
            let (live, recorded) = (live.get(at), recorded.get(at));
            let drift = live.zip(recorded).filter(|_| comparable);
            Some(TypeBody {
                ticket_type_id: live.map(|live| live.id).or(recorded.map(|recorded| recorded.id))?,
                redis: live.map(LiveBody::of),
                postgres: recorded.map(RecordedBody::of),
                drift: drift.map(|(live, recorded)| drift_of(live, recorded)),
            })
        };
        (0..live.len().max(recorded.len())).filter_map(at).collect()
    }
}

fn drift_of(live: &TicketTypeImage, recorded: &RecordedType) -> u64 {
    u64::from(live.held.abs_diff(recorded.held)) + u64::from(live.sold.abs_diff(recorded.sold))
}

impl LiveBody {
    fn of(live: &TicketTypeImage) -> Self {
        let available = i64::from(live.capacity) - i64::from(live.held) - i64::from(live.sold);
        Self { capacity: live.capacity, available, held: live.held, sold: live.sold }
    }
}

impl RecordedBody {
    fn of(recorded: &RecordedType) -> Self {
        Self { capacity: recorded.capacity, held: recorded.held, sold: recorded.sold }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redis_of_which_too_much_is_asked_is_a_side_that_cannot_be_reached() {
        let id = EventId::from_bytes([1; 16]);
        assert!(reached(id, Err(InventoryError::Overloaded)).unwrap().is_none());
        assert!(reached(id, Err(InventoryError::RedisUnavailable("away".to_owned()))).unwrap().is_none());
    }
}
