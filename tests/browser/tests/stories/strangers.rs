//! Pages of other programs on the same host: the browser sends them the cookie, and lets them send requests with it.

use dwell_browser_tests::{Browser, Seen, Server, Stranger, request, story};
use serde_json::Value;

/// Whoever sends a form from there gets a refusal to see.
fn forms_are_refused(browser: &Browser, stranger: &Stranger, server: &Server) {
    for button in ["#logout", "#visit", "#set", "#login"] {
        browser.open(&stranger.url());
        browser.press(button);
        browser.wait_for_text("body", |text| text.contains("does not come from a page of this site"));
        assert!(browser.address().starts_with(&server.origin()), "{}", browser.address());
    }
}

/// Whatever scripts send from there is refused, and they may not read what is answered.
fn scripts_are_refused(browser: &Browser, stranger: &Stranger, server: &Server) {
    browser.open(&stranger.url());
    for path in ["/logout", "/visit"] {
        let sent = browser.run(&format!(
            "const answer = await fetch('{}', {{ method: 'POST', mode: 'no-cors', credentials: 'include', body: new \
             URLSearchParams() }}); return answer.type;",
            server.url(path)
        ));
        // Opaque: the request went out, with the cookie; or the browser kept the answer away altogether.
        assert!(sent == "opaque" || sent == "TypeError: Failed to fetch", "{sent}");
    }
    for path in ["/whoami", "/", "/export"] {
        let read = format!("const answer = await fetch('{}', {{ credentials: 'include' }});", server.url(path));
        let read = browser.run(&format!("{read} return await answer.text();"));
        assert_eq!(read, "TypeError: Failed to fetch", "{path}");
    }
}

/// Comes home and finds all as it was.
fn nothing_happened(browser: &Browser, server: &Server, before: &Seen) {
    browser.open(&server.url("/"));
    browser.expect("#principal", "ada");
    let after = browser.seen();
    assert!(after.life_left_s <= before.life_left_s);
    assert_eq!(after, Seen { life_left_s: after.life_left_s, ..before.clone() });
    browser.count_to(before.visits.parse::<u32>().unwrap() + 1);
}

fn requests_change_nothing(profile: &str) {
    story(&format!("strangers-{profile}"), |stage| {
        let server = stage.serve(profile, &[]);
        let stranger = stage.stranger(&server);
        let browser = stage.browser();
        browser.open(&server.url("/"));
        browser.sign_in("ada");
        browser.count_to(1);
        browser.add_to_cart("#add-mug", 1);
        let before = browser.seen();
        forms_are_refused(&browser, &stranger, &server);
        scripts_are_refused(&browser, &stranger, &server);
        nothing_happened(&browser, &server, &before);
    });
}

#[test]
fn localhost_takes_no_requests_from_other_ports() {
    requests_change_nothing("localhost");
}

#[test]
fn development_takes_no_requests_from_other_ports() {
    requests_change_nothing("development");
}

#[test]
fn lan_takes_no_requests_from_other_ports() {
    requests_change_nothing("lan");
}

/// The program on the other port takes the cookie and speaks for itself. The companion is what it lacks.
#[test]
fn a_cookie_alone_opens_nothing_in_localhost() {
    story("stolen", |stage| {
        let server = stage.serve("localhost", &[]);
        let stranger = stage.stranger(&server);
        let browser = stage.browser();
        browser.open(&server.url("/"));
        browser.sign_in("ada");
        browser.count_to(1);
        let before = browser.seen();

        browser.open(&stranger.url());
        let cookie = stranger.stolen_cookie();
        assert!(cookie.starts_with("id-"), "{cookie}");
        let (host, origin) = (server.address().to_string(), server.origin());
        let get = |path| request(server.address(), "GET", path, &[("Host", &host), ("Cookie", &cookie)], "");
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
                ("Host", host.as_str()),
                ("Cookie", &cookie),
                ("Origin", &origin),
                ("Sec-Fetch-Site", "same-origin"),
                ("X-CSRF-Token", token),
                ("X-Companion", "sid_k1_made-up"),
                ("Content-Type", "application/json"),
            ];
            let answer = request(server.address(), "POST", path, &headers, r#"{"password": "dwell", "all": true}"#);
            assert_eq!(answer.status, 403, "{path}: {answer:?}");
        }
        nothing_happened(&browser, &server, &before);
    });
}

/// Links from there lead to the page as its owner knows it; a companion that somebody made up does not replace theirs.
#[test]
fn links_from_strangers_do_no_harm() {
    story("links", |stage| {
        let server = stage.serve("localhost", &[]);
        let stranger = stage.stranger(&server);
        let browser = stage.browser();
        browser.open(&server.url("/"));
        browser.sign_in("ada");
        for link in ["#link", "#made-up"] {
            browser.open(&stranger.url());
            browser.press(link);
            browser.expect("#principal", "ada");
            assert_eq!(browser.address(), server.url("/"), "nothing of it stays in the address");
        }
        browser.count_to(1);
    });
}
