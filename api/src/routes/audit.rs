//! `GET /v1/events/{event_id}/audit`: the live invariant, Redis and PostgreSQL side by side.

use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::StatusCode;
use boxoffice_schema::event::TicketTypeImage;
use boxoffice_schema::ids::{EventId, TicketTypeId};
use boxoffice_schema::position::Position;
use boxoffice_schema::scripts::EventSnapshot;
use boxoffice_schema::shard::Shard;
use boxoffice_schema::time;
use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{Answer, SharedOffice, in_time, json};
use crate::error::{Code, Problem};
use crate::identity::{Caller, Scope};
use crate::inventory::InventoryError;
use crate::office::Office;
use crate::record::{self, RecordedCounts, RecordedType};
use crate::request::event_id;

/// While tickets are sold the log is a moment behind. A few looks find both sides at one position where there is one.
const LOOKS: u32 = 5;
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

#[derive(Serialize)]
struct AuditBody {
    event_id: EventId,
    shard: Shard,
    certified: bool,
    epoch: Option<u32>,
    redis: Option<SequenceBody>,
    postgres: Option<Position>,
    lag: Option<u64>,
    gaps: Option<Vec<GapBody>>,
    ticket_types: Vec<TypeBody>,
    last_reconciliation: Option<ReconciliationBody>,
}

#[derive(Serialize)]
struct SequenceBody {
    sequence: u64,
}

#[derive(Serialize)]
struct GapBody {
    epoch: u32,
    from: u64,
    to: u64,
}

#[derive(Serialize)]
struct TypeBody {
    ticket_type_id: TicketTypeId,
    redis: Option<LiveBody>,
    postgres: Option<RecordedBody>,
    drift: Option<u64>,
}

#[derive(Serialize)]
struct LiveBody {
    capacity: u32,
    available: i64,
    held: u32,
    sold: u32,
}

#[derive(Serialize)]
struct RecordedBody {
    capacity: u32,
    held: u32,
    sold: u32,
}

#[derive(Serialize)]
struct ReconciliationBody {
    #[serde(serialize_with = "time::serialize")]
    at: DateTime<Utc>,
    ok: bool,
}

/// Both sides, one of them perhaps out of reach.
struct Sides {
    redis: Option<EventSnapshot>,
    postgres: Option<RecordedCounts>,
}

pub(crate) async fn audit(caller: Caller, office: SharedOffice, request: HttpRequest) -> Answer {
    caller.operates(Scope::AuditRead)?;
    let id = event_id(&request)?;
    let shard = office.stores.inventory.shard_of(id);
    let sides = in_time(look_for_one_position(&office, shard, id)).await?;
    json(StatusCode::OK, &sides.compare(id, shard))
}

async fn look_for_one_position(office: &Office, shard: Shard, id: EventId) -> Result<Sides, Problem> {
    let mut sides = look(office, shard, id).await?;
    for _ in 1..LOOKS {
        if sides.lag().is_none_or(|lag| lag == 0) {
            break;
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
        sides = look(office, shard, id).await?;
    }
    Ok(sides)
}

/// PostgreSQL first: it follows Redis, so that the other order could see it ahead.
async fn look(office: &Office, shard: Shard, id: EventId) -> Result<Sides, Problem> {
    let counts = async |connection: &mut _| record::counts(connection, shard, id).await;
    let postgres = office.stores.database.run(counts).await;
    let redis = office.stores.snapshot(id).await;
    match (postgres, redis) {
        // Every event begins in PostgreSQL, so that it knows.
        (Ok(None), _) => Err(Problem::new(Code::EventNotFound)),
        (Ok(counts), redis) => Ok(Sides { postgres: counts, redis: reached(redis)? }),
        (Err(_), Ok(snapshot)) if snapshot.event.is_some() => {
            Ok(Sides { postgres: None, redis: Some(snapshot) })
        }
        (Err(error), _) => Err(error.into()),
    }
}

fn reached(redis: Result<EventSnapshot, InventoryError>) -> Result<Option<EventSnapshot>, Problem> {
    match redis {
        Ok(snapshot) => Ok(Some(snapshot)),
        Err(InventoryError::RedisUnavailable(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Sides {
    fn positions(&self) -> Option<(Position, Position)> {
        self.redis.as_ref()?.position.zip(self.postgres.as_ref().map(|counts| counts.position))
    }

    /// Decisions of Redis that PostgreSQL does not have yet.
    fn lag(&self) -> Option<u64> {
        self.positions().map(|(redis, postgres)| redis.sequence.saturating_sub(postgres.sequence))
    }

    fn compare(self, event_id: EventId, shard: Shard) -> AuditBody {
        let position = self.redis.as_ref().and_then(|snapshot| snapshot.position);
        // A Redis that is behind has lost data: its counts are of another moment too.
        let comparable =
            self.positions().is_some_and(|(redis, postgres)| redis.sequence == postgres.sequence);
        let last_reconciliation =
            self.postgres.as_ref().and_then(|counts| counts.last_reconciliation.as_ref());
        AuditBody {
            event_id,
            shard,
            certified: self.redis.as_ref().is_some_and(|snapshot| snapshot.certified),
            epoch: position.map(|position| position.epoch),
            redis: position.map(|position| SequenceBody { sequence: position.sequence }),
            postgres: self.postgres.as_ref().map(|counts| counts.position),
            lag: self.lag(),
            gaps: self.postgres.as_ref().map(|counts| {
                counts
                    .gaps
                    .iter()
                    .map(|gap| GapBody { epoch: gap.epoch, from: gap.from, to: gap.to })
                    .collect()
            }),
            ticket_types: self.ticket_types(comparable),
            last_reconciliation: last_reconciliation.map(|run| ReconciliationBody { at: run.at, ok: run.ok }),
        }
    }

    /// Both sides know the types in the same order, since none is ever added.
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
