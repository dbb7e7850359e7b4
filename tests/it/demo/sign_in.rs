//! Signing in, again and as somebody else: what goes with the visitor and what is worthless afterwards.

use serde_json::json;

use super::browser::Browser;
use super::site::{Profile, Site};

#[test]
fn a_cart_comes_along_and_nothing_else() {
    for profile in Profile::ALL {
        let site = Site::new(profile);
        let mut browser = Browser::anonymous(&site);
        browser.set("cart", "two teapots");
        browser.set("note", "of a stranger");
        let before = browser.passive();
        browser.sign_in("ada");
        let after = browser.passive();
        assert_ne!(after.id, before.id);
        browser.is("ada", 0);
        assert_eq!(browser.value("cart").as_deref(), Some("two teapots"));
        assert_eq!(browser.value("note"), None);
        assert_eq!(browser.visit(), 1, "visits start again");
    }
}

#[test]
fn what_was_planted_before_a_sign_in_is_worthless_after_it() {
    for profile in Profile::ALL {
        let site = Site::new(profile);
        let mut planted = Browser::anonymous(&site);
        planted.set("note", "planted");
        let (id, token) = (planted.id(), planted.token());
        let mut victim = planted.clone();
        victim.sign_in("ada");
        victim.set("note", "private");
        // The cookie, the page's token and the handle, each by itself.
        planted.is_nobody();
        assert_eq!(planted.value("note"), None);
        let mut again = planted.accompanied(None);
        again.set("note", "again");
        let stolen = victim.request("POST", "/visit").with("Origin", site.origin()).with("X-CSRF-Token", token);
        victim.send(&stolen.json(&json!({}))).refused(403, "csrf");
        let mut eve = Browser::signed_in(&site, "eve");
        eve.post("/sessions/revoke", &json!({ "id": id })).refused(404, "not_found");
        victim.is("ada", 0);
        assert_eq!(victim.value("note").as_deref(), Some("private"));
        assert_eq!(victim.handles().len(), 1);
    }
}

#[test]
fn a_token_that_we_did_not_issue_is_never_adopted() {
    let elsewhere = dwell::Options::new().in_memory().unwrap();
    let session = elsewhere.start();
    session.set(dwell::Field::<u32>::new("visits"), &1).unwrap();
    let foreign = session.token().unwrap().expose();
    for profile in Profile::ALL {
        let site = Site::new(profile);
        let name = Browser::anonymous(&site).jar.into_keys().next().unwrap();
        for planted in [&*foreign, "x", "sid_s1A_junk"] {
            let mut browser = Browser::new(&site);
            browser.jar.insert(name.clone(), planted.into());
            browser.is_nobody();
            assert_eq!(browser.visit(), 1);
            assert_ne!(browser.jar[&name], planted);
            browser.jar.insert(name.clone(), planted.into());
            browser.is_nobody();
            browser.sign_in("ada");
            assert_ne!(browser.jar[&name], planted);
            browser.jar.insert(name.clone(), planted.into());
            browser.is_nobody();
        }
    }
}

#[test]
fn the_old_token_is_dead_at_once_for_everybody() {
    let site = Site::new(Profile::Development);
    let anonymous = Browser::anonymous(&site);
    let mut browser = anonymous.clone();
    browser.sign_in("ada");
    let first = browser.clone();
    browser.sign_in("ada");
    let second = browser.clone();
    browser.elevate("ada");
    std::thread::scope(|scope| {
        for old in [&anonymous, &first, &second] {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut old = old.clone();
                    (0..5).for_each(|_| old.is_nobody());
                });
            }
        }
    });
    browser.is("ada", 0);
    assert_eq!(browser.handles().len(), 1);
}

#[test]
fn the_same_user_again_keeps_the_data_under_a_new_id() {
    for profile in Profile::ALL {
        let site = Site::new(profile);
        let mut browser = Browser::signed_in(&site, "ada");
        browser.set("note", "kept");
        assert_eq!((browser.visit(), browser.visit()), (1, 2));
        let (before, mut old) = (browser.passive(), browser.clone());
        let again = browser.sign_in("ada");
        assert_ne!(again["id"].as_str(), before.id.as_deref());
        assert_eq!(again["id"].as_str(), browser.passive().id.as_deref());
        browser.is("ada", 2);
        assert_eq!(browser.value("note").as_deref(), Some("kept"));
        assert_eq!(browser.handles().len(), 1, "the old session has ended");
        old.is_nobody();
    }
}

