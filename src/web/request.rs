//! What of a request matters to sessions, gathered in one pass over its headers.
//!
//! It knows bytes and addresses. Invariants: repeated lines are noticed, never merged; nothing is decided here.

use std::fmt;
use std::net::SocketAddr;

/// A request, as far as sessions are concerned: method, headers, and who is connected to whom.
///
/// ```
/// use dwell::web::Request;
/// let request = Request::new("GET").headers([("Host", &b"localhost:3000"[..]), ("Cookie", b"theme=dark")]);
/// # let _ = request;
/// ```
#[derive(Clone)]
#[must_use]
pub struct Request<'a> {
    pub(super) is_safe: bool,
    pub(super) is_passive: bool,
    /// It opens a channel that writes: a web socket begins with a `GET`.
    pub(super) is_socket: bool,
    /// It opens a channel that goes on answering, or asks for one.
    pub(super) is_stream: bool,
    pub(super) target: Option<&'a str>,
    pub(super) query: &'a str,
    pub(super) local: Option<SocketAddr>,
    pub(super) peer: Option<SocketAddr>,
    pub(super) host: Line<'a>,
    pub(super) origin: Line<'a>,
    pub(super) fetch_site: Line<'a>,
    pub(super) user_agent: Line<'a>,
    pub(super) authorization: Line<'a>,
    pub(super) forwarded: Line<'a>,
    pub(super) forwarded_for: Vec<&'a [u8]>,
    pub(super) cookies: Vec<&'a [u8]>,
    pub(super) secrets: Vec<(&'a str, &'a [u8])>,
}

/// A header that may come once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Line<'a> {
    #[default]
    Absent,
    Once(&'a [u8]),
    Repeated,
}

impl<'a> Line<'a> {
    fn add(&mut self, value: &'a [u8]) {
        *self = if *self == Line::Absent { Line::Once(value) } else { Line::Repeated };
    }

    pub(super) const fn once(self) -> Option<&'a [u8]> {
        match self {
            Line::Once(value) => Some(value),
            Line::Absent | Line::Repeated => None,
        }
    }
}

/// Beginnings of the names of headers that carry a secret; the rest of the name is the layer's.
pub(super) const TOKEN_HEADER: &str = "x-csrf-token";
pub(super) const COMPANION_HEADER: &str = "x-companion";
pub(super) const SESSION_HEADER: &str = "x-session-token";

impl<'a> Request<'a> {
    /// A request with this method. `GET`, `HEAD`, `OPTIONS` and `TRACE` change nothing (RFC 9110, 9.2.1); all others are
    /// held to the rules for requests that do.
    pub fn new(method: &str) -> Self {
        Self {
            is_safe: matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE"),
            is_passive: false,
            is_socket: false,
            is_stream: false,
            target: None,
            query: "",
            local: None,
            peer: None,
            host: Line::Absent,
            origin: Line::Absent,
            fetch_site: Line::Absent,
            user_agent: Line::Absent,
            authorization: Line::Absent,
            forwarded: Line::Absent,
            forwarded_for: Vec::new(),
            cookies: Vec::new(),
            secrets: Vec::new(),
        }
    }

    /// All its headers, in their order. Names in any case.
    pub fn headers(mut self, headers: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        for (name, value) in headers {
            self.add(name, value);
        }
        self
    }

    /// The host that the request's target names, if it does: `http://host/path`, or HTTP/2's `:authority`.
    pub const fn target_host(mut self, authority: &'a str) -> Self {
        self.target = Some(authority);
        self
    }

    /// What follows the `?` in the request's target, as it came. Read only where sessions are tracked by addresses.
    pub const fn query(mut self, query: &'a str) -> Self {
        self.query = query;
        self
    }

    /// The address the connection came in on. Without it, only names that were configured are answered to on a LAN.
    pub const fn local_address(mut self, address: SocketAddr) -> Self {
        self.local = Some(address);
        self
    }

    /// The address of whoever is connected, which may be a proxy.
    pub const fn peer_address(mut self, address: SocketAddr) -> Self {
        self.peer = Some(address);
        self
    }

    /// The request does not count as use of the session: for polling that must not keep it alive.
    pub const fn passive(mut self) -> Self {
        self.is_passive = true;
        self
    }

    /// What answers it goes on answering: who reads along has to come from a page of this site, as for a request that
    /// changes something. A request that asks for `text/event-stream` is taken for one without this; say it where the
    /// answer is a stream whatever the request asks for.
    pub const fn stream(mut self) -> Self {
        self.is_stream = true;
        self
    }

    fn add(&mut self, name: &'a str, value: &'a [u8]) {
        let is = |ours: &str| name.eq_ignore_ascii_case(ours);
        match name.len() {
            4 if is("host") => self.host.add(value),
            6 if is("cookie") => self.cookies.push(value),
            6 if is("origin") => self.origin.add(value),
            6 if is("accept") => self.is_stream |= names(value, b"text/event-stream"),
            // Offers of other protocols are ignored, as servers do.
            7 if is("upgrade") => self.is_socket |= names(value, b"websocket"),
            9 if is("forwarded") => self.forwarded.add(value),
            10 if is("user-agent") => self.user_agent.add(value),
            13 if is("authorization") => self.authorization.add(value),
            14 if is("sec-fetch-site") => self.fetch_site.add(value),
            15 if is("x-forwarded-for") => self.forwarded_for.push(value),
            _ if [TOKEN_HEADER, COMPANION_HEADER, SESSION_HEADER].iter().any(|ours| begins(name, ours)) => {
                self.secrets.push((name, value));
            }
            _ => {}
        }
    }

