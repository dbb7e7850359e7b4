//! Checkpoints: one redb transaction that brings what the journal holds into the tables.
//!
//! It knows redb's write side and the overlay. Invariants: rows, state and the journal's position become durable together;
//! a checkpoint reads nothing that changes meanwhile, so the writer goes on beside it. With threads it runs on one of its
//! own, and whoever started it gets the outcome over a channel; a panic in it is an outcome too.

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::overlay::Overlay;
use super::schema::{META, META_JOURNAL, META_KEYS, META_STATE};
use super::tables;
use super::tree::{Fault, Tree};
use crate::error::{Error, ErrorKind, Result};

type Outcome = Result<(), Fault>;

/// What a transaction is to do.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) tree: Arc<Tree>,
    /// The oldest first.
    pub(super) overlays: Vec<Arc<Overlay>>,
    /// Every session ends.
    pub(super) everything_ends: bool,
    /// The record of the store's own keys, if it changes.
    pub(super) keys: Option<Vec<u8>>,
    /// A server key all of whose rows go.
    pub(super) dropped_key: Option<u8>,
    pub(super) state: Vec<u8>,
    /// The record of the journal's position, where there is a journal.
    pub(super) position: Option<Vec<u8>>,
    /// The next open need not walk the file, even after a power cut.
    pub(super) quick_repair: bool,
}

impl Job {
    /// Blocks until it is durable.
    pub(super) fn run(&self) -> Result<(), Fault> {
        self.tree.write(self.quick_repair, &self.state, |transaction| self.fill(transaction))
    }

    fn fill(&self, transaction: &redb::WriteTransaction) -> tables::Filled {
        for overlay in &self.overlays {
            tables::fill(transaction, overlay)?;
        }
        // After that, because cutoffs that are new stay.
        if self.everything_ends {
            tables::delete_everything(transaction)?;
        }
        if let Some(id) = self.dropped_key {
            tables::delete_of_key(transaction, id)?;
        }
        let mut meta = transaction.open_table(META)?;
        if let Some(keys) = &self.keys {
            meta.insert(META_KEYS, keys.as_slice())?;
        }
        meta.insert(META_STATE, self.state.as_slice())?;
        if let Some(position) = &self.position {
            meta.insert(META_JOURNAL, position.as_slice())?;
        }
        Ok(())
    }
}

/// The thread that runs checkpoints, one at a time.
#[derive(Debug)]
pub(super) struct Checkpointer {
    /// Dropped first when the thread is to end.
    jobs: Option<Sender<Job>>,
    outcomes: Receiver<Outcome>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    /// `ring` is called after each outcome, so that somebody comes for it.
    pub(super) fn start(ring: impl Fn() + Send + 'static) -> Result<Self> {
        let (jobs, to_do) = bounded::<Job>(1);
        let (done, outcomes) = bounded(1);
        let body = move || {
            for job in to_do {
                let run = std::panic::AssertUnwindSafe(|| job.run());
                let panicked = |_| Err(broken("a checkpoint panicked"));
                let outcome = std::panic::catch_unwind(run).unwrap_or_else(panicked);
                // What it was made of goes before the outcome is known: memory is given back by then.
                drop(job);
                if done.send(outcome).is_err() {
                    return;
                }
                ring();
            }
        };
        let thread = std::thread::Builder::new().name("dwell-checkpoint".to_owned()).spawn(body);
        let failed = |error| Error::new(ErrorKind::Storage, "failed to start a worker thread").because(error);
        Ok(Self { jobs: Some(jobs), outcomes, thread: Some(thread.map_err(failed)?) })
    }

    pub(super) fn begin(&self, job: Job) {
        // There is room, because one is begun only after the outcome of the one before.
        _ = self.jobs.as_ref().map(|jobs| jobs.send(job));
    }

    /// The outcome of what was begun: when it is there, or `None` if it is not yet and `wait` is not set.
    pub(super) fn outcome(&self, wait: bool) -> Option<Outcome> {
        let gone = || Err(broken("the checkpoint's thread is gone"));
        if wait { Some(self.outcomes.recv().unwrap_or_else(|_| gone())) } else { self.outcomes.try_recv().ok() }
    }
}

fn broken(what: &'static str) -> Fault {
    Fault::Broken(Error::new(ErrorKind::Storage, what))
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.jobs = None;
        // It contains its panics.
        _ = self.thread.take().map(JoinHandle::join);
    }
}
