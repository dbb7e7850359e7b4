//! Sessions that come by a header, and links that hand them over.

use serde_json::{Value, json};

use super::answer::Answer;
use super::browser::{Browser, Whoami};
use super::site::{Home, Profile, Site};

const BY_HEADER: [&str; 2] = ["--tracking", "header"];

/// A program: no cookies, no page.
fn post(site: &Site, target: &str, token: Option<&str>, body: &Value) -> Answer {
    let request = site.request("POST", target).json(body);
    site.ask(&match token {
        Some(token) => request.with("Authorization", format!("Bearer {token}")),
        None => request,
    })
}

fn whoami(site: &Site, header: &str, value: &str) -> Whoami {
    Whoami::read(&site.ask(&site.request("GET", "/whoami").with(header, value)).expect(200).sets_no_cookie())
}

fn sign_in(site: &Site, who: &str) -> String {
    let answer = post(site, "/login", None, &json!({ "user": who, "password": "dwell" })).expect(200).sets_no_cookie();
    let token = answer.json()["token"].as_str().unwrap().to_owned();
    assert_eq!(answer.header("Session-Token"), Some(&*token));
    answer.is_private();
    assert!(answer.json().get("companion").is_none(), "nothing else sends it along");
    token
}

#[test]
fn a_program_signs_in_and_shows_its_token() {
    for profile in Profile::ALL {
        let site = Site::with(profile, &BY_HEADER);
        let token = sign_in(&site, "ada");
        assert_eq!(whoami(&site, "Authorization", &format!("Bearer {token}")).principal.as_deref(), Some("ada"));
        assert_eq!(whoami(&site, "X-Session-Token", &token).principal.as_deref(), Some("ada"));
        let visits = post(&site, "/visit", Some(&token), &json!({})).expect(200).sets_no_cookie();
        assert_eq!(visits.json()["visits"], 1, "no page, so no page's token");
        assert_eq!(visits.header("Session-Token"), None, "the client has it");
        let elevated = post(&site, "/elevate", Some(&token), &json!({ "password": "dwell" })).expect(200);
        let newer = elevated.json()["token"].as_str().unwrap().to_owned();
        assert_ne!(newer, token);
        assert!(whoami(&site, "X-Session-Token", &token).is_nobody());
        assert_eq!(whoami(&site, "X-Session-Token", &newer).visits, 1);
        let gone = post(&site, "/logout", Some(&newer), &json!({})).expect(204).sets_no_cookie();
        assert_eq!(gone.header("Session-Token"), None);
        assert!(whoami(&site, "X-Session-Token", &newer).is_nobody());
    }
}

#[test]
fn a_stranger_gets_a_token_with_the_first_write() {
    let site = Site::with(Profile::Lan, &BY_HEADER);
    let answer = post(&site, "/visit", None, &json!({})).expect(200).sets_no_cookie();
    let token = answer.header("Session-Token").unwrap().to_owned();
    answer.is_private();
    assert_eq!(post(&site, "/visit", Some(&token), &json!({})).expect(200).json()["visits"], 2);
    let signed_in = post(&site, "/login", Some(&token), &json!({ "user": "ada", "password": "dwell" })).expect(200);
    assert!(whoami(&site, "X-Session-Token", &token).is_nobody(), "what a stranger had opens nothing");
    assert_eq!(whoami(&site, "X-Session-Token", signed_in.json()["token"].as_str().unwrap()).visits, 0);
}

