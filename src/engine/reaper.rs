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
use super::end::Fate;
use super::events::Why;
use super::slot::{Profiles, Slot, SlotId};
use super::wheel::{Timers, Visit, Wheel};
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
    Expired(Row, super::slot::ListId),
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
        Found::Expired(slot.row(), slot.list())
    }
}

impl Timers for Due<'_> {
    fn due(&mut self, slot: u32, armed: u32, visit: Visit) -> Option<u32> {
        let (engine, id, now) = (self.engine, SlotId(slot), Tick(visit.now));
        let look = |slot: &mut Slot| if slot.armed == armed { self.look(slot, visit) } else { Found::Nothing };
        match engine.index.slot_mut(id, look)? {
            Found::Nothing => return None,
            Found::Later(tick) => return Some(tick.0),
            Found::Expired(row, list) => {
                let profiles = engine.index.profiles();
                // What the disk still says lives has to go before anything is acknowledged that counts on its being gone.
                let fate = |slot: &Slot| if slot.is_clipped() { Fate::Delete } else { Fate::Sweep(None) };
                let why = |slot: &Slot| if slot.is_at_end_of_life(profiles) { Why::Lifetime } else { Why::Idle };
                let expired = |slot: &Slot| (slot.deadline(profiles) <= now).then(|| (why(slot), fate(slot)));
                let mut locked = engine.principals.lock_list(list);
                if engine.end_locked(&mut locked, list, (id, row), expired).is_some() {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::engine::slot::ListId;
    use crate::options::Options;
    use crate::seal::Fingerprint;
    use crate::storage::disk::SimDisk;
    use crate::storage::record::{ClassByte, Header, PrincipalRef};
    use crate::time::ManualClock;
    use crate::token::OsEntropy;

    /// An engine whose sessions are filed as the engine files them, without tokens and data.
    struct World {
        engine: Arc<Engine>,
        clock: ManualClock,
        next_row: u64,
        /// Deadline and slot of what lives, by fingerprint and row.
        live: BTreeMap<([u8; 16], u64), u32>,
        random: u64,
    }

    impl World {
        fn new() -> Self {
            let clock = ManualClock::new();
            let settings = Options::new().clock(clock.clone()).manual_workers().check().unwrap();
            let disk: Arc<dyn crate::storage::disk::Disk> = Arc::new(SimDisk::memory());
            let (engine, _) = Engine::open(&disk, settings, Arc::new(OsEntropy)).unwrap();
            // So that a session can be older than the store.
            clock.advance(Duration::from_secs(10_000));
            engine.reap();
            Self { engine, clock, next_row: 1, live: BTreeMap::new(), random: 42 }
        }

        fn below(&mut self, bound: u64) -> u64 {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            self.random % bound
        }

        fn now(&self) -> u32 {
            self.engine.clock.now().0
        }

        /// Files a session of this life that began some time ago, in one of a few shards, so that places are used again.
        fn file(&mut self, idle: u32, lifetime: u32, ago: u32) -> [u8; 16] {
            let row = self.next_row;
            self.next_row += 1;
            let mut fingerprint = [0; 16];
            fingerprint[..8].copy_from_slice(&(row.wrapping_mul(0x9E37_79B9_7F4A_7C15)).to_le_bytes());
            fingerprint[15] = u8::try_from(self.below(4)).unwrap();
            let now = self.now();
            let header = Header {
                key_id: 1,
                class: ClassByte::Anonymous,
                remembered: false,
                method: 0,
                generation: 0,
                step: 0,
                created: Tick(now.saturating_sub(ago)),
                authenticated: Tick(0),
                absolute: Tick(now.saturating_sub(ago) + lifetime),
                idle,
                last_seen: Tick(now),
                created_wall: self.engine.clock.wall(),
                fingerprint: Fingerprint(fingerprint),
                other_key: 0,
                other: Fingerprint::NONE,
                overlap: Tick(0),
                principal: PrincipalRef::NONE,
                external: 0,
                door: 0,
                frame: 0,
            };
            let mut locked = self.engine.principals.lock_anonymous();
            let slot = self.engine.file(Row(row), &header, ListId::ANONYMOUS, None, false).unwrap();
            locked.link(&self.engine.index, slot);
            drop(locked);
            self.engine.arm(slot);
            self.live.insert((fingerprint, row), header.absolute.0.min(now + idle));
            fingerprint
        }

        fn end_one(&mut self) {
            let at = self.below(self.live.len().max(1) as u64);
            if let Some((fingerprint, row)) = self.live.keys().nth(usize::try_from(at).unwrap()).copied() {
                self.live.remove(&(fingerprint, row));
                assert!(self.engine.end(Fingerprint(fingerprint), Row(row), Why::SignedOut, Fate::Deleted));
            }
        }

        fn touch_one(&mut self, idle: u32, lifetime: u32) {
            let at = self.below(self.live.len().max(1) as u64);
            let now = self.now();
            if let Some((&(fingerprint, row), deadline)) = self.live.iter_mut().nth(usize::try_from(at).unwrap()) {
                let touched = self.engine.index.touch(Fingerprint(fingerprint), Row(row), Tick(now));
                assert_eq!(touched, now < *deadline);
                if touched && lifetime > idle {
                    *deadline = (*deadline).max(now + idle);
                }
            }
        }

        fn advance(&mut self, seconds: u32) {
            self.clock.advance(Duration::from_secs(seconds.into()));
            self.engine.reap();
        }

        /// Entries in the wheel, and places that there ever were.
        fn entries(&self) -> (usize, usize) {
            let machine = self.engine.reaper.lock();
            let places = (0..4).map(|shard| self.engine.index.places(shard)).sum();
            let armed = (0..4).flat_map(|shard| (0..self.engine.index.places(shard)).map(move |place| (shard, place)));
            let armed = armed.filter(|&(shard, place)| {
                let id = SlotId(u32::try_from(place).unwrap() << 8 | shard);
                self.engine.index.slot(id, |slot| slot.armed != 0).unwrap()
            });
            assert_eq!(machine.armed, armed.count(), "places with an entry on record");
            (machine.wheel.len(), places)
        }

        /// After the reaper has caught up: exactly what lives is filed.
        fn check(&mut self) {
            let now = self.now();
            self.live.retain(|_, deadline| *deadline > now);
            assert_eq!(self.engine.live() as usize, self.live.len(), "at {now}");
        }
    }

    #[test]
    fn whatever_mix_of_sessions_every_one_is_collected_in_its_tick_and_not_before() {
        let mut world = World::new();
        for round in 0..3000 {
            for _ in 0..world.below(8) {
                match world.below(4) {
                    0 => world.file(1800, 1800, 0),
                    // Rotated near the end of its life, into whatever place is free.
                    1 => world.file(1800, 1800, 1795),
                    2 => world.file(300, 300, 0),
                    _ => world.file(5, 5, 0),
                };
            }
            for _ in 0..world.below(5) {
                world.end_one();
            }
            let step = match round % 40 {
                0 => 1700,
                1 => 100_000_000 / 3000,
                _ => u32::try_from(world.below(3)).unwrap(),
            };
            world.advance(step);
            world.check();
            let (entries, places) = world.entries();
            assert!(entries <= 2 * places + STALE_MIN, "{entries} entries for {places} places");
        }
    }

    #[test]
    fn used_sessions_are_collected_when_their_last_use_says() {
        let mut world = World::new();
        for _ in 0..2000 {
            world.file(600, 1_000_000, 0);
            world.touch_one(600, 1_000_000);
            let step = u32::try_from(world.below(4)).unwrap();
            world.advance(step);
            world.check();
        }
        assert!(world.live.len() > 100);
    }

    #[test]
    fn places_used_again_and_again_for_sessions_near_their_end_do_not_pile_up_entries() {
        let mut world = World::new();
        let (mut most, mut late) = (0, 0);
        for _ in 0..40 {
            for lifetime in [4000, 10] {
                // Far ahead, which leaves an entry there; then due before that.
                let count = if lifetime == 10 { 2990 } else { 3000 };
                for _ in 0..count {
                    world.file(4000, 4000, 4000 - lifetime);
                }
                world.engine.reap();
                let (entries, places) = world.entries();
                assert!(entries <= places + places.max(STALE_MIN), "{entries} entries for {places} places");
                most = most.max(entries);
                let left = if lifetime == 10 { 5 } else { 0 };
                (left..count).for_each(|_| world.end_one());
            }
            world.advance(11);
            world.live.clear();
            late = late.max(world.engine.live());
        }
        assert!(most > 5000 && late > 0, "the bound was not put to the test: {most}, {late}");
        // What is late is late by one reach at most, and what is stale is gone by then.
        world.advance(REACH_MAX);
        world.check();
        assert_eq!(world.entries().0, 0);
    }

    #[test]
    fn one_reach_later_every_place_in_use_has_one_entry_and_no_other_has_any() {
        let mut world = World::new();
        let month = 30 * 24 * 3600;
        world.file(1800, 1800, 0);
        for _ in 0..500 {
            world.file(month, month, 0);
        }
        world.engine.reap();
        (0..400).for_each(|_| world.end_one());
        // Due before what stands for their places, used again when they have ended, so that more than one entry stands.
        for _ in 0..300 {
            world.file(1800, 1800, 1795);
        }
        world.engine.reap();
        (0..350).for_each(|_| world.end_one());
        for _ in 0..200 {
            world.file(month, month, 0);
        }
        world.advance(6);
        world.check();
        assert!(world.entries().0 > world.live.len());
        // In small steps and then at once, so that nothing is filed twice in between.
        (0..50).for_each(|_| world.advance(40));
        world.check();
        assert_eq!(world.entries().0, world.live.len());
        assert!(world.live.len() > 100);
    }

    #[test]
    fn a_place_waits_for_the_reaper_once_however_often_it_is_used() {
        let mut world = World::new();
        for _ in 0..10_000 {
            world.file(1800, 1800, 0);
            world.end_one();
        }
        let waiting = world.engine.unarmed.lock().len();
        assert!(waiting <= 4, "{waiting} for one place in each of four shards");
    }

    #[test]
    fn a_session_that_is_due_before_the_reaper_means_to_wake_wakes_it() {
        let mut world = World::new();
        let rung = |world: &World| world.engine.reaper_bell.take_ring();
        let sleep_until = |world: &World, tick: u32| world.engine.reaper_wake.store(tick, Ordering::SeqCst);
        let now = world.now();
        world.file(7200, 7200, 0);
        world.engine.reap();
        rung(&world);
        sleep_until(&world, now + 3600);
        world.file(7200, 7200, 0);
        assert!(!rung(&world), "nothing to do before it wakes by itself");
        world.file(4000, 4000, 0);
        assert!(rung(&world), "it ends later, but its renewals may not wait for so long");
        world.file(4000, 4000, 0);
        assert!(!rung(&world), "which the reaper knows by now");
        world.file(1, 1, 0);
        assert!(rung(&world), "due in a second");
        // The machine slept, and the reaper's wait has not counted it.
        world.advance(0);
        world.clock.advance(Duration::from_secs(4000));
        rung(&world);
        world.file(7200, 7200, 0);
        assert!(rung(&world), "it should be up");
    }

    #[test]
    fn a_turn_is_bounded_whatever_came_up() {
        let mut world = World::new();
        for _ in 0..10 * TURN_MAX {
            world.file(1800, 1800, 0);
        }
        let turns = |world: &World| {
            let mut turns = 0;
            while world.engine.reaper.lock().step(&world.engine).is_some_and(|wake| wake <= world.engine.clock.now()) {
                turns += 1;
            }
            turns
        };
        assert!(turns(&world) >= 8, "new slots are filed a few at a time");
        let before = world.engine.live() as usize;
        world.clock.advance(Duration::from_secs(1800));
        world.engine.reaper.lock().step(&world.engine);
        assert!(before - world.engine.live() as usize <= TURN_MAX);
        assert!(turns(&world) >= 8);
        assert_eq!(world.engine.live(), 0);
    }
}
