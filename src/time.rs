//! Time: instants, engine seconds and the clocks that feed them.
//!
//! What lives here: [`Timestamp`] (wall time, for people), [`Tick`] (engine seconds, for deadlines), the
//! [`Clock`] trait with its two implementations, and the only readings of real clocks in the crate.
//! It knows nothing of sessions. Invariant: no decision about a session's life depends on the wall clock
//! while the process runs; deadlines are ticks, and ticks follow the clock that counts since boot.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment of wall-clock time in whole milliseconds since 1970-01-01 UTC, for showing to people.
///
/// Deadlines never use it: a wrong or stepped wall clock changes what is shown, not who is signed in.
///
/// ```
/// let moment = dwell::Timestamp::from_unix_ms(1_700_000_000_123);
/// assert_eq!(moment.unix_ms(), 1_700_000_000_123);
/// assert_eq!(moment.to_string(), "2023-11-14T22:13:20Z");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The moment `ms` milliseconds after 1970-01-01 UTC.
    #[must_use]
    pub const fn from_unix_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds since 1970-01-01 UTC.
    #[must_use]
    pub const fn unix_ms(self) -> u64 {
        self.0
    }

    pub(crate) const fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(ms_of(span)))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC, whole seconds. Days to civil date: Howard Hinnant, "chrono-Compatible Low-Level Date
    /// Algorithms" (`civil_from_days`).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 / 1000;
        let (days, of_day) = (seconds / 86_400 + 719_468, seconds % 86_400);
        let (era, of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_index = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month_index + 2) / 5 + 1;
        let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

/// A whole second of engine time: it only moves forward, counts the machine's sleep, and goes on where it
/// was after a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Tick(pub(crate) u32);

impl Tick {
    /// The tick that holds `ms` milliseconds of engine time, rounded down.
    pub(crate) fn from_ms(ms: u64) -> Self {
        Self(u32::try_from(ms / 1000).unwrap_or(u32::MAX))
    }

    pub(crate) const fn plus(self, seconds: u32) -> Self {
        Self(self.0.saturating_add(seconds))
    }

    /// Before the first tick there is none; whatever had a deadline there is dead.
    pub(crate) const fn minus(self, seconds: u32) -> Self {
        Self(self.0.saturating_sub(seconds))
    }

    /// Seconds from `earlier` to here, 0 if it is later.
    pub(crate) const fn since(self, earlier: Self) -> u32 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Where the engine reads time. Applications take the default; tests use [`ManualClock`].
///
/// `since_boot` must never go back while the process runs and must go on while the machine sleeps.
/// The engine reads it on every load, so it should cost tens of nanoseconds.
///
/// ```
/// use dwell::{Clock, ManualClock};
/// let clock = ManualClock::new();
/// let before = clock.since_boot();
/// clock.advance(std::time::Duration::from_secs(5));
/// assert_eq!(clock.since_boot() - before, std::time::Duration::from_secs(5));
/// ```
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Time since the machine started, sleep included.
    fn since_boot(&self) -> Duration;

    /// Wall-clock time, which may be wrong and may step.
    fn wall(&self) -> Timestamp;

    /// What names this boot of the machine, if the system can tell boots apart.
    fn boot_id(&self) -> Option<[u8; 16]>;
}

/// The system's clocks: `CLOCK_BOOTTIME` on Linux and Android, the monotonic clock that counts sleep on
/// macOS, the standard library's monotonic clock elsewhere.
#[derive(Debug)]
pub(crate) struct SystemClock {
    boot_id: Option<[u8; 16]>,
    #[cfg(not(unix))]
    origin: std::time::Instant,
}

impl SystemClock {
    pub(crate) fn new() -> Self {
        Self {
            boot_id: system_boot_id(),
            #[cfg(not(unix))]
            origin: std::time::Instant::now(),
        }
    }
}

impl Clock for SystemClock {
    #[cfg(unix)]
    fn since_boot(&self) -> Duration {
        use rustix::time::{ClockId, clock_gettime};
        #[cfg(any(target_os = "linux", target_os = "android"))]
        const SINCE_BOOT: ClockId = ClockId::Boottime;
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        const SINCE_BOOT: ClockId = ClockId::Monotonic;
        let now = clock_gettime(SINCE_BOOT);
        Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
    }

    #[cfg(not(unix))]
    fn since_boot(&self) -> Duration {
        self.origin.elapsed()
    }

    fn wall(&self) -> Timestamp {
        Timestamp(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, ms_of))
    }

    fn boot_id(&self) -> Option<[u8; 16]> {
        self.boot_id
    }
}

#[cfg(target_os = "linux")]
fn system_boot_id() -> Option<[u8; 16]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    Some(u128::from_str_radix(&digits, 16).ok()?.to_be_bytes())
}

