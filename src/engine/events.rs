//! Events: what happened to sessions, noted where it happens and handed to whoever reads.
//!
//! It knows records and the reader. Invariants: noting takes a leaf lock for a push, whatever readers do; what is not
//! kept is counted in its place; a session's end is noted under its list's lock, before its principal can be found empty,
//! and a principal's name stays on disk while a note still needs it; names are read with no list, shard or cell locked.
//!
//! A note goes from the hub's queue, where names may be missing, to a ring for each subscriber. Both are bounded.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::Engine;
use super::cell::Cell;
use super::ended::EndReason;
use super::queue::Answer;
use super::refused::Flaw;
use super::slot::ProfileId;
use crate::storage::record::{ClassByte, Header, PrincipalRef, Row};
use crate::time::{Tick, Timestamp};

/// Something that happened.
#[derive(Clone, Debug)]
pub(crate) struct Note {
    pub(crate) what: Happening,
    pub(crate) at: Timestamp,
    pub(crate) row: Option<Row>,
    pub(crate) principal: PrincipalRef,
    pub(crate) name: Option<Arc<str>>,
    pub(crate) class: Option<ClassByte>,
    pub(crate) created: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Happening {
    Created,
    SignedIn {
        method: u8,
        remembered: bool,
        replaced: Option<Row>,
    },
    Rotated {
        reauthenticated: Option<u8>,
    },
    Ended(Why),
    Refused(Refusal),
    Disabled,
    Enabled,
    KeyRotated(u8),
    KeyDropped(u8),
    RowRefused,
    /// So many requests since the last such note.
    RequestRefused {
        flaw: Flaw,
        count: u64,
        let_through: bool,
    },
    /// This many events were not kept.
    Missed(u64),
}

/// Why a session ended, and for a revocation who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    SignedOut,
    Replaced,
    Revoked(By),
    Limit,
    Replayed,
    Idle,
    Lifetime,
    Fault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Handle,
    All,
    Others(Row),
    Disable,
    /// With its server key.
    Key,
}

/// Why a sign-in was refused.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refusal {
    Disabled,
    AtLimit,
    StoreFull,
}

impl Why {
    pub(crate) const fn reason(self) -> EndReason {
        match self {
            Self::SignedOut => EndReason::SignedOut,
            Self::Replaced => EndReason::Replaced,
            Self::Revoked(_) => EndReason::Revoked,
            Self::Limit => EndReason::Limit,
            Self::Replayed => EndReason::Replayed,
            Self::Idle => EndReason::Idle,
            Self::Lifetime => EndReason::Lifetime,
            Self::Fault => EndReason::Fault,
        }
    }
}

impl Note {
    const fn needs_name(&self) -> bool {
        self.principal.0 != PrincipalRef::NONE.0 && self.name.is_none()
    }

    pub(super) const fn missed(count: u64, at: Timestamp) -> Self {
        let what = Happening::Missed(count);
        Self { what, at, row: None, principal: PrincipalRef::NONE, name: None, class: None, created: None }
    }

    const fn missed_count(&self) -> u64 {
        if let Happening::Missed(count) = self.what { count } else { 0 }
    }
}

/// Events that are kept before anybody subscribes.
const BACKLOG_MAX: usize = 1024;
/// Events that may wait for their names, for all subscribers together.
const QUEUE_MAX: usize = 16_384;
/// Events handed on in one go, so that answers given by the same thread do not wait long.
const SLICE: usize = 256;

/// Nobody has subscribed yet, and there is room in the backlog.
const BACKLOG: u8 = 0;
/// Nobody has subscribed yet, and the backlog is full.
const FULL: u8 = 1;
const LISTENED: u8 = 2;
/// All who subscribed are gone.
const NOBODY: u8 = 3;

/// Where notes come together. Its locks are leaves, never two at once but `turn`.
#[derive(Debug)]
pub(crate) struct Hub {
    interest: AtomicU8,
    queue: Mutex<VecDeque<Note>>,
    /// Not kept, while nobody had subscribed.
    uncounted: AtomicU64,
    /// Notes whose names have still to be read.
    nameless: AtomicUsize,
    rings: Mutex<Rings>,
    /// Held while notes are handed on, so that they stay in order. The disk is read under it.
    turn: Mutex<()>,
}

#[derive(Debug)]
struct Rings {
    list: Vec<Arc<Ring>>,
    /// The first subscriber has taken the ring that the backlog is in.
    claimed: bool,
    over: bool,
}

