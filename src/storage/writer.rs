//! Writing batches: a frame of the journal each, and a checkpoint now and then.
//!
//! It knows the journal, checkpoints, the overlay and the epoch file. Invariants: the state record goes into every frame and
//! every checkpoint; the batch that ends the first session after an open or a checkpoint raises the epoch, and the epoch file
//! follows before anybody is told; a batch that fits no frame, changes keys or has no journal in front of it goes to the tables at once,
//! with everything before it; a part of the ring is written over only when what it stood for is in the tables, on disk;
//! on a full disk the ring has room for what ends sessions, and only for that; after any other failure nothing more is
//! written, because what reached the disk is unknown until the store is opened again.

use std::sync::Arc;

use parking_lot::RwLock;

use super::checkpoint::{Checkpointer, Job};
use super::disk::Disk;
use super::effects::Effects;
use super::journal::{Journal, Position};
use super::overlay::{Layers, Overlay};
use super::planted::Planted;
use super::record::{CutoffBytes, PrincipalRef, State};
use super::schema::CUTOFFS;
use super::tree::{Fault, Tree, no_room};
use super::{Batch, Keys, closed, epoch, failed};
use crate::error::{Error, ErrorKind, Result};

/// The one road to the disk.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(super) disk: Arc<dyn Disk>,
    tree: Arc<Tree>,
    pub(super) keys: Arc<Keys>,
    layers: Arc<RwLock<Layers>>,
    journal: Option<Journal>,
    checkpointer: Option<Checkpointer>,
    /// How far the checkpoint goes that is under way.
    running: Option<Position>,
    state: State,
    /// The record of the store's own keys, sealed.
    pub(super) wrapped: Vec<u8>,
    /// The same, as it is to be.
    pub(super) unfinished: Option<Vec<u8>>,
    /// Whether the epoch was raised since the last checkpoint, or since the store was opened.
    raised: bool,
    /// Whether the last commit lets the next open skip the repair.
    settled: bool,
    /// The disk had no room for the last checkpoint.
    full: bool,
    failed: bool,
    /// What a checkpoint failed with after the batch was durable that it was begun for.
    late: Option<Error>,
}

/// What opening has found.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) tree: Arc<Tree>,
    pub(super) layers: Arc<RwLock<Layers>>,
    pub(super) journal: Option<Journal>,
    pub(super) state: State,
    pub(super) wrapped: Vec<u8>,
}

/// What else goes along with a checkpoint that somebody waits for.
#[derive(Debug, Default)]
struct Extra {
    everything_ends: bool,
    keys: Option<Vec<u8>>,
    dropped_key: Option<u8>,
}

const WHAT: &str = "failed to write `store.redb`";
/// More rows than a store makes between a copy and its restoring.
const ROWS_AFTER_COPY: u64 = 1 << 32;
/// A checkpoint begins when the ring is filled to one part in this many,
const FULL_SHARE: u64 = 2;
/// and in a quiet moment when it is to one in this many, or so many rows wait to be deleted. Each checkpoint costs some 50 KB
/// besides what it brings, so a few frames are not worth one.
const QUIET_SHARE: u64 = 8;
const QUIET_ROWS: u64 = 10_000;
/// Kept for what ends sessions, so that they can be ended on a full disk: a quarter of a small ring, an eighth of a large one,
/// where the rest is needed while a checkpoint is under way.
const fn reserve(ring_bytes: u64) -> u64 {
    let (eighth, quarter) = (ring_bytes / 8, ring_bytes / 4);
    if eighth > RESERVE_BYTES {
        eighth
    } else if quarter > RESERVE_BYTES {
        RESERVE_BYTES
    } else {
        quarter
    }
}
const RESERVE_BYTES: u64 = 1 << 20;

impl Writer {
    pub(super) fn new(disk: Arc<dyn Disk>, keys: Arc<Keys>, parts: Parts) -> Self {
        let Parts { tree, layers, journal, state, wrapped } = parts;
        Self {
            disk,
            tree,
            keys,
            layers,
            journal,
            checkpointer: None,
            running: None,
            state,
            wrapped,
            unfinished: None,
            raised: false,
            settled: true,
            full: false,
            failed: false,
            late: None,
        }
    }

