//! The journal: a ring of frames in a file of its own, in front of the B-tree. A batch is durable when its frame is.
//!
//! What lives here: the ring's geometry, making the file, appending; reading it again is in `recovery`. It knows bytes, the
//! file layer and a key for checks; what the payloads mean is `effects`' business. Invariants: the file never grows after it
//! was made, so appending works on a full disk; a frame is one write (two where it goes round the end) and one flush, and the
//! next is not begun before; nothing from the position of the last checkpoint on is written over.
//!
//! # The file
//!
//! The first block says whose it is; the ring follows. Blocks have 4,096 bytes, numbers are little-endian.
//!
//! | Offset | Bytes | Field |
//! |---|---|---|
//! | 0 | 8 | magic |
//! | 8 | 4 | format, as in the store |
//! | 12 | 4 | reserved, zero |
//! | 16 | 16 | store id |
//! | 32 | 16 | pair id: random, the same in the store's record of its journal |
//! | 48 | 8 | bytes of the ring |
//! | 56 | 16 | check over bytes 0 to 55 |
//!
//! # A frame, at the beginning of a block
//!
//! | Offset | Bytes | Field |
//! |---|---|---|
//! | 0 | 16 | pair id |
//! | 16 | 8 | position: bytes of all frames before it, so the lap times the ring's size, and the place in it |
//! | 24 | 8 | sequence: frames are numbered from 1 on |
//! | 32 | 4 | length of the payload |
//! | 36 | 4 | reserved, zero |
//! | 40 | 16 | check of the frame before |
//! | 56 | 16 | check over the store id, bytes 0 to 55 and the payload |
//! | 72 | .. | payload, then zeros to the end of the block |
//!
//! # The store's record of it (`meta`, key 4)
//!
//! | Offset | Bytes | Field |
//! |---|---|---|
//! | 0 | 16 | pair id |
//! | 16 | 8 | bytes of the ring |
//! | 24 | 8 | position of the first frame that is not in the tables |
//! | 32 | 8 | its sequence |
//! | 40 | 16 | check of the frame before it |
//! | 56 | 16 | tag over the store id and bytes 0 to 55 |

mod recovery;

use std::io;
use std::sync::Arc;

pub(super) use recovery::open;

use super::disk::{self, Disk, DiskFile};
use super::io_failed;
use super::keys::Keys;
use super::planted::Planted;
use super::record::STATE_BYTES;
use super::schema::{FORMAT, JOURNAL_FILE, JOURNAL_FILE_NEW, MAGIC};
use super::tree::{Fault, no_room};
use crate::error::{Error, ErrorKind, Result};
use crate::token::Entropy;

pub(super) const BLOCK: u64 = BLOCK_BYTES as u64;
const BLOCK_BYTES: usize = 4096;
const FRAME_HEAD: usize = 72;
const CHECKED: usize = 56;
const HEAD_LABEL: &str = "journal";
const FRAME_LABEL: &str = "frame";
const RECORD_LABEL: &str = "journal position";
const RECORD_BYTES: usize = 72;
/// A frame takes at most one part in this many of the ring, so that a checkpoint frees room for several.
const FRAME_SHARE: u64 = 8;
/// Bytes that are written at once when the file is made.
const ZEROS: usize = 1 << 20;

/// A place in the ring between two frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pair: [u8; 16],
    ring_bytes: u64,
    offset: u64,
    sequence: u64,
    chain: [u8; 16],
}

impl Position {
    pub(super) fn encode(&self, keys: &Keys) -> [u8; RECORD_BYTES] {
        let mut out = [0; RECORD_BYTES];
        let parts: [&[u8]; 5] = [
            &self.pair,
            &self.ring_bytes.to_le_bytes(),
            &self.offset.to_le_bytes(),
            &self.sequence.to_le_bytes(),
            &self.chain,
        ];
        let tag = keys.store().tag16(RECORD_LABEL, &[keys.store_id(), &parts.concat()]);
        out.iter_mut().zip(parts.concat().into_iter().chain(tag)).for_each(|(to, from)| *to = from);
        out
    }

    pub(super) fn decode(bytes: &[u8], keys: &Keys) -> Result<Self> {
        Self::parse(bytes, keys)
            .ok_or_else(|| Error::corrupt("the store's record of its journal is damaged or was changed"))
    }

