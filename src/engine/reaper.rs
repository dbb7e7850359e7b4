//! The reaper: takes expired sessions out of memory when the wheel says so.
//!
//! It knows the wheel and the index. Invariants: the wheel belongs to the reaper alone, so filing a session never
//! waits for it; whether a session is dead is judged by its deadlines at that moment, under the shard's write lock,
//! so a renewed one is never taken and an expired one never revived. Loads do not depend on it.

use std::sync::Arc;

use super::Engine;
use super::cell::EndReason;
use super::end::Fate;
use super::slot::{Slot, SlotId};
use super::wheel::{Timers, Wheel};
use crate::seal::Fingerprint;
use crate::storage::record::Row;
use crate::time::Tick;

/// The reaper's state.
#[derive(Debug)]
pub(crate) struct Machine {
    wheel: Wheel,
}

/// Entries visited in one turn, so that a turn takes well under a millisecond.
const TURN_MAX: usize = 1024;

/// New slots that may wait for the reaper's next turn, which can be an hour away.
const UNARMED_MAX: usize = 4096;

impl Machine {
    pub(crate) fn new(now: Tick) -> Self {
        Self { wheel: Wheel::new(now.0) }
    }

    /// Files new sessions and ends expired ones. Returns the tick at which there may be more to do.
    pub(crate) fn step(&mut self, engine: &Engine) -> Option<Tick> {
        let unarmed = std::mem::take(&mut *engine.unarmed.lock());
        for slot in unarmed {
            self.arm(engine, slot);
        }
        let now = engine.clock.now();
        let done = self.wheel.advance(now.0, TURN_MAX, &mut Due { engine });
        // What is left when the wheel has caught up is due later; at the end of time it never is.
        if done { self.wheel.next_wake().map(Tick).filter(|wake| *wake > now) } else { Some(now) }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.wheel.bytes()
    }

    /// Files a slot unless an entry that comes up in time stands already: a place that is used again inherits one.
    fn arm(&mut self, engine: &Engine, slot: SlotId) {
        let profiles = engine.index.profiles();
        let wanted = engine.index.slot(slot, |slot| {
            (slot.row() != Row(0)).then(|| slot.deadline(profiles).0).filter(|&due| slot.armed == 0 || due < slot.armed)
        });
        if let Some(due) = wanted.flatten() {
            let armed = self.wheel.insert(slot.0, due);
            engine.index.slot_mut(slot, |slot| slot.armed = armed);
        }
    }
}

struct Due<'a> {
    engine: &'a Engine,
}

impl Timers for Due<'_> {
    fn due(&mut self, slot: u32, armed: u32, now: u32) -> Option<u32> {
        let (engine, id) = (self.engine, SlotId(slot));
        let profiles = engine.index.profiles();
        let found = engine.index.slot_mut(id, |slot| {
            if slot.armed != armed {
                return None;
            }
            slot.armed = 0;
            (slot.row() != Row(0)).then(|| (Fingerprint(slot.fingerprint), slot.row(), slot.deadline(profiles).0))
        })?;
        let (fingerprint, row, deadline) = found?;
        if deadline > now {
            return Some(deadline);
        }
        // What the disk still says lives has to go before anything is acknowledged that counts on its being gone.
        let fate = |slot: &Slot| if slot.is_clipped() { Fate::Delete } else { Fate::Sweep(None) };
        let expired = |slot: &Slot| (slot.deadline(profiles).0 <= now).then(|| fate(slot));
        match engine.end_if(fingerprint, row, EndReason::Expired, expired) {
            Some(_) => {
                engine.counters.expired.add(1);
                None
            }
            // Touched since, or another's by now: file what stands there for when it is due.
            None => {
                engine.index.slot(id, |slot| (slot.row() != Row(0)).then(|| slot.deadline(profiles).0.max(now + 1)))?
            }
        }
    }

    fn filed(&mut self, slot: u32, armed: u32) {
        self.engine.index.slot_mut(SlotId(slot), |slot| slot.armed = armed);
    }
}

impl Engine {
    /// Tells the reaper about a slot that was filed.
    pub(super) fn arm(&self, slot: SlotId) {
        let waiting = {
            let mut unarmed = self.unarmed.lock();
            unarmed.push(slot);
            unarmed.len()
        };
        let profiles = self.index.profiles();
        let due = self.index.slot(slot, |slot| slot.deadline(profiles)).unwrap_or_default();
        if waiting >= UNARMED_MAX || due < Tick(self.reaper_wake.load(std::sync::atomic::Ordering::Acquire)) {
            self.reaper_bell.ring();
        }
    }

    /// Runs the reaper until it has caught up.
    pub(crate) fn reap(self: &Arc<Self>) {
        // Slice by slice, so that others get at the wheel in between.
        let step = || self.reaper.lock().step(self);
        while step().is_some_and(|wake| wake <= self.clock.now()) {}
    }
}
