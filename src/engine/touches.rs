//! Touches: brings last-seen times to disk now and then, so that a renewal costs no write and a crash little.
//!
//! It knows the index and the queue. A request renews its session by storing the time in the slot; the shard remembers
//! the earliest such time among sessions of like idle timeout. Three quarters of an [`interval`] later the renewed
//! ones are gathered into blocks of a few bytes for each, which ride on the next commit or, once the interval is over,
//! get one of their own.
//!
//! Invariants: a stored time is never later than the true one, and lags behind it by at most an interval, the time that a
//! commit takes aside, and as long as the disk is full; so a crash ends an idle session early, by that much, and never late. What is on disk of a bucket
//! is bounded by a multiple of what says everything once: when it gets there, everything is said anew and the old blocks
//! go in the same commit. Blocks need not name live rows: entries of rows that are gone mean nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Engine;
use super::index::Index;
use super::queue::Flush;
use crate::storage::record::Row;
use crate::storage::{TouchBlock, touch};
use crate::time::Tick;

/// Buckets of idle timeouts, by their binary logarithm.
pub(crate) const BUCKETS: usize = 32;

/// The bucket of an idle timeout in seconds.
pub(crate) const fn bucket(idle: u32) -> usize {
    if idle == 0 { 0 } else { idle.ilog2() as usize }
}

/// Seconds by which a last-seen time on disk may lag behind: a twentieth of the idle timeout, at least a second, at most
/// an hour.
pub(crate) const fn interval(idle: u32) -> u32 {
    let twentieth = idle / 20;
    if twentieth < 1 {
        1
    } else if twentieth > 3600 {
        3600
    } else {
        twentieth
    }
}

/// Seconds between two gatherings: the rest of the interval is left for a commit to ride on.
const fn period(idle: u32) -> u32 {
    let period = interval(idle) / 4 * 3;
    if period == 0 { 1 } else { period }
}

/// Seconds in one step of age: a sixty-fourth of an interval.
fn step_of(idle: u32) -> u8 {
    u8::try_from(interval(idle) / 64).unwrap_or(u8::MAX).max(1)
}

/// Which idle timeouts sessions were filed with since the start.
#[derive(Debug)]
pub(crate) struct InUse {
    /// The shortest of each bucket; `u32::MAX` for one that is not in use.
    shortest: [AtomicU32; BUCKETS],
}

impl InUse {
    pub(crate) fn new() -> Self {
        Self { shortest: std::array::from_fn(|_| AtomicU32::new(u32::MAX)) }
    }

    /// `true` if it is the shortest of its bucket so far: then there is something to be gathered earlier than before.
    pub(crate) fn note(&self, idle: u32) -> bool {
        let Some(shortest) = self.shortest.get(bucket(idle)) else { return false };
        shortest.load(Ordering::Relaxed) > idle && shortest.fetch_min(idle, Ordering::Relaxed) > idle
    }

    /// The buckets in use, each with its shortest timeout.
    fn each(&self) -> impl Iterator<Item = (usize, u32)> {
        let shortest = self.shortest.iter().map(|idle| idle.load(Ordering::Relaxed));
        shortest.enumerate().filter(|&(_, idle)| idle != u32::MAX)
    }
}

/// The gatherer's state.
#[derive(Debug)]
pub(crate) struct Machine {
    buckets: [Progress; BUCKETS],
    /// What saying everything took the last time, in bytes, and of how many sessions that was.
    said: (u64, u64),
}

#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// When the bucket was gathered last: what was renewed since is not on disk.
    gathered: Tick,
    /// Rows below were there then.
    next_row: u64,
    /// Bytes of its blocks on disk, about.
    on_disk: u64,
}

/// Bytes that an entry and a block take, about: for deciding when to say everything anew.
const ENTRY_BYTES: u64 = 3;
const BLOCK_BYTES: u64 = 40;
/// Blocks may take this many times what saying everything once takes, and as much as this besides. So saying it anew adds
/// a third to what renewals write at most, and blocks usually take 15 bytes a session at most. They take more where
/// sessions were seen so far apart that few fit in a block, as with idle timeouts of years.
const GROWTH_MAX: u64 = 4;
const SMALL: u64 = 64 * 1024;

impl Machine {
    pub(crate) fn new(now: Tick) -> Self {
        Self { buckets: [Progress { gathered: now, ..Progress::default() }; BUCKETS], said: (0, 0) }
    }

    /// Takes into account what opening found, in bytes for each bucket.
    pub(crate) fn found(&mut self, bytes: &HashMap<u64, u64>) {
        for (progress, number) in self.buckets.iter_mut().zip(0..) {
            progress.on_disk = bytes.get(&number).copied().unwrap_or_default();
        }
    }

