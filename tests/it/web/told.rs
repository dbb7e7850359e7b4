//! What is told of requests that were refused, and what a site does that only tells.

use std::time::Duration;

use dwell::{Events, ManualClock, RequestFlaw, What};

use super::*;

const OWN: (&str, &str) = ("Origin", "http://localhost:3000");
const FOREIGN: (&str, &str) = ("Origin", "https://evil.example");

fn timed() -> (ManualClock, Sessions) {
    let clock = ManualClock::new();
    let sessions = Options::new().clock(clock.clone()).manual_workers().in_memory().unwrap();
    (clock, sessions)
}

/// The refusals that were told: why, how many, and whether they were let through.
fn told(events: &mut Events, sessions: &Sessions) -> Vec<(RequestFlaw, u64, bool)> {
    sessions.run_pending();
    let all = std::iter::from_fn(|| events.try_next());
    let refusals = all.filter_map(|event| match event.what {
        What::RequestsRefused { why, count, let_through, .. } => Some((why, count, let_through)),
        _ => None,
    });
    refusals.collect()
}

#[test]
fn each_kind_of_refusal_is_told_with_its_reason() {
    let (_, sessions) = timed();
    let mut events = sessions.events();
    let site = Site::localhost(sessions.clone());
    let cookie = signed_in(&site, "ada");
    let other = signed_in(&site, "eve");
    assert_eq!(told(&mut events, &sessions), []);

    site.admit(&request("GET", &[("Host", "evil.example")])).unwrap_err();
    assert_eq!(told(&mut events, &sessions), [(RequestFlaw::Host, 1, false)]);
    site.admit(&request("POST", &[FOREIGN])).unwrap_err();
    assert_eq!(told(&mut events, &sessions), [(RequestFlaw::Page, 1, false)]);
    open(&site, "POST", &[OWN]).check_token(None).unwrap_err();
    assert_eq!(told(&mut events, &sessions), [(RequestFlaw::Token, 1, false)]);
    open(&site, "POST", &[OWN, ("Cookie", &cookie)]).check_token(None).unwrap_err();
    assert_eq!(told(&mut events, &sessions), [(RequestFlaw::Companion, 1, false)]);
    assert!(open(&site, "GET", &[("Cookie", &format!("{cookie}; {other}"))]).session().is_none());
    assert_eq!(told(&mut events, &sessions), [(RequestFlaw::Cookies, 1, false)]);
    let names = [RequestFlaw::Host, RequestFlaw::Page, RequestFlaw::Token, RequestFlaw::Companion];
    assert_eq!(names.map(|flaw| flaw.as_str()), ["host", "page", "token", "companion"]);
}

#[cfg(feature = "rate-limit")]
#[test]
fn what_begins_too_often_is_told() {
    let (_, sessions) = timed();
    let mut events = sessions.events();
    let site = Site::development(sessions.clone());
    let site = site.new_sessions(dwell::web::NewSessions::unlimited().per_second(2));
    let begun = (0..5).filter(|_| {
        let session = open(&site, "GET", &[]).session_for_sign_in();
        session.set(VISITS, &1).is_ok()
    });
    assert_eq!(begun.count(), 2);
    assert_eq!(told(&mut events, &sessions), [(RequestFlaw::Flood, 1, false)], "the others with the next");
}

#[cfg(feature = "rate-limit")]
#[test]
fn missing_addresses_are_told_once_where_they_would_make_a_difference() {
    let begin = |site: &Site, request: Request<'_>| {
        let exchange = site.admit(&request.headers([("Host", &b"app.localhost"[..])])).unwrap().open().unwrap();
        exchange.session_for_sign_in().set(VISITS, &1).unwrap();
    };
    let peer = "192.0.2.1:7000".parse().unwrap();
    let (clock, sessions) = timed();
    let mut events = sessions.events();
    let site = Site::https(sessions.clone(), "app.localhost").unwrap();
    begin(&site, Request::new("GET").peer_address(peer));
    assert_eq!(told(&mut events, &sessions), []);
    for _ in 0..3 {
        begin(&site, Request::new("GET"));
    }
    assert_eq!(told(&mut events, &sessions), [(RequestFlaw::NoAddress, 1, true)]);
    assert_eq!(RequestFlaw::NoAddress.as_str(), "no_address");

    let forwarded = || {
        let header = [("X-Forwarded-For", &b"192.0.2.1"[..])];
        Request::new("GET").headers(header).peer_address("127.0.0.1:7000".parse().unwrap())
    };
    clock.advance(Duration::from_secs(1));
    let unnamed = Site::https(sessions.clone(), "app.localhost").unwrap();
    begin(&unnamed, Request::new("GET").peer_address("127.0.0.1:7000".parse().unwrap()));
    begin(&unnamed.clone().trusted_proxy("127.0.0.1").unwrap(), forwarded());
    assert_eq!(told(&mut events, &sessions), []);
    for _ in 0..3 {
        begin(&unnamed, forwarded());
    }
    assert_eq!(told(&mut events, &sessions), [(RequestFlaw::NoAddress, 1, true)], "a proxy that nobody named");

    let unlimited = dwell::web::NewSessions::default().per_client_per_minute(0);
    let elsewhere = [
        Site::https(sessions.clone(), "app.localhost").unwrap().new_sessions(unlimited),
        Site::development(sessions.clone()).allow_host("app.localhost").unwrap(),
    ];
    for site in elsewhere {
        begin(&site, Request::new("GET"));
        assert_eq!(told(&mut events, &sessions), []);
    }
}

