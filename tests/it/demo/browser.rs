//! A visitor: a cookie jar, the token of the page, the companion, and headers as browsers send them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::answer::{Answer, SetCookie};
use super::http::{Connection, Request};
use super::site::{Profile, Site};

/// What `/whoami` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Whoami {
    pub(super) id: Option<String>,
    pub(super) principal: Option<String>,
    pub(super) class: String,
    pub(super) created: Option<String>,
    pub(super) idle_left_s: Option<u64>,
    pub(super) life_left_s: Option<u64>,
    pub(super) visits: u64,
    pub(super) csrf: String,
}

impl Whoami {
    /// Holds the answer against the contract: all fields, their types, and which are null.
    #[track_caller]
    pub(super) fn read(answer: &Answer) -> Self {
        let answer = answer.clone().expect(200).sets_no_cookie();
        answer.is_private();
        let json = answer.json();
        let names = names(&json);
        let all = ["class", "created", "csrf", "id", "idle_left_s", "life_left_s", "principal", "visits"];
        assert_eq!(names, all, "{json}");
        let text = |name: &str| match &json[name] {
            Value::Null => None,
            value => Some(value.as_str().unwrap_or_else(|| panic!("{name}: {value}")).to_owned()),
        };
        let seconds = |name: &str| match &json[name] {
            Value::Null => None,
            value => Some(value.as_u64().unwrap_or_else(|| panic!("{name}: {value}"))),
        };
        let whoami = Self {
            id: text("id"),
            principal: text("principal"),
            class: text("class").unwrap(),
            created: text("created"),
            idle_left_s: seconds("idle_left_s"),
            life_left_s: seconds("life_left_s"),
            visits: json["visits"].as_u64().unwrap_or_else(|| panic!("{json}")),
            csrf: text("csrf").unwrap(),
        };
        whoami.hold();
        whoami
    }

    #[track_caller]
    fn hold(&self) {
        let some = self.class != "none";
        assert_eq!(self.principal.is_some(), self.class == "authenticated", "{self:?}");
        for is_there in [self.id.is_some(), self.created.is_some(), self.idle_left_s.is_some()] {
            assert_eq!(is_there, some, "{self:?}");
        }
        assert_eq!(self.life_left_s.is_some(), some, "{self:?}");
        assert!(["none", "anonymous", "authenticated"].contains(&&*self.class), "{self:?}");
        assert!(self.csrf.len() >= 22, "a token that can be guessed: {self:?}");
        assert!(some || self.visits == 0, "{self:?}");
        if let Some(created) = &self.created {
            seconds_of(created);
        }
    }

    pub(super) fn is_nobody(&self) -> bool {
        self.class == "none"
    }
}

/// Names of an object's fields, in order.
#[track_caller]
fn names(object: &Value) -> Vec<&str> {
    let object = object.as_object().unwrap_or_else(|| panic!("an object is due: {object}"));
    let mut names: Vec<&str> = object.keys().map(|name| &**name).collect();
    names.sort_unstable();
    names
}

/// Seconds since 1970 of a time as RFC 3339 writes it, in UTC.
#[track_caller]
pub(super) fn seconds_of(time: &str) -> u64 {
    let number = |range: std::ops::Range<usize>| -> u64 {
        let digits = time.get(range).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()));
        digits.and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("{time:?} is not RFC 3339"))
    };
    let marks: Vec<&str> = [4..5, 7..8, 10..11, 13..14, 16..17].into_iter().filter_map(|at| time.get(at)).collect();
    assert_eq!(marks, ["-", "-", "T", ":", ":"], "{time:?} is not RFC 3339");
    let zone = time[19..].trim_start_matches(|character: char| character == '.' || character.is_ascii_digit());
    assert!(["Z", "+00:00"].contains(&zone), "{time:?} is not in UTC");
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    // Days of the Gregorian calendar, counted from a March so that leap days come last.
    let (years, months) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * years + years / 4 - years / 100 + years / 400 + (153 * months + 2) / 5 + day - 1 - 719_468;
    days * 86_400 + number(11..13) * 3600 + number(14..16) * 60 + number(17..19)
}

/// A browser on one site. A clone shares what the original knew when it was cloned, on a connection of its own.
#[derive(Debug)]
pub(super) struct Browser {
    address: String,
    host: String,
    origin: String,
    profile: Profile,
    pub(super) jar: BTreeMap<String, String>,
    pub(super) companion: Option<String>,
    token: Option<String>,
    agent: String,
    connection: Option<Connection>,
}

