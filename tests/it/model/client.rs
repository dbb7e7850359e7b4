//! The clients: one random operation at a time, on the engine and on the model, and the answers compared.

use std::time::Duration;

use dwell::sim::Directory;
use dwell::{AtLimit, Error, ErrorKind, Field, ManualClock, Options, Receipt, SessionId, Sessions, SignIn, Token};

use super::plain::{Bound, KEPT, Mark, Plain, RELAXED, Rules};
use crate::rng::Rng;

pub(super) const NAMES: [&str; 3] = ["ada", "bob", "eve"];
pub(super) const FIELDS: [Field<u64>; 3] =
    [Field::new("visits"), Field::new(KEPT).keep_on_sign_in(), Field::new(RELAXED).relaxed()];
pub(super) const FIELD_NAMES: [&str; 3] = ["visits", KEPT, RELAXED];

/// One engine, the model beside it, and everything clients hold.
pub(super) struct World {
    pub(super) seed: u64,
    pub(super) rng: Rng,
    pub(super) clock: ManualClock,
    pub(super) directory: Directory,
    pub(super) options: Options,
    pub(super) sessions: Option<Sessions>,
    pub(super) plain: Plain,
    pub(super) handles: Vec<(dwell::Session, usize)>,
    /// Every token ever handed out, and what it opens.
    pub(super) tokens: Vec<(Token, usize, u32)>,
    pub(super) ids: Vec<(SessionId, usize)>,
    pub(super) receipts: Vec<Awaited>,
    pub(super) log: Vec<String>,
}

/// A receipt that nobody has waited for yet.
pub(super) enum Awaited {
    Token(Receipt<Token>, usize),
    /// The end of a session.
    End(Receipt, u64),
    Count(Receipt<usize>, usize),
    Flag(Receipt<bool>, bool),
    /// A save, and the state that it is for.
    Save(Receipt, Mark),
}

