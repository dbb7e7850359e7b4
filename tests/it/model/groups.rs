//! Sign-ins and rotations in the model: decided at once, effective at the next flush.

use std::collections::BTreeSet;

use dwell::ErrorKind;

use super::plain::{Answer, Bound, KEPT, Plain};

#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) kind: Kind,
    pub(super) killed: bool,
    pub(super) binding: usize,
    pub(super) outcome: Option<Answer<(usize, u32)>>,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    SignIn { who: usize, old: Option<usize>, new: usize, evicted: Vec<usize> },
    Rotation { session: Option<usize> },
}

impl Plain {
    fn push(&mut self, kind: Kind, binding: usize) -> usize {
        self.groups.push(Group { kind, killed: false, binding, outcome: None });
        self.pending.push(self.groups.len() - 1);
        self.urgent = true;
        self.groups.len() - 1
    }

    /// All that a sign-in may be answered with; the group if it is accepted.
    pub(crate) fn sign_in(
        &mut self,
        binding: usize,
        who: usize,
        limits: Option<(u64, u64)>,
    ) -> Result<usize, Vec<ErrorKind>> {
        let mut refusals = Vec::new();
        if self.disabled.contains(&who) {
            refusals.push(ErrorKind::Refused);
        }
        let old = self.writable(binding).unwrap_or_else(|kind| {
            refusals.push(kind);
            None
        });
        if refusals.is_empty() && !self.is_in_force(binding) {
            refusals.push(ErrorKind::Gone);
        }
        let evicted = self.choose_evicted(who, binding).unwrap_or_else(|kind| {
            refusals.push(kind);
            Vec::new()
        });
        if !refusals.is_empty() {
            return Err(refusals);
        }
        let (idle, lifetime) = limits.unwrap_or((self.rules.idle, self.rules.lifetime));
        let new = self.create(Some(who), idle.min(self.rules.idle), lifetime.min(self.rules.lifetime), false);
        if let Some(old) = old {
            let mut fields = self.sessions[old].fields.clone();
            match self.sessions[old].who {
                None => fields.retain(|&name, _| name == KEPT),
                Some(before) if before != who => fields.clear(),
                Some(_) => {}
            }
            self.sessions[new].fields = fields;
        }
        let group = self.push(Kind::SignIn { who, old, new, evicted }, binding);
        match old {
            Some(old) => self.sessions[old].pending = Some(group),
            None => self.bindings[binding] = Bound::Fresh { signing_in: Some(group) },
        }
        Ok(group)
    }

    /// Sign-ins on their way count as sessions; what they will end counts no more.
    fn choose_evicted(&self, who: usize, binding: usize) -> Answer<Vec<usize>> {
        let mut leaving = BTreeSet::new();
        if let Bound::At { session, .. } = self.bindings[binding] {
            leaving.insert(session);
        }
        let mut coming = 1;
        for &group in &self.pending {
            if let Kind::SignIn { who: other, old, evicted, .. } = &self.groups[group].kind
                && *other == who
            {
                coming += 1;
                leaving.extend(old.iter().chain(evicted));
            }
        }
        let staying: Vec<usize> = self.of(who).into_iter().filter(|session| !leaving.contains(session)).collect();
        let excess = (staying.len() + coming).saturating_sub(self.rules.per_principal);
        if excess > 0 && self.rules.refuse {
            return Err(ErrorKind::Refused);
        }
        if excess > staying.len() {
            return Err(ErrorKind::Busy);
        }
        Ok(staying[..excess].to_vec())
    }

    pub(crate) fn rotate(&mut self, binding: usize) -> Answer<usize> {
        let session = match self.bindings[binding] {
            Bound::Fresh { .. } => return Err(ErrorKind::Gone),
            Bound::At { .. } => self.writable(binding)?.unwrap(),
        };
        if !self.is_in_force(binding) {
            return Err(ErrorKind::Gone);
        }
        if self.sessions[session].memory_only {
            return Err(ErrorKind::NotDurable);
        }
        // Time that ran out is over, whether or not anybody has noticed yet.
        if !self.is_live(session) {
            return Err(ErrorKind::Gone);
        }
        let now = self.now;
        self.sessions[session].see(now);
        let group = self.push(Kind::Rotation { session: Some(session) }, binding);
        self.sessions[session].pending = Some(group);
        Ok(group)
    }

    /// The writer: everything decided takes effect, in the order of the decisions.
    pub(crate) fn flush(&mut self) {
        if !self.urgent {
            return;
        }
        let pending = std::mem::take(&mut self.pending);
        let (killed, going): (Vec<usize>, Vec<usize>) =
            pending.into_iter().partition(|&group| self.groups[group].killed);
        self.ghosts.clear();
        killed.into_iter().for_each(|group| self.abandon(group));
        going.into_iter().for_each(|group| self.publish(group));
        for session in &mut self.sessions {
            session.pass(session.disk.len() - 1);
        }
        self.urgent = false;
        self.flags_changed = false;
        self.flushes += 1;
    }

    /// A group that died before it was written: what it held goes on, if it still lives.
    fn abandon(&mut self, group: usize) {
        let Group { kind, binding, .. } = self.groups[group].clone();
        let (Kind::SignIn { old: held, .. } | Kind::Rotation { session: held, .. }) = kind;
        if let Some(held) = held.filter(|&held| self.sessions[held].pending == Some(group)) {
            self.sessions[held].pending = None;
        }
        self.settle(group, binding, Err(ErrorKind::Gone));
    }

    fn publish(&mut self, group: usize) {
        let Group { kind, binding, .. } = self.groups[group].clone();
        let outcome = match kind {
            Kind::SignIn { who, old, new, evicted } => {
                old.map(|old| self.end(old, true));
                for session in evicted {
                    self.end(session, true);
                }
                if self.groups[group].killed {
                    *self.ghosts.entry(who).or_default() += 1;
                    Err(ErrorKind::Gone)
                } else {
                    self.sessions[new].filed = true;
                    self.sessions[new].note(true);
                    Ok((new, 0))
                }
            }
            Kind::Rotation { session } => {
                let session = session.unwrap();
                if self.groups[group].killed {
                    Err(ErrorKind::Gone)
                } else {
                    let found = &mut self.sessions[session];
                    found.generation += 1;
                    found.step = 0;
                    found.pending = None;
                    found.note(true);
                    Ok((session, found.generation))
                }
            }
        };
        self.settle(group, binding, outcome);
    }

    fn settle(&mut self, group: usize, binding: usize, outcome: Answer<(usize, u32)>) {
        self.bindings[binding] = match (outcome, self.bindings[binding]) {
            (Ok((session, generation)), _) => Bound::At { session, generation, step: 0 },
            (Err(_), Bound::Fresh { .. }) => Bound::Fresh { signing_in: None },
            (Err(_), bound) => bound,
        };
        self.groups[group].outcome = Some(outcome);
    }

    /// What a group came to: session and generation. `None` while it waits for a flush.
    pub(crate) fn outcome(&self, group: usize) -> Option<Answer<(usize, u32)>> {
        self.groups[group].outcome
    }
}
