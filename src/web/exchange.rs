//! Exchanges: one request and its session, from the cookie that came to the cookie that goes.
//!
//! What lives here: [`Admitted`] (a request that may go on), [`Exchange`] (its session, its token, what to answer).
//! It knows sessions and the pure parts beside it. Invariants: two live sessions in one request are none; a signed-in
//! session without its companion is no session to look at and no session to write to; a session that ended meanwhile
//! sets no cookie; a token counts for the session, or the want of one, that the request really has.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::csrf;
use super::refusal::Refusal;
use super::site::Site;
use crate::engine::Receipt;
use crate::error::{Error, ErrorKind, Result};
use crate::session::{Caller, Session, Visit};
use crate::sessions::InMemory;
use crate::sign_in::Class;
use crate::token::Token;

/// What the cookies of our name hold.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    /// Whether there is a cookie of our name at all, whatever is in it.
    pub(super) cookie_sent: bool,
    tokens: Vec<Token>,
    too_many: bool,
}

/// The most different tokens that one request's cookies may hold: each is looked up.
const CANDIDATES_MAX: usize = 4;

impl Candidates {
    pub(super) fn add(&mut self, value: &[u8]) {
        self.cookie_sent = true;
        let Some(token) = std::str::from_utf8(value).ok().and_then(Token::parse) else { return };
        if self.tokens.iter().any(|known| known.is_same(&token)) {
            return;
        }
        self.too_many |= self.tokens.len() == CANDIDATES_MAX;
        if !self.too_many {
            self.tokens.push(token);
        }
    }
}

/// A secret that a request shows.
pub(super) enum Shown {
    Nothing,
    Bad,
    Text(Box<str>),
}

/// A request that names a host of ours and comes from a page of ours; its session is not looked up yet.
#[must_use]
pub struct Admitted {
    pub(super) site: Site,
    pub(super) candidates: Candidates,
    pub(super) is_safe: bool,
    pub(super) is_passive: bool,
    pub(super) token: Shown,
    pub(super) companion: Shown,
    pub(super) caller: Caller,
}

/// What became of looking for a session in memory.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "there is no third case")]
pub enum Opened {
    /// There it is, or there is none.
    Ready(Exchange),
    /// Its data has to be read from disk: [`Admitted::open`] does, and blocks.
    OnDisk(Box<Admitted>),
}

/// Whose request it is.
enum Found {
    Nobody,
    Session(Session),
    /// A session whose companion secret the request does not have.
    Locked,
}

impl Admitted {
    /// Finds the session if it is in memory. Never blocks.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed).
    pub fn open_in_memory(self) -> Result<Opened> {
        let sessions = self.site.sessions().clone();
        let mut on_disk = false;
        let found = self.find(|token, touch| {
            // With another token's session still to be read, it is not known yet whose request it is.
            if touch && on_disk {
                return Ok(None);
            }
            Ok(match sessions.load_in_memory(token, touch)? {
                InMemory::Absent => None,
                InMemory::Here(session) => Some(session),
                InMemory::OnDisk => {
                    on_disk = true;
                    None
                }
            })
        })?;
        Ok(if on_disk { Opened::OnDisk(Box::new(self)) } else { Opened::Ready(Exchange::new(self, found)) })
    }

    /// Finds the session, on disk if need be, which blocks.
    ///
    /// # Errors
    /// As [`Sessions::load`](crate::Sessions::load): a fault is never passed off as "no session".
    pub fn open(self) -> Result<Exchange> {
        let sessions = self.site.sessions().clone();
        let found = self.find(|token, touch| sessions.load_with(token, touch))?;
        Ok(Exchange::new(self, found))
    }

