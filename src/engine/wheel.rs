//! The timing wheel: which engine slots may have a deadline by now.
//!
//! **What lives here.** A hierarchical timing wheel (Varghese and Lauck, "Hashed and Hierarchical Timing Wheels",
//! SOSP 1987, scheme 7): four levels of 64 slots, one second, 64 seconds, 4,096 seconds and 262,144 seconds wide, and
//! an overflow list for everything past the 64⁴ ticks (194 days) they span. An entry is only the `u32` of an engine
//! slot, so a million armed sessions cost about four megabytes. There is no cancel and no unlink: a touch stays in the
//! entry's owner, and when the entry comes up the wheel asks the owner, through [`Timers`], whether its deadline has
//! moved.
//!
//! **What it may know.** Integers. Ticks are whole seconds of engine time and always arrive as an argument; sessions,
//! clocks, locks and threads belong to the caller.
//!
//! **Invariants.**
//! - The wheel holds what it was given and no more: an entry leaves it only by coming up. So its memory is bounded by
//!   whoever inserts; the reaper's head says how.
//! - A slot holds entries of one span of ticks, and the span's first tick is their `armed`: an entry comes up at its
//!   deadline or earlier, never later, and one that is early is filed again closer to it.
//! - Every filed entry has `armed > elapsed`, where `elapsed` is wheel time. The level is chosen by the highest group
//!   of six bits in which the tick differs from `elapsed`. So a level holds only slots after its current one, no level
//!   wraps around, each level lies wholly before the next, and the earliest span is the lowest bit of the lowest mask
//!   that is not zero.
//! - A bit of a mask is set exactly when its slot holds an entry.
//! - [`LAST_TICK`] is the end of wheel time. A deadline past it, `u32::MAX`, means never: its entry stays in the wheel.
//!
//! **On panic.** Nothing here panics by itself, debug assertions aside. When a [`Timers`] call panics, the one entry
//! being visited may be gone and the wheel is otherwise whole. Nothing is on disk: after a crash the wheel is built
//! again from stored deadlines.

use std::mem;

/// The owner of what the wheel's entries stand for.
pub(crate) trait Timers {
    /// The entry of `slot`, filed to come up at `armed`, has come up; wheel time is `visit.now`.
    ///
    /// Returns the tick to file it under again, later than `now`, and then records what [`Visit::armed`] says of it; or
    /// `None` when nothing is pending for it any more: expired and ended by the owner, freed, or stale because the
    /// owner's record of `armed` differs. Unless the entry is stale, the record changes with this call: a stale entry of
    /// the same slot may stand under the same tick, and must then find a record that differs.
    fn due(&mut self, slot: u32, armed: u32, visit: Visit) -> Option<u32>;
}

/// The moment of a visit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Visit {
    pub(crate) now: u32,
    elapsed: u32,
}

impl Visit {
    /// When an entry that is filed during the visit comes up, so that the owner can record it in the same go.
    pub(crate) fn armed(self, tick: u32) -> u32 {
        placement(self.elapsed, tick).1
    }
}

/// A hierarchical timing wheel of engine slots.
#[derive(Debug)]
pub(crate) struct Wheel {
    /// Wheel time: spans up to and including this tick have been taken out of their slots.
    elapsed: u32,
    /// Entries held, those in `drain` included.
    len: usize,
    /// What has come up and waits to be visited.
    drain: List,
    /// The `armed` of every entry in `drain`.
    drain_armed: u32,
    levels: [Level; LEVELS as usize],
    /// Entries past the top level's span. They come up together when wheel time enters the next one.
    overflow: List,
    spare: Spare,
}

impl Wheel {
    /// An empty wheel at time `now`. Holds no heap memory until the first entry.
    pub(crate) fn new(now: u32) -> Self {
        Self {
            elapsed: now.min(LAST_TICK),
            len: 0,
            drain: List::default(),
            drain_armed: 0,
            levels: [Level::new(0), Level::new(1), Level::new(2), Level::new(3)],
            overflow: List::default(),
            spare: Spare::default(),
        }
    }

