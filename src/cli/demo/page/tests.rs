use super::{Device, Facts, Home, ICON, SCRIPT, STYLE, Visitor, handed_off, home, parts};

const HOSTILE: &str = "</title><script>alert(1)</script>\"'&<img src=x onerror=alert(2)>";

fn facts() -> Facts {
    Facts { created: "2026-08-01T09:30:00Z".into(), idle_left_s: 43_199, life_left_s: 86_399 }
}

fn device(id: &str, name: &str, current: bool) -> Device {
    Device {
        id: id.into(),
        device: name.into(),
        address: "192.0.2.7".into(),
        created: "2026-08-01T09:30:00Z".into(),
        last_seen: "2026-08-01T10:00:00Z".into(),
        current,
    }
}

fn page(visitor: Visitor<'_>) -> Home<'_> {
    Home {
        csrf: "token-42",
        profile: "lan",
        needs_script: false,
        hands_off: true,
        visitor,
        visits: 3,
        cart: "",
        notice: None,
    }
}

fn signed_in(principal: &str) -> Visitor<'_> {
    let devices = vec![device("aaa", "Firefox on Linux", true), device("bbb", "", false)];
    Visitor::SignedIn { principal, devices, facts: facts() }
}

fn every_page() -> Vec<String> {
    let mut pages = Vec::new();
    for visitor in [Visitor::Stranger, Visitor::Anonymous(facts()), signed_in("ada"), signed_in(HOSTILE)] {
        for (needs_script, cart, notice) in
            [(false, "", None), (true, "Mug\r\nMug\n", Some("Hello.")), (true, HOSTILE, Some(HOSTILE))]
        {
            pages.push(home(&Home { needs_script, cart, notice, ..page(visitor.clone()) }));
        }
    }
    pages
}

#[test]
fn whatever_was_typed_is_escaped() {
    let devices = vec![Device { address: HOSTILE.into(), created: HOSTILE.into(), ..device(HOSTILE, HOSTILE, true) }];
    let visitor =
        Visitor::SignedIn { principal: HOSTILE, devices, facts: Facts { created: HOSTILE.into(), ..facts() } };
    let hostile = Home {
        csrf: HOSTILE,
        profile: HOSTILE,
        needs_script: true,
        cart: HOSTILE,
        notice: Some(HOSTILE),
        ..page(visitor)
    };
    let html = home(&hostile);
    assert!(!html.contains("<script>") && !html.contains("<img src=x"), "{html}");
    assert!(html.contains("&lt;script&gt;alert(1)"), "{html}");
    assert_eq!(html.matches("</title>").count(), 1, "{html}");
    assert!(html.matches("<script").count() <= 1, "{html}");
}

#[test]
fn nothing_is_inline_and_nothing_is_from_elsewhere() {
    for html in every_page() {
        for tag in tags(&html) {
            let names = attribute_names(tag);
            assert!(names.iter().all(|name| name != "style" && !name.starts_with("on")), "{tag}");
            assert!(!tag.starts_with("<style") && !tag.contains("javascript:"), "{tag}");
            assert!(!tag.contains("=\"//") && !tag.contains("=\"http") && !tag.contains("=\"data:"), "{tag}");
        }
        let script = html.contains("<script src=\"/app.js\"></script>");
        assert_ne!(script, html.contains("data-class=\"refused\""), "{html}");
        assert!(html.contains("href=\"/style.css\""), "{html}");
    }
    assert!(!STYLE.contains("url(") && !STYLE.contains("@import"));
    assert!(!SCRIPT.contains("innerHTML") && !SCRIPT.contains("eval(") && !SCRIPT.contains("http:"));
    assert!(!ICON.contains("<script") && !ICON.contains("href"));
}

#[test]
fn every_form_posts_and_carries_the_token() {
    for html in every_page() {
        for form in html.split("<form").skip(1) {
            let form = form.split("</form>").next().unwrap();
            assert!(form.contains("method=\"post\""), "{form}");
            assert_eq!(form.matches("name=\"csrf\" value=\"token-42\"").count(), 1, "{form}");
        }
        assert_eq!(html.matches("<form").count(), html.matches("</form>").count(), "{html}");
    }
}

