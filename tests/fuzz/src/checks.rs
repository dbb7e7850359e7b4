//! What has to hold of bytes from outside, whatever they are. Each check compares with a second, slow and obvious reading,
//! or writes again what was read.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use dwell::web::{Request, Site};
use dwell::{Options, Token};

type Check = fn(&[u8]);

/// By name, for whoever runs them all.
pub(super) const ALL: [(&str, Check); 4] = [("token", token), ("cookie", cookie), ("host", host), ("record", record)];

/// Tokens have one spelling.
pub(super) fn token(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(token) = Token::parse(text) {
        assert_eq!(token.expose(), text);
    }
}

/// Records are read as what they were written as, or not at all.
pub(super) fn record(bytes: &[u8]) {
    dwell::sim::read_records(bytes);
}

struct World {
    site: Site,
    name: String,
    tokens: [String; 3],
}

/// Two live sessions and a token of none, which nobody can guess: bytes 1 to 4 of an input stand for them.
static WORLD: LazyLock<World> = LazyLock::new(|| {
    let sessions = Options::new().in_memory().unwrap();
    let site = Site::development(sessions.clone());
    let mut cookie = String::new();
    let tokens = ["ada", "bob", "eve"].map(|who| {
        let request = Request::new("GET").headers([("Host", &b"localhost:3000"[..])]);
        let exchange = site.admit(&request).unwrap().open().unwrap();
        exchange.session_for_sign_in().sign_in(who).unwrap().blocking_wait().unwrap();
        let headers = exchange.headers().unwrap();
        let (_, line) = headers.iter().find(|(name, _)| *name == "set-cookie").unwrap();
        let (name, value) = line.split(';').next().unwrap().split_once('=').unwrap();
        name.clone_into(&mut cookie);
        value.to_owned()
    });
    sessions.revoke_all("eve").unwrap().blocking_wait().unwrap();
    World { site, name: cookie, tokens }
});

fn filled_in(world: &World, bytes: &[u8]) -> Vec<u8> {
    let mut all = Vec::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            1..=3 => all.extend_from_slice(world.tokens[usize::from(byte) - 1].as_bytes()),
            4 => all.extend_from_slice(world.name.as_bytes()),
            5 => all.extend_from_slice(format!("{}=", world.name).as_bytes()),
            other => all.push(other),
        }
    }
    all
}

/// The session is that of the one live token under exactly our name; two are none, more than four tokens are none, and
/// cookies of more than 16 KiB or 256 pairs are none.
pub(super) fn cookie(bytes: &[u8]) {
    let all = filled_in(&WORLD, bytes);
    let lines: Vec<&[u8]> = all.split(|&byte| byte == b'\n').collect();
    if let Some(found) = principal(&WORLD, &lines) {
        assert_eq!(found.as_deref(), expected(&WORLD, &lines));
    }
}

/// Whether there is a session in it.
pub(super) fn meets_session(bytes: &[u8]) -> bool {
    let all = filled_in(&WORLD, bytes);
    principal(&WORLD, &[&all]).is_some_and(|found| found.is_some())
}

/// Whose session a request with these lines has; the outer `None` if it is refused.
fn principal(world: &World, lines: &[&[u8]]) -> Option<Option<String>> {
    let request = Request::new("GET").headers([("Host", &b"localhost:3000"[..])]);
    let request = request.headers(lines.iter().map(|line| ("Cookie", *line)));
    let exchange = world.site.admit(&request).ok()?.open().unwrap();
    Some(exchange.session().map(|session| session.principal().unwrap().unwrap().to_string()))
}

fn expected(world: &World, lines: &[&[u8]]) -> Option<&'static str> {
    let mut tokens = BTreeSet::new();
    let (mut bytes, mut pairs) = (0, 0);
    for line in lines {
        bytes += line.len();
        for pair in line.split(|&byte| byte == b';') {
            pairs += 1;
            let Some(equals) = pair.iter().position(|&byte| byte == b'=') else { continue };
            if stripped(&pair[..equals]) == world.name.as_bytes()
                && let Ok(value) = std::str::from_utf8(stripped(&pair[equals + 1..]))
                && Token::parse(value).is_some()
            {
                tokens.insert(value.to_owned());
            }
        }
    }
    let live: Vec<_> =
        ["ada", "bob"].into_iter().zip(&world.tokens).filter(|(_, text)| tokens.contains(*text)).collect();
    match live.as_slice() {
        [(name, _)] if tokens.len() <= 4 && bytes <= 16_384 && pairs <= 256 => Some(name),
        _ => None,
    }
}

fn stripped(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

static NAMED: LazyLock<Site> = LazyLock::new(|| {
    let site = Site::https(Options::new().in_memory().unwrap(), "app.example").unwrap();
    site.trusted_proxy("192.0.2.0/24").unwrap()
});

/// A changing request is let in from one host and one page only: lines are `Host`, `Origin`, `Sec-Fetch-Site`,
/// `X-Forwarded-For` and `Forwarded`, of which empty ones are left out.
pub(super) fn host(bytes: &[u8]) {
    let names = ["Host", "Origin", "Sec-Fetch-Site", "X-Forwarded-For", "Forwarded"];
    let lines: Vec<_> =
        names.into_iter().zip(bytes.split(|&byte| byte == b'\n')).filter(|(_, line)| !line.is_empty()).collect();
    let request = Request::new("POST").headers(lines.iter().copied()).peer_address("192.0.2.1:70".parse().unwrap());
    if NAMED.admit(&request).is_err() {
        return;
    }
    let line = |name| lines.iter().find(|(other, _)| *other == name).map(|(_, line)| line.to_ascii_lowercase());
    let host = line("Host").expect("a host");
    assert!(host == b"app.example" || host == b"app.example:443", "{host:?}");
    if let Some(origin) = line("Origin") {
        assert!(origin == b"https://app.example" || origin == b"https://app.example:443", "{origin:?}");
    }
    if let Some(site) = line("Sec-Fetch-Site") {
        assert!(site == b"same-origin" || site == b"none", "{site:?}");
    }
}
