//! Taking the directory of a store, or making it.
//!
//! What lives here: [`open`] with its checks, and [`DirectoryLock`]. It may know the names of our files and
//! the file layer, nothing of what the files hold.
//!
//! Invariants: whoever has a [`DirectoryLock`] is alone in the directory, in this process and among all
//! others. The file `lock` is never renamed or removed: two openers would then hold two different files.
//!
//! The operating system releases the lock when the process dies, however it dies. Does not panic.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::disk::{Disk, RealDisk, Refusal, quoted};
use crate::error::{Error, ErrorKind, Result};

/// The proof that this is the only opener of the directory. Dropping it lets the next one in.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    file: File,
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // Closing alone is not enough: a child process that another thread is starting right now still has
        // the descriptor, until it runs its program. If this fails, closing is all that is left.
        // `releasing_the_lock_does_not_wait_for_other_holders_of_the_descriptor` holds this.
        _ = self.file.unlock();
    }
}

/// Takes the directory, or makes it if only the last component of the path is missing, and locks it.
///
/// Blocks for up to `wait_for_lock` while somebody else has it; zero asks once.
pub(crate) fn open(path: &Path, wait_for_lock: Duration) -> Result<(Arc<RealDisk>, DirectoryLock)> {
    let path = resolve(path)?;
    let failed = |error| refused(format!("failed to open the directory {}", quoted(&path)), error);
    RealDisk::check_ancestors(&path).map_err(failed)?;
    let (disk, made) = match RealDisk::open_directory(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(&path)?,
        Err(error) => {
            // Nobody should be told to close a directory like `/tmp` to others.
            check_contents(&path, &names_by_path(&path))?;
            return Err(failed(error));
        }
        Ok(disk) => (disk, false),
    };
    let names = disk.names().map_err(failed)?;
    check_contents(&path, &names)?;
    if !names.iter().any(|name| name == STORE) {
        // Its making may never have become durable, here or in a run that crashed. When somebody else has
        // made it below a parent that we cannot read, that is in their hands.
        match RealDisk::sync_parent(&path) {
            Err(error) if made => return Err(failed(error)),
            _ => {}
        }
    }
    let lock = lock(&disk, &path, wait_for_lock)?;
    Ok((Arc::new(disk), lock))
}

/// The crate's error for a file or directory that could not be used. A refusal goes into the message, for it
/// says what to change; any other error is the cause.
pub(crate) fn refused(failed: impl Into<String>, error: io::Error) -> Error {
    let failed = failed.into();
    match Refusal::of(&error) {
        Some(refusal) => Error::new(ErrorKind::Directory, format!("{failed}: {refusal}")),
        None => Error::new(ErrorKind::Directory, failed).because(error),
    }
}

/// The absolute path with all links resolved, except the last component, which must not be one.
fn resolve(path: &Path) -> Result<PathBuf> {
    let Some(name) = path.file_name() else {
        // The root, or one that ends in dots.
        let resolved = fs::canonicalize(path);
        return resolved.map_err(|error| refused(format!("failed to find the directory {}", quoted(path)), error));
    };
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    match fs::canonicalize(parent) {
        Ok(parent) => Ok(parent.join(name)),
        Err(error) => Err(refused(format!("failed to find the parent directory {}", quoted(parent)), error)),
    }
}

fn create(path: &Path) -> Result<(RealDisk, bool)> {
    let created = match RealDisk::create_directory(path) {
        // Another opener made it in between.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => RealDisk::open_directory(path),
        created => created,
    };
    match created {
        Ok(disk) => Ok((disk, true)),
        Err(error) => Err(refused(format!("failed to create the directory {}", quoted(path)), error)),
    }
}

/// Refuses a directory that holds files but none of ours: modes and checks assume that it is ours alone.
fn check_contents(path: &Path, names: &[String]) -> Result<()> {
    if names.iter().any(|name| name == LOCK || name == STORE) {
        return Ok(());
    }
    // A file system's own directory, and what a crash left while a file was being replaced.
    let foreign = names.iter().find(|name| *name != "lost+found" && !name.ends_with(".new"));
    match foreign {
        None => Ok(()),
        Some(name) => Err(Error::new(
            ErrorKind::Directory,
            format!(
                "failed to open the directory {}: it holds other files, such as {name:?}, and no store; \
                 name a directory of its own, new or empty",
                quoted(path)
            ),
        )),
    }
}