#[test]
fn another_user_finds_nothing_of_the_first() {
    for profile in Profile::ALL {
        let site = Site::new(profile);
        let mut browser = Browser::signed_in(&site, "ada");
        browser.set("note", "of ada");
        browser.set("cart", "of ada");
        browser.visit();
        let mut old = browser.clone();
        browser.sign_in("eve");
        browser.is("eve", 0);
        assert_eq!((browser.value("note"), browser.value("cart")), (None, None));
        old.is_nobody();
        assert_eq!(Browser::signed_in(&site, "ada").handles().len(), 1, "the session of the first has ended");
    }
}

#[test]
fn re_authentication_rotates_and_keeps_the_session() {
    for profile in Profile::ALL {
        let site = Site::new(profile);
        let mut browser = Browser::signed_in(&site, "ada");
        browser.set("note", "kept");
        browser.visit();
        let (before, mut old) = (browser.passive(), browser.clone());
        browser.post("/elevate", &json!({ "password": "wrong" })).refused(401, "bad_credentials");
        browser.is("ada", 1);
        let id = browser.elevate("ada")["id"].clone();
        let after = browser.passive();
        assert_eq!((id.as_str(), &after.id), (before.id.as_deref(), &before.id), "the handle stays");
        assert_eq!(after.created, before.created);
        assert!(after.life_left_s <= before.life_left_s, "{after:?}");
        assert_ne!(browser.jar, old.jar);
        browser.is("ada", 1);
        assert_eq!(browser.value("note").as_deref(), Some("kept"));
        old.is_nobody();
    }
}

#[test]
fn re_authentication_needs_a_sign_in() {
    let site = Site::new(Profile::Development);
    for mut visitor in [Browser::new(&site), Browser::anonymous(&site)] {
        visitor.post("/elevate", &json!({ "password": "dwell" })).refused(401, "sign_in_required");
    }
}

#[test]
fn a_wrong_password_changes_nothing() {
    for profile in Profile::ALL {
        let site = Site::new(profile);
        let mut visitors = [Browser::new(&site), Browser::anonymous(&site), Browser::signed_in(&site, "ada")];
        for visitor in &mut visitors {
            let (before, jar) = (visitor.passive(), visitor.jar.clone());
            for password in ["wrong", "Dwell", "dwell ", "dwel"] {
                let answer = visitor.post("/login", &json!({ "user": "ada", "password": password }));
                answer.refused(401, "bad_credentials");
                visitor.post_form("/login", &[("user", "ada"), ("password", password)]).refused(401, "bad_credentials");
            }
            let after = visitor.passive();
            assert_eq!((after.id, after.visits, &visitor.jar), (before.id, before.visits, &jar));
        }
    }
}

#[test]
fn names_are_one_to_128_bytes() {
    let site = Site::new(Profile::Development);
    let longest = "n".repeat(128);
    let umlauts = "ü".repeat(64);
    for name in [&*longest, &*umlauts, "x", "名前", "a b", "<b>\"&'", "admin"] {
        let mut browser = Browser::signed_in(&site, name);
        browser.is(name, 0);
    }
    let (too_long, too_wide) = (format!("{longest}n"), format!("{umlauts}n"));
    for name in ["", &too_long, &too_wide] {
        let body = json!({ "user": name, "password": "dwell" });
        Browser::new(&site).post("/login", &body).refused(422, "invalid");
        Browser::new(&site).post_form("/login", &[("user", name), ("password", "dwell")]).refused(422, "invalid");
    }
    let endless = json!({ "user": "ada", "password": "d".repeat(129) });
    Browser::new(&site).post("/login", &endless).refused(422, "invalid");
    for body in
        [json!({}), json!({ "user": "ada" }), json!({ "user": 1, "password": "dwell" }), json!([]), json!("ada")]
    {
        Browser::new(&site).post("/login", &body).refused(422, "invalid");
    }
    assert_eq!(site.killed_and_started().restored.sessions, 7);
}

#[test]
fn at_the_limit_the_oldest_session_of_the_user_ends() {
    let site = Site::with(Profile::Development, &["--max-per-user", "2"]);
    let mut other = Browser::signed_in(&site, "eve");
    let mut browsers: Vec<Browser> = (0..3).map(|_| Browser::signed_in(&site, "ada")).collect();
    browsers[0].is_nobody();
    browsers[1].is("ada", 0);
    browsers[2].is("ada", 0);
    assert_eq!(browsers[2].handles().len(), 2);
    other.is("eve", 0);
}

#[test]
fn a_user_may_have_32_sessions() {
    let site = Site::new(Profile::Development);
    let mut browsers: Vec<Browser> = (0..33).map(|_| Browser::signed_in(&site, "ada")).collect();
    assert_eq!(browsers[32].handles().len(), 32);
    browsers[0].is_nobody();
    browsers[1].is("ada", 0);
}
