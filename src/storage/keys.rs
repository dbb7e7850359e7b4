//! Keys: the key file, the keys kept in the store, and everything derived from both.
//!
//! What lives here: `KeyFile` (server keys, in a file of their own) and `Keys` (what the rest of the crate asks
//! for tags, names and seals). It knows ring 0 and bytes, no redb. Invariants: a store is opened only with a key
//! file that carries its id; a key is never made again for a store that exists; every purpose has a key of its
//! own, derived under a label.
//!
//! The key file is text, one fact a line, so that a person can see what it is: a heading with the format, the
//! store's id, one line for each key, the active key, and a check over the lines before it.

use std::fmt::Write as _;

use zeroize::Zeroizing;

use super::record::{PrincipalRef, Row};
use crate::error::{Error, ErrorKind, Result};
use crate::seal::{self, Key, Tagger, Wrap};
use crate::token::{Entropy, KEY_IDS, SessionId, Token};

/// The server keys of one store.
#[derive(Debug)]
pub(crate) struct KeyFile {
    pub(crate) store_id: [u8; 16],
    active: u8,
    keys: Vec<(u8, Key)>,
}

const HEADING: &str = "dwell server key, format 1";
/// 64 keys of 80 bytes, with room to spare; anything larger is not a key file.
pub(crate) const KEY_FILE_BYTES_MAX: usize = 16 * 1024;

impl KeyFile {
    /// A first key for a store that does not exist yet.
    pub(crate) fn create(entropy: &dyn Entropy) -> Result<Self> {
        let mut store_id = [0; 16];
        entropy.fill(&mut store_id)?;
        Ok(Self { store_id, active: 0, keys: vec![(0, Key::random(entropy)?)] })
    }

    pub(crate) fn to_text(&self) -> Zeroizing<String> {
        // Room for all of it at once: a text that grows would leave copies behind.
        let mut text = Zeroizing::new(String::with_capacity(KEY_FILE_BYTES_MAX));
        let _ = write!(text, "{HEADING}\nstore {}\n", hex(&self.store_id));
        for (id, key) in &self.keys {
            let _ = writeln!(text, "key {id} {}", *Zeroizing::new(hex(key.bytes())));
        }
        let _ = writeln!(text, "active {}", self.active);
        let check = self.check(&text);
        let _ = writeln!(text, "check {}", hex(&check));
        text
    }

    /// Reads a key file; any deviation from what [`to_text`](Self::to_text) writes is an error.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        Self::read(bytes).ok_or_else(Self::foreign)
    }

    pub(crate) fn foreign() -> Error {
        Error::new(ErrorKind::Key, "the key file `server.key` is damaged or not ours; put the right one back")
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut lines = text.lines();
        if lines.next()? != HEADING {
            return None;
        }
        let store_id = unhex(lines.next()?.strip_prefix("store ")?)?;
        let mut file = Self { store_id, active: 0, keys: Vec::new() };
        let active = loop {
            let line = lines.next()?;
            if let Some(active) = line.strip_prefix("active ") {
                break active.parse::<u8>().ok()?;
            }
            let (id, key) = line.strip_prefix("key ")?.split_once(' ')?;
            let id = id.parse::<u8>().ok().filter(|&id| id < KEY_IDS && file.key(id).is_none())?;
            file.keys.push((id, Key::from_bytes(unhex(key)?)));
        };
        file.active = active;
        file.key(active)?;
        // Only the one text that we would write is read, so the check covers every byte.
        (file.to_text().as_str() == text).then_some(file)
    }

    fn check(&self, text: &str) -> [u8; 16] {
        let active = self.key(self.active).cloned().unwrap_or_else(|| Key::from_bytes([0; Key::BYTES]));
        Tagger::new(&active.derive(None, "key file check", &[])).tag16("key file", &[text.as_bytes()])
    }

    fn key(&self, id: u8) -> Option<&Key> {
        self.keys.iter().find(|(other, _)| *other == id).map(|(_, key)| key)
    }
}

