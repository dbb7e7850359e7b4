//! Groups: sign-ins and rotations, from the decision to the moment they take effect.
//!
//! It knows the engine's parts, no redb. Invariants: a group is decided under the lock of the principal it is for
//! (anonymous rotations under the anonymous list's); until its commit the old token loads and writes to the old
//! session are answered `Busy`; its members go to disk in one commit or not at all; after the commit the old session
//! is dead before the new one is live; a group that was killed in between makes nothing live. When the commit's
//! outcome is unknown, old and new are dead in memory.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::Engine;
use super::binding::{Binding, Claim, Claimed};
use super::cell::{Cell, Content, Life};
use super::events::{Happening, Refusal};
use super::fields;
use super::health::closed;
use super::principals::LockedShard;
use super::queue::Queued;
use super::receipt::{Receipt, promise};
use super::slot::SlotId;
use crate::error::{Error, ErrorKind, Result};
use crate::options::{AtLimit, Limits};
use crate::seal::{Fingerprint, Key, Wrap};
use crate::storage::WrapBinding;
use crate::storage::record::{ClassByte, Header, PrincipalRef, Row};
use crate::time::Tick;
use crate::token::Token;

/// A sign-in or a rotation on its way to disk.
pub(crate) struct Group {
    pub(crate) kind: Kind,
    /// Whose lock orders it.
    pub(super) principal: PrincipalRef,
    killed: AtomicBool,
    pub(super) token: Token,
    pub(super) binding: Arc<Binding>,
    /// Of a handle that has no session yet; let go of before anybody is told.
    pub(super) claim: Mutex<Option<Claim>>,
}

pub(crate) enum Kind {
    SignIn { old: Option<Arc<Cell>>, new: Arc<Cell>, evicted: Vec<Row>, sealed_name: Option<Vec<u8>> },
    Rotation { cell: Arc<Cell>, header: Header, wrap: Wrap, how: Rotate },
}

/// What a sign-in asks for.
#[derive(Debug)]
pub(crate) struct SignInRequest {
    pub(crate) name: Arc<str>,
    pub(crate) class: ClassByte,
    pub(crate) remembered: bool,
    pub(crate) method: u8,
    /// Shorter limits than the options'.
    pub(crate) limits: Option<Limits>,
    /// Seconds since the person proved who they are.
    pub(crate) proved_ago: u32,
    /// Device and address, encoded; empty if there are none.
    pub(crate) facts: Vec<u8>,
    /// How the client reached the application, as the header keeps it.
    pub(crate) door: u8,
}

#[cfg(test)]
impl SignInRequest {
    /// A plain one.
    pub(super) fn sample(name: &str) -> Self {
        Self {
            name: name.into(),
            class: ClassByte::Authenticated,
            remembered: false,
            method: 0,
            limits: None,
            proved_ago: 0,
            facts: Vec::new(),
            door: 0,
        }
    }
}

/// A rotation: a new token for the same row.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rotate {
    Plain,
    /// The person proved again who they are, by this method.
    Reauthenticated {
        method: u8,
    },
}

impl Group {
    /// Keeps the group from taking effect. The caller holds the lock of a list that one of its members is in.
    pub(crate) fn kill(&self) {
        self.killed.store(true, Ordering::Release);
    }