    /// Files an entry and returns the tick at which it comes up, which the caller records.
    ///
    /// That is `tick` or, at a coarse level, the start of the span around it. A `tick` that wheel time has already
    /// reached comes up one tick after wheel time: at the first `advance` with a later `now`. While an `advance` is
    /// paused by its budget, wheel time may be anywhere up to its `now`.
    pub(crate) fn insert(&mut self, slot: u32, tick: u32) -> u32 {
        self.len += 1;
        self.file(slot, tick)
    }

    /// Moves wheel time up to `now`, visiting at most `budget` entries.
    ///
    /// Returns true when it caught up, false when entries are left: call again with the same or a later `now`. An
    /// earlier `now` counts as wheel time, one past [`LAST_TICK`] as that. The cost is the entries visited; empty slots
    /// cost nothing, however far `now` is. Within one call, entries come up in no particular order.
    pub(crate) fn advance(&mut self, now: u32, budget: usize, timers: &mut impl Timers) -> bool {
        let now = now.clamp(self.elapsed, LAST_TICK);
        let mut budget_left = budget;
        loop {
            while budget_left > 0 {
                let Some(slot) = self.drain.pop(&mut self.spare) else { break };
                budget_left -= 1;
                self.visit(slot, now, timers);
            }
            if !self.drain.is_empty() {
                return false;
            }
            if !self.take_span(now) {
                self.elapsed = now;
                return true;
            }
        }
    }

    /// The earliest tick at which anything may come up, `None` when empty. Never later than the earliest deadline,
    /// and not later than wheel time while a paused `advance` has entries left.
    pub(crate) fn next_wake(&self) -> Option<u32> {
        if !self.drain.is_empty() {
            return Some(self.drain_armed);
        }
        let in_levels = self.levels.iter().find_map(|level| level.earliest(self.elapsed));
        in_levels.map(|span| span.first).or_else(|| (!self.overflow.is_empty()).then(|| horizon(self.elapsed)))
    }

    /// Entries held, stale ones included.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Whether no entry is held.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Heap bytes held: the chunks of all lists and a bounded number of spare ones.
    pub(crate) fn bytes(&self) -> usize {
        let slots = self.levels.iter().flat_map(|level| &level.slots);
        let lists = slots.chain([&self.drain, &self.overflow]);
        lists.map(|list| chunk_bytes(&list.chunks)).sum::<usize>() + chunk_bytes(&self.spare.chunks)
    }

    /// Asks the owner about one entry that has come up and files it again if its deadline has moved.
    fn visit(&mut self, slot: u32, now: u32, timers: &mut impl Timers) {
        // The entry is out before the owner runs, so that a panic there cannot make it come up twice.
        self.len -= 1;
        if let Some(tick) = timers.due(slot, self.drain_armed, Visit { now, elapsed: self.elapsed }) {
            debug_assert!(tick > now, "slot {slot} is filed again under {tick}, which {now} has reached");
            self.insert(slot, tick);
        }
    }

    /// Puts an entry into the list for `tick` and returns the tick at which that list comes up.
    fn file(&mut self, slot: u32, tick: u32) -> u32 {
        let (height, armed) = placement(self.elapsed, tick);
        match self.levels.get_mut(height as usize) {
            Some(level) => level.push(slot, armed, &mut self.spare),
            None => self.overflow.push(slot, &mut self.spare),
        }
        armed
    }

    /// Moves the earliest span that has come up by `now` into `drain`; false when there is none.
    ///
    /// Wheel time moves to the end of the span, or to `now` inside it, rather than to its start: all that lies there
    /// is in `drain`, and what is filed again after a long jump goes straight to its final level. The overflow is the
    /// last span and reaches to the end of time.
    fn take_span(&mut self, now: u32) -> bool {
        debug_assert!(self.drain.is_empty(), "a span is taken while the last one is not drained");
        let (elapsed, horizon) = (self.elapsed, horizon(self.elapsed));
        let in_levels = self.levels.iter_mut().find_map(|level| Some((level.earliest(elapsed)?, level)));
        let (span, list) = match in_levels {
            Some((span, level)) if span.first <= now => (span, level.take_earliest()),
            None if horizon <= now && !self.overflow.is_empty() => {
                (Span { first: horizon, last: LAST_TICK }, mem::take(&mut self.overflow))
            }
            _ => return false,
        };
        debug_assert!(span.first > elapsed, "{span:?} comes up behind wheel time {elapsed}");
        self.drain = list;
        self.drain_armed = span.first;
        self.elapsed = now.min(span.last);
        true
    }
}