/// Every key that opening a store yields.
#[derive(Debug)]
pub(crate) struct Keys {
    store_id: [u8; 16],
    active: u8,
    servers: Vec<ServerKey>,
    store: Tagger,
    index: Tagger,
    handles: Tagger,
    visitors: Tagger,
    names: Key,
    facts: Key,
}

#[derive(Debug)]
struct ServerKey {
    id: u8,
    headers: Tagger,
    wraps: Key,
    successors: Tagger,
}

/// Id of the wrapping server key, then store key and index key sealed under it (table `meta`, key 1).
pub(crate) const WRAPPED_KEYS_BYTES: usize = 1 + 2 * Key::BYTES + seal::SEAL_OVERHEAD;

impl Keys {
    /// Makes the keys of a new store, with the record to keep in it.
    pub(crate) fn create(file: &KeyFile, entropy: &dyn Entropy) -> Result<(Self, Vec<u8>)> {
        let (store, index) = (Key::random(entropy)?, Key::random(entropy)?);
        let both: Zeroizing<Vec<u8>> = Zeroizing::new(store.bytes().iter().chain(index.bytes()).copied().collect());
        let active = file.key(file.active).ok_or_else(lost_key)?;
        let mut record = vec![file.active];
        record.extend(seal::seal(&wrapping(active), &file.store_id, &both, entropy)?);
        Ok((Self::assemble(file, &store, &index), record))
    }

    /// Opens the keys kept in a store.
    pub(crate) fn open(file: &KeyFile, record: &[u8]) -> Result<Self> {
        let Some((&id, sealed)) = record.split_first().filter(|_| record.len() == WRAPPED_KEYS_BYTES) else {
            return Err(Error::corrupt("the key record of the store is damaged"));
        };
        let server = file.key(id).ok_or_else(lost_key)?;
        let both = seal::open(&wrapping(server), &file.store_id, sealed).map(Zeroizing::new).ok_or_else(|| {
            Error::new(ErrorKind::Key, "the key file does not open this store; put the right one back")
        })?;
        let halves = both.split_first_chunk().and_then(|(store, rest)| Some((*store, *rest.first_chunk()?)));
        let (store, index) = halves.ok_or_else(|| Error::corrupt("the key record of the store is damaged"))?;
        Ok(Self::assemble(file, &Key::from_bytes(store), &Key::from_bytes(index)))
    }

    fn assemble(file: &KeyFile, store: &Key, index: &Key) -> Self {
        let bound: &[&[u8]] = &[&file.store_id];
        let server = |(id, key): &(u8, Key)| ServerKey {
            id: *id,
            headers: Tagger::new(&key.derive(None, "header tags", bound)),
            wraps: key.derive(None, "data key wraps", bound),
            successors: Tagger::new(&key.derive(None, "successor tokens", bound)),
        };
        Self {
            store_id: file.store_id,
            active: file.active,
            servers: file.keys.iter().map(server).collect(),
            store: Tagger::new(&store.derive(None, "record tags", bound)),
            index: Tagger::new(&index.derive(None, "principal references", bound)),
            handles: Tagger::new(&index.derive(None, "session handles", bound)),
            visitors: Tagger::new(&store.derive(None, "visitor tokens", bound)),
            names: store.derive(None, "principal names", bound),
            facts: store.derive(None, "session facts", bound),
        }
    }

    /// Tags what visitors without a session are handed.
    pub(crate) const fn visitors(&self) -> &Tagger {
        &self.visitors
    }

    /// What tells this store from others in public: in the name of a cookie.
    pub(crate) fn instance(&self) -> String {
        hex(&self.handles.tag8("instance", &[&self.store_id])).chars().take(8).collect()
    }

    pub(crate) const fn store_id(&self) -> &[u8; 16] {
        &self.store_id
    }

    /// The server key that new sessions go with.
    pub(crate) const fn active(&self) -> u8 {
        self.active
    }

    /// Tags records of the whole store.
    pub(crate) const fn store(&self) -> &Tagger {
        &self.store
    }

    /// Tags headers that go with this server key; `None` if that key was dropped.
    pub(crate) fn headers(&self, key_id: u8) -> Option<&Tagger> {
        self.server(key_id).map(|server| &server.headers)
    }

