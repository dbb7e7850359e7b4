//! Methods, content types and what is asked first.

use serde_json::json;

use super::browser::Browser;
use super::http::Request;
use super::site::{Profile, Site};

const READ: [&str; 7] = ["/", "/whoami", "/get", "/sessions", "/export", "/live", "/healthz"];
const CHANGE: [&str; 7] = ["/login", "/logout", "/visit", "/set", "/slow", "/elevate", "/sessions/revoke"];

#[test]
fn a_wrong_method_does_nothing() {
    let site = Site::new(Profile::Development);
    let mut browser = Browser::signed_in(&site, "ada");
    let body = json!({ "user": "eve", "password": "dwell", "all": true, "key": "a", "value": "b", "ms": 0 });
    for (targets, right, wrong) in [
        (&READ[..], "GET", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"]),
        (&CHANGE[..], "POST", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"]),
    ] {
        for target in targets {
            for method in wrong {
                // With a token and without: what may not be done at all is refused first.
                let mut full = browser.unsafe_request(target);
                full.method = method.into();
                let bare = browser.request(method, target);
                for request in [full.clone().json(&body), full, bare] {
                    let answer = browser.send(&request);
                    assert_eq!(answer.status, 405, "{method} {target}: {answer:?}");
                    let allowed = answer.all("Allow").join(",");
                    assert!(allowed.split(',').any(|allowed| allowed.trim() == right), "{target}: {allowed}");
                    answer.refused(405, "method");
                }
            }
        }
    }
    for target in CHANGE {
        let head = browser.request("HEAD", target);
        browser.send(&head).expect(405).sets_no_cookie();
    }
    browser.is("ada", 0);
    assert_eq!(browser.value("a"), None);
}

#[test]
fn no_parameter_turns_one_method_into_another() {
    let site = Site::new(Profile::Development);
    let mut browser = Browser::signed_in(&site, "ada");
    let token = browser.token();
    for target in ["/logout?_method=POST", "/visit?_method=POST", "/logout?method=post"] {
        let request =
            browser.request("GET", target).with("X-HTTP-Method-Override", "POST").with("X-CSRF-Token", &token);
        browser.send(&request).refused(405, "method");
    }
    for name in ["X-HTTP-Method-Override", "X-Method-Override", "X-HTTP-Method"] {
        let request = browser.unsafe_request("/visit").without("X-CSRF-Token").with(name, "GET");
        browser.send(&request.form(&[("_method", "GET")])).refused(403, "csrf");
    }
    browser.is("ada", 0);
}

#[test]
fn what_is_not_there_is_not_found_whoever_asks() {
    let site = Site::new(Profile::Development);
    let mut browser = Browser::signed_in(&site, "ada");
    for target in ["/nowhere", "/whoami/", "/Whoami", "/sessions/", "/sessions/revoke/x", "/%77hoami%00", "/login/../x"]
    {
        for method in ["GET", "POST", "DELETE"] {
            let request = browser.request(method, target);
            browser.send(&request).refused(404, "not_found");
            // Also with what a foreign page sends.
            browser.send(&request.with("Origin", "http://evil.example")).refused(404, "not_found");
        }
    }
}

const WRONG_TYPES: [&str; 9] = [
    "text/plain",
    "text/plain; charset=application/json",
    "application/jsonx",
    "application/x-json",
    "text/json",
    "multipart/form-data; boundary=b",
    "application/json, text/plain",
    "text/plain, application/json",
    "x",
];

#[test]
fn a_body_of_another_type_is_not_read() {
    let site = Site::new(Profile::Development);
    let mut browser = Browser::signed_in(&site, "ada");
    let body =
        json!({ "user": "eve", "password": "dwell", "all": true, "key": "a", "value": "b", "ms": 0 }).to_string();
    for target in ["/login", "/set", "/slow", "/elevate", "/sessions/revoke"] {
        let request = browser.unsafe_request(target);
        let mut wrong: Vec<Request> =
            WRONG_TYPES.iter().map(|content_type| request.clone().body(content_type, &body)).collect();
        wrong.push(request.clone().body("", &body));
        wrong.push(request.clone().body("x", &body).without("Content-Type"));
        for request in wrong {
            browser.send(&request).refused(415, "content_type");
            // Who asks is asked first: a foreign page learns nothing by it.
            browser.send(&request.clone().set("Origin", "http://evil.example")).refused(403, "origin");
            browser.send(&request.without("X-CSRF-Token")).refused(403, "csrf");
        }
        let twice = request.body("application/json", &body).with("Content-Type", "text/plain");
        let answer = browser.send(&twice).sets_no_cookie();
        assert!(matches!(answer.status, 400 | 415), "{answer:?}");
    }
    browser.is("ada", 0);
    assert_eq!(browser.value("a"), None);
}

#[test]
fn the_type_of_a_body_may_be_spelled_as_http_allows() {
    let site = Site::new(Profile::Development);
    let mut browser = Browser::signed_in(&site, "ada");
    let body = json!({ "key": "a", "value": "é" }).to_string();
    for content_type in
        ["application/json", "Application/JSON", "application/json; charset=utf-8", "application/json;charset=UTF-8"]
    {
        let request = browser.unsafe_request("/set").body(content_type, &body);
        browser.send(&request).expect(204);
    }
    let form = browser
        .unsafe_request("/login")
        .body("application/x-www-form-urlencoded; charset=UTF-8", "user=ada&password=dwell");
    browser.send(&form).expect(303);
}

#[test]
fn where_there_is_nothing_to_say_no_body_is_needed() {
    let site = Site::new(Profile::Development);
    let mut browser = Browser::signed_in(&site, "ada");
    let visit = browser.unsafe_request("/visit");
    assert_eq!(browser.send(&visit).expect(200).json(), json!({ "visits": 1 }));
    let leave = browser.unsafe_request("/logout");
    browser.send(&leave).expect(204);
    browser.is_nobody();
}

#[test]
fn who_may_ask_comes_before_what_is_asked() {
    let site = Site::new(Profile::Development);
    let mut browser = Browser::signed_in(&site, "ada");
    let large = json!({ "key": "a", "value": "x".repeat(200_000) });
    let request = browser.unsafe_request("/set").json(&large);
    site.ask(&request.clone().set("Origin", "null")).refused(403, "origin");
    site.ask(&request.without("X-CSRF-Token")).refused(403, "csrf");
    let nonsense = browser.unsafe_request("/set").body("application/json", "{").without("X-CSRF-Token");
    browser.send(&nonsense).refused(403, "csrf");
    let mut stranger = Browser::new(&site);
    let revoke = stranger.unsafe_request("/sessions/revoke").json(&json!({ "all": true }));
    stranger.send(&revoke.without("X-CSRF-Token")).refused(403, "csrf");
}
