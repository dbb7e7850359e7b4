//! Hosts and origins: which names this site answers to, and which pages its requests may come from.
//!
//! It knows bytes and addresses, no sessions. Grammar: RFC 9110, 7.2 for `Host`; the Fetch standard's serialisation for
//! `Origin`. Invariants: whatever is not understood is refused; comparisons are of whole hosts and ports, never of
//! beginnings or ends, so `localhost.evil.example` is not `localhost`; a host is never taken from a forwarding header,
//! which any page that made its own name point here could set.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A host and a port, as a `Host` line or an origin names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Authority {
    pub(super) host: Host,
    /// `None` is the scheme's own.
    pub(super) port: Option<u16>,
}

/// Who is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
    /// A name in lower case; also anything else that is spelled like one, as `127.1`.
    Name(String),
    Ip(IpAddr),
}

impl Authority {
    /// Reads `host` or `host:port`; `None` for anything else, an empty port included.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (address, rest) = rest.split_once(']')?;
            let port = if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) };
            (Host::Ip(IpAddr::V6(address.parse::<Ipv6Addr>().ok()?)), port)
        } else {
            let (name, port) = text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
            if name.is_empty() || !name.bytes().all(is_plain) {
                return None;
            }
            let address = name.parse::<Ipv4Addr>();
            (address.map_or_else(|_| Host::Name(name.to_ascii_lowercase()), |address| Host::Ip(address.into())), port)
        };
        let port = port.map(|digits| parse_port(digits).ok_or(())).transpose().ok()?;
        Some(Self { host, port })
    }

    pub(super) fn port_or(&self, default: u16) -> u16 {
        self.port.unwrap_or(default)
    }
}

/// A port has one spelling.
fn parse_port(digits: &str) -> Option<u16> {
    let port = digits.parse::<u16>().ok()?;
    (port.to_string() == digits).then_some(port)
}

/// How a page was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub(super) const fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    pub(super) const fn prefix(self) -> &'static str {
        match self {
            Self::Http => "http://",
            Self::Https => "https://",
        }
    }
}

/// Where pages come from that may send requests here besides the site's own: scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    scheme: String,
    authority: Authority,
}

impl Origin {
    /// Reads `scheme://host` or `scheme://host:port`; `None` for anything else, `null` included. A port that is the
    /// scheme's own is the same as none.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (scheme, rest) = std::str::from_utf8(bytes).ok()?.split_once("://")?;
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte);
        if !scheme.starts_with(|first: char| first.is_ascii_lowercase()) || !scheme.bytes().all(is_plain) {
            return None;
        }
        let Authority { host, port } = Authority::parse(rest.as_bytes())?;
        let own =
            [Scheme::Http, Scheme::Https].into_iter().find(|own| own.prefix().strip_suffix("://") == Some(scheme));
        let port = port.filter(|&port| own.is_none_or(|own| own.port() != port));
        Some(Self { scheme: scheme.to_owned(), authority: Authority { host, port } })
    }
}

/// Whether an `Origin` is this scheme's page on this host. `null`, other ports and anything odd are not.
pub(super) fn is_own_origin(origin: &[u8], scheme: Scheme, host: &Authority) -> bool {
    let Some(rest) = origin.strip_prefix(scheme.prefix().as_bytes()) else { return false };
    Authority::parse(rest)
        .is_some_and(|origin| origin.host == host.host && origin.port_or(scheme.port()) == host.port_or(scheme.port()))
}

/// Which hosts are ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostRules {
    pub(super) scheme: Scheme,
    /// `127.0.0.1`, `[::1]` and `localhost`.
    pub(super) loopback: bool,
    /// The address that the connection came in on.
    pub(super) own_address: bool,
    /// Names that the application gave.
    pub(super) names: Vec<Authority>,
}

impl HostRules {
    /// Whether a request for this host, on a connection to `local`, is meant for us.
    pub(super) fn allow(&self, asked: &Authority, local: Option<SocketAddr>) -> bool {
        let port = asked.port_or(self.scheme.port());
        self.names.iter().any(|name| {
            let own_port = || self.scheme == Scheme::Http && local.is_some_and(|local| local.port() == port);
            let fits = port == name.port_or(self.scheme.port()) || (name.port.is_none() && own_port());
            fits && name.host == asked.host
        }) || (self.loopback && is_loopback(&asked.host) && local.is_none_or(|local| local.port() == port))
            || (self.own_address
                && local.is_some_and(|local| local.port() == port && asked.host == Host::Ip(local.ip().to_canonical())))
    }
}

