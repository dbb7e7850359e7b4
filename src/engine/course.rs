//! The course of engine time: where it goes on at a start, and what a wall clock that steps says has been overlooked.
//!
//! Pure: it knows checkpoints and integers. Within a boot engine time follows the clock that counts since boot and
//! nothing else. Between boots only the wall clock can tell how long the machine was off, and it may be wrong until
//! somebody sets it. So a boot is *provisional* for its first day: the first step forward makes a credit that ages what
//! is older than the boot, and everything younger is left as it is.
//!
//! Invariants: engine time never goes back; what was dated before this boot is told from what was dated since, where in
//! doubt as older; what is counted is at least the time that the machine was up; the *base*, by which a wall clock is read as engine time, is a
//! moment at which the wall clock was believed.

use crate::options::Options;
use crate::storage::credit::Credit;
use crate::storage::record::{Anchor, BootStart, Checkpoint, Row};
use crate::time::{Tick, ms_of};

/// What the clocks show.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) since_boot_ms: u64,
    pub(crate) wall_ms: u64,
    /// Zero when the system cannot tell boots apart.
    pub(crate) boot_id: [u8; 16],
}

/// How engine time stands to the wall clock in this boot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Course {
    provisional: bool,
    boot: BootStart,
    base: Anchor,
}

/// Where a new store's engine time begins: so late that what has no time left by any count of credits, which ends at
/// zero, is dead however long its timeout.
const BEGIN_MS: u64 = LIFETIME_MAX_MS + 1000;
/// No session lives longer, so counting more would end none besides.
const LIFETIME_MAX_MS: u64 = ms_of(Options::LIFETIME_MAX);
/// Less than this is a correction; more says that the clock was wrong.
const STEP_MIN_MS: u64 = 60_000;
/// After this time in one boot, its wall clock is believed.
const PROVISIONAL_MS: u64 = 24 * 60 * 60 * 1000;

impl Course {
    /// Engine time that a start goes on from at the latest, in milliseconds: for ten years from there, a session can be
    /// made that lives for ten.
    pub(crate) const LAST_RESUMED_MS: u64 = u32::MAX as u64 * 1000 - 2 * LIFETIME_MAX_MS;

    /// The checkpoint that a new store begins with. The boot that made it has nothing before it to be wrong about.
    pub(crate) fn beginning(now: Reading, first_row: Row) -> Checkpoint {
        Checkpoint {
            engine_ms: BEGIN_MS,
            since_boot_ms: now.since_boot_ms,
            wall_ms: now.wall_ms,
            boot_id: now.boot_id,
            provisional: false,
            boot: BootStart {
                first_row,
                first_tick: Tick::from_ms(BEGIN_MS),
                engine_ms: BEGIN_MS,
                wall_ms: now.wall_ms,
                jump_ms: 0,
            },
            base: Anchor { engine_ms: BEGIN_MS, wall_ms: now.wall_ms },
        }
    }

    /// Goes on from a checkpoint, and says at which engine time. `next_row` is above every row on disk.
    ///
    /// In the same boot, the time since boot tells what passed. In another the wall clock does, if it is ahead, and at
    /// least the time that this boot has been up has passed. Where one of the two has no name, it is taken for another
    /// boot, but if time since boot went on, only that has passed at least: mostly it is the same one.
    pub(crate) fn resume(from: &Checkpoint, now: Reading, next_row: Row) -> (u64, Self) {
        let (same_name, nameless) = (now.boot_id == from.boot_id, [now.boot_id, from.boot_id].contains(&[0; 16]));
        let passed = now.since_boot_ms.checked_sub(from.since_boot_ms).filter(|_| same_name || nameless);
        if let Some(passed) = passed
            && !nameless
        {
            let course = Self { provisional: from.provisional, boot: from.boot, base: from.base };
            return (from.engine_ms.saturating_add(passed), course);
        }
        let up_ms = passed.unwrap_or(now.since_boot_ms);
        let counted_ms = from.engine_ms.saturating_add(up_ms);
        let (base, jumps_ms) = corrected(from);
        let most_ms = from.engine_ms.saturating_add(LIFETIME_MAX_MS);
        let engine_ms = base.read(now.wall_ms).max(counted_ms).min(most_ms);
        let boot = BootStart {
            first_row: next_row,
            first_tick: Tick::from_ms(engine_ms).max(Tick::from_ms(from.engine_ms).plus(1)),
            engine_ms,
            wall_ms: now.wall_ms,
            jump_ms: jumps_ms.saturating_add(engine_ms.saturating_sub(counted_ms)),
        };
        (engine_ms, Self { provisional: true, boot, base })
    }

