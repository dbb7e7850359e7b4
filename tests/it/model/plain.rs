//! What a store of sessions does, said with plain maps: no disk, no locks, no index.
//!
//! Sessions are numbered in the order they were begun, which is the order of their rows. What was decided but takes
//! effect only at the next flush stands in `groups`; what a power cut may leave stands in each session's `disk`.

use std::collections::{BTreeMap, BTreeSet};

use dwell::ErrorKind;

use super::groups::{Group, Kind};

pub(crate) type Fields = BTreeMap<&'static str, u64>;
pub(crate) type Answer<T> = Result<T, ErrorKind>;

/// The limits of one run, in seconds and sessions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) idle: u64,
    pub(crate) lifetime: u64,
    pub(crate) anonymous_lifetime: u64,
    pub(crate) anonymous_max: usize,
    pub(crate) per_principal: usize,
    pub(crate) refuse: bool,
    pub(crate) anonymous_in_memory: bool,
}

/// The name of the field that saving does not wait for.
pub(crate) const RELAXED: &str = "notice";

/// The name of the field that passes from an anonymous session to the signed-in one.
pub(crate) const KEPT: &str = "kept";

#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) who: Option<usize>,
    pub(crate) fields: Fields,
    pub(crate) generation: u32,
    /// How often its client has gone on to a successor of its token, in this generation.
    pub(crate) step: u32,
    pub(crate) absolute: u64,
    pub(crate) idle: u64,
    pub(crate) seen: u64,
    /// Every time it was seen, as far as they matter: the first is on disk.
    pub(crate) uses: Vec<u64>,
    /// In memory: not ended, not collected, not waiting for its sign-in.
    pub(crate) filed: bool,
    pub(crate) memory_only: bool,
    /// Its place among anonymous sessions; a rotation does not change it.
    pub(super) filed_at: u64,
    /// Lost before anything of it was on disk, so its row and handle may come to name another session.
    pub(crate) nameless: bool,
    pub(super) pending: Option<usize>,
    /// States that were known to be on disk once and have been followed by others.
    pub(super) passed: usize,
    /// What may be on disk if the power fails now.
    pub(crate) disk: Vec<Option<Kept>>,
}

/// What is on disk of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) generation: u32,
    pub(crate) fields: Fields,
}

/// What a start found of a session.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) kept: Kept,
    /// Seconds until its idle timeout or its absolute deadline, whichever is sooner.
    pub(crate) left: u64,
}

/// A state of a session that somebody asked to be saved.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    pub(crate) session: usize,
    state: usize,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    Fresh { signing_in: Option<usize> },
    At { session: usize, generation: u32, step: u32 },
}

#[derive(Debug)]
pub(crate) struct Plain {
    pub(crate) rules: Rules,
    pub(crate) now: u64,
    pub(crate) sessions: Vec<Session>,
    pub(crate) disabled: BTreeSet<usize>,
    pub(crate) bindings: Vec<Bound>,
    pub(super) groups: Vec<Group>,
    pub(super) pending: Vec<usize>,
    pub(super) filings: u64,
    /// Somebody waits, so the next flush writes everything there is.
    pub(super) urgent: bool,
    pub(crate) flushes: u64,
    pub(super) collected_at: u64,
    /// When the workers ran last.
    pub(super) ran_at: u64,
    /// Who may sign in was changed since the last flush.
    pub(crate) flags_changed: bool,
    /// Rows of sign-ins that failed after they were written, by principal: a power cut may leave them.
    pub(crate) ghosts: BTreeMap<usize, usize>,
}

impl Session {
    pub(crate) fn deadline(&self) -> u64 {
        self.absolute.min(self.seen + self.idle)
    }

    /// The first of the states are on disk no more.
    pub(super) fn pass(&mut self, states: usize) {
        self.disk.drain(..states);
        self.passed += states;
    }

    pub(super) fn note(&mut self, exists: bool) {
        if self.memory_only {
            return;
        }
        self.disk.push(exists.then(|| self.kept()));
    }