    /// Gathers what is due. Returns the tick at which there may be more.
    pub(crate) fn step(&mut self, engine: &Engine) -> Option<Tick> {
        let now = engine.clock.now();
        if engine.live() == 0 {
            return None;
        }
        if engine.health.is_full() {
            // They are gathered once there is room: until then they would only pile up.
            return Some(now.plus(FULL_WAIT));
        }
        if engine.touches_dropped.swap(false, Ordering::AcqRel) || self.on_disk() > self.most(u64::from(engine.live()))
        {
            self.say_anew(engine, now);
        }
        let mut wake = None;
        for (number, idle) in engine.idle_in_use.each() {
            let Some(progress) = self.buckets.get_mut(number) else { continue };
            if progress.gathered.plus(period(idle)) <= now {
                progress.gather(engine, idle, now);
            }
            let next = progress.gathered.plus(period(idle));
            wake = Some(wake.map_or(next, |wake: Tick| wake.min(next)));
        }
        wake
    }

    fn on_disk(&self) -> u64 {
        self.buckets.iter().map(|progress| progress.on_disk).sum()
    }

    /// How many bytes of blocks there may be for as many sessions. Measured by what it took the last time, so that
    /// saying everything anew never gives a reason to do it again.
    fn most(&self, live: u64) -> u64 {
        let (bytes, sessions) = self.said;
        let once = (live * ENTRY_BYTES).max(bytes * live.min(sessions) / sessions.max(1));
        once * GROWTH_MAX + SMALL
    }

    /// Says of every session when it was seen, instead of what is on disk. Of all buckets at once, because options that
    /// have changed may have put a session into another one than its last-seen time lies in.
    fn say_anew(&mut self, engine: &Engine, now: Tick) {
        let next_row = engine.next_row.load(Ordering::SeqCst);
        self.buckets.fill(Progress { gathered: now, next_row, on_disk: 0 });
        let blocks = engine.touch_blocks();
        for block in &blocks {
            if let Some(progress) = self.buckets.get_mut(bucket(block.idle)) {
                progress.on_disk += bytes_of(block);
            }
        }
        self.said = (self.on_disk(), u64::from(engine.live()));
        engine.queue.push_touches(Flush { blocks, replaces_all: true, due_ms: engine.clock.now_ms() });
    }
}

fn bytes_of(block: &TouchBlock) -> u64 {
    BLOCK_BYTES + block.entries.len() as u64 * ENTRY_BYTES
}

impl Progress {
    fn gather(&mut self, engine: &Engine, idle: u32, now: Tick) {
        let (before, new) = (self.gathered, Row(self.next_row));
        // Read before the slots: what is made from now on is new to the next gathering too.
        self.next_row = engine.next_row.load(Ordering::SeqCst);
        self.gathered = now;
        let seen = engine.index.renewed(bucket(idle), new);
        if seen.is_empty() {
            return;
        }
        let blocks = blocks(idle, engine.frame(), seen);
        self.on_disk += blocks.iter().map(bytes_of).sum::<u64>();
        engine.queue.push_touches(Flush {
            blocks,
            replaces_all: false,
            due_ms: u64::from(before.plus(interval(idle)).0) * 1000,
        });
    }
}

/// When every session that has a row on disk was last seen, by bucket.
fn all(index: &Index) -> [Vec<(Row, Tick)>; BUCKETS] {
    let mut seen = [const { Vec::new() }; BUCKETS];
    index.for_each(|_, slot| {
        if let Some(seen) = seen.get_mut(bucket(index.profiles().idle(slot.profile())))
            && slot.row().0 < Row::MEMORY
        {
            seen.push((slot.row(), slot.last_seen()));
        }
    });
    seen
}

/// Seconds between two looks at whether a full disk has room again.
const FULL_WAIT: u32 = 2;

/// What the times in a block are relative to.
#[derive(Clone, Copy, Debug)]
struct Frame {
    number: u32,
    /// When the present boot began. A time is never rounded to before it, or a credit would take it for older.
    boot: Tick,
}

/// Lays last-seen times out in as few blocks as say them to within a step.
fn blocks(idle: u32, frame: Frame, mut seen: Vec<(Row, Tick)>) -> Vec<TouchBlock> {
    let step = step_of(idle);
    // To a grid, so that a session which is not used loses nothing more by being said again, as at each stop.
    for (_, last_seen) in &mut seen {
        let grid = if *last_seen < frame.boot { 0 } else { frame.boot.0 };
        last_seen.0 -= (last_seen.0 - grid) % u32::from(step);
    }
    // Newest first: a block reaches back 255 steps from its first entry.
    seen.sort_unstable_by_key(|&(_, last_seen)| std::cmp::Reverse(last_seen));
    let reach = seen.chunk_by({
        let mut first = seen.first().map_or(Tick(0), |&(_, last_seen)| last_seen);
        move |_, &(_, last_seen)| {
            let same_grid = (last_seen < frame.boot) == (first < frame.boot);
            let fits = same_grid && last_seen >= touch::oldest(first, step);
            if !fits {
                first = last_seen;
            }
            fits
        }
    });
    let mut blocks = Vec::new();
    for part in reach {
        let tick = part.first().map_or(Tick(0), |&(_, last_seen)| last_seen);
        let mut entries = part.to_vec();
        entries.sort_unstable_by_key(|&(row, _)| row);
        blocks.extend(touch::parts(&entries).map(|entries| TouchBlock {
            idle,
            tick,
            step,
            frame: frame.number,
            entries: entries.to_vec(),
        }));
    }
    blocks
}

