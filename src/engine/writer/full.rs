//! A full disk: what a batch had in it is put back, ends of sessions go on, and the writer looks for room.
//!
//! It knows the queue, groups and the storage's writer. Invariants: whoever waited for something new is told so and finds
//! everything as it was; a change that nobody waits for stays queued; a session that ends is dead in memory whatever the disk
//! does, and on disk before anybody is told; what cannot be written now is not tried again and again, but every
//! [`LOOK_MS`]; nothing of this makes the queue longer than it may be.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Built, Machine};
use crate::engine::Engine;
use crate::engine::cell::{Cell, Life};
use crate::engine::group::{Group, Kind};
use crate::engine::health::full;
use crate::engine::queue::{Answer, Failure, Pending, Queued};
use crate::error::Result;
use crate::storage::record::PrincipalRef;
use crate::storage::{Batch, Writer};

/// How often to look whether there is room again.
const LOOK_MS: u64 = 2000;

impl Machine {
    pub(super) fn is_full(&self) -> bool {
        self.storage.as_ref().is_some_and(Writer::is_full)
    }

    /// Takes note of what a checkpoint has found, and looks for room on a full disk from time to time. Returns when it will
    /// again.
    pub(super) fn look_for_room(&mut self, engine: &Engine) -> Option<u64> {
        let now_ms = engine.clock.now_ms();
        let is_due = self.look_again_ms.is_some_and(|due| due <= now_ms);
        let storage = self.storage.as_mut()?;
        let looked = storage
            .collect()
            .and_then(|()| if storage.is_full() && is_due { storage.look_for_room(false) } else { Ok(()) });
        if let Err(error) = looked {
            engine.health.degrade(&error);
        }
        self.note_room(engine);
        // Not at once after it was found full, so that what waits is not tried again and again.
        self.look_again_ms = match self.look_again_ms {
            _ if !self.is_full() => None,
            Some(due) if !is_due => Some(due),
            _ => Some(now_ms + LOOK_MS),
        };
        self.look_again_ms
    }

    /// Before the end: waits for what comes of it.
    pub(super) fn look_for_room_last(&mut self, engine: &Engine) -> Result<()> {
        let looked = self.storage.as_mut().map_or(Ok(()), |storage| storage.look_for_room(true));
        self.note_room(engine);
        looked
    }

    pub(super) fn note_room(&self, engine: &Engine) {
        if engine.health.set_full(self.is_full()) {
            // What waited is due.
            engine.queue.bell.ring();
        }
    }

    /// The disk had no room for a batch: puts everything back but ends, and writes those.
    pub(super) fn write_less(&mut self, engine: &Arc<Engine>, built: Built) -> Result<(), Failure> {
        self.note_room(engine);
        if built.batch.credits.is_some() {
            engine.ledger.give_back();
        }
        if !built.batch.touches.is_empty() {
            engine.touches_dropped.store(true, Ordering::Release);
        }
        let now_ms = engine.clock.now_ms();
        self.sweep.add(built.swept, Vec::new(), now_ms);
        let rows: Vec<_> = built.groups.iter().filter_map(|queued| queued.group.new_row()).collect();
        let mut pending = Pending::default();
        (pending.dead, pending.groups, pending.ends_sessions) = (built.dead, built.groups, built.ends_sessions);
        pending.cutoffs.extend(built.batch.cutoffs.iter().map(|&(principal, _)| principal));
        for (principal, name) in &built.batch.principals {
            match name {
                Some(_) => engine.principals.lock(*principal).disclaim_name(),
                None => _ = pending.emptied.insert(*principal),
            }
        }
        // A new session's cell is its group's, which comes to nothing.
        let changed = built.saved.into_iter().map(|(cell, _)| cell).filter(|cell| !rows.contains(&cell.row));
        changed.for_each(|cell| engine.queue_again(&cell, true));
        self.write_ends(engine, pending)
    }