    fn kept(&self) -> Kept {
        Kept { generation: self.generation, fields: self.fields.clone() }
    }

    pub(super) fn see(&mut self, now: u64) {
        self.seen = now;
        self.uses.push(now);
    }

    /// The oldest time that the disk may say it was last seen, if the workers last ran at `ran_at`: what is an interval
    /// older than that is there, to within a step.
    fn seen_at_least(&self, ran_at: u64) -> u64 {
        let interval = (self.idle / 20).clamp(1, 3600);
        let stored = self.uses.iter().rev().find(|&&at| at + interval <= ran_at).or_else(|| self.uses.first());
        stored.copied().unwrap_or(self.seen).saturating_sub(interval / 64)
    }
}

impl Plain {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            now: 1,
            sessions: Vec::new(),
            disabled: BTreeSet::new(),
            bindings: Vec::new(),
            groups: Vec::new(),
            pending: Vec::new(),
            filings: 0,
            urgent: false,
            flushes: 0,
            collected_at: 1,
            ran_at: 1,
            flags_changed: false,
            ghosts: BTreeMap::new(),
        }
    }

    pub(crate) fn bind(&mut self, bound: Bound) -> usize {
        self.bindings.push(bound);
        self.bindings.len() - 1
    }

    pub(crate) fn is_live(&self, session: usize) -> bool {
        self.sessions[session].filed && self.now < self.sessions[session].deadline()
    }

    /// The live sessions of a principal, oldest first.
    pub(crate) fn of(&self, who: usize) -> Vec<usize> {
        (0..self.sessions.len()).filter(|&at| self.sessions[at].who == Some(who) && self.is_live(at)).collect()
    }

    pub(crate) fn filed(&self) -> usize {
        self.sessions.iter().filter(|session| session.filed).count()
    }

    pub(crate) fn anonymous(&self) -> usize {
        self.sessions.iter().filter(|session| session.filed && session.who.is_none()).count()
    }

    /// Loading by the token of a session's generation.
    pub(crate) fn load(&mut self, session: usize, generation: u32, touch: bool) -> Option<usize> {
        if !self.is_live(session) || self.sessions[session].generation != generation {
            return None;
        }
        if touch {
            let now = self.now;
            self.sessions[session].see(now);
        }
        let step = self.sessions[session].step;
        Some(self.bind(Bound::At { session, generation, step }))
    }

    /// Whether a handle may have the token replaced: not one of a token whose successor was used.
    pub(super) fn is_in_force(&self, binding: usize) -> bool {
        let Bound::At { session, step, .. } = self.bindings[binding] else { return true };
        self.sessions[session].step == step
    }

    /// The session a handle may read: `None` before its first write.
    pub(crate) fn read(&self, binding: usize) -> Answer<Option<usize>> {
        match self.bindings[binding] {
            Bound::Fresh { .. } => Ok(None),
            Bound::At { session, generation, .. } => {
                let found = &self.sessions[session];
                if found.filed && found.generation == generation { Ok(Some(session)) } else { Err(ErrorKind::Gone) }
            }
        }
    }

    pub(super) fn writable(&self, binding: usize) -> Answer<Option<usize>> {
        if let Bound::Fresh { signing_in: Some(_) } = self.bindings[binding] {
            return Err(ErrorKind::Busy);
        }
        let session = self.read(binding)?;
        match session {
            Some(session) if self.sessions[session].pending.is_some() => Err(ErrorKind::Busy),
            _ => Ok(session),
        }
    }

    /// Changes a field; `None` removes it. The first write begins the session.
    pub(crate) fn write(
        &mut self,
        binding: usize,
        field: &'static str,
        change: impl FnOnce(Option<u64>) -> Option<u64>,
    ) -> Answer<usize> {
        let session = match self.writable(binding)? {
            Some(session) => session,
            None => {
                let session = self.begin();
                self.bindings[binding] = Bound::At { session, generation: 0, step: 0 };
                session
            }
        };
        let fields = &mut self.sessions[session].fields;
        match change(fields.get(field).copied()) {
            Some(value) => fields.insert(field, value),
            None => fields.remove(field),
        };
        self.sessions[session].note(true);
        Ok(session)
    }

    fn begin(&mut self) -> usize {
        while self.anonymous() >= self.rules.anonymous_max {
            self.evict_oldest_anonymous();
        }
        let (lifetime, memory_only) = (self.rules.anonymous_lifetime, self.rules.anonymous_in_memory);
        self.create(None, lifetime, lifetime, memory_only)
    }

    fn evict_oldest_anonymous(&mut self) {
        let anonymous =
            (0..self.sessions.len()).filter(|&at| self.sessions[at].filed && self.sessions[at].who.is_none());
        let oldest = anonymous.min_by_key(|&at| self.sessions[at].filed_at).unwrap();
        self.end(oldest, true);
    }

    pub(super) fn create(&mut self, who: Option<usize>, idle: u64, lifetime: u64, memory_only: bool) -> usize {
        self.filings += 1;
        self.sessions.push(Session {
            who,
            fields: Fields::new(),
            generation: 0,
            step: 0,
            absolute: self.now + lifetime,
            idle,
            seen: self.now,
            uses: vec![self.now],
            filed: who.is_none(),
            memory_only,
            filed_at: self.filings,
            nameless: false,
            pending: None,
            passed: 0,
            disk: vec![None],
        });
        self.sessions.len() - 1
    }

    /// Ends a session in memory. A rotation of it dies with it, and so does a sign-in from it, unless it made room for that
    /// sign-in or for another session.
    pub(super) fn end(&mut self, session: usize, making_room: bool) -> bool {
        if !std::mem::take(&mut self.sessions[session].filed) {
            return false;
        }
        self.sessions[session].note(false);
        if let Some(group) = self.sessions[session].pending.take()
            && !(making_room && matches!(self.groups[group].kind, Kind::SignIn { .. }))
        {
            self.groups[group].killed = true;
        }
        true
    }

    /// The session that a sign-out ended, if there was one.
    pub(crate) fn destroy(&mut self, binding: usize) -> Answer<Option<usize>> {
        let session = self.read(binding)?;
        if let Some(session) = session {
            self.end_durably(session);
        }
        Ok(session)
    }

    /// Ending by name.
    pub(crate) fn end_durably(&mut self, session: usize) -> bool {
        let ended = self.end(session, false);
        self.urgent |= ended && !self.sessions[session].memory_only;
        ended
    }

    /// Ends a principal's sessions but one, and every sign-in on its way. How many were live.
    pub(crate) fn end_all(&mut self, who: usize, spared: Option<usize>) -> usize {
        for &group in &self.pending {
            if matches!(self.groups[group].kind, Kind::SignIn { who: other, .. } if other == who) {
                self.groups[group].killed = true;
            }
        }
        let live = self.of(who).into_iter().filter(|&session| Some(session) != spared).count();
        for session in 0..self.sessions.len() {
            if self.sessions[session].who == Some(who) && Some(session) != spared {
                self.end(session, false);
            }
        }
        self.urgent = true;
        live
    }

    /// The principal whose other sessions a handle may end, and the session it spares.
    pub(crate) fn caller(&self, binding: usize) -> Answer<(usize, usize)> {
        let Bound::At { session, .. } = self.bindings[binding] else { return Err(ErrorKind::Gone) };
        self.read(binding)?;
        let who = self.sessions[session].who.ok_or(ErrorKind::Refused)?;
        self.writable(binding)?;
        Ok((who, session))
    }

    /// Refuses sign-ins from now on, or allows them again. Whether they were refused before.
    pub(crate) fn set_disabled(&mut self, who: usize, disabled: bool) -> bool {
        self.urgent = true;
        self.flags_changed = true;
        if disabled { !self.disabled.insert(who) } else { self.disabled.remove(&who) }
    }

    /// The state of a session that saving it now is for.
    pub(crate) fn mark(&self, session: usize) -> Mark {
        let found = &self.sessions[session];
        Mark { session, state: found.passed + found.disk.len() - 1 }
    }

    /// A save was acknowledged: no earlier state is on disk, except one that differs in what saving does not wait for.
    pub(crate) fn saved(&mut self, mark: Mark) {
        let session = &mut self.sessions[mark.session];
        let Some(wanted) = mark.state.checked_sub(session.passed) else { return };
        let essence = |state: &Option<Kept>| {
            state.clone().map(|mut kept| {
                kept.fields.remove(RELAXED);
                kept
            })
        };
        let same = essence(&session.disk[wanted]);
        let outdated = session.disk[..wanted].iter().rposition(|state| essence(state) != same);
        session.pass(outdated.map_or(0, |last| last + 1));
    }

    /// The reaper. It comes by once in a second.
    pub(crate) fn collect(&mut self) {
        self.ran_at = self.now;
        if std::mem::replace(&mut self.collected_at, self.now) == self.now {
            return;
        }
        for session in 0..self.sessions.len() {
            if self.sessions[session].filed && self.now >= self.sessions[session].deadline() {
                self.end(session, false);
            }
        }
    }

    /// A clean stop: everything is written, last-seen times too.
    pub(crate) fn stop(&mut self) {
        self.urgent = true;
        self.flush();
        for session in &mut self.sessions {
            let exists = session.filed && !session.memory_only;
            session.passed += session.disk.len();
            session.disk = vec![exists.then(|| session.kept())];
        }
    }

    /// A power cut and a start: of each session one of the states that may be on disk is there, as `found` tells.
    pub(crate) fn crash(&mut self, mut found: impl FnMut(usize) -> Option<Found>) {
        for group in std::mem::take(&mut self.pending) {
            self.groups[group].outcome = Some(Err(ErrorKind::Unknown));
        }
        self.urgent = false;
        let anonymous = self.sessions.iter().filter(|session| session.who.is_none());
        let crowded =
            anonymous.filter(|session| session.disk.iter().any(Option::is_some)).count() > self.rules.anonymous_max;
        for at in 0..self.sessions.len() {
            let there = found(at);
            let session = &mut self.sessions[at];
            let soonest = session.absolute.min(session.seen_at_least(self.ran_at) + session.idle);
            if let Some(there) = &there {
                let deadlines = soonest..=session.deadline();
                let deadline = self.now + there.left;
                assert!(
                    deadlines.contains(&deadline),
                    "after a power cut session {at} ends at {deadline}: {session:?}"
                );
                session.seen = session.seen.min(deadline - session.idle.min(deadline));
            }
            let matching = session.disk.iter().rev().find(|state| match (state, &there) {
                (Some(kept), Some(there)) => *kept == there.kept,
                // It may have run out by what is on disk; the quota is applied again at the start.
                (Some(_), None) => self.now >= soonest || session.who.is_none() && crowded,
                (None, there) => there.is_none(),
            });
            let Some(matching) = matching.cloned() else {
                panic!("after a power cut session {at} is {there:?}, but it may be one of {:?}", session.disk)
            };
            let unwritten = session.disk.len() > 1 && session.disk[0].is_none();
            session.nameless |= there.is_none() && (unwritten || session.memory_only);
            session.passed += session.disk.len();
            session.disk = vec![matching.filter(|_| there.is_some())];
        }
        self.start();
    }

    /// A start from what is on disk. Handles from before are worth nothing any more.
    pub(crate) fn start(&mut self) {
        self.collected_at = self.now;
        self.ran_at = self.now;
        self.bindings.iter_mut().for_each(|bound| *bound = Bound::Fresh { signing_in: None });
        for at in 0..self.sessions.len() {
            let session = &mut self.sessions[at];
            session.pending = None;
            session.filed_at = at as u64;
            session.filed = false;
            if let Some(Some(kept)) = session.disk.first().cloned() {
                session.generation = kept.generation;
                session.fields = kept.fields;
                session.uses = vec![session.seen];
                session.filed = self.now < session.deadline();
            }
        }
        self.filings = self.sessions.len() as u64;
        while self.anonymous() > self.rules.anonymous_max {
            self.evict_oldest_anonymous();
        }
    }
}
