//! Floods: how fast strangers may begin sessions, one client and all of them.
//!
//! It knows addresses and the engine's time, and leaves the counting to governor (GCRA, the leaky bucket as a meter: ITU-T
//! I.371). Invariants: a session that goes on is never slowed; what is kept of clients is bounded, and a client that is
//! not kept is only held to the limit for all.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::HashMapStateStore;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use super::site::Profile;
use crate::engine::Flaw;
use crate::error::{Error, ErrorKind, Result};
use crate::session::{Caller, Gate, Way};
use crate::sessions::Sessions;

/// How fast new anonymous sessions may begin through a [`Site`](super::Site): each costs memory and disk, and a stranger
/// needs nothing for it. What is over a limit is answered 429 with `Retry-After`. Sessions that go on are not slowed, and
/// neither are sign-ins, for which somebody has proved who they are; their number has
/// [a limit of its own](crate::Options::sessions_per_principal).
///
/// ```
/// use dwell::web::{NewSessions, Site};
/// let site = Site::https(dwell::Options::new().in_memory()?, "app.example")?;
/// let site = site.new_sessions(NewSessions::default().per_client_per_minute(60));
/// # let _ = site;
/// # Ok::<(), dwell::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct NewSessions {
    per_client: Option<NonZeroU32>,
    per_second: Option<NonZeroU32>,
}

/// Enough for some people behind one address, and for a page that tries again.
const PER_CLIENT_PER_MINUTE: NonZeroU32 = NonZeroU32::new(20).expect("20 is not 0");
/// A tenth of what a small machine makes durable in a second.
const PER_SECOND: NonZeroU32 = NonZeroU32::new(200).expect("200 is not 0");

impl Default for NewSessions {
    /// 20 a minute for each client, 200 a second for all.
    fn default() -> Self {
        Self { per_client: Some(PER_CLIENT_PER_MINUTE), per_second: Some(PER_SECOND) }
    }
}

impl NewSessions {
    /// No limit: where something in front of the application sees to it.
    pub const fn unlimited() -> Self {
        Self { per_client: None, per_second: None }
    }

    /// The most for one client in a minute, after twice as many at once. A client is an IPv4 address or an IPv6 network of
    /// 64 bits, as [trusted proxies](super::Site::trusted_proxy) tell. Clients whose address is not known, or is this
    /// machine's own, are not limited one by one; that it is not known is told once, by the event
    /// [`RequestFlaw::NoAddress`](crate::RequestFlaw::NoAddress). 0 is no limit.
    pub const fn per_client_per_minute(mut self, sessions: u32) -> Self {
        self.per_client = NonZeroU32::new(sessions);
        self
    }

    /// The most for all clients together in a second, and at once. 0 is no limit.
    pub const fn per_second(mut self, sessions: u32) -> Self {
        self.per_second = NonZeroU32::new(sessions);
        self
    }
}

type Limiter<K, S> = RateLimiter<K, S, EngineTime, NoOpMiddleware<Nanos>>;

/// Who counts as one client.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Client {
    V4(Ipv4Addr),
    /// The network of a subscriber: one machine may use all of its addresses.
    V6(u64),
}

/// The limits of one site and how far they are used up.
pub(super) struct Flood {
    clients: Option<Limiter<Client, HashMapStateStore<Client>>>,
    all: Option<Limiter<NotKeyed, InMemoryState>>,
    time: EngineTime,
    /// When clients were last forgotten that used up nothing, in ticks.
    tidied: AtomicU32,
    /// That addresses are missing, which is told once.
    told: AtomicBool,
}

/// Clients that are kept, at some 60 bytes each.
const CLIENTS_MAX: usize = 16_384;

