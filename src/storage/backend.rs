//! The bridge from redb to our files: redb reads and writes through `Disk`, so that every operation can be
//! simulated and counted.
//!
//! It knows redb's backend trait and `disk`. Invariants: it hides no error; until it is released, nothing reaches the
//! file. redb writes to a file by opening it, and again by closing it; what turns out to be somebody else's, damaged
//! or without its key must stay as it is. So changes are held back in memory while a store is checked, and then made in
//! the order in which redb made them, its syncs included, so that a power cut meanwhile finds nothing that redb would
//! not have left. Locking is not its business: the directory is locked before any file is opened.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};
use redb::StorageBackend;

use super::disk::{self, DiskFile};

/// A file as redb sees it. Clones are the same file.
#[derive(Clone)]
pub(crate) struct Backend(Arc<Shared>);

struct Shared {
    file: Arc<dyn DiskFile>,
    released: AtomicBool,
    trouble: Mutex<Option<Trouble>>,
    /// Read by both threads of the scan at start, so reading must not keep them from each other.
    held: RwLock<Held>,
}

/// What went wrong with the file first, or worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trouble {
    /// It could not be written to for lack of room. Nothing that was there is in doubt.
    NoRoom,
    /// Anything else; a flush for whatever reason, because what it was to bring to the disk may be forgotten by now.
    Broken,
}

/// The file as it would be, as far as it differs from the file as it is.
#[derive(Default)]
struct Held {
    len: u64,
    /// Up to here the file's own bytes show where no page lies over them.
    shown: u64,
    pages: BTreeMap<u64, Box<[u8; PAGE]>>,
    changes: VecDeque<Change>,
}

enum Change {
    Write(u64, Box<[u8]>),
    SetLen(u64),
    Sync,
}

const PAGE: usize = 4096;

impl Backend {
    /// A file that is written to at once.
    pub(crate) fn direct(file: Arc<dyn DiskFile>) -> Self {
        let (trouble, held) = (Mutex::new(None), RwLock::default());
        Self(Arc::new(Shared { file, released: AtomicBool::new(true), trouble, held }))
    }

    /// A file that stays as it is until [`release`](Self::release).
    pub(crate) fn held_back(file: Arc<dyn DiskFile>) -> io::Result<Self> {
        let len = file.len()?;
        let held = Held { len, shown: len, ..Held::default() };
        let (trouble, held) = (Mutex::new(None), RwLock::new(held));
        Ok(Self(Arc::new(Shared { file, released: AtomicBool::new(false), trouble, held })))
    }

    /// Makes the changes that were held back, and from now on each at once.
    ///
    /// # Errors
    /// What is left of them stays held back.
    pub(crate) fn release(&self) -> io::Result<()> {
        let mut held = self.0.held.write();
        while let Some(change) = held.changes.front() {
            match change {
                Change::Write(offset, bytes) => self.noted(true, self.0.file.write_at(*offset, bytes))?,
                Change::SetLen(len) => self.noted(true, self.0.file.set_len(*len))?,
                Change::Sync => self.noted(false, self.0.file.sync())?,
            }
            held.changes.pop_front();
        }
        self.0.released.store(true, Ordering::Release);
        *held = Held::default();
        Ok(())
    }

    /// From now on changes are held back again.
    pub(crate) fn hold_back(&self) -> io::Result<()> {
        let len = self.0.file.len()?;
        let mut held = self.0.held.write();
        *held = Held { len, shown: len, ..Held::default() };
        self.0.released.store(false, Ordering::Release);
        Ok(())
    }

    /// What went wrong with the file, if anything did.
    pub(crate) fn trouble(&self) -> Option<Trouble> {
        *self.0.trouble.lock()
    }

    /// The database that met it is gone.
    pub(crate) fn forget_trouble(&self) {
        *self.0.trouble.lock() = None;
    }

    /// Remembers what comes of an operation. Running into the end of the file is no trouble of the disk.
    fn noted<T>(&self, writes: bool, outcome: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &outcome
            && error.kind() != io::ErrorKind::UnexpectedEof
        {
            let trouble = if writes && disk::is_full(error) { Trouble::NoRoom } else { Trouble::Broken };
            let mut worst = self.0.trouble.lock();
            *worst = (*worst).max(Some(trouble));
        }
        outcome
    }

    /// Runs `work` on what is held back, alone, or returns `None` where nothing is any more.
    fn held<T>(&self, work: impl FnOnce(&mut Held, &dyn DiskFile) -> T) -> Option<T> {
        if self.0.released.load(Ordering::Acquire) {
            return None;
        }
        let mut held = self.0.held.write();
        // It may have been released while this waited.
        (!self.0.released.load(Ordering::Acquire)).then(|| work(&mut held, self.0.file.as_ref()))
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend")
            .field("file", &self.0.file)
            .field("released", &self.0.released)
            .finish_non_exhaustive()
    }
}

