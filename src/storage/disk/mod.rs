//! The file layer: every byte of a store reaches its directory through [`Disk`] and [`DiskFile`].
//!
//! What lives here: the two traits, their two implementors ([`RealDisk`] over a checked directory of the
//! operating system, [`SimDisk`] in memory, with power cuts for tests) and two helpers for small files. It
//! knows names and bytes, nothing of redb, keys or sessions.
//!
//! Invariants: names are single plain components of one flat directory. What was written is durable after
//! [`DiskFile::sync`]; that a name leads to a file is durable after [`Disk::sync_directory`]; nothing else is.
//!
//! After a crash a file has what was synced and any part of what was not. Nothing here panics on bad input.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::planted::Planted;

mod image;
mod real;
mod sim;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
use unix as platform;
#[cfg(windows)]
use windows as platform;

pub(crate) use real::RealDisk;
pub(crate) use sim::SimDisk;

/// One flat directory of files.
pub(crate) trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Opens a file for reading and writing; `NotFound` if there is none.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file that nobody else may open this way until it is closed; refused if somebody has it open so.
    fn open_alone(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.open(name)
    }

    /// Makes a new, empty file that only its owner can use; `AlreadyExists` if the name is taken.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// The names in the directory. One that is not Unicode comes out altered, so that it can be seen.
    fn names(&self) -> io::Result<Vec<String>>;

    /// Gives a file another name, in one step; a file that had that name before is gone.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Takes a name away; open handles of its file go on working.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes all earlier `create`, `rename` and `remove` durable.
    fn sync_directory(&self) -> io::Result<()>;

    /// Whether a test wants this mistake to be made.
    fn plants(&self, _mistake: Planted) -> bool {
        false
    }
}

/// One open file. Its methods may be called from several threads at once.
pub(crate) trait DiskFile: fmt::Debug + Send + Sync + 'static {
    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Fills the whole buffer from this offset; `UnexpectedEof` if the file ends before.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Writes all bytes at this offset; the file grows if it has to, and a gap reads as zeros.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts the file, or grows it by zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes the bytes and the length durable. After an error nothing is known about what is on the disk,
    /// and calling it again proves nothing.
    fn sync(&self) -> io::Result<()>;
}

/// Why a file or directory is not safe to use, with the command that mends it. Travels inside an
/// `io::Error` of kind `PermissionDenied`.
#[derive(Debug)]
pub(crate) struct Refusal(String);

impl Refusal {
    pub(crate) fn error(message: impl Into<String>) -> io::Error {
        io::Error::new(io::ErrorKind::PermissionDenied, Self(message.into()))
    }

    /// The refusal inside this error, if it is one.
    pub(crate) fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}

/// Whether an operation failed because there is no room, on the disk or for its user.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The whole of a small file; `None` if it is missing, an error if it is larger than the limit.
pub(crate) fn read_small(disk: &dyn Disk, name: &str, limit_bytes: usize) -> io::Result<Option<Vec<u8>>> {
    let file = match disk.open(name) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let len = file.len()?;
    let len = match usize::try_from(len) {
        Ok(small) if small <= limit_bytes => small,
        _ => {
            let message = format!("`{name}` has {len} bytes where at most {limit_bytes} are expected");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
    };
    let mut bytes = vec![0; len];
    file.read_at(0, &mut bytes)?;
    Ok(Some(bytes))
}

/// Puts these bytes in place of a small file, in one step: after a crash the file has all of the old content
/// or all of the new. The caller sees to it that nobody else replaces the same file at this time.
///
/// When it fails before the rename the old content is untouched; when it fails later, either may be there.
pub(crate) fn replace(disk: &dyn Disk, name: &str, bytes: &[u8]) -> io::Result<()> {
    let new = format!("{name}.new");
    match disk.remove(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    if let Err(error) = write_new(disk, &new, bytes) {
        // Room on a full disk matters more than this second error; a file that stays is removed next time.
        _ = disk.remove(&new);
        return Err(error);
    }
    disk.rename(&new, name)?;
    disk.sync_directory()
}

fn write_new(disk: &dyn Disk, name: &str, bytes: &[u8]) -> io::Result<()> {
    let file = disk.create(name)?;
    file.write_at(0, bytes)?;
    file.sync()
}

/// Refuses a name that is not one plain component of the directory.
fn check_name(name: &str) -> io::Result<()> {
    let plain = !matches!(name, "" | "." | "..") && !name.contains(['/', '\\', ':', '\0']);
    if plain {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is not a plain file name")))
}

/// A path as a shell takes it, for messages and for the commands in them.
pub(crate) fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_small_takes_up_to_the_limit() {
        let disk = SimDisk::memory();
        assert_eq!(read_small(&disk, "key", 4).unwrap(), None);
        replace(&disk, "key", b"four").unwrap();
        assert_eq!(read_small(&disk, "key", 4).unwrap().as_deref(), Some(&b"four"[..]));
        assert_eq!(read_small(&disk, "key", 3).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn replace_is_all_or_nothing_at_every_cut() {
        const OLD: &[u8] = &[b'o'; 1500];
        const NEW: &[u8] = &[b'n'; 2100];
        let (mut old, mut new) = (0, 0);
        for (stale, seed) in (0..400).map(|case| (case % 2 == 0, case)) {
            for cut in 0.. {
                let disk = SimDisk::simulated(seed);
                replace(&disk, "key", OLD).unwrap();
                if stale {
                    disk.overwrite("key.new", |bytes| bytes.extend(b"left by an earlier crash"));
                }
                disk.power_cut_after(disk.operations() + cut);
                let result = replace(&disk, "key", NEW);
                disk.restore_power();
                let found = read_small(&disk, "key", 9999).unwrap().expect("one of the two is there");
                assert!(found == OLD || found == NEW, "seed {seed}, cut {cut}: {} bytes", found.len());
                if result.is_ok() {
                    assert_eq!(found, NEW, "seed {seed}: replaced, yet old after the cut");
                    break;
                }
                if found == OLD {
                    old += 1
                } else {
                    new += 1
                }
                replace(&disk, "key", b"again").expect("whatever was left is no hindrance");
            }
        }
        assert!(old > 0 && new > 0, "old {old}, new {new}");
    }

    #[test]
    fn replace_that_fails_keeps_the_old_content_or_has_the_new() {
        for failing in 0..6 {
            let disk = SimDisk::simulated(failing);
            replace(&disk, "key", b"old").unwrap();
            let before = disk.operations();
            disk.fail_from(before + failing, 1, io::ErrorKind::StorageFull);
            let error = replace(&disk, "key", b"new").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
            let found = read_small(&disk, "key", 9).unwrap().unwrap();
            // Remove, create, write, sync and rename leave the old one; only the directory sync comes later.
            assert_eq!(found, if failing < 5 { b"old" } else { b"new" }, "failing {failing}");
            replace(&disk, "key", b"end").unwrap();
            assert_eq!(disk.names().unwrap(), ["key"]);
        }
    }

    #[test]
    fn names_are_plain() {
        for name in ["", ".", "..", "a/b", "/a", "a\\b", "a:b", "a\0b"] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        check_name("store.redb").unwrap();
        check_name("..a").unwrap();
    }

    #[test]
    fn quoted_survives_a_shell() {
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
