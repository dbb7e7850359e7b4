//! Ending sessions: sign-out, revocation, limits, expiry.
//!
//! It knows the engine's parts. Invariants: a session is dead in memory before anything is written, and dead on disk
//! before anybody is told; ending is never refused for lack of room, and needs no reading of the session's data;
//! what was ended stays ended in memory even if the disk fails. Sessions end under the lock of their list.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::Engine;
use super::cell::Cell;
use super::events::{By, Happening, Why};
use super::principals::Locked;
use super::queue::Swept;
use super::receipt::Receipt;
use super::slot::{ListId, ProfileId, Slot, SlotId};
use crate::error::{Error, ErrorKind, Result};
use crate::seal::Fingerprint;
use crate::storage::record::{Cutoff, Header, PrincipalRef, Row};
use crate::token::SessionId;

/// Up to this many sessions of one call are deleted one by one; for more, one cutoff record costs less.
const DIRECT_MAX: usize = 4;

/// The cutoffs in force. A leaf lock: nothing else is locked under it.
#[derive(Debug, Default)]
pub(crate) struct Cutoffs(Mutex<HashMap<PrincipalRef, InForce>>);

#[derive(Clone, Copy, Debug, Default)]
struct InForce {
    cutoff: Cutoff,
    /// Rows that only this record makes dead, because they are not deleted yet.
    outstanding: usize,
}

impl Cutoffs {
    pub(crate) fn is_disabled(&self, principal: PrincipalRef) -> bool {
        self.0.lock().get(&principal).is_some_and(|entry| entry.cutoff.disabled)
    }

    pub(super) fn restore(&self, principal: PrincipalRef, cutoff: Cutoff) {
        self.0.lock().insert(principal, InForce { cutoff, outstanding: 0 });
    }

    /// Changes a principal's record; `true` if that made a difference.
    fn change(&self, principal: PrincipalRef, outstanding: usize, change: impl FnOnce(&mut Cutoff)) -> bool {
        let mut map = self.0.lock();
        let mut entry = map.get(&principal).copied().unwrap_or_default();
        let before = entry.cutoff;
        change(&mut entry.cutoff);
        entry.outstanding += outstanding;
        let changed = entry.cutoff != before || outstanding > 0;
        if changed {
            debug_assert!(entry.cutoff.below >= before.below, "a cutoff only grows");
            map.insert(principal, entry);
        }
        changed
    }

    /// What the record is to be on disk now: `None` once it has nothing left to say, and then it is forgotten.
    pub(super) fn resolve(&self, principal: PrincipalRef) -> Option<Cutoff> {
        let mut map = self.0.lock();
        let entry = map.get(&principal).copied()?;
        if entry.outstanding == 0 && !entry.cutoff.disabled {
            map.remove(&principal);
            return None;
        }
        Some(entry.cutoff)
    }

    /// Whether the record has nothing left to say.
    pub(super) fn is_idle(&self, principal: PrincipalRef) -> bool {
        self.0.lock().get(&principal).is_some_and(|entry| entry.outstanding == 0 && !entry.cutoff.disabled)
    }

    /// A row that the record made dead was found on disk, at start.
    pub(super) fn add_outstanding(&self, principal: PrincipalRef) {
        if let Some(entry) = self.0.lock().get_mut(&principal) {
            entry.outstanding += 1;
        }
    }

    /// A row that the record made dead is deleted; `true` if it was the last.
    pub(super) fn settle_outstanding(&self, principal: PrincipalRef) -> bool {
        self.0.lock().get_mut(&principal).is_some_and(|entry| {
            entry.outstanding = entry.outstanding.saturating_sub(1);
            entry.outstanding == 0
        })
    }
}

/// What becomes of an ended session's row. It is queued while the list is still locked, so that whoever locks the list
/// next, and finds the session gone, waits for a batch that has the deletion in it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    /// To be deleted before anybody is told.
    Delete,
    /// Dead by its deadline, or by this cutoff, whatever is on disk: to be deleted when there is time.
    Sweep(Option<PrincipalRef>),
    /// The commit that ends the session has deleted it.
    Deleted,
}

