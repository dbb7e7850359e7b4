//! The demo at its edges: requests that arrive in pieces while their session ends, heads that are too long, a signal at
//! the first moment. A real process, over raw HTTP.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A running demo in the profile `development`, killed by its own id when the test ends in whatever way.
struct Demo {
    process: Child,
    address: String,
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Somebody signed in: the head lines that show it on a changing request.
struct Visitor {
    cookie: String,
    lines: String,
}

impl Demo {
    fn start(data: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dwell"));
        command.args(["demo", "--listen", "127.0.0.1:0", "--profile", "development", "--data"]).arg(data);
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut demo = Self { process, address: String::new() };
        let address = lines.find_map(|line| line.unwrap().strip_prefix("listening on http://").map(str::to_owned));
        demo.address = address.expect("it listens");
        demo
    }

    /// Sends a request but for the last byte of its body, and lets the server begin with it.
    fn begin(&self, line: &str, lines: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let (address, length) = (&self.address, body.len());
        let sent = body.get(..length.saturating_sub(1)).unwrap();
        write!(
            stream,
            "{line} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n{lines}\r\n{sent}"
        )
        .unwrap();
        stream
    }

    /// The whole answer, head and body.
    fn ask(&self, line: &str, lines: &str, body: &str) -> String {
        end(self.begin(line, lines, body), body)
    }

    fn whoami(&self, cookie: &str) -> String {
        self.ask("GET /whoami", &format!("Cookie: {cookie}\r\n"), "")
    }

    fn visitor(&self, answer: &str) -> Visitor {
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let cookie = between(answer, "set-cookie: ", ";").to_owned();
        let token = between(answer, "\"csrf\":\"", "\"");
        let lines = format!("Cookie: {cookie}\r\nOrigin: http://{}\r\nX-CSRF-Token: {token}\r\n", self.address);
        Visitor { cookie, lines }
    }