    fn parse(bytes: &[u8], keys: &Keys) -> Option<Self> {
        let (tagged, tag) = bytes.split_last_chunk::<16>()?;
        if bytes.len() != RECORD_BYTES || !keys.store().verify(RECORD_LABEL, &[keys.store_id(), tagged], tag) {
            return None;
        }
        let position = Self {
            pair: part(tagged, 0)?,
            ring_bytes: number(tagged, 16)?,
            offset: number(tagged, 24)?,
            sequence: number(tagged, 32)?,
            chain: part(tagged, 40)?,
        };
        (position.ring_bytes >= FRAME_SHARE * BLOCK && position.ring_bytes.is_multiple_of(BLOCK)).then_some(position)
    }
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    part(bytes, at).map(u64::from_le_bytes)
}

/// The open ring.
#[derive(Debug)]
pub(super) struct Journal {
    file: Arc<dyn DiskFile>,
    keys: Arc<Keys>,
    planted: Option<Planted>,
    /// Where the next frame goes.
    head: Position,
    /// Up to here everything is in the tables.
    tail: u64,
    /// The frame before the head, as it was written, if it was found and not written by this process.
    found_last: Option<(u64, Vec<u8>)>,
    frame: Vec<u8>,
}

const WRITING: &str = "failed to write the file `journal`";

