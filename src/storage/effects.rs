//! Effects: what a batch comes to, as the bytes that the tables will hold, and how a frame of the journal holds them.
//!
//! It knows bytes, records and the keys that tag them; no redb and no files. Invariants: effects are resolved, so applying
//! them twice is applying them once; every record in them has its tag already; reading is total, so bytes from a disk never
//! panic, and a count in them never makes anybody reserve more than they take.
//!
//! # The payload of a frame
//!
//! The state record (184 bytes, with its tag), then any number of effects, each a kind and what follows it. All numbers are
//! little-endian.
//!
//! | Kind | Effect | Bytes after the kind |
//! |---|---|---|
//! | 1 | a row's header and body | row 8, header 116, length 4, body |
//! | 2 | a row's header | row 8, header 116 |
//! | 3 | a row's body | row 8, length 4, body |
//! | 4 | rows are deleted | first 8, last 8 |
//! | 5 | a principal's name | reference 8, length 4, name |
//! | 6 | a principal is forgotten | reference 8 |
//! | 7 | a cutoff | reference 8, record 40 |
//! | 8 | a cutoff is removed | reference 8 |
//! | 9 | every block of touches so far is removed | |
//! | 10 | a block of touches | key 8, length 4, block |
//! | 11 | the record of credits | length 4, record |
//! | 12 | the record of credits is removed | |

use super::record::{CUTOFF_BYTES, Cutoff, CutoffBytes, HeaderBytes, PrincipalRef, STATE_BYTES, State};
use super::{Batch, Keys, touch};
use crate::error::Result;
use crate::storage::credit::Credits;

/// What a batch changes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Effects {
    pub(super) rows: Vec<RowEffect>,
    /// First and last row of each run, ascending.
    pub(super) deleted: Vec<(u64, u64)>,
    pub(super) names: Vec<(u64, Option<Vec<u8>>)>,
    pub(super) cutoffs: Vec<(u64, Option<CutoffBytes>)>,
    pub(super) replace_touches: bool,
    pub(super) touches: Vec<(u64, Vec<u8>)>,
    pub(super) credits: Option<Option<Vec<u8>>>,
    /// As of this batch.
    pub(super) state: State,
}

/// The new content of a row; what is `None` stays as it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RowEffect {
    pub(super) row: u64,
    pub(super) header: Option<HeaderBytes>,
    pub(super) body: Option<Vec<u8>>,
}

const ROW: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const DELETED: u8 = 4;
const NAME: u8 = 5;
const NO_NAME: u8 = 6;
const CUTOFF: u8 = 7;
const NO_CUTOFF: u8 = 8;
const REPLACE_TOUCHES: u8 = 9;
const TOUCHES: u8 = 10;
const CREDITS: u8 = 11;
const NO_CREDITS: u8 = 12;

impl Effects {
    /// The most bytes that the end of a session takes, with a share of what comes before.
    pub(super) const END_BYTES_MAX: usize = 9 + CUTOFF_BYTES;

    /// Resolves a batch. `state` becomes what it is after it; `cutoff` finds the cutoff of a principal before it.
    pub(super) fn of(
        batch: &Batch,
        mut state: State,
        keys: &Keys,
        cutoff: impl Fn(PrincipalRef) -> Result<Option<CutoffBytes>>,
    ) -> Result<Self> {
        let mut effects = Self { rows: rows(batch, keys), deleted: runs(batch), ..Self::default() };
        effects.names = batch.principals.iter().map(|(principal, name)| (principal.0, name.clone())).collect();
        for (principal, record) in &batch.cutoffs {
            let bytes = record.map(|cutoff| cutoff.encode(*principal, keys.store()));
            let before = cutoff(*principal)?.as_ref().map_or(0, Cutoff::share);
            let after = bytes.as_ref().map_or(0, Cutoff::share);
            state.cutoff_sum = state.cutoff_sum.wrapping_sub(before).wrapping_add(after);
            effects.cutoffs.push((principal.0, bytes));
        }
        effects.replace_touches = batch.replace_touches;
        for block in &batch.touches {
            let key = touch::key(block.idle, state.next_flush);
            state.next_flush += 1;
            effects.touches.push((key, touch::encode(key, block, keys.store())));
        }
        effects.credits = batch.credits.as_ref().map(|credits| {
            let record = credits.encode(keys.store_id(), keys.store());
            (state.credits_made, state.credits_tag) = (credits.frame(), Credits::tag(record.as_deref()));
            record
        });
        effects.state = state;
        Ok(effects)
    }

