//! nginx as a cache that is everybody's, in front of `--profile https`, with settings as people write them.

use dwell_browser_tests::{Browser, Site, Stage, story};

/// Keeps what may be kept, for ten minutes where the answer does not say for how long.
const PLAIN: &str = "proxy_cache_valid any 10m;";

/// Takes no notice of what usually keeps nginx from keeping an answer, but for `Cache-Control`.
const HEEDS_CACHE_CONTROL_ONLY: &str = "
      proxy_cache_valid any 10m;
      proxy_ignore_headers Set-Cookie Vary Expires X-Accel-Expires;
      proxy_cache_use_stale error timeout updating http_500 http_502 http_503 http_504;
      proxy_cache_methods GET HEAD;
      proxy_cache_revalidate on;
";

/// Takes no notice of `Cache-Control`, as where an administrator wanted to be helped out: only `Vary` and `Set-Cookie` are
/// left.
const HEEDS_VARY_ONLY: &str = "
      proxy_cache_valid any 10m;
      proxy_ignore_headers Cache-Control Expires X-Accel-Expires;
";

/// What there is to get. The last ones end like something that every cache keeps, or so it may seem.
const PATHS: [&str; 14] = [
    "/",
    "/whoami",
    "/sessions",
    "/export?format=json",
    "/export?format=xml",
    "/get?key=cart",
    "/admin",
    "/handoff?code=none",
    "/?style.css",
    "/whoami?picture.png",
    "/whoami/style.css",
    "/whoami%2Fstyle.css",
    "/whoami;style.css",
    "/static/..%2Fwhoami",
];

/// Where the cache has this from, and the answer.
fn fetch(browser: &Browser, path: &str, accept: &str) -> (String, String) {
    let got = browser.run(&format!(
        "const answer = await fetch('{path}', {{ headers: {{ Accept: '{accept}' }}, cache: 'no-store' }});
         return [answer.headers.get('X-Cache') ?? 'none', `${{answer.status}} ${{await answer.text()}}`];"
    ));
    let part = |at: usize| got[at].as_str().unwrap_or_else(|| panic!("{path}: {got}")).to_owned();
    (part(0), part(1))
}

/// The cache does keep what may be kept, or else it would be no wonder that nobody sees another's page.
fn it_is_a_cache(browser: &Browser) {
    fetch(browser, "/healthz?control", "*/*");
    assert_eq!(fetch(browser, "/healthz?control", "*/*").0, "HIT");
}

/// What visitors get, one after the other, and all of them again.
fn nobody_gets_anothers(visitors: [(&Browser, &str); 3], may_keep_own: bool) {
    for path in PATHS {
        for accept in ["*/*", "text/html"] {
            for (browser, name) in visitors.iter().chain(&visitors) {
                let (from, text) = fetch(browser, path, accept);
                assert!(
                    may_keep_own || !["HIT", "STALE", "UPDATING", "REVALIDATED"].contains(&&*from),
                    "{path}: {from}"
                );
                for other in ["ada", "bob"] {
                    assert!(other == *name || !text.contains(other), "{name} got a page of {other} at {path}: {text}");
                }
                let is_own_page = ["/", "/whoami", "/?style.css", "/whoami?picture.png"].contains(&path);
                assert!(!is_own_page || name.is_empty() || text.contains(name), "{name} at {path}: {text}");
            }
        }
    }
}

/// And no page's token comes from somebody else's page.
fn tokens_are_ones_own(browsers: [&Browser; 2]) {
    let tokens = browsers.map(|browser| {
        browser.reload();
        browser.attributes("#visit input[name=csrf]", "value")
    });
    assert_ne!(tokens[0], tokens[1]);
}

/// Somebody with a page of their own in the cache's way.
fn arrive(stage: &Stage, site: &Site, name: &str) -> Browser {
    let browser = stage.browser();
    browser.open(&site.url("/"));
    if !name.is_empty() {
        browser.sign_in(name);
    }
    browser
}

fn shows_nobody_anothers(story_name: &str, settings: &'static str, may_keep_own: bool) {
    story(story_name, |stage| {
        let Some(proxy) = stage.proxy() else { return };
        let mut site = stage.site_behind("https", Some(proxy.caching(settings)), &[]);
        let [stranger, ada, bob] = ["", "ada", "bob"].map(|name| arrive(stage, &site, name));
        it_is_a_cache(&stranger);
        nobody_gets_anothers([(&stranger, ""), (&ada, "ada"), (&bob, "bob")], may_keep_own);
        nobody_gets_anothers([(&ada, "ada"), (&bob, "bob"), (&stranger, "")], may_keep_own);
        // No cookie was given to anybody else either, and pages are the right ones when they are typed.
        for (browser, name) in [(&ada, "ada"), (&bob, "bob")] {
            browser.open(&site.url("/"));
            browser.expect("#principal", name);
        }
        assert!(stranger.cookie().is_none());
        assert_ne!(ada.cookie().unwrap().value(), bob.cookie().unwrap().value());
        if !may_keep_own {
            tokens_are_ones_own([&ada, &bob]);
            tokens_are_ones_own([&stranger, &arrive(stage, &site, "")]);
            works_as_without(&ada, &bob);
        }
        has_nothing_for_an_outage(&mut site, [(&bob, "bob"), (&stranger, "")]);
    });
}

/// What one does is seen at once, and nothing of it after a sign-out.
fn works_as_without(ada: &Browser, bob: &Browser) {
    ada.count_to(1);
    ada.add_to_cart("#add-mug", 1);
    ada.reload();
    ada.expect("#visits", "1");
    ada.sign_out();
    ada.reload();
    ada.expect_nothing_about("ada");
    bob.reload();
    bob.expect("#principal", "bob");
}

/// While the demo is away, a cache has nothing of others to show in its place.
fn has_nothing_for_an_outage(site: &mut Site, visitors: [(&Browser, &str); 2]) {
    site.kill();
    it_is_a_cache(visitors[0].0);
    for (browser, name) in visitors {
        for path in PATHS {
            let (_, text) = fetch(browser, path, "text/html");
            let is_anothers = |other: &&str| *other != name && text.contains(*other);
            assert!(!["ada", "bob"].iter().any(is_anothers), "{path}: {text}");
        }
    }
}

#[test]
fn a_cache_shows_nobody_anothers_page() {
    shows_nobody_anothers("cache", PLAIN, false);
}

#[test]
fn a_cache_that_heeds_only_cache_control_does_not_either() {
    shows_nobody_anothers("cache-control-only", HEEDS_CACHE_CONTROL_ONLY, false);
}

#[test]
fn a_cache_that_heeds_only_vary_does_not_either() {
    shows_nobody_anothers("cache-vary-only", HEEDS_VARY_ONLY, true);
}
