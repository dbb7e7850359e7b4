//! Signing out, with a session and without.

use serde_json::json;

use super::browser::Browser;
use super::http::Connection;
use super::site::{Profile, Site};

#[test]
fn a_sign_out_ends_this_session_and_no_other() {
    for profile in Profile::ALL {
        let site = Site::new(profile);
        let (mut here, mut there) = (Browser::signed_in(&site, "ada"), Browser::signed_in(&site, "ada"));
        here.set("cart", "tea");
        let (mut copy, token) = (here.clone(), here.token());
        let answer = here.post("/logout", &json!({})).expect(204);
        answer.is_private();
        assert!(here.jar.is_empty());
        copy.is_nobody();
        assert_eq!(copy.value("cart"), None);
        let late = copy.request("POST", "/visit").with("Origin", site.origin()).with("X-CSRF-Token", token);
        copy.send(&late.json(&json!({}))).refused(403, "csrf");
        there.is("ada", 0);
        assert_eq!(there.handles(), [there.id()]);
        let site = site.killed_and_started();
        assert_eq!(site.restored.sessions, 1, "it was durable when it was answered");
        copy.moved_to(&site).is_nobody();
        there.moved_to(&site).is("ada", 0);
    }
}

#[test]
fn a_form_leads_back_to_the_page() {
    for profile in Profile::ALL {
        let site = Site::new(profile);
        let mut browser = Browser::signed_in(&site, "ada");
        let mut copy = browser.clone();
        let answer = browser.post_form("/logout", &[]).expect(303);
        assert_eq!(answer.header("Location"), Some("/"));
        assert!(browser.jar.is_empty());
        copy.is_nobody();
    }
}

#[test]
fn without_a_session_there_is_nothing_to_end() {
    let site = Site::new(Profile::Development);
    let mut stranger = Browser::new(&site);
    stranger.post("/logout", &json!({})).expect(204).sets_no_cookie();
    assert_eq!(stranger.post_form("/logout", &[]).expect(303).sets_no_cookie().header("Location"), Some("/"));
    let token = stranger.token();
    let request = site.request("POST", "/logout").with("X-CSRF-Token", token).json(&json!({}));
    let mut connection = Connection::open(&site.address);
    for _ in 0..500 {
        connection.ask(&request).expect(204).sets_no_cookie();
    }
    assert_eq!(site.killed_and_started().restored.sessions, 0);
}

#[test]
fn a_cookie_that_opens_nothing_is_taken_away_too() {
    let site = Site::new(Profile::Development);
    let mut browser = Browser::signed_in(&site, "ada");
    let mut dead = browser.clone();
    let name = browser.jar.keys().next().unwrap().clone();
    browser.post("/logout", &json!({})).expect(204);
    let mut junk = Browser::new(&site);
    junk.jar.insert(name, "junk".into());
    for visitor in [&mut dead, &mut junk] {
        let token = Browser::new(&site).token();
        let request = visitor.request("POST", "/logout").with("Origin", site.origin()).with("X-CSRF-Token", token);
        let answer = visitor.send(&request.json(&json!({}))).expect(204);
        assert!(answer.cookie().is_some_and(|cookie| cookie.removes()), "{answer:?}");
        assert!(visitor.jar.is_empty());
    }
}

#[test]
fn an_anonymous_session_ends_as_well() {
    let site = Site::new(Profile::Development);
    let mut browser = Browser::anonymous(&site);
    let mut copy = browser.clone();
    browser.post("/logout", &json!({})).expect(204);
    copy.is_nobody();
    assert_eq!(copy.visit(), 1, "a new session, not the old one");
}

#[test]
fn twice_is_as_good_as_once() {
    let site = Site::new(Profile::Development);
    let mut watcher = Browser::signed_in(&site, "ada");
    for _ in 0..20 {
        let mut browser = Browser::signed_in(&site, "ada");
        let request = browser.unsafe_request("/logout").json(&json!({}));
        let copies: Vec<Browser> = (0..4).map(|_| browser.clone()).collect();
        std::thread::scope(|scope| {
            for mut copy in copies {
                let request = &request;
                scope.spawn(move || {
                    let answer = copy.send(request);
                    match answer.status {
                        // One that comes later holds the token of a session that is no more.
                        204 | 403 => {}
                        // The session ended between finding it and looking at its token.
                        401 => drop(answer.refused(401, "session_ended").sets_no_cookie()),
                        _ => panic!("{answer:?}"),
                    }
                });
            }
        });
        browser.is_nobody();
    }
    assert_eq!(watcher.handles().len(), 1);
}
