//! The companion of profile `localhost`: a cookie that another port on this machine received opens nothing alone.

use serde_json::{Value, json};

use super::browser::{Browser, Whoami};
use super::site::{Profile, Site};

/// Somebody has the cookie, and as companion not what belongs to it.
fn thieves(victim: &Browser, other: &Browser, former: &str) -> Vec<Browser> {
    let right = victim.companion.clone().unwrap();
    let wrong = [
        None,
        Some(String::new()),
        Some("junk".into()),
        other.companion.clone(),
        Some(former.to_owned()),
        Some(right[1..].to_owned()),
        Some(right[..right.len() - 1].to_owned()),
        Some(format!("{right}, {right}")),
        Some(format!("{right}A")),
    ];
    wrong.into_iter().map(|companion| victim.accompanied(companion.as_deref())).collect()
}

/// A victim, and everybody who may not pass for them.
fn cast(site: &Site) -> (Browser, Vec<Browser>) {
    let mut victim = Browser::signed_in(site, "ada-lovelace");
    let former = victim.companion.clone().unwrap();
    victim.elevate("ada-lovelace");
    victim.set("secret", "the value");
    assert_eq!(victim.visit(), 1);
    let thieves = thieves(&victim, &Browser::signed_in(site, "eve"), &former);
    (victim, thieves)
}

#[test]
fn without_it_the_open_doors_see_a_stranger() {
    let site = Site::new(Profile::Localhost);
    let (mut victim, thieves) = cast(&site);
    for mut thief in thieves {
        assert!(thief.whoami().is_nobody(), "{:?}", thief.companion);
        for target in ["/", "/whoami"] {
            let answer = thief.get(target).expect(200).sets_no_cookie();
            answer.is_private();
            assert!(!answer.text().contains("ada-lovelace"), "{target}: {}", answer.text());
        }
    }
    let twice = victim.request("GET", "/whoami").with("X-Companion", "junk");
    assert!(Whoami::read(&site.ask(&twice)).is_nobody(), "two companions are none");
    victim.is("ada-lovelace", 1);
}

#[test]
fn without_it_every_other_door_is_closed() {
    let site = Site::new(Profile::Localhost);
    let (mut victim, thieves) = cast(&site);
    let token = victim.passive().csrf;
    let own = victim.id();
    let posts: [(&str, Value); 7] = [
        ("/visit", json!({})),
        ("/set", json!({ "key": "secret", "value": "other" })),
        ("/slow", json!({ "ms": 0, "key": "secret", "value": "other" })),
        ("/elevate", json!({ "password": "dwell" })),
        ("/sessions/revoke", json!({ "id": own })),
        ("/sessions/revoke", json!({ "all": true })),
        ("/logout", json!({})),
    ];
    for mut thief in thieves {
        for target in ["/get?key=secret", "/sessions", "/export?format=json", "/export?format=xml", "/live"] {
            thief.get(target).refused(403, "companion").is_private();
        }
        for (target, body) in &posts {
            // With all else that a request needs.
            let bare = thief.request("POST", target).with("Origin", site.origin()).json(body);
            thief.send(&bare.clone().with("X-CSRF-Token", &token)).refused(403, "companion");
            let stateless = Browser::new(&site).token();
            thief.send(&bare.with("X-CSRF-Token", stateless)).expect(403).sets_no_cookie();
        }
        thief.get("/healthz").expect(200);
    }
    victim.is("ada-lovelace", 1);
    assert_eq!(victim.value("secret").as_deref(), Some("the value"));
}

#[test]
fn without_it_a_sign_in_begins_afresh_and_leaves_the_other_session_alone() {
    let site = Site::new(Profile::Localhost);
    let (mut victim, thieves) = cast(&site);
    let id = victim.id();
    for mut thief in thieves {
        for user in ["ada-lovelace", "eve"] {
            let mut afresh = thief.clone();
            afresh.sign_in(user);
            assert_ne!(afresh.jar, victim.jar);
            afresh.is(user, 0);
            assert_eq!(afresh.value("secret"), None, "nothing comes along from a session that is not theirs");
        }
        thief.is_nobody();
    }
    victim.is("ada-lovelace", 1);
    assert_eq!(victim.id(), id);
    assert_eq!(victim.value("secret").as_deref(), Some("the value"));
}

#[test]
fn an_anonymous_visitor_needs_none() {
    let site = Site::new(Profile::Localhost);
    let mut browser = Browser::anonymous(&site);
    assert_eq!((browser.companion.clone(), browser.visit()), (None, 2));
    browser.set("cart", "tea");
    assert_eq!(browser.value("cart").as_deref(), Some("tea"));
    browser.companion = Some("junk".into());
    assert_eq!(browser.passive().visits, 2, "what it does not need does not matter");
}

#[test]
fn it_survives_a_restart_and_changes_with_each_rotation() {
    let site = Site::new(Profile::Localhost);
    let mut browser = Browser::new(&site);
    let mut seen = Vec::new();
    for _ in 0..2 {
        browser.sign_in("ada");
        seen.push(browser.companion.clone().unwrap());
        browser.elevate("ada");
        seen.push(browser.companion.clone().unwrap());
    }
    let last = seen.last().unwrap().clone();
    assert!(seen.iter().all(|companion| companion.len() >= 22), "one that can be guessed: {seen:?}");
    let site = site.killed_and_started();
    let mut browser = browser.moved_to(&site);
    browser.is("ada", 0);
    for former in &seen[..3] {
        assert_ne!(*former, last);
        browser.accompanied(Some(former)).is_nobody();
    }
}

#[test]
fn a_form_gets_it_behind_the_hash() {
    let site = Site::new(Profile::Localhost);
    let mut browser = Browser::new(&site);
    let answer = browser.post_form("/login", &[("user", "ada"), ("password", "dwell")]).expect(303);
    let location = answer.header("Location").unwrap();
    let companion = location.strip_prefix("/#companion=").unwrap_or_else(|| panic!("{location}"));
    assert!(companion.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)), "{location}");
    browser.is_nobody();
    browser.companion = Some(companion.into());
    browser.is("ada", 0);
}

#[test]
fn other_profiles_have_none() {
    for profile in [Profile::Lan, Profile::Https, Profile::Development] {
        let site = Site::new(profile);
        let mut browser = Browser::signed_in(&site, "ada");
        browser.companion = Some("junk".into());
        browser.is("ada", 0);
        let answer = Browser::new(&site).post_form("/login", &[("user", "ada"), ("password", "dwell")]).expect(303);
        assert_eq!(answer.header("Location"), Some("/"));
    }
}