    /// What the clocks say by now: time that passed before this boot and was not counted, once. After a day without
    /// such, the wall clock is believed.
    pub(crate) fn look(&mut self, engine_ms: u64, wall_ms: u64) -> Option<Credit> {
        if !self.provisional {
            return None;
        }
        let up_ms = engine_ms.saturating_sub(self.boot.engine_ms);
        let stepped_ms = wall_ms.saturating_sub(self.boot.wall_ms.saturating_add(up_ms));
        let overlooked_ms = match stepped_ms {
            ..STEP_MIN_MS => 0,
            _ if wall_ms >= self.base.wall_ms => self.base.read(wall_ms).saturating_sub(engine_ms),
            // The base's own wall clock was ahead of what is shown now, so there is only the step to go by.
            _ => stepped_ms,
        };
        // A clock may first be set to when it was saved last; that must not pass for the step that tells the time.
        let overlooked_ms = if overlooked_ms < STEP_MIN_MS { 0 } else { overlooked_ms };
        self.provisional = overlooked_ms == 0 && up_ms < PROVISIONAL_MS;
        let seconds = u32::try_from(overlooked_ms.min(LIFETIME_MAX_MS).div_ceil(1000)).unwrap_or(u32::MAX);
        (seconds > 0).then(|| Credit::new(self.boot.first_row, self.boot.first_tick, seconds))
    }

    /// What happened before this tick happened before this boot.
    pub(crate) const fn first_tick(&self) -> Tick {
        self.boot.first_tick
    }

    pub(crate) const fn is_provisional(&self) -> bool {
        self.provisional
    }

    pub(crate) fn checkpoint(&self, engine_ms: u64, now: Reading) -> Checkpoint {
        let shown = Anchor { engine_ms, wall_ms: now.wall_ms };
        Checkpoint {
            engine_ms,
            since_boot_ms: now.since_boot_ms,
            wall_ms: now.wall_ms,
            boot_id: now.boot_id,
            provisional: self.provisional,
            boot: self.boot,
            base: if self.provisional { self.base } else { shown },
        }
    }
}

/// The base to read the wall clock by after this checkpoint, and how much of engine time is only there because wall
/// clocks said so since. If such a clock was ahead and was set back before the checkpoint, engine time stays ahead by so
/// much; the base has to be ahead with it, or as much of the time that the machine is off next would not count.
fn corrected(from: &Checkpoint) -> (Anchor, u64) {
    if !from.provisional {
        return (from.base, 0);
    }
    // A wall clock before the base's is certainly not right.
    let ahead_ms = match from.wall_ms >= from.base.wall_ms {
        true => from.engine_ms.saturating_sub(from.base.read(from.wall_ms)).min(from.boot.jump_ms),
        false => 0,
    };
    let base = Anchor { engine_ms: from.base.engine_ms.saturating_add(ahead_ms), ..from.base };
    (base, from.boot.jump_ms - ahead_ms)
}

