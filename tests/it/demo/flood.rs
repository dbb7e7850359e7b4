//! Many new sessions at once: who begins them is slowed, and nobody else.

use serde_json::json;

use super::browser::Browser;
use super::http::Request;
use super::site::{Profile, Site};

const LIMITED: [&str; 4] = ["--new-sessions", "5/min", "--trusted-proxy", "127.0.0.0/8"];

/// As the proxy passes it on.
fn from(client: &str, request: Request) -> Request {
    request.with("X-Forwarded-For", client)
}

/// How many of twenty visitors of this client get a session.
fn begun(site: &Site, client: &str) -> usize {
    let begin = |_: &i32| {
        let mut visitor = Browser::new(site);
        let visit = from(client, visitor.unsafe_request("/visit").json(&json!({})));
        let answer = visitor.send(&visit);
        if answer.status == 429 {
            let answer = answer.refused(429, "flood");
            let wait: u32 = answer.header("Retry-After").unwrap().parse().unwrap();
            assert!((1..=12).contains(&wait), "one every twelve seconds, so {wait} s are too long");
            return false;
        }
        answer.expect(200);
        true
    };
    (0..20).filter(begin).count()
}

#[test]
fn a_client_begins_so_many_sessions_and_its_neighbours_as_many() {
    let site = Site::with(Profile::Https, &LIMITED);
    let mut ada = Browser::new(&site);
    let request = ada.unsafe_request("/visit").json(&json!({}));
    ada.send(&from("203.0.113.7", request)).expect(200);
    // Twice as many as in a minute at once, and one of them was hers. A slow machine may win one more.
    assert!((9..=10).contains(&begun(&site, "203.0.113.7")));
    assert!((10..=11).contains(&begun(&site, "203.0.113.8")), "another address");
    assert!((10..=11).contains(&begun(&site, "2001:db8::1")));
    assert_eq!(begun(&site, "2001:db8::2"), 0, "another address of the same network");
    assert_eq!(begun(&site, "203.0.113.7"), 0);

    // Who has a session goes on, and who proves who they are signs in.
    let go_on = from("203.0.113.7", ada.unsafe_request("/visit").json(&json!({})));
    ada.send(&go_on).expect(200);
    for mut browser in [ada, Browser::new(&site)] {
        let sign_in = browser.unsafe_request("/login").json(&json!({ "user": "ada", "password": "dwell" }));
        browser.send(&from("203.0.113.7", sign_in)).expect(200);
        browser.visit();
        browser.post("/logout", &json!({})).expect(204);
    }
}

#[test]
fn this_machine_is_no_client_among_others() {
    let site = Site::with(Profile::Development, &["--new-sessions", "5/min"]);
    for _ in 0..20 {
        Browser::anonymous(&site).visit();
    }
    let site = Site::with(Profile::Https, &["--new-sessions", "off", "--trusted-proxy", "127.0.0.0/8"]);
    assert_eq!(begun(&site, "203.0.113.7"), 20, "no limit");
    let site = Site::with(Profile::Https, &LIMITED[..2]);
    assert_eq!(begun(&site, "203.0.113.7"), 20, "nobody vouches for the header");
}
