//! What the API shows after the run, against PostgreSQL.

use std::collections::HashSet;

use anyhow::Result;

use super::{RowCounts, stock::Counters, unreadable};
use crate::{
    client::Client,
    operator,
    plan::{Event, Role},
    shop::Shop,
    verdict::{Fault, Faults},
    wire::{Audit, Availability},
};

/// Bound on the pages of one event's list (200 bookings each).
const MAX_PAGES: usize = 500;

/// Asks for every event's audit and availability, and for the whole list of one small event.
pub(crate) async fn check(shop: &Shop, counters: &Counters, rows: &RowCounts) -> Faults {
    let mut faults = Faults::default();
    for event in &shop.market.events {
        match operator::audit(&shop.client, event).await {
            Ok(audit) => check_audit(event, &audit, counters, &mut faults),
            Err(error) => unreadable(&mut faults, "audit", &error),
        }
        match operator::availability(&shop.client, event).await {
            Ok(shown) => check_availability(event, &shown, counters, &mut faults),
            Err(error) => unreadable(&mut faults, "availability", &error),
        }
    }
    let small =
        shop.market.events.iter().zip(&rows.by_event).find(|(event, _)| event.plan.role == Role::Small);
    if let Some((event, &rows)) = small {
        match list(&shop.client, event).await {
            Ok((listed, distinct)) if listed == rows && distinct == rows => {}
            Ok((listed, distinct)) => {
                let what =
                    format!("event {}: {rows} rows, {listed} listed, {distinct} of them distinct", event.id);
                faults.add(Fault::ReadMismatch, what);
            }
            Err(error) => unreadable(&mut faults, "list of bookings", &error),
        }
    }
    faults
}

/// No drift, no gaps, and both sides as PostgreSQL was read.
fn check_audit(event: &Event, audit: &Audit, counters: &Counters, faults: &mut Faults) {
    let gaps = audit.gaps.len() as u64;
    faults.add_many(Fault::Gap, gaps, format!("event {}: gaps {:?}", event.id, audit.gaps));
    if audit.ticket_types.len() != event.type_ids.len() {
        faults.add(Fault::LiveMismatch, format!("event {}: not every ticket type is audited", event.id));
    }
    for kind in &audit.ticket_types {
        let drift = kind.drift.map_or(0, i64::unsigned_abs);
        faults.add_many(Fault::Drift, drift, format!("ticket type {}: drift {drift}", kind.ticket_type_id));
        let (Some(redis), Some(postgres)) = (kind.redis, kind.postgres) else {
            faults.add(
                Fault::Unreadable,
                format!("ticket type {}: a side of the audit is null", kind.ticket_type_id),
            );
            continue;
        };
        let adds_up = redis.available >= 0 && redis.available + redis.held + redis.sold == redis.capacity;
        let redis = (redis.capacity, redis.held, redis.sold);
        let postgres = (postgres.capacity, postgres.held, postgres.sold);
        let counter = counters.get(&kind.ticket_type_id);
        let counter = counter.map(|row| (i64::from(row.capacity), i64::from(row.held), i64::from(row.sold)));
        if !adds_up || Some(redis) != counter || Some(postgres) != counter {
            let what = format!(
                "ticket type {}: (capacity, held, sold) in Redis {redis:?}, audited {postgres:?}, counted {counter:?}",
                kind.ticket_type_id
            );
            faults.add(Fault::LiveMismatch, what);
        }
    }
}

/// Each ticket in exactly one place, and as many as PostgreSQL counts.
fn check_availability(event: &Event, shown: &Availability, counters: &Counters, faults: &mut Faults) {
    if shown.event_id != event.id || shown.ticket_types.len() != event.type_ids.len() || shown.stale {
        faults.add(Fault::LiveMismatch, format!("event {}: availability is stale or incomplete", event.id));
    }
    for kind in &shown.ticket_types {
        let counter = counters.get(&kind.ticket_type_id);
        let same = counter.is_some_and(|row| {
            (kind.capacity, kind.held, kind.sold)
                == (i64::from(row.capacity), i64::from(row.held), i64::from(row.sold))
        });
        if !same || !kind.adds_up() {
            faults.add(Fault::LiveMismatch, format!("shown {kind:?}, counted {counter:?}"));
        }
    }
}

/// The length of an event's list, and the number of distinct bookings in it.
async fn list(client: &Client, event: &Event) -> Result<(u64, u64)> {
    let (mut listed, mut distinct, mut cursor) = (0, HashSet::new(), None);
    for _ in 0..MAX_PAGES {
        let page = operator::bookings(client, event, cursor.as_deref()).await?;
        listed += page.items.len() as u64;
        distinct.extend(page.items.iter().map(|booking| booking.id));
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    Ok((listed, distinct.len() as u64))
}

#[cfg(test)]
#[path = "live_tests.rs"]
mod tests;
