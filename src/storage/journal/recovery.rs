//! Reading the ring again.
//!
//! It knows the layout of frames. Invariants: a frame counts only if its check fits, it stands where it says, and it
//! follows the one before; what does not count is the end of the ring only if no later frame is anywhere in it, because
//! frames are written one after the other, each on disk before the next. Otherwise something is missing, and that is an error.
//! Nothing here writes.

use std::sync::Arc;

use super::{BLOCK, BLOCK_BYTES, CHECKED, FRAME_HEAD, FRAME_LABEL, FRAME_SHARE, HEAD_LABEL, Journal, Position, ZEROS};
use super::{frame_bytes, number, part, planted, read_round};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::disk::{Disk, DiskFile};
use crate::storage::io_failed;
use crate::storage::keys::Keys;
use crate::storage::planted::Planted;
use crate::storage::schema::{DRAFT, FORMAT, JOURNAL_FILE, MAGIC};

const READING: &str = "failed to read the file `journal`";

/// Opens the ring that goes with a store, and hands every payload that is not in its tables to `take`, in order.
///
/// # Errors
/// `Corrupt` if the file is missing, is another store's or that of another copy of this one, or lacks frames.
pub(in crate::storage) fn open(
    disk: &dyn Disk,
    keys: &Arc<Keys>,
    from: Position,
    take: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<Journal> {
    let file = disk.open_alone(JOURNAL_FILE).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::corrupt(
            "the file `journal` of this store is missing; put it back: sessions and sign-outs may be in it that are \
             nowhere else",
        ),
        _ => io_failed(READING, error),
    })?;
    check_head(file.as_ref(), keys, &from)?;
    let mut journal = Journal {
        file,
        keys: Arc::clone(keys),
        planted: planted(disk),
        head: from,
        tail: from.offset,
        found_last: None,
        frame: Vec::new(),
    };
    while let Some(frame) = journal.read_frame(journal.head.offset)? {
        let follows = frame.sequence == journal.head.sequence && frame.before == journal.head.chain;
        if !follows && journal.planted != Some(Planted::StaleFrame) {
            return Err(other_copy());
        }
        take(frame.payload())?;
        journal.head.offset += frame.bytes.len() as u64;
        journal.head.sequence += 1;
        journal.head.chain = frame.check;
        journal.found_last = Some((frame.position, frame.bytes));
    }
    journal.check_end()?;
    Ok(journal)
}

fn other_copy() -> Error {
    Error::corrupt(
        "`journal` and `store.redb` are not of the same moment; put back both from one copy, with `epoch` as it is",
    )
}

fn check_head(file: &dyn DiskFile, keys: &Keys, from: &Position) -> Result<()> {
    let io = |error| io_failed(READING, error);
    let mut head = [0; FRAME_HEAD];
    if file.len().map_err(io)? != BLOCK + from.ring_bytes {
        return Err(Error::corrupt("the file `journal` is not as long as it was made"));
    }
    file.read_at(0, &mut head).map_err(io)?;
    if !head.starts_with(&MAGIC) {
        return Err(Error::corrupt("the file `journal` is none of ours, or it is damaged"));
    }
    let format = part(&head, 8).map(u32::from_le_bytes);
    if format != Some(FORMAT) && format.is_some_and(|format| format & !DRAFT < 1 << 16) {
        let message = "the file `journal` has another format than the store; put the right one back";
        return Err(Error::new(ErrorKind::Format, message));
    }
    let (checked, check) = (head.get(..CHECKED).unwrap_or_default(), part::<16>(&head, CHECKED).unwrap_or_default());
    if !keys.journal().verify(HEAD_LABEL, &[checked], &check) {
        return Err(Error::corrupt("the file `journal` belongs to another store, or its first block is damaged"));
    }
    let same = part(&head, 16) == Some(*keys.store_id())
        && part(&head, 32) == Some(from.pair)
        && number(&head, 48) == Some(from.ring_bytes);
    if same { Ok(()) } else { Err(other_copy()) }
}

