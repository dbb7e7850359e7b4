//! Lists of sessions: one for each principal, one for all anonymous sessions.
//!
//! It knows the index, for the links that run through the slots, and groups. Invariants: a list's lock is held
//! while its sessions are filed, taken out or counted, so signing in and signing out everywhere have one order;
//! each list is a ring, and a rotated session keeps its place; that of anonymous sessions is in the order of rows, the head
//! being the oldest, the others only as long as the store stays open; a
//! principal costs 16 bytes and its table entry while it has sessions, and nothing otherwise.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hashbrown::HashTable;
use parking_lot::{Mutex, MutexGuard};

use super::group::Group;
use super::index::{Index, Removed};
use super::slab::Slab;
use super::slot::{ListId, SlotId};
use crate::storage::record::{PrincipalRef, Row};

/// Enough that two principals rarely share a lock.
const SHARDS: usize = 64;

#[derive(Debug)]
pub(crate) struct Principals {
    shards: Vec<Mutex<Shard>>,
    anonymous: Mutex<List>,
}

/// A ring of slots.
#[derive(Debug)]
pub(crate) struct List {
    head: SlotId,
    count: u32,
}

#[derive(Debug)]
pub(crate) struct Shard {
    entries: Slab<Entry>,
    table: HashTable<u32>,
    /// Sign-ins and rotations on their way to disk.
    groups: HashMap<PrincipalRef, Vec<Arc<Group>>>,
}

/// A principal with sessions.
#[derive(Debug, Default)]
struct Entry {
    principal: PrincipalRef,
    list: List,
}

/// The name's record is on disk, or in the commit under way; kept in the top bit of the count.
const NAMED: u32 = 1 << 31;

impl Default for List {
    fn default() -> Self {
        Self { head: SlotId::NONE, count: 0 }
    }
}

/// A locked list.
#[derive(Debug)]
pub(crate) enum Locked<'a> {
    Anonymous(MutexGuard<'a, List>),
    Principal { shard: MutexGuard<'a, Shard>, place: u32 },
}

impl Principals {
    pub(crate) fn new() -> Self {
        let shard = || Shard { entries: Slab::new(), table: HashTable::new(), groups: HashMap::new() };
        Self { shards: (0..SHARDS).map(|_| Mutex::new(shard())).collect(), anonymous: Mutex::new(List::default()) }
    }

    pub(crate) fn lock_anonymous(&self) -> Locked<'_> {
        Locked::Anonymous(self.anonymous.lock())
    }

    /// Locks a principal, whether or not it has sessions.
    pub(crate) fn lock(&self, principal: PrincipalRef) -> LockedShard<'_> {
        LockedShard { shard: self.shard(shard_of(principal)).lock(), principal }
    }

    /// Waits until whoever holds a principal's list, or that of anonymous sessions, has let go of it.
    pub(crate) fn pass_through(&self, principal: PrincipalRef) {
        if principal == PrincipalRef::NONE {
            drop(self.lock_anonymous());
        } else {
            drop(self.lock(principal));
        }
    }

    /// Locks the list that a slot is in.
    pub(crate) fn lock_list(&self, list: ListId) -> Locked<'_> {
        if list == ListId::ANONYMOUS {
            return self.lock_anonymous();
        }
        Locked::Principal { shard: self.shard(list.0).lock(), place: list.0 >> 6 }
    }

    #[expect(clippy::indexing_slicing, reason = "a shard number is 6 bits and there are 64 shards")]
    fn shard(&self, number: u32) -> &Mutex<Shard> {
        &self.shards[(number & 0x3F) as usize]
    }

    /// Principals that have sessions.
    pub(crate) fn count(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().table.len()).sum()
    }

    pub(crate) fn anonymous_count(&self) -> u32 {
        self.anonymous.lock().count
    }
}

/// A principal's shard, locked for that principal.
#[derive(Debug)]
pub(crate) struct LockedShard<'a> {
    shard: MutexGuard<'a, Shard>,
    principal: PrincipalRef,
}

