//! Sessions with two tokens: the other token's way to the session, and the swap of the two.
//!
//! It knows the index that it belongs to and the rules of soft rotation. A successor's fingerprint belongs to the shard of
//! the one before, so both lead to one slot under one lock. Invariants: a slot has one other token at most, and none once
//! it is free; the slot, and the cell with it, are found by the token in force with one probe, as if there were no other;
//! header, slot and tables change together under the shard's write lock, so a request finds the session by either token
//! at every moment.

use std::sync::Arc;

use hashbrown::HashTable;

use super::{Index, Probe, Shard};
use crate::engine::cell::{Cell, Stamp};
use crate::engine::slot::{OtherSlot, Slot};
use crate::engine::soft;
use crate::seal::Fingerprint;
use crate::storage::record::Row;
use crate::time::Tick;

/// The other tokens of a shard: 24 bytes for each place in use, and its table entry.
#[derive(Debug, Default)]
pub(super) struct Others {
    /// Places, hashed by the other token's fingerprint.
    table: HashTable<u32>,
    /// By place, in pieces, so that growing copies little.
    entries: Vec<Option<Box<Piece>>>,
}

const PIECE: usize = 64;
type Piece = [OtherSlot; PIECE];

const NONE: OtherSlot = OtherSlot { fingerprint: Fingerprint::NONE, overlap: Tick(0), key_id: 0 };

impl Others {
    pub(super) fn get(&self, place: u32) -> Option<&OtherSlot> {
        let entry = self.entries.get(place as usize / PIECE)?.as_deref()?.get(place as usize % PIECE)?;
        (entry.fingerprint != Fingerprint::NONE).then_some(entry)
    }

    fn entry(&mut self, place: u32) -> Option<&mut OtherSlot> {
        let piece = place as usize / PIECE;
        if self.entries.len() <= piece {
            self.entries.resize_with(piece + 1, || None);
        }
        self.entries.get_mut(piece)?.get_or_insert_with(|| Box::new([NONE; PIECE])).get_mut(place as usize % PIECE)
    }

    /// The place of the session whose other token this is.
    pub(super) fn place(&self, fingerprint: Fingerprint) -> Option<u32> {
        if self.table.is_empty() {
            return None;
        }
        let same = |&place: &u32| self.get(place).is_some_and(|entry| entry.fingerprint == fingerprint);
        self.table.find(fingerprint.hash(), same).copied()
    }

    /// Gives a place another token, in place of the one that it had.
    pub(super) fn put(&mut self, place: u32, other: OtherSlot) {
        self.forget(place);
        if let Some(entry) = self.entry(place) {
            *entry = other;
        }
        let Self { table, entries } = self;
        table.insert_unique(other.fingerprint.hash(), place, |&place| {
            let piece = entries.get(place as usize / PIECE).and_then(Option::as_deref);
            piece.and_then(|piece| piece.get(place as usize % PIECE)).map_or(0, |entry| entry.fingerprint.hash())
        });
    }

    pub(super) fn forget(&mut self, place: u32) {
        let Some(&OtherSlot { fingerprint, .. }) = self.get(place) else { return };
        if let Ok(found) = self.table.find_entry(fingerprint.hash(), |&other| other == place) {
            found.remove();
        }
        if let Some(entry) = self.entry(place) {
            *entry = NONE;
        }
    }
}

/// What became of putting a successor in force.
#[derive(Debug)]
pub(crate) enum Confirmed {
    /// The token is none of a live session.
    Absent,
    /// The session's data has to be read from disk first.
    Cold(Row),
    Here(Arc<Cell>, Stamp),
}

impl Shard {
    /// What a fingerprint finds that is no token in force.
    #[cold]
    pub(super) fn probe_other(&self, index: &Index, fingerprint: Fingerprint, now: Tick, touch: bool) -> Probe {
        let found = self.others.place(fingerprint).and_then(|place| Some((place, self.others.get(place)?.overlap)));
        let Some((place, overlap)) = found else { return Probe::Absent };
        let slot = self.slots.get(place).filter(|slot| now < slot.deadline(&index.profiles));
        let Some(slot) = slot else { return Probe::Absent };
        let standing = soft::Other::at(overlap, now);
        match standing {
            soft::Other::Offered => Probe::Successor,
            soft::Other::Replayed => Probe::Replayed(slot.row()),
            soft::Other::Leaving => {
                if touch {
                    self.touch(slot, now, &index.profiles);
                }
                match self.cell(place) {
                    Some(cell) => {
                        cell.mark_used();
                        Probe::Hot(Arc::clone(cell), self.stamp(fingerprint, place, cell))
                    }
                    None => Probe::Cold(slot.row()),
                }
            }
        }
    }