impl Clone for Browser {
    fn clone(&self) -> Self {
        Self {
            address: self.address.clone(),
            host: self.host.clone(),
            origin: self.origin.clone(),
            jar: self.jar.clone(),
            companion: self.companion.clone(),
            token: self.token.clone(),
            agent: self.agent.clone(),
            profile: self.profile,
            connection: None,
        }
    }
}

impl Browser {
    pub(super) fn new(site: &Site) -> Self {
        Self {
            address: site.address.clone(),
            host: site.host().into(),
            origin: site.origin(),
            profile: site.profile,
            jar: BTreeMap::new(),
            companion: None,
            token: None,
            agent: "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0".into(),
            connection: None,
        }
    }

    #[track_caller]
    pub(super) fn signed_in(site: &Site, user: &str) -> Self {
        let mut browser = Self::new(site);
        browser.sign_in(user);
        browser
    }

    /// A visitor with a session that nobody signed in to.
    #[track_caller]
    pub(super) fn anonymous(site: &Site) -> Self {
        let mut browser = Self::new(site);
        assert_eq!(browser.visit(), 1);
        browser
    }

    /// The same browser when the server has another address.
    pub(super) fn moved_to(&self, site: &Site) -> Self {
        let address = (site.address.clone(), site.host().to_owned(), site.origin());
        Self { address: address.0, host: address.1, origin: address.2, token: None, ..self.clone() }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn agent(mut self, agent: &str) -> Self {
        self.agent = agent.into();
        self
    }

    /// The same cookies with another companion.
    pub(super) fn accompanied(&self, companion: Option<&str>) -> Self {
        Self { companion: companion.map(str::to_owned), token: None, ..self.clone() }
    }

    /// Name and value of the session cookie, as a request sends them.
    #[track_caller]
    pub(super) fn cookie(&self) -> String {
        let (name, value) = self.jar.first_key_value().expect("a cookie in the jar");
        format!("{name}={value}")
    }

    /// A request with Host, cookies and companion, as the page's script makes it.
    pub(super) fn request(&self, method: &str, target: &str) -> Request {
        let mut request = Request::new(method, target).with("Host", &self.host).with("User-Agent", &self.agent);
        if !self.jar.is_empty() {
            let pairs: Vec<String> = self.jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
            request = request.with("Cookie", pairs.join("; "));
        }
        match &self.companion {
            Some(companion) => request.with("X-Companion", companion),
            None => request,
        }
    }

    /// An unsafe request with everything that it needs to be accepted.
    #[track_caller]
    pub(super) fn unsafe_request(&mut self, target: &str) -> Request {
        let token = self.token();
        self.request("POST", target).with("Origin", &self.origin).with("X-CSRF-Token", token)
    }

    #[track_caller]
    pub(super) fn token(&mut self) -> String {
        if self.token.is_none() {
            self.token = Some(self.passive().csrf);
        }
        self.token.clone().unwrap()
    }

    /// Takes the token from elsewhere than `/whoami`.
    pub(super) fn know(&mut self, token: &str) {
        self.token = Some(token.into());
    }

    #[track_caller]
    pub(super) fn send(&mut self, request: &Request) -> Answer {
        let mut connection = self.connection.take().unwrap_or_else(|| Connection::open(&self.address));
        let answer = connection.ask(request);
        if answer.header("Connection") != Some("close") {
            self.connection = Some(connection);
        }
        self.remember(&answer);
        answer
    }

    fn remember(&mut self, answer: &Answer) {
        let Some(cookie) = answer.cookie() else { return };
        // A browser refuses what does not go with the scheme.
        let secure = cookie.attributes.iter().any(|attribute| attribute == "Secure");
        assert_eq!(secure, self.profile == Profile::Https, "{cookie:?}");
        self.token = None;
        let SetCookie { name, value, .. } = &cookie;
        if cookie.removes() {
            self.jar.remove(name);
            self.companion = None;
        } else {
            self.jar.insert(name.clone(), value.clone());
        }
    }

    #[track_caller]
    pub(super) fn get(&mut self, target: &str) -> Answer {
        let request = self.request("GET", target);
        self.send(&request)
    }

    #[track_caller]
    pub(super) fn post(&mut self, target: &str, body: &Value) -> Answer {
        let request = self.unsafe_request(target).json(body);
        self.send(&request)
    }

    /// A form as a page without script posts it: the token is a field, nothing else proves anything.
    #[track_caller]
    pub(super) fn post_form(&mut self, target: &str, fields: &[(&str, &str)]) -> Answer {
        let token = self.token();
        let fields: Vec<(&str, &str)> = fields.iter().copied().chain([("csrf", &*token)]).collect();
        let request = self.request("POST", target).with("Origin", &self.origin).with("Accept", "text/html");
        self.send(&request.form(&fields))
    }

    #[track_caller]
    pub(super) fn whoami(&mut self) -> Whoami {
        Whoami::read(&self.get("/whoami"))
    }

    /// `/whoami` without renewing.
    #[track_caller]
    pub(super) fn passive(&mut self) -> Whoami {
        let request = self.request("GET", "/whoami").with("X-Passive", "1");
        Whoami::read(&self.send(&request))
    }

    /// Signs in by JSON, and keeps what the answer gives.
    #[track_caller]
    pub(super) fn sign_in(&mut self, user: &str) -> Value {
        self.sign_in_with(&json!({ "user": user, "password": "dwell" }))
    }

    #[track_caller]
    pub(super) fn sign_in_with(&mut self, body: &Value) -> Value {
        let answer = self.post("/login", body).expect(200);
        self.take_in(&answer, body["user"].as_str().unwrap())
    }

    #[track_caller]
    pub(super) fn elevate(&mut self, user: &str) -> Value {
        let answer = self.post("/elevate", &json!({ "password": "dwell" })).expect(200);
        self.take_in(&answer, user)
    }

    /// Holds the answer to a sign-in against the contract.
    #[track_caller]
    fn take_in(&mut self, answer: &Answer, user: &str) -> Value {
        assert!(answer.cookie().is_some_and(|cookie| !cookie.removes()), "{answer:?}");
        answer.is_private();
        let json = answer.json();
        let names = names(&json);
        let companion = self.profile == Profile::Localhost;
        let all: &[&str] =
            if companion { &["companion", "csrf", "id", "principal"] } else { &["csrf", "id", "principal"] };
        assert_eq!(names, all, "{json}");
        assert_eq!(json["principal"], user);
        self.token = json["csrf"].as_str().map(str::to_owned);
        self.companion = json["companion"].as_str().map(str::to_owned);
        assert_eq!(self.companion.is_some(), companion, "{json}");
        json
    }

    /// One visit; returns how many there are.
    #[track_caller]
    pub(super) fn visit(&mut self) -> u64 {
        let answer = self.post("/visit", &json!({})).expect(200);
        answer.is_private();
        answer.json()["visits"].as_u64().unwrap()
    }

    #[track_caller]
    pub(super) fn set(&mut self, key: &str, value: &str) {
        let answer = self.post("/set", &json!({ "key": key, "value": value })).expect(204);
        answer.is_private();
    }

    /// What `/get` says of a key.
    #[track_caller]
    pub(super) fn value(&mut self, key: &str) -> Option<String> {
        let answer = self.get(&format!("/get?key={}", super::http::percent(key))).expect(200).sets_no_cookie();
        answer.is_private();
        let json = answer.json();
        assert_eq!(json, json!({ "key": key, "value": json["value"] }));
        assert!(json["value"].is_null() || json["value"].is_string(), "{json}");
        json["value"].as_str().map(str::to_owned)
    }

    /// The devices, each held against the contract.
    #[track_caller]
    pub(super) fn devices(&mut self) -> Vec<Value> {
        let answer = self.get("/sessions").expect(200).sets_no_cookie();
        answer.is_private();
        let devices = answer.json().as_array().unwrap_or_else(|| panic!("a bare array: {}", answer.text())).clone();
        for device in &devices {
            assert_eq!(names(device), ["address", "created", "current", "device", "id", "last_seen"], "{device}");
            let (created, seen) = (&device["created"], &device["last_seen"]);
            assert!(seconds_of(created.as_str().unwrap()) <= seconds_of(seen.as_str().unwrap()), "{device}");
            assert!(device["id"].is_string() && device["current"].is_boolean(), "{device}");
        }
        assert_eq!(devices.iter().filter(|device| device["current"] == true).count(), 1, "{devices:?}");
        devices
    }

    /// Handles of the devices, in order of their text.
    #[track_caller]
    pub(super) fn handles(&mut self) -> Vec<String> {
        let mut handles: Vec<String> =
            self.devices().iter().map(|device| device["id"].as_str().unwrap().to_owned()).collect();
        handles.sort();
        handles
    }

    #[track_caller]
    pub(super) fn id(&mut self) -> String {
        self.passive().id.expect("a session")
    }

    /// Nothing is known of this visitor, and no answer says otherwise.
    #[track_caller]
    pub(super) fn is_nobody(&mut self) {
        let whoami = self.passive();
        assert!(whoami.is_nobody(), "{whoami:?}");
    }

    /// The session is this user's and it has counted so many visits.
    #[track_caller]
    pub(super) fn is(&mut self, user: &str, visits: u64) {
        let whoami = self.passive();
        assert_eq!((whoami.principal.as_deref(), whoami.visits), (Some(user), visits), "{whoami:?}");
    }
}
