//! Every row in PostgreSQL against the ledger, and every acknowledgement against the rows.

use std::collections::HashMap;

use anyhow::Result;
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;
use tokio::time::Instant;
use uuid::Uuid;

use super::Ledger;
use crate::{
    history::{Attempt, Names},
    judge::{Lost, Wrong},
    losses::Windows,
    plan::{CURRENCY, Event},
    progress,
    report::grouped,
    shop::Shop,
    verdict::{Fault, Faults},
    wire::Status,
};

/// Bookings read at a time.
const PAGE: i64 = 5_000;

/// A booking as PostgreSQL keeps it.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Row {
    id: Uuid,
    created_at: DateTime<Utc>,
    customer: String,
    idempotency_key: String,
    status: String,
    total_amount: i64,
    currency: String,
    payment_reference: Option<String>,
}

/// A line of a booking as PostgreSQL keeps it.
#[derive(Clone, Copy, Debug, sqlx::FromRow)]
pub(crate) struct ItemRow {
    booking_id: Uuid,
    ticket_type_id: Uuid,
    quantity: i32,
    unit_price: i64,
}

/// How many rows there are, by what explains them.
#[derive(Clone, Debug, Default)]
pub(crate) struct RowCounts {
    pub(crate) total: u64,
    /// Rows of keys with a 201.
    pub(crate) acknowledged: u64,
    /// Rows of keys that were never answered.
    pub(crate) unanswered: u64,
    /// Rows of keys whose only answers were refusals that leave the outcome open.
    pub(crate) refused_in_doubt: u64,
    /// Acknowledged keys whose booking is lost or otherwise than acknowledged, as the mode allows.
    pub(crate) excused: u64,
    /// Rows by state: held, confirmed, cancelled, expired.
    pub(crate) by_status: [u64; 4],
    /// Rows by the event's position in the plan.
    pub(crate) by_event: Vec<u64>,
}

/// Tickets by (event, ticket type), both by position.
pub(crate) type Sums = HashMap<(usize, usize), Tickets>;

/// Tickets that a customer has in (event, ticket type); the type is `None` for the sum over all of them.
pub(crate) type Active = HashMap<(usize, u64, Option<usize>), u64>;

/// Tickets of one ticket type, summed over bookings.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Tickets {
    pub(crate) held: i64,
    pub(crate) sold: i64,
}

/// What the rows say.
#[derive(Debug, Default)]
pub(crate) struct RowCheck {
    pub(crate) counts: RowCounts,
    pub(crate) sums: Sums,
    pub(crate) active: Active,
    pub(crate) faults: Faults,
    /// Rows seen, by the attempt's position in the ledger.
    seen: Vec<u32>,
    /// Losses that are allowed.
    windows: Windows,
}

/// Reads the rows of all events page by page and compares each with the ledger.
pub(crate) async fn check(
    database: &mut PgConnection,
    shop: &Shop,
    ledger: &mut Ledger,
    windows: &Windows,
    quiet: bool,
) -> Result<RowCheck> {
    let (seen, windows) = (vec![0; ledger.attempts.len()], windows.clone());
    let mut check = RowCheck { seen, windows, ..RowCheck::default() };
    for (position, event) in shop.market.events.iter().enumerate() {
        let before = check.counts.total;
        let mut last = None;
        loop {
            let rows = page(database, event.id, last).await?;
            let Some(end) = rows.last() else { break };
            last = Some((end.created_at, end.id));
            let items = items(database, &rows).await?;
            for row in &rows {
                let own = items.get(&row.id).map_or(&[] as &[ItemRow], Vec::as_slice);
                check.take(row, own, position, event, ledger, &shop.market.names);
            }
            progress::update(quiet, &format!("  {} rows", grouped(check.counts.total)));
        }
        check.counts.by_event.push(check.counts.total - before);
    }
    check.find_lost(ledger, &shop.market.names);
    Ok(check)
}

