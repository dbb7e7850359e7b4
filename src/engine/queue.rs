//! The queue in front of the writer: what has changed since the last batch.
//!
//! It knows cells and groups, not what they hold. Invariants: it names what changed, never how: the writer reads
//! the state when it builds the batch, so many changes become one write, their order cannot matter, and a dead
//! session cannot be put. One lock covers everything, so that whatever was pushed before a waiter is in the batch
//! that answers it. The lock is a leaf, held for a push or a swap. Ending a session is never refused: rows of ended
//! sessions are queued without a limit, and there are no more of them than there were sessions.

use std::collections::BTreeSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

use super::cell::Cell;
use super::group::Group;
use super::receipt::Promise;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::TouchBlock;
use crate::storage::record::{PrincipalRef, Row};
use crate::token::Token;

#[derive(Debug)]
pub(crate) struct Queue {
    pending: Mutex<Pending>,
    /// Bytes of changed data that are not on disk, and the part of it that is anonymous.
    bytes: AtomicUsize,
    anonymous_bytes: AtomicUsize,
    /// Whoever waits does so for others to come, this long.
    linger_ms: u64,
    /// When the writer's thread, which sleeps, looks at the queue again by itself, in engine milliseconds; [`AWAKE`] if it
    /// will look before it sleeps.
    looks_ms: AtomicU64,
    pub(crate) bell: Bell,
}

/// What has changed.
#[derive(Default)]
pub(crate) struct Pending {
    pub(crate) cells: Vec<Arc<Cell>>,
    pub(crate) groups: Vec<Queued>,
    /// Rows to delete before the next acknowledgement.
    pub(crate) dead: Vec<Row>,
    /// Rows to delete when there is time: expired ones, and those that a cutoff has made dead already.
    pub(crate) swept: Vec<Swept>,
    pub(crate) cutoffs: Vec<PrincipalRef>,
    /// Principals that may have lost their last session.
    pub(crate) emptied: BTreeSet<PrincipalRef>,
    pub(crate) touches: Vec<Flush>,
    pub(crate) waiters: Vec<Waiter>,
    /// To be made after everything else in here is written.
    pub(crate) key_changes: Vec<KeyChange>,
    /// Somebody waits for the next batch.
    pub(crate) urgent: bool,
    /// Since when, in engine milliseconds.
    urgent_since_ms: u64,
    /// When the first change came in that nobody waits for, in engine milliseconds.
    pub(crate) behind_since_ms: Option<u64>,
    /// Some of the rows to be swept are of sessions that ran out while nothing ran.
    pub(crate) ran_out_before: bool,
    /// When the first row came in that is to be swept.
    pub(crate) swept_since_ms: Option<u64>,
    /// Set by the writer: the clock has not been written for long.
    pub(crate) clock_is_due: bool,
    /// Something in here ends a session, so that an older copy of the store must not come back.
    pub(crate) ends_sessions: bool,
    /// Nothing is taken in any more, because nobody will write it.
    shut: bool,
}

/// A group, and whom to tell. The promise travels with it, so that it is dropped, and so told, wherever it gets lost.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) group: Arc<Group>,
    pub(crate) promise: Promise<Token>,
}

/// A dead row to be swept, and the cutoff that stays until it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Swept {
    pub(crate) row: Row,
    pub(crate) cutoff: Option<PrincipalRef>,
}

/// Last-seen times on their way to disk.
#[derive(Debug)]
pub(crate) struct Flush {
    pub(crate) blocks: Vec<TouchBlock>,
    /// They say it of everybody, so that the blocks on disk can go.
    pub(crate) replaces_all: bool,
    /// From then on they do not wait for another commit to ride on, in engine milliseconds.
    pub(crate) due_ms: u64,
}

/// A change of the server keys, and whom to tell.
#[derive(Debug)]
pub(crate) enum KeyChange {
    Rotate(Promise<u8>),
    /// This many sessions of the key were ended for it.
    Drop {
        id: u8,
        count: usize,
        promise: Promise<usize>,
    },
}

/// Told once how the batch went.
pub(crate) type Waiter = Box<dyn FnOnce(Result<(), &Failure>) + Send>;

