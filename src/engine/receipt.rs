//! Receipts: what a durable change is waited for with.
//!
//! What lives here: [`Receipt`], and the promise behind it that the writer keeps. It knows no runtime: a receipt
//! is a future by itself and can block a thread instead. Invariants: a promise is kept exactly once; when the
//! writer is gone, dropping the promise tells every waiter that the outcome is unknown.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::{Condvar, Mutex};

use super::Engine;
use crate::error::{Error, ErrorKind, Result};

/// The promise that a change becomes durable. `.await` it (any runtime, or none) or call
/// [`blocking_wait`](Self::blocking_wait).
///
/// The change is visible to every request at once and goes to disk whether or not anybody waits: at once when the
/// receipt is waited for or dropped, within a second while it is only kept. The receipt tells when it is there. Some receipts carry a value that is handed out only then, such as the token of a
/// sign-in.
///
/// ```
/// # let sessions = dwell::Options::new().in_memory()?;
/// # let session = sessions.start();
/// session.set(dwell::Field::<u32>::new("visits"), &1)?;
/// session.save()?.blocking_wait()?;
/// # Ok::<(), dwell::Error>(())
/// ```
#[must_use = "the change is on its way, but only waiting tells whether it is durable"]
pub struct Receipt<T = ()> {
    shared: Arc<Shared<T>>,
    /// Who is to be told that somebody waits, or does not, if nobody was yet: the writer's thread is not woken for a change
    /// that whoever waits for it may write in its place.
    engine: Option<Arc<Engine>>,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

enum State<T> {
    Waiting(Option<Waker>),
    Ready(Result<T>),
    Taken,
}

/// The writer's end of a receipt.
pub(crate) struct Promise<T>(Option<Arc<Shared<T>>>);

pub(crate) fn promise<T>() -> (Promise<T>, Receipt<T>) {
    let shared = Arc::new(Shared { state: Mutex::new(State::Waiting(None)), changed: Condvar::new() });
    (Promise(Some(Arc::clone(&shared))), Receipt { shared, engine: None })
}

impl<T> Promise<T> {
    /// Keeps the promise.
    pub(crate) fn keep(mut self, result: Result<T>) {
        if let Some(shared) = self.0.take() {
            shared.settle(result);
        }
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        if let Some(shared) = self.0.take() {
            shared.settle(Err(Error::new(ErrorKind::Unknown, "the engine stopped before the change was durable")));
        }
    }
}

impl<T> Shared<T> {
    /// Whether it has not been settled.
    fn is_waiting(&self) -> bool {
        matches!(*self.state.lock(), State::Waiting(_))
    }

    fn settle(&self, result: Result<T>) {
        let before = std::mem::replace(&mut *self.state.lock(), State::Ready(result));
        self.changed.notify_all();
        if let State::Waiting(Some(waker)) = before {
            waker.wake();
        }
    }
}

impl<T> Receipt<T> {
    pub(crate) fn ready(value: T) -> Self {
        let state = Mutex::new(State::Ready(Ok(value)));
        Self { shared: Arc::new(Shared { state, changed: Condvar::new() }), engine: None }
    }

    /// The engine's writer has not been told of it.
    pub(crate) fn untold(mut self, engine: &Arc<Engine>) -> Self {
        self.engine = Some(Arc::clone(engine));
        self
    }

