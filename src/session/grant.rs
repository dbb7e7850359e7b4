//! Grants: leave for one operation, once, asked for and given right before it.
//!
//! It knows fields and derived keys. What is kept are tags, in an entry of the session's own data that no application's
//! field can name. Invariants: a grant is for one operation with every parameter as it was, in one session at one
//! generation of its token; of many requests that show its code one gets it, and it is gone on disk before that one is
//! told; a few wrong tries void it.

use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding};
use serde::{Deserialize, Serialize};

use super::Session;
use crate::engine::Receipt;
use crate::error::{Error, ErrorKind, Result};
use crate::field::Field;
use crate::seal::Tagger;
use crate::sign_in::Class;
use crate::time::Tick;
use crate::token::{Entropy, OsEntropy};

/// What a person is asked to confirm: the name of an operation and everything that matters about it.
///
/// Name and parameters are compared byte for byte and in their order. Take them from what the server is about to do, not
/// from what a page says that was confirmed.
///
/// ```
/// use dwell::Operation;
/// let transfer = Operation::new("transfer").with("to", "DE02 1203 0000 0000 2020 51").with("cents", 129_900.to_string());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Operation(Vec<Vec<u8>>);

impl Operation {
    /// An operation, by a name that the application gives it.
    pub fn new(name: impl Into<String>) -> Self {
        Self(vec![name.into().into_bytes()])
    }

    /// Binds a parameter: a grant for another value of it is none.
    pub fn with(mut self, parameter: &str, value: impl AsRef<[u8]>) -> Self {
        self.0.extend([parameter.as_bytes().to_vec(), value.as_ref().to_vec()]);
        self
    }

    fn parts(&self) -> Vec<&[u8]> {
        self.0.iter().map(Vec::as_slice).collect()
    }
}

/// A grant as it is kept: about 40 bytes.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Kept {
    operation: [u8; 16],
    code: [u8; 16],
    until: u32,
    tries_left: u8,
}

/// A name that no application's field can have.
const GRANTS: Field<Vec<Kept>> = Field::ours("\0grants");

/// The most grants of one session; the oldest gives way. A person confirms one thing at a time, in each of a few tabs.
const GRANTS_MAX: usize = 8;
/// Wrong codes for an operation until its grant is void: somebody who mistypes gets on, somebody who guesses eight digits
/// has a chance of one in twenty million.
const TRIES: u8 = 5;
/// The longest that a grant holds, in seconds: whoever confirms something later than that has forgotten what it was.
const SECONDS_MAX: u32 = 60 * 60;
const DIGITS: u32 = 100_000_000;

impl Session {
    /// Grants one operation, once, for the next `valid_for` (a second to an hour), and returns the code that
    /// [`take_grant`](Self::take_grant) takes for it. For the few operations that a session alone, stolen or left open,
    /// must not be enough for: grant it when the person has proved again who they are
    /// ([`auth_age`](Self::auth_age)) and has seen what is to be done.
    ///
    /// The code has 128 random bits; only tags of it are kept, sealed with the session's data, which takes about 40 bytes.
    /// A session has at most eight grants, and one for each operation: a newer one takes its place. All are void when the
    /// session's token is replaced by a [`rotate`](Self::rotate), a [`reauthenticate`](Self::reauthenticate) or a sign-in.
    /// Works on memory and does not block; a crash within the next second may forget the grant.
    ///
    /// # Errors
    /// [`Refused`](ErrorKind::Refused) if nobody is signed in, [`Invalid`](ErrorKind::Invalid) for such a time,
    /// [`Storage`](ErrorKind::Storage) if the system's random source fails; as [`set`](Self::set).
    ///
    /// ```
    /// # let sessions = dwell::Options::new().in_memory()?;
    /// # let session = sessions.start();
    /// # session.sign_in("ada")?.blocking_wait()?;
    /// use std::time::Duration;
    /// use dwell::Operation;
    /// let code = session.grant(&Operation::new("delete account").with("user", "ada"), Duration::from_secs(120))?;
    ///
    /// assert!(session.take_grant(&Operation::new("delete account").with("user", "bob"), "no code")?.is_none());
    /// let taken = session.take_grant(&Operation::new("delete account").with("user", "ada"), &code)?;
    /// taken.expect("it is for this").blocking_wait()?; // now delete
    /// assert!(session.take_grant(&Operation::new("delete account").with("user", "ada"), &code)?.is_none(), "once");
    /// # Ok::<(), dwell::Error>(())
    /// ```
    pub fn grant(&self, operation: &Operation, valid_for: Duration) -> Result<String> {
        let mut secret = [0; 16];
        OsEntropy.fill(&mut secret)?;
        let code = Base64UrlUnpadded::encode_string(&secret);
        self.add_grant(operation, valid_for, &code)?;
        Ok(code)
    }

