//! The writer: turns everything that has changed into one batch, applies it, and lets it take effect.
//!
//! It knows the queue, cells, groups and the storage's writer. Invariants: a batch holds the state as it is when the
//! batch is built; a change made meanwhile is queued again by itself; sealing happens outside every lock; nobody is
//! told before the batch is durable and its groups have taken effect; after a failed batch nothing durable is ever
//! acknowledged again. A panic here poisons the engine, and whoever waits is told that the outcome is unknown.

use std::sync::Arc;

use super::Engine;
use super::cell::{Cell, Life};
use super::group::{Group, Kind};
use super::queue::{Failure, Pending, Swept};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::record::{Body, Header, PrincipalRef};
use crate::storage::{self, Batch, Put};

/// The writer's state; its owner, a thread or whoever drives the engine by hand, holds it alone.
#[derive(Debug)]
pub(crate) struct Machine {
    storage: Option<storage::Writer>,
    /// When the last batch was written, if the file has not been settled since.
    unsettled_since_ms: Option<u64>,
}

/// After this long without a write, the file is left so that the next start need not walk it.
const SETTLE_AFTER_MS: u64 = 2000;
/// Dead rows deleted in one batch when there is time: about a megabyte of pages at worst, so that a write which comes
/// in meanwhile does not wait long.
const SWEEP_MAX: usize = 16_384;
/// Dead rows that may ride in a batch somebody waits for.
const SWEEP_URGENT_MAX: usize = 16;

/// A batch, and what is to be done once it is durable.
#[derive(Debug, Default)]
struct Built {
    batch: Batch,
    saved: Vec<(Arc<Cell>, u64)>,
    groups: Vec<Arc<Group>>,
    swept: Vec<Swept>,
}

impl Machine {
    pub(crate) const fn new(storage: storage::Writer) -> Self {
        Self { storage: Some(storage), unsettled_since_ms: None }
    }

    /// Writes what is due. Returns when there will be something to do without a ring, in engine milliseconds.
    pub(crate) fn step(&mut self, engine: &Arc<Engine>, force: bool) -> Option<u64> {
        let now_ms = engine.clock.now_ms();
        match engine.queue.take(now_ms, force) {
            Ok(pending) => {
                self.write(engine, pending);
                // What came in meanwhile has rung, or set a time of its own.
                Some(engine.clock.now_ms())
            }
            Err(due_ms) => {
                let settle_ms = self.unsettled_since_ms.map(|since| since + SETTLE_AFTER_MS);
                if settle_ms.is_some_and(|settle| settle <= now_ms) {
                    self.settle(engine);
                    return due_ms;
                }
                [due_ms, settle_ms].into_iter().flatten().min()
            }
        }
    }

    fn settle(&mut self, engine: &Engine) {
        self.unsettled_since_ms = None;
        if let Some(Err(error)) = self.storage.as_mut().map(storage::Writer::settle) {
            engine.health.degrade(&error);
        }
    }

    fn write(&mut self, engine: &Arc<Engine>, mut pending: Pending) {
        let waiters = std::mem::take(&mut pending.waiters);
        match self.write_batch(engine, pending) {
            Ok(()) => waiters.into_iter().for_each(|waiter| waiter(Ok(()))),
            Err(failure) => waiters.into_iter().for_each(|waiter| waiter(Err(&failure))),
        }
    }

    fn write_batch(&mut self, engine: &Arc<Engine>, pending: Pending) -> Result<(), Failure> {
        let groups = pending.groups.clone();
        let built = engine.build(pending).and_then(|built| {
            engine.health.check_writable()?;
            if !built.batch.is_empty() {
                self.storage.as_mut().ok_or_else(super::health::closed)?.apply(&built.batch)?;
                self.unsettled_since_ms = Some(engine.clock.now_ms());
                engine.counters.commits.add(1);
            }
            Ok(built)
        });
        match built {
            Ok(built) => {
                engine.settle_built(built);
                Ok(())
            }
            Err(error) => {
                let failure = engine.health.degrade(&error);
                groups.iter().for_each(|group| engine.fail_group(group, &failure));
                Err(failure)
            }
        }
    }

    /// Writes everything that is left and closes the file.
    pub(crate) fn close(&mut self, engine: &Arc<Engine>) -> Result<()> {
        self.write(engine, engine.queue.take(0, true).unwrap_or_default());
        // Publishing may have queued a little more.
        self.write(engine, engine.queue.take(0, true).unwrap_or_default());
        let Some(mut storage) = self.storage.take() else { return Ok(()) };
        let last = Batch { touches: engine.touch_blocks(), replace_touches: true, ..engine.empty_batch() };
        let touched = if engine.health.check_writable().is_ok() { storage.apply(&last) } else { Ok(()) };
        let closed = storage.close();
        touched.and(closed)
    }
}

impl Engine {
    pub(super) fn empty_batch(&self) -> Batch {
        Batch {
            next_row: self.next_row.load(std::sync::atomic::Ordering::SeqCst),
            clock: self.clock.checkpoint(),
            ..Batch::default()
        }
    }