/// A frame whose check fits.
struct Frame {
    position: u64,
    sequence: u64,
    before: [u8; 16],
    check: [u8; 16],
    payload: usize,
    /// Whole blocks.
    bytes: Vec<u8>,
}

impl Frame {
    fn payload(&self) -> &[u8] {
        self.bytes.get(FRAME_HEAD..FRAME_HEAD + self.payload).unwrap_or_default()
    }
}

impl Journal {
    /// The frame at a position, or `None` if there is none that counts.
    fn read_frame(&self, position: u64) -> Result<Option<Frame>> {
        let at = Position { offset: position, ..self.head };
        let mut head = [0; FRAME_HEAD];
        read_round(self.file.as_ref(), &at, &mut head).map_err(|error| io_failed(READING, error))?;
        let Some((sequence, payload)) = self.claim(&head, position) else { return Ok(None) };
        let mut bytes = vec![0; usize::try_from(frame_bytes(payload)).unwrap_or(0)];
        read_round(self.file.as_ref(), &at, &mut bytes).map_err(|error| io_failed(READING, error))?;
        let parts = || Some((part(&bytes, 40)?, part(&bytes, CHECKED)?));
        let Some((before, check)) = parts() else { return Ok(None) };
        let frame = Frame { position, sequence, before, check, payload, bytes };
        let checked = frame.bytes.get(..CHECKED).unwrap_or_default();
        let fits = self.keys.journal().verify(FRAME_LABEL, &[self.keys.store_id(), checked, frame.payload()], &check);
        Ok((fits || self.planted == Some(Planted::CheckNotChecked)).then_some(frame))
    }

    /// Sequence and length that a head claims, if it is of this ring and could be at this position.
    fn claim(&self, head: &[u8], position: u64) -> Option<(u64, usize)> {
        let here = number(head, 16)? == position || self.planted == Some(Planted::StaleFrame);
        let ours = part(head, 0)? == self.head.pair && here;
        let payload = usize::try_from(part(head, 32).map(u32::from_le_bytes)?).ok()?;
        let fits = frame_bytes(payload) <= self.ring_bytes() / FRAME_SHARE;
        (ours && fits).then_some((number(head, 24)?, payload))
    }

