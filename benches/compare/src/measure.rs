//! Rates, waits and what the disk was given.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

/// One round of one store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Round {
    pub(crate) operations: u64,
    pub(crate) time: Duration,
    pub(crate) waits: Vec<Duration>,
    pub(crate) bytes: Option<u64>,
    pub(crate) flushes: Option<u64>,
}

/// The figures of one round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    pub(crate) ops_per_s: f64,
    /// Half of all waits, 99 %, 99.9 %, in microseconds.
    pub(crate) waits_us: [f64; 3],
    pub(crate) bytes_per_op: Option<f64>,
    pub(crate) fsyncs_per_op: Option<f64>,
}

impl Round {
    pub(crate) fn figures(&mut self) -> Figures {
        self.waits.sort_unstable();
        let operations = self.operations.max(1) as f64;
        let wait = |per_mille: usize| {
            let at = (self.waits.len() * per_mille / 1000).min(self.waits.len().saturating_sub(1));
            self.waits.get(at).map_or(0.0, |wait| wait.as_secs_f64() * 1e6)
        };
        Figures {
            ops_per_s: self.operations as f64 / self.time.as_secs_f64(),
            waits_us: [500, 990, 999].map(wait),
            bytes_per_op: self.bytes.map(|bytes| bytes as f64 / operations),
            fsyncs_per_op: self.flushes.map(|flushes| flushes as f64 / operations),
        }
    }
}

/// Median, smallest and largest.
pub(crate) fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_unstable_by(f64::total_cmp);
    let at = |place: usize| values.get(place).copied().unwrap_or_default();
    [at(values.len() / 2), at(0), at(values.len().saturating_sub(1))]
}

/// Bytes and flushes that the disk was given so far, by anybody, where the system counts them. What it counts for a process
/// is whole pieces of its cache, of which a small write touches a large one.
pub(crate) fn disk() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string(DISK.get()?.as_ref()?).ok()?;
    let fields: Vec<u64> = text.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    Some((fields.get(SECTORS_WRITTEN)? * SECTOR_BYTES, *fields.get(FLUSHES)?))
}

static DISK: OnceLock<Option<PathBuf>> = OnceLock::new();
const SECTORS_WRITTEN: usize = 6;
const FLUSHES: usize = 15;
const SECTOR_BYTES: u64 = 512;

#[cfg(unix)]
pub(crate) fn count_disk_of(home: &Path) {
    use std::os::unix::fs::MetadataExt as _;
    let find = || {
        let device = std::fs::metadata(home).ok()?.dev();
        let major = (device >> 8 & 0xFFF) | (device >> 32 & !0xFFF);
        let minor = (device & 0xFF) | (device >> 12 & 0xF_FF00);
        let path = PathBuf::from(format!("/sys/dev/block/{major}:{minor}/stat"));
        path.exists().then_some(path)
    };
    _ = DISK.set(find());
}

#[cfg(not(unix))]
pub(crate) fn count_disk_of(_home: &Path) {
    _ = DISK.set(None);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_of_all_operations() {
        let waits = (1..=1000).rev().map(Duration::from_micros).collect();
        let mut round =
            Round { operations: 1000, time: Duration::from_secs(2), waits, bytes: Some(4_096_000), flushes: None };
        let figures = round.figures();
        assert_eq!((figures.ops_per_s, figures.bytes_per_op, figures.fsyncs_per_op), (500.0, Some(4096.0), None));
        assert!((figures.waits_us[0] - 501.0).abs() < 1e-6 && (figures.waits_us[2] - 1000.0).abs() < 1e-6);
        assert_eq!(Round::default().figures().waits_us, [0.0; 3]);
    }

    #[test]
    fn the_middle_counts() {
        assert_eq!(spread(vec![3.0, 1.0, 2.0]), [2.0, 1.0, 3.0]);
    }
}
