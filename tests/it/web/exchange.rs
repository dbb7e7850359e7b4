//! One request and its session, without a server.

use dwell::web::{Opened, Site};
use dwell::{ManualClock, Options, RequestFlaw, SignIn, What};

use super::*;

#[test]
fn looking_creates_nothing() {
    let site = Site::development(sessions());
    let exchange = open(&site, "GET", &[]);
    assert!(exchange.session().is_none());
    assert_eq!(exchange.session_or_new().unwrap().get(VISITS).unwrap(), None);
    exchange.csrf_token().unwrap();
    assert_eq!(cookie_of(&exchange), None);
    assert_eq!(site.sessions().stats().sessions, 0);
}

#[test]
fn the_first_write_sets_a_cookie_that_finds_the_session() {
    let site = Site::development(sessions());
    let first = open(&site, "GET", &[]);
    first.session_or_new().unwrap().set(VISITS, &7).unwrap();
    let cookie = cookie_of(&first).unwrap();
    let second = open(&site, "GET", &[("Cookie", &cookie)]);
    assert_eq!(second.session().unwrap().get(VISITS).unwrap(), Some(7));
    assert_eq!(cookie_of(&second), None, "the browser has it already");
}

#[test]
fn a_token_that_was_not_issued_never_becomes_one() {
    let (ours, foreign) = (Site::development(sessions()), Site::development(sessions()));
    let foreign_cookie = signed_in(&foreign, "mallory");
    let planted = format!("{}={}", ours.cookie_name(), foreign_cookie.split_once('=').unwrap().1);
    let exchange = open(&ours, "GET", &[("Cookie", &planted)]);
    assert!(exchange.session().is_none());
    exchange.session_or_new().unwrap().set(VISITS, &1).unwrap();
    let cookie = cookie_of(&exchange).unwrap();
    assert_ne!(cookie, planted);
    assert!(open(&ours, "GET", &[("Cookie", &planted)]).session().is_none());
}

#[test]
fn of_several_cookies_only_an_unambiguous_one_counts() {
    let site = Site::development(sessions());
    let (ada, eve) = (signed_in(&site, "ada"), signed_in(&site, "eve"));
    let name = site.cookie_name().to_owned();
    let who = |lines: Lines<'_>| {
        let session = open(&site, "GET", lines).session()?;
        Some(session.principal().unwrap().unwrap().to_string())
    };
    let junk = format!("{name}=junk; {name}=; {name}=sid_s1A_x; {name}=\"; {name}; x=y");
    assert_eq!(who(&[("Cookie", &junk), ("Cookie", &ada)]).as_deref(), Some("ada"));
    assert_eq!(who(&[("Cookie", &ada), ("Cookie", &junk)]).as_deref(), Some("ada"));
    assert_eq!(who(&[("Cookie", &format!("{ada}; {ada}"))]).as_deref(), Some("ada"));
    assert_eq!(who(&[("Cookie", &format!("{eve}; {ada}"))]), None);
    assert_eq!(who(&[("Cookie", &ada), ("Cookie", &eve)]), None);
    // Well-formed tokens of nobody, as many as are looked up at most, and one more.
    let foreign = Site::development(sessions());
    let dead: Vec<String> =
        (0..4).map(|_| format!("{name}={}", signed_in(&foreign, "mallory").split_once('=').unwrap().1)).collect();
    assert_eq!(who(&[("Cookie", &dead[..3].join("; ")), ("Cookie", &ada)]).as_deref(), Some("ada"));
    assert_eq!(who(&[("Cookie", &dead.join("; ")), ("Cookie", &ada)]), None);
}

