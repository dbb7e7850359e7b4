//! What a session holds: visits, values, their limits, and taking them away as a file.

use serde_json::{Value, json};

use super::browser::Browser;
use super::http::Connection;
use super::site::{Profile, Site};

#[test]
fn a_first_visit_starts_a_session_and_reading_does_not() {
    for profile in Profile::ALL {
        let site = Site::new(profile);
        let mut browser = Browser::new(&site);
        assert_eq!(browser.value("a"), None);
        browser.is_nobody();
        assert!(browser.jar.is_empty());
        assert_eq!((browser.visit(), browser.visit()), (1, 2));
        assert_eq!(browser.passive().class, "anonymous");
        let mut setter = Browser::new(&site);
        setter.set("a", "b");
        assert_eq!(setter.value("a").as_deref(), Some("b"));
        assert_eq!(setter.passive().class, "anonymous");
    }
}

#[test]
fn values_come_back_as_they_were_given() {
    let site = Site::new(Profile::Development);
    for mut browser in [Browser::new(&site), Browser::signed_in(&site, "ada")] {
        let long = "x".repeat(10_000);
        let pairs = [
            ("a", "b"),
            ("a b&c=d", "é 🦀 \u{0}\n\t\"\\"),
            ("empty", ""),
            ("ключ", "<script>"),
            ("long", &long),
            ("id", "1"),
            ("principal", "mallory"),
            ("class", "authenticated"),
            ("visits", "99"),
            ("csrf", "x"),
            ("__proto__", "x"),
            ("cart", "tea"),
        ];
        for (key, value) in pairs {
            browser.set(key, value);
        }
        let before = browser.passive();
        for (key, value) in pairs {
            assert_eq!(browser.value(key).as_deref(), Some(value), "{key}");
        }
        assert_eq!(before.visits, 0, "a value is no counter");
        assert_ne!(before.principal.as_deref(), Some("mallory"));
        browser.set("a", "c");
        assert_eq!(browser.value("a").as_deref(), Some("c"));
        assert_eq!(browser.value("A"), None);
        assert_eq!(browser.visit(), 1);
    }
}

#[test]
fn what_is_too_large_is_refused_and_the_old_data_kept() {
    let site = Site::new(Profile::Development);
    for mut browser in [Browser::anonymous(&site), Browser::signed_in(&site, "ada")] {
        browser.set("a", "old");
        let large = "x".repeat(200_000);
        browser.post("/set", &json!({ "key": "a", "value": large })).refused(413, "too_large");
        browser.post("/set", &json!({ "key": "b", "value": large })).refused(413, "too_large");
        browser.post("/slow", &json!({ "ms": 0, "key": "b", "value": large })).refused(413, "too_large");
        assert_eq!((browser.value("a").as_deref(), browser.value("b")), (Some("old"), None));
        let piece = "y".repeat(9_000);
        let mut filled = 0;
        loop {
            let answer = browser.post("/set", &json!({ "key": format!("piece {filled}"), "value": piece }));
            if answer.status == 413 {
                answer.refused(413, "too_large");
                break;
            }
            answer.expect(204);
            filled += 1;
            assert!(filled < 100, "a session without a limit");
        }
        assert_eq!(browser.value("a").as_deref(), Some("old"));
        assert!((0..filled).all(|piece_of| browser.value(&format!("piece {piece_of}")).as_ref() == Some(&piece)));
        assert_eq!(browser.value(&format!("piece {filled}")), None);
        browser.set("piece 0", "room again");
    }
}

#[test]
fn nonsense_is_invalid_and_changes_nothing() {
    let site = Site::new(Profile::Development);
    let mut browser = Browser::signed_in(&site, "ada");
    browser.set("a", "b");
    for body in [
        json!({}),
        json!({ "key": "a" }),
        json!({ "value": "c" }),
        json!({ "key": "a", "value": 1 }),
        json!({ "key": "a", "value": null }),
        json!({ "key": ["a"], "value": "c" }),
        json!([["key", "a"]]),
        Value::Null,
    ] {
        browser.post("/set", &body).refused(422, "invalid");
    }
    for body in [
        json!({ "key": "a", "value": "c" }),
        json!({ "ms": 10_001, "key": "a", "value": "c" }),
        json!({ "ms": -1, "key": "a", "value": "c" }),
        json!({ "ms": "1", "key": "a", "value": "c" }),
    ] {
        browser.post("/slow", &body).refused(422, "invalid");
    }
    for text in
        ["", "{", "{\"key\":\"a\",\"value\":\"c\"", "key=a&value=c", "\u{feff}{}", "{\"key\":\"a\",\"value\":\"c\"}x"]
    {
        let request = browser.unsafe_request("/set").body("application/json", text);
        let answer = browser.send(&request);
        assert!(matches!(answer.status, 400 | 422), "{text:?}: {answer:?}");
        assert_eq!(answer.json()["error"], "invalid");
    }
    let answer = browser.get("/get");
    assert!(matches!(answer.status, 400 | 422), "{answer:?}");
    assert_eq!(browser.value("a").as_deref(), Some("b"));
}

