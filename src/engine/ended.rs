//! Waiting for a session's end: why sessions end, and whom to wake when one does.
//!
//! It knows cells and health. Invariants: the dead cell says why, so nobody can ask too late; whoever waits holds the
//! cell, so it stays in memory; a waker is registered before the state is asked for the last time, and an end is marked
//! before wakers are looked for, so none is missed; wakers are cloned, run and dropped with no lock held.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use parking_lot::Mutex;

use super::Engine;
use super::cell::{Cell, Life};
use super::queue::Answer;
use crate::storage::record::Row;

/// Why a session ended, or why waiting for its end is over.
///
/// ```
/// # let sessions = dwell::Options::new().in_memory()?;
/// # let session = sessions.start();
/// session.sign_in("ada")?.blocking_wait()?;
/// let ended = session.ended();
/// sessions.revoke_all("ada")?.blocking_wait()?;
/// assert_eq!(ended.blocking_wait(), dwell::EndReason::Revoked);
/// # Ok::<(), dwell::Error>(())
/// ```
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// Its own visitor ended it, with [`Session::destroy`](crate::Session::destroy).
    SignedOut,
    /// A sign-in put another session in its place.
    Replaced,
    /// Ended from outside: by its handle, or with all or all other sessions of its principal.
    Revoked,
    /// The oldest one, ended to make room for another.
    Limit,
    /// Somebody showed a token whose [successor](crate::Options::rotate_every) had been in use for longer than the overlap:
    /// two have it, and one of them has stolen it.
    Replayed,
    /// Not used for as long as it may stay unused.
    Idle,
    /// Its lifetime is over.
    Lifetime,
    /// The disk failed while the session was being replaced or rotated, so that nobody knows which is there; or a
    /// worker of the engine panicked.
    Fault,
    /// The session lives on under another token; see [`Ended::or_rotated`].
    Rotated,
    /// The store closes. The session may well be there when it opens again.
    Shutdown,
}

impl EndReason {
    /// A stable name for logs and protocols, such as `signed_out`.
    ///
    /// ```
    /// assert_eq!(dwell::EndReason::SignedOut.as_str(), "signed_out");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SignedOut => "signed_out",
            Self::Replaced => "replaced",
            Self::Revoked => "revoked",
            Self::Limit => "limit",
            Self::Replayed => "replayed",
            Self::Idle => "idle",
            Self::Lifetime => "lifetime",
            Self::Fault => "fault",
            Self::Rotated => "rotated",
            Self::Shutdown => "shutdown",
        }
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The end of a session, to wait for: `.await` it (any runtime, or none) or call
/// [`blocking_wait`](Self::blocking_wait). Made by [`Session::ended`](crate::Session::ended).
///
/// Waiting counts as no use of the session and keeps its data in memory. Dropping this costs nothing and leaves nothing
/// behind.
///
/// ```
/// # let sessions = dwell::Options::new().in_memory()?;
/// # let session = sessions.start();
/// session.sign_in("ada")?.blocking_wait()?;
/// let ended = session.ended();
/// let waiting = std::thread::spawn(|| ended.blocking_wait());
/// session.destroy()?.blocking_wait()?;
/// assert_eq!(waiting.join().unwrap(), dwell::EndReason::SignedOut);
/// # Ok::<(), dwell::Error>(())
/// ```
#[must_use = "it does nothing unless it is waited for"]
pub struct Ended {
    of: Of,
    or_rotated: bool,
    /// The number of this one's waker, once it has registered one.
    place: Option<u64>,
}

/// Whose end is waited for.
enum Of {
    Session(Arc<Cell>, u32),
    /// Of a handle without a session.
    Nothing(Arc<Engine>),
}

impl Ended {
    pub(crate) const fn of(cell: Arc<Cell>, generation: u32) -> Self {
        Self { of: Of::Session(cell, generation), or_rotated: false, place: None }
    }

    pub(crate) const fn of_nothing(engine: Arc<Engine>) -> Self {
        Self { of: Of::Nothing(engine), or_rotated: false, place: None }
    }

    /// Answers [`EndReason::Rotated`] too, once the token that the handle was loaded by has been replaced: for a
    /// connection that acts for the token and not for the session, such as a web socket.
    ///
    /// ```
    /// # let sessions = dwell::Options::new().in_memory()?;
    /// # let session = sessions.start();
    /// session.sign_in("ada")?.blocking_wait()?;
    /// let ended = session.ended().or_rotated();
    /// session.rotate()?.blocking_wait()?;
    /// assert_eq!(ended.blocking_wait(), dwell::EndReason::Rotated);
    /// # Ok::<(), dwell::Error>(())
    /// ```
    pub fn or_rotated(mut self) -> Self {
        self.or_rotated = true;
        self
    }

