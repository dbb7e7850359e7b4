//! Pages of other programs. To those on other ports of the same host the browser sends the cookie, and lets them send
//! requests with it.

use dwell_browser_tests::{Browser, Seen, Site, story};
use serde_json::Value;

/// Whoever sends a form from this page gets a refusal to see.
fn forms_are_refused(browser: &Browser, page: &str, site: &Site) {
    for button in ["#logout", "#visit", "#set", "#login"] {
        browser.open(page);
        browser.press(button);
        browser.wait_for_text("body", |text| text.contains("does not come from a page of this site"));
        assert!(browser.address().starts_with(site.origin()), "{}", browser.address());
    }
}

/// Whatever scripts send from this page is refused, and they may not read what is answered.
fn scripts_are_refused(browser: &Browser, page: &str, site: &Site) {
    browser.open(page);
    for path in ["/logout", "/visit"] {
        let sent = browser.run(&format!(
            "const answer = await fetch('{}', {{ method: 'POST', mode: 'no-cors', credentials: 'include', body: new \
             URLSearchParams() }}); return answer.type;",
            site.url(path)
        ));
        // Opaque: the request went out, with the cookie; or the browser kept the answer away altogether.
        assert!(sent == "opaque" || sent == "TypeError: Failed to fetch", "{sent}");
    }
    for path in ["/whoami", "/", "/export"] {
        let read = format!("const answer = await fetch('{}', {{ credentials: 'include' }});", site.url(path));
        let read = browser.run(&format!("{read} return await answer.text();"));
        assert_eq!(read, "TypeError: Failed to fetch", "{path}");
    }
}

/// Comes home and finds all as it was.
fn nothing_happened(browser: &Browser, site: &Site, before: &Seen) {
    browser.open(&site.url("/"));
    browser.expect("#principal", "ada");
    let after = browser.seen();
    assert!(after.life_left_s <= before.life_left_s);
    assert_eq!(after, Seen { life_left_s: after.life_left_s, ..before.clone() });
    browser.count_to(before.visits.parse::<u32>().unwrap() + 1);
}

/// Neither from another port of the site's host, which browsers take for the same site, nor from another host.
fn requests_change_nothing(profile: &str) {
    story(&format!("strangers-{profile}"), |stage| {
        let Some(site) = stage.site(profile, &[]) else { return };
        let stranger = stage.stranger(&site);
        let browser = stage.browser();
        browser.open(&site.url("/"));
        browser.sign_in("ada");
        browser.count_to(1);
        browser.add_to_cart("#add-mug", 1);
        for page in [stranger.near(), stranger.far()] {
            browser.open(&site.url("/"));
            browser.expect("#principal", "ada");
            let before = browser.seen();
            forms_are_refused(&browser, &page, &site);
            scripts_are_refused(&browser, &page, &site);
            nothing_happened(&browser, &site, &before);
        }
        // The cookie came along from the other port, so it is not for want of it that nothing happened.
        assert!(stranger.stolen_cookie().contains(browser.cookie().unwrap().value()));
    });
}

#[test]
fn localhost_takes_no_requests_from_other_ports_and_hosts() {
    requests_change_nothing("localhost");
}

#[test]
fn development_takes_no_requests_from_other_ports_and_hosts() {
    requests_change_nothing("development");
}

#[test]
fn lan_takes_no_requests_from_other_ports_and_hosts() {
    requests_change_nothing("lan");
}

#[test]
fn https_takes_no_requests_from_other_ports_and_hosts() {
    requests_change_nothing("https");
}

/// The program on the other port takes the cookie and speaks for itself. The companion is what it lacks.
#[test]
fn a_cookie_alone_opens_nothing_in_localhost() {
    story("stolen", |stage| {
        let Some(site) = stage.site("localhost", &[]) else { return };
        let stranger = stage.stranger(&site);
        let browser = stage.browser();
        browser.open(&site.url("/"));
        browser.sign_in("ada");
        browser.count_to(1);
        let before = browser.seen();

        browser.open(&stranger.near());
        let cookie = stranger.stolen_cookie();
        assert!(cookie.starts_with("id-"), "{cookie}");
        let get = |path| site.request("GET", path, &[("Cookie", &cookie)], "");
        let me: Value = serde_json::from_str(&get("/whoami").body).unwrap();
        assert_eq!(me["class"], "none");
        let page = get("/");
        assert!(page.status == 200 && !page.body.contains("ada"), "{page:?}");
        assert!(!page.head.to_ascii_lowercase().contains("set-cookie"), "{page:?}");
        for path in ["/export", "/sessions"] {
            let answer = get(path);
            assert!([401, 403].contains(&answer.status) && !answer.body.contains("ada"), "{answer:?}");
        }
        // With everything that it could make up or fetch for itself.
        let token = me["csrf"].as_str().unwrap();
        for path in ["/visit", "/logout", "/elevate", "/sessions/revoke"] {
            let headers = [
                ("Cookie", cookie.as_str()),
                ("Origin", site.origin()),
                ("Sec-Fetch-Site", "same-origin"),
                ("X-CSRF-Token", token),
                ("X-Companion", "sid_k1_made-up"),
                ("Content-Type", "application/json"),
            ];
            let answer = site.request("POST", path, &headers, r#"{"password": "dwell", "all": true}"#);
            assert_eq!(answer.status, 403, "{path}: {answer:?}");
        }
        nothing_happened(&browser, &site, &before);
    });
}

/// Links from there lead to the page as its owner knows it; a companion that somebody made up does not replace theirs.
#[test]
fn links_from_strangers_do_no_harm() {
    story("links", |stage| {
        let Some(site) = stage.site("localhost", &[]) else { return };
        let stranger = stage.stranger(&site);
        let browser = stage.browser();
        browser.open(&site.url("/"));
        browser.sign_in("ada");
        for link in ["#link", "#made-up"] {
            browser.open(&stranger.near());
            browser.press(link);
            browser.expect("#principal", "ada");
            assert_eq!(browser.address(), site.url("/"), "nothing of it stays in the address");
        }
        browser.count_to(1);
    });
}