#[test]
fn what_travels_one_way_is_nothing_on_another() {
    let site = Site::with(Profile::Development, &BY_HEADER);
    let token = sign_in(&site, "ada");
    let name = format!("id-{}", "0".repeat(8));
    for cookie in [format!("{name}={token}"), format!("id={token}"), format!("__Host-Http-id={token}")] {
        assert!(whoami(&site, "Cookie", &cookie).is_nobody());
    }
    for nobody in ["Basic dTpw".to_owned(), format!("Bearer {token} x"), format!("Token {token}"), token.clone()] {
        assert!(whoami(&site, "Authorization", &nobody).is_nobody(), "{nobody}");
    }
    let twice = site.request("GET", "/whoami").with("Authorization", format!("Bearer {token}"));
    let also = twice.clone().with("X-Session-Token", &token);
    let twice = twice.with("Authorization", format!("Bearer {token}"));
    for ambiguous in [twice, also] {
        assert!(Whoami::read(&site.ask(&ambiguous)).is_nobody(), "which of the two?");
    }
    assert!(Whoami::read(&site.ask(&site.request("GET", &format!("/whoami?token={token}")))).is_nobody());

    // The same store, by cookie: neither kind of token is the other.
    let home = Home::new();
    let site = Site::on(home.clone(), Profile::Development, &[]);
    let browser = Browser::signed_in(&site, "ada");
    let cookie = browser.cookie();
    let value = cookie.split_once('=').unwrap().1.to_owned();
    drop(site);
    let site = Site::on(home.clone(), Profile::Development, &BY_HEADER);
    assert!(whoami(&site, "X-Session-Token", &value).is_nobody());
    assert!(whoami(&site, "Cookie", &cookie).is_nobody());
    let token = sign_in(&site, "ada");
    drop(site);
    let site = Site::on(home, Profile::Development, &[]);
    let name = cookie.split_once('=').unwrap().0;
    assert!(whoami(&site, "Cookie", &format!("{name}={token}")).is_nobody());
    assert_eq!(whoami(&site, "Cookie", &cookie).principal.as_deref(), Some("ada"), "it is still one here");
    assert!(whoami(&site, "Authorization", &format!("Bearer {token}")).is_nobody());
    assert!(whoami(&site, "Authorization", &format!("Bearer {value}")).is_nobody());
}

#[test]
fn pages_of_others_are_refused_all_the_same() {
    let site = Site::with(Profile::Development, &BY_HEADER);
    let token = sign_in(&site, "ada");
    for (name, value) in [("Origin", "https://evil.example"), ("Sec-Fetch-Site", "cross-site"), ("Origin", "null")] {
        let request = site.request("POST", "/visit").json(&json!({})).with("X-Session-Token", &token);
        site.ask(&request.with(name, value)).refused(403, "origin");
    }
    let page = site.ask(&site.request("GET", "/").with("Accept", "text/html")).expect(200).text();
    assert!(page.contains("Authorization: Bearer"), "it says why nobody can sign in on it");
    site.ask(&site.request("GET", "/handoff?code=x")).refused(404, "not_found");
}

/// A link for another browser, as the page of somebody signed in gets it.
fn link(browser: &mut Browser) -> String {
    let answer = browser.post("/handoff", &json!({})).expect(200).sets_no_cookie();
    answer.is_private();
    let url = answer.json()["url"].as_str().unwrap().to_owned();
    url[url.find("/handoff").unwrap()..].to_owned()
}

fn follow(browser: &mut Browser, link: &str) -> Answer {
    let request = browser.request("GET", link);
    browser.send(&request.set("Accept", "text/html"))
}

/// Followed by somebody whose page then keeps the companion, where there is one.
fn arrive(browser: &Browser, answer: Answer) -> Browser {
    let answer = answer.expect(303);
    let to = answer.header("Location").unwrap();
    assert!(to == "/" || to.starts_with("/#companion="), "the code is not in it: {to}");
    assert!(answer.cookie().is_some());
    answer.is_private();
    browser.accompanied(to.strip_prefix("/#companion="))
}

#[test]
fn a_link_signs_in_once() {
    for profile in Profile::ALL {
        let site = Site::new(profile);
        let mut ada = Browser::signed_in(&site, "ada");
        let url = link(&mut ada);
        let mut phone = Browser::new(&site);
        let head = phone.request("HEAD", &url);
        phone.send(&head).expect(200).sets_no_cookie();
        for (name, value) in [("Sec-Purpose", "prefetch;prerender"), ("Purpose", "prefetch"), ("X-Moz", "prefetch")] {
            let request = phone.request("GET", &url).with(name, value);
            phone.send(&request).refused(425, "prefetch");
        }
        for part in ["image", "iframe", "script", "empty", ""] {
            let request = phone.request("GET", &url).with("Sec-Fetch-Dest", part);
            phone.send(&request).refused(425, "prefetch");
        }
        let mut somebody = Browser::new(&site);
        let request = somebody.request("GET", &link(&mut ada)).with("Sec-Fetch-Dest", "document");
        somebody.send(&request).expect(303);
        let answer = follow(&mut phone, &url);
        let mut phone = arrive(&phone, answer);
        phone.is("ada", 0);
        assert_eq!(ada.devices().len(), 3, "a session of its own");
        let ends = |browser: &mut Browser| browser.whoami().life_left_s.unwrap();
        assert!(ends(&mut phone) <= ends(&mut ada), "it ends no later");
        follow(&mut Browser::new(&site), &url).refused(410, "handoff");
        ada.is("ada", 0);
        phone.post("/logout", &json!({})).expect(204);
        ada.is("ada", 0);
    }
}

