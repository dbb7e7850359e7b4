//! Clocks that lie: wall clocks that step, boots with a clock that is behind or ahead, power cuts in between.
//!
//! The machine here knows the true time. What is expected of a start, for sessions from before it:
//!
//! | The wall clock at start | and then | sessions from before the boot end |
//! |---|---|---|
//! | right | | on time |
//! | behind, by hours or at 1970 | is set within a day | on time |
//! | goes on where it stopped, or a few seconds on (fake-hwclock) | is set within a day | on time |
//! | behind | is never set, or after a day | late by what was not counted: nobody can know |
//! | behind, or set, by less than a minute | | late by that |
//! | ahead | is set back, or not | early by that; the time off that comes next counts in full |
//!
//! Sessions made since the boot, and idle times of sessions used since, are exact in every case. In the boot that made
//! the store no step of the wall clock means anything.

mod boots;
mod cuts;
mod races;
mod random;
mod steps;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dwell::sim::Directory;
use dwell::{Clock, Session, Sessions, SignIn, Timestamp, Token};

use crate::traps::{Bench, begin};

pub(crate) const HOUR: u64 = 3600;
pub(crate) const DAY: u64 = 24 * HOUR;
pub(crate) const YEAR: u64 = 365 * DAY;
/// A stop tells last uses to within this, where the idle timeout is a day or more.
const AGE_STEP: u64 = HOUR / 64;

/// A machine that knows the true time, in seconds since it began.
pub(crate) struct Machine {
    pub(crate) bench: Bench,
    pub(crate) sessions: Option<Sessions>,
    pub(crate) now: u64,
    began_ms: u64,
    /// Each may have rounded last uses to older ones.
    stops: u64,
    /// People who signed in.
    people: AtomicU64,
}

