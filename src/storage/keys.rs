//! Keys: those kept in the store, the ring of server keys, and everything derived from both.
//!
//! What lives here: `Keys` (what the rest of the crate asks for tags, names and seals) and `Ring` (the server keys of the
//! moment). It knows ring 0 and bytes, no redb. Invariants: a store is opened only with a key file that carries its id; a
//! key is never made again for a store that exists; every purpose has a key of its own, derived under a label; the id in
//! a token or header names the server key, and no other is tried. The ring is replaced as a whole, by the writer in its
//! turn; its lock is a leaf, held to copy a pointer, and no load of a session in use takes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use zeroize::Zeroizing;

use super::key_file::{FileKey, KeyFile, hex};
use super::record::{PrincipalRef, Row};
use crate::error::{Error, ErrorKind, Result};
use crate::seal::{self, Key, Tagger, Wrap};
use crate::time::Timestamp;
use crate::token::{Entropy, KEY_IDS, SessionId, Token};

/// Every key that opening a store yields.
#[derive(Debug)]
pub(crate) struct Keys {
    store_id: [u8; 16],
    ring: RwLock<Arc<Ring>>,
    retired: Arc<KeySet>,
    store: Tagger,
    index: Tagger,
    handles: Tagger,
    visitors: Tagger,
    journal: Tagger,
    names: Key,
    facts: Key,
}

/// The server keys, at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Ring {
    active: u8,
    /// In the order in which they were made.
    servers: Vec<Arc<ServerKey>>,
}

#[derive(Debug)]
pub(crate) struct ServerKey {
    pub(crate) id: u8,
    /// By the wall clock.
    pub(crate) made: Timestamp,
    headers: Tagger,
    wraps: Key,
    successors: Tagger,
}

/// Ids of server keys that are being dropped, or were: nothing may begin to live under them. Shared with the index,
/// which asks it under a shard's lock.
#[derive(Debug, Default)]
pub(crate) struct KeySet(AtomicU64);

const _: () = assert!(KEY_IDS as u32 <= u64::BITS, "each id has a bit");

impl KeySet {
    pub(crate) fn has(&self, id: u8) -> bool {
        self.0.load(Ordering::SeqCst) & Self::bit(id) != 0
    }

    fn put(&self, id: u8) {
        self.0.fetch_or(Self::bit(id), Ordering::SeqCst);
    }

    fn take(&self, id: u8) {
        self.0.fetch_and(!Self::bit(id), Ordering::SeqCst);
    }

    const fn bit(id: u8) -> u64 {
        1 << (id % KEY_IDS)
    }
}

impl ServerKey {
    fn derive(from: &FileKey, store_id: &[u8; 16]) -> Self {
        let bound: &[&[u8]] = &[store_id];
        let key = &from.key;
        Self {
            id: from.id,
            made: from.made,
            headers: Tagger::new(&key.derive(None, "header tags", bound)),
            wraps: key.derive(None, "data key wraps", bound),
            successors: Tagger::new(&key.derive(None, "successor tokens", bound)),
        }
    }
}

impl Ring {
    fn of(file: &KeyFile) -> Self {
        let servers = file.keys().iter().map(|key| Arc::new(ServerKey::derive(key, &file.store_id))).collect();
        Self { active: file.active(), servers }
    }

    /// The server key that new sessions go with.
    pub(crate) const fn active(&self) -> u8 {
        self.active
    }

    /// In the order in which they were made.
    pub(crate) fn servers(&self) -> &[Arc<ServerKey>] {
        &self.servers
    }

    pub(crate) fn has(&self, id: u8) -> bool {
        self.server(id).is_some()
    }

    /// Tags headers that go with this server key; `None` if that key was dropped.
    pub(crate) fn headers(&self, id: u8) -> Option<&Tagger> {
        self.server(id).map(|server| &server.headers)
    }

    fn server(&self, id: u8) -> Option<&Arc<ServerKey>> {
        self.servers.iter().find(|server| server.id == id)
    }
}

/// Id of the wrapping server key, then store key and index key sealed under it (table `meta`, key 1).
pub(crate) const WRAPPED_KEYS_BYTES: usize = 1 + 2 * Key::BYTES + seal::SEAL_OVERHEAD;

impl Keys {
    /// Makes the keys of a new store, with the record to keep in it.
    pub(crate) fn create(file: &KeyFile, entropy: &dyn Entropy) -> Result<(Self, Vec<u8>)> {
        let (store, index) = (Key::random(entropy)?, Key::random(entropy)?);
        let both: Zeroizing<Vec<u8>> = Zeroizing::new(store.bytes().iter().chain(index.bytes()).copied().collect());
        Ok((Self::assemble(file, &store, &index), seal_record(file, &both, entropy)?))
    }

