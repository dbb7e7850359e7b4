//! Engine time: seconds that only move forward, through restarts too.
//!
//! It knows clocks and the course of time. Invariants: while the process runs, only the clock that counts since boot
//! moves engine time, so a wall clock may be set as anybody likes; engine time never goes back, not even if that clock
//! does: then it goes on from where it was.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::course::{Course, Reading};
use crate::storage::credit::Credit;
use crate::storage::record::{Checkpoint, Row};
use crate::time::{Clock, Tick, Timestamp, ms_of};

/// A running engine clock.
#[derive(Debug)]
pub(crate) struct EngineClock {
    clock: Arc<dyn Clock>,
    boot_id: [u8; 16],
    /// Engine time less time since boot, in milliseconds.
    ahead_ms: AtomicI64,
    /// Engine time was this late already, to within a tick.
    reached_ms: AtomicU64,
    course: Mutex<Course>,
}

/// How often the wall clock is looked at while it may step yet.
const LOOK_MS: u64 = 15_000;

impl EngineClock {
    /// The checkpoint that a new store begins with.
    pub(crate) fn beginning(clock: &dyn Clock, first_row: Row) -> Checkpoint {
        Course::beginning(read(clock, clock.boot_id().unwrap_or_default()), first_row)
    }

    /// Goes on from a checkpoint. `next_row` is above every row on disk.
    pub(crate) fn resume(clock: Arc<dyn Clock>, from: &Checkpoint, next_row: Row) -> Self {
        let boot_id = clock.boot_id().unwrap_or_default();
        let now = read(clock.as_ref(), boot_id);
        let (engine_ms, course) = Course::resume(from, now, next_row);
        Self {
            clock,
            boot_id,
            ahead_ms: AtomicI64::new(signed(engine_ms).saturating_sub(signed(now.since_boot_ms))),
            reached_ms: AtomicU64::new(engine_ms),
            course: Mutex::new(course),
        }
    }

    /// Time since the machine started, for measuring how long something takes.
    pub(crate) fn since_boot(&self) -> Duration {
        self.clock.since_boot()
    }

    pub(crate) fn now_ms(&self) -> u64 {
        // Read before the clock, so that it cannot be of a later moment than what the clock shows.
        let reached = self.reached_ms.load(Ordering::Acquire);
        let ms = self.at(ms_of(self.clock.since_boot()));
        if ms < reached {
            return self.go_on_from(reached);
        }
        // Once a second, because every thread that loads a session reads it.
        if ms / 1000 > reached / 1000 {
            self.reached_ms.fetch_max(ms, Ordering::AcqRel);
        }
        ms
    }

    fn at(&self, since_boot_ms: u64) -> u64 {
        since_boot_ms.saturating_add_signed(self.ahead_ms.load(Ordering::Acquire))
    }

    /// The clock that counts since boot went back.
    #[cold]
    fn go_on_from(&self, reached: u64) -> u64 {
        loop {
            let before = self.ahead_ms.load(Ordering::Acquire);
            let since_boot_ms = ms_of(self.clock.since_boot());
            let ms = since_boot_ms.saturating_add_signed(before);
            if ms >= reached {
                return ms;
            }
            let ahead = signed(reached).saturating_sub(signed(since_boot_ms));
            // If another thread was first, what it stored is as good.
            let _ = self.ahead_ms.compare_exchange(before, ahead, Ordering::AcqRel, Ordering::Acquire);
        }
    }

    pub(crate) fn now(&self) -> Tick {
        Tick::from_ms(self.now_ms())
    }

    /// Whether so little of engine time is left that it should begin anew at a start.
    pub(crate) fn is_near_its_end(&self) -> bool {
        self.now_ms() > Course::LAST_RESUMED_MS
    }

    pub(crate) fn wall(&self) -> Timestamp {
        self.clock.wall()
    }

    /// What the wall clock shows for a past tick, going by what it shows now.
    pub(crate) fn wall_of(&self, tick: Tick) -> Timestamp {
        let ago = self.now_ms().saturating_sub(u64::from(tick.0) * 1000);
        self.clock.wall().minus(Duration::from_millis(ago))
    }

    /// Looks for a step of the wall clock that tells of time before this boot. The caller puts the credit into effect.
    pub(super) fn look(&self) -> Option<Credit> {
        if !self.is_provisional() {
            return None;
        }
        let (engine_ms, wall_ms) = (self.now_ms(), self.clock.wall().unix_ms());
        self.course.lock().look(engine_ms, wall_ms)
    }

    /// When the wall clock is to be looked at again, if ever.
    pub(super) fn look_again_ms(&self) -> Option<u64> {
        self.is_provisional().then(|| self.now_ms().saturating_add(LOOK_MS))
    }

