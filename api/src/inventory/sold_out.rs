//! Refuses what is sold out without a decision of each request's own: all who want it at a time share one look at Redis.
//!
//! Sold out is the common case of an on-sale, and it has two traps: a retry of a booking that succeeded gets that booking,
//! however little is left, and a Redis that lost its data never reads as sold out. So nothing is refused from memory. A look
//! is made after everyone who shares it has asked, and says in one step whether the shard is certified, what is left, and
//! how many fields each slot has. All that is remembered is which keys lie in the slots, for as long as they have that
//! many fields. Whoever has a known key, or can be served, or asks of a slot that is not known, is decided as ever.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use boxoffice_schema::ids::EventId;
use boxoffice_schema::scripts::{Book, Decision, Look, LookReply, look};
use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::crowd::Crowd;
use super::link::Link;
use super::{InventoryError, Shared};

/// The most requests that share a look, and so the most slots that one look asks for.
const CROWD_MAX: usize = 128;

/// The most keys of slots that are remembered, eight bytes each; past it all are forgotten, and read anew.
const KEYS_MAX: usize = 1_000_000;

/// The most events of which anything is remembered; past it all are forgotten.
const EVENTS_MAX: usize = 10_000;

/// What was left of each ticket type, by ordinal, when the event was looked at last. What is not in it is not known.
type Left = HashMap<u8, u32>;

/// The events that were sold out, as they were seen last. It only says who joins a look: what may be had is decided by
/// Redis.
#[derive(Default)]
struct Seen(RwLock<HashMap<EventId, Left>>);

struct Waiting {
    request: Book,
    answer: oneshot::Sender<Option<Book>>,
}

/// The queue of those who want what was sold out when it was looked at last.
pub(super) struct SoldOut {
    seen: Arc<Seen>,
    queue: mpsc::Sender<Waiting>,
    crowd: Arc<Crowd>,
}

impl SoldOut {
    /// The task ends when the queue is dropped and all who waited were answered.
    pub(super) fn start(shared: &Arc<Shared>, link: &Link, tasks: &mut JoinSet<()>) -> Self {
        let (queue, waiting) = mpsc::channel(shared.settings.queue);
        let (seen, crowd) = (Arc::<Seen>::default(), Arc::<Crowd>::default());
        let looker = Looker {
            shared: shared.clone(),
            link: link.clone(),
            seen: seen.clone(),
            known: HashMap::new(),
            keys: 0,
        };
        tasks.spawn(looker.serve(waiting, crowd.clone()));
        Self { seen, queue, crowd }
    }

    /// Refuses the request, or gives it back to be decided. What rate limits count must be decided.
    ///
    /// # Errors
    /// Where the inventory is about to end.
    pub(super) async fn refuse(&self, request: Book) -> Result<Option<Book>, InventoryError> {
        if !request.rates().is_empty() || !self.seen.lacks(&request) {
            return Ok(Some(request));
        }
        let (answer, refused) = oneshot::channel();
        self.crowd.join();
        if let Err(error) = self.queue.try_send(Waiting { request, answer }) {
            self.crowd.leave(1);
            return Ok(Some(error.into_inner().request));
        }
        refused.await.map_err(|_| InventoryError::Overloaded)
    }

    /// Redis has refused a request for this event as sold out.
    pub(super) fn note(&self, event: EventId) {
        let mut seen = self.seen.0.write().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= EVENTS_MAX {
            seen.clear();
        }
        seen.insert(event, Left::new());
    }
}

impl Seen {
    /// Whether less was left than the request wants, or it is not known how much.
    fn lacks(&self, request: &Book) -> bool {
        let seen = self.0.read().unwrap_or_else(PoisonError::into_inner);
        seen.get(&request.target().event_id).is_some_and(|left| is_short(left, request))
    }

    fn update(&self, event: EventId, left: &Left) {
        let mut seen = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = seen.get_mut(&event) {
            known.extend(left);
        }
    }
}

fn is_short(left: &Left, request: &Book) -> bool {
    request.items().iter().any(|item| left.get(&item.ordinal).is_none_or(|left| *left < item.quantity.into()))
}

/// The first half of each field of a slot, sorted: the keys that made bookings, and the ids of these. Whoever meets another
/// one's half is decided as ever.
type Fields = Box<[u64]>;