/// Makes the file, whole and on disk before it has its name. Takes as long as writing that many bytes.
pub(super) fn create(disk: &dyn Disk, ring_bytes: u64, keys: &Keys, entropy: &dyn Entropy) -> Result<Position> {
    let mut pair = [0; 16];
    entropy.fill(&mut pair)?;
    let position = Position { pair, ring_bytes, offset: 0, sequence: 1, chain: [0; 16] };
    let make = || -> io::Result<()> {
        for stale in [JOURNAL_FILE_NEW, JOURNAL_FILE] {
            match disk.remove(stale) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let file = disk.create(JOURNAL_FILE_NEW)?;
        // Zeros and not a length: room that is not written to is not room on every file system.
        let zeros = vec![0; ZEROS];
        let (mut at, end) = (0, BLOCK + ring_bytes);
        while at < end {
            let piece = usize::try_from(end - at).map_or(ZEROS, |left| left.min(ZEROS));
            file.write_at(at, zeros.get(..piece).unwrap_or(&zeros))?;
            at += piece as u64;
        }
        file.write_at(0, &head(&position, keys))?;
        file.sync()?;
        disk.rename(JOURNAL_FILE_NEW, JOURNAL_FILE)?;
        disk.sync_directory()
    };
    make().map_err(|error| {
        // Room on a full disk matters more than this second error.
        _ = disk.remove(JOURNAL_FILE_NEW);
        io_failed("failed to make the file `journal`", error)
    })?;
    Ok(position)
}

/// What the first block begins with.
fn head(position: &Position, keys: &Keys) -> Vec<u8> {
    let mut out = Vec::with_capacity(FRAME_HEAD);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&FORMAT.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(keys.store_id());
    out.extend_from_slice(&position.pair);
    out.extend_from_slice(&position.ring_bytes.to_le_bytes());
    let check = keys.journal().tag16(HEAD_LABEL, &[&out]);
    out.extend_from_slice(&check);
    out
}

impl Journal {
    /// The position behind the last frame.
    pub(super) const fn position(&self) -> Position {
        self.head
    }

    /// Bytes of the ring that stand for something that is not in the tables.
    pub(super) const fn used(&self) -> u64 {
        self.head.offset - self.tail
    }

    pub(super) const fn ring_bytes(&self) -> u64 {
        self.head.ring_bytes
    }

    /// The longest payload, with a state record to spare.
    pub(super) fn payload_max(&self) -> usize {
        usize::try_from(self.ring_bytes() / FRAME_SHARE).unwrap_or(usize::MAX).saturating_sub(FRAME_HEAD + STATE_BYTES)
    }

    /// Whether a payload of so many bytes fits a frame at all.
    pub(super) const fn takes(&self, payload: usize) -> bool {
        frame_bytes(payload) <= self.ring_bytes() / FRAME_SHARE
    }

    /// Whether there is room for it now, with so many bytes to spare.
    pub(super) const fn has_room(&self, payload: usize, spare: u64) -> bool {
        self.used() + frame_bytes(payload) + spare <= self.ring_bytes()
    }

    /// Everything before the position is in the tables.
    pub(super) fn free(&mut self, position: &Position) {
        debug_assert!((self.tail..=self.head.offset).contains(&position.offset), "{position:?}");
        self.tail = position.offset;
    }

    /// Makes a frame durable; there must be room for it. Blocks for one write and one flush.
    ///
    /// # Errors
    /// `Unknown`: it may or may not be found again. After `NoRoom`, which a file system gives that never writes in place, it
    /// will not be, and it may be tried again.
    pub(super) fn append(&mut self, payload: &[u8]) -> Result<(), Fault> {
        debug_assert!(self.has_room(payload.len(), 0) && self.takes(payload.len()));
        let mut frame = std::mem::take(&mut self.frame);
        frame.clear();
        let chain = self.lay_out(payload, &mut frame);
        let written = write_round(self.file.as_ref(), &self.head, &frame);
        self.frame = frame;
        let unknown = |error| Fault::Broken(Error::new(ErrorKind::Unknown, WRITING).because(error));
        written.map_err(|error| if disk::is_full(&error) { no_room() } else { unknown(error) })?;
        if self.planted != Some(Planted::UnflushedFrame) {
            self.file.sync().map_err(unknown)?;
        }
        self.head.offset += frame_bytes(payload.len());
        self.head.sequence += 1;
        self.head.chain = chain;
        self.found_last = None;
        Ok(())
    }

    /// Puts a frame together; what comes back is its check.
    fn lay_out(&self, payload: &[u8], frame: &mut Vec<u8>) -> [u8; 16] {
        frame.extend_from_slice(&self.head.pair);
        frame.extend_from_slice(&self.head.offset.to_le_bytes());
        frame.extend_from_slice(&self.head.sequence.to_le_bytes());
        frame.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(&self.head.chain);
        let check = self.keys.journal().tag16(FRAME_LABEL, &[self.keys.store_id(), frame, payload]);
        frame.extend_from_slice(&check);
        frame.extend_from_slice(payload);
        frame.resize(usize::try_from(frame_bytes(payload.len())).unwrap_or(frame.len()), 0);
        check
    }

    /// Writes the last frame that was found once more, and flushes. It may have been read from memory that never got to the
    /// disk: the flush before it may have failed, or the process may have died before its flush.
    pub(super) fn affirm(&mut self) -> Result<()> {
        let Some((offset, frame)) = self.found_last.take() else { return Ok(()) };
        let at = Position { offset, ..self.head };
        write_round(self.file.as_ref(), &at, &frame)
            .and_then(|()| self.file.sync())
            .map_err(|error| Error::new(ErrorKind::Storage, WRITING).because(error))
    }
}

/// What a test has planted here, if anything.
fn planted(disk: &dyn Disk) -> Option<Planted> {
    let here = [Planted::UnflushedFrame, Planted::StaleFrame, Planted::CheckNotChecked];
    here.into_iter().find(|&mistake| disk.plants(mistake))
}

/// Bytes of whole blocks that a frame takes.
const fn frame_bytes(payload: usize) -> u64 {
    (FRAME_HEAD as u64 + payload as u64).next_multiple_of(BLOCK)
}

/// Where in the file a position is, and how many bytes there are from it to the end of the ring.
const fn place(position: &Position) -> (u64, u64) {
    let within = position.offset % position.ring_bytes;
    (BLOCK + within, position.ring_bytes - within)
}

fn write_round(file: &dyn DiskFile, at: &Position, frame: &[u8]) -> io::Result<()> {
    let (place, left) = place(at);
    let (first, second) = frame.split_at(usize::try_from(left).map_or(frame.len(), |left| left.min(frame.len())));
    file.write_at(place, first)?;
    if second.is_empty() { Ok(()) } else { file.write_at(BLOCK, second) }
}

fn read_round(file: &dyn DiskFile, at: &Position, out: &mut [u8]) -> io::Result<()> {
    let (place, left) = place(at);
    let (first, second) = out.split_at_mut(usize::try_from(left).map_or(out.len(), |left| left.min(out.len())));
    file.read_at(place, first)?;
    if second.is_empty() { Ok(()) } else { file.read_at(BLOCK, second) }
}
