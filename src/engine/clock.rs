//! Engine time: seconds that only move forward, through restarts too.
//!
//! It knows clocks and the checkpoint record. Invariants: while the process runs, only the clock that counts since
//! boot moves engine time, so a wall clock may be set as anybody likes; at start engine time never goes back
//! behind the checkpoint.

use std::sync::Arc;
use std::time::Duration;

use crate::options::Options;
use crate::storage::record::Checkpoint;
use crate::time::{Clock, Tick, Timestamp, ms_of};

/// A running engine clock.
#[derive(Debug)]
pub(crate) struct EngineClock {
    clock: Arc<dyn Clock>,
    /// Engine time and time since boot at the same moment, in milliseconds.
    origin_engine_ms: u64,
    origin_boot_ms: u64,
    boot_id: [u8; 16],
    provisional: bool,
}

/// Where a new store's engine time begins: after zero, which stands for "never" in records.
const BEGIN_MS: u64 = 1000;

impl EngineClock {
    /// The checkpoint that a new store begins with.
    pub(crate) fn beginning(clock: &dyn Clock) -> Checkpoint {
        Checkpoint {
            engine_ms: BEGIN_MS,
            since_boot_ms: ms_of(clock.since_boot()),
            wall_ms: clock.wall().unix_ms(),
            boot_id: clock.boot_id().unwrap_or_default(),
            provisional: false,
        }
    }

    /// Goes on from a checkpoint. In the same boot the time since boot tells what passed. In another boot the wall clock
    /// does, if it moved forward, and at least the time this boot has been up has passed. Where boots cannot be told
    /// apart, time since boot that went on counts as the same boot's, unless the wall clock says that more passed.
    pub(crate) fn resume(clock: Arc<dyn Clock>, from: &Checkpoint) -> Self {
        let since_boot_ms = ms_of(clock.since_boot());
        let boot_id = clock.boot_id().unwrap_or_default();
        let went_on = since_boot_ms.checked_sub(from.since_boot_ms);
        let by_wall = clock.wall().unix_ms().saturating_sub(from.wall_ms);
        let (passed, same_boot) = match went_on {
            Some(passed) if boot_id == from.boot_id && boot_id != [0; 16] => (passed, true),
            Some(passed) if boot_id == from.boot_id => (passed.max(by_wall), false),
            _ => (by_wall.max(since_boot_ms), false),
        };
        Self {
            clock,
            // More than the longest life ends every session just as well, and leaves engine time room to go on.
            origin_engine_ms: from.engine_ms.saturating_add(passed.min(ms_of(Options::LIFETIME_MAX))),
            origin_boot_ms: since_boot_ms,
            boot_id,
            provisional: !same_boot,
        }
    }

    /// Time since the machine started, for measuring how long something takes.
    pub(crate) fn since_boot(&self) -> Duration {
        self.clock.since_boot()
    }

    pub(crate) fn now_ms(&self) -> u64 {
        let passed = ms_of(self.clock.since_boot()).saturating_sub(self.origin_boot_ms);
        self.origin_engine_ms.saturating_add(passed)
    }

    pub(crate) fn now(&self) -> Tick {
        Tick::from_ms(self.now_ms())
    }

    pub(crate) fn wall(&self) -> Timestamp {
        self.clock.wall()
    }

    /// What the wall clock shows for a past tick, going by what it shows now.
    pub(crate) fn wall_of(&self, tick: Tick) -> Timestamp {
        let ago = self.now_ms().saturating_sub(u64::from(tick.0) * 1000);
        self.clock.wall().minus(Duration::from_millis(ago))
    }

    pub(crate) fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            engine_ms: self.now_ms(),
            since_boot_ms: ms_of(self.clock.since_boot()),
            wall_ms: self.clock.wall().unix_ms(),
            boot_id: self.boot_id,
            provisional: self.provisional,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::ManualClock;

    fn resume(clock: &ManualClock, from: &Checkpoint) -> EngineClock {
        EngineClock::resume(Arc::new(clock.clone()), from)
    }

    #[test]
    fn within_a_boot_the_wall_clock_means_nothing() {
        let clock = ManualClock::new();
        let begin = EngineClock::beginning(&clock);
        let engine = resume(&clock, &begin);
        clock.advance(Duration::from_secs(10));
        clock.set_wall(Timestamp::from_unix_ms(0));
        assert_eq!(engine.now(), Tick(11));
        clock.set_wall(Timestamp::from_unix_ms(u64::MAX / 2));
        assert_eq!(resume(&clock, &begin).now(), Tick(11));
    }

    #[test]
    fn another_boot_counts_by_the_wall_clock_and_at_least_its_uptime() {
        let clock = ManualClock::new();
        let begin = EngineClock::beginning(&clock);
        clock.reboot();
        clock.set_wall(Timestamp::from_unix_ms(begin.wall_ms + 60_000));
        assert_eq!(resume(&clock, &begin).now(), Tick(61));
        clock.set_wall(Timestamp::from_unix_ms(0));
        assert_eq!(resume(&clock, &begin).now(), Tick(1));
        clock.advance(Duration::from_secs(5));
        assert_eq!(resume(&clock, &begin).now(), Tick(6));
    }

    #[test]
    fn a_wall_clock_that_is_a_century_ahead_costs_ten_years_at_most() {
        let clock = ManualClock::new();
        let begin = EngineClock::beginning(&clock);
        clock.reboot();
        clock.set_wall(Timestamp::from_unix_ms(u64::MAX));
        assert_eq!(resume(&clock, &begin).now_ms(), 1000 + ms_of(Options::LIFETIME_MAX));
    }

    #[derive(Debug)]
    struct Nameless(ManualClock);

    impl Clock for Nameless {
        fn since_boot(&self) -> Duration {
            self.0.since_boot()
        }
        fn wall(&self) -> Timestamp {
            self.0.wall()
        }
        fn boot_id(&self) -> Option<[u8; 16]> {
            None
        }
    }

    #[test]
    fn where_boots_have_no_names_a_restart_costs_the_time_it_took() {
        let clock = ManualClock::new();
        clock.advance(Duration::from_secs(10 * 24 * 3600));
        let begin = EngineClock::beginning(&Nameless(clock.clone()));
        clock.advance(Duration::from_secs(2));
        let resumed = EngineClock::resume(Arc::new(Nameless(clock.clone())), &begin);
        assert_eq!(resumed.now(), Tick(3));
        clock.reboot();
        clock.set_wall(Timestamp::from_unix_ms(begin.wall_ms + 90_000));
        assert_eq!(EngineClock::resume(Arc::new(Nameless(clock)), &begin).now(), Tick(91));
    }
}
