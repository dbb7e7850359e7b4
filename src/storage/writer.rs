//! Writing batches: one redb transaction each.
//!
//! It knows redb's write side, records, keys and the epoch file. Invariants: the state record goes into every
//! commit; the commit that ends the first session after an open raises the epoch, and the epoch file follows
//! before anybody is told; after a failed commit nothing more is written, because what reached the disk is
//! unknown until the file is opened again.

use std::sync::Arc;

use redb::ReadableTable;

use super::backend::Backend;
use super::credit::Credits;
use super::disk::Disk;
use super::record::{Cutoff, Header, State};
use super::schema::{BODIES, CUTOFFS, META, META_CREDITS, META_KEYS, META_STATE, PRINCIPALS, SESSIONS, TOUCHES};
use super::{Batch, Database, Keys, Put, closed, epoch, failed, touch};
use crate::error::{Error, ErrorKind, Result};

/// The one road to the disk.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(super) disk: Arc<dyn Disk>,
    database: Database,
    backend: Backend,
    pub(super) keys: Arc<Keys>,
    state: State,
    /// The record of the store's own keys, sealed.
    pub(super) wrapped: Vec<u8>,
    /// The same, as it is to be.
    pub(super) unfinished: Option<Vec<u8>>,
    /// Whether this open has raised the epoch already.
    raised: bool,
    /// Whether the last commit lets the next open skip the repair.
    settled: bool,
    failed: bool,
}

const WHAT: &str = "failed to write `store.redb`";
/// More rows than a store makes between a copy and its restoring.
const ROWS_AFTER_COPY: u64 = 1 << 32;

