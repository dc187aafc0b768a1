//! One goose user: takes its turn, sends one request, learns from the answer, and plans what follows.

use std::time::Duration;

use rand::{SeedableRng, rngs::StdRng};
use tokio::time::Instant;

use crate::{
    client::Call,
    contract::Code,
    history::{Attempt, Items, Order},
    judge::{self, Finding},
    plan::{Event, Role},
    scenario::{Errand, Scenario, Wish},
    schedule::Slot,
    shop::{Judged, Line, Sent, Shop, exchange, order_call, own_url},
    wire::Status,
};

/// Errands that one user keeps in mind; more are forgotten, so that a server that stalls does not fill the memory.
const MAX_ERRANDS: usize = 64;

/// Times that an order is sent again while its outcome is unknown.
const MAX_RETRIES: u8 = 8;

/// Longest `Retry-After` that is obeyed: a run is short.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(2);

/// Spreads the users' seeds (the golden ratio's fraction), so that neighbours draw unlike lots.
const SEED_STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// An errand about one of the user's own attempts.
#[derive(Clone, Copy, Debug)]
struct Todo {
    due: Instant,
    attempt: usize,
    errand: Errand,
}

/// An order that was refused for a limit, for the check that the limit was really reached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LimitRefusal {
    pub(crate) event: usize,
    pub(crate) customer: u64,
    pub(crate) tickets: u64,
}

/// A user's state and evidence.
#[derive(Debug)]
pub(crate) struct Buyer {
    number: usize,
    scenario: Scenario,
    lot: StdRng,
    previous: Option<u64>,
    todo: Vec<Todo>,
    /// The attempts that may have a row.
    pub(crate) attempts: Vec<Attempt>,
    /// Refusals where stock never returns and nobody cancels, so that they can be checked at the end.
    pub(crate) limit_refusals: Vec<LimitRefusal>,
    /// By ticket type of the hot event, the fewest tickets that were refused as sold out.
    pub(crate) fewest_sold_out: [Option<u16>; 2],
}

impl Buyer {
    /// User `number`, whose lots depend on the run's seed and this number alone.
    pub(crate) fn new(number: usize, scenario: Scenario, seed: u64) -> Self {
        let own = seed ^ (number as u64 + 1).wrapping_mul(SEED_STEP);
        Self {
            number,
            scenario,
            lot: StdRng::seed_from_u64(own),
            previous: None,
            todo: Vec::new(),
            attempts: Vec::new(),
            limit_refusals: Vec::new(),
            fewest_sold_out: [None; 2],
        }
    }

    /// Sends the one request of this slot: an errand that is due, or else something new.
    pub(crate) async fn turn(&mut self, shop: &Shop, slot: Slot) -> Line {
        let now = Instant::now();
        let due = self.todo.iter().enumerate().filter(|(_, todo)| todo.due <= now);
        if let Some((position, _)) = due.min_by_key(|(_, todo)| todo.due) {
            let Todo { attempt, errand, .. } = self.todo.swap_remove(position);
            return self.run_errand(shop, slot, attempt, errand).await;
        }
        match self.scenario.wish(&shop.market, &mut self.lot, self.previous) {
            Wish::Buy(order, patience) => self.buy(shop, slot, order, patience).await,
            Wish::Watch(event) => self.watch(shop, slot, &shop.market.events[event]).await,
        }
    }

    async fn buy(&mut self, shop: &Shop, slot: Slot, order: Order, patience: Option<Duration>) -> Line {
        self.previous = Some(order.customer);
        let mut attempt = Attempt::new(order, Instant::now());
        let name = match shop.market.events[order.event].plan.role {
            _ if patience.is_some() => "book, impatiently",
            Role::Hot => "book, hot event",
            Role::Small => "book, small event",
            Role::Holds => "hold",
            Role::Limited => "book, over the limit",
        };
        let position = self.attempts.len();
        let line = self.send_order(shop, slot, (position, &mut attempt), name, patience).await;
        if attempt.may_have_a_row() {
            self.attempts.push(attempt);
        }
        line
    }