    fn server(&self, key_id: u8) -> Option<&ServerKey> {
        self.servers.iter().find(|server| server.id == key_id)
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

    /// The token that is to follow this one softly, at the place that its wrap will have. Always the same one, so that
    /// all requests are offered it, before a restart and after; without the server key nobody can tell it in advance.
    /// `None` if that key was dropped.
    pub(crate) fn successor(&self, at: &WrapBinding, token: &Token) -> Option<Token> {
        let parts: &[&[u8]] =
            &[&at.row.0.to_le_bytes(), &at.generation.to_le_bytes(), &at.step.to_le_bytes(), token.secret()];
        let start = self.server(token.key_id())?.successors.key("successor token", parts);
        Some(Token::near(token.key_id(), &start, token.fingerprint()))
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

fn wrapping(server: &Key) -> Key {
    server.derive(None, "store keys", &[])
}

fn lost_key() -> Error {
    Error::new(ErrorKind::Key, "the key file lacks the key that this store was written with; put it back")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != N * 2 || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(at * 2..at * 2 + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::SeededEntropy;

    #[test]
    fn key_files_round_trip_and_every_change_is_noticed() {
        let file = KeyFile::create(&SeededEntropy::new(1)).unwrap();
        let text = file.to_text();
        assert_eq!(KeyFile::parse(text.as_bytes()).unwrap().to_text(), text);
        for at in 0..text.len() {
            let mut changed = text.as_bytes().to_vec();
            changed[at] ^= 1;
            assert_eq!(KeyFile::parse(&changed).unwrap_err().kind(), ErrorKind::Key, "byte {at}");
        }
        for length in 0..text.len() {
            assert!(KeyFile::parse(&text.as_bytes()[..length]).is_err());
        }
        assert!(KeyFile::parse(&text.to_uppercase().into_bytes()).is_err());
    }

    #[test]
    fn store_keys_open_only_with_their_key_file() {
        let entropy = SeededEntropy::new(2);
        let (ours, other) = (KeyFile::create(&entropy).unwrap(), KeyFile::create(&entropy).unwrap());
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
        let (keys, _) = Keys::create(&KeyFile::create(&entropy).unwrap(), &entropy).unwrap();
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
        let file = KeyFile::create(&entropy).unwrap();
        let (keys, record) = Keys::create(&file, &entropy).unwrap();
        let (other_keys, _) = Keys::create(&KeyFile::create(&entropy).unwrap(), &entropy).unwrap();
        let (token, other) = (Token::random(0, &entropy).unwrap(), Token::random(0, &entropy).unwrap());
        let at = WrapBinding { row: Row(1), generation: 2, step: 3 };
        let next = keys.successor(&at, &token).unwrap();
        assert!(Keys::open(&file, &record).unwrap().successor(&at, &token).unwrap().is_same(&next));
        assert_eq!(next.fingerprint().shard(), token.fingerprint().shard());
        assert_eq!(next.key_id(), token.key_id());
        let moved =
            [WrapBinding { row: Row(2), ..at }, WrapBinding { generation: 3, ..at }, WrapBinding { step: 4, ..at }];
        let mut others: Vec<_> = moved.iter().map(|at| keys.successor(at, &token).unwrap()).collect();
        others.push(keys.successor(&at, &other).unwrap());
        others.push(other_keys.successor(&at, &token).unwrap());
        others.push(token);
        assert!(others.iter().all(|other| !other.is_same(&next)));
    }

    #[test]
    fn handles_of_other_stores_name_nothing() {
        let entropy = SeededEntropy::new(4);
        let (keys, _) = Keys::create(&KeyFile::create(&entropy).unwrap(), &entropy).unwrap();
        let (other, _) = Keys::create(&KeyFile::create(&entropy).unwrap(), &entropy).unwrap();
        assert_eq!(keys.row_of(keys.handle(Row(9))), Some(Row(9)));
        assert_eq!(keys.row_of(other.handle(Row(9))), None);
    }
}
