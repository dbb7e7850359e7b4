//! Heap memory of an open store, for each session: `cargo bench --bench memory`.
//!
//! A store is filled, closed and opened again, so that no session's data is in memory: what was allocated in
//! between is what deciding about tokens takes. Every byte is counted by the allocator; it is a benchmark of its own,
//! because the counting would slow the others down. Takes about a minute; `-- --quick` makes it small.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "it prints a table and stops at the first failure")]

use std::path::Path;
use std::time::{Duration, Instant};

use dwell::{AtLimit, Options, Sessions};
use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

fn main() {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let sessions = if quick { 10_000 } else { 1_000_000 };
    for per_principal in [1, 20] {
        measure(sessions, per_principal);
    }
}

fn measure(count: usize, per_principal: usize) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("sessions");
    fill(&path, count, per_principal);
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    let sessions = options().open(&path).unwrap();
    let peak = HEAP.peak_usage();
    let settled = settled(&sessions) - before;
    let stats = sessions.stats();
    assert_eq!((stats.restored, stats.cached), (count, 0));
    let principals = stats.principals;
    let each = |bytes: usize| bytes as f64 / count as f64;
    println!(
        "{count} sessions of {principals} principals: {:.1} B a session (timers {:.1} B of it), {:.1} B at the peak of \
         opening; {} MiB in all",
        each(settled),
        each(stats.timer_bytes),
        each(peak - before),
        settled >> 20,
    );
    sessions.close().unwrap();
}

/// The heap once the timers of all sessions are set, which goes on behind the opening.
fn settled(sessions: &Sessions) -> usize {
    let (begun, mut last) = (Instant::now(), (0, Instant::now()));
    while last.1.elapsed() < Duration::from_millis(500) && begun.elapsed() < Duration::from_secs(20) {
        let now = HEAP.current_usage();
        if last.0 != now {
            last = (now, Instant::now());
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    assert!(sessions.stats().trouble.is_none());
    last.0
}

fn options() -> Options {
    // The smallest page cache, so that pages of the file do not count.
    Options::new().sessions_max(2_000_000).sessions_per_principal(1000, AtLimit::Refuse).page_cache_bytes(1)
}

fn fill(path: &Path, count: usize, per_principal: usize) {
    let sessions = options().page_cache_bytes(256 << 20).open(path).unwrap();
    let numbers: Vec<usize> = (0..count).collect();
    for chunk in numbers.chunks(20_000) {
        let sign_in = |number| sessions.start().sign_in(format!("person-{}", number / per_principal)).unwrap();
        let receipts: Vec<_> = chunk.iter().copied().map(sign_in).collect();
        receipts.into_iter().for_each(|receipt| drop(receipt.blocking_wait().unwrap()));
    }
    sessions.close().unwrap();
}
