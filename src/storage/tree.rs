//! The open B-tree: one redb database, shared by readers and the writer.
//!
//! It knows redb's database and the bridge to its file. Invariants: one transaction writes at a time, in its turn; a tree
//! whose file could not grow is opened again before the turn is over, because redb does nothing more after an error, and is
//! then as its last commit left it; a reader that was caught by that reads again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard, RwLock};
use redb::ReadableDatabase;

use super::backend::{Backend, Trouble};
use super::schema::{META, META_STATE};
use super::{closed, contained, failed};
use crate::error::{Error, ErrorKind, Result};

/// Why nothing was written.
#[derive(Debug)]
pub(super) enum Fault {
    /// The disk is full. Everything is as it was, and it may be tried again.
    NoRoom(Error),
    /// What reached the disk is unknown, or will be from here on.
    Broken(Error),
}

pub(super) fn no_room() -> Fault {
    Fault::NoRoom(Error::new(
        ErrorKind::Storage,
        "the disk is full: sessions go on and are still ended on disk, and what is new is refused until there is room",
    ))
}

#[derive(Debug)]
pub(super) struct Tree {
    state: RwLock<State>,
    cache_bytes: usize,
    /// How often it was opened again.
    opened: AtomicU64,
    turn: Mutex<()>,
}

#[derive(Debug)]
enum State {
    Open(redb::Database, Backend),
    /// Opening it again failed.
    Broken,
    Closed,
}

const WHAT: &str = "failed to write `store.redb`";
const DAMAGED: &str = "failed to read `store.redb`: the file is damaged";

impl Tree {
    pub(super) fn new(database: redb::Database, backend: Backend, cache_bytes: usize) -> Arc<Self> {
        let state = RwLock::new(State::Open(database, backend));
        Arc::new(Self { state, cache_bytes, opened: AtomicU64::new(0), turn: Mutex::new(()) })
    }

    /// Lets what was held back reach the file.
    pub(super) fn release(&self) -> Result<()> {
        let state = self.state.read();
        let (_, backend) = state.open()?;
        backend.release().map_err(|error| Error::new(ErrorKind::Storage, WHAT).because(error))
    }

    /// The state of the last commit, to be read.
    pub(super) fn begin_read(&self) -> Result<redb::ReadTransaction> {
        let state = self.state.read();
        let (database, _) = state.open()?;
        contained(DAMAGED, || database.begin_read().map_err(|error| failed("failed to read `store.redb`", error)))
    }

    /// Reads, and once more if the tree was opened again meanwhile.
    pub(super) fn retrying<T>(&self, read: impl Fn() -> Result<T>) -> Result<T> {
        let before = self.opened.load(Ordering::Acquire);
        read().or_else(|error| {
            // Whoever writes may be about to.
            drop(self.turn.lock());
            if self.opened.load(Ordering::Acquire) == before { Err(error) } else { read() }
        })
    }

    /// Writes one transaction, in its turn. `expected` is the state record that it puts in.
    ///
    /// # Errors
    /// The error inside is `Unknown` if the commit may have happened.
    pub(super) fn write(
        &self,
        quick_repair: bool,
        expected: &[u8],
        fill: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), Fault> {
        let turn = self.turn.lock();
        self.catch_up()?;
        let error = match self.commit(quick_repair, fill) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if !self.met_no_room() {
            return Err(Fault::Broken(error));
        }
        let state = self.open_again(&turn).map_err(Fault::Broken)?;
        if state == expected { Ok(()) } else { Err(no_room()) }
    }

    fn met_no_room(&self) -> bool {
        self.state.read().open().is_ok_and(|(_, backend)| backend.trouble() == Some(Trouble::NoRoom))
    }

    /// Lets what was held back since the tree was opened again reach the file.
    fn catch_up(&self) -> Result<(), Fault> {
        let Err(error) = self.release() else { return Ok(()) };
        if !self.met_no_room() {
            return Err(Fault::Broken(error));
        }
        if let Ok((_, backend)) = self.state.read().open() {
            backend.forget_trouble();
        }
        Err(no_room())
    }

    fn commit(
        &self,
        quick_repair: bool,
        fill: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<()> {
        let state = self.state.read();
        let mut transaction = state.open()?.0.begin_write().map_err(|error| failed(WHAT, error))?;
        transaction.set_quick_repair(quick_repair);
        fill(&transaction).map_err(|error| failed(WHAT, error))?;
        // Up to here nothing was made durable; from here on, who knows.
        transaction.commit().map_err(|error| Error::new(ErrorKind::Unknown, WHAT).because(error))
    }

    /// Opens the file anew. What comes back is the state record in it.
    fn open_again(&self, _turn: &MutexGuard<'_, ()>) -> Result<Vec<u8>> {
        let mut state = self.state.write();
        let State::Open(database, backend) = std::mem::replace(&mut *state, State::Broken) else {
            return Err(closed());
        };
        drop(database);
        backend.forget_trouble();
        let what = "failed to open `store.redb` again";
        // There may be no room for what opening writes, and reading goes on all the same.
        backend.hold_back().map_err(|error| Error::new(ErrorKind::Storage, what).because(error))?;
        let opened = contained("failed to open `store.redb` again: the file is damaged", || {
            let database = redb::Builder::new()
                .set_cache_size(self.cache_bytes)
                .create_with_backend(backend.clone())
                .map_err(|error| failed(what, error))?;
            let read = || -> Result<Vec<u8>, redb::Error> {
                let table = database.begin_read()?.open_table(META)?;
                Ok(table.get(META_STATE)?.map(|record| record.value().to_vec()).unwrap_or_default())
            };
            let found = read().map_err(|error| failed(what, error))?;
            Ok((database, found))
        });
        let (database, found) = opened?;
        *state = State::Open(database, backend);
        self.opened.fetch_add(1, Ordering::Release);
        Ok(found)
    }

    /// Closes the file. Nobody can read after it.
    pub(super) fn close(&self) -> Result<()> {
        let _turn = self.turn.lock();
        match std::mem::replace(&mut *self.state.write(), State::Closed) {
            State::Open(database, _) => contained("failed to close `store.redb`: the file is damaged", || {
                database.close().map_err(|error| failed("failed to close `store.redb`", error))
            }),
            State::Broken | State::Closed => Ok(()),
        }
    }
}

impl State {
    fn open(&self) -> Result<(&redb::Database, &Backend)> {
        match self {
            Self::Open(database, backend) => Ok((database, backend)),
            Self::Broken => Err(Error::new(ErrorKind::Storage, "`store.redb` could not be opened again")),
            Self::Closed => Err(closed()),
        }
    }
}