    /// Refuses a ring in which a later frame stands somewhere behind its end.
    fn check_end(&self) -> Result<()> {
        let mut chunk = vec![0; ZEROS];
        let mut at = 0;
        while at < self.ring_bytes() {
            let length = usize::try_from(self.ring_bytes() - at).map_or(ZEROS, |left| left.min(ZEROS));
            let Some(blocks) = chunk.get_mut(..length) else { break };
            self.file.read_at(BLOCK + at, blocks).map_err(|error| io_failed(READING, error))?;
            for (block, place) in blocks.chunks(BLOCK_BYTES).zip((at..).step_by(BLOCK_BYTES)) {
                let later = part(block, 0) == Some(self.head.pair)
                    && number(block, 24).is_some_and(|sequence| sequence >= self.head.sequence);
                let position = number(block, 16).filter(|position| position % self.ring_bytes() == place);
                if let (true, Some(position)) = (later, position)
                    && self.read_frame(position)?.is_some()
                {
                    return Err(Error::corrupt(
                        "a frame in the middle of the file `journal` is damaged, and with it what was acknowledged: the \
                         disk lost it, or `journal` and `store.redb` are not of the same moment; put back both from one copy",
                    ));
                }
            }
            at += length as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Position, create};
    use super::*;
    use crate::error::ErrorKind;
    use crate::storage::disk::SimDisk;
    use crate::storage::key_file::KeyFile;
    use crate::time::Timestamp;
    use crate::token::OsEntropy;

    const RING: u64 = 64 * 1024;

    fn keys() -> Arc<Keys> {
        let file = KeyFile::create(Timestamp::from_unix_ms(0), &OsEntropy).unwrap();
        Arc::new(Keys::create(&file, &OsEntropy).unwrap().0)
    }

    /// A ring, and from where on it counts.
    struct Bench {
        disk: SimDisk,
        keys: Arc<Keys>,
        from: Position,
    }

    impl Bench {
        fn new() -> Self {
            let (disk, keys) = (SimDisk::simulated(1), keys());
            let from = create(&disk, RING, &keys, &OsEntropy).unwrap();
            Self { disk, keys, from }
        }

        fn open(&self) -> Result<(Journal, Vec<Vec<u8>>)> {
            let mut found = Vec::new();
            let journal = open(&self.disk, &self.keys, self.from, &mut |payload| {
                found.push(payload.to_vec());
                Ok(())
            })?;
            Ok((journal, found))
        }

        fn flip(&self, at: u64, bit: u8) {
            let at = usize::try_from(at).unwrap();
            self.disk.overwrite(JOURNAL_FILE, |bytes| bytes[at] ^= 1 << bit);
        }
    }

    fn random(state: &mut u64, below: u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state % below
    }

    #[test]
    fn whenever_it_is_opened_it_has_the_frames_since_the_position_and_goes_on() {
        let (mut bench, mut seed) = (Bench::new(), 9);
        let (mut journal, _) = bench.open().unwrap();
        // Payloads since the position, each with the position behind it.
        let mut since: Vec<(Vec<u8>, Position)> = Vec::new();
        for step in 0..3000_u32 {
            let most = journal.payload_max() as u64 + 100;
            let payload = vec![step.to_le_bytes()[0]; usize::try_from(random(&mut seed, most)).unwrap()];
            if journal.takes(payload.len()) && journal.has_room(payload.len(), 0) {
                journal.append(&payload).unwrap();
                since.push((payload, journal.position()));
            } else if !since.is_empty() {
                let taken = usize::try_from(random(&mut seed, since.len() as u64)).unwrap() + 1;
                bench.from = since[taken - 1].1;
                since.drain(..taken);
                journal.free(&bench.from);
            }
            if random(&mut seed, 10) == 0 {
                bench.disk.restore_power();
                let (opened, found) = bench.open().unwrap();
                assert!(found.iter().eq(since.iter().map(|(payload, _)| payload)), "step {step}");
                assert_eq!((opened.position(), opened.used()), (journal.position(), journal.used()));
                journal = opened;
            }
        }
        assert!(journal.position().offset > 20 * RING, "many times round");
    }

    #[test]
    fn a_ring_that_is_full_to_the_last_block_is_read_whole() {
        let bench = Bench::new();
        let (mut journal, _) = bench.open().unwrap();
        // The largest that fits an eighth of the ring, eight times.
        let payload = vec![7; (RING / 8) as usize - FRAME_HEAD];
        assert!(journal.takes(payload.len()) && !journal.takes(payload.len() + 1));
        while journal.has_room(payload.len(), 0) {
            journal.append(&payload).unwrap();
        }
        assert_eq!(journal.used(), RING);
        let (again, found) = bench.open().unwrap();
        assert_eq!((found.len(), again.used()), (8, RING));
        assert!(!again.has_room(0, 0));
    }

    #[test]
    fn a_damaged_frame_is_the_end_if_it_is_the_last_and_a_hole_if_it_is_not() {
        let bench = Bench::new();
        let (mut journal, _) = bench.open().unwrap();
        let begins: Vec<u64> = (0..3_u8)
            .map(|number| {
                let begins = BLOCK + journal.position().offset;
                journal.append(&[number; 5000]).unwrap();
                begins
            })
            .collect();
        for (number, begins) in begins.iter().enumerate() {
            // Each part of the head, the first and the last byte of the payload.
            for part in [0, 16, 24, 32, 40, CHECKED as u64, FRAME_HEAD as u64, FRAME_HEAD as u64 + 4999] {
                bench.flip(begins + part, 3);
                match bench.open() {
                    Ok((_, found)) => assert_eq!((number, found.len()), (2, 2), "byte {part}"),
                    Err(error) => {
                        assert!(number < 2, "byte {part}: {error}");
                        assert_eq!(error.kind(), ErrorKind::Corrupt);
                        assert!(error.to_string().contains("`journal`"), "{error}");
                    }
                }
                bench.flip(begins + part, 3);
            }
        }
        assert_eq!(bench.open().unwrap().1.len(), 3);
    }

    /// Where a byte of the frame at a position is in the file.
    fn byte(frame: Position, byte: u64) -> u64 {
        BLOCK + (frame.offset + byte) % RING
    }

    /// Appends frames, and says where each begins.
    fn append<const N: usize>(journal: &mut Journal, payloads: [&[u8]; N]) -> [Position; N] {
        payloads.map(|payload| {
            let begins = journal.position();
            journal.append(payload).unwrap();
            begins
        })
    }

    /// A bench whose ring was written once and freed, but for so many blocks.
    fn one_lap(but: u64) -> (Bench, Journal) {
        let mut bench = Bench::new();
        let (mut journal, _) = bench.open().unwrap();
        (but..RING / BLOCK).for_each(|_| journal.append(b"of the first lap").unwrap());
        bench.from = journal.position();
        journal.free(&bench.from);
        (bench, journal)
    }

    #[test]
    fn every_byte_of_a_frame_counts_but_what_fills_its_block_and_what_is_freed() {
        let (bench, mut journal) = one_lap(8);
        let freed = Position { offset: 0, ..bench.from };
        let begins = append(&mut journal, [b"one", b"two", b"six"]);
        let outcome = |frame, at, bit| {
            bench.flip(byte(frame, at), bit);
            let found = bench.open().map(|(_, found)| found.len());
            bench.flip(byte(frame, at), bit);
            found
        };
        for (at, bit) in (0..FRAME_HEAD as u64 + 3).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            assert_eq!(outcome(begins[2], at, bit).unwrap(), 2, "bit {bit} of byte {at}");
            assert_eq!(outcome(begins[1], at, bit).unwrap_err().kind(), ErrorKind::Corrupt, "bit {bit} of byte {at}");
            assert_eq!(outcome(begins[0], at, bit).unwrap_err().kind(), ErrorKind::Corrupt, "bit {bit} of byte {at}");
            assert_eq!(outcome(freed, at, bit).unwrap(), 3, "bit {bit} of byte {at}");
        }
        for at in FRAME_HEAD as u64 + 3..BLOCK {
            assert_eq!(outcome(begins[(at % 3) as usize], at, 0).unwrap(), 3, "byte {at}");
        }
    }

