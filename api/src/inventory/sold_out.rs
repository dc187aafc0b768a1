//! Refuses what is sold out without a decision of each request's own: all of a thread who want it at a time share one look at
//! Redis.
//!
//! Sold out is the common case of an on-sale, and it has two traps: a retry of a booking that succeeded gets that booking,
//! however little is left, and a Redis that lost its data never reads as sold out. So nothing is refused from memory. A look
//! is made after everyone who shares it has asked, and says in one step whether the shard is certified, what is left, and
//! how many fields each slot has. All that is remembered is which keys lie in the slots, for as long as they have that
//! many fields. Whoever has a known key, or can be served, or asks of a slot that is not known, is decided as ever.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};

use boxoffice_schema::ids::EventId;
use boxoffice_schema::scripts::{
    Book, Decision, LOOK, Look, LookReply, Outcome, Sight, SlotSight, Target, look,
};
use foldhash::HashMap;
use futures_util::future::join_all;
use tokio::task::JoinSet;

use super::crowd::{self, Crowd, Turns, crowd};
use super::link::Link;
use super::{InventoryError, Shared};

/// Past so many fields of slots, eight bytes each and one of them a booking, a thread forgets events that nobody has just asked
/// for; and while they are as many of those that somebody has, no further slot is read.
const FIELDS_MAX: usize = 500_000;

/// The most events of which is remembered what was left; past it all are forgotten, and refused as ever at first.
const EVENTS_MAX: usize = 10_000;

/// So many requests for an event are worth a look where others are asked for in the same turn: each event costs a call, and
/// `book.lua` decides those of several events of a shard in one.
const WORTH_A_LOOK: usize = 4;

/// What somebody wants.
struct Wanted {
    target: Target,
    items: Box<[Item]>,
}

/// How many tickets of the ticket type with this ordinal.
type Item = (u8, u16);

/// Somebody who wants to know whether that is sold out.
type Waiting = crowd::Waiting<Wanted, bool>;

/// Those, of one thread and all shards, who want what was sold out when it was looked at last.
pub(super) struct SoldOut {
    seen: Arc<Seen>,
    crowd: Crowd<Wanted, bool>,
}

impl SoldOut {
    /// The task ends when the crowd is dropped and all who waited were answered.
    pub(super) fn start(shared: &Arc<Shared>, link: &Link, tasks: &mut JoinSet<()>) -> Self {
        let seen = Arc::<Seen>::default();
        let (crowd, turns) = crowd(shared.settings.queue);
        let looker = Looker {
            shared: shared.clone(),
            link: link.clone(),
            seen: seen.clone(),
            known: HashMap::default(),
            fields: 0,
        };
        tasks.spawn(looker.serve(turns));
        Self { seen, crowd }
    }

    /// Whether a look says that what is asked for is gone. What rate limits count must be decided.
    ///
    /// # Errors
    /// See [`Crowd::look`].
    pub(super) async fn refuses(&self, request: &Book) -> Result<bool, InventoryError> {
        if !request.rates().is_empty() || !self.seen.is_short_of(request) {
            return Ok(false);
        }
        self.crowd.look(Wanted { target: *request.target(), items: items_of(request).collect() }).await
    }

    /// Redis has refused a request for these ticket types as sold out.
    pub(super) fn note(&self, event: EventId, ordinals: &[u8]) {
        self.seen.update(event, ordinals.iter().map(|ordinal| (*ordinal, 0)));
    }
}

/// What was left of each ticket type, by ordinal, when it was seen last. Of what is not in it, enough.
type Left = HashMap<u8, u32>;

fn is_short(left: &Left, mut items: impl Iterator<Item = Item>) -> bool {
    items.any(|(ordinal, quantity)| left.get(&ordinal).is_some_and(|left| *left < quantity.into()))
}

fn items_of(request: &Book) -> impl Iterator<Item = Item> {
    request.items().iter().map(|item| (item.ordinal, item.quantity))
}

/// The events that were sold out, as they were seen last. It only says who joins a look: what may be had is decided by
/// Redis.
#[derive(Default)]
struct Seen(RwLock<HashMap<EventId, Left>>);

impl Seen {
    fn is_short_of(&self, request: &Book) -> bool {
        let seen = self.0.read().unwrap_or_else(PoisonError::into_inner);
        seen.get(&request.target().event_id).is_some_and(|left| is_short(left, items_of(request)))
    }

    fn update(&self, event: EventId, left: impl IntoIterator<Item = (u8, u32)>) {
        let mut seen = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= EVENTS_MAX {
            seen.clear();
        }
        seen.entry(event).or_default().extend(left);
    }

    fn forget(&self, event: EventId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&event);
    }
}

