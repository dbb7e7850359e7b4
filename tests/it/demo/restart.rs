//! The main job: sign in, kill the process, still signed in. And what a start refuses.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::browser::Browser;
use super::site::{Home, Profile, Site, damage};

/// The devices without what a request changes.
fn lasting(browser: &mut Browser) -> Vec<Value> {
    let mut devices = browser.devices();
    for device in &mut devices {
        device["last_seen"] = Value::Null;
    }
    devices.sort_by_key(|device| device["id"].to_string());
    devices
}

#[test]
fn who_was_signed_in_is_signed_in_after_a_crash() {
    for profile in Profile::ALL {
        let mut site = Site::new(profile);
        let mut phone = Browser::new(&site).agent("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X)");
        phone.sign_in("ada");
        let mut browser = Browser::signed_in(&site, "ada");
        browser.set("note", "kept");
        assert_eq!((browser.visit(), browser.visit()), (1, 2));
        for _ in 0..3 {
            let (before, devices) = (browser.whoami(), lasting(&mut browser));
            site = site.killed_and_started();
            assert_eq!((site.restored.sessions, site.restored.expired), (2, 0));
            (browser, phone) = (browser.moved_to(&site), phone.moved_to(&site));
            let after = browser.whoami();
            assert_eq!((&after.id, &after.created, &after.class), (&before.id, &before.created, &before.class));
            assert!(after.life_left_s <= before.life_left_s, "{before:?} {after:?}");
            assert!(after.life_left_s.unwrap() + 300 >= before.life_left_s.unwrap(), "{before:?} {after:?}");
            browser.is("ada", before.visits);
            assert_eq!(browser.value("note").as_deref(), Some("kept"));
            assert_eq!(lasting(&mut browser), devices);
            browser.visit();
            phone.is("ada", 0);
        }
        browser.is("ada", 5);
    }
}

#[test]
fn who_was_signed_out_is_signed_out_after_a_crash() {
    let site = Site::new(Profile::Development);
    let mut browsers: Vec<Browser> = (0..6).map(|_| Browser::signed_in(&site, "ada")).collect();
    let olds = browsers.clone();
    let id = browsers[1].id();
    browsers[0].post("/sessions/revoke", &json!({ "id": id })).expect(200);
    browsers[2].post("/logout", &json!({})).expect(204);
    browsers[3].elevate("ada");
    browsers[4].sign_in("ada");
    browsers[5].sign_in("eve");
    let site = site.killed_and_started();
    assert_eq!(site.restored.sessions, 4);
    for old in &olds[1..] {
        old.moved_to(&site).is_nobody();
    }
    browsers[3].moved_to(&site).is("ada", 0);
    browsers[4].moved_to(&site).is("ada", 0);
    browsers[5].moved_to(&site).is("eve", 0);
    browsers[0].moved_to(&site).post("/sessions/revoke", &json!({ "others": true })).expect(200);
    let site = site.killed_and_started();
    assert_eq!(site.restored.sessions, 2);
}

#[test]
fn a_value_that_a_stranger_set_is_durable_when_it_is_answered() {
    let mut site = Site::new(Profile::Development);
    for turn in 0..5 {
        let mut browser = Browser::new(&site);
        browser.set("cart", "tea");
        browser.set("note", "kept");
        site = site.killed_and_started();
        let mut browser = browser.moved_to(&site);
        assert_eq!((browser.value("cart").as_deref(), browser.value("note").as_deref()), (Some("tea"), Some("kept")));
        assert_eq!(site.restored.sessions, turn + 1);
    }
}

#[cfg(unix)]
#[test]
fn a_clean_stop_keeps_strangers_too() {
    use rustix::process::Signal;
    for signal in [Signal::TERM, Signal::INT] {
        let mut site = Site::new(Profile::Development);
        let mut browser = Browser::anonymous(&site);
        browser.set("cart", "tea");
        let status = site.stop(signal);
        assert_eq!(status.code(), Some(0), "{signal:?}: {status}");
        let site = site.started_again();
        let mut browser = browser.moved_to(&site);
        assert_eq!((browser.passive().visits, browser.value("cart").as_deref()), (1, Some("tea")));
    }
}

