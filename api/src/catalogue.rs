//! What never changes once an event is published, kept in memory: a booking needs it before Redis can be asked.
//!
//! There is no memory of what does not exist: an event that another instance has just published is found, also by those who
//! share a look-up.

use std::sync::Arc;
use std::time::Duration;

use boxoffice_schema::event::EventImage;
use boxoffice_schema::ids::{EventId, TicketTypeId};
use boxoffice_schema::money::Currency;
use chrono::Utc;
use foldhash::fast::RandomState;
use moka::future::Cache;

use crate::error::{Code, Problem};
use crate::find::{Found, Stores};

const EVENTS_MAX: u64 = 10_000;

/// After so long an event is looked up again: one that was on sale may be over.
const KEPT: Duration = Duration::from_secs(60);

/// The part of a published event that never changes.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) slots: u32,
    pub(crate) currency: Currency,
    pub(crate) hold_seconds: u32,
    /// Nothing is decided about it any more, and it is gone from Redis: final, so that Redis need not be asked. Of an event
    /// that was closed just now Redis decides even where it has lost it, since a retry may be of a booking.
    pub(crate) over: bool,
    /// Id and price of each ticket type, by ordinal.
    ticket_types: Vec<(TicketTypeId, u64)>,
}

impl Listing {
    fn of(event: &EventImage, over: bool) -> Self {
        Self {
            slots: event.slots,
            currency: event.currency,
            hold_seconds: event.hold_seconds,
            over,
            ticket_types: event.ticket_types.iter().map(|of_type| (of_type.id, of_type.price)).collect(),
        }
    }

    /// A ticket type's ordinal and price.
    pub(crate) fn ticket_type(&self, id: TicketTypeId) -> Option<(u8, u64)> {
        let at = self.ticket_types.iter().position(|(known, _)| *known == id)?;
        Some((u8::try_from(at).ok()?, self.ticket_types[at].1))
    }
}

type Events = Cache<EventId, Arc<Listing>, RandomState>;

/// The published events that were asked for.
#[derive(Clone)]
pub(crate) struct Catalogue {
    events: Events,
    stores: Stores,
}

impl Catalogue {
    pub(crate) fn new(stores: Stores) -> Self {
        Self { events: no_events(), stores }
    }

    /// The event's listing. A draft is a problem of its own, since nothing of it can be sold.
    pub(crate) async fn listing(&self, event: EventId) -> Result<Arc<Listing>, Problem> {
        if let Some(listing) = self.events.get(&event).await {
            return Ok(listing);
        }
        // Boxed, so that a booking does not carry the room for it around.
        Box::pin(look_up_together(&self.events, event, || self.look_up(event))).await
    }

    async fn look_up(&self, event: EventId) -> Result<Arc<Listing>, Problem> {
        let listing = match self.stores.find(event).await? {
            Found::Live { event, .. } => Listing::of(&event, false),
            Found::Recorded { stored, redis } if stored.frozen => {
                let over = redis.is_none() && stored.image.is_over(Utc::now());
                Listing::of(&stored.image, over)
            }
            Found::Recorded { .. } => return Err(Problem::because(Code::NotOnSale, DRAFT)),
        };
        Ok(Arc::new(listing))
    }
}

const DRAFT: &str = "The event is a draft: it was not published yet.";

fn no_events() -> Events {
    let events = Cache::builder().max_capacity(EVENTS_MAX).time_to_live(KEPT);
    events.build_with_hasher(RandomState::default())
}

/// However many ask at once, one looks it up. Who joined another's look-up may have asked after that began, and after the
/// event was made or published: where it found no such thing, they look once more. Whoever of them begins that look-up,
/// it has begun since they asked: nobody joins one that has ended.
async fn look_up_together<L>(
    events: &Events,
    event: EventId,
    look_up: impl Fn() -> L,
) -> Result<Arc<Listing>, Problem>
where
    L: Future<Output = Result<Arc<Listing>, Problem>>,
{
    let mut is_own = false;
    let own = async {
        is_own = true;
        look_up().await
    };
    let mut found = events.try_get_with(event, own).await;
    let is_old_news =
        |problem: &Arc<Problem>| matches!(problem.code(), Code::EventNotFound | Code::NotOnSale);
    if !is_own && found.as_ref().is_err_and(is_old_news) {
        found = events.try_get_with(event, look_up()).await;
    }
    found.map_err(|problem| Problem::clone(&problem))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::pin::pin;

    use futures_util::poll;
    use tokio::sync::Notify;

    use super::*;

    fn listing() -> Arc<Listing> {
        let currency = Currency::parse("EUR").unwrap();
        Arc::new(Listing { slots: 1, currency, hold_seconds: 60, over: false, ticket_types: Vec::new() })
    }

    #[tokio::test]
    async fn who_asked_after_an_event_was_published_is_not_told_what_a_look_up_from_before_found() {
        for code in [Code::NotOnSale, Code::EventNotFound] {
            let (events, event) = (no_events(), EventId::from_bytes([1; 16]));
            let (looks, answered) = (Cell::new(0), Notify::new());
            let look = async || {
                if looks.replace(looks.get() + 1) > 0 {
                    return Ok(listing());
                }
                answered.notified().await;
                Err(Problem::new(code))
            };
            let look_up = || look();
            let mut early = pin!(look_up_together(&events, event, &look_up));
            assert!(poll!(&mut early).is_pending());
            let mut late = pin!(look_up_together(&events, event, &look_up));
            assert!(poll!(&mut late).is_pending());
            let mut later = pin!(look_up_together(&events, event, &look_up));
            assert!(poll!(&mut later).is_pending());
            answered.notify_one();
            assert_eq!(early.await.unwrap_err().code(), code);
            assert!(late.await.is_ok());
            assert!(later.await.is_ok());
            assert_eq!(looks.get(), 2, "those who came late share a look, too");
        }
    }

    #[tokio::test]
    async fn who_joins_a_look_up_that_fails_is_told_so_and_does_not_ask_again() {
        let (events, event) = (no_events(), EventId::from_bytes([1; 16]));
        let (looks, answered) = (Cell::new(0), Notify::new());
        let look_up = || {
            looks.set(looks.get() + 1);
            let answered = &answered;
            async move {
                answered.notified().await;
                Err::<Arc<Listing>, _>(Problem::new(Code::PostgresUnavailable))
            }
        };
        let mut first = pin!(look_up_together(&events, event, &look_up));
        assert!(poll!(&mut first).is_pending());
        let mut second = pin!(look_up_together(&events, event, &look_up));
        assert!(poll!(&mut second).is_pending());
        answered.notify_one();
        assert!(first.await.is_err());
        assert!(second.await.is_err());
        assert_eq!(looks.get(), 1);
    }
}
