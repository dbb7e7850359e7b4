//! HTTP/1.1 itself: connections, lengths and the limits on heads and bodies.

use serde_json::json;

use super::browser::Browser;
use super::http::{Connection, Request};
use super::site::{Profile, Site};

const LONGEST_HEAD: usize = 64 << 10;
const LONGEST_BODY: usize = 256 << 10;

#[test]
fn a_connection_serves_many_requests() {
    let site = Site::new(Profile::Development);
    let mut browser = Browser::signed_in(&site, "ada");
    let mut connection = Connection::open(&site.address);
    for visits in 1..=20 {
        let request = browser.unsafe_request("/visit").json(&json!({}));
        assert_eq!(connection.ask(&request).expect(200).json()["visits"], visits);
        connection.ask(&browser.request("GET", "/nowhere")).expect(404);
        connection.ask(&site.request("HEAD", "/whoami")).expect(200);
        connection.ask(&browser.unsafe_request("/visit").set("X-CSRF-Token", "x")).expect(403);
    }
}

#[test]
fn requests_sent_at_once_are_answered_in_order() {
    let site = Site::new(Profile::Development);
    let mut browser = Browser::signed_in(&site, "ada");
    let visit = browser.unsafe_request("/visit").json(&json!({})).bytes();
    let whoami = browser.request("GET", "/whoami").bytes();
    let mut connection = Connection::open(&site.address);
    connection.send(&[visit.clone(), whoami.clone(), visit, whoami].concat()).unwrap();
    for visits in [1, 1, 2, 2] {
        assert_eq!(connection.receive(false).unwrap().expect(200).json()["visits"], visits);
    }
}

#[test]
fn close_closes() {
    let site = Site::new(Profile::Development);
    for target in ["/whoami", "/nowhere"] {
        let mut connection = Connection::open(&site.address);
        let answer = connection.ask(&site.request("GET", target).with("Connection", "close"));
        assert_eq!(answer.header("Connection"), Some("close"), "{answer:?}");
        assert!(connection.is_closed(), "{target}");
    }
    let mut connection = Connection::open(&site.address);
    assert_ne!(connection.ask(&site.request("GET", "/whoami")).header("Connection"), Some("close"));
    connection.ask(&site.request("GET", "/whoami")).expect(200);
}

#[test]
fn a_body_comes_with_a_length_or_in_chunks() {
    let site = Site::new(Profile::Development);
    let mut browser = Browser::signed_in(&site, "ada");
    for (turn, size) in [1, 7, 1000, usize::MAX].into_iter().enumerate() {
        let value = format!("{turn} {}", "v".repeat(2000));
        let request = browser.unsafe_request("/set").json(&json!({ "key": "a", "value": value })).chunked(size);
        browser.send(&request).expect(204);
        assert_eq!(browser.value("a"), Some(value));
    }
    let token = browser.token();
    let form = browser.request("POST", "/logout").with("Origin", site.origin()).form(&[("csrf", &*token)]).chunked(3);
    browser.send(&form).expect(303);
    browser.is_nobody();
}

/// A setting with so many bytes around it that its body has this length.
fn padded(request: Request, length: usize) -> Request {
    let body = json!({ "key": "a", "value": "padded" }).to_string();
    request.body("application/json", format!("{}{body}", " ".repeat(length - body.len())))
}

#[test]
fn a_body_over_the_limit_is_refused() {
    let site = Site::new(Profile::Development);
    let mut browser = Browser::signed_in(&site, "ada");
    let set = browser.unsafe_request("/set");
    let largest = padded(set.clone(), LONGEST_BODY);
    for request in [largest.clone(), largest.chunked(1000)] {
        browser.send(&request).expect(204);
        assert_eq!(browser.value("a").as_deref(), Some("padded"));
        browser.set("a", "old");
    }
    let larger = padded(set.clone(), LONGEST_BODY + 1);
    let huge = padded(set, 4 * LONGEST_BODY);
    for request in [larger.clone(), larger.chunked(1000), huge.clone(), huge.chunked(4096)] {
        site.ask(&request).refused(413, "too_large");
    }
    // Where a form may carry the token, the body is read before it is known who asks.
    let form = browser.request("POST", "/visit").with("Origin", site.origin());
    let form = form.body("application/x-www-form-urlencoded", format!("a={}", "x".repeat(LONGEST_BODY)));
    let answer = site.ask(&form);
    assert!(matches!(answer.status, 403 | 413), "{answer:?}");
    assert_eq!(browser.value("a").as_deref(), Some("old"));
    browser.is("ada", 0);
}

