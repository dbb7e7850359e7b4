//! Options: what the application asks for, and the checked settings the engine works with.
//!
//! What lives here: [`Options`] (a builder that accepts anything), [`AtLimit`], [`AssuranceLevel`], and `Settings` (what passed the
//! checks; the rest of the crate sees nothing else). It knows ring 0 only; opening a store is in `sessions`.

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::time::{Clock, SystemClock};

/// How sessions live and what they may cost. Every option has a default that is safe on the internet.
///
/// ```
/// use std::time::Duration;
/// let sessions = dwell::Options::new()
///     .idle_timeout(Duration::from_secs(15 * 60))
///     .lifetime(Duration::from_secs(8 * 60 * 60))
///     .sessions_per_principal(5, dwell::AtLimit::EndOldest)
///     .in_memory()?;
/// # Ok::<(), dwell::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Options {
    signed_in: (Duration, Duration),
    remembered: (Duration, Duration),
    anonymous: (Duration, Duration),
    assurance: Option<AssuranceLevel>,
    anonymous_in_memory: bool,
    sessions_max: u32,
    per_principal_max: u32,
    at_limit: AtLimit,
    session_bytes_max: usize,
    cache_bytes: usize,
    page_cache_bytes: usize,
    journal_bytes: Option<usize>,
    linger: Duration,
    pub(crate) wait_for_lock: Duration,
    events_kept: usize,
    clock: Option<Arc<dyn Clock>>,
    manual_workers: bool,
    rotate_every: Option<Duration>,
    rotation_overlap: Duration,
}

/// What happens when a principal signs in and already has as many sessions as allowed.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtLimit {
    /// The principal's oldest session ends, in the same commit that makes the new one. It has ended even if the new one
    /// is signed out or revoked while that commit is under way.
    EndOldest,
    /// The sign-in is refused with [`ErrorKind::Refused`](crate::ErrorKind::Refused).
    Refuse,
}

/// How sure one has to be who somebody is: the authentication assurance levels of [NIST SP
/// 800-63B-4](https://pages.nist.gov/800-63-4/sp800-63b.html), as far as they limit how long sessions live.
///
/// ```
/// use dwell::{AssuranceLevel, Options};
/// let office = Options::new().assurance(AssuranceLevel::Two); // remembered for a day at most
/// # office.in_memory()?;
/// # Ok::<(), dwell::Error>(())
/// ```
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AssuranceLevel {
    /// AAL1: 30 days in all (section 2.1.3); no limit to idle time but that.
    One,
    /// AAL2: an hour without use, 24 hours in all (section 2.2.3).
    Two,
    /// AAL3: 15 minutes without use, 12 hours in all (section 2.3.3).
    Three,
}