    /// Like [`grant`](Self::grant), with a code of eight digits that a person can type: for sending it by another way,
    /// as to a telephone. After five wrong codes for the operation the grant is void. How often somebody may ask for
    /// another is for the application to limit.
    ///
    /// # Errors
    /// As [`grant`](Self::grant).
    pub fn grant_digits(&self, operation: &Operation, valid_for: Duration) -> Result<String> {
        let mut random = [0; 8];
        OsEntropy.fill(&mut random)?;
        // 2^64 is not a multiple of 10^8; the difference in likelihood is less than one in 10^11.
        let code = format!("{:08}", u64::from_le_bytes(random) % u64::from(DIGITS));
        self.add_grant(operation, valid_for, &code)?;
        Ok(code)
    }

    /// Takes the grant for an operation, if this is its code: of any number of requests, one gets it. Do what was granted
    /// when the receipt is ready: then the grant is gone on disk as well, and no crash brings it back.
    ///
    /// `None` for a code that is wrong, of another operation or another session, too late, or taken already. A right code
    /// that is shown for another operation, or for one with another parameter, voids its grant.
    ///
    /// # Errors
    /// As [`set`](Self::set) and [`save`](Self::save); the grant may be used up then.
    pub fn take_grant(&self, operation: &Operation, code: &str) -> Result<Option<Receipt>> {
        let Some(tags) = self.grant_tags()? else { return Ok(None) };
        let now = self.now();
        let taken = self.try_update(GRANTS, |kept| {
            let Some(grants) = kept else { return Ok::<_, Error>(false) };
            let mut taken = false;
            grants.retain_mut(|grant| {
                if now.0 >= grant.until {
                    return false;
                }
                let is_for_this = tags.verify("operation", &operation.parts(), &grant.operation);
                let is_its_code = tags.verify("code", &[code.as_bytes()], &grant.code);
                taken |= is_for_this && is_its_code;
                grant.tries_left -= u8::from(is_for_this && !is_its_code).min(grant.tries_left);
                !is_its_code && grant.tries_left > 0
            });
            if grants.is_empty() {
                *kept = None;
            }
            Ok(taken)
        })?;
        if taken { self.save().map(Some) } else { Ok(None) }
    }

    fn add_grant(&self, operation: &Operation, valid_for: Duration, code: &str) -> Result<()> {
        let seconds = u32::try_from(valid_for.as_secs()).unwrap_or(u32::MAX);
        if !(1..=SECONDS_MAX).contains(&seconds) {
            return Err(Error::invalid(format!("a grant holds for 1 s to {SECONDS_MAX} s, not for {valid_for:?}")));
        }
        let nobody = || Error::new(ErrorKind::Refused, "nobody is signed in who could be granted anything");
        if self.class()? != Class::Authenticated {
            return Err(nobody());
        }
        let tags = self.grant_tags()?.ok_or_else(nobody)?;
        let now = self.now();
        let grant = Kept {
            operation: tags.tag16("operation", &operation.parts()),
            code: tags.tag16("code", &[code.as_bytes()]),
            until: now.plus(seconds).0,
            tries_left: TRIES,
        };
        self.update(GRANTS, |grants| {
            grants.retain(|other| now.0 < other.until && other.operation != grant.operation);
            let excess = (grants.len() + 1).saturating_sub(GRANTS_MAX);
            grants.drain(..excess);
            grants.push(grant);
        })
    }

    /// Tags that only this generation of this session makes.
    fn grant_tags(&self) -> Result<Option<Tagger>> {
        Ok(self.secret("grants")?.map(|secret| Tagger::new(&secret)))
    }

    fn now(&self) -> Tick {
        self.handle().engine().clock.now()
    }
}