/// What one subscriber has not read yet.
#[derive(Debug)]
pub(crate) struct Ring {
    state: Mutex<RingState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct RingState {
    notes: VecDeque<Note>,
    max: usize,
    /// Not kept since the ring was full.
    missed: u64,
    waker: Option<Waker>,
    over: bool,
}

impl Ring {
    fn new(max: usize) -> Self {
        Self { state: Mutex::new(RingState { max, ..RingState::default() }), changed: Condvar::new() }
    }

    /// Adds notes, or counts them. Returns whom to wake, and whether it is full.
    fn push(&self, notes: &[Note]) -> (Option<Waker>, bool) {
        let mut state = self.state.lock();
        for note in notes {
            if state.notes.len() >= state.max {
                state.missed += note.missed_count().max(1);
                continue;
            }
            let before = std::mem::take(&mut state.missed);
            if before > 0 && note.missed_count() == 0 {
                state.notes.push_back(Note::missed(before, note.at));
            }
            let mut note = note.clone();
            if let Happening::Missed(count) = &mut note.what {
                *count += before;
            }
            state.notes.push_back(note);
        }
        let full = state.notes.len() >= state.max;
        let waker = state.waker.take();
        drop(state);
        self.changed.notify_all();
        (waker, full)
    }

    fn widen(&self, max: usize) {
        self.state.lock().max = max;
    }

    fn finish(&self) -> Option<Waker> {
        let waker = {
            let mut state = self.state.lock();
            state.over = true;
            state.waker.take()
        };
        self.changed.notify_all();
        waker
    }

    /// The next note, if there is one.
    pub(crate) fn take(&self, engine: &Engine) -> Option<Note> {
        self.state.lock().pop(engine)
    }

    /// The next note; `None` once there will be no more, or nothing came for that long.
    pub(crate) fn wait(&self, engine: &Engine, patience: Option<Duration>) -> Option<Note> {
        let mut state = self.state.lock();
        let empty = |state: &mut RingState| state.notes.is_empty() && state.missed == 0 && !state.over;
        match patience {
            Some(patience) => drop(self.changed.wait_while_for(&mut state, empty, patience)),
            None => self.changed.wait_while(&mut state, empty),
        }
        state.pop(engine)
    }

    /// Like [`take`](Self::take), and has the task woken when there is something.
    pub(crate) fn poll(&self, engine: &Engine, context: &Context<'_>) -> Poll<Option<Note>> {
        // Cloned before the lock and dropped after it: a waker is not ours.
        let waker = context.waker().clone();
        let mut state = self.state.lock();
        let note = state.pop(engine);
        if note.is_some() || state.over {
            drop(state);
            return Poll::Ready(note);
        }
        let before = state.waker.replace(waker);
        drop(state);
        drop(before);
        Poll::Pending
    }
}

impl RingState {
    fn pop(&mut self, engine: &Engine) -> Option<Note> {
        self.notes.pop_front().or_else(|| {
            let missed = std::mem::take(&mut self.missed);
            (missed > 0).then(|| Note::missed(missed, engine.clock.wall()))
        })
    }
}

impl Hub {
    pub(crate) fn new() -> Self {
        let backlog = Arc::new(Ring::new(BACKLOG_MAX));
        Self {
            interest: AtomicU8::new(BACKLOG),
            queue: Mutex::new(VecDeque::new()),
            uncounted: AtomicU64::new(0),
            nameless: AtomicUsize::new(0),
            rings: Mutex::new(Rings { list: vec![backlog], claimed: false, over: false }),
            turn: Mutex::new(()),
        }
    }

    /// Whether something that happens is to be noted; where it is only to be counted, counts it.
    fn is_wanted(&self) -> bool {
        match self.interest.load(Ordering::Acquire) {
            BACKLOG | LISTENED => true,
            FULL => {
                self.uncounted.fetch_add(1, Ordering::Relaxed);
                false
            }
            _ => false,
        }
    }

    fn push(&self, note: Note) {
        let listened = self.interest.load(Ordering::Acquire) == LISTENED;
        let mut queue = self.queue.lock();
        if queue.len() < if listened { QUEUE_MAX } else { BACKLOG_MAX } {
            if note.needs_name() {
                self.nameless.fetch_add(1, Ordering::Release);
            }
            queue.push_back(note);
            return;
        }
        // The count stands where the events are missing.
        if let Some(Note { what: Happening::Missed(count), .. }) = queue.back_mut() {
            *count += 1;
        } else {
            queue.push_back(Note::missed(1, note.at));
        }
    }

    /// Whether names are still to be read, so that none may be dropped. Whoever found a principal empty did so after its
    /// sessions' ends were noted.
    pub(super) fn needs_names(&self) -> bool {
        self.nameless.load(Ordering::Acquire) > 0
    }

    /// Whether anybody ever subscribed, and so was told of what was noted before.
    pub(super) fn were_listened_to(&self) -> bool {
        self.rings.lock().claimed
    }

