//! The clients: one random operation at a time, on the engine and on the model, and the answers compared.

use std::time::Duration;

use dwell::sim::Directory;
use dwell::{AtLimit, Error, ErrorKind, Field, ManualClock, Options, Receipt, SessionId, Sessions, SignIn, Token};

use super::plain::{Bound, Fields, KEPT, Kept, Plain, Rules};
use crate::rng::Rng;

const NAMES: [&str; 3] = ["ada", "bob", "eve"];
const FIELDS: [Field<u64>; 3] =
    [Field::new("visits"), Field::new(KEPT).keep_on_sign_in(), Field::new("notice").relaxed()];
const FIELD_NAMES: [&str; 3] = ["visits", KEPT, "notice"];

/// One engine, the model beside it, and everything clients hold.
struct World {
    seed: u64,
    rng: Rng,
    clock: ManualClock,
    directory: Directory,
    options: Options,
    sessions: Option<Sessions>,
    plain: Plain,
    handles: Vec<(dwell::Session, usize)>,
    /// Every token ever handed out, and what it opens.
    tokens: Vec<(Token, usize, u32)>,
    ids: Vec<(SessionId, usize)>,
    receipts: Vec<Awaited>,
    log: Vec<String>,
}

/// A receipt that nobody has waited for yet.
enum Awaited {
    Token(Receipt<Token>, usize),
    /// The end of a session.
    End(Receipt, u64),
    Count(Receipt<usize>, usize),
    Flag(Receipt<bool>, bool),
    Save(Receipt, usize),
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
            println!("replay with DWELL_SEED={}; the last operations:\n{}", self.seed, self.log[tail..].join("\n"));
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

    fn sessions(&self) -> &Sessions {
        self.sessions.as_ref().unwrap()
    }

    fn say(&mut self, what: String) {
        self.log.push(what);
    }

