//! A session goes along to another browser, by a link that works once.

use dwell_browser_tests::{Browser, Server, story};

/// The link, as the page of somebody signed in asks for it.
fn link(browser: &Browser) -> String {
    let url = browser.run(
        "return (async () => {
            const companion = localStorage.getItem('dwell-companion');
            const mine = companion ? { 'X-Companion': companion } : {};
            const { csrf } = await (await fetch('/whoami', { headers: mine })).json();
            const headers = { ...mine, 'X-CSRF-Token': csrf, 'Content-Type': 'application/json' };
            return (await (await fetch('/handoff', { method: 'POST', headers, body: '{}' })).json()).url;
        })()",
    );
    url.as_str().expect("a link").to_owned()
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