#[test]
fn an_empty_store_starts_with_nobody() {
    let site = Site::new(Profile::Development);
    assert_eq!((site.restored.sessions, site.restored.expired), (0, 0));
    let site = site.killed_and_started();
    assert_eq!((site.restored.sessions, site.restored.expired), (0, 0));
}

#[test]
fn another_server_on_the_same_data_is_refused() {
    let site = Site::new(Profile::Development);
    let mut browser = Browser::signed_in(&site, "ada");
    for profile in [Profile::Development, Profile::Https] {
        let failed = Site::try_on(Arc::clone(&site.home), profile, &[]).unwrap_err();
        assert!(!failed.status.success(), "{failed:?}");
        assert!(failed.errors.contains(&*site.home.data().to_string_lossy()), "{failed:?}");
    }
    assert_eq!(browser.visit(), 1, "the first is not disturbed");
}

/// The file in which the sessions are.
const STORE: &str = "store.redb";

/// A directory in which somebody was signed in, and nothing runs.
fn left_behind() -> Arc<Home> {
    let mut site = Site::new(Profile::Development);
    let mut browser = Browser::signed_in(&site, "ada");
    browser.set("note", &"x".repeat(5000));
    site.kill();
    Arc::clone(&site.home)
}

#[test]
fn a_damaged_store_is_named_and_left_as_it_is() {
    let halve = |file: &Path| {
        let bytes = std::fs::read(file).unwrap();
        std::fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
    };
    let blank_head = |file: &Path| {
        let mut bytes = std::fs::read(file).unwrap();
        bytes[..4096].fill(0);
        std::fs::write(file, bytes).unwrap();
    };
    let empty = |file: &Path| std::fs::write(file, "").unwrap();
    for harm in [damage, halve, blank_head, empty] {
        let home = left_behind();
        harm(&home.data().join(STORE));
        let before = home.files();
        let failed = Site::try_on(Arc::clone(&home), Profile::Development, &[]).unwrap_err();
        assert_eq!(failed.status.code(), Some(1), "{failed:?}");
        for name in [&*home.data().to_string_lossy(), STORE] {
            assert!(failed.errors.contains(name), "{name} is not named: {failed:?}");
        }
        assert!(!failed.errors.contains("panicked"), "{failed:?}");
        assert_eq!(home.files(), before, "evidence is not touched");
    }
}

#[test]
fn a_lost_key_is_an_error_and_not_a_new_key() {
    let home = left_behind();
    let key = home.data().join("server.key");
    let bytes = std::fs::read(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    let failed = Site::try_on(Arc::clone(&home), Profile::Development, &[]).unwrap_err();
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    assert!(failed.errors.contains("server.key"), "{failed:?}");
    assert!(!key.exists());
    std::fs::write(&key, bytes).unwrap();
    #[cfg(unix)]
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(Site::on(home, Profile::Development, &[]).restored.sessions, 1);
}

#[test]
fn options_that_make_no_sense_are_refused() {
    for arguments in [
        &["--idle", "yesterday"][..],
        &["--idle", "-1s"],
        &["--idle", "0s"],
        &["--lifetime", "0s"],
        &["--max-per-user", "0"],
        &["--max-per-user", "many"],
        &["--allow-host", "user@evil"],
        &["--allow-host", ""],
        &["--trusted-proxy", "somewhere"],
        &["--trusted-proxy", "10.0.0.0/99"],
        &["--unknown"],
        &["surplus"],
    ] {
        let failed = Site::try_on(Home::new(), Profile::Development, arguments).expect_err(&format!("{arguments:?}"));
        assert!(matches!(failed.status.code(), Some(1 | 2)), "{arguments:?}: {failed:?}");
        assert!(!failed.errors.trim().is_empty() && !failed.errors.contains("panicked"), "{arguments:?}: {failed:?}");
    }
}