/// Later than any booking, and still a time that PostgreSQL knows.
fn far_future() -> DateTime<Utc> {
    Utc::now() + TimeDelta::days(36_500)
}

/// The rows older than the last one seen, newest first, as the index for an event's bookings has them.
async fn page(
    database: &mut PgConnection,
    event: Uuid,
    last: Option<(DateTime<Utc>, Uuid)>,
) -> Result<Vec<Row>> {
    let (created_at, id) = last.unwrap_or((far_future(), Uuid::max()));
    let rows = sqlx::query_as(
        "SELECT id, created_at, customer, idempotency_key, status, total_amount, currency::text AS currency,
                payment_reference
         FROM bookings WHERE event_id = $1 AND (created_at, id) < ($2, $3)
         ORDER BY created_at DESC, id DESC LIMIT $4",
    );
    Ok(rows.bind(event).bind(created_at).bind(id).bind(PAGE).fetch_all(database).await?)
}

async fn items(database: &mut PgConnection, rows: &[Row]) -> Result<HashMap<Uuid, Vec<ItemRow>>> {
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let found: Vec<ItemRow> = sqlx::query_as(
        "SELECT booking_id, ticket_type_id, quantity, unit_price
         FROM booking_items WHERE booking_id = ANY($1) ORDER BY booking_id, ordinal",
    )
    .bind(ids)
    .fetch_all(database)
    .await?;
    let mut by_booking: HashMap<Uuid, Vec<ItemRow>> = HashMap::with_capacity(rows.len());
    for item in found {
        by_booking.entry(item.booking_id).or_default().push(item);
    }
    Ok(by_booking)
}

impl RowCheck {
    /// Takes one row into account.
    fn take(
        &mut self,
        row: &Row,
        items: &[ItemRow],
        position: usize,
        event: &Event,
        ledger: &Ledger,
        names: &Names,
    ) {
        self.counts.total += 1;
        let status = Status::parse(&row.status);
        if let Some(status) = status {
            self.counts.by_status[status as usize] += 1;
        }
        let found = names.key_number(&row.idempotency_key).and_then(|number| ledger.find(number));
        let attempt = found.map(|place| &ledger.attempts[place]);
        self.add_tickets(items, status, position, event, attempt);
        let Some((place, attempt)) = found.zip(attempt) else {
            self.faults
                .add(Fault::Unexplained, format!("{} ({}, {})", row.id, row.idempotency_key, row.status));
            return;
        };
        self.seen[place] += 1;
        if self.seen[place] > 1 {
            self.faults
                .add(Fault::DuplicateKey, format!("{} is another row of {}", row.id, row.idempotency_key));
        }
        match (attempt.acknowledged, attempt.unanswered) {
            (Some(_), _) => self.counts.acknowledged += 1,
            (None, true) => self.counts.unanswered += 1,
            (None, false) => self.counts.refused_in_doubt += 1,
        }
        let same_event = attempt.order.event == position;
        let difference =
            difference(row, items, attempt, event, names).or((!same_event).then(|| "event".into()));
        if let Some(wrong) = difference {
            if self.excuse(&wrong, attempt) {
                return;
            }
            self.faults.add(Fault::Mismatched, format!("{} ({}): {wrong}", row.id, row.idempotency_key));
        }
        let over = attempt.hold_may_be_over(event.plan.hold_seconds, Instant::now());
        let legal = status.is_some_and(|status| attempt.life.permits(status, over));
        if !legal {
            let last = attempt.life.last;
            let why = format!("{} ({}) is {}, last seen {last:?}", row.id, row.idempotency_key, row.status);
            let has_gone_back = status.is_some_and(|status| attempt.may_have_gone_back_to(status, over));
            let wrong = if has_gone_back { Wrong::unless(Lost::Change, why) } else { why.into() };
            if !self.excuse(&wrong, attempt) {
                self.faults.add(Fault::IllegalStatus, wrong.why);
            }
        }
    }

