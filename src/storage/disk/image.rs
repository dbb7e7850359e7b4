//! What a simulated disk holds: names and files, and what a power cut leaves of a file.
//!
//! What lives here: [`Names`], [`Inode`] with its current bytes, its durable bytes and the changes between
//! them, and the random source that decides between lost, kept and torn. It knows nothing of power,
//! handles or failures: that is `sim.rs`.
//!
//! Invariants: `durable` with all of `pending` applied in order is `current`; without history only `current`
//! is used. Nothing here survives the process. Does not panic.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A step from the durable names to the current ones.
#[derive(Clone)]
pub(super) enum NameChange {
    Create(String, Arc<Inode>),
    Rename(String, String),
    Remove(String),
}

/// Which name leads to which file.
#[derive(Clone, Default)]
pub(super) struct Names(pub(super) BTreeMap<String, Arc<Inode>>);

impl Names {
    pub(super) fn find(&self, name: &str) -> io::Result<&Arc<Inode>> {
        self.0.get(name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn apply(&mut self, change: NameChange) {
        match change {
            NameChange::Create(name, inode) => _ = self.0.insert(name, inode),
            NameChange::Remove(name) => _ = self.0.remove(&name),
            NameChange::Rename(from, to) => {
                if let Some(inode) = self.0.remove(&from) {
                    self.0.insert(to, inode);
                }
            }
        }
    }
}

/// What was copied already, so that a file with two roles stays one file.
#[derive(Default)]
pub(super) struct Copies(Vec<(Arc<Inode>, Arc<Inode>)>);

impl Copies {
    pub(super) fn inode(&mut self, original: &Arc<Inode>) -> Arc<Inode> {
        if let Some((_, copy)) = self.0.iter().find(|(known, _)| Arc::ptr_eq(known, original)) {
            return Arc::clone(copy);
        }
        let copy = Inode::new(original.read().clone());
        self.0.push((Arc::clone(original), Arc::clone(&copy)));
        copy
    }

    pub(super) fn names(&mut self, names: &Names) -> Names {
        Names(names.0.iter().map(|(name, inode)| (name.clone(), self.inode(inode))).collect())
    }

    pub(super) fn change(&mut self, change: &NameChange) -> NameChange {
        match change {
            NameChange::Create(name, inode) => NameChange::Create(name.clone(), self.inode(inode)),
            other => other.clone(),
        }
    }
}

/// One file, whatever its name; it lives as long as a name, a handle or a pending change leads to it.
#[derive(Default)]
pub(super) struct Inode(RwLock<Content>);

impl Inode {
    pub(super) fn new(content: Content) -> Arc<Self> {
        Arc::new(Self(RwLock::new(content)))
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Content> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Content> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Without history only `current` is used.
#[derive(Clone, Default)]
pub(super) struct Content {
    pub(super) current: Image,
    pub(super) durable: Image,
    pub(super) pending: Vec<Change>,
}

impl Content {
    pub(super) fn settle(&mut self) {
        for change in self.pending.drain(..) {
            match change {
                Change::Write(start, bytes) => self.durable.write(start, &bytes),
                Change::SetLen(len) => self.durable.set_len(len),
            }
        }
    }

    /// What was written stays to be read, and never gets to the disk.
    pub(super) fn forget(&mut self) {
        self.pending.retain(|change| matches!(change, Change::SetLen(_)));
    }

    /// The file that a power cut leaves.
    pub(super) fn survivor(&self, random: &mut Random) -> Arc<Inode> {
        let mut image = self.durable.clone();
        for change in &self.pending {
            match (change, random.up_to(2)) {
                (_, 0) => {}
                (Change::SetLen(len), _) => image.set_len(*len),
                (Change::Write(start, bytes), 1) => image.write(*start, bytes),
                (Change::Write(start, bytes), _) => image.write_torn(*start, bytes, random),
            }
        }
        Inode::new(Self { current: image.clone(), durable: image, pending: Vec::new() })
    }
}

#[derive(Clone)]
pub(super) enum Change {
    Write(usize, Box<[u8]>),
    SetLen(usize),
}

#[derive(Clone, Default)]
pub(super) struct Image(pub(super) Vec<u8>);

impl Image {
    /// The offset as an index, after making sure that there is memory up to `offset + len`.
    pub(super) fn room(&mut self, offset: u64, len: usize) -> io::Result<usize> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let end = start.checked_add(len).ok_or(io::ErrorKind::FileTooLarge)?;
        let more = end.saturating_sub(self.0.len());
        self.0.try_reserve(more).map_err(|_| io::ErrorKind::StorageFull)?;
        Ok(start)
    }

    pub(super) fn write(&mut self, start: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let end = start + bytes.len();
        if let Some(place) = self.0.get_mut(start..end) {
            place.copy_from_slice(bytes);
            return;
        }
        // Past the end: the gap is filled with zeros, and the rest is copied only once.
        let kept = self.0.len().min(start);
        self.0.truncate(kept);
        self.0.resize(start, 0);
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn set_len(&mut self, len: usize) {
        self.0.resize(len, 0);
        if len < self.0.capacity() / 2 {
            self.0.shrink_to_fit();
        }
    }

    /// Keeps some sectors of a write, and perhaps the length that it would have brought.
    fn write_torn(&mut self, start: usize, bytes: &[u8], random: &mut Random) {
        let (mut at, mut rest) = (start, bytes);
        while !rest.is_empty() {
            let (sector, later) = rest.split_at(rest.len().min(SECTOR_BYTES - at % SECTOR_BYTES));
            if random.up_to(1) == 1 {
                self.write(at, sector);
            }
            at += sector.len();
            rest = later;
        }
        if random.up_to(1) == 1 && self.0.len() < at {
            self.0.resize(at, 0);
        }
    }
}

/// SplitMix64: small, fast and the same everywhere.
#[derive(Clone, Default)]
pub(super) struct Random(pub(super) u64);

impl Random {
    /// A number from zero to `max`, both included.
    pub(super) fn up_to(&mut self, max: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        // The bias for small numbers is far below anything that a test could see.
        usize::try_from(mixed % (max as u64).saturating_add(1)).unwrap_or(max)
    }
}

/// What a disk writes in one piece.
const SECTOR_BYTES: usize = 512;
