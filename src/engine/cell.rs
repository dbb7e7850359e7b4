//! Cells: sessions in use. All requests of one session share one cell, so no update is lost; a dead cell is the
//! tombstone that requests still holding it meet.
//!
//! It knows ring 0 and records. Invariants: the state goes from live to dead and never back; a change is accepted
//! only while the session is live, of the handle's generation, and not part of a sign-in or rotation on its way to
//! disk; `durable <= version`, and equal means that disk and memory agree. A cell's lock is held for copying
//! pointers only: no encoding, no sealing, no code of the application.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};

use super::Engine;
use super::ended::EndReason;
use super::group::Group;
use super::soft::NEVER;
use crate::error::{Error, ErrorKind, Result};
use crate::seal::{Key, Wrap};
use crate::storage::record::{Header, Row};
use crate::time::Tick;
use crate::token::Token;

/// A session in use. Laid out so that a load and a read of small data touch two cache lines of it.
#[repr(C)]
pub(crate) struct Cell {
    /// So that a handle to a session needs no counted reference to the engine of its own: counting on one shared
    /// word would make threads wait for each other on every load. Closing drops the cells, and so the circle.
    pub(crate) engine: Arc<Engine>,
    /// What the content's header says, readable without the cell's lock: the generation above, the step below. It changes
    /// only under the shard's write lock or while the session is out of the index, so whoever finds the cell there by a
    /// token reads what goes with that token.
    stamp: AtomicU64,
    /// When a successor of the token is due; [`NEVER`] while one is being made or offered.
    due: AtomicU32,
    /// Set by every load, cleared by a sweep of the cache: what it finds clear has not been used since the last.
    used: AtomicBool,
    content: Mutex<Content>,
    pub(crate) row: Row,
    accounted: AtomicUsize,
}

/// What a cell protects; what every request reads comes first.
#[repr(C)]
pub(crate) struct Content {
    pub(crate) life: Life,
    /// The cell is in the writer's queue.
    pub(crate) queued: bool,
    /// The session is kept off the disk.
    pub(crate) memory_only: bool,
    /// The encoded fields; replaced as a whole, so a reader's copy is a pointer.
    pub(crate) data: Arc<[u8]>,
    pub(crate) header: Header,
    pub(crate) version: u64,
    pub(crate) durable: u64,
    /// The version that saving waits for: the last change of a field that is not relaxed.
    pub(crate) wanted: u64,
    /// The version in which the header changed last; zero for the one that was read from disk.
    pub(crate) header_version: u64,
    /// Bytes that the queue's limit counts for this cell.
    pub(crate) charged: usize,
    /// A sign-in or rotation of this session is on its way to disk.
    pub(crate) group: Option<Arc<Group>>,
    pub(crate) principal: Option<Arc<str>>,
    /// Device and address, sealed; empty if there are none.
    pub(crate) facts: Box<[u8]>,
    pub(crate) data_key: Key,
    pub(crate) wrap: Wrap,
    /// There while the header has another token.
    pub(crate) other: Option<Box<OtherToken>>,
}

/// What is kept for the other token of a session.
pub(crate) struct OtherToken {
    /// Opens the session's data for it; none if it was dropped after the overlap.
    pub(crate) wrap: Option<Wrap>,
    /// The token itself, while it is on offer.
    pub(crate) offer: Option<Token>,
    /// The version that the offer came with: it is handed out once that is durable.
    pub(crate) version: u64,
}

/// Which token of a session it is: hard rotations raise the generation, soft ones the step within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) generation: u32,
    pub(crate) step: u32,
}

impl Stamp {
    pub(crate) const fn of(header: &Header) -> Self {
        Self { generation: header.generation, step: header.step }
    }

    const fn pack(self) -> u64 {
        (self.generation as u64) << 32 | self.step as u64
    }
}

/// Whether a session lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Live,
    Dead(EndReason),
}

impl Cell {
    pub(crate) fn new(engine: &Arc<Engine>, row: Row, content: Content) -> Self {
        Self {
            engine: Arc::clone(engine),
            row,
            stamp: AtomicU64::new(Stamp::of(&content.header).pack()),
            due: AtomicU32::new(content.header.soft_due(engine.settings.rotation).0),
            used: AtomicBool::new(true),
            content: Mutex::new(content),
            accounted: AtomicUsize::new(0),
        }
    }

    /// The token in force. It changes under the content's lock.
    #[expect(clippy::cast_possible_truncation, reason = "two halves")]
    pub(crate) fn stamp(&self) -> Stamp {
        let stamp = self.stamp.load(Ordering::Acquire);
        Stamp { generation: (stamp >> 32) as u32, step: stamp as u32 }
    }

