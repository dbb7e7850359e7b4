//! A simulated directory, for testing the engine itself: power cuts, disks that fail, files changed from outside.
//!
//! It is not part of the promise of semantic versioning. Everything in it is decided by its seed, so a failure can be
//! replayed; use it with [`Options::manual_workers`] and a [`ManualClock`](crate::ManualClock), so that the engine is
//! too.
//!
//! ```
//! use dwell::sim::Directory;
//! use dwell::{ManualClock, Options};
//!
//! let directory = Directory::new(7);
//! let options = Options::new().clock(ManualClock::new()).manual_workers();
//! let sessions = directory.open(&options)?;
//! let token = sessions.start().sign_in("ada")?.blocking_wait()?;
//! directory.restore_power(); // a power cut, right now
//! let sessions = directory.open(&options)?;
//! assert!(sessions.load(&token)?.is_some());
//! # Ok::<(), dwell::Error>(())
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Result;
use crate::options::Options;
use crate::sessions::Sessions;
pub use crate::storage::Planted;
use crate::storage::disk::SimDisk;
use crate::token::{Draws, SeededEntropy};

/// A directory that exists in memory and can fail.
#[derive(Debug)]
pub struct Directory {
    disk: SimDisk,
    seed: u64,
    opened: AtomicU64,
    draws: Arc<Draws>,
}

impl Directory {
    /// An empty directory whose faults follow `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { disk: SimDisk::simulated(seed), seed, opened: AtomicU64::new(0), draws: Arc::default() }
    }

    /// Opens the store in it, or makes one.
    ///
    /// # Errors
    /// As [`Sessions::open`].
    pub fn open(&self, options: &Options) -> Result<Sessions> {
        // Another run of the process draws other random numbers.
        let run = self.opened.fetch_add(1, Ordering::Relaxed);
        let seed = self.seed ^ run.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        options.open_simulated(&self.disk, SeededEntropy::with(seed, Arc::clone(&self.draws)))
    }

    /// Operations that changed or synced anything so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.disk.operations()
    }

    /// The power fails at this operation, counted from the beginning.
    pub fn cut_power_at(&self, operation: u64) {
        self.disk.power_cut_after(operation);
    }

    /// The power comes back: of everything that was not synced, a random part is there. Stores opened before stay
    /// without power for ever, as their process died. With the power on, it goes and comes back.
    pub fn restore_power(&self) {
        self.disk.restore_power();
    }

    /// From this operation on, `times` operations fail with this error and do nothing.
    pub fn fail_at(&self, operation: u64, times: u64, kind: std::io::ErrorKind) {
        self.disk.fail_from(operation, times, kind);
    }

    /// How often the stores in it asked for random bytes so far.
    #[must_use]
    pub fn draws(&self) -> u64 {
        self.draws.made()
    }

    /// From this one on, `times` askings for random bytes get none.
    pub fn fail_draws(&self, draw: u64, times: u64) {
        self.draws.fail_from(draw, times);
    }

    /// From now on files may grow by so many bytes in all, and then the disk is full; `None` for as many as they like.
    pub fn limit_room(&self, bytes: Option<u64>) {
        self.disk.limit_room(bytes);
    }

    /// Every file's name and content.
    #[must_use]
    pub fn contents(&self) -> Vec<(String, Vec<u8>)> {
        self.disk.contents()
    }

    /// Changes a file from outside, or makes it.
    pub fn overwrite(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        self.disk.overwrite(name, change);
    }

    /// Removes a file from outside.
    pub fn remove(&self, name: &str) {
        self.disk.remove_file(name);
    }

    /// From now on a flush that fails leaves what it was to bring to be read, and no later one brings it to the disk, as
    /// operating systems do.
    pub fn forget_failed_flushes(&self) {
        self.disk.forget_failed_flushes();
    }

    /// The engine is to make this mistake from now on, so that a test can see that it is caught.
    pub fn plant(&self, mistake: Planted) {
        self.disk.plant(mistake);
    }

    /// From now on this seed decides what a power cut leaves.
    pub fn reseed(&self, seed: u64) {
        self.disk.reseed(seed);
    }

    /// A copy of the directory as it is now.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self {
            disk: self.disk.fork(),
            seed: self.seed.rotate_left(17),
            opened: AtomicU64::new(self.opened.load(Ordering::Relaxed)),
            draws: Arc::default(),
        }
    }
}

/// Reads bytes as every kind of record of a store, for fuzzing the readers.
///
/// # Panics
/// If something that was read does not read the same once it is written again.
///
/// ```
/// dwell::sim::read_records(b"no record at all");
/// ```
pub fn read_records(bytes: &[u8]) {
    crate::storage::probe::read(bytes);
    let _ = crate::engine::fields::validate(bytes).map(|()| crate::engine::fields::count(bytes));
}
