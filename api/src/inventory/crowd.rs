//! Those who share a look at Redis, and when they are served. A look costs the same for two as for a hundred; were it
//! made whenever the last one has come, a crowd would be served three or four at a time, and the looking would take the
//! processors from those who read requests and write responses. So a turn waits for most of those who were there at the
//! last one, and no longer than [`PATIENCE`]. Whoever comes long after a turn does not wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use boxoffice_schema::scripts::{Book, Outcome};
use tokio::sync::{Notify, mpsc, oneshot};

use super::InventoryError;

/// The most requests that share a look.
const CROWD_MAX: usize = 128;

/// The longest that a turn waits for the others. Tokio's timer counts in milliseconds, so that it may be twice as long.
const PATIENCE: Duration = Duration::from_millis(1);

/// What becomes of a request.
pub(super) enum Verdict {
    /// The look says so.
    Told(Outcome),
    /// It must be decided.
    Open(Book),
}

/// A request that waits for a look.
pub(super) struct Waiting {
    pub(super) request: Book,
    pub(super) answer: oneshot::Sender<Verdict>,
}

impl Waiting {
    /// Whoever is gone retries with their key.
    pub(super) fn tell(self, outcome: Option<Outcome>) {
        let _ = self.answer.send(outcome.map_or(Verdict::Open(self.request), Verdict::Told));
    }
}

/// The queue of those who wait. Where it is full the rest is decided as ever.
pub(super) struct Crowd {
    queue: mpsc::Sender<Waiting>,
    turnout: Arc<Turnout>,
}

/// The other end of the queue.
pub(super) struct Turns {
    queue: mpsc::Receiver<Waiting>,
    turnout: Arc<Turnout>,
    /// How many the last turn served.
    served: usize,
}

/// A crowd of at most so many.
pub(super) fn crowd(queue: usize) -> (Crowd, Turns) {
    let (sender, receiver) = mpsc::channel(queue);
    let turnout = Arc::new(Turnout::new(CROWD_MAX));
    (Crowd { queue: sender, turnout: turnout.clone() }, Turns { queue: receiver, turnout, served: 0 })
}

impl Crowd {
    /// What a look says that is made from now on. How long this takes is bounded by the handler's time; whoever gave up is
    /// not looked for.
    ///
    /// # Errors
    /// Where the inventory is about to end.
    pub(super) async fn ask(&self, request: Book) -> Result<Verdict, InventoryError> {
        let (answer, verdict) = oneshot::channel();
        self.turnout.join();
        if let Err(error) = self.queue.try_send(Waiting { request, answer }) {
            self.turnout.leave(1);
            return Ok(Verdict::Open(error.into_inner().request));
        }
        verdict.await.map_err(|_| InventoryError::Overloaded)
    }
}

impl Turns {
    /// Those whose turn it is, at most [`CROWD_MAX`]; perhaps nobody, where all of them gave up. None once the crowd is gone.
    pub(super) async fn next(&mut self) -> Option<Vec<Waiting>> {
        if self.served > 0 {
            self.turnout.gather(self.served).await;
        }
        let mut turn = Vec::new();
        self.served = self.queue.recv_many(&mut turn, CROWD_MAX).await;
        self.turnout.leave(self.served);
        turn.retain(|waiting| !waiting.answer.is_closed());
        (self.served > 0).then_some(turn)
    }
}

/// How many wait, and how many are waited for.
struct Turnout {
    turn_max: usize,
    waiting: AtomicUsize,
    /// 0 while nobody is waited for.
    awaited: AtomicUsize,
    enough: Notify,
}

impl Turnout {
    /// A turn serves at most so many.
    fn new(turn_max: usize) -> Self {
        Self { turn_max, waiting: AtomicUsize::new(0), awaited: AtomicUsize::new(0), enough: Notify::new() }
    }

    /// Somebody is about to be put into the queue.
    fn join(&self) {
        // Either this sees that they are waited for, or `gather` sees them: both orders are one order.
        let waiting = self.waiting.fetch_add(1, Ordering::SeqCst) + 1;
        let awaited = self.awaited.load(Ordering::SeqCst);
        // One of those who are enough says so.
        if (1..=waiting).contains(&awaited) && self.awaited.swap(0, Ordering::SeqCst) != 0 {
            self.enough.notify_one();
        }
    }

