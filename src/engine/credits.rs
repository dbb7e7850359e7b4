//! Putting credits into effect: in memory at once, and on disk with the next commit.
//!
//! It knows the index, the clock and storage's credits. Invariants: a credit is made in the writer's turn only, so no
//! group takes effect meanwhile; its number is known before the first slot is aged, and a cell that comes in from disk
//! is brought to the present frame under its shard's lock, so nobody meets one that was left behind; no last-seen times
//! are gathered meanwhile, so those of a block are of one frame.
//!
//! On a crash before the commit, the next start finds the same step, or reads the right wall clock at once.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;

use super::Engine;
use super::cell::Cell;
use crate::storage::credit::{Credit, Credits};
use crate::storage::record::{Header, Row};

/// The credits in force. A leaf lock.
#[derive(Debug)]
pub(crate) struct Ledger {
    credits: RwLock<Credits>,
    /// They are not on disk as they are here.
    changed: AtomicBool,
    /// And there is one among them that should be.
    urgent: AtomicBool,
}

impl Ledger {
    pub(crate) const fn new(credits: Credits) -> Self {
        Self { credits: RwLock::new(credits), changed: AtomicBool::new(false), urgent: AtomicBool::new(false) }
    }

    pub(crate) fn add(&self, credit: Credit) {
        self.credits.write().add(credit);
        self.changed.store(true, Ordering::Release);
        self.urgent.store(true, Ordering::Release);
    }

    /// Forgets credits that no row on disk needs; `oldest` is the first.
    pub(super) fn forget(&self, oldest: Option<Row>) {
        if self.credits.write().forget(oldest) {
            self.changed.store(true, Ordering::Release);
        }
    }

    /// What new headers carry.
    pub(super) fn frame(&self) -> u32 {
        self.credits.read().frame()
    }

    pub(super) fn all(&self) -> Credits {
        self.credits.read().clone()
    }

    /// Brings a header that waited for its commit to the present frame.
    pub(super) fn age(&self, row: Row, header: &mut Header) {
        self.credits.read().age(row, header);
    }

    pub(super) fn age_cell(&self, cell: &Cell) {
        self.age(cell.row, &mut cell.lock().header);
    }

    /// The record for the next commit, if it is not on disk yet.
    pub(super) fn take_changed(&self) -> Option<Credits> {
        self.changed.swap(false, Ordering::AcqRel).then(|| self.all())
    }

    /// The commit did not come to anything.
    pub(super) fn give_back(&self) {
        self.changed.store(true, Ordering::Release);
        self.urgent.store(true, Ordering::Release);
    }

    /// Whether a commit should be made for it. Asked once.
    pub(super) fn take_urgent(&self) -> bool {
        self.urgent.swap(false, Ordering::AcqRel)
    }
}

impl Engine {
    /// Looks at the wall clock, and ages what is older than this boot if more time had passed before it than was
    /// counted. Only in the writer's turn.
    pub(super) fn look_at_wall(&self) {
        let Some(credit) = self.clock.look() else { return };
        let gathering = self.touches.lock();
        self.ledger.add(credit);
        let sooner = self.index.age(&credit, &self.ledger.all());
        drop(gathering);
        if !sooner.is_empty() {
            self.unarmed.lock().extend(sooner);
            self.reaper_bell.ring();
        }
    }
}
