//! One shard: its events' counters in Redis against those in PostgreSQL, at equal positions.

use std::collections::BTreeMap;
use std::time::Duration;

use boxoffice_schema::DecodeError;
use boxoffice_schema::ids::EventId;
use boxoffice_schema::shard::Shard;
use sqlx::PgPool;
use tokio::time::Instant;

use crate::deep::Sources;
use crate::shards;
use crate::snapshot::{self, EventCounts, LiveEvent, Recorded, live_counts};

use super::{AuditError, Finding, FindingKind, Scope, Totals};

/// How often PostgreSQL is asked while it is behind.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// What became of a shard's ticket types.
#[derive(Debug, Default)]
pub(super) struct Compared {
    pub(super) compared: usize,
    pub(super) not_compared: usize,
    pub(super) totals: Totals,
    pub(super) findings: Vec<Finding>,
}

type Snapshots = BTreeMap<EventId, LiveEvent>;

pub(super) async fn shard(
    sources: Sources<'_>,
    shard: Shard,
    recorded: &Recorded,
    scope: &Scope,
) -> Result<Compared, AuditError> {
    let mut done = Compared::default();
    let mut pending: BTreeMap<EventId, usize> =
        recorded.events.iter().map(|(event, types)| (*event, types.len())).collect();
    let mut known = Some(recorded.clone());
    let deadline = Instant::now() + scope.patience;
    for _ in 0..scope.tries {
        if pending.is_empty() {
            break;
        }
        let mut snapshots = take_snapshots(sources, shard, &mut pending, &mut done).await?;
        while !snapshots.is_empty() {
            // What is known from before serves as well: equal positions are equal at any time.
            let now = match known.take() {
                Some(known) => known,
                None => look(sources.pool, shard, scope.event, &snapshots).await?,
            };
            settle(shard, &now, &mut snapshots, &mut pending, &mut done);
            if Instant::now() > deadline {
                break;
            }
            if !snapshots.is_empty() {
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        }
        if Instant::now() > deadline {
            break;
        }
    }
    done.not_compared += pending.values().sum::<usize>();
    Ok(done)
}

/// How far PostgreSQL is, and its counts where some snapshot is of that very position. During a sale it mostly goes past
/// them all, and the counts of a shard's events are much to read each time.
async fn look(
    pool: &PgPool,
    shard: Shard,
    event: Option<EventId>,
    snapshots: &Snapshots,
) -> sqlx::Result<Recorded> {
    let position = shards::applied(pool, shard).await?;
    if !snapshots.values().any(|snapshot| snapshot.position.unwrap_or_default() == position) {
        return Ok(Recorded { position, ..Recorded::default() });
    }
    Ok(snapshot::recorded(pool, &[shard], event).await?.remove(&shard).unwrap_or_default())
}

/// Reads the pending events from Redis. What cannot be read there is a finding, and done with.
async fn take_snapshots(
    sources: Sources<'_>,
    shard: Shard,
    pending: &mut BTreeMap<EventId, usize>,
    done: &mut Compared,
) -> Result<Snapshots, AuditError> {
    let events: Vec<EventId> = pending.keys().copied().collect();
    let mut snapshots = Snapshots::new();
    for (event, snapshot) in snapshot::live(sources.redis, shard, &events).await? {
        match snapshot {
            Ok(snapshot) => {
                snapshots.insert(event, snapshot);
            }
            Err(error) => {
                pending.remove(&event);
                done.findings.push(unreadable(shard, event, &error));
            }
        }
    }
    Ok(snapshots)
}

/// Compares the snapshots that are at PostgreSQL's position, and drops those that it went past. What remains is
/// ahead of PostgreSQL.
fn settle(
    shard: Shard,
    recorded: &Recorded,
    snapshots: &mut Snapshots,
    pending: &mut BTreeMap<EventId, usize>,
    done: &mut Compared,
) {
    snapshots.retain(|event, snapshot| {
        let position = snapshot.position.unwrap_or_default();
        if position != recorded.position {
            return position > recorded.position;
        }
        pending.remove(event);
        if let Some(counts) = recorded.events.get(event) {
            done.compared += counts.len();
            counts.iter().for_each(|(_, counts)| done.totals.postgres += *counts);
            let live = snapshot.event.as_ref().map(live_counts).unwrap_or_default();
            live.iter().for_each(|(_, counts)| done.totals.redis += *counts);
            done.findings.extend(differences(shard, *event, counts, snapshot));
        }
        false
    });
}

/// What is wrong with an event whose position is the same in both stores.
fn differences(shard: Shard, event: EventId, recorded: &EventCounts, snapshot: &LiveEvent) -> Vec<Finding> {
    let finding = |ticket_type_id, kind, detail, drift| Finding {
        shard,
        event_id: Some(event),
        ticket_type_id,
        kind,
        detail,
        drift,
    };
    let Some(image) = &snapshot.event else {
        let detail = "PostgreSQL has this event on sale and Redis does not have it".to_owned();
        return vec![finding(None, FindingKind::MissingInventory, detail, 0)];
    };
    let live: BTreeMap<_, _> = live_counts(image).into_iter().collect();
    let mut findings = Vec::new();
    for (ticket_type, recorded) in recorded {
        let Some(live) = live.get(ticket_type) else {
            let detail = "PostgreSQL has this ticket type and Redis does not have it".to_owned();
            findings.push(finding(Some(*ticket_type), FindingKind::MissingInventory, detail, 0));
            continue;
        };
        if live != recorded {
            let detail = format!("Redis has {live}; PostgreSQL has {recorded}");
            let drift =
                (live.held - recorded.held).unsigned_abs() + (live.sold - recorded.sold).unsigned_abs();
            findings.push(finding(Some(*ticket_type), FindingKind::Drift, detail, drift));
        }
        for (store, counts) in [("Redis", live), ("PostgreSQL", recorded)] {
            if !counts.add_up() {
                let detail = format!("{store} has {counts}");
                findings.push(finding(Some(*ticket_type), FindingKind::Oversold, detail, 0));
            }
        }
    }
    findings
}

fn unreadable(shard: Shard, event: EventId, error: &DecodeError) -> Finding {
    Finding {
        shard,
        event_id: Some(event),
        ticket_type_id: None,
        kind: FindingKind::UnreadableInventory,
        detail: error.to_string(),
        drift: 0,
    }
}
