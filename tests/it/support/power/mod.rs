//! The power-cut simulator: a whole engine on a simulated directory, random operations, and a model of what was
//! acknowledged.
//!
//! The model keeps two worlds. `durable` is what the receipts have promised; `pending` is what memory says, as the
//! next commit would write it. When the power fails during an operation, either may be found, whole: an operation
//! without an answer happened or did not. When it fails between operations, only `durable` may be. Everything follows
//! from the seed.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how the model fails")]

mod operations;
mod successors;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use dwell::sim::{Directory, Planted};
use dwell::{AtLimit, ErrorKind, Field, ManualClock, Options, Result, Session, SessionId, Sessions, Token};

/// Power cuts in the life of one directory.
pub(crate) const CUTS_PER_RUN: u32 = 4;

/// What went wrong, and how to see it again.
#[derive(Debug)]
pub(crate) struct Violation(pub(crate) String);

/// Runs one directory through its power cuts.
pub(crate) fn run(seed: u64) -> std::result::Result<(), Violation> {
    lead_through(Run::new(seed), seed)
}

/// The same with a mistake in the engine.
#[cfg_attr(not(test), expect(dead_code, reason = "for the tests only"))]
pub(crate) fn run_with(seed: u64, mistake: Planted) -> std::result::Result<(), Violation> {
    let run = Run::new(seed);
    run.directory.plant(mistake);
    lead_through(run, seed)
}

fn lead_through(mut run: Run, seed: u64) -> std::result::Result<(), Violation> {
    let outcome = catch_unwind(AssertUnwindSafe(|| run.lives()));
    let outcome = outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(format!(
            "panic: {}",
            text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).into())).unwrap_or_default()
        ))
    });
    outcome.map_err(|what| {
        let from = run.log.len().saturating_sub(40);
        let mut text = format!(
            "seed {seed}: {what}\nreplay: cargo run --all-features --example power_cuts -- --cuts 1 --seed {seed}\n"
        );
        run.log.iter().skip(from).for_each(|line| _ = writeln!(text, "  {line}"));
        Violation(text)
    })
}

const NUMBER: Field<u32> = Field::new("number");
const TEXT: Field<String> = Field::new("text");
const KEPT: Field<u32> = Field::new("kept").keep_on_sign_in();

const PRINCIPALS: [&str; 3] = ["ada", "bob", "cyd"];
/// More than a revocation deletes one by one, so that cutoffs come in.
const PER_PRINCIPAL: usize = 7;
const IDLE: u32 = 600;
const LIFETIME: u32 = 3600;
const ANONYMOUS: u32 = 2000;

/// A session as the model sees it. Times are seconds of the simulation.
#[derive(Clone, Debug)]
struct Visitor {
    principal: Option<usize>,
    /// Place in the list of all tokens; `None` if the engine never told it.
    token: Option<usize>,
    /// The successor that was handed out for it and has not been used.
    offered: Option<usize>,
    /// The token before, and when its overlap is over: at the earliest, at the latest.
    left: Option<(usize, (u32, u32))>,
    /// What the number and the text say.
    number: Option<u32>,
    kept: Option<u32>,
    created: u32,
    /// Last seen: at least, at most, and what a crash may fall back to.
    seen: (u32, u32),
    seen_on_disk: u32,
}

impl Visitor {
    fn new(principal: Option<usize>, now: u32) -> Self {
        let (offered, left) = (None, None);
        Self {
            principal,
            token: None,
            offered,
            left,
            number: None,
            kept: None,
            created: now,
            seen: (now, now),
            seen_on_disk: now,
        }
    }

    fn same(&self, other: &Self) -> bool {
        (self.principal, self.token, self.number, self.kept, self.created)
            == (other.principal, other.token, other.number, other.kept, other.created)
    }

    fn deadline(&self, seen: u32) -> u32 {
        let (idle, lifetime) = if self.principal.is_some() { (IDLE, LIFETIME) } else { (ANONYMOUS, ANONYMOUS) };
        (seen + idle).min(self.created + lifetime)
    }

    fn surely_lives(&self, now: u32) -> bool {
        now < self.deadline(self.seen.0)
    }

    fn surely_dead(&self, now: u32) -> bool {
        now >= self.deadline(self.seen.1)
    }
}

/// All sessions by their number, in the order in which they were made, and who may not sign in.
#[derive(Clone, Debug, Default)]
struct World {
    live: BTreeMap<u32, Visitor>,
    disabled: BTreeSet<usize>,
}

impl World {
    fn of(&self, principal: usize) -> Vec<u32> {
        self.live.iter().filter(|(_, visitor)| visitor.principal == Some(principal)).map(|(name, _)| *name).collect()
    }

    fn end(&mut self, names: &[u32]) {
        names.iter().for_each(|name| _ = self.live.remove(name));
    }
}