    async fn run_errand(&mut self, shop: &Shop, slot: Slot, position: usize, errand: Errand) -> Line {
        let mut attempt = self.attempts[position];
        let line = match errand {
            Errand::Retry => {
                attempt.resent = attempt.resent.saturating_add(1);
                self.send_order(shop, slot, (position, &mut attempt), "book, again", None).await
            }
            Errand::Replay => self.send_order(shop, slot, (position, &mut attempt), "replay", None).await,
            Errand::Reuse => self.reuse(shop, slot, &attempt).await,
            Errand::Confirm => self.confirm(shop, slot, &mut attempt).await,
            Errand::Cancel => self.cancel(shop, slot, &mut attempt).await,
            Errand::Look => self.look(shop, slot, &attempt).await,
        };
        self.attempts[position] = attempt;
        line
    }

    /// Sends an order, for the first time or again, and plans what follows from its answer.
    async fn send_order(
        &mut self,
        shop: &Shop,
        slot: Slot,
        (position, attempt): (usize, &mut Attempt),
        name: &'static str,
        patience: Option<Duration>,
    ) -> Line {
        let event = &shop.market.events[attempt.order.event];
        let mut call = order_call(shop, &attempt.order, attempt.order.items);
        call.patience = patience;
        let sent = exchange(shop, slot, call).await;
        let retry_after = sent.answer.as_ref().ok().and_then(|answer| answer.retry_after);
        let judged = sent.judge(|answer| judge::order(answer, attempt, event, &shop.market.names, false));
        let judged = shop.losses.excuse(judged, attempt);
        let good = self.note(shop, &sent, &judged, Some(&attempt.order), patience.is_some());
        match judged {
            Some(Ok(Finding::Booked(seen) | Finding::Replayed(seen))) => {
                if attempt.acknowledged.replace(seen).is_none() {
                    attempt.note_booked();
                    self.plan_errands(event, position, attempt);
                }
            }
            Some(Ok(Finding::Refused(code))) => self.refused(attempt, code, position, retry_after),
            Some(Ok(_)) => {}
            // What an answer outside the contract means for the booking is anybody's guess.
            Some(Err(_)) => attempt.refused_in_doubt = true,
            None => {
                attempt.unanswered = true;
                self.retry(attempt, position, Duration::ZERO);
            }
        }
        sent.line("POST", name, good)
    }

    fn plan_errands(&mut self, event: &Event, position: usize, attempt: &Attempt) {
        let now = Instant::now();
        for (wait, errand) in self.scenario.afterwards(event, &attempt.order, &mut self.lot) {
            self.remember(Todo { due: now + wait, attempt: position, errand });
        }
    }

    fn refused(&mut self, attempt: &mut Attempt, code: Code, position: usize, retry_after: Option<u64>) {
        let order = &attempt.order;
        if code == Code::LimitExceeded {
            let tickets = order.items.tickets();
            self.limit_refusals.push(LimitRefusal { event: order.event, customer: order.customer, tickets });
        }
        if code == Code::SoldOut && order.event == 0 {
            for &(kind, quantity) in order.items.lines() {
                if let Some(fewest) = self.fewest_sold_out.get_mut(usize::from(kind)) {
                    *fewest = Some(fewest.map_or(quantity, |least| least.min(quantity)));
                }
            }
        }
        if code.leaves_doubt() {
            attempt.refused_in_doubt = true;
            self.retry(attempt, position, Duration::from_secs(retry_after.unwrap_or(0)));
        }
    }

    fn retry(&mut self, attempt: &Attempt, position: usize, wait: Duration) {
        if attempt.acknowledged.is_none() && attempt.resent < MAX_RETRIES {
            let due = Instant::now() + wait.min(MAX_RETRY_AFTER);
            self.remember(Todo { due, attempt: position, errand: Errand::Retry });
        }
    }

    fn remember(&mut self, todo: Todo) {
        if self.todo.len() < MAX_ERRANDS {
            self.todo.push(todo);
        }
    }

    /// Sends one ticket more under a key that was accepted: refused, or the key means nothing.
    async fn reuse(&mut self, shop: &Shop, slot: Slot, attempt: &Attempt) -> Line {
        let event = &shop.market.events[attempt.order.event];
        let mut lines = attempt.order.items.lines().to_vec();
        if let Some((_, quantity)) = lines.first_mut() {
            *quantity += 1;
        }
        let sent = exchange(shop, slot, order_call(shop, &attempt.order, Items::new(&lines))).await;
        let judged = sent.judge(|answer| judge::order(answer, attempt, event, &shop.market.names, true));
        let judged = shop.losses.excuse(judged, attempt);
        let good = self.note(shop, &sent, &judged, None, false);
        sent.line("POST", "reuse a key", good)
    }