    /// The tick in which this boot began.
    pub(super) fn boot_tick(&self) -> Tick {
        self.course.lock().first_tick()
    }

    fn is_provisional(&self) -> bool {
        self.course.lock().is_provisional()
    }

    pub(crate) fn checkpoint(&self) -> Checkpoint {
        let reached = self.now_ms();
        let now = read(self.clock.as_ref(), self.boot_id);
        self.course.lock().checkpoint(self.at(now.since_boot_ms).max(reached), now)
    }
}

fn read(clock: &dyn Clock, boot_id: [u8; 16]) -> Reading {
    Reading { since_boot_ms: ms_of(clock.since_boot()), wall_ms: clock.wall().unix_ms(), boot_id }
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::ManualClock;

    fn open(clock: &(impl Clock + Clone), from: &Checkpoint) -> EngineClock {
        EngineClock::resume(Arc::new(clock.clone()), from, Row(1))
    }

    /// A clock whose parts are set one by one; it may go back.
    #[derive(Clone, Debug)]
    struct Loose(Arc<AtomicU64>);

    impl Clock for Loose {
        fn since_boot(&self) -> Duration {
            Duration::from_millis(self.0.load(Ordering::SeqCst))
        }
        fn wall(&self) -> Timestamp {
            Timestamp::from_unix_ms(0)
        }
        fn boot_id(&self) -> Option<[u8; 16]> {
            Some([1; 16])
        }
    }

    #[test]
    fn within_a_boot_the_wall_clock_means_nothing() {
        let clock = ManualClock::new();
        let begin = EngineClock::beginning(&clock, Row(1));
        let engine = open(&clock, &begin);
        let first = engine.now();
        clock.advance(Duration::from_secs(10));
        clock.set_wall(Timestamp::from_unix_ms(0));
        assert_eq!(engine.now(), first.plus(10));
        clock.set_wall(Timestamp::from_unix_ms(u64::MAX / 2));
        assert_eq!(open(&clock, &begin).now(), first.plus(10));
        assert!(engine.look().is_none() && engine.look_again_ms().is_none());
    }

    #[test]
    fn time_goes_on_from_where_it_was_when_the_clock_since_boot_goes_back() {
        let clock = Loose(Arc::new(AtomicU64::new(3_600_000)));
        let engine = open(&clock, &EngineClock::beginning(&clock, Row(1)));
        let first = engine.now();
        clock.0.store(3_700_900, Ordering::SeqCst);
        assert_eq!(engine.now(), first.plus(100));
        for back_to in [3_650_000, 3_600_000, 5, 0] {
            let before = engine.now();
            clock.0.store(back_to, Ordering::SeqCst);
            assert_eq!(engine.now(), before);
            clock.0.fetch_add(20_000, Ordering::SeqCst);
            assert_eq!(engine.now(), before.plus(20));
        }
        let (now, checkpoint) = (engine.now_ms(), engine.checkpoint());
        assert_eq!((checkpoint.engine_ms, checkpoint.since_boot_ms), (now, 20_000));
        assert_eq!(open(&clock, &checkpoint).now_ms(), now, "and so it does after a restart");
    }

    #[test]
    fn the_wall_clock_is_looked_at_again_and_again_until_it_is_believed() {
        let clock = ManualClock::new();
        let begin = EngineClock::beginning(&clock, Row(1));
        clock.reboot();
        let engine = open(&clock, &begin);
        for _ in 0..24 * 3600 / 15 {
            assert_eq!(engine.look_again_ms(), Some(engine.now_ms() + LOOK_MS));
            clock.advance(Duration::from_millis(LOOK_MS));
            assert!(engine.look().is_none());
        }
        assert_eq!(engine.look_again_ms(), None);
    }

    #[test]
    fn a_restart_in_the_same_boot_is_exact_to_the_millisecond() {
        let clock = ManualClock::new();
        let mut checkpoint = EngineClock::beginning(&clock, Row(1));
        let begin = checkpoint.engine_ms;
        for _ in 0..1000 {
            clock.advance(Duration::from_millis(1_001));
            checkpoint = open(&clock, &checkpoint).checkpoint();
        }
        assert_eq!(checkpoint.engine_ms, begin + 1_001_000);
    }

    #[test]
    fn the_end_of_time_is_no_panic() {
        let clock = Loose(Arc::new(AtomicU64::new(0)));
        let engine = open(&clock, &EngineClock::beginning(&clock, Row(1)));
        clock.0.store(u64::MAX, Ordering::SeqCst);
        assert_eq!(engine.now(), Tick(u32::MAX));
        let again = open(&clock, &engine.checkpoint());
        assert_eq!(again.now(), Tick(u32::MAX));
    }
}