    /// Which of the session's tokens this is.
    pub(super) fn stamp(&self, fingerprint: Fingerprint, place: u32, cell: &Cell) -> Stamp {
        let stamp = cell.stamp();
        match self.others.get(place).filter(|other| other.fingerprint == fingerprint) {
            // Whether the overlap is over makes no difference to this.
            Some(other) => Stamp { step: soft::Other::at(other.overlap, Tick(0)).step(stamp.step), ..stamp },
            None => stamp,
        }
    }

    /// Files a place, and its cell, under the other token.
    fn swap(&mut self, place: u32, overlap: Tick) {
        let Some(&OtherSlot { fingerprint: successor, key_id, .. }) = self.others.get(place) else { return };
        let leaving = |slot: &Slot| (Fingerprint(slot.fingerprint), slot.key_id());
        let Some((before, key_before)) = self.slots.get(place).map(leaving) else { return };
        self.take_out(before, place);
        let cell =
            self.cells.find_entry(before.hash(), |(other, _)| *other == place).ok().map(|found| found.remove().0);
        if let Some(slot) = self.slots.get_mut(place) {
            slot.fingerprint = successor.0;
            slot.set_key(key_id);
        }
        self.others.put(place, OtherSlot { fingerprint: before, overlap, key_id: key_before });
        let Self { slots, table, cells, .. } = self;
        table.insert_unique(successor.hash(), place, |&place| super::hash_of(slots, place));
        if let Some(cell) = cell {
            cells.insert_unique(successor.hash(), cell, |(place, _)| super::hash_of(slots, *place));
        }
    }
}

impl Index {
    /// Offers a successor for the token in force of a session in use, if `agree` does, which notes it in the cell. What
    /// was offered or in force before it is forgotten.
    pub(crate) fn offer(
        &self,
        (token, cell): (Fingerprint, &Arc<Cell>),
        (successor, key_id): (Fingerprint, u8),
        agree: impl FnOnce() -> bool,
    ) -> bool {
        debug_assert_eq!(successor.shard(), token.shard(), "tokens of one session belong to one shard");
        let mut shard = self.shard(token.shard()).write();
        let in_force =
            shard.place_of(token).filter(|&place| shard.cell(place).is_some_and(|own| Arc::ptr_eq(own, cell)));
        let Some(place) = in_force else { return false };
        // Somebody's already: the hash collides, which nobody lives to see.
        let taken = shard.place_of(successor).is_some() || shard.others.place(successor).is_some();
        // Asked under the lock, so that whoever ends what goes with that key either meets this or comes before it.
        if taken || self.retired.has(key_id) || !agree() {
            return false;
        }
        shard.others.put(place, OtherSlot { fingerprint: successor, overlap: Tick(0), key_id });
        true
    }

    /// Puts a successor in force that was shown, if `agree` does, which notes it in the cell and says until when the token
    /// before is good. The successor opens the session in either case.
    pub(crate) fn confirm(
        &self,
        successor: Fingerprint,
        (now, touch): (Tick, bool),
        agree: impl FnOnce(&Arc<Cell>) -> Option<Tick>,
    ) -> Confirmed {
        let mut shard = self.shard(successor.shard()).write();
        // If another request was first, it is in force by now.
        let place = shard.place_of(successor).or_else(|| shard.others.place(successor));
        let slot = place.and_then(|place| Some((place, shard.slots.get(place)?)));
        let Some((place, slot)) = slot.filter(|(_, slot)| now < slot.deadline(&self.profiles)) else {
            return Confirmed::Absent;
        };
        let is_other = shard.others.get(place).filter(|other| other.fingerprint == successor);
        if is_other.is_some_and(|other| soft::Other::at(other.overlap, now) == soft::Other::Replayed) {
            return Confirmed::Absent;
        }
        let Some(cell) = shard.cell(place).map(Arc::clone) else { return Confirmed::Cold(slot.row()) };
        if touch {
            shard.touch(slot, now, &self.profiles);
        }
        cell.mark_used();
        let offered = is_other.is_some_and(|other| other.overlap == Tick(0));
        if offered && let Some(overlap) = agree(&cell) {
            shard.swap(place, overlap);
        }
        let stamp = shard.stamp(successor, place, &cell);
        Confirmed::Here(cell, stamp)
    }