impl<'a> LockedShard<'a> {
    /// The principal's list, if it has one.
    fn place(&self) -> Option<u32> {
        self.shard.find(self.principal)
    }

    /// The list to file a session in, made if there is none.
    pub(crate) fn list_id(&mut self) -> ListId {
        let place = self.shard.find(self.principal).unwrap_or_else(|| self.shard.add(self.principal));
        ListId(place << 6 | shard_of(self.principal))
    }

    /// Sessions in the list.
    pub(crate) fn count(&self) -> u32 {
        self.place().and_then(|place| self.shard.entries.get(place)).map_or(0, |entry| entry.list.count & !NAMED)
    }

    pub(crate) fn rows(&self, index: &Index) -> Vec<(Row, SlotId)> {
        let list = self.place().and_then(|place| self.shard.entries.get(place)).map(|entry| &entry.list);
        list.map_or_else(Vec::new, |list| list.rows(index))
    }

    pub(crate) fn groups(&self) -> &[Arc<Group>] {
        self.shard.groups.get(&self.principal).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn add_group(&mut self, group: Arc<Group>) {
        self.shard.groups.entry(self.principal).or_default().push(group);
    }

    pub(crate) fn remove_group(&mut self, group: &Arc<Group>) {
        if let Some(groups) = self.shard.groups.get_mut(&self.principal) {
            groups.retain(|other| !Arc::ptr_eq(other, group));
            if groups.is_empty() {
                self.shard.groups.remove(&self.principal);
            }
        }
    }

    /// Whether the name's record has still to be written; marks it as written.
    pub(crate) fn claim_name(&mut self) -> bool {
        let Some(place) = self.place() else { return false };
        let Some(entry) = self.shard.entries.get_mut(place) else { return false };
        let missing = entry.list.count & NAMED == 0;
        entry.list.count |= NAMED;
        missing
    }

    /// The name's record was not written after all.
    pub(crate) fn disclaim_name(&mut self) {
        if let Some(entry) = self.place().and_then(|place| self.shard.entries.get_mut(place)) {
            entry.list.count &= !NAMED;
        }
    }

    pub(crate) fn is_named(&self) -> bool {
        self.place().and_then(|place| self.shard.entries.get(place)).is_some_and(|entry| entry.list.count & NAMED != 0)
    }

    /// Drops the principal's entry if it has no sessions and none on their way. Returns whether it did.
    pub(crate) fn drop_if_empty(&mut self) -> bool {
        let Some(place) = self.place() else { return self.groups().is_empty() };
        if self.count() > 0 || !self.groups().is_empty() {
            return false;
        }
        let principal = self.principal;
        let Shard { entries, table, .. } = &mut *self.shard;
        if let Ok(found) = table.find_entry(principal.0, |&other| other == place) {
            found.remove();
        }
        if let Some(entry) = entries.get_mut(place) {
            *entry = Entry::default();
        }
        entries.give_back(place);
        true
    }

    /// Goes on with the principal's list, which must exist.
    pub(crate) fn into_list(mut self) -> Locked<'a> {
        let place = self.list_id().0 >> 6;
        Locked::Principal { shard: self.shard, place }
    }
}

impl Shard {
    fn find(&self, principal: PrincipalRef) -> Option<u32> {
        let same = |place: &u32| self.entries.get(*place).is_some_and(|entry| entry.principal == principal);
        self.table.find(principal.0, same).copied()
    }

    fn add(&mut self, principal: PrincipalRef) -> u32 {
        let place = self.entries.take();
        if let Some(entry) = self.entries.get_mut(place) {
            *entry = Entry { principal, list: List::default() };
        }
        let Self { entries, table, .. } = self;
        table.insert_unique(principal.0, place, |&place| entries.get(place).map_or(0, |entry| entry.principal.0));
        place
    }
}

