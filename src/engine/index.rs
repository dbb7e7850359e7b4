//! The index: from a token's fingerprint to its slot, in 256 shards.
//!
//! It knows slots and cells, not the disk, the clock or the lists. Invariants: a fingerprint's shard holds its slot,
//! and its cell while the session is in use, under one lock; a cell stands here only while the slot holds its row;
//! nothing blocks and no code of the application runs under a shard's lock. Loads take the read lock, everything
//! that files, frees or re-files a slot the write lock, one shard at a time. Where a fingerprint is asked for together
//! with its row, either token of the session does.

mod filing;
mod keys;
mod others;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use hashbrown::HashTable;
pub(crate) use others::Confirmed;
use parking_lot::RwLock;

use super::cell::{Cell, Stamp};
use super::slab::Slab;
use super::slot::{NewSlot, ProfileId, Profiles, Slot, SlotId};
use super::touches::{self, BUCKETS};
use crate::seal::Fingerprint;
use crate::storage::KeySet;
use crate::storage::credit::{Credit, Credits};
use crate::storage::record::Row;
use crate::time::Tick;

/// Enough shards that growing one does not hold up a load for long: at 10 million sessions a shard's table has
/// 40,000 entries.
const SHARDS: usize = 256;

#[derive(Debug)]
pub(crate) struct Index {
    shards: Vec<Padded>,
    profiles: Profiles,
    /// Memory for cells, in bytes, for each shard.
    cell_bytes_max: usize,
    /// Server keys that nothing is filed under any more.
    retired: Arc<KeySet>,
}

/// Its own pair of cache lines, so that neighbours' locks do not slow each other.
#[derive(Debug)]
#[repr(align(128))]
struct Padded(RwLock<Shard>);

#[derive(Debug)]
struct Shard {
    slots: Slab<Slot>,
    /// Place of each live slot, hashed by its fingerprint.
    table: HashTable<u32>,
    /// Place and cell of each session in use, hashed by its fingerprint too: what is in use is found with one probe.
    cells: HashTable<(u32, Arc<Cell>)>,
    others: others::Others,
    cell_bytes: usize,
    /// For each bucket of idle timeouts, the earliest time that a renewal stored since they were gathered, or
    /// [`NONE_RENEWED`]. A request that was held up may store a time from before the gathering.
    renewed_from: [AtomicU32; BUCKETS],
}

/// Later than all times.
const NONE_RENEWED: u32 = u32::MAX;

/// What a probe finds.
#[derive(Debug)]
pub(crate) enum Probe {
    /// No live session has this fingerprint.
    Absent,
    /// Its cell, and which of its tokens this is.
    Hot(Arc<Cell>, Stamp),
    /// The session lives, but its data has to be read from disk.
    Cold(Row),
    /// The token that is offered to the session's client, and which nobody has shown yet.
    Successor,
    /// A token of the session whose overlap is over.
    Replayed(Row),
}

/// What is left of a session that was taken out of the index.
#[derive(Debug)]
pub(crate) struct Removed {
    pub(crate) slot: SlotId,
    pub(crate) previous: SlotId,
    pub(crate) next: SlotId,
    pub(crate) cell: Option<Arc<Cell>>,
}

impl Index {
    pub(crate) fn new(cache_bytes: usize, retired: Arc<KeySet>) -> Self {
        let shard = || Shard {
            slots: Slab::new(),
            table: HashTable::new(),
            cells: HashTable::new(),
            others: others::Others::default(),
            cell_bytes: 0,
            renewed_from: std::array::from_fn(|_| AtomicU32::new(NONE_RENEWED)),
        };
        Self {
            shards: (0..SHARDS).map(|_| Padded(RwLock::new(shard()))).collect(),
            profiles: Profiles::new(),
            cell_bytes_max: cache_bytes / SHARDS,
            retired,
        }
    }

    pub(crate) const fn profiles(&self) -> &Profiles {
        &self.profiles
    }

    /// Finds the live session of a fingerprint and, if `touch` is set, marks it as seen now.
    pub(crate) fn probe(&self, fingerprint: Fingerprint, now: Tick, touch: bool) -> Probe {
        let shard = self.shard(fingerprint.shard()).read();
        let hot = shard.hot(fingerprint);
        let Some(place) = hot.map(|(place, _)| *place).or_else(|| shard.place_of(fingerprint)) else {
            return shard.probe_other(self, fingerprint, now, touch);
        };
        let slot = shard.slots.get(place).filter(|slot| now < slot.deadline(&self.profiles));
        let Some(slot) = slot else { return Probe::Absent };
        if touch {
            shard.touch(slot, now, &self.profiles);
        }
        match hot {
            Some((_, cell)) => {
                cell.mark_used();
                Probe::Hot(Arc::clone(cell), cell.stamp())
            }
            None => Probe::Cold(slot.row()),
        }
    }