    /// The engine's answer is the model's.
    fn agree<T>(&self, what: &str, got: Result<T, Error>, want: Result<(), &[ErrorKind]>) -> Option<T> {
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

    fn learn(&mut self, token: Token, session: usize, generation: u32) {
        self.say(format!("  token of session {session} generation {generation}"));
        self.tokens.push((token, session, generation));
        self.identify();
    }

    /// Learns the handles of sessions that can be loaded; those known must be the same as ever.
    fn identify(&mut self) {
        for (token, session, _) in &self.tokens {
            let Some(handle) = self.sessions().load_without_touch(token).unwrap() else { continue };
            let id = handle.id().unwrap();
            match self.ids.iter().find(|(_, other)| other == session) {
                Some(&(known, _)) => assert_eq!(known, id, "the handle of session {session}"),
                None => self.ids.push((id, *session)),
            }
        }
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
            let receipt =
                world.agree("saving", handle.save(), want.as_ref().map(|()| ()).map_err(std::slice::from_ref));
            if let (Some(receipt), Ok(Some(session))) = (receipt, session) {
                world.receipts.push(Awaited::Save(receipt, session));
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

    fn run_pending(&mut self) {
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
        if let Awaited::Save(receipt, session) = receipt {
            return self.receive_save(receipt, session);
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

    fn receive_save(&mut self, receipt: Receipt, session: usize) {
        // It may have been ready from the start, and then waiting does no work; so do the work first.
        self.run_pending();
        self.say(format!("receive save of session {session}"));
        match receipt.blocking_wait() {
            Ok(()) => {}
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

    fn restart(&mut self) {
        self.say("restart".into());
        let sessions = self.sessions.take().unwrap();
        sessions.clone().close().unwrap();
        self.plain.stop();
        for receipt in std::mem::take(&mut self.receipts) {
            self.receive_after_close(receipt, &sessions);
        }
        self.drop_handles();
        drop(sessions);
        self.sessions = Some(self.directory.open(&self.options).unwrap());
        self.plain.start();
        self.check();
    }

    /// Old handles of a closed engine say so, whatever they were.
    fn drop_handles(&mut self) {
        for (handle, _) in self.handles.drain(..) {
            assert_eq!(handle.set(FIELDS[0], &1).unwrap_err().kind(), ErrorKind::Closed);
        }
    }

    /// Closing wrote what was left, so every receipt is decided.
    fn receive_after_close(&mut self, receipt: Awaited, closed: &Sessions) {
        match receipt {
            Awaited::Token(receipt, group) => {
                let want = self.plain.outcome(group).expect("flushed");
                let got = receipt.blocking_wait();
                let token = self.agree("a token", got, want.as_ref().map(|_| ()).map_err(std::slice::from_ref));
                if let (Some(token), Ok((session, generation))) = (token, want) {
                    self.tokens.push((token, session, generation));
                }
            }
            Awaited::End(receipt, _) => receipt.blocking_wait().unwrap(),
            Awaited::Count(receipt, count) => assert_eq!(receipt.blocking_wait().unwrap(), count),
            Awaited::Flag(receipt, flag) => assert_eq!(receipt.blocking_wait().unwrap(), flag),
            Awaited::Save(receipt, _) => drop(receipt.blocking_wait()),
        }
        assert_eq!(closed.revoke_all(NAMES[0]).unwrap_err().kind(), ErrorKind::Closed);
    }

    /// A power cut. What was flushed is there; of what was not, whatever the disk says.
    fn crash(&mut self) {
        if self.plain.flags_changed {
            self.run_pending();
        }
        self.say("power cut".into());
        self.directory.restore_power();
        let flushes = self.plain.flushes;
        for receipt in std::mem::take(&mut self.receipts) {
            match receipt {
                Awaited::Token(receipt, group) => match (receipt.blocking_wait(), self.plain.outcome(group)) {
                    (Ok(token), Some(Ok((session, generation)))) => self.tokens.push((token, session, generation)),
                    (Err(_), Some(Err(_)) | None) => {}
                    (got, want) => panic!("a token after a power cut: {:?} for {want:?}", got.err()),
                },
                Awaited::End(receipt, since) => {
                    assert_eq!(
                        receipt.blocking_wait().is_ok(),
                        since < flushes,
                        "an end is acknowledged if it was written"
                    );
                }
                Awaited::Save(receipt, _) => drop(receipt.blocking_wait()),
                Awaited::Count(..) | Awaited::Flag(..) => {}
            }
        }
        self.handles.clear();
        self.sessions = None;
        if self.rng.one_in(2) {
            self.clock.reboot();
        }
        let sessions = self.directory.open(&self.options).unwrap();
        let tokens = &self.tokens;
        self.plain.crash(|session| found_on_disk(&sessions, tokens, session));
        self.sessions = Some(sessions);
        let plain = &self.plain;
        self.ids.retain(|&(_, session)| !plain.sessions[session].nameless);
        self.bury_ghosts();
        self.check();
    }

    /// Rows of sign-ins that failed after they were written may have come back: nobody has their tokens.
    fn bury_ghosts(&mut self) {
        self.identify();
        for (who, most) in std::mem::take(&mut self.plain.ghosts) {
            let known = self.plain.of(who).len();
            let listed = self.sessions().of(NAMES[who]).unwrap();
            assert!(listed.len() <= known + most, "{} sessions of {}", listed.len(), NAMES[who]);
            for info in listed {
                if !self.ids.iter().any(|&(id, _)| id == info.id) {
                    self.sessions().revoke(info.id).unwrap().unwrap().blocking_wait().unwrap();
                }
            }
        }
    }

    /// Everything that can be seen without changing anything.
    fn check(&mut self) {
        self.run_pending();
        let stats = self.sessions().stats();
        assert_eq!(stats.sessions, self.plain.filed(), "sessions in memory");
        assert_eq!(stats.anonymous, self.plain.anonymous(), "anonymous ones");
        assert_eq!(stats.trouble, None);
        for (token, session, generation) in &self.tokens {
            let live = self.plain.is_live(*session) && self.plain.sessions[*session].generation == *generation;
            let handle = self.sessions().load_without_touch(token).unwrap();
            assert_eq!(handle.is_some(), live, "session {session} of generation {generation}");
            let Some(handle) = handle else { continue };
            let want = &self.plain.sessions[*session];
            assert_eq!(fields_of(&handle), want.fields, "fields of session {session}");
            let seconds = |span: Option<Duration>| span.unwrap().as_secs();
            assert_eq!(
                seconds(handle.life_left().unwrap()),
                want.absolute - self.plain.now,
                "life of session {session}"
            );
            assert_eq!(
                seconds(handle.idle_left().unwrap()),
                want.deadline() - self.plain.now,
                "idle of session {session}"
            );
        }
        for (who, name) in NAMES.into_iter().enumerate() {
            let listed: Vec<SessionId> = self.sessions().of(name).unwrap().iter().map(|info| info.id).collect();
            let want = self.plain.of(who);
            assert_eq!(listed.len(), want.len(), "sessions of {name}");
            for (id, session) in listed.iter().zip(want) {
                let known = self.ids.iter().find(|(_, other)| *other == session);
                assert!(known.is_none_or(|(known, _)| known == id), "session {session} in the list of {name}");
            }
        }
    }
}

fn fields_of(handle: &dwell::Session) -> Fields {
    let named = FIELD_NAMES.into_iter().zip(FIELDS);
    named.filter_map(|(name, field)| Some((name, handle.get(field).unwrap()?))).collect()
}

fn found_on_disk(sessions: &Sessions, tokens: &[(Token, usize, u32)], session: usize) -> Option<Kept> {
    let mut opening = tokens.iter().filter(|(_, other, _)| *other == session).filter_map(|(token, _, generation)| {
        let handle = sessions.load_without_touch(token).unwrap()?;
        Some(Kept { generation: *generation, fields: fields_of(&handle), seen: 0 })
    });
    let found = opening.next();
    assert!(opening.next().is_none(), "two tokens open session {session}");
    found
}
