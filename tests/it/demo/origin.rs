//! Origin and Sec-Fetch-Site: which pages may send something.

use serde_json::json;

use super::answer::Answer;
use super::browser::Browser;
use super::http::Request;
use super::site::{PUBLIC_HOST, Profile, Site};

/// A visit with a good token and neither of the two headers.
#[track_caller]
fn visit(browser: &mut Browser) -> Request {
    browser.unsafe_request("/visit").without("Origin").json(&json!({}))
}

#[track_caller]
fn is_refused(answer: Answer) {
    answer.refused(403, "origin");
}

/// Origins that look like `scheme://host` and are not.
fn foreign(origin: &str) -> Vec<String> {
    let (scheme, authority) = origin.split_once("://").unwrap();
    let (host, port) = authority.split_once(':').unwrap_or((authority, "443"));
    let twin = if scheme == "http" { "https" } else { "http" };
    vec![
        "null".into(),
        String::new(),
        "*".into(),
        "http://evil.example".into(),
        format!("{twin}://{authority}"),
        format!("{scheme}://{host}:1"),
        format!("{scheme}://{host}.evil.example:{port}"),
        format!("{scheme}://evil.example/{authority}"),
        format!("{scheme}://evil{authority}"),
        format!("{scheme}://{authority}@evil.example"),
        format!("{scheme}://user@{authority}"),
        format!("{scheme}://evil.example:80@{authority}"),
        format!("{scheme}://{host}.:{port}"),
        format!("{scheme}://{authority}/"),
        format!("{scheme}://{authority}#"),
        format!("{scheme}://{authority}, {scheme}://{authority}"),
        format!("{scheme}://{authority} http://evil.example"),
        format!("{scheme}:{authority}"),
        format!("//{authority}"),
        authority.into(),
        format!("ws://{authority}"),
    ]
}

#[test]
fn the_origin_must_be_ours() {
    for profile in Profile::ALL {
        let site = Site::new(profile);
        for mut browser in [Browser::signed_in(&site, "ada"), Browser::new(&site)] {
            let before = browser.passive().visits;
            for origin in foreign(&site.origin()) {
                for site_header in [None, Some("same-origin"), Some("none")] {
                    let request = visit(&mut browser).with("Origin", &origin);
                    let request = match site_header {
                        Some(value) => request.with("Sec-Fetch-Site", value),
                        None => request,
                    };
                    is_refused(browser.send(&request));
                }
            }
            let ours = site.origin();
            let twice = visit(&mut browser).with("Origin", &ours).with("Origin", &ours);
            is_refused(browser.send(&twice));
            for pair in [[&*ours, "http://evil.example"], ["http://evil.example", &*ours], ["null", &*ours]] {
                let request = visit(&mut browser).with("Origin", pair[0]).with("Origin", pair[1]);
                is_refused(browser.send(&request));
            }
            assert_eq!(browser.passive().visits, before);
            let request = visit(&mut browser).with("Origin", &ours);
            assert_eq!(browser.send(&request).expect(200).json()["visits"], before + 1);
        }
    }
}

#[test]
fn one_name_of_a_machine_is_not_another() {
    let site = Site::new(Profile::Development);
    let mut browser = Browser::new(&site);
    let names = ["127.0.0.1", "localhost", "[::1]"].map(|name| format!("{name}:{}", site.port()));
    for host in &names {
        for origin in &names {
            let request = visit(&mut browser).set("Host", host).with("Origin", format!("http://{origin}"));
            let answer = site.ask(&request);
            if host == origin { drop(answer.expect(200)) } else { is_refused(answer) }
        }
    }
}