/// The names in a directory that could not be opened, as far as they can be seen. For the message only.
fn names_by_path(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn lock(disk: &RealDisk, path: &Path, wait_for_lock: Duration) -> Result<DirectoryLock> {
    let failed = |error| refused(format!("failed to lock the directory {}", quoted(path)), error);
    let file = disk.open_or_create_file(LOCK).map_err(failed)?;
    let mut left = wait_for_lock;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(DirectoryLock { file }),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
            Err(TryLockError::WouldBlock) if left.is_zero() => {
                let shown = quoted(path);
                let message = format!("failed to lock the directory {shown}: it is already open, here or elsewhere");
                return Err(Error::new(ErrorKind::Locked, message));
            }
            Err(TryLockError::WouldBlock) => {}
        }
        // Not `park_timeout`: that could swallow the wake-up that an executor on this thread waits for.
        let pause = left.min(POLL);
        thread::sleep(pause);
        left -= pause;
    }
}

/// Held for life, never renamed or removed.
const LOCK: &str = "lock";
const STORE: &str = "store.redb";
/// How often to ask for the lock: soon enough for a restart, too seldom to be felt.
const POLL: Duration = Duration::from_millis(25);

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::error::Error as _;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    use std::process::Command;
    use std::sync::mpsc;

    use super::*;

    const NOW: Duration = Duration::ZERO;
    const NOBODY: u32 = 65534;

    fn home() -> (tempfile::TempDir, PathBuf) {
        let home = tempfile::tempdir().unwrap();
        set_mode(home.path(), 0o700);
        let store = fs::canonicalize(home.path()).unwrap().join("store");
        (home, store)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn refusal(path: &Path) -> String {
        let error = open(path, NOW).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Directory, "{error:#}");
        error.to_string()
    }

    fn is_root() -> bool {
        let root = rustix::process::geteuid().is_root();
        if !root {
            println!("not root: cannot give a directory to another user, nothing tested");
        }
        root
    }

    #[test]
    fn a_missing_directory_is_made_for_its_owner_only() {
        let (_home, store) = home();
        let (disk, _lock) = open(&store, NOW).unwrap();
        assert_eq!((mode(&store), mode(&store.join("lock"))), (0o700, 0o600));
        assert_eq!(disk.names().unwrap(), ["lock"]);
    }

    #[test]
    fn a_second_opener_is_refused_at_once_and_let_in_after_the_first() {
        let (_home, store) = home();
        let first = open(&store, NOW).unwrap();
        for wait_ms in [0, 30] {
            let error = open(&store, Duration::from_millis(wait_ms)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Locked);
            assert!(error.to_string().contains(&quoted(&store)), "{error}");
        }
        drop(first);
        open(&store, NOW).unwrap();
    }

    #[test]
    fn releasing_the_lock_does_not_wait_for_other_holders_of_the_descriptor() {
        let (_home, store) = home();
        let (_disk, lock) = open(&store, NOW).unwrap();
        let _as_in_a_child = lock.file.try_clone().unwrap();
        drop(lock);
        open(&store, NOW).unwrap();
    }

    #[test]
    fn waiting_for_the_lock_ends_when_it_is_released() {
        let (_home, store) = home();
        let first = open(&store, NOW).unwrap();
        let (started, start) = mpsc::channel();
        let path = store.clone();
        let second = std::thread::spawn(move || {
            started.send(()).unwrap();
            open(&path, Duration::from_secs(60)).map(drop)
        });
        start.recv().unwrap();
        drop(first);
        second.join().unwrap().unwrap();
    }

    #[test]
    fn a_missing_parent_is_named() {
        let (home, _store) = home();
        let error = open(&home.path().join("missing/store"), NOW).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Directory);
        assert!(error.to_string().contains("missing'"), "{error}");
        assert!(error.source().is_some());
    }

    #[test]
    fn access_by_others_is_refused_with_the_command_that_mends_it() {
        let (_home, store) = home();
        fs::create_dir(&store).unwrap();
        for bits in [0o755, 0o770, 0o701, 0o777, 0o1777, 0o500] {
            set_mode(&store, bits);
            let message = refusal(&store);
            let command = format!("chmod 700 {}", quoted(&store));
            assert!(message.contains(&format!("`{command}`")), "{message}");
            assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
            open(&store, NOW).unwrap();
        }
    }

    #[test]
    fn a_foreign_owner_is_refused() {
        if !is_root() {
            return;
        }
        let (home, store) = home();
        fs::create_dir(&store).unwrap();
        set_mode(&store, 0o700);
        chown(&store, Some(NOBODY), None).unwrap();
        let message = refusal(&store);
        assert!(message.contains(&format!("`chown 0 {}`", quoted(&store))), "{message}");
        chown(&store, Some(0), None).unwrap();
        open(&store, NOW).unwrap();
        chown(home.path(), Some(NOBODY), None).unwrap();
        assert!(refusal(&store).contains("parent directory"));
    }

    #[test]
    fn a_parent_that_all_can_write_is_refused_unless_sticky() {
        let (home, store) = home();
        set_mode(home.path(), 0o777);
        let message = refusal(&store);
        assert!(message.contains("`chmod o-w "), "{message}");
        assert!(!store.exists());
        set_mode(home.path(), 0o1777);
        open(&store, NOW).unwrap();
        set_mode(home.path(), 0o777);
        refusal(&store);
    }

    #[test]
    fn what_is_no_directory_is_refused() {
        let (home, store) = home();
        open(&store, NOW).unwrap();
        let link = home.path().join("link");
        symlink(&store, &link).unwrap();
        for path in [link.clone(), link.join("")] {
            let message = refusal(&path);
            assert!(message.contains("is a symbolic link"), "{message}");
        }
        let file = home.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(refusal(&file).contains("is not a directory"));
        refusal(Path::new("/"));
        refusal(Path::new(""));
        let mut pieces = Path::new("/etc/passwd/store").to_owned();
        refusal(&pieces);
        pieces = home.path().join("dangling");
        symlink(home.path().join("nothing"), &pieces).unwrap();
        assert!(refusal(&pieces).contains("is a symbolic link"));
    }

    #[test]
    fn links_above_the_directory_are_fine() {
        let (home, store) = home();
        let real = home.path().join("real");
        fs::create_dir(&real).unwrap();
        set_mode(&real, 0o700);
        symlink(&real, home.path().join("link")).unwrap();
        open(&home.path().join("link/store"), NOW).unwrap();
        assert!(real.join("store/lock").exists());
        assert!(!store.exists());
        // Dots in the path end up in the same directory, under the same lock.
        let _held = open(&home.path().join("link/./store/../store"), NOW).unwrap();
        assert_eq!(open(&real.join("store/."), NOW).unwrap_err().kind(), ErrorKind::Locked);
    }

    #[test]
    fn a_directory_with_foreign_files_only_is_refused() {
        let (_home, store) = home();
        fs::create_dir(&store).unwrap();
        set_mode(&store, 0o700);
        fs::create_dir(store.join("lost+found")).unwrap();
        fs::write(store.join("server.key.new"), "").unwrap();
        fs::write(store.join("notes.txt"), "").unwrap();
        let message = refusal(&store);
        assert!(message.contains("notes.txt") && !store.join("lock").exists(), "{message}");
        // It is not told to close itself to others: it may be somebody's home.
        set_mode(&store, 0o755);
        let message = refusal(&store);
        assert!(message.contains("notes.txt") && !message.contains("chmod"), "{message}");
        set_mode(&store, 0o700);
        fs::rename(store.join("notes.txt"), store.join("store.redb")).unwrap();
        open(&store, NOW).unwrap();
        fs::remove_file(store.join("store.redb")).unwrap();
        fs::remove_file(store.join("lock")).unwrap();
        open(&store, NOW).unwrap();
    }

    #[test]
    fn a_lock_file_that_is_not_safe_is_refused() {
        let (home, store) = home();
        open(&store, NOW).unwrap();
        let lock = store.join("lock");
        set_mode(&lock, 0o644);
        assert!(refusal(&store).contains(&format!("`chmod 600 {}`", quoted(&lock))));
        set_mode(&lock, 0o600);
        fs::hard_link(&lock, home.path().join("other")).unwrap();
        assert!(refusal(&store).contains("2 hard links"));
        fs::remove_file(&lock).unwrap();
        symlink(home.path().join("other"), &lock).unwrap();
        assert!(refusal(&store).contains("is a symbolic link"));
    }
}
