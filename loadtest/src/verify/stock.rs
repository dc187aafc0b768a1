//! Counters against the rows they count, and customers against their limits.

use std::collections::HashMap;

use anyhow::Result;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    Ledger,
    rows::{Active, Sums, Tickets},
};
use crate::{
    plan::Event,
    verdict::{Fault, Faults},
};

/// A ticket type as PostgreSQL counts it.
#[derive(Clone, Copy, Debug, sqlx::FromRow)]
pub(crate) struct Counter {
    pub(crate) id: Uuid,
    pub(crate) capacity: i32,
    pub(crate) held: i32,
    pub(crate) sold: i32,
}

/// The counters of all ticket types, by id.
pub(crate) type Counters = HashMap<Uuid, Counter>;

/// Reads the counters of the events' ticket types.
pub(crate) async fn counters(database: &mut PgConnection, events: &[Event]) -> Result<Counters> {
    let ids: Vec<Uuid> = events.iter().map(|event| event.id).collect();
    let rows: Vec<Counter> =
        sqlx::query_as("SELECT id, capacity, held, sold FROM ticket_types WHERE event_id = ANY($1)")
            .bind(ids)
            .fetch_all(database)
            .await?;
    Ok(rows.into_iter().map(|row| (row.id, row)).collect())
}

/// Holds capacity, counters and bookings of every ticket type against each other.
pub(crate) fn check(events: &[Event], sums: &Sums, counters: &Counters) -> Faults {
    let mut faults = Faults::default();
    for (position, event) in events.iter().enumerate() {
        for (kind, id) in event.type_ids.iter().enumerate() {
            let booked = sums.get(&(position, kind)).copied().unwrap_or_default();
            let capacity = i64::from(event.plan.types[kind].capacity);
            let excess = u64::try_from(booked.held + booked.sold - capacity).unwrap_or(0);
            let what = format!("ticket type {id}: {booked:?} of {capacity}");
            faults.add_many(Fault::Oversold, excess, what);
            let Some(counter) = counters.get(id) else {
                faults.add(Fault::CountMismatch, format!("ticket type {id} is not in PostgreSQL"));
                continue;
            };
            let counted = Tickets { held: i64::from(counter.held), sold: i64::from(counter.sold) };
            if counted != booked || i64::from(counter.capacity) != capacity {
                let what = format!("ticket type {id}: counted {counter:?}, booked {booked:?} of {capacity}");
                faults.add(Fault::CountMismatch, what);
            }
        }
    }
    faults
}

/// Nobody has more than the limit.
pub(crate) fn check_limits(events: &[Event], active: &Active) -> Faults {
    let mut faults = Faults::default();
    for (&(position, customer, kind), &tickets) in active {
        let plan = &events[position].plan;
        let limit = kind.map_or(plan.limit, |kind| plan.types[kind].limit);
        if let Some(limit) = limit.filter(|limit| tickets > u64::from(*limit)) {
            let what = format!(
                "customer {customer} has {tickets} tickets of {}, limit {limit}",
                events[position].id
            );
            faults.add(Fault::LimitBreach, what);
        }
    }
    faults
}

/// Nobody was refused without reason. It is checked only where tickets never return: there, what did not fit then does
/// not fit at the end either.
pub(crate) fn check_refusals(
    events: &[Event],
    active: &Active,
    ledger: &Ledger,
    counters: &Counters,
) -> Faults {
    let mut faults = Faults::default();
    for refusal in &ledger.limit_refusals {
        let plan = &events[refusal.event].plan;
        let had = active.get(&(refusal.event, refusal.customer, None)).copied().unwrap_or(0);
        let limit = plan.limit.map_or(u64::MAX, u64::from);
        if plan.returns_nothing() && had + refusal.tickets <= limit {
            let what =
                format!("customer {} was refused {} tickets with {had}", refusal.customer, refusal.tickets);
            faults.add(Fault::FalseRefusal, what);
        }
    }
    for (fewest, id) in
        ledger.fewest_sold_out.iter().zip(events.first().map_or(&[] as &[Uuid], |hot| &hot.type_ids))
    {
        let left = counters.get(id).map_or(0, |counter| counter.capacity - counter.held - counter.sold);
        if fewest.is_some_and(|fewest| i32::from(fewest) <= left) {
            let what = format!("{fewest:?} tickets of {id} were refused as sold out, {left} are left");
            faults.add(Fault::FalseRefusal, what);
        }
    }
    faults
}

#[cfg(test)]
#[path = "stock_tests.rs"]
mod tests;
