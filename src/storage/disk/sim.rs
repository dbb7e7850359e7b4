//! A directory in memory, and one that loses power.
//!
//! What lives here: [`SimDisk`] with two modes. `memory()` is the plain directory behind stores that live in
//! memory only. `simulated(seed)` also keeps what was durable and what was not, so that tests can cut the
//! power at any operation and go on with what a real disk might have kept. It knows names and bytes; it has
//! no time and no threads, and the same seed with the same calls gives the same bytes.
//!
//! Invariants: the durable names plus the pending changes in order are the current names, and likewise for
//! the content of each file (`image.rs`). A power cut keeps the first few pending name changes and, of each file, any
//! subset of the pending changes, writes torn at 512-byte sectors. Lock order: state, then one file.
//! Methods beyond the two traits stand outside the machine: they work without power and do not count.
//!
//! Handles from before a power cut stay dead after it, since their process died. Does not panic.

#![cfg_attr(not(any(test, feature = "sim")), expect(dead_code, reason = "products use the memory mode only"))]

use std::fmt;
use std::io;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::image::{Change, Content, Copies, Image, Inode, NameChange, Names, Random};
use super::{Disk, DiskFile, Planted, check_name};

/// A simulated disk. Clones are handles of the same disk.
///
/// After a power cut only the handle that [`restore_power`](Self::restore_power) was called on works, and the
/// clones made from it later: a clone that an engine of the old life still holds is as dead as its files.
pub(crate) struct SimDisk {
    shared: Arc<Mutex<State>>,
    life: AtomicU64,
}

impl SimDisk {
    /// A plain directory in memory, without history. A power cut empties it.
    pub(crate) fn memory() -> Self {
        Self::with(false, 0)
    }

    /// A disk that can lose power; the seed decides what survives.
    pub(crate) fn simulated(seed: u64) -> Self {
        Self::with(true, seed)
    }

    /// How many operations there were so far, failed ones included: `create`, `rename`, `remove`,
    /// `sync_directory`, `write_at`, `set_len` and `sync`. This is also the number of the next one.
    pub(crate) fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Cuts the power during the operation with this number, or the next one if that is past. From then on
    /// everything fails, that operation included, though it may still have left its traces.
    pub(crate) fn power_cut_after(&self, operations: u64) {
        self.state().cut_at = Some(operations);
    }

    /// Brings the disk back with what survived. Cuts the power first if nothing else has.
    pub(crate) fn restore_power(&self) {
        let mut guard = self.state();
        let state = &mut *guard;
        let kept = state.random.up_to(state.pending.len());
        let mut names = mem::take(&mut state.durable);
        for change in state.pending.drain(..).take(kept) {
            names.apply(change);
        }
        for file in names.0.values_mut() {
            let survivor = file.read().survivor(&mut state.random);
            *file = survivor;
        }
        state.durable = names.clone();
        state.names = names;
        state.lost = false;
        state.cut_at = None;
        state.life += 1;
        self.life.store(state.life, Ordering::Relaxed);
    }

    /// The operation with this number and the next `times - 1` fail like this, without any effect.
    pub(crate) fn fail_from(&self, operation: u64, times: u64, kind: io::ErrorKind) {
        self.state().faults.push(Fault { from: operation, times, kind });
    }

    /// From now on files may grow by so many bytes in all, or as they like.
    pub(crate) fn limit_room(&self, bytes: Option<u64>) {
        self.state().room = bytes;
    }

    /// A copy of all files as they are now, in order of their names.
    pub(crate) fn contents(&self) -> Vec<(String, Vec<u8>)> {
        self.state().names.0.iter().map(|(name, file)| (name.clone(), file.read().current.0.clone())).collect()
    }

    /// Changes a file from outside, or makes it. The result is durable at once, and so are all names.
    pub(crate) fn overwrite(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let known = self.state().names.0.get(name).cloned();
        let file = known.unwrap_or_default();
        let mut image = file.read().current.clone();
        change(&mut image.0);
        let mut state = self.state();
        *file.write() = Content { durable: state.image_if_recorded(&image), current: image, pending: Vec::new() };
        state.names.0.insert(name.to_owned(), file);
        state.settle_names();
    }

    /// Takes a file away from outside, durably. Says whether there was one.
    pub(crate) fn remove_file(&self, name: &str) -> bool {
        let mut state = self.state();
        let removed = state.names.0.remove(name).is_some();
        state.settle_names();
        removed
    }

