//! What has to be on the machine, and what is said where it is not.

use std::env;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The program of this name. System programs count too: Debian keeps nginx out of people's `PATH`.
fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    directories.map(|directory| directory.join(name)).find(|file| file.is_file())
}

/// The program of this name. Without it there is no `what` to tell this story with, or the part of it that comes now:
/// said for each story, because a story that was not told passes and proves nothing.
pub(crate) fn needed(name: &str, what: &str, story: &str) -> Option<PathBuf> {
    let found = program(name);
    if found.is_none() {
        assert!(
            env::var_os("DWELL_BROWSER").is_none_or(|value| value != "require"),
            "`{name}` is not installed, and DWELL_BROWSER=require asks for it"
        );
        // Not by `eprintln!`, which the test runner keeps to itself unless the test fails.
        let _ = writeln!(io::stderr(), "\n!!! story `{story}`: skipped: no {what} (`{name}` is not installed)\n");
    }
    found
}

/// Whether this is root, for whom Chromium's sandbox does not work.
pub(crate) fn is_root() -> bool {
    Path::new("/proc/self").metadata().is_ok_and(|metadata| metadata.uid() == 0)
}