/// What is remembered of an event.
#[derive(Default)]
struct Known {
    epoch: u32,
    slots: HashMap<u32, Fields>,
    /// How many in all slots.
    keys: usize,
}

struct Looker {
    shared: Arc<Shared>,
    link: Link,
    seen: Arc<Seen>,
    known: HashMap<EventId, Known>,
    /// How many are known of all events.
    keys: usize,
}

impl Looker {
    async fn serve(mut self, mut queue: mpsc::Receiver<Waiting>, crowd: Arc<Crowd>) {
        let mut waiting = Vec::with_capacity(CROWD_MAX);
        while queue.recv_many(&mut waiting, CROWD_MAX).await > 0 {
            let served = waiting.len();
            crowd.leave(served);
            self.answer_all(&mut waiting).await;
            crowd.gather(served).await;
        }
    }

    async fn answer_all(&mut self, waiting: &mut Vec<Waiting>) {
        let mut events: HashMap<EventId, (Known, Vec<Waiting>)> = HashMap::new();
        // Whoever gave up is not looked for.
        for waiting in waiting.drain(..).filter(|waiting| !waiting.answer.is_closed()) {
            let event = waiting.request.target().event_id;
            let remembered = || (self.known.remove(&event).unwrap_or_default(), Vec::new());
            events.entry(event).or_insert_with(remembered).1.push(waiting);
        }
        let before: usize = events.values().map(|(known, _)| known.keys).sum();
        let looks = events.into_iter().map(|(event, (known, crowd))| self.answer(event, known, crowd));
        let known = join_all(looks).await;
        let after: usize = known.iter().map(|(_, known)| known.keys).sum();
        self.keys = self.keys - before + after;
        self.known.extend(known);
        if self.keys > KEYS_MAX || self.known.len() > EVENTS_MAX {
            self.known.clear();
            self.keys = 0;
        }
    }

    /// What is known of the event afterwards.
    async fn answer(&self, event: EventId, mut known: Known, crowd: Vec<Waiting>) -> (EventId, Known) {
        let left = self.look(event, &mut known, &crowd).await;
        let mut refused = 0;
        for Waiting { request, answer } in crowd {
            let refuses = left.as_ref().is_some_and(|left| is_short(left, &request) && known.lacks(&request));
            refused += u64::from(refuses);
            // One that is gone retries with its key.
            let _ = answer.send((!refuses).then_some(request));
        }
        metrics::counter!("boxoffice_decisions_total", "script" => "book", "outcome" => "sold_out")
            .increment(refused);
        (event, known)
    }

    /// What is left of the ticket types that the crowd wants; none where Redis does not say so.
    async fn look(&self, event: EventId, known: &mut Known, crowd: &[Waiting]) -> Option<Left> {
        let wanted = known.question(crowd);
        let shard = self.shared.settings.shards.shard_of(event);
        let call = look(&self.shared.settings.keys, shard, event, &wanted);
        let started = Instant::now();
        let reply = self.link.run::<LookReply>(&call).await;
        metrics::histogram!("boxoffice_script_seconds", "script" => "look").record(started.elapsed());
        #[expect(clippy::cast_precision_loss, reason = "a crowd has at most 128 requests")]
        metrics::histogram!("boxoffice_batch_requests", "script" => "look").record(crowd.len() as f64);
        // Where Redis does not answer, each request finds out why when it is to be decided.
        let (epoch, left, fields) = reply.ok().flatten()?;
        known.learn(epoch, &wanted, fields);
        let left = wanted.ordinals.into_iter().zip(left).collect();
        self.seen.update(event, &left);
        Some(left)
    }
}

impl Known {
    fn question(&self, crowd: &[Waiting]) -> Look {
        let (mut ordinals, mut slots) = (HashSet::new(), HashSet::new());
        for Waiting { request, .. } in crowd {
            ordinals.extend(request.items().iter().map(|item| item.ordinal));
            slots.insert(slot_of(request));
        }
        let fields = |slot| self.slots.get(&slot).map_or(0, |fields| fields.len());
        Look {
            ordinals: ordinals.into_iter().collect(),
            slots: slots.into_iter().map(|slot| (slot, fields(slot))).collect(),
        }
    }

