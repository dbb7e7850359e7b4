//! Filing: sessions come into the index, one by one while it serves, many at once at a start.

use std::sync::Arc;

use super::{Cell, Index, KeySet, NewSlot, Shard, SlotId, hash_of};

impl Index {
    /// Files a session, with its cell if it is in use, unless another has its fingerprint or its server key is being
    /// dropped.
    pub(crate) fn insert(&self, session: &NewSlot, cell: Option<Arc<Cell>>) -> Option<SlotId> {
        let number = session.fingerprint.shard();
        let mut shard = self.shard(number).write();
        let place = shard.insert(session, &self.retired)?;
        if let Some(cell) = cell {
            shard.insert_cell(session.fingerprint, place, cell, self.cell_bytes_max);
        }
        Some(SlotId(place << 8 | number))
    }

    /// Files many that are not in use, and says of each, in the order given, where, or that it was refused as above. Goes
    /// shard by shard, because what a shard needs is in the processor's cache after the first.
    pub(crate) fn insert_all(&self, sessions: &[NewSlot]) -> Vec<Option<SlotId>> {
        let mut filed = vec![None; sessions.len()];
        let mut order: Vec<_> = sessions.iter().zip(&mut filed).collect();
        // Stable: of two with one fingerprint the first counts.
        order.sort_by_key(|(session, _)| session.fingerprint.shard());
        for one_shard in order.chunk_by_mut(|(one, _), (other, _)| one.fingerprint.shard() == other.fingerprint.shard())
        {
            let Some(number) = one_shard.first().map(|(session, _)| session.fingerprint.shard()) else { continue };
            let mut shard = self.shard(number).write();
            for (session, filed) in one_shard {
                **filed = shard.insert(session, &self.retired).map(|place| SlotId(place << 8 | number));
            }
        }
        filed
    }
}

impl Shard {
    fn insert(&mut self, session: &NewSlot, retired: &KeySet) -> Option<u32> {
        let number = session.fingerprint.shard();
        let taken = |fingerprint| self.place_of(fingerprint).or_else(|| self.others.place(fingerprint)).is_some();
        // Asked under the lock, so that whoever ends what goes with that key either meets this or comes before it.
        if taken(session.fingerprint) || retired.has(session.key_id) {
            return None;
        }
        let other = session.other.filter(|other| other.fingerprint.shard() == number && !taken(other.fingerprint));
        let place = self.slots.take();
        if let Some(slot) = self.slots.get_mut(place) {
            slot.fill(session);
        }
        let Self { slots, table, .. } = self;
        table.insert_unique(session.fingerprint.hash(), place, |&place| hash_of(slots, place));
        if let Some(other) = other {
            self.others.put(place, other);
        }
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::slot::ListId;
    use crate::seal::Fingerprint;
    use crate::storage::record::{ClassByte, Row};
    use crate::time::Tick;

    /// A session of a shard, whose fingerprint is told from others there by `mark`.
    fn session(index: &Index, row: u64, shard: u8, mark: u8) -> NewSlot {
        let mut fingerprint = Fingerprint([mark; 16]);
        fingerprint.0[15] = shard;
        NewSlot {
            fingerprint,
            row: Row(row),
            profile: index.profiles().find(ClassByte::Anonymous, 1000),
            absolute: Tick(1000),
            last_seen: Tick(1),
            list: ListId::ANONYMOUS,
            clipped: false,
            key_id: 0,
            other: None,
        }
    }

    #[test]
    fn many_at_once_are_filed_as_one_by_one() {
        let (alone, together) = (Index::new(0, Arc::default()), Index::new(0, Arc::default()));
        // Shards in no order, and every seventh fingerprint twice.
        let mark = |row: u8| if row.is_multiple_of(7) { row + 1 } else { row };
        let all = |index| -> Vec<_> {
            (1..=200).map(|row| session(index, row.into(), mark(row) % 11 % 5, mark(row))).collect()
        };
        let one_by_one: Vec<_> = all(&alone).iter().map(|session| alone.insert(session, None)).collect();
        let at_once = together.insert_all(&all(&together));
        assert_eq!(at_once, one_by_one);
        assert_eq!(at_once.iter().filter(|slot| slot.is_none()).count(), 28, "of two the second is refused");
        for (row, slot) in (1..).zip(&at_once) {
            let found = slot.and_then(|slot| together.slot(slot, crate::engine::slot::Slot::row));
            assert_eq!(found, slot.map(|_| Row(row)));
        }
        assert!(together.insert_all(&[]).is_empty());
    }
}