#[test]
fn more_cookies_than_are_read_make_nobody_of_the_request() {
    let options = Options::new().clock(ManualClock::new()).manual_workers();
    let site = Site::development(options.in_memory().unwrap());
    let mut events = site.sessions().events();
    let ada = signed_in(&site, "ada");
    let token = open(&site, "GET", &[("Cookie", &ada)]).csrf_token().unwrap();
    let long = |bytes: usize| format!("x={}", "y".repeat(bytes - ada.len() - 2));
    let many = |pairs: usize| vec!["x=y"; pairs - 1].join(";");
    let cases = [(long(16 << 10), true), (long((16 << 10) + 1), false), (many(256), true), (many(257), false)];
    for (others, is_read) in &cases {
        for lines in [[("Cookie", others.as_str()), ("Cookie", &ada)], [("Cookie", &ada), ("Cookie", others)]] {
            let exchange = open(&site, "GET", &lines);
            assert_eq!(exchange.session().is_some(), *is_read, "{} bytes", others.len());
            assert!(exchange.finish_blocking().unwrap().iter().all(|(name, _)| *name != "set-cookie"));
            let change = [lines[0], lines[1], ("Origin", "http://localhost:3000"), ("X-CSRF-Token", &token)];
            assert_eq!(open(&site, "POST", &change).check_token(None).is_ok(), *is_read);
            // What may be ours is not taken for nothing: a browser would have said where it comes from.
            let silent = site.admit(&request("POST", &lines));
            assert_eq!(silent.err().map(|refusal| refusal.code()), Some("origin"));
        }
    }
    assert!(open(&site, "GET", &[("Cookie", &ada)]).session().is_some(), "the session is as it was");
    site.sessions().run_pending();
    let mut told = std::iter::from_fn(|| events.try_next());
    assert!(told.any(|event| matches!(event.what, What::RequestsRefused { why: RequestFlaw::Cookies, .. })));
}

#[test]
fn a_changing_request_shows_the_token_of_its_own_session() {
    let site = Site::development(sessions());
    let (ada, eve) = (signed_in(&site, "ada"), signed_in(&site, "eve"));
    let token = |cookie: &str| open(&site, "GET", &[("Cookie", cookie)]).csrf_token().unwrap();
    let (of_ada, of_eve, of_nobody) = (token(&ada), token(&eve), open(&site, "GET", &[]).csrf_token().unwrap());
    let origin = ("Origin", "http://localhost:3000");
    let check = |cookie: Option<&str>, lines: Lines<'_>, field: Option<&str>| {
        let cookie = cookie.map(|cookie| ("Cookie", cookie));
        let all: Vec<_> = [origin].into_iter().chain(cookie).chain(lines.iter().copied()).collect();
        open(&site, "POST", &all).check_token(field).map_err(|refusal| (refusal.status(), refusal.code()))
    };
    let refused = Err((403, "csrf"));
    assert_eq!(check(Some(&ada), &[("X-CSRF-Token", &of_ada)], None), Ok(()));
    assert_eq!(check(Some(&ada), &[], Some(&of_ada)), Ok(()));
    assert_eq!(check(None, &[("x-csrf-token", &of_nobody)], None), Ok(()));
    assert_eq!(check(None, &[], Some(&of_nobody)), Ok(()));
    assert_eq!(check(Some(&ada), &[], None), refused);
    assert_eq!(check(Some(&ada), &[("X-CSRF-Token", &of_eve)], None), refused);
    assert_eq!(check(Some(&ada), &[("X-CSRF-Token", &of_nobody)], None), refused, "that is for visitors without one");
    assert_eq!(check(None, &[("X-CSRF-Token", &of_ada)], None), refused);
    assert_eq!(check(Some(&ada), &[("X-CSRF-Token", &of_ada), ("X-CSRF-Token", &of_ada)], None), refused);
    assert_eq!(check(Some(&ada), &[("X-CSRF-Token", "")], Some(&of_ada)), refused, "the header decides");
    assert_eq!(check(Some(&ada), &[("X-CSRF-Token", &of_ada[1..])], None), refused);
    let of_ada_again = token(&ada);
    assert_ne!(of_ada, of_ada_again);
    assert_eq!(check(Some(&ada), &[("X-CSRF-Token", &of_ada_again)], None), Ok(()));
}

#[test]
fn a_token_ends_with_its_generation_and_its_hour() {
    let clock = ManualClock::new();
    let site = Site::development(Options::new().clock(clock.clone()).in_memory().unwrap());
    let exchange = open(&site, "GET", &[]);
    let session = exchange.session_for_sign_in();
    let before = exchange.csrf_token().unwrap();
    session.sign_in("ada").unwrap().blocking_wait().unwrap();
    let signed_in = exchange.csrf_token().unwrap();
    session.rotate().unwrap().blocking_wait().unwrap();
    let rotated = exchange.csrf_token().unwrap();
    let cookie = cookie_of(&exchange).unwrap();
    let holds = |cookie: &str, token: &str| {
        let lines = [("Cookie", cookie), ("Origin", "http://localhost:3000"), ("X-CSRF-Token", token)];
        open(&site, "POST", &lines).check_token(None).is_ok()
    };
    assert!(!holds(&cookie, &before) && !holds(&cookie, &signed_in) && holds(&cookie, &rotated));
    assert!(holds("", &before));
    clock.advance(std::time::Duration::from_secs(3600));
    assert!(!holds("", &before));
}

