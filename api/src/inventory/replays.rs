//! Answers retries without a decision of each one's own: all of a thread who retry at a time share one look at Redis.
//!
//! Clients that time out ask again, and most of all when there is too much to do already. What a booking's first response
//! said never changes, so the bookings that this instance made or changed last are remembered. That they still exist is
//! not: a Redis that lost its data lost them as well. So nobody is answered from memory alone. A look is made after
//! everyone who shares it has asked, and says in which epoch the shard may sell and that their slots are there. Within an
//! epoch bookings are only added; one that was changed in that epoch is there. Whoever's booking is not remembered, is of
//! another epoch, or was asked for by another body, is decided as ever.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use boxoffice_schema::fingerprint::IdempotencyField;
use boxoffice_schema::ids::{BookingId, EventId};
use boxoffice_schema::image::BookingImage;
use boxoffice_schema::scripts::{Book, Decision, Outcome, REPLAYS, Target, replays};
use boxoffice_schema::shard::Shard;
use foldhash::HashMap;
use futures_util::future::join_all;
use tokio::task::JoinSet;

use super::crowd::{Crowd, Turns, Waiting, crowd};
use super::link::Link;
use super::{InventoryError, Shared};

/// What is remembered takes so many bytes at most, the last bookings: of eight seconds at 5,000 a second.
const BYTES_MAX: usize = 12 * 1024 * 1024;

/// What a booking takes beside its image: two keys, and the room that a map and a queue leave free.
const BYTES_BESIDE: usize = 150;

/// The epoch in which a shard may sell, where the slots are there of all who asked.
type Epoch = Option<u32>;

/// Those, of one thread and all shards, who retry what this instance has booked.
pub(super) struct Replays {
    shared: Arc<Shared>,
    crowd: Crowd<Target, Epoch>,
}

impl Replays {
    /// The task ends when the crowd is dropped and all who waited were answered.
    pub(super) fn start(shared: &Arc<Shared>, link: &Link, tasks: &mut JoinSet<()>) -> Self {
        let (crowd, turns) = crowd(shared.settings.queue);
        tasks.spawn(serve(shared.clone(), link.clone(), turns));
        Self { shared: shared.clone(), crowd }
    }

    /// What the request made before, where a look says that it is there. Rate limits do not count who retries.
    ///
    /// # Errors
    /// See [`Crowd::look`].
    pub(super) async fn of(&self, request: &Book) -> Result<Option<Outcome>, InventoryError> {
        if !self.shared.made.has(request) {
            return Ok(None);
        }
        let Some(epoch) = self.crowd.look(*request.target()).await? else { return Ok(None) };
        let replayed = self.shared.made.recall(request, epoch);
        if replayed.is_some() {
            metrics::counter!("boxoffice_decisions_total", "script" => REPLAYS.name, "outcome" => "replayed")
                .increment(1);
        }
        Ok(replayed)
    }
}

async fn serve(shared: Arc<Shared>, link: Link, mut turns: Turns<Target, Epoch>) {
    let mut failing = HashSet::new();
    while let Some(turn) = turns.next().await {
        let mut shards: HashMap<Shard, Vec<Waiting<Target, Epoch>>> = HashMap::default();
        for waiting in turn {
            let shard = shared.settings.shards.shard_of(waiting.question.event_id);
            shards.entry(shard).or_default().push(waiting);
        }
        let looks = shards.into_iter().map(|(shard, crowd)| answer(&shared, &link, shard, crowd));
        for (shard, look) in join_all(looks).await {
            match look {
                Ok(()) => drop(failing.remove(&shard)),
                Err(error) if failing.insert(shard) => {
                    tracing::warn!(%shard, %error, "cannot look for retries; until that works each of them is decided");
                }
                Err(_) => {}
            }
        }
    }
}

/// Tells those who retry in one shard; where the look fails, each is decided and told why that fails too.
async fn answer(
    shared: &Shared,
    link: &Link,
    shard: Shard,
    crowd: Vec<Waiting<Target, Epoch>>,
) -> (Shard, Result<(), InventoryError>) {
    let call = replays(&shared.settings.keys, shard, crowd.iter().map(|waiting| &waiting.question));
    let look: Result<Epoch, _> = link.run_for(crowd.len(), &call).await;
    let epoch = look.as_ref().ok().copied().flatten();
    crowd.into_iter().for_each(|waiting| waiting.tell(epoch));
    (shard, look.map(drop))
}

type Key = (EventId, IdempotencyField);

/// The bookings that this instance made or changed last.
#[derive(Default)]
pub(super) struct Made(Mutex<Memory>);

#[derive(Default)]
struct Memory {
    bookings: HashMap<Key, Remembered>,
    /// Of what was remembered, the oldest first, with the bytes that it takes. What was remembered again is in it again, and
    /// goes when it would first.
    order: VecDeque<(Key, usize)>,
    bytes: usize,
}

/// A booking as it was made or changed.
struct Remembered {
    id: BookingId,
    epoch: u32,
    image: Box<[u8]>,
}

impl Made {
    /// Nothing that panics is done with the memory.
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has(&self, request: &Book) -> bool {
        self.memory().bookings.contains_key(&key_of(request.target()))
    }

