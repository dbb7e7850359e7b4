//! One boot after a time off, with every kind of clock, against the table.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dwell::{Clock, ManualClock, Timestamp};

use super::{DAY, HOUR, Known, Machine, Shown, YEAR};
use crate::support::{journal_file, store_file};
use crate::traps::{Bench, Table};

const OFF: u64 = 3 * DAY;

/// A machine that was off for three days, with sessions of every kind from before and since.
struct Scene {
    machine: Machine,
    booted: u64,
    /// From before, not loaded since.
    cold: Vec<Known>,
    /// From before: looked at, used, and proved again since.
    old: Vec<Known>,
    new: Vec<Known>,
}

impl Scene {
    fn new(shown: Shown) -> Self {
        let mut machine = Machine::new();
        machine.run(DAY);
        let some = |machine: &Machine| vec![machine.member(), machine.remembered(), machine.stranger()];
        let (cold, mut old) = (some(&machine), [some(&machine), some(&machine), some(&machine)].concat());
        machine.run(5 * HOUR);
        machine.stop_and_boot(OFF, shown);
        let booted = machine.now;
        old[..3].iter().for_each(|known| drop(machine.load(known)));
        for known in &mut old[3..6] {
            machine.touch(known);
        }
        for known in &mut old[6..8] {
            machine.prove(known);
        }
        let new = some(&machine);
        Self { machine, booted, cold, old, new }
    }

    /// `late` is what older things are late by, in seconds.
    fn check(&self, late: i64, what: &str) {
        for known in self.cold.iter().chain(&self.old).chain(&self.new) {
            self.machine.check(known, self.booted, late, what);
        }
    }

    /// And it is so after the process was stopped or killed, and again.
    fn check_and_restart(&mut self, late: i64, what: &str) {
        self.check(late, what);
        self.machine.restart();
        self.check(late, &format!("{what}, restarted"));
        self.machine.member();
        self.machine.restart();
        self.machine.crash();
        self.check(late, &format!("{what}, restarted again"));
    }
}

#[test]
fn a_right_clock_counts_the_time_off() {
    let mut scene = Scene::new(Shown::Right);
    scene.check_and_restart(0, "right");
    scene.machine.run(2 * DAY);
    scene.check(0, "right, two days on");
}

#[test]
fn a_clock_that_was_behind_counts_it_when_it_is_set() {
    let kinds = [Shown::Zero, Shown::Saved(0), Shown::Saved(7), Shown::Behind(2 * HOUR), Shown::Behind(60)];
    for (shown, wait) in kinds.into_iter().flat_map(|shown| [1, 600, 23 * HOUR].map(|wait| (shown, wait))) {
        let what = format!("{shown:?}, set after {wait} s");
        let mut scene = Scene::new(shown);
        scene.machine.run(wait);
        scene.machine.set_right();
        scene.check_and_restart(0, &what);
        scene.machine.run(2 * DAY);
        scene.machine.set_right();
        scene.check(0, &what);
    }
}

#[test]
fn a_clock_that_is_set_too_late_or_by_too_little_changes_nothing() {
    let off = i64::try_from(OFF).unwrap();
    let hours = |hours: u64| i64::try_from(hours * HOUR).unwrap();
    let rows = [
        (Shown::Zero, None, off),
        (Shown::Zero, Some(25 * HOUR), off),
        (Shown::Saved(7), Some(25 * HOUR), off - 7),
        (Shown::Saved(7), None, off - 7),
        (Shown::Behind(2 * HOUR), None, hours(2)),
        (Shown::Behind(2 * HOUR), Some(25 * HOUR), hours(2)),
        (Shown::Behind(59), Some(600), 59),
        (Shown::Ahead(2 * HOUR), None, -hours(2)),
        (Shown::Ahead(2 * HOUR), Some(600), -hours(2)),
    ];
    for (shown, set, late) in rows {
        let mut scene = Scene::new(shown);
        scene.machine.run(set.unwrap_or(600));
        if set.is_some() {
            scene.machine.set_right();
        }
        scene.check_and_restart(late, &format!("{shown:?}, set {set:?}"));
    }
}

