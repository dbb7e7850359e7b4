//! What people see who allow no scripts.

use dwell_browser_tests::story;

#[test]
fn localhost_says_that_it_needs_its_script() {
    story("shell", |stage| {
        let server = stage.serve("localhost", &[]);
        let browser = stage.browser_without_scripts();
        browser.open(&server.url("/"));
        browser.wait_for_text(".shell", |text| text.contains("needs JavaScript"));
        browser.shots("no-script");
        // The sign-in works, but half of the key ends in the address bar, where only the script would pick it up.
        browser.try_to_sign_in("ada", "dwell");
        browser.expect_nothing_about("ada");
    });
}

/// Every button of the page, pressed by somebody who allows no scripts.
fn every_form(profile: &str) {
    story(&format!("forms-{profile}"), |stage| {
        let server = stage.serve(profile, &[]);
        let browser = stage.browser_without_scripts();
        browser.open(&server.url("/"));
        browser.sign_in("ada");
        // The script would have made local time of it.
        assert!(browser.texts("#since")[0].ends_with(" UTC"));
        browser.count_to(1);
        browser.add_to_cart("#add-coffee", 1);
        browser.press("#add-coffee");
        browser.expect("#cart li small", "× 2");
        browser.press("#empty-cart");
        browser.expect_count("#cart", 0);

        let before = browser.cookie().unwrap();
        browser.fill("#elevate #password", "dwell");
        browser.press("#prove");
        // The session has a new key.
        let _ = browser.expect_other_cookie(&before);
        browser.expect("#principal", "ada");
        browser.count_to(2);

        let other = stage.browser_without_scripts();
        other.open(&server.url("/"));
        other.sign_in("ada");
        // Both are seen first, so that seeing one tells that the other was ended.
        browser.reload();
        browser.expect_count("#devices tbody tr", 2);
        browser.press("#sign-out-others");
        browser.expect_count("#devices tbody tr", 1);
        other.reload();
        other.expect_nothing_about("ada");

        browser.sign_out();
        browser.expect_nothing_about("ada");
        assert!(browser.cookie().is_none());
    });
}

#[test]
fn development_works_without_scripts() {
    every_form("development");
}

#[test]
fn lan_works_without_scripts() {
    every_form("lan");
}

/// A page that was loaded before another tab began a session says so, and works once it was loaded again.
#[test]
fn a_stale_form_is_refused_and_works_after_going_back() {
    story("stale-form", |stage| {
        let server = stage.serve("lan", &[]);
        let browser = stage.browser_without_scripts();
        browser.open(&server.url("/"));
        let stale = browser.open_in_new_tab(&server.url("/"));
        browser.count_to(1);
        browser.go_to_tab(stale);
        browser.press("#add-visit");
        browser.wait_for_text("body", |text| text.contains("out of date"));
        browser.back();
        browser.expect_class("anonymous");
        browser.count_to(2);
    });
}

/// The button was pressed before the script had loaded: the answer brings the companion in the address.
#[test]
fn a_form_sent_before_the_script_was_there_signs_in() {
    story("early", |stage| {
        let server = stage.serve("localhost", &[]);
        let browser = stage.browser();
        browser.open(&server.url("/"));
        browser.fill("#user", "ada");
        browser.fill("#login #password", "dwell");
        // Sends the form without the event that the script listens to.
        browser.run("document.getElementById('login').submit()");
        browser.expect("#principal", "ada");
        assert_eq!(browser.address(), server.url("/"), "the companion does not stay in the address");
        browser.count_to(1);
        browser.reload();
        browser.expect("#principal", "ada");
    });
}
