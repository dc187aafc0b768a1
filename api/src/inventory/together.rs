//! Wakes together those who wait on one thread for what another one finds out.
//!
//! A script call answers up to 128 requests, and the HTTP threads wait for them. Tokio wakes a thread for each of its tasks by a
//! system call of its own, however many are woken in the same moment: one for each request. So whoever is told is only
//! written down, and a task of their thread, the porter, wakes them where they are, which costs no call. Only the first that is
//! written down wakes the porter.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use tokio::runtime::Handle;

/// The future, woken together with others that wait on the same thread.
pub(super) fn together<F: Future + Unpin>(future: F) -> Together<F> {
    Together { future, bell: None }
}

pub(super) struct Together<F> {
    future: F,
    bell: Option<Arc<Bell>>,
}

impl<F: Future + Unpin> Future for Together<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Self { future, bell } = &mut *self;
        let bell = match bell {
            Some(bell) if bell.task.will_wake(context.waker()) => bell,
            other => other.insert(Arc::new(Bell { lodge: Lodge::here(), task: context.waker().clone() })),
        };
        let waker = Waker::from(bell.clone());
        Pin::new(future).poll(&mut Context::from_waker(&waker))
    }
}

/// Wakes one who waits.
struct Bell {
    lodge: Arc<Lodge>,
    task: Waker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(waker) = self.lodge.note(&self.task) {
            waker.wake();
        }
    }
}

/// Where a thread's porter finds who was told; none where there is no porter, as after its runtime has ended.
#[derive(Default)]
struct Lodge(Mutex<Option<Open>>);

#[derive(Default)]
struct Open {
    told: Vec<Waker>,
    /// None before it has come for the first time.
    porter: Option<Waker>,
}

thread_local! {
    static HERE: RefCell<Arc<Lodge>> = RefCell::default();
}

impl Lodge {
    /// This thread's, with a porter where there can be one. A test's thread may see one runtime after the other.
    fn here() -> Arc<Self> {
        HERE.with_borrow_mut(|here| {
            if here.open().is_none()
                && let Ok(runtime) = Handle::try_current()
            {
                let porter = Porter::new();
                *here = porter.0.clone();
                runtime.spawn(porter.serve());
            }
            here.clone()
        })
    }

    /// Nothing that panics is done with it.
    fn open(&self) -> MutexGuard<'_, Option<Open>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down who was told; who is to be woken for it. Without a porter that is themselves.
    fn note(&self, task: &Waker) -> Option<Waker> {
        let mut open = self.open();
        let Some(Open { told, porter }) = &mut *open else { return Some(task.clone()) };
        told.push(task.clone());
        porter.clone().filter(|_| told.len() == 1)
    }
}

/// Wakes who was told, until its runtime ends.
struct Porter(Arc<Lodge>);

impl Porter {
    fn new() -> Self {
        Self(Arc::new(Lodge(Mutex::new(Some(Open::default())))))
    }

    async fn serve(self) {
        poll_fn(|context| self.come(context)).await;
    }

    fn come(&self, context: &mut Context<'_>) -> Poll<()> {
        let last = self.0.open().replace(Open { told: Vec::new(), porter: Some(context.waker().clone()) });
        wake(last);
        Poll::Pending
    }
}

impl Drop for Porter {
    fn drop(&mut self) {
        let last = self.0.open().take();
        wake(last);
    }
}

