//! A directory of the operating system.
//!
//! What lives here: [`RealDisk`] and its files, the same on every platform; what differs is in `unix.rs` and
//! `windows.rs`. It may know names and bytes, nothing of what they mean.
//!
//! Invariants: the directory is held open, and every file is opened relative to it without following a link
//! and checked on its own descriptor before a byte of it is used. So nobody can exchange anything between
//! the check and the use. The path is kept for messages only.
//!
//! Nothing is buffered here, so a crash loses nothing that the operating system had taken. Does not panic.

use std::fs::File;
#[cfg(unix)]
use std::fs::TryLockError;
use std::io;
use std::path::Path;
use std::sync::Arc;

#[cfg(unix)]
use super::Refusal;
use super::{Disk, DiskFile, check_name, platform};

/// A directory that was safe to use when it was opened.
#[derive(Debug)]
pub(crate) struct RealDisk {
    directory: platform::Directory,
}

impl RealDisk {
    /// Opens a directory that exists; refuses a link, a foreign owner and access by others.
    pub(crate) fn open_directory(path: &Path) -> io::Result<Self> {
        Ok(Self { directory: platform::Directory::open(path)? })
    }

    /// Makes a directory that only its owner can use, and opens it.
    pub(crate) fn create_directory(path: &Path) -> io::Result<Self> {
        Ok(Self { directory: platform::Directory::create(path)? })
    }

    /// Refuses if some other user could put another directory in this one's place.
    pub(crate) fn check_ancestors(path: &Path) -> io::Result<()> {
        platform::check_ancestors(path)
    }

    /// Makes it durable that this directory exists.
    pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
        platform::sync_parent(path)
    }

    /// The plain handle of a file that is there or is made now, for locking it.
    pub(crate) fn open_or_create_file(&self, name: &str) -> io::Result<File> {
        check_name(name)?;
        match self.directory.open_file(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => return result,
        }
        match self.directory.create_file(name) {
            // Another opener made it in between.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.directory.open_file(name),
            result => result,
        }
    }
}

impl Disk for RealDisk {
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        check_name(name)?;
        Ok(Arc::new(RealFile(self.directory.open_file(name)?)))
    }

    // Not on Windows, where a locked file could not be copied either.
    #[cfg(unix)]
    fn open_alone(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        check_name(name)?;
        let file = RealFile(self.directory.open_file(name)?);
        match file.0.try_lock() {
            Ok(()) => Ok(Arc::new(file)),
            Err(TryLockError::Error(error)) => Err(error),
            Err(TryLockError::WouldBlock) => Err(Refusal::error(format!(
                "`{name}` is in use by another opener, although the file `lock` is free: never remove `lock`"
            ))),
        }
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        check_name(name)?;
        Ok(Arc::new(RealFile(self.directory.create_file(name)?)))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        self.directory.names()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check_name(from)?;
        check_name(to)?;
        self.directory.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        check_name(name)?;
        self.directory.remove(name)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.directory.sync()
    }
}

#[derive(Debug)]
struct RealFile(File);

impl Drop for RealFile {
    fn drop(&mut self) {
        // As with the directory's lock: a child process on its way to its program may hold the descriptor longer. If
        // this fails, or the file was not locked, closing is all there is to do.
        _ = self.0.unlock();
    }
}