/// How an operation went.
enum Done {
    /// A receipt says that what was done to these sessions is durable.
    Acknowledged(Vec<u32>),
    InMemory,
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Power {
    On,
    Lost,
}

type Checked<T = ()> = std::result::Result<T, String>;

struct Run {
    random: Random,
    directory: Directory,
    clock: ManualClock,
    options: Options,
    now: u32,
    cuts: u32,
    /// A cut is planned.
    armed: bool,
    tokens: Vec<Token>,
    /// Tokens that their clients have given up for the successor, whatever the engine remembers of that.
    moved: BTreeMap<usize, usize>,
    /// What named each session that was acknowledged: its row, which is never another's.
    ids: BTreeMap<u32, SessionId>,
    next_name: u32,
    next_number: u32,
    durable: World,
    pending: World,
    /// As the engine counts them since it was opened.
    commits: usize,
    /// The power failed during an operation, so either world may be found.
    in_doubt: bool,
    /// Nobody can see whether these are disabled until they sign in.
    unsure: BTreeSet<usize>,
    /// Handles of sessions that have ended.
    ghosts: Vec<Session>,
    log: Vec<String>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let clock = ManualClock::new();
        let second = |count: u32| Duration::from_secs(count.into());
        let options = Options::new()
            .idle_timeout(second(IDLE))
            .lifetime(second(LIFETIME))
            .anonymous_lifetime(second(ANONYMOUS))
            .sessions_per_principal(u32::try_from(PER_PRINCIPAL).unwrap_or(u32::MAX), AtLimit::EndOldest)
            .clock(clock.clone())
            .manual_workers();
        // The other half of the runs is without.
        let rotates = seed.is_multiple_of(2);
        let options = if rotates { successors::rotating(options) } else { options };
        Self {
            random: Random(seed),
            directory: Directory::new(seed),
            clock,
            options,
            now: 0,
            cuts: 0,
            armed: false,
            tokens: Vec::new(),
            moved: BTreeMap::new(),
            ids: BTreeMap::new(),
            next_name: 0,
            next_number: 0,
            durable: World::default(),
            pending: World::default(),
            commits: 0,
            in_doubt: false,
            unsure: BTreeSet::new(),
            ghosts: Vec::new(),
            log: Vec::new(),
        }
    }

    fn lives(&mut self) -> Checked {
        while self.cuts < CUTS_PER_RUN {
            if self.random.one_in(3) {
                self.arm(40);
            }
            match self.directory.open(&self.options) {
                Ok(sessions) => self.life(sessions)?,
                Err(_) if self.armed => {
                    self.log.push("the power failed while opening".into());
                    self.cut();
                }
                Err(error) => return Err(format!("opening failed: {error:#}")),
            }
        }
        // Whatever the last cut left opens and is right.
        let sessions = self.directory.open(&self.options).map_err(|error| format!("the last opening: {error:#}"))?;
        self.recover(&sessions)
    }

    fn life(&mut self, sessions: Sessions) -> Checked {
        self.recover(&sessions)?;
        if self.random.one_in(2) {
            self.arm(200);
        }
        for _ in 0..self.random.up_to(40) {
            if self.step(&sessions)? == Power::Lost {
                self.log.push("the power failed during that".into());
                self.in_doubt = true;
                self.cut();
                return Ok(());
            }
        }
        self.ghosts.clear();
        match self.random.up_to(3) {
            0 => {
                self.log.push("the power fails between operations".into());
                self.cut();
                return Ok(());
            }
            1 => self.arm(25),
            _ => {}
        }
        match sessions.close() {
            Ok(()) => {
                self.log.push("closed".into());
                self.pending.live.values_mut().for_each(|visitor| visitor.seen_on_disk = visitor.seen.0);
                self.durable = self.pending.clone();
                if self.random.one_in(2) {
                    self.cut();
                }
            }
            Err(_) if self.armed => {
                self.log.push("the power failed while closing".into());
                self.in_doubt = true;
                self.cut();
            }
            Err(error) => return Err(format!("closing failed: {error:#}")),
        }
        Ok(())
    }

    fn arm(&mut self, within: u64) {
        if !self.armed {
            self.armed = true;
            let at = self.directory.operations() + self.random.up_to(within);
            self.log.push(format!("a cut is planned for operation {at}"));
            self.directory.cut_power_at(at);
        }
    }

    fn cut(&mut self) {
        self.directory.restore_power();
        self.ghosts.clear();
        self.armed = false;
        self.cuts += 1;
        if self.random.one_in(2) {
            self.clock.reboot();
        }
        if self.random.one_in(3) {
            let seconds = self.random.up_to(700);
            self.pass(seconds);
        }
    }