    async fn confirm(&mut self, shop: &Shop, slot: Slot, attempt: &mut Attempt) -> Line {
        let event = &shop.market.events[attempt.order.event];
        attempt.life.confirmations = attempt.life.confirmations.saturating_add(1);
        let reference = shop.market.names.payment(attempt.order.number, attempt.life.confirmations);
        let body = format!(r#"{{"payment_reference":"{reference}"}}"#);
        let call = Call::post(own_url(event, attempt, "/confirm"), Some(body));
        let sent = exchange(shop, slot, call).await;
        let judged = sent
            .judge(|answer| judge::confirmation(answer, attempt, event, &shop.market.names, Instant::now()));
        let judged = shop.losses.excuse(judged, attempt);
        let good = self.note(shop, &sent, &judged, None, false);
        let before = attempt.life.last;
        let life = &mut attempt.life;
        match judged {
            Some(Ok(Finding::Confirmed { paid_by })) => {
                life.last = Status::Confirmed;
                life.paid_by = Some(paid_by);
            }
            Some(Ok(Finding::Refused(Code::HoldExpired))) => life.last = Status::Expired,
            Some(Ok(Finding::Refused(Code::BookingCancelled))) => life.last = Status::Cancelled,
            Some(Ok(Finding::Refused(code))) if !code.leaves_doubt() => {}
            _ => life.may_confirm = true,
        }
        if attempt.life.last != before {
            attempt.note_told();
        }
        sent.line("POST", "confirm", good)
    }

    async fn cancel(&mut self, shop: &Shop, slot: Slot, attempt: &mut Attempt) -> Line {
        let event = &shop.market.events[attempt.order.event];
        let sent = exchange(shop, slot, Call::post(own_url(event, attempt, "/cancel"), None)).await;
        let judged = sent.judge(|answer| judge::cancellation(answer, attempt, event, Instant::now()));
        let judged = shop.losses.excuse(judged, attempt);
        let good = self.note(shop, &sent, &judged, None, false);
        match judged {
            Some(Ok(Finding::Cancelled(status))) => {
                if attempt.life.last != status {
                    attempt.note_told();
                }
                attempt.life.last = status;
            }
            Some(Ok(Finding::Refused(code))) if !code.leaves_doubt() => {}
            _ => attempt.life.may_cancel = true,
        }
        sent.line("POST", "cancel", good)
    }

    async fn look(&mut self, shop: &Shop, slot: Slot, attempt: &Attempt) -> Line {
        let event = &shop.market.events[attempt.order.event];
        let sent = exchange(shop, slot, Call::get(own_url(event, attempt, ""))).await;
        let judged = sent.judge(|answer| judge::look(answer, attempt, event, Instant::now()));
        let judged = shop.losses.excuse(judged, attempt);
        let good = self.note(shop, &sent, &judged, None, false);
        sent.line("GET", "look at a booking", good)
    }

    async fn watch(&mut self, shop: &Shop, slot: Slot, event: &Event) -> Line {
        let sent = exchange(shop, slot, Call::get(event.availability_url.clone())).await;
        let judged = sent.judge(|answer| judge::availability(answer, event));
        let good = self.note(shop, &sent, &judged, None, false);
        sent.line("GET", "availability", good)
    }

    /// Counts the outcome; true where the contract allows it, or where the client gave up on purpose.
    fn note(
        &self,
        shop: &Shop,
        sent: &Sent,
        judged: &Judged,
        order: Option<&Order>,
        impatient: bool,
    ) -> bool {
        let gave_up = impatient && sent.timed_out();
        match judged {
            Some(Ok(finding)) => shop.tally.answered(self.number, sent.timing, finding, order),
            Some(Err(wrong)) => shop.tally.unexpected(self.number, sent.timing, wrong.why.clone()),
            None if gave_up => shop.tally.abandoned(self.number),
            None => shop.tally.unanswered(self.number, sent.timed_out().then_some(sent.timing)),
        }
        gave_up || matches!(judged, Some(Ok(_)))
    }
}
