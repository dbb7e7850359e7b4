//! The epoch file: the highest epoch that was acknowledged, kept beside the store.
//!
//! It knows one small file. Invariants: a session's end is acknowledged only once the store and then this file
//! hold the raised epoch, so a copy of the store from before cannot come back unnoticed; it is raised in place, so that
//! it can be on a full disk, in the one of two blocks that does not hold the epoch in force. Replacing this file along
//! with the store is not noticed.
//!
//! Two blocks of 4,096 bytes, of which the higher epoch counts: magic 8, store id 16, epoch 8, tag 16, zeros. A block that is
//! not like that holds none.

use std::io;

use super::disk::{self, Disk};
use super::io_failed;
use super::keys::Keys;
use super::schema::{EPOCH_FILE, MAGIC};
use crate::error::{Error, Result};

const BLOCK: usize = 4096;
const RECORD_BYTES: usize = 48;
const LABEL: &str = "epoch";

/// The epoch in the file, or `None` if there is no file.
pub(crate) fn read(disk: &dyn Disk, keys: &Keys) -> Result<Option<u64>> {
    let bytes = disk::read_small(disk, EPOCH_FILE, 2 * BLOCK)
        .map_err(|error| io_failed("failed to read the file `epoch`", error))?;
    let epoch = |bytes: Vec<u8>| blocks(&bytes, keys).into_iter().flatten().max().ok_or_else(damaged);
    bytes.map(epoch).transpose()
}

pub(crate) fn write(disk: &dyn Disk, keys: &Keys, epoch: u64) -> Result<()> {
    put(disk, keys, epoch).map_err(|error| io_failed("failed to write the file `epoch`", error))
}

fn put(disk: &dyn Disk, keys: &Keys, epoch: u64) -> io::Result<()> {
    let mut block = record(keys, epoch);
    block.resize(BLOCK, 0);
    let file = match disk.open(EPOCH_FILE) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            block.resize(2 * BLOCK, 0);
            return disk::replace(disk, EPOCH_FILE, &block);
        }
        Err(error) => return Err(error),
    };
    let mut bytes = vec![0; 2 * BLOCK];
    file.read_at(0, &mut bytes)?;
    let [first, second] = blocks(&bytes, keys);
    let place = if first < second { 0 } else { BLOCK as u64 };
    file.write_at(place, &block)?;
    file.sync()
}

fn record(keys: &Keys, epoch: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(2 * BLOCK);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(keys.store_id());
    bytes.extend_from_slice(&epoch.to_le_bytes());
    let tag = keys.store().tag16(LABEL, &[&bytes]);
    bytes.extend_from_slice(&tag);
    bytes
}

/// The epoch of each block.
fn blocks(bytes: &[u8], keys: &Keys) -> [Option<u64>; 2] {
    if bytes.len() != 2 * BLOCK {
        return [None; 2];
    }
    [0, BLOCK].map(|at| bytes.get(at..at + RECORD_BYTES).and_then(|record| parse(record, keys)))
}

fn parse(record: &[u8], keys: &Keys) -> Option<u64> {
    let (tagged, tag) = record.split_last_chunk::<16>()?;
    if !keys.store().verify(LABEL, &[tagged], tag) {
        return None;
    }
    tagged.last_chunk().map(|epoch| u64::from_le_bytes(*epoch))
}

fn damaged() -> Error {
    Error::corrupt("the file `epoch` is damaged or belongs to another store; put the right one back")
}
