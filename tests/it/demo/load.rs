//! Stopped and killed while it works: everything that was answered is there afterwards.
#![cfg(unix)]

use std::io::{ErrorKind, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use super::answer::Answer;
use super::browser::Browser;
use super::http::{Connection, Request};
use super::site::{Home, Profile, Site, eventually};

const PATIENCE: Duration = Duration::from_secs(60);
/// Answers before the server is stopped.
const ANSWERS: u64 = 300;

/// What one client was told, and what it asked last.
#[derive(Debug, Default)]
struct Told {
    answered: u64,
    asked: u64,
}

/// Asks until the server is gone or says that it goes. An answer that is none of these fails the test.
fn ask(connection: &mut Result<Connection>, request: &Request) -> Option<Answer> {
    let answer = match connection.as_mut().ok()?.try_ask(request) {
        Ok(answer) => answer,
        Err(error) => {
            assert_ne!(error.kind(), ErrorKind::InvalidData, "{error}");
            assert!(!matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "no answer: {error}");
            return None;
        }
    };
    answer.hold(&request.method);
    if answer.header("Connection") == Some("close") {
        // It says good-bye with an answer, which counts.
        *connection = Err(ErrorKind::ConnectionAborted.into());
    }
    (answer.status != 503).then_some(answer)
}

/// Sets `n` of its own session to 1, 2, 3 and so on.
fn count_up(mut browser: Browser, answers: &AtomicU64) -> (Browser, Told) {
    let mut connection = Connection::try_open(browser.address());
    let mut told = Told::default();
    loop {
        told.asked += 1;
        let request = browser.unsafe_request("/set").json(&json!({ "key": "n", "value": told.asked.to_string() }));
        let Some(answer) = ask(&mut connection, &request) else { return (browser, told) };
        answer.expect(204);
        told.answered = told.asked;
        answers.fetch_add(1, Ordering::Relaxed);
    }
}

/// Visits of a session that it shares with others.
fn visit(mut browser: Browser, answers: &AtomicU64) -> Told {
    let mut connection = Connection::try_open(browser.address());
    let mut told = Told::default();
    loop {
        told.asked += 1;
        let request = browser.unsafe_request("/visit").json(&json!({}));
        let Some(answer) = ask(&mut connection, &request) else { return told };
        answer.expect(200);
        told.answered += 1;
        answers.fetch_add(1, Ordering::Relaxed);
    }
}

/// Signs in again and again, and every other time out: what it holds is alive, what it left is dead.
fn come_and_go(site: &Visited, user: &str, answers: &AtomicU64) -> (Vec<Browser>, Vec<Browser>) {
    let (mut alive, mut dead) = (Vec::new(), Vec::new());
    let mut connection = Connection::try_open(site.stranger.address());
    loop {
        let mut browser = site.stranger.clone();
        let request = browser.unsafe_request("/login").json(&json!({ "user": user, "password": "dwell" }));
        let Some(answer) = ask(&mut connection, &request) else { return (alive, dead) };
        let answer = answer.expect(200);
        let cookie = answer.cookie().unwrap();
        browser.jar.insert(cookie.name, cookie.value);
        browser.know(answer.json()["csrf"].as_str().unwrap());
        answers.fetch_add(1, Ordering::Relaxed);
        if alive.len() <= dead.len() && alive.len() < 20 {
            alive.push(browser);
            continue;
        }
        let request = browser.unsafe_request("/logout").json(&json!({}));
        // Unanswered it may be either.
        let Some(answer) = ask(&mut connection, &request) else { return (alive, dead) };
        answer.expect(204);
        dead.push(browser);
    }
}

/// A server before its load, and visitors that it knows.
struct Visited {
    stranger: Browser,
    shared: Browser,
    own: Vec<Browser>,
}

fn visited(site: &Site) -> Visited {
    let own = (0..4).map(|user| Browser::signed_in(site, &format!("user {user}")));
    let mut own: Vec<Browser> = own.collect();
    let (mut stranger, mut shared) = (Browser::new(site), Browser::signed_in(site, "shared"));
    stranger.token();
    shared.token();
    own.iter_mut().for_each(|browser| drop(browser.token()));
    Visited { stranger, shared, own }
}

/// Puts it under load, has it end in this way, and holds what was answered against what it finds at its next start.
fn nothing_answered_is_lost(end: impl FnOnce(&mut Site)) {
    let mut site = Site::on(Home::new(), Profile::Development, &["--max-per-user", "1000"]);
    let before = visited(&site);
    let answers = AtomicU64::new(0);
    let (own, shared, gone) = std::thread::scope(|scope| {
        let (before, answers) = (&before, &answers);
        let own: Vec<_> =
            before.own.iter().map(|browser| scope.spawn(move || count_up(browser.clone(), answers))).collect();
        let shared: Vec<_> = (0..3).map(|_| scope.spawn(move || visit(before.shared.clone(), answers))).collect();
        let gone: Vec<_> =
            (0..2).map(|user| scope.spawn(move || come_and_go(before, &format!("guest {user}"), answers))).collect();
        eventually(PATIENCE, || (answers.load(Ordering::Relaxed) >= ANSWERS).then_some(())).expect("it is too slow");
        end(&mut site);
        let own: Vec<_> = own.into_iter().map(|thread| thread.join().unwrap()).collect();
        let shared: Vec<_> = shared.into_iter().map(|thread| thread.join().unwrap()).collect();
        (own, shared, gone.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>())
    });
    let site = site.started_again();
    for (browser, told) in own {
        let found: u64 = browser.moved_to(&site).value("n").map_or(0, |n| n.parse().unwrap());
        assert!((told.answered..=told.asked).contains(&found), "{found} of {told:?}");
    }
    let answered: u64 = shared.iter().map(|told| told.answered).sum();
    let asked: u64 = shared.iter().map(|told| told.asked).sum();
    let found = before.shared.moved_to(&site).passive().visits;
    assert!((answered..=asked).contains(&found), "{found} of {answered} to {asked}");
    for (alive, dead) in gone {
        assert!(!alive.is_empty() && !dead.is_empty());
        alive.iter().for_each(|browser| assert!(!browser.moved_to(&site).passive().is_nobody(), "a sign-in is lost"));
        dead.iter().for_each(|browser| browser.moved_to(&site).is_nobody());
    }
}

#[test]
fn a_kill_under_load_loses_nothing_answered() {
    nothing_answered_is_lost(Site::kill);
}

#[test]
fn a_stop_under_load_loses_nothing_answered() {
    for signal in [Signal::TERM, Signal::INT] {
        nothing_answered_is_lost(|site| {
            let status = site.stop(signal);
            assert_eq!(status.code(), Some(0), "{signal:?}: {status}");
        });
    }
}

#[test]
fn a_stop_does_not_wait_for_clients_that_say_nothing() {
    let mut site = Site::new(Profile::Development);
    let mut browser = Browser::signed_in(&site, "ada");
    browser.set("a", "answered");
    let mut held: Vec<Connection> = (0..5).map(|_| Connection::open(&site.address)).collect();
    held[0].ask(&site.request("GET", "/whoami"));
    let slow = browser.unsafe_request("/slow").json(&json!({ "ms": 10_000, "key": "a", "value": "late" })).bytes();
    // One says nothing more, one is within its head, one within its body, one waits for its answer.
    held[1].send(&slow[..20]).unwrap();
    held[2].send(&slow[..slow.len() - 1]).unwrap();
    held[3].send(&slow).unwrap();
    held[4].ask(&browser.request("GET", "/whoami"));
    let status = site.stop(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{status}");
    let home = Arc::clone(&site.home);
    drop(site);
    let site = Site::on(home, Profile::Development, &[]);
    let found = browser.moved_to(&site).value("a");
    assert!(matches!(found.as_deref(), Some("answered" | "late")), "{found:?}");
    drop(held);
}
