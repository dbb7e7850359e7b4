//! Tokens that are replaced as time goes by, as browsers meet it.

use std::time::Duration;

use dwell::web::{Exchange, Site};
use dwell::{ErrorKind, ManualClock, Options};

use super::*;

const EVERY: Duration = Duration::from_secs(300);
const SECOND: Duration = Duration::from_secs(1);

struct World {
    site: Site,
    clock: ManualClock,
}

impl World {
    fn new(site: fn(dwell::Sessions) -> Site) -> Self {
        let clock = ManualClock::new();
        let options = Options::new().clock(clock.clone()).manual_workers().rotate_every(EVERY);
        Self { site: site(options.in_memory().unwrap()), clock }
    }

    fn pass(&self, time: Duration) {
        self.clock.advance(time);
        self.site.sessions().run_pending();
    }

    fn get(&self, cookie: &str) -> Exchange {
        open(&self.site, "GET", &[("Cookie", cookie)])
    }

    /// The cookie that the next answer to this one sets.
    fn offer(&self, cookie: &str) -> String {
        self.pass(EVERY);
        let exchange = self.get(cookie);
        assert!(exchange.session().is_some());
        assert_eq!(cookie_of(&exchange), None, "not on disk yet");
        self.pass(SECOND);
        assert_ne!(cookie_of(&exchange).as_deref(), Some(cookie));
        cookie_of(&exchange).expect("the answer may leave with it by now")
    }
}

fn who(exchange: &Exchange) -> Option<String> {
    Some(exchange.session()?.principal().unwrap()?.to_string())
}

#[test]
fn every_answer_to_the_old_cookie_sets_the_new_one_until_it_comes() {
    let world = World::new(Site::development);
    let first = signed_in(&world.site, "ada");
    let page_token = world.get(&first).csrf_token().unwrap();
    let second = world.offer(&first);
    let lines = [("Cookie", &*first), ("Origin", "http://localhost:3000"), ("X-CSRF-Token", &*page_token)];
    let posted = open(&world.site, "POST", &lines);
    posted.check_token(None).unwrap();
    assert_eq!(cookie_of(&posted).as_ref(), Some(&second));
    let late = world.get(&first);
    assert_eq!(who(&late).as_deref(), Some("ada"));
    assert_eq!(cookie_of(&late).as_ref(), Some(&second));
    let headers = late.headers().unwrap();
    assert!(headers.contains(&("cache-control", "no-store".into())), "{headers:?}");

    let newest = world.get(&second);
    assert_eq!(who(&newest).as_deref(), Some("ada"));
    assert_eq!(cookie_of(&newest), None, "the browser has it");
    assert_eq!(cookie_of(&late), None, "an answer that is late would only repeat it");
    let overlapping = world.get(&first);
    assert_eq!((who(&overlapping).as_deref(), cookie_of(&overlapping)), (Some("ada"), None));
    // Pages from before go on to work.
    let lines = [("Cookie", &*second), ("Origin", "http://localhost:3000"), ("X-CSRF-Token", &*page_token)];
    open(&world.site, "POST", &lines).check_token(None).unwrap();

    world.pass(Duration::from_secs(10));
    assert_eq!(who(&world.get(&first)), None, "a replay");
    assert_eq!(who(&world.get(&second)), None);
    assert_eq!(cookie_of(&world.get(&first)), None);
}

#[test]
fn an_answer_that_is_the_same_for_everybody_stays_so() {
    let world = World::new(Site::development);
    let first = signed_in(&world.site, "ada");
    let second = world.offer(&first);
    let image = world.get(&first);
    assert!(image.headers().unwrap().is_empty());
    image.csrf_token().unwrap();
    assert_eq!(cookie_of(&image), Some(second));
}