/// The level for a tick, given wheel time, and the tick at which its entry comes up there: the start of its span.
fn placement(elapsed: u32, tick: u32) -> (u32, u32) {
    // At least one past wheel time, hence the two differ in some bit and the logarithm exists.
    let tick = tick.max(elapsed + 1);
    let height = (tick ^ elapsed).ilog2() / SLOT_BITS;
    let armed = if height < LEVELS { tick & (u32::MAX << (height * SLOT_BITS)) } else { horizon(elapsed) };
    (height, armed)
}

/// The first tick past the top level, where the overflow comes up. Meaningful only while the overflow is not
/// empty; then a later tick exists and the sum cannot saturate.
const fn horizon(elapsed: u32) -> u32 {
    (elapsed | SPAN_MASK).saturating_add(1)
}

/// The ticks of one slot, both ends included.
#[derive(Debug, Clone, Copy)]
struct Span {
    first: u32,
    last: u32,
}

/// 64 slots of equal width and the mask of those that hold entries.
#[derive(Debug)]
struct Level {
    /// The binary logarithm of the width of a slot in ticks.
    shift: u32,
    occupied: u64,
    slots: [List; SLOTS],
}

impl Level {
    const fn new(height: u32) -> Self {
        Self { shift: height * SLOT_BITS, occupied: 0, slots: [const { List { chunks: Vec::new() } }; SLOTS] }
    }

    /// Files an entry in the slot around `tick`.
    fn push(&mut self, slot: u32, tick: u32, spare: &mut Spare) {
        let index = (tick >> self.shift) & SLOT_MASK;
        self.occupied |= 1 << index;
        self.slot_mut(index).push(slot, spare);
    }

    /// The span of the first occupied slot, given wheel time.
    fn earliest(&self, elapsed: u32) -> Option<Span> {
        if self.occupied == 0 {
            return None;
        }
        // All entries of a level share the bits above its index with wheel time: see the invariants.
        let base = elapsed & (u32::MAX << (self.shift + SLOT_BITS));
        let first = base | (self.occupied.trailing_zeros() << self.shift);
        Some(Span { first, last: first | !(u32::MAX << self.shift) })
    }

    /// Empties the first occupied slot; an empty list when there is none.
    fn take_earliest(&mut self) -> List {
        let list = mem::take(self.slot_mut(self.occupied.trailing_zeros() & SLOT_MASK));
        // Clears the lowest bit that is set.
        self.occupied &= self.occupied.wrapping_sub(1);
        list
    }

    fn slot_mut(&mut self, index: u32) -> &mut List {
        self.slots.get_mut((index & SLOT_MASK) as usize).expect("an index of six bits is below 64")
    }
}

/// A bag of entries in chunks: grows at the end, drains from the end, and costs three words while it is empty.
#[derive(Debug, Default)]
struct List {
    /// All full but the last, and none empty.
    chunks: Vec<Vec<u32>>,
}

impl List {
    fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    fn push(&mut self, slot: u32, spare: &mut Spare) {
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK_ENTRIES => chunk.push(slot),
            _ => {
                let mut chunk = spare.take();
                chunk.push(slot);
                self.chunks.push(chunk);
            }
        }
    }

    fn pop(&mut self, spare: &mut Spare) -> Option<u32> {
        let chunk = self.chunks.last_mut()?;
        let slot = chunk.pop();
        if chunk.is_empty() {
            spare.put(self.chunks.pop());
        }
        slot
    }
}