/// What the wall clock shows when a boot begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    Right,
    Behind(u64),
    Ahead(u64),
    /// The year 1970.
    Zero,
    /// What it showed at the stop, and so many seconds more.
    Saved(u64),
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self::seeded(1)
    }

    /// One whose disk loses and keeps other parts of what was not flushed.
    pub(crate) fn seeded(seed: u64) -> Self {
        let bench = Bench::with(|options| {
            let (month, year) = (Duration::from_secs(30 * DAY), Duration::from_secs(YEAR));
            let options = options.idle_timeout(month).lifetime(2 * month).remembered(month * 3, year);
            options.anonymous_lifetime(month).anonymous_idle_timeout(month)
        });
        Self::with(Bench { directory: Directory::new(seed), ..bench })
    }

    pub(crate) fn with(bench: Bench) -> Self {
        let (sessions, began_ms) = (Some(bench.open()), bench.clock.wall().unix_ms());
        Self { bench, sessions, now: 0, began_ms, stops: 0, people: AtomicU64::new(0) }
    }

    pub(crate) fn sessions(&self) -> &Sessions {
        self.sessions.as_ref().unwrap()
    }

    fn truth(&self) -> u64 {
        self.began_ms + self.now * 1000
    }

    pub(crate) fn show(&self, unix_ms: u64) {
        self.bench.clock.set_wall(Timestamp::from_unix_ms(unix_ms));
    }

    /// Seconds by which the wall clock is ahead of the truth.
    pub(crate) fn wall_is_ahead_by(&self) -> i64 {
        (self.bench.clock.wall().unix_ms().cast_signed() - self.truth().cast_signed()) / 1000
    }

    /// Time passes, with the engine's work done in between as its threads would.
    pub(crate) fn run(&mut self, seconds: u64) {
        let mut left = seconds;
        while left > 0 {
            let slice = left.min(HOUR);
            self.bench.advance(slice);
            self.now += slice;
            left -= slice;
            self.sessions().run_pending();
        }
    }

    /// Somebody sets the clock right.
    pub(crate) fn set_right(&self) {
        self.show(self.truth());
        self.sessions().run_pending();
    }

    /// Stops the process, and starts it again in the same boot.
    pub(crate) fn restart(&mut self) {
        let sessions = self.sessions.take().unwrap();
        self.sessions = Some(self.bench.restart(sessions));
        self.stops += 1;
    }

    /// Kills the process, and starts it again in the same boot.
    pub(crate) fn crash(&mut self) {
        let sessions = self.sessions.take().unwrap();
        self.sessions = Some(self.bench.crash(sessions));
    }

    /// Stops the process and the machine.
    pub(crate) fn stop(&mut self) {
        self.sessions.take().unwrap().close().unwrap();
        self.stops += 1;
    }

    /// The power fails.
    pub(crate) fn cut(&mut self) {
        self.bench.directory.restore_power();
        self.sessions = None;
    }

    /// The machine starts after a time off; the process ten seconds later.
    pub(crate) fn boot(&mut self, off: u64, shown: Shown) {
        let saved = self.bench.clock.wall().unix_ms();
        self.now += off;
        self.bench.clock.reboot();
        let truth = self.truth();
        self.show(match shown {
            Shown::Right => truth,
            Shown::Behind(seconds) => truth - seconds * 1000,
            Shown::Ahead(seconds) => truth + seconds * 1000,
            Shown::Zero => 0,
            Shown::Saved(seconds) => saved + seconds * 1000,
        });
        self.bench.advance(10);
        self.now += 10;
        self.sessions = Some(self.bench.open());
    }

    pub(crate) fn stop_and_boot(&mut self, off: u64, shown: Shown) {
        self.stop();
        self.boot(off, shown);
    }

    pub(crate) fn sign_in(&self, who: impl Into<SignIn>, idle: u64, life: u64) -> Known {
        let session = self.sessions().start();
        let token = session.sign_in(who).unwrap().blocking_wait().unwrap();
        Known { token, made: self.now, seen: self.now, proved: Some(self.now), idle, life }
    }

    fn somebody(&self) -> SignIn {
        SignIn::new(format!("user {}", self.people.fetch_add(1, Ordering::Relaxed)))
    }

    pub(crate) fn member(&self) -> Known {
        self.sign_in(self.somebody(), 30 * DAY, 60 * DAY)
    }

    pub(crate) fn remembered(&self) -> Known {
        self.sign_in(self.somebody().remembered(), 90 * DAY, YEAR)
    }

    pub(crate) fn stranger(&self) -> Known {
        let (session, token) = begin(self.sessions(), 1);
        session.save().unwrap().blocking_wait().unwrap();
        Known { token, made: self.now, seen: self.now, proved: None, idle: 30 * DAY, life: 30 * DAY }
    }

    pub(crate) fn load(&self, known: &Known) -> Session {
        self.sessions().load_without_touch(&known.token).unwrap().expect("it is live")
    }

    pub(crate) fn lives(&self, known: &Known) -> bool {
        self.sessions().load_without_touch(&known.token).unwrap().is_some()
    }

    /// Uses a session.
    pub(crate) fn touch(&self, known: &mut Known) {
        self.sessions().load(&known.token).unwrap().expect("it is live");
        known.seen = self.now;
    }

    /// Its person proves again who they are.
    pub(crate) fn prove(&self, known: &mut Known) {
        known.token = self.load(known).reauthenticate(1).unwrap().blocking_wait().unwrap();
        (known.seen, known.proved) = (self.now, Some(self.now));
    }

    /// What the engine says of a session.
    pub(crate) fn said(&self, known: &Known) -> Said {
        let session = self.load(known);
        let seconds = |span: Option<Duration>| span.unwrap().as_secs();
        Said {
            ends: self.now + seconds(session.idle_left().unwrap()),
            life_ends: self.now + seconds(session.life_left().unwrap()),
            proved_ago: session.auth_age().unwrap().map(|age| age.as_secs()),
        }
    }

    /// Holds what the engine says against the truth, where what is older than this boot is `late` by so much.
    pub(crate) fn check(&self, known: &Known, booted: u64, late: i64, what: &str) {
        let said = self.said(known);
        let at = |moment: u64| moment.saturating_add_signed(if moment < booted { late } else { 0 });
        let life_ends = known.life + known.made.saturating_add_signed(if known.made < booted { late } else { 0 });
        assert_eq!(said.life_ends, life_ends, "{what}: life");
        let ends = life_ends.min(at(known.seen) + known.idle);
        let rounded = ends - self.stops * AGE_STEP..=ends;
        assert!(rounded.contains(&said.ends), "{what}: idle: {} is not in {rounded:?}", said.ends);
        // Told by differences, since nothing is before the beginning.
        let proved_ago = known
            .proved
            .map(|proved| (self.now - proved).saturating_add_signed(if proved < booted { -late } else { 0 }));
        assert_eq!(said.proved_ago, proved_ago, "{what}: proof");
    }
}

/// A session, with what truly happened to it.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) token: Token,
    pub(crate) made: u64,
    pub(crate) seen: u64,
    pub(crate) proved: Option<u64>,
    pub(crate) idle: u64,
    pub(crate) life: u64,
}

impl Known {
    pub(crate) fn ends(&self) -> u64 {
        (self.seen + self.idle).min(self.made + self.life)
    }
}

/// What the engine says of a session, in true time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) ends: u64,
    pub(crate) life_ends: u64,
    pub(crate) proved_ago: Option<u64>,
}