    /// Of what is pending on a full disk writes the ends of sessions, as many as fit, and puts the rest back.
    pub(super) fn write_ends(&mut self, engine: &Arc<Engine>, mut pending: Pending) -> Result<(), Failure> {
        let now_ms = engine.clock.now_ms();
        engine.turn_down(std::mem::take(&mut pending.groups));
        for cell in pending.cells.drain(..) {
            if cell.lock().life == Life::Live {
                engine.queue.push_cell(cell, now_ms);
            } else {
                engine.dequeue(&mut cell.lock());
            }
        }
        self.sweep.add(pending.swept, pending.emptied.into_iter().collect(), now_ms);
        if !pending.touches.is_empty() {
            engine.touches_dropped.store(true, Ordering::Release);
        }
        let most = self.storage.as_ref().map_or(0, Writer::ends_max);
        let later_cutoffs = pending.cutoffs.split_off(pending.cutoffs.len().min(most / 4));
        let later_dead = pending.dead.split_off(pending.dead.len().min(most / 2));
        let is_all = later_cutoffs.is_empty() && later_dead.is_empty();
        let put_back = |dead: Vec<_>, cutoffs: Vec<PrincipalRef>| {
            dead.into_iter().for_each(|row| engine.queue.push_dead(row, now_ms));
            cutoffs
                .into_iter()
                .for_each(|principal| engine.queue.push_cutoff(principal, pending.ends_sessions, now_ms));
        };
        put_back(later_dead, later_cutoffs);
        let batch = Batch {
            cutoffs: engine.resolve_cutoffs(&mut pending.cutoffs),
            deletes: pending.dead,
            ends_sessions: pending.ends_sessions,
            ..engine.empty_batch()
        };
        let Some(storage) = self.storage.as_mut().filter(|_| !batch.is_empty()) else { return Ok(()) };
        let result = storage.apply(&batch);
        match result {
            Ok(()) => {
                self.is_stuck = false;
                self.note_commit(engine);
                engine.counters.commits.add(1);
                if is_all { Ok(()) } else { Err(Failure::from(&full())) }
            }
            Err(error) if self.is_clean() => {
                self.is_stuck = true;
                put_back(batch.deletes, pending.cutoffs);
                if batch.credits.is_some() {
                    engine.ledger.give_back();
                }
                Err(Failure::from(&error))
            }
            Err(error) => Err(engine.health.degrade(&error)),
        }
    }

    /// Whether the last error left everything as it was.
    pub(super) fn is_clean(&self) -> bool {
        self.storage.as_ref().is_some_and(|storage| !storage.has_failed())
    }
}

impl Engine {
    /// Tells everybody who waits for something new that there is no room for it.
    fn turn_down(&self, groups: Vec<Queued>) {
        for Queued { group, promise } in groups {
            self.abandon(&group);
            if let Some(cell) = Self::changed_of(&group) {
                self.queue_again(cell, false);
            }
            self.answers.push(Answer::Group(promise, Err(full())));
        }
    }

    /// The cell of a session that goes on as it was, and may have changes that were taken off the queue for the group.
    fn changed_of(group: &Group) -> Option<&Arc<Cell>> {
        match &group.kind {
            Kind::SignIn { old, .. } => old.as_ref(),
            Kind::Rotation { cell, .. } => Some(cell),
        }
    }

    /// Puts a cell back on the queue; one that is not surely changed only if it is.
    fn queue_again(&self, cell: &Arc<Cell>, is_changed: bool) {
        {
            let mut content = cell.lock();
            let goes = content.life == Life::Live && !content.memory_only && !content.queued;
            if !goes || !(is_changed || content.durable < content.version || content.is_header_pending()) {
                return;
            }
            content.queued = true;
            content.charged = content.data.len();
            self.queue.charge(content.header.principal == PrincipalRef::NONE, content.charged);
        }
        self.queue.push_cell(Arc::clone(cell), self.clock.now_ms());
    }
}
