//! A million sessions that expire in the same second, while somebody else's sessions are loaded.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dwell::{Clock, Sessions, SignIn, Timestamp, Token};
use rand::{RngExt as _, SeedableRng, rngs::ChaCha8Rng};

use crate::report;
use crate::store::{VISITS, fill_by, options};

/// Who the sessions belong to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Whose {
    /// So many sessions for each person.
    People(usize),
    Nobodys,
}

pub(crate) fn all(home: &Path, count: usize) {
    for (name, what, whose) in [
        ("few", "signed in, a thousand for each person", Whose::People(1000)),
        ("many", "signed in, one for each person", Whose::People(1)),
        ("anonymous", "anonymous", Whose::Nobodys),
    ] {
        report::heading(&format!("{count} sessions that expire in the same second: {what}"));
        one(&home.join(name), count, whose);
    }
}

const IDLE: Duration = Duration::from_secs(7200);
/// Sessions that live on and are loaded all the time.
const OTHERS: usize = 10_000;

fn one(path: &Path, count: usize, whose: Whose) {
    let clock = Leaping::new();
    let options = options()
        .sessions_max(40_000_000)
        .idle_timeout(IDLE)
        .anonymous_lifetime(IDLE)
        .remembered(100 * IDLE, 100 * IDLE)
        .clock(clock.clone());
    let sessions = options.open(path).unwrap();
    // All are used in one second, because time stands still.
    clock.stop();
    let doomed = fill_by(&sessions, count, whose);
    let others = others(&sessions);
    clock.go_on();
    wait_for_silence(&sessions);
    let loader = Loader::new();
    std::thread::scope(|scope| {
        scope.spawn(|| loader.run(&sessions, &others));
        watch(&sessions, &loader, &clock, doomed.len());
        loader.stop.store(true, Ordering::Relaxed);
    });
    print_loads(&loader);
    assert!(doomed.iter().all(|token| sessions.load(token).unwrap().is_none()), "an expired session was served");
    sessions.close().unwrap();
}

fn watch(sessions: &Sessions, loader: &Loader, clock: &Leaping, count: usize) {
    loader.measure(QUIET);
    wait(Duration::from_secs(3));
    loader.measure(BESIDE);
    keep_busy(Duration::from_secs(3));
    let cached = sessions.stats().cached_bytes >> 20;
    let resident = report::resident_bytes().unwrap_or_default() >> 20;
    let (written, commits) = (report::written_bytes(), sessions.stats().commits);
    loader.measure(COLLECTING);
    clock.leap(IDLE);
    // The reaper sleeps by the real clock; a session that is due before it meant to get up wakes it.
    let short = SignIn::new("short").limits(Duration::from_secs(1), Duration::from_secs(1));
    drop(sessions.start().sign_in(short).unwrap());
    let begun = Instant::now();
    let expired = |sessions: &Sessions| sessions.stats().expired;
    while expired(sessions) < count {
        wait(Duration::from_millis(20));
    }
    let collected = begun.elapsed();
    loader.measure(SWEEPING);
    wait_for_silence(sessions);
    let swept = begun.elapsed().saturating_sub(SILENCE);
    loader.measure(AFTER);
    wait(Duration::from_secs(1));
    let bytes = report::written_bytes().zip(written).map_or(0, |(after, before)| after - before);
    let after = report::resident_bytes().unwrap_or_default() >> 20;
    let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
    report::note("out of memory after", &seconds(collected));
    report::note("off the disk after", &seconds(swept));
    let commits = sessions.stats().commits - commits;
    report::note("written", &format!("{:.2} MB in {commits} commits", bytes as f64 / 1e6));
    let cached_after = sessions.stats().cached_bytes >> 20;
    report::note("sessions' data in memory, before and after", &format!("{cached} MiB, {cached_after} MiB"));
    report::note("the process, before and after", &format!("{resident} MiB, {after} MiB"));
}

fn print_loads(loader: &Loader) {
    let quiet = loader.percentiles(QUIET);
    let phases =
        ["quiet", "beside a thread that only counts", "while memory is freed", "while the disk is swept", "after"];
    for (phase, what) in phases.iter().enumerate() {
        let (half, slow, slower, loads) = loader.percentiles(phase);
        let text = format!(
            "p50 {half} ns, p99 {slow} ns ({:.2} times), p99.9 {slower} ns, {} loads",
            slow as f64 / quiet.1 as f64,
            report::short(loads as f64)
        );
        report::note(&format!("loads, {what}"), &text);
    }
}

/// Sessions of another kind, which live on.
fn others(sessions: &Sessions) -> Vec<Token> {
    let receipts: Vec<_> = (0..OTHERS)
        .map(|number| {
            let session = sessions.start();
            session.set(VISITS, &7).unwrap();
            let receipt = session.sign_in(SignIn::new(format!("other-{number}")).remembered()).unwrap();
            (session, receipt)
        })
        .collect();
    let with_data = receipts.into_iter().map(|(session, receipt)| {
        let token = receipt.blocking_wait().unwrap();
        session.set(VISITS, &7).unwrap();
        token
    });
    with_data.collect()
}

fn wait(time: Duration) {
    let begun = Instant::now();
    while let Some(left) = time.checked_sub(begun.elapsed()) {
        std::thread::park_timeout(left);
    }
}

