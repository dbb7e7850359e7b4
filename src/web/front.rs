//! Fronts: where browsers that are made up for tests find a site.
//!
//! It knows host rules. Invariant: the host that it names is one that the site answers to.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::host::{Authority, Host, HostRules, Scheme};

/// A site's scheme and host as a page of it has them, and the server's end of a connection to it.
#[derive(Clone)]
pub(super) struct Front {
    scheme: Scheme,
    authority: Authority,
    pub(super) local: SocketAddr,
}

/// The server's address on a local network that is nobody's (RFC 5737).
const LAN: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const PORT: u16 = 3000;

impl Front {
    pub(super) fn of(rules: &HostRules) -> Self {
        let ip = if rules.own_address { LAN } else { LOOPBACK };
        let own = Authority { host: Host::Ip(ip), port: Some(PORT) };
        let named = rules.names.first().filter(|_| rules.scheme == Scheme::Https).cloned();
        Self { scheme: rules.scheme, authority: named.unwrap_or(own), local: SocketAddr::new(ip, PORT) }
    }

    /// As a `Host` line says it.
    pub(super) fn host(&self) -> String {
        self.authority.to_string()
    }

    /// As an `Origin` line says it.
    pub(super) fn origin(&self) -> String {
        format!("{}{}", self.scheme.prefix(), self.authority)
    }

    pub(super) fn is_https(&self) -> bool {
        self.scheme == Scheme::Https
    }

    /// Browsers say where a request comes from only to sites that nobody on the way can pass for.
    pub(super) fn tells_fetch_site(&self) -> bool {
        self.is_https() || matches!(self.authority.host, Host::Ip(address) if address.is_loopback())
    }

    /// Whether a cookie of this domain would be for us: the host itself, or what it is below of.
    pub(super) fn is_below(&self, domain: &str) -> bool {
        match &self.authority.host {
            Host::Name(name) => name.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')),
            Host::Ip(address) => address.to_string() == domain,
        }
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Name(name) => f.write_str(name)?,
            Host::Ip(IpAddr::V4(address)) => write!(f, "{address}")?,
            Host::Ip(IpAddr::V6(address)) => write!(f, "[{address}]")?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}
