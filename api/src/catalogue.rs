//! What never changes once an event is published, kept in memory: a booking needs it before Redis can be asked.
//!
//! There is no memory of what does not exist: an event that another instance has just published is found.

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

/// The published events that were asked for.
#[derive(Clone)]
pub(crate) struct Catalogue {
    events: Cache<EventId, Arc<Listing>, RandomState>,
    stores: Stores,
}

impl Catalogue {
    pub(crate) fn new(stores: Stores) -> Self {
        let events = Cache::builder().max_capacity(EVENTS_MAX).time_to_live(KEPT);
        let events = events.build_with_hasher(RandomState::default());
        Self { events, stores }
    }

    /// The event's listing. A draft is a problem of its own, since nothing of it can be sold.
    pub(crate) async fn listing(&self, event: EventId) -> Result<Arc<Listing>, Problem> {
        if let Some(listing) = self.events.get(&event).await {
            return Ok(listing);
        }
        // However many ask at once, one looks it up. Boxed, so that a booking does not carry the room for it around.
        let found = Box::pin(self.events.try_get_with(event, self.look_up(event))).await;
        found.map_err(|problem| Problem::clone(&problem))
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
