//! The session cookie: reading it byte for byte, and writing it with every attribute.
//!
//! It knows bytes, text and how a token is spelled, no sessions. The grammar is RFC 6265's, as browsers keep it (RFC 6265bis, 4.2 and 5.7).
//! Invariants: a name counts only if it is ours byte for byte, with no decoding and no folding of case, so that a name
//! that a browser protects by its prefix cannot be spoofed by another spelling; a pair that makes no sense hides none of
//! the others; removal has the same attributes as setting, or browsers would keep the cookie.

use std::fmt::Write as _;
use std::time::Duration;

use crate::token::Token;

/// How other sites' requests carry the cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SameSite {
    /// Only when a link is followed to us.
    Lax,
    /// Never.
    Strict,
    /// Always: for pages that are embedded in those of other sites.
    None,
}

/// Everything about the cookie but its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CookieRules {
    pub(super) name: String,
    pub(super) secure: bool,
    pub(super) same_site: SameSite,
    /// Shared with all hosts of this domain.
    pub(super) domain: Option<String>,
    /// Another cookie for each site that embeds this one.
    pub(super) partitioned: bool,
}

/// The longest that browsers keep a cookie: 400 days (RFC 6265bis, 5.5).
const MAX_AGE_MAX: Duration = Duration::from_secs(400 * 24 * 60 * 60);

impl CookieRules {
    /// The `Set-Cookie` value that hands out a token: until the browser ends, or for `max_age`.
    pub(super) fn set(&self, value: &str, max_age: Option<Duration>) -> String {
        let mut header = self.pair(value);
        if let Some(max_age) = max_age {
            let _ = write!(header, "; Max-Age={}", max_age.min(MAX_AGE_MAX).as_secs());
        }
        header
    }

    /// The `Set-Cookie` value that makes a browser forget the cookie.
    pub(super) fn removal(&self) -> String {
        let mut header = self.pair("");
        header.push_str("; Max-Age=0");
        header
    }

    fn pair(&self, value: &str) -> String {
        let same_site = match self.same_site {
            SameSite::Lax => "Lax",
            SameSite::Strict => "Strict",
            SameSite::None => "None",
        };
        let domain = self.domain.as_ref().map(|domain| format!("; Domain={domain}")).unwrap_or_default();
        let secure = if self.secure { "; Secure" } else { "" };
        let partitioned = if self.partitioned { "; Partitioned" } else { "" };
        format!("{}={value}; Path=/{domain}{secure}; HttpOnly; SameSite={same_site}{partitioned}", self.name)
    }

    /// Why browsers would not keep a cookie of this name and these attributes, if they would not. They take the prefix in
    /// any case of letters (RFC 6265bis, 5.7, steps 20 and 21), and say nothing when they drop a cookie.
    pub(super) fn flaw(&self) -> Option<&'static str> {
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if self.name.is_empty() || self.name.len() > NAME_BYTES_MAX || !self.name.bytes().all(is_token) {
            return Some("a cookie's name is 1 to 128 letters, digits and signs, without spaces, `=` and `;`");
        }
        let lower = self.name.to_ascii_lowercase();
        let prefix = PREFIXES.iter().find(|prefix| lower.starts_with(&prefix.to_ascii_lowercase()));
        match prefix {
            Some(prefix) if !self.name.starts_with(prefix) => Some("a cookie's prefix is spelled as in `__Host-`"),
            Some(_) if !self.secure => {
                Some("browsers keep a cookie with a `__` prefix only on HTTPS; use `Site::https`")
            }
            Some(_) if lower.starts_with("__host-") && self.domain.is_some() => {
                Some("browsers keep a `__Host-` cookie only without a domain; a shared one begins with `__Secure-`")
            }
            None if self.secure => Some(
                "on HTTPS the cookie's name begins with `__Host-`, or `__Secure-` if it is shared, so that no other host and no plain connection can set it",
            ),
            _ if self.partitioned && !self.secure => Some("browsers keep a partitioned cookie only on HTTPS"),
            _ => None,
        }
    }
}

/// Longest first, where one begins with another.
const PREFIXES: [&str; 4] = ["__Host-Http-", "__Host-", "__Secure-", "__Http-"];

/// Far less than what browsers take, 4,096 bytes with the value (RFC 6265bis, 5.6).
const NAME_BYTES_MAX: usize = 128;

/// The most that a request's `Cookie` lines may hold together, in bytes: browsers keep 4,096 for a cookie, and ours has
/// about 120, so what is longer was not meant for us. Far below what servers let heads be.
const BYTES_MAX: usize = 16 << 10;

/// The most pairs in them: browsers keep some 50 to 180 for a site.
const PAIRS_MAX: usize = 256;

