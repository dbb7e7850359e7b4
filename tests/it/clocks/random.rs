//! Random lives of machines, held against the true time.
//!
//! Once a clock was set right, nothing ends later than it truly should, but for what small steps hide (a minute for
//! each boot); what was made or used since the boot never ends early. Two things nobody can know, and they are left
//! out: a clock that stays behind for a day, and what was made from when one was ahead until one is set.

use super::{DAY, HOUR, Known, Machine, Shown, YEAR};
use crate::rng::{Rng, seeds};

/// Less than this is no step.
const SMALL: u64 = 60;
/// What a crash may cost of a last use, and rounding of it at some stops.
const LAG: u64 = HOUR + ROUNDING;
/// A use that is rounded to before the boot passes for one.
const ROUNDING: u64 = 20 * 60;

struct Life {
    machine: Machine,
    rng: Rng,
    known: Vec<Entry>,
    booted: u64,
    boots: u64,
    /// The wall clock is not behind, or was set right.
    right: bool,
    /// It was ahead, and was not set right since.
    ahead: bool,
    log: Vec<String>,
}

struct Entry {
    known: Known,
    /// When it was used, as far as that may be what is on disk.
    uses: Vec<u64>,
    /// Boots that there were when it was made.
    since: u64,
    /// Nobody can know how late it may be.
    lost: bool,
}

impl Life {
    fn new(seed: u64) -> Self {
        let machine = Machine::new();
        let mut rng = Rng::new(seed);
        rng.next();
        Self { machine, rng, known: Vec::new(), booted: 0, boots: 0, right: true, ahead: false, log: Vec::new() }
    }

    fn step(&mut self) {
        match self.rng.below(16) {
            0..=2 => {
                let machine = &self.machine;
                let known = if self.rng.one_in(2) { machine.member() } else { machine.remembered() };
                self.note(format!("made {known:?}"));
                self.known.push(Entry { uses: vec![known.seen], known, since: self.boots, lost: false });
            }
            3..=5 => self.each(|machine, entry| {
                machine.touch(&mut entry.known);
                entry.uses.push(machine.now);
            }),
            6 => self.each(|machine, entry| {
                machine.prove(&mut entry.known);
                entry.uses = vec![machine.now];
            }),
            7..=9 => {
                let seconds = *self.rng.pick(&[1, 20, 600, HOUR, 7 * HOUR]);
                self.note(format!("run {seconds}"));
                self.machine.run(seconds);
                if !self.right && self.machine.now - self.booted >= DAY {
                    self.note("believed".into());
                    self.lose();
                    self.right = true;
                }
            }
            10 => {
                self.note("restart".into());
                self.machine.restart();
            }
            11 => {
                self.note("crash".into());
                self.forget_uses();
                self.machine.crash();
            }
            12 | 13 => self.set_right(),
            14 => self.machine.sessions().run_pending(),
            _ => self.reboot(),
        }
    }

    fn note(&mut self, what: String) {
        self.log.push(format!("{}: {what}", self.machine.now));
    }

    fn each(&mut self, act: impl Fn(&Machine, &mut Entry)) {
        for entry in &mut self.known {
            if self.rng.one_in(3) && self.machine.lives(&entry.known) {
                act(&self.machine, entry);
            }
        }
    }

    fn set_right(&mut self) {
        self.note("set right".into());
        self.machine.set_right();
        // It is on disk that the clock was set.
        self.machine.member();
        (self.right, self.ahead) = (true, false);
    }

    fn reboot(&mut self) {
        let off = *self.rng.pick(&[0, 30, HOUR, DAY, 9 * DAY]);
        let shown = *self.rng.pick(&[
            Shown::Right,
            Shown::Right,
            Shown::Behind(2 * HOUR),
            Shown::Saved(0),
            Shown::Saved(9),
            Shown::Zero,
            Shown::Ahead(2 * HOUR),
            Shown::Ahead(40 * YEAR),
        ]);
        if self.ahead {
            self.lose();
        }
        if self.rng.one_in(2) {
            self.machine.stop();
        } else {
            self.forget_uses();
            self.machine.cut();
        }
        self.machine.boot(off, shown);
        self.note(format!("off for {off}, then {shown:?}"));
        self.boots += 1;
        self.booted = self.machine.now;
        let fast = self.machine.wall_is_ahead_by();
        let small = i64::try_from(SMALL).unwrap();
        (self.right, self.ahead) = (fast > -small, self.ahead || fast >= small);
    }

    /// The last uses may not be on disk.
    fn forget_uses(&mut self) {
        let now = self.machine.now;
        for entry in &mut self.known {
            let sure = entry.uses.iter().rev().find(|&&used| used + LAG <= now).or_else(|| entry.uses.first());
            entry.uses = vec![*sure.unwrap()];
        }
    }

    fn lose(&mut self) {
        self.known.iter_mut().for_each(|entry| entry.lost = true);
    }

    fn check(&mut self) {
        let (machine, now, log) = (&self.machine, self.machine.now, &self.log);
        let replay = || log.iter().rev().take(30).rev().cloned().collect::<Vec<_>>().join("\n");
        for entry in &self.known {
            let (known, slack) = (&entry.known, SMALL * (self.boots - entry.since));
            let sure = *entry.uses.last().unwrap();
            let (new, used) = (known.made >= self.booted, sure >= self.booted + ROUNDING);
            let soonest = (sure + known.idle).min(known.made + known.life) - LAG;
            if !machine.lives(known) {
                assert!(!new || soonest <= now, "{known:?} ended at {now}\n{}", replay());
                continue;
            }
            let said = machine.said(known);
            if new {
                assert_eq!(said.life_ends, known.made + known.life, "{known:?}\n{}", replay());
                assert!(said.ends >= soonest, "{known:?} {said:?}\n{}", replay());
            }
            if used {
                assert!(said.ends >= soonest.min(said.life_ends - LAG), "{known:?} {said:?}\n{}", replay());
            }
            if self.right && !entry.lost {
                assert!(said.ends <= known.ends() + slack, "{known:?} {said:?} at {now}\n{}", replay());
                assert!(said.life_ends <= known.made + known.life + slack, "{known:?} {said:?}\n{}", replay());
                let ago = now - known.proved.unwrap();
                assert!(said.proved_ago.unwrap() + slack >= ago, "{known:?} {said:?} at {now}\n{}", replay());
            }
        }
        self.known.retain(|entry| machine.lives(&entry.known));
    }
}

#[test]
fn nothing_outlives_its_true_time_once_that_is_known() {
    for seed in seeds(60) {
        println!("seed {seed}");
        let mut life = Life::new(seed);
        for _ in 0..120 {
            life.step();
            life.check();
        }
    }
}