    /// Whether it is the result of a loss that is allowed; counted then.
    fn excuse(&mut self, wrong: &Wrong, attempt: &Attempt) -> bool {
        let is_excused = wrong.if_lost.is_some_and(|lost| self.windows.cover(lost, attempt));
        self.counts.excused += u64::from(is_excused);
        is_excused
    }

    fn add_tickets(
        &mut self,
        items: &[ItemRow],
        status: Option<Status>,
        position: usize,
        event: &Event,
        attempt: Option<&Attempt>,
    ) {
        for item in items {
            let Some(kind) = event.type_ids.iter().position(|id| *id == item.ticket_type_id) else {
                continue;
            };
            let quantity = i64::from(item.quantity);
            let sum = self.sums.entry((position, kind)).or_default();
            match status {
                Some(Status::Held) => sum.held += quantity,
                Some(Status::Confirmed) => sum.sold += quantity,
                _ => continue,
            }
            if let Some(customer) =
                attempt.map(|attempt| attempt.order.customer).filter(|_| event.has_limit())
            {
                let quantity = u64::try_from(quantity).unwrap_or(0);
                *self.active.entry((position, customer, None)).or_default() += quantity;
                *self.active.entry((position, customer, Some(kind))).or_default() += quantity;
            }
        }
    }

    /// Acknowledged attempts without a row.
    fn find_lost(&mut self, ledger: &Ledger, names: &Names) {
        for (attempt, seen) in ledger.attempts.iter().zip(&self.seen) {
            if let Some(acknowledged) = attempt.acknowledged.filter(|_| *seen == 0) {
                if self.windows.cover(Lost::Booking, attempt) {
                    self.counts.excused += 1;
                    continue;
                }
                let key = names.key(attempt.order.number);
                self.faults.add(Fault::Lost, format!("{} ({key})", acknowledged.booking));
            }
        }
    }
}

/// In what a row differs from what was ordered and acknowledged, if in anything.
fn difference(
    row: &Row,
    items: &[ItemRow],
    attempt: &Attempt,
    event: &Event,
    names: &Names,
) -> Option<Wrong> {
    if row.customer != names.customer(attempt.order.customer) {
        return Some(format!("customer {}", row.customer).into());
    }
    if attempt.acknowledged.is_some_and(|seen| seen.booking != row.id) {
        // The key made it when the first one was lost.
        return Some(Wrong::unless(Lost::Booking, "another booking was acknowledged"));
    }
    let lines = attempt.order.items.lines();
    let mut total = 0;
    for &(kind, quantity) in lines {
        let (id, price) = (event.type_ids.get(usize::from(kind))?, event.plan.types[usize::from(kind)].price);
        total += price * i64::from(quantity);
        let same = |item: &&ItemRow| item.ticket_type_id == *id;
        let found = items.iter().find(same).map(|item| (item.quantity, item.unit_price));
        if found != Some((i32::from(quantity), price)) {
            return Some(format!("ordered {quantity} of {id} at {price}, found {found:?}").into());
        }
    }
    if items.len() != lines.len() || row.total_amount != total || row.currency != CURRENCY {
        return Some(format!("{} items for {} {}", items.len(), row.total_amount, row.currency).into());
    }
    let payment = |number| names.payment(attempt.order.number, number);
    let paid_by = attempt.life.paid_by.map(payment);
    if row.status == "confirmed" && paid_by.is_some() && row.payment_reference != paid_by {
        let why = format!("payment {:?} instead of {paid_by:?}", row.payment_reference);
        // It was confirmed anew when the first confirmation was lost.
        let is_own =
            (1..=attempt.life.confirmations).any(|number| row.payment_reference == Some(payment(number)));
        return Some(if is_own { Wrong::unless(Lost::Change, why) } else { why.into() });
    }
    None
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