    fn set_full(&self) {
        let _ = self.interest.compare_exchange(BACKLOG, FULL, Ordering::AcqRel, Ordering::Relaxed);
    }
}

impl Engine {
    /// Notes something for whoever listens. `note` is not called if nobody does.
    pub(super) fn note(&self, note: impl FnOnce() -> Note) {
        if self.events.is_wanted() {
            self.events.push(note());
            self.teller_bell.ring();
        }
    }

    /// Notes what happened to a session whose header is at hand.
    pub(super) fn note_session(&self, row: Row, header: &Header, name: Option<&Arc<str>>, what: Happening) {
        self.note(|| Note {
            what,
            at: self.clock.wall(),
            row: Some(row),
            principal: header.principal,
            name: name.cloned(),
            class: Some(header.class),
            created: Some(header.created_wall),
        });
    }

    /// Notes a session's end, under its list's lock. Of one that is not in use little is known.
    pub(super) fn note_end(
        &self,
        row: Row,
        why: Why,
        cell: Option<&Arc<Cell>>,
        principal: PrincipalRef,
        profile: ProfileId,
    ) {
        self.note(|| {
            let known = cell.map(|cell| {
                let content = cell.lock();
                (content.principal.clone(), content.header.created_wall)
            });
            let (name, created) = known.map_or((None, None), |(name, created)| (name, Some(created)));
            let class = Some(self.index.profiles().class(profile));
            let what = Happening::Ended(why);
            Note { what, at: self.clock.wall(), row: Some(row), principal, name, class, created }
        });
    }

    /// Notes that a session's time ran out while nothing ran.
    pub(super) fn note_expired_before(&self, row: Row, header: &Header) {
        let idle = header.last_seen.plus(header.idle);
        let (why, due) =
            if header.absolute <= idle { (Why::Lifetime, header.absolute) } else { (Why::Idle, Tick(idle.0)) };
        self.note(|| Note {
            what: Happening::Ended(why),
            at: self.clock.wall_of(due),
            row: Some(row),
            principal: header.principal,
            name: None,
            class: Some(header.class),
            created: Some(header.created_wall),
        });
    }

    /// Notes something about a principal and not about one session.
    pub(super) fn note_principal(&self, principal: PrincipalRef, name: &str, what: Happening) {
        self.note(|| Note {
            what,
            at: self.clock.wall(),
            row: None,
            principal,
            name: Some(name.into()),
            class: None,
            created: None,
        });
    }

    /// Notes that a visitor could not have a session.
    pub(super) fn note_refused_visitor(&self) {
        let what = Happening::Refused(Refusal::StoreFull);
        self.note(|| Note { what, class: Some(ClassByte::Anonymous), ..Note::missed(0, self.clock.wall()) });
    }

    /// Notes a row that could not be verified, of which nothing else can be believed.
    pub(super) fn note_refused_row(&self, row: Row) {
        self.note(|| Note { row: Some(row), what: Happening::RowRefused, ..Note::missed(0, self.clock.wall()) });
    }

    /// Hands some of what was noted to the subscribers, with names; reads the disk for those that are not at hand.
    /// `true` if there may be more. No lock of a list, shard or cell may be held; answers are to be delivered after it.
    pub(super) fn hand_on_events(&self) -> bool {
        let hub = &self.events;
        let _turn = hub.turn.lock();
        let (mut notes, more): (Vec<_>, _) = {
            let mut queue = hub.queue.lock();
            let few = queue.len().min(SLICE);
            (queue.drain(..few).collect(), !queue.is_empty())
        };
        if notes.is_empty() {
            return false;
        }
        let rings = hub.rings.lock().list.clone();
        let nameless = notes.iter().filter(|note| note.needs_name()).count();
        if !rings.is_empty() {
            self.name_all(&mut notes);
        }
        hub.nameless.fetch_sub(nameless, Ordering::Release);
        for ring in rings {
            let (waker, full) = ring.push(&notes);
            waker.into_iter().for_each(|waker| self.answers.push(Answer::Wake(waker)));
            if full {
                hub.set_full();
            }
        }
        more
    }

    fn name_all(&self, notes: &mut [Note]) {
        let mut names: HashMap<PrincipalRef, Option<Arc<str>>> = HashMap::new();
        for note in notes.iter_mut().filter(|note| note.needs_name()) {
            // A name that cannot be read makes the event poorer; that the session ended is what counts.
            let read = || self.reader.principal(note.principal).ok().flatten().map(Arc::from);
            note.name = names.entry(note.principal).or_insert_with(read).clone();
        }
    }