/// Whether a request's `Cookie` lines are more than anybody means to send: other hosts of the domain, or other programs
/// on this one, can fill a browser with cookies, and reading them is not to cost much.
pub(super) fn are_too_many(lines: &[&[u8]]) -> bool {
    let bytes: usize = lines.iter().map(|line| line.len()).sum();
    let pairs = || lines.iter().flat_map(|line| line.split(|&byte| byte == b';')).take(PAIRS_MAX + 1).count();
    bytes > BYTES_MAX || pairs() > PAIRS_MAX
}

/// The values of the cookies of this name in a request's `Cookie` lines, in their order, which means nothing.
pub(super) fn values<'a>(lines: impl IntoIterator<Item = &'a [u8]>, name: &str) -> impl Iterator<Item = &'a [u8]> {
    let pairs = lines.into_iter().flat_map(|line| line.split(|&byte| byte == b';'));
    pairs.filter_map(move |pair| {
        let at = pair.iter().position(|&byte| byte == b'=')?;
        let (ours, value) = (trim(pair.get(..at)?), trim(pair.get(at + 1..)?));
        (ours == name.as_bytes()).then_some(value)
    })
}

/// Whether there is the session's cookie of another store among a request's cookies: a token, under a name with the digits
/// of some store and not with these.
pub(super) fn has_neighbour(lines: &[&[u8]], instance: &str) -> bool {
    let is_store = |part: &[u8]| part.len() == instance.len() && part.iter().all(u8::is_ascii_hexdigit);
    lines.iter().flat_map(|line| line.split(|&byte| byte == b';')).any(|pair| {
        let Some(at) = pair.iter().position(|&byte| byte == b'=') else { return false };
        let (name, value) = (trim(pair.get(..at).unwrap_or_default()), trim(pair.get(at + 1..).unwrap_or_default()));
        // On HTTPS all stores have one name, and what a site appends to it is its own.
        if name.starts_with(b"__") {
            return false;
        }
        let mut parts = name.split(|&byte| byte == b'-');
        let is_other = parts.clone().any(is_store) && parts.all(|part| part != instance.as_bytes());
        is_other && std::str::from_utf8(value).is_ok_and(|text| Token::parse(text).is_some())
    })
}

