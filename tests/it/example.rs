//! `examples/no_framework.rs` as a visitor meets it: a real process, killed with SIGKILL, over raw HTTP.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A running example, killed by its own id when the test ends in whatever way.
struct Site {
    process: Child,
    address: String,
}

impl Drop for Site {
    fn drop(&mut self) {
        // SIGKILL on Unix. It may be gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The built example, beside this test binary: `target/<profile>/deps/it-…` and `target/<profile>/examples/…`. Plain
/// `cargo test` has just built it; `cargo test --test it` takes the one that is there.
fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().and_then(Path::parent).unwrap().join("examples/no_framework");
    assert!(program.exists(), "{} is missing: `cargo test` builds it, or `cargo build --examples`", program.display());
    program
}

impl Site {
    /// Starts it and waits until it listens. Returns how many sessions it says it restored.
    fn start(data: &Path) -> (Self, usize) {
        let mut command = Command::new(program());
        command.arg("--data").arg(data).args(["--listen", "127.0.0.1:0"]).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut site = Self { process, address: String::new() };
        let mut line = || lines.next().expect("it ended before it listened").unwrap();
        let restored = line().split(' ').next().unwrap().parse().unwrap();
        site.address = line().strip_prefix("listening on http://").expect("the address").to_owned();
        (site, restored)
    }

    fn get(&self, cookie: &str) -> String {
        self.request(&format!("GET / HTTP/1.1\r\nCookie: {cookie}\r\n"), "")
    }

    fn post(&self, path: &str, headers: &str, body: &str) -> String {
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {length}\r\n{headers}"
        );
        self.request(&head, body)
    }

