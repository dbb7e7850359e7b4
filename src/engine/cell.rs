//! Cells: sessions in use. All requests of one session share one cell, so no update is lost; a dead cell is the
//! tombstone that requests still holding it meet.
//!
//! It knows ring 0 and records. Invariants: the state goes from live to dead and never back; a change is accepted
//! only while the session is live, of the handle's generation, and not part of a sign-in or rotation on its way to
//! disk; `durable <= version`, and equal means that disk and memory agree. A cell's lock is held for copying
//! pointers only: no encoding, no sealing, no code of the application.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};

use super::Engine;
use super::ended::EndReason;
use super::group::Group;
use crate::error::{Error, ErrorKind, Result};
use crate::seal::{Key, Wrap};
use crate::storage::record::{Header, Row};

/// A session in use. Laid out so that a load and a read of small data touch two cache lines of it.
#[repr(C)]
pub(crate) struct Cell {
    /// So that a handle to a session needs no counted reference to the engine of its own: counting on one shared
    /// word would make threads wait for each other on every load. Closing drops the cells, and so the circle.
    pub(crate) engine: Arc<Engine>,
    /// What the content's header says, readable without the cell's lock. It changes only while the session is out of
    /// the index, so whoever finds the cell there by a token reads the generation that goes with that token.
    generation: AtomicU32,
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
    /// The header in memory is newer than the one on disk, or there is none yet.
    pub(crate) header_pending: bool,
    /// The session is kept off the disk.
    pub(crate) memory_only: bool,
    /// The encoded fields; replaced as a whole, so a reader's copy is a pointer.
    pub(crate) data: Arc<[u8]>,
    pub(crate) header: Header,
    pub(crate) version: u64,
    pub(crate) durable: u64,
    /// The version that saving waits for: the last change of a field that is not relaxed.
    pub(crate) wanted: u64,
    /// Bytes that the queue's limit counts for this cell.
    pub(crate) charged: usize,
    /// A sign-in or rotation of this session is on its way to disk.
    pub(crate) group: Option<Arc<Group>>,
    pub(crate) principal: Option<Arc<str>>,
    /// Device and address, sealed; empty if there are none.
    pub(crate) facts: Box<[u8]>,
    pub(crate) data_key: Key,
    pub(crate) wrap: Wrap,
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
            generation: AtomicU32::new(content.header.generation),
            used: AtomicBool::new(true),
            content: Mutex::new(content),
            accounted: AtomicUsize::new(0),
        }
    }

    /// The generation of whoever finds the cell in the index. It changes under the content's lock.
    pub(crate) fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    /// Puts a rotation into effect. The session is out of the index.
    pub(crate) fn rotate(&self, header: &Header, wrap: &Wrap) {
        let mut content = self.content.lock();
        content.header = *header;
        content.wrap = *wrap;
        content.group = None;
        self.generation.store(header.generation, Ordering::Release);
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
        if content.life != Life::Live || self.generation() != generation {
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
        content.version == content.durable && !content.header_pending && !content.memory_only && content.group.is_none()
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
        let name = content.principal.as_ref().map_or(0, |name| name.len() + ALLOCATION);
        size_of::<Self>() + 3 * ALLOCATION + content.data.len() + content.facts.len() + name
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

    /// Marks the session dead. Returns the group that it was part of, which dies with it.
    pub(crate) fn kill(&mut self, reason: EndReason) -> Option<Arc<Group>> {
        if self.life == Life::Live {
            self.life = Life::Dead(reason);
        }
        self.group.take()
    }
}
