//! Two demos in one browser. Cookies know no ports, so each is sent what the browser keeps of the other.

use dwell_browser_tests::{Browser, Site, story};
use serde_json::Value;

/// All that opens a session: the cookie, and what the page keeps besides it.
struct Key {
    name: String,
    value: String,
    companion: String,
}

/// The key of the page that is shown, whose cookie is the one that these others do not have.
fn key(browser: &Browser, others: &[&Key]) -> Key {
    let mut cookies = browser.cookies();
    cookies.retain(|cookie| others.iter().all(|other| other.value != cookie.value()));
    let [cookie] = cookies.as_slice() else { panic!("not one cookie: {cookies:?}") };
    let companion = browser.run("return localStorage.getItem('dwell-companion') ?? ''");
    Key {
        name: cookie.name().to_owned(),
        value: cookie.value().to_owned(),
        companion: companion.as_str().unwrap().to_owned(),
    }
}

/// Who somebody is here that shows this cookie under this name.
fn who(site: &Site, name: &str, key: &Key) -> Value {
    let cookie = format!("{name}={}", key.value);
    let headers = [("Cookie", cookie.as_str()), ("X-Companion", &key.companion)];
    let answer = site.request("GET", "/whoami", &headers, "");
    assert!(!answer.head.to_lowercase().contains("set-cookie"), "{answer:?}");
    serde_json::from_str::<Value>(&answer.body).unwrap()["principal"].clone()
}

/// Goes to the page and finds this person there, with the next visit to count.
fn still_there(browser: &Browser, site: &Site, person: &str, visits: u32) {
    browser.open(&site.url("/"));
    browser.expect("#principal", person);
    browser.expect_count("#devices tbody tr", 1);
    browser.count_to(visits);
}

/// What ends at one of them, or gets a new key there, goes on at the other.
fn each_on_its_own(browser: &Browser, one: &mut Site, two: &mut Site) {
    browser.open(&one.url("/"));
    browser.sign_in("ada");
    browser.count_to(1);
    let ada = key(browser, &[]);
    let first_tab = browser.open_in_new_tab(&two.url("/"));
    browser.expect_nothing_about("ada");
    browser.sign_in("grace");
    browser.count_to(1);
    let grace = key(browser, &[&ada]);

    // Neither takes the other's, under whatever name, while its own is good.
    for (own, other, site, stranger) in [(&ada, &grace, &*one, &*two), (&grace, &ada, &*two, &*one)] {
        assert!(who(site, &own.name, own).is_string(), "the key is whole");
        for name in [&own.name, &other.name] {
            assert_eq!(who(stranger, name, own), Value::Null, "{name}");
        }
    }
    still_there(browser, two, "grace", 2);
    browser.go_to_tab(first_tab);
    browser.expect("#principal", "ada");
    still_there(browser, one, "ada", 2);

    browser.fill("#elevate #password", "dwell");
    browser.press("#prove");
    browser.wait_for_text("#notice", |text| text.contains("new key"));
    one.restart();
    two.restart();
    still_there(browser, two, "grace", 3);
    still_there(browser, one, "ada", 3);

    browser.sign_out();
    browser.reload();
    browser.expect_nothing_about("ada");
    still_there(browser, two, "grace", 4);
    browser.open(&one.url("/"));
    browser.sign_in("ada");
    browser.count_to(1);
    browser.open(&two.url("/"));
    browser.sign_out();
    browser.reload();
    browser.expect_nothing_about("grace");
    still_there(browser, one, "ada", 2);
    browser.sign_out();
    assert!(browser.cookies().is_empty());
    assert_eq!(browser.complaints(), [""; 0]);
}

fn two_instances(profile: &str, names: [&str; 2]) {
    story(&format!("two-{profile}"), |stage| {
        let [one, two] = names.map(|name| stage.site_named(profile, name, &[]));
        let (Some(mut one), Some(mut two)) = (one, two) else { return };
        each_on_its_own(&stage.browser(), &mut one, &mut two);
    });
}

#[test]
fn two_in_localhost() {
    two_instances("localhost", [""; 2]);
}

#[test]
fn two_in_development() {
    two_instances("development", [""; 2]);
}

#[test]
fn two_in_lan() {
    two_instances("lan", [""; 2]);
}

/// Each under a name of its own, as it has to be: this cookie's name is the same for all.
#[test]
fn two_in_https() {
    two_instances("https", ["app.test", "shop.test"]);
}

/// Under one name browsers keep one `__Host-` cookie for both ports: the later sign-in takes the place of the earlier
/// one, and neither demo takes the other's for its own.
#[test]
fn two_in_https_under_one_name_do_not_mix() {
    story("two-https-one-name", |stage| {
        let [one, two] = [(); 2].map(|()| stage.site("https", &[]));
        let (Some(one), Some(two)) = (one, two) else { return };
        let browser = stage.browser();
        browser.open(&one.url("/"));
        browser.sign_in("ada");
        browser.open(&two.url("/"));
        browser.expect_nothing_about("ada");
        browser.sign_in("grace");
        browser.count_to(1);
        browser.open(&one.url("/"));
        browser.expect_nothing_about("grace");
        browser.expect_nothing_about("ada");
        // A visitor who only looks around takes nothing from the other.
        still_there(&browser, &two, "grace", 2);
    });
}
