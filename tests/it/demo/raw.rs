//! Bytes that no browser sends: one reading of each, and never somebody's session by accident.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use super::answer::Answer;
use super::browser::Browser;
use super::http::Connection;
use super::site::{Profile, Site};

/// What the server says to these bytes until it closes the connection. A last, honest request asks it to.
fn say(site: &Site, bytes: &[u8]) -> Vec<u8> {
    let last = format!("GET /healthz HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", site.host());
    said(site, &[bytes, last.as_bytes()].concat(), false)
}

fn said(site: &Site, bytes: &[u8], ends: bool) -> Vec<u8> {
    let mut stream = TcpStream::connect(&site.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    // It may refuse, and close, before it has read everything.
    let _ = stream.write_all(bytes);
    if ends {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        // It may break the connection off, but not leave it hanging.
        assert!(!matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "no end to {answer:?}");
    }
    answer
}

/// The answers in it, the last one to `say`'s own request left out.
fn answers(bytes: &[u8]) -> Vec<Answer> {
    let mut connection = Connection::over(bytes);
    let all = std::iter::from_fn(|| connection.receive(false).ok());
    all.filter(|answer| answer.header("Connection") != Some("close") || answer.status != 200).collect()
}

/// Ada, signed in, and what may not change while others speak.
struct Scene {
    site: Site,
    ada: Browser,
    token: String,
}

impl Scene {
    fn new() -> Self {
        let site = Site::new(Profile::Development);
        let mut ada = Browser::signed_in(&site, "ada");
        let token = ada.token();
        Self { site, ada, token }
    }

    /// A good request of hers that counts a visit: its lines after the first, and its body.
    fn lines(&self) -> Vec<String> {
        vec![
            format!("Host: {}", self.site.host()),
            format!("Cookie: {}", self.ada.cookie()),
            format!("Origin: {}", self.site.origin()),
            format!("X-CSRF-Token: {}", self.token),
            "Content-Type: application/json".into(),
            "Content-Length: 2".into(),
        ]
    }

    fn visit(first: &str, lines: &[String], body: &str) -> Vec<u8> {
        format!("{first}\r\n{}\r\n\r\n{body}", lines.join("\r\n")).into_bytes()
    }

    #[track_caller]
    fn unchanged(&mut self, after: &str) {
        let whoami = self.ada.whoami();
        assert_eq!((whoami.principal.as_deref(), whoami.visits), (Some("ada"), 0), "after {after}");
    }

    /// Says it, and sees that it changed nothing, opened nothing and set no cookie.
    #[track_caller]
    fn comes_to_nothing(&mut self, what: &str, bytes: &[u8]) -> Vec<Answer> {
        let heard = say(&self.site, bytes);
        let text = String::from_utf8_lossy(&heard);
        assert!(!text.contains("\"ada\"") && !text.to_ascii_lowercase().contains("set-cookie"), "{what}: {text}");
        self.unchanged(what);
        answers(&heard)
    }
}

#[test]
fn a_cookie_counts_in_a_line_called_so_and_whole() {
    let mut scene = Scene::new();
    let ours = scene.ada.cookie();
    let (name, value) = ours.split_once('=').unwrap();
    let (half, rest) = value.split_at(value.len() / 2);
    let head = format!("GET /whoami HTTP/1.1\r\nHost: {}\r\n", scene.site.host());
    let control = say(&scene.site, format!("{head}cOOKIE:{ours}\r\n\r\n").as_bytes());
    assert!(String::from_utf8_lossy(&control).contains("\"ada\""), "the case of a header's name means nothing");
    for lines in [
        format!("Cookie : {ours}"),
        format!("Cookie\t: {ours}"),
        format!("Cookie\0: {ours}"),
        format!("Cook\u{ef}e: {ours}"),
        format!(" Cookie: {ours}"),
        format!("Cookie:\r\n {ours}"),
        format!("Cookie: {name}=\r\n\t{value}"),
        format!("Cookie: {name}={half}\r{rest}"),
        format!("Cookie: {name}={half}\0{rest}"),
        format!("Cookie: {name}={half}\r\nCookie: {rest}"),
        format!("Cookie: {name}=\r\nCookie: {value}"),
        format!("Cookie: {name}={half};{rest}"),
        format!("Cookie: {name}={half}, {name}={rest}"),
        format!("Cookie2: {ours}"),
        format!("Cookie_: {ours}"),
        format!("HTTP_COOKIE: {ours}"),
        format!("Set-Cookie: {ours}"),
        format!("X-Forwarded-Cookie: {ours}"),
        format!("Authorization: Bearer {value}"),
        format!("Authorization: Cookie {ours}"),
    ] {
        let answers = scene.comes_to_nothing(&lines, format!("{head}{lines}\r\n\r\n").as_bytes());
        assert!(!answers.is_empty(), "{lines:?}");
        assert!(answers.iter().all(|answer| [200, 400].contains(&answer.status)), "{lines:?}: {answers:?}");
    }
}

#[test]
fn what_protects_a_change_comes_once_and_under_its_name() {
    let mut scene = Scene::new();
    let lines = scene.lines();
    let twice = |name: &str| {
        let line = lines.iter().find(|line| line.starts_with(name)).unwrap().clone();
        [&lines[..], &[line]].concat()
    };
    let with = |more: &str| [&lines[..], &[more.to_owned()]].concat();
    let instead = |name: &str, other: &str| {
        let change = |line: &String| if line.starts_with(name) { other.to_owned() } else { line.clone() };
        lines.iter().map(change).collect::<Vec<_>>()
    };
    let (token, origin, host) = (&scene.token, scene.site.origin(), scene.site.host().to_owned());
    let cases = [
        ("two hosts", twice("Host"), 400),
        ("another host as well", with("Host: evil.example"), 400),
        ("two origins", twice("Origin"), 403),
        ("another origin as well", with("Origin: null"), 403),
        ("two origins in one", instead("Origin", &format!("Origin: {origin}, {origin}")), 403),
        (
            "two of where it is from",
            [&lines[..], &["Sec-Fetch-Site: same-origin".into(), "Sec-Fetch-Site: same-origin".into()]].concat(),
            403,
        ),
        ("two tokens", twice("X-CSRF-Token"), 403),
        ("a worse token as well", with("x-csrf-token: x"), 403),
        ("an underscore", instead("X-CSRF-Token", &format!("X_CSRF_Token: {token}")), 403),
        ("no name at all", instead("X-CSRF-Token", &format!(": {token}")), 400),
        ("a space in the name", instead("X-CSRF-Token", &format!("X-CSRF- Token: {token}")), 400),
        ("a space behind it", instead("X-CSRF-Token", &format!("X-CSRF-Token : {token}")), 400),
        ("folded", instead("X-CSRF-Token", &format!("X-CSRF-Token:\r\n {token}")), 400),
        ("a host with a path", instead("Host", &format!("Host: {host}/x")), 400),
        ("a host with a user", instead("Host", &format!("Host: user@{host}")), 400),
    ];
    for (what, lines, expected) in cases {
        let answers = scene.comes_to_nothing(what, &Scene::visit("POST /visit HTTP/1.1", &lines, "{}"));
        assert_eq!(answers.first().map(|answer| answer.status), Some(expected), "{what}: {answers:?}");
    }
    let good = say(&scene.site, &Scene::visit("POST /visit HTTP/1.1", &lines, "{}"));
    assert!(String::from_utf8_lossy(&good).contains("\"visits\":1"), "the control");
}

#[test]
fn odd_methods_targets_and_versions_reach_no_route() {
    let mut scene = Scene::new();
    let lines = scene.lines();
    for first in [
        "post /visit HTTP/1.1",
        "Post /visit HTTP/1.1",
        "POSTX /visit HTTP/1.1",
        "P\0ST /visit HTTP/1.1",
        "POST\t/visit HTTP/1.1",
        "POST  /visit HTTP/1.1",
        " POST /visit HTTP/1.1",
        "POST /visit",
        "POST /visit HTTP/2.0",
        "POST /visit HTTP/0.9",
        "POST /visit HTTP/1.10",
        "POST /visit http/1.1",
        "POST /visit HTTP/1.1 ",
        "POST //visit HTTP/1.1",
        "POST /visit/ HTTP/1.1",
        "POST /Visit HTTP/1.1",
        "POST /%76isit HTTP/1.1",
        "POST /visit%00 HTTP/1.1",
        "POST /visit%2F HTTP/1.1",
        "POST /visit;x=1 HTTP/1.1",
        "POST /get/../visit HTTP/1.1",
        "POST /./visit HTTP/1.1",
        "POST \\visit HTTP/1.1",
        "POST visit HTTP/1.1",
        "POST * HTTP/1.1",
        "POST http://evil.example/visit HTTP/1.1",
        "POST http://user@localhost/visit HTTP/1.1",
        "POST ftp://localhost/visit HTTP/1.1",
        "PRI * HTTP/2.0",
        "\u{16}\u{3}\u{1}\u{2}",
    ] {
        let answers = scene.comes_to_nothing(first, &Scene::visit(first, &lines, "{}"));
        assert!(!answers.is_empty(), "{first:?}");
        assert!(answers.iter().all(|answer| (400..=505).contains(&answer.status)), "{first:?}: {answers:?}");
    }
}

#[test]
fn a_body_has_one_length() {
    let mut scene = Scene::new();
    let lines = scene.lines();
    let framed = |framing: &str, body: &str| {
        let mut lines = lines.clone();
        *lines.last_mut().unwrap() = framing.into();
        Scene::visit("POST /visit HTTP/1.1", &lines, body)
    };
    for (framing, body) in [
        ("Content-Length: 2\r\nContent-Length: 3", "{} "),
        ("Content-Length: 2, 3", "{} "),
        ("Content-Length: +2", "{}"),
        ("Content-Length: -2", "{}"),
        ("Content-Length: 0x2", "{}"),
        ("Content-Length: 2a", "{}"),
        ("Content-Length: 18446744073709551618", "{}"),
        ("Transfer-Encoding: xchunked", "2\r\n{}\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked, identity", "2\r\n{}\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", "2\r\n{}\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked", "0x2\r\n{}\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked", "-2\r\n{}\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked", "zz\r\n{}\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked", "FFFFFFFFFFFFFFFFFF\r\n{}\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked", "2\r\n{}X\r\n0\r\n\r\n"),
    ] {
        let what = format!("{framing} {body}");
        let answers = scene.comes_to_nothing(&what, &framed(framing, body));
        assert!(!answers.is_empty(), "{what}");
        assert!(answers.iter().all(|answer| (400..=501).contains(&answer.status)), "{what}: {answers:?}");
    }
    for (framing, body) in [
        ("Content-Length: 3", "{}"),
        ("Transfer-Encoding: chunked", "2\r\n{}\r\n"),
        ("Transfer-Encoding: chunked", "9\r\n{}"),
    ] {
        let heard = said(&scene.site, &framed(framing, body), true);
        assert!(!String::from_utf8_lossy(&heard).contains("200 OK"), "{framing}: cut off, {heard:?}");
        scene.unchanged(framing);
    }
}

/// What a proxy takes for a body must not be a request to us, nor the other way round.
#[test]
fn no_request_hides_in_the_body_of_another() {
    let mut scene = Scene::new();
    let lines = scene.lines();
    let hidden = Scene::visit("POST /visit HTTP/1.1", &lines, "{}");
    let host = scene.site.host().to_owned();
    for target in ["/nowhere", "/login", "/healthz", "/whoami"] {
        let outer = format!("POST {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n", hidden.len());
        let answers = scene.comes_to_nothing(target, &[outer.as_bytes(), &hidden].concat());
        assert_eq!(answers.len(), 1, "{target}: {answers:?}");
    }
    let get = format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n", hidden.len());
    scene.comes_to_nothing("a body with GET", &[get.as_bytes(), &hidden].concat());
    // With both lengths, whichever counts, the connection is of no use afterwards.
    let both = format!(
        "POST /nowhere HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        5 + hidden.len()
    );
    scene.comes_to_nothing("both lengths", &[both.as_bytes(), &hidden].concat());
}

#[test]
fn after_a_sign_out_on_a_connection_the_rest_of_it_is_nobodys() {
    let scene = Scene::new();
    let lines = scene.lines();
    let request = |first: &str| Scene::visit(first, &lines, "{}");
    let bytes = ["POST /logout HTTP/1.1", "POST /visit HTTP/1.1", "GET /whoami HTTP/1.1"].map(request).concat();
    let answers = answers(&say(&scene.site, &bytes));
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [204, 403, 200], "{answers:?}");
    assert_eq!(answers[2].json()["class"], "none");
    let mut ada = scene.ada;
    ada.is_nobody();
}