#[test]
fn pages_of_others_change_nothing() {
    let site = Site::https(sessions(), "app.example").unwrap();
    let cookie = format!("{}=x", site.cookie_name());
    let status = |lines: Lines<'_>| {
        let host = ("Host", "app.example");
        let all = [host].into_iter().chain(lines.iter().copied());
        let request = Request::new("POST").headers(all.map(|(name, value)| (name, value.as_bytes())));
        site.admit(&request).map_or_else(|refusal| refusal.status(), |_| 200)
    };
    let own = ("Origin", "https://app.example");
    assert_eq!(status(&[]), 200, "no browser, no cookie");
    assert_eq!(status(&[("Cookie", &cookie)]), 403);
    assert_eq!(status(&[("Cookie", &cookie), own]), 200);
    assert_eq!(status(&[("Cookie", &cookie), ("Sec-Fetch-Site", "same-origin")]), 200);
    for site in ["same-origin", "none"] {
        assert_eq!(status(&[own, ("Sec-Fetch-Site", site)]), 200);
    }
    for site in ["same-site", "cross-site", "", "Same-Origin", "same-origin, same-origin", "x"] {
        assert_eq!(status(&[own, ("Sec-Fetch-Site", site)]), 403, "{site}");
    }
    assert_eq!(status(&[own, ("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Site", "same-origin")]), 403);
    for origin in ["null", "http://app.example", "https://app.example:8443", "https://evil.example", ""] {
        assert_eq!(status(&[("Origin", origin)]), 403, "{origin}");
        assert_eq!(status(&[("Origin", origin), ("Sec-Fetch-Site", "same-origin")]), 403, "{origin}");
    }
    assert_eq!(status(&[own, own]), 403);
}

#[test]
fn profiles_do_not_mix() {
    let store = sessions();
    let made = [Site::development(store.clone()), Site::localhost(store.clone()), Site::https(store, HOST).unwrap()];
    let tokens: Vec<String> =
        made.iter().map(|site| signed_in(site, "ada").split_once('=').unwrap().1.to_owned()).collect();
    for (by, site) in made.iter().enumerate() {
        for (under, token) in tokens.iter().enumerate() {
            let cookie = format!("{}={token}", site.cookie_name());
            let exchange = open(site, "GET", &[("Cookie", &cookie)]);
            // On localhost there is no companion here, so even its own session is out of reach.
            assert_eq!(exchange.session().is_some(), by == under && by != 1, "{under} under {by}");
            assert_eq!(exchange.session_or_new().is_err(), by == under && by == 1, "{under} under {by}");
        }
    }
}

#[test]
fn a_web_socket_is_opened_by_own_pages_only() {
    let site = Site::development(sessions());
    let status = |lines: Lines<'_>| {
        let upgrade = ("Upgrade", "websocket");
        let all: Vec<_> = [upgrade].into_iter().chain(lines.iter().copied()).collect();
        site.admit(&request("GET", &all)).map_or_else(|refusal| refusal.status(), |_| 200)
    };
    assert_eq!(status(&[("Origin", "http://localhost:3000")]), 200);
    assert_eq!(status(&[]), 403);
    assert_eq!(status(&[("Sec-Fetch-Site", "same-origin")]), 403);
    assert_eq!(status(&[("Origin", "http://localhost:3001")]), 403);
    assert_eq!(status(&[("Origin", "http://evil.example")]), 403);
}

