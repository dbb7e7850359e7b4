//! Which sessions go with which server key.
//!
//! It knows the index that it belongs to. Invariant: once a key is [retired](crate::storage::Keys::retire),
//! nothing is filed or offered under it any more, and whoever visits a shard after that finds all there is.

use super::{Index, PIECE, SHARDS};
use crate::seal::Fingerprint;
use crate::storage::record::Row;
use crate::time::Tick;
use crate::token::KEY_IDS;

impl Index {
    pub(crate) fn shard_numbers() -> std::ops::Range<u32> {
        0..u32::try_from(SHARDS).unwrap_or(u32::MAX)
    }

    /// The sessions of a shard whose token, or the successor on offer, goes with this key. Of those of which only the token
    /// before does, that one is forgotten.
    pub(crate) fn leave_key(&self, shard: u32, key_id: u8) -> Vec<(Fingerprint, Row)> {
        let mut found = Vec::new();
        let mut places = 0..PIECE;
        loop {
            // Let go of after each piece, so that no load waits for long.
            let mut shard = self.shard(shard).write();
            for place in places.clone() {
                let Some(slot) = shard.slots.get(place).filter(|slot| slot.row() != Row(0)) else { continue };
                let other = shard.others.get(place).filter(|other| other.key_id == key_id);
                if slot.key_id() == key_id || other.is_some_and(|other| other.overlap == Tick(0)) {
                    found.push((Fingerprint(slot.fingerprint), slot.row()));
                } else if other.is_some() {
                    shard.others.forget(place);
                }
            }
            if places.end >= shard.slots.bound() {
                return found;
            }
            places = places.end..places.end.saturating_add(PIECE);
        }
    }

    /// How many live sessions go with each key, by their token or the successor on offer: what dropping it would end. One
    /// whose two tokens go with two keys counts for both. Visits every slot there is.
    pub(crate) fn count_keys(&self, now: Tick) -> [usize; KEY_IDS as usize] {
        let mut counts = [0; KEY_IDS as usize];
        for shard in &self.shards {
            shard.for_each(&mut |shard, place, slot| {
                if now >= slot.deadline(&self.profiles) {
                    return;
                }
                let offered = shard.others.get(place).filter(|other| other.overlap == Tick(0));
                let offered = offered.map(|other| other.key_id).filter(|key_id| *key_id != slot.key_id());
                for key_id in [Some(slot.key_id()), offered].into_iter().flatten() {
                    if let Some(count) = counts.get_mut(usize::from(key_id)) {
                        *count += 1;
                    }
                }
            });
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::engine::slot::{ListId, NewSlot, OtherSlot};
    use crate::storage::record::ClassByte;

    /// Files a session under a key, with its other token, if it has one: overlap and key.
    fn file(index: &Index, row: u8, key_id: u8, other: Option<(u32, u8)>) -> bool {
        let profile = index.profiles().find(ClassByte::Anonymous, 1000);
        let (absolute, last_seen, list) = (Tick(1000), Tick(1), ListId::ANONYMOUS);
        let other = other.map(|(overlap, key_id)| OtherSlot {
            fingerprint: Fingerprint([100 + row; 16]),
            overlap: Tick(overlap),
            key_id,
        });
        let other = other.map(|mut other| {
            other.fingerprint.0[15] = row;
            other
        });
        let (fingerprint, row, clipped) = (Fingerprint([row; 16]), Row(row.into()), false);
        let session = NewSlot { fingerprint, row, profile, absolute, last_seen, list, clipped, key_id, other };
        index.insert(&session, None).is_some()
    }

    fn leave(index: &Index, key_id: u8) -> Vec<u64> {
        let found = Index::shard_numbers().flat_map(|shard| index.leave_key(shard, key_id));
        let mut rows: Vec<u64> = found.map(|(_, row)| row.0).collect();
        rows.sort_unstable();
        rows
    }

    #[test]
    fn sessions_go_with_the_key_of_their_token_and_of_the_one_on_offer() {
        let index = Index::new(0, Arc::default());
        for (row, key_id, other) in
            [(1, 0, None), (2, 1, None), (3, 0, Some((0, 1))), (4, 1, Some((50, 0))), (5, 63, Some((0, 63)))]
        {
            assert!(file(&index, row, key_id, other));
        }
        let counts = index.count_keys(Tick(5));
        assert_eq!((counts[0], counts[1], counts[63], counts.iter().sum::<usize>()), (2, 3, 1, 6));
        assert_eq!(index.count_keys(Tick(1000)).iter().sum::<usize>(), 0, "their time is over");
        assert_eq!(leave(&index, 63), [5]);
        assert_eq!(leave(&index, 2), [0; 0]);
        assert_eq!(index.others().0, 3);
        assert_eq!(leave(&index, 1), [2, 3, 4]);
        assert_eq!(index.others().0, 3);
        assert_eq!(leave(&index, 0), [1, 3]);
        assert_eq!(index.others().0, 2, "the token before of the fourth is forgotten");
    }
}
