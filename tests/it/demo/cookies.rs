//! Set-Cookie in every profile and on every door, and which cookies of a request are read as ours.

use serde_json::{Value, json};

use super::answer::{Answer, SetCookie};
use super::browser::{Browser, Whoami};
use super::site::{Profile, Site};

const LONGEST_MAX_AGE: u64 = 34_560_000;

fn attributes(profile: Profile) -> Vec<&'static str> {
    match profile {
        Profile::Https => vec!["HttpOnly", "Path=/", "SameSite=Lax", "Secure"],
        Profile::Lan | Profile::Localhost => vec!["HttpOnly", "Path=/", "SameSite=Strict"],
        Profile::Development => vec!["HttpOnly", "Path=/", "SameSite=Lax"],
    }
}

/// The cookie of an answer, with the name and the attributes that belong to the profile.
#[track_caller]
fn cookie(site: &Site, answer: &Answer) -> SetCookie {
    let cookie = answer.cookie().unwrap_or_else(|| panic!("no Set-Cookie in {answer:?}"));
    assert_eq!(cookie.lasting_attributes(), attributes(site.profile), "{:?}", site.profile);
    if site.profile == Profile::Https {
        assert_eq!(cookie.name, "__Host-Http-id");
    } else {
        let instance = cookie.name.strip_prefix("id-").unwrap_or_default();
        assert!(!instance.is_empty() && instance.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{}", cookie.name);
        assert!(!cookie.name.ends_with(&format!("-{}", site.port())), "{}", cookie.name);
    }
    assert!(answer.headers.iter().all(|(name, _)| name != "expires"), "{answer:?}");
    cookie
}

/// One that lives as long as the browser.
#[track_caller]
fn sets(site: &Site, answer: &Answer) -> SetCookie {
    let cookie = cookie(site, answer);
    assert_eq!(cookie.max_age(), None, "{cookie:?}");
    cookie
}

#[track_caller]
fn removes(site: &Site, answer: &Answer) {
    let cookie = cookie(site, answer);
    assert!(cookie.removes() && cookie.value.is_empty(), "{cookie:?}");
}

const USER: [(&str, &str); 2] = [("user", "ada"), ("password", "dwell")];

fn user() -> Value {
    json!({ "user": "ada", "password": "dwell" })
}

#[test]
fn every_door_sets_the_cookie_of_the_profile() {
    for profile in Profile::ALL {
        let site = Site::new(profile);
        let mut browser = Browser::new(&site);
        let mut values = Vec::new();
        values.push(sets(&site, &browser.post("/visit", &json!({})).expect(200)).value);
        browser.post("/visit", &json!({})).expect(200).sets_no_cookie();
        let signed_in = browser.post("/login", &user()).expect(200);
        values.push(sets(&site, &signed_in).value);
        browser.companion = signed_in.json()["companion"].as_str().map(str::to_owned);
        values.push(sets(&site, &browser.post("/elevate", &json!({ "password": "dwell" })).expect(200)).value);
        values.push(sets(&site, &Browser::new(&site).post_form("/login", &USER).expect(303)).value);
        let setting = json!({ "key": "a", "value": "b" });
        values.push(sets(&site, &Browser::new(&site).post("/set", &setting).expect(204)).value);
        values.sort();
        values.dedup();
        assert_eq!(values.len(), 5, "a token serves once");
    }
}

#[test]
fn the_removal_cookie_has_all_the_same_attributes() {
    for profile in Profile::ALL {
        let site = Site::new(profile);
        removes(&site, &Browser::signed_in(&site, "ada").post("/logout", &json!({})).expect(204));
        removes(&site, &Browser::signed_in(&site, "ada").post_form("/logout", &[]).expect(303));
        removes(&site, &Browser::anonymous(&site).post("/logout", &json!({})).expect(204));
        let mut browser = Browser::signed_in(&site, "ada");
        let own = json!({ "id": browser.id() });
        removes(&site, &browser.post("/sessions/revoke", &own).expect(200));
        let mut browser = Browser::signed_in(&site, "ada");
        removes(&site, &browser.post("/sessions/revoke", &json!({ "all": true })).expect(200));
    }
}

#[test]
fn a_remembered_sign_in_outlives_the_browser_and_not_the_session() {
    for profile in Profile::ALL {
        let site = Site::new(profile);
        let mut browser = Browser::new(&site);
        let answer = browser.post("/login", &json!({ "user": "ada", "password": "dwell", "remember": true }));
        let age = cookie(&site, &answer.clone().expect(200)).max_age().expect("a Max-Age");
        browser.companion = answer.json()["companion"].as_str().map(str::to_owned);
        let whoami = browser.whoami();
        let (idle, life) = (whoami.idle_left_s.unwrap(), whoami.life_left_s.unwrap());
        let (week, month) = (7 * 86_400, 30 * 86_400);
        assert!(age <= LONGEST_MAX_AGE && age <= month && age + 120 >= month, "{age}");
        assert!(idle <= week && idle + 120 >= week && life <= month && life + 120 >= month, "{whoami:?}");
        // A rotation moves no deadline.
        let answer = browser.post("/elevate", &json!({ "password": "dwell" })).expect(200);
        assert!(cookie(&site, &answer).max_age().is_some_and(|next| next <= age && next + 120 >= age), "{answer:?}");
        let fields = [("user", "eve"), ("password", "dwell"), ("remember", "on")];
        let answer = Browser::new(&site).post_form("/login", &fields).expect(303);
        assert!(cookie(&site, &answer).max_age().is_some_and(|age| age <= month), "{answer:?}");
        let not = json!({ "user": "bob", "password": "dwell", "remember": false });
        sets(&site, &Browser::new(&site).post("/login", &not).expect(200));
    }
}

#[test]
fn given_limits_apply_to_a_remembered_sign_in() {
    let site = Site::with(Profile::Https, &["--idle", "1h", "--lifetime", "2h"]);
    let mut browser = Browser::new(&site);
    let answer = browser.post("/login", &json!({ "user": "ada", "password": "dwell", "remember": true })).expect(200);
    assert!(cookie(&site, &answer).max_age().is_some_and(|age| age <= 7200 && age > 7000), "{answer:?}");
    let whoami = browser.whoami();
    assert!(whoami.idle_left_s <= Some(3600) && whoami.life_left_s <= Some(7200), "{whoami:?}");
}

#[test]
fn max_age_is_at_most_four_hundred_days() {
    let site = Site::with(Profile::Https, &["--idle", "1000days", "--lifetime", "1000days"]);
    let body = json!({ "user": "ada", "password": "dwell", "remember": true });
    let answer = Browser::new(&site).post("/login", &body).expect(200);
    assert_eq!(cookie(&site, &answer).max_age(), Some(LONGEST_MAX_AGE));
}

#[test]
fn the_name_belongs_to_the_data_and_not_to_the_port() {
    for profile in [Profile::Localhost, Profile::Lan, Profile::Development] {
        let name = |site: &Site| Browser::anonymous(site).jar.into_keys().next().unwrap();
        let (site, other) = (Site::new(profile), Site::new(profile));
        let mine = name(&site);
        assert_ne!(mine, name(&other), "two applications on one host share a jar");
        let site = site.killed_and_started();
        assert_eq!(mine, name(&site));
    }
}

/// A token names no file: it is read as one, or not at all.
#[test]
fn a_cookie_that_spells_a_path_touches_no_file() {
    let site = Site::new(Profile::Development);
    let ours = Browser::signed_in(&site, "ada").cookie();
    let (name, value) = ours.split_once('=').unwrap();
    let names = || -> std::collections::BTreeSet<_> {
        let data = std::fs::read_dir(site.home.data()).unwrap().map(|entry| entry.unwrap().path());
        let around = std::fs::read_dir(site.home.data().parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
        data.chain(around).collect()
    };
    let before = names();
    for path in ["../key", "key", "/etc/passwd", "..%2Fkey", "..\\key", ".", "..", "sid_s1A_../../key", "\u{202e}yek"] {
        assert_eq!(found(&site, &[format!("{name}={path}").into_bytes()]), None, "{path}");
        assert_eq!(found(&site, &[format!("{name}={path}/{value}").into_bytes()]), None, "{path}");
    }
    assert_eq!(names(), before);
    assert_eq!(found(&site, &[ours.into_bytes()]).as_deref(), Some("ada"));
}

/// What a signed-in visitor's request finds when its Cookie lines are these.
fn found(site: &Site, lines: &[Vec<u8>]) -> Option<String> {
    let request = lines.iter().fold(site.request("GET", "/whoami"), |request, line| request.with("Cookie", line));
    Whoami::read(&site.ask(&request)).principal
}

#[test]
fn our_cookie_is_found_among_others() {
    let site = Site::new(Profile::Development);
    let ours = Browser::signed_in(&site, "ada").cookie();
    let (name, value) = ours.split_once('=').unwrap();
    let bytes = |text: String| text.into_bytes();
    let mut not_text = b"bad=\xff\xfe; ".to_vec();
    not_text.extend_from_slice(ours.as_bytes());
    for lines in [
        vec![bytes(ours.clone())],
        vec![bytes(format!("a=1; {ours}; b=2"))],
        vec![bytes(format!("a=1;{ours};b=2"))],
        vec![bytes("a=1".into()), bytes(ours.clone()), bytes("b=2".into())],
        vec![not_text],
        vec![b"bad=\xff".to_vec(), bytes(ours.clone())],
        vec![bytes(format!("a=\"x; {ours}; b=y\""))],
        vec![bytes(format!("$Version=1; {ours}; $Path=/"))],
        vec![bytes(format!("{name}=junk; {ours}"))],
        vec![bytes(format!("{ours}; {name}=junk"))],
        vec![bytes(format!("{}; {ours}", "c=d; ".repeat(100).trim_end_matches("; ")))],
        vec![bytes(format!("={value}; ;; {ours};"))],
    ] {
        let text: Vec<_> = lines.iter().map(|line| String::from_utf8_lossy(line)).collect();
        assert_eq!(found(&site, &lines).as_deref(), Some("ada"), "{text:?}");
    }
}

#[test]
fn what_is_not_our_name_byte_for_byte_is_not_ours() {
    for profile in [Profile::Development, Profile::Https] {
        let site = Site::new(profile);
        let ours = Browser::signed_in(&site, "ada").cookie();
        let (name, value) = ours.split_once('=').unwrap();
        let first = name.as_bytes()[0];
        let rest = &name[1..];
        for wrong in [
            format!("%{first:02X}{rest}={value}"),
            format!("{}={value}", name.to_uppercase()),
            format!("\u{2000}{name}={value}"),
            format!("\u{a0}{name}={value}"),
            format!("\u{85}{name}={value}"),
            format!("{name}\u{2003}={value}"),
            format!("={name}={value}"),
            format!("x{name}={value}"),
            format!("\"{name}\"={value}"),
            format!("{name}=\"{value}\""),
            format!("{name}={value} x"),
            format!("{name}=%73{}", &value[1..]),
            format!("..{rest}={value}"),
            format!("a={value}"),
            value.to_owned(),
            format!("a=1, {ours}"),
        ] {
            assert_eq!(found(&site, &[wrong.clone().into_bytes()]), None, "{wrong:?}");
        }
        assert_eq!(found(&site, &[ours.into_bytes()]).as_deref(), Some("ada"));
    }
}

#[test]
fn two_live_sessions_under_our_name_are_nobodys() {
    let site = Site::new(Profile::Development);
    let (ada, eve) = (Browser::signed_in(&site, "ada").cookie(), Browser::signed_in(&site, "eve").cookie());
    for lines in [
        vec![format!("{ada}; {eve}").into_bytes()],
        vec![format!("{eve}; {ada}").into_bytes()],
        vec![ada.clone().into_bytes(), eve.clone().into_bytes()],
    ] {
        assert_eq!(found(&site, &lines), None);
    }
    assert_eq!(found(&site, &[ada.into_bytes()]).as_deref(), Some("ada"), "neither is ended by it");
    assert_eq!(found(&site, &[eve.into_bytes()]).as_deref(), Some("eve"));
}

#[test]
fn more_cookies_than_are_read_make_nobody_of_the_request() {
    let site = Site::new(Profile::Development);
    let ours = Browser::signed_in(&site, "ada").cookie().into_bytes();
    let long = |bytes: usize| format!("x={}", "y".repeat(bytes)).into_bytes();
    let many = |pairs: usize| "x=y; ".repeat(pairs).into_bytes();
    assert_eq!(found(&site, &[ours.clone(), long(16_000)]).as_deref(), Some("ada"));
    assert_eq!(found(&site, &[ours.clone(), many(200)]).as_deref(), Some("ada"));
    for others in [long(17_000), long(50_000), many(300), many(5_000)] {
        assert_eq!(found(&site, &[ours.clone(), others.clone()]), None);
        assert_eq!(found(&site, &[others, ours.clone()]), None);
    }
    assert_eq!(found(&site, &[ours]).as_deref(), Some("ada"), "nothing is ended by it");
}

#[test]
fn a_session_belongs_to_the_scheme_it_was_made_under() {
    let site = Site::new(Profile::Development);
    let cookie = Browser::signed_in(&site, "ada").cookie();
    let value = cookie.split_once('=').unwrap().1.to_owned();
    let home = std::sync::Arc::clone(&site.home);
    drop(site);
    let site = Site::on(home, Profile::Https, &[]);
    let lines = [format!("__Host-Http-id={value}").into_bytes()];
    assert_eq!(found(&site, &lines), None, "a session that travelled in the clear is none on https");
}