impl AssuranceLevel {
    const fn limits(self) -> Limits {
        let (idle, lifetime) = match self {
            Self::One => (30 * 86_400, 30 * 86_400),
            Self::Two => (3_600, 86_400),
            Self::Three => (15 * 60, 12 * 3_600),
        };
        Limits { idle, lifetime }
    }
}

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Options {
    /// The longest idle timeout or lifetime: engine time is counted in 32-bit seconds, and ten years leave
    /// room for a store to grow old.
    pub const LIFETIME_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
    /// The most that one session's data may be allowed to take: it is decoded and sealed as a whole.
    pub const SESSION_BYTES_LIMIT: usize = 1024 * 1024;
    /// The most sessions that one store can be told to hold: slots are numbered in 32 bits.
    pub const SESSIONS_LIMIT: u32 = 1 << 30;

    /// The defaults: 30 minutes idle and 12 hours of life, 7 and 30 days for remembered sign-ins, 24 hours for
    /// anonymous sessions; a million sessions, 32 for each principal, 64 KiB of data in each.
    pub fn new() -> Self {
        Self {
            signed_in: (30 * MINUTE, 12 * HOUR),
            remembered: (7 * DAY, 30 * DAY),
            anonymous: (DAY, DAY),
            assurance: None,
            anonymous_in_memory: false,
            sessions_max: 1_000_000,
            per_principal_max: 32,
            at_limit: AtLimit::EndOldest,
            session_bytes_max: 64 * 1024,
            cache_bytes: 64 * 1024 * 1024,
            page_cache_bytes: 64 * 1024 * 1024,
            journal_bytes: None,
            linger: Duration::ZERO,
            wait_for_lock: Duration::ZERO,
            events_kept: 16_384,
            clock: None,
            manual_workers: false,
            rotate_every: None,
            rotation_overlap: Duration::from_secs(10),
        }
    }

    /// For devices with little memory and flash that wears: 10,000 sessions, 8 MiB of caches, and anonymous
    /// sessions kept in memory only, so that strangers cost no writes.
    pub fn appliance() -> Self {
        Self {
            anonymous_in_memory: true,
            sessions_max: 10_000,
            cache_bytes: 4 * 1024 * 1024,
            page_cache_bytes: 4 * 1024 * 1024,
            journal_bytes: Some(1024 * 1024),
            ..Self::new()
        }
    }

    /// Ends a signed-in session after this long without a request. At least a second, at most the lifetime.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.signed_in.0 = timeout;
        self
    }

    /// Ends a signed-in session this long after its sign-in, whatever happens in between.
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.signed_in.1 = lifetime;
        self
    }

    /// Idle timeout and lifetime of sign-ins made with [`SignIn::remembered`](crate::SignIn::remembered).
    pub fn remembered(mut self, idle_timeout: Duration, lifetime: Duration) -> Self {
        self.remembered = (idle_timeout, lifetime);
        self
    }

    /// Lets no signed-in session live longer than NIST allows at this level: what the other options say beyond that is cut
    /// down, whenever they were called, for remembered sign-ins too. Sessions that are in the store are held to it from the
    /// next start on. It counts from the sign-in, also where the [proof](crate::SignIn::proved_ago) is older; say so in the
    /// sign-in's own [limits](crate::SignIn::limits) then. The defaults are within level two but for remembered sign-ins, which are within level one.
    ///
    /// ```
    /// use dwell::{AssuranceLevel, Options, SignIn};
    /// let sessions = Options::new().assurance(AssuranceLevel::Three).in_memory()?;
    /// let session = sessions.start();
    /// session.sign_in(SignIn::new("ada").remembered())?.blocking_wait()?;
    /// assert!(session.idle_left()?.expect("it is live").as_secs() <= 15 * 60);
    /// # Ok::<(), dwell::Error>(())
    /// ```
    pub fn assurance(mut self, level: AssuranceLevel) -> Self {
        self.assurance = Some(level);
        self
    }

    /// How long a session lives in which nobody signed in.
    pub fn anonymous_lifetime(mut self, lifetime: Duration) -> Self {
        self.anonymous = (lifetime, lifetime);
        self
    }

    /// Ends a session in which nobody signed in after this long without a request. By default only its
    /// [lifetime](Self::anonymous_lifetime) ends it; set that first.
    pub fn anonymous_idle_timeout(mut self, timeout: Duration) -> Self {
        self.anonymous.0 = timeout;
        self
    }

    /// Keeps anonymous sessions off the disk. They end with the process, and
    /// [`save`](crate::Session::save) answers [`NotDurable`](crate::ErrorKind::NotDurable).
    pub fn anonymous_in_memory(mut self) -> Self {
        self.anonymous_in_memory = true;
        self
    }

    /// The most sessions the store holds, of which a tenth may be anonymous. Each costs about 64 bytes of memory.
    pub fn sessions_max(mut self, sessions: u32) -> Self {
        self.sessions_max = sessions;
        self
    }

    /// The most sessions that one principal may have, and what happens at the limit. Of
    /// [half sign-ins](crate::SignIn::pending) it may have as many again, whose oldest ends for the next in either case.
    pub fn sessions_per_principal(mut self, sessions: u32, at_limit: AtLimit) -> Self {
        self.per_principal_max = sessions;
        self.at_limit = at_limit;
        self
    }

    /// The most bytes that one session's fields may take, names included.
    pub fn session_bytes_max(mut self, bytes: usize) -> Self {
        self.session_bytes_max = bytes;
        self
    }

    /// Memory for the data of sessions in use, in bytes; colder ones are read from disk when asked for.
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Memory for pages of the B-tree, in bytes.
    pub fn page_cache_bytes(mut self, bytes: usize) -> Self {
        self.page_cache_bytes = bytes;
        self
    }

    /// Room on disk for the journal of a store that is made with these options, in bytes: by default 16 MiB, 1 MiB for an
    /// [`appliance`](Self::appliance). At least 64 KiB and at most 1 GiB, in whole blocks of 4 KiB; a store keeps the size
    /// that it was made with.
    ///
    /// Durable changes go to the journal first and from there to the B-tree, together, when it is half full or nothing
    /// else is to be done. A larger one makes that rarer, which spares the disk where the same sessions change again and
    /// again, and takes that much more memory and time to start after a crash, at most.
    ///
    /// ```
    /// let options = dwell::Options::new().journal_bytes(4 * 1024 * 1024);
    /// # options.in_memory()?;
    /// # Ok::<(), dwell::Error>(())
    /// ```
    pub fn journal_bytes(mut self, bytes: usize) -> Self {
        self.journal_bytes = Some(bytes);
        self
    }

    /// Lets a durable change wait this long for others to be written with it, to spare flash that wears: each write costs
    /// some 4 KiB, however many changes are in it. Nothing is acknowledged earlier; everybody waits longer. None by
    /// default, at most a second; fractions of a millisecond do not count, and [`manual_workers`](Self::manual_workers) do
    /// not linger.
    ///
    /// ```
    /// let options = dwell::Options::appliance().linger(std::time::Duration::from_millis(20));
    /// # options.in_memory()?;
    /// # Ok::<(), dwell::Error>(())
    /// ```
    pub fn linger(mut self, wait: Duration) -> Self {
        self.linger = wait;
        self
    }

    /// Waits this long for another process to let go of the directory, instead of failing at once. For
    /// deployments that start the new process before the old one has ended.
    pub fn wait_for_lock(mut self, patience: Duration) -> Self {
        self.wait_for_lock = patience;
        self
    }

    /// The most [events](crate::Sessions::events) that wait for one subscriber, by default 16,384 (at most about 6 MB);
    /// what comes when that many wait is counted and not kept. At least one is.
    pub fn events_kept(mut self, events: usize) -> Self {
        self.events_kept = events;
        self
    }

    /// Replaces the tokens of sessions in use as time goes by, so that one that leaked does not serve for long. Off by
    /// default; for sites whose cookies travel in the clear.
    ///
    /// When a session is loaded by a token this old, a successor is made and, once that is on disk, offered by
    /// [`Session::token`](crate::Session::token); the web layer sets it as the cookie. The first request that comes with the
    /// successor puts it in force. From then on the token before opens the session for the
    /// [overlap](Self::rotation_overlap) only, and whoever shows it after that ends the session
    /// ([`EndReason::Replayed`](crate::EndReason::Replayed)): one of two who have it has stolen it. It is remembered until
    /// the next successor is offered, and unknown like any other text afterwards. A client that never takes the successor
    /// up goes on with the token it has.
    ///
    /// Nothing else changes: handles, tokens for pages and [`id`](crate::Session::id) stay. Costs two writes behind for
    /// each rotation, and some 20 to 60 bytes of memory for each session. At least a second; fractions of one do not
    /// count.
    ///
    /// ```
    /// use std::time::Duration;
    /// let clock = dwell::ManualClock::new();
    /// let options = dwell::Options::new().rotate_every(Duration::from_secs(300));
    /// let sessions = options.clock(clock.clone()).manual_workers().in_memory()?;
    /// let first = sessions.start().sign_in("ada")?.blocking_wait()?;
    ///
    /// clock.advance(Duration::from_secs(300));
    /// assert!(sessions.load(&first)?.expect("it is live").token().is_none(), "not on disk yet");
    /// clock.advance(Duration::from_secs(1));
    /// sessions.run_pending();
    /// let second = sessions.load(&first)?.expect("it is live").token().expect("the successor");
    ///
    /// assert!(sessions.load(&second)?.is_some());
    /// assert!(sessions.load(&first)?.is_some(), "requests that are under way go on");
    /// clock.advance(Duration::from_secs(10));
    /// assert!(sessions.load(&first)?.is_none());
    /// assert!(sessions.load(&second)?.is_none(), "somebody else has a copy");
    /// # Ok::<(), dwell::Error>(())
    /// ```
    pub fn rotate_every(mut self, interval: Duration) -> Self {
        self.rotate_every = Some(interval);
        self
    }

    /// How long a token goes on after its successor was used, for requests that are under way: 10 s by default, at least
    /// a second and at most a minute.
    pub fn rotation_overlap(mut self, overlap: Duration) -> Self {
        self.rotation_overlap = overlap;
        self
    }

    /// Reads time from `clock`, for tests.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// Starts no threads, for tests: work is done by [`Sessions::run_pending`](crate::Sessions::run_pending) and
    /// by waiting for a receipt.
    pub fn manual_workers(mut self) -> Self {
        self.manual_workers = true;
        self
    }

    /// What was asked for, or else this.
    #[cfg(feature = "sim")]
    pub(crate) fn journal_bytes_or(&self, bytes: usize) -> usize {
        self.journal_bytes.unwrap_or(bytes)
    }

    pub(crate) fn check(&self) -> Result<Settings> {
        let within = |limits: Limits| self.assurance.map_or(limits, |level| limits.clipped(level.limits()));
        let signed_in = within(Limits::check("the", self.signed_in)?);
        let remembered = within(Limits::check("the remembered", self.remembered)?);
        let anonymous = Limits::check("the anonymous", self.anonymous)?;
        if !(1..=Self::SESSIONS_LIMIT).contains(&self.sessions_max) {
            return Err(out_of_range("sessions_max", 1, u64::from(Self::SESSIONS_LIMIT)));
        }
        if self.per_principal_max == 0 {
            return Err(out_of_range("sessions_per_principal", 1, u64::from(u32::MAX)));
        }
        let rotate_every =
            self.rotate_every.map(|every| whole_seconds("the", "rotation interval", every)).transpose()?;
        let overlap = whole_seconds("the", "rotation overlap", self.rotation_overlap)?;
        if overlap > OVERLAP_MAX {
            return Err(Error::invalid(format!(
                "the rotation overlap of {:?} must be between 1 s and {OVERLAP_MAX} s",
                self.rotation_overlap
            )));
        }
        if !(1..=Self::SESSION_BYTES_LIMIT).contains(&self.session_bytes_max) {
            return Err(out_of_range("session_bytes_max", 1, Self::SESSION_BYTES_LIMIT as u64));
        }
        let journal_bytes = self.journal_bytes.unwrap_or(JOURNAL_BYTES);
        if !(JOURNAL_BYTES_MIN..=JOURNAL_BYTES_MAX).contains(&journal_bytes) {
            return Err(out_of_range("journal_bytes", JOURNAL_BYTES_MIN as u64, JOURNAL_BYTES_MAX as u64));
        }
        if self.linger > LINGER_MAX {
            return Err(Error::invalid(format!("the linger of {:?} must be at most {LINGER_MAX:?}", self.linger)));
        }
        Ok(Settings {
            signed_in,
            remembered,
            anonymous,
            anonymous_in_memory: self.anonymous_in_memory,
            sessions_max: self.sessions_max,
            anonymous_max: (self.sessions_max / ANONYMOUS_SHARE).max(1),
            per_principal_max: self.per_principal_max,
            at_limit: self.at_limit,
            session_bytes_max: self.session_bytes_max,
            cache_bytes: self.cache_bytes,
            page_cache_bytes: self.page_cache_bytes.max(PAGE_CACHE_BYTES_MIN),
            journal_bytes: Some(journal_bytes.next_multiple_of(JOURNAL_BLOCK) as u64),
            linger_ms: if self.manual_workers { 0 } else { self.linger.as_millis().try_into().unwrap_or(u64::MAX) },
            events_kept: self.events_kept.max(1),
            clock: self.clock.clone().unwrap_or_else(|| Arc::new(SystemClock::new())),
            manual_workers: self.manual_workers,
            rotation: Rotation { every: rotate_every, overlap },
        })
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

/// One in this many sessions may be anonymous, so that strangers cannot crowd out people who signed in.
const ANONYMOUS_SHARE: u32 = 10;
/// The longest time that two tokens open one session, in seconds: no request should take longer to arrive.
const OVERLAP_MAX: u32 = 60;
/// Below this the B-tree would read its own upper pages from the file again and again.
const PAGE_CACHE_BYTES_MIN: usize = 256 * 1024;

/// What nobody waits for is written after as long.
const LINGER_MAX: Duration = Duration::from_secs(1);
/// What half a minute of sign-ins at full speed would fill if nothing was brought to the B-tree meanwhile.
const JOURNAL_BYTES: usize = 16 * 1024 * 1024;
/// Two frames of a session with little data, eight times over.
const JOURNAL_BYTES_MIN: usize = 64 * 1024;
/// What it holds is kept in memory too until it is in the B-tree.
const JOURNAL_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// Frames are written in whole blocks.
const JOURNAL_BLOCK: usize = 4096;

fn out_of_range(option: &str, min: u64, max: u64) -> Error {
    Error::invalid(format!("`{option}` must be between {min} and {max}"))
}

/// Checked options.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) signed_in: Limits,
    pub(crate) remembered: Limits,
    pub(crate) anonymous: Limits,
    pub(crate) anonymous_in_memory: bool,
    pub(crate) sessions_max: u32,
    pub(crate) anonymous_max: u32,
    pub(crate) per_principal_max: u32,
    pub(crate) at_limit: AtLimit,
    pub(crate) session_bytes_max: usize,
    pub(crate) cache_bytes: usize,
    pub(crate) page_cache_bytes: usize,
    /// `None` for a store without a journal.
    pub(crate) journal_bytes: Option<u64>,
    pub(crate) linger_ms: u64,
    pub(crate) events_kept: usize,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) manual_workers: bool,
    pub(crate) rotation: Rotation,
}