/// Longer than anything waits before it is written.
const SILENCE: Duration = Duration::from_millis(3500);

/// Waits until nothing has been written for a while.
fn wait_for_silence(sessions: &Sessions) {
    let (mut last, mut since) = (sessions.stats().commits, Instant::now());
    while since.elapsed() < SILENCE {
        wait(Duration::from_millis(20));
        let now = sessions.stats().commits;
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
}

/// Keeps another processor busy without touching memory: on processors that share a core, or a clock rate, that alone
/// slows the loads down.
fn keep_busy(time: Duration) {
    let begun = Instant::now();
    let mut count = 1_u64;
    while begun.elapsed() < time {
        for _ in 0..1000 {
            count = std::hint::black_box(count.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        }
    }
}

const QUIET: usize = 0;
const BESIDE: usize = 1;
const COLLECTING: usize = 2;
const SWEEPING: usize = 3;
const AFTER: usize = 4;
const PHASES: usize = 5;

/// Loads sessions at random and notes how long each took, by phase.
struct Loader {
    phase: AtomicUsize,
    stop: AtomicBool,
    latencies: [std::sync::Mutex<BTreeMap<u64, u64>>; PHASES],
}

impl Loader {
    fn new() -> Self {
        Self {
            phase: AtomicUsize::new(QUIET),
            stop: AtomicBool::new(false),
            latencies: std::array::from_fn(|_| std::sync::Mutex::new(BTreeMap::new())),
        }
    }

    fn measure(&self, phase: usize) {
        self.phase.store(phase, Ordering::Relaxed);
    }

    fn run(&self, sessions: &Sessions, tokens: &[Token]) {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        // By the nanosecond up to a tenth of a millisecond, and above that by the microsecond, in a table of its own.
        let mut tables = vec![vec![0_u32; FINE + COARSE]; PHASES];
        while !self.stop.load(Ordering::Relaxed) {
            let token = tokens.get(random.random_range(0..tokens.len())).unwrap();
            let begun = Instant::now();
            let session = sessions.load(token).unwrap().unwrap();
            let took = usize::try_from(begun.elapsed().as_nanos()).unwrap_or(usize::MAX);
            drop(session);
            let at = if took < FINE { took } else { FINE + (took / 1000).min(COARSE - 1) };
            *tables.get_mut(self.phase.load(Ordering::Relaxed)).unwrap().get_mut(at).unwrap() += 1;
        }
        for (phase, table) in self.latencies.iter().zip(tables) {
            let mut latencies = phase.lock().unwrap();
            for (at, count) in table.into_iter().enumerate().filter(|(_, count)| *count > 0) {
                let ns = if at < FINE { at } else { (at - FINE) * 1000 };
                *latencies.entry(ns as u64).or_default() += u64::from(count);
            }
        }
    }

    /// The middle, the 99th and the 99.9th percentile in nanoseconds, and how many loads there were.
    fn percentiles(&self, phase: usize) -> (u64, u64, u64, u64) {
        let latencies = self.latencies.get(phase).unwrap().lock().unwrap();
        let total: u64 = latencies.values().sum();
        let at = |per_mille: u64| {
            let mut left = total * per_mille / 1000;
            let mut found = latencies.iter().find_map(|(&ns, &count)| {
                let here = left < count;
                left = left.saturating_sub(count);
                here.then_some(ns)
            });
            found.take().unwrap_or_default()
        };
        (at(500), at(990), at(999), total)
    }
}

const FINE: usize = 100_000;
const COARSE: usize = 100_000;

/// A clock that can be stopped, and set ahead.
#[derive(Clone, Debug)]
struct Leaping(Arc<Hands>);

#[derive(Debug)]
struct Hands {
    origin: Instant,
    ahead_ms: AtomicU64,
    /// Where it stands, or zero while it goes.
    stopped_ms: AtomicU64,
}

impl Leaping {
    fn new() -> Self {
        let hands = Hands { origin: Instant::now(), ahead_ms: AtomicU64::new(60_000), stopped_ms: AtomicU64::new(0) };
        Self(Arc::new(hands))
    }

    fn now_ms(&self) -> u64 {
        match self.0.stopped_ms.load(Ordering::SeqCst) {
            0 => whole_ms(self.0.origin.elapsed()) + self.0.ahead_ms.load(Ordering::SeqCst),
            stopped => stopped,
        }
    }

    fn stop(&self) {
        self.0.stopped_ms.store(self.now_ms(), Ordering::SeqCst);
    }

    /// Goes on from where it stands.
    fn go_on(&self) {
        let stopped = self.0.stopped_ms.swap(0, Ordering::SeqCst);
        let elapsed = whole_ms(self.0.origin.elapsed());
        self.0.ahead_ms.store(stopped.saturating_sub(elapsed), Ordering::SeqCst);
    }

    fn leap(&self, span: Duration) {
        self.0.ahead_ms.fetch_add(whole_ms(span), Ordering::SeqCst);
    }
}

fn whole_ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap()
}

impl Clock for Leaping {
    fn since_boot(&self) -> Duration {
        Duration::from_millis(self.now_ms())
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_unix_ms(1_767_225_600_000 + self.now_ms())
    }

    fn boot_id(&self) -> Option<[u8; 16]> {
        Some([7; 16])
    }
}
