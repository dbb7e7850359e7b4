//! Changing server keys while the store is open.
//!
//! It knows the key file, the ring and the writer. Invariants: what a crash leaves opens. A new key is in the file, on
//! disk, before the store's own keys are sealed under it, and they are before anything is made under it; a key's rows are
//! gone, on disk, before it leaves the file. So a store is never without a key that it needs, and a key file from before
//! a rotation does not open the store from after it. A rotation that a crash cut short is finished at the next open.

use super::Batch;
use super::key_file::KeyFile;
use super::keys::{self, Ring};
use super::writer::Writer;
use crate::error::{Error, ErrorKind, Result};
use crate::time::Timestamp;
use crate::token::Entropy;

/// What opening needs of both.
pub(super) fn unfinished(file: &KeyFile, record: &[u8], entropy: &dyn Entropy) -> Result<Option<Vec<u8>>> {
    if keys::wrapped_by(record) == Some(file.active()) {
        return Ok(None);
    }
    keys::rewrap(file, record, entropy).map(Some)
}

impl Writer {
    // `batch` is what goes along with the change, made when nothing but the commit is left to fail.

    /// Adds a server key. What comes back is to be [activated](super::Keys::activate); until then the key is not used.
    /// Blocks: the key file and one commit.
    ///
    /// # Errors
    /// `Refused` if there is no room for another, `Key` if the file was changed since it was opened, or whatever keeps the file
    /// from being written: nothing has changed then. As [`apply`](Self::apply): the next open may find the key, and it is the
    /// active one then; until then nothing goes with it.
    pub(crate) fn add_key(
        &mut self,
        made: Timestamp,
        batch: impl FnOnce() -> Batch,
        entropy: &dyn Entropy,
    ) -> Result<Ring> {
        self.check_usable()?;
        let (mut file, _) = self.key_file()?;
        file.add(made, entropy)?;
        let record = keys::rewrap(&file, &self.wrapped, entropy)?;
        file.replace(self.disk.as_ref())?;
        self.apply(&Batch { keys: Some(record), ..batch() })?;
        Ok(self.keys.with_newest(&file))
    }

    /// Deletes every row of a server key that is [retired](super::Keys::retire), and then the key. Blocks: a scan of all
    /// headers, one commit and the key file.
    ///
    /// # Errors
    /// `Invalid` if there is none of that id, or was none when it was to be retired; `Key` as [`add_key`](Self::add_key);
    /// the rows are there then, as they are after an error of the commit. If the file cannot be written, they are gone, and
    /// the key stays in the file until it is dropped again.
    pub(crate) fn drop_key(&mut self, id: u8, batch: impl FnOnce() -> Batch) -> Result<()> {
        self.check_usable()?;
        let (mut file, left) = self.key_file()?;
        let is_there = if self.keys.ring().has(id) { self.keys.retired().has(id) } else { left.contains(&id) };
        if !is_there {
            return Err(Error::invalid(format!("there is no server key {id}")));
        }
        // They are sealed under the active key by now; a store without this one would never open again.
        if keys::wrapped_by(&self.wrapped) == Some(id) {
            return Err(Error::new(
                ErrorKind::Refused,
                format!("the store's own keys are sealed under server key {id}"),
            ));
        }
        self.apply(&Batch { dropped_key: Some(id), ends_sessions: true, ..batch() })?;
        self.keys.forget(id);
        file.remove(id);
        file.replace(self.disk.as_ref())
    }

    /// Seals the store's own keys under the active key, if a rotation was cut short before it did.
    pub(super) fn finish_rotation(&mut self) -> Result<()> {
        let Some(record) = self.unfinished.take() else { return Ok(()) };
        let state = self.state();
        self.apply(&Batch { keys: Some(record), next_row: state.next_row, clock: state.clock, ..Batch::default() })
    }

    /// The key file with the keys of the ring, and the ids of what else is in it: left of a change that failed, and nothing
    /// goes with it.
    fn key_file(&self) -> Result<(KeyFile, Vec<u8>)> {
        let changed = || {
            Error::new(
                ErrorKind::Key,
                "the key file `server.key` was changed or replaced while the store is open; put the right one back",
            )
        };
        let mut file = KeyFile::load(self.disk.as_ref())?.ok_or_else(changed)?;
        let ring = self.keys.ring();
        let ids: Vec<u8> = ring.servers().iter().map(|server| server.id).collect();
        let left = file.keys().iter().map(|key| key.id).filter(|id| !ids.contains(id)).collect();
        let is_ours = file.store_id == *self.keys.store_id() && file.restrict(&ids, ring.active());
        is_ours.then_some((file, left)).ok_or_else(changed)
    }
}