    /// Notes what a header says that was changed. The content is locked, and so is the shard, or the session is out of
    /// the index.
    pub(crate) fn note_header(&self, header: &Header) {
        self.stamp.store(Stamp::of(header).pack(), Ordering::Release);
        self.due.store(header.soft_due(self.engine.settings.rotation).0, Ordering::Relaxed);
    }

    /// Whether a successor of the token is due. One relaxed load, for every load of a session.
    pub(crate) fn is_due(&self, now: Tick) -> bool {
        self.due.load(Ordering::Relaxed) <= now.0
    }

    /// Like [`is_due`](Self::is_due), but only one of those who ask at the same time is told so.
    pub(crate) fn take_due(&self, now: Tick) -> bool {
        let due = self.due.load(Ordering::Relaxed);
        due <= now.0 && self.due.compare_exchange(due, NEVER.0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Has somebody else try again later, unless the header has changed meanwhile.
    pub(crate) fn put_off_due(&self, later: Tick) {
        let _ = self.due.compare_exchange(NEVER.0, later.0, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Puts a rotation into effect. The session is out of the index.
    pub(crate) fn rotate(&self, header: &Header, wrap: &Wrap) {
        let mut content = self.content.lock();
        content.header = *header;
        content.wrap = *wrap;
        content.group = None;
        let before = content.other.take();
        self.note_header(header);
        drop(content);
        drop(before);
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock()
    }

    /// The fields as they are now.
    ///
    /// # Errors
    /// `Gone` if the session ended or the handle is of an older generation.
    pub(crate) fn data(&self, generation: u32) -> Result<Arc<[u8]>> {
        let content = self.content.lock();
        // What `Content::check` asks, of the generation that lies beside the lock.
        if content.life != Life::Live || self.stamp().generation != generation {
            return Err(Error::gone());
        }
        Ok(Arc::clone(&content.data))
    }

    pub(crate) fn mark_used(&self) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it was used since the last call.
    pub(crate) fn take_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    /// Whether memory and disk agree, so that the cell can be dropped and read again.
    pub(crate) fn is_clean(&self) -> bool {
        let content = self.content.lock();
        content.version == content.durable && !content.memory_only && content.group.is_none()
    }

    /// Notes how much memory the cell takes, for the cache's budget, and returns it. Under its shard's write lock.
    pub(crate) fn account(&self) -> usize {
        let bytes = self.bytes();
        self.accounted.store(bytes, Ordering::Relaxed);
        bytes
    }

    /// What was noted last.
    pub(crate) fn accounted(&self) -> usize {
        self.accounted.load(Ordering::Relaxed)
    }

    /// Memory that the cell takes from the cache's budget, its own overhead included. What stays off the disk cannot
    /// be dropped, and has a limit of its own.
    pub(crate) fn bytes(&self) -> usize {
        let content = self.content.lock();
        if content.memory_only {
            return 0;
        }
        let other = content.other.as_ref().map_or(0, |_| size_of::<OtherToken>() + ALLOCATION);
        let name = content.principal.as_ref().map_or(0, |name| name.len() + ALLOCATION);
        size_of::<Self>() + 3 * ALLOCATION + content.data.len() + content.facts.len() + name + other
    }
}

impl fmt::Debug for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cell").field("row", &self.row).finish_non_exhaustive()
    }
}

/// Counters of an `Arc` or the allocator's own words, for each allocation.
const ALLOCATION: usize = 16;

impl Content {
    /// Whether a handle of this generation may read.
    pub(crate) fn check(&self, generation: u32) -> Result<()> {
        if self.life == Life::Live && self.header.generation == generation { Ok(()) } else { Err(Error::gone()) }
    }

    /// Whether a handle of this generation may write now.
    pub(crate) fn check_write(&self, generation: u32) -> Result<()> {
        self.check(generation)?;
        if self.group.is_some() {
            return Err(Error::new(
                ErrorKind::Busy,
                "the session is being signed in or rotated; wait for that receipt first",
            ));
        }
        Ok(())
    }

    /// Whether a handle of this token may have the session's token replaced, or somebody signed in over it. One whose
    /// successor was used may not: it goes on for requests that were under way.
    pub(crate) fn check_in_force(&self, stamp: Stamp) -> Result<()> {
        self.check_write(stamp.generation)?;
        if stamp.step < self.header.step { Err(Error::gone()) } else { Ok(()) }
    }

    /// The header in memory is newer than the one on disk, or there is none yet.
    pub(crate) const fn is_header_pending(&self) -> bool {
        self.header_version > self.durable
    }

    /// Marks the session dead. Returns the group that it was part of, which dies with it.
    pub(crate) fn kill(&mut self, reason: EndReason) -> Option<Arc<Group>> {
        if self.life == Life::Live {
            self.life = Life::Dead(reason);
        }
        self.group.take()
    }
}