    fn pass(&mut self, seconds: u64) {
        self.log.push(format!("{seconds} s pass"));
        self.clock.advance(Duration::from_secs(seconds));
        self.now += u32::try_from(seconds).unwrap_or(0);
    }

    /// Finds the world that the directory holds, and goes on with it.
    fn recover(&mut self, sessions: &Sessions) -> Checked {
        for world in [&mut self.durable, &mut self.pending] {
            world.live.values_mut().for_each(|visitor| visitor.seen.0 = visitor.seen_on_disk);
        }
        let durable = self.matches(&self.durable, sessions);
        let pending = if self.in_doubt { self.matches(&self.pending, sessions) } else { Err(String::new()) };
        let differ: Vec<usize> = self.durable.disabled.symmetric_difference(&self.pending.disabled).copied().collect();
        let (mut world, alive) = match (durable, pending) {
            (Ok(_), Ok(alive)) => {
                self.unsure.extend(differ);
                (self.pending.clone(), alive)
            }
            (Err(_), Ok(alive)) => (self.pending.clone(), alive),
            (Ok(alive), Err(_)) => (self.durable.clone(), alive),
            (Err(old), Err(new)) => return Err(format!("neither the old state: {old}; nor the new: {new}")),
        };
        world.live.retain(|name, _| alive.contains(name));
        self.catch_up(&mut world);
        self.log.push(format!("opened with {} sessions", alive.len()));
        self.durable = world.clone();
        self.pending = world;
        (self.in_doubt, self.commits) = (false, 0);
        Ok(())
    }

    /// Whether all that can be seen fits a world; the sessions of it that live.
    fn matches(&self, world: &World, sessions: &Sessions) -> Checked<BTreeSet<u32>> {
        // An anonymous session whose new token was never told cannot be seen, only counted.
        let unseen = |visitor: &Visitor| visitor.token.is_none() && visitor.principal.is_none();
        let unseen = world.live.iter().filter(|(_, visitor)| unseen(visitor) && visitor.surely_lives(self.now));
        let mut alive: BTreeSet<u32> = unseen.map(|(name, _)| *name).collect();
        for (number, token) in self.tokens.iter().enumerate() {
            if self.is_delicate(number) {
                continue;
            }
            let expected = world.live.iter().find(|(_, visitor)| self.newest(visitor.token) == Some(number));
            let found = sessions.load_without_touch(token).map_err(|error| format!("token {number}: {error:#}"))?;
            match (expected, found) {
                (None, None) => {}
                (None, Some(_)) => return Err(format!("token {number} loads, whose session has ended")),
                (Some((name, visitor)), None) => {
                    if visitor.surely_lives(self.now) {
                        return Err(format!("session {name} is lost: {visitor:?} at {}", self.now));
                    }
                }
                (Some((name, visitor)), Some(session)) => {
                    if visitor.surely_dead(self.now) {
                        return Err(format!("session {name} outlives its deadline: {visitor:?} at {}", self.now));
                    }
                    self.compare(visitor, &session).map_err(|what| format!("session {name}: {what}"))?;
                    alive.insert(*name);
                }
            }
        }
        for (principal, who) in PRINCIPALS.iter().enumerate() {
            let listed = sessions.of(who).map_err(|error| format!("{who}: {error:#}"))?;
            let listed: BTreeSet<u32> = listed.iter().filter_map(|info| info.device.parse().ok()).collect();
            for name in world.of(principal) {
                let Some(visitor) = world.live.get(&name) else { continue };
                if visitor.token.is_some() && alive.contains(&name) != listed.contains(&name) {
                    return Err(format!("session {name} is loaded or listed, not both"));
                }
                if visitor.surely_lives(self.now) && !listed.contains(&name) {
                    return Err(format!("session {name} is not listed: {visitor:?} at {}", self.now));
                }
            }
            for name in listed {
                let fits = world.live.get(&name).is_some_and(|visitor| visitor.principal == Some(principal));
                if !fits {
                    return Err(format!("{who} has session {name}, which is not theirs or has ended"));
                }
                alive.insert(name);
            }
        }
        let stats = sessions.stats();
        if (stats.sessions, stats.refused_rows) != (alive.len(), 0) {
            return Err(format!("{} sessions where {} are known; {stats:?}", stats.sessions, alive.len()));
        }
        Ok(alive)
    }

    fn compare(&self, visitor: &Visitor, session: &Session) -> Checked {
        let read = || -> Result<_> {
            Ok((session.get(NUMBER)?, session.get(TEXT)?, session.get(KEPT)?, session.principal()?))
        };
        let (number, text, kept, principal) = read().map_err(|error| format!("{error:#}"))?;
        let expected = visitor.principal.and_then(|principal| PRINCIPALS.get(principal).copied());
        if principal.as_deref() != expected || (number, kept) != (visitor.number, visitor.kept) {
            return Err(format!("{number:?}, {kept:?} of {principal:?} where the model has {visitor:?}"));
        }
        if text != number.map(text_of) {
            return Err(format!("number {number:?} beside the text {text:?}"));
        }
        Ok(())
    }

