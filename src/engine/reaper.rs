//! The reaper: takes expired sessions out of memory when the wheel says so.
//!
//! It knows the wheel and the index. Invariants: the wheel belongs to the reaper alone, so filing a session never
//! waits for it; whether a session is dead is judged by its deadlines at that moment, under the shard's write lock,
//! so a renewed one is never taken and an expired one never revived. Loads do not depend on it.
//!
//! # How many entries there can be
//!
//! An entry cannot be taken out of the wheel. A place that is used again inherits the entry that stands for it, if that
//! comes up in time; else it gets a second one, and the first is stale. So that this is rare and soon over, no entry is
//! filed further ahead than the *reach*: the shortest time that any session so far was given, but at least 64 s and at
//! most 4,096 s. A new session is then due no earlier than any entry that stands. Only sessions that are older than
//! their place's entry can be due before it: rotated ones near the end of their life, those restored at start, and those
//! with less than 64 s to live. Where they are many, a place gets no second entry once as many are stale as there are
//! places with one that is not, or 1,024; such a session is collected when the entry that stands comes up, at most one
//! reach late. Hence there are never more than two entries for each place there ever was, and 1,024; and what is stale
//! is gone after one reach.
//!
//! A place waits for the reaper in the list of unarmed slots once, however often it is used meanwhile.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Engine;
use super::cell::EndReason;
use super::end::Fate;
use super::slot::{Profiles, Slot, SlotId};
use super::wheel::{Timers, Visit, Wheel};
use crate::seal::Fingerprint;
use crate::storage::record::Row;
use crate::time::Tick;

/// The reaper's state.
#[derive(Debug)]
pub(crate) struct Machine {
    wheel: Wheel,
    /// New slots that are to be filed, the next one last.
    incoming: Vec<SlotId>,
    /// Places that have an entry on record; all other entries are stale.
    armed: usize,
}

/// Entries visited, and new slots filed, in one turn. Ending a session takes about a microsecond, so that is a quarter of
/// a millisecond.
const TURN_MAX: usize = 256;

/// New slots that may wait for the reaper's next turn, which can be a minute away.
const UNARMED_MAX: usize = 4096;

/// An entry is filed at most this far ahead, in seconds: a session that lives long is then looked at less than once an
/// hour, which costs nothing, and a stale entry is gone in little more than one.
const REACH_MAX: u32 = 4096;
/// And at least this far, in seconds, so that sessions of a few seconds do not make the reaper look at all others every
/// few seconds.
const REACH_MIN: u32 = 64;

/// Stale entries that there may be in any case.
const STALE_MIN: usize = 1024;

impl Machine {
    pub(crate) fn new(now: Tick) -> Self {
        Self { wheel: Wheel::new(now.0), incoming: Vec::new(), armed: 0 }
    }

    /// Files new sessions and ends expired ones, a bounded number. Returns the tick at which there may be more to do.
    pub(crate) fn step(&mut self, engine: &Engine) -> Option<Tick> {
        let now = engine.clock.now();
        if self.incoming.is_empty() {
            self.incoming = std::mem::take(&mut *engine.unarmed.lock());
        }
        for _ in 0..TURN_MAX {
            let Some(slot) = self.incoming.pop() else { break };
            self.arm(engine, slot, now);
        }
        let done = self.wheel.advance(now.0, TURN_MAX, &mut Due { engine, armed: &mut self.armed });
        if !done || !self.incoming.is_empty() {
            return Some(now);
        }
        // What is left when the wheel has caught up is due later; at the end of time it never is.
        self.wheel.next_wake().map(Tick).filter(|wake| *wake > now)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.wheel.bytes()
    }

    /// Files a slot unless an entry stands already: a place that is used again inherits one that comes up in time.
    fn arm(&mut self, engine: &Engine, id: SlotId, now: Tick) {
        let profiles = engine.index.profiles();
        let found = engine.index.slot_mut(id, |slot| {
            slot.answer();
            let due = slot.deadline(profiles);
            let wanted = slot.row() != Row(0) && !slot.is_armed_for(due);
            wanted.then_some((slot.armed != 0, due))
        });
        let Some((stands, due)) = found.flatten() else { return };
        let stale = self.wheel.len() - self.armed;
        if stands && stale >= self.armed.max(STALE_MIN) {
            return;
        }
        let armed = self.wheel.insert(id.0, within_reach(due, now, profiles).0);
        self.armed += usize::from(!stands);
        engine.index.slot_mut(id, |slot| slot.armed = armed);
    }
}