#[test]
fn an_event_stream_is_opened_by_no_page_of_others() {
    let site = Site::development(sessions());
    let cookie = signed_in(&site, "ada");
    let status = |method: &str, lines: Lines<'_>| {
        let accept = [("Accept", "text/event-stream"), ("Cookie", &*cookie)];
        let all: Vec<_> = accept.into_iter().chain(lines.iter().copied()).collect();
        site.admit(&request(method, &all)).map_or_else(|refusal| refusal.status(), |_| 200)
    };
    let own = ("Origin", "http://localhost:3000");
    assert_eq!(status("GET", &[]), 200, "over plain HTTP a page says neither");
    for site in ["same-origin", "none"] {
        assert_eq!(status("GET", &[("Sec-Fetch-Site", site)]), 200);
    }
    assert_eq!(status("GET", &[own]), 200);
    for site in ["same-site", "cross-site", ""] {
        assert_eq!(status("GET", &[("Sec-Fetch-Site", site)]), 403, "{site}");
        assert_eq!(status("GET", &[own, ("Sec-Fetch-Site", site)]), 403, "{site}");
    }
    for origin in ["http://localhost:3001", "http://evil.example", "null", ""] {
        assert_eq!(status("GET", &[("Origin", origin)]), 403, "{origin}");
        assert_eq!(status("GET", &[("Origin", origin), ("Sec-Fetch-Site", "same-origin")]), 403, "{origin}");
    }
    assert_eq!(status("POST", &[]), 403, "one that may change something still has to say");
    assert_eq!(status("GET", &[("Upgrade", "websocket")]), 403, "and so has a web socket");
}

#[test]
fn a_signed_in_cookie_alone_opens_nothing_on_localhost() {
    let clock = ManualClock::new();
    let site = Site::localhost(Options::new().clock(clock.clone()).in_memory().unwrap());
    let exchange = open(&site, "GET", &[]);
    let session = exchange.session_for_sign_in();
    session.set(VISITS, &1).unwrap();
    let anonymous = cookie_of(&exchange).unwrap();
    assert_eq!(exchange.companion().unwrap(), None);
    assert!(open(&site, "GET", &[("Cookie", &anonymous)]).session().is_some(), "a stranger's session needs none");
    session.sign_in("ada").unwrap().blocking_wait().unwrap();
    let (cookie, companion) = (cookie_of(&exchange).unwrap(), exchange.companion().unwrap().unwrap());

    clock.advance(std::time::Duration::from_secs(60));
    let left = session.idle_left().unwrap();
    let wrong = companion.replace("sid_k1_", "sid_k1_A");
    for lines in [&[("Cookie", &*cookie)][..], &[("Cookie", &*cookie), ("X-Companion", &*wrong)]] {
        let locked = open(&site, "GET", lines);
        assert!(locked.session().is_none());
        let refusal = locked.session_or_new().unwrap_err();
        assert_eq!((refusal.status(), refusal.code()), (403, "companion"));
        assert_eq!(cookie_of(&locked), None);
        let another = locked.session_for_sign_in();
        another.sign_in("eve").unwrap().blocking_wait().unwrap();
        assert_ne!(cookie_of(&locked).unwrap(), cookie);
    }
    assert_eq!(session.idle_left().unwrap(), left, "and it is no use of the session");
    let lines = [("Cookie", &*cookie), ("X-Companion", &*companion)];
    let opened = open(&site, "GET", &lines).session().unwrap();
    assert_eq!(opened.principal().unwrap().as_deref(), Some("ada"));
    assert!(opened.idle_left().unwrap() > left);

    session.rotate().unwrap().blocking_wait().unwrap();
    let cookie = cookie_of(&exchange).unwrap();
    assert!(open(&site, "GET", &[("Cookie", &cookie), ("X-Companion", &companion)]).session().is_none());
}

#[test]
fn only_who_ends_a_session_has_the_cookie_removed() {
    let site = Site::lan(sessions()).allow_host(HOST).unwrap();
    let cookie = signed_in(&site, "ada");
    let (here, there) = (open(&site, "GET", &[("Cookie", &cookie)]), open(&site, "GET", &[("Cookie", &cookie)]));
    let late = there.session().unwrap();
    here.session().unwrap().destroy().unwrap().blocking_wait().unwrap();
    let headers = here.headers().unwrap();
    let removal = format!("{}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0", site.cookie_name());
    assert!(headers.contains(&("set-cookie", removal.into())), "{headers:?}");
    assert_eq!(late.set(VISITS, &1).unwrap_err().kind(), dwell::ErrorKind::Gone);
    assert_eq!(cookie_of(&there), None);
    let dead = open(&site, "GET", &[("Cookie", &cookie)]);
    assert!(dead.session().is_none());
    assert_eq!(cookie_of(&dead), None);
}