    /// Marks a session as seen now, unless its time has run out. `true` if it lives.
    pub(crate) fn touch(&self, fingerprint: Fingerprint, row: Row, now: Tick) -> bool {
        let shard = self.shard(fingerprint.shard()).read();
        let slot = shard.place(fingerprint, row).and_then(|place| shard.slots.get(place));
        let live = slot.filter(|slot| now < slot.deadline(&self.profiles));
        if let Some(slot) = live {
            shard.touch(slot, now, &self.profiles);
        }
        live.is_some()
    }

    /// Sessions with a row on disk and an idle timeout of this bucket that were renewed since the last call, and when they
    /// were seen; and some that were renewed shortly before it. Rows from `new` on were made since: their headers may say
    /// already when they were seen.
    pub(crate) fn renewed(&self, bucket: usize, new: Row) -> Vec<(Row, Tick)> {
        let mut seen = Vec::new();
        for shard in &self.shards {
            if shard.0.read().renewed_from(bucket).is_none() {
                continue;
            }
            // Alone, so that a renewal under way is either found below or noted again.
            let Some(from) = shard.0.write().take_renewed_from(bucket) else { continue };
            shard.for_each(&mut |shard, _, slot| {
                let (row, last_seen) = (slot.row(), slot.last_seen());
                let wanted = row.0 < Row::MEMORY
                    && last_seen >= from
                    && touches::bucket(self.profiles.idle(slot.profile())) == bucket;
                if wanted && !(row >= new && shard.says(slot, last_seen)) {
                    seen.push((row, last_seen));
                }
            });
        }
        seen
    }

    /// Notes a session as renewed that was filed again with a time that is not in its row.
    pub(crate) fn note_renewed(&self, id: SlotId) {
        let shard = self.shard(id.0).read();
        if let Some(slot) = shard.slots.get(id.0 >> 8) {
            shard.note_renewed(slot.profile(), slot.last_seen(), &self.profiles);
        }
    }

    /// Takes a session out if `doomed` agrees: its tokens resolve no more, its place is free. No touch can come in
    /// between the question and the removal.
    pub(crate) fn remove(&self, id: SlotId, row: Row, doomed: impl FnOnce(&Slot) -> bool) -> Option<Removed> {
        let mut shard = self.shard(id.0 & 0xFF).write();
        let place = id.0 >> 8;
        let slot = shard.slots.get(place).filter(|slot| slot.row() == row && row != Row(0))?;
        let in_force = Fingerprint(slot.fingerprint);
        if !doomed(slot) {
            return None;
        }
        shard.take_out(in_force, place);
        shard.others.forget(place);
        let cell = shard.remove_cell(in_force, place);
        let slot = shard.slots.get_mut(place)?;
        let removed =
            Removed { slot: id, previous: SlotId(*slot.previous.get_mut()), next: SlotId(*slot.next.get_mut()), cell };
        slot.clear();
        shard.slots.give_back(place);
        Some(removed)
    }

    /// Makes a cell that was read from disk the session's cell, unless the session ended or another thread was
    /// first. Returns the cell that counts, and which of its tokens this is. `settle` is run on it before anybody finds it.
    pub(crate) fn publish(
        &self,
        fingerprint: Fingerprint,
        cell: Arc<Cell>,
        settle: impl FnOnce(&Cell),
    ) -> Option<(Arc<Cell>, Stamp)> {
        let mut shard = self.shard(fingerprint.shard()).write();
        let place = shard.place(fingerprint, cell.row)?;
        if let Some(first) = shard.cell(place) {
            return Some((Arc::clone(first), shard.stamp(fingerprint, place, first)));
        }
        settle(&cell);
        let in_force = shard.slots.get(place).map(|slot| Fingerprint(slot.fingerprint))?;
        shard.insert_cell(in_force, place, Arc::clone(&cell), self.cell_bytes_max);
        let stamp = shard.stamp(fingerprint, place, &cell);
        Some((cell, stamp))
    }

    /// Runs `read` on the slot of a session, if it is in the index.
    pub(crate) fn find<T>(
        &self,
        fingerprint: Fingerprint,
        row: Row,
        read: impl FnOnce(SlotId, &Slot) -> T,
    ) -> Option<T> {
        let number = fingerprint.shard();
        let shard = self.shard(number).read();
        let place = shard.place(fingerprint, row)?;
        shard.slots.get(place).map(|slot| read(SlotId(place << 8 | number), slot))
    }

    /// The cell of a session and which of its tokens this is, if it is in use.
    pub(crate) fn cell(&self, fingerprint: Fingerprint, row: Row) -> Option<(Arc<Cell>, Stamp)> {
        let shard = self.shard(fingerprint.shard()).read();
        let place = shard.place(fingerprint, row)?;
        shard.cell(place).map(|cell| (Arc::clone(cell), shard.stamp(fingerprint, place, cell)))
    }

