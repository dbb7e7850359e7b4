//! Engine time: seconds that only move forward, through restarts too.
//!
//! It knows clocks and the checkpoint record. Invariants: while the process runs, only the clock that counts since
//! boot moves engine time, so a wall clock may be set as anybody likes; at start engine time never goes back
//! behind the checkpoint.

use std::sync::Arc;
use std::time::Duration;

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

    /// Goes on from a checkpoint. In the same boot the time since boot tells what passed. In another boot the
    /// wall clock does, if it moved forward, and at least the time this boot has been up has passed.
    pub(crate) fn resume(clock: Arc<dyn Clock>, from: &Checkpoint) -> Self {
        let since_boot_ms = ms_of(clock.since_boot());
        let boot_id = clock.boot_id().unwrap_or_default();
        let same_boot = boot_id != [0; 16] && boot_id == from.boot_id && since_boot_ms >= from.since_boot_ms;
        let passed = if same_boot {
            since_boot_ms - from.since_boot_ms
        } else {
            clock.wall().unix_ms().saturating_sub(from.wall_ms).max(since_boot_ms)
        };
        Self {
            clock,
            origin_engine_ms: from.engine_ms.saturating_add(passed),
            origin_boot_ms: since_boot_ms,
            boot_id,
            provisional: !same_boot,
        }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.origin_engine_ms + ms_of(self.clock.since_boot()).saturating_sub(self.origin_boot_ms)
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
}
