//! As on the internet: behind a proxy that speaks TLS.

use dwell_browser_tests::{NAME, Seen, story};

#[test]
fn https_behind_nginx() {
    story("https", |stage| {
        let Some(mut proxy) = stage.proxy() else { return };
        let options = ["--allow-host", &proxy.host(), "--trusted-proxy", "127.0.0.1"];
        let mut server = stage.serve("https", &options);
        proxy.start(server.address());
        let browser = stage.browser();
        browser.open(&proxy.url("/"));
        browser.sign_in("ada");
        browser.count_to(1);
        browser.add_to_cart("#add-umbrella", 1);

        let cookie = browser.cookie().unwrap();
        assert_eq!(cookie.name(), "__Host-Http-id");
        assert_eq!((cookie.secure(), cookie.http_only()), (Some(true), Some(true)));
        assert_eq!(cookie.same_site().unwrap().to_string(), "Lax");
        assert_eq!((cookie.path(), cookie.domain()), (Some("/"), Some(NAME)));
        assert_eq!(browser.run("return document.cookie"), "");

        let before = browser.seen();
        server.kill();
        server.start_again();
        browser.reload();
        browser.expect("#principal", "ada");
        let after = browser.seen();
        assert!(0 < after.life_left_s && after.life_left_s <= before.life_left_s);
        assert_eq!(after, Seen { life_left_s: after.life_left_s, ..before });
        assert_eq!(browser.cookie().unwrap().value(), cookie.value());
        browser.count_to(2);
        browser.shots("signed-in");

        browser.sign_out();
        assert!(browser.cookie().is_none());
        browser.reload();
        browser.expect_nothing_about("ada");
        assert_eq!(browser.complaints(), [""; 0]);
    });
}

#[test]
fn https_behind_nginx_without_scripts() {
    story("https-plain", |stage| {
        let Some(mut proxy) = stage.proxy() else { return };
        let mut server = stage.serve("https", &["--allow-host", &proxy.host(), "--trusted-proxy", "127.0.0.1"]);
        proxy.start(server.address());
        let browser = stage.browser_without_scripts();
        browser.open(&proxy.url("/"));
        browser.sign_in("ada");
        browser.count_to(1);
        server.kill();
        server.start_again();
        browser.reload();
        browser.expect("#principal", "ada");
        browser.expect("#visits", "1");
        browser.sign_out();
        assert!(browser.cookie().is_none());
    });
}