#[test]
fn a_form_without_a_script_gets_a_page_with_the_link() {
    let site = Site::new(Profile::Lan);
    let mut ada = Browser::signed_in(&site, "ada");
    let csrf = ada.whoami().csrf;
    let form = ada.request("POST", "/handoff").form(&[("csrf", &csrf)]).set("Origin", site.origin());
    let answer = ada.send(&form.clone().set("Accept", "text/html")).expect(200).sets_no_cookie();
    answer.is_private();
    let page = answer.text();
    let link = page.split("<code id=\"link\">").nth(1).and_then(|rest| rest.split("</code>").next()).unwrap();
    let mut phone = Browser::new(&site);
    let answer = follow(&mut phone, &link[link.find("/handoff").unwrap()..]);
    arrive(&phone, answer).is("ada", 0);
    let url = ada.send(&form).expect(200).json()["url"].as_str().unwrap().to_owned();
    assert!(url.contains("/handoff?code="), "a program gets data");
}

#[test]
fn a_link_ends_with_the_session_it_was_made_from() {
    let site = Site::new(Profile::Lan);
    let ends: [fn(&mut Browser); 3] = [
        |ada| drop(ada.post("/logout", &json!({})).expect(204)),
        |ada| drop(ada.post("/sessions/revoke", &json!({ "all": true })).expect(200)),
        |ada| drop(ada.elevate("ada")),
    ];
    for end in ends {
        let mut ada = Browser::signed_in(&site, "ada");
        let url = link(&mut ada);
        end(&mut ada);
        let mut thief = Browser::new(&site);
        follow(&mut thief, &url).refused(410, "handoff");
        thief.is_nobody();
    }
    let mut ada = Browser::signed_in(&site, "ada");
    let url = link(&mut ada);
    let site = site.killed_and_started();
    follow(&mut Browser::new(&site), &url).refused(410, "handoff");
    let mut nobody = Browser::new(&site);
    nobody.post("/handoff", &json!({})).refused(401, "sign_in_required");
    for bad in ["/handoff", "/handoff?code=", "/handoff?code=x", "/handoff?code=x&code=y", "/handoff?x=%ff"] {
        follow(&mut nobody, bad).refused(410, "handoff");
    }
}