#[test]
fn sec_fetch_site_has_the_last_word() {
    for profile in Profile::ALL {
        let site = Site::new(profile);
        for mut browser in [Browser::signed_in(&site, "ada"), Browser::new(&site)] {
            let wrong = [
                "same-site",
                "cross-site",
                "",
                "junk",
                "Same-Origin",
                "SAME-ORIGIN",
                "None",
                "\"same-origin\"",
                "same-origin, same-origin",
                "same-origin;a=b",
                "same-origin none",
            ];
            let before = browser.passive().visits;
            for value in wrong {
                let request = visit(&mut browser).with("Sec-Fetch-Site", value);
                is_refused(browser.send(&request));
                is_refused(browser.send(&request.with("Origin", site.origin())));
            }
            for [first, second] in [["same-origin", "same-origin"], ["none", "cross-site"], ["cross-site", "none"]] {
                let request = visit(&mut browser).with("Sec-Fetch-Site", first).with("Sec-Fetch-Site", second);
                is_refused(browser.send(&request.clone()));
                is_refused(browser.send(&request.with("Origin", site.origin())));
            }
            assert_eq!(browser.passive().visits, before);
            let mut visits = before;
            for value in ["same-origin", "none"] {
                let request = visit(&mut browser).with("Sec-Fetch-Site", value);
                browser.send(&request).expect(200);
                let request = visit(&mut browser).with("Sec-Fetch-Site", value).with("Origin", site.origin());
                visits = browser.send(&request).expect(200).json()["visits"].as_u64().unwrap();
            }
            assert_eq!(visits, before + 4);
        }
    }
}

#[test]
fn without_both_headers_a_cookie_of_ours_is_refused_and_a_script_is_not() {
    for profile in Profile::ALL {
        let site = Site::new(profile);
        let mut ada = Browser::signed_in(&site, "ada");
        let name = ada.jar.keys().next().unwrap().clone();
        let request = visit(&mut ada);
        is_refused(ada.send(&request));
        ada.is("ada", 0);
        let mut script = Browser::new(&site);
        let request = visit(&mut script);
        for junk in ["junk", ""] {
            is_refused(site.ask(&request.clone().with("Cookie", format!("a=b; {name}={junk}"))));
        }
        site.ask(&request.with("Cookie", "a=b; theme=dark")).expect(200);
        let user = json!({ "user": "ada", "password": "dwell" });
        let request = script.unsafe_request("/login").without("Origin").json(&user);
        assert!(script.send(&request).expect(200).cookie().is_some(), "curl can sign in");
    }
}

#[test]
fn what_a_proxy_could_say_is_not_believed() {
    for profile in Profile::ALL {
        let site = Site::new(profile);
        let mut ada = Browser::signed_in(&site, "ada");
        let evil = visit(&mut ada)
            .with("Origin", "https://evil.example")
            .with("X-Forwarded-Host", "evil.example")
            .with("X-Forwarded-Proto", "https")
            .with("Forwarded", "host=evil.example;proto=https");
        is_refused(ada.send(&evil));
        let right = visit(&mut ada)
            .with("Origin", site.origin())
            .with("X-Forwarded-Host", "evil.example")
            .with("X-Forwarded-Proto", "ftp")
            .with("X-Original-URL", "/logout")
            .with("X-HTTP-Method-Override", "GET");
        assert_eq!(ada.send(&right).expect(200).json()["visits"], 1);
    }
}

#[test]
fn a_page_of_another_site_cannot_sign_a_visitor_in() {
    let site = Site::new(Profile::Https);
    let token = Browser::new(&site).token();
    for headers in
        [[("Origin", "https://evil.example"), ("Sec-Fetch-Site", "cross-site")], [("Origin", "null"), ("A", "b")]]
    {
        let fields = [("user", "mallory"), ("password", "dwell"), ("csrf", &*token)];
        let request = site.request("POST", "/login").form(&fields);
        let request = headers.iter().fold(request, |request, (name, value)| request.with(name, value));
        is_refused(site.ask(&request));
    }
    let twin = site.request("POST", "/login").with("Origin", format!("http://{PUBLIC_HOST}"));
    let user = json!({ "user": "mallory", "password": "dwell" });
    is_refused(site.ask(&twin.with("X-CSRF-Token", &token).json(&user)));
    assert_eq!(site.killed_and_started().restored.sessions, 0);
}

#[test]
fn reading_is_open_to_links_from_everywhere() {
    let site = Site::new(Profile::Development);
    let mut ada = Browser::signed_in(&site, "ada");
    for target in ["/", "/whoami"] {
        let request =
            ada.request("GET", target).with("Sec-Fetch-Site", "cross-site").with("Origin", "http://evil.example");
        ada.send(&request).expect(200).sets_no_cookie();
    }
}