    /// Whether there is more on disk after it than before, and not only the end of something. The record of credits is small,
    /// and goes with the clock.
    pub(super) fn grows(&self) -> bool {
        let named = self.names.iter().any(|(_, name)| name.is_some());
        named || !self.rows.is_empty() || !self.touches.is_empty()
    }

    /// As the payload of a frame.
    pub(super) fn encode(&self, keys: &Keys) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.size());
        out.extend_from_slice(&self.state.encode(keys.store_id(), keys.store()));
        for RowEffect { row, header, body } in &self.rows {
            let kind = match (header, body) {
                (Some(_), Some(_)) => ROW,
                (Some(_), None) => HEADER,
                (None, Some(_)) => BODY,
                (None, None) => continue,
            };
            out.push(kind);
            out.extend_from_slice(&row.to_le_bytes());
            header.iter().for_each(|header| out.extend_from_slice(header));
            body.iter().for_each(|body| put_long(&mut out, body));
        }
        for (first, last) in &self.deleted {
            out.push(DELETED);
            out.extend_from_slice(&first.to_le_bytes());
            out.extend_from_slice(&last.to_le_bytes());
        }
        for (principal, name) in &self.names {
            out.push(if name.is_some() { NAME } else { NO_NAME });
            out.extend_from_slice(&principal.to_le_bytes());
            name.iter().for_each(|name| put_long(&mut out, name));
        }
        for (principal, cutoff) in &self.cutoffs {
            out.push(if cutoff.is_some() { CUTOFF } else { NO_CUTOFF });
            out.extend_from_slice(&principal.to_le_bytes());
            cutoff.iter().for_each(|cutoff| out.extend_from_slice(cutoff));
        }
        if self.replace_touches {
            out.push(REPLACE_TOUCHES);
        }
        for (key, block) in &self.touches {
            out.push(TOUCHES);
            out.extend_from_slice(&key.to_le_bytes());
            put_long(&mut out, block);
        }
        if let Some(credits) = &self.credits {
            out.push(if credits.is_some() { CREDITS } else { NO_CREDITS });
            credits.iter().for_each(|record| put_long(&mut out, record));
        }
        out
    }

    /// How long the payload is, or a little more: what it says fits does.
    pub(super) fn size(&self) -> usize {
        let long = |bytes: &[u8]| 13 + bytes.len();
        let optional = |bytes: &Option<Vec<u8>>| long(bytes.as_deref().unwrap_or_default());
        let row = |row: &RowEffect| long(row.body.as_deref().unwrap_or_default()) + row.header.map_or(0, |h| h.len());
        STATE_BYTES
            + self.rows.iter().map(row).sum::<usize>()
            + self.deleted.len() * 17
            + self.names.iter().map(|(_, name)| optional(name)).sum::<usize>()
            + self.cutoffs.len() * (9 + CUTOFF_BYTES)
            + self.touches.iter().map(|(_, block)| long(block)).sum::<usize>()
            + self.credits.as_ref().map_or(0, optional)
            + 1
    }

    /// Reads a payload; `None` unless it is well formed to the last byte and its state record is ours.
    pub(super) fn decode(payload: &[u8], store_id: &[u8; 16], tagger: &crate::seal::Tagger) -> Option<Self> {
        let (state, rest) = payload.split_at_checked(STATE_BYTES)?;
        let mut effects = Self { state: State::decode(state, store_id, tagger).ok()?, ..Self::default() };
        let mut input = Input(rest);
        while let Some([kind]) = input.take::<1>() {
            effects.read(kind, &mut input)?;
        }
        Some(effects)
    }

    fn read(&mut self, kind: u8, input: &mut Input<'_>) -> Option<()> {
        match kind {
            ROW | HEADER | BODY => self.rows.push(RowEffect {
                row: input.number()?,
                header: if kind == BODY { None } else { Some(input.take()?) },
                body: if kind == HEADER { None } else { Some(input.long()?) },
            }),
            DELETED => {
                let (first, last) = (input.number()?, input.number()?);
                self.deleted.push((first, last));
                return (first <= last).then_some(());
            }
            NAME => self.names.push((input.number()?, Some(input.long()?))),
            NO_NAME => self.names.push((input.number()?, None)),
            CUTOFF => self.cutoffs.push((input.number()?, Some(input.take()?))),
            NO_CUTOFF => self.cutoffs.push((input.number()?, None)),
            REPLACE_TOUCHES => self.replace_touches = true,
            TOUCHES => self.touches.push((input.number()?, input.long()?)),
            CREDITS => self.credits = Some(Some(input.long()?)),
            NO_CREDITS => self.credits = Some(None),
            _ => return None,
        }
        Some(())
    }
}

