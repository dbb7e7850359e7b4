//! `/live`: why a session ended, told as it happens, and nothing that keeps it alive.

use std::time::Duration;

use serde_json::{Value, json};

use super::browser::Browser;
use super::expiry::some_time_passes;
use super::site::{Profile, Site, eventually};
use super::stream::{Event, Stream, request};

const PATIENCE: Duration = Duration::from_secs(60);
/// How many a session may have.
const STREAMS: usize = 4;

/// How many are open, as the server counts.
fn open(site: &Site) -> u64 {
    site.ask(&site.request("GET", "/healthz")).json()["streams"].as_u64().unwrap()
}

#[track_caller]
fn come_down_to(site: &Site, count: u64) {
    eventually(PATIENCE, || (open(site) == count).then_some(())).expect("a stream is left behind");
}

#[test]
fn a_sign_out_is_told_to_every_tab() {
    for profile in Profile::ALL {
        let site = Site::new(profile);
        let mut here = Browser::signed_in(&site, "ada");
        let eve = Browser::signed_in(&site, "eve");
        let (mut one, mut two, mut hers) = (Stream::open(&here), Stream::open(&here.clone()), Stream::open(&eve));
        assert_eq!(open(&site), 3);
        here.post("/logout", &json!({})).expect(204);
        assert_eq!((one.reason(), two.reason()), ("signed_out".into(), "signed_out".into()));
        come_down_to(&site, 1);
        eve.clone().post("/logout", &json!({})).expect(204);
        assert_eq!(hers.reason(), "signed_out");
    }
}

#[test]
fn a_sign_out_from_another_device_is_told() {
    let site = Site::new(Profile::Localhost);
    let mut here = Browser::signed_in(&site, "ada");
    for others in [false, true] {
        let mut there = Browser::signed_in(&site, "ada");
        let mut stream = Stream::open(&there);
        let what = if others { json!({ "others": true }) } else { json!({ "id": there.id() }) };
        assert_eq!(here.post("/sessions/revoke", &what).expect(200).json()["revoked"], 1);
        assert_eq!(stream.reason(), "revoked", "{what}");
        there.is_nobody();
    }
    let (mut own, there) = (Stream::open(&here), Browser::signed_in(&site, "ada"));
    let mut stream = Stream::open(&there);
    assert_eq!(here.post("/sessions/revoke", &json!({ "all": true })).expect(200).json()["revoked"], 2);
    assert_eq!((own.reason(), stream.reason()), ("revoked".into(), "revoked".into()));
    come_down_to(&site, 0);
}

#[test]
fn an_open_stream_keeps_no_session_alive() {
    for (arguments, reason) in [(["--idle", "2s"], "idle"), (["--lifetime", "2s"], "lifetime")] {
        let site = Site::with(Profile::Development, &arguments);
        let mut browser = Browser::signed_in(&site, "ada");
        let mut guest = Browser::anonymous(&site);
        let (mut stream, mut guests) = (Stream::open(&browser), Stream::open(&guest));
        assert_eq!((stream.reason(), guests.reason()), (reason.into(), reason.into()));
        browser.is_nobody();
        guest.is_nobody();
    }
}

#[test]
fn neither_an_open_stream_nor_opening_one_is_use() {
    let site = Site::with(Profile::Localhost, &["--idle", "10m"]);
    let mut browser = Browser::signed_in(&site, "ada");
    let left = some_time_passes(&mut browser);
    let mut streams = vec![Stream::open(&browser)];
    streams.push(Stream::ask(browser.address(), &request(&browser).without("X-Passive")));
    assert!(browser.passive().idle_left_s <= Some(left));
    browser.post("/logout", &json!({})).expect(204);
    streams.iter_mut().for_each(|stream| assert_eq!(stream.reason(), "signed_out"));
}

#[test]
fn a_sign_in_replaces_the_session_and_an_elevation_does_not() {
    let site = Site::new(Profile::Localhost);
    let mut browser = Browser::anonymous(&site);
    let mut guests = Stream::open(&browser);
    browser.sign_in("ada");
    assert_eq!(guests.reason(), "replaced");
    let mut first = Stream::open(&browser);
    browser.elevate("ada");
    browser.set("a", "b");
    let mut later = Stream::open(&browser);
    assert_eq!(open(&site), 2, "it goes on under the new token");
    browser.sign_in("ada");
    assert_eq!((first.reason(), later.reason()), ("replaced".into(), "replaced".into()));
}

#[test]
fn a_session_that_makes_room_for_another_is_told() {
    let site = Site::with(Profile::Development, &["--max-per-user", "1"]);
    let mut first = Stream::open(&Browser::signed_in(&site, "ada"));
    let mut second = Stream::open(&Browser::signed_in(&site, "ada"));
    assert_eq!(first.reason(), "limit");
    come_down_to(&site, 1);
    let _third = Browser::signed_in(&site, "ada");
    assert_eq!(second.reason(), "limit");
}

#[cfg(unix)]
#[test]
fn a_stop_is_told_to_everybody_and_waits_for_nobody() {
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let mut site = Site::new(Profile::Development);
        let browsers: Vec<Browser> = (0..50).map(|user| Browser::signed_in(&site, &format!("user {user}"))).collect();
        let mut streams: Vec<Stream> = browsers.iter().map(Stream::open).collect();
        // One that nobody reads.
        let _deaf = Stream::open(&browsers[0]);
        let status = site.stop(signal);
        assert_eq!(status.code(), Some(0), "{signal:?}: {status}");
        streams.iter_mut().for_each(|stream| assert_eq!(stream.reason(), "shutdown"));
        let site = site.started_again();
        assert_eq!(site.restored.sessions, 50);
        browsers[7].moved_to(&site).is("user 7", 0);
    }
}

