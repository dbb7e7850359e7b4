//! The page: what it shows, what it lets in, and that it works without script.

use super::answer::Answer;
use super::browser::Browser;
use super::site::{Profile, Site};

/// Values of an attribute, in whatever element.
fn attributes<'a>(html: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    let pattern = format!(" {name}=\"");
    html.match_indices(&pattern)
        .map(|(at, found)| &html[at + found.len()..])
        .filter_map(|rest| rest.split('"').next())
        .collect::<Vec<_>>()
        .into_iter()
}

/// What the page has the browser fetch from its own server.
pub(super) fn assets(html: &str) -> Vec<String> {
    let targets = attributes(html, "src").chain(attributes(html, "href"));
    targets.filter(|target| target.len() > 1 && target.starts_with('/')).map(str::to_owned).collect()
}

#[track_caller]
fn page(browser: &mut Browser) -> Answer {
    let request = browser.request("GET", "/").with("Accept", "text/html,application/xhtml+xml,*/*;q=0.8");
    let answer = browser.send(&request).expect(200).sets_no_cookie();
    assert!(answer.header("Content-Type").unwrap().starts_with("text/html"), "{answer:?}");
    answer.is_private();
    answer
}

/// The token that a form of the page carries.
#[track_caller]
fn form_token(html: &str) -> String {
    let inputs = html.split("<input").skip(1).filter_map(|input| input.split('>').next());
    let field = inputs.into_iter().find(|input| input.contains("name=\"csrf\""));
    let field = field.unwrap_or_else(|| panic!("no form with a token in {html}"));
    attributes(field, "value").next().unwrap_or_else(|| panic!("{field}")).to_owned()
}

#[test]
fn the_policy_lets_nothing_in_from_elsewhere() {
    for profile in Profile::ALL {
        let site = Site::new(profile);
        for mut visitor in [Browser::new(&site), Browser::signed_in(&site, "ada")] {
            let answer = page(&mut visitor);
            let policy = answer.header("Content-Security-Policy").expect("a policy").to_owned();
            for lax in ["unsafe-inline", "unsafe-eval", "*", "http:", "https:", "data: 'self' script"] {
                assert!(!policy.contains(lax), "{policy}");
            }
            for strict in ["default-src ", "frame-ancestors 'none'", "form-action ", "base-uri "] {
                assert!(policy.contains(strict), "no {strict}in {policy}");
            }
            assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"));
            let html = answer.text();
            for source in attributes(&html, "src") {
                assert!(
                    source.starts_with("data:") || source.starts_with('/') && !source.starts_with("//"),
                    "{source}"
                );
            }
            let links = html.split("<link").skip(1).filter_map(|link| link.split('>').next());
            assert!(links.into_iter().all(|link| !link.contains("//")), "{html}");
            for asset in attributes(&html, "src").filter(|source| source.starts_with('/')) {
                visitor.get(asset).expect(200).sets_no_cookie();
            }
        }
    }
}

#[test]
fn it_works_without_script() {
    for profile in [Profile::Lan, Profile::Https, Profile::Development] {
        let site = Site::new(profile);
        let mut browser = Browser::new(&site);
        let post = |browser: &mut Browser, target: &str, fields: &[(&str, &str)]| {
            let token = form_token(&page(browser).text());
            let fields: Vec<_> = fields.iter().copied().chain([("csrf", &*token)]).collect();
            let request = browser.request("POST", target).with("Origin", site.origin()).with("Accept", "text/html");
            let answer = browser.send(&request.form(&fields)).expect(303);
            assert_eq!(answer.header("Location"), Some("/"));
            answer
        };
        assert!(!page(&mut browser).text().contains("ada-lovelace"));
        post(&mut browser, "/login", &[("user", "ada-lovelace"), ("password", "dwell")]);
        browser.is("ada-lovelace", 0);
        let html = page(&mut browser).text();
        assert!(html.contains("ada-lovelace"), "{html}");
        assert!(html.contains(&browser.id()), "the device list has a button for each: {html}");
        post(&mut browser, "/logout", &[]);
        assert!(browser.jar.is_empty());
        assert!(!page(&mut browser).text().contains("ada-lovelace"));
    }
}

#[test]
fn it_offers_what_the_contract_names() {
    let site = Site::new(Profile::Development);
    let html = page(&mut Browser::new(&site)).text();
    for name in ["user", "password", "remember", "csrf"] {
        assert!(html.contains(&format!("name=\"{name}\"")), "no field {name} in {html}");
    }
    let html = page(&mut Browser::signed_in(&site, "ada")).text();
    for action in ["/logout", "/sessions/revoke"] {
        assert!(html.contains(&format!("action=\"{action}\"")), "no form for {action} in {html}");
    }
}

#[test]
fn on_localhost_it_is_a_shell_that_says_it_needs_script() {
    let site = Site::new(Profile::Localhost);
    let mut browser = Browser::signed_in(&site, "ada-lovelace");
    // A browser that follows a link sends the cookie and cannot send the companion.
    browser.companion = None;
    let html = page(&mut browser).text();
    assert!(!html.contains("ada-lovelace"), "{html}");
    assert!(html.contains("<noscript"), "{html}");
}

#[test]
fn names_and_values_are_text_and_not_markup() {
    let site = Site::new(Profile::Development);
    let mut browser = Browser::signed_in(&site, "<img src=x onerror=alert(1)>\"'&");
    for (key, value) in [("cart", "<script>alert(2)</script>"), ("<b>k", "\"><svg onload=alert(3)>")] {
        browser.set(key, value);
    }
    let html = page(&mut browser).text();
    for markup in ["<img src=x", "<script>alert", "<svg onload", "<b>k"] {
        assert!(!html.contains(markup), "{html}");
    }
    assert!(html.contains("&lt;img src=x"), "the name is shown: {html}");
}

#[test]
fn reading_the_page_is_no_visit() {
    let site = Site::new(Profile::Development);
    let mut browser = Browser::signed_in(&site, "ada");
    page(&mut browser);
    page(&mut browser);
    browser.is("ada", 0);
}
