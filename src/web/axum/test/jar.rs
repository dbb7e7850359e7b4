//! A jar of cookies, kept as browsers keep it, for one host.
//!
//! It knows bytes and engine time. The grammar is that of RFC 6265bis, 5.6 and 5.7; `Expires` is not read, `Max-Age` is.
//! Invariants: name and value are kept byte for byte; what a browser would not keep or not send, this does not.

use crate::time::Tick;
use crate::web::front::Front;

#[derive(Clone, Default)]
pub(super) struct Jar(Vec<Cookie>);

#[derive(Clone)]
struct Cookie {
    name: Vec<u8>,
    value: Vec<u8>,
    path: String,
    /// `None` is when the browser ends.
    ends: Option<Tick>,
}

/// What a `Set-Cookie` line says besides name and value.
#[derive(Default)]
struct Attributes {
    path: Option<String>,
    domain: Option<String>,
    secure: bool,
    http_only: bool,
    max_age: Option<i64>,
}

impl Jar {
    /// Takes in a `Set-Cookie` line of an answer to a request for `path`.
    pub(super) fn take(&mut self, line: &[u8], path: &str, front: &Front, now: Tick) {
        let mut parts = line.split(|&byte| byte == b';');
        let pair = parts.next().unwrap_or_default();
        let Some(at) = pair.iter().position(|&byte| byte == b'=') else { return };
        let (name, value) = (pair.get(..at).unwrap_or_default(), pair.get(at + 1..).unwrap_or_default());
        let (name, value) = (name.trim_ascii(), value.trim_ascii());
        let attributes = Attributes::read(parts);
        if name.is_empty() || !attributes.are_kept(name, front) {
            return;
        }
        let own_path =
            attributes.path.filter(|path| path.starts_with('/')).unwrap_or_else(|| directory(path).to_owned());
        self.0.retain(|old| old.name != name || old.path != own_path);
        let ends = match attributes.max_age {
            Some(seconds) if seconds <= 0 => return,
            Some(seconds) => Some(now.plus(u32::try_from(seconds).unwrap_or(u32::MAX))),
            None => None,
        };
        self.0.push(Cookie { name: name.to_owned(), value: value.to_owned(), path: own_path, ends });
    }

    /// The `Cookie` line of a request for `path`; empty if there is none.
    pub(super) fn line(&self, path: &str, now: Tick) -> Vec<u8> {
        let mut sent: Vec<&Cookie> = self.kept(now).filter(|cookie| covers(&cookie.path, path)).collect();
        sent.sort_by_key(|cookie| std::cmp::Reverse(cookie.path.len()));
        sent.iter().map(|cookie| [&*cookie.name, b"=", &cookie.value].concat()).collect::<Vec<_>>().join(&b"; "[..])
    }

    /// The value of the whole site's cookie of this name.
    pub(super) fn value(&self, name: &str, now: Tick) -> Option<&[u8]> {
        self.kept(now).find(|cookie| cookie.name == name.as_bytes() && cookie.path == "/").map(|cookie| &*cookie.value)
    }

    pub(super) fn end_browser(&mut self) {
        self.0.retain(|cookie| cookie.ends.is_some());
    }

    fn kept(&self, now: Tick) -> impl Iterator<Item = &Cookie> {
        self.0.iter().filter(move |cookie| cookie.ends.is_none_or(|ends| now < ends))
    }
}

impl Attributes {
    fn read<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut read = Self::default();
        for part in parts {
            let text = String::from_utf8_lossy(part);
            let (name, value) = text.split_once('=').unwrap_or((&text, ""));
            let value = value.trim().to_owned();
            // Of one that comes twice the last counts.
            match name.trim().to_ascii_lowercase().as_str() {
                "path" => read.path = Some(value),
                "domain" => read.domain = Some(value.trim_start_matches('.').to_ascii_lowercase()),
                "secure" => read.secure = true,
                "httponly" => read.http_only = true,
                "max-age" => read.max_age = value.parse().ok().or(read.max_age),
                _ => {}
            }
        }
        read
    }

    /// Whether a browser keeps a cookie of this name with these attributes.
    fn are_kept(&self, name: &[u8], front: &Front) -> bool {
        let begins =
            |prefix: &str| name.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix.as_bytes()));
        let (host, http) = (begins("__Host-"), begins("__Http-") || begins("__Host-Http-"));
        let is_ours = self.domain.as_ref().is_none_or(|domain| domain.is_empty() || front.is_below(domain));
        is_ours
            && (!self.secure || front.is_https())
            && (self.secure || !(host || http || begins("__Secure-")))
            && (!host || (self.domain.is_none() && self.path.as_deref() == Some("/")))
            && (!http || self.http_only)
    }
}

