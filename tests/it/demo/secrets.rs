//! What must not be told: tokens leave the server in Set-Cookie only, and nothing else opens a session.

use serde_json::json;

use super::answer::Answer;
use super::browser::Browser;
use super::site::{Profile, Site};

/// Every route once, with what belongs to it and without.
fn tour(browser: &mut Browser) -> Vec<Answer> {
    let targets = [
        "/",
        "/whoami",
        "/get?key=note",
        "/sessions",
        "/export?format=json",
        "/export?format=xml",
        "/healthz",
        "/nowhere",
        "/login",
    ];
    let mut said: Vec<Answer> = targets.iter().map(|target| browser.get(target)).collect();
    for (target, body) in [
        ("/visit", json!({})),
        ("/set", json!({ "key": "note", "value": "the-private-note" })),
        ("/set", json!({ "key": 1 })),
        ("/slow", json!({ "ms": 1, "key": "note", "value": "the-private-note" })),
        ("/elevate", json!({ "password": "wrong" })),
        ("/sessions/revoke", json!({ "id": "junk" })),
        ("/sessions/revoke", json!({ "others": true })),
        ("/login", json!({ "user": "ada", "password": "wrong" })),
        ("/login", json!({ "user": "", "password": "dwell" })),
    ] {
        said.push(browser.post(target, &body));
        let refused = browser.unsafe_request(target).json(&body).without("X-CSRF-Token");
        said.push(browser.send(&refused));
        let refused = browser.unsafe_request(target).json(&body).set("Host", "evil.example");
        said.push(browser.send(&refused));
    }
    said
}

/// Spellings in which the 32 bytes of a token could slip out.
fn spellings(token: &str) -> Vec<String> {
    let secret = &token[8..51];
    vec![token.into(), secret.into(), secret.replace('-', "+").replace('_', "/"), token.replace('_', "%5F")]
}

#[test]
fn a_token_is_said_in_set_cookie_and_nowhere_else() {
    for profile in Profile::ALL {
        let site = Site::new(profile);
        let mut browser = Browser::anonymous(&site);
        let mut tokens: Vec<String> = browser.jar.values().cloned().collect();
        let mut said = tour(&mut browser);
        browser.sign_in("ada");
        tokens.extend(browser.jar.values().cloned());
        said.extend(tour(&mut browser));
        browser.elevate("ada");
        tokens.extend(browser.jar.values().cloned());
        let companion = browser.companion.clone();
        said.extend(tour(&mut browser));
        assert!(said.iter().any(|answer| answer.text().contains("the-private-note")), "the tour sees something");
        said.push(browser.post("/logout", &json!({})).expect(204));
        let log = site.errors();
        for token in &tokens {
            assert!(token.starts_with(super::answer::TOKEN) && token.len() == dwell::Token::TEXT_BYTES, "{token}");
            for spelling in spellings(token) {
                assert!(!log.contains(&spelling), "{log}");
                for answer in &said {
                    let headers = answer.headers.iter().filter(|(name, _)| name != "set-cookie");
                    let heads: String = headers.map(|(name, value)| format!("{name}: {value}\n")).collect();
                    assert!(!heads.contains(&spelling) && !answer.text().contains(&spelling), "{answer:?}");
                }
            }
        }
        if let Some(companion) = companion {
            assert!(!log.contains(&companion), "{log}");
            assert!(said.iter().all(|answer| !answer.text().contains(&companion)), "only a sign-in tells it");
        }
        assert!(!log.contains("the-private-note"), "{log}");
    }
}

#[test]
fn handles_and_page_tokens_open_nothing() {
    for profile in Profile::ALL {
        let site = Site::new(profile);
        let mut browser = Browser::signed_in(&site, "ada");
        let name = browser.jar.keys().next().unwrap().clone();
        let mut worthless = browser.handles();
        worthless.extend([browser.id(), browser.passive().csrf]);
        worthless.extend(browser.companion.clone());
        for value in worthless {
            let mut thief = browser.clone();
            thief.jar.insert(name.clone(), value.clone());
            thief.is_nobody();
            let request = site.request("GET", "/whoami").with("Authorization", format!("Bearer {value}"));
            assert!(site.ask(&request).json()["principal"].is_null());
        }
        // In another place than the cookie the token itself is nothing.
        let token = browser.jar[&name].clone();
        for request in [
            site.request("GET", "/whoami").with("Authorization", format!("Bearer {token}")),
            site.request("GET", "/whoami").with("X-Session", &token),
            site.request("GET", &format!("/whoami?{name}={token}")),
            site.request("GET", &format!("/whoami;{name}={token}")),
        ] {
            let answer = site.ask(&request);
            assert!(answer.status == 404 || answer.json()["class"] == "none", "{answer:?}");
        }
        browser.is("ada", 0);
    }
}

#[test]
fn the_files_hold_neither_tokens_nor_values() {
    let site = Site::new(Profile::Development);
    let mut browser = Browser::signed_in(&site, "ada");
    browser.set("note", "the-private-note");
    let token = browser.jar.values().next().unwrap().clone();
    let files = site.home.files();
    assert!(!files.is_empty());
    for (path, bytes) in files {
        for secret in [&*token, &token[8..51], "the-private-note"] {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} is in {}", path.display());
        }
    }
}

#[test]
fn words_do_not_tell_whether_a_user_exists() {
    let site = Site::new(Profile::Development);
    Browser::signed_in(&site, "ada");
    let mut answers: Vec<_> = ["ada", "admin", "nobody"]
        .iter()
        .map(|user| {
            let answer = Browser::new(&site).post("/login", &json!({ "user": user, "password": "wrong" }));
            let answer = answer.refused(401, "bad_credentials");
            let headers = answer.headers.iter().filter(|(name, _)| name != "date").cloned();
            (headers.collect::<Vec<_>>(), answer.text())
        })
        .collect();
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
}
