//! Directories and files on Windows.
//!
//! What lives here: the same functions as in `unix.rs`, by path and with std only. Who may use a file is up
//! to the access list that it inherits from its directory: there are no modes to check. It may know names,
//! nothing of what files mean.
//!
//! Invariants: a link in the place of a file or of the directory is refused. Directories cannot be synced
//! here; NTFS keeps the order of changed names. A crash leaves what the file system had made durable. Does not panic.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::windows::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{Refusal, quoted};

/// A directory that was there when it was opened.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
}

impl Directory {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        if fs::symlink_metadata(path)?.is_dir() {
            return Ok(Self { path: path.to_owned() });
        }
        Err(Refusal::error(format!("{} is not a directory itself", quoted(path))))
    }

    pub(super) fn create(path: &Path) -> io::Result<Self> {
        fs::create_dir(path)?;
        Self::open(path)
    }

    pub(super) fn open_file(&self, name: &str) -> io::Result<File> {
        self.opened(name, OpenOptions::new().read(true).write(true))
    }

    pub(super) fn create_file(&self, name: &str) -> io::Result<File> {
        self.opened(name, OpenOptions::new().read(true).write(true).create_new(true))
    }

    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn opened(&self, name: &str, options: &mut OpenOptions) -> io::Result<File> {
        let path = self.path.join(name);
        let file = options.custom_flags(FILE_FLAG_OPEN_REPARSE_POINT).open(&path)?;
        if file.metadata()?.is_file() {
            return Ok(file);
        }
        Err(Refusal::error(format!("{} is not a regular file: move it away", quoted(&path))))
    }
}

/// Nothing to see here without access lists.
pub(super) fn check_ancestors(_path: &Path) -> io::Result<()> {
    Ok(())
}

pub(super) fn sync_parent(_path: &Path) -> io::Result<()> {
    Ok(())
}

pub(super) fn read_at(file: &File, mut offset: u64, mut buffer: &mut [u8]) -> io::Result<()> {
    while !buffer.is_empty() {
        let count = match file.seek_read(buffer, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        offset += count as u64;
        buffer = buffer.split_at_mut(count).1;
    }
    Ok(())
}

pub(super) fn write_at(file: &File, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let count = match file.seek_write(bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        offset += count as u64;
        bytes = bytes.split_at(count).1;
    }
    Ok(())
}

/// Opens a link itself, not what it leads to. From `winbase.h`.
const FILE_FLAG_OPEN_REPARSE_POINT: u32 = 0x0020_0000;