/// When tokens are replaced softly, in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rotation {
    /// `None` for never.
    pub(crate) every: Option<u32>,
    pub(crate) overlap: u32,
}

/// How long a session may live, in whole seconds: `1 <= idle <= lifetime`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) idle: u32,
    pub(crate) lifetime: u32,
}

impl Limits {
    fn check(whose: &str, (idle, lifetime): (Duration, Duration)) -> Result<Self> {
        let limits = Self {
            idle: whole_seconds(whose, "idle timeout", idle)?,
            lifetime: whole_seconds(whose, "lifetime", lifetime)?,
        };
        if limits.idle > limits.lifetime {
            return Err(Error::invalid(format!(
                "{whose} idle timeout of {idle:?} is longer than {whose} lifetime of {lifetime:?}"
            )));
        }
        Ok(limits)
    }

    /// These limits, or shorter ones where the caller asks for them.
    pub(crate) fn clipped(self, other: Self) -> Self {
        let lifetime = self.lifetime.min(other.lifetime);
        Self { idle: self.idle.min(other.idle).min(lifetime), lifetime }
    }
}

/// A span in whole seconds, rounded down; below a second or over ten years is refused.
pub(crate) fn whole_seconds(whose: &str, what: &str, span: Duration) -> Result<u32> {
    if span < Duration::from_secs(1) || span > Options::LIFETIME_MAX {
        return Err(Error::invalid(format!("{whose} {what} of {span:?} must be between 1 s and 10 years")));
    }
    Ok(u32::try_from(span.as_secs()).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn refused(options: &Options) -> String {
        let error = options.check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        error.to_string()
    }

    #[test]
    fn the_defaults_pass() {
        let settings = Options::new().check().unwrap();
        assert_eq!((settings.signed_in.idle, settings.signed_in.lifetime), (1800, 43_200));
        assert_eq!(settings.anonymous_max, 100_000);
        assert!(Options::appliance().check().unwrap().anonymous_in_memory);
    }

    #[test]
    fn an_assurance_level_cuts_down_and_never_lengthens() {
        let limits = |options: Options| {
            let Settings { signed_in, remembered, .. } = options.check().unwrap();
            [signed_in.idle, signed_in.lifetime, remembered.idle, remembered.lifetime]
        };
        let at = |level| limits(Options::new().assurance(level));
        assert_eq!(at(AssuranceLevel::One), limits(Options::new()));
        assert_eq!(at(AssuranceLevel::Two), [1_800, 43_200, 3_600, 86_400]);
        assert_eq!(at(AssuranceLevel::Three), [900, 43_200, 900, 43_200]);
        let short = Options::new().assurance(AssuranceLevel::Three).lifetime(MINUTE).idle_timeout(MINUTE);
        assert_eq!(limits(short)[..2], [60, 60]);
        let years = Options::new().idle_timeout(900 * DAY).lifetime(900 * DAY).assurance(AssuranceLevel::One);
        assert_eq!(limits(years)[..2], [2_592_000, 2_592_000]);
    }

    #[test]
    fn impossible_options_are_named() {
        let hour = Duration::from_secs(3600);
        assert!(refused(&Options::new().idle_timeout(Duration::ZERO)).contains("idle timeout"));
        assert!(refused(&Options::new().lifetime(Duration::ZERO)).contains("lifetime"));
        assert!(refused(&Options::new().idle_timeout(2 * hour).lifetime(hour)).contains("longer"));
        assert!(refused(&Options::new().remembered(2 * hour, hour)).contains("remembered"));
        assert!(refused(&Options::new().anonymous_lifetime(Duration::MAX)).contains("anonymous"));
        assert!(refused(&Options::new().sessions_max(0)).contains("sessions_max"));
        assert!(refused(&Options::new().sessions_per_principal(0, AtLimit::Refuse)).contains("per_principal"));
        assert!(refused(&Options::new().rotate_every(Duration::ZERO)).contains("rotation interval"));
        assert!(refused(&Options::new().rotation_overlap(Duration::ZERO)).contains("rotation overlap"));
        assert!(refused(&Options::new().rotation_overlap(Duration::from_secs(61))).contains("60 s"));
        assert!(refused(&Options::new().session_bytes_max(2 << 20)).contains("session_bytes_max"));
        assert!(refused(&Options::new().journal_bytes(65_535)).contains("journal_bytes"));
        assert!(refused(&Options::new().linger(2 * LINGER_MAX)).contains("linger"));
    }
}
