//! The end of a session is told at once, in words, to a page that nobody touches.

use dwell_browser_tests::{Browser, Server, request, story, wait_until};

/// What the page says by itself; nothing is pressed and nothing loaded again.
fn is_told(browser: &Browser, why: &str) {
    browser.wait_for_text("#notice", |text| text.contains("You were signed out") && text.contains(why));
    browser.expect_class("none");
}

/// Waits until as many pages listen.
fn expect_listeners(server: &Server, host: &str, count: usize) {
    let wanted = format!("\"streams\":{count}");
    let health = || request(server.address(), "GET", "/healthz", &[("Host", host)], "").body;
    wait_until(&wanted, || health().contains(&wanted));
}

#[test]
fn a_sign_out_in_another_tab_is_told() {
    for profile in ["localhost", "development", "lan"] {
        story(&format!("live-{profile}"), |stage| {
            let server = stage.serve(profile, &[]);
            let browser = stage.browser();
            browser.open(&server.url("/"));
            browser.sign_in("ada");
            let first = browser.open_in_new_tab(&server.url("/"));
            browser.expect("#principal", "ada");
            expect_listeners(&server, &server.address().to_string(), 2);
            browser.sign_out();
            browser.expect("#notice", "You are signed out.");
            browser.go_to_tab(first);
            is_told(&browser, "another tab");
            browser.shots("told");
            browser.sign_in("ada");
            assert_eq!(browser.complaints(), [""; 0]);
        });
    }
}

/// The proxy passes the stream on as it comes.
#[test]
fn it_is_told_through_nginx() {
    story("live-https", |stage| {
        let Some(mut proxy) = stage.proxy() else { return };
        let server = stage.serve("https", &["--allow-host", &proxy.host(), "--trusted-proxy", "127.0.0.1"]);
        proxy.start(server.address());
        let [here, there] = [(); 2].map(|()| stage.browser());
        for browser in [&there, &here] {
            browser.open(&proxy.url("/"));
            browser.sign_in("ada");
        }
        expect_listeners(&server, &proxy.host(), 2);
        here.press("#sign-out-others");
        is_told(&there, "another device");
    });
}

#[test]
fn a_sign_out_from_another_device_is_told() {
    story("live-revoked", |stage| {
        let server = stage.serve("localhost", &[]);
        let [here, there] = [(); 2].map(|()| stage.browser());
        for browser in [&there, &here] {
            browser.open(&server.url("/"));
            browser.sign_in("ada");
        }
        here.expect_count("#devices tbody tr", 2);
        expect_listeners(&server, &server.address().to_string(), 2);
        here.press("#sign-out-others");
        is_told(&there, "another device");
        there.shots("told");
        here.expect("#principal", "ada");
        // Signed in again, it hears again.
        there.sign_in("ada");
        here.reload();
        here.expect_count("#devices tbody tr", 2);
        expect_listeners(&server, &server.address().to_string(), 2);
        here.press("#sign-out-others");
        is_told(&there, "another device");
    });
}

#[test]
fn an_open_page_is_told_that_nothing_was_done() {
    story("live-idle", |stage| {
        let server = stage.serve("localhost", &["--idle", "4s"]);
        let browser = stage.browser();
        browser.open(&server.url("/"));
        browser.sign_in("ada");
        is_told(&browser, "nothing was done");
        browser.shots("told");
    });
}

/// More tabs than a session has streams: those without one ask now and then, and every page is still served.
#[test]
fn many_tabs_are_all_served() {
    story("live-tabs", |stage| {
        let server = stage.serve("development", &[]);
        let browser = stage.browser();
        browser.open(&server.url("/"));
        browser.sign_in("ada");
        let mut tabs = Vec::new();
        for _ in 0..8 {
            tabs.push(browser.open_in_new_tab(&server.url("/")));
            browser.expect("#principal", "ada");
        }
        browser.count_to(1);
        expect_listeners(&server, &server.address().to_string(), 4);
        browser.sign_out();
        for tab in tabs {
            browser.go_to_tab(tab);
            browser.expect_class("none");
        }
    });
}

/// The stream breaks with the server and is opened again with it.
#[test]
fn a_kill_is_no_sign_out() {
    story("live-kill", |stage| {
        let mut server = stage.serve("localhost", &[]);
        let [browser, other] = [(); 2].map(|()| stage.browser());
        browser.open(&server.url("/"));
        browser.sign_in("ada");
        server.kill();
        browser.wait_for_text("#notice", |text| text.contains("does not answer"));
        server.start_again();
        browser.wait_for_text("#notice", |text| text.contains("still signed in"));
        browser.expect("#principal", "ada");
        other.open(&server.url("/"));
        other.sign_in("ada");
        expect_listeners(&server, &server.address().to_string(), 2);
        other.press("#sign-out-others");
        is_told(&browser, "another device");
    });
}