    /// From now on a flush that fails leaves what it was to bring to be read, and no later one brings it.
    pub(crate) fn forget_failed_flushes(&self) {
        self.state().forgetful = true;
    }

    /// The engine is to make a mistake, or no more.
    pub(crate) fn plant(&self, mistake: impl Into<Option<Planted>>) {
        self.state().planted = mistake.into();
    }

    /// From now on the seed decides what survives.
    pub(crate) fn reseed(&self, seed: u64) {
        self.state().random = Random(seed);
    }

    /// A copy of the whole disk, what is pending included, that goes its own way: no planned failures,
    /// operations counted from zero. One without power stays so.
    pub(crate) fn fork(&self) -> Self {
        let state = self.state();
        let mut copies = Copies::default();
        let fork = State {
            recorded: state.recorded,
            random: state.random.clone(),
            names: copies.names(&state.names),
            durable: copies.names(&state.durable),
            pending: state.pending.iter().map(|change| copies.change(change)).collect(),
            lost: state.lost,
            ..State::default()
        };
        Self { shared: Arc::new(Mutex::new(fork)), life: AtomicU64::new(0) }
    }

    fn with(recorded: bool, seed: u64) -> Self {
        let state = State { recorded, random: Random(seed), ..State::default() };
        Self { shared: Arc::new(Mutex::new(state)), life: AtomicU64::new(0) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.shared)
    }

    fn life(&self) -> u64 {
        self.life.load(Ordering::Relaxed)
    }

    fn handle(&self, inode: Arc<Inode>) -> Arc<dyn DiskFile> {
        Arc::new(SimFile { shared: Arc::clone(&self.shared), inode, life: self.life() })
    }
}

impl Clone for SimDisk {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), life: AtomicU64::new(self.life()) }
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDisk").field("life", &self.life()).finish_non_exhaustive()
    }
}