#[test]
fn a_believed_clock_that_was_ahead_at_the_stop_hides_as_much_of_the_time_off() {
    for (ahead, late) in [(DAY, DAY), (YEAR, OFF)] {
        let mut machine = Machine::new();
        let old = machine.remembered();
        machine.show(machine.truth() + ahead * 1000);
        machine.stop_and_boot(OFF, Shown::Right);
        let new = machine.remembered();
        machine.check(&old, OFF, late.cast_signed(), "from before");
        machine.run(DAY);
        machine.check(&old, OFF, late.cast_signed(), "from before, a day on");
        machine.check(&new, OFF, 0, "since");
        machine.stop_and_boot(OFF, Shown::Right);
        machine.check(&old, OFF, late.cast_signed(), "what comes after is counted");
        machine.check(&new, OFF, 0, "since, after another time off");
    }
}

#[test]
fn a_clock_decades_ahead_ends_what_is_older_and_nothing_else() {
    let mut scene = Scene { cold: Vec::new(), old: Vec::new(), ..far_ahead() };
    scene.machine.run(600);
    scene.machine.set_right();
    scene.check_and_restart(0, "decades ahead");
    // What comes after it is counted.
    scene.machine.stop_and_boot(OFF, Shown::Right);
    scene.check(0, "decades ahead, then right");
    scene.machine.stop_and_boot(OFF, Shown::Zero);
    scene.machine.set_right();
    scene.check(0, "decades ahead, then right, then at 1970");
}

/// Each boot uses up ten years of the store's time, so that it begins anew now and then, with nobody signed in.
#[test]
fn a_clock_decades_ahead_at_every_boot_keeps_nobody_out() {
    let mut machine = Machine::new();
    let epoch = |machine: &Machine| machine.bench.directory.contents().into_iter().find(|(name, _)| name == "epoch");
    let mut anew = 0;
    for boot in 0..40 {
        machine.stop();
        let before = epoch(&machine);
        machine.boot(60, Shown::Ahead(70 * YEAR));
        // A copy from before must not come back.
        anew += u32::from(epoch(&machine) != before);
        assert_eq!(machine.sessions().stats().sessions, 0);
        machine.run(60);
        machine.set_right();
        let known = [machine.member(), machine.remembered(), machine.stranger()];
        let check =
            |machine: &Machine| known.iter().for_each(|known| machine.check(known, 0, 0, &format!("boot {boot}")));
        check(&machine);
        machine.restart();
        check(&machine);
        machine.crash();
        check(&machine);
    }
    assert_eq!(anew, 3, "every eleventh time");
}

fn far_ahead() -> Scene {
    let mut machine = Machine::new();
    let old = machine.remembered();
    machine.stop_and_boot(OFF, Shown::Ahead(40 * YEAR));
    assert!(!machine.lives(&old));
    let new = vec![machine.member(), machine.remembered()];
    Scene { booted: machine.now, machine, cold: Vec::new(), old: Vec::new(), new }
}

#[test]
fn a_step_while_the_process_is_down_is_seen_before_anybody_is_served() {
    for shown in [Shown::Zero, Shown::Saved(7)] {
        let mut scene = Scene::new(shown);
        scene.machine.run(600);
        scene.machine.stop();
        scene.machine.bench.advance(100);
        scene.machine.now += 100;
        scene.machine.show(scene.machine.truth());
        scene.machine.sessions = Some(scene.machine.bench.open());
        scene.check(0, "before the first turn");
        scene.machine.crash();
        scene.check_and_restart(0, "after a crash before it");
    }
}

/// The last moment for it: the next boot is behind again, and never set.
#[test]
fn a_step_just_before_the_stop_is_not_lost() {
    let mut machine = Machine::new();
    let (known, booted) = (machine.remembered(), OFF);
    machine.stop_and_boot(OFF, Shown::Zero);
    machine.run(600);
    machine.show(machine.truth());
    machine.stop_and_boot(0, Shown::Zero);
    machine.check(&known, booted, 0, "never set again");
}

