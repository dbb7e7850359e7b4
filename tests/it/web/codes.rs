//! Codes that open a session once.

use std::time::Duration;

use dwell::{Class, ErrorKind, ManualClock, SignIn};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn timed() -> (ManualClock, Site) {
    let clock = ManualClock::new();
    let options = Options::new().clock(clock.clone()).manual_workers();
    let options = options.idle_timeout(3600 * SECOND).lifetime(7200 * SECOND);
    (clock, Site::development(options.in_memory().unwrap()))
}

fn code_of(site: &Site, cookie: &str) -> String {
    open(site, "POST", &[("Cookie", cookie), ("Origin", "http://localhost:3000")]).hand_off().unwrap()
}

/// A browser without a session that uses a code.
fn redeem(site: &Site, code: &str) -> Option<Exchange> {
    let exchange = open(site, "GET", &[]);
    exchange.redeem(code).unwrap()?.blocking_wait().unwrap();
    Some(exchange)
}

#[test]
fn a_code_holds_a_minute() {
    for (seconds, holds) in [(0, true), (59, true), (60, false), (61, false), (100_000, false)] {
        let (clock, site) = timed();
        let cookie = signed_in(&site, "ada");
        let (handed, launched) = (code_of(&site, &cookie), site.launch_code("bob").unwrap());
        clock.advance(seconds * SECOND);
        for code in [handed, launched] {
            assert_eq!(open(&site, "GET", &[]).code_principal(&code).is_some(), holds, "after {seconds} s");
            assert_eq!(redeem(&site, &code).is_some(), holds, "after {seconds} s");
            assert!(redeem(&site, &code).is_none(), "once");
        }
    }
}

#[test]
fn what_a_code_opens_ends_no_later_and_is_no_proof() {
    let (clock, site) = timed();
    let cookie = signed_in(&site, "ada");
    clock.advance(1000 * SECOND);
    let code = code_of(&site, &cookie);
    clock.advance(10 * SECOND);
    let session = redeem(&site, &code).unwrap().session().unwrap();
    assert_eq!(session.principal().unwrap().as_deref(), Some("ada"));
    assert_eq!(session.life_left().unwrap(), Some((7200 - 1010) * SECOND));
    assert_eq!(session.auth_age().unwrap(), Some(1010 * SECOND), "who followed a link has proved nothing");
    assert_eq!(session.idle_left().unwrap(), Some(3600 * SECOND));
}

#[test]
fn a_launch_code_opens_what_it_was_made_for() {
    let (_, site) = timed();
    let who = SignIn::new("ada").method(7).device("the program itself").pending();
    let session = redeem(&site, &site.launch_code(who).unwrap()).unwrap().session().unwrap();
    assert_eq!(session.class().unwrap(), Class::Pending, "it grants no more than was said");
    assert_eq!(site.launch_code("").unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn a_code_is_void_when_the_request_that_made_it_goes_on_to_another_token_or_person() {
    let (_, site) = timed();
    let made = |who: &str| {
        let exchange = open(&site, "POST", &[("Cookie", &signed_in(&site, who)), ("Origin", "http://localhost:3000")]);
        let code = exchange.hand_off().unwrap();
        (exchange.session().unwrap(), code)
    };
    let (session, code) = made("ada");
    session.reauthenticate(1).unwrap().blocking_wait().unwrap();
    assert!(redeem(&site, &code).is_none());
    let (session, code) = made("ada");
    session.sign_in("eve").unwrap().blocking_wait().unwrap();
    site.sessions().revoke_all("ada").unwrap().blocking_wait().unwrap();
    assert!(redeem(&site, &code).is_none(), "eve's session is not the one it is for");
    let (session, code) = made("ada");
    session.set(VISITS, &1).unwrap();
    assert!(redeem(&site, &code).is_some());
}

#[test]
fn nobody_and_half_a_sign_in_hand_nothing_over() {
    let (_, site) = timed();
    assert_eq!(open(&site, "GET", &[]).hand_off().unwrap_err().kind(), ErrorKind::Refused);
    let exchange = open(&site, "GET", &[]);
    exchange.session_for_sign_in().set(VISITS, &1).unwrap();
    assert_eq!(exchange.hand_off().unwrap_err().kind(), ErrorKind::Refused, "anonymous");
    let exchange = open(&site, "GET", &[]);
    exchange.session_for_sign_in().sign_in(SignIn::new("ada").pending()).unwrap().blocking_wait().unwrap();
    assert_eq!(exchange.hand_off().unwrap_err().kind(), ErrorKind::Refused, "pending");
}

#[test]
fn the_oldest_code_of_a_person_gives_way_and_nobody_elses() {
    let (clock, site) = timed();
    let (ada, eve) = (signed_in(&site, "ada"), signed_in(&site, "eve"));
    let eves = code_of(&site, &eve);
    let adas: Vec<_> = (0..10)
        .map(|_| {
            clock.advance(SECOND);
            code_of(&site, &ada)
        })
        .collect();
    let holds: Vec<_> = adas.iter().map(|code| open(&site, "GET", &[]).code_principal(code).is_some()).collect();
    assert_eq!(holds, [false, false, true, true, true, true, true, true, true, true]);
    assert!(redeem(&site, &eves).is_some());
}

#[test]
fn no_other_text_is_a_code_and_no_code_is_another_text() {
    let (_, site) = timed();
    let cookie = signed_in(&site, "ada");
    let exchange = open(&site, "GET", &[("Cookie", &cookie)]);
    let code = exchange.hand_off().unwrap();
    let token = cookie.split_once('=').unwrap().1;
    let handle = exchange.session().unwrap().id().unwrap().to_string();
    let csrf = exchange.csrf_token().unwrap();
    let others = [token, &handle, &csrf, "", "sid_u1_", &code[..code.len() - 1], &format!("{code}A"), &code[7..]];
    for other in others {
        assert!(exchange.code_principal(other).is_none() && exchange.redeem(other).unwrap().is_none(), "{other}");
    }
    assert!(dwell::Token::parse(&code).is_none());
    assert!(exchange.check_token(Some(&code)).is_ok(), "reading needs no token");
    let post = open(&site, "POST", &[("Cookie", &cookie), ("Origin", "http://localhost:3000")]);
    assert!(post.check_token(Some(&code)).is_err());
    let other = Site::development(site.sessions().clone());
    assert!(redeem(&other, &code).is_none(), "a code is the site's that made it");
    assert!(redeem(&site.clone(), &code).is_some(), "which its clones are");
}
