//! Measuring and printing: three runs of everything, the median first.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use dwell::Sessions;

pub(crate) const RUNS: usize = 3;

/// One run: operations and how long they took together, and what they cost.
#[derive(Clone, Debug, Default)]
pub(crate) struct Run {
    pub(crate) operations: u64,
    pub(crate) time: Duration,
    /// Of each operation, where they take long enough for a clock reading not to count.
    pub(crate) latencies: Vec<Duration>,
    pub(crate) written_bytes: Option<u64>,
    pub(crate) commits: Option<u64>,
}

impl Run {
    fn rate(&self) -> f64 {
        self.operations as f64 / self.time.as_secs_f64()
    }

    fn per_mille_us(&mut self, share: usize) -> Option<f64> {
        self.latencies.sort_unstable();
        let at = self.latencies.len() * share / 1000;
        self.latencies.get(at).map(|latency| latency.as_secs_f64() * 1e6)
    }
}

/// Median, smallest and largest of some figures.
pub(crate) fn median(mut figures: Vec<f64>) -> (f64, f64, f64) {
    figures.sort_unstable_by(f64::total_cmp);
    let pick = |at: usize| figures.get(at).copied().unwrap_or_default();
    (pick(figures.len() / 2), pick(0), pick(figures.len().saturating_sub(1)))
}

/// Prints a line of the table and returns the median rate.
pub(crate) fn row(what: &str, runs: &[Run]) -> f64 {
    let (middle, least, most) = median(runs.iter().map(Run::rate).collect());
    let mut line = format!("  {what:<48} {:>11} /s  ({} .. {})", short(middle), short(least), short(most));
    let each = |total: fn(&Run) -> Option<u64>| -> Option<f64> {
        let totals: Option<Vec<f64>> =
            runs.iter().map(|run| Some(total(run)? as f64 / run.operations as f64)).collect();
        totals.map(|totals| median(totals).0)
    };
    let mut runs_sorted = runs.to_vec();
    let mut per_mille = |share| {
        let of_runs: Option<Vec<f64>> = runs_sorted.iter_mut().map(|run| run.per_mille_us(share)).collect();
        of_runs.map(|of_runs| median(of_runs).0)
    };
    if let (Some(half), Some(slow)) = (per_mille(500), per_mille(990)) {
        let slowest = per_mille(999).unwrap_or(slow);
        let _ = write!(line, "  p50 {half:.0} us, p99 {slow:.0} us, p99.9 {slowest:.0} us");
    }
    if let Some(bytes) = each(|run| run.written_bytes) {
        let _ = write!(line, "  {bytes:.0} B written");
    }
    if let Some(commits) = each(|run| run.commits) {
        let _ = write!(line, "  {commits:.3} commits");
    }
    println!("{line}");
    middle
}

pub(crate) fn note(what: &str, text: &str) {
    println!("  {what:<48} {text}");
}

pub(crate) fn heading(text: &str) {
    println!("\n{text}");
}

pub(crate) fn short(rate: f64) -> String {
    match rate {
        rate if rate >= 1e6 => format!("{:.2} M", rate / 1e6),
        rate if rate >= 1e4 => format!("{:.1} k", rate / 1e3),
        rate => format!("{rate:.0}"),
    }
}

/// Which machine, which system, which file system, and whether it was quiet.
pub(crate) fn environment(home: &Path) {
    let _ = DISK.set(counters_of(home));
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu_info = read("/proc/cpuinfo");
    let cpu = cpu_info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    println!(
        "dwell {}, {} {} {}, {} x {}, {} on {}, load {}",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        kernel.trim(),
        std::env::consts::ARCH,
        cpus,
        cpu.map_or("unknown processor", |(_, name)| name),
        home.display(),
        file_system(home, &read("/proc/mounts")).unwrap_or("an unknown file system"),
        load.split(' ').next().unwrap_or("unknown"),
    );
}

fn file_system<'a>(home: &Path, mounts: &'a str) -> Option<&'a str> {
    let mounted = mounts.lines().filter_map(|line| {
        let mut parts = line.split(' ').skip(1);
        let (place, kind) = (parts.next()?, parts.next()?);
        home.starts_with(place).then_some((place.len(), kind))
    });
    mounted.max_by_key(|&(length, _)| length).map(|(_, kind)| kind)
}

/// What the store says of itself.
pub(crate) fn stats(sessions: &Sessions) {
    let stats = sessions.stats();
    let text = format!(
        "{} live, {} of them cached in {} MiB of 3 GiB, {} commits",
        stats.sessions,
        stats.cached,
        stats.cached_bytes >> 20,
        stats.commits
    );
    note("filled", &text);
}

/// Bytes that the disk under the stores was given, by anybody, where the system counts them. What it counts for a process is
/// whole pieces of its cache, of which a small write in the middle of a file touches a large one.
pub(crate) fn written_bytes() -> Option<u64> {
    let text = fs::read_to_string(DISK.get()?.as_ref()?).ok()?;
    let sectors: u64 = text.split_whitespace().nth(SECTORS_WRITTEN)?.parse().ok()?;
    Some(sectors * SECTOR_BYTES)
}

/// The counters of the disk that the stores are on.
static DISK: OnceLock<Option<PathBuf>> = OnceLock::new();
const SECTORS_WRITTEN: usize = 6;
const SECTOR_BYTES: u64 = 512;

#[cfg(unix)]
fn counters_of(home: &Path) -> Option<PathBuf> {
    use std::os::unix::fs::MetadataExt;
    let device = fs::metadata(home).ok()?.dev();
    let major = (device >> 8 & 0xFFF) | (device >> 32 & !0xFFF);
    let minor = (device & 0xFF) | (device >> 12 & 0xF_FF00);
    let path = PathBuf::from(format!("/sys/dev/block/{major}:{minor}/stat"));
    path.exists().then_some(path)
}

#[cfg(not(unix))]
fn counters_of(_home: &Path) -> Option<PathBuf> {
    None
}

/// Memory of this process, where the system tells.
pub(crate) fn resident_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}