#[test]
fn the_cookie_of_another_store_is_told_once_an_hour() {
    let (clock, sessions) = timed();
    let mut events = sessions.events();
    let site = Site::development(sessions.clone());
    let other = signed_in(&Site::development(Options::new().in_memory().unwrap()), "eve");
    let own = signed_in(&site, "ada");
    told(&mut events, &sessions);

    assert!(open(&site, "GET", &[("Cookie", &own)]).session().is_some());
    assert_eq!(told(&mut events, &sessions), []);
    for _ in 0..3 {
        let found = open(&site.clone(), "GET", &[("Cookie", &format!("{other}; {own}"))]);
        assert_eq!(found.session().unwrap().principal().unwrap().as_deref(), Some("ada"), "it changes nothing");
        clock.advance(Duration::from_secs(1));
    }
    assert_eq!(told(&mut events, &sessions), [(RequestFlaw::Neighbour, 1, true)]);
    assert_eq!(RequestFlaw::Neighbour.as_str(), "neighbour");

    clock.advance(Duration::from_secs(3_600));
    open(&site, "GET", &[("Cookie", &other)]);
    open(&site, "GET", &[("Cookie", &other)]);
    assert_eq!(told(&mut events, &sessions), [(RequestFlaw::Neighbour, 1, true)], "an hour later");

    // What one store's sites say of each other's cookies would be noise.
    let admin = Site::development(sessions.clone()).named("admin").unwrap();
    open(&admin, "GET", &[("Cookie", &own)]);
    assert_eq!(told(&mut events, &sessions), []);
}

#[test]
fn many_refusals_are_one_event_a_second() {
    let (clock, sessions) = timed();
    let mut events = sessions.events();
    let site = Site::development(sessions.clone());
    let refuse = |count: usize| {
        for _ in 0..count {
            site.admit(&request("POST", &[FOREIGN])).unwrap_err();
        }
    };
    refuse(100);
    assert_eq!(told(&mut events, &sessions), [(RequestFlaw::Page, 1, false)]);
    clock.advance(Duration::from_secs(1));
    refuse(50);
    assert_eq!(told(&mut events, &sessions), [(RequestFlaw::Page, 100, false)], "99 from before and one");
    clock.advance(Duration::from_secs(60));
    refuse(1);
    assert_eq!(told(&mut events, &sessions), [(RequestFlaw::Page, 50, false)]);
}

#[test]
fn a_site_that_only_logs_lets_forged_requests_through_and_nothing_else() {
    let (_, sessions) = timed();
    let mut events = sessions.events();
    let site = Site::localhost(sessions.clone()).dangerous().log_only();
    let cookie = signed_in(&site, "ada");
    let lines = [FOREIGN, ("Sec-Fetch-Site", "cross-site")];
    let exchange = open(&site, "POST", &lines);
    assert!(exchange.check_token(None).is_ok());
    let expected = [(RequestFlaw::Page, 1, true), (RequestFlaw::Token, 1, true)];
    assert_eq!(told(&mut events, &sessions), expected);
    assert_eq!(site.admit(&request("POST", &[("Host", "evil.example")])).unwrap_err().status(), 400, "two hosts");
    let locked = open(&site, "POST", &[OWN, ("Cookie", &cookie)]);
    assert_eq!(locked.check_token(None).unwrap_err().code(), "companion");
    assert!(locked.session().is_none());
    let expected = [(RequestFlaw::Host, 1, false), (RequestFlaw::Companion, 1, false)];
    assert_eq!(told(&mut events, &sessions), expected);
}
