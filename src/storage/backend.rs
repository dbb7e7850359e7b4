//! The bridge from redb to our files: redb reads and writes through `Disk`, so that every operation can be
//! simulated and counted.
//!
//! It knows redb's backend trait and `disk`. Invariant: it adds nothing and hides no error. Locking is not its
//! business: the directory is locked before any file is opened.

use std::io;
use std::sync::Arc;

use redb::StorageBackend;

use super::disk::DiskFile;

#[derive(Debug)]
pub(crate) struct Backend(pub(crate) Arc<dyn DiskFile>);

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, data)
    }
}