    /// Runs `read` on a slot by number. The caller knows, by a list's lock, that it holds what it thinks.
    pub(crate) fn slot<T>(&self, id: SlotId, read: impl FnOnce(&Slot) -> T) -> Option<T> {
        let shard = self.shard(id.0 & 0xFF).read();
        shard.slots.get(id.0 >> 8).map(read)
    }

    /// Runs `change` on a slot by number, alone.
    pub(crate) fn slot_mut<T>(&self, id: SlotId, change: impl FnOnce(&mut Slot) -> T) -> Option<T> {
        let mut shard = self.shard(id.0 & 0xFF).write();
        shard.slots.get_mut(id.0 >> 8).map(change)
    }

    /// Accounts for a cell whose data was written and may have changed in size.
    pub(crate) fn recount(&self, cell: &Arc<Cell>) {
        if cell.bytes() == cell.accounted() {
            return;
        }
        let fingerprint = cell.lock().header.fingerprint;
        let mut shard = self.shard(fingerprint.shard()).write();
        let filed = shard.place(fingerprint, cell.row).and_then(|place| shard.cell(place));
        if filed.is_some_and(|filed| Arc::ptr_eq(filed, cell)) {
            shard.cell_bytes -= cell.accounted();
            shard.cell_bytes += cell.account();
            if shard.cell_bytes > self.cell_bytes_max {
                shard.evict(self.cell_bytes_max);
            }
        }
    }

    /// Ages every session that a credit is for: its slot by that one, its cell by all that it does not have yet. Returns
    /// the slots that are due sooner than the wheel knows. Only in the writer's turn, in which no session that a credit
    /// is for is filed or moves, so each is met once.
    pub(crate) fn age(&self, credit: &Credit, credits: &Credits) -> Vec<SlotId> {
        let mut sooner = Vec::new();
        for (shard, number) in self.shards.iter().zip(0..) {
            let mut places = 0..PIECE;
            loop {
                // Let go of after each piece, so that no load waits for long.
                let mut shard = shard.0.write();
                shard.age(places.clone(), (credit, credits), &self.profiles, &mut |place| {
                    sooner.push(SlotId(place << 8 | number));
                });
                if places.end >= shard.slots.bound() {
                    break;
                }
                places = places.end..places.end.saturating_add(PIECE);
            }
        }
        sooner
    }

    /// Visits every session that is filed, shard by shard.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(SlotId, &Slot)) {
        for (shard, number) in self.shards.iter().zip(0..) {
            shard.for_each(&mut |_, place, slot| visit(SlotId(place << 8 | number), slot));
        }
    }

    /// Places that a shard ever had.
    #[cfg(test)]
    pub(crate) fn places(&self, shard: u32) -> usize {
        self.shard(shard).read().slots.bound() as usize
    }

    /// Cells in use, and the memory they take.
    pub(crate) fn cells(&self) -> (usize, usize) {
        self.shards.iter().fold((0, 0), |(cells, bytes), shard| {
            let shard = shard.0.read();
            (cells + shard.cells.len(), bytes + shard.cell_bytes)
        })
    }

    /// Forgets every cell; for closing, when nothing more can be written.
    pub(crate) fn drop_cells(&self) {
        for shard in &self.shards {
            let cells = {
                let mut shard = shard.0.write();
                shard.cell_bytes = 0;
                std::mem::take(&mut shard.cells)
            };
            drop(cells);
        }
    }

    #[expect(clippy::indexing_slicing, reason = "a shard number is 8 bits and there are 256 shards")]
    fn shard(&self, number: u32) -> &RwLock<Shard> {
        &self.shards[(number & 0xFF) as usize].0
    }
}

impl Padded {
    /// Visits every session that is filed, a piece at a time, so that nobody waits long for the shard.
    fn for_each(&self, visit: &mut impl FnMut(&Shard, u32, &Slot)) {
        let mut places = 0..PIECE;
        loop {
            let shard = self.0.read();
            for place in places.clone() {
                if let Some(slot) = shard.slots.get(place).filter(|slot| slot.row() != Row(0)) {
                    visit(&shard, place, slot);
                }
            }
            if places.end >= shard.slots.bound() {
                return;
            }
            places = places.end..places.end.saturating_add(PIECE);
        }
    }
}

/// Places visited at a time: some ten microseconds.
const PIECE: u32 = 1024;

impl Shard {
    /// Marks a session as seen now, and the shard as having one.
    fn touch(&self, slot: &Slot, now: Tick, profiles: &Profiles) {
        if slot.touch(now) {
            self.note_renewed(slot.profile(), now, profiles);
        }
    }

