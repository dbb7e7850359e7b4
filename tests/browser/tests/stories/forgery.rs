//! Cookies that the demo did not set: made up, of others, and old ones; set by a script of the page, which is as much as
//! an injected script can do, and by another program of the same host.

use dwell_browser_tests::{Browser, Site, Stranger, story};

/// A cookie as it could be made up.
const MADE_UP: &str = "sid_k1_MadeUpByAScript";

/// Has a script of the page set a cookie.
fn plant(browser: &Browser, name: &str, value: &str, path: &str, attributes: &str) {
    browser.run(&format!("document.cookie = '{name}={value}; Path={path}{attributes}'"));
}

/// What the page's script is told, with everything that the page has to show.
fn whoami(browser: &Browser, field: &str) -> String {
    let told = browser.run(&format!(
        "const headers = {{ 'X-Companion': localStorage.getItem('dwell-companion') ?? '' }};
         return String((await (await fetch('/whoami', {{ headers }})).json()).{field});",
    ));
    told.as_str().unwrap().to_owned()
}

/// Somebody else's, in a browser of their own.
fn sign_in_elsewhere(browser: &Browser, site: &Site) -> String {
    browser.open(&site.url("/"));
    browser.sign_in("mallory");
    browser.cookie().unwrap().value().to_owned()
}

/// A script of the page neither replaces the cookie, nor makes the visitor somebody else with a second one of the name.
fn scripts_forge_nothing(profile: &str) {
    story(&format!("forged-{profile}"), |stage| {
        let Some(site) = stage.site(profile, &[]) else { return };
        let [browser, other] = [(); 2].map(|()| stage.browser());
        let mallory = sign_in_elsewhere(&other, &site);
        browser.open(&site.url("/"));
        browser.sign_in("ada");
        let cookie = browser.cookie().unwrap();
        let (name, secure) = (cookie.name(), if profile == "https" { "; Secure" } else { "" });
        for value in [MADE_UP, &mallory, ""] {
            plant(&browser, name, value, "/", secure);
            plant(&browser, name, value, "/", &format!("{secure}; Max-Age=0"));
            assert_eq!(browser.cookie().unwrap().value(), cookie.value(), "the browser keeps the demo's");
            assert_eq!(whoami(&browser, "principal"), "ada");
        }
        // A cookie of this one path goes along with the right one, and before it.
        plant(&browser, name, MADE_UP, "/whoami", secure);
        assert_eq!(whoami(&browser, "principal"), "ada");
        plant(&browser, name, &mallory, "/whoami", secure);
        // Where the browser lets scripts set such a cookie, two live sessions are nobody's.
        let expected = if profile == "https" { "ada" } else { "null" };
        assert_eq!(whoami(&browser, "principal"), expected);
        plant(&browser, name, cookie.value(), "/whoami", secure);
        assert_eq!(whoami(&browser, "principal"), "ada", "the same twice is one");
        other.sign_out();
        plant(&browser, name, &mallory, "/whoami", secure);
        assert_eq!(whoami(&browser, "principal"), "ada", "the other one has ended");
        browser.reload();
        browser.expect("#principal", "ada");
        browser.count_to(1);
    });
}

#[test]
fn scripts_forge_nothing_in_localhost() {
    scripts_forge_nothing("localhost");
}

#[test]
fn scripts_forge_nothing_in_development() {
    scripts_forge_nothing("development");
}

#[test]
fn scripts_forge_nothing_in_lan() {
    scripts_forge_nothing("lan");
}

#[test]
fn scripts_forge_nothing_in_https() {
    scripts_forge_nothing("https");
}

/// Whoever signs in gets a new cookie, whatever was there, and what was there is worth nothing.
fn nothing_is_adopted(site: &Site, stranger: &Stranger, browser: &Browser, name: &str) {
    browser.open(&stranger.planting(name, MADE_UP));
    browser.open(&site.url("/"));
    browser.expect_class("none");
    assert_eq!(browser.cookie().unwrap().value(), MADE_UP, "it is there");
    assert_eq!(whoami(browser, "class"), "none");
    browser.sign_in("ada");
    assert_ne!(browser.cookie().unwrap().value(), MADE_UP);
    browser.count_to(1);
    // It replaces the right one as well: that signs out in this browser, and no more.
    browser.open(&stranger.planting(name, MADE_UP));
    browser.open(&site.url("/"));
    browser.expect_nothing_about("ada");
    // One that was signed out is as good as a made-up one.
    browser.sign_in("ada");
    let old = browser.cookie().unwrap();
    browser.sign_out();
    browser.open(&stranger.planting(name, old.value()));
    browser.open(&site.url("/"));
    browser.expect_nothing_about("ada");
    assert_eq!(whoami(browser, "class"), "none");
}

/// A cookie from another port looks just like the demo's. Made-up ones and old ones are nobody's; a guest's that was laid
/// out for somebody is worth nothing once they have signed in.
fn other_ports_forge_nothing(profile: &str) {
    story(&format!("planted-{profile}"), |stage| {
        let Some(site) = stage.site(profile, &[]) else { return };
        let stranger = stage.stranger(&site);
        let [browser, other] = [(); 2].map(|()| stage.browser());
        other.open(&site.url("/"));
        other.count_to(1);
        let laid_out = other.cookie().unwrap();
        nothing_is_adopted(&site, &stranger, &browser, laid_out.name());

        browser.open(&stranger.planting(laid_out.name(), laid_out.value()));
        browser.open(&site.url("/"));
        browser.expect_class("anonymous");
        browser.sign_in("ada");
        browser.count_to(1);
        assert_ne!(browser.cookie().unwrap().value(), laid_out.value());
        other.reload();
        other.expect_nothing_about("ada");
        assert_eq!(other.cookie().unwrap().value(), laid_out.value());

        // Somebody else's whole sign-in takes effect, as cookies know no ports, except where it takes a companion too.
        let mallory = sign_in_elsewhere(&other, &site);
        browser.open(&stranger.planting(laid_out.name(), &mallory));
        browser.open(&site.url("/"));
        if profile == "localhost" {
            browser.expect_class("none");
            browser.expect_nothing_about("mallory");
            browser.sign_in("ada");
            other.reload();
            other.expect("#principal", "mallory");
        } else {
            browser.expect("#principal", "mallory");
        }
    });
}

#[test]
fn other_ports_forge_nothing_in_localhost() {
    other_ports_forge_nothing("localhost");
}

#[test]
fn other_ports_forge_nothing_in_development() {
    other_ports_forge_nothing("development");
}

#[test]
fn other_ports_forge_nothing_in_lan() {
    other_ports_forge_nothing("lan");
}

#[test]
fn other_ports_forge_nothing_in_https() {
    other_ports_forge_nothing("https");
}
