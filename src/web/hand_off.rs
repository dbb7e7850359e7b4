//! Codes in addresses that open a session once: to hand a session over to another browser, and to start a page signed in.
//!
//! It knows sessions, a clock and text. Invariants: a code opens one session at most, and is gone when it did; it is worth
//! nothing a minute after it was made, after the session that it was made from has ended or got another token, and after a
//! restart, for codes are kept in memory only; what is kept is a hash, and there is a bound to how many.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding};
use parking_lot::Mutex;

use super::exchange::Exchange;
use super::site::Site;
use crate::engine::Receipt;
use crate::error::{Error, ErrorKind, Result};
use crate::seal::Fingerprint;
use crate::session::Session;
use crate::sign_in::{Class, SignIn};
use crate::time::Tick;
use crate::token::{Entropy, OsEntropy, Token};

const PREFIX: &str = "sid_u1_";
const LABEL: &[u8; 16] = b"dwell/handoff/u1";

/// How long a code holds, in seconds: long enough to start a browser or to photograph a screen.
const CODE_SECONDS: u32 = 60;
/// The most codes of one principal, and of all: the oldest gives way. Each keeps a session's data in memory for a minute.
const CODES_PER_PRINCIPAL_MAX: usize = 8;
const CODES_MAX: usize = 1024;

/// Codes that were not used yet.
#[derive(Default)]
pub(super) struct Codes(Mutex<HashMap<Fingerprint, Code>>);

struct Code {
    made: Tick,
    principal: Arc<str>,
    opens: Opens,
}

enum Opens {
    /// A session like this one.
    Like(Session),
    Launch(Box<SignIn>),
}

impl Codes {
    fn add(&self, now: Tick, principal: Arc<str>, opens: Opens) -> Result<String> {
        let mut secret = [0; 32];
        OsEntropy.fill(&mut secret)?;
        let mut dropped = Vec::new();
        {
            let mut codes = self.0.lock();
            dropped.extend(codes.extract_if(|_, code| code.is_over(now)));
            for (most, of) in [(CODES_PER_PRINCIPAL_MAX, Some(&principal)), (CODES_MAX, None)] {
                let fits = |code: &Code| of.is_none_or(|of| *of == code.principal);
                let among = codes.iter().filter(|(_, code)| fits(code));
                if among.clone().count() >= most
                    && let Some(oldest) = among.min_by_key(|(_, code)| code.made).map(|(known, _)| *known)
                {
                    dropped.extend(codes.remove_entry(&oldest));
                }
            }
            codes.insert(Fingerprint::of(LABEL, 0, &secret), Code { made: now, principal, opens });
        }
        // The last handle of a session may free much, so not under the lock.
        drop(dropped);
        Ok(format!("{PREFIX}{}", Base64UrlUnpadded::encode_string(&secret)))
    }

    /// Looks at a code, and takes it if `take` says so.
    fn find<T>(&self, text: &str, now: Tick, look: impl FnOnce(&Code) -> T, take: bool) -> Option<(T, Option<Code>)> {
        let known = parse(text)?;
        let mut codes = self.0.lock();
        let code = codes.get(&known).filter(|code| !code.is_over(now))?;
        let seen = look(code);
        let taken = if take { codes.remove(&known) } else { None };
        Some((seen, taken))
    }
}

impl Code {
    fn is_over(&self, now: Tick) -> bool {
        now.since(self.made) >= CODE_SECONDS
    }

    /// What to sign in with, unless the session that it was made from is not what it was.
    fn sign_in(self) -> Result<Option<SignIn>> {
        let session = match self.opens {
            Opens::Launch(who) => return Ok(Some(*who)),
            Opens::Like(session) => session,
        };
        let facts = || Ok::<_, Error>((session.class()?, session.life_left()?, session.auth_age()?));
        let (class, life, proved) = match facts() {
            Err(error) if error.kind() == ErrorKind::Gone => return Ok(None),
            facts => facts?,
        };
        let life = Duration::from_secs(life.unwrap_or_default().as_secs());
        if class != Class::Authenticated || life.is_zero() {
            return Ok(None);
        }
        let who = SignIn::new(&*self.principal).limits(life, life).proved_ago(proved.unwrap_or(life));
        Ok(Some(who))
    }
}