    /// Opens the keys kept in a store.
    pub(crate) fn open(file: &KeyFile, record: &[u8]) -> Result<Self> {
        let both = open_record(file, record)?;
        let halves = both.split_first_chunk().and_then(|(store, rest)| Some((*store, *rest.first_chunk()?)));
        let (store, index) = halves.ok_or_else(damaged_record)?;
        Ok(Self::assemble(file, &Key::from_bytes(store), &Key::from_bytes(index)))
    }

    fn assemble(file: &KeyFile, store: &Key, index: &Key) -> Self {
        let bound: &[&[u8]] = &[&file.store_id];
        Self {
            store_id: file.store_id,
            ring: RwLock::new(Arc::new(Ring::of(file))),
            retired: Arc::default(),
            store: Tagger::new(&store.derive(None, "record tags", bound)),
            index: Tagger::new(&index.derive(None, "principal references", bound)),
            handles: Tagger::new(&index.derive(None, "session handles", bound)),
            visitors: Tagger::new(&store.derive(None, "visitor tokens", bound)),
            journal: Tagger::new(&store.derive(None, "journal frames", bound)),
            names: store.derive(None, "principal names", bound),
            facts: store.derive(None, "session facts", bound),
        }
    }

    /// The server keys as they are now.
    pub(crate) fn ring(&self) -> Arc<Ring> {
        Arc::clone(&self.ring.read())
    }

    /// The ring with the key that was added to its file last, which is the active one from then on.
    pub(super) fn with_newest(&self, file: &KeyFile) -> Ring {
        let mut ring = Ring::clone(&self.ring.read());
        ring.servers.extend(file.keys().last().map(|key| Arc::new(ServerKey::derive(key, &file.store_id))));
        ring.active = file.active();
        ring
    }

    /// Puts a ring in force that has a new active key. Only the writer does, in its turn, once the key is in the file and
    /// the store's own keys are sealed under it.
    pub(crate) fn activate(&self, ring: Ring) {
        let mut current = self.ring.write();
        // The id may have been another key's.
        self.retired.take(ring.active);
        *current = Arc::new(ring);
    }

    /// Lets nothing begin to live under a key any more, unless it is the active one or there is none of that id. Tells
    /// whether that was so.
    pub(crate) fn retire(&self, id: u8) -> bool {
        // Asked and done under the lock, so that an id that comes again is not hit.
        let ring = self.ring.read();
        let retires = id != ring.active && ring.has(id);
        if retires {
            self.retired.put(id);
        }
        retires
    }

    pub(crate) const fn retired(&self) -> &Arc<KeySet> {
        &self.retired
    }

    /// Forgets a key that nothing lives under any more. Only the writer does, in its turn.
    pub(super) fn forget(&self, id: u8) {
        let mut current = self.ring.write();
        let mut ring = Ring::clone(&current);
        ring.servers.retain(|server| server.id != id);
        *current = Arc::new(ring);
    }

    /// Tags what visitors without a session are handed.
    pub(crate) const fn visitors(&self) -> &Tagger {
        &self.visitors
    }

    /// Tags frames of the journal.
    pub(super) const fn journal(&self) -> &Tagger {
        &self.journal
    }

    /// What tells this store from others in public: in the name of a cookie.
    pub(crate) fn instance(&self) -> String {
        hex(&self.handles.tag8("instance", &[&self.store_id])).chars().take(8).collect()
    }

    pub(crate) const fn store_id(&self) -> &[u8; 16] {
        &self.store_id
    }

    /// The server key that new sessions go with.
    pub(crate) fn active(&self) -> u8 {
        self.ring.read().active
    }

    /// Tags records of the whole store.
    pub(crate) const fn store(&self) -> &Tagger {
        &self.store
    }

    fn server(&self, key_id: u8) -> Option<Arc<ServerKey>> {
        self.ring.read().server(key_id).cloned()
    }

    /// The reference of a principal: never zero, which stands for none.
    pub(crate) fn principal(&self, name: &str) -> PrincipalRef {
        PrincipalRef(u64::from_le_bytes(self.index.tag8("principal", &[name.as_bytes()])).max(1))
    }

    pub(crate) fn handle(&self, row: Row) -> SessionId {
        SessionId { row: row.0, tag: self.handles.tag8("session", &[&row.0.to_le_bytes()]) }
    }

    /// The row that a handle names, if the handle is one of ours.
    pub(crate) fn row_of(&self, id: SessionId) -> Option<Row> {
        self.handles.verify("session", &[&id.row.to_le_bytes()], &id.tag).then_some(Row(id.row))
    }