    /// Reads the state of everything that was queued.
    fn build(&self, mut pending: Pending) -> Result<Built> {
        let mut built = Built::default();
        for cell in std::mem::take(&mut pending.cells) {
            if let Some((put, version)) = self.snapshot(&cell)? {
                built.batch.puts.push(put);
                built.saved.push((cell, version));
            }
        }
        for group in std::mem::take(&mut pending.groups) {
            if group.is_killed() {
                self.abandon(&group, Error::gone());
            } else {
                self.build_group(&group, &mut built)?;
                built.groups.push(group);
            }
        }
        built.batch.ends_sessions |= !pending.dead.is_empty() || !pending.cutoffs.is_empty();
        built.batch.deletes.append(&mut pending.dead);
        self.build_sweep(&mut pending, &mut built);
        pending.cutoffs.sort_unstable();
        pending.cutoffs.dedup();
        built.batch.cutoffs =
            pending.cutoffs.iter().map(|&principal| (principal, self.cutoffs.resolve(principal))).collect();
        for principal in pending.emptied {
            // A group in this batch holds the principal, so its name cannot be dropped along with being put.
            if self.principals.lock(principal).drop_if_empty() {
                built.batch.principals.push((principal, None));
            }
        }
        let stamp = self.empty_batch();
        built.batch.next_row = stamp.next_row;
        built.batch.clock = stamp.clock;
        Ok(built)
    }

    fn snapshot(&self, cell: &Cell) -> Result<Option<(Put, u64)>> {
        let (header, header_pending, data, data_key, wrap, facts, version) = {
            let mut content = cell.lock();
            content.queued = false;
            self.queue.discharge(content.header.principal == PrincipalRef::NONE, content.charged);
            content.charged = 0;
            if content.life != Life::Live || content.memory_only {
                return Ok(None);
            }
            let pending = content.header_pending;
            let key = content.data_key.clone();
            (
                content.header,
                pending,
                Arc::clone(&content.data),
                key,
                content.wrap,
                content.facts.clone(),
                content.version,
            )
        };
        let data = self.keys.seal_data(cell.row, &data_key, &data, self.entropy.as_ref())?;
        let body = Body::encode(&[wrap], &facts, &data);
        Ok(Some((Put { row: cell.row, header: header_pending.then_some(header), body: Some(body) }, version)))
    }

    fn build_group(&self, group: &Arc<Group>, built: &mut Built) -> Result<()> {
        match &group.kind {
            Kind::SignIn { old, new, evicted, sealed_name } => {
                if let Some((put, version)) = self.snapshot(new)? {
                    built.batch.puts.push(put);
                    built.saved.push((Arc::clone(new), version));
                }
                built.batch.deletes.extend(old.iter().map(|old| old.row));
                built.batch.deletes.extend(evicted.iter().map(|&(row, _)| row));
                built.batch.ends_sessions |= old.is_some() || !evicted.is_empty();
                if self.principals.lock(group.principal()).claim_name() {
                    built.batch.principals.push((group.principal(), Some(sealed_name.clone())));
                }
            }
            Kind::Rotation { cell, header, wrap } => {
                if let Some((put, version)) = self.snapshot(cell)? {
                    // The latest data, under the new header and the new wrap. It comes after a put of the same row
                    // from the queue, so it is the one that counts.
                    built.batch.puts.push(self.rotated(put, header, wrap));
                    built.saved.push((Arc::clone(cell), version));
                }
                built.batch.ends_sessions = true;
            }
        }
        Ok(())
    }

    fn rotated(&self, put: Put, header: &Header, wrap: &crate::seal::Wrap) -> Put {
        let body =
            put.body.as_deref().and_then(Body::decode).map(|body| Body::encode(&[*wrap], &body.facts, &body.data));
        Put { row: put.row, header: Some(*header), body }
    }

    /// Takes as many dead rows along as there is time for, and puts the rest back.
    fn build_sweep(&self, pending: &mut Pending, built: &mut Built) {
        let mut swept = std::mem::take(&mut pending.swept);
        let max = if pending.urgent { SWEEP_URGENT_MAX } else { SWEEP_MAX };
        if swept.len() > max {
            // In row order, so that neighbours go in one range.
            swept.sort_unstable_by_key(|swept| swept.row);
            let rest = swept.split_off(max);
            self.queue.push_swept(rest, self.clock.now_ms());
        }
        built.batch.deletes.extend(swept.iter().map(|swept| swept.row));
        built.swept = swept;
    }

    /// The batch is durable: cells are clean as of the versions in it, groups take effect.
    fn settle_built(self: &Arc<Self>, built: Built) {
        {
            let mut unwritten = self.unwritten.lock();
            for put in &built.batch.puts {
                unwritten.remove(&put.row);
            }
        }
        for (cell, version) in built.saved {
            let mut content = cell.lock();
            content.durable = content.durable.max(version);
            content.header_pending = false;
        }
        built.groups.iter().for_each(|group| self.publish(group));
        let now_ms = self.clock.now_ms();
        for principal in built.swept.iter().filter_map(|swept| swept.cutoff) {
            if self.cutoffs.settle_outstanding(principal) {
                self.queue.push_cutoff(principal, now_ms);
            }
        }
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let kind = if error.kind() == ErrorKind::Unknown { ErrorKind::Unknown } else { ErrorKind::Storage };
        Self { kind, message: format!("{error:#}").into() }
    }
}