    #[test]
    fn a_frame_round_the_end_of_the_ring_is_one_like_any_other() {
        let (bench, mut journal) = one_lap(1);
        let payload: Vec<u8> = (0..8000).map(|number: u32| number.to_le_bytes()[0]).collect();
        let [begins] = append(&mut journal, [&payload]);
        assert_eq!((byte(begins, 0), byte(begins, BLOCK)), (RING, BLOCK));
        let (mut journal, found) = bench.open().unwrap();
        assert_eq!((found, journal.used()), (vec![payload.clone()], 2 * BLOCK));
        let parts = [0, FRAME_HEAD as u64, BLOCK - 1, BLOCK, FRAME_HEAD as u64 + 7999];
        for at in parts {
            bench.flip(byte(begins, at), 1);
            let (torn, found) = bench.open().unwrap();
            assert_eq!((torn.position(), found.len()), (begins, 0), "byte {at}");
            bench.flip(byte(begins, at), 1);
        }
        append(&mut journal, [b"later"]);
        assert_eq!(bench.open().unwrap().1, [payload, b"later".to_vec()]);
        for at in parts {
            bench.flip(byte(begins, at), 1);
            assert_eq!(bench.open().unwrap_err().kind(), ErrorKind::Corrupt, "byte {at}");
            bench.flip(byte(begins, at), 1);
        }
    }