/// Something to tell somebody who waits. Telling runs wakers, which are not ours, so it is done when the writer's turn
/// is over and no lock is held, by the writer's thread or, when there are many, by another.
pub(crate) enum Answer {
    Waiter(Waiter, Result<(), Failure>),
    Group(Promise<Token>, Result<Token>),
    Rotated(Promise<u8>, Result<u8>),
    Dropped(Promise<usize>, Result<usize>),
    /// What somebody waits for has happened.
    Wake(Waker),
}

/// Answers that have not been given yet, in order.
#[derive(Default)]
pub(crate) struct Answers(Mutex<Vec<Answer>>);

impl Answers {
    pub(crate) fn push(&self, answer: Answer) {
        self.0.lock().push(answer);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Gives all answers, one by one.
    pub(crate) fn deliver(&self) {
        let answers = std::mem::take(&mut *self.0.lock());
        for answer in answers {
            // A waker is not ours; if it panics, that is its business, and the others are told all the same.
            let told = catch_unwind(AssertUnwindSafe(|| match answer {
                Answer::Waiter(waiter, result) => waiter(result.as_ref().copied()),
                Answer::Group(promise, result) => promise.keep(result),
                Answer::Rotated(promise, result) => promise.keep(result),
                Answer::Dropped(promise, result) => promise.keep(result),
                Answer::Wake(waker) => waker.wake(),
            }));
            // Nor is the destructor of what it panicked with.
            std::mem::forget(told);
        }
    }
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers").field("waiting", &self.len()).finish()
    }
}

/// Why a batch failed, for everybody who waits for it.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) kind: ErrorKind,
    pub(crate) message: Arc<str>,
}

impl Failure {
    /// The engine stopped before the change was written.
    pub(crate) fn stopped() -> Self {
        Self { kind: ErrorKind::Unknown, message: "the engine stopped before the change was durable".into() }
    }

    pub(crate) fn error(&self) -> Error {
        Error::new(self.kind, self.message.to_string())
    }
}

/// Cells and groups that may wait for the writer: a batch of that many takes about a second to write.
const QUEUE_MAX: usize = 65_536;
/// Changed data that may wait for the writer.
const DIRTY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Anonymous sessions get one part in this many of either, so that strangers cannot keep people from working.
const ANONYMOUS_SHARE: usize = 4;
/// A change that nobody waits for is written after this time.
pub(crate) const WRITE_BEHIND_MS: u64 = 1000;
const AWAKE: u64 = 0;

impl Queue {
    pub(crate) fn new(linger_ms: u64) -> Self {
        Self {
            pending: Mutex::new(Pending::default()),
            bytes: AtomicUsize::new(0),
            anonymous_bytes: AtomicUsize::new(0),
            linger_ms,
            looks_ms: AtomicU64::new(AWAKE),
            bell: Bell::new(),
        }
    }

    /// Whether one more cell or group may be queued.
    pub(crate) fn check_room(&self, anonymous: bool) -> Result<()> {
        if self.len() >= share(anonymous, QUEUE_MAX) { Err(full()) } else { Ok(()) }
    }

    /// Whether `bytes` more of changed data may wait.
    pub(crate) fn check_bytes(&self, anonymous: bool, bytes: usize) -> Result<()> {
        let over = |waiting: &AtomicUsize, limit| waiting.load(Ordering::Relaxed) + bytes > limit;
        let over_share = anonymous && over(&self.anonymous_bytes, share(true, DIRTY_BYTES_MAX));
        if over_share || over(&self.bytes, DIRTY_BYTES_MAX) { Err(full()) } else { Ok(()) }
    }