impl Locked<'_> {
    fn list(&mut self) -> Option<&mut List> {
        match self {
            Locked::Anonymous(list) => Some(list),
            Locked::Principal { shard, place } => shard.entries.get_mut(*place).map(|entry| &mut entry.list),
        }
    }

    /// The principal whose list it is.
    pub(crate) fn principal(&self) -> PrincipalRef {
        match self {
            Locked::Anonymous(_) => PrincipalRef::NONE,
            Locked::Principal { shard, place } => {
                shard.entries.get(*place).map_or(PrincipalRef::NONE, |entry| entry.principal)
            }
        }
    }

    /// Links a slot in as the newest. Returns how many there are now.
    pub(crate) fn link(&mut self, index: &Index, slot: SlotId) -> u32 {
        let Some(list) = self.list() else { return 0 };
        list.link(index, slot);
        list.count & !NAMED
    }

    /// Closes the ring where a session was taken out. Returns how many are left.
    pub(crate) fn unlink(&mut self, index: &Index, removed: &Removed) -> u32 {
        let Some(list) = self.list() else { return 0 };
        list.unlink(index, removed);
        list.count & !NAMED
    }

    /// Links a slot in where a session was taken out, so that one that only got a new token stays as old as it is.
    pub(crate) fn replace(&mut self, index: &Index, removed: &Removed, slot: SlotId) {
        if let Some(list) = self.list() {
            list.replace(index, removed, slot);
        }
    }

    /// The oldest session and how many there are.
    pub(crate) fn oldest(&mut self) -> (SlotId, u32) {
        self.list().map_or((SlotId::NONE, 0), |list| (list.head, list.count & !NAMED))
    }
}

impl List {
    fn link(&mut self, index: &Index, slot: SlotId) {
        let head = if self.head == SlotId::NONE { slot } else { self.head };
        let tail = if head == slot { slot } else { previous(index, head) };
        set_links(index, slot, Some(tail), Some(head));
        set_links(index, tail, None, Some(slot));
        set_links(index, head, Some(slot), None);
        self.head = head;
        self.count += 1;
    }

    fn unlink(&mut self, index: &Index, removed: &Removed) {
        let slot = removed.slot;
        debug_assert!(self.count & !NAMED > 0, "unlinking from an empty list");
        self.count -= 1;
        if removed.next == slot {
            self.head = SlotId::NONE;
            return;
        }
        set_links(index, removed.previous, None, Some(removed.next));
        set_links(index, removed.next, Some(removed.previous), None);
        if self.head == slot {
            self.head = removed.next;
        }
    }

    fn replace(&mut self, index: &Index, removed: &Removed, slot: SlotId) {
        let alone = removed.next == removed.slot;
        let (previous, next) = if alone { (slot, slot) } else { (removed.previous, removed.next) };
        set_links(index, slot, Some(previous), Some(next));
        set_links(index, previous, None, Some(slot));
        set_links(index, next, Some(slot), None);
        if self.head == removed.slot {
            self.head = slot;
        }
    }

    fn rows(&self, index: &Index) -> Vec<(Row, SlotId)> {
        let count = (self.count & !NAMED) as usize;
        let mut rows = Vec::with_capacity(count);
        let mut at = self.head;
        for _ in 0..count {
            let Some((row, next)) = index.slot(at, |slot| (slot.row(), SlotId(slot.next.load(Ordering::Relaxed))))
            else {
                break;
            };
            rows.push((row, at));
            at = next;
        }
        rows
    }
}

fn previous(index: &Index, slot: SlotId) -> SlotId {
    index.slot(slot, |slot| SlotId(slot.previous.load(Ordering::Relaxed))).unwrap_or(SlotId::NONE)
}

/// Links are ordered by the list's lock, so relaxed stores do.
fn set_links(index: &Index, at: SlotId, previous: Option<SlotId>, next: Option<SlotId>) {
    index.slot(at, |slot| {
        if let Some(previous) = previous {
            slot.previous.store(previous.0, Ordering::Relaxed);
        }
        if let Some(next) = next {
            slot.next.store(next.0, Ordering::Relaxed);
        }
    });
}

/// Middle bits: the table in the shard places entries by the low ones and tells them apart by the high ones.
const fn shard_of(principal: PrincipalRef) -> u32 {
    (principal.0 >> 32) as u32 & 0x3F
}