    pub(crate) fn seal_name(&self, principal: PrincipalRef, name: &str, entropy: &dyn Entropy) -> Result<Vec<u8>> {
        seal::seal(&self.names, &self.bound("name", principal.0), name.as_bytes(), entropy)
    }

    pub(crate) fn open_name(&self, principal: PrincipalRef, sealed: &[u8]) -> Option<String> {
        String::from_utf8(seal::open(&self.names, &self.bound("name", principal.0), sealed)?).ok()
    }

    /// Seals facts; none at all stay none.
    pub(crate) fn seal_facts(&self, row: Row, facts: &[u8], entropy: &dyn Entropy) -> Result<Vec<u8>> {
        if facts.is_empty() {
            return Ok(Vec::new());
        }
        seal::seal(&self.facts, &self.bound("facts", row.0), facts, entropy)
    }

    pub(crate) fn open_facts(&self, row: Row, sealed: &[u8]) -> Option<Vec<u8>> {
        if sealed.is_empty() {
            return Some(Vec::new());
        }
        seal::open(&self.facts, &self.bound("facts", row.0), sealed)
    }

    pub(crate) fn seal_data(&self, row: Row, key: &Key, data: &[u8], entropy: &dyn Entropy) -> Result<Vec<u8>> {
        seal::seal(key, &self.bound("data", row.0), data, entropy)
    }

    pub(crate) fn open_data(&self, row: Row, key: &Key, sealed: &[u8]) -> Option<Vec<u8>> {
        seal::open(key, &self.bound("data", row.0), sealed)
    }

    /// Wraps a session's data key for one token, at one generation and step. The wrapping key comes from the
    /// token and the server key, so it is used once and neither alone opens anything.
    pub(crate) fn wrap(&self, at: &WrapBinding, token: &Token, key: &Key) -> Option<Wrap> {
        let by = self.wrapping_key(at, token)?;
        Some(seal::wrap(&by, &[], key))
    }

    pub(crate) fn unwrap(&self, at: &WrapBinding, token: &Token, wrapped: &Wrap) -> Option<Key> {
        let by = self.wrapping_key(at, token)?;
        seal::unwrap(&by, &[], wrapped)
    }

    /// The token that is to follow this one softly, under this server key and at the place that its wrap will have. Always
    /// the same one, so that all requests are offered it, before a restart and after; without the server key nobody can
    /// tell it in advance. `None` if that key was dropped.
    pub(crate) fn successor(&self, at: &WrapBinding, token: &Token, key_id: u8) -> Option<Token> {
        let parts: &[&[u8]] =
            &[&at.row.0.to_le_bytes(), &at.generation.to_le_bytes(), &at.step.to_le_bytes(), token.secret()];
        let start = self.server(key_id)?.successors.key("successor token", parts);
        Some(Token::near(key_id, &start, token.fingerprint()))
    }

    fn wrapping_key(&self, at: &WrapBinding, token: &Token) -> Option<Key> {
        let server = self.server(token.key_id())?;
        Some(Key::from_bytes(*token.secret()).derive(
            Some(&server.wraps),
            "data key wrap",
            &[
                &self.store_id,
                &at.row.0.to_le_bytes(),
                &at.generation.to_le_bytes(),
                &at.step.to_le_bytes(),
                &[token.key_id()],
                &token.fingerprint().0,
            ],
        ))
    }

    /// What a sealed value is bound to: its kind, the version of its layout, this store, its row or reference.
    fn bound(&self, kind: &str, number: u64) -> Vec<u8> {
        let mut bound = Vec::with_capacity(40);
        bound.extend_from_slice(kind.as_bytes());
        bound.extend_from_slice(&[0, LAYOUT]);
        bound.extend_from_slice(&self.store_id);
        bound.extend_from_slice(&number.to_le_bytes());
        bound
    }
}

/// Version of the layouts inside seals: field map, facts, names.
const LAYOUT: u8 = 1;

/// Where a wrap belongs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WrapBinding {
    pub(crate) row: Row,
    pub(crate) generation: u32,
    pub(crate) step: u32,
}

/// The same record, sealed under the active key of the file.
pub(super) fn rewrap(file: &KeyFile, record: &[u8], entropy: &dyn Entropy) -> Result<Vec<u8>> {
    seal_record(file, &open_record(file, record)?, entropy)
}

fn seal_record(file: &KeyFile, both: &[u8], entropy: &dyn Entropy) -> Result<Vec<u8>> {
    let active = file.key(file.active()).ok_or_else(lost_key)?;
    let mut record = vec![file.active()];
    record.extend(seal::seal(&wrapping(active), &file.store_id, both, entropy)?);
    Ok(record)
}