    /// Begins to keep events for one more reader. The first gets what was kept before.
    pub(crate) fn subscribe(&self) -> Arc<Ring> {
        let ring = {
            let mut rings = self.events.rings.lock();
            let backlog = if rings.claimed { None } else { rings.list.first().cloned() };
            rings.claimed = true;
            let ring = backlog.unwrap_or_else(|| {
                let ring = Arc::new(Ring::new(0));
                rings.list.push(Arc::clone(&ring));
                ring
            });
            self.events.interest.store(LISTENED, Ordering::Release);
            if rings.over {
                drop(ring.finish());
            }
            ring
        };
        ring.widen(self.settings.events_kept);
        let uncounted = self.events.uncounted.swap(0, Ordering::Relaxed);
        if uncounted > 0 {
            self.events.queue.lock().push_back(Note::missed(uncounted, self.clock.wall()));
            self.teller_bell.ring();
        }
        ring
    }

    pub(crate) fn unsubscribe(&self, ring: &Arc<Ring>) {
        {
            let mut rings = self.events.rings.lock();
            rings.list.retain(|other| !Arc::ptr_eq(other, ring));
            if rings.list.is_empty() {
                self.events.interest.store(NOBODY, Ordering::Release);
            }
        }
        // Whoever hands events on may have the ring for a moment longer, and a waker is not to be dropped there.
        let waker = ring.state.lock().waker.take();
        drop(waker);
    }

    /// Lets readers come to the end, after what is left.
    pub(super) fn finish_events(&self) {
        let rings = {
            let mut rings = self.events.rings.lock();
            rings.over = true;
            rings.list.clone()
        };
        let wakers: Vec<_> = rings.iter().filter_map(|ring| ring.finish()).collect();
        wakers.into_iter().for_each(|waker| self.answers.push(Answer::Wake(waker)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Handle, SignInRequest};
    use super::*;
    use crate::options::Options;
    use crate::storage::disk::{Disk, SimDisk};
    use crate::time::ManualClock;
    use crate::token::OsEntropy;

    #[test]
    fn a_full_ring_adds_up_what_was_missed_before_it_and_in_it() {
        let ring = Ring::new(1);
        let at = Timestamp::from_unix_ms(0);
        let created = Note { what: Happening::Created, ..Note::missed(0, at) };
        ring.push(&[created.clone(), created.clone(), Note::missed(7, at)]);
        assert_eq!(ring.state.lock().missed, 8);
        ring.state.lock().notes.clear();
        ring.push(&[Note::missed(2, at), created]);
        let state = ring.state.lock();
        assert_eq!((state.notes[0].missed_count(), state.missed), (10, 1));
    }

    #[test]
    fn a_waker_goes_with_its_reader() {
        struct Nobody;
        impl std::task::Wake for Nobody {
            fn wake(self: Arc<Self>) {}
        }
        let settings = Options::new().manual_workers().check().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::memory());
        let (engine, _) = Engine::open(&disk, settings, Arc::new(OsEntropy)).unwrap();
        let ring = engine.subscribe();
        let nobody = Arc::new(Nobody);
        let waker = Waker::from(Arc::clone(&nobody));
        assert!(ring.poll(&engine, &Context::from_waker(&waker)).is_pending());
        drop(waker);
        // As events that are handed on at the same time hold it.
        let held = Arc::clone(&ring);
        engine.unsubscribe(&ring);
        assert_eq!(Arc::strong_count(&nobody), 1);
        drop(held);
        engine.close().unwrap();
    }

    #[test]
    fn a_name_stays_on_disk_until_the_events_that_need_it_have_it() {
        let clock = ManualClock::new();
        let settings = Options::new().clock(clock.clone()).manual_workers().check().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::memory());
        let (engine, _) = Engine::open(&disk, settings, Arc::new(OsEntropy)).unwrap();
        let request = SignInRequest::sample("ada");
        let handle = Handle::fresh(&engine);
        engine.sign_in(handle.binding(), &request).unwrap().blocking_wait().unwrap();
        drop(handle);
        engine.index.drop_cells();
        let (ring, ada) = (engine.subscribe(), engine.keys.principal("ada"));
        while engine.hand_on_events() {}
        clock.advance(Duration::from_secs(24 * 3600));
        engine.reap();
        // The writer comes first, as it may with threads.
        engine.writer.lock().step(&engine, true);
        assert!(engine.reader.principal(ada).unwrap().is_some());
        while engine.hand_on_events() {}
        engine.writer.lock().step(&engine, true);
        assert!(engine.reader.principal(ada).unwrap().is_none());
        let read: Vec<_> = std::iter::from_fn(|| ring.take(&engine)).map(|note| note.name).collect();
        assert_eq!(read, [Some("ada".into()), Some("ada".into())]);
        engine.close().unwrap();
    }
}