/// Empty chunks, kept so that a cascade moves entries between lists without the allocator.
#[derive(Debug, Default)]
struct Spare {
    chunks: Vec<Vec<u32>>,
}

impl Spare {
    fn take(&mut self) -> Vec<u32> {
        self.chunks.pop().unwrap_or_else(|| Vec::with_capacity(CHUNK_ENTRIES))
    }

    /// Keeps an empty chunk, or frees it when enough are kept.
    fn put(&mut self, chunk: Option<Vec<u32>>) {
        if self.chunks.len() < SPARE_CHUNKS_MAX {
            self.chunks.extend(chunk);
        }
    }
}

fn chunk_bytes(chunks: &Vec<Vec<u32>>) -> usize {
    chunks.capacity() * size_of::<Vec<u32>>() + chunks.len() * CHUNK_ENTRIES * size_of::<u32>()
}

/// The end of wheel time. One short of the largest tick, so that a tick after wheel time always exists.
const LAST_TICK: u32 = u32::MAX - 1;

const LEVELS: u32 = 4;

/// Six bits of the tick choose a slot, because a mask of 64 slots is one machine word.
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const SLOT_MASK: u32 = (1 << SLOT_BITS) - 1;
const _: () = assert!(SLOTS == u64::BITS as usize, "an occupancy mask has one bit for each slot");

/// The bits of a tick that the levels tell apart.
const SPAN_MASK: u32 = (1 << (SLOT_BITS * LEVELS)) - 1;

/// Entries in a chunk: 1 KiB. The 24 bytes that hold a full chunk are then 2 % of it, and the partly filled last
/// chunks of all 256 slots waste 128 KiB on average; larger chunks would waste more than they save.
const CHUNK_ENTRIES: usize = 256;