    fn find(&self, mut load: impl FnMut(&Token, bool) -> Result<Option<Session>>) -> Result<Found> {
        let touch = !self.is_passive;
        let guarded = self.site.get().companion;
        let (session, token) = match self.candidates.tokens.as_slice() {
            [] => return Ok(Found::Nobody),
            [token] => match load(token, touch && !guarded)? {
                Some(session) => (session, token),
                None => return Ok(Found::Nobody),
            },
            several => {
                let mut live = Vec::with_capacity(several.len());
                for token in several {
                    live.extend(load(token, false)?.map(|session| (session, token)));
                }
                // Somebody else put one of them there, and nothing tells which.
                if live.len() > 1 || self.candidates.too_many {
                    return Ok(Found::Nobody);
                }
                match live.pop() {
                    Some(found) => found,
                    None => return Ok(Found::Nobody),
                }
            }
        };
        match session.door() {
            // Made by the application without a request, or under this profile.
            Ok(door) if door == 0 || door == self.site.door() => {}
            // One that travelled in the clear is none on HTTPS, and none that needs a companion is opened without.
            Ok(_) => return Ok(Found::Nobody),
            Err(error) if error.kind() == ErrorKind::Gone => return Ok(Found::Nobody),
            Err(error) => return Err(error),
        }
        if guarded {
            match self.has_companion_of(&session) {
                Ok(true) => {}
                Ok(false) => return Ok(Found::Locked),
                Err(error) if error.kind() == ErrorKind::Gone => return Ok(Found::Nobody),
                Err(error) => return Err(error),
            }
        }
        if touch && (guarded || self.candidates.tokens.len() > 1) && load(token, true)?.is_none() {
            return Ok(Found::Nobody);
        }
        Ok(Found::Session(session))
    }

    /// Whether the request may use this session: anonymous ones need no companion.
    fn has_companion_of(&self, session: &Session) -> Result<bool> {
        if session.class()? == Class::Anonymous {
            return Ok(true);
        }
        Ok(match (&self.companion, session.secret(COMPANION)?) {
            (Shown::Text(shown), Some(secret)) => csrf::is_companion(shown, &secret),
            _ => false,
        })
    }
}

/// Purposes of a session's secrets.
const TOKEN: &str = "csrf token";
const COMPANION: &str = "companion";

/// One request, its session and what its answer needs. Clones are the same exchange.
///
/// In this order: [`check_token`](Self::check_token), then the application's work, then wait for
/// [`save`](Self::save), then send [`headers`](Self::headers) along.
///
/// ```
/// use dwell::web::{Request, Site};
/// let site = Site::development(dwell::Options::new().in_memory()?);
///
/// let host = ("Host", &b"localhost:3000"[..]);
/// let exchange = site.admit(&Request::new("GET").headers([host])).expect("it is for us").open()?;
/// let session = exchange.session_or_new().expect("no companion is needed");
/// session.set(dwell::Field::<u32>::new("visits"), &1)?;
/// let headers = exchange.headers()?;
/// assert!(headers.iter().any(|(name, value)| *name == "set-cookie" && value.contains("HttpOnly")));
/// # Ok::<(), dwell::Error>(())
/// ```
#[derive(Clone)]
pub struct Exchange(Arc<Inner>);

struct Inner {
    site: Site,
    is_safe: bool,
    cookie_sent: bool,
    token: Shown,
    found: Found,
    /// The session that this request begins, if it does.
    new: OnceLock<Session>,
    visit: Arc<Visit>,
    /// The answer depends on the session.
    consulted: AtomicBool,
}

impl Exchange {
    fn new(admitted: Admitted, found: Found) -> Self {
        let visit = Arc::new(Visit::new(admitted.caller));
        let found = match found {
            Found::Session(session) => Found::Session(session.observed(&visit)),
            other => other,
        };
        Self(Arc::new(Inner {
            site: admitted.site,
            is_safe: admitted.is_safe,
            cookie_sent: admitted.candidates.cookie_sent,
            token: admitted.token,
            found,
            new: OnceLock::new(),
            visit,
            consulted: AtomicBool::new(!admitted.is_safe),
        }))
    }

    /// The site that the request came to.
    pub fn site(&self) -> &Site {
        &self.0.site
    }

    /// The request's session; `None` if there is none. Creates nothing.
    #[must_use]
    pub fn session(&self) -> Option<Session> {
        self.consult();
        self.current().filter(|session| session.id().is_some())
    }

