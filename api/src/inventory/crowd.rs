//! Those who share looks at Redis, and when they are served. A look costs about the same for two as for a hundred; were it
//! made whenever the last one has come, a crowd would be served three or four at a time, and the looking would take the
//! processors from those who read requests and write responses. So a turn waits for most of those who were there at the
//! last one, and no longer than [`PATIENCE`]. Whoever comes long after a turn does not wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};

use super::InventoryError;

/// The most that one turn serves.
const CROWD_MAX: usize = 128;

/// The longest that a turn waits for the others. Tokio's timer counts in milliseconds, so that it may be twice as long.
const PATIENCE: Duration = Duration::from_millis(1);

/// Somebody who waits for a look, and what they ask.
pub(super) struct Waiting<Q, A> {
    pub(super) question: Q,
    pub(super) answer: oneshot::Sender<A>,
}

impl<Q, A> Waiting<Q, A> {
    /// Whoever is gone does not need it.
    pub(super) fn tell(self, answer: A) {
        let _ = self.answer.send(answer);
    }
}

/// Why a question has no answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unanswered {
    /// There is no room to wait, or nobody to serve those who do.
    Full,
    /// The inventory is about to end.
    Ending,
}

/// The queue of those who wait.
pub(super) struct Crowd<Q, A> {
    queue: mpsc::Sender<Waiting<Q, A>>,
    turnout: Arc<Turnout>,
}

/// The other end of the queue.
pub(super) struct Turns<Q, A> {
    queue: mpsc::Receiver<Waiting<Q, A>>,
    turnout: Arc<Turnout>,
    /// How many the last turn served.
    served: usize,
}

/// A crowd of at most so many.
pub(super) fn crowd<Q, A>(queue: usize) -> (Crowd<Q, A>, Turns<Q, A>) {
    let (sender, receiver) = mpsc::channel(queue);
    let turnout = Arc::new(Turnout::new(CROWD_MAX));
    (Crowd { queue: sender, turnout: turnout.clone() }, Turns { queue: receiver, turnout, served: 0 })
}

impl<Q, A: Default> Crowd<Q, A> {
    /// What a look says that is made from now on; whoever finds no room to wait is told what a look that fails tells.
    ///
    /// # Errors
    /// Where the inventory is about to end.
    pub(super) async fn look(&self, question: Q) -> Result<A, InventoryError> {
        match self.ask(question).await {
            Ok(answer) => Ok(answer),
            Err(Unanswered::Full) => Ok(A::default()),
            Err(Unanswered::Ending) => Err(InventoryError::Overloaded),
        }
    }
}

impl<Q, A> Crowd<Q, A> {
    /// What a look says that is made from now on. How long this takes is bounded by the handler's time; whoever gave up is
    /// not looked for.
    pub(super) async fn ask(&self, question: Q) -> Result<A, Unanswered> {
        let (answer, told) = oneshot::channel();
        self.turnout.join();
        if self.queue.try_send(Waiting { question, answer }).is_err() {
            self.turnout.leave(1);
            return Err(Unanswered::Full);
        }
        told.await.map_err(|_| Unanswered::Ending)
    }
}

impl<Q, A> Turns<Q, A> {
    /// Those whose turn it is, at most [`CROWD_MAX`]; perhaps nobody, where all of them gave up. None once the crowd is gone.
    pub(super) async fn next(&mut self) -> Option<Vec<Waiting<Q, A>>> {
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
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test]
    async fn each_is_told_what_a_look_says_and_whom_the_queue_has_no_room_for_is_not() {
        let (crowd, mut turns) = crowd(2);
        let serve = async {
            // All three have asked by the time that the first turn is served.
            tokio::task::yield_now().await;
            for Waiting { question, answer } in turns.next().await.unwrap() {
                answer.send(question * 10).unwrap();
            }
        };
        let (first, second, third, ()) = tokio::join!(crowd.ask(1), crowd.ask(2), crowd.ask(3), serve);
        assert_eq!((first, second, third), (Ok(10), Ok(20), Err(Unanswered::Full)));
    }

    #[tokio::test]
    async fn whoever_finds_no_room_is_told_what_a_look_that_fails_tells() {
        let (crowd, mut turns) = crowd::<u32, Option<u32>>(2);
        let serve = async {
            tokio::task::yield_now().await;
            for waiting in turns.next().await.unwrap() {
                let told = waiting.question * 10;
                waiting.tell(Some(told));
            }
        };
        let (first, second, third, ()) = tokio::join!(crowd.look(1), crowd.look(2), crowd.look(3), serve);
        assert_eq!((first.unwrap(), second.unwrap(), third.unwrap()), (Some(10), Some(20), None));
        drop(turns);
        assert!(matches!(crowd.look(4).await, Ok(None)), "nobody serves any more");
    }

    #[tokio::test]
    async fn whoever_gave_up_is_not_looked_for_and_whoever_waits_at_the_end_is_told() {
        let (crowd, mut turns) = crowd::<_, ()>(2);
        drop(tokio::time::timeout(Duration::from_millis(1), crowd.ask("gone")).await);
        assert_eq!(turns.next().await.unwrap().len(), 0);
        let end = async { drop(turns) };
        let (late, looking, ()) = tokio::join!(crowd.ask("late"), crowd.look("as late"), end);
        assert_eq!(late, Err(Unanswered::Ending));
        assert!(matches!(looking, Err(InventoryError::Overloaded)));
    }

    #[tokio::test]
    async fn there_is_no_turn_once_the_crowd_is_gone() {
        let (crowd, mut turns) = crowd::<(), ()>(2);
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