    /// So many have been taken from the queue, or were not put there.
    fn leave(&self, count: usize) {
        self.waiting.fetch_sub(count, Ordering::SeqCst);
    }

    /// After a turn that served so many: until three quarters wait of those who were served then or waited behind them. The
    /// last quarter is for what happens meanwhile: if all were waited for, nobody would be read or written while they are
    /// served.
    async fn gather(&self, served: usize) {
        let awaited = (served + self.waiting.load(Ordering::SeqCst)) * 3 / 4;
        let awaited = awaited.min(self.turn_max);
        let come = async {
            loop {
                self.awaited.store(awaited, Ordering::SeqCst);
                if self.waiting.load(Ordering::SeqCst) >= awaited {
                    return;
                }
                // A word may be left over from the last turn: whether they are there is looked at again.
                self.enough.notified().await;
            }
        };
        // Whether they come or not, the turn begins.
        let _ = tokio::time::timeout(PATIENCE, come).await;
        self.awaited.store(0, Ordering::SeqCst);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use boxoffice_schema::ids::{EventId, TicketTypeId};
    use boxoffice_schema::image::ImageItem;
    use boxoffice_schema::money::Currency;
    use boxoffice_schema::text::{Caller, Customer, IdempotencyKey};
    use tokio::time::Instant;

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

    #[tokio::test]
    async fn whom_a_look_does_not_tell_and_whom_the_queue_has_no_room_for_must_be_decided() {
        let (crowd, mut turns) = crowd(2);
        let ask = async |key| match crowd.ask(request(key, 1)).await.unwrap() {
            Verdict::Told(outcome) => Some(outcome),
            Verdict::Open(_) => None,
        };
        let serve = async {
            // All three have asked by the time that the first turn is served.
            tokio::task::yield_now().await;
            let [first, second] = <[Waiting; 2]>::try_from(turns.next().await.unwrap()).ok().unwrap();
            first.tell(Some(Outcome::SoldOut));
            second.tell(None);
        };
        let (first, second, third, ()) = tokio::join!(ask("a"), ask("b"), ask("c"), serve);
        assert_eq!((first, second, third), (Some(Outcome::SoldOut), None, None));
    }

    #[tokio::test]
    async fn whoever_gave_up_is_not_looked_for_and_whoever_waits_at_the_end_is_told() {
        let (crowd, mut turns) = crowd(2);
        drop(tokio::time::timeout(Duration::from_millis(1), crowd.ask(request("gone", 1))).await);
        assert_eq!(turns.next().await.unwrap().len(), 0);
        let late = crowd.ask(request("late", 1));
        let end = async { drop(turns) };
        let (late, ()) = tokio::join!(late, end);
        assert!(matches!(late, Err(InventoryError::Overloaded)));
    }

    #[tokio::test]
    async fn there_is_no_turn_once_the_crowd_is_gone() {
        let (crowd, mut turns) = crowd(2);
        drop(crowd);
        assert!(turns.next().await.is_none());
    }

    fn crowd_of(waiting: usize) -> Turnout {
        let crowd = Turnout::new(100);
        (0..waiting).for_each(|_| crowd.join());
        crowd
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_alone_is_not_waited_for() {
        let started = Instant::now();
        crowd_of(0).gather(1).await;
        assert_eq!(started.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_begins_when_three_quarters_are_there() {
        let (crowd, started) = (crowd_of(4), Instant::now());
        let others = async {
            for _ in 0..5 {
                tokio::task::yield_now().await;
                crowd.join();
            }
        };
        // Of 12 nine are waited for.
        tokio::join!(crowd.gather(8), others);
        assert_eq!(started.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_come_beyond_enough_do_not_end_the_next_wait() {
        let crowd = crowd_of(0);
        let others = async { (0..8).for_each(|_| crowd.join()) };
        tokio::join!(crowd.gather(8), others);
        crowd.leave(8);
        let started = Instant::now();
        crowd.gather(8).await;
        assert!(started.elapsed() >= PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_begins_without_those_who_do_not_come() {
        let (crowd, started) = (crowd_of(4), Instant::now());
        crowd.gather(8).await;
        assert!((PATIENCE..=2 * PATIENCE).contains(&started.elapsed()));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_while_a_full_turn_is_there() {
        let (crowd, started) = (crowd_of(100), Instant::now());
        crowd.gather(100).await;
        assert_eq!(started.elapsed(), Duration::ZERO);
    }
}