#[test]
fn what_ends_or_replaces_the_session_is_all_that_an_answer_says() {
    let world = World::new(Site::development);
    let first = signed_in(&world.site, "ada");
    let second = world.offer(&first);
    let (slow, leaving) = (world.get(&first), world.get(&first));
    assert!(slow.session().is_some());
    leaving.session().unwrap().destroy().unwrap().blocking_wait().unwrap();
    assert_eq!(cookie_of(&slow), None);
    let removal = leaving.headers().unwrap();
    assert!(removal.iter().any(|(_, value)| value.contains("Max-Age=0")), "{removal:?}");
    assert_eq!(who(&world.get(&second)), None);

    let first = signed_in(&world.site, "ada");
    let second = world.offer(&first);
    let (slow, rotating) = (world.get(&first), world.get(&first));
    assert!(slow.session().is_some());
    rotating.session().unwrap().rotate().unwrap().blocking_wait().unwrap();
    let third = cookie_of(&rotating).unwrap();
    assert!(third != first && third != second);
    assert_eq!(cookie_of(&slow), None);
    assert_eq!((who(&world.get(&first)), who(&world.get(&second))), (None, None));
    assert_eq!(who(&world.get(&third)).as_deref(), Some("ada"));

    let first = signed_in(&world.site, "ada");
    let second = world.offer(&first);
    let stale = world.get(&first);
    assert!(world.get(&second).session().is_some());
    let refused = stale.session_for_sign_in().sign_in("ada").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Gone);
    assert_eq!(cookie_of(&stale), None);
}

#[test]
fn polls_begin_nothing_and_are_told_of_what_others_began() {
    let world = World::new(Site::development);
    let first = signed_in(&world.site, "ada");
    let poll = || {
        let lines = [("Cookie", &*first)];
        let request = request("GET", &lines).passive();
        let exchange = world.site.admit(&request).unwrap().open().unwrap();
        assert_eq!(who(&exchange).as_deref(), Some("ada"));
        cookie_of(&exchange)
    };
    for _ in 0..3 {
        world.pass(EVERY);
        assert_eq!(poll(), None);
    }
    assert!(world.get(&first).session().is_some());
    world.pass(SECOND);
    assert!(poll().is_some());
}

#[test]
fn the_companion_stays_and_a_request_without_it_is_handed_nothing() {
    let world = World::new(Site::localhost);
    let exchange = open(&world.site, "GET", &[]);
    exchange.session_for_sign_in().sign_in("ada").unwrap().blocking_wait().unwrap();
    let (first, companion) = (cookie_of(&exchange).unwrap(), exchange.companion().unwrap().unwrap());
    let with = |cookie: &str| {
        let exchange = open(&world.site, "GET", &[("Cookie", cookie), ("X-Companion", &companion)]);
        assert_eq!(who(&exchange).as_deref(), Some("ada"));
        cookie_of(&exchange)
    };
    world.pass(EVERY);
    assert!(world.get(&first).is_locked());
    world.pass(SECOND);
    assert_eq!(with(&first), None, "somebody without the companion begins nothing");
    world.pass(SECOND);
    let locked = world.get(&first);
    assert!(locked.is_locked());
    assert_eq!(cookie_of(&locked), None);
    let second = with(&first).expect("a successor");
    assert_eq!(with(&second), None);
}

#[test]
fn programs_get_the_successor_in_the_header_of_tokens() {
    let world = World::new(|sessions| Site::development(sessions).by_header());
    let exchange = open(&world.site, "GET", &[]);
    exchange.session_for_sign_in().sign_in("ada").unwrap().blocking_wait().unwrap();
    let first = format!("Bearer {}", exchange.token().unwrap());
    let get = |token: &str| open(&world.site, "GET", &[("Authorization", token)]);
    world.pass(EVERY);
    assert!(get(&first).session().is_some());
    world.pass(SECOND);
    let exchange = get(&first);
    assert!(exchange.session().is_some());
    let second = exchange.token().unwrap();
    assert!(exchange.headers().unwrap().contains(&("session-token", second.clone().into())));
    let exchange = get(&format!("Bearer {second}"));
    assert!(exchange.session().is_some());
    assert_eq!(exchange.token(), None);
}

#[test]
fn a_remembered_cookie_stays_one() {
    let world = World::new(Site::development);
    let exchange = open(&world.site, "GET", &[]);
    let who = dwell::SignIn::new("ada").remembered();
    exchange.session_for_sign_in().sign_in(who).unwrap().blocking_wait().unwrap();
    let first = cookie_of(&exchange).unwrap();
    world.offer(&first);
    let exchange = world.get(&first);
    assert!(exchange.session().is_some());
    let headers = exchange.headers().unwrap();
    let (_, cookie) = headers.iter().find(|(name, _)| *name == "set-cookie").unwrap();
    let left = 30 * 24 * 3600 - 301;
    assert!(cookie.contains(&format!("Max-Age={left}")) && cookie.contains("HttpOnly"), "{cookie}");
}