impl DiskFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        platform::read_at(&self.0, offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        platform::write_at(&self.0, offset, bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    // `fdatasync`, which includes the length; on macOS std asks the drive itself to flush.
    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

    use super::*;

    const NOBODY: u32 = 65534;

    fn disk() -> (tempfile::TempDir, RealDisk) {
        let home = tempfile::tempdir().unwrap();
        let disk = RealDisk::create_directory(&home.path().join("store")).unwrap();
        (home, disk)
    }

    fn refusal(disk: &RealDisk, name: &str) -> String {
        let error = disk.open(name).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        Refusal::of(&error).unwrap_or_else(|| panic!("not a refusal: {error}")).to_string()
    }

    #[test]
    fn bytes_come_back() {
        let (_home, disk) = disk();
        assert_eq!(disk.open("a").unwrap_err().kind(), io::ErrorKind::NotFound);
        let file = disk.create("a").unwrap();
        assert_eq!(disk.create("a").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        file.write_at(3, b"abc").unwrap();
        file.sync().unwrap();
        assert_eq!(file.len().unwrap(), 6);
        let mut buffer = [9; 6];
        disk.open("a").unwrap().read_at(0, &mut buffer).unwrap();
        assert_eq!(&buffer, b"\0\0\0abc");
        assert_eq!(file.read_at(1, &mut buffer).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        file.set_len(4).unwrap();
        disk.create("b").unwrap();
        disk.rename("a", "b").unwrap();
        disk.sync_directory().unwrap();
        assert_eq!(disk.names().unwrap(), ["b"]);
        assert_eq!(disk.open("b").unwrap().len().unwrap(), 4);
        disk.remove("b").unwrap();
        assert_eq!(disk.remove("b").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(disk.names().unwrap().is_empty());
    }

    #[test]
    fn modes_are_for_the_owner_only() {
        let (home, disk) = disk();
        disk.create("a").unwrap();
        disk.open_or_create_file("lock").unwrap();
        let mode = |path: &str| fs::metadata(home.path().join(path)).unwrap().mode() & 0o7777;
        assert_eq!([mode("store"), mode("store/a"), mode("store/lock")], [0o700, 0o600, 0o600]);
    }

    #[test]
    fn files_stay_in_the_directory_that_was_opened() {
        let (home, disk) = disk();
        disk.create("a").unwrap();
        fs::rename(home.path().join("store"), home.path().join("moved")).unwrap();
        fs::create_dir(home.path().join("store")).unwrap();
        disk.open("a").unwrap();
        disk.create("b").unwrap();
        assert!(home.path().join("moved/b").exists());
        assert!(disk.create("../b").is_err());
        assert!(disk.open("/etc/passwd").is_err());
    }

    #[test]
    fn links_are_refused() {
        let (home, disk) = disk();
        let store = home.path().join("store");
        disk.create("a").unwrap();
        symlink(store.join("a"), store.join("soft")).unwrap();
        assert!(refusal(&disk, "soft").contains("is a symbolic link"));
        symlink(store.join("nothing"), store.join("dangling")).unwrap();
        assert!(refusal(&disk, "dangling").contains("is a symbolic link"));
        assert_eq!(disk.create("dangling").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        fs::hard_link(store.join("a"), store.join("hard")).unwrap();
        for name in ["a", "hard"] {
            let message = refusal(&disk, name);
            assert!(message.contains("2 hard links") && message.contains("cp -p '"), "{message}");
        }
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let (home, disk) = disk();
        let store = home.path().join("store");
        fs::create_dir(store.join("directory")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(store.join("socket")).unwrap();
        let pipe = std::process::Command::new("mkfifo").args(["-m", "600"]).arg(store.join("pipe")).status();
        assert!(pipe.unwrap().success());
        for name in ["directory", "socket", "pipe"] {
            assert!(refusal(&disk, name).contains("not a regular file"), "{name}");
        }
    }

    #[test]
    fn access_by_others_is_refused_with_the_command_that_mends_it() {
        let (home, disk) = disk();
        disk.create("a").unwrap();
        let path = fs::canonicalize(home.path()).unwrap().join("store/a");
        for mode in [0o640, 0o620, 0o610, 0o604, 0o602, 0o601, 0o666] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let message = refusal(&disk, "a");
            assert!(message.contains(&format!("(mode {mode:04o})")), "{message}");
            let command = message.split('`').nth(1).unwrap();
            let done = std::process::Command::new("sh").args(["-c", command]).status().unwrap();
            assert!(done.success(), "{command}");
            disk.open("a").unwrap();
        }
    }

    #[test]
    fn a_foreign_owner_is_refused() {
        if !rustix::process::geteuid().is_root() {
            println!("not root: cannot give a file to another user, nothing tested");
            return;
        }
        let (home, disk) = disk();
        disk.create("a").unwrap();
        let path = home.path().join("store/a");
        chown(&path, Some(NOBODY), None).unwrap();
        let message = refusal(&disk, "a");
        assert!(message.contains("belongs to user 65534") && message.contains("chown 0 '"), "{message}");
    }
}
