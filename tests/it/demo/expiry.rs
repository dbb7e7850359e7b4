//! Deadlines, as they pass. Only here is time waited for: the state that it brings is asked for again and again.

use std::time::Duration;

use serde_json::json;

use super::browser::Browser;
use super::site::{Profile, Site, eventually};

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until some of the idle time has passed, and returns how many seconds are left then.
#[track_caller]
pub(super) fn some_time_passes(browser: &mut Browser) -> u64 {
    let first = browser.passive().idle_left_s.unwrap();
    let later = eventually(PATIENCE, || browser.passive().idle_left_s.filter(|&left| left + 1 < first));
    later.expect("the idle time does not run")
}

#[test]
fn requests_renew_and_those_that_are_nobodys_or_passive_do_not() {
    let site = Site::with(Profile::Localhost, &["--idle", "10m"]);
    let mut browser = Browser::signed_in(&site, "ada");
    let left = some_time_passes(&mut browser);
    let mut thief = browser.accompanied(Some("junk"));
    for target in ["/", "/whoami", "/get?key=a", "/sessions", "/export?format=json"] {
        thief.get(target).sets_no_cookie();
    }
    let (cookie, name) = (browser.cookie(), browser.jar.keys().next().unwrap());
    for cookies in [format!("{cookie}x"), format!("x{cookie}"), format!("{name}=junk")] {
        site.ask(&site.request("GET", "/whoami").with("Cookie", cookies)).expect(200);
    }
    assert!(browser.passive().idle_left_s <= Some(left), "somebody else's request renews");
    assert!(browser.whoami().idle_left_s > Some(left), "a request renews");
    assert!(browser.passive().idle_left_s > Some(left));
}

#[test]
fn a_session_that_nobody_uses_ends() {
    let site = Site::with(Profile::Development, &["--idle", "2s"]);
    let mut browser = Browser::signed_in(&site, "ada");
    let token = browser.token();
    eventually(PATIENCE, || browser.passive().is_nobody().then_some(())).expect("it never ends");
    assert_eq!(browser.value("a"), None);
    let late = browser.request("POST", "/visit").with("Origin", site.origin()).with("X-CSRF-Token", token);
    browser.send(&late.json(&json!({}))).refused(403, "csrf");
    browser.get("/sessions").refused(401, "sign_in_required");
    browser.is_nobody();
    assert_eq!(browser.accompanied(None).visit(), 1, "a stranger again");
}

#[test]
fn use_does_not_move_the_absolute_deadline() {
    let site = Site::with(Profile::Development, &["--lifetime", "4s"]);
    let mut browser = Browser::signed_in(&site, "ada");
    let mut last = 4;
    let ended = eventually(PATIENCE, || {
        let whoami = browser.whoami();
        assert!(whoami.life_left_s.is_none_or(|left| left <= last), "{whoami:?}");
        last = whoami.life_left_s.unwrap_or(last);
        if last == 2 && whoami.principal.is_some() {
            // Neither does a new token.
            browser.elevate("ada");
        }
        whoami.is_nobody().then_some(())
    });
    ended.expect("it never ends");
}

#[test]
fn a_write_that_comes_after_the_deadline_is_refused() {
    let site = Site::with(Profile::Development, &["--lifetime", "4s"]);
    let mut browser = Browser::signed_in(&site, "ada");
    let answer = browser.post("/slow", &json!({ "ms": 6000, "key": "a", "value": "late" }));
    answer.refused(401, "session_ended").is_private();
    browser.is_nobody();
}

#[test]
fn what_expired_while_it_was_down_is_told_at_the_start() {
    let mut site = Site::with(Profile::Development, &["--idle", "2s"]);
    let (here, there) = (Browser::signed_in(&site, "ada"), Browser::signed_in(&site, "ada"));
    site.kill();
    // A session elsewhere that began later and lasts longer tells when these have expired.
    let clock = Site::with(Profile::Development, &["--idle", "5s"]);
    let mut hand = Browser::signed_in(&clock, "ada");
    eventually(PATIENCE, || hand.passive().is_nobody().then_some(())).expect("it never ends");
    let site = site.started_again();
    assert_eq!((site.restored.sessions, site.restored.expired), (0, 2));
    here.moved_to(&site).is_nobody();
    there.moved_to(&site).is_nobody();
}
