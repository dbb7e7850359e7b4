//! Pictures of every state, for people to look at; that none is wider than its screen is checked as they are taken.

use dwell_browser_tests::story;

#[test]
fn every_state_has_its_picture() {
    story("looks", |stage| {
        let mut server = stage.serve("localhost", &[]);
        let browser = stage.browser();
        browser.open(&server.url("/"));
        browser.expect_class("none");
        browser.shots("1-stranger");
        browser.count_to(1);
        browser.shots("2-guest");
        browser.sign_in("ada");
        browser.add_to_cart("#add-coffee", 1);
        browser.add_to_cart("#add-mug", 2);
        browser.add_to_cart("#add-umbrella", 3);
        let other = stage.browser();
        other.open(&server.url("/"));
        other.sign_in("ada");
        browser.reload();
        browser.expect_count("#devices tbody tr", 2);
        browser.shots("3-signed-in");
        server.kill();
        server.start_again();
        browser.reload();
        browser.expect_count("#devices tbody tr", 2);
        browser.shots("4-after-kill-9");
        browser.press("#whoami");
        browser.wait_for_text("dialog pre", |text| text.contains("\"principal\": \"ada\""));
        browser.shots("5-who-am-i");
        browser.press("dialog button");
        browser.sign_out();
        browser.shots("6-signed-out");
    });
}

/// Long names neither break the layout nor become markup.
#[test]
fn long_names_fit() {
    story("long", |stage| {
        let server = stage.serve("development", &[]);
        let browser = stage.browser();
        browser.open(&server.url("/"));
        let name = format!("<b>{}</b>", "ß".repeat(60));
        browser.sign_in(&name);
        browser.shots("name");
    });
}

/// Refusals are data for scripts; who allows none gets to see that, and can go back.
#[test]
fn refusals_are_told_without_scripts() {
    story("refused", |stage| {
        let server = stage.serve("lan", &[]);
        let browser = stage.browser_without_scripts();
        browser.open(&server.url("/"));
        browser.try_to_sign_in("ada", "no idea");
        browser.wait_for_text("body", |text| text.contains("not the password"));
        browser.shot("wrong-password");
        assert!(browser.cookie().is_none());
        browser.back();
        browser.sign_in("ada");
        browser.open(&server.url("/nowhere"));
        browser.wait_for_text("body", |text| text.contains("nothing here"));
    });
}