impl Writer {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        (database, backend): (Database, Backend),
        keys: Arc<Keys>,
        (state, wrapped): (State, Vec<u8>),
    ) -> Self {
        let (raised, settled, failed) = (false, true, false);
        Self { disk, database, backend, keys, state, wrapped, unfinished: None, raised, settled, failed }
    }

    /// The state as of the last commit.
    pub(crate) const fn state(&self) -> State {
        self.state
    }

    /// Lets what opening has changed reach the file, now that the store is known to be ours and whole. Before it,
    /// nothing may be written.
    pub(crate) fn take_over(&mut self) -> Result<()> {
        self.backend.release().map_err(|error| Error::new(ErrorKind::Storage, WHAT).because(error))?;
        self.finish_rotation()
    }

    /// Whether nothing is written any more.
    pub(crate) const fn has_failed(&self) -> bool {
        self.failed
    }

    pub(super) fn check_usable(&self) -> Result<()> {
        if self.failed {
            return Err(Error::new(ErrorKind::Storage, "an earlier write failed; the store must be opened again"));
        }
        Ok(())
    }

    /// Makes a batch durable. Blocks until it is.
    ///
    /// # Errors
    /// `Storage` when nothing of the batch is on the disk, `Unknown` when it may or may not be. From then on nothing is
    /// written any more, and the answer is `Storage`.
    pub(crate) fn apply(&mut self, batch: &Batch) -> Result<()> {
        self.check_usable()?;
        let mut state = self.state;
        state.next_row = state.next_row.max(batch.next_row);
        state.commits += 1;
        state.clock = batch.clock;
        let raise = batch.ends_sessions && !self.raised;
        state.epoch += u64::from(raise);
        state.epoch_due = !(self.raised || raise);
        match self.commit(batch, &mut state, false) {
            Ok(()) => self.state = state,
            Err(error) => {
                self.failed = true;
                return Err(error);
            }
        }
        self.settled = false;
        if let Some(record) = &batch.keys {
            self.wrapped.clone_from(record);
        }
        if raise {
            if let Err(error) = epoch::write(self.disk.as_ref(), &self.keys, state.epoch) {
                self.failed = true;
                return Err(Error::new(ErrorKind::Unknown, WHAT).because(error));
            }
            self.raised = true;
        }
        Ok(())
    }

    /// Leaves the file so that the next open need not walk it, even after a power cut. Worth its two flushes
    /// when nothing else is to be written.
    pub(crate) fn settle(&mut self) -> Result<()> {
        if self.settled || self.failed {
            return Ok(());
        }
        let mut state = self.state;
        self.commit(&Batch::default(), &mut state, true).inspect_err(|_| self.failed = true)?;
        self.settled = true;
        Ok(())
    }

    /// Ends every session, because the store is an older copy of itself or its time is used up. Principals that are
    /// disabled stay so.
    pub(crate) fn end_everything(&mut self) -> Result<()> {
        self.take_over()?;
        let mut state = self.state;
        state.commits += 1;
        // Handles made after the copy name rows above its counter; they must not come to name new sessions.
        state.next_row = state.next_row.saturating_add(ROWS_AFTER_COPY);
        let keys = Arc::clone(&self.keys);
        self.transact(false, |transaction| {
            transaction.delete_table(SESSIONS)?;
            transaction.delete_table(BODIES)?;
            transaction.delete_table(TOUCHES)?;
            transaction.open_table(SESSIONS)?;
            transaction.open_table(BODIES)?;
            transaction.open_table(TOUCHES)?;
            let cutoffs = transaction.open_table(CUTOFFS)?;
            transaction.open_table(PRINCIPALS)?.retain(|principal, _| matches!(cutoffs.get(principal), Ok(Some(_))))?;
            put_state(transaction, &state, &keys)
        })?;
        self.state = state;
        Ok(())
    }

    /// Closes the file. Nobody can read after it.
    pub(crate) fn close(self) -> Result<()> {
        let Some(database) = self.database.write().take() else { return Ok(()) };
        database.close().map_err(|error| failed("failed to close `store.redb`", error))
    }

    fn commit(&self, batch: &Batch, state: &mut State, quick_repair: bool) -> Result<()> {
        let keys = Arc::clone(&self.keys);
        self.transact(quick_repair, |transaction| {
            put_rows(transaction, &batch.puts, &keys)?;
            delete_rows(transaction, batch.deletes.iter().map(|row| row.0).collect())?;
            delete_rows(transaction, rows_of_key(transaction, batch)?)?;
            put_keys(transaction, batch)?;
            put_principals(transaction, batch)?;
            put_cutoffs(transaction, batch, state, &keys)?;
            put_touches(transaction, batch, state, &keys)?;
            put_credits(transaction, batch, state, &keys)?;
            put_state(transaction, state, &keys)
        })
    }

    fn transact(
        &self,
        quick_repair: bool,
        fill: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<()> {
        let database = self.database.read();
        let database = database.as_ref().ok_or_else(closed)?;
        let mut transaction = database.begin_write().map_err(|error| failed(WHAT, error))?;
        transaction.set_quick_repair(quick_repair);
        fill(&transaction).map_err(|error| failed(WHAT, error))?;
        // Up to here nothing was made durable; from here on, who knows.
        transaction.commit().map_err(|error| Error::new(ErrorKind::Unknown, WHAT).because(error))
    }
}

type Filled = Result<(), redb::Error>;

fn put_rows(transaction: &redb::WriteTransaction, puts: &[Put], keys: &Keys) -> Filled {
    if puts.is_empty() {
        return Ok(());
    }
    // Ascending keys fill the B-tree's pages; the queue's order means nothing.
    // The later of two puts of one row counts, so equal rows must keep their order.
    let mut ascending: Vec<&Put> = puts.iter().collect();
    ascending.sort_by_key(|put| put.row);
    let ring = keys.ring();
    let mut sessions = transaction.open_table(SESSIONS)?;
    let mut bodies = transaction.open_table(BODIES)?;
    for put in ascending {
        if let Some(header) = &put.header {
            let tagger = ring.headers(header.key_id).expect("sessions are made under keys of the ring");
            sessions.insert(put.row.0, &header.encode(put.row, keys.store_id(), tagger))?;
        }
        if let Some(body) = &put.body {
            bodies.insert(put.row.0, body.as_slice())?;
        }
    }
    Ok(())
}

/// From this many consecutive rows on, deleting by range touches fewer pages than row by row.
const RANGE_MIN: usize = 8;