    /// The token in `Authorization: Bearer …` (RFC 6750, 2.1), if that came once and is one.
    pub(super) fn bearer(&self) -> Secret<'a> {
        let value = match self.authorization {
            Line::Absent => return Secret::Absent,
            Line::Repeated => return Secret::Bad,
            Line::Once(value) => value,
        };
        let Some((scheme, rest)) = value.split_at_checked("Bearer ".len()) else { return Secret::Absent };
        if !scheme.eq_ignore_ascii_case(b"Bearer ") {
            // Somebody else's: of a proxy that asks for a password, say.
            return Secret::Absent;
        }
        std::str::from_utf8(rest.trim_ascii_start()).map_or(Secret::Bad, Secret::Shown)
    }

    /// The value of a header with a secret, if it came once and is text.
    pub(super) fn secret(&self, name: &str) -> Secret<'a> {
        let mut found = self.secrets.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        match (found.next(), found.next()) {
            (None, _) => Secret::Absent,
            (Some((_, value)), None) => std::str::from_utf8(value).map_or(Secret::Bad, Secret::Shown),
            (Some(_), Some(_)) => Secret::Bad,
        }
    }
}

/// Its cookies and secrets are for nobody's log.
impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.host.once().map(<[u8]>::escape_ascii);
        f.debug_struct("Request")
            .field("is_safe", &self.is_safe)
            .field("host", &host.map(|host| host.to_string()))
            .field("local", &self.local)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// A header with a secret.
#[derive(Clone, Copy)]
pub(super) enum Secret<'a> {
    Absent,
    Shown(&'a str),
    /// Repeated, or no text.
    Bad,
}

/// Anything that a server could take for the wish to speak of this: somewhere in the line, in any case.
fn names(value: &[u8], what: &[u8]) -> bool {
    value.windows(what.len()).any(|part| part.eq_ignore_ascii_case(what))
}

fn begins(name: &str, with: &str) -> bool {
    name.get(..with.len()).is_some_and(|head| head.eq_ignore_ascii_case(with))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_lines_are_noticed() {
        let request = Request::new("POST").headers([
            ("Host", &b"a"[..]),
            ("HOST", b"a"),
            ("cookie", b"x=1"),
            ("Cookie", b"y=2"),
            ("X-CSRF-Token", b"t"),
            ("X-CSRF-Token-Admin", b"u"),
            ("Origin", b"null"),
        ]);
        assert_eq!(request.host, Line::Repeated);
        assert_eq!(request.origin, Line::Once(b"null"));
        assert_eq!(request.cookies, [b"x=1", b"y=2"]);
        assert!(matches!(request.secret("x-csrf-token"), Secret::Shown("t")));
        assert!(matches!(request.secret("x-csrf-token-admin"), Secret::Shown("u")));
        assert!(matches!(request.secret("x-companion"), Secret::Absent));
    }

    #[test]
    fn what_is_secret_is_not_shown_to_logs() {
        let request = Request::new("POST").headers([
            ("Host", &b"localhost"[..]),
            ("Cookie", b"id=sid_s1_T"),
            ("X-CSRF-Token", b"sid_c1_U"),
            ("X-Companion", b"sid_k1_V"),
        ]);
        let shown = format!("{request:?}{request:#?}");
        for secret in ["sid_", "115, 105, 100, 95", "115,\n"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert!(shown.contains("localhost"));
    }

    #[test]
    fn a_bearer_token_comes_once_and_is_called_so() {
        let shown = |values: &[&'static [u8]]| {
            let request = Request::new("GET").headers(values.iter().map(|&value| ("Authorization", value)));
            match request.bearer() {
                Secret::Absent => "absent".to_owned(),
                Secret::Bad => "bad".to_owned(),
                Secret::Shown(text) => format!("shown {text}"),
            }
        };
        assert_eq!(shown(&[b"Bearer T"]), "shown T");
        assert_eq!(shown(&[b"bearer   T"]), "shown T");
        assert_eq!(shown(&[b"Bearer "]), "shown ");
        assert_eq!(shown(&[b"Bearer T U"]), "shown T U");
        assert_eq!(shown(&[b"Bearer \xff"]), "bad");
        assert_eq!(shown(&[b"Bearer T", b"Bearer T"]), "bad");
        assert_eq!(shown(&[b"Basic dTpw", b"Bearer T"]), "bad");
        for other in [&b"Basic dTpw"[..], b"BearerT", b"Bearer", b"", b"Bear", b"Digest Bearer T"] {
            assert_eq!(shown(&[other]), "absent", "{}", other.escape_ascii());
        }
        assert_eq!(shown(&[]), "absent");
    }

    #[test]
    fn only_an_offer_of_web_sockets_is_one() {
        let offers = |value: &'static [u8]| Request::new("GET").headers([("Upgrade", value)]).is_socket;
        assert!(offers(b"websocket") && offers(b"WebSocket") && offers(b"h2c, websocket/13"));
        assert!(!offers(b"h2c") && !offers(b"") && !offers(b"TLS/1.0"));
    }

    #[test]
    fn only_who_accepts_an_event_stream_opens_one() {
        let opens = |value: &'static [u8]| Request::new("GET").headers([("Accept", value)]).is_stream;
        assert!(opens(b"text/event-stream") && opens(b"application/json, Text/Event-Stream;q=0.5"));
        assert!(!opens(b"*/*") && !opens(b"text/html") && !opens(b""));
    }

    #[test]
    fn only_four_methods_are_safe() {
        for method in ["GET", "HEAD", "OPTIONS", "TRACE"] {
            assert!(Request::new(method).is_safe);
        }
        for method in ["POST", "PUT", "PATCH", "DELETE", "QUERY", "get", "GET ", "", "CONNECT", "BREW"] {
            assert!(!Request::new(method).is_safe, "{method}");
        }
    }
}