#[test]
fn no_id_is_given_twice() {
    for html in every_page() {
        let mut ids: Vec<_> = tags(&html).filter_map(|tag| tag.split(" id=\"").nth(1)?.split('"').next()).collect();
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), all, "{html}");
    }
}

#[test]
fn a_stranger_is_asked_to_sign_in_and_told_the_password() {
    let html = home(&page(Visitor::Stranger));
    for part in ["data-class=\"none\"", "action=\"/login\"", "<code>dwell</code>", "action=\"/visit\"", "Kept when you"]
    {
        assert!(html.contains(part), "{part}: {html}");
    }
    for part in ["action=\"/logout\"", "id=\"devices\"", "id=\"idle-left\"", "noscript"] {
        assert!(!html.contains(part), "{part}: {html}");
    }
}

#[test]
fn a_guest_sees_how_long_the_visit_lasts() {
    let html = home(&page(Visitor::Anonymous(facts())));
    assert!(html.contains("data-class=\"anonymous\"") && html.contains("action=\"/login\""), "{html}");
    assert!(html.contains("data-seconds=\"43199\">11 h 59 min 59 s<"), "{html}");
}

#[test]
fn somebody_signed_in_sees_their_devices_and_can_end_each() {
    let html = home(&page(signed_in("ada")));
    for part in [
        "data-class=\"authenticated\"",
        "<title>ada – dwell demo</title>",
        "<span id=\"principal\">ada</span>",
        "name=\"id\" value=\"bbb\"",
        "name=\"others\" value=\"true\"",
        "action=\"/logout\"",
        "action=\"/elevate\"",
        "action=\"/handoff\"",
        "Unknown device",
        "<time datetime=\"2026-08-01T09:30:00Z\">2026-08-01 09:30:00 UTC</time>",
    ] {
        assert!(html.contains(part), "{part}: {html}");
    }
    assert_eq!(html.matches("this one").count(), 1);
    assert!(!html.contains("action=\"/login\""), "{html}");
    let html = home(&Home { hands_off: false, ..page(signed_in("ada")) });
    assert!(!html.contains("action=\"/handoff\""), "{html}");
}

#[test]
fn a_link_is_shown_as_text_and_escaped() {
    let html = handed_off(HOSTILE, "lan");
    assert!(html.contains("<code id=\"link\">&lt;/title&gt;") && !html.contains("<script"), "{html}");
}

#[test]
fn the_shell_says_that_it_needs_the_script() {
    let html = home(&Home { needs_script: true, profile: "localhost", ..page(Visitor::Stranger) });
    assert!(html.contains("<noscript>") && html.contains("“localhost”"), "{html}");
}

#[test]
fn goods_go_on_a_line_of_their_own() {
    let html = home(&Home { cart: "Blue mug\r\n\r\nBlue mug", ..page(Visitor::Stranger) });
    assert!(html.contains("value=\"Blue mug\nBlue mug\nUmbrella\""), "{html}");
    assert!(html.contains("2 items") && html.contains("× 2"), "{html}");
    assert!(html.contains("name=\"value\" value=\"\""), "{html}");
    let long = (0..1000).map(|number| format!("item {number}\n")).collect::<String>();
    let html = home(&Home { cart: &long, ..page(Visitor::Stranger) });
    assert!(html.contains("and 950 other kinds"), "{html}");
}

#[test]
fn time_left_names_every_second() {
    for (seconds, text) in [(0, "0 s"), (59, "59 s"), (60, "1 min 0 s"), (3_600, "1 h 0 min 0 s")] {
        assert_eq!(parts::words(seconds), text);
    }
    assert_eq!(parts::words(30 * 86_400 - 1), "29 d 23 h 59 min 59 s");
}

/// Opening tags. An escaped text has no `<`, and no attribute of ours holds a bare `>`.
fn tags(html: &str) -> impl Iterator<Item = &str> {
    html.split('<').skip(1).filter(|part| !part.starts_with('/')).map(|part| part.split('>').next().unwrap())
}

/// The names of the attributes in a tag; what stands between quotes is not looked at.
fn attribute_names(tag: &str) -> Vec<String> {
    let outside: String = tag.split('"').step_by(2).collect::<Vec<_>>().join(" ");
    let words = outside.split_whitespace().skip(1);
    words.map(|word| word.trim_end_matches('=').to_lowercase()).filter(|name| !name.is_empty()).collect()
}