#[test]
fn the_first_step_within_the_day_counts_across_restarts_of_the_process() {
    let mut scene = Scene::new(Shown::Saved(7));
    for _ in 0..5 {
        scene.machine.run(4 * HOUR);
        scene.machine.restart();
    }
    scene.machine.set_right();
    scene.check_and_restart(0, "many restarts");
}

#[test]
fn what_a_credit_ends_is_collected_at_once_and_what_it_ages_in_time() {
    let mut machine = Machine::new();
    let (short, long) = (machine.sign_in("ada", 30 * DAY, 60 * DAY), machine.remembered());
    machine.stop_and_boot(40 * DAY, Shown::Zero);
    assert!(machine.lives(&short), "nobody knows better yet");
    machine.run(60);
    assert_eq!(machine.sessions().stats().sessions, 2);
    machine.set_right();
    assert!(!machine.lives(&short) && machine.lives(&long));
    machine.run(1);
    assert_eq!(machine.sessions().stats().sessions, 1);
    machine.run(long.ends() - machine.now - 1);
    assert_eq!((machine.lives(&long), machine.sessions().stats().sessions), (true, 1));
    machine.run(1);
    assert_eq!(machine.sessions().stats().sessions, 0, "the wheel was told");
    machine.restart();
    assert_eq!(machine.bench.records(Table::Sessions), 0);
}

#[test]
fn the_clock_is_written_each_hour_while_there_are_sessions() {
    let mut machine = Machine::new();
    machine.run(5 * HOUR);
    let commits = machine.sessions().stats().commits;
    assert_eq!(commits, 0, "for nobody");
    let known = machine.remembered();
    machine.run(10 * HOUR);
    let commits = machine.sessions().stats().commits;
    assert!((10..=12).contains(&commits), "{commits}");
    machine.cut();
    machine.boot(0, Shown::Zero);
    let late = machine.said(&known).ends - known.ends();
    assert!(late <= HOUR, "{late}");
}

#[test]
fn other_options_shorten_aged_sessions_from_when_they_truly_began() {
    for (days, in_use) in [(20, false), (20, true), (300, false)] {
        let what = format!("{days} days, in use: {in_use}");
        let mut machine = Machine::new();
        let mut known = machine.member();
        machine.stop_and_boot(OFF, Shown::Zero);
        machine.run(600);
        machine.set_right();
        if in_use {
            // Its header is written with the credit in it.
            machine.prove(&mut known);
        }
        machine.stop();
        let span = Duration::from_secs(days * DAY);
        machine.bench.options = machine.bench.options.clone().idle_timeout(span).lifetime(span);
        machine.sessions = Some(machine.bench.open());
        (known.idle, known.life) = (known.idle.min(days * DAY), known.life.min(days * DAY));
        machine.check(&known, machine.now, 0, &what);
        // So that its life is over before it is idle for too long.
        machine.run(days.min(30) / 2 * DAY);
        machine.touch(&mut known);
        machine.run(known.ends() - machine.now - 1);
        assert_eq!(machine.sessions().stats().sessions, 1, "{what}");
        machine.run(1);
        assert_eq!(machine.sessions().stats().sessions, 0, "{what}");
    }
}

#[test]
fn where_boots_have_no_names_a_restart_costs_the_time_it_took() {
    #[derive(Clone, Debug)]
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
    let mut machine = Machine::new();
    machine.stop();
    let mut bench = Bench::with(|options| options.remembered(Duration::from_secs(90 * DAY), Duration::from_secs(YEAR)));
    bench.options = bench.options.clone().clock(Nameless(bench.clock.clone()));
    let mut machine = Machine::with(bench);
    let known = machine.remembered();
    for _ in 0..10 {
        machine.run(7 * HOUR);
        machine.restart();
        machine.bench.advance(20);
        machine.now += 20;
        machine.crash();
    }
    assert_eq!(machine.said(&known).ends, known.ends());
    machine.stop_and_boot(OFF, Shown::Right);
    assert_eq!(machine.said(&known).ends, known.ends());
    machine.stop_and_boot(OFF, Shown::Zero);
    machine.run(600);
    machine.set_right();
    assert_eq!(machine.said(&known).ends, known.ends());
}