    fn note_renewed(&self, profile: ProfileId, seen: Tick, profiles: &Profiles) {
        if let Some(from) = self.renewed_from.get(touches::bucket(profiles.idle(profile)))
            && seen.0 < from.load(Ordering::Relaxed)
        {
            from.fetch_min(seen.0, Ordering::Relaxed);
        }
    }

    fn renewed_from(&self, bucket: usize) -> Option<Tick> {
        let from = self.renewed_from.get(bucket)?.load(Ordering::Relaxed);
        (from != NONE_RENEWED).then_some(Tick(from))
    }

    fn take_renewed_from(&mut self, bucket: usize) -> Option<Tick> {
        let from = std::mem::replace(self.renewed_from.get_mut(bucket)?.get_mut(), NONE_RENEWED);
        (from != NONE_RENEWED).then_some(Tick(from))
    }

    /// Whether the header of a session in use says that it was seen then.
    fn says(&self, slot: &Slot, last_seen: Tick) -> bool {
        let cell = self.hot(Fingerprint(slot.fingerprint));
        cell.is_some_and(|(_, cell)| cell.lock().header.last_seen >= last_seen)
    }

    fn age(
        &mut self,
        places: std::ops::Range<u32>,
        (credit, credits): (&Credit, &Credits),
        profiles: &Profiles,
        sooner: &mut dyn FnMut(u32),
    ) {
        for place in places {
            let Some(slot) = self.slots.get_mut(place) else { return };
            if slot.row() == Row(0) || !slot.age(credit) {
                continue;
            }
            if !slot.is_armed_for(slot.deadline(profiles)) && slot.call() {
                sooner(place);
            }
            if let Some(cell) = self.cell(place) {
                credits.age(cell.row, &mut cell.lock().header);
            }
        }
    }

    /// The place of a session, by either of its tokens.
    fn place(&self, fingerprint: Fingerprint, row: Row) -> Option<u32> {
        let place = self.place_of(fingerprint).or_else(|| self.others.place(fingerprint))?;
        self.slots.get(place).is_some_and(|slot| slot.row() == row).then_some(place)
    }

    fn take_out(&mut self, fingerprint: Fingerprint, place: u32) {
        if let Ok(entry) = self.table.find_entry(fingerprint.hash(), |&other| other == place) {
            entry.remove();
        }
    }

    fn place_of(&self, fingerprint: Fingerprint) -> Option<u32> {
        self.table.find(fingerprint.hash(), |place| self.has(*place, fingerprint)).copied()
    }

    /// Place and cell of a session in use.
    fn hot(&self, fingerprint: Fingerprint) -> Option<&(u32, Arc<Cell>)> {
        self.cells.find(fingerprint.hash(), |(place, _)| self.has(*place, fingerprint))
    }

    fn has(&self, place: u32, fingerprint: Fingerprint) -> bool {
        self.slots.get(place).is_some_and(|slot| slot.fingerprint == fingerprint.0)
    }

    fn cell(&self, place: u32) -> Option<&Arc<Cell>> {
        let fingerprint = Fingerprint(self.slots.get(place)?.fingerprint);
        self.cells.find(fingerprint.hash(), |(other, _)| *other == place).map(|(_, cell)| cell)
    }

    fn insert_cell(&mut self, fingerprint: Fingerprint, place: u32, cell: Arc<Cell>, bytes_max: usize) {
        debug_assert!(self.cell(place).is_none(), "two cells for place {place}");
        self.cell_bytes += cell.account();
        let Self { slots, cells, .. } = self;
        cells.insert_unique(fingerprint.hash(), (place, cell), |(place, _)| hash_of(slots, *place));
        if self.cell_bytes > bytes_max {
            self.evict(bytes_max);
        }
    }

    fn remove_cell(&mut self, fingerprint: Fingerprint, place: u32) -> Option<Arc<Cell>> {
        let entry = self.cells.find_entry(fingerprint.hash(), |(other, _)| *other == place).ok()?;
        let (_, cell) = entry.remove().0;
        self.cell_bytes -= cell.accounted();
        Some(cell)
    }

    /// Drops cells that agree with the disk and that nobody holds: first those not used since the last sweep, then,
    /// if that is not enough, any. Sweeping a whole shard at once costs little for each cell that comes in, because
    /// an eighth of the budget is freed.
    fn evict(&mut self, bytes_max: usize) {
        let target = bytes_max - bytes_max / 8;
        for _ in 0..2 {
            let mut bytes = self.cell_bytes;
            self.cells.retain(|(_, cell)| {
                let spare = bytes <= target || cell.take_used() || Arc::strong_count(cell) > 1 || !cell.is_clean();
                if !spare {
                    bytes -= cell.accounted();
                }
                spare
            });
            self.cell_bytes = bytes;
        }
    }
}

fn hash_of(slots: &Slab<Slot>, place: u32) -> u64 {
    slots.get(place).map_or(0, |slot| Fingerprint(slot.fingerprint).hash())
}
