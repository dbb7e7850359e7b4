//! Exchanges: one request and its session, from the cookie that came to the cookie that goes.
//!
//! What lives here: [`Exchange`] (a request's session, its token, what to answer). It knows sessions and the pure parts
//! beside it. Invariants: a session that ended meanwhile sets no cookie, and the successor of a token goes to those only who
//! came with that token while it is in force; a token counts for the session, or the want of
//! one, that the request really has.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::admitted::{Admitted, Found, Shown};
use super::csrf::{self, Scope};
use super::refusal::Refusal;
use super::site::{Site, Tracking};
use crate::engine::{Flaw, Receipt};
use crate::error::{Error, ErrorKind, Result};
use crate::session::{Session, Visit};
use crate::sign_in::Class;

/// The purpose of a session's companion secret.
pub(super) const COMPANION: &str = "companion";

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
    pub(super) fn new(admitted: Admitted, found: Found) -> Self {
        let visit = Arc::new(Visit::new(admitted.caller, admitted.site.gate()));
        if matches!(found, Found::Several) {
            admitted.site.sessions().note_flaw(Flaw::Cookies, false);
        }
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

    /// Whether there is a signed-in session that the request may not use, because it lacks the companion secret, as page
    /// loads do in the profile [`localhost`](Site::localhost).
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.consult();
        matches!(self.0.found, Found::Locked)
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
            Found::Nobody | Found::Several | Found::Locked => {
                self.0.new.get_or_init(|| self.0.site.sessions().start().observed(&self.0.visit)).clone()
            }
        }
    }

    /// Whether the request has to show a token and shows none in a header: then a form may have it in the field
    /// [`Site::token_field`].
    #[must_use]
    pub fn wants_form_token(&self) -> bool {
        self.needs_token() && matches!(self.0.token, Shown::Nothing)
    }

    /// What a browser sends by itself may be forged; a header with a token it does not.
    fn needs_token(&self) -> bool {
        !self.0.is_safe && self.0.site.get().tracking == Tracking::Cookie
    }

    /// Whether a request that may change something shows the token of a page of ours, in its header or in this form
    /// field. Requests that change nothing need none.
    ///
    /// # Errors
    /// A [`Refusal`] with status 403; 401 if the session ended meanwhile, 503 if the store is closed.
    pub fn check_token(&self, field: Option<&str>) -> Result<(), Refusal> {
        if !self.needs_token() {
            return Ok(());
        }
        let shown = match (&self.0.token, field) {
            (Shown::Text(shown), _) => Some(&**shown),
            (Shown::Nothing, field) => field,
            (Shown::Bad, _) => None,
        };
        self.check_shown(shown, Scope::Page)
    }

    /// Whether this is a token that [`action_token`](Self::action_token) gave out for the action, to this visitor. For
    /// the few actions that should not rest on the page's token alone.
    ///
    /// # Errors
    /// As [`check_token`](Self::check_token).
    ///
    /// ```
    /// # use dwell::web::{Request, Site};
    /// # let site = Site::development(dwell::Options::new().in_memory()?);
    /// # let request = Request::new("GET").headers([("Host", &b"localhost:3000"[..])]);
    /// # let exchange = site.admit(&request).unwrap().open()?;
    /// let token = exchange.action_token("delete account")?;
    /// assert!(exchange.check_action("delete account", Some(&token)).is_ok());
    /// assert!(exchange.check_action("send money", Some(&token)).is_err());
    /// # Ok::<(), dwell::Error>(())
    /// ```
    pub fn check_action(&self, action: &str, shown: Option<&str>) -> Result<(), Refusal> {
        self.consult();
        self.check_shown(shown, Scope::Action(action))
    }

    fn check_shown(&self, shown: Option<&str>, scope: Scope<'_>) -> Result<(), Refusal> {
        if shown.map_or(Ok(false), |shown| self.is_own_token(shown, scope))? {
            return Ok(());
        }
        let site = &self.0.site;
        if matches!(self.0.found, Found::Locked) {
            site.sessions().note_flaw(Flaw::Companion, false);
            return Err(Refusal::companion());
        }
        site.refuse(Flaw::Token, Refusal::token())
    }

    fn is_own_token(&self, shown: &str, scope: Scope<'_>) -> Result<bool> {
        let sessions = self.0.site.sessions();
        match &self.0.found {
            Found::Session(session) => {
                Ok(session.secret(&scope.purpose())?.is_some_and(|secret| csrf::is_bound(shown, scope, &secret)))
            }
            Found::Nobody | Found::Several | Found::Locked => {
                Ok(csrf::is_visitor(shown, scope, sessions.visitor_tags(), sessions.now()))
            }
        }
    }

    /// A token for this visitor's pages and scripts, to come back in the header `X-CSRF-Token` or the form field
    /// [`Site::token_field`]. Every call gives another spelling; all hold until the session's token is replaced, or for
    /// an hour where there is no session.
    ///
    /// # Errors
    /// [`Storage`](ErrorKind::Storage) if the system's random source fails; [`Closed`](ErrorKind::Closed).
    pub fn csrf_token(&self) -> Result<String> {
        self.token_for(Scope::Page)
    }

    /// A token for one action of this visitor, by a name that the application gives it, to be checked with
    /// [`check_action`](Self::check_action). It is made from a secret of its own: whoever learns the page's token, from a
    /// header in a log say, cannot make it. It holds as long as the page's, and any number of times.
    ///
    /// # Errors
    /// As [`csrf_token`](Self::csrf_token).
    pub fn action_token(&self, action: &str) -> Result<String> {
        self.token_for(Scope::Action(action))
    }

    fn token_for(&self, scope: Scope<'_>) -> Result<String> {
        self.consult();
        let secret = self.current().map_or(Ok(None), |session| session.secret(&scope.purpose()));
        match secret {
            Ok(Some(secret)) => csrf::bound(scope, &secret),
            Ok(None) => self.visitor_token(scope),
            Err(error) if error.kind() == ErrorKind::Gone => self.visitor_token(scope),
            Err(error) => Err(error),
        }
    }

    fn visitor_token(&self, scope: Scope<'_>) -> Result<String> {
        let sessions = self.0.site.sessions();
        csrf::visitor(scope, sessions.visitor_tags(), sessions.now())
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

    /// The token that the client is to use from now on, if it is another than it came with: because this request began its
    /// session, signed in or rotated, or because a [successor](crate::Options::rotate_every) is on offer; where sessions are not tracked
    /// by a cookie: for the answer's body. Where they are [tracked by a header](Site::by_header), it is in the answer's
    /// header `Session-Token` as well.
    #[must_use]
    pub fn token(&self) -> Option<String> {
        let by_cookie = self.0.site.get().tracking == Tracking::Cookie;
        let session = self.current().filter(|_| !by_cookie && !self.0.visit.has_ended())?;
        Some(session.token()?.expose().to_string())
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
        let mut headers = Vec::with_capacity(4);
        if cookie.is_some() || self.is_consulted() {
            headers.push(("vary", Cow::Borrowed(self.0.site.varies_by())));
            headers.push(("cache-control", Cow::Borrowed("no-store")));
        }
        if self.0.site.get().tracking == Tracking::Url {
            headers.push(("referrer-policy", Cow::Borrowed("same-origin")));
        }
        headers.extend(cookie.map(|cookie| (self.0.site.hands_out_in(), Cow::Owned(cookie))));
        Ok(headers)
    }

    /// The cookie to set or remove, or the token in its place.
    fn cookie(&self) -> Result<Option<String>> {
        let (rules, tracking) = (&self.0.site.get().cookie, self.0.site.get().tracking);
        if self.0.visit.has_ended() {
            return Ok(self.0.cookie_sent.then(|| rules.removal()));
        }
        // An answer that is the same for everybody stays so: the next one that is not brings the successor of a token.
        if !self.is_consulted() {
            return Ok(None);
        }
        let Some((session, token)) = self.current().and_then(|session| Some((session.clone(), session.token()?)))
        else {
            return Ok(None);
        };
        // A session that ended meanwhile, or whose token another request replaced, says nothing to the browser.
        match max_age(&session) {
            Ok(_) if tracking == Tracking::Header => Ok(Some(token.expose().to_string())),
            Ok(_) if tracking == Tracking::Url => Ok(None),
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
            Found::Nobody | Found::Several | Found::Locked => self.0.new.get().cloned(),
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

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let session = match &self.0.found {
            Found::Nobody | Found::Several | Found::Locked => None,
            Found::Session(session) => session.id(),
        };
        f.debug_struct("Exchange").field("site", &self.0.site).field("session", &session).finish_non_exhaustive()
    }
}