impl Flood {
    pub(super) fn new(limits: NewSessions, sessions: &Sessions, profile: Profile) -> Self {
        let time = EngineTime(sessions.clone());
        let clients = limits.per_client.map(|limit| {
            let burst = limit.saturating_add(limit.get());
            RateLimiter::new(Quota::per_minute(limit).allow_burst(burst), HashMapStateStore::default(), time.clone())
        });
        let all = limits
            .per_second
            .map(|limit| RateLimiter::new(Quota::per_second(limit), InMemoryState::default(), time.clone()));
        // Where all clients are on this machine, no address would make a difference.
        let told = AtomicBool::new(matches!(profile, Profile::Localhost | Profile::Development));
        Self { clients, all, time, tidied: AtomicU32::new(0), told }
    }

    fn check_client(&self, caller: &Caller) -> Result<()> {
        let Some(clients) = &self.clients else { return Ok(()) };
        if !is_known(caller) && !self.told.swap(true, Ordering::Relaxed) {
            self.time.0.note_flaw(Flaw::NoAddress, true);
        }
        let Some(client) = client(caller) else { return Ok(()) };
        if clients.len() >= CLIENTS_MAX {
            let now = self.time.0.now().0;
            // Looking through all of them takes a while, so at most once a second.
            if self.tidied.swap(now, Ordering::Relaxed) != now {
                clients.retain_recent();
                clients.shrink_to_fit();
            }
            if clients.len() >= CLIENTS_MAX {
                return Ok(());
            }
        }
        clients.check_key(&client).map_err(|over| {
            let wait = over.wait_time_from(self.time.now());
            too_many("too many sessions began lately from this address", wait)
        })
    }
}

impl Gate for Flood {
    fn admit(&self, caller: &Caller) -> Result<()> {
        self.check(caller).inspect_err(|_| self.time.0.note_flaw(Flaw::Flood, false))
    }
}

impl Flood {
    fn check(&self, caller: &Caller) -> Result<()> {
        // First, so that one client does not use up what all have.
        self.check_client(caller)?;
        let Some(all) = &self.all else { return Ok(()) };
        all.check().map_err(|over| {
            let wait = over.wait_time_from(self.time.now());
            too_many("too many sessions began lately", wait)
        })
    }
}

fn too_many(message: &'static str, wait: Duration) -> Error {
    Error::new(ErrorKind::Throttled, message).retry_after_at_least(wait)
}

/// Whether the address is that of the client: of this machine's own it may be that of a proxy that nobody named.
fn is_known(caller: &Caller) -> bool {
    caller.address.is_some_and(|address| !address.is_loopback() || caller.way != Way::Unknown)
}

/// Who is on this machine is none among many; unless a proxy here passes it on and does not make clear for whom, which a
/// client's own header can bring about.
fn client(caller: &Caller) -> Option<Client> {
    match caller.address?.to_canonical() {
        address if address.is_loopback() && caller.way != Way::Proxy => None,
        IpAddr::V4(address) => Some(Client::V4(address)),
        IpAddr::V6(address) => Some(Client::V6((address.to_bits() >> 64) as u64)),
    }
}

/// Engine time, so that a test's clock counts and a suspended machine's sleep does too.
#[derive(Clone)]
struct EngineTime(Sessions);

impl Clock for EngineTime {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Duration::from_millis(self.0.now_ms()).into()
    }
}