    /// A recovery may have restored a slot with as many other fields: what is known of another epoch is forgotten.
    fn learn(&mut self, epoch: u32, asked: &Look, read: Vec<Option<Vec<Vec<u8>>>>) {
        let is_same = self.epoch == epoch;
        if !is_same {
            *self = Self { epoch, ..Self::default() };
        }
        for ((slot, fields), read) in asked.slots.iter().zip(read) {
            match read {
                Some(read) => self.replace(*slot, &read),
                // As many as are known, and perhaps none at all.
                None if is_same || *fields == 0 => drop(self.slots.entry(*slot).or_default()),
                None => {}
            }
        }
    }

    /// No fields were read of a slot whose turn will come.
    fn replace(&mut self, slot: u32, read: &[Vec<u8>]) {
        let mut fields: Fields = read.iter().map(|field| half(field)).collect();
        fields.sort_unstable();
        self.keys += fields.len();
        let forgotten =
            if fields.is_empty() { self.slots.remove(&slot) } else { self.slots.insert(slot, fields) };
        self.keys -= forgotten.map_or(0, |fields| fields.len());
    }

    /// Whether the request's key is known to have made no booking.
    fn lacks(&self, request: &Book) -> bool {
        let fields = self.slots.get(&slot_of(request));
        fields.is_some_and(|fields| fields.binary_search(&half(request.idempotency().as_bytes())).is_err())
    }
}

fn slot_of(request: &Book) -> u32 {
    let target = request.target();
    target.booking_id.slot(target.slots)
}

/// The field that each slot has is empty.
fn half(field: &[u8]) -> u64 {
    field.first_chunk().map_or(0, |half| u64::from_be_bytes(*half))
}

#[cfg(test)]
mod tests {
    use boxoffice_schema::ids::TicketTypeId;
    use boxoffice_schema::image::ImageItem;
    use boxoffice_schema::money::Currency;
    use boxoffice_schema::text::{Caller, Customer, IdempotencyKey};

    use super::*;

    fn request(key: &str) -> Book {
        let id = TicketTypeId::from_bytes([1; 16]);
        let item = ImageItem { ordinal: 0, quantity: 1, ticket_type_id: id, unit_price: 1 };
        let key = IdempotencyKey::parse(key.as_bytes()).unwrap();
        let customer = Customer::try_from("ann".to_owned()).unwrap();
        let (event, currency) = (EventId::from_bytes([2; 16]), Currency::parse("EUR").unwrap());
        Book::new(event, 1, &Caller::anonymous(), &key, &customer, currency, 0, vec![item])
    }

    /// What a look reads of the slot in which this one key made a booking.
    fn fields_of(made: &Book) -> Vec<Option<Vec<Vec<u8>>>> {
        let booking = made.target().booking_id.as_bytes().to_vec();
        vec![Some(vec![Vec::new(), made.idempotency().as_bytes().to_vec(), booking])]
    }

    fn asked(known: &Known) -> Look {
        let slots = vec![(0, known.slots.get(&0).map_or(0, |fields| fields.len()))];
        Look { ordinals: vec![0], slots }
    }

    #[test]
    fn only_a_key_that_is_not_among_a_slots_fields_is_lacking() {
        let (made, other) = (request("made"), request("other"));
        let mut known = Known::default();
        assert!(!known.lacks(&other), "nothing is known of the slot yet");
        known.learn(1, &asked(&known), fields_of(&made));
        assert!(known.lacks(&other) && !known.lacks(&made));
        known.learn(1, &asked(&known), vec![None]);
        assert!(known.lacks(&other) && !known.lacks(&made));
        assert_eq!(known.keys, 3);
        known.learn(1, &asked(&known), vec![Some(Vec::new())]);
        assert!(!known.lacks(&other), "the slot has more fields, and was not read");
        assert_eq!(known.keys, 0);
    }

    #[test]
    fn as_many_fields_of_another_epoch_are_not_the_same_ones() {
        let (made, other) = (request("made"), request("other"));
        let mut known = Known::default();
        known.learn(1, &asked(&known), fields_of(&made));
        known.learn(2, &asked(&known), vec![None]);
        assert!(!known.lacks(&other) && !known.lacks(&made));
        assert_eq!(known.keys, 0);
        known.learn(2, &asked(&known), fields_of(&other));
        assert!(known.lacks(&made) && !known.lacks(&other));
    }

    #[test]
    fn a_slot_that_was_never_written_lacks_every_key() {
        let mut known = Known::default();
        known.learn(1, &asked(&known), vec![None]);
        assert!(known.lacks(&request("any")));
    }
}
