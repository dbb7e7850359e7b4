//! Admitted requests: whose request it is.
//!
//! What lives here: [`Admitted`], a request that names a host of ours and comes from a page of ours, and the search for
//! its session. It knows sessions and tokens. Invariants: two live sessions in one request are none; a session of another
//! profile is none; a signed-in session without its companion is no session to look at and no session to write to.

use std::fmt;

use super::csrf;
use super::exchange::{COMPANION, Exchange};
use super::site::Site;
use crate::error::{ErrorKind, Result};
use crate::session::{Caller, Session};
use crate::sessions::InMemory;
use crate::sign_in::Class;
use crate::token::Token;

/// What the cookies of our name hold, or the header in their place.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    /// Whether there is a cookie of our name at all, whatever is in it.
    pub(super) cookie_sent: bool,
    tokens: Vec<Token>,
    /// More than are worth a look.
    too_many: bool,
}

/// The most different tokens that one request's cookies may hold: each is looked up.
const CANDIDATES_MAX: usize = 4;

impl Candidates {
    pub(super) fn add_cookie(&mut self, value: &[u8]) {
        self.cookie_sent = true;
        if let Ok(text) = std::str::from_utf8(value) {
            self.add(text);
        }
    }

    /// For cookies that are not read, so that one of ours may be among them.
    pub(super) fn give_up(&mut self) {
        self.cookie_sent = true;
        self.too_many = true;
    }

    pub(super) fn add(&mut self, text: &str) {
        let Some(token) = Token::parse(text) else { return };
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
pub(super) enum Found {
    Nobody,
    /// More than one session's, or more cookies than are read: nobody's.
    Several,
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
        if self.candidates.too_many {
            return Ok(Found::Several);
        }
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
                if live.len() > 1 {
                    return Ok(Found::Several);
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