impl Anchor {
    /// The engine time that goes with what a wall clock shows.
    fn read(self, wall_ms: u64) -> u64 {
        match wall_ms.checked_sub(self.wall_ms) {
            Some(passed) => self.engine_ms.saturating_add(passed),
            None => self.engine_ms.saturating_sub(self.wall_ms - wall_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600;
    const YEAR: u64 = 365 * DAY;
    /// What the wall clock shows when the store is made, in seconds; engine time is counted from there too.
    const BEGIN: u64 = 1_767_225_600;

    /// A machine, in seconds. Its engine time is counted from when the store was made.
    struct Machine {
        boot: u8,
        up: u64,
        wall: u64,
        course: Course,
        /// Engine time less time since boot.
        ahead: u64,
        saved: Checkpoint,
    }

    impl Machine {
        /// It made its store an hour after its boot.
        fn new() -> Self {
            let saved = Course::beginning(reading(1, 3600, BEGIN), Row(1));
            let (engine, course) = Course::resume(&saved, reading(1, 3600, BEGIN), Row(1));
            Self { boot: 1, up: 3600, wall: BEGIN, course, ahead: engine / 1000 - 3600, saved }
        }

        fn engine(&self) -> u64 {
            (self.up + self.ahead) - BEGIN_MS / 1000
        }

        fn save(&mut self) {
            let engine = (self.up + self.ahead) * 1000;
            self.saved = self.course.checkpoint(engine, reading(self.boot, self.up, self.wall));
        }

        /// The power fails; another boot shows this time, and the store is opened after `up` seconds.
        fn boot(&mut self, up: u64, wall: u64) {
            self.boot += 1;
            (self.up, self.wall) = (up, wall);
            self.open();
        }

        fn open(&mut self) {
            let (engine, course) = Course::resume(&self.saved, reading(self.boot, self.up, self.wall), Row(9));
            (self.ahead, self.course) = (engine / 1000 - self.up, course);
        }

        fn run(&mut self, seconds: u64) {
            self.up += seconds;
            self.wall += seconds;
        }

        fn look(&mut self) -> Option<u32> {
            let engine = (self.up + self.ahead) * 1000;
            let aged = |credit: Credit| 100_000_000 - credit.date(Row(1), Tick(100_000_000)).0;
            self.course.look(engine, self.wall * 1000).map(aged)
        }

        fn set(&mut self, wall: u64) -> Option<u32> {
            self.wall = wall;
            self.look()
        }
    }

    fn reading(boot: u8, up: u64, wall: u64) -> Reading {
        Reading { since_boot_ms: up * 1000, wall_ms: wall * 1000, boot_id: [boot; 16] }
    }

    #[test]
    fn the_boot_that_made_the_store_takes_no_step_for_time() {
        let mut machine = Machine::new();
        for wall in [0, BEGIN + YEAR, 5 * BEGIN] {
            assert_eq!(machine.set(wall), None);
            machine.save();
            machine.open();
            assert_eq!(machine.set(wall + YEAR), None);
        }
    }

    #[test]
    fn a_clock_that_is_right_at_once_costs_nothing_more() {
        let mut machine = Machine::new();
        machine.boot(10, BEGIN + 3 * DAY);
        assert_eq!((machine.engine(), machine.look()), (3 * DAY, None));
        machine.run(DAY);
        assert_eq!(machine.look(), None);
        assert!(!machine.course.is_provisional());
    }

    #[test]
    fn a_clock_that_is_behind_is_made_up_for_by_its_first_step_forward() {
        let late = [1, 600, DAY - 1];
        let shown = [0, 1_000_000, BEGIN - YEAR, BEGIN, BEGIN + 7, BEGIN + 3 * DAY - 7200];
        for (wait, shown) in late.into_iter().flat_map(|wait| shown.map(|shown| (wait, shown))) {
            let mut machine = Machine::new();
            machine.boot(10, shown);
            machine.run(wait);
            assert_eq!(machine.look(), None);
            let true_time = 3 * DAY + wait;
            let overlooked = true_time - machine.engine();
            assert_eq!(machine.set(BEGIN + true_time), Some(u32::try_from(overlooked).unwrap()), "{wait} {shown}");
            assert!(!machine.course.is_provisional());
            assert_eq!(machine.set(BEGIN + YEAR), None, "once");
        }
    }

    #[test]
    fn after_a_day_it_is_too_late() {
        let mut machine = Machine::new();
        machine.boot(10, BEGIN);
        machine.run(DAY);
        assert_eq!(machine.look(), None);
        machine.run(3600);
        assert_eq!(machine.set(BEGIN + 3 * DAY), None);
    }

    #[test]
    fn small_steps_and_steps_back_change_nothing() {
        let mut machine = Machine::new();
        machine.boot(10, BEGIN + DAY);
        assert_eq!(machine.set(BEGIN + DAY + 59), None);
        assert_eq!(machine.set(0), None);
        assert_eq!(machine.set(BEGIN + DAY + 59), None);
        assert!(machine.course.is_provisional());
        assert_eq!(machine.set(BEGIN + DAY + 60), Some(60), "all of it, measured from the start");
    }

    #[test]
    fn a_step_that_tells_of_no_time_off_is_not_the_one() {
        let mut machine = Machine::new();
        machine.run(10 * DAY);
        machine.save();
        machine.boot(10, BEGIN);
        assert_eq!(machine.set(BEGIN + 10 * DAY + 69), None, "a saved time");
        assert_eq!(machine.set(BEGIN + 11 * DAY), Some(u32::try_from(DAY - 10).unwrap()));
    }

    #[test]
    fn a_step_while_the_process_is_down_is_seen_at_its_start() {
        let mut machine = Machine::new();
        machine.boot(10, BEGIN);
        machine.run(100);
        machine.save();
        machine.run(100);
        machine.wall = BEGIN + DAY;
        machine.open();
        assert_eq!(machine.engine(), 210);
        assert_eq!(machine.look(), Some(u32::try_from(DAY - 210).unwrap()));
    }

    #[test]
    fn a_clock_decades_ahead_counts_as_ten_years() {
        let mut machine = Machine::new();
        machine.boot(10, BEGIN + 50 * YEAR);
        assert_eq!(machine.engine(), 10 * YEAR);
        let mut machine = Machine::new();
        machine.boot(10, 0);
        assert_eq!(machine.set(BEGIN + 50 * YEAR).map(u64::from), Some(100_000_000.min(10 * YEAR)));
    }

    #[test]
    fn a_clock_that_was_ahead_and_set_back_takes_nothing_from_the_next_time_off() {
        let mut machine = Machine::new();
        machine.boot(10, BEGIN + YEAR);
        machine.run(100);
        assert_eq!(machine.set(BEGIN + 200), None);
        machine.save();
        let before = machine.engine();
        machine.boot(10, BEGIN + 200 + DAY);
        assert_eq!(machine.engine() - before, DAY);
        let mut again = machine;
        again.save();
        again.boot(10, BEGIN);
        assert_eq!(again.set(BEGIN + 200 + 3 * DAY), Some(u32::try_from(2 * DAY - 10).unwrap()));
    }

    #[test]
    fn a_clock_that_was_ahead_until_the_power_failed_takes_nothing_once_the_next_boot_was_right() {
        let mut machine = Machine::new();
        machine.boot(10, BEGIN + 50 * YEAR);
        machine.save();
        machine.boot(10, 0);
        machine.save();
        machine.boot(10, 0);
        assert_eq!(machine.set(BEGIN + 500), None, "engine time is years ahead of it");
        machine.save();
        let before = machine.engine();
        machine.boot(10, BEGIN + 500 + DAY);
        assert_eq!(machine.engine() - before, DAY);
    }

    #[test]
    fn right_clocks_in_a_row_count_each_time_off_once() {
        let mut machine = Machine::new();
        for days in 1..5 {
            machine.boot(10, BEGIN + days * 3 * DAY);
            assert_eq!(machine.engine(), days * 3 * DAY);
            machine.save();
            machine.boot(10, 0);
            machine.save();
        }
    }

    #[test]
    fn power_cuts_in_a_row_count_everything_since_the_clock_was_last_believed() {
        let mut machine = Machine::new();
        for _ in 0..3 {
            machine.boot(10, BEGIN + 5);
            machine.run(50);
            assert_eq!(machine.look(), None);
            machine.save();
        }
        assert_eq!(machine.engine(), 180);
        assert_eq!(machine.set(BEGIN + 9 * DAY), Some(u32::try_from(9 * DAY - 180).unwrap()));
        machine.save();
        machine.boot(10, BEGIN + 9 * DAY + 1);
        assert_eq!(machine.look(), None);
        assert_eq!(machine.set(BEGIN + 10 * DAY), Some(u32::try_from(DAY - 10).unwrap()), "from the last step on");
    }

    #[test]
    fn a_base_that_was_ahead_leaves_only_the_step_to_go_by() {
        let mut machine = Machine::new();
        machine.wall = BEGIN + YEAR;
        machine.save();
        machine.boot(10, 0);
        assert_eq!(machine.set(5000), Some(5000));
    }

    #[test]
    fn time_since_boot_that_went_back_is_another_boot() {
        let mut machine = Machine::new();
        machine.run(5000);
        machine.save();
        (machine.up, machine.wall) = (10, BEGIN + 6000);
        machine.open();
        assert_eq!(machine.engine(), 6000);
        assert!(machine.course.is_provisional());
    }

    #[test]
    fn where_boots_have_no_names_every_start_is_taken_for_one() {
        let mut machine = Machine::new();
        machine.boot = 0;
        machine.run(10 * DAY);
        machine.save();
        machine.run(2);
        machine.open();
        assert_eq!(machine.engine(), 10 * DAY + 2);
        assert!(machine.course.is_provisional());
        machine.run(50);
        machine.wall = BEGIN;
        machine.open();
        assert_eq!(machine.engine(), 10 * DAY + 52, "whatever the wall clock shows");
        (machine.up, machine.wall) = (5, BEGIN + 11 * DAY);
        machine.open();
        assert_eq!(machine.engine(), 11 * DAY);
    }

    #[test]
    fn a_boot_that_loses_its_name_or_gets_one_is_not_counted_from_its_beginning() {
        let mut machine = Machine::new();
        machine.run(10 * DAY);
        for (boot, engine) in [(0, 10 * DAY + 2), (1, 10 * DAY + 4), (0, 10 * DAY + 6)] {
            machine.save();
            machine.run(2);
            machine.boot = boot;
            machine.open();
            assert_eq!(machine.engine(), engine);
            assert!(machine.course.is_provisional());
        }
        machine.save();
        (machine.boot, machine.up, machine.wall) = (2, 50, BEGIN);
        machine.open();
        assert_eq!(machine.engine(), 10 * DAY + 56, "one that is surely another is");
    }

    #[test]
    fn what_was_dated_in_the_second_of_the_power_cut_is_older_than_the_boot() {
        for (up, first) in [(0, 1), (1, 1), (2, 2)] {
            let mut machine = Machine::new();
            machine.boot(up, 0);
            assert_eq!(machine.engine(), up);
            let tick = |seconds: u64| Tick::from_ms(BEGIN_MS + seconds * 1000);
            assert_eq!(machine.course.boot.first_tick, tick(first));
        }
    }
}