/// Space and tab are the only white space there is.
fn trim(bytes: &[u8]) -> &[u8] {
    let is_text = |&byte: &u8| byte != b' ' && byte != b'\t';
    let Some(start) = bytes.iter().position(is_text) else { return &[] };
    let end = bytes.iter().rposition(is_text).map_or(start, |last| last + 1);
    bytes.get(start..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<'a>(lines: &[&'a [u8]], name: &str) -> Vec<&'a [u8]> {
        values(lines.iter().copied(), name).collect()
    }

    #[test]
    fn one_bad_pair_hides_no_good_one() {
        assert_eq!(read(&[b"x=\xff; id=T; \xfe"], "id"), [b"T"]);
        assert_eq!(read(&[b"; ;=; =x;id=T;;"], "id"), [b"T"]);
        assert_eq!(read(&[b"a=\"x; id=T; b=y\""], "id"), [b"T"], "quotes have no power");
        let long = [&b"x="[..], &[b'a'; 10_000], b"; id=T"].concat();
        assert_eq!(read(&[&long], "id"), [b"T"]);
    }

    #[test]
    fn several_lines_and_several_pairs_are_all_seen() {
        assert_eq!(read(&[b"id=a; id=b", b"x=y", b"\tid = c "], "id"), [b"a", b"b", b"c"]);
        assert_eq!(read(&[], "id"), [b""; 0]);
    }

    #[test]
    fn what_is_too_much_is_so_in_one_line_and_in_many() {
        let line = |bytes: usize| vec![b'a'; bytes];
        for (bytes, too_many) in [(BYTES_MAX, false), (BYTES_MAX + 1, true)] {
            assert_eq!(are_too_many(&[&line(bytes)]), too_many);
            assert_eq!(are_too_many(&[&line(bytes - 100), &line(100)]), too_many);
        }
        for (pairs, too_many) in [(PAIRS_MAX, false), (PAIRS_MAX + 1, true)] {
            assert_eq!(are_too_many(&vec![&b"a=b"[..]; pairs]), too_many);
            assert_eq!(are_too_many(&[&vec![&b"a=b"[..]; pairs].join(&b';')]), too_many);
            assert_eq!(are_too_many(&[&vec![b';'; pairs - 1]]), too_many, "empty ones count");
        }
        assert!(!are_too_many(&[]));
    }

    #[test]
    fn a_neighbours_cookie_is_a_token_under_the_digits_of_another_store() {
        let token = Token::random(1, &crate::token::OsEntropy).unwrap().expose();
        let is_told = |name: &str, value: &str| has_neighbour(&[format!("a=b; {name}={value}").as_bytes()], "0123abcd");
        for other in ["id-4567cdef", "id-4567cdef-admin", "shop-4567cdef"] {
            assert!(is_told(other, &token), "{other}");
            assert!(!is_told(other, "x") && !is_told(other, ""), "{other}: no token");
        }
        for none in [
            "__Host-Http-id-deadbeef",
            "__Secure-id-deadbeef",
            "id-0123abcd",
            "id-0123abcd-deadbeef",
            "__Host-Http-id",
            "id",
            "id-4567cde",
            "id-4567cdeg",
            "",
        ] {
            assert!(!is_told(none, &token), "{none}");
        }
        assert!(!has_neighbour(&[], "0123abcd") && !has_neighbour(&[b"id-4567cdef"], "0123abcd"));
    }

    #[test]
    fn only_the_exact_name_is_ours() {
        let name = "__Host-Http-id";
        let others: [&[u8]; 14] = [
            b"__%48ost-Http-id=x",
            b"__HOST-Http-id=x",
            b"_[Host-Http-id=x",
            b"..Host-Http-id=x",
            b"\xe2\x80\x80__Host-Http-id=x",
            b"\xc2\x85__Host-Http-id=x",
            b"\x85__Host-Http-id=x",
            b"\xc2\xa0__Host-Http-id=x",
            b"\xa0__Host-Http-id=x",
            b"\0__Host-Http-id=x",
            b"=__Host-Http-id=x",
            b"__Host-Http-id",
            b"__Host-Http-id2=x",
            b"\x0b__Host-Http-id=x",
        ];
        for other in others {
            assert_eq!(read(&[other], name), [b""; 0], "{}", other.escape_ascii());
        }
        assert_eq!(read(&[b"__Host-Http-id=a=b"], name), [b"a=b"]);
    }

    #[test]
    fn what_browsers_would_drop_is_a_flaw() {
        let rules = |name: &str, secure, domain: Option<&str>, partitioned| CookieRules {
            name: name.into(),
            secure,
            same_site: SameSite::Lax,
            domain: domain.map(Into::into),
            partitioned,
        };
        for name in ["__Host-id", "__Host-Http-id", "__Secure-id", "__Http-id"] {
            assert_eq!(rules(name, true, None, true).flaw(), None, "{name}");
            assert!(rules(name, false, None, false).flaw().is_some(), "{name} on plain HTTP");
            assert!(rules(&name.to_ascii_uppercase(), true, None, false).flaw().is_some(), "{name} in capitals");
            let shared = rules(name, true, Some("app.example"), false).flaw();
            assert_eq!(shared.is_some(), name.starts_with("__Host-"), "{name} shared");
        }
        assert_eq!(rules("id-1", false, None, false).flaw(), None);
        assert!(rules("id", true, None, false).flaw().is_some(), "no prefix");
        assert!(rules("id-1", false, None, true).flaw().is_some(), "partitioned on plain HTTP");
        for bad in ["", "a b", "a=b", "a;b", "é", "a\tb", &"a".repeat(129)] {
            assert!(rules(bad, false, None, false).flaw().is_some(), "{bad}");
        }
    }

    #[test]
    fn attributes_are_complete_and_the_same_for_removal() {
        let https = CookieRules {
            name: "__Host-Http-id".into(),
            secure: true,
            same_site: SameSite::Lax,
            domain: None,
            partitioned: false,
        };
        assert_eq!(https.set("T", None), "__Host-Http-id=T; Path=/; Secure; HttpOnly; SameSite=Lax");
        assert_eq!(https.removal(), "__Host-Http-id=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0");
        let shared = CookieRules { name: "__Secure-id".into(), domain: Some("app.example".into()), ..https.clone() };
        let expected = "__Secure-id=; Path=/; Domain=app.example; Secure; HttpOnly; SameSite=Lax; Max-Age=0";
        assert_eq!(shared.removal(), expected);
        let embedded = CookieRules { same_site: SameSite::None, partitioned: true, ..https.clone() };
        let expected = "__Host-Http-id=T; Path=/; Secure; HttpOnly; SameSite=None; Partitioned";
        assert_eq!(embedded.set("T", None), expected);
        let lan = CookieRules { name: "id-1".into(), secure: false, same_site: SameSite::Strict, ..https };
        assert_eq!(
            lan.set("T", Some(Duration::from_secs(60))),
            "id-1=T; Path=/; HttpOnly; SameSite=Strict; Max-Age=60"
        );
        let years = lan.set("T", Some(Duration::from_secs(1 << 40)));
        assert!(years.ends_with("; Max-Age=34560000"), "{years}");
    }
}
