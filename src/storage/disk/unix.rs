//! Directories and files on Unix.
//!
//! What lives here: the system calls behind `RealDisk` and the checks of owner, mode and links. It may know
//! names and modes, nothing of what files mean.
//!
//! Invariants: each check looks at a descriptor, never at a path, with one exception: the ancestors are
//! looked at from the root down. That is sound because each step is safe by the one before it: nobody but us
//! and root can exchange an entry of a directory that passed (with the sticky bit: an entry of ours or
//! root's). Modes do not depend on the umask.
//!
//! A crash leaves what the file system had made durable. Does not panic.

use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::retry_on_intr;

use super::{Refusal, quoted};

/// An open directory; its path is for messages.
#[derive(Debug)]
pub(super) struct Directory {
    handle: File,
    path: PathBuf,
}

impl Directory {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let handle = match open_directory(path, OFlags::NOFOLLOW) {
            Ok(handle) => handle,
            Err(error) => return Err(explained(path, error, check_directory)),
        };
        check_directory(path, &handle.metadata()?)?;
        Ok(Self { handle, path: path.to_owned() })
    }

    pub(super) fn create(path: &Path) -> io::Result<Self> {
        rustix::fs::mkdir(path, Mode::RWXU)?;
        let handle = open_directory(path, OFlags::NOFOLLOW)?;
        // The owner is checked before the mode is touched: this may already be somebody else's directory.
        check_owner(path, &handle.metadata()?)?;
        handle.set_permissions(Permissions::from_mode(DIRECTORY_MODE))?;
        check_directory(path, &handle.metadata()?)?;
        Ok(Self { handle, path: path.to_owned() })
    }

    pub(super) fn open_file(&self, name: &str) -> io::Result<File> {
        let path = self.path.join(name);
        let file = match self.open_at(name, OFlags::empty()) {
            Ok(file) => file,
            Err(error) => return Err(explained(&path, error, check_file)),
        };
        check_file(&path, &file.metadata()?)?;
        Ok(file)
    }

    pub(super) fn create_file(&self, name: &str) -> io::Result<File> {
        let file = self.open_at(name, OFlags::CREATE | OFlags::EXCL)?;
        file.set_permissions(Permissions::from_mode(FILE_MODE))?;
        check_file(&self.path.join(name), &file.metadata()?)?;
        Ok(file)
    }

    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.handle)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy();
            if name != "." && name != ".." {
                names.push(name.into_owned());
            }
        }
        Ok(names)
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.handle, from, &self.handle, to)?)
    }

    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.handle, name, AtFlags::empty())?)
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    fn open_at(&self, name: &str, more: OFlags) -> io::Result<File> {
        // Without blocking, so that a pipe put in the way does not hold us up before it is refused.
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY | more;
        let mode = Mode::RUSR | Mode::WUSR;
        Ok(retry_on_intr(|| rustix::fs::openat(&self.handle, name, flags, mode))?.into())
    }
}

/// Refuses if an ancestor of this absolute path without links lets another user exchange what is below it.
pub(super) fn check_ancestors(path: &Path) -> io::Result<()> {
    let mut ancestors: Vec<&Path> = path.ancestors().skip(1).collect();
    ancestors.reverse();
    for ancestor in ancestors {
        let metadata = fs::symlink_metadata(ancestor)?;
        let (shown, owner) = (quoted(ancestor), metadata.uid());
        if !metadata.is_dir() {
            return Err(Refusal::error(format!("{shown} is not a directory")));
        }
        if owner != ROOT && owner != effective_user() {
            let message = format!(
                "the parent directory {shown} belongs to user {owner}, who could exchange what is in it: \
                 choose another place, or run `chown {} {shown}` as root",
                effective_user()
            );
            return Err(Refusal::error(message));
        }
        let mode = metadata.mode() & 0o7777;
        if mode & WRITE_BY_ALL != 0 && mode & STICKY == 0 {
            return Err(Refusal::error(format!(
                "any user can exchange what is in the parent directory {shown} (mode {mode:04o}): run `chmod o-w {shown}`"
            )));
        }
    }
    Ok(())
}

pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => open_directory(parent, OFlags::empty())?.sync_all(),
        None => Ok(()),
    }
}

pub(super) fn read_at(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    file.read_exact_at(buffer, offset)
}

pub(super) fn write_at(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    file.write_all_at(bytes, offset)
}

fn open_directory(path: &Path, more: OFlags) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | more;
    Ok(retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()))?.into())
}

/// The refusal behind an open that failed, if what is there would be refused; otherwise the error itself.
/// For the message only: nothing is opened after this look at the path.
fn explained(path: &Path, error: io::Error, check: fn(&Path, &Metadata) -> io::Result<()>) -> io::Error {
    if error.kind() == io::ErrorKind::NotFound {
        return error;
    }
    match fs::symlink_metadata(path).map(|metadata| check(path, &metadata)) {
        Ok(Err(refusal)) => refusal,
        _ => error,
    }
}

fn check_directory(path: &Path, metadata: &Metadata) -> io::Result<()> {
    let shown = quoted(path);
    if metadata.is_symlink() {
        return Err(Refusal::error(format!("{shown} is a symbolic link: name the directory that it leads to")));
    }
    if !metadata.is_dir() {
        return Err(Refusal::error(format!("{shown} is not a directory")));
    }
    check_owner(path, metadata)?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o777 != DIRECTORY_MODE {
        let message = if mode & FOR_OTHERS != 0 { "is open to other users" } else { "is closed to its own user" };
        return Err(Refusal::error(format!("{shown} {message} (mode {mode:04o}): run `chmod 700 {shown}`")));
    }
    Ok(())
}

fn check_file(path: &Path, metadata: &Metadata) -> io::Result<()> {
    let shown = quoted(path);
    if metadata.is_symlink() {
        let message = format!("{shown} is a symbolic link: move the file itself here, or run `rm {shown}`");
        return Err(Refusal::error(message));
    }
    if !metadata.is_file() {
        let message = format!("{shown} is not a regular file: move it away, for instance `mv {shown} {shown}.other`");
        return Err(Refusal::error(message));
    }
    check_owner(path, metadata)?;
    let links = metadata.nlink();
    if links != 1 {
        return Err(Refusal::error(format!(
            "{shown} has {links} hard links, so it can be changed under another name: \
             run `cp -p {shown} {shown}.new && mv {shown}.new {shown}`"
        )));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & FOR_OTHERS != 0 {
        let message = format!("{shown} is open to other users (mode {mode:04o}): run `chmod 600 {shown}`");
        return Err(Refusal::error(message));
    }
    Ok(())
}

fn check_owner(path: &Path, metadata: &Metadata) -> io::Result<()> {
    let (owner, user, shown) = (metadata.uid(), effective_user(), quoted(path));
    if owner == user {
        return Ok(());
    }
    Err(Refusal::error(format!(
        "{shown} belongs to user {owner}, not to {user}: run this as that user, or `chown {user} {shown}` as root"
    )))
}

fn effective_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

const ROOT: u32 = 0;
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
const FOR_OTHERS: u32 = 0o077;
const WRITE_BY_ALL: u32 = 0o002;
const STICKY: u32 = 0o1000;