#[test]
fn who_is_somebody_else_is_asked_first() {
    for profile in Profile::ALL {
        let site = Site::new(profile);
        let mut ada = Browser::signed_in(&site, "ada");
        let mut eve = Browser::signed_in(&site, "eve");
        let url = link(&mut ada);
        // A link is followed without what the page's script sends along.
        let mut tab = eve.accompanied(None);
        let asked = follow(&mut tab, &url).expect(200).sets_no_cookie();
        asked.is_private();
        let page = asked.text();
        assert!(page.contains("Sign in as ada?"), "{page}");
        eve.is("eve", 0);
        let token = page.split("name=\"csrf\" value=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        let code = url.split_once("code=").unwrap().1;
        let bare = tab.request("POST", "/handoff").form(&[("code", code)]);
        tab.send(&bare.set("Origin", site.origin()))
            .refused(403, if profile == Profile::Localhost { "companion" } else { "csrf" });
        let confirmed = tab.request("POST", "/handoff").form(&[("code", code), ("csrf", token)]);
        let answer = tab.send(&confirmed.set("Origin", site.origin()));
        arrive(&tab, answer).is("ada", 0);
    }
}

#[test]
fn of_many_who_follow_a_link_at_once_one_arrives() {
    let site = Site::new(Profile::Development);
    let mut ada = Browser::signed_in(&site, "ada");
    let url = link(&mut ada);
    let arrived: usize = std::thread::scope(|scope| {
        let follow = || {
            let mut browser = Browser::new(&site);
            let url = &url;
            scope.spawn(move || usize::from(follow(&mut browser, url).status == 303))
        };
        let all: Vec<_> = (0..32).map(|_| follow()).collect();
        all.into_iter().map(|one| one.join().unwrap()).sum()
    });
    assert_eq!(arrived, 1);
    assert_eq!(ada.devices().len(), 2);
}

#[test]
fn an_address_with_a_session_is_that_session_and_says_at_the_start_that_it_is_dangerous() {
    let site = Site::with(Profile::Lan, &["--tracking", "url"]);
    assert!(site.errors().contains("14.2.1"), "{}", site.errors());
    let ask = |method: &str, target: &str, token: &str, body: &Value| {
        site.ask(&site.request(method, &format!("{target}?session={token}")).json(body))
    };
    let answer =
        post(&site, "/login", None, &json!({ "user": "ada", "password": "dwell" })).expect(200).sets_no_cookie();
    assert_eq!(answer.header("Referrer-Policy"), Some("same-origin"));
    assert_eq!(answer.header("Session-Token"), None);
    let token = answer.json()["token"].as_str().unwrap().to_owned();
    assert_eq!(ask("POST", "/visit", &token, &json!({})).expect(200).sets_no_cookie().json()["visits"], 1);
    let who = |query: &str| Whoami::read(&site.ask(&site.request("GET", &format!("/whoami?{query}"))).expect(200));
    assert_eq!(who(&format!("a=b&session={token}&c")).principal.as_deref(), Some("ada"));
    let other = post(&site, "/login", None, &json!({ "user": "eve", "password": "dwell" })).expect(200);
    let other = other.json()["token"].as_str().unwrap().to_owned();
    for nobody in [
        format!("session={token}&session={other}"),
        format!("Session={token}"),
        format!("s%65ssion={token}"),
        format!("session=%{:02X}{}", token.as_bytes()[0], &token[1..]),
        format!("session={token}%20"),
        format!("session={}", &token[..token.len() - 1]),
        "session=".to_owned(),
    ] {
        assert!(who(&nobody).is_nobody(), "{nobody}");
    }
    assert!(whoami(&site, "Authorization", &format!("Bearer {token}")).is_nobody());
    assert!(whoami(&site, "Cookie", &format!("id={token}")).is_nobody());
    let elevated = ask("POST", "/elevate", &token, &json!({ "password": "dwell" })).expect(200);
    assert!(who(&format!("session={token}")).is_nobody(), "the old address is worth nothing");
    let newer = elevated.json()["token"].as_str().unwrap().to_owned();
    ask("POST", "/logout", &newer, &json!({})).expect(204);
    assert!(who(&format!("session={newer}")).is_nobody());
}

#[test]
fn an_address_is_read_only_where_that_was_asked_for() {
    let home = Home::new();
    let on = |tracking| Site::on(home.clone(), Profile::Lan, &["--tracking", tracking]);
    let site = on("url");
    let token = post(&site, "/login", None, &json!({ "user": "ada", "password": "dwell" })).expect(200).json()["token"]
        .as_str()
        .unwrap()
        .to_owned();
    let who = |site: &Site, token: &str| {
        Whoami::read(&site.ask(&site.request("GET", &format!("/whoami?session={token}"))).expect(200).sets_no_cookie())
    };
    assert_eq!(who(&site, &token).principal.as_deref(), Some("ada"));
    drop(site);
    for tracking in ["cookie", "header"] {
        let site = on(tracking);
        assert!(who(&site, &token).is_nobody(), "{tracking}");
        assert!(whoami(&site, "Authorization", &format!("Bearer {token}")).is_nobody(), "{tracking}");
    }
    let site = on("cookie");
    let cookie = Browser::signed_in(&site, "ada").cookie();
    let (name, value) = cookie.split_once('=').unwrap();
    assert!(whoami(&site, "Cookie", &format!("{name}={token}")).is_nobody());
    drop(site);
    let site = on("url");
    assert!(who(&site, value).is_nobody(), "a cookie's token in an address");
    assert_eq!(who(&site, &token).principal.as_deref(), Some("ada"), "its own is still one");
}
