//! The list of one's own sessions and ending them.

use serde_json::{Value, json};

use super::browser::Browser;
use super::site::{Profile, Site};

const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

#[track_caller]
fn revoke(browser: &mut Browser, body: &Value) -> u64 {
    let answer = browser.post("/sessions/revoke", body).expect(200);
    answer.is_private();
    let json = answer.json();
    assert_eq!(json, json!({ "revoked": json["revoked"] }));
    json["revoked"].as_u64().unwrap()
}

#[test]
fn the_list_has_ones_own_sessions_and_no_others() {
    for profile in Profile::ALL {
        let site = Site::new(profile);
        let mut here = Browser::signed_in(&site, "ada").agent(FIREFOX);
        let mut there = Browser::new(&site).agent(FIREFOX);
        there.sign_in("ada");
        let mut eve = Browser::signed_in(&site, "eve");
        Browser::anonymous(&site);
        let mut ids = vec![here.id(), there.id()];
        ids.sort();
        assert_eq!(here.handles(), ids);
        assert_eq!(there.handles(), ids);
        assert_eq!(eve.handles(), [eve.id()]);
        for browser in [&mut here, &mut there] {
            let devices = browser.devices();
            let current = devices.iter().find(|device| device["current"] == true).unwrap();
            assert_eq!(current["id"].as_str(), browser.passive().id.as_deref());
            assert_eq!(current["created"].as_str(), browser.passive().created.as_deref());
            assert_eq!(current["address"], "127.0.0.1");
            assert!(current["device"].as_str().is_some_and(|device| device.contains("Firefox")), "{current}");
        }
    }
}

#[test]
fn a_device_may_call_itself_anything() {
    let site = Site::new(Profile::Development);
    let endless = "U".repeat(8000);
    for agent in ["", "curl/8", "<script>alert(1)</script>", "\"quoted\"; \\ {}", &endless] {
        let mut browser = Browser::new(&site).agent(agent);
        browser.sign_in("ada");
        let devices = browser.devices();
        let device = &devices.iter().find(|device| device["current"] == true).unwrap()["device"];
        assert!(device.is_null() || device.as_str().is_some_and(|device| device.len() <= 512), "{device}");
        let page = browser.request("GET", "/").with("Accept", "text/html");
        assert!(!browser.send(&page).expect(200).text().contains("<script>alert"), "{agent}");
    }
    // Headers are bytes.
    let mut browser = Browser::new(&site);
    let request = browser.unsafe_request("/login").set("User-Agent", b"caf\xe9 \xff");
    browser.send(&request.json(&json!({ "user": "ada", "password": "dwell" }))).expect(200);
    assert_eq!(browser.devices().len(), 6);
}

#[test]
fn an_address_is_taken_from_a_trusted_proxy_only() {
    let address = |arguments: &[&str]| {
        let site = Site::with(Profile::Https, arguments);
        let mut browser = Browser::new(&site);
        let request = browser.unsafe_request("/login").with("X-Forwarded-For", "203.0.113.7");
        browser.send(&request.json(&json!({ "user": "ada", "password": "dwell" }))).expect(200);
        browser.devices()[0]["address"].clone()
    };
    assert_eq!(address(&[]), "127.0.0.1");
    assert_eq!(address(&["--trusted-proxy", "10.0.0.0/8"]), "127.0.0.1");
    assert_eq!(address(&["--trusted-proxy", "127.0.0.0/8"]), "203.0.113.7");
}

#[test]
fn another_device_is_signed_out() {
    for profile in Profile::ALL {
        let site = Site::new(profile);
        let (mut here, mut there) = (Browser::signed_in(&site, "ada"), Browser::signed_in(&site, "ada"));
        let id = there.id();
        let answer = here.post("/sessions/revoke", &json!({ "id": id })).expect(200).sets_no_cookie();
        assert_eq!(answer.json(), json!({ "revoked": 1 }));
        there.is_nobody();
        here.is("ada", 0);
        assert_eq!(here.handles(), [here.id()]);
        here.post("/sessions/revoke", &json!({ "id": id })).refused(404, "not_found");
    }
}

#[test]
fn ending_ones_own_session_takes_the_cookie_away() {
    let site = Site::new(Profile::Development);
    let (mut here, mut there) = (Browser::signed_in(&site, "ada"), Browser::signed_in(&site, "ada"));
    let mut copy = here.clone();
    let own = json!({ "id": here.id() });
    assert_eq!(revoke(&mut here, &own), 1);
    assert!(here.jar.is_empty(), "the cookie is removed");
    copy.is_nobody();
    there.is("ada", 0);
}

