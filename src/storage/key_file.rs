//! The key file: the server keys of a store, outside of it.
//!
//! It knows bytes and one small file, no redb. Invariants: a key is in the file, and the file on disk, before anything is
//! made under it; only the one text that we would write is read; what is replaced is replaced whole.
//!
//! It is text, one fact a line, so that a person can see what it is: a heading with the format, the store's id, one line
//! for each key in the order in which they were made, the active key, and a check over the lines before it.

use std::fmt::Write as _;

use zeroize::Zeroizing;

use super::disk::{self, Disk};
use super::io_failed;
use super::schema::KEY_FILE;
use crate::error::{Error, ErrorKind, Result};
use crate::seal::{Key, Tagger};
use crate::time::Timestamp;
use crate::token::{Entropy, KEY_IDS};

/// The server keys of one store.
#[derive(Debug)]
pub(crate) struct KeyFile {
    pub(crate) store_id: [u8; 16],
    active: u8,
    keys: Vec<FileKey>,
}

/// A server key as it is kept.
#[derive(Debug)]
pub(super) struct FileKey {
    pub(super) id: u8,
    /// By the wall clock.
    pub(super) made: Timestamp,
    pub(super) key: Key,
}

const HEADING: &str = "dwell server key, format ";
const FORMAT: &str = "2";
const WRITING: &str = "failed to write the key file `server.key`";
/// 64 keys of some 90 bytes, with room to spare; anything larger is not a key file.
const BYTES_MAX: usize = 16 * 1024;

impl KeyFile {
    /// A first key for a store that does not exist yet.
    pub(crate) fn create(made: Timestamp, entropy: &dyn Entropy) -> Result<Self> {
        let mut store_id = [0; 16];
        entropy.fill(&mut store_id)?;
        Ok(Self { store_id, active: 0, keys: vec![FileKey { id: 0, made, key: Key::random(entropy)? }] })
    }

    /// Reads the file; `None` if there is none.
    pub(super) fn load(disk: &dyn Disk) -> Result<Option<Self>> {
        let bytes = disk::read_small(disk, KEY_FILE, BYTES_MAX).map_err(|error| match error.kind() {
            std::io::ErrorKind::InvalidData => foreign().because(error),
            _ => io_failed("failed to read the key file `server.key`", error),
        })?;
        bytes.map(|bytes| Self::parse(&Zeroizing::new(bytes))).transpose()
    }

    /// Writes the first file of a store.
    pub(super) fn write_first(&self, disk: &dyn Disk) -> Result<()> {
        disk::replace(disk, KEY_FILE, self.to_text().as_bytes()).map_err(|error| io_failed(WRITING, error))
    }

    /// Puts this in place of the file.
    ///
    /// # Errors
    /// `Unknown` if the file may be the new one after a restart; else it is as it was.
    pub(super) fn replace(&self, disk: &dyn Disk) -> Result<()> {
        let text = self.to_text();
        disk::replace(disk, KEY_FILE, text.as_bytes()).map_err(|error| {
            let there = disk::read_small(disk, KEY_FILE, BYTES_MAX).map(|bytes| bytes.map(Zeroizing::new));
            let is_new = |bytes: &Zeroizing<Vec<u8>>| bytes.as_slice() == text.as_bytes();
            match there {
                Ok(bytes) if !bytes.as_ref().is_some_and(is_new) => io_failed(WRITING, error),
                _ => Error::new(ErrorKind::Unknown, WRITING).because(error),
            }
        })
    }

    /// Adds a key, which becomes the active one. Returns its id: the first that is free after that of the one before, so
    /// that an id comes again as late as can be.
    ///
    /// # Errors
    /// `Refused` if every id is taken.
    pub(super) fn add(&mut self, made: Timestamp, entropy: &dyn Entropy) -> Result<u8> {
        let mut after = (1..KEY_IDS).map(|step| (self.active + step) % KEY_IDS);
        let Some(id) = after.find(|&id| self.key(id).is_none()) else {
            let oldest = self.keys.iter().find(|key| key.id != self.active).map_or(0, |key| key.id);
            let message = format!("there are {KEY_IDS} server keys, the most there can be; drop key {oldest} first");
            return Err(Error::new(ErrorKind::Refused, message));
        };
        self.keys.push(FileKey { id, made, key: Key::random(entropy)? });
        self.active = id;
        Ok(id)
    }

    /// Leaves these keys alone; this one is the active one. `false` if one of them is not there.
    pub(super) fn restrict(&mut self, ids: &[u8], active: u8) -> bool {
        self.keys.retain(|key| ids.contains(&key.id));
        self.active = active;
        self.keys.len() == ids.len() && ids.contains(&active)
    }

    pub(super) fn remove(&mut self, id: u8) {
        debug_assert_ne!(id, self.active, "the active key stays");
        self.keys.retain(|key| key.id != id);
    }

    pub(super) const fn active(&self) -> u8 {
        self.active
    }

    /// In the order in which they were made.
    pub(super) fn keys(&self) -> &[FileKey] {
        &self.keys
    }

    pub(super) fn key(&self, id: u8) -> Option<&Key> {
        self.keys.iter().find(|key| key.id == id).map(|key| &key.key)
    }

    fn to_text(&self) -> Zeroizing<String> {
        // Room for all of it at once: a text that grows would leave copies behind.
        let mut text = Zeroizing::new(String::with_capacity(BYTES_MAX));
        let _ = write!(text, "{HEADING}{FORMAT}\nstore {}\n", hex(&self.store_id));
        for FileKey { id, made, key } in &self.keys {
            let _ = writeln!(text, "key {id} {} {}", made.unix_ms(), *Zeroizing::new(hex(key.bytes())));
        }
        let _ = writeln!(text, "active {}", self.active);
        let check = self.check(&text);
        let _ = writeln!(text, "check {}", hex(&check));
        text
    }