#[cfg(not(target_os = "linux"))]
fn system_boot_id() -> Option<[u8; 16]> {
    None
}

/// A clock that moves only when told to, for tests of code that uses sessions. Clones share the time.
///
/// ```
/// use std::time::Duration;
/// let clock = dwell::ManualClock::new();
/// let sessions = dwell::Options::new().clock(clock.clone()).in_memory()?;
/// let session = sessions.start();
/// session.set(dwell::Field::<u32>::new("n"), &1)?;
/// let token = session.token().expect("a first write makes a token");
/// clock.advance(Duration::from_secs(25 * 60 * 60));
/// assert!(sessions.load(&token)?.is_none());
/// # Ok::<(), dwell::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<Hands>);

#[derive(Debug)]
struct Hands {
    since_boot_ms: AtomicU64,
    wall_ms: AtomicU64,
    boot: AtomicU64,
}

impl ManualClock {
    /// A clock one hour after its boot, at 2026-01-01 00:00:00 UTC.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Hands {
            since_boot_ms: AtomicU64::new(3_600_000),
            wall_ms: AtomicU64::new(1_767_225_600_000),
            boot: AtomicU64::new(1),
        }))
    }

    /// Moves both clocks forward, as the passing of time does, sleep of the machine included.
    pub fn advance(&self, span: Duration) {
        forward(&self.0.since_boot_ms, span);
        forward(&self.0.wall_ms, span);
    }

    /// Sets the wall clock alone, as a person or a time server does.
    pub fn set_wall(&self, wall: Timestamp) {
        self.0.wall_ms.store(wall.unix_ms(), Ordering::SeqCst);
    }

    /// Starts a new boot: time since boot begins again at zero, the wall clock stays as it is, as that of a machine
    /// without a battery for it does. The store is to be opened again, as no process outlives its boot.
    pub fn reboot(&self) {
        self.0.since_boot_ms.store(0, Ordering::SeqCst);
        self.0.boot.fetch_add(1, Ordering::SeqCst);
    }

    /// Starts a new boot after the machine was off for a while, with a wall clock that went on meanwhile.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use dwell::{Clock, ManualClock};
    /// let clock = ManualClock::new();
    /// let before = clock.wall();
    /// clock.reboot_after(Duration::from_secs(60));
    /// assert_eq!(clock.since_boot(), Duration::ZERO);
    /// assert_eq!(clock.wall().unix_ms() - before.unix_ms(), 60_000);
    /// ```
    pub fn reboot_after(&self, off: Duration) {
        forward(&self.0.wall_ms, off);
        self.reboot();
    }
}

fn forward(clock: &AtomicU64, span: Duration) {
    let later = |ms: u64| Some(ms.saturating_add(ms_of(span)));
    let moved = clock.fetch_update(Ordering::SeqCst, Ordering::SeqCst, later);
    debug_assert!(moved.is_ok(), "there is always a later moment");
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for ManualClock {
    fn since_boot(&self) -> Duration {
        Duration::from_millis(self.0.since_boot_ms.load(Ordering::SeqCst))
    }

    fn wall(&self) -> Timestamp {
        Timestamp(self.0.wall_ms.load(Ordering::SeqCst))
    }

    fn boot_id(&self) -> Option<[u8; 16]> {
        Some(u128::from(self.0.boot.load(Ordering::SeqCst)).to_be_bytes())
    }
}

/// Whole milliseconds of a span; 584 million years saturate.
#[expect(clippy::cast_possible_truncation, reason = "seconds saturate first, and below that the sum fits")]
pub(crate) const fn ms_of(span: Duration) -> u64 {
    if span.as_secs() > u64::MAX / 1000 - 1 { u64::MAX } else { span.as_millis() as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_show_civil_dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_767_225_600, "2026-01-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(Timestamp::from_unix_ms(seconds * 1000).to_string(), text);
        }
    }

    #[test]
    fn the_system_clock_moves_and_names_its_boot_once() {
        let clock = SystemClock::new();
        let first = clock.since_boot();
        assert!(clock.since_boot() >= first);
        assert_eq!(clock.boot_id(), SystemClock::new().boot_id());
        assert!(clock.wall().unix_ms() > 1_700_000_000_000);
    }

    #[test]
    fn ticks_round_down_and_saturate() {
        assert_eq!(Tick::from_ms(1_999), Tick(1));
        assert_eq!(Tick(5).since(Tick(9)), 0);
        assert_eq!(Tick(u32::MAX).plus(7), Tick(u32::MAX));
        assert_eq!(Tick::from_ms(u64::MAX), Tick(u32::MAX));
    }
}
