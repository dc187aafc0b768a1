//! Those who share looks at Redis, and when they are served. A look costs about the same for two as for a hundred; were it
//! made whenever the last one has come, a crowd would be served three or four at a time, and the looking would take the
//! processors from those who read requests and write responses. So a turn waits for as long as its thread has others to
//! bring: it begins when the thread has done all that it had to do, and nobody came by that. A thread that is idle looks at
//! once.

use tokio::sync::{mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::{Duration, Instant};

use super::InventoryError;

/// The most that one turn serves.
const TURN_MAX: usize = 128;

/// The longest that a turn waits for others: a thread with much else to do may bring few for a long time.
const PATIENCE: Duration = Duration::from_millis(1);

/// Somebody who waits for an answer, and what they ask.
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
}

/// The other end of the queue.
pub(super) struct Turns<Q, A> {
    queue: mpsc::Receiver<Waiting<Q, A>>,
}

/// A crowd of at most so many.
pub(super) fn crowd<Q, A>(queue: usize) -> (Crowd<Q, A>, Turns<Q, A>) {
    let (sender, receiver) = mpsc::channel(queue);
    (Crowd { queue: sender }, Turns { queue: receiver })
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
        self.queue.try_send(Waiting { question, answer }).map_err(|_| Unanswered::Full)?;
        told.await.map_err(|_| Unanswered::Ending)
    }
}

impl<Q, A> Turns<Q, A> {
    /// Those whose turn it is, at most [`TURN_MAX`]; perhaps nobody, where all of them gave up. None once the crowd is gone.
    pub(super) async fn next(&mut self) -> Option<Vec<Waiting<Q, A>>> {
        let mut turn = vec![self.queue.recv().await?];
        self.gather().await;
        if !self.queue.is_empty() {
            self.queue.recv_many(&mut turn, TURN_MAX - 1).await;
        }
        turn.retain(|waiting| !waiting.answer.is_closed());
        Some(turn)
    }

    /// Waits for those who come behind the first one. Who yields goes on when the runtime has polled every task that was ready and
    /// has looked for what came in.
    async fn gather(&self) {
        let since = Instant::now();
        loop {
            let there = self.queue.len();
            if there + 1 >= TURN_MAX {
                return;
            }
            yield_now().await;
            if self.queue.len() == there || since.elapsed() >= PATIENCE {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

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

    /// Asks so many times, each time that the thread comes by.
    async fn ask_again_and_again(crowd: Arc<Crowd<(), ()>>, times: usize, pause: Duration) {
        for _ in 0..times {
            let crowd = crowd.clone();
            tokio::spawn(async move { crowd.ask(()).await });
            if pause.is_zero() {
                yield_now().await;
            } else {
                tokio::time::advance(pause).await;
            }
        }
    }

    async fn sizes_of_turns(waiting: usize, then: usize, pause: Duration) -> Vec<usize> {
        let (crowd, mut turns) = crowd(1_000);
        let crowd = Arc::new(crowd);
        for _ in 0..waiting {
            let crowd = crowd.clone();
            tokio::spawn(async move { crowd.ask(()).await });
        }
        tokio::spawn(ask_again_and_again(crowd, then, pause));
        let mut sizes = Vec::new();
        while let Some(turn) = turns.next().await {
            sizes.push(turn.len());
        }
        sizes
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_alone_is_not_waited_for() {
        let started = Instant::now();
        assert_eq!(sizes_of_turns(1, 0, Duration::ZERO).await, [1]);
        assert_eq!(started.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_waits_for_as_long_as_others_come() {
        assert_eq!(sizes_of_turns(4, 20, Duration::ZERO).await, [24]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_does_not_wait_for_long_for_those_who_come_one_by_one() {
        let sizes = sizes_of_turns(1, 20, PATIENCE / 4).await;
        assert_eq!(sizes.iter().sum::<usize>(), 21);
        assert!(sizes.iter().all(|size| (1..=6).contains(size)), "{sizes:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_serves_no_more_than_a_look_can_and_the_rest_is_the_next_one() {
        assert_eq!(sizes_of_turns(TURN_MAX + 10, 0, Duration::ZERO).await, [TURN_MAX, 10]);
    }
}