    /// The request's session, or one that begins at its first write.
    ///
    /// # Errors
    /// A [`Refusal`] (403 `companion`) if there is a session whose companion secret the request lacks.
    pub fn session_or_new(&self) -> Result<Session, Refusal> {
        self.consult();
        if matches!(self.0.found, Found::Locked) { Err(Refusal::companion()) } else { Ok(self.session_for_sign_in()) }
    }

    /// The request's session to sign in with: like [`session_or_new`](Self::session_or_new), but a session whose
    /// companion secret the request lacks is left alone and another one begun.
    #[must_use]
    pub fn session_for_sign_in(&self) -> Session {
        self.consult();
        match &self.0.found {
            Found::Session(session) => session.clone(),
            Found::Nobody | Found::Locked => {
                self.0.new.get_or_init(|| self.0.site.sessions().start().observed(&self.0.visit)).clone()
            }
        }
    }

    /// Whether the request has to show a token and shows none in a header: then a form may have it in the field
    /// [`Site::token_field`].
    #[must_use]
    pub fn wants_form_token(&self) -> bool {
        !self.0.is_safe && matches!(self.0.token, Shown::Nothing)
    }

    /// Whether a request that may change something shows the token of a page of ours, in its header or in this form
    /// field. Requests that change nothing need none.
    ///
    /// # Errors
    /// A [`Refusal`] with status 403; 401 if the session ended meanwhile, 503 if the store is closed.
    pub fn check_token(&self, field: Option<&str>) -> Result<(), Refusal> {
        if self.0.is_safe {
            return Ok(());
        }
        let shown = match (&self.0.token, field) {
            (Shown::Text(shown), _) => Some(&**shown),
            (Shown::Nothing, field) => field,
            (Shown::Bad, _) => None,
        };
        if shown.map_or(Ok(false), |shown| self.is_own_token(shown))? {
            return Ok(());
        }
        Err(if matches!(self.0.found, Found::Locked) { Refusal::companion() } else { Refusal::token() })
    }

    fn is_own_token(&self, shown: &str) -> Result<bool> {
        let sessions = self.0.site.sessions();
        match &self.0.found {
            Found::Session(session) => Ok(session.secret(TOKEN)?.is_some_and(|secret| csrf::is_bound(shown, &secret))),
            Found::Nobody | Found::Locked => Ok(csrf::is_visitor(shown, sessions.visitor_tags(), sessions.now())),
        }
    }

    /// A token for this visitor's pages and scripts, to come back in the header `X-CSRF-Token` or the form field
    /// [`Site::token_field`]. Every call gives another spelling; all hold until the session's token is replaced, or for
    /// an hour where there is no session.
    ///
    /// # Errors
    /// [`Storage`](ErrorKind::Storage) if the system's random source fails; [`Closed`](ErrorKind::Closed).
    pub fn csrf_token(&self) -> Result<String> {
        self.consult();
        let secret = self.current().map_or(Ok(None), |session| session.secret(TOKEN));
        match secret {
            Ok(Some(secret)) => csrf::bound(&secret),
            Ok(None) => self.visitor_token(),
            Err(error) if error.kind() == ErrorKind::Gone => self.visitor_token(),
            Err(error) => Err(error),
        }
    }

    fn visitor_token(&self) -> Result<String> {
        let sessions = self.0.site.sessions();
        csrf::visitor(sessions.visitor_tags(), sessions.now())
    }

    /// The secret that a signed-in page has to show besides its cookie, in the header `X-Companion`, where the profile
    /// asks for one. Hand it to the page in the answer to a sign-in, and nowhere else. It stays the same until the
    /// session's token is replaced.
    ///
    /// # Errors
    /// [`Gone`](ErrorKind::Gone), [`Closed`](ErrorKind::Closed).
    pub fn companion(&self) -> Result<Option<String>> {
        self.consult();
        let Some(session) = self.current().filter(|_| self.0.site.get().companion) else { return Ok(None) };
        companion_of(&session)
    }

    /// Notes that this request ended its own session, by other means than the session's handle: the browser is told to
    /// forget its cookie.
    pub fn forget(&self) {
        self.0.visit.note_end();
    }