/// The path that a cookie is for if it does not say (RFC 6265bis, 5.1.4).
fn directory(path: &str) -> &str {
    match path.rfind('/') {
        Some(at @ 1..) => path.get(..at).unwrap_or("/"),
        _ => "/",
    }
}

/// Whether a cookie for one path is sent to another.
fn covers(own: &str, asked: &str) -> bool {
    let asked = asked.split(['?', '#']).next().unwrap_or_default();
    asked.strip_prefix(own).is_some_and(|rest| rest.is_empty() || own.ends_with('/') || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;
    use crate::web::Site;

    fn front(https: bool) -> Front {
        let sessions = Options::new().in_memory().unwrap();
        if https { Site::https(sessions, "app.example").unwrap().front() } else { Site::lan(sessions).front() }
    }

    /// What is sent to `/a/b` after these lines.
    fn kept(https: bool, lines: &[&str]) -> String {
        let mut jar = Jar::default();
        lines.iter().for_each(|line| jar.take(line.as_bytes(), "/a/b", &front(https), Tick(100)));
        String::from_utf8(jar.line("/a/b?c=/", Tick(100))).unwrap()
    }

    #[test]
    fn values_come_back_byte_for_byte() {
        assert_eq!(kept(true, &["a=\"x y\"=%41, é; Path=/"]), "a=\"x y\"=%41, é");
        assert_eq!(kept(true, &["a=1", "b=2", "a=3"]), "b=2; a=3");
        assert_eq!(kept(true, &["nonsense", "=x", ""]), "");
        let mut jar = Jar::default();
        jar.take(b"a=\xff", "/", &front(true), Tick(1));
        assert_eq!(jar.line("/", Tick(1)), b"a=\xff");
    }

    #[test]
    fn removal_takes_the_cookie_of_its_own_path() {
        assert_eq!(kept(true, &["a=1; Path=/", "a=; Path=/; Max-Age=0"]), "");
        assert_eq!(kept(true, &["a=1; Path=/", "a=; Max-Age=-1"]), "a=1");
        assert_eq!(kept(true, &["a=1; Path=/", "a=2; path=/a"]), "a=2; a=1", "the closer path comes first");
        assert_eq!(kept(true, &["a=1; Max-Age=0; max-age=5"]), "a=1", "the last counts");
    }

    #[test]
    fn a_path_covers_what_is_below_it() {
        let covered = |own, asked| covers(own, asked);
        assert!(covered("/", "/x") && covered("/a", "/a") && covered("/a", "/a/b") && covered("/a/", "/a/b"));
        assert!(covered("/a", "/a?b") && !covered("/a", "/ab") && !covered("/a/", "/a") && !covered("/b", "/a"));
        assert_eq!((directory("/"), directory("/a"), directory("/a/b")), ("/", "/", "/a"));
    }

    #[test]
    fn what_a_browser_refuses_is_not_kept() {
        for line in [
            "__Host-a=1; Path=/; HttpOnly",
            "__Host-a=1; Secure",
            "__HOST-a=1; Secure; Path=/; Domain=app.example",
            "__Host-Http-a=1; Secure; Path=/",
            "__Secure-a=1",
            "a=1; Domain=evil.example",
            "a=1; Domain=pp.example",
        ] {
            assert_eq!(kept(true, &[line]), "", "{line}");
        }
        assert_eq!(kept(false, &["a=1; Secure"]), "", "in the clear");
        assert_eq!(kept(true, &["__Host-Http-a=1; secure; path=/; httponly"]), "__Host-Http-a=1");
        assert_eq!(kept(true, &["a=1; Domain=.App.Example"]), "a=1");
    }

    #[test]
    fn only_cookies_with_an_age_outlive_the_browser_and_none_its_age() {
        let mut jar = Jar::default();
        jar.take(b"a=1; Max-Age=60; Path=/", "/", &front(false), Tick(100));
        jar.take(b"b=1", "/", &front(false), Tick(100));
        assert_eq!(jar.line("/", Tick(159)), b"a=1; b=1");
        assert_eq!(jar.line("/", Tick(160)), b"b=1");
        jar.end_browser();
        assert_eq!(jar.line("/", Tick(159)), b"a=1");
        assert_eq!(jar.value("a", Tick(159)), Some(&b"1"[..]));
        assert_eq!(jar.value("a", Tick(160)), None);
    }
}
