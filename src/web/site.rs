//! Sites: how a web application is reached, and what follows from that for cookies and checks.
//!
//! What lives here: [`Site`], one constructor for each way of being reached, and what can be told to it. It knows sessions
//! and the pure parts beside it. Invariants: there is no site without a profile; what a browser would silently drop is
//! refused.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use ipnet::IpNet;

use super::cookie::{CookieRules, SameSite};
use super::dangerous::Dangerous;

#[cfg(feature = "rate-limit")]
use super::flood::{Flood, NewSessions};
#[cfg(feature = "test-util")]
use super::front::Front;
use super::hand_off::Codes;
use super::host::{Authority, Host, HostRules, Origin, Scheme};
use super::request::{COMPANION_HEADER, SESSION_HEADER, TOKEN_HEADER};
use crate::error::{Error, Result};
use crate::session::Gate;
use crate::sessions::Sessions;

/// A web application that has sessions, and how browsers reach it. Cheap to clone.
///
/// The profile decides the cookie's name and attributes, which hosts are answered to, and what a request that changes
/// something has to show:
///
/// | | [`development`](Self::development) | [`localhost`](Self::localhost) | [`lan`](Self::lan) | [`https`](Self::https) |
/// |---|---|---|---|---|
/// | for | writing the program | programs with a page on one machine | devices on a local network | the internet |
/// | answers to | this machine's names, given `*.localhost` | the same | its own address, given names | given names |
/// | cookie | `id-…`, Lax | `id-…`, Strict | `id-…`, Strict | `__Host-Http-id`, Secure, Lax |
/// | besides the cookie | | a companion secret | | |
///
/// In all of them the cookie is `HttpOnly`, has no `Domain` and ends with the browser, except for remembered sign-ins;
/// and a request that changes something comes from a page of this site and shows that page's token.
///
/// ```
/// use dwell::web::{Request, Site};
/// let site = Site::https(dwell::Options::new().in_memory()?, "app.example")?;
/// let foreign = Request::new("GET").headers([("Host", &b"evil.example"[..])]);
/// assert_eq!(site.admit(&foreign).unwrap_err().status(), 421);
/// # Ok::<(), dwell::Error>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct Site(Arc<Rules>);

#[derive(Clone)]
pub(super) struct Rules {
    pub(super) sessions: Sessions,
    pub(super) cookie: CookieRules,
    /// Signed-in sessions need a secret besides the cookie.
    pub(super) companion: bool,
    pub(super) token_field: String,
    pub(super) tracking: Tracking,
    /// Codes that open a session once. Clones of a site share them.
    pub(super) codes: Arc<Codes>,
    pub(super) profile: Profile,
    /// May be listened on at any address.
    pub(super) reachable: bool,
    /// Forged requests are told and let through.
    pub(super) log_only: bool,
    pub(super) hosts: HostRules,
    /// Whose pages may send requests besides the site's own.
    pub(super) trusted: Vec<Origin>,
    pub(super) token_header: String,
    pub(super) companion_header: String,
    pub(super) session_header: String,
    pub(super) proxies: Vec<IpNet>,
    /// The digits of the store, as they stand in cookies' names.
    pub(super) instance: String,
    /// The tick after which it may be told again that another store's cookie comes here. Clones of a site share it.
    pub(super) neighbour_untold_from: Arc<AtomicU32>,
    #[cfg(feature = "rate-limit")]
    flood: Arc<Flood>,
}

/// How a request says whose it is. The numbers are part of what is stored with sessions: what was handed out to travel one
/// way is nothing on another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Tracking {
    Cookie = 0x00,
    Header = 0x10,
    Url = 0x20,
}

/// How browsers reach the application. The numbers are stored with sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Profile {
    Development = 1,
    Localhost = 2,
    Lan = 3,
    Https = 4,
}

impl Profile {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Development => "development",
            Self::Localhost => "localhost",
            Self::Lan => "lan",
            Self::Https => "https",
        }
    }
}

impl Site {
    /// For writing the program: plain HTTP under this machine's own names, with cookies as on the internet but for
    /// `Secure`. Another program on this machine that serves pages gets the cookie too; for what people use, take
    /// [`localhost`](Self::localhost).
    pub fn development(sessions: Sessions) -> Self {
        Self::new(sessions, Profile::Development, SameSite::Lax)
    }

    /// For a program with a page on the same machine, on plain HTTP. Cookies know no ports, so every other program with
    /// a page on this machine is sent the cookie: a signed-in session needs a [companion](super::Exchange::companion)
    /// secret besides it, which the page keeps where only its own port reaches it. Page loads and plain forms cannot show
    /// one, so the page needs a script.
    pub fn localhost(sessions: Sessions) -> Self {
        let mut site = Self::new(sessions, Profile::Localhost, SameSite::Strict);
        site.rules().companion = true;
        site
    }