impl Disk for SimDisk {
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        check_name(name)?;
        let state = self.state();
        state.alive(self.life())?;
        Ok(self.handle(Arc::clone(state.names.find(name)?)))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        check_name(name)?;
        let mut state = self.state();
        let turn = state.turn(self.life())?;
        if state.names.0.contains_key(name) {
            turn.finish()?;
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = Arc::<Inode>::default();
        state.change(turn, NameChange::Create(name.to_owned(), Arc::clone(&inode)))?;
        Ok(self.handle(inode))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let state = self.state();
        state.alive(self.life())?;
        Ok(state.names.0.keys().cloned().collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check_name(from)?;
        check_name(to)?;
        let mut state = self.state();
        let turn = state.turn(self.life())?;
        if let Err(error) = state.names.find(from) {
            turn.finish()?;
            return Err(error);
        }
        state.change(turn, NameChange::Rename(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        check_name(name)?;
        let mut state = self.state();
        let turn = state.turn(self.life())?;
        if let Err(error) = state.names.find(name) {
            turn.finish()?;
            return Err(error);
        }
        state.change(turn, NameChange::Remove(name.to_owned()))
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut state = self.state();
        // When the power fails in here, what was pending stays pending.
        state.turn(self.life())?.finish()?;
        state.settle_names();
        Ok(())
    }

    fn plants(&self, mistake: Planted) -> bool {
        self.state().planted == Some(mistake)
    }
}

struct SimFile {
    shared: Arc<Mutex<State>>,
    inode: Arc<Inode>,
    life: u64,
}

impl SimFile {
    fn turn(&self) -> io::Result<Turn> {
        locked(&self.shared).turn(self.life)
    }

    /// Takes what the file grows by from the room that is left, or gives back what it loses.
    fn resize(&self, to: impl FnOnce(u64) -> u64) -> io::Result<()> {
        let from = self.inode.read().current.0.len() as u64;
        let to = to(from);
        let mut state = locked(&self.shared);
        if let Some(room) = state.room {
            state.room = Some(room.saturating_add(from).checked_sub(to).ok_or(io::ErrorKind::StorageFull)?);
        }
        Ok(())
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimFile").field("life", &self.life).finish_non_exhaustive()
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        locked(&self.shared).alive(self.life)?;
        Ok(self.inode.read().current.0.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        locked(&self.shared).alive(self.life)?;
        let content = self.inode.read();
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = content.current.0.get(start..start.saturating_add(buffer.len()));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let turn = self.turn()?;
        self.resize(|len| len.max(offset.saturating_add(bytes.len() as u64)))?;
        let mut content = self.inode.write();
        let start = content.current.room(offset, bytes.len())?;
        content.current.write(start, bytes);
        if turn.recorded && !bytes.is_empty() {
            content.pending.push(Change::Write(start, bytes.into()));
        }
        turn.finish()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let turn = self.turn()?;
        self.resize(|_| len)?;
        let mut content = self.inode.write();
        let len = content.current.room(len, 0)?;
        content.current.set_len(len);
        if turn.recorded {
            content.pending.push(Change::SetLen(len));
        }
        turn.finish()
    }

    fn sync(&self) -> io::Result<()> {
        let turn = self.turn();
        let forgets = turn.is_err() && locked(&self.shared).forgets(self.life);
        if forgets {
            self.inode.write().forget();
        }
        // When the power fails in here, what was pending stays pending.
        turn?.finish()?;
        self.inode.write().settle();
        Ok(())
    }
}

#[derive(Default)]
struct State {
    /// Whether history is kept, for power cuts.
    recorded: bool,
    random: Random,
    names: Names,
    durable: Names,
    pending: Vec<NameChange>,
    life: u64,
    lost: bool,
    operations: u64,
    cut_at: Option<u64>,
    faults: Vec<Fault>,
    /// Bytes that files may still grow by.
    room: Option<u64>,
    planted: Option<Planted>,
    /// A flush that fails forgets what it was to bring, as operating systems do.
    forgetful: bool,
}

impl State {
    fn alive(&self, life: u64) -> io::Result<()> {
        if self.lost || life != self.life { Err(power_lost()) } else { Ok(()) }
    }

    fn forgets(&self, life: u64) -> bool {
        self.forgetful && self.alive(life).is_ok()
    }

    /// Counts an operation and decides its fate.
    fn turn(&mut self, life: u64) -> io::Result<Turn> {
        self.alive(life)?;
        let number = self.operations;
        self.operations += 1;
        self.lost = self.cut_at.is_some_and(|at| number >= at);
        match self.faults.iter().find(|fault| fault.hits(number)) {
            Some(fault) if !self.lost => Err(fault.kind.into()),
            _ => Ok(Turn { recorded: self.recorded, last: self.lost }),
        }
    }

    fn change(&mut self, turn: Turn, change: NameChange) -> io::Result<()> {
        if turn.recorded {
            self.pending.push(change.clone());
        }
        self.names.apply(change);
        turn.finish()
    }

    fn settle_names(&mut self) {
        if self.recorded {
            self.durable = self.names.clone();
            self.pending.clear();
        }
    }

    fn image_if_recorded(&self, image: &Image) -> Image {
        if self.recorded { image.clone() } else { Image::default() }
    }
}

/// An operation that may go on. On the last one the power fails, after it has left its traces.
#[derive(Clone, Copy)]
struct Turn {
    recorded: bool,
    last: bool,
}

impl Turn {
    fn finish(self) -> io::Result<()> {
        if self.last { Err(power_lost()) } else { Ok(()) }
    }
}

struct Fault {
    from: u64,
    times: u64,
    kind: io::ErrorKind,
}

impl Fault {
    fn hits(&self, number: u64) -> bool {
        number.checked_sub(self.from).is_some_and(|since| since < self.times)
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn power_lost() -> io::Error {
    io::Error::other("power lost")
}

#[cfg(test)]
mod tests {
    use super::super::read_small;
    use super::*;

    fn found(disk: &SimDisk, name: &str) -> Option<Vec<u8>> {
        read_small(disk, name, 1 << 20).unwrap()
    }

    /// A disk with a durable file `a` of `len` bytes `o`.
    fn with_file(seed: u64, len: usize) -> (SimDisk, Arc<dyn DiskFile>) {
        let disk = SimDisk::simulated(seed);
        let file = disk.create("a").unwrap();
        file.write_at(0, &vec![b'o'; len]).unwrap();
        file.sync().unwrap();
        disk.sync_directory().unwrap();
        (disk, file)
    }

    #[test]
    fn both_modes_are_a_directory() {
        for disk in [SimDisk::memory(), SimDisk::simulated(0)] {
            assert_eq!(disk.open("a").unwrap_err().kind(), io::ErrorKind::NotFound);
            let file = disk.create("a").unwrap();
            assert_eq!(disk.create("a").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(disk.create("../a").unwrap_err().kind(), io::ErrorKind::InvalidInput);
            file.write_at(3, b"abc").unwrap();
            file.write_at(5, b"def").unwrap();
            file.write_at(900, b"").unwrap();
            assert_eq!(found(&disk, "a").unwrap(), b"\0\0\0abdef");
            let mut buffer = [0; 3];
            for offset in [6, 9, u64::MAX] {
                assert_eq!(file.read_at(offset, &mut buffer).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
            }
            assert!(file.write_at(u64::MAX, b"a").is_err());
            assert!(file.set_len(u64::MAX).is_err());
            file.set_len(1).unwrap();
            file.set_len(2).unwrap();
            assert_eq!(file.len().unwrap(), 2);
            disk.create("b").unwrap();
            disk.rename("a", "b").unwrap();
            assert_eq!(disk.rename("a", "b").unwrap_err().kind(), io::ErrorKind::NotFound);
            assert_eq!(disk.contents(), [("b".to_owned(), vec![0, 0])]);
            disk.remove("b").unwrap();
            assert_eq!(disk.remove("b").unwrap_err().kind(), io::ErrorKind::NotFound);
            file.write_at(0, b"unnamed").unwrap();
            file.sync().unwrap();
            disk.sync_directory().unwrap();
            assert!(disk.names().unwrap().is_empty());
        }
    }

    #[test]
    fn memory_keeps_no_history() {
        let disk = SimDisk::memory();
        let file = disk.create("a").unwrap();
        file.write_at(0, b"abc").unwrap();
        disk.overwrite("a", |bytes| bytes.push(b'd'));
        disk.overwrite("b", |bytes| bytes.push(b'e'));
        let state = disk.state();
        assert!(state.pending.is_empty() && state.durable.0.is_empty());
        for inode in state.names.0.values() {
            let content = inode.read();
            assert!(content.pending.is_empty() && content.durable.0.is_empty());
        }
    }

    #[test]
    fn synced_data_survives_every_cut() {
        for seed in 0..500 {
            let (disk, file) = with_file(seed, 3000);
            file.write_at(100, b"synced").unwrap();
            file.set_len(2000).unwrap();
            file.sync().unwrap();
            // Unsynced changes beside it may come and go.
            file.write_at(1000, &[b'u'; 1000]).unwrap();
            disk.create("b").unwrap();
            disk.restore_power();
            let after = found(&disk, "a").unwrap();
            let mut expected = vec![b'o'; 1000];
            expected[100..106].copy_from_slice(b"synced");
            assert_eq!(after[..1000], expected, "seed {seed}");
            assert_eq!(after.len(), 2000, "seed {seed}");
        }
    }

    #[test]
    fn unsynced_writes_are_lost_kept_or_torn_by_sector() {
        let (mut lost, mut kept, mut torn) = (0, 0, 0);
        for seed in 0..500 {
            let (disk, file) = with_file(seed, 4096);
            file.write_at(700, &[b'n'; 2000]).unwrap();
            disk.restore_power();
            let after = found(&disk, "a").unwrap();
            assert!(after[..700].iter().chain(&after[2700..]).all(|&byte| byte == b'o'), "seed {seed}");
            let pieces = [700..1024, 1024..1536, 1536..2048, 2048..2560, 2560..2700];
            for piece in pieces {
                assert!(after[piece.clone()].iter().all(|&byte| byte == after[piece.start]), "seed {seed}: {piece:?}");
            }
            match after.iter().filter(|&&byte| byte == b'n').count() {
                0 => lost += 1,
                2000 => kept += 1,
                _ => torn += 1,
            }
        }
        assert!(lost > 50 && kept > 50 && torn > 50, "lost {lost}, kept {kept}, torn {torn}");
    }

    #[test]
    fn lengths_and_holes_vary() {
        let (mut short, mut cut, mut hole) = (0, 0, 0);
        for seed in 0..500 {
            let (disk, file) = with_file(seed, 1024);
            file.write_at(1024, &[b'n'; 512]).unwrap();
            file.write_at(1536, &[b'n'; 512]).unwrap();
            file.set_len(1500).unwrap();
            disk.restore_power();
            let after = found(&disk, "a").unwrap();
            match after.len() {
                1024 => short += 1,
                1500 => cut += 1,
                1536 | 2048 => {}
                other => panic!("seed {seed}: {other} bytes"),
            }
            let added = &after[1024..];
            assert!(added.iter().all(|byte| [0, b'n'].contains(byte)), "seed {seed}");
            hole += i32::from(added.first() == Some(&0));
        }
        assert!(short > 20 && cut > 20 && hole > 20, "short {short}, cut {cut}, hole {hole}");
    }

    #[test]
    fn names_survive_as_a_prefix() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..500 {
            let (disk, _file) = with_file(seed, 1);
            disk.create("b").unwrap();
            disk.rename("b", "c").unwrap();
            disk.remove("a").unwrap();
            disk.restore_power();
            seen.insert(disk.names().unwrap().join(" "));
        }
        assert_eq!(Vec::from_iter(seen), ["a", "a b", "a c", "c"]);
    }

    #[test]
    fn a_rename_is_durable_after_the_directory_sync() {
        for seed in 0..500 {
            let (disk, _file) = with_file(seed, 600);
            let new = disk.create("b").unwrap();
            new.write_at(0, b"new").unwrap();
            new.sync().unwrap();
            disk.rename("b", "a").unwrap();
            disk.sync_directory().unwrap();
            disk.restore_power();
            assert_eq!(disk.contents(), [("a".to_owned(), b"new".to_vec())], "seed {seed}");
        }
    }

    #[test]
    fn a_cut_fails_its_operation_and_all_later_ones() {
        let (disk, file) = with_file(7, 10);
        let before = disk.operations();
        disk.power_cut_after(before + 1);
        file.write_at(0, b"1").unwrap();
        assert_eq!(file.write_at(1, b"2").unwrap_err().to_string(), "power lost");
        let mut buffer = [0];
        assert!(file.read_at(0, &mut buffer).is_err() && file.len().is_err() && file.sync().is_err());
        assert!(disk.open("a").is_err() && disk.names().is_err() && disk.sync_directory().is_err());
        assert_eq!(disk.operations(), before + 2);
        assert_eq!(disk.contents()[0].1, b"12oooooooo");
    }

    #[test]
    fn handles_of_the_old_life_stay_dead() {
        let (disk, file) = with_file(1, 10);
        let engine = disk.clone();
        disk.power_cut_after(0);
        assert!(file.sync().is_err());
        disk.restore_power();
        let mut buffer = [0];
        assert!(file.read_at(0, &mut buffer).is_err() && file.write_at(0, b"x").is_err() && file.sync().is_err());
        assert!(engine.open("a").is_err() && engine.create("z").is_err() && engine.names().is_err());
        assert_eq!(found(&disk, "a").unwrap(), b"oooooooooo");
        disk.clone().open("a").unwrap().write_at(0, b"new").unwrap();
        assert_eq!(found(&disk, "a").unwrap(), b"newooooooo");
    }

    #[test]
    fn planned_failures_have_no_effect_and_end() {
        let (disk, file) = with_file(1, 4);
        disk.fail_from(disk.operations() + 1, 3, io::ErrorKind::StorageFull);
        file.write_at(0, b"1").unwrap();
        assert_eq!(file.write_at(1, b"2").unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(file.sync().unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(disk.create("b").unwrap_err().kind(), io::ErrorKind::StorageFull);
        file.sync().unwrap();
        disk.restore_power();
        assert_eq!(disk.contents(), [("a".to_owned(), b"1ooo".to_vec())]);
    }

    #[test]
    fn changes_from_outside_are_durable_and_seen_by_open_handles() {
        for seed in 0..50 {
            let (disk, file) = with_file(seed, 4);
            disk.create("b").unwrap();
            disk.overwrite("a", |bytes| bytes[0] = b'!');
            disk.overwrite("c", |bytes| bytes.extend(b"made"));
            let mut buffer = [0; 4];
            file.read_at(0, &mut buffer).unwrap();
            assert_eq!(&buffer, b"!ooo");
            assert!(disk.remove_file("b") && !disk.remove_file("b"));
            disk.restore_power();
            let expected = [("a".to_owned(), b"!ooo".to_vec()), ("c".to_owned(), b"made".to_vec())];
            assert_eq!(disk.contents(), expected);
        }
    }

    #[test]
    fn a_fork_goes_its_own_way_and_the_seed_decides() {
        let run = |seed| {
            let (disk, file) = with_file(seed, 5000);
            file.write_at(0, &[b'n'; 4000]).unwrap();
            disk.create("b").unwrap().write_at(0, &[b'b'; 4000]).unwrap();
            disk.rename("b", "c").unwrap();
            let fork = disk.fork();
            assert_eq!((fork.operations(), fork.contents()), (0, disk.contents()));
            file.write_at(0, b"not in the fork").unwrap();
            fork.restore_power();
            fork.contents()
        };
        assert!((0..50).all(|seed| run(seed) == run(seed)));
        assert!((0..50).any(|seed| run(seed) != run(seed + 1)));
    }
}