    /// Redis has changed a booking.
    pub(super) fn remember(&self, target: &Target, image: &BookingImage) {
        let (key, encoded) = (key_of(target), image.encode());
        let bytes = encoded.len() + BYTES_BESIDE;
        let remembered = Remembered {
            id: target.booking_id,
            epoch: image.position.epoch,
            image: encoded.into_boxed_slice(),
        };
        let memory = &mut *self.memory();
        memory.bookings.insert(key, remembered);
        memory.order.push_back((key, bytes));
        memory.bytes += bytes;
        while memory.bytes > BYTES_MAX
            && let Some((oldest, bytes)) = memory.order.pop_front()
        {
            memory.bookings.remove(&oldest);
            memory.bytes -= bytes;
        }
    }

    /// What the request made before, where that was in this epoch and by the same body. What is of another epoch is forgotten:
    /// whether a recovery found it is Redis' to say.
    fn recall(&self, request: &Book, epoch: u32) -> Option<Outcome> {
        let key = key_of(request.target());
        let (id, image) = {
            let bookings = &mut self.memory().bookings;
            let remembered = bookings.get(&key)?;
            if remembered.epoch != epoch {
                bookings.remove(&key);
                return None;
            }
            (remembered.id, remembered.image.clone())
        };
        // It was encoded here.
        let image = BookingImage::decode(&image).ok()?;
        (image.fingerprint == request.fingerprint()).then_some(Outcome::Replayed(id, image))
    }
}

fn key_of(target: &Target) -> Key {
    (target.event_id, target.booking_id.field())
}

#[cfg(test)]
pub(super) mod tests {
    use boxoffice_schema::fingerprint::CustomerHash;
    use boxoffice_schema::ids::TicketTypeId;
    use boxoffice_schema::image::ImageItem;
    use boxoffice_schema::money::Currency;
    use boxoffice_schema::position::Position;
    use boxoffice_schema::status::BookingStatus;
    use boxoffice_schema::text::{Caller, Customer, IdempotencyKey};
    use boxoffice_schema::time;

    use super::*;

    /// Ann's, of an event with one slot.
    pub(in crate::inventory) fn request(key: &str, quantity: u16) -> Book {
        let id = TicketTypeId::from_bytes([1; 16]);
        let item = ImageItem { ordinal: 0, quantity, ticket_type_id: id, unit_price: 4_500 };
        let key = IdempotencyKey::parse(key.as_bytes()).unwrap();
        let customer = Customer::try_from("ann".to_owned()).unwrap();
        let (event, currency) = (EventId::from_bytes([2; 16]), Currency::parse("EUR").unwrap());
        Book::new(event, 1, &Caller::anonymous(), &key, &customer, currency, 0, vec![item])
    }

    /// What `request(key, 1)` makes.
    fn booking(key: &str, epoch: u32) -> BookingImage {
        let customer = Customer::try_from("ann".to_owned()).unwrap();
        BookingImage {
            status: BookingStatus::Confirmed,
            first_status: BookingStatus::Confirmed,
            created_at: time::from_millis(1_800_000_000_000).unwrap(),
            hold_expires_at: None,
            position: Position { epoch, sequence: 7 },
            customer_hash: CustomerHash::of(&customer),
            fingerprint: request(key, 1).fingerprint(),
            payment_reference: None,
            caller: Caller::anonymous(),
            idempotency_key: IdempotencyKey::parse(key.as_bytes()).unwrap(),
            customer,
            currency: Currency::parse("EUR").unwrap(),
            items: request(key, 1).items().to_vec(),
        }
    }

    fn remember(made: &Made, key: &str, epoch: u32) -> Outcome {
        let (target, image) = (*request(key, 1).target(), booking(key, epoch));
        made.remember(&target, &image);
        Outcome::Replayed(target.booking_id, image)
    }

    #[test]
    fn what_was_made_in_this_epoch_by_the_same_body_is_recalled() {
        let made = Made::default();
        let booking = remember(&made, "k", 3);
        assert_eq!(made.recall(&request("k", 1), 3), Some(booking));
        assert_eq!(made.recall(&request("k", 2), 3), None, "another body");
        assert_eq!(made.recall(&request("other", 1), 3), None, "another key");
    }

    #[test]
    fn what_was_made_in_another_epoch_is_forgotten() {
        let made = Made::default();
        remember(&made, "k", 3);
        assert!(made.has(&request("k", 1)));
        assert_eq!(made.recall(&request("k", 1), 4), None);
        assert!(!made.has(&request("k", 1)));
        let anew = remember(&made, "k", 4);
        assert_eq!(made.recall(&request("k", 1), 4), Some(anew));
    }

    #[test]
    fn no_more_bytes_are_remembered_than_may_be_and_the_oldest_are_forgotten_first() {
        let made = Made::default();
        let key = |n: usize| format!("{n:06}");
        let size = booking(&key(0), 1).encode().len() + BYTES_BESIDE;
        let room = BYTES_MAX / size;
        (0..=room).for_each(|n| drop(remember(&made, &key(n), 1)));
        let has = |n: usize| made.has(&request(&key(n), 1));
        assert!(!has(0) && has(1) && has(room));
        let memory = made.memory();
        assert_eq!((memory.bookings.len(), memory.order.len(), memory.bytes), (room, room, room * size));
    }
}