impl Held {
    fn read(&self, file: &dyn DiskFile, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(out.len() as u64).filter(|end| *end <= self.len);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        let of_file = usize::try_from(self.shown.clamp(offset, end) - offset).unwrap_or(out.len());
        let (own, rest) = out.split_at_mut(of_file);
        if !own.is_empty() {
            file.read_at(offset, own)?;
        }
        rest.fill(0);
        for (place, within, length) in pieces(offset, out.len()) {
            let Some(page) = self.pages.get(&place) else { continue };
            let at = usize::try_from(place * PAGE as u64 + within as u64 - offset).unwrap_or(usize::MAX);
            let (from, to) = (page.get(within..within + length), out.get_mut(at..at + length));
            if let (Some(from), Some(to)) = (from, to) {
                to.copy_from_slice(from);
            }
        }
        Ok(())
    }

    fn write(&mut self, file: &dyn DiskFile, offset: u64, data: &[u8]) -> io::Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        let end = offset.checked_add(data.len() as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        let mut rest = data;
        for (place, within, length) in pieces(offset, data.len()) {
            if !self.pages.contains_key(&place) {
                let mut page = Box::new([0; PAGE]);
                let start = place * PAGE as u64;
                let known = usize::try_from(self.len.saturating_sub(start)).map_or(PAGE, |known| known.min(PAGE));
                let (known, _) = page.split_at_mut(known);
                if !known.is_empty() {
                    self.read(file, start, known)?;
                }
                self.pages.insert(place, page);
            }
            let (piece, later) = rest.split_at(length);
            rest = later;
            if let Some(to) = self.pages.get_mut(&place).and_then(|page| page.get_mut(within..within + length)) {
                to.copy_from_slice(piece);
            }
        }
        self.len = self.len.max(end);
        self.changes.push_back(Change::Write(offset, data.into()));
        Ok(())
    }

    fn set_len(&mut self, len: u64) {
        self.len = len;
        self.shown = self.shown.min(len);
        drop(self.pages.split_off(&len.div_ceil(PAGE as u64)));
        if let Some(page) = self.pages.get_mut(&(len / PAGE as u64)) {
            let kept = usize::try_from(len % PAGE as u64).unwrap_or(0);
            page.iter_mut().skip(kept).for_each(|byte| *byte = 0);
        }
        self.changes.push_back(Change::SetLen(len));
    }
}

/// The pages that a range touches: number, where in the page it begins, how many bytes of it.
fn pieces(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let (mut at, mut left) = (offset, length);
    std::iter::from_fn(move || {
        let (place, within) = (at / PAGE as u64, usize::try_from(at % PAGE as u64).ok()?);
        let length = left.min(PAGE - within);
        at += length as u64;
        left -= length;
        (length > 0).then_some((place, within, length))
    })
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.held(|held, _| Ok(held.len)).unwrap_or_else(|| self.0.file.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if !self.0.released.load(Ordering::Acquire) {
            let held = self.0.held.read();
            if !self.0.released.load(Ordering::Acquire) {
                return held.read(self.0.file.as_ref(), offset, out);
            }
        }
        self.noted(false, self.0.file.read_at(offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.held(|held, _| held.set_len(len)).map_or_else(|| self.noted(true, self.0.file.set_len(len)), Ok)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.held(|held, _| held.changes.push_back(Change::Sync))
            .map_or_else(|| self.noted(false, self.0.file.sync()), Ok)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        match self.held(|held, file| held.write(file, offset, data)) {
            Some(result) => result,
            None => self.noted(true, self.0.file.write_at(offset, data)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::disk::{Disk, SimDisk};
    use super::*;

    /// Random changes through a held-back file and to a plain one, which must read alike before and after the release.
    #[test]
    fn held_back_changes_read_as_made_and_are_made_on_release() {
        for seed in 0..200_u64 {
            let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
            let mut up_to = |max: u64| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random % (max + 1)
            };
            let disk = SimDisk::memory();
            let (file, plain) = (disk.create("held").unwrap(), disk.create("plain").unwrap());
            for file in [&file, &plain] {
                file.write_at(0, &[b'o'; 10_000]).unwrap();
            }
            let held = Backend::held_back(Arc::clone(&file)).unwrap();
            for round in 0..12_u8 {
                if up_to(3) == 0 {
                    let len = up_to(20_000);
                    held.set_len(len).unwrap();
                    plain.set_len(len).unwrap();
                } else {
                    let (offset, bytes) = (up_to(15_000), vec![round; usize::try_from(up_to(9000)).unwrap()]);
                    held.write(offset, &bytes).unwrap();
                    plain.write_at(offset, &bytes).unwrap();
                }
                held.sync_data().unwrap();
                let len = plain.len().unwrap();
                assert_eq!(held.len().unwrap(), len);
                let start = up_to(len);
                let mut seen =
                    [vec![7; usize::try_from(len - start).unwrap()], vec![9; usize::try_from(len - start).unwrap()]];
                held.read(start, &mut seen[0]).unwrap();
                plain.read_at(start, &mut seen[1]).unwrap();
                assert!(seen[0] == seen[1], "seed {seed}, round {round}, from {start} of {len}");
                assert!(held.read(len, &mut [0]).is_err());
            }
            assert_eq!(disk.contents()[0].1, [b'o'; 10_000]);
            held.release().unwrap();
            assert!(disk.contents()[0].1 == disk.contents()[1].1, "seed {seed}");
            held.write(3, b"direct").unwrap();
            assert_eq!(&disk.contents()[0].1[3..9], b"direct");
        }
    }
}
