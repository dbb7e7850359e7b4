//! The cookie in the browser's hands: what it is like, when it comes and when it goes.

use dwell_browser_tests::{Browser, Site, Stranger, story};

/// What the cookie of a profile is like.
struct Like {
    name: &'static str,
    same_site: &'static str,
    secure: bool,
}

/// Has a script of the page get a new cookie, and looks for the one before and the new one in all that it can look at.
fn scripts_see_no_cookie(browser: &Browser) {
    let old = browser.cookie().unwrap();
    let seen = browser.run(
        "const kept = () => ({ 'X-Companion': localStorage.getItem('dwell-companion') ?? '' });
         const asked = await Promise.all(['/', '/whoami', '/sessions'].map((path) => fetch(path, { headers: kept() })));
         const texts = await Promise.all(asked.map((answer) => answer.text()));
         const request = new XMLHttpRequest();
         request.open('POST', '/elevate', false);
         const headers = { 'Content-Type': 'application/json', 'X-CSRF-Token': JSON.parse(texts[1]).csrf, ...kept() };
         for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
         request.send('{\"password\": \"dwell\"}');
         if (request.status !== 200) return `no new cookie: ${request.responseText}`;
         const { companion } = JSON.parse(request.responseText);
         if (companion) localStorage.setItem('dwell-companion', companion);
         const known = await globalThis.cookieStore?.getAll() ?? [];
         return [document.cookie, document.documentElement.outerHTML, JSON.stringify([known, localStorage, sessionStorage]),
           request.getAllResponseHeaders(), request.responseText, ...asked.flatMap((answer) => [...answer.headers]),
           ...texts, ...performance.getEntries().map((entry) => entry.name)].join('\\n');",
    );
    let seen = seen.as_str().unwrap().to_owned();
    assert!(seen.contains("cache-control") && seen.contains("\"principal\":\"ada\""), "{seen}");
    assert!(!seen.to_lowercase().contains("set-cookie"), "{seen}");
    let new = browser.expect_other_cookie(&old);
    for line in seen.lines() {
        assert!(!line.contains(old.value()) && !line.contains(new.value()), "{line}");
    }
}

/// What a cookie of this profile is like while its owner is signed in, and that nothing of it is left afterwards.
fn comes_and_goes(profile: &str, like: &Like) {
    story(&format!("cookies-{profile}"), |stage| {
        let Some(site) = stage.site(profile, &[]) else { return };
        let browser = stage.browser();
        browser.open(&site.url("/"));
        assert!(browser.cookie().is_none(), "looking gives no cookie");
        browser.sign_in("ada");
        let cookie = browser.cookie().unwrap();
        assert!(cookie.name().starts_with(like.name), "{cookie}");
        assert_eq!(cookie.http_only(), Some(true));
        assert_eq!(cookie.same_site().unwrap().to_string(), like.same_site);
        assert_eq!(cookie.secure().unwrap_or_default(), like.secure);
        assert_eq!((cookie.path(), cookie.domain()), (Some("/"), Some(site.name())));
        assert!(cookie.expires().is_none(), "it ends with the browser");
        assert_eq!(browser.run("return document.cookie"), "", "scripts do not see it");

        scripts_see_no_cookie(&browser);

        browser.open(&site.url("/"));
        browser.expect("#principal", "ada");
        browser.sign_out();
        assert!(browser.cookie().is_none(), "it is removed");
        assert_eq!(browser.run("return localStorage.length"), 0, "nothing is kept besides it");
        browser.reload();
        browser.expect_nothing_about("ada");
        assert_eq!(browser.complaints(), [""; 0]);
    });
}

#[test]
fn localhost_has_a_strict_cookie() {
    comes_and_goes("localhost", &Like { name: "id-", same_site: "Strict", secure: false });
}

#[test]
fn development_has_a_lax_cookie() {
    comes_and_goes("development", &Like { name: "id-", same_site: "Lax", secure: false });
}

