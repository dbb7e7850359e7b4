//! Cookies that are replaced as time goes by, under the hands of several tabs and their open streams.

use dwell_browser_tests::{Browser, Site, story, wait_until};

/// Sends many requests of the page at once, and says what they were told about their visitor.
fn ask_at_once(browser: &Browser) -> String {
    let told = browser.run(
        "const headers = { 'X-Companion': localStorage.getItem('dwell-companion') ?? '' };
         const ask = async (path) => (await (await fetch(path, { headers })).json()).principal;
         const all = await Promise.all(Array.from({ length: 24 }, (_, i) => ask(`/whoami?${i}`)));
         return [...new Set(all)].join();",
    );
    told.as_str().unwrap().to_owned()
}

/// Uses all tabs in turn until the cookie was replaced so often.
fn use_through_rotations(browser: &Browser, tabs: usize, rotations: usize) {
    let mut seen = vec![browser.cookie().unwrap().value().to_owned()];
    let mut this = 0;
    while seen.len() <= rotations {
        assert_eq!(ask_at_once(browser), "ada", "after {} rotations", seen.len() - 1);
        let value = browser.cookie().expect("nobody is signed out").value().to_owned();
        if seen.last() != Some(&value) {
            assert!(!seen.contains(&value), "a cookie came back");
            seen.push(value);
        }
        browser.go_to_tab_number(this % tabs);
        this += 1;
    }
}

/// Nobody is signed out in any tab, there is still one session, and its end is told to all.
fn nobody_is_signed_out(profile: &str) {
    story(&format!("rotation-{profile}"), |stage| {
        let Some(mut site) = stage.site(profile, &["--rotate-every", "1s", "--rotation-overlap", "5s"]) else { return };
        let browser = stage.browser();
        browser.open(&site.url("/"));
        browser.sign_in("ada");
        let device = browser.seen().devices;
        for _ in 0..3 {
            browser.open_in_new_tab(&site.url("/"));
            browser.expect("#principal", "ada");
        }
        let tabs = 4;
        use_through_rotations(&browser, tabs, 3);
        all_as_before(&browser, tabs, &device, 0);
        site.restart();
        browser.reload();
        browser.expect("#principal", "ada");
        use_through_rotations(&browser, tabs, 2);
        all_as_before(&browser, tabs, &device, 4);

        expect_streams(&site, tabs);
        browser.sign_out();
        for tab in 0..tabs - 1 {
            browser.go_to_tab_number(tab);
            browser.wait_for_text("#notice", |text| text.contains("in another tab"));
        }
        assert!(browser.cookie().is_none());
    });
}

/// Each tab can be worked in as it is, with the token that its page had before all those rotations, and after a reload.
fn all_as_before(browser: &Browser, tabs: usize, device: &[String], visits: u32) {
    for tab in 0..tabs {
        browser.go_to_tab_number(tab);
        browser.expect("#principal", "ada");
        let notice = browser.texts("#notice");
        assert!(!notice[0].contains("signed out"), "{notice:?}");
        browser.count_to(visits + u32::try_from(tab).unwrap() + 1);
        browser.reload();
        browser.expect("#principal", "ada");
        assert_eq!(browser.seen().devices, device);
    }
}

/// Every tab listens again.
fn expect_streams(site: &Site, tabs: usize) {
    let wanted = format!("\"streams\":{tabs}");
    wait_until(&wanted, || site.request("GET", "/healthz", &[], "").body.contains(&wanted));
}

#[test]
fn nobody_is_signed_out_in_localhost() {
    nobody_is_signed_out("localhost");
}

#[test]
fn nobody_is_signed_out_in_development() {
    nobody_is_signed_out("development");
}

#[test]
fn nobody_is_signed_out_in_lan() {
    nobody_is_signed_out("lan");
}

#[test]
fn nobody_is_signed_out_in_https() {
    nobody_is_signed_out("https");
}

/// A cookie that was replaced serves the requests under way. Who copied it ends the session when they use it later, and the
/// page says why.
#[test]
fn a_copied_cookie_ends_the_session_and_the_page_says_so() {
    story("rotation-copied", |stage| {
        let Some(site) = stage.site("lan", &["--rotate-every", "15s", "--rotation-overlap", "5s"]) else { return };
        let browser = stage.browser();
        browser.open(&site.url("/"));
        browser.sign_in("ada");
        expect_streams(&site, 1);
        let copied = browser.cookie().unwrap();
        wait_until("another cookie", || {
            assert_eq!(ask_at_once(&browser), "ada");
            browser.cookie().unwrap().value() != copied.value()
        });
        assert_eq!(ask_at_once(&browser), "ada");
        let line = format!("{}={}", copied.name(), copied.value());
        let opens = || site.request("GET", "/whoami", &[("Cookie", &line)], "").body.contains("ada");
        assert!(opens(), "for requests under way");
        wait_until("the end of the old cookie", || !opens());
        browser.wait_for_text("#notice", |text| text.contains("somebody may have copied it"));
        browser.expect_nothing_about("ada");
        browser.shots("told");
    });
}