/// Spare chunks kept (64 KiB): one for each slot of a level, as many as one cascade can ask for at once.
const SPARE_CHUNKS_MAX: usize = SLOTS;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const UNLIMITED: usize = usize::MAX;

    /// The naive list: deadlines and recorded `armed` by slot, and every entry that should stand in the wheel.
    #[derive(Debug, Default)]
    struct Owner {
        deadlines: Vec<Option<u32>>,
        armed: Vec<Option<u32>>,
        /// How many entries stand under (armed, slot).
        standing: BTreeMap<(u32, u32), usize>,
        fired: Vec<(u32, u32)>,
        visits: usize,
    }

    impl Owner {
        fn new(slots: usize) -> Self {
            Self { deadlines: vec![None; slots], armed: vec![None; slots], ..Self::default() }
        }

        fn filed(&mut self, slot: u32, armed: u32) {
            *self.standing.entry((armed, slot)).or_default() += 1;
            self.armed[slot as usize] = Some(armed);
        }

        /// The earliest tick at which each live deadline can fire.
        fn live(&self) -> impl Iterator<Item = u32> {
            self.deadlines.iter().zip(&self.armed).filter_map(|(deadline, armed)| {
                deadline.map(|deadline| deadline.max(armed.expect("a live deadline has an entry")))
            })
        }
    }

    impl Timers for Owner {
        fn due(&mut self, slot: u32, armed: u32, visit: Visit) -> Option<u32> {
            let now = visit.now;
            assert!(armed <= now, "slot {slot} armed at {armed} came up at {now}");
            let count = self.standing.get_mut(&(armed, slot)).expect("only what stands comes up, and only once");
            *count -= 1;
            if *count == 0 {
                self.standing.remove(&(armed, slot));
            }
            self.visits += 1;
            let index = slot as usize;
            if self.armed[index] != Some(armed) {
                return None;
            }
            self.armed[index] = None;
            let deadline = self.deadlines[index]?;
            if deadline > now {
                self.filed(slot, visit.armed(deadline));
                return Some(deadline);
            }
            self.deadlines[index] = None;
            self.fired.push((slot, now));
            None
        }
    }

    /// A wheel, its owner, and the latest `now` it was told.
    #[derive(Debug)]
    struct World {
        wheel: Wheel,
        owner: Owner,
        now: u32,
    }

    impl World {
        fn new(now: u32, slots: usize) -> Self {
            Self { wheel: Wheel::new(now), owner: Owner::new(slots), now }
        }

        /// Sets a deadline the way the engine does: a pending entry that is early enough is inherited.
        fn set(&mut self, slot: u32, deadline: u32) {
            self.owner.deadlines[slot as usize] = Some(deadline);
            if self.owner.armed[slot as usize].is_some_and(|armed| armed <= deadline) {
                return;
            }
            let armed = self.wheel.insert(slot, deadline);
            let latest = deadline.max(self.now.min(LAST_TICK) + 1);
            assert!(armed <= latest, "{deadline} was filed under {armed} at {}", self.now);
            self.owner.filed(slot, armed);
        }

        fn advance(&mut self, now: u32, budget: usize) -> bool {
            self.now = now;
            let visits = self.owner.visits;
            let caught_up = self.wheel.advance(now, budget, &mut self.owner);
            assert!(self.owner.visits - visits <= budget, "visited more than {budget}");
            if caught_up {
                let now = now.min(LAST_TICK);
                assert!(self.owner.standing.keys().all(|(armed, _)| *armed > now), "an entry is left behind {now}");
                assert!(self.owner.live().all(|tick| tick > now), "a deadline is late at {now}");
            } else {
                assert_eq!(self.owner.visits - visits, budget, "stopped before its budget");
            }
            caught_up
        }

        fn check(&self) {
            let standing = &self.owner.standing;
            assert_eq!(self.wheel.len(), standing.values().sum::<usize>());
            assert_eq!(self.wheel.is_empty(), standing.is_empty());
            assert_eq!(self.wheel.next_wake(), standing.keys().next().map(|(armed, _)| *armed));
            for (slot, deadline) in (0..).zip(&self.owner.deadlines) {
                if deadline.is_some() {
                    let armed = self.owner.armed[slot as usize].expect("a live deadline has an entry");
                    assert!(standing.contains_key(&(armed, slot)), "slot {slot} is lost");
                }
            }
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        /// A new deadline this far ahead: an insert, a touch, a reuse or a move to an earlier tick.
        Set {
            slot: u32,
            ahead: u32,
        },
        /// The slot is freed; its entry stays.
        Free {
            slot: u32,
        },
        Advance {
            by: u32,
            budget: usize,
        },
    }

    /// Distances that reach every level, the overflow and the end of time.
    fn distance() -> impl Strategy<Value = u32> {
        prop_oneof![
            4 => 0..4_u32,
            4 => 0..200_u32,
            3 => 0..10_000_u32,
            2 => 0..600_000_u32,
            1 => 0..(1_u32 << 26),
            1 => prop::sample::select(vec![63, 64, 4_095, 4_096, 262_143, 262_144, (1 << 24) - 1, 1 << 24]),
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        let budget = prop_oneof![3 => 0..4_usize, 1 => 0..30_usize, 2 => Just(UNLIMITED)];
        let far = prop_oneof![30 => distance(), 1 => any::<u32>()];
        prop_oneof![
            6 => (0..24_u32, far).prop_map(|(slot, ahead)| Step::Set { slot, ahead }),
            1 => (0..24_u32).prop_map(|slot| Step::Free { slot }),
            5 => (distance(), budget).prop_map(|(by, budget)| Step::Advance { by, budget }),
        ]
    }

    fn start() -> impl Strategy<Value = u32> {
        let edges = prop::sample::select(vec![0, 1, 62, 63, 4_095, (1 << 18) - 1, (1 << 24) - 2, 255 << 24]);
        prop_oneof![3 => edges, 2 => any::<u32>(), 1 => (u32::MAX - 5_000)..=u32::MAX]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn agrees_with_a_naive_list(start in start(), steps in prop::collection::vec(step(), 1..120)) {
            let mut world = World::new(start, 24);
            for step in steps {
                match step {
                    Step::Set { slot, ahead } => world.set(slot, world.now.saturating_add(ahead)),
                    Step::Free { slot } => world.owner.deadlines[slot as usize] = None,
                    Step::Advance { by, budget } => {
                        world.advance(world.now.saturating_add(by), budget);
                    }
                }
                world.check();
            }
            prop_assert!(world.advance(u32::MAX, UNLIMITED));
            world.check();
            prop_assert!(world.owner.live().all(|tick| tick == u32::MAX), "only never is left");
        }
    }

    /// Reproducible numbers without a dependency (Marsaglia's xorshift).
    fn numbers(mut state: u32) -> impl Iterator<Item = u32> {
        std::iter::repeat_with(move || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state
        })
    }

    #[test]
    fn placement_is_the_start_of_the_span() {
        let far = 1 << 24;
        let table = [
            // now, tick, armed
            (0, 1, 1),
            (0, 63, 63),
            (0, 64, 64),
            (0, 127, 64),
            (63, 65, 64),
            (64, 127, 127),
            (64, 128, 128),
            (0, 4_095, 4_032),
            (0, 5_000, 4_096),
            (4_000, 4_097, 4_096),
            (0, far - 1, far - 262_144),
            (0, far + 77, far),
            (0, u32::MAX, far),
            (3 * far + 5, 9 * far, 4 * far),
            (255 * far + 5, u32::MAX, u32::MAX - 262_143),
            (100, 100, 101),
            (100, 7, 101),
            (u32::MAX, 0, u32::MAX),
        ];
        for (now, tick, armed) in table {
            let mut wheel = Wheel::new(now);
            assert_eq!(wheel.insert(7, tick), armed, "now {now}, tick {tick}");
            assert_eq!(wheel.next_wake(), Some(armed), "now {now}, tick {tick}");
        }
    }

    #[test]
    fn second_by_second_every_deadline_fires_in_its_tick_after_few_visits() {
        let start = (1 << 24) - 9_000;
        let mut world = World::new(start, 2_000);
        for (slot, number) in (0..2_000).zip(numbers(7)) {
            world.set(slot, start + 1 + number % 20_000);
        }
        let deadlines = world.owner.deadlines.clone();
        for now in start..=start + 20_000 {
            assert!(world.advance(now, UNLIMITED));
        }
        assert_eq!(world.owner.fired.len(), 2_000);
        for (slot, now) in &world.owner.fired {
            assert_eq!(deadlines[*slot as usize], Some(*now), "slot {slot}");
        }
        assert!(world.owner.visits <= 2_000 * (LEVELS as usize + 1), "{} visits", world.owner.visits);
    }

    #[test]
    fn a_jump_of_years_visits_an_entry_at_most_twice() {
        let year = 365 * 24 * 3_600;
        let mut world = World::new(5, 4_000);
        for (slot, number) in (0..4_000).zip(numbers(3)) {
            world.set(slot, 6 + number % (80 * year));
        }
        assert!(world.advance(40 * year, UNLIMITED));
        world.check();
        assert!(world.owner.visits <= 2 * 4_000, "{} visits", world.owner.visits);
        assert!(world.advance(100 * year, UNLIMITED));
        assert!(world.wheel.is_empty());
        assert_eq!(world.owner.fired.len(), 4_000);
    }

    #[test]
    fn an_entry_that_is_stale_is_dropped() {
        let mut world = World::new(0, 1);
        world.set(0, 1_000);
        world.set(0, 10);
        assert_eq!(world.wheel.len(), 2);
        assert!(world.advance(10, UNLIMITED));
        assert_eq!(world.owner.fired, [(0, 10)]);
        world.set(0, 2_000);
        assert!(world.advance(1_999, UNLIMITED));
        assert_eq!(world.owner.fired, [(0, 10)], "the entry armed for the old deadline fires nothing");
        assert!(world.advance(2_000, UNLIMITED));
        assert_eq!(world.owner.fired, [(0, 10), (0, 2_000)]);
        assert!(world.wheel.is_empty());
    }

    #[test]
    fn a_budget_splits_one_tick_and_inserts_between_the_parts_are_kept() {
        let mut world = World::new(0, 1_100);
        for slot in 0..1_000 {
            world.set(slot, 30);
        }
        assert!(!world.advance(50, 0));
        for part in 0..15_u32 {
            assert!(!world.advance(50, 64), "part {part}");
            assert!(world.wheel.next_wake().is_some_and(|wake| wake <= 50));
            world.set(1_000 + part, [20, 31, 50, 51, 5_000][part as usize % 5]);
            world.check();
        }
        assert!(world.advance(50, 64));
        assert_eq!(world.owner.fired.len(), 1_000 + 9, "all that was due by 50 fired");
        assert!(world.advance(51, 64));
        assert!(world.advance(5_000, 64));
        assert_eq!(world.owner.fired.len(), 1_015);
    }

    #[test]
    fn a_deadline_that_has_passed_comes_up_in_the_next_tick() {
        let mut world = World::new(0, 1);
        assert!(world.advance(100, UNLIMITED));
        world.set(0, 100);
        assert!(world.advance(100, UNLIMITED));
        assert_eq!(world.owner.fired, []);
        assert!(world.advance(101, UNLIMITED));
        assert_eq!(world.owner.fired, [(0, 101)]);
    }

    #[test]
    fn time_ends_without_overflow_and_the_largest_tick_means_never() {
        let mut world = World::new(u32::MAX - 3, 3);
        world.set(0, u32::MAX - 1);
        world.set(1, u32::MAX);
        assert!(world.advance(u32::MAX, UNLIMITED));
        assert_eq!(world.owner.fired, [(0, LAST_TICK)]);
        world.set(2, 5);
        assert!(world.advance(u32::MAX, UNLIMITED));
        assert_eq!(world.wheel.len(), 2);
        assert_eq!(world.wheel.next_wake(), Some(u32::MAX));
    }

    /// An owner of a million deadlines that keeps no books, for tests of memory.
    #[derive(Debug)]
    struct Plain(Vec<u32>);

    impl Timers for Plain {
        fn due(&mut self, slot: u32, _armed: u32, visit: Visit) -> Option<u32> {
            Some(self.0[slot as usize]).filter(|deadline| *deadline > visit.now)
        }
    }

    #[test]
    fn a_million_entries_over_all_slots_cost_little_more_than_four_bytes_each() {
        let mut wheel = Wheel::new(0);
        assert_eq!(wheel.bytes(), 0);
        for (slot, number) in (0..1_000_000).zip(numbers(1)) {
            wheel.insert(slot, number >> (7 + 6 * (slot % 4)));
        }
        assert!(wheel.levels.iter().all(|level| level.occupied >> 1 == u64::MAX >> 1), "every slot holds entries");
        assert!(wheel.bytes() < 4_500_000, "{} bytes", wheel.bytes());
    }

    #[test]
    fn memory_is_flat_over_many_cycles() {
        let mut wheel = Wheel::new(0);
        let mut owner = Plain(vec![0; 20_000]);
        let mut numbers = numbers(9);
        let mut full_bytes = Vec::new();
        for cycle in 0..60_u32 {
            let now = cycle * 10_000;
            for (slot, number) in (0..20_000).zip(&mut numbers) {
                owner.0[slot as usize] = now + 1 + number % 7_200;
                wheel.insert(slot, owner.0[slot as usize]);
            }
            full_bytes.push(wheel.bytes());
            while !wheel.advance(now + 10_000, 1_000, &mut owner) {}
            assert!(wheel.is_empty());
            let spare_bytes_max = 2 * SPARE_CHUNKS_MAX * (CHUNK_ENTRIES * 4 + size_of::<Vec<u32>>());
            assert!(wheel.bytes() <= spare_bytes_max, "{} bytes are kept by an empty wheel", wheel.bytes());
        }
        let most = full_bytes.iter().max().copied();
        assert!(most < Some(full_bytes[0] * 5 / 4), "{full_bytes:?}");
    }
}