#[test]
fn everywhere_else_and_everywhere() {
    for profile in Profile::ALL {
        let site = Site::new(profile);
        let mut browsers: Vec<Browser> = (0..7).map(|_| Browser::signed_in(&site, "ada")).collect();
        let mut eve = Browser::signed_in(&site, "eve");
        assert_eq!(revoke(&mut browsers[0], &json!({ "others": true })), 6);
        browsers[1..].iter_mut().for_each(Browser::is_nobody);
        browsers[0].is("ada", 0);
        assert_eq!(revoke(&mut browsers[0], &json!({ "others": true })), 0);
        let mut second = Browser::signed_in(&site, "ada");
        let mut copy = browsers[0].clone();
        assert_eq!(revoke(&mut browsers[0], &json!({ "all": true })), 2);
        assert!(browsers[0].jar.is_empty());
        copy.is_nobody();
        second.is_nobody();
        eve.is("eve", 0);
        assert_eq!(Browser::signed_in(&site, "ada").handles().len(), 1, "who was signed out may sign in");
        assert_eq!(site.killed_and_started().restored.sessions, 2);
    }
}

#[test]
fn a_strangers_handle_and_one_that_never_was_look_the_same() {
    let site = Site::new(Profile::Development);
    let other = Site::new(Profile::Development);
    let mut eve = Browser::signed_in(&site, "eve");
    let (mut ada, mut anonymous) = (Browser::signed_in(&site, "ada"), Browser::anonymous(&site));
    let mut gone = Browser::signed_in(&site, "eve");
    let ended = gone.id();
    gone.post("/logout", &json!({})).expect(204);
    let elsewhere: Vec<String> = (0..9).map(|_| Browser::signed_in(&other, "eve").id()).collect();
    let handle = ada.id();
    let forged = format!("{}{}", &handle[..handle.len() - 1], if handle.ends_with('A') { 'Q' } else { 'A' });
    let mut answers: Vec<_> = [handle, anonymous.id(), ended, elsewhere[8].clone(), forged]
        .iter()
        .map(|id| {
            let answer = eve.post("/sessions/revoke", &json!({ "id": id })).refused(404, "not_found");
            let headers = answer.headers.iter().filter(|(name, _)| name != "date").cloned();
            (headers.collect::<Vec<_>>(), answer.text())
        })
        .collect();
    answers.dedup();
    assert_eq!(answers.len(), 1, "one can be told from the other: {answers:?}");
    ada.is("ada", 0);
    assert_eq!(anonymous.passive().visits, 1);
    eve.is("eve", 0);
}

#[test]
fn one_thing_is_revoked_at_a_time() {
    let site = Site::new(Profile::Development);
    let (mut here, mut there) = (Browser::signed_in(&site, "ada"), Browser::signed_in(&site, "ada"));
    let id = there.id();
    for body in [
        json!({}),
        json!({ "others": false }),
        json!({ "all": false }),
        json!({ "id": 1 }),
        json!({ "id": null }),
        json!({ "id": id, "all": true }),
        json!({ "id": id, "others": true }),
        json!({ "others": true, "all": true }),
        json!([id]),
    ] {
        let answer = here.post("/sessions/revoke", &body);
        assert_eq!(answer.status, 422, "{body}: {answer:?}");
        answer.refused(422, "invalid");
    }
    for id in ["", "junk", "h1", "../../etc/passwd"] {
        let answer = here.post("/sessions/revoke", &json!({ "id": id }));
        assert!(matches!(answer.status, 404 | 422), "{id}: {answer:?}");
    }
    there.is("ada", 0);
    here.is("ada", 0);
}

#[test]
fn who_is_not_signed_in_has_no_list() {
    for profile in Profile::ALL {
        let site = Site::new(profile);
        for mut visitor in [Browser::new(&site), Browser::anonymous(&site)] {
            visitor.get("/sessions").refused(401, "sign_in_required").is_private();
            let page = visitor.request("GET", "/sessions").with("Accept", "text/html,application/xml;q=0.9,*/*;q=0.8");
            let answer = visitor.send(&page).expect(303).sets_no_cookie();
            assert_eq!(answer.header("Location"), Some("/"));
            answer.is_private();
            for body in [json!({ "all": true }), json!({ "others": true }), json!({ "id": "x" })] {
                visitor.post("/sessions/revoke", &body).refused(401, "sign_in_required");
            }
        }
    }
}

#[test]
fn a_page_without_script_can_sign_devices_out() {
    for profile in [Profile::Development, Profile::Lan, Profile::Https] {
        let site = Site::new(profile);
        let mut browsers: Vec<Browser> = (0..3).map(|_| Browser::signed_in(&site, "ada")).collect();
        let id = browsers[1].id();
        let answer = browsers[0].post_form("/sessions/revoke", &[("id", &*id)]).sets_no_cookie();
        assert!(matches!(answer.status, 200 | 303), "{answer:?}");
        browsers[1].is_nobody();
        browsers[2].is("ada", 0);
        let answer = browsers[0].post_form("/sessions/revoke", &[("others", "true")]).sets_no_cookie();
        assert!(matches!(answer.status, 200 | 303), "{answer:?}");
        browsers[2].is_nobody();
        browsers[0].is("ada", 0);
    }
}
