//! The epoch file: the highest epoch that was acknowledged, kept beside the store.
//!
//! It knows one small file. Invariant: a session's end is acknowledged only once the store and then this file
//! hold the raised epoch, so a copy of the store from before cannot come back unnoticed. Replacing this file along
//! with the store is not noticed.
//!
//! Magic 8, store id 16, epoch 8, tag 16.

use super::disk::{self, Disk};
use super::io_failed;
use super::keys::Keys;
use super::schema::{EPOCH_FILE, MAGIC};
use crate::error::{Error, Result};

const EPOCH_BYTES: usize = 48;
const LABEL: &str = "epoch";

/// The epoch in the file, or `None` if there is no file.
pub(crate) fn read(disk: &dyn Disk, keys: &Keys) -> Result<Option<u64>> {
    let bytes = disk::read_small(disk, EPOCH_FILE, EPOCH_BYTES)
        .map_err(|error| io_failed("failed to read the file `epoch`", error))?;
    bytes.map(|bytes| parse(&bytes, keys).ok_or_else(damaged)).transpose()
}

pub(crate) fn write(disk: &dyn Disk, keys: &Keys, epoch: u64) -> Result<()> {
    let mut bytes = Vec::with_capacity(EPOCH_BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(keys.store_id());
    bytes.extend_from_slice(&epoch.to_le_bytes());
    let tag = keys.store().tag16(LABEL, &[&bytes]);
    bytes.extend_from_slice(&tag);
    disk::replace(disk, EPOCH_FILE, &bytes).map_err(|error| io_failed("failed to write the file `epoch`", error))
}

fn parse(bytes: &[u8], keys: &Keys) -> Option<u64> {
    let (tagged, tag) = bytes.split_last_chunk::<16>()?;
    if bytes.len() != EPOCH_BYTES || !keys.store().verify(LABEL, &[tagged], tag) {
        return None;
    }
    tagged.last_chunk().map(|epoch| u64::from_le_bytes(*epoch))
}

fn damaged() -> Error {
    Error::corrupt("the file `epoch` is damaged or belongs to another store; put the right one back")
}