#[test]
fn a_megabyte_of_head_is_refused_and_the_server_goes_on() {
    let mut scene = Scene::new();
    let ours = scene.ada.cookie();
    let head = |first: &str, more: &str| {
        format!("{first}\r\nHost: {}\r\nCookie: {ours}\r\n{more}\r\n", scene.site.host()).into_bytes()
    };
    let first = "GET /whoami HTTP/1.1";
    let cases = [
        ("one line", head(first, &format!("X: {}\r\n", "x".repeat(1 << 20)))),
        ("one name", head(first, &format!("{}: x\r\n", "x".repeat(1 << 20)))),
        ("many lines", head(first, &"X: y\r\n".repeat(200_000))),
        ("many cookies", head(first, &format!("Cookie: {}\r\n", "a=;".repeat(350_000)))),
        ("many lines of cookies", head(first, &"Cookie: a=b\r\n".repeat(80_000))),
        ("a target", head(&format!("GET /{} HTTP/1.1", "x".repeat(1 << 20)), "")),
        ("a method", head(&format!("{} / HTTP/1.1", "G".repeat(1 << 20)), "")),
        ("no end", vec![b'G'; 1 << 20]),
        ("nothing but ends", b"\r\n".repeat(1 << 19)),
    ];
    for (what, bytes) in cases {
        let answers = scene.comes_to_nothing(what, &bytes);
        assert!(answers.iter().all(|answer| (400..=431).contains(&answer.status)), "{what}: {answers:?}");
    }
}

/// Programs of before speak HTTP/1.0: they get an answer, and what protects a session protects it from them as well.
#[test]
fn an_older_http_is_held_to_the_same_rules() {
    let mut scene = Scene::new();
    let (host, ours) = (scene.site.host().to_owned(), scene.ada.cookie());
    let text = |bytes: &str| String::from_utf8_lossy(&said(&scene.site, bytes.as_bytes(), false)).into_owned();
    let asked = text(&format!("GET /whoami HTTP/1.0\r\nHost: {host}\r\nCookie: {ours}\r\n\r\n"));
    assert!(asked.contains(" 200 ") && asked.contains("\"ada\""), "{asked}");
    let nameless = text(&format!("GET /whoami HTTP/1.0\r\nCookie: {ours}\r\n\r\n"));
    assert!(nameless.contains(" 400 ") && !nameless.contains("\"ada\""), "{nameless}");
    let change = format!("POST /visit HTTP/1.0\r\nHost: {host}\r\nCookie: {ours}\r\nContent-Length: 2\r\n\r\n{{}}");
    let refused = text(&change);
    assert!(refused.contains(" 403 "), "{refused}");
    scene.unchanged("HTTP/1.0");
}