    /// The state as of the last batch.
    pub(crate) const fn state(&self) -> State {
        self.state
    }

    /// Lets what opening has changed reach the file, now that the store is known to be ours and whole. Before it,
    /// nothing may be written.
    pub(crate) fn take_over(&mut self) -> Result<()> {
        self.tree.release()?;
        self.journal.iter_mut().try_for_each(Journal::affirm)?;
        self.finish_rotation()
    }

    /// Runs checkpoints on a thread of their own from now on; `ring` is called after each.
    pub(crate) fn start_thread(&mut self, ring: impl Fn() + Send + 'static) -> Result<()> {
        if self.journal.is_some() {
            self.checkpointer = Some(Checkpointer::start(ring)?);
        }
        Ok(())
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

    /// Whether the disk is full: nothing grows until a checkpoint finds room.
    pub(crate) const fn is_full(&self) -> bool {
        self.full
    }

    /// How many rows or cutoffs may end in one batch for it to fit a frame, with as much to spare.
    pub(crate) fn ends_max(&self) -> usize {
        self.journal.as_ref().map_or(usize::MAX, |journal| journal.payload_max() / Effects::END_BYTES_MAX)
    }

    /// Makes a batch durable. Blocks until it is.
    ///
    /// # Errors
    /// `Storage` when nothing of the batch is on the disk, `Unknown` when it may or may not be. Unless the writer has not
    /// [failed](Self::has_failed), because the disk is only full, nothing is written any more, and the answer is `Storage`.
    pub(crate) fn apply(&mut self, batch: &Batch) -> Result<()> {
        self.check_usable()?;
        self.collect()?;
        // Stays so if the rest panics.
        self.failed = true;
        let applied = self.apply_checked(batch);
        self.failed = self.late.is_some();
        applied.map_err(|fault| self.note(fault))
    }

    fn apply_checked(&mut self, batch: &Batch) -> Result<(), Fault> {
        let mut state = self.state;
        state.next_row = state.next_row.max(batch.next_row);
        state.commits += 1;
        state.clock = batch.clock;
        let effects = Effects::of(batch, state, &self.keys, |principal| self.cutoff(principal));
        let mut effects = effects.map_err(Fault::Broken)?;
        let extra = Extra { keys: batch.keys.clone(), dropped_key: batch.dropped_key, everything_ends: false };
        let fits = self.journal.as_ref().is_some_and(|journal| journal.takes(effects.size()));
        let fits = fits && extra.keys.is_none() && extra.dropped_key.is_none();
        let raise = batch.ends_sessions && !(self.raised && fits);
        effects.state.epoch += u64::from(raise);
        effects.state.epoch_due = !(self.raised || raise);
        let epoch = effects.state.epoch;
        if fits {
            self.log(effects)?
        } else {
            self.write_through(effects, extra)?
        }
        if let Some(record) = &batch.keys {
            self.wrapped.clone_from(record);
        }
        if raise {
            let unknown = |error| Fault::Broken(Error::new(ErrorKind::Unknown, WHAT).because(error));
            epoch::write(self.disk.as_ref(), &self.keys, epoch).map_err(unknown)?;
            // One that is in the tables tells nothing of what is only in the journal.
            self.raised = fits || self.journal.is_none();
        }
        Ok(())
    }

    fn note(&mut self, fault: Fault) -> Error {
        match fault {
            Fault::NoRoom(error) => {
                self.full = true;
                error
            }
            Fault::Broken(error) => {
                self.failed = true;
                error
            }
        }
    }

    /// One frame of the journal.
    fn log(&mut self, effects: Effects) -> Result<(), Fault> {
        let payload = effects.encode(&self.keys);
        let grows = effects.grows();
        if self.full && grows {
            return Err(no_room());
        }
        let ring = self.journal.as_ref().map_or(0, Journal::ring_bytes);
        let spare = if grows { reserve(ring) } else { 0 };
        while !self.journal.as_ref().is_some_and(|journal| journal.has_room(payload.len(), spare)) {
            if self.full {
                return Err(no_room());
            }
            self.checkpoint()?;
            self.wait()?;
        }
        let Some(journal) = &mut self.journal else { return Err(Fault::Broken(closed())) };
        journal.append(&payload)?;
        self.state = effects.state;
        self.layers.write().current.absorb(effects);
        let is_half_full = journal.used() >= ring / FULL_SHARE;
        if is_half_full
            && !self.full
            && let Err(fault) = self.checkpoint()
        {
            // The batch itself is on disk.
            self.late = Some(self.note(fault));
        }
        Ok(())
    }

    /// One transaction, with everything that waits for a checkpoint.
    fn write_through(&mut self, effects: Effects, extra: Extra) -> Result<(), Fault> {
        self.wait()?;
        let state = effects.state;
        let mut above = Overlay::default();
        above.absorb(effects);
        // Whoever reads waits: until it is over, nobody knows which of the two counts.
        let layers = Arc::clone(&self.layers);
        let mut layers = layers.write();
        let before = Arc::new(std::mem::take(&mut layers.current));
        let job = self.job(vec![Arc::clone(&before), Arc::new(above)], &state, extra);
        assert!(!self.disk.plants(Planted::PanickingTree), "a test has told it to panic");
        let outcome = job.run();
        drop(job);
        if outcome.is_err() {
            layers.current = Arc::unwrap_or_clone(before);
            return outcome;
        }
        if let Some(journal) = &mut self.journal {
            journal.free(&journal.position());
        }
        drop(layers);
        self.state = state;
        (self.settled, self.full) = (self.journal.is_some(), false);
        self.mark()
    }

    /// A frame that only says that something went to the tables at once: without it, older tables could not be told from
    /// these as long as no other frame follows.
    fn mark(&mut self) -> Result<(), Fault> {
        let Some(journal) = &mut self.journal else { return Ok(()) };
        self.raised = false;
        let state = State { commits: self.state.commits + 1, ..self.state };
        match journal.append(&Effects { state, ..Effects::default() }.encode(&self.keys)) {
            Ok(()) => self.state = state,
            // What it is to mark is in the tables all the same.
            Err(Fault::NoRoom(_)) => {}
            Err(fault) => return Err(fault),
        }
        Ok(())
    }

    fn job(&self, overlays: Vec<Arc<Overlay>>, state: &State, extra: Extra) -> Job {
        let Extra { everything_ends, keys, dropped_key } = extra;
        let position = self.journal.as_ref().map(|journal| journal.position().encode(&self.keys).to_vec());
        let is_noted = !self.disk.plants(Planted::ReplayNotNoted);
        Job {
            tree: Arc::clone(&self.tree),
            overlays,
            everything_ends,
            keys,
            dropped_key,
            state: state.encode(self.keys.store_id(), self.keys.store()).to_vec(),
            quick_repair: position.is_some(),
            position: position.filter(|_| is_noted),
        }
    }

    /// Begins a checkpoint, unless one is under way or there is nothing to bring. Where there is no thread for it, it is
    /// over when this returns. That the disk is full is no error here.
    fn checkpoint(&mut self) -> Result<(), Fault> {
        let Some(journal) = self.journal.as_ref().filter(|journal| journal.used() > 0) else { return Ok(()) };
        if self.running.is_some() {
            return Ok(());
        }
        let position = journal.position();
        if self.disk.plants(Planted::FreedTooEarly) {
            self.journal.iter_mut().for_each(|journal| journal.free(&position));
            return Ok(());
        }
        let sealed = self.layers.write().seal();
        let job = self.job(vec![sealed], &self.state, Extra::default());
        self.running = Some(position);
        match &self.checkpointer {
            Some(checkpointer) => checkpointer.begin(job),
            None => {
                let outcome = job.run();
                drop(job);
                self.finish(outcome)?;
            }
        }
        Ok(())
    }

    /// Takes note of a checkpoint that is over.
    fn finish(&mut self, outcome: Result<(), Fault>) -> Result<(), Fault> {
        let position = self.running.take();
        let mut layers = self.layers.write();
        match outcome {
            Ok(()) => {
                let brought = layers.sealed.take();
                // It may be large, and others wait for the lock.
                drop(layers);
                drop(brought);
            }
            Err(fault) => {
                layers.unseal();
                drop(layers);
                self.full = matches!(fault, Fault::NoRoom(_));
                return if self.full { Ok(()) } else { Err(fault) };
            }
        }
        // An older journal must not pass for this one: what ends from here on is in it only, and the epoch in the tables.
        (self.full, self.raised) = (false, false);
        if let (Some(journal), Some(position)) = (&mut self.journal, position) {
            journal.free(&position);
        }
        Ok(())
    }

    /// Takes note of a checkpoint that is over by now, if one is.
    ///
    /// # Errors
    /// What it failed with; nothing is written any more then.
    pub(crate) fn collect(&mut self) -> Result<()> {
        if let Some(error) = self.late.take() {
            return Err(error);
        }
        self.take_outcome(false).map_err(|fault| self.note(fault))
    }

    /// Waits for the checkpoint that is under way, if one is.
    fn wait(&mut self) -> Result<(), Fault> {
        self.take_outcome(true)
    }

    fn take_outcome(&mut self, wait: bool) -> Result<(), Fault> {
        let Some(checkpointer) = self.checkpointer.as_ref().filter(|_| self.running.is_some()) else { return Ok(()) };
        match checkpointer.outcome(wait) {
            Some(outcome) => self.finish(outcome),
            None => Ok(()),
        }
    }

    /// Tries a checkpoint again on a disk that was full, and waits for it if told to; where none is needed, the next batch
    /// will tell.
    pub(crate) fn look_for_room(&mut self, wait: bool) -> Result<()> {
        if self.failed || !self.full {
            return Ok(());
        }
        if self.journal.as_ref().is_none_or(|journal| journal.used() == 0) {
            self.full = false;
            return Ok(());
        }
        let looked = self.checkpoint().and_then(|()| if wait { self.wait() } else { Ok(()) });
        looked.map_err(|fault| self.note(fault))
    }

    /// For a quiet moment: begins a checkpoint if there is enough for one. Where there is no journal, leaves the file so
    /// that the next open need not walk it, even after a power cut.
    pub(crate) fn settle(&mut self) -> Result<()> {
        if self.failed || self.full {
            return Ok(());
        }
        if let Some(journal) = &self.journal {
            let is_worth_it = journal.used() >= journal.ring_bytes() / QUIET_SHARE
                || self.layers.read().current.deleted_rows() >= QUIET_ROWS;
            let begun = if is_worth_it { self.checkpoint() } else { Ok(()) };
            return begun.map_err(|fault| self.note(fault));
        }
        if self.settled {
            return Ok(());
        }
        let job = Job { quick_repair: true, ..self.job(Vec::new(), &self.state, Extra::default()) };
        job.run().map_err(|fault| self.note(fault))?;
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
        let extra = Extra { everything_ends: true, ..Extra::default() };
        self.write_through(Effects { state, ..Effects::default() }, extra).map_err(|fault| self.note(fault))
    }

    /// Brings everything into the tables and closes the files. Nobody can read after it. On a full disk the journal keeps
    /// what it has, for the next open.
    pub(crate) fn close(mut self) -> Result<()> {
        let written = self.close_journal().map_err(|fault| self.note(fault));
        self.checkpointer = None;
        let closed = self.tree.close();
        written.and(if self.full { Ok(()) } else { closed })
    }

    fn close_journal(&mut self) -> Result<(), Fault> {
        self.wait()?;
        if self.failed {
            return Ok(());
        }
        self.checkpoint()?;
        self.wait()
    }

    /// A principal's cutoff as it is now.
    fn cutoff(&self, principal: PrincipalRef) -> Result<Option<CutoffBytes>> {
        if let Some(cutoff) = self.layers.read().cutoff(principal.0) {
            return Ok(cutoff);
        }
        self.tree.retrying(|| {
            let transaction = self.tree.begin_read()?;
            let read = || -> Result<Option<CutoffBytes>, redb::Error> {
                Ok(transaction.open_table(CUTOFFS)?.get(principal.0)?.map(|record| *record.value()))
            };
            read().map_err(|error| failed("failed to read `store.redb`", error))
        })
    }
}