#[test]
fn a_kill_cuts_it_off_and_ends_no_session() {
    let mut site = Site::new(Profile::Localhost);
    let browser = Browser::signed_in(&site, "ada");
    let mut stream = Stream::open(&browser);
    site.kill();
    assert!(stream.is_cut_off());
    let site = site.started_again();
    let mut browser = browser.moved_to(&site);
    let mut stream = Stream::open(&browser);
    browser.post("/logout", &json!({})).expect(204);
    assert_eq!(stream.reason(), "signed_out");
}

#[test]
fn who_hangs_up_leaves_nothing_behind() {
    let site = Site::new(Profile::Development);
    let browsers: Vec<Browser> = (0..20).map(|user| Browser::signed_in(&site, &format!("user {user}"))).collect();
    for _ in 0..3 {
        let streams: Vec<Stream> =
            browsers.iter().flat_map(|browser| [Stream::open(browser), Stream::open(browser)]).collect();
        assert_eq!(open(&site), 40);
        drop(streams);
        come_down_to(&site, 0);
    }
}

#[test]
fn the_oldest_stream_of_a_session_gives_way() {
    let site = Site::new(Profile::Development);
    let mut browser = Browser::signed_in(&site, "ada");
    let mut others = Stream::open(&Browser::signed_in(&site, "ada"));
    let mut streams: Vec<Stream> = (0..STREAMS).map(|_| Stream::open(&browser)).collect();
    let newest = Stream::open(&browser);
    let mut oldest = streams.remove(0);
    let data = json!({ "reason": "too_many_streams" });
    assert_eq!(oldest.next(), Some(Event { name: "closed".into(), data }));
    assert_eq!(oldest.next(), None);
    assert_eq!(open(&site), 5);
    streams.push(newest);
    browser.post("/logout", &json!({})).expect(204);
    streams.iter_mut().for_each(|stream| assert_eq!(stream.reason(), "signed_out"));
    browser.sign_in("ada");
    browser.post("/sessions/revoke", &json!({ "others": true })).expect(200);
    assert_eq!(others.reason(), "revoked");
}

#[test]
fn who_has_no_session_has_no_stream() {
    for profile in Profile::ALL {
        let site = Site::new(profile);
        let mut stranger = Browser::new(&site);
        let bare = request(&stranger);
        stranger.send(&bare).refused(401, "sign_in_required").is_private();
        let page = bare.set("Accept", "text/html,*/*");
        let sent = stranger.send(&page).expect(303).sets_no_cookie();
        assert_eq!(sent.header("Location"), Some("/"));
        let mut gone = Browser::signed_in(&site, "ada");
        let cookie = gone.jar.clone();
        gone.post("/logout", &json!({})).expect(204);
        gone.jar = cookie;
        let dead = request(&gone);
        gone.send(&dead).refused(401, "sign_in_required");
        assert_eq!(open(&site), 0);
    }
}

#[test]
fn no_page_of_others_opens_one_and_looking_at_its_head_is_none() {
    for profile in Profile::ALL {
        let site = Site::new(profile);
        let mut ada = Browser::signed_in(&site, "ada");
        let right = request(&ada);
        // A page of others may ask for anything, or for nothing in particular.
        for right in [right.clone(), right.clone().set("Accept", "*/*"), right.clone().without("Accept")] {
            for (name, value) in [
                ("Origin", "http://evil.example"),
                ("Origin", "null"),
                ("Sec-Fetch-Site", "cross-site"),
                ("Sec-Fetch-Site", "same-site"),
            ] {
                ada.send(&right.clone().with(name, value)).refused(403, "origin");
            }
        }
        ada.send(&right.clone().set("Host", "evil.example")).refused(421, "host");
        let mut head = right.clone();
        head.method = "HEAD".into();
        let head = ada.send(&head).expect(200).sets_no_cookie();
        assert_eq!(head.header("Content-Type"), Some("text/event-stream"));
        head.is_private();
        assert_eq!(open(&site), 0);
        let own = right.with("Origin", site.origin()).with("Sec-Fetch-Site", "same-origin");
        let _streams = [Stream::ask(ada.address(), &own), Stream::ask(ada.address(), &own.set("Accept", "*/*"))];
        assert_eq!(open(&site), 2);
    }
}

#[test]
fn it_is_silent_while_the_session_is_used_by_many() {
    let site = Site::new(Profile::Development);
    let mut ada = Browser::signed_in(&site, "ada");
    ada.token();
    let mut stream = Stream::open(&ada);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let mut tab = ada.clone();
            scope.spawn(move || (0..100).for_each(|_| assert!(tab.visit() > 0)));
        }
        let mut other = Browser::new(&site);
        scope.spawn(move || (0..20).for_each(|_| drop::<Value>(other.sign_in("ada"))));
    });
    assert_eq!(open(&site), 1);
    assert_eq!(ada.passive().visits, 400);
    ada.post("/logout", &json!({})).expect(204);
    assert_eq!(stream.reason(), "signed_out", "and nothing was said before");
}