    /// Reads a key file; any deviation from what [`to_text`](Self::to_text) writes is an error.
    fn parse(bytes: &[u8]) -> Result<Self> {
        if let Some(format) = other_format(bytes) {
            let message = format!(
                "the key file `server.key` has format {format}, and this version reads only {FORMAT}; use the version \
                 that wrote it"
            );
            return Err(Error::new(ErrorKind::Format, message));
        }
        Self::read(bytes).ok_or_else(foreign)
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut lines = text.lines();
        if lines.next()?.strip_prefix(HEADING)? != FORMAT {
            return None;
        }
        let store_id = unhex(lines.next()?.strip_prefix("store ")?)?;
        let mut file = Self { store_id, active: 0, keys: Vec::new() };
        let active = loop {
            let line = lines.next()?;
            if let Some(active) = line.strip_prefix("active ") {
                break active.parse::<u8>().ok()?;
            }
            let (id, rest) = line.strip_prefix("key ")?.split_once(' ')?;
            let (made, key) = rest.split_once(' ')?;
            let id = id.parse::<u8>().ok().filter(|&id| id < KEY_IDS && file.key(id).is_none())?;
            let made = Timestamp::from_unix_ms(made.parse().ok()?);
            file.keys.push(FileKey { id, made, key: Key::from_bytes(unhex(key)?) });
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
}

fn foreign() -> Error {
    Error::new(ErrorKind::Key, "the key file `server.key` is damaged or not ours; put the right one back")
}

/// The number in the heading of a key file of another version.
fn other_format(bytes: &[u8]) -> Option<&str> {
    let heading = bytes.split(|&byte| byte == b'\n').next()?;
    let format = std::str::from_utf8(heading).ok()?.strip_prefix(HEADING)?;
    let is_number = !format.is_empty() && format.len() < 4 && format.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && format != FORMAT).then_some(format)
}

pub(super) fn hex(bytes: &[u8]) -> String {
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
    use crate::storage::disk::SimDisk;
    use crate::token::SeededEntropy;

    fn file(entropy: &SeededEntropy) -> KeyFile {
        KeyFile::create(Timestamp::from_unix_ms(1_767_225_600_000), entropy).unwrap()
    }

    #[test]
    fn key_files_round_trip_and_every_change_is_noticed() {
        let entropy = SeededEntropy::new(1);
        let mut file = file(&entropy);
        for keys in 1..4 {
            let text = file.to_text();
            assert_eq!(text.lines().count(), keys + 4);
            assert_eq!(KeyFile::parse(text.as_bytes()).unwrap().to_text(), text);
            for at in 0..text.len() {
                let mut changed = text.as_bytes().to_vec();
                changed[at] ^= 1;
                let expected = if at == HEADING.len() { ErrorKind::Format } else { ErrorKind::Key };
                assert_eq!(KeyFile::parse(&changed).unwrap_err().kind(), expected, "byte {at}");
            }
            for length in 0..text.len() {
                assert!(KeyFile::parse(&text.as_bytes()[..length]).is_err());
            }
            assert!(KeyFile::parse(&text.to_uppercase().into_bytes()).is_err());
            file.add(Timestamp::from_unix_ms(0), &entropy).unwrap();
        }
    }

    #[test]
    fn ids_go_round_and_the_last_free_one_is_the_last_to_be_had() {
        let entropy = SeededEntropy::new(2);
        let (mut file, at) = (file(&entropy), Timestamp::from_unix_ms(0));
        for id in 1..KEY_IDS {
            assert_eq!((file.add(at, &entropy).unwrap(), file.active()), (id, id));
        }
        let text = file.to_text();
        let full = file.add(at, &entropy).unwrap_err();
        assert_eq!(full.kind(), ErrorKind::Refused);
        assert!(full.to_string().contains("drop key 0 first"), "{full}");
        assert_eq!(file.to_text(), text, "nothing changed");
        assert_eq!(KeyFile::parse(text.as_bytes()).unwrap().to_text(), text, "it fits");
        file.remove(7);
        assert_eq!(file.add(at, &entropy).unwrap(), 7);
        assert!(file.add(at, &entropy).unwrap_err().to_string().contains("drop key 0 first"));
        file.remove(3);
        file.remove(9);
        assert_eq!(file.add(at, &entropy).unwrap(), 9, "after 7, not the lowest");
        assert_eq!(file.add(at, &entropy).unwrap(), 3);
    }

    #[test]
    fn a_file_that_cannot_be_replaced_is_told_from_one_that_perhaps_was() {
        let entropy = SeededEntropy::new(3);
        let (mut told, mut done) = (Vec::new(), false);
        for failing in 0.. {
            let disk = SimDisk::simulated(failing);
            let mut file = file(&entropy);
            file.write_first(&disk).unwrap();
            let before = file.to_text();
            file.add(Timestamp::from_unix_ms(0), &entropy).unwrap();
            disk.fail_from(disk.operations() + failing, 1, std::io::ErrorKind::StorageFull);
            let result = file.replace(&disk);
            let now = KeyFile::load(&disk).unwrap().unwrap().to_text();
            match result.map_err(|error| error.kind()) {
                Ok(()) => {
                    done = true;
                    break;
                }
                Err(ErrorKind::Storage) => assert_eq!(now, before),
                Err(kind) => assert_eq!((kind, &now), (ErrorKind::Unknown, &file.to_text())),
            }
            told.push(now == before);
        }
        assert!(done && told.contains(&true) && told.contains(&false), "{told:?}");
    }
}