/// One run: a fresh store, many scripts.
pub(crate) fn run(seed: u64, scripts: usize) {
    let mut world = World::new(seed);
    for _ in 0..scripts {
        world.begin_script();
        let steps = 20 + world.rng.below(20);
        for _ in 0..steps {
            world.step();
        }
        world.check();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let tail = self.log.len().saturating_sub(100);
            eprintln!("replay with DWELL_SEED={}; the last operations:\n{}", self.seed, self.log[tail..].join("\n"));
        }
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let refuse = rng.one_in(4);
        let rules = Rules {
            idle: 30,
            lifetime: 90,
            anonymous_lifetime: 60,
            anonymous_max: *rng.pick(&[4, 8, 50]),
            per_principal: *rng.pick(&[1, 2, 3, 9]),
            refuse,
            anonymous_in_memory: rng.one_in(5),
        };
        let seconds = Duration::from_secs;
        let clock = ManualClock::new();
        let at_limit = if refuse { AtLimit::Refuse } else { AtLimit::EndOldest };
        let mut options = Options::new()
            .clock(clock.clone())
            .manual_workers()
            .idle_timeout(seconds(rules.idle))
            .lifetime(seconds(rules.lifetime))
            .anonymous_lifetime(seconds(rules.anonymous_lifetime))
            .sessions_max(u32::try_from(rules.anonymous_max).unwrap() * 10 + 9)
            .sessions_per_principal(u32::try_from(rules.per_principal).unwrap(), at_limit)
            .cache_bytes(*rng.pick(&[0, 1 << 20]))
            .page_cache_bytes(1 << 20);
        if rng.one_in(2) {
            options = options.rotate_every(seconds(3)).rotation_overlap(seconds(1));
        }
        if rules.anonymous_in_memory {
            options = options.anonymous_in_memory();
        }
        let directory = Directory::new(seed);
        let sessions = Some(directory.open(&options).unwrap());
        Self {
            seed,
            rng,
            clock,
            directory,
            options,
            sessions,
            plain: Plain::new(rules),
            handles: Vec::new(),
            tokens: Vec::new(),
            ids: Vec::new(),
            receipts: Vec::new(),
            log: vec![format!("{rules:?}")],
        }
    }

    pub(super) fn sessions(&self) -> &Sessions {
        self.sessions.as_ref().unwrap()
    }

    pub(super) fn say(&mut self, what: String) {
        self.log.push(what);
    }

    /// The engine's answer is the model's.
    pub(super) fn agree<T>(&self, what: &str, got: Result<T, Error>, want: Result<(), &[ErrorKind]>) -> Option<T> {
        match (got, want) {
            (Ok(value), Ok(())) => Some(value),
            (Err(error), Err(kinds)) if kinds.contains(&error.kind()) => None,
            (got, want) => panic!("{what}: got {:?}, wanted {want:?}", got.err()),
        }
    }

    fn begin_script(&mut self) {
        self.say("-- script".into());
        // Some of what is held stays held, so that old handles meet everything that comes.
        let keep = self.rng.below(4);
        let excess = self.handles.len().saturating_sub(keep);
        self.handles.drain(..excess);
        self.receive_all();
        // Tokens that open nothing any more are tried for a while, then forgotten.
        let (plain, old) = (&self.plain, self.plain.sessions.len().saturating_sub(40));
        let known = |session: usize| session >= old || plain.sessions[session].disk.iter().any(Option::is_some);
        self.tokens.retain(|&(_, session, _)| known(session));
        self.ids.retain(|&(_, session)| known(session));
        if self.rng.one_in(6) {
            let who = self.rng.below(3);
            (0..7).for_each(|_| self.sign_in_fresh(who));
        }
    }

    fn sign_in_fresh(&mut self, who: usize) {
        let at = self.start();
        self.sign_in(at, who);
    }

    fn step(&mut self) {
        match self.rng.below(100) {
            0..4 => drop(self.start()),
            4..18 => self.load(true),
            18..22 => self.load(false),
            22..36 => self.write(),
            36..42 => self.read(),
            42..46 => self.save(),
            46..58 => self.on_handle(Self::sign_in_somebody),
            58..64 => self.on_handle(Self::rotate),
            64..66 => self.on_handle(Self::reauthenticate),
            66..70 => self.on_handle(Self::destroy),
            70..73 => self.revoke(),
            73..75 => self.revoke_all(),
            75..78 => self.on_handle(Self::revoke_others),
            78..79 => self.disable(),
            79..81 => self.enable(),
            81..84 => self.run_pending(),
            84..91 => self.receive_one(),
            91..94 => self.advance(),
            94..97 => self.clone_handle(),
            97..98 => self.restart(),
            98..99 => self.crash(),
            _ => self.check(),
        }
    }

    fn on_handle(&mut self, act: impl FnOnce(&mut Self, usize)) {
        if self.handles.is_empty() {
            self.start();
        }
        let at = self.rng.below(self.handles.len());
        act(self, at);
    }

    fn start(&mut self) -> usize {
        let binding = self.plain.bind(Bound::Fresh { signing_in: None });
        self.say(format!("start: handle {binding}"));
        self.handles.push((self.sessions().start(), binding));
        self.handles.len() - 1
    }

    fn clone_handle(&mut self) {
        self.on_handle(|world, at| {
            let clone = world.handles[at].clone();
            world.handles.push(clone);
        });
    }

    fn load(&mut self, touch: bool) {
        if self.tokens.is_empty() {
            return;
        }
        let at = self.rng.below(self.tokens.len());
        let (token, session, generation) = self.tokens[at].clone();
        self.say(format!("load session {session} generation {generation}, touch {touch}"));
        let got = if touch { self.sessions().load(&token) } else { self.sessions().load_without_touch(&token) };
        let want = self.plain.load(session, generation, touch);
        let got = got.unwrap();
        assert_eq!(got.is_some(), want.is_some(), "loading session {session} of generation {generation}");
        if let (Some(handle), Some(binding)) = (got, want) {
            self.say(format!("  as handle {binding}"));
            if let Some(successor) = handle.token()
                && self.rng.one_in(2)
            {
                // Its client goes on to that and forgets the other; nothing else is to be seen of it.
                self.say(format!("  session {session} goes on to a successor"));
                assert!(self.sessions().load_without_touch(&successor).unwrap().is_some());
                self.tokens[at].0 = successor;
                self.plain.sessions[session].step += 1;
            }
            self.handles.push((handle, binding));
        }
    }

    fn write(&mut self) {
        let (field, value, how) = (self.rng.below(3), self.rng.next() % 1000, self.rng.below(4));
        self.on_handle(|world, at| {
            let (handle, binding) = world.handles[at].clone();
            world.say(format!(
                "write {how} to {} by handle {binding} {:?}",
                FIELD_NAMES[field], world.plain.bindings[binding]
            ));
            let known = world.plain.sessions.len();
            let name = FIELD_NAMES[field];
            let (got, want) = match how {
                0 => (handle.set(FIELDS[field], &value), world.plain.write(binding, name, |_| Some(value))),
                1 => {
                    let before = handle.take(FIELDS[field]);
                    let was = world.plain.read(binding).ok().flatten();
                    let was = was.and_then(|session| world.plain.sessions[session].fields.get(name).copied());
                    // Taking nothing changes nothing, so nothing stands in its way.
                    if was.is_none() && world.plain.read(binding).is_ok() {
                        assert_eq!(before.unwrap(), None);
                        return;
                    }
                    let want = world.plain.write(binding, name, |_| None);
                    (before.map(|taken| assert_eq!(taken, was)), want)
                }
                _ => {
                    let mut now = 0;
                    let want = world.plain.write(binding, name, |old| {
                        now = old.unwrap_or(0) + value;
                        Some(now)
                    });
                    let got = handle.update(FIELDS[field], |number| {
                        *number += value;
                        *number
                    });
                    (got.map(|number| assert_eq!(number, now)), want)
                }
            };
            world.agree("writing", got, want.as_ref().map(|_| ()).map_err(std::slice::from_ref));
            if let Ok(session) = want
                && session >= known
            {
                world.learn(handle.token().unwrap(), session, 0);
            }
        });
    }

    fn read(&mut self) {
        self.on_handle(|world, at| {
            let (handle, binding) = world.handles[at].clone();
            let want = world.plain.read(binding);
            for (field, name) in FIELDS.into_iter().zip(FIELD_NAMES) {
                let value =
                    want.map(|session| session.and_then(|at| world.plain.sessions[at].fields.get(name).copied()));
                assert_eq!(handle.get(field).map_err(|error| error.kind()), value, "{name} by handle {binding}");
            }
            let who = want.map(|session| session.and_then(|at| world.plain.sessions[at].who).map(|who| NAMES[who]));
            let got = handle.principal().map_err(|error| error.kind());
            assert_eq!(
                got.as_ref().map(Option::as_deref),
                who.as_ref().map(|who| *who),
                "principal by handle {binding}"
            );
        });
    }

    fn save(&mut self) {
        self.on_handle(|world, at| {
            let (handle, binding) = world.handles[at].clone();
            world.say(format!("save by handle {binding}"));
            let session = world.plain.read(binding);
            let want = match session {
                Ok(Some(session)) if world.plain.sessions[session].memory_only => Err(ErrorKind::NotDurable),
                Ok(_) => Ok(()),
                Err(kind) => Err(kind),
            };
            let receipt = world.agree("saving", handle.save(), want.as_ref().copied().map_err(std::slice::from_ref));
            if let (Some(receipt), Ok(Some(session))) = (receipt, session) {
                let mark = world.plain.mark(session);
                world.receipts.push(Awaited::Save(receipt, mark));
            }
        });
    }

    fn sign_in_somebody(&mut self, at: usize) {
        let who = self.rng.below(3);
        self.sign_in(at, who);
    }

    fn sign_in(&mut self, at: usize, who: usize) {
        let (handle, binding) = self.handles[at].clone();
        let limits = self.rng.one_in(4).then_some((10, 50));
        let mut request = SignIn::new(NAMES[who]);
        if let Some((idle, lifetime)) = limits {
            request = request.limits(Duration::from_secs(idle), Duration::from_secs(lifetime));
        }
        let want = self.plain.sign_in(binding, who, limits);
        self.say(format!("sign in {} by handle {binding}: {want:?}", NAMES[who]));
        let receipt =
            self.agree("signing in", handle.sign_in(request), want.as_ref().map(|_| ()).map_err(Vec::as_slice));
        self.keep_group(receipt, want.ok());
    }

    fn rotate(&mut self, at: usize) {
        let (handle, binding) = self.handles[at].clone();
        let want = self.plain.rotate(binding);
        self.say(format!("rotate by handle {binding}: {want:?}"));
        let receipt = self.agree("rotating", handle.rotate(), want.as_ref().map(|_| ()).map_err(std::slice::from_ref));
        self.keep_group(receipt, want.ok());
    }

    fn reauthenticate(&mut self, at: usize) {
        let (handle, binding) = self.handles[at].clone();
        let somebody =
            self.plain.read(binding).map(|session| session.is_some_and(|at| self.plain.sessions[at].who.is_some()));
        let want = match somebody {
            Ok(true) => self.plain.rotate(binding),
            Ok(false) => Err(ErrorKind::Refused),
            Err(kind) => Err(kind),
        };
        self.say(format!("reauthenticate by handle {binding}: {want:?}"));
        let got = handle.reauthenticate(1);
        let receipt = self.agree("proving again", got, want.as_ref().map(|_| ()).map_err(std::slice::from_ref));
        self.keep_group(receipt, want.ok());
    }

    fn keep_group(&mut self, receipt: Option<Receipt<Token>>, group: Option<usize>) {
        if let (Some(receipt), Some(group)) = (receipt, group) {
            let waited = Awaited::Token(receipt, group);
            if self.rng.one_in(3) { self.receive(waited) } else { self.receipts.push(waited) }
        }
    }

    fn destroy(&mut self, at: usize) {
        let (handle, binding) = self.handles.swap_remove(at);
        let want = self.plain.destroy(binding);
        self.say(format!("destroy by handle {binding}: {want:?}"));
        let receipt =
            self.agree("signing out", handle.destroy(), want.as_ref().map(|_| ()).map_err(std::slice::from_ref));
        if let (Some(receipt), Ok(Some(session))) = (receipt, want) {
            self.keep_end(receipt, session);
        }
    }

    fn keep_end(&mut self, receipt: Receipt, session: usize) {
        // What was never on disk is gone at once, and the receipt does no work.
        if !self.plain.sessions[session].memory_only {
            let waited = Awaited::End(receipt, self.plain.flushes);
            if self.rng.one_in(3) { self.receive(waited) } else { self.receipts.push(waited) }
        }
    }

    fn revoke(&mut self) {
        if self.ids.is_empty() {
            return;
        }
        let (id, session) = *self.rng.pick(&self.ids);
        self.say(format!("revoke session {session}"));
        let got = self.sessions().revoke(id).unwrap();
        let live = self.plain.is_live(session);
        let filed = self.plain.end_durably(session);
        // One that ran out and was not collected yet may answer either way.
        assert!(got.is_some() == live || got.is_some() == filed, "revoking session {session}, live {live}");
        if let Some(receipt) = got {
            self.keep_end(receipt, session);
        }
    }

    fn revoke_all(&mut self) {
        let who = self.rng.below(3);
        let receipt = self.sessions().revoke_all(NAMES[who]).unwrap();
        let count = self.plain.end_all(who, None);
        self.say(format!("revoke all of {}: {count}", NAMES[who]));
        self.receipts.push(Awaited::Count(receipt, count));
    }

    fn revoke_others(&mut self, at: usize) {
        let (handle, binding) = self.handles[at].clone();
        let want = self.plain.caller(binding);
        self.say(format!("revoke others by handle {binding}: {want:?}"));
        let got = self.sessions().revoke_others(&handle);
        let receipt = self.agree("ending others", got, want.as_ref().map(|_| ()).map_err(std::slice::from_ref));
        if let (Some(receipt), Ok((who, session))) = (receipt, want) {
            let count = self.plain.end_all(who, Some(session));
            self.receipts.push(Awaited::Count(receipt, count));
        }
    }

    fn disable(&mut self) {
        let who = self.rng.below(3);
        let receipt = self.sessions().disable(NAMES[who]).unwrap();
        let count = self.plain.end_all(who, None);
        self.plain.set_disabled(who, true);
        self.say(format!("disable {}: {count}", NAMES[who]));
        self.receipts.push(Awaited::Count(receipt, count));
    }

    fn enable(&mut self) {
        let who = self.rng.below(3);
        let receipt = self.sessions().enable(NAMES[who]).unwrap();
        let was = self.plain.set_disabled(who, false);
        self.say(format!("enable {}: {was}", NAMES[who]));
        self.receipts.push(Awaited::Flag(receipt, was));
    }

    pub(super) fn run_pending(&mut self) {
        self.say("run pending".into());
        self.sessions().run_pending();
        self.plain.collect();
        self.plain.flush();
    }

    fn receive_one(&mut self) {
        if !self.receipts.is_empty() {
            let at = self.rng.below(self.receipts.len());
            let receipt = self.receipts.swap_remove(at);
            if self.rng.one_in(8) && !matches!(receipt, Awaited::Token(..)) {
                self.say("drop a receipt".into());
            } else {
                self.receive(receipt);
            }
        }
    }

    fn receive_all(&mut self) {
        for receipt in std::mem::take(&mut self.receipts) {
            self.receive(receipt);
        }
    }

    /// Waits for a receipt, which does the writer's work but not the reaper's.
    fn receive(&mut self, receipt: Awaited) {
        if let Awaited::Save(receipt, mark) = receipt {
            return self.receive_save(receipt, mark);
        }
        self.plain.flush();
        match receipt {
            Awaited::Token(receipt, group) => self.receive_token(receipt, group),
            Awaited::End(receipt, _) => receipt.blocking_wait().unwrap(),
            Awaited::Count(receipt, count) => assert_eq!(receipt.blocking_wait().unwrap(), count, "sessions ended"),
            Awaited::Flag(receipt, flag) => assert_eq!(receipt.blocking_wait().unwrap(), flag, "was disabled"),
            Awaited::Save(..) => unreachable!(),
        }
    }

    fn receive_token(&mut self, receipt: Receipt<Token>, group: usize) {
        let want = self.plain.outcome(group).expect("flushed");
        self.say(format!("receive group {group}: {want:?}"));
        let token =
            self.agree("a token", receipt.blocking_wait(), want.as_ref().map(|_| ()).map_err(std::slice::from_ref));
        if let (Some(token), Ok((session, generation))) = (token, want) {
            self.learn(token, session, generation);
        }
    }

    pub(super) fn receive_save(&mut self, receipt: Receipt, mark: Mark) {
        let session = mark.session;
        // It may have been ready from the start, and then waiting does no work; so do the work first.
        self.run_pending();
        self.say(format!("receive save of session {session}"));
        match receipt.blocking_wait() {
            Ok(()) => self.plain.saved(mark),
            Err(error) => assert!(
                error.kind() == ErrorKind::Gone && !self.plain.sessions[session].filed,
                "saving session {session}: {error:?}"
            ),
        }
    }

    fn advance(&mut self) {
        let seconds = *self.rng.pick(&[1, 1, 2, 5, 9, 10, 29, 30, 31, 60]);
        self.say(format!("advance {seconds} s"));
        self.clock.advance(Duration::from_secs(seconds));
        self.plain.now += seconds;
    }
}
