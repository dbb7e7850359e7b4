//! What the server said, and what must hold of everything it says.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Result;

use serde_json::Value;

use super::http::broken;

/// How the text of every session token begins.
pub(super) const TOKEN: &str = "sid_s1";

#[derive(Clone, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// In order, names in lower case.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

/// As it came, so that a failed test shows what was said.
impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.status)?;
        self.headers.iter().try_for_each(|(name, value)| writeln!(f, "{name}: {value}"))?;
        write!(f, "\n{}", self.text())
    }
}

impl Answer {
    pub(super) fn all(&self, name: &str) -> Vec<&str> {
        let same = |(other, _): &&(String, String)| other.eq_ignore_ascii_case(name);
        self.headers.iter().filter(same).map(|(_, value)| &**value).collect()
    }

    /// The one header of this name.
    #[track_caller]
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "{name} twice in {self:?}");
        all.first().copied()
    }

    pub(super) fn strict_header(&self, name: &str) -> Result<Option<&str>> {
        match self.all(name)[..] {
            [] => Ok(None),
            [value] => Ok(Some(value)),
            _ => Err(broken(&format!("{name} more than once"))),
        }
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(super) fn json(&self) -> Value {
        let media_type = self.header("Content-Type").unwrap_or_default();
        assert!(media_type == "application/json" || media_type.starts_with("application/json;"), "{self:?}");
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The cookie it sets or removes.
    #[track_caller]
    pub(super) fn cookie(&self) -> Option<SetCookie> {
        self.header("Set-Cookie").map(SetCookie::parse)
    }

    #[track_caller]
    pub(super) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    /// A refusal with this status and code, which never sets a cookie.
    #[track_caller]
    pub(super) fn refused(self, status: u16, code: &str) -> Self {
        let answer = self.expect(status);
        assert_eq!(answer.json()["error"], code, "{}", answer.text());
        assert_eq!(answer.all("Set-Cookie"), <[&str; 0]>::default(), "a refusal sets no cookie");
        answer
    }

    #[track_caller]
    pub(super) fn sets_no_cookie(self) -> Self {
        assert_eq!(self.all("Set-Cookie"), <[&str; 0]>::default(), "{self:?}");
        self
    }

    /// Depends on who asks, so no cache may keep it.
    #[track_caller]
    pub(super) fn is_private(&self) {
        let lists = |name: &str, item: &str| {
            self.all(name).iter().flat_map(|list| list.split(',')).any(|entry| entry.trim().eq_ignore_ascii_case(item))
        };
        assert!(lists("Vary", "Cookie") || lists("Vary", "Authorization"), "no Vary: Cookie in {self:?}");
        assert!(lists("Cache-Control", "no-store"), "no Cache-Control: no-store in {self:?}");
    }

    /// What holds of every answer, whatever was asked.
    #[track_caller]
    pub(super) fn hold(&self, method: &str) {
        for name in ["Set-Cookie", "Content-Type", "Location"] {
            self.header(name);
        }
        // Where sessions are tracked by a header: there, and in the answer to a sign-in.
        let handed_out = self.header("Session-Token");
        if self.cookie().is_some() || handed_out.is_some() {
            self.is_private();
        }
        assert!(self.cookie().is_none() || handed_out.is_none(), "one way or the other: {self:?}");
        for (name, value) in &self.headers {
            assert!(!name.starts_with("access-control-"), "another origin is let in: {self:?}");
            let may = name == "set-cookie" || name == "session-token";
            assert!(may || !value.contains(TOKEN), "{name} shows a token: {self:?}");
        }
        let body = match (handed_out, serde_json::from_slice::<Value>(&self.body)) {
            (_, Ok(json)) if self.cookie().is_none() && json["token"].is_string() && json["csrf"].is_string() => {
                self.text().replacen(json["token"].as_str().unwrap_or_default(), "", 1)
            }
            _ => self.text(),
        };
        assert!(!body.contains(TOKEN), "the body shows a token: {}", self.text());
        assert_ne!(self.header("Referrer-Policy"), Some("no-referrer"), "forms would send `Origin: null`");
        assert!(self.status < 500 || self.status == 503, "{self:?}");
        if matches!(self.status, 429 | 503) {
            assert!(self.header("Retry-After").is_some(), "{self:?}");
        }
        if self.status == 405 {
            assert!(!self.all("Allow").is_empty(), "a 405 says what is allowed: {self:?}");
        }
        if self.status >= 400 {
            self.hold_refusal(method);
        }
    }

    #[track_caller]
    fn hold_refusal(&self, method: &str) {
        // What is not HTTP is refused before there is anything to answer in JSON.
        if self.body.is_empty() && (method == "HEAD" || matches!(self.status, 400 | 414 | 431)) {
            return;
        }
        let refusal: BTreeMap<String, String> =
            serde_json::from_value(self.json()).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        let names: Vec<&str> = refusal.keys().map(|name| &**name).collect();
        assert_eq!(names, ["error", "reason"]);
        assert!(refusal.values().all(|text| !text.is_empty()), "{refusal:?}");
    }
}

/// A Set-Cookie header, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SetCookie {
    pub(super) name: String,
    pub(super) value: String,
    /// As written.
    pub(super) attributes: Vec<String>,
}

impl SetCookie {
    #[track_caller]
    fn parse(line: &str) -> Self {
        let mut parts = line.split("; ");
        let (name, value) = parts.next().and_then(|pair| pair.split_once('=')).unwrap_or_else(|| panic!("{line:?}"));
        let attributes: Vec<String> = parts.map(str::to_owned).collect();
        let mut names: Vec<String> =
            attributes.iter().map(|attribute| attribute.split('=').next().unwrap().to_ascii_lowercase()).collect();
        names.sort();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count, "an attribute twice in {line:?}");
        assert!(name.len() + value.len() <= 4096 && !value.contains([' ', '"', ',', ';', '\\']), "{line:?}");
        Self { name: name.into(), value: value.into(), attributes }
    }

    /// In seconds.
    pub(super) fn max_age(&self) -> Option<u64> {
        let value = self.attributes.iter().find_map(|attribute| attribute.strip_prefix("Max-Age="))?;
        Some(value.parse().unwrap_or_else(|error| panic!("{error}: {self:?}")))
    }

    /// All attributes in alphabetical order, Max-Age apart.
    pub(super) fn lasting_attributes(&self) -> Vec<&str> {
        let mut attributes: Vec<&str> = self.attributes.iter().map(|attribute| &**attribute).collect();
        attributes.retain(|attribute| !attribute.starts_with("Max-Age="));
        attributes.sort_unstable();
        attributes
    }

    pub(super) fn removes(&self) -> bool {
        self.max_age() == Some(0)
    }
}
