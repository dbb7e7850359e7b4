//! A session goes along to another browser, by a link that works once.

use dwell_browser_tests::{Browser, Server, story};

/// The link, as the page shows it to somebody signed in.
fn link(browser: &Browser) -> String {
    browser.press("#make-link");
    let url = browser.wait_for_text("dialog pre", |text| text.contains("/handoff?code="));
    browser.shots("the-link");
    url
}

/// Follows the link. A page elsewhere could bring a companion too, so under `localhost` one is asked.
fn arrive(browser: &Browser, server: &Server, url: &str, is_asked: bool) {
    browser.open(url);
    if is_asked {
        browser.wait_for_text("#notice", |text| text.contains("signs you in as ada"));
        browser.shots("asked");
        browser.press("#accept");
    }
    browser.expect("#principal", "ada");
    assert_eq!(browser.address(), server.url("/"), "nothing of the link is left in the address");
    browser.reload();
    browser.expect("#principal", "ada");
}

#[test]
fn a_link_signs_in_another_browser_once() {
    for profile in ["localhost", "development"] {
        story(&format!("hand-off-{profile}"), |stage| {
            let server = stage.serve(profile, &[]);
            let [desk, phone, late] = [(); 3].map(|()| stage.browser());
            desk.open(&server.url("/"));
            desk.sign_in("ada");
            let url = link(&desk);
            arrive(&phone, &server, &url, profile == "localhost");
            phone.expect_count("#devices tbody tr", 2);
            phone.count_to(1);
            phone.sign_out();
            desk.reload();
            desk.expect("#principal", "ada");
            late.open(&url);
            late.wait_for_text("body", |text| text.contains("handoff"));
            late.open(&server.url("/"));
            late.expect_nothing_about("ada");
        });
    }
}

#[test]
fn somebody_else_is_asked_first() {
    for profile in ["localhost", "development"] {
        story(&format!("hand-off-other-{profile}"), |stage| {
            let server = stage.serve(profile, &[]);
            let [desk, phone] = [(); 2].map(|()| stage.browser());
            desk.open(&server.url("/"));
            desk.sign_in("ada");
            phone.open(&server.url("/"));
            phone.sign_in("eve");
            phone.open(&link(&desk));
            phone.expect("h2", "Sign in as ada?");
            phone.shots("somebody-else");
            phone.press("main button");
            phone.expect("#principal", "ada");
            assert_eq!(phone.address(), server.url("/"));
        });
    }
}

#[test]
fn a_page_without_scripts_hands_over_too() {
    for profile in ["development", "lan"] {
        story(&format!("hand-off-plain-{profile}"), |stage| {
            let server = stage.serve(profile, &[]);
            let [desk, phone] = [(); 2].map(|()| stage.browser_without_scripts());
            desk.open(&server.url("/"));
            desk.sign_in("ada");
            desk.press("#make-link");
            let url = desk.wait_for_text("#link", |text| text.contains("/handoff?code="));
            desk.shots("the-link");
            arrive(&phone, &server, &url, false);
            desk.press("main a");
            desk.expect_count("#devices tbody tr", 2);
        });
    }
}