#[test]
fn a_late_answer_hands_out_no_replaced_token() {
    let site = Site::development(sessions());
    let exchange = open(&site, "GET", &[]);
    let session = exchange.session_for_sign_in();
    session.sign_in("ada").unwrap().blocking_wait().unwrap();
    let cookie = cookie_of(&exchange).unwrap();
    // Another request rotates while this one has not answered yet.
    let other = open(&site, "GET", &[("Cookie", &cookie)]);
    other.session().unwrap().rotate().unwrap().blocking_wait().unwrap();
    assert!(cookie_of(&other).is_some());
    assert_eq!(cookie_of(&exchange), None);
}

#[test]
fn only_remembered_cookies_outlive_the_browser_and_no_longer_than_the_session() {
    let day = std::time::Duration::from_secs(86_400);
    let sessions = Options::new().remembered(day, 1000 * day).in_memory().unwrap();
    let site = Site::https(sessions, HOST).unwrap();
    let set_cookie = |who: SignIn| {
        let exchange = open(&site, "GET", &[]);
        exchange.session_for_sign_in().sign_in(who).unwrap().blocking_wait().unwrap();
        exchange.headers().unwrap().into_iter().find(|(name, _)| *name == "set-cookie").unwrap().1.into_owned()
    };
    let plain = set_cookie(SignIn::new("ada"));
    assert!(plain.starts_with("__Host-Http-id=sid_s1"), "{plain}");
    assert!(plain.ends_with("; Path=/; Secure; HttpOnly; SameSite=Lax"), "{plain}");
    let long = set_cookie(SignIn::new("ada").remembered());
    assert!(long.ends_with("; SameSite=Lax; Max-Age=34560000"), "browsers cap it at 400 days: {long}");
    let short = set_cookie(SignIn::new("ada").remembered().limits(day, day));
    assert!(short.ends_with("; Max-Age=86400"), "{short}");
}

#[test]
fn a_cold_session_is_pointed_out_before_the_disk_is_read() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("sessions");
    let site = Site::development(Sessions::open(&path).unwrap());
    let cookie = signed_in(&site, "ada");
    site.sessions().clone().close().unwrap();
    drop(site);
    let site = Site::development(Sessions::open(&path).unwrap());
    let admit = || site.admit(&request("GET", &[("Cookie", &cookie)])).unwrap();
    let Opened::OnDisk(admitted) = admit().open_in_memory().unwrap() else { panic!("it was read from disk") };
    let exchange = admitted.open().unwrap();
    assert_eq!(exchange.session().unwrap().principal().unwrap().as_deref(), Some("ada"));
    assert!(matches!(admit().open_in_memory().unwrap(), Opened::Ready(_)));
}

#[test]
fn a_closed_store_is_an_error_and_not_a_stranger() {
    let site = Site::development(sessions());
    let cookie = signed_in(&site, "ada");
    site.sessions().clone().close().unwrap();
    let error = site.admit(&request("GET", &[("Cookie", &cookie)])).unwrap().open().unwrap_err();
    assert_eq!(error.kind(), dwell::ErrorKind::Closed);
}