impl fmt::Debug for Flood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flood").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;
    use crate::time::ManualClock;

    fn flood(limits: NewSessions) -> (ManualClock, Flood) {
        let clock = ManualClock::new();
        let sessions = Options::new().clock(clock.clone()).manual_workers().in_memory().unwrap();
        (clock, Flood::new(limits, &sessions, Profile::Https))
    }

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    fn caller(address: Option<IpAddr>) -> Caller {
        Caller { address, ..Caller::default() }
    }

    /// How many in a row get in.
    fn burst(flood: &Flood, address: Option<IpAddr>) -> usize {
        (0..1000).take_while(|_| flood.admit(&caller(address)).is_ok()).count()
    }

    #[test]
    fn a_client_begins_so_many_at_once_and_then_so_many_a_minute() {
        let (clock, flood) = flood(NewSessions::default());
        assert_eq!(burst(&flood, address("192.0.2.1")), 40);
        let error = flood.admit(&caller(address("192.0.2.1"))).unwrap_err();
        assert_eq!((error.kind(), error.retry_after()), (ErrorKind::Throttled, Some(Duration::from_secs(3))));
        clock.advance(Duration::from_secs(3));
        assert_eq!(burst(&flood, address("192.0.2.1")), 1);
        clock.advance(Duration::from_secs(60));
        assert_eq!(burst(&flood, address("192.0.2.1")), 20);
        assert_eq!(burst(&flood, address("192.0.2.2")), 40, "another is not to blame");
    }

    #[test]
    fn a_client_is_an_address_or_a_network() {
        let (_, flood) = flood(NewSessions::default());
        assert_eq!(burst(&flood, address("2001:db8:0:1::1")), 40);
        assert_eq!(burst(&flood, address("2001:db8:0:1:ffff::2")), 0, "the same network");
        assert_eq!(burst(&flood, address("2001:db8:0:2::1")), 40);
        assert_eq!(burst(&flood, address("::ffff:192.0.2.1")), 40);
        assert_eq!(burst(&flood, address("192.0.2.1")), 0, "the same address");
    }

    #[test]
    fn who_is_not_known_or_on_this_machine_is_held_to_the_limit_for_all() {
        let (clock, flood) = flood(NewSessions::default());
        assert_eq!(burst(&flood, None), 200);
        assert_eq!(burst(&flood, address("192.0.2.1")), 0, "all means all");
        clock.advance(Duration::from_secs(1));
        assert_eq!(burst(&flood, address("127.0.0.1")), 200);
        clock.advance(Duration::from_secs(1));
        assert_eq!(burst(&flood, address("::1")), 200);
    }

    #[test]
    fn a_proxy_on_this_machine_is_a_client_where_it_does_not_tell_for_whom() {
        let (_, flood) = flood(NewSessions::default());
        let passed_on = Caller { way: Way::Proxy, ..caller(address("127.0.0.1")) };
        assert_eq!((0..1000).take_while(|_| flood.admit(&passed_on).is_ok()).count(), 40);
        assert_eq!(burst(&flood, address("127.0.0.1")), 160, "who is here is held to the limit for all");
    }

    #[test]
    fn one_client_does_not_use_up_what_all_have() {
        let (_, flood) = flood(NewSessions::default());
        for _ in 0..10_000 {
            let _ = flood.admit(&caller(address("192.0.2.1")));
        }
        assert_eq!(burst(&flood, None), 160);
    }

    #[test]
    fn what_is_kept_of_clients_is_bounded_and_forgotten_in_time() {
        let (clock, flood) = flood(NewSessions::default().per_second(0));
        let clients = |flood: &Flood| flood.clients.as_ref().unwrap().len();
        for n in 0..u32::try_from(2 * CLIENTS_MAX).unwrap() {
            assert!(flood.admit(&caller(Some(Ipv4Addr::from_bits(0x0a00_0000 + n).into()))).is_ok());
        }
        assert_eq!(clients(&flood), CLIENTS_MAX);
        clock.advance(Duration::from_secs(200));
        assert_eq!(burst(&flood, address("192.0.2.1")), 40, "there is room again");
        assert_eq!(clients(&flood), 1);
    }

    #[test]
    fn no_limit_is_none() {
        let (_, flood) = flood(NewSessions::unlimited());
        assert_eq!(burst(&flood, address("192.0.2.1")), 1000);
        let (_, flood) = flood_of(0, 0);
        assert_eq!(burst(&flood, address("192.0.2.1")), 1000);
        let (_, flood) = flood_of(0, 7);
        assert_eq!(burst(&flood, address("192.0.2.1")), 7);
    }

    fn flood_of(per_client: u32, per_second: u32) -> (ManualClock, Flood) {
        flood(NewSessions::default().per_client_per_minute(per_client).per_second(per_second))
    }
}