fn rows(batch: &Batch, keys: &Keys) -> Vec<RowEffect> {
    let ring = keys.ring();
    let header = |row, header: &super::record::Header| {
        let tagger = ring.headers(header.key_id).expect("sessions are made under keys of the ring");
        header.encode(row, keys.store_id(), tagger)
    };
    let effect = |put: &super::Put| RowEffect {
        row: put.row.0,
        header: put.header.as_ref().map(|of| header(put.row, of)),
        body: put.body.clone(),
    };
    batch.puts.iter().map(effect).collect()
}

/// The rows to be deleted, as runs of neighbours.
fn runs(batch: &Batch) -> Vec<(u64, u64)> {
    let mut rows: Vec<u64> = batch.deletes.iter().map(|row| row.0).collect();
    rows.sort_unstable();
    rows.dedup();
    let ends = |run: &[u64]| Some((*run.first()?, *run.last()?));
    rows.chunk_by(|a, b| a + 1 == *b).filter_map(ends).collect()
}

fn put_long(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Bytes that are read from the front.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn long(&mut self) -> Option<Vec<u8>> {
        let length = usize::try_from(self.take().map(u32::from_le_bytes)?).ok()?;
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Row;
    use super::*;
    use crate::seal::{Key, Tagger};

    const STORE: &[u8; 16] = &[3; 16];

    fn sample() -> Effects {
        Effects {
            rows: vec![
                RowEffect { row: 5, header: Some([1; 116]), body: Some(vec![2; 300]) },
                RowEffect { row: 6, header: Some([3; 116]), body: None },
                RowEffect { row: 7, header: None, body: Some(Vec::new()) },
            ],
            deleted: vec![(1, 3), (9, 9)],
            names: vec![(70, Some(b"sealed".to_vec())), (71, None)],
            cutoffs: vec![(72, Some([4; 40])), (73, None)],
            replace_touches: true,
            touches: vec![(8, vec![5; 40])],
            credits: Some(Some(vec![6; 38])),
            state: State { next_row: 12, commits: 4, ..State::default() },
        }
    }

    /// The payload under a tagger of its own.
    fn payload(effects: &Effects, tagger: &Tagger) -> Vec<u8> {
        let file =
            super::super::key_file::KeyFile::create(crate::time::Timestamp::from_unix_ms(0), &crate::token::OsEntropy)
                .unwrap();
        let (keys, _) = Keys::create(&file, &crate::token::OsEntropy).unwrap();
        let mut bytes = effects.encode(&keys);
        bytes.splice(..STATE_BYTES, effects.state.encode(STORE, tagger));
        bytes
    }

    #[test]
    fn a_payload_reads_as_written_and_no_shorter() {
        let tagger = Tagger::new(&Key::from_bytes([5; Key::BYTES]));
        let bytes = payload(&sample(), &tagger);
        assert_eq!(Effects::decode(&bytes, STORE, &tagger), Some(sample()));
        let whole = |cut: usize| Effects::decode(&bytes[..cut], STORE, &tagger).is_some();
        let ends: Vec<usize> = (0..bytes.len()).filter(|&cut| whole(cut)).collect();
        assert_eq!(ends.len(), 12, "between two effects only: {ends:?}");
        assert!(bytes.len() <= sample().size() && bytes.len() + 64 >= sample().size());
    }

    #[test]
    fn a_payload_that_nobody_wrote_is_refused() {
        let tagger = Tagger::new(&Key::from_bytes([5; Key::BYTES]));
        let bytes = payload(&Effects { state: sample().state, ..Effects::default() }, &tagger);
        let read = |more: &[u8]| Effects::decode(&[&bytes, more].concat(), STORE, &tagger).is_some();
        assert!(read(&[]));
        for kind in [0, 13, 255] {
            assert!(!read(&[kind]), "kind {kind}");
        }
        let backwards = [&[DELETED][..], &2_u64.to_le_bytes(), &1_u64.to_le_bytes()].concat();
        assert!(!read(&backwards));
        let longer = [&[BODY][..], &2_u64.to_le_bytes(), &u32::MAX.to_le_bytes()].concat();
        assert!(!read(&longer), "a length past the end");
        let mut foreign = bytes.clone();
        foreign[0] ^= 1;
        assert_eq!(Effects::decode(&foreign, STORE, &tagger), None);
    }

    #[test]
    fn rows_to_delete_become_runs() {
        let deletes = [9, 3, 4, 4, 5, 1].map(Row).to_vec();
        assert_eq!(runs(&Batch { deletes, ..Batch::default() }), [(1, 1), (3, 5), (9, 9)]);
    }
}