fn open_record(file: &KeyFile, record: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
    let Some((&id, sealed)) = record.split_first().filter(|_| record.len() == WRAPPED_KEYS_BYTES) else {
        return Err(damaged_record());
    };
    let server = file.key(id).ok_or_else(lost_key)?;
    seal::open(&wrapping(server), &file.store_id, sealed)
        .map(Zeroizing::new)
        .ok_or_else(|| Error::new(ErrorKind::Key, "the key file does not open this store; put the right one back"))
}

/// The server key that seals a record of keys.
pub(super) fn wrapped_by(record: &[u8]) -> Option<u8> {
    record.first().copied()
}

fn wrapping(server: &Key) -> Key {
    server.derive(None, "store keys", &[])
}

fn damaged_record() -> Error {
    Error::corrupt("the key record of the store is damaged")
}

fn lost_key() -> Error {
    Error::new(ErrorKind::Key, "the key file lacks the key that this store was written with; put it back")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::SeededEntropy;

    fn key_file(entropy: &SeededEntropy) -> KeyFile {
        KeyFile::create(Timestamp::from_unix_ms(0), entropy).unwrap()
    }

    #[test]
    fn store_keys_open_only_with_their_key_file() {
        let entropy = SeededEntropy::new(2);
        let (ours, other) = (key_file(&entropy), key_file(&entropy));
        let (keys, record) = Keys::create(&ours, &entropy).unwrap();
        let again = Keys::open(&ours, &record).unwrap();
        assert_eq!(keys.principal("ada"), again.principal("ada"));
        assert_ne!(keys.principal("ada"), keys.principal("bob"));
        assert_eq!(Keys::open(&other, &record).unwrap_err().kind(), ErrorKind::Key);
        assert_eq!(Keys::open(&ours, &record[1..]).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn wraps_open_only_for_their_token_row_generation_and_step() {
        let entropy = SeededEntropy::new(3);
        let (keys, _) = Keys::create(&key_file(&entropy), &entropy).unwrap();
        let (token, other) = (Token::random(0, &entropy).unwrap(), Token::random(0, &entropy).unwrap());
        let data_key = Key::random(&entropy).unwrap();
        let at = WrapBinding { row: Row(1), generation: 2, step: 3 };
        let wrapped = keys.wrap(&at, &token, &data_key).unwrap();
        assert_eq!(keys.unwrap(&at, &token, &wrapped), Some(data_key));
        assert_eq!(keys.unwrap(&at, &other, &wrapped), None);
        for moved in
            [WrapBinding { row: Row(2), ..at }, WrapBinding { generation: 3, ..at }, WrapBinding { step: 4, ..at }]
        {
            assert_eq!(keys.unwrap(&moved, &token, &wrapped), None);
        }
    }

    #[test]
    fn a_successor_follows_from_token_key_row_generation_and_step() {
        let entropy = SeededEntropy::new(5);
        let file = key_file(&entropy);
        let (keys, record) = Keys::create(&file, &entropy).unwrap();
        let (other_keys, _) = Keys::create(&key_file(&entropy), &entropy).unwrap();
        let (token, other) = (Token::random(0, &entropy).unwrap(), Token::random(0, &entropy).unwrap());
        let at = WrapBinding { row: Row(1), generation: 2, step: 3 };
        let next = keys.successor(&at, &token, 0).unwrap();
        assert!(Keys::open(&file, &record).unwrap().successor(&at, &token, 0).unwrap().is_same(&next));
        assert_eq!(next.fingerprint().shard(), token.fingerprint().shard());
        assert_eq!(next.key_id(), token.key_id());
        let moved =
            [WrapBinding { row: Row(2), ..at }, WrapBinding { generation: 3, ..at }, WrapBinding { step: 4, ..at }];
        let mut others: Vec<_> = moved.iter().map(|at| keys.successor(at, &token, 0).unwrap()).collect();
        others.push(keys.successor(&at, &other, 0).unwrap());
        others.push(other_keys.successor(&at, &token, 0).unwrap());
        others.push(token);
        assert!(others.iter().all(|other| !other.is_same(&next)));
    }

    #[test]
    fn handles_of_other_stores_name_nothing() {
        let entropy = SeededEntropy::new(4);
        let (keys, _) = Keys::create(&key_file(&entropy), &entropy).unwrap();
        let (other, _) = Keys::create(&key_file(&entropy), &entropy).unwrap();
        assert_eq!(keys.row_of(keys.handle(Row(9))), Some(Row(9)));
        assert_eq!(keys.row_of(other.handle(Row(9))), None);
    }
}