fn wake(told: Option<Open>) {
    told.into_iter().flat_map(|open| open.told).for_each(Waker::wake);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

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

    fn bell(lodge: &Arc<Lodge>) -> (Waker, Arc<Task>) {
        let task = Arc::<Task>::default();
        (Waker::from(Arc::new(Bell { lodge: lodge.clone(), task: Waker::from(task.clone()) })), task)
    }

    fn woken<const N: usize>(tasks: [&Task; N]) -> [usize; N] {
        tasks.map(|task| task.0.load(Ordering::Relaxed))
    }

    fn comes(porter: &Porter, task: &Arc<Task>) {
        assert!(porter.come(&mut Context::from_waker(&Waker::from(task.clone()))).is_pending());
    }

    #[test]
    fn however_many_are_told_the_porter_is_woken_once_and_wakes_them_all() {
        let (porter, its_task) = (Porter::new(), Arc::default());
        let lodge = &porter.0;
        let [(ring_a, a), (ring_b, b)] = [bell(lodge), bell(lodge)];
        // Nobody is forgotten who is told before the porter comes.
        ring_a.wake_by_ref();
        comes(&porter, &its_task);
        assert_eq!(woken([&its_task, &a, &b]), [0, 1, 0]);
        ring_a.wake_by_ref();
        ring_b.wake_by_ref();
        assert_eq!(woken([&its_task, &a, &b]), [1, 1, 0]);
        comes(&porter, &its_task);
        assert_eq!(woken([&its_task, &a, &b]), [1, 2, 1]);
        ring_b.wake_by_ref();
        assert_eq!(woken([&its_task, &a, &b]), [2, 2, 1]);
    }

    #[test]
    fn a_porter_who_leaves_wakes_whom_it_has_and_later_ones_are_woken_as_ever() {
        let (porter, its_task) = (Porter::new(), Arc::default());
        let lodge = &porter.0;
        let [(ring_a, a), (ring_b, b)] = [bell(lodge), bell(lodge)];
        comes(&porter, &its_task);
        ring_a.wake_by_ref();
        drop(porter);
        assert_eq!(woken([&a, &b]), [1, 0]);
        ring_b.wake_by_ref();
        assert_eq!(woken([&a, &b]), [1, 1]);
    }

    #[test]
    fn where_there_is_no_runtime_there_is_no_porter() {
        let (sender, receiver) = oneshot::channel();
        let teller = std::thread::spawn(move || sender.send(1).unwrap());
        assert_eq!(futures_util::FutureExt::now_or_never(together(std::future::ready(2))), Some(2));
        assert_eq!(block_on(together(receiver)), Ok(1));
        teller.join().unwrap();
    }

    /// As an executor without Tokio does it.
    fn block_on<F: Future + Unpin>(mut future: F) -> F::Output {
        struct Parked(std::thread::Thread);
        impl Wake for Parked {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Waker::from(Arc::new(Parked(std::thread::current())));
        loop {
            if let Poll::Ready(output) = Pin::new(&mut future).poll(&mut Context::from_waker(&waker)) {
                return output;
            }
            std::thread::park();
        }
    }

    /// One who was told and is polled no more, as a connection does that only waits for its client to go, keeps nobody from
    /// being woken.
    #[tokio::test]
    async fn whoever_does_not_come_for_their_answer_holds_nobody_up() {
        let [(tell_idle, idle), (tell_next, next)] = [oneshot::channel(), oneshot::channel()];
        let mut idle = together(idle);
        assert!(futures_util::poll!(&mut idle).is_pending());
        let next = tokio::spawn(together(next));
        tokio::task::yield_now().await;
        let teller = std::thread::spawn(move || {
            tell_idle.send(1).unwrap();
            tell_next.send(2).unwrap();
        });
        let told = tokio::time::timeout(Duration::from_secs(10), next).await;
        assert_eq!(told.unwrap().unwrap(), Ok(2));
        teller.join().unwrap();
        drop(idle);
    }

    /// Forty wait at once, and every third of them is given up, some before and some while they are told.
    async fn wait_for(tellers: &std::sync::mpsc::Sender<Vec<oneshot::Sender<u32>>>) {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..40).map(|_| oneshot::channel()).unzip();
        let tasks: Vec<_> = receivers.into_iter().map(|receiver| tokio::spawn(together(receiver))).collect();
        tokio::task::yield_now().await;
        tellers.send(senders).unwrap();
        for (at, task) in tasks.into_iter().enumerate() {
            if at % 3 == 0 {
                task.abort();
            } else {
                task.await.unwrap().unwrap();
            }
        }
    }

    #[test]
    fn of_three_runtimes_that_wait_for_a_thread_nobody_is_forgotten() {
        let (tellers, turns) = std::sync::mpsc::channel::<Vec<oneshot::Sender<u32>>>();
        let wait = move |mut builder: tokio::runtime::Builder| {
            let turns = async {
                for _ in 0..300 {
                    wait_for(&tellers).await;
                }
            };
            let bounded = async { tokio::time::timeout(Duration::from_secs(60), turns).await };
            builder.enable_time().build().unwrap().block_on(bounded).expect("somebody was never woken");
        };
        let alone = tokio::runtime::Builder::new_current_thread;
        let threads = [alone(), alone(), tokio::runtime::Builder::new_multi_thread()].map(|builder| {
            let wait = wait.clone();
            std::thread::spawn(move || wait(builder))
        });
        drop(wait);
        for senders in turns {
            for sender in senders {
                let _ = sender.send(1);
            }
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}