    /// Sessions with two tokens, and the places kept for them.
    #[cfg(test)]
    pub(crate) fn others(&self) -> (usize, usize) {
        self.shards.iter().fold((0, 0), |(others, places), shard| {
            let shard = shard.0.read();
            let pieces = shard.others.entries.iter().flatten().count();
            (others + shard.others.table.len(), places + pieces * PIECE)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::engine::slot::{ListId, NewSlot};
    use crate::storage::record::ClassByte;

    /// Fingerprints of one shard.
    fn fingerprint(number: u32) -> Fingerprint {
        let mut bytes = [7; 16];
        bytes[..4].copy_from_slice(&number.wrapping_mul(0x9E37_79B9).to_le_bytes());
        Fingerprint(bytes)
    }

    fn file(index: &Index, row: u64, token: Fingerprint, other: Option<(Fingerprint, Tick)>) -> bool {
        let profile = index.profiles().find(ClassByte::Anonymous, 1000);
        let (absolute, last_seen, list) = (Tick(1000), Tick(1), ListId::ANONYMOUS);
        let other = other.map(|(fingerprint, overlap)| OtherSlot { fingerprint, overlap, key_id: 0 });
        let (fingerprint, row, clipped, key_id) = (token, Row(row), false, 0);
        let session = NewSlot { fingerprint, row, profile, absolute, last_seen, list, clipped, key_id, other };
        index.insert(&session, None).is_some()
    }

    #[test]
    fn the_other_token_goes_with_the_session_and_places_are_bounded() {
        let index = Index::new(0, Arc::default());
        for round in 0..20 {
            for number in 0..200 {
                let other = Some((fingerprint(1000 + number), Tick(round)));
                assert!(file(&index, u64::from(round * 1000 + number) + 1, fingerprint(number), other));
            }
            assert_eq!(index.others(), (200, 256), "round {round}");
            for number in 0..200 {
                let row = Row(u64::from(round * 1000 + number) + 1);
                // By either of the two.
                let token = if number % 2 == 0 { number } else { 1000 + number };
                let slot = index.find(fingerprint(token), row, |id, _| id).unwrap();
                assert!(index.remove(slot, Row(row.0 + 1), |_| true).is_none(), "another's row");
                assert!(index.remove(slot, row, |_| true).is_some());
            }
            assert_eq!(index.others(), (0, 256), "round {round}");
        }
        assert!(matches!(index.probe(fingerprint(1001), Tick(2), true), Probe::Absent));
    }

    #[test]
    fn a_place_has_one_other_token_and_nothing_is_left_of_the_one_before() {
        let mut others = Others::default();
        for number in 1..100 {
            others.put(70, OtherSlot { fingerprint: fingerprint(number), overlap: Tick(number), key_id: 0 });
            assert_eq!((others.table.len(), others.place(fingerprint(number))), (1, Some(70)));
            assert_eq!(others.place(fingerprint(number - 1)), None);
        }
        others.forget(70);
        others.forget(70);
        assert_eq!((others.table.len(), others.place(fingerprint(99))), (0, None));
    }

    #[test]
    fn nobody_gets_a_token_that_is_anothers() {
        let index = Index::new(0, Arc::default());
        assert!(file(&index, 1, fingerprint(1), Some((fingerprint(2), Tick(0)))));
        assert!(!file(&index, 2, fingerprint(2), None), "the offer of the first");
        assert!(file(&index, 3, fingerprint(3), Some((fingerprint(1), Tick(0)))), "without its other token");
        let mut elsewhere = fingerprint(4);
        elsewhere.0[15] ^= 1;
        assert!(file(&index, 4, fingerprint(5), Some((elsewhere, Tick(0)))), "and so in another shard");
        assert_eq!(index.others().0, 1);
        assert!(matches!(index.probe(fingerprint(2), Tick(2), true), Probe::Successor));
        assert!(matches!(index.probe(fingerprint(1), Tick(2), true), Probe::Cold(Row(1))));
    }

    #[test]
    fn a_token_before_opens_until_its_overlap_is_over_and_neither_past_the_deadline() {
        let index = Index::new(0, Arc::default());
        assert!(file(&index, 1, fingerprint(1), Some((fingerprint(2), Tick(20)))));
        let probe = |now| index.probe(fingerprint(2), Tick(now), true);
        assert!(matches!(probe(19), Probe::Cold(Row(1))));
        assert_eq!(index.find(fingerprint(1), Row(1), |_, slot| slot.last_seen()), Some(Tick(19)), "it counts as use");
        assert!(matches!(probe(20), Probe::Replayed(Row(1))));
        assert!(matches!(probe(999), Probe::Replayed(Row(1))));
        assert!(matches!(probe(1000), Probe::Absent), "its time ran out first");
    }
}
