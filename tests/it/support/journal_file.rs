//! The journal of a store, read from outside by somebody who knows its format.

use std::collections::BTreeMap;

use super::store_file::{self, STATE, Table};

pub(crate) const JOURNAL: &str = "journal";
const BLOCK: usize = 4096;
const STATE_BYTES: usize = 184;
/// The store's record of its journal.
const POSITION: u64 = 4;

/// A frame, wherever it stands.
pub(crate) struct Frame {
    /// Its first byte in the file.
    pub(crate) place: usize,
    pub(crate) sequence: u64,
    pub(crate) payload: Vec<u8>,
}

/// Every frame of the ring, whole or not, in order; those of earlier rounds that were not written over too.
pub(crate) fn frames(file: &[u8]) -> Vec<Frame> {
    let (pair, ring) = (&file[32..48], &file[BLOCK..]);
    let mut frames: Vec<_> = (0..ring.len() / BLOCK)
        .map(|block| block * BLOCK)
        .filter(|&place| &ring[place..place + 16] == pair)
        .map(|place| {
            let length = u32::from_le_bytes(ring[place + 32..place + 36].try_into().unwrap()) as usize;
            // Frames go round the end.
            let payload = (place + 72..place + 72 + length).map(|at| ring[at % ring.len()]).collect();
            Frame { place: BLOCK + place, sequence: number(&ring[place + 24..]), payload }
        })
        .collect();
    frames.sort_by_key(|frame| frame.sequence);
    frames
}

/// The frames that are not in the tables.
pub(crate) fn live(store: &[u8], journal: &[u8]) -> Vec<Frame> {
    let first = number(&store_file::read(store, Table::Meta)[&POSITION][32..]);
    frames(journal).into_iter().filter(|frame| frame.sequence >= first).collect()
}

/// The records of a table, with what the journal has of them.
pub(crate) fn read(files: &[(String, Vec<u8>)], table: Table) -> BTreeMap<u64, Vec<u8>> {
    let file = |name: &str| files.iter().find(|(other, _)| other == name).map(|(_, bytes)| bytes);
    let store = file(store_file::NAME).unwrap();
    let mut records = store_file::read(store, table);
    let Some(journal) = file(JOURNAL) else { return records };
    for frame in live(store, journal) {
        if table == Table::Meta {
            records.insert(STATE, frame.payload[..STATE_BYTES].to_vec());
        }
        lay_over(&mut records, table, &frame.payload[STATE_BYTES..]);
    }
    records
}

fn lay_over(records: &mut BTreeMap<u64, Vec<u8>>, table: Table, mut effects: &[u8]) {
    while let Some((&kind, rest)) = effects.split_first() {
        effects = rest;
        let mut take = |count: usize| {
            let (taken, rest) = effects.split_at(count);
            effects = rest;
            taken.to_vec()
        };
        let key = if matches!(kind, 9 | 11 | 12) { 0 } else { number(&take(8)) };
        let fixed = match kind {
            1 | 2 => take(116),
            4 => take(8),
            7 => take(40),
            _ => Vec::new(),
        };
        let long = if matches!(kind, 1 | 3 | 5 | 10 | 11) {
            let length = take(4);
            take(u32::from_le_bytes(length.try_into().unwrap()) as usize)
        } else {
            Vec::new()
        };
        match (kind, table) {
            (1 | 2, Table::Sessions) | (7, Table::Cutoffs) => _ = records.insert(key, fixed),
            (1 | 3, Table::Bodies) | (5, Table::Principals) | (10, Table::Touches) => _ = records.insert(key, long),
            (4, Table::Sessions | Table::Bodies) => records.retain(|row, _| !(key..=number(&fixed)).contains(row)),
            (6, Table::Principals) | (8, Table::Cutoffs) => _ = records.remove(&key),
            (9, Table::Touches) => records.clear(),
            (11, Table::Meta) => _ = records.insert(3, long),
            (12, Table::Meta) => _ = records.remove(&3),
            _ => {}
        }
    }
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().unwrap())
}