/// The first eight bytes of each field of a slot, sorted: what the keys that made bookings are called. Whoever meets another
/// one's is decided as ever.
type Fields = Box<[u64]>;

/// What is remembered of an event.
#[derive(Default)]
struct Known {
    /// Under which it is so.
    certificate: String,
    slots: HashMap<u32, Fields>,
    /// How many fields, and a slot counts as one more.
    size: usize,
    /// Whether the last look failed.
    is_failing: bool,
}

struct Looker {
    shared: Arc<Shared>,
    link: Link,
    seen: Arc<Seen>,
    known: HashMap<EventId, Known>,
    /// The sizes of all that is known.
    fields: usize,
}

impl Looker {
    async fn serve(mut self, mut turns: Turns<Wanted, bool>) {
        while let Some(turn) = turns.next().await {
            self.answer_all(turn).await;
        }
    }

    async fn answer_all(&mut self, turn: Vec<Waiting>) {
        let mut events: HashMap<EventId, (Known, Vec<Waiting>)> = HashMap::default();
        for waiting in turn {
            let event = waiting.question.target.event_id;
            let remembered = || (self.known.remove(&event).unwrap_or_default(), Vec::new());
            events.entry(event).or_insert_with(remembered).1.push(waiting);
        }
        let before: usize = events.values().map(|(known, _)| known.size).sum();
        let is_alone = events.len() == 1;
        let looks = events.into_iter().map(|(event, (known, crowd))| {
            let is_looked_at = is_alone || crowd.len() >= WORTH_A_LOOK;
            self.answer(event, known, crowd, is_looked_at)
        });
        let known = join_all(looks).await;
        let after: usize = known.iter().map(|(_, known)| known.size).sum();
        self.fields = self.fields - before + after;
        if self.fields > FIELDS_MAX || self.known.len() > EVENTS_MAX {
            self.known.clear();
            self.fields = after;
        }
        self.known.extend(known);
    }

    /// What is known of the event afterwards.
    async fn answer(
        &self,
        event: EventId,
        mut known: Known,
        crowd: Vec<Waiting>,
        is_looked_at: bool,
    ) -> (EventId, Known) {
        let left = if is_looked_at { self.look(event, &mut known, &crowd).await } else { None };
        let mut refused = 0;
        for waiting in crowd {
            let Wanted { target, items } = &waiting.question;
            let is_gone = left.as_ref().is_some_and(|left| is_short(left, items.iter().copied()));
            let is_sold_out = is_gone && known.rules_out(target);
            refused += u64::from(is_sold_out);
            waiting.tell(is_sold_out);
        }
        metrics::counter!("boxoffice_decisions_total", "script" => LOOK.name, "outcome" => Outcome::SoldOut.label())
            .increment(refused);
        (event, known)
    }

    /// What is left of the ticket types that the crowd wants; none where Redis does not say so, and each request is told why
    /// when it is decided.
    async fn look(&self, event: EventId, known: &mut Known, crowd: &[Waiting]) -> Option<Left> {
        let question = known.question(crowd, self.fields <= FIELDS_MAX);
        let shard = self.shared.settings.shards.shard_of(event);
        let call = look(&self.shared.settings.keys, shard, event, &question);
        let reply: Result<LookReply, _> = self.link.run_for(crowd.len(), &call).await;
        let sight = reply.and_then(|reply| Ok(Sight::parse(&question, reply)?));
        let was_failing = std::mem::replace(&mut known.is_failing, sight.is_err());
        match sight {
            Ok(Some(Sight { certificate, left, slots })) => {
                known.learn(certificate, slots);
                self.seen.update(event, left.iter().copied());
                Some(left.into_iter().collect())
            }
            // Nobody is sent to another look before Redis has said again that it is sold out.
            Ok(None) => {
                self.seen.forget(event);
                None
            }
            Err(error) => {
                if !was_failing {
                    tracing::warn!(%event, %error, "cannot look at what is sold out; until that works each request is decided");
                }
                None
            }
        }
    }
}

impl Known {
    fn question(&self, crowd: &[Waiting], may_learn: bool) -> Look {
        let (mut ordinals, mut slots) = (HashSet::new(), HashSet::new());
        for Waiting { question: Wanted { target, items }, .. } in crowd {
            ordinals.extend(items.iter().map(|(ordinal, _)| *ordinal));
            slots.insert(slot_of(target));
        }
        let fields = |slot| match self.slots.get(&slot) {
            Some(fields) => {
                Some((slot, u32::try_from(fields.len()).expect("no look reads more than 4,096 fields")))
            }
            None => may_learn.then_some((slot, 0)),
        };
        Look {
            ordinals: ordinals.into_iter().collect(),
            slots: slots.into_iter().filter_map(fields).collect(),
        }
    }

