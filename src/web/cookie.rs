//! The session cookie: reading it byte for byte, and writing it with every attribute.
//!
//! It knows bytes and text, no sessions. The grammar is RFC 6265's, as browsers keep it (RFC 6265bis, 4.2 and 5.7).
//! Invariants: a name counts only if it is ours byte for byte, with no decoding and no folding of case, so that a name
//! that a browser protects by its prefix cannot be spoofed by another spelling; a pair that makes no sense hides none of
//! the others; removal has the same attributes as setting, or browsers would keep the cookie.

use std::fmt::Write as _;
use std::time::Duration;

/// How other sites' requests carry the cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SameSite {
    /// Only when a link is followed to us.
    Lax,
    /// Never.
    Strict,
}

/// Everything about the cookie but its value.
#[derive(Clone, Debug)]
pub(super) struct CookieRules {
    pub(super) name: String,
    pub(super) secure: bool,
    pub(super) same_site: SameSite,
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
        };
        let secure = if self.secure { "; Secure" } else { "" };
        format!("{}={value}; Path=/{secure}; HttpOnly; SameSite={same_site}", self.name)
    }
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
        let long = [&b"x="[..], &[b'a'; 100_000], b"; id=T"].concat();
        assert_eq!(read(&[&long], "id"), [b"T"]);
    }

    #[test]
    fn several_lines_and_several_pairs_are_all_seen() {
        assert_eq!(read(&[b"id=a; id=b", b"x=y", b"\tid = c "], "id"), [b"a", b"b", b"c"]);
        assert_eq!(read(&[], "id"), [b""; 0]);
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
    fn attributes_are_complete_and_the_same_for_removal() {
        let https = CookieRules { name: "__Host-Http-id".into(), secure: true, same_site: SameSite::Lax };
        assert_eq!(https.set("T", None), "__Host-Http-id=T; Path=/; Secure; HttpOnly; SameSite=Lax");
        assert_eq!(https.removal(), "__Host-Http-id=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0");
        let lan = CookieRules { name: "id-1".into(), secure: false, same_site: SameSite::Strict };
        assert_eq!(
            lan.set("T", Some(Duration::from_secs(60))),
            "id-1=T; Path=/; HttpOnly; SameSite=Strict; Max-Age=60"
        );
        let years = lan.set("T", Some(Duration::from_secs(1 << 40)));
        assert!(years.ends_with("; Max-Age=34560000"), "{years}");
    }
}
