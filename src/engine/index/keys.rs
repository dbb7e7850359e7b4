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

    /// How many live sessions go with each key. Visits every slot there is.
    pub(crate) fn count_keys(&self, now: Tick) -> [usize; KEY_IDS as usize] {
        let mut counts = [0; KEY_IDS as usize];
        self.for_each(|_, slot| {
            if now < slot.deadline(&self.profiles)
                && let Some(count) = counts.get_mut(usize::from(slot.key_id()))
            {
                *count += 1;
            }
        });
        counts
    }
}
