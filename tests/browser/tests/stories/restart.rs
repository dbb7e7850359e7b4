//! The main story: sign in, kill the process, start it again, still signed in.

use dwell_browser_tests::{Browser, Seen, Server, request, story};
use serde_json::Value;

/// Signs in as a guest who has already used the page, and leaves three visits and two things in the cart.
fn settle_in(browser: &Browser, server: &Server) {
    browser.open(&server.url("/"));
    browser.expect_class("none");
    browser.count_to(1);
    browser.count_to(2);
    browser.add_to_cart("#add-coffee", 1);
    browser.expect_class("anonymous");
    browser.sign_in("ada");
    browser.expect("#visits", "0");
    assert_eq!(browser.texts("#cart li"), ["Coffee beans"], "the cart is kept at the sign-in");
    (1..=3).for_each(|visits| browser.count_to(visits));
    browser.add_to_cart("#add-mug", 2);
}

/// Kills the server and starts it again under the eyes of somebody signed in.
fn survive(browser: &Browser, server: &mut Server) {
    let before = browser.seen();
    assert_eq!((before.visits.as_str(), before.cart.len()), ("3", 2));
    assert_eq!(before.devices, before.this_device);
    server.kill();
    server.start_again();
    browser.reload();
    browser.expect("#principal", "ada");
    let after = browser.seen();
    assert!(0 < after.life_left_s && after.life_left_s <= before.life_left_s, "{before:?}, {after:?}");
    assert_eq!(after, Seen { life_left_s: after.life_left_s, ..before });
}

/// Signs the same person in elsewhere, and out again from here.
fn end_the_other(here: &Browser, there: &Browser, server: &Server) {
    there.open(&server.url("/"));
    there.sign_in("ada");
    assert_eq!(there.seen().cart, [""; 0], "another session has a cart of its own");
    let elsewhere = there.seen().this_device;
    here.reload();
    here.expect_count("#devices tbody tr", 2);
    let seen = here.seen();
    assert_ne!(seen.this_device, elsewhere);
    assert!(seen.devices.contains(&elsewhere[0]), "{seen:?}");
    here.press(&format!("[id='revoke-{}']", elsewhere[0]));
    here.expect_count("#devices tbody tr", 1);
    assert_eq!(here.seen().devices, seen.this_device);
    there.reload();
    there.expect_nothing_about("ada");
    here.reload();
    here.expect("#principal", "ada");
}

#[test]
fn localhost_survives_kill_9() {
    story("restart", |stage| {
        let mut server = stage.serve("localhost", &[]);
        let desk = stage.browser();
        settle_in(&desk, &server);
        survive(&desk, &mut server);
        let other = stage.browser();
        end_the_other(&desk, &other, &server);
        // What the other browser still has opens nothing, whoever sends it.
        let cookie = other.cookie().expect("a dead cookie is left alone");
        let line = format!("{}={}", cookie.name(), cookie.value());
        let host = server.address().to_string();
        let answer = request(server.address(), "GET", "/whoami", &[("Host", &host), ("Cookie", &line)], "");
        let me: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!((answer.status, &me["class"]), (200, &Value::from("none")), "{answer:?}");
        assert_eq!(desk.complaints(), [""; 0]);
        assert_eq!(other.complaints(), [""; 0]);
    });
}

#[test]
fn an_open_page_waits_for_the_server() {
    story("outage", |stage| {
        let mut server = stage.serve("localhost", &[]);
        let browser = stage.browser();
        settle_in(&browser, &server);
        server.kill();
        browser.press("#add-visit");
        browser.wait_for_text("#notice", |text| text.contains("does not answer"));
        browser.shots("server-killed");
        server.start_again();
        browser.wait_for_text("#notice", |text| text.contains("still signed in"));
        browser.expect("#principal", "ada");
        browser.count_to(4);
        assert_eq!(browser.complaints(), [""; 0]);
    });
}

/// Without scripts a cookie is all that a browser has, which is enough in these profiles.
fn without_scripts(profile: &str) {
    story(&format!("restart-{profile}"), |stage| {
        let mut server = stage.serve(profile, &[]);
        let desk = stage.browser_without_scripts();
        settle_in(&desk, &server);
        survive(&desk, &mut server);
        end_the_other(&desk, &stage.browser_without_scripts(), &server);
    });
}

#[test]
fn development_survives_kill_9_without_scripts() {
    without_scripts("development");
}

#[test]
fn lan_survives_kill_9_without_scripts() {
    without_scripts("lan");
}