    /// What to wait for before the answer is sent: the changes that this request made to a signed-in session. `None` if
    /// there are none. Anonymous sessions are written behind.
    ///
    /// # Errors
    /// [`Gone`](ErrorKind::Gone) if the session ended before its changes were on disk;
    /// [`Storage`](ErrorKind::Storage), [`Closed`](ErrorKind::Closed); from the receipt also
    /// [`Unknown`](ErrorKind::Unknown).
    pub fn save(&self) -> Result<Option<Receipt>> {
        let Some(session) = self.current() else { return Ok(None) };
        if self.0.visit.has_ended() || !self.0.visit.has_changed() || session.class()? == Class::Anonymous {
            return Ok(None);
        }
        session.save().map(Some)
    }

    /// [`save`](Self::save) and [`headers`](Self::headers) for programs that may block.
    ///
    /// # Errors
    /// As both; from the disk also [`Unknown`](ErrorKind::Unknown).
    pub fn finish_blocking(&self) -> Result<Vec<(&'static str, Cow<'static, str>)>> {
        if let Some(receipt) = self.save()? {
            receipt.blocking_wait()?;
        }
        self.headers()
    }

    /// The headers that the answer needs: the new cookie or the one that removes it, and that nothing between here and
    /// the browser may keep the answer. Names are in lower case.
    ///
    /// # Errors
    /// [`Closed`](ErrorKind::Closed).
    pub fn headers(&self) -> Result<Vec<(&'static str, Cow<'static, str>)>> {
        let cookie = self.cookie()?;
        let mut headers = Vec::with_capacity(3);
        if cookie.is_some() || self.is_consulted() {
            headers.push(("vary", Cow::Borrowed(self.0.site.varies_by())));
            headers.push(("cache-control", Cow::Borrowed("no-store")));
        }
        headers.extend(cookie.map(|cookie| ("set-cookie", Cow::Owned(cookie))));
        Ok(headers)
    }

    fn cookie(&self) -> Result<Option<String>> {
        let rules = &self.0.site.get().cookie;
        if self.0.visit.has_ended() {
            return Ok(self.0.cookie_sent.then(|| rules.removal()));
        }
        let Some((session, token)) = self.current().and_then(|session| Some((session.clone(), session.token()?)))
        else {
            return Ok(None);
        };
        // A session that ended meanwhile, or whose token another request replaced, says nothing to the browser.
        match max_age(&session) {
            Ok(max_age) => Ok(Some(rules.set(&token.expose(), max_age))),
            Err(error) if error.kind() == ErrorKind::Gone => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The answer was made without asking for the session, so it is the same for everybody.
    pub(crate) fn is_consulted(&self) -> bool {
        self.0.consulted.load(Ordering::Relaxed)
    }

    fn consult(&self) {
        self.0.consulted.store(true, Ordering::Relaxed);
    }

    fn current(&self) -> Option<Session> {
        match &self.0.found {
            Found::Session(session) => Some(session.clone()),
            Found::Nobody | Found::Locked => self.0.new.get().cloned(),
        }
    }
}

/// The secret that goes with this session's cookie; anonymous ones need none.
pub(super) fn companion_of(session: &Session) -> Result<Option<String>> {
    if session.class()? == Class::Anonymous {
        return Ok(None);
    }
    Ok(session.secret(COMPANION)?.as_ref().map(csrf::companion))
}

/// How long the browser is to keep the cookie after its own end: only for those who asked to be remembered.
fn max_age(session: &Session) -> Result<Option<Duration>> {
    let left = session.life_left()?.ok_or_else(Error::gone)?;
    Ok(session.is_remembered()?.then_some(left))
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "Nothing",
            Self::Bad => "Bad",
            Self::Text(_) => "Text(..)",
        })
    }
}

impl fmt::Debug for Admitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admitted").field("site", &self.site).finish_non_exhaustive()
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let session = match &self.0.found {
            Found::Nobody => None,
            Found::Session(session) => session.id(),
            Found::Locked => None,
        };
        f.debug_struct("Exchange").field("site", &self.0.site).field("session", &session).finish_non_exhaustive()
    }
}
