//! What one does with a sign-in besides using it.

use std::time::{SystemTime, UNIX_EPOCH};

use dwell_browser_tests::{Browser, story};

/// The other half of the key under `localhost`, where the page keeps it.
fn companion(browser: &Browser) -> String {
    let kept = browser.run("return localStorage.getItem('dwell-companion')");
    kept.as_str().expect("the page keeps a companion").to_owned()
}

#[test]
fn everywhere_else_is_signed_out() {
    story("everywhere-else", |stage| {
        let server = stage.serve("localhost", &[]);
        let [here, one, two, stranger] = [(); 4].map(|()| stage.browser());
        for (browser, user) in [(&one, "ada"), (&two, "ada"), (&stranger, "grace"), (&here, "ada")] {
            browser.open(&server.url("/"));
            browser.sign_in(user);
        }
        here.expect_count("#devices tbody tr", 3);
        here.shots("three-devices");
        here.press("#sign-out-others");
        here.expect_count("#devices tbody tr", 1);
        here.expect("#principal", "ada");
        here.count_to(1);
        for gone in [&one, &two] {
            gone.reload();
            gone.expect_nothing_about("ada");
        }
        stranger.reload();
        stranger.expect("#principal", "grace");
    });
}

#[test]
fn who_proves_it_again_stays_signed_in_with_a_new_key() {
    story("elevate", |stage| {
        let mut server = stage.serve("localhost", &[]);
        let browser = stage.browser();
        browser.open(&server.url("/"));
        browser.sign_in("ada");
        browser.count_to(1);
        let key = |browser: &Browser| (browser.cookie().unwrap().value().to_owned(), companion(browser));
        let (old_cookie, old_companion) = key(&browser);

        browser.fill("#elevate #password", "no idea");
        browser.press("#prove");
        browser.wait_for_text("#notice", |text| text.contains("not the password"));
        assert_eq!(key(&browser), (old_cookie.clone(), old_companion.clone()));

        browser.fill("#elevate #password", "dwell");
        browser.press("#prove");
        browser.wait_for_text("#notice", |text| text.contains("new key"));
        let (cookie, companion) = key(&browser);
        assert!(cookie != old_cookie && companion != old_companion);
        browser.expect("#principal", "ada");
        browser.count_to(2);
        browser.reload();
        browser.expect("#principal", "ada");
        server.kill();
        server.start_again();
        browser.reload();
        browser.expect("#principal", "ada");
        browser.count_to(3);
        assert_eq!(browser.complaints(), [""; 0]);
    });
}

#[test]
fn remembered_cookies_outlive_the_browser() {
    const DAY_S: i64 = 24 * 60 * 60;
    for profile in ["localhost", "development", "lan"] {
        story(&format!("remember-{profile}"), |stage| {
            let server = stage.serve(profile, &[]);
            let browser = stage.browser();
            browser.open(&server.url("/"));
            browser.press("#remember");
            browser.sign_in("ada");
            let expires = browser.cookie().unwrap().expires_datetime().expect("it outlives the browser");
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed();
            let left = expires.unix_timestamp() - now;
            assert!((30 * DAY_S - 600..=30 * DAY_S).contains(&left), "{left} s");
            let life_left_s = browser.seen().life_left_s.cast_signed();
            assert!((30 * DAY_S - 600..=30 * DAY_S).contains(&life_left_s), "{life_left_s} s");
        });
    }
}

#[test]
fn a_wrong_password_is_told() {
    story("wrong-password", |stage| {
        let server = stage.serve("localhost", &[]);
        let browser = stage.browser();
        browser.open(&server.url("/"));
        browser.try_to_sign_in("ada", "no idea");
        browser.wait_for_text("#notice", |text| text.contains("not the password"));
        browser.expect_class("none");
        browser.shots("told");
        assert!(browser.cookie().is_none());
        browser.sign_in("ada");
    });
}

/// A page that was loaded before another tab began a session has a token that no longer counts.
#[test]
fn a_stale_page_asks_to_try_again() {
    story("stale", |stage| {
        let server = stage.serve("localhost", &[]);
        let browser = stage.browser();
        browser.open(&server.url("/"));
        let stale = browser.open_in_new_tab(&server.url("/"));
        browser.count_to(1);
        browser.go_to_tab(stale);
        browser.press("#add-visit");
        browser.wait_for_text("#notice", |text| text.contains("try again"));
        browser.shots("told");
        browser.count_to(2);
    });
}

#[test]
fn a_stale_page_can_be_signed_in_on() {
    story("stale-sign-in", |stage| {
        let server = stage.serve("localhost", &[]);
        let browser = stage.browser();
        browser.open(&server.url("/"));
        let stale = browser.open_in_new_tab(&server.url("/"));
        browser.count_to(1);
        browser.go_to_tab(stale);
        browser.try_to_sign_in("ada", "dwell");
        browser.wait_for_text("#notice", |text| text.contains("try again"));
        // What was typed is still there.
        browser.press("#sign-in");
        browser.expect("#principal", "ada");
    });
}