    #[test]
    fn frames_of_an_earlier_lap_never_count() {
        let (mut bench, mut journal) = one_lap(0);
        assert_eq!(bench.open().unwrap().1.len(), 0, "all of the ring is old frames, the first right at the position");
        let first_lap = bench.disk.contents().remove(0).1;
        let begins = append(&mut journal, [b"one", b"two", b"six"]);
        let second_lap = bench.disk.contents().remove(0).1;
        for (number, begins) in begins.into_iter().enumerate() {
            let block = [0, BLOCK].map(|at| usize::try_from(byte(begins, at)).unwrap());
            let block = block[0]..block[1];
            bench.disk.overwrite(JOURNAL_FILE, |bytes| bytes[block.clone()].copy_from_slice(&first_lap[block.clone()]));
            match bench.open() {
                Ok((_, found)) => assert_eq!((number, found.len()), (2, 2)),
                Err(error) => assert_eq!((number < 2, error.kind()), (true, ErrorKind::Corrupt)),
            }
            bench.disk.overwrite(JOURNAL_FILE, |bytes| bytes[block.clone()].copy_from_slice(&second_lap[block]));
        }
        bench.from = journal.position();
        assert_eq!(bench.open().unwrap().1.len(), 0, "behind two laps");
    }

    #[test]
    fn a_frame_in_the_place_of_another_does_not_count() {
        let bench = Bench::new();
        let (mut journal, _) = bench.open().unwrap();
        let begins = append(&mut journal, [b"one", b"two", b"six"]);
        let place = |number: usize| {
            let [begin, end] = [0, BLOCK].map(|at| usize::try_from(byte(begins[number], at)).unwrap());
            begin..end
        };
        bench.disk.overwrite(JOURNAL_FILE, |bytes| bytes.copy_within(place(0), place(2).start));
        assert_eq!(bench.open().unwrap().1, [b"one", b"two"]);
        bench.disk.overwrite(JOURNAL_FILE, |bytes| bytes.copy_within(place(0), place(1).start));
        assert_eq!(bench.open().unwrap().1, [b"one"], "the only thing that follows is not where it was");
        // Whole at its place, but after nothing that it follows.
        bench.disk.overwrite(JOURNAL_FILE, |bytes| bytes[place(0)].fill(0));
        assert_eq!(bench.open().unwrap().1.len(), 0);
    }

    #[test]
    fn a_file_that_does_not_go_with_the_store_is_refused_by_name() {
        let bench = Bench::new();
        bench.open().unwrap().0.append(b"something").unwrap();
        let refused = |bench: &Bench, kind: ErrorKind| {
            let error = bench.open().unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains("`journal`"), "{error}");
        };
        for (byte, kind) in
            [(0, ErrorKind::Corrupt), (8, ErrorKind::Format), (16, ErrorKind::Corrupt), (48, ErrorKind::Corrupt)]
        {
            bench.flip(byte, 0);
            refused(&bench, kind);
            bench.flip(byte, 0);
        }
        bench.disk.overwrite(JOURNAL_FILE, |bytes| bytes.push(0));
        refused(&bench, ErrorKind::Corrupt);
        // Made again for the same store: another pair.
        create(&bench.disk, RING, &bench.keys, &OsEntropy).unwrap();
        refused(&bench, ErrorKind::Corrupt);
        // Another store's.
        create(&bench.disk, RING, &keys(), &OsEntropy).unwrap();
        refused(&bench, ErrorKind::Corrupt);
        bench.disk.remove_file(JOURNAL_FILE);
        refused(&bench, ErrorKind::Corrupt);
    }

    #[test]
    fn a_frame_found_is_written_again_before_anything_depends_on_it() {
        let bench = Bench::new();
        bench.open().unwrap().0.append(&[1; 100]).unwrap();
        let before = bench.disk.operations();
        let (mut journal, _) = bench.open().unwrap();
        assert_eq!(bench.disk.operations(), before, "reading changes nothing");
        journal.affirm().unwrap();
        assert_eq!(bench.disk.operations(), before + 2, "one write, one flush");
        journal.affirm().unwrap();
        assert_eq!(bench.disk.operations(), before + 2, "once");
        assert_eq!(bench.open().unwrap().1, [vec![1; 100]]);
    }
}