    fn sign_in(&self, who: &str) -> Visitor {
        let stranger = self.ask("GET /whoami", "", "");
        let token = between(&stranger, "\"csrf\":\"", "\"");
        let body = format!(r#"{{"user":"{who}","password":"dwell"}}"#);
        self.visitor(&self.ask("POST /login", &format!("X-CSRF-Token: {token}\r\n"), &body))
    }
}

/// Sends the last byte of the body, and reads the whole answer.
fn end(mut stream: TcpStream, body: &str) -> String {
    let _ = stream.write_all(body.get(body.len().saturating_sub(1)..).unwrap().as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

#[track_caller]
fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let rest = text.split_once(before).unwrap_or_else(|| panic!("no {before:?} in {text}")).1;
    rest.split_once(after).unwrap_or_else(|| panic!("no {after:?} in {rest}")).0
}

fn wait_for_the_server_to_begin() {
    // The head is on its way, and nothing tells from outside when the server has looked the session up.
    let (_keep, silent) = std::sync::mpsc::channel::<()>();
    let _ = silent.recv_timeout(Duration::from_millis(300));
}

#[test]
fn a_sign_out_beside_a_new_token_does_what_it_answers() {
    let home = tempfile::tempdir().unwrap();
    let demo = Demo::start(&home.path().join("data"));
    let ada = demo.sign_in("ada");
    let late = demo.begin("POST /logout", &ada.lines, "{}");
    wait_for_the_server_to_begin();
    let elevated = demo.visitor(&demo.ask("POST /elevate", &ada.lines, r#"{"password":"dwell"}"#));
    assert!(demo.whoami(&elevated.cookie).contains("\"principal\":\"ada\""));
    let answer = end(late, "{}");
    let ended = demo.whoami(&elevated.cookie).contains("\"class\":\"none\"");
    // Whichever was first: what is answered is what happened.
    assert_eq!(answer.starts_with("HTTP/1.1 204 ") && answer.contains("Max-Age=0"), ended, "{answer}");
    assert_eq!(answer.starts_with("HTTP/1.1 403 ") && !answer.contains("set-cookie"), !ended, "{answer}");
}

#[test]
fn a_session_that_ended_ends_no_others() {
    let home = tempfile::tempdir().unwrap();
    let demo = Demo::start(&home.path().join("data"));
    for body in [r#"{"all":true}"#.to_owned(), String::new()] {
        let (owner, thief) = (demo.sign_in("ada"), demo.sign_in("ada"));
        let id = between(&demo.whoami(&owner.cookie), "\"id\":\"", "\"").to_owned();
        let body = if body.is_empty() { format!(r#"{{"id":"{id}"}}"#) } else { body };
        let late = demo.begin("POST /sessions/revoke", &thief.lines, &body);
        wait_for_the_server_to_begin();
        let others = demo.ask("POST /sessions/revoke", &owner.lines, r#"{"others":true}"#);
        assert!(others.starts_with("HTTP/1.1 200 "), "{others}");
        let answer = end(late, &body);
        // By then it is a stranger's request, with the token of a session that is no more.
        assert!(answer.starts_with("HTTP/1.1 401 ") || answer.starts_with("HTTP/1.1 403 "), "{answer}");
        assert!(!answer.contains("set-cookie"), "{answer}");
        assert!(demo.whoami(&owner.cookie).contains("\"principal\":\"ada\""), "who was thrown out throws nobody out");
    }
}

#[test]
fn a_head_may_take_64_kib() {
    let home = tempfile::tempdir().unwrap();
    let demo = Demo::start(&home.path().join("data"));
    let status = |bytes: usize| {
        let answer = demo.ask("GET /whoami", &format!("X-Padding: {}\r\n", "x".repeat(bytes)), "");
        answer.get(9..12).unwrap_or_default().to_owned()
    };
    assert_eq!(status(64_000), "200");
    for bytes in [65_536, 70_000, 200_000] {
        assert_eq!(status(bytes), "431", "{bytes}");
    }
}

#[test]
fn refusals_of_the_export_are_like_all_others() {
    let home = tempfile::tempdir().unwrap();
    let demo = Demo::start(&home.path().join("data"));
    let ada = demo.sign_in("ada");
    let cookie = format!("Cookie: {}\r\n", ada.cookie);
    let twice = demo.ask("GET /export?format=json&format=xml", &cookie, "");
    assert!(twice.starts_with("HTTP/1.1 422 ") && twice.contains("\"error\":\"invalid\""), "{twice}");
    let script = demo.ask("GET /export", "", "");
    assert!(script.starts_with("HTTP/1.1 401 ") && script.contains("sign_in_required"), "{script}");
    let person = demo.ask("GET /export", "Accept: text/html\r\n", "");
    assert!(person.starts_with("HTTP/1.1 303 ") && person.contains("location: /\r\n"), "{person}");
}

#[test]
fn a_signal_at_the_first_moment_is_a_clean_stop() {
    let home = tempfile::tempdir().unwrap();
    for turn in 0..40 {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dwell"));
        command.args(["demo", "--listen", "127.0.0.1:0", "--data"]).arg(home.path().join("data"));
        let mut demo = Demo { process: command.stdout(Stdio::piped()).spawn().unwrap(), address: String::new() };
        // A shell that is started already is faster than a program that sends signals.
        let kill =
            format!("while read -r line; do case $line in listening*) kill -TERM {};; esac; done", demo.process.id());
        let said = demo.process.stdout.take().unwrap();
        let mut shell = Command::new("sh").args(["-c", &kill]).stdin(said).spawn().unwrap();
        assert_eq!(demo.process.wait().unwrap().code(), Some(0), "turn {turn}");
        assert!(shell.wait().unwrap().success());
    }
}

#[test]
fn a_port_that_is_taken_is_told_with_the_way_out() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let data = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_dwell"));
    command.args(["demo", "--listen", &address, "--profile", "development", "--data"]).arg(data.path().join("store"));
    let output = command.output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && told.contains(&address) && told.contains("`--listen`"), "{told}");
}