    /// A recovery may have restored a slot with as many other fields: what is known under another certificate is forgotten.
    fn learn(&mut self, certificate: String, seen: Vec<(u32, SlotSight)>) {
        let is_same = self.certificate == certificate;
        if !is_same {
            *self = Self { certificate, ..Self::default() };
        }
        for (slot, seen) in seen {
            match seen {
                SlotSight::Same if is_same && self.slots.contains_key(&slot) => {}
                SlotSight::Same => self.replace(slot, is_same.then(Fields::default)),
                SlotSight::Fields(fields) => {
                    let mut beginnings: Fields = fields.iter().map(|field| beginning(field)).collect();
                    beginnings.sort_unstable();
                    self.replace(slot, Some(beginnings));
                }
                SlotSight::Unread => self.replace(slot, None),
            }
        }
    }

    fn replace(&mut self, slot: u32, fields: Option<Fields>) {
        let size = |fields: &Fields| fields.len() + 1;
        self.size += fields.as_ref().map_or(0, size);
        let forgotten = match fields {
            Some(fields) => self.slots.insert(slot, fields),
            None => self.slots.remove(&slot),
        };
        self.size -= forgotten.as_ref().map_or(0, size);
    }

    /// Whether the key of the request is known to have made no booking.
    fn rules_out(&self, target: &Target) -> bool {
        let field = beginning(target.booking_id.field().as_bytes());
        self.slots.get(&slot_of(target)).is_some_and(|fields| fields.binary_search(&field).is_err())
    }
}

fn slot_of(target: &Target) -> u32 {
    target.booking_id.slot(target.slots)
}

/// The field that each slot has is empty.
fn beginning(field: &[u8]) -> u64 {
    field.first_chunk().map_or(0, |beginning| u64::from_be_bytes(*beginning))
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::super::made::tests::request;
    use super::*;

    /// Who asks with a key.
    fn target(key: &str) -> Target {
        *request(key, 1).target()
    }

    /// What a look reads of the only slot, in which this key made a booking.
    fn fields_of(made: &Target) -> Vec<(u32, SlotSight)> {
        let field = made.booking_id.field().as_bytes().to_vec();
        vec![(0, SlotSight::Fields(vec![Vec::new(), field]))]
    }

    #[test]
    fn only_a_key_that_is_not_among_a_slots_fields_is_ruled_out() {
        let (made, other) = (target("made"), target("other"));
        let mut known = Known::default();
        assert!(!known.rules_out(&other), "nothing is known of the slot yet");
        known.learn("1".to_owned(), fields_of(&made));
        assert!(known.rules_out(&other) && !known.rules_out(&made));
        known.learn("1".to_owned(), vec![(0, SlotSight::Same)]);
        assert!(known.rules_out(&other) && !known.rules_out(&made));
        assert_eq!(known.size, 3);
        known.learn("1".to_owned(), vec![(0, SlotSight::Unread)]);
        assert!(!known.rules_out(&other), "the slot has more fields, and was not read");
        assert_eq!(known.size, 0);
    }

    #[test]
    fn as_many_fields_under_another_certificate_are_not_the_same_ones() {
        let (made, other) = (target("made"), target("other"));
        let mut known = Known::default();
        known.learn("1".to_owned(), fields_of(&made));
        known.learn("2".to_owned(), vec![(0, SlotSight::Same)]);
        assert!(!known.rules_out(&other) && !known.rules_out(&made));
        assert_eq!(known.size, 0);
        known.learn("2".to_owned(), fields_of(&other));
        assert!(known.rules_out(&made) && !known.rules_out(&other));
    }

    #[test]
    fn a_slot_that_was_never_written_rules_out_every_key() {
        let mut known = Known { certificate: "1".to_owned(), ..Known::default() };
        known.learn("1".to_owned(), vec![(0, SlotSight::Same)]);
        assert!(known.rules_out(&target("any")));
        assert_eq!(known.size, 1);
    }

    #[test]
    fn a_memory_that_is_full_asks_of_no_further_slot() {
        let wanted = |key| Wanted { target: target(key), items: items_of(&request(key, 1)).collect() };
        let waiting = |key| Waiting { question: wanted(key), answer: oneshot::channel().0 };
        let mut known = Known::default();
        assert_eq!(known.question(&[waiting("a")], true).slots, [(0, 0)]);
        assert_eq!(known.question(&[waiting("a")], false).slots, []);
        known.learn("1".to_owned(), fields_of(&target("made")));
        assert_eq!(known.question(&[waiting("a"), waiting("b")], false).slots, [(0, 2)]);
    }
}