/// The tick to file an entry under.
fn within_reach(due: Tick, now: Tick, profiles: &Profiles) -> Tick {
    due.min(now.plus(profiles.shortest().clamp(REACH_MIN, REACH_MAX)))
}

struct Due<'a> {
    engine: &'a Engine,
    armed: &'a mut usize,
}

/// What there is to be done about an entry that has come up.
enum Found {
    Nothing,
    Later(Tick),
    Expired(Fingerprint, Row, super::slot::ListId),
}

impl Due<'_> {
    /// Looks at the place of an entry that is not stale: nothing pending there, later, or expired. The record of the
    /// entry is changed with it.
    fn look(&mut self, slot: &mut Slot, visit: Visit) -> Found {
        let (now, profiles) = (Tick(visit.now), self.engine.index.profiles());
        let deadline = slot.deadline(profiles);
        if slot.row() != Row(0) && deadline > now {
            let tick = within_reach(deadline, now, profiles);
            slot.armed = visit.armed(tick.0);
            return Found::Later(tick);
        }
        slot.armed = 0;
        *self.armed -= 1;
        if slot.row() == Row(0) {
            return Found::Nothing;
        }
        Found::Expired(Fingerprint(slot.fingerprint), slot.row(), slot.list())
    }
}

impl Timers for Due<'_> {
    fn due(&mut self, slot: u32, armed: u32, visit: Visit) -> Option<u32> {
        let (engine, id, now) = (self.engine, SlotId(slot), Tick(visit.now));
        let look = |slot: &mut Slot| if slot.armed == armed { self.look(slot, visit) } else { Found::Nothing };
        match engine.index.slot_mut(id, look)? {
            Found::Nothing => return None,
            Found::Later(tick) => return Some(tick.0),
            Found::Expired(fingerprint, row, list) => {
                let profiles = engine.index.profiles();
                // What the disk still says lives has to go before anything is acknowledged that counts on its being gone.
                let fate = |slot: &Slot| if slot.is_clipped() { Fate::Delete } else { Fate::Sweep(None) };
                let expired = |slot: &Slot| (slot.deadline(profiles) <= now).then(|| fate(slot));
                let mut locked = engine.principals.lock_list(list);
                if engine.end_locked(&mut locked, list, (fingerprint, row), EndReason::Expired, expired).is_some() {
                    engine.counters.expired.add(1);
                    return None;
                }
            }
        }
        // Touched since, or another's by now, which has called for the reaper if it needs one: look again.
        let again = engine.index.slot_mut(id, |slot| {
            (slot.row() != Row(0)).then(|| {
                let tick =
                    within_reach(slot.deadline(engine.index.profiles()).max(now.plus(1)), now, engine.index.profiles());
                slot.armed = visit.armed(tick.0);
                tick.0
            })
        });
        let again = again.flatten();
        *self.armed += usize::from(again.is_some());
        again
    }
}

impl Engine {
    /// Tells the reaper about a slot that was filed, unless an entry of the wheel comes up for it in time.
    pub(super) fn arm(&self, slot: SlotId) {
        let (profiles, wake) = (self.index.profiles(), Tick(self.reaper_wake.load(Ordering::Acquire)));
        if wake <= self.clock.now() {
            // It should be up already: the machine slept, and waits do not count that.
            self.reaper_bell.ring();
        }
        let called = self.index.slot_mut(slot, |slot| {
            let due = slot.deadline(profiles);
            (slot.row() != Row(0) && !slot.is_armed_for(due)).then(|| (due, slot.call()))
        });
        let Some((due, first)) = called.flatten() else { return };
        let waiting = {
            let mut unarmed = self.unarmed.lock();
            if first {
                unarmed.push(slot);
            }
            unarmed.len()
        };
        // Read again: the reaper may have gone to sleep since, without seeing this slot.
        if waiting >= UNARMED_MAX || due < Tick(self.reaper_wake.load(Ordering::Acquire)) {
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