impl Engine {
    /// Gathers last-seen times that are due for the disk. Returns when there may be more.
    pub(super) fn gather_touches(&self) -> Option<Tick> {
        self.touches.lock().step(self)
    }

    fn frame(&self) -> Frame {
        Frame { number: self.ledger.frame(), boot: self.clock.boot_tick() }
    }

    /// When every session on disk was last seen: for a stop, after which nothing is left to lag.
    pub(super) fn touch_blocks(&self) -> Vec<TouchBlock> {
        let frame = self.frame();
        let mut seen = all(&self.index);
        let each = self.idle_in_use.each();
        each.flat_map(|(number, idle)| {
            blocks(idle, frame, seen.get_mut(number).map(std::mem::take).unwrap_or_default())
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::slot::{ListId, NewSlot};
    use crate::seal::Fingerprint;
    use crate::storage::record::ClassByte;

    #[test]
    fn intervals_are_a_twentieth_between_a_second_and_an_hour() {
        for (idle, expected) in [(1, 1), (3, 1), (19, 1), (40, 2), (1800, 90), (72_000, 3600), (u32::MAX, 3600)] {
            assert_eq!(interval(idle), expected, "{idle}");
            assert!(period(idle) >= 1 && period(idle) <= interval(idle));
            assert!(interval(idle) <= (idle / 4).max(1), "a quarter of the timeout at most");
        }
    }

    #[test]
    fn a_request_that_was_held_up_during_a_gathering_is_gathered_by_the_next() {
        let index = Index::new(0, std::sync::Arc::default());
        let idle = 1800;
        let (fingerprint, row) = (Fingerprint([7; 16]), Row(1));
        let profile = index.profiles().find(ClassByte::Anonymous, idle);
        let (absolute, list) = (Tick(1_000_000), ListId(0));
        let session = NewSlot {
            fingerprint,
            row,
            profile,
            absolute,
            last_seen: Tick(10),
            list,
            clipped: false,
            key_id: 0,
            other: None,
        };
        index.insert(&session, None).unwrap();
        let gather = || index.renewed(bucket(idle), Row(1_000));
        assert_eq!(gather(), [], "its row says when it was made");
        assert!(index.touch(fingerprint, row, Tick(20)));
        assert_eq!(gather(), [(row, Tick(20))]);
        assert_eq!(gather(), []);
        // Its clock was read before the gathering, at 40 say.
        assert!(index.touch(fingerprint, row, Tick(39)));
        assert_eq!(gather(), [(row, Tick(39))]);
    }

    #[test]
    fn the_first_session_with_a_shorter_timeout_is_news() {
        let in_use = InUse::new();
        assert!(in_use.note(1800));
        assert!(!in_use.note(1800) && !in_use.note(2047));
        assert!(in_use.note(1700) && in_use.note(60) && !in_use.note(1750));
    }

    proptest! {
        #[test]
        fn blocks_say_every_time_to_within_a_step_and_never_later(
            idle in 1_u32..10_000_000, ages in proptest::collection::vec(0_u32..20_000, 0..200), boot in 79_000_u32..101_000,
        ) {
            let seen: Vec<_> =
                ages.iter().zip(1..).map(|(&age, row)| (Row(row), Tick(100_000 - age))).collect();
            let frame = Frame { number: 0, boot: Tick(boot) };
            let blocks = blocks(idle, frame, seen.clone());
            let step = u32::from(step_of(idle));
            let mut said: Vec<_> = blocks.iter().flat_map(|block| {
                assert!(block.entries.is_sorted_by(|a, b| a.0 < b.0));
                assert!(block.entries.iter().all(|&(_, at)| at <= block.tick && at >= touch::oldest(block.tick, block.step)));
                block.entries.clone()
            }).collect();
            said.sort_unstable();
            prop_assert_eq!(said.len(), seen.len());
            for (&(said_row, said), (row, at)) in said.iter().zip(seen) {
                prop_assert_eq!(said_row, row);
                prop_assert!(said <= at && at.0 - said.0 < step, "{said:?} for {at:?}");
                prop_assert_eq!(said < frame.boot, at < frame.boot);
            }
            let mut again: Vec<_> =
                super::blocks(idle, frame, said.clone()).into_iter().flat_map(|block| block.entries).collect();
            again.sort_unstable();
            prop_assert_eq!(again, said, "said again, they are the same");
        }
    }
}