/// Whom `end_many` leaves alone, and what it marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spare<'a> {
    Nobody,
    /// The caller of "sign out everywhere else", at its generation.
    Caller(&'a Arc<Cell>, u32),
    /// Nobody, and no new sign-in either.
    NobodyAndDisable(&'a str),
}

impl PartialEq for Cell {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Cell {}

impl Engine {
    /// Ends a session by its token's fingerprint. `true` if it was live until now.
    pub(super) fn end(&self, fingerprint: Fingerprint, row: Row, why: Why, fate: Fate) -> bool {
        self.end_if(fingerprint, row, |_| Some((why, fate))).is_some()
    }

    /// Ends a session if `doomed` says so, why, and what becomes of its row, while nobody can touch it. Tells whether
    /// the session was kept off the disk.
    pub(super) fn end_if(
        &self,
        fingerprint: Fingerprint,
        row: Row,
        doomed: impl FnOnce(&Slot) -> Option<(Why, Fate)>,
    ) -> Option<Ending> {
        let (slot, list) = self.index.find(fingerprint, row, |id, slot| (id, slot.list()))?;
        let mut locked = self.principals.lock_list(list);
        self.end_locked(&mut locked, list, (slot, row), doomed)
    }

    /// Like [`end_if`](Self::end_if), by the place that a session was seen in, which only a hard rotation changes.
    pub(super) fn end_at(&self, slot: SlotId, row: Row, why: Why, fate: Fate) -> Option<Ending> {
        let list = self.index.slot(slot, Slot::list)?;
        self.end_locked(&mut self.principals.lock_list(list), list, (slot, row), |_| Some((why, fate)))
    }

    pub(super) fn end_locked(
        &self,
        locked: &mut Locked<'_>,
        list: ListId,
        (slot, row): (SlotId, Row),
        doomed: impl FnOnce(&Slot) -> Option<(Why, Fate)>,
    ) -> Option<Ending> {
        // Between finding the list and locking it, the session may have ended and its place been used again.
        let (mut doom, mut profile) = (None, ProfileId(0));
        let removed = self.index.remove(slot, row, |slot| {
            doom = if slot.list() == list { doomed(slot) } else { None };
            if let Some((why @ (Why::SignedOut | Why::Revoked(_) | Why::Replayed), _)) = &mut doom
                && let Some(expired) = self.why_expired(slot)
            {
                *why = expired;
                self.counters.expired.add(1);
            }
            profile = slot.profile();
            doom.is_some()
        })?;
        let (why, fate) = doom?;
        let memory_only = removed.cell.as_ref().is_some_and(|cell| self.kill(cell, why));
        if !memory_only {
            self.queue_fate(row, fate);
        }
        self.note_end(row, why, removed.cell.as_ref(), locked.principal(), profile);
        let left = locked.unlink(&self.index, &removed);
        self.forget_filed();
        self.unwritten.lock().remove(&row);
        if left == 0 && list != ListId::ANONYMOUS {
            self.queue.push_emptied(locked.principal(), self.clock.now_ms());
        }
        Some(Ending { memory_only })
    }

    /// Marks a cell dead, and what depends on it. Tells whether the session was kept off the disk.
    fn kill(&self, cell: &Cell, why: Why) -> bool {
        let mut content = cell.lock();
        let memory_only = content.memory_only;
        if memory_only {
            self.memory_only_bytes.fetch_sub(content.charged, Ordering::Relaxed);
            content.charged = 0;
        } else {
            self.dequeue(&mut content);
        }
        let group = content.kill(why.reason());
        drop(content);
        self.wake_waiting(cell.row);
        // What ends by the sign-in itself, or to make room, says nothing against who is signing in, and a crowd could keep
        // people out by it. Whatever else ends the session ends the sign-in too.
        let goes_on = matches!(why, Why::Replaced | Why::Limit);
        if let Some(group) = group.filter(|group| !goes_on || group.new_row().is_none()) {
            group.kill();
        }
        memory_only
    }

    fn queue_fate(&self, row: Row, fate: Fate) {
        let now_ms = self.clock.now_ms();
        match fate {
            Fate::Delete => self.queue.push_dead(row, now_ms),
            Fate::Sweep(cutoff) => self.queue.push_swept([Swept { row, cutoff }], now_ms),
            Fate::Deleted => {}
        }
    }

    /// Whether the time of a listed session has not run out, which the reaper may be late to notice.
    pub(super) fn is_live(&self, slot: SlotId) -> bool {
        let (now, profiles) = (self.clock.now(), self.index.profiles());
        self.index.slot(slot, |slot| now < slot.deadline(profiles)).unwrap_or_default()
    }

    /// By which deadline a session is dead already, if by any: nobody can end it then.
    fn why_expired(&self, slot: &Slot) -> Option<Why> {
        let profiles = self.index.profiles();
        let why = if slot.is_at_end_of_life(profiles) { Why::Lifetime } else { Why::Idle };
        (slot.deadline(profiles) <= self.clock.now()).then_some(why)
    }

    /// Signs a session out, for the handle of its current generation.
    pub(crate) fn destroy(self: &Arc<Self>, cell: &Arc<Cell>, generation: u32) -> Result<Receipt> {
        self.check_open()?;
        let mut tried = None;
        loop {
            let fingerprint = {
                let content = cell.lock();
                content.check(generation)?;
                content.header.fingerprint
            };
            if let Some(ending) = self.end_if(fingerprint, cell.row, |_| Some((Why::SignedOut, Fate::Delete))) {
                return Ok(self.deletion(ending));
            }
            // Somebody else was first. If that was a rotation, the session lives on under a token that is not this
            // handle's to end; soft ones leave it the handle's own.
            if tried.replace(fingerprint) == Some(fingerprint) {
                return Err(Error::gone());
            }
        }
    }

    /// Ends the session that a handle names. `None` if there is none, or the handle is not ours.
    ///
    /// # Errors
    /// `Busy` if rotations overtook every try.
    pub(crate) fn revoke(self: &Arc<Self>, id: SessionId) -> Result<Option<Receipt>> {
        self.check_open()?;
        let Some(row) = self.keys.row_of(id) else { return Ok(None) };
        let mut tried = None;
        for _ in 0..REVOKE_TRIES {
            let unwritten = self.unwritten.lock().get(&row).copied();
            let (slot, token) = match unwritten {
                Some(slot) => (Some(slot), Fingerprint::NONE),
                None => match self.reader.header(row) {
                    Ok(Some(header)) => (self.place_of(row, &header), header.fingerprint),
                    Ok(None) => return Ok(None),
                    // Ending a session must not depend on a disk that can be read.
                    Err(error) => (Some(self.filed_place(row).ok_or(error)?), Fingerprint::NONE),
                },
            };
            let ending = slot.and_then(|slot| self.end_at(slot, row, Why::Revoked(By::Handle), Fate::Delete));
            if let Some(ending) = ending {
                return Ok(Some(self.deletion(ending)));
            }
            if tried == Some((slot, token)) {
                return Ok(None);
            }
            tried = Some((slot, token));
            // A rotation may have been written and not taken effect yet. It has once the writer's turn is over.
            drop(self.writer.lock());
        }
        Err(Error::new(ErrorKind::Busy, "the session is being rotated again and again; try again in a moment"))
    }

    /// The place of a session by what the disk says of it. Its successor may be in force, and have one of its own, before
    /// the disk says so; but never one whose offer the disk does not know.
    fn place_of(&self, row: Row, header: &Header) -> Option<SlotId> {
        let place = |fingerprint| self.index.find(fingerprint, row, |id, _| id);
        place(header.fingerprint).or_else(|| place(header.other))
    }

    /// The place of a live session by its row alone. Visits every slot there is.
    fn filed_place(&self, row: Row) -> Option<SlotId> {
        let mut found = None;
        self.index.for_each(|id, slot| {
            if slot.row() == row {
                found = Some(id);
            }
        });
        found
    }

    /// Ends all sessions of a principal but the spared one. The receipt's number is how many.
    pub(crate) fn end_many(self: &Arc<Self>, principal: PrincipalRef, spare: Spare<'_>) -> Result<Receipt<usize>> {
        self.check_open()?;
        let mut locked = self.principals.lock(principal);
        let spared = match spare {
            Spare::Caller(cell, generation) => {
                cell.lock().check_write(generation)?;
                Some(cell.row)
            }
            Spare::Nobody | Spare::NobodyAndDisable(_) => None,
        };
        // Sign-ins on their way would come out below the cutoff; they die with the rest.
        locked.groups().iter().for_each(|group| group.kill());
        let mut rows = locked.rows(&self.index);
        rows.retain(|&(row, _)| Some(row) != spared);
        let now_ms = self.clock.now_ms();
        let use_cutoff = rows.len() > DIRECT_MAX;
        let below = Row(self.next_row.load(Ordering::SeqCst));
        let by = match spare {
            Spare::Caller(cell, _) => By::Others(cell.row),
            Spare::Nobody => By::All,
            Spare::NobodyAndDisable(name) => {
                if !self.cutoffs.is_disabled(principal) {
                    self.note_principal(principal, name, Happening::Disabled);
                }
                By::Disable
            }
        };
        let disables = by == By::Disable;
        let changed = self.cutoffs.change(principal, if use_cutoff { rows.len() } else { 0 }, |cutoff| {
            if use_cutoff {
                cutoff.below = below;
                cutoff.spared = spared.unwrap_or_default();
            } else if spared.is_none() {
                cutoff.spared = Row::default();
            }
            cutoff.disabled |= disables;
        });
        if changed {
            self.queue.push_cutoff(principal, use_cutoff || disables, now_ms);
        }
        let count = rows.iter().filter(|&&(_, slot)| self.is_live(slot)).count();
        if !rows.is_empty() {
            let list = locked.list_id();
            let fate = if use_cutoff { Fate::Sweep(Some(principal)) } else { Fate::Delete };
            self.end_listed(&mut locked.into_list(), list, &rows, (Why::Revoked(by), fate));
        }
        self.counters.revoked.add(count);
        Ok(self.when_durable(count))
    }

    /// Allows sign-ins again. `false` if the principal was not disabled.
    pub(crate) fn enable(self: &Arc<Self>, principal: PrincipalRef, name: &str) -> Result<Receipt<bool>> {
        self.check_open()?;
        let locked = self.principals.lock(principal);
        let changed =
            self.cutoffs.is_disabled(principal) && self.cutoffs.change(principal, 0, |cutoff| cutoff.disabled = false);
        if changed {
            self.note_principal(principal, name, Happening::Enabled);
            self.queue.push_cutoff(principal, false, self.clock.now_ms());
        }
        drop(locked);
        Ok(self.when_durable(changed))
    }

    fn end_listed(&self, locked: &mut Locked<'_>, list: ListId, rows: &[(Row, SlotId)], doom: (Why, Fate)) {
        for &(row, slot) in rows {
            self.end_locked(locked, list, (slot, row), |_| Some(doom));
        }
    }

    /// The receipt for the deletion of an ended session, which is queued.
    fn deletion(self: &Arc<Self>, ending: Ending) -> Receipt {
        if ending.memory_only { Receipt::ready(()) } else { self.when_durable(()) }
    }
}

/// What ending a session found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    /// The session was kept off the disk, so there is nothing to delete.
    pub(super) memory_only: bool,
}

/// Two tries with the same token find a session that is there; more are needed only if rotations come in between.
const REVOKE_TRIES: usize = 16;