    fn step(&mut self, sessions: &Sessions) -> Checked<Power> {
        let done = self.operation(sessions);
        let stats = sessions.stats();
        let power = if stats.trouble.is_some() { Power::Lost } else { Power::On };
        let committed = self.note_commits(sessions);
        match done {
            Err(error) if power == Power::Lost && error.kind() != ErrorKind::Corrupt => return Ok(Power::Lost),
            Err(error) => return Err(format!("{error:#} ({:?})", error.kind())),
            Ok(Done::Acknowledged(names)) if !committed => {
                let promised = |name: &u32| match (self.durable.live.get(name), self.pending.live.get(name)) {
                    (Some(before), Some(after)) => before.same(after),
                    (before, after) => before.is_none() && after.is_none(),
                };
                if let Some(name) = names.iter().find(|name| !promised(name)) {
                    return Err(format!("session {name} was acknowledged without a commit"));
                }
            }
            Ok(_) => {}
        }
        if power == Power::Lost && !self.armed {
            return Err(format!("trouble without a power cut: {:?}", stats.trouble));
        }
        Ok(power)
    }

    /// Every commit writes all that was pending.
    fn note_commits(&mut self, sessions: &Sessions) -> bool {
        let commits = sessions.stats().commits;
        let committed = commits > self.commits;
        if committed {
            self.commits = commits;
            self.durable = self.pending.clone();
        }
        committed
    }

    fn operation(&mut self, sessions: &Sessions) -> Result<Done> {
        match self.random.up_to(30) {
            0..=3 => self.sign_in(sessions, None),
            4..=5 => {
                let over = self.any();
                self.sign_in(sessions, over)
            }
            6..=7 => self.begin(sessions),
            8..=11 => self.write(sessions, true),
            12..=13 => self.write(sessions, false),
            14 => self.destroy(sessions, true),
            15 => self.destroy(sessions, false),
            16 => self.revoke(sessions),
            17..=18 => self.end_many(sessions),
            19..=20 => self.rotate(sessions),
            21 => self.haunt(),
            22 => {
                let seconds = if self.random.one_in(8) { self.random.up_to(900) } else { self.random.up_to(3) };
                self.pass(seconds);
                Ok(Done::Nothing)
            }
            23..=24 => self.take_up(sessions),
            25 => self.use_the_one_before(sessions),
            26 => self.replay(sessions),
            27..=28 => self.change_keys(sessions),
            _ => {
                self.log.push("the workers run".into());
                sessions.run_pending();
                Ok(Done::Nothing)
            }
        }
    }

    /// A session of the model whose token is known.
    fn any(&mut self) -> Option<u32> {
        let known: Vec<u32> =
            self.pending.live.iter().filter(|(_, visitor)| visitor.token.is_some()).map(|(name, _)| *name).collect();
        let place = usize::try_from(self.random.up_to(known.len().max(1) as u64 - 1)).ok()?;
        known.get(place).copied()
    }

    /// Loads a session of the model; one whose time is over leaves it.
    fn load(&mut self, sessions: &Sessions, name: u32) -> Result<Option<Session>> {
        let now = self.now;
        let Some(visitor) = self.pending.live.get_mut(&name) else { return Ok(None) };
        let Some(token) = visitor.token.and_then(|token| self.tokens.get(token)) else { return Ok(None) };
        let found = sessions.load(token)?;
        assert!(found.is_some() || !visitor.surely_lives(now), "session {name} is lost: {visitor:?} at {now}");
        assert!(found.is_none() || !visitor.surely_dead(now), "session {name} outlived: {visitor:?} at {now}");
        if let Some(session) = &found {
            visitor.seen = (now, now);
            self.learn_successor(name, session);
        } else {
            self.forget(name);
        }
        Ok(found)
    }

    /// A session whose time is over is dead in either world.
    fn forget(&mut self, name: u32) {
        self.pending.end(&[name]);
        self.durable.end(&[name]);
    }
}

fn text_of(number: u32) -> String {
    // Now and then longer than a page of the B-tree.
    let length = if number.is_multiple_of(13) { 6000 } else { number % 97 };
    format!("{number}:").chars().chain((0..length).map(|_| 'x')).collect()
}

/// SplitMix64, so that a seed means the same everywhere.
#[derive(Clone)]
struct Random(u64);

impl Random {
    /// A number from zero to `max`, both included.
    fn up_to(&mut self, max: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % (max + 1)
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.up_to(count - 1) == 0
    }
}
