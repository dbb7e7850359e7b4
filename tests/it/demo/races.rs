//! Requests that meet: a write begun before a sign-out never brings the session back, and no write is lost.

use std::sync::Mutex;
use std::time::Duration;

use serde_json::json;

use super::answer::Answer;
use super::browser::Browser;
use super::expiry::some_time_passes;
use super::http::Connection;
use super::site::{Profile, Site, eventually};

const PATIENCE: Duration = Duration::from_secs(60);
const USERS: usize = 20;

/// How many sign-outs a slow write races. `DWELL_RACES` sets another number.
fn races() -> usize {
    std::env::var("DWELL_RACES").map_or(1_000, |races| races.parse().unwrap())
}

/// How a write ended that raced a sign-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Landed,
    Ended,
    BegunTooLate,
}

#[track_caller]
fn outcome(answer: Answer) -> Outcome {
    let answer = answer.sets_no_cookie();
    match answer.status {
        200 | 204 => Outcome::Landed,
        401 => {
            answer.refused(401, "session_ended");
            Outcome::Ended
        }
        _ => {
            // The session was gone when the request came, and its token with it.
            answer.refused(403, "csrf");
            Outcome::BegunTooLate
        }
    }
}

/// One session that is ended while something slow writes to it.
fn race(site: &Site, watcher: &mut Browser, user: &str, turn: usize) -> Outcome {
    let mut browser = Browser::signed_in(site, user);
    let mut copy = browser.clone();
    let slow = json!({ "ms": (turn * 7) % 90, "key": "late", "value": "x" });
    let request = browser.unsafe_request("/slow").json(&slow);
    let mut connection = Connection::open(&site.address);
    connection.send(&request.bytes()).unwrap();
    // From "before it is read" to "when it is answered".
    (0..turn % 7).for_each(|_| assert!(!copy.passive().is_nobody()));
    match turn % 3 {
        0 => drop(browser.post("/logout", &json!({})).expect(204)),
        1 => {
            let id = browser.id();
            watcher.post("/sessions/revoke", &json!({ "id": id })).expect(200);
        }
        _ => drop(watcher.post("/sessions/revoke", &json!({ "others": true })).expect(200)),
    }
    copy.is_nobody();
    let answer = connection.receive(false).unwrap();
    answer.hold("POST");
    copy.is_nobody();
    assert_eq!(watcher.handles().len(), 1, "a session is back");
    outcome(answer)
}

