//! What a sign-in says, and what is told about sessions afterwards.
//!
//! What lives here: [`SignIn`], [`Class`], [`SessionInfo`], [`Stats`]: plain values of the public API. It knows the
//! engine's requests and nothing of storage or threads.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::SignInRequest;
use crate::error::{Error, Result};
use crate::options::{Limits, whole_seconds};
use crate::session::Caller;
use crate::storage::record::ClassByte;
use crate::time::Timestamp;
use crate::token::SessionId;

/// Who signs in, from where, and for how long. A plain name does where nothing else is to be said.
///
/// ```
/// # let sessions = dwell::Options::new().in_memory()?;
/// use dwell::SignIn;
/// let session = sessions.start();
/// session.sign_in("ada")?.blocking_wait()?;
/// session.sign_in(SignIn::new("ada").device("Firefox on Linux").address("192.0.2.7"))?.blocking_wait()?;
/// # Ok::<(), dwell::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct SignIn {
    principal: String,
    device: String,
    address: String,
    method: u8,
    remembered: bool,
    pending: bool,
    limits: Option<(Duration, Duration)>,
    proved_ago: Duration,
    door: u8,
}

impl SignIn {
    /// The longest name of a principal, in bytes: room for any address or identifier, and little to store.
    pub const PRINCIPAL_BYTES_MAX: usize = 255;
    /// The longest description of a device or an address, in bytes; longer ones are cut off.
    pub const FACT_BYTES_MAX: usize = 120;

    /// Signs this principal in: the stable name of an account, 1 to 255 bytes.
    pub fn new(principal: impl Into<String>) -> Self {
        Self {
            principal: principal.into(),
            device: String::new(),
            address: String::new(),
            method: 0,
            remembered: false,
            pending: false,
            limits: None,
            proved_ago: Duration::ZERO,
            door: 0,
        }
    }

    /// What the person will recognise the device by, for the list of their sessions.
    pub fn device(mut self, device: impl Into<String>) -> Self {
        self.device = device.into();
        self
    }

    /// Where the person signed in from.
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.address = address.into();
        self
    }

    /// How the person proved who they are, as a number of the application's own.
    pub fn method(mut self, method: u8) -> Self {
        self.method = method;
        self
    }

    /// "Remember me": the limits of [`Options::remembered`](crate::Options::remembered) apply.
    pub fn remembered(mut self) -> Self {
        self.remembered = true;
        self
    }

    /// Only the first of several steps: the session is of class [`Class::Pending`] until the person signs in again
    /// without this.
    pub fn pending(mut self) -> Self {
        self.pending = true;
        self
    }

    /// Shorter limits for this session. Longer ones than the options' have no effect.
    pub fn limits(mut self, idle_timeout: Duration, lifetime: Duration) -> Self {
        self.limits = Some((idle_timeout, lifetime));
        self
    }

    /// The person proved who they are this long ago, and not now: at an identity provider, say, that tells when.
    /// [`Session::auth_age`](crate::Session::auth_age) counts from then. Whole seconds, rounded up.
    pub fn proved_ago(mut self, ago: Duration) -> Self {
        self.proved_ago = ago;
        self
    }

    /// Fills in what was not said of the device and the address.
    pub(crate) fn called_by(mut self, caller: &Caller) -> Self {
        if self.device.is_empty() {
            self.device = caller.device();
        }
        if self.address.is_empty() {
            self.address = caller.address();
        }
        self.door = caller.door;
        self
    }

    pub(crate) fn check(&self) -> Result<SignInRequest> {
        check_principal(&self.principal)?;
        let limits = self.limits.map(|(idle, lifetime)| {
            Ok::<_, Error>(Limits {
                idle: whole_seconds("the session's", "idle timeout", idle)?,
                lifetime: whole_seconds("the session's", "lifetime", lifetime)?,
            })
        });
        Ok(SignInRequest {
            name: Arc::from(self.principal.as_str()),
            class: if self.pending { ClassByte::Pending } else { ClassByte::Authenticated },
            remembered: self.remembered,
            method: self.method,
            limits: limits.transpose()?,
            proved_ago: u32::try_from(self.proved_ago.as_millis().div_ceil(1000)).unwrap_or(u32::MAX),
            facts: encode_facts(&self.device, &self.address),
            door: self.door,
        })
    }
}

impl From<&str> for SignIn {
    fn from(principal: &str) -> Self {
        Self::new(principal)
    }
}

impl From<String> for SignIn {
    fn from(principal: String) -> Self {
        Self::new(principal)
    }
}

impl From<&String> for SignIn {
    fn from(principal: &String) -> Self {
        Self::new(principal.as_str())
    }
}

