//! Admission: whether a request is meant for a site and comes from it. Works on the request alone: no look-up, no disk.
//!
//! It knows the site's rules and the pure parts beside it. Invariants: nothing is looked up before the host was checked;
//! every check names what it allows and refuses the rest; what a forwarding header says is believed of known proxies only.

use std::sync::atomic::Ordering;

use super::admitted::{Admitted, Candidates, Shown};
use super::cookie;
use super::device;
use super::forwarded;
use super::host::{self, Authority, Origin};
use super::refusal::Refusal;
use super::request::{Line, Request, Secret};
use super::site::{Site, Tracking};
use crate::engine::Flaw;
use crate::session::Caller;

impl Site {
    /// Whether the request's host is ours, and nothing else: for what is served without a session.
    ///
    /// # Errors
    /// A [`Refusal`] with status 400 or 421.
    pub fn check_host(&self, request: &Request<'_>) -> Result<(), Refusal> {
        self.own_host(request).map(drop)
    }

    /// Whether the request may go on to its session: it names a host of ours, and, if it may change something or opens a
    /// web socket or an event stream, comes from a page of ours. Works on the request alone: no look-up, no disk.
    ///
    /// # Errors
    /// A [`Refusal`] with status 400, 403 or 421.
    pub fn admit(&self, request: &Request<'_>) -> Result<Admitted, Refusal> {
        let host = self.own_host(request)?;
        let candidates = self.candidates(request);
        if !request.is_safe || request.is_socket || request.is_stream {
            let checked = self.check_page(request, &host, candidates.cookie_sent);
            checked.or_else(|refusal| self.refuse(Flaw::Page, refusal))?;
        }
        Ok(Admitted {
            site: self.clone(),
            candidates,
            is_safe: request.is_safe,
            is_passive: request.is_passive,
            token: shown(request.secret(&self.get().token_header)),
            companion: shown(request.secret(&self.get().companion_header)),
            caller: self.caller(request),
        })
    }

    /// The tokens that the request shows, in the way that counts here.
    fn candidates(&self, request: &Request<'_>) -> Candidates {
        let mut candidates = Candidates::default();
        match self.get().tracking {
            Tracking::Cookie if cookie::are_too_many(&request.cookies) => candidates.give_up(),
            Tracking::Cookie => {
                let values = cookie::values(request.cookies.iter().copied(), self.cookie_name());
                values.for_each(|value| candidates.add_cookie(value));
                self.warn_of_neighbour(&request.cookies);
            }
            Tracking::Url => {
                let pairs = request.query.split('&').filter_map(|pair| pair.split_once('='));
                let values = pairs.filter(|(name, _)| *name == SESSION_PARAMETER).map(|(_, value)| value);
                values.for_each(|value| candidates.add(value));
            }
            // Two of them are as ambiguous as two cookies are.
            Tracking::Header => match (request.bearer(), request.secret(&self.get().session_header)) {
                (Secret::Shown(text), Secret::Absent) | (Secret::Absent, Secret::Shown(text)) => candidates.add(text),
                _ => {}
            },
        }
        candidates
    }

    fn warn_of_neighbour(&self, cookies: &[&[u8]]) {
        let (untold_from, now) = (&self.get().neighbour_untold_from, self.sessions().now());
        let seen = untold_from.load(Ordering::Relaxed);
        if now.0 < seen || !cookie::has_neighbour(cookies, &self.get().instance) {
            return;
        }
        let next = now.plus(NEIGHBOUR_SECONDS).0;
        if untold_from.compare_exchange(seen, next, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.sessions().note_flaw(Flaw::Neighbour, true);
        }
    }

    /// Tells of a request that may be forged, and refuses it unless that is all that is wanted.
    pub(super) fn refuse(&self, flaw: Flaw, refusal: Refusal) -> Result<(), Refusal> {
        self.sessions().note_flaw(flaw, self.get().log_only);
        if self.get().log_only { Ok(()) } else { Err(refusal) }
    }

    fn own_host(&self, request: &Request<'_>) -> Result<Authority, Refusal> {
        self.asked_host(request).inspect_err(|_| self.sessions().note_flaw(Flaw::Host, false))
    }

    fn asked_host(&self, request: &Request<'_>) -> Result<Authority, Refusal> {
        let parse = |bytes| Authority::parse(bytes).ok_or_else(Refusal::host_malformed);
        let target = request.target.map(|text| parse(text.as_bytes())).transpose()?;
        let asked = match (request.host, target) {
            (Line::Once(line), None) => parse(line)?,
            (Line::Absent, Some(target)) => target,
            (Line::Once(line), Some(target)) => {
                Some(parse(line)?).filter(|host| *host == target).ok_or_else(Refusal::host_malformed)?
            }
            (Line::Repeated, _) | (Line::Absent, None) => return Err(Refusal::host_malformed()),
        };
        if self.get().hosts.allow(&asked, request.local) { Ok(asked) } else { Err(Refusal::host_foreign()) }
    }

    /// Browsers say where a request comes from, in one header or the other. What says neither is no browser, and has no
    /// business with a cookie.
    fn check_page(&self, request: &Request<'_>, host: &Authority, cookie_sent: bool) -> Result<(), Refusal> {
        let origin = request.origin.once().and_then(Origin::parse);
        if origin.is_some_and(|origin| self.get().trusted.contains(&origin)) {
            return Ok(());
        }
        match request.fetch_site {
            Line::Absent | Line::Once(b"same-origin" | b"none") => {}
            Line::Once(_) | Line::Repeated => return Err(Refusal::foreign_page()),
        }
        match request.origin {
            Line::Once(origin) if host::is_own_origin(origin, self.get().hosts.scheme, host) => Ok(()),
            Line::Once(_) | Line::Repeated => Err(Refusal::foreign_page()),
            // Browsers never leave it out of a handshake, and no token follows.
            Line::Absent if request.is_socket => Err(Refusal::no_origin()),
            // Over plain HTTP a page of ours that only reads says neither.
            Line::Absent if request.is_safe => Ok(()),
            Line::Absent if request.fetch_site == Line::Absent && cookie_sent => Err(Refusal::no_origin()),
            Line::Absent => Ok(()),
        }
    }

    fn caller(&self, request: &Request<'_>) -> Caller {
        let user_agent = request.user_agent.once().unwrap_or_default();
        let cut = user_agent.get(..USER_AGENT_BYTES_MAX).unwrap_or(user_agent);
        let client = forwarded::client(request, &self.get().proxies);
        Caller {
            user_agent: String::from_utf8_lossy(cut).into(),
            address: client.address,
            way: client.way,
            door: self.door(),
            describe: Some(device::label),
        }
    }
}

/// The parameter of an address that has the token in it.
const SESSION_PARAMETER: &str = "session";

/// How often at most it is told that another store's cookie comes here: nobody may have listened the first time.
const NEIGHBOUR_SECONDS: u32 = 60 * 60;

/// The longest `User-Agent` that is looked at, in bytes; those of browsers have about 150.
const USER_AGENT_BYTES_MAX: usize = 512;

fn shown(secret: Secret<'_>) -> Shown {
    match secret {
        Secret::Absent => Shown::Nothing,
        Secret::Bad => Shown::Bad,
        Secret::Shown(text) => Shown::Text(text.into()),
    }
}