fn parse(text: &str) -> Option<Fingerprint> {
    let mut secret = [0; 32];
    let decoded = Base64UrlUnpadded::decode(text.strip_prefix(PREFIX)?, &mut secret).ok()?.len();
    (decoded == secret.len()).then(|| Fingerprint::of(LABEL, 0, &secret))
}

impl Site {
    /// A code that signs this principal in, once and within a minute: for a program that opens its own page in a browser or
    /// a web view. Put it behind the `#` of the address, or into the body of a form, and not where other programs see it,
    /// as in a command line. The page posts it to a route that calls [`Exchange::redeem`]. It comes from no session, so
    /// [`revoke_all`](crate::Sessions::revoke_all) does not void it; while the principal is
    /// [disabled](crate::Sessions::disable) it signs nobody in.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for a name that is empty or too long; [`Storage`](ErrorKind::Storage) if the system's
    /// random source fails.
    ///
    /// ```
    /// # use dwell::web::{Request, Site};
    /// # let site = Site::localhost(dwell::Options::new().in_memory()?);
    /// let code = site.launch_code("ada")?;
    /// # let request = Request::new("GET").headers([("Host", &b"localhost:3000"[..])]);
    /// let exchange = site.admit(&request).unwrap().open()?;
    /// let receipt = exchange.redeem(&code)?.expect("it was made a moment ago");
    /// receipt.blocking_wait()?;
    /// assert!(exchange.redeem(&code)?.is_none(), "once");
    /// # Ok::<(), dwell::Error>(())
    /// ```
    pub fn launch_code(&self, who: impl Into<SignIn>) -> Result<String> {
        let who = who.into();
        let name = who.check()?.name;
        self.get().codes.add(self.sessions().now(), name, Opens::Launch(Box::new(who)))
    }
}

impl Exchange {
    /// A code that opens a session of the same person in another browser, once and within a minute. That one ends no
    /// later than this session, and does not count as proved again. Only a hash of the code is kept, in memory; it is
    /// void when this session ends or its token is replaced, and after a restart.
    ///
    /// # Errors
    /// [`Refused`](ErrorKind::Refused) if nobody is signed in, [`Gone`](ErrorKind::Gone),
    /// [`Storage`](ErrorKind::Storage) if the system's random source fails.
    pub fn hand_off(&self) -> Result<String> {
        let session = self.session().filter(|session| matches!(session.class(), Ok(Class::Authenticated)));
        let nobody = || Error::new(ErrorKind::Refused, "nobody is signed in who could be handed over");
        // What comes of the request's own handle later is no longer the session that the code is for.
        let session = session.and_then(|session| session.pinned()).ok_or_else(nobody)?;
        let principal = session.principal()?.ok_or_else(nobody)?;
        let site = self.site();
        site.get().codes.add(site.sessions().now(), principal, Opens::Like(session))
    }

    /// Whose session a code opens, without using it up; `None` if it opens none. For asking first where somebody else is
    /// signed in: whoever made the code may want that visitor to work in their account.
    #[must_use]
    pub fn code_principal(&self, code: &str) -> Option<Arc<str>> {
        let site = self.site();
        let found = site.get().codes.find(code, site.sessions().now(), |code| Arc::clone(&code.principal), false);
        found.map(|(principal, _)| principal)
    }

    /// Uses a code up and signs its principal in; `None` if it opens nothing. The session that this browser had before is
    /// replaced, as with any [sign-in](Session::sign_in), and the cookie goes with the answer.
    ///
    /// Links are followed by more than people: do not call it for `HEAD`, nor where `Sec-Purpose` names a prefetch, nor
    /// where `Sec-Fetch-Dest` names something else than a `document`, as for a picture in another page.
    ///
    /// # Errors
    /// As [`Session::sign_in`]; the code is used up then too.
    pub fn redeem(&self, code: &str) -> Result<Option<Receipt<Token>>> {
        let site = self.site();
        let found = site.get().codes.find(code, site.sessions().now(), |_| (), true);
        let Some(code) = found.and_then(|((), taken)| taken) else { return Ok(None) };
        let Some(who) = code.sign_in()? else { return Ok(None) };
        self.session_for_sign_in().sign_in(who).map(Some)
    }
}

impl fmt::Debug for Codes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Codes").field("waiting", &self.0.lock().len()).finish_non_exhaustive()
    }
}
