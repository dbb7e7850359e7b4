//! Tokens that are replaced as time goes by: many requests at once notice nothing, and a thief is noticed.

use std::collections::BTreeSet;
use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

use super::answer::Answer;
use super::browser::Browser;
use super::http::Connection;
use super::site::{Home, Profile, Site, eventually};

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);
const REQUESTS_AT_ONCE: usize = 200;

fn principal(answer: &Answer) -> Option<String> {
    Some(answer.json()["principal"].as_str()?.to_owned())
}

fn whoami(site: &Site, cookie: &str) -> Answer {
    site.ask(&site.request("GET", "/whoami").with("Cookie", cookie)).expect(200)
}

fn pair(answer: &Answer) -> Option<String> {
    let cookie = answer.cookie().filter(|cookie| !cookie.removes())?;
    Some(format!("{}={}", cookie.name, cookie.value))
}

/// The successor of a cookie, once it is due and handed out.
#[track_caller]
fn successor(site: &Site, cookie: &str) -> String {
    eventually(PATIENCE, || pair(&whoami(site, cookie))).expect("no successor comes")
}

#[test]
fn two_hundred_requests_at_once_across_the_rotation_notice_nothing() {
    let site = Site::with(Profile::Lan, &["--rotate-every", "2s", "--rotation-overlap", "60s"]);
    let mut browser = Browser::signed_in(&site, "ada");
    let first = browser.cookie();
    let visit = browser.unsafe_request("/visit");
    // One jar, as of one browser with as many tabs.
    let (jar, set) = (Mutex::new(first.clone()), Mutex::new(BTreeSet::new()));
    let (barrier, begin) = (Barrier::new(REQUESTS_AT_ONCE), Instant::now());
    let visits: u64 = std::thread::scope(|scope| {
        let tab = || {
            let mut connection = Connection::open(&site.address);
            barrier.wait();
            let (mut visits, mut after) = (0, 0);
            while after < 2 {
                assert!(begin.elapsed() < PATIENCE, "no successor comes");
                let cookie = jar.lock().unwrap().clone();
                let answer = connection.ask(&visit.clone().set("Cookie", &cookie));
                visits += 1;
                assert_eq!(answer.status, 200, "{answer:?}");
                if let Some(pair) = pair(&answer) {
                    set.lock().unwrap().insert(pair.clone());
                    *jar.lock().unwrap() = pair;
                }
                after += u32::from(cookie != first);
            }
            visits
        };
        let tabs: Vec<_> = (0..REQUESTS_AT_ONCE).map(|_| scope.spawn(tab)).collect();
        tabs.into_iter().map(|tab| tab.join().unwrap()).sum()
    });
    let set = set.into_inner().unwrap();
    assert_eq!(set.len(), 1, "one successor");
    let answer = whoami(&site, set.first().unwrap()).sets_no_cookie();
    assert_eq!(principal(&answer).as_deref(), Some("ada"));
    assert_eq!(answer.json()["visits"], visits, "no visit is lost");
    assert_eq!(principal(&whoami(&site, &first).sets_no_cookie()).as_deref(), Some("ada"), "within the overlap");
    browser.jar =
        browser.jar.into_keys().map(|name| (name, set.first().unwrap().split_once('=').unwrap().1.into())).collect();
    assert_eq!(browser.devices().len(), 1, "one row");
}

#[test]
fn a_cookie_that_was_replaced_ends_the_session_when_it_comes_too_late() {
    let site = Site::with(Profile::Development, &["--rotate-every", "1s", "--rotation-overlap", "2s"]);
    let mut browser = Browser::signed_in(&site, "ada");
    let id = browser.id();
    let first = browser.cookie();
    let second = successor(&site, &first);
    let answer = whoami(&site, &second);
    assert_eq!((answer.json()["id"].as_str(), principal(&answer).as_deref()), (Some(&*id), Some("ada")));
    assert_eq!(principal(&whoami(&site, &first)).as_deref(), Some("ada"), "within the overlap");
    let nobody = eventually(PATIENCE, || principal(&whoami(&site, &first)).is_none().then_some(()));
    nobody.expect("it goes on for ever");
    assert_eq!(principal(&whoami(&site, &second)), None, "whoever has the other one");
    assert!(Browser::signed_in(&site, "ada").devices().len() == 1);
}

#[test]
fn both_cookies_survive_a_kill_before_the_new_one_came_and_after() {
    let arguments = ["--rotate-every", "1s", "--rotation-overlap", "60s"];
    let mut site = Site::on(Home::new(), Profile::Development, &arguments);
    let browser = Browser::signed_in(&site, "ada");
    let first = browser.cookie();
    let second = successor(&site, &first);
    site = site.killed_and_started();
    assert_eq!(successor(&site, &first), second, "the same one");
    assert_eq!(principal(&whoami(&site, &second)).as_deref(), Some("ada"));
    // Its use is written, or forgotten; either way both are good.
    site = site.killed_and_started();
    assert_eq!(principal(&whoami(&site, &first)).as_deref(), Some("ada"));
    assert_eq!(principal(&whoami(&site, &second)).as_deref(), Some("ada"));
}