#[test]
fn a_refusal_that_leaves_a_body_unread_leaves_no_broken_connection() {
    let site = Site::new(Profile::Development);
    let mut browser = Browser::signed_in(&site, "ada");
    let set = browser.unsafe_request("/set").json(&json!({ "key": "a", "value": "x".repeat(200_000) }));
    let nowhere = set.clone().target("/nowhere");
    for request in [set.clone().set("Origin", "null"), set.set("Host", "evil.example"), nowhere] {
        let mut connection = Connection::open(&site.address);
        let answer = connection.ask(&request);
        assert!((400..500).contains(&answer.status), "{answer:?}");
        // It may go on or end, but not end without a word: the next request may be one that must not be sent twice.
        if answer.header("Connection") != Some("close") {
            connection.ask(&browser.request("GET", "/whoami")).expect(200);
        }
    }
}

/// A request whose head has this many bytes.
fn with_head(request: &Request, length: usize) -> Request {
    let padding = |bytes: usize| request.clone().with("X-Padding", "p".repeat(bytes));
    let bare = padding(0).bytes().len();
    padding(length - bare)
}

#[test]
fn a_head_over_the_limit_is_refused() {
    let site = Site::new(Profile::Development);
    let browser = Browser::signed_in(&site, "ada");
    let request = browser.request("GET", "/whoami");
    let answer = site.ask(&with_head(&request, LONGEST_HEAD - 1024)).expect(200);
    assert_eq!(answer.json()["principal"], "ada");
    for length in [LONGEST_HEAD + 1024, 3 * LONGEST_HEAD] {
        let answer = site.ask(&with_head(&request, length));
        answer.expect(431).sets_no_cookie();
    }
    let many = (0..400).fold(request.clone(), |request, place| request.with(&format!("X-{place}"), "x".repeat(200)));
    site.ask(&many).expect(431);
    let target = format!("/whoami?{}", "q".repeat(2 * LONGEST_HEAD));
    let answer = site.ask(&request.target(&target));
    assert!(matches!(answer.status, 414 | 431), "{answer:?}");
}

#[test]
fn what_is_not_http_is_refused_and_the_connection_closed() {
    let site = Site::new(Profile::Development);
    let mut browser = Browser::signed_in(&site, "ada");
    let host = format!("Host: {}\r\n", site.host());
    let whole = String::from_utf8(browser.unsafe_request("/visit").bytes()).unwrap();
    let visit = whole.replace("Content-Length: 0\r\n\r\n", "");
    for bytes in [
        "\u{16}\u{3}\u{1}\r\n\r\n".to_owned(),
        format!("GET /whoami HTTP/9.9\r\n{host}\r\n"),
        format!("GET /who ami HTTP/1.1\r\n{host}\r\n"),
        format!("GET /whoami HTTP/1.1\r\n{host}no colon\r\n\r\n"),
        format!("GET /whoami HTTP/1.1\r\n{host}Name : x\r\n\r\n"),
        format!("{visit}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}} "),
        format!("{visit}Content-Length: -1\r\n\r\n"),
        format!("{visit}Content-Length: +2\r\n\r\n{{}}"),
        format!("{visit}Content-Length: 2, 3\r\n\r\n{{}} "),
        format!("{visit}Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n0\r\n\r\n"),
        format!("{visit}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
    ] {
        let mut connection = Connection::open(&site.address);
        connection.send(bytes.as_bytes()).unwrap();
        // It may also hang up without a word.
        if let Ok(answer) = connection.receive(false) {
            answer.hold("GET");
            assert!((400..500).contains(&answer.status) || matches!(answer.status, 501 | 505), "{bytes:?}: {answer:?}");
            assert!(connection.is_closed(), "{bytes:?}");
        }
    }
    browser.is("ada", 0);
}

#[test]
fn a_request_cannot_be_smuggled_behind_another() {
    let site = Site::new(Profile::Development);
    let mut browser = Browser::signed_in(&site, "ada");
    let inner = String::from_utf8(browser.unsafe_request("/visit").bytes()).unwrap();
    let outer = String::from_utf8(browser.request("POST", "/nowhere").bytes()).unwrap();
    let outer = outer.replace("Content-Length: 0\r\n\r\n", "");
    let hidden = format!("0\r\n\r\n{inner}");
    let both = format!("{outer}Content-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n{hidden}", hidden.len());
    let mut connection = Connection::open(&site.address);
    connection.send(both.as_bytes()).unwrap();
    let answer = connection.receive(false).unwrap();
    assert!(matches!(answer.status, 400 | 404), "{answer:?}");
    assert!(connection.is_closed(), "two lengths: nobody knows where the next request begins");
    browser.is("ada", 0);
}

#[test]
fn a_client_that_stops_half_way_changes_nothing() {
    let site = Site::new(Profile::Development);
    let mut browser = Browser::signed_in(&site, "ada");
    let request = browser.unsafe_request("/set").json(&json!({ "key": "a", "value": "b" }));
    let (whole, chunks) = (request.bytes(), request.chunked(4).bytes());
    for bytes in [&whole[..whole.len() - 1], &whole[..40], &chunks[..chunks.len() - 5], &chunks[..chunks.len() - 7]] {
        Connection::open(&site.address).send(bytes).unwrap();
    }
    assert_eq!(browser.value("a"), None);
    browser.is("ada", 0);
    assert_eq!(browser.value("a"), None);
}