fn delete_rows(transaction: &redb::WriteTransaction, mut rows: Vec<u64>) -> Filled {
    if rows.is_empty() {
        return Ok(());
    }
    rows.sort_unstable();
    rows.dedup();
    let mut sessions = transaction.open_table(SESSIONS)?;
    let mut bodies = transaction.open_table(BODIES)?;
    for run in rows.chunk_by(|a, b| a + 1 == *b) {
        let (Some(&first), Some(&last)) = (run.first(), run.last()) else { continue };
        if run.len() >= RANGE_MIN {
            sessions.retain_in(first..=last, |_, _| false)?;
            bodies.retain_in(first..=last, |_, _| false)?;
        } else {
            for &row in run {
                sessions.remove(row)?;
                bodies.remove(row)?;
            }
        }
    }
    Ok(())
}

/// The rows that say that they go with the key that is dropped. Live ones are deleted in a batch before; these are dead
/// ones that wait to be swept, and whatever else says so.
fn rows_of_key(transaction: &redb::WriteTransaction, batch: &Batch) -> Result<Vec<u64>, redb::Error> {
    let Some(id) = batch.dropped_key else { return Ok(Vec::new()) };
    let mut rows = Vec::new();
    for entry in transaction.open_table(SESSIONS)?.iter()? {
        let (row, header) = entry?;
        if Header::key_id(header.value()) == id {
            rows.push(row.value());
        }
    }
    Ok(rows)
}

fn put_keys(transaction: &redb::WriteTransaction, batch: &Batch) -> Filled {
    if let Some(record) = &batch.keys {
        transaction.open_table(META)?.insert(META_KEYS, record.as_slice())?;
    }
    Ok(())
}

fn put_principals(transaction: &redb::WriteTransaction, batch: &Batch) -> Filled {
    if batch.principals.is_empty() {
        return Ok(());
    }
    let mut table = transaction.open_table(PRINCIPALS)?;
    for (principal, name) in &batch.principals {
        match name {
            Some(sealed) => table.insert(principal.0, sealed.as_slice())?,
            None => table.remove(principal.0)?,
        };
    }
    Ok(())
}

fn put_cutoffs(transaction: &redb::WriteTransaction, batch: &Batch, state: &mut State, keys: &Keys) -> Filled {
    if batch.cutoffs.is_empty() {
        return Ok(());
    }
    let mut table = transaction.open_table(CUTOFFS)?;
    for (principal, cutoff) in &batch.cutoffs {
        let bytes = cutoff.map(|cutoff| cutoff.encode(*principal, keys.store()));
        let before = match &bytes {
            Some(bytes) => table.insert(principal.0, bytes)?,
            None => table.remove(principal.0)?,
        };
        let removed = before.map_or(0, |before| Cutoff::share(before.value()));
        let added = bytes.as_ref().map_or(0, Cutoff::share);
        state.cutoff_sum = state.cutoff_sum.wrapping_sub(removed).wrapping_add(added);
    }
    Ok(())
}

fn put_touches(transaction: &redb::WriteTransaction, batch: &Batch, state: &mut State, keys: &Keys) -> Filled {
    if batch.touches.is_empty() && !batch.replace_touches {
        return Ok(());
    }
    let mut table = transaction.open_table(TOUCHES)?;
    if batch.replace_touches {
        table.retain(|_, _| false)?;
    }
    for block in &batch.touches {
        let key = touch::key(block.idle, state.next_flush);
        state.next_flush += 1;
        let bytes = touch::encode(key, block, keys.store());
        table.insert(key, bytes.as_slice())?;
    }
    Ok(())
}

fn put_credits(transaction: &redb::WriteTransaction, batch: &Batch, state: &mut State, keys: &Keys) -> Filled {
    let Some(credits) = &batch.credits else { return Ok(()) };
    let record = credits.encode(keys.store_id(), keys.store());
    let mut table = transaction.open_table(META)?;
    match &record {
        Some(bytes) => table.insert(META_CREDITS, bytes.as_slice())?,
        None => table.remove(META_CREDITS)?,
    };
    state.credits_made = credits.frame();
    state.credits_tag = Credits::tag(record.as_deref());
    Ok(())
}

fn put_state(transaction: &redb::WriteTransaction, state: &State, keys: &Keys) -> Filled {
    let bytes = state.encode(keys.store_id(), keys.store());
    transaction.open_table(META)?.insert(META_STATE, bytes.as_slice())?;
    Ok(())
}