#[test]
fn a_clock_since_boot_that_goes_back_stops_no_time() {
    #[derive(Clone, Debug)]
    struct Loose(ManualClock, Arc<AtomicU64>);
    impl Clock for Loose {
        fn since_boot(&self) -> Duration {
            self.0.since_boot().saturating_sub(Duration::from_secs(self.1.load(Ordering::SeqCst)))
        }
        fn wall(&self) -> Timestamp {
            self.0.wall()
        }
        fn boot_id(&self) -> Option<[u8; 16]> {
            self.0.boot_id()
        }
    }
    let back = Arc::new(AtomicU64::new(0));
    let mut bench = Bench::with(|options| options.remembered(Duration::from_secs(90 * DAY), Duration::from_secs(YEAR)));
    bench.options = bench.options.clone().clock(Loose(bench.clock.clone(), Arc::clone(&back)));
    let mut machine = Machine::with(bench);
    let known = machine.remembered();
    machine.run(600);
    back.store(1800, Ordering::SeqCst);
    machine.sessions().run_pending();
    machine.run(600);
    assert_eq!(machine.said(&known).ends, known.ends(), "it goes on from where it was");
    machine.restart();
    assert_eq!(machine.said(&known).ends, known.ends());
    machine.stop();
    back.store(4000, Ordering::SeqCst);
    machine.sessions = Some(machine.bench.open());
    let said = machine.said(&known).ends;
    assert!(said <= known.ends(), "taken for another boot: {said}");
}

#[test]
fn the_record_of_credits_is_small_goes_in_the_end_and_is_missed_when_it_is_removed() {
    let mut machine = Machine::new();
    let mut known = Vec::new();
    for _ in 0..100 {
        known.push(machine.remembered());
        machine.run(600);
        machine.stop_and_boot(DAY, Shown::Saved(3));
        machine.run(60);
        machine.set_right();
    }
    let credits = |machine: &Machine| journal_file::read(&machine.bench.directory.contents(), Table::Meta).remove(&3);
    assert_eq!(credits(&machine).unwrap().len(), 2 + 64 * 20 + 16);
    let check = |machine: &Machine| {
        let late = known.iter().filter(|known| machine.lives(known) && machine.said(known).ends > known.ends());
        assert_eq!(late.count(), 0, "nobody got longer");
        let exact = known[40..].iter().filter(|known| machine.lives(known) && machine.said(known).ends == known.ends());
        assert_eq!(exact.count(), 60 - known[40..].iter().filter(|known| known.ends() <= machine.now).count());
    };
    check(&machine);
    machine.restart();
    check(&machine);
    machine.crash();
    check(&machine);
    machine.sessions.take().unwrap().close().unwrap();
    let removed = machine.bench.directory.copy();
    removed.overwrite(store_file::NAME, |file| store_file::write(file, store_file::Table::Meta, 3, None));
    let error = removed.open(&machine.bench.options).unwrap_err();
    assert_eq!(error.kind(), dwell::ErrorKind::Corrupt, "{error}");
    let sessions = machine.bench.open();
    for n in 0..100 {
        sessions.revoke_all(&format!("user {n}")).unwrap().blocking_wait().unwrap();
    }
    machine.sessions = Some(sessions);
    machine.run(60);
    machine.restart();
    machine.member();
    machine.stop();
    assert_eq!(credits(&machine), None, "no row needs it");
    machine.sessions = Some(machine.bench.open());
    let known = machine.member();
    machine.stop_and_boot(DAY, Shown::Zero);
    machine.set_right();
    machine.check(&known, machine.now, 0, "numbers go on");
    machine.restart();
    machine.check(&known, machine.now, 0, "numbers go on");
}