#[test]
fn lan_has_a_strict_cookie() {
    comes_and_goes("lan", &Like { name: "id-", same_site: "Strict", secure: false });
}

#[test]
fn https_has_a_cookie_of_its_host_alone() {
    comes_and_goes("https", &Like { name: "__Host-Http-id", same_site: "Lax", secure: true });
}

/// Signs in, leaves for another page, and finds everything there on coming back.
fn come_back_signed_in(site: &Site, browser: &Browser) {
    browser.open(&site.url("/"));
    browser.sign_in("ada");
    browser.count_to(1);
    browser.open(&site.url("/healthz"));
    browser.back();
    browser.expect("#principal", "ada");
    browser.open(&site.url("/healthz"));
}

/// "Back" leads to the page as it is now, not to what was there before the sign-out: neither when this tab signed out,
/// nor when another one did while this one was elsewhere.
fn back_shows_nothing(profile: &str, scripts: bool) {
    let name = if scripts { format!("back-{profile}") } else { format!("back-{profile}-plain") };
    story(&name, |stage| {
        let Some(site) = stage.site(profile, &[]) else { return };
        let browser = || if scripts { stage.browser() } else { stage.browser_without_scripts() };
        back_in_the_same_tab(&site, &browser());
        back_in_another_tab(&site, &browser());
        back_from_another_site(&site, &stage.stranger(&site), &browser());
    });
}

fn back_in_the_same_tab(site: &Site, browser: &Browser) {
    come_back_signed_in(site, browser);
    browser.open(&site.url("/"));
    browser.expect("#principal", "ada");
    browser.sign_out();
    browser.open(&site.url("/healthz"));
    // The page that signed out, the one between, and the one before.
    browser.back();
    browser.expect_nothing_about("ada");
    while !browser.address().ends_with("/healthz") {
        browser.back();
    }
    browser.back();
    browser.expect_nothing_about("ada");
}

fn back_in_another_tab(site: &Site, browser: &Browser) {
    come_back_signed_in(site, browser);
    let first_tab = browser.open_in_new_tab(&site.url("/"));
    browser.expect("#principal", "ada");
    browser.sign_out();
    browser.go_to_tab(first_tab);
    browser.back();
    browser.expect_nothing_about("ada");
}

/// Out of reach of the page's script, and back to pages that have none.
fn back_from_another_site(site: &Site, stranger: &Stranger, browser: &Browser) {
    browser.open(&site.url("/"));
    browser.sign_in("ada");
    let other = browser.open_in_new_tab(&site.url("/"));
    browser.expect("#principal", "ada");
    browser.open(&site.url("/whoami"));
    browser.open(&site.url("/sessions"));
    browser.open(&stranger.far());
    let this = browser.go_to_tab(other);
    browser.sign_out();
    browser.go_to_tab(this);
    // The list of devices is only for who is signed in, and leads to the page.
    for page in ["", "/whoami", "/"] {
        browser.back();
        assert!(browser.address().starts_with(&site.url(page)), "{}", browser.address());
        let source = browser.source();
        assert!(!source.contains("ada"), "{page}: {source}");
    }
    browser.expect_class("none");
}

#[test]
fn back_shows_nothing_in_localhost() {
    back_shows_nothing("localhost", true);
}

#[test]
fn back_shows_nothing_in_development() {
    back_shows_nothing("development", true);
}

#[test]
fn back_shows_nothing_in_development_without_scripts() {
    back_shows_nothing("development", false);
}

#[test]
fn back_shows_nothing_in_lan() {
    back_shows_nothing("lan", true);
}

#[test]
fn back_shows_nothing_in_lan_without_scripts() {
    back_shows_nothing("lan", false);
}

#[test]
fn back_shows_nothing_in_https() {
    back_shows_nothing("https", true);
}

#[test]
fn back_shows_nothing_in_https_without_scripts() {
    back_shows_nothing("https", false);
}