    /// Blocks the thread until the session has ended. Do not call it on a thread that runs an async executor.
    ///
    /// In a store with [manual workers](crate::Options::manual_workers) it does the work that is due first, and then
    /// waits for another thread to do more.
    pub fn blocking_wait(mut self) -> EndReason {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        loop {
            if self.engine().settings.manual_workers {
                self.engine().run_pending();
            }
            match Pin::new(&mut self).poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(reason) => return reason,
                Poll::Pending => thread::park(),
            }
        }
    }

    fn engine(&self) -> &Arc<Engine> {
        match &self.of {
            Of::Session(cell, _) => &cell.engine,
            Of::Nothing(engine) => engine,
        }
    }

    fn row(&self) -> Row {
        match &self.of {
            Of::Session(cell, _) => cell.row,
            Of::Nothing(_) => Row(0),
        }
    }

    /// Why waiting is over, if it is.
    fn reason(&self) -> Option<EndReason> {
        if let Of::Session(cell, generation) = &self.of {
            // Under the cell's lock, which orders this with whoever ends or rotates it and looks for wakers then.
            let content = cell.lock();
            if let Life::Dead(reason) = content.life {
                return Some(reason);
            }
            if self.or_rotated && content.header.generation != *generation {
                return Some(EndReason::Rotated);
            }
        }
        self.engine().stopping()
    }

    fn unregister(&mut self) {
        if let Some(place) = self.place.take() {
            let waker = self.engine().waiting.remove(self.row(), place);
            drop(waker);
        }
    }
}

impl Future for Ended {
    type Output = EndReason;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<EndReason> {
        let mut reason = self.reason();
        if reason.is_none() {
            let waker = context.waker().clone();
            let (place, before) = self.engine().waiting.put(self.row(), self.place, waker);
            drop(before);
            self.place = Some(place);
            reason = self.reason();
        }
        match reason {
            Some(reason) => {
                self.unregister();
                Poll::Ready(reason)
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.unregister();
    }
}

impl fmt::Debug for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ended").field("or_rotated", &self.or_rotated).finish_non_exhaustive()
    }
}

/// Wakes a thread that waits.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The wakers of everybody who waits for an end. Its lock is a leaf.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    wakers: Mutex<Wakers>,
    /// How many there are, so that an end that nobody waits for costs one load.
    count: AtomicUsize,
    /// The store is about to close.
    announced: AtomicBool,
}

/// By session and number, so that those of one session lie together. Row 0, which no session has, stands for handles
/// without one.
#[derive(Debug, Default)]
struct Wakers {
    map: BTreeMap<(Row, u64), Waker>,
    next: u64,
}

impl Waiting {
    /// Puts a waker in the place that one got before, or a new one. Returns the place and what stood there, which is to
    /// be dropped with no lock held.
    fn put(&self, row: Row, place: Option<u64>, waker: Waker) -> (u64, Option<Waker>) {
        let mut wakers = self.wakers.lock();
        let place = place.unwrap_or_else(|| {
            wakers.next += 1;
            wakers.next
        });
        let before = wakers.map.insert((row, place), waker);
        self.count.store(wakers.map.len(), Ordering::Relaxed);
        (place, before)
    }

    fn remove(&self, row: Row, place: u64) -> Option<Waker> {
        let mut wakers = self.wakers.lock();
        let waker = wakers.map.remove(&(row, place));
        self.count.store(wakers.map.len(), Ordering::Relaxed);
        waker
    }

    /// Takes the wakers of one session out. Whoever marked its end did so under the cell's lock before, which orders the
    /// count.
    fn take(&self, row: Row) -> Vec<Waker> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return Vec::new();
        }
        let mut wakers = self.wakers.lock();
        let places: Vec<_> = wakers.map.range((row, 0)..=(row, u64::MAX)).map(|(&place, _)| place).collect();
        let taken = places.into_iter().filter_map(|place| wakers.map.remove(&place)).collect();
        self.count.store(wakers.map.len(), Ordering::Relaxed);
        taken
    }

    fn take_all(&self) -> Vec<Waker> {
        let mut wakers = self.wakers.lock();
        self.count.store(0, Ordering::Relaxed);
        std::mem::take(&mut wakers.map).into_values().collect()
    }
}

impl Engine {
    /// Has everybody woken who waits for this session, now that its cell says that it ended or got another token. May
    /// be called under any lock: others do the waking.
    pub(super) fn wake_waiting(&self, row: Row) {
        self.wake_all(self.waiting.take(row));
    }

    /// Has everybody woken who waits for any session, because the store closes or a worker panicked.
    pub(super) fn wake_everybody(&self) {
        self.wake_all(self.waiting.take_all());
    }

    fn wake_all(&self, wakers: Vec<Waker>) {
        if wakers.is_empty() {
            return;
        }
        wakers.into_iter().for_each(|waker| self.answers.push(Answer::Wake(waker)));
        self.teller_bell.ring();
    }

    /// Tells whoever waits for an end that the store is about to close. It goes on as before.
    pub(crate) fn announce_close(&self) {
        self.waiting.announced.store(true, Ordering::SeqCst);
        self.wake_everybody();
    }

    /// Why nobody need wait for any session's end any more, if so.
    fn stopping(&self) -> Option<EndReason> {
        if self.waiting.announced.load(Ordering::SeqCst) {
            return Some(EndReason::Shutdown);
        }
        self.health.stopped().map(|poisoned| if poisoned { EndReason::Fault } else { EndReason::Shutdown })
    }
}