    pub(crate) fn charge(&self, anonymous: bool, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if anonymous {
            self.anonymous_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    pub(crate) fn discharge(&self, anonymous: bool, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        if anonymous {
            self.anonymous_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    fn len(&self) -> usize {
        let pending = self.pending.lock();
        pending.cells.len() + pending.groups.len()
    }

    pub(crate) fn dirty_bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Queues a changed cell for writing behind.
    pub(crate) fn push_cell(&self, cell: Arc<Cell>, now_ms: u64) {
        self.push_behind(now_ms, |pending| pending.cells.push(cell));
    }

    /// Queues rows for the sweep.
    pub(crate) fn push_swept(&self, swept: impl IntoIterator<Item = Swept>, now_ms: u64) {
        self.push_behind(now_ms, |pending| {
            pending.swept.extend(swept);
            pending.swept_since_ms.get_or_insert(now_ms);
        });
    }

    /// Queues rows for the sweep that were found dead at the start.
    pub(crate) fn push_found(&self, swept: Vec<Swept>, now_ms: u64) {
        let ran_out = swept.iter().any(|swept| swept.cutoff.is_none());
        self.pending.lock().ran_out_before |= ran_out;
        self.push_swept(swept, now_ms);
    }

    /// Queues the row of an ended session; nobody waits for it here.
    pub(crate) fn push_dead(&self, row: Row, now_ms: u64) {
        self.push_behind(now_ms, |pending| {
            pending.dead.push(row);
            pending.ends_sessions = true;
        });
    }

    /// Queues last-seen times; they wait for a commit to ride on, as long as they may.
    pub(crate) fn push_touches(&self, flush: Flush) {
        {
            let mut pending = self.pending.lock();
            if pending.shut {
                return;
            }
            pending.touches.push(flush);
        }
        // The writer may sleep for longer than they may wait.
        self.bell.ring();
    }

    pub(crate) fn push_emptied(&self, principal: PrincipalRef, now_ms: u64) {
        self.push_behind(now_ms, |pending| {
            pending.emptied.insert(principal);
        });
    }

    /// Whether a principal's last session may have ended since the last batch was taken.
    pub(crate) fn is_emptied(&self, principal: PrincipalRef) -> bool {
        self.pending.lock().emptied.contains(&principal)
    }

    /// Queues a changed cutoff; `ends` if it ends sessions, and does not only say less than before.
    pub(crate) fn push_cutoff(&self, principal: PrincipalRef, ends: bool, now_ms: u64) {
        self.push_behind(now_ms, |pending| {
            pending.cutoffs.push(principal);
            pending.ends_sessions |= ends;
        });
    }

    /// Queues a group, or gives it back if nobody will write it.
    pub(crate) fn push_group(&self, group: Queued, now_ms: u64) -> Result<(), Queued> {
        self.push_urgent(group, now_ms, |pending| &mut pending.groups)
    }

    /// Asks to be told when everything pushed so far is durable. If nobody will write it, the waiter is dropped, and
    /// the promise in it with it.
    pub(crate) fn push_waiter(&self, waiter: Waiter, now_ms: u64) {
        drop(self.push_urgent(waiter, now_ms, |pending| &mut pending.waiters));
    }

    /// Queues a change of the server keys. If nobody will make it, whoever waits for it is told so.
    pub(crate) fn push_key_change(&self, change: KeyChange, now_ms: u64) {
        drop(self.push_urgent(change, now_ms, |pending| &mut pending.key_changes));
    }

    fn push_behind(&self, now_ms: u64, push: impl FnOnce(&mut Pending)) {
        {
            let mut pending = self.pending.lock();
            if pending.shut {
                return;
            }
            push(&mut pending);
            pending.behind_since_ms.get_or_insert(now_ms);
        }
        self.wake_for_later(now_ms);
    }

    fn push_urgent<T>(&self, item: T, now_ms: u64, list: impl FnOnce(&mut Pending) -> &mut Vec<T>) -> Result<(), T> {
        {
            let mut pending = self.pending.lock();
            if pending.shut {
                return Err(item);
            }
            list(&mut pending).push(item);
            if !pending.urgent {
                (pending.urgent, pending.urgent_since_ms) = (true, now_ms);
            }
        }
        self.wake_for_later(now_ms);
        Ok(())
    }

    /// Has the writer's thread look at the queue within [`WRITE_BEHIND_MS`].
    pub(crate) fn wake_for_later(&self, now_ms: u64) {
        let looks_ms = self.looks_ms.load(Ordering::Acquire);
        // It should have looked before, and has not: sleeps of the machine make its own longer.
        let is_late = looks_ms < now_ms;
        if looks_ms != AWAKE && (is_late || looks_ms > now_ms.saturating_add(WRITE_BEHIND_MS)) {
            self.bell.ring();
        }
    }

    /// Has the writer's thread look at the queue now.
    pub(crate) fn hurry(&self) {
        if self.looks_ms.load(Ordering::Acquire) != AWAKE {
            self.bell.ring();
        }
    }

    /// Before the writer's thread sleeps until `wake_ms`, or without end: how long it may, or `None` if there is something to
    /// do. Whoever pushes from now on goes by that.
    pub(crate) fn rest(&self, wake_ms: Option<u64>, now_ms: u64) -> Option<Option<u64>> {
        let pending = self.pending.lock();
        let later_ms = now_ms.saturating_add(WRITE_BEHIND_MS);
        // Where it was busy a moment ago it looks so often that nobody has to wake it for what may wait that long.
        let is_soon = |wake_ms: u64| wake_ms <= later_ms.saturating_add(WRITE_BEHIND_MS);
        let wake_ms = wake_ms.map(|wake_ms| if is_soon(wake_ms) { wake_ms.min(later_ms) } else { wake_ms });
        let wake_ms = [wake_ms, pending.due_ms(self.linger_ms)].into_iter().flatten().min();
        if wake_ms.is_some_and(|wake_ms| wake_ms <= now_ms) {
            return None;
        }
        self.looks_ms.store(wake_ms.unwrap_or(u64::MAX), Ordering::Release);
        Some(wake_ms)
    }

    /// The writer's thread looks at the queue before it sleeps again.
    pub(crate) fn be_awake(&self) {
        self.looks_ms.store(AWAKE, Ordering::Release);
    }

    /// Whether somebody waits, and nobody else does.
    pub(crate) fn has_one_waiter(&self) -> bool {
        let pending = self.pending.lock();
        pending.waiters.len() + pending.groups.len() == 1 && pending.key_changes.is_empty()
    }

    /// Whether an end of a session waits to be written.
    pub(crate) fn has_ends(&self) -> bool {
        let pending = self.pending.lock();
        !pending.dead.is_empty() || !pending.cutoffs.is_empty()
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.pending.lock().is_empty()
    }

    /// Takes whatever is left and lets nothing in any more.
    pub(crate) fn shut(&self) -> Pending {
        std::mem::replace(&mut *self.pending.lock(), Pending { shut: true, ..Pending::default() })
    }

    /// Takes everything if it is time to: somebody has waited for long enough, or changes are older than a second, or `force`.
    /// Otherwise returns when it will be, if ever.
    pub(crate) fn take(&self, now_ms: u64, force: bool) -> Result<Pending, Option<u64>> {
        let mut pending = self.pending.lock();
        let due_ms = pending.due_ms(self.linger_ms);
        if force || due_ms.is_some_and(|due| due <= now_ms) {
            let shut = pending.shut;
            return Ok(std::mem::replace(&mut *pending, Pending { shut, ..Pending::default() }));
        }
        Err(due_ms)
    }
}

fn share(anonymous: bool, limit: usize) -> usize {
    if anonymous { limit / ANONYMOUS_SHARE } else { limit }
}

fn full() -> Error {
    Error::new(ErrorKind::Busy, "too many changes are waiting for the disk; try again in a moment")
}

impl Pending {
    /// When it is time to write it, if ever.
    fn due_ms(&self, linger_ms: u64) -> Option<u64> {
        let behind_ms = self.behind_since_ms.map(|since| since.saturating_add(WRITE_BEHIND_MS));
        let touches_ms = self.touches.iter().map(|flush| flush.due_ms).min();
        let urgent_ms = self.urgent.then(|| self.urgent_since_ms.saturating_add(linger_ms));
        [behind_ms, touches_ms, urgent_ms].into_iter().flatten().min()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.cells.is_empty()
            && self.groups.is_empty()
            && self.dead.is_empty()
            && self.swept.is_empty()
            && self.cutoffs.is_empty()
            && self.emptied.is_empty()
            && self.touches.is_empty()
            && self.waiters.is_empty()
            && self.key_changes.is_empty()
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending")
            .field("cells", &self.cells.len())
            .field("groups", &self.groups.len())
            .finish_non_exhaustive()
    }
}

/// Wakes a worker; rings that come while it is awake are kept, many as one.
#[derive(Debug)]
pub(crate) struct Bell {
    ring: Sender<()>,
    heard: Receiver<()>,
}

impl Bell {
    pub(crate) fn new() -> Self {
        let (ring, heard) = bounded(1);
        Self { ring, heard }
    }

    pub(crate) fn ring(&self) {
        // Full means that a ring is kept already.
        let _ = self.ring.try_send(());
    }

    /// Rings it from anywhere.
    pub(crate) fn ringer(&self) -> impl Fn() + Send + 'static {
        let ring = self.ring.clone();
        move || {
            let _ = ring.try_send(());
        }
    }

    /// Whether it was rung since the last wait; as if somebody had waited.
    #[cfg(test)]
    pub(crate) fn take_ring(&self) -> bool {
        self.heard.try_recv().is_ok()
    }

    /// Waits for a ring, at most for `patience` if there is one.
    pub(crate) fn wait(&self, patience: Option<Duration>) {
        match patience {
            Some(patience) => drop(self.heard.recv_timeout(patience)),
            None => drop(self.heard.recv()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_lingers_for_others_and_no_longer_than_that() {
        let queue = Queue::new(20);
        assert_eq!(queue.take(100, false).err(), Some(None), "nothing is there");
        queue.push_waiter(Box::new(|_| {}), 100);
        assert!(queue.has_one_waiter());
        queue.push_waiter(Box::new(|_| {}), 115);
        assert!(!queue.has_one_waiter());
        assert_eq!(queue.take(119, false).err(), Some(Some(120)), "counted from the first");
        assert_eq!(queue.take(120, false).unwrap().waiters.len(), 2);
        queue.push_waiter(Box::new(|_| {}), 130);
        assert_eq!(queue.take(140, false).err(), Some(Some(150)), "anew for the next");
        assert!(queue.take(140, true).is_ok());
    }

    fn row() -> Row {
        Row(7)
    }

    #[test]
    fn who_rests_for_long_is_woken_by_the_first_change_and_only_by_that() {
        let queue = Queue::new(0);
        queue.push_dead(row(), 5);
        assert!(!queue.bell.take_ring(), "it looks before it rests");
        assert_eq!(queue.rest(None, 6), Some(Some(1005)), "and sees what came before");
        assert!(queue.take(6, true).is_ok());
        assert_eq!(queue.rest(None, 6), Some(None));
        queue.push_dead(row(), 7);
        assert!(queue.bell.take_ring(), "it would have slept for ever");
        queue.be_awake();
        queue.push_dead(row(), 8);
        queue.hurry();
        assert!(!queue.bell.take_ring(), "it is about to look");
    }

    #[test]
    fn who_looks_within_a_second_is_woken_for_those_who_wait_only() {
        let queue = Queue::new(0);
        assert_eq!(queue.rest(Some(1900), 0), Some(Some(1000)), "often, as it was busy a moment ago");
        queue.push_waiter(Box::new(|_| {}), 10);
        assert!(!queue.bell.take_ring(), "whoever waits may write in its place");
        queue.hurry();
        assert!(queue.bell.take_ring());
        assert_eq!(queue.rest(Some(1900), 10), None, "there is something to do");
        assert!(queue.take(10, false).is_ok());
        assert_eq!(queue.rest(Some(9000), 10), Some(Some(9000)), "rarely, as it is not");
        queue.push_waiter(Box::new(|_| {}), 11);
        assert!(queue.bell.take_ring(), "that is later than anything may wait");
    }

    #[test]
    fn who_should_have_looked_and_has_not_is_woken() {
        let queue = Queue::new(0);
        assert_eq!(queue.rest(Some(500), 0), Some(Some(500)));
        queue.push_waiter(Box::new(|_| {}), 500);
        assert!(!queue.bell.take_ring());
        queue.push_waiter(Box::new(|_| {}), 501);
        assert!(queue.bell.take_ring(), "the machine may have slept");
    }
}
