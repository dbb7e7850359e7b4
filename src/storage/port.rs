//! The port file: which port was listened on last, where the system picked one.
//!
//! It knows one small file with a number in decimal. Nothing depends on it: one that is missing or makes no sense is none.

use super::disk::{self, Disk};
use super::schema::PORT_FILE;

/// Digits of the largest port, and a line end.
const PORT_BYTES_MAX: usize = 6;

pub(crate) fn read(disk: &dyn Disk) -> Option<u16> {
    let bytes = disk::read_small(disk, PORT_FILE, PORT_BYTES_MAX).ok()??;
    std::str::from_utf8(&bytes).ok()?.trim_end().parse().ok().filter(|&port| port != 0)
}

/// If that fails, the next start picks another.
pub(crate) fn write(disk: &dyn Disk, port: u16) {
    let _ = disk::replace(disk, PORT_FILE, format!("{port}\n").as_bytes());
}