    /// For a device on a local network, on plain HTTP: answers to the address that the connection came in on, and to
    /// names given with [`allow_host`](Self::allow_host). It has to be told that address for each request
    /// ([`Request::local_address`](super::Request::local_address)), or it answers to the given names only. Whoever can listen in on that network can take sessions over;
    /// there is no remedy for that but HTTPS. [`Options::rotate_every`](crate::Options::rotate_every) shortens how long one
    /// cookie that was overheard serves.
    pub fn lan(sessions: Sessions) -> Self {
        let mut site = Self::new(sessions, Profile::Lan, SameSite::Strict);
        site.rules().hosts.loopback = false;
        site.rules().hosts.own_address = true;
        site
    }

    /// For the internet: HTTPS under this name, as `app.example` or `app.example:8443`, usually ended by a proxy in
    /// front. More names: [`allow_host`](Self::allow_host).
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) if that is no host name.
    pub fn https(sessions: Sessions, host: &str) -> Result<Self> {
        let mut site = Self::new(sessions, Profile::Https, SameSite::Lax);
        let rules = site.rules();
        // `__Host-`: no domain, whole site, secure. `Http-`: set by a response, not by a script; browsers that do not
        // know it see the first half.
        "__Host-Http-id".clone_into(&mut rules.cookie.name);
        rules.cookie.secure = true;
        rules.hosts.loopback = false;
        rules.hosts.scheme = Scheme::Https;
        site.allow_host(host)
    }

    fn new(sessions: Sessions, profile: Profile, same_site: SameSite) -> Self {
        let instance = sessions.instance();
        let name = format!("id-{instance}");
        Self(Arc::new(Rules {
            #[cfg(feature = "rate-limit")]
            flood: Arc::new(Flood::new(NewSessions::default(), &sessions, profile)),
            sessions,
            cookie: CookieRules { name, secure: false, same_site, domain: None, partitioned: false },
            companion: false,
            token_field: "csrf".to_owned(),
            tracking: Tracking::Cookie,
            codes: Arc::default(),
            profile,
            reachable: false,
            log_only: false,
            trusted: Vec::new(),
            hosts: HostRules { scheme: Scheme::Http, loopback: true, own_address: false, names: Vec::new() },
            token_header: TOKEN_HEADER.to_owned(),
            companion_header: COMPANION_HEADER.to_owned(),
            session_header: SESSION_HEADER.to_owned(),
            proxies: Vec::new(),
            instance,
            neighbour_untold_from: Arc::default(),
        }))
    }

    pub(super) fn rules(&mut self) -> &mut Rules {
        Arc::make_mut(&mut self.0)
    }

    /// The site, if browsers would keep its cookie.
    pub(super) fn checked(self) -> Result<Self> {
        match self.0.cookie.flaw() {
            Some(flaw) => Err(Error::invalid(format!("the cookie `{}` would not be kept: {flaw}", self.0.cookie.name))),
            None => Ok(self),
        }
    }

    /// Whether all hosts are in the domain that the cookie is shared in.
    pub(super) fn check_domain(&self) -> Result<()> {
        let Some(domain) = &self.0.cookie.domain else { return Ok(()) };
        let is_inside = |host: &Authority| match &host.host {
            Host::Name(name) => name.strip_suffix(&**domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')),
            Host::Ip(_) => false,
        };
        if self.0.hosts.names.iter().all(is_inside) {
            return Ok(());
        }
        Err(Error::invalid(format!("a host of this site is not in `{domain}`, so browsers would drop its cookie")))
    }

    /// Answers to this host name too: `name` or `name:port`. Without a port it means the scheme's own, and on plain HTTP
    /// also the port that the server listens on.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) if that is no host name; in the profiles for one machine also if the name
    /// does not end in `.localhost`, because any page could point another name here.
    pub fn allow_host(mut self, host: &str) -> Result<Self> {
        let authority = Authority::parse(host.as_bytes())
            .ok_or_else(|| Error::invalid(format!("`{host}` is no host name; write `name` or `name:port`")))?;
        let is_local = matches!(&authority.host, Host::Name(name) if name.ends_with(".localhost"));
        if self.0.hosts.loopback && !is_local {
            return Err(Error::invalid(format!(
                "`{host}` cannot be allowed in the profile `{}`, whose names end in `.localhost`; use `lan` or `https`",
                self.0.profile.name()
            )));
        }
        self.rules().hosts.names.push(authority);
        self.check_domain()?;
        Ok(self)
    }

    /// Takes requests from pages of this origin for its own: `https://partner.example`, or `tauri://localhost`, compared
    /// whole. They still have to show the token, which they cannot read unless the application lets them (CORS), and
    /// browsers send the cookie along only where its `SameSite` lets them.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) if that is no origin: no path, no pattern, not `null`, which every page in a
    /// sandbox has.
    pub fn trust_origin(mut self, origin: &str) -> Result<Self> {
        let parsed = Origin::parse(origin.as_bytes()).ok_or_else(|| {
            Error::invalid(format!("`{origin}` is no origin; write `https://partner.example`, without a path"))
        })?;
        self.rules().trusted.push(parsed);
        Ok(self)
    }

    /// Tracks sessions by a header instead of a cookie, for programs and for pages that keep the token themselves: it comes
    /// as `Authorization: Bearer …`, or as `X-Session-Token: …` where `Authorization` is taken. A new token goes out in the
    /// header `Session-Token` of an answer, and as [`Exchange::token`](super::Exchange::token).
    ///
    /// No cookie is read or set. Browsers send such a header for no page but the one that has the token, so requests need no
    /// page's token and no companion; their origin is still checked. But a script in the page can read what the page
    /// keeps, which it cannot with a cookie. Tokens from before this was changed, one way or the other, open nothing.
    pub fn by_header(mut self) -> Self {
        let rules = self.rules();
        rules.tracking = Tracking::Header;
        rules.companion = false;
        self
    }

    /// Calls the cookie something else than `id`. On plain HTTP the store's own mark is put behind it, as in `shop-4f2a`;
    /// on HTTPS the name begins with `__Host-`, or `__Secure-` if the cookie is [shared](Dangerous::shared_domain).
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) if browsers would drop a cookie of that name, which they do silently.
    pub fn cookie_named(mut self, name: &str) -> Result<Self> {
        let own = match self.0.cookie.secure {
            true => name.to_owned(),
            false => format!("{name}-{}", self.0.instance),
        };
        self.rules().cookie.name = own;
        self.checked()
    }

    /// The way to give up a protection, each by its own name.
    pub fn dangerous(self) -> Dangerous {
        Dangerous(self)
    }

    /// Believes the `X-Forwarded-For` and `Forwarded` headers of requests that come from this address or network, as
    /// `10.0.0.1` or `10.0.0.0/8`. They tell a client's address and nothing else.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) if that is no address or network.
    pub fn trusted_proxy(mut self, network: &str) -> Result<Self> {
        let parsed = network.parse::<IpNet>().or_else(|_| network.parse::<IpAddr>().map(IpNet::from));
        let parsed = parsed.map_err(|_| {
            Error::invalid(format!("`{network}` is no network; write an address, or one like `10.0.0.0/8`"))
        })?;
        self.rules().proxies.push(parsed);
        Ok(self)
    }

    /// How fast new anonymous sessions may begin here. Unless said, as [`NewSessions::default`].
    #[cfg(feature = "rate-limit")]
    pub fn new_sessions(mut self, limits: NewSessions) -> Self {
        let flood = Flood::new(limits, self.sessions(), self.0.profile);
        self.rules().flood = Arc::new(flood);
        self
    }

    /// Tells a second store of the same application from the first: the name becomes part of the cookie's name, of the
    /// headers `X-CSRF-Token-…` and `X-Companion-…` and of the form field `csrf-…`.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) unless it is 1 to 32 lower-case letters, digits and hyphens.
    pub fn named(mut self, name: &str) -> Result<Self> {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > 32 || !name.bytes().all(is_plain) {
            let message = "a site's name is 1 to 32 lower-case letters, digits and hyphens";
            return Err(Error::invalid(format!("{message}, which `{name}` is not")));
        }
        let rules = self.rules();
        for text in [
            &mut rules.cookie.name,
            &mut rules.token_header,
            &mut rules.companion_header,
            &mut rules.session_header,
            &mut rules.token_field,
        ] {
            text.push('-');
            text.push_str(name);
        }
        self.checked()
    }

    /// The store behind this site.
    #[must_use]
    pub fn sessions(&self) -> &Sessions {
        &self.0.sessions
    }

    /// The name of the session's cookie.
    #[must_use]
    pub fn cookie_name(&self) -> &str {
        &self.0.cookie.name
    }

    /// The form field that carries a page's token.
    #[must_use]
    pub fn token_field(&self) -> &str {
        &self.0.token_field
    }

    /// Whether a request that passed the checks of one of the two has passed those of the other.
    #[cfg(feature = "axum")]
    pub(super) fn checks_like(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.get(), other.get());
        let names = |rules: &Rules| {
            let Rules { token_field, token_header, companion_header, session_header, .. } = rules;
            [token_field, token_header, companion_header, session_header].map(String::clone)
        };
        Arc::ptr_eq(&self.0, &other.0)
            || (ours.profile, ours.tracking, ours.companion) == (theirs.profile, theirs.tracking, theirs.companion)
                && ours.log_only == theirs.log_only
                && ours.cookie == theirs.cookie
                && ours.hosts == theirs.hosts
                && ours.trusted == theirs.trusted
                && names(ours) == names(theirs)
    }

    /// What sessions that are made here are marked with: they count under no other profile.
    pub(super) fn door(&self) -> u8 {
        self.0.profile as u8 | self.0.tracking as u8
    }

    /// The answer's header that has the token in it.
    pub(crate) fn hands_out_in(&self) -> &'static str {
        match self.0.tracking {
            Tracking::Cookie => "set-cookie",
            Tracking::Header | Tracking::Url => "session-token",
        }
    }

    /// The request headers that answers depend on.
    pub(crate) fn varies_by(&self) -> &'static str {
        match self.0.tracking {
            Tracking::Header => "Authorization, X-Session-Token",
            Tracking::Cookie if self.0.companion => "Cookie, X-Companion",
            Tracking::Cookie | Tracking::Url => "Cookie",
        }
    }

    /// What new anonymous sessions have to pass.
    pub(super) fn gate(&self) -> Option<Arc<dyn Gate>> {
        #[cfg(feature = "rate-limit")]
        return Some(Arc::<Flood>::clone(&self.0.flood));
        #[cfg(not(feature = "rate-limit"))]
        None
    }

    pub(super) fn get(&self) -> &Rules {
        &self.0
    }

    #[cfg(feature = "test-util")]
    pub(super) fn token_header(&self) -> &str {
        &self.0.token_header
    }

    #[cfg(feature = "test-util")]
    pub(super) fn companion_header(&self) -> Option<&str> {
        self.0.companion.then_some(&*self.0.companion_header)
    }

    /// Where a browser that is made up for a test finds this site.
    #[cfg(feature = "test-util")]
    pub(super) fn front(&self) -> Front {
        Front::of(&self.0.hosts)
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Site")
            .field("profile", &self.0.profile.name())
            .field("cookie", &self.0.cookie.name)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::options::Options;
    use crate::web::request::Request;

    fn sessions() -> Sessions {
        Options::new().in_memory().unwrap()
    }

    #[test]
    fn what_makes_no_sense_is_refused_at_the_start() {
        let kind = |result: Result<Site>| result.unwrap_err().kind();
        assert_eq!(kind(Site::https(sessions(), "https://app.example")), ErrorKind::Invalid);
        assert_eq!(kind(Site::https(sessions(), "")), ErrorKind::Invalid);
        assert_eq!(kind(Site::localhost(sessions()).allow_host("app.example")), ErrorKind::Invalid);
        assert_eq!(kind(Site::lan(sessions()).trusted_proxy("10.0.0.0/33")), ErrorKind::Invalid);
        assert_eq!(kind(Site::lan(sessions()).named("Admin")), ErrorKind::Invalid);
        assert!(Site::localhost(sessions()).allow_host("notes.localhost").is_ok());
    }

    #[test]
    fn names_are_the_stores_own() {
        let (one, two) = (sessions(), sessions());
        assert_ne!(Site::lan(one.clone()).cookie_name(), Site::lan(two).cookie_name());
        assert_eq!(Site::lan(one.clone()).cookie_name(), Site::localhost(one.clone()).cookie_name());
        let admin = Site::https(one, "app.example").unwrap().named("admin").unwrap();
        assert_eq!((admin.cookie_name(), admin.token_field()), ("__Host-Http-id-admin", "csrf-admin"));
    }

    #[test]
    fn a_target_and_a_host_line_agree() {
        let site = Site::https(sessions(), "app.example").unwrap();
        let status = |target: Option<&'static str>, lines: &[(&'static str, &'static [u8])]| {
            let mut request = Request::new("GET").headers(lines.iter().copied());
            request.target = target;
            site.check_host(&request).map_or_else(|refusal| refusal.status(), |()| 200)
        };
        assert_eq!(status(None, &[("host", b"app.example")]), 200);
        assert_eq!(status(Some("app.example"), &[]), 200);
        assert_eq!(status(Some("app.example"), &[("host", b"app.example")]), 200);
        assert_eq!(status(Some("evil.example"), &[("host", b"app.example")]), 400);
        assert_eq!(status(Some("app.example"), &[("host", b"evil.example")]), 400);
        assert_eq!(status(None, &[("host", b"evil.example")]), 421);
        assert_eq!(status(None, &[]), 400);
        assert_eq!(status(None, &[("host", b"app.example"), ("host", b"app.example")]), 400);
    }
}