#[test]
fn nothing_brings_a_session_back_that_was_signed_out() {
    let site = Site::new(Profile::Development);
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for user in 0..USERS {
            let (site, outcomes) = (&site, &outcomes);
            scope.spawn(move || {
                let user = format!("user {user}");
                let mut watcher = Browser::signed_in(site, &user);
                for turn in 0..races() / USERS {
                    let outcome = race(site, &mut watcher, &user, turn);
                    outcomes.lock().unwrap().push(outcome);
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().unwrap();
    let count = |wanted| outcomes.iter().filter(|&&outcome| outcome == wanted).count();
    println!("{} landed, {} too late", count(Outcome::Landed), count(Outcome::BegunTooLate));
    // On a machine however busy, most sign-outs come while the write waits.
    assert!(
        count(Outcome::Ended) * 5 >= outcomes.len(),
        "hardly any race was one: {} of {}",
        count(Outcome::Ended),
        outcomes.len()
    );
    let restored = site.killed_and_started().restored;
    assert_eq!(restored.sessions, u64::try_from(USERS).unwrap(), "the watchers and nobody else");
}

/// Begins a slow write and returns when it has loaded its session: loading renews, and that can be seen.
fn begin_slow(browser: &mut Browser, key: &str) -> Connection {
    let left = some_time_passes(browser);
    let request = browser.unsafe_request("/slow").json(&json!({ "ms": 4000, "key": key, "value": "late" }));
    let mut connection = Connection::open(browser.address());
    connection.send(&request.bytes()).unwrap();
    eventually(PATIENCE, || (browser.passive().idle_left_s > Some(left)).then_some(())).expect("it never begins");
    connection
}

#[track_caller]
fn was_refused(mut slow: Connection) {
    let answer = slow.receive(false).unwrap();
    answer.hold("POST");
    answer.refused(401, "session_ended").is_private();
}

/// Every way in which a session can end or change hands, and what must be true afterwards.
#[test]
fn a_write_begun_before_any_ending_is_refused_after_it() {
    let site = &Site::new(Profile::Development);
    let check = |name: &'static str, end: fn(&Site, &mut Browser)| {
        let user = format!("user of {name}");
        let mut browser = Browser::signed_in(site, &user);
        let mut old = browser.clone();
        let slow = begin_slow(&mut old, "note");
        end(site, &mut browser);
        let jar = browser.jar.clone();
        was_refused(slow);
        old.is_nobody();
        assert_eq!((browser.value("note"), &browser.jar), (None, &jar), "{name}");
        assert!(Browser::signed_in(site, &user).handles().len() <= 2, "{name}");
    };
    std::thread::scope(|scope| {
        scope.spawn(|| check("sign-out", |_, browser| drop(browser.post("/logout", &json!({})).expect(204))));
        scope.spawn(|| check("sign-in again", |_, browser| drop(browser.sign_in("user of sign-in again"))));
        scope.spawn(|| check("sign-in as another", |_, browser| drop(browser.sign_in("somebody else"))));
        scope.spawn(|| check("re-authentication", |_, browser| drop(browser.elevate("user of re-authentication"))));
        scope.spawn(|| {
            check("revocation", |site, browser| {
                let id = browser.id();
                let mut other = Browser::signed_in(site, "user of revocation");
                other.post("/sessions/revoke", &json!({ "id": id })).expect(200);
            });
        });
        scope.spawn(|| {
            check("sign-out elsewhere", |site, _| {
                let mut other = Browser::signed_in(site, "user of sign-out elsewhere");
                other.post("/sessions/revoke", &json!({ "others": true })).expect(200);
            });
        });
        scope.spawn(|| {
            check("sign-out everywhere", |_, browser| {
                browser.post("/sessions/revoke", &json!({ "all": true })).expect(200);
            });
        });
    });
}

#[test]
fn a_strangers_late_answer_does_not_undo_a_sign_in() {
    // Beginning is seen by the renewal, and by default nothing renews a session that nobody signed in to.
    let site = Site::with(Profile::Development, &["--idle", "10m"]);
    let mut anonymous = Browser::anonymous(&site);
    let mut browser = anonymous.clone();
    // Also the field that a sign-in would have kept.
    let (slow, cart) = (begin_slow(&mut anonymous, "note"), begin_slow(&mut anonymous, "cart"));
    browser.sign_in("ada");
    was_refused(slow);
    was_refused(cart);
    anonymous.is_nobody();
    browser.is("ada", 0);
    assert_eq!((browser.value("note"), browser.value("cart")), (None, None));
}

const CLIENTS: u64 = 8;
const VISITS: u64 = 2_000;

/// Visits of one session by many clients at once; returns what they were told, in order.
fn visits(browser: &mut Browser) -> Vec<u64> {
    browser.token();
    let counts = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            let (mut browser, counts) = (browser.clone(), &counts);
            scope.spawn(move || {
                let mine: Vec<u64> = (0..VISITS / CLIENTS).map(|_| browser.visit()).collect();
                counts.lock().unwrap().extend(mine);
            });
        }
    });
    let mut counts = counts.into_inner().unwrap();
    counts.sort_unstable();
    counts
}

#[test]
fn no_visit_is_lost_among_many() {
    let site = Site::new(Profile::Development);
    let mut browser = Browser::signed_in(&site, "ada");
    assert_eq!(visits(&mut browser), (1..=VISITS).collect::<Vec<_>>());
    browser.is("ada", VISITS);
    let site = site.killed_and_started();
    browser.moved_to(&site).is("ada", VISITS);
}

#[test]
fn no_visit_of_a_stranger_is_lost_either() {
    let site = Site::new(Profile::Localhost);
    let mut browser = Browser::anonymous(&site);
    assert_eq!(visits(&mut browser), (2..=VISITS + 1).collect::<Vec<_>>());
}

#[test]
fn values_of_different_keys_do_not_overwrite_each_other() {
    let site = Site::new(Profile::Development);
    let mut browser = Browser::signed_in(&site, "ada");
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let mut browser = browser.clone();
            scope.spawn(move || (0..25).for_each(|turn| browser.set(&format!("key {client}"), &turn.to_string())));
        }
    });
    for client in 0..CLIENTS {
        assert_eq!(browser.value(&format!("key {client}")).as_deref(), Some("24"), "{client}");
    }
}