    /// The whole answer, head and body.
    fn request(&self, head: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let host = if head.contains("Host: ") { String::new() } else { format!("Host: {}\r\n", self.address) };
        write!(stream, "{head}{host}Connection: close\r\n\r\n{body}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Sends a form as a browser does from our own page.
    fn submit(&self, path: &str, cookie: &str, body: &str) -> String {
        self.post(path, &format!("Origin: http://{}\r\nCookie: {cookie}\r\n", self.address), body)
    }

    /// Signs in as a browser does, and returns the cookie.
    fn sign_in(&self, name: &str) -> String {
        let form = format!("name={name}&password=dwell&csrf={}", token(&self.get("")));
        let answer = self.submit("/sign-in", "", &form);
        assert!(answer.starts_with("HTTP/1.1 303 "), "{answer}");
        assert!(answer.contains("cache-control: no-store\r\n"), "{answer}");
        let cookie = between(&answer, "set-cookie: ", "\r\n");
        assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{cookie}");
        cookie.split(';').next().unwrap().to_owned()
    }
}

#[track_caller]
fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let rest = text.split_once(before).unwrap_or_else(|| panic!("no {before:?} in {text}")).1;
    rest.split_once(after).unwrap_or_else(|| panic!("no {after:?} in {rest}")).0
}

fn visits(page: &str) -> u32 {
    between(page, "Visit number <b>", "<").parse().unwrap()
}

fn token(page: &str) -> String {
    between(page, "name=\"csrf\" value=\"", "\"").to_owned()
}

fn home() -> (tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    (home, data)
}

#[test]
fn a_visitor_of_the_example_stays_signed_in_when_it_is_killed() {
    let (_home, data) = home();
    let (site, restored) = Site::start(&data);
    assert_eq!(restored, 0);
    let cookie = site.sign_in("ada");
    assert_eq!(visits(&site.get(&cookie)), 1);
    let page = site.get(&cookie);
    assert_eq!(visits(&page), 2);
    let signed_in = between(&page, "<dt>Signed in</dt><dd>", "</dd>").to_owned();
    drop(site);

    let (site, restored) = Site::start(&data);
    assert_eq!(restored, 1);
    let page = site.get(&cookie);
    assert!(page.contains("Hello, ada"), "{page}");
    assert_eq!(visits(&page), 3, "an answered visit counts, whatever happened to the process");
    assert_eq!(between(&page, "<dt>Signed in</dt><dd>", "</dd>"), signed_in);
    let life = between(&page, "<dt>Ends in any case</dt><dd>", "</dd>");
    assert!(life.contains("in 11 h 5") || life.contains("in 12 h 0 min 0 s"), "twelve hours are running: {life}");

    for made_up in ["made-up", "sid_c1_", "", &token(&site.get(""))] {
        let answer = site.submit("/sign-out", &cookie, &format!("csrf={made_up}"));
        assert!(answer.starts_with("HTTP/1.1 403 ") && site.get(&cookie).contains("Hello, ada"), "{answer}");
    }
    let body = format!("csrf={}", token(&page));
    let answer = site.post("/sign-out", &format!("Cookie: {cookie}\r\n"), &body);
    assert!(answer.starts_with("HTTP/1.1 403 "), "a cookie, and nothing says which page it comes from: {answer}");
    let answer = site.submit("/sign-out", &cookie, &body);
    assert!(answer.starts_with("HTTP/1.1 303 ") && answer.contains("Max-Age=0"), "{answer}");
    assert!(site.get(&cookie).contains("Who are you?"));
    drop(site);

    let (site, restored) = Site::start(&data);
    assert_eq!(restored, 0);
    assert!(site.get(&cookie).contains("Who are you?"), "a sign-out is a sign-out");
}

#[test]
fn the_example_refuses_what_comes_from_another_site() {
    let (_home, data) = home();
    let (site, _) = Site::start(&data);
    let body = format!("name=ada&password=dwell&csrf={}", token(&site.get("")));
    let port = site.address.rsplit_once(':').unwrap().1;
    for (status, headers) in [
        (403, "Origin: http://evil.example\r\n".to_owned()),
        (403, "Origin: null\r\n".to_owned()),
        (403, format!("Origin: https://{}\r\n", site.address)),
        (403, "Sec-Fetch-Site: cross-site\r\n".to_owned()),
        (403, "Sec-Fetch-Site: same-site\r\n".to_owned()),
        (421, format!("Host: evil.example:{port}\r\nOrigin: http://evil.example:{port}\r\n")),
        (421, "Host: localhost:1\r\n".to_owned()),
    ] {
        let answer = site.post("/sign-in", &headers, &body);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{headers}: {answer}");
        assert!(!answer.contains("set-cookie"), "{headers}: {answer}");
    }
    let answer = site.submit("/sign-in", "", "name=ada&password=dwell");
    assert!(answer.starts_with("HTTP/1.1 403 "), "a sign-in shows the token of the page, too: {answer}");
    let (cookie, planted) = (site.sign_in("ada"), site.sign_in("eve"));
    let two = site.get(&format!("{cookie}; {planted}"));
    assert!(two.contains("Who are you?"), "two live sessions: somebody planted one");
    assert!(site.get(&format!("other=1; {cookie}")).contains("Hello, ada"));
}

#[test]
fn a_page_without_a_session_says_nothing_about_one() {
    let (_home, data) = home();
    let (site, _) = Site::start(&data);
    let style = site.request("GET /style.css HTTP/1.1\r\n", "");
    assert!(style.starts_with("HTTP/1.1 200 ") && !style.contains("no-store") && !style.contains("vary"), "{style}");
    let page = site.get("");
    assert!(page.contains("cache-control: no-store\r\n") && !page.contains("set-cookie"), "{page}");
}

#[test]
fn a_visitor_of_the_example_ends_their_own_sessions_only() {
    let (_home, data) = home();
    let (site, _) = Site::start(&data);
    let (here, there, eve) = (site.sign_in("ada"), site.sign_in("ada"), site.sign_in("%3Cb%3Eeve"));
    let page = site.get(&eve);
    assert!(page.contains("Hello, &#60;b&#62;eve") && !page.contains("<b>eve"), "{page}");
    let eves = between(&page, "name=\"id\" value=\"", "\"").to_owned();
    let body = format!("csrf={}&id={eves}", token(&site.get(&here)));
    assert!(site.submit("/end", &here, &body).starts_with("HTTP/1.1 303 "));
    assert!(site.get(&eve).contains("Hello, "), "a handle of somebody else's ends nothing");
    assert!(site.submit("/end-others", &here, &body).starts_with("HTTP/1.1 303 "));
    assert!(site.get(&there).contains("Who are you?"));
    assert!(site.get(&here).contains("Hello, ada") && site.get(&eve).contains("Hello, "));
    let answer = site.submit("/end", &eve, &format!("csrf={}&id={eves}", token(&site.get(&eve))));
    assert!(answer.starts_with("HTTP/1.1 303 ") && answer.contains("Max-Age=0"), "one's own ends: {answer}");
    assert!(site.get(&eve).contains("Who are you?"));
}
