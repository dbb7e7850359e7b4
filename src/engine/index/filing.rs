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
