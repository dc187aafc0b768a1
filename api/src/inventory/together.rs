//! Wakes together those who wait on one thread for what another one finds out.
//!
//! A turn answers up to a hundred requests, and the HTTP threads wait for them. Tokio wakes a thread for each of its tasks
//! by a system call of its own, however many are woken in the same moment: one for each request. So only the first of a
//! thread is woken from outside, and wakes the others where they are, which costs no call.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// The future, woken together with others that wait on the same thread.
pub(super) fn together<F: Future + Unpin>(future: F) -> Together<F> {
    Together { future, call: None }
}

pub(super) struct Together<F> {
    future: F,
    call: Option<Arc<Call>>,
}

thread_local! {
    static HERE: Arc<Thread> = Arc::default();
}

/// Those on one thread who are to be woken by the first of them; none while nobody was woken yet.
#[derive(Default)]
struct Thread(Mutex<Option<Vec<Waker>>>);

impl Thread {
    /// Nothing that panics is done with them.
    fn others(&self) -> MutexGuard<'_, Option<Vec<Waker>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How one who waits is woken. The flags change only while [`Thread::others`] is locked.
struct Call {
    thread: Arc<Thread>,
    task: Waker,
    /// Whether it is the one that wakes the others.
    is_first: AtomicBool,
    /// Whether it waits no longer, so that it would wake nobody.
    is_over: AtomicBool,
}

impl Call {
    fn new(task: &Waker) -> Arc<Self> {
        let (is_first, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { thread: HERE.with(Arc::clone), task: task.clone(), is_first, is_over })
    }

    /// Wakes the others, where that is this one's to do.
    fn pass_on(&self, is_over: bool) {
        let others = {
            let mut others = self.thread.others();
            self.is_over.store(is_over, Ordering::Relaxed);
            if self.is_first.swap(false, Ordering::Relaxed) { others.take() } else { None }
        };
        others.into_iter().flatten().for_each(Waker::wake);
    }
}

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        {
            let mut others = self.thread.others();
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
            if let Some(others) = &mut *others {
                others.push(self.task.clone());
                return;
            }
            *others = Some(Vec::new());
            self.is_first.store(true, Ordering::Relaxed);
        }
        self.task.wake_by_ref();
    }
}

impl<F: Future + Unpin> Future for Together<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Self { future, call } = &mut *self;
        let call = match call {
            Some(call) if call.task.will_wake(context.waker()) => {
                if call.is_first.load(Ordering::Relaxed) {
                    call.pass_on(false);
                }
                call
            }
            other => {
                if let Some(call) = other {
                    call.pass_on(true);
                }
                other.insert(Call::new(context.waker()))
            }
        };
        let waker = Waker::from(call.clone());
        Pin::new(future).poll(&mut Context::from_waker(&waker))
    }
}

impl<F> Drop for Together<F> {
    fn drop(&mut self) {
        if let Some(call) = &self.call {
            call.pass_on(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use futures_util::future::join_all;
    use tokio::sync::oneshot;

    use super::*;

    /// A task that only counts how often it is woken.
    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    type Answer = Together<oneshot::Receiver<u32>>;

    /// Somebody who waits in a task of their own, and who tells them.
    fn waiting() -> (Answer, Arc<Task>, oneshot::Sender<u32>) {
        let (sender, receiver) = oneshot::channel();
        let (mut answer, task) = (together(receiver), Arc::<Task>::default());
        assert!(poll(&mut answer, &task).is_pending());
        (answer, task, sender)
    }

    fn poll(answer: &mut Answer, task: &Arc<Task>) -> Poll<Result<u32, oneshot::error::RecvError>> {
        Pin::new(answer).poll(&mut Context::from_waker(&Waker::from(task.clone())))
    }

    fn woken<const N: usize>(tasks: [&Task; N]) -> [usize; N] {
        tasks.map(|task| task.0.load(Ordering::Relaxed))
    }

    #[test]
    fn the_first_that_is_told_wakes_the_others_of_its_thread() {
        let [(mut first, a, tell_first), (mut second, b, tell_second), (_third, c, _untold)] =
            [waiting(), waiting(), waiting()];
        tell_first.send(1).unwrap();
        tell_second.send(2).unwrap();
        assert_eq!(woken([&a, &b, &c]), [1, 0, 0]);
        assert_eq!(poll(&mut first, &a), Poll::Ready(Ok(1)));
        assert_eq!(woken([&a, &b, &c]), [1, 1, 0]);
        assert_eq!(poll(&mut second, &b), Poll::Ready(Ok(2)));
    }

    #[test]
    fn the_first_wakes_the_others_though_it_gives_up() {
        let [(first, a, tell_first), (_second, b, tell_second)] = [waiting(), waiting()];
        tell_first.send(1).unwrap();
        tell_second.send(2).unwrap();
        drop(first);
        assert_eq!(woken([&a, &b]), [1, 1]);
    }

    #[test]
    fn the_first_wakes_the_others_though_another_task_goes_on_with_it() {
        let [(mut first, a, tell_first), (_second, b, tell_second)] = [waiting(), waiting()];
        tell_first.send(1).unwrap();
        tell_second.send(2).unwrap();
        assert_eq!(poll(&mut first, &Arc::default()), Poll::Ready(Ok(1)));
        assert_eq!(woken([&a, &b]), [1, 1]);
    }

    #[test]
    fn whoever_is_gone_is_not_relied_on() {
        let [(first, a, tell_first), (_second, b, tell_second)] = [waiting(), waiting()];
        let call = Waker::from(first.call.clone().unwrap());
        drop(first);
        assert!(tell_first.send(1).is_err());
        // A wake-up that was under way when it went.
        call.wake();
        tell_second.send(2).unwrap();
        assert_eq!(woken([&a, &b]), [0, 1]);
    }

    /// Forty wait at once, every third of them for too short a time.
    async fn wait_for(tellers: &std::sync::mpsc::Sender<Vec<oneshot::Sender<u32>>>) {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..40).map(|_| oneshot::channel()).unzip();
        tellers.send(senders).unwrap();
        let tasks = receivers.into_iter().enumerate().map(async |(at, receiver)| {
            if at % 3 == 0 {
                let _ = tokio::time::timeout(Duration::from_micros(50), together(receiver)).await;
            } else {
                together(receiver).await.unwrap();
            }
        });
        let tasks: Vec<_> = tasks.map(tokio::task::spawn_local).collect();
        join_all(tasks).await.into_iter().for_each(Result::unwrap);
    }

    #[test]
    fn of_two_threads_that_wait_for_a_third_nobody_is_forgotten() {
        let (tellers, turns) = std::sync::mpsc::channel::<Vec<oneshot::Sender<u32>>>();
        let wait = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let turns = async {
                for _ in 0..300 {
                    wait_for(&tellers).await;
                }
            };
            let bounded = async { tokio::time::timeout(Duration::from_secs(60), turns).await };
            let ended = tokio::task::LocalSet::new().block_on(&runtime, bounded);
            ended.expect("somebody was never woken");
        };
        let threads = [std::thread::spawn(wait.clone()), std::thread::spawn(wait)];
        for senders in turns {
            for sender in senders {
                let _ = sender.send(1);
            }
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}
