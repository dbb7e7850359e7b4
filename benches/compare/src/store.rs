//! What a session store has to do here.
//!
//! It knows bytes. Invariant: `create`, `save` and `destroy` come back when what they did is as durable as the store promises.

use std::time::{SystemTime, UNIX_EPOCH};

use rand::Rng as _;

/// What a client comes back with.
pub(crate) type Key = Vec<u8>;

/// A session store.
pub(crate) trait Store: Send + Sync {
    fn create(&self, data: &[u8]) -> Key;

    /// The data of a live session; counts as use of it where the store keeps track of that.
    fn load(&self, key: &[u8]) -> Option<Vec<u8>>;

    fn save(&self, key: &[u8], data: &[u8]);

    fn destroy(&self, key: &[u8]);

    /// Makes many, which nobody waits for one by one.
    fn fill(&self, count: usize) -> Vec<Key> {
        (0..count).map(|number| self.create(&data(number))).collect()
    }
}

/// As much as the sessions of dwell's own benchmarks hold.
pub(crate) const DATA_BYTES: usize = 291;

pub(crate) fn data(number: usize) -> Vec<u8> {
    let mut data = vec![0; DATA_BYTES];
    let number = (number as u64).to_le_bytes();
    data.iter_mut().zip(number.iter().cycle()).for_each(|(to, from)| *to = *from);
    data
}

/// A key as random as a token.
pub(crate) fn random_key() -> Key {
    let mut key = vec![0; 32];
    rand::rng().fill_bytes(&mut key);
    key
}

/// A row of a store that keeps bytes under keys: when it expires, then the data.
pub(crate) fn row(data: &[u8]) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    [&(now + 1800).to_le_bytes()[..], data].concat()
}

/// The data of a row that is live.
pub(crate) fn live(row: &[u8]) -> Option<Vec<u8>> {
    let (expires, data) = row.split_first_chunk::<8>()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    (u64::from_le_bytes(*expires) > now).then(|| data.to_vec())
}
