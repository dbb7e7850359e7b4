//! Forwarding headers: the address of the client behind proxies that are known.
//!
//! It knows header lines and addresses. Grammar: RFC 7239 for `Forwarded`, custom for `X-Forwarded-For`. Invariant: a
//! line is read from its end, where the nearest proxy wrote, and only as far as known proxies wrote it.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::request::{Line, Request};

/// The peer's address or, behind proxies of ours, the last one that none of them has.
pub(super) fn client_address(request: &Request<'_>, proxies: &[IpNet]) -> Option<IpAddr> {
    let peer = request.peer.map(|peer| peer.ip().to_canonical())?;
    let is_proxy = |address: &IpAddr| proxies.iter().any(|network| network.contains(address));
    // With both headers one of them may be the client's own.
    let both = request.forwarded != Line::Absent && !request.forwarded_for.is_empty();
    if !is_proxy(&peer) || both {
        return Some(peer);
    }
    let hops: Vec<Option<IpAddr>> = match request.forwarded {
        Line::Once(line) => split(line).map(forwarded_for).collect(),
        _ => request.forwarded_for.iter().flat_map(|line| split(line)).map(address).collect(),
    };
    let mut client = peer;
    for hop in hops.into_iter().rev() {
        let Some(hop) = hop else { break };
        client = hop;
        if !is_proxy(&hop) {
            break;
        }
    }
    Some(client)
}

fn split(line: &[u8]) -> impl Iterator<Item = &str> {
    line.split(|&byte| byte == b',').map(|part| std::str::from_utf8(part).unwrap_or_default().trim())
}

/// The `for` of one element of a `Forwarded` line (RFC 7239, 4).
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let pairs = element.split(';').filter_map(|pair| pair.trim().split_once('='));
    let (_, node) = pairs.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("for"))?;
    address(node.trim_matches('"'))
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

    fn address_of(proxies: &[&str], peer: &str, headers: &[(&'static str, &'static [u8])]) -> String {
        let request = Request::new("GET").headers(headers.iter().copied()).peer_address(peer.parse().unwrap());
        let network = |text: &&str| text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).unwrap();
        client_address(&request, &proxies.iter().map(network).collect::<Vec<_>>()).unwrap().to_string()
    }

    #[test]
    fn forwarding_headers_count_only_from_proxies() {
        let address_of = |peer: &str, headers: &[_]| address_of(&["10.0.0.0/8", "::1"], peer, headers);
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
}
