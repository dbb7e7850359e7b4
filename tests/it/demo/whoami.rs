//! `/whoami`: what it says of each kind of visitor, and that it changes nothing.

use std::time::{SystemTime, UNIX_EPOCH};

use super::answer::Answer;
use super::browser::{Browser, Whoami, seconds_of};
use super::http::Connection;
use super::site::{Profile, Site};
use crate::promises::{remembered_spans, spans};

const HOUR: u64 = 3600;

#[track_caller]
fn is_about_now(time: Option<&str>) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let time = seconds_of(time.expect("a time"));
    assert!(now.abs_diff(time) <= 120, "{time} is not about {now}");
}

/// Hardly anything of the time has passed. The bound leaves room for a machine that is busy.
#[track_caller]
fn is_almost(left: Option<u64>, limit: u64) {
    let left = left.expect("seconds");
    assert!(left <= limit && left + 120 >= limit, "{left} of {limit}");
}

#[test]
fn a_stranger_is_nobody_and_has_a_token_to_sign_in_with() {
    for profile in Profile::ALL {
        let site = Site::new(profile);
        let whoami = Browser::new(&site).whoami();
        let nobody = Whoami {
            id: None,
            principal: None,
            class: "none".into(),
            created: None,
            idle_left_s: None,
            life_left_s: None,
            visits: 0,
            csrf: whoami.csrf.clone(),
        };
        assert_eq!(whoami, nobody);
    }
}

#[test]
fn an_anonymous_visitor_has_a_session_and_no_principal() {
    let site = Site::new(Profile::Development);
    let mut browser = Browser::anonymous(&site);
    assert_eq!(browser.visit(), 2);
    let whoami = browser.whoami();
    assert_eq!((&*whoami.class, whoami.visits, &whoami.principal), ("anonymous", 2, &None));
    is_about_now(whoami.created.as_deref());
    assert!(whoami.life_left_s.is_some_and(|left| left <= 24 * HOUR), "{whoami:?}");
    assert_eq!(browser.whoami().id, whoami.id, "the id stays");
}

#[test]
fn each_profile_has_its_own_deadlines() {
    let local = "`localhost`, `development`";
    for (profile, idle, life, row) in [
        (Profile::Localhost, 12 * HOUR, 24 * HOUR, local),
        (Profile::Development, 12 * HOUR, 24 * HOUR, local),
        (Profile::Lan, HOUR / 4, 8 * HOUR, "`lan`"),
        (Profile::Https, HOUR / 2, 12 * HOUR, "`https`"),
    ] {
        assert_eq!(spans(row), [idle, life], "the guide says so too");
        let site = Site::new(profile);
        let mut browser = Browser::new(&site);
        let signed_in = browser.sign_in("ada");
        let whoami = browser.whoami();
        assert_eq!((&*whoami.class, whoami.principal.as_deref(), whoami.visits), ("authenticated", Some("ada"), 0));
        assert_eq!(whoami.id.as_deref(), signed_in["id"].as_str());
        is_about_now(whoami.created.as_deref());
        is_almost(whoami.idle_left_s, idle);
        is_almost(whoami.life_left_s, life);
        let login = serde_json::json!({ "user": "ada", "password": "dwell", "remember": true });
        let mut browser = Browser::new(&site);
        browser.sign_in_with(&login);
        let whoami = browser.whoami();
        let [idle, life] = remembered_spans(row)[..] else { panic!("two spans") };
        is_almost(whoami.idle_left_s, idle);
        is_almost(whoami.life_left_s, life);
    }
}

#[test]
fn given_limits_replace_those_of_the_profile() {
    let site = Site::with(Profile::Lan, &["--idle", "90m", "--lifetime", "3h"]);
    let whoami = Browser::signed_in(&site, "ada").whoami();
    is_almost(whoami.idle_left_s, 3 * HOUR / 2);
    is_almost(whoami.life_left_s, 3 * HOUR);
}

#[test]
fn head_answers_as_get_does_and_sends_no_body() {
    let site = Site::new(Profile::Development);
    let mut browser = Browser::signed_in(&site, "ada");
    for target in ["/", "/whoami", "/sessions", "/healthz"] {
        let (get, head) = (browser.get(target), browser.request("HEAD", target));
        let head = browser.send(&head);
        let kept = |answer: &Answer| {
            let own = ["date", "content-length", "transfer-encoding", "content-security-policy"];
            let mut headers = answer.headers.clone();
            headers.retain(|(name, _)| !own.contains(&&**name));
            headers
        };
        assert_eq!((head.status, kept(&head)), (200, kept(&get)), "{target}");
        assert!(head.body.is_empty(), "{target}");
    }
}

/// Times that nobody asks with a cookie. `DWELL_READS` sets another number.
fn reads() -> usize {
    std::env::var("DWELL_READS").map_or(2_000, |reads| reads.parse().unwrap())
}

#[test]
fn asking_without_a_cookie_creates_nothing() {
    let site = Site::new(Profile::Development);
    // A commit of the start itself may still be under way in the first round, and in no other.
    let untouched = (0..3).any(|_| {
        let before = site.home.files();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| read_without_cookie(&site, reads() / 4));
            }
        });
        before == site.home.files()
    });
    assert!(untouched, "reading changes the files of the store");
    assert_eq!(site.killed_and_started().restored.sessions, 0);
}

fn read_without_cookie(site: &Site, times: usize) {
    let mut connection = Connection::open(&site.address);
    for turn in 0..times {
        let target = ["/whoami", "/whoami", "/", "/whoami", "/get?key=a", "/nowhere"][turn % 6];
        let answer = connection.ask(&site.request("GET", target)).sets_no_cookie();
        assert_eq!(answer.status, if target == "/nowhere" { 404 } else { 200 }, "{target}");
        if target == "/whoami" {
            assert!(Whoami::read(&answer).is_nobody());
        }
    }
}

#[test]
fn cookies_that_open_nothing_are_neither_taken_nor_cleared() {
    let (site, other) = (Site::new(Profile::Development), Site::new(Profile::Development));
    let name = Browser::anonymous(&site).cookie().split_once('=').unwrap().0.to_owned();
    let stranger = Browser::anonymous(&other).cookie();
    let foreign = stranger.split_once('=').unwrap().1;
    let before = site.home.files();
    let ended = {
        let mut browser = Browser::signed_in(&site, "ada");
        let cookie = browser.cookie();
        browser.post("/logout", &serde_json::json!({})).expect(204);
        cookie.split_once('=').unwrap().1.to_owned()
    };
    assert_ne!(before, site.home.files(), "what this test looks at does change");
    for value in ["", "junk", foreign, &ended, &foreign[1..], &foreign.to_uppercase(), &"x".repeat(5000)] {
        for target in ["/", "/whoami", "/get?key=a", "/healthz"] {
            let answer = site.ask(&site.request("GET", target).with("Cookie", format!("{name}={value}")));
            let answer = answer.expect(200).sets_no_cookie();
            assert!(target != "/whoami" || Whoami::read(&answer).is_nobody(), "{value}");
        }
    }
}