    pub(crate) fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Acquire)
    }

    pub(crate) const fn principal(&self) -> PrincipalRef {
        self.principal
    }

    /// The row that a sign-in makes.
    pub(super) fn new_row(&self) -> Option<Row> {
        match &self.kind {
            Kind::SignIn { new, .. } => Some(new.row),
            Kind::Rotation { .. } => None,
        }
    }

    /// What the row that a sign-in makes will grant.
    fn new_class(&self) -> Option<ClassByte> {
        match &self.kind {
            Kind::SignIn { new, .. } => Some(new.lock().header.class),
            Kind::Rotation { .. } => None,
        }
    }

    /// Whether the group will end this row.
    fn claims(&self, row: Row) -> bool {
        match &self.kind {
            Kind::SignIn { old, evicted, .. } => {
                old.as_ref().is_some_and(|old| old.row == row) || evicted.contains(&row)
            }
            Kind::Rotation { .. } => false,
        }
    }

    /// The existing session that waits for the group.
    pub(super) fn held(&self) -> Option<&Arc<Cell>> {
        match &self.kind {
            Kind::SignIn { old, .. } => old.as_ref(),
            Kind::Rotation { cell, .. } => Some(cell),
        }
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("principal", &self.principal)
            .field("killed", &self.killed)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Signs a principal in: always a new row, token and key. What the handle had before ends in the same commit.
    pub(crate) fn sign_in(self: &Arc<Self>, binding: &Arc<Binding>, request: &SignInRequest) -> Result<Receipt<Token>> {
        self.check_durable()?;
        let principal = self.keys.principal(&request.name);
        self.check_name(principal, &request.name)?;
        let token = Token::random(self.keys.active(), self.entropy.as_ref())?;
        let data_key = Key::random(self.entropy.as_ref())?;
        let Claimed { old, claim } = binding.claim()?;
        self.queue.check_room(false)?;
        if old.is_none() {
            self.make_room_to_sign_in(principal, request)?;
        }
        let mut locked = self.principals.lock(principal);
        let same_principal = |cell: &Cell| cell.lock().header.principal == principal;
        let replaced = old.as_ref().filter(|(cell, _)| same_principal(cell)).map(|(cell, _)| cell.row);
        let evicted = self.admit(&locked, principal, replaced, request)?;
        if let Some((cell, stamp)) = &old {
            // Asked here too, so that refusals use up no row numbers.
            cell.lock().check_in_force(*stamp)?;
        }
        // Under the lock, so that a cutoff set after it kills this row and one set before does not.
        let row = self.next_row()?;
        let mut content = self.signed_in_content(row, principal, request, &token, data_key)?;
        // A name that is on disk stays there while the group is in the list.
        let sealed_name = if locked.is_named() {
            None
        } else {
            Some(self.keys.seal_name(principal, &request.name, self.entropy.as_ref())?)
        };
        let (promise, receipt) = promise();
        let mut old_content = old.as_ref().map(|(cell, _)| cell.lock());
        if let (Some(before), Some((_, stamp))) = (&old_content, &old) {
            before.check_in_force(*stamp)?;
            content.inherit(before);
        }
        let group = Arc::new(Group {
            kind: Kind::SignIn {
                old: old.as_ref().map(|(cell, _)| Arc::clone(cell)),
                new: Arc::new(Cell::new(self, row, content)),
                evicted,
                sealed_name,
            },
            principal,
            killed: AtomicBool::new(false),
            token,
            binding: Arc::clone(binding),
            claim: Mutex::new(Some(claim)),
        });
        if let Some(before) = &mut old_content {
            before.group = Some(Arc::clone(&group));
        }
        drop(old_content);
        locked.list_id();
        locked.add_group(Arc::clone(&group));
        drop(locked);
        self.submit(Queued { group, promise });
        Ok(receipt.untold(self))
    }

    /// Gives a session a new token and a new generation; everything bound to the old one is void.
    pub(crate) fn rotate(self: &Arc<Self>, binding: &Arc<Binding>, how: Rotate) -> Result<Receipt<Token>> {
        let (cell, stamp) = binding.require()?;
        self.check_durable()?;
        self.queue.check_room(false)?;
        let token = Token::random(self.keys.active(), self.entropy.as_ref())?;
        let (promise, receipt) = promise();
        let (mut header, data_key) = {
            let content = cell.lock();
            content.check_in_force(stamp)?;
            if content.memory_only {
                return Err(Error::new(ErrorKind::NotDurable, "the session is kept in memory only"));
            }
            (content.header, content.data_key.clone())
        };
        // A rotation counts as use, of a session that may be used: one whose time ran out is not revived by it.
        let now = self.clock.now();
        if !self.index.touch(header.fingerprint, cell.row, now) {
            return Err(Error::gone());
        }
        header.generation += 1;
        header.replace(token.fingerprint(), token.key_id());
        header.last_seen = now;
        if let Rotate::Reauthenticated { method } = how {
            header.authenticated = header.last_seen;
            header.method = method;
        }
        let wrap = self.wrap(cell.row, &header, &token, &data_key)?;
        let group = Arc::new(Group {
            kind: Kind::Rotation { cell: Arc::clone(&cell), header, wrap, how },
            principal: header.principal,
            killed: AtomicBool::new(false),
            token,
            binding: Arc::clone(binding),
            claim: Mutex::new(None),
        });
        {
            let mut content = cell.lock();
            content.check_in_force(stamp)?;
            content.group = Some(Arc::clone(&group));
        }
        self.submit(Queued { group, promise });
        Ok(receipt.untold(self))
    }

    /// Hands a group to the writer.
    fn submit(&self, queued: Queued) {
        if let Err(queued) = self.queue.push_group(queued, self.clock.now_ms()) {
            self.abandon(&queued.group);
            queued.promise.keep(Err(closed()));
        }
    }

    /// Compares a name with the one kept under its reference: two names of one reference must not share sessions.
    pub(super) fn check_name(&self, principal: PrincipalRef, name: &str) -> Result<()> {
        let pending = {
            let locked = self.principals.lock(principal);
            let names = locked.groups().iter().find_map(|group| match &group.kind {
                Kind::SignIn { new, .. } => new.lock().principal.clone(),
                Kind::Rotation { .. } => None,
            });
            if names.is_none() && !locked.is_named() {
                return Ok(());
            }
            names
        };
        let known = match pending {
            Some(known) => Some(known.to_string()),
            None => self.reader.principal(principal)?,
        };
        match known {
            Some(known) if known != name => {
                Err(Error::corrupt("two principals have the same reference in this store; choose another name"))
            }
            _ => Ok(()),
        }
    }

    /// Whether the principal may sign in, and which of its sessions have to end for it: the oldest, if there are too
    /// many.
    ///
    /// Sign-ins that have shown only half of who they are have as many places again, where the oldest always makes
    /// room. So they end nobody's whole session, and whole sessions leave room for the first half of another sign-in.
    pub(super) fn admit(
        &self,
        locked: &LockedShard<'_>,
        principal: PrincipalRef,
        replaced: Option<Row>,
        request: &SignInRequest,
    ) -> Result<Vec<Row>> {
        let class = request.class;
        if self.cutoffs.is_disabled(principal) {
            self.note_principal(principal, &request.name, Happening::Refused(Refusal::Disabled));
            return Err(Error::new(ErrorKind::Refused, "the principal is disabled"));
        }
        let max = self.settings.per_principal_max as usize;
        let coming = locked.groups().iter().filter(|group| group.new_class() == Some(class)).count() + 1;
        if locked.count() as usize + coming <= max {
            return Ok(Vec::new());
        }
        let claimed = |row: Row| replaced == Some(row) || locked.groups().iter().any(|group| group.claims(row));
        let half = class == ClassByte::Pending;
        let mut rows = locked.rows(&self.index);
        rows.retain(|&(row, slot)| !claimed(row) && self.is_live(slot) && self.is_pending(slot) == half);
        let excess = (rows.len() + coming).saturating_sub(max);
        if excess == 0 {
            return Ok(Vec::new());
        }
        if self.settings.at_limit == AtLimit::Refuse && !half {
            self.note_principal(principal, &request.name, Happening::Refused(Refusal::AtLimit));
            return Err(Error::new(ErrorKind::Refused, format!("the principal has {max} sessions, the most allowed")));
        }
        if excess > rows.len() {
            return Err(Error::new(
                ErrorKind::Busy,
                "more sign-ins of this principal are under way than it may have sessions; try again in a moment",
            ));
        }
        rows.sort_unstable_by_key(|&(row, _)| row);
        rows.truncate(excess);
        Ok(rows.into_iter().map(|(row, _)| row).collect())
    }

    fn is_pending(&self, slot: SlotId) -> bool {
        let profile = self.index.slot(slot, super::slot::Slot::profile);
        profile.is_some_and(|profile| self.index.profiles().is_class(profile, ClassByte::Pending))
    }

    fn signed_in_content(
        &self,
        row: Row,
        principal: PrincipalRef,
        request: &SignInRequest,
        token: &Token,
        data_key: Key,
    ) -> Result<Content> {
        let allowed = if request.remembered { self.settings.remembered } else { self.settings.signed_in };
        let limits = request.limits.map_or(allowed, |limits| allowed.clipped(limits));
        let now = self.clock.now();
        let header = Header {
            key_id: token.key_id(),
            class: request.class,
            remembered: request.remembered,
            method: request.method,
            generation: 0,
            step: 0,
            created: now,
            authenticated: now.minus(request.proved_ago),
            absolute: now.plus(limits.lifetime),
            idle: limits.idle,
            last_seen: now,
            created_wall: self.clock.wall(),
            fingerprint: token.fingerprint(),
            other: Fingerprint::NONE,
            overlap: Tick(0),
            other_key: 0,
            principal,
            external: 0,
            door: request.door,
            frame: self.ledger.frame(),
        };
        let facts = self.keys.seal_facts(row, &request.facts, self.entropy.as_ref())?;
        let wrap = self.wrap(row, &header, token, &data_key)?;
        Ok(Content::new(header, data_key, wrap, facts.into(), Some(Arc::clone(&request.name))))
    }

    pub(super) fn wrap(&self, row: Row, header: &Header, token: &Token, data_key: &Key) -> Result<Wrap> {
        let at = WrapBinding { row, generation: header.generation, step: header.step };
        self.keys.wrap(&at, token, data_key).ok_or_else(key_was_dropped)
    }
}

/// Somebody dropped the server key of a token between its making and its use.
pub(super) fn key_was_dropped() -> Error {
    Error::new(ErrorKind::Busy, "the server key was dropped at this moment; try again")
}

impl Content {
    /// A session with no data that is not on disk yet.
    pub(super) fn new(
        header: Header,
        data_key: Key,
        wrap: Wrap,
        facts: Box<[u8]>,
        principal: Option<Arc<str>>,
    ) -> Self {
        Self {
            life: Life::Live,
            data: Arc::from([]),
            version: 1,
            durable: 0,
            wanted: 1,
            queued: false,
            charged: 0,
            header_version: 1,
            memory_only: false,
            group: None,
            header,
            data_key,
            wrap,
            other: None,
            facts,
            principal,
        }
    }

    /// Takes over what may pass from the session before: everything from one of the same principal, the kept fields
    /// from an anonymous one, nothing from another's.
    fn inherit(&mut self, before: &Self) {
        if before.header.principal == self.header.principal {
            self.data = Arc::clone(&before.data);
        } else if before.header.principal == PrincipalRef::NONE {
            self.data = fields::kept(&before.data);
        }
    }
}