/// The three spellings of "this machine" that browsers know.
fn is_loopback(host: &Host) -> bool {
    match host {
        Host::Name(name) => name == "localhost",
        Host::Ip(address) => *address == IpAddr::V4(Ipv4Addr::LOCALHOST) || *address == IpAddr::V6(Ipv6Addr::LOCALHOST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Authority {
        Authority::parse(text.as_bytes()).unwrap_or_else(|| panic!("`{text}` is a host"))
    }

    #[test]
    fn what_is_malformed_is_no_host() {
        let bad: [&[u8]; 20] = [
            b"",
            b":80",
            b"a:",
            b"a:b",
            b"a:080",
            b"a:65536",
            b"a:+80",
            b"a b",
            b"u@a",
            b"a/",
            b"a,b",
            b"[::1",
            b"[::1]x",
            b"[1.2.3.4]",
            b"::1",
            b"a:1:2",
            b"a\xff",
            b"a%41",
            b"[fe80::1%25eth0]",
            b"\ta",
        ];
        for bytes in bad {
            assert_eq!(Authority::parse(bytes), None, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn hosts_have_one_form() {
        assert_eq!(host("LocalHost:3000"), host("localhost:3000"));
        assert_eq!(host("[0:0:0:0:0:0:0:1]:80"), host("[::1]:80"));
        for name in ["127.1", "0x7f000001", "2130706433", "017700000001", "localhost.", "1.2.3.4.5"] {
            assert!(matches!(host(name).host, Host::Name(_)), "{name}");
        }
    }

    #[test]
    fn loopback_is_three_spellings_on_the_own_port() {
        let rules = HostRules { scheme: Scheme::Http, loopback: true, own_address: false, names: vec![] };
        let local = Some("127.0.0.1:3000".parse().unwrap());
        for good in ["127.0.0.1:3000", "localhost:3000", "LOCALHOST:3000", "[::1]:3000"] {
            assert!(rules.allow(&host(good), local), "{good}");
        }
        for bad in [
            "127.0.0.1",
            "127.0.0.1:3001",
            "127.0.0.2:3000",
            "0.0.0.0:3000",
            "[::]:3000",
            "evil.example:3000",
            "localhost.evil.example:3000",
            "127.0.0.1.evil.example:3000",
            "localhost.:3000",
            "127.1:3000",
            "[::ffff:127.0.0.1]:3000",
            "2130706433:3000",
        ] {
            assert!(!rules.allow(&host(bad), local), "{bad}");
        }
        assert!(rules.allow(&host("localhost:9"), None), "where the port is not known, any will do");
        assert!(rules.allow(&host("localhost"), Some("127.0.0.1:80".parse().unwrap())));
    }

    #[test]
    fn a_lan_host_is_the_address_that_was_connected_to() {
        let names = vec![host("nas.local"), host("proxy.lan:8080")];
        let rules = HostRules { scheme: Scheme::Http, loopback: false, own_address: true, names };
        let local = Some("192.168.1.5:3000".parse().unwrap());
        for good in ["192.168.1.5:3000", "nas.local:3000", "nas.local", "NAS.local:80", "proxy.lan:8080"] {
            assert!(rules.allow(&host(good), local), "{good}");
        }
        for bad in ["192.168.1.5", "192.168.1.6:3000", "nas.local:81", "localhost:3000", "proxy.lan", "proxy.lan:3000"]
        {
            assert!(!rules.allow(&host(bad), local), "{bad}");
        }
        assert!(rules.allow(&host("192.168.1.5:3000"), Some("[::ffff:192.168.1.5]:3000".parse().unwrap())));
        assert!(!rules.allow(&host("192.168.1.5:3000"), None));
    }

    #[test]
    fn an_https_host_is_a_name_that_was_given() {
        let rules =
            HostRules { scheme: Scheme::Https, loopback: false, own_address: false, names: vec![host("app.example")] };
        let local = Some("127.0.0.1:3000".parse().unwrap());
        for good in ["app.example", "app.example:443", "APP.example"] {
            assert!(rules.allow(&host(good), local), "{good}");
        }
        for bad in ["app.example:3000", "app.example:80", "127.0.0.1:3000", "app.example.", "xapp.example"] {
            assert!(!rules.allow(&host(bad), local), "{bad}");
        }
    }

    #[test]
    fn trusted_origins_have_one_form() {
        let origin = |text: &str| Origin::parse(text.as_bytes());
        assert_eq!(origin("https://app.example"), origin("https://app.example:443"));
        assert_eq!(origin("http://app.example:80"), origin("http://app.example"));
        assert!(origin("tauri://localhost").is_some() && origin("moz-extension://a-b").is_some());
        let all = [
            "https://app.example",
            "http://app.example",
            "https://app.example:80",
            "https://app.example:8443",
            "https://www.app.example",
            "tauri://app.example",
            "tauri://app.example:443",
        ];
        for (number, one) in all.iter().enumerate() {
            assert!(origin(one).is_some(), "{one}");
            assert!(all.iter().skip(number + 1).all(|other| origin(one) != origin(other)), "{one} is only itself");
        }
        for bad in [
            "null",
            "",
            "*",
            "https://*.app.example",
            "https://app.example/",
            "https://app.example/path",
            "https://u@app.example",
            "HTTPS://app.example",
            "://app.example",
            "1http://app.example",
            "https:app.example",
            "https://",
            "https://app.example ",
            "https://app.example,https://x",
        ] {
            assert_eq!(origin(bad), None, "{bad}");
        }
    }

    #[test]
    fn origins_are_compared_whole() {
        let (http, https) = (Scheme::Http, Scheme::Https);
        assert!(is_own_origin(b"http://localhost:3000", http, &host("localhost:3000")));
        assert!(is_own_origin(b"https://app.example", https, &host("app.example:443")));
        assert!(is_own_origin(b"https://app.example:443", https, &host("app.example")));
        let foreign: [&[u8]; 13] = [
            b"null",
            b"",
            b"http://app.example",
            b"https://app.example:444",
            b"https://app.example.evil.example",
            b"https://evil.example",
            b"https://app.example/",
            b"https://u@app.example",
            b"HTTPS://app.example",
            b"https://app.exampl",
            b"https://xapp.example",
            b"https://app.example ",
            b"https://app.example,https://x",
        ];
        for origin in foreign {
            assert!(!is_own_origin(origin, https, &host("app.example")), "{}", origin.escape_ascii());
        }
    }
}
