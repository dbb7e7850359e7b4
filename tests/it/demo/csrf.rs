//! The token that every unsafe request must carry: what it is bound to, where it may stand, and what is none.

use serde_json::{Value, json};

use super::answer::Answer;
use super::browser::Browser;
use super::http::Request;
use super::site::{Profile, Site};

/// Every route that changes something, and a body that it would accept.
fn doors() -> [(&'static str, Value); 7] {
    let setting = json!({ "key": "planted", "value": "x" });
    [
        ("/login", json!({ "user": "mallory", "password": "dwell" })),
        ("/logout", json!({})),
        ("/visit", json!({})),
        ("/set", setting.clone()),
        ("/slow", json!({ "ms": 0, "key": "planted", "value": "x" })),
        ("/elevate", json!({ "password": "dwell" })),
        ("/sessions/revoke", json!({ "all": true })),
    ]
}

/// The request of a visitor with everything but a token.
#[track_caller]
fn without_token(browser: &mut Browser, target: &str) -> Request {
    browser.unsafe_request(target).without("X-CSRF-Token")
}

#[track_caller]
fn is_refused(answer: Answer) {
    answer.refused(403, "csrf").is_private();
}

#[test]
fn every_unsafe_request_needs_a_token() {
    for profile in Profile::ALL {
        let site = Site::new(profile);
        let mut ada = Browser::signed_in(&site, "ada");
        ada.visit();
        let mut visitors = [ada.clone(), Browser::anonymous(&site), Browser::new(&site)];
        for visitor in &mut visitors {
            for (target, body) in doors() {
                let bare = without_token(visitor, target);
                is_refused(visitor.send(&bare.clone().json(&body)));
                is_refused(visitor.send(&bare.json(&body).with("X-CSRF-Token", "junk")));
            }
        }
        ada.is("ada", 1);
        assert_eq!(ada.value("planted"), None);
        assert_eq!(visitors[1].passive().visits, 1);
        visitors[2].is_nobody();
        // A stranger's session is written behind, so the kill may forget it.
        assert!((1..=2).contains(&site.killed_and_started().restored.sessions));
    }
}

/// Posts a visit of a signed-in visitor with this token.
fn visit_with(browser: &mut Browser, token: &str) -> Answer {
    let request = without_token(browser, "/visit").json(&json!({})).with("X-CSRF-Token", token);
    browser.send(&request)
}

#[test]
fn a_token_is_good_for_its_own_session_only() {
    for profile in [Profile::Development, Profile::Localhost] {
        let site = Site::new(profile);
        let stateless = Browser::new(&site).token();
        let mut before = Browser::anonymous(&site);
        let anonymous = before.passive().csrf;
        let mut ada = before.clone();
        ada.sign_in("ada");
        let (mut second, mut eve) = (Browser::signed_in(&site, "ada"), Browser::signed_in(&site, "eve"));
        let own = ada.passive().csrf;
        for token in [stateless, anonymous, second.passive().csrf, eve.passive().csrf] {
            is_refused(visit_with(&mut ada, &token));
        }
        assert_eq!(visit_with(&mut ada, &own).expect(200).json()["visits"], 1);
        ada.elevate("ada");
        is_refused(visit_with(&mut ada, &own));
        let now = ada.passive().csrf;
        assert_eq!(visit_with(&mut ada, &now).expect(200).json()["visits"], 2);
        // Without the cookie it opens nothing, not even the door for strangers.
        let mut stranger = Browser::new(&site);
        for token in [&own, &now] {
            is_refused(visit_with(&mut stranger, token));
        }
        let mut leaving = ada.clone();
        leaving.post("/logout", &json!({})).expect(204);
        is_refused(visit_with(&mut ada, &now));
        before.is_nobody();
    }
}

#[test]
fn a_strangers_token_serves_any_stranger_any_number_of_times() {
    let site = Site::new(Profile::Development);
    let token = Browser::new(&site).token();
    let name = Browser::anonymous(&site).jar.into_keys().next().unwrap();
    for cookie in [None, Some("junk"), None] {
        let mut stranger = Browser::new(&site);
        stranger.jar.extend(cookie.map(|value| (name.clone(), value.to_owned())));
        assert_eq!(visit_with(&mut stranger, &token).expect(200).json()["visits"], 1);
        is_refused(visit_with(&mut stranger, &token));
    }
    let other = Browser::new(&Site::new(Profile::Development)).token();
    is_refused(visit_with(&mut Browser::new(&site), &other));
}

#[test]
fn a_token_stands_in_its_header_or_form_field_and_nowhere_else() {
    let site = Site::new(Profile::Development);
    let mut ada = Browser::signed_in(&site, "ada");
    let token = ada.passive().csrf;
    let bare = without_token(&mut ada, "/visit").json(&json!({}));
    let cookie = ada.cookie();
    let form = [("csrf", &*token)];
    for request in [
        bare.clone().target(&format!("/visit?csrf={token}")),
        bare.clone().target(&format!("/visit?X-CSRF-Token={token}")),
        bare.clone().set("Cookie", format!("{cookie}; csrf={token}; X-CSRF-Token={token}")),
        bare.clone().json(&json!({ "csrf": token })),
        bare.clone().body("text/plain", format!("csrf={token}")),
        bare.clone().body("multipart/form-data; boundary=b", multipart(&token)),
        bare.clone().with("CSRF", &token),
        bare.clone().with("X-CSRF-Token", ""),
        bare.clone().with("X-CSRF-Token", &token[1..]),
        bare.clone().with("X-CSRF-Token", &token[..token.len() - 1]),
        bare.clone().with("X-CSRF-Token", &token[..token.len() / 2]),
        bare.clone().with("X-CSRF-Token", format!("{token}{token}")),
        bare.clone().with("X-CSRF-Token", format!("{token}, {token}")),
        bare.clone().with("X-CSRF-Token", format!("\"{token}\"")),
        bare.clone().with("X-CSRF-Token", &token).with("X-CSRF-Token", &token),
        bare.clone().with("X-CSRF-Token", "junk").with("X-CSRF-Token", &token),
        bare.clone().with("X-CSRF-Token", &token).with("X-CSRF-Token", "junk"),
        bare.clone().form(&[]),
        bare.clone().form(&[("csrf", "")]),
        bare.clone().form(&[("csrf", "junk"), ("csrf", &*token)]),
        bare.clone().form(&[("csrf", &*token), ("csrf", "junk")]),
        bare.clone().form(&[("CSRF", &*token)]),
        bare.clone().form(&form).target(&format!("/logout?csrf={token}")).body("text/plain", ""),
    ] {
        is_refused(ada.send(&request));
    }
    ada.is("ada", 0);
    assert_eq!(ada.send(&bare.with("x-csrf-token", &token)).expect(200).json()["visits"], 1);
    let answer = ada.post_form("/logout", &[]).expect(303);
    assert_eq!(answer.header("Location"), Some("/"));
}

fn multipart(token: &str) -> String {
    format!("--b\r\nContent-Disposition: form-data; name=\"csrf\"\r\n\r\n{token}\r\n--b--\r\n")
}

/// The longest run of characters that both have.
fn common(one: &str, two: &str) -> usize {
    let (one, two) = (one.as_bytes(), two.as_bytes());
    let longest = |length: usize| one.windows(length).any(|run| two.windows(length).any(|other| run == other));
    (1..=one.len()).take_while(|&length| longest(length)).last().unwrap_or(0)
}

#[test]
fn each_rendering_is_another_and_all_are_good() {
    let site = Site::new(Profile::Development);
    let mut ada = Browser::signed_in(&site, "ada");
    let mut tokens: Vec<String> = (0..10).map(|_| ada.passive().csrf).collect();
    for (place, token) in tokens.iter().enumerate() {
        // A page whose size shows guesses right leaks what is the same in every rendering of it.
        let same = tokens.iter().skip(place + 1).map(|other| common(token, other)).max();
        assert!(same.is_none_or(|same| same < 12), "{tokens:?}");
    }
    tokens.reverse();
    for (visits, token) in tokens.iter().enumerate() {
        assert_eq!(visit_with(&mut ada, token).expect(200).json()["visits"], visits + 1);
    }
}

/// Every token that differs from this one in a single character.
fn changed(token: &str) -> impl Iterator<Item = String> {
    token.char_indices().flat_map(move |(at, old)| {
        let next = move |to: char| format!("{}{to}{}", &token[..at], &token[at + old.len_utf8()..]);
        ['A', 'B', 'a', '_', '7'].into_iter().filter(move |&to| to != old).take(2).map(next)
    })
}

#[test]
fn a_token_with_any_character_changed_is_none() {
    let site = Site::new(Profile::Development);
    let mut ada = Browser::signed_in(&site, "ada");
    let token = ada.passive().csrf;
    for wrong in changed(&token) {
        is_refused(visit_with(&mut ada, &wrong));
    }
    // The last character may have bits that say nothing, and a lax reader takes any.
    for last in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=".chars() {
        let wrong = format!("{}{last}", &token[..token.len() - 1]);
        if wrong != token {
            is_refused(visit_with(&mut ada, &wrong));
        }
    }
    ada.is("ada", 0);
    let mut stranger = Browser::new(&site);
    for wrong in changed(&stranger.token()) {
        is_refused(visit_with(&mut stranger, &wrong));
    }
    assert_eq!(site.killed_and_started().restored.sessions, 1);
}

#[test]
fn a_page_that_was_open_before_a_crash_still_works_after_it() {
    let site = Site::new(Profile::Development);
    let (mut ada, mut stranger) = (Browser::signed_in(&site, "ada"), Browser::new(&site));
    let (own, stateless) = (ada.passive().csrf, stranger.token());
    let site = site.killed_and_started();
    let (mut ada, mut stranger) = (ada.moved_to(&site), stranger.moved_to(&site));
    visit_with(&mut ada, &own).expect(200);
    visit_with(&mut stranger, &stateless).expect(200);
}

#[test]
fn a_token_does_not_make_a_foreign_page_ours() {
    let site = Site::new(Profile::Development);
    let mut ada = Browser::signed_in(&site, "ada");
    for (target, body) in doors() {
        let request = ada.unsafe_request(target).set("Origin", "http://evil.example").json(&body);
        ada.send(&request).refused(403, "origin");
    }
    ada.is("ada", 0);
}