#[test]
fn pages_of_trusted_origins_are_taken_for_own_ones_and_no_others() {
    let site = Site::development(sessions());
    let cookie = signed_in(&site, "ada");
    let site = site.trust_origin("https://partner.example").unwrap().trust_origin("tauri://localhost").unwrap();
    let status = |more: Lines<'_>| {
        let lines: Vec<_> = [("Cookie", &*cookie)].into_iter().chain(more.iter().copied()).collect();
        site.admit(&request("POST", &lines)).map_or_else(|refusal| refusal.status(), |_| 200)
    };
    for trusted in ["https://partner.example", "https://partner.example:443", "tauri://localhost"] {
        for fetch_site in ["cross-site", "same-site", "same-origin", "none"] {
            assert_eq!(status(&[("Origin", trusted), ("Sec-Fetch-Site", fetch_site)]), 200, "{trusted} {fetch_site}");
        }
        assert_eq!(status(&[("Origin", trusted)]), 200);
        assert_eq!(status(&[("Origin", trusted), ("Origin", trusted)]), 403, "which of the two?");
        assert_eq!(status(&[("Origin", trusted), ("Upgrade", "websocket")]), 200);
        let exchange =
            site.admit(&request("POST", &[("Cookie", &cookie), ("Origin", trusted)])).unwrap().open().unwrap();
        assert_eq!(exchange.check_token(None).unwrap_err().code(), "csrf", "a token is needed all the same");
    }
    for foreign in [
        "http://partner.example",
        "https://partner.example:8443",
        "https://partner.example.evil.example",
        "https://evil-partner.example",
        "https://www.partner.example",
        "https://partner.example/",
        "tauri://localhost:1",
        "tauri://localhost.evil.example",
        "https://localhost",
        "null",
        "",
    ] {
        assert_eq!(status(&[("Origin", foreign)]), 403, "{foreign}");
    }
    let untrusting = Site::development(sessions());
    for bad in ["null", "*", "https://*.example", "https://partner.example/x", "partner.example", ""] {
        assert!(untrusting.clone().trust_origin(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_token_for_an_action_is_good_for_it_and_its_visitor_alone() {
    let site = Site::development(sessions());
    let cookies = [signed_in(&site, "ada"), signed_in(&site, "eve"), String::from("other=1")];
    let post = |cookie: &str, method| open(&site, method, &[("Cookie", cookie), ("Origin", &format!("http://{HOST}"))]);
    for (one, cookie) in cookies.iter().enumerate() {
        let token = post(cookie, "GET").action_token("delete").unwrap();
        let page = post(cookie, "GET").csrf_token().unwrap();
        for (other, cookie) in cookies.iter().enumerate() {
            let exchange = post(cookie, "POST");
            assert_eq!(exchange.check_action("delete", Some(&token)).is_ok(), one == other);
            for refused in [exchange.check_action("delete", None), exchange.check_action("delete", Some(""))] {
                assert_eq!(refused.unwrap_err().code(), "csrf");
            }
            assert!(exchange.check_action("pay", Some(&token)).is_err());
            assert!(exchange.check_action("delete", Some(&page)).is_err(), "a page's token is no action's");
            assert!(exchange.check_token(Some(&token)).is_err(), "and the other way round");
        }
    }
}

#[test]
fn names_that_browsers_would_drop_are_refused_at_the_start() {
    let lan = || Site::lan(sessions());
    let https = || Site::https(sessions(), "app.example").unwrap();
    for prefixed in ["__Host-id", "__host-id", "__Secure-id", "__Http-id", "__Host-Http-id"] {
        assert!(lan().cookie_named(prefixed).is_err(), "{prefixed}");
    }
    for plain in ["id", "session", "__host-id", "__Hostid"] {
        assert!(https().cookie_named(plain).is_err(), "{plain}");
    }
    let site = lan().cookie_named("shop").unwrap();
    assert!(site.cookie_name().strip_prefix("shop-").is_some_and(|instance| !instance.is_empty()));
    assert_eq!(https().cookie_named("__Host-id").unwrap().cookie_name(), "__Host-id");
    assert!(https().cookie_named("__Secure-id").is_ok());
    let shared = https().dangerous().shared_domain("app.example").unwrap();
    assert!(shared.cookie_named("__Host-id").is_err(), "a `__Host-` cookie has no domain");
}

#[test]
fn a_passive_request_is_no_use() {
    let clock = ManualClock::new();
    let site = Site::development(Options::new().clock(clock.clone()).in_memory().unwrap());
    let cookie = signed_in(&site, "ada");
    clock.advance(std::time::Duration::from_secs(60));
    let lines = [("Cookie", &*cookie)];
    let polled = site.admit(&request("GET", &lines).passive()).unwrap().open().unwrap();
    let left = polled.session().unwrap().idle_left().unwrap().unwrap();
    assert_eq!(left.as_secs(), 30 * 60 - 60);
    let used = open(&site, "GET", &lines).session().unwrap();
    assert_eq!(used.idle_left().unwrap().unwrap().as_secs(), 30 * 60);
}

#[test]
fn the_request_says_which_device_it_is() {
    let site = Site::development(sessions());
    let lines = [("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0")];
    let facts = request("GET", &lines).peer_address("192.0.2.7:5000".parse().unwrap());
    for who in [SignIn::new("ada"), SignIn::new("bob").device("kiosk 7")] {
        let exchange = site.admit(&facts).unwrap().open().unwrap();
        exchange.session_for_sign_in().sign_in(who).unwrap().blocking_wait().unwrap();
    }
    let of = |who: &str| site.sessions().of(who).unwrap().remove(0);
    assert_eq!((&*of("ada").device, &*of("ada").address), ("Firefox on Linux", "192.0.2.7"));
    assert_eq!((&*of("bob").device, &*of("bob").address), ("kiosk 7", "192.0.2.7"));
}
