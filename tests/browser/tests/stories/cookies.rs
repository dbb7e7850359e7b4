//! The cookie in the browser's hands: what it is like, when it comes and when it goes.

use dwell_browser_tests::{Browser, Server, Stage, story};

/// What a cookie of this profile is like while its owner is signed in, and that nothing of it is left afterwards.
fn comes_and_goes(profile: &str, same_site: &str) {
    story(&format!("cookies-{profile}"), |stage| {
        let server = stage.serve(profile, &[]);
        let browser = stage.browser();
        browser.open(&server.url("/"));
        assert!(browser.cookie().is_none(), "looking gives no cookie");
        browser.sign_in("ada");
        let cookie = browser.cookie().unwrap();
        assert!(cookie.name().starts_with("id-"), "{cookie}");
        assert_eq!(cookie.http_only(), Some(true));
        assert_eq!(cookie.same_site().unwrap().to_string(), same_site);
        assert_ne!(cookie.secure(), Some(true));
        assert_eq!((cookie.path(), cookie.domain()), (Some("/"), Some("127.0.0.1")));
        assert!(cookie.expires().is_none(), "it ends with the browser");
        assert_eq!(browser.run("return document.cookie"), "", "scripts do not see it");

        browser.sign_out();
        assert!(browser.cookie().is_none(), "it is removed");
        assert_eq!(browser.run("return localStorage.length"), 0, "nothing is kept besides it");
        browser.reload();
        browser.expect_nothing_about("ada");
        assert_eq!(browser.complaints(), [""; 0]);
    });
}

#[test]
fn localhost_has_a_strict_cookie() {
    comes_and_goes("localhost", "Strict");
}

#[test]
fn development_has_a_lax_cookie() {
    comes_and_goes("development", "Lax");
}

#[test]
fn lan_has_a_strict_cookie() {
    comes_and_goes("lan", "Strict");
}

/// Signs in, leaves for another page, and finds everything there on coming back.
fn come_back_signed_in(stage: &Stage, profile: &str, browser: &Browser) -> Server {
    let server = stage.serve(profile, &[]);
    browser.open(&server.url("/"));
    browser.sign_in("ada");
    browser.count_to(1);
    browser.open(&server.url("/healthz"));
    browser.back();
    browser.expect("#principal", "ada");
    browser.open(&server.url("/healthz"));
    server
}

/// "Back" leads to the page as it is now, not to what was there before the sign-out: neither when this tab signed out,
/// nor when another one did while this one was elsewhere.
fn back_shows_nothing(profile: &str, scripts: bool) {
    story(&format!("back-{profile}"), |stage| {
        let browser = || if scripts { stage.browser() } else { stage.browser_without_scripts() };
        let one = browser();
        let server = come_back_signed_in(stage, profile, &one);
        one.open(&server.url("/"));
        one.expect("#principal", "ada");
        one.sign_out();
        one.open(&server.url("/healthz"));
        // The page that signed out, the one between, and the one before.
        one.back();
        one.expect_nothing_about("ada");
        while !one.address().ends_with("/healthz") {
            one.back();
        }
        one.back();
        one.expect_nothing_about("ada");

        let two = browser();
        let server = come_back_signed_in(stage, profile, &two);
        let first_tab = two.open_in_new_tab(&server.url("/"));
        two.expect("#principal", "ada");
        two.sign_out();
        two.go_to_tab(first_tab);
        two.back();
        two.expect_nothing_about("ada");
    });
}

#[test]
fn back_shows_nothing_in_localhost() {
    back_shows_nothing("localhost", true);
}

#[test]
fn back_shows_nothing_in_development() {
    back_shows_nothing("development", true);
}

#[test]
fn back_shows_nothing_in_lan_without_scripts() {
    back_shows_nothing("lan", false);
}
