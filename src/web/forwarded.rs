//! Forwarding headers: the address of the client behind proxies that are known.
//!
//! It knows header lines and addresses. Grammar: RFC 7239 for `Forwarded`, custom for `X-Forwarded-For`. Invariant: a
//! line is read from its end, where the nearest proxy wrote, and only as far as known proxies wrote it.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::request::{Line, Request};
use crate::session::Way;

/// Who sent a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Client {
    /// The peer's address or, behind proxies of ours, the last one that none of them has.
    pub(super) address: Option<IpAddr>,
    pub(super) way: Way,
}

pub(super) fn client(request: &Request<'_>, proxies: &[IpNet]) -> Client {
    let Some(peer) = request.peer.map(|peer| peer.ip().to_canonical()) else {
        return Client { address: None, way: Way::Direct };
    };
    if request.forwarded == Line::Absent && request.forwarded_for.is_empty() {
        return Client { address: Some(peer), way: Way::Direct };
    }
    if !is_proxy(&peer, proxies) {
        return Client { address: Some(peer), way: Way::Unknown };
    }
    let standard = || match request.forwarded {
        Line::Once(line) => Some(farthest(peer, split(line).map(forwarded_for).collect(), proxies)),
        Line::Absent | Line::Repeated => None,
    };
    let custom = || {
        let hops = request.forwarded_for.iter().flat_map(|line| split(line)).map(address);
        farthest(peer, hops.collect(), proxies)
    };
    // With both headers one of them may be the client's own, unless they agree.
    let address = match (request.forwarded, request.forwarded_for.is_empty()) {
        (Line::Absent, _) => Some(custom()),
        (_, true) => standard(),
        (_, false) => standard().filter(|address| *address == custom()),
    };
    Client { address: Some(address.unwrap_or(peer)), way: Way::Proxy }
}

fn is_proxy(address: &IpAddr, proxies: &[IpNet]) -> bool {
    proxies.iter().any(|network| network.contains(address))
}

/// From the end, as far as known proxies wrote it.
fn farthest(peer: IpAddr, hops: Vec<Option<IpAddr>>, proxies: &[IpNet]) -> IpAddr {
    let mut client = peer;
    for hop in hops.into_iter().rev() {
        let Some(hop) = hop else { break };
        client = hop;
        if !is_proxy(&hop, proxies) {
            break;
        }
    }
    client
}

fn split(line: &[u8]) -> impl Iterator<Item = &str> {
    line.split(|&byte| byte == b',').map(|part| std::str::from_utf8(part).unwrap_or_default().trim())
}

/// The `for` of one element of a `Forwarded` line (RFC 7239, 4). What is quoted may be the client's, as a host is: where
/// that has signs in it that part a line, it is not read.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let mut node = None;
    for pair in element.split(';') {
        if pair.contains('\\') || pair.matches('"').count() % 2 == 1 {
            return None;
        }
        let of = pair.trim().split_once('=').filter(|(name, _)| name.eq_ignore_ascii_case("for"));
        if let Some((_, value)) = of
            && node.replace(value).is_some()
        {
            return None;
        }
    }
    address(node?.trim_matches('"'))
}

/// An address, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let parsed = bare.parse::<IpAddr>().ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()));
    parsed.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client_of(proxies: &[&str], peer: &str, headers: &[(&'static str, &'static [u8])]) -> (String, Way) {
        let request = Request::new("GET").headers(headers.iter().copied()).peer_address(peer.parse().unwrap());
        let network = |text: &&str| text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).unwrap();
        let client = client(&request, &proxies.iter().map(network).collect::<Vec<_>>());
        (client.address.unwrap().to_string(), client.way)
    }

    #[test]
    fn forwarding_headers_count_only_from_proxies() {
        let address_of = |peer: &str, headers: &[_]| client_of(&["10.0.0.0/8", "::1"], peer, headers).0;
        let spoofed: &[(&str, &[u8])] = &[("X-Forwarded-For", b"1.2.3.4")];
        assert_eq!(address_of("192.0.2.1:5", spoofed), "192.0.2.1");
        assert_eq!(address_of("10.0.0.1:5", spoofed), "1.2.3.4");
        assert_eq!(address_of("[::ffff:10.0.0.1]:5", spoofed), "1.2.3.4");
        let chain: &[(&str, &[u8])] = &[("X-Forwarded-For", b"6.6.6.6, 1.2.3.4"), ("x-forwarded-for", b"10.0.0.9")];
        assert_eq!(address_of("[::1]:5", chain), "1.2.3.4");
        let junk: &[(&str, &[u8])] = &[("X-Forwarded-For", b"1.2.3.4, junk, 10.0.0.9")];
        assert_eq!(address_of("10.0.0.1:5", junk), "10.0.0.9");
        let rfc: &[(&str, &[u8])] = &[("Forwarded", b"for=6.6.6.6, proto=https;For=\"[2001:db8::1]:99\"")];
        assert_eq!(address_of("10.0.0.1:5", rfc), "2001:db8::1");
        let both: &[(&str, &[u8])] = &[("Forwarded", b"for=6.6.6.6"), ("X-Forwarded-For", b"1.2.3.4")];
        assert_eq!(address_of("10.0.0.1:5", both), "10.0.0.1");
    }

    #[test]
    fn two_headers_count_where_they_agree_and_nobody_escapes_by_sending_one() {
        let client_of = |headers: &[_]| client_of(&["127.0.0.1"], "127.0.0.1:5", headers);
        let (proxy, passed_on) = ("127.0.0.1".to_owned(), Way::Proxy);
        let (ours, theirs): ((_, &[u8]), (_, &[u8])) =
            (("X-Forwarded-For", b"192.0.2.1"), ("Forwarded", b"for=203.0.113.9"));
        assert_eq!(client_of(&[ours, theirs]), (proxy.clone(), passed_on));
        assert_eq!(
            client_of(&[ours, ("Forwarded", b"for=6.6.6.6, for=192.0.2.1")]),
            ("192.0.2.1".to_owned(), passed_on)
        );
        assert_eq!(client_of(&[theirs, ("Forwarded", b"for=192.0.2.1")]), (proxy.clone(), passed_on), "two lines");
        assert_eq!(client_of(&[("Forwarded", b"for=192.0.2.1, for=unknown")]), (proxy.clone(), passed_on));
        assert_eq!(client_of(&[("X-Forwarded-For", b"")]), (proxy.clone(), passed_on));
        for line in [
            &b"host=\"a;for=6.6.6.6\";for=192.0.2.1"[..],
            b"host=\"a, for=6.6.6.6\";for=192.0.2.1",
            b"host=\"a\\\";for=6.6.6.6;x=\\\"b\";for=192.0.2.1",
            b"for=6.6.6.6;for=192.0.2.1",
        ] {
            let told = client_of(&[("Forwarded", line)]);
            assert_eq!(told, (proxy.clone(), passed_on), "{}", line.escape_ascii());
        }
        assert_eq!(client_of(&[("Forwarded", b"host=\"a\";For=\"192.0.2.1\"")]), ("192.0.2.1".to_owned(), passed_on));
        assert_eq!(client_of(&[]), (proxy, Way::Direct), "a program on the proxy's own machine");
    }
}