#[test]
fn a_slow_write_lands() {
    let site = Site::new(Profile::Development);
    let mut browser = Browser::signed_in(&site, "ada");
    let answer = browser.post("/slow", &json!({ "ms": 20, "key": "a", "value": "slow" })).sets_no_cookie();
    assert!(matches!(answer.status, 200 | 204), "{answer:?}");
    assert_eq!(browser.value("a").as_deref(), Some("slow"));
}

/// All texts in a JSON value, keys too.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items.iter().flat_map(texts).collect(),
        Value::Object(fields) => {
            fields.iter().flat_map(|(key, value)| [vec![key.clone()], texts(value)].concat()).collect()
        }
        _ => Vec::new(),
    }
}

/// A visitor with values that are hard to write in XML.
fn awkward(site: &Site) -> (Browser, [(&'static str, &'static str); 6]) {
    let pairs = [
        ("plain", "value"),
        ("<key>&", "<b>bold</b> & \"quoted\" 'too'"),
        ("1 key", "]]> <!-- --> <?x?> <![CDATA["),
        ("entity", "&amp;&lt;&#65;&undefined;"),
        ("ключ", "значение 🦀"),
        ("k\"'=", "</value></session><planted/>"),
    ];
    let mut browser = Browser::signed_in(site, "ada");
    pairs.iter().for_each(|(key, value)| browser.set(key, value));
    (browser, pairs)
}

#[test]
fn the_export_in_json_is_this_sessions_own_data() {
    let site = Site::new(Profile::Development);
    let mut other = Browser::signed_in(&site, "ada");
    other.set("elsewhere", "of another device");
    let (mut browser, pairs) = awkward(&site);
    let answer = browser.get("/export?format=json").expect(200).sets_no_cookie();
    answer.is_private();
    let texts = texts(&answer.json());
    for (key, value) in pairs {
        assert!(texts.iter().any(|text| text == key) && texts.iter().any(|text| text == value), "{key}: {texts:?}");
    }
    assert!(!answer.text().contains("elsewhere"), "{}", answer.text());
}

#[test]
fn the_export_in_xml_is_well_formed_whatever_it_holds() {
    let site = Site::new(Profile::Development);
    let (mut browser, pairs) = awkward(&site);
    let answer = browser.get("/export?format=xml").expect(200).sets_no_cookie();
    answer.is_private();
    let media_type = answer.header("Content-Type").unwrap().to_owned();
    assert!(["application/xml", "text/xml"].iter().any(|xml| media_type.starts_with(xml)), "{media_type}");
    let text = String::from_utf8(answer.body).unwrap();
    let document = roxmltree::Document::parse(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let mut found: Vec<&str> = document.descendants().filter_map(|node| node.text()).collect();
    found.extend(document.descendants().flat_map(|node| node.attributes()).map(|attribute| attribute.value()));
    for (key, value) in pairs {
        assert!(found.contains(&key) && found.contains(&value), "{key}: {text}");
    }
    assert!(document.descendants().all(|node| !node.has_tag_name("planted")), "{text}");
}

#[test]
fn characters_that_xml_does_not_know_do_not_break_it() {
    let site = Site::new(Profile::Development);
    let mut browser = Browser::signed_in(&site, "ada");
    browser.set("null", "a\u{0}b");
    browser.set("bell \u{7}", "\u{1b}[31m \u{b} \u{fffe} \u{ffff}");
    browser.set("breaks", "one\r\ntwo\rthree\tfour\n");
    let answer = browser.get("/export?format=xml").expect(200);
    let text = String::from_utf8(answer.body).unwrap();
    let document = roxmltree::Document::parse(&text).unwrap_or_else(|error| panic!("{error}: {text:?}"));
    let found: Vec<&str> = document.descendants().filter_map(|node| node.text()).collect();
    let attributes = document.descendants().flat_map(|node| node.attributes()).map(|attribute| attribute.value());
    let all: Vec<&str> = found.into_iter().chain(attributes).collect();
    assert!(all.contains(&"one\r\ntwo\rthree\tfour\n"), "line ends are data: {text:?}");
    assert_eq!(browser.value("null").as_deref(), Some("a\u{0}b"));
}

#[test]
fn an_unknown_format_is_refused() {
    let site = Site::new(Profile::Development);
    let mut browser = Browser::signed_in(&site, "ada");
    for target in ["/export?format=yaml", "/export?format=", "/export?format=JSON%00"] {
        let answer = browser.get(target);
        assert!(matches!(answer.status, 400 | 422), "{target}: {answer:?}");
        assert_eq!(answer.json()["error"], "invalid");
    }
}

#[test]
fn health_is_told_to_anybody_and_touches_no_session() {
    let site = Site::new(Profile::Development);
    let browser = Browser::signed_in(&site, "ada");
    for request in [site.request("GET", "/healthz"), browser.request("GET", "/healthz")] {
        let answer = Connection::open(&site.address).ask(&request).expect(200).sets_no_cookie();
        assert!(answer.json().is_object(), "{}", answer.text());
        assert!(!answer.text().contains("ada"), "{}", answer.text());
    }
}