    /// Blocks the thread until the change is durable: about one flush of the disk, which this thread makes itself if nobody
    /// else waits for one. Do not call it on a thread that runs an async executor.
    ///
    /// # Errors
    /// [`Gone`](ErrorKind::Gone) when the session ended before the change was written;
    /// [`Unknown`](ErrorKind::Unknown) when the disk failed on the way, so that the change may or may not be
    /// there after a restart; [`Storage`](ErrorKind::Storage) when the disk had failed before.
    pub fn blocking_wait(mut self) -> Result<T> {
        if let Some(engine) = self.engine.take() {
            engine.write_for_one();
            if self.shared.is_waiting() {
                engine.queue.hurry();
            }
        }
        for _ in 0..YIELDS {
            if !self.shared.is_waiting() {
                break;
            }
            std::thread::yield_now();
        }
        let mut state = self.shared.state.lock();
        loop {
            match std::mem::replace(&mut *state, State::Taken) {
                State::Ready(result) => return result,
                waiting => *state = waiting,
            }
            self.shared.changed.wait(&mut state);
        }
    }
}

/// Nobody waits any more, and the change is to be written all the same.
impl<T> Drop for Receipt<T> {
    fn drop(&mut self) {
        if let Some(engine) = self.engine.take() {
            engine.queue.hurry();
        }
    }
}

/// A thread that waits gives way this often before it sleeps: where many wait, telling one that is awake costs a twentieth of
/// waking it.
const YIELDS: u32 = 8;

impl<T> Future for Receipt<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let receipt = self.get_mut();
        if let Some(engine) = receipt.engine.take() {
            if engine.write_on_poll() {
                receipt.engine = Some(engine);
            } else {
                engine.queue.hurry();
            }
        }
        // Cloned before the lock and dropped after it: a waker is not ours.
        let next = State::Waiting(Some(context.waker().clone()));
        let mut state = receipt.shared.state.lock();
        let before = std::mem::replace(&mut *state, next);
        if let State::Ready(result) = before {
            let next = std::mem::replace(&mut *state, State::Taken);
            drop(state);
            drop(next);
            return Poll::Ready(result);
        }
        drop(state);
        drop(before);
        Poll::Pending
    }
}

impl<T> fmt::Debug for Receipt<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Receipt(..)")
    }
}

impl<T> fmt::Debug for Promise<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Promise(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_promise_is_seen_by_a_blocked_thread() {
        let (promise, receipt) = promise();
        let waiter = std::thread::spawn(|| receipt.blocking_wait());
        promise.keep(Ok(7));
        assert_eq!(waiter.join().unwrap().unwrap(), 7);
    }

    #[test]
    fn a_waker_may_keep_the_promise_when_it_is_dropped() {
        /// What a task holds that has the last handle to the store.
        struct Holds(Mutex<Option<Promise<()>>>);
        impl std::task::Wake for Holds {
            fn wake(self: Arc<Self>) {}
        }
        impl Drop for Holds {
            fn drop(&mut self) {
                let promise = self.0.lock().take().unwrap();
                assert!(promise.0.as_ref().unwrap().state.try_lock().is_some(), "it would wait for itself");
            }
        }
        let (promise, mut receipt) = promise::<()>();
        let waker = Waker::from(Arc::new(Holds(Mutex::new(Some(promise)))));
        assert!(Pin::new(&mut receipt).poll(&mut Context::from_waker(&waker)).is_pending());
        drop(waker);
        assert!(Pin::new(&mut receipt).poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(receipt.blocking_wait().unwrap_err().kind(), ErrorKind::Unknown);
    }

    #[test]
    fn a_dropped_promise_is_unknown() {
        let (promise, receipt) = promise::<()>();
        drop(promise);
        assert_eq!(receipt.blocking_wait().unwrap_err().kind(), ErrorKind::Unknown);
    }

    #[test]
    fn it_is_a_future_that_wakes() {
        struct Count(std::sync::atomic::AtomicU32);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
        }
        let count = Arc::new(Count(0.into()));
        let waker = Waker::from(Arc::clone(&count));
        let (promise, mut receipt) = promise();
        let mut context = Context::from_waker(&waker);
        assert!(Pin::new(&mut receipt).poll(&mut context).is_pending());
        promise.keep(Ok(()));
        assert_eq!(count.0.load(std::sync::atomic::Ordering::SeqCst), 1);
        assert!(Pin::new(&mut receipt).poll(&mut context).is_ready());
    }
}