pub(crate) fn check_principal(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > SignIn::PRINCIPAL_BYTES_MAX {
        return Err(Error::invalid(format!(
            "the name of a principal must be 1 to {} bytes long, this one has {}",
            SignIn::PRINCIPAL_BYTES_MAX,
            name.len()
        )));
    }
    Ok(())
}

/// Device and address, the device's length in front; nothing if there is neither.
fn encode_facts(device: &str, address: &str) -> Vec<u8> {
    let (device, address) = (cut(device), cut(address));
    if device.is_empty() && address.is_empty() {
        return Vec::new();
    }
    let mut facts = Vec::with_capacity(1 + device.len() + address.len());
    facts.push(u8::try_from(device.len()).unwrap_or(0));
    facts.extend_from_slice(device.as_bytes());
    facts.extend_from_slice(address.as_bytes());
    facts
}

pub(crate) fn decode_facts(facts: &[u8]) -> (String, String) {
    let Some((&length, rest)) = facts.split_first() else { return Default::default() };
    let (device, address) = rest.split_at_checked(usize::from(length)).unwrap_or((rest, &[]));
    (String::from_utf8_lossy(device).into_owned(), String::from_utf8_lossy(address).into_owned())
}

fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(SignIn::FACT_BYTES_MAX)).unwrap_or_default()
}

/// What a session grants. It is kept apart from the data, so nothing an application stores can raise it.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Nobody signed in.
    Anonymous,
    /// Somebody took the first of several steps.
    Pending,
    /// Somebody is signed in.
    Authenticated,
}

impl From<ClassByte> for Class {
    fn from(class: ClassByte) -> Self {
        match class {
            ClassByte::Anonymous => Self::Anonymous,
            ClassByte::Pending => Self::Pending,
            ClassByte::Authenticated => Self::Authenticated,
        }
    }
}

/// One of a principal's sessions, as [`Sessions::of`](crate::Sessions::of) lists it.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct SessionInfo {
    /// The handle to end it by.
    pub id: SessionId,
    /// What it grants.
    pub class: Class,
    /// When the sign-in was, by the wall clock of that moment.
    pub created: Timestamp,
    /// When it was last used, by the wall clock of now.
    pub last_seen: Timestamp,
    /// The device as the sign-in described it; empty if it did not.
    pub device: String,
    /// The address as the sign-in gave it; empty if it did not.
    pub address: String,
    /// The application's number for how the person proved who they are.
    pub method: u8,
    /// Whether "remember me" was asked for.
    pub remembered: bool,
}

/// Counts of an open store.
#[non_exhaustive]
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Sessions in memory's index, anonymous ones included.
    pub sessions: usize,
    /// Anonymous ones among them.
    pub anonymous: usize,
    /// Principals with at least one session.
    pub principals: usize,
    /// Sessions whose data is in memory.
    pub cached: usize,
    /// Memory for that data, in bytes.
    pub cached_bytes: usize,
    /// Changed data that is not on disk yet, in bytes.
    pub dirty_bytes: usize,
    /// Memory for timers, in bytes.
    pub timer_bytes: usize,
    /// Commits since the start.
    pub commits: usize,
    /// Sessions found alive at the start.
    pub restored: usize,
    /// Sessions whose time ran out since the start, those found dead at the start included.
    pub expired: usize,
    /// Sessions ended by a limit since the start.
    pub evicted: usize,
    /// Sessions ended by calls that end several, since the start.
    pub revoked: usize,
    /// Rows on disk, or device and address in them, that could not be verified and count for nothing: those found at
    /// the start, and one more each time [`Sessions::of`](crate::Sessions::of) meets one.
    pub refused_rows: usize,
    /// Stored values that did not decode as the type their field asks for: name, version, how often.
    pub undecodable: Vec<(String, u8, u64)>,
    /// What is wrong with the store, if anything is.
    pub trouble: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn names_are_checked() {
        for name in [String::new(), "x".repeat(256)] {
            assert_eq!(SignIn::new(name).check().unwrap_err().kind(), ErrorKind::Invalid);
        }
        assert!(SignIn::new("x".repeat(255)).check().is_ok());
        let second = Duration::from_secs(1);
        assert!(SignIn::new("ada").limits(Duration::ZERO, second).check().is_err());
    }

    #[test]
    fn facts_round_trip_and_are_cut_at_characters() {
        let facts = encode_facts(&"é".repeat(100), "::1");
        assert_eq!(decode_facts(&facts), ("é".repeat(60), "::1".to_owned()));
        assert_eq!(decode_facts(&[]), Default::default());
        assert_eq!(decode_facts(&[200, b'a']), ("a".to_owned(), String::new()));
    }
}
