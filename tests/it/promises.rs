//! Holds the guide's page of promises against the tests that it names.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const PAGE: &str = "src/guide/promises.md";

/// A row: what is promised, where that comes from, and by which tests it is held.
#[derive(Debug)]
struct Promise<'a> {
    text: &'a str,
    source: &'a str,
    tests: Vec<&'a str>,
}

fn promises(page: &str) -> Vec<Promise<'_>> {
    let is_head = |line: &str| ["| Promise |", "| Class of attack |"].iter().any(|head| line.starts_with(head));
    let rows = page.lines().filter(|line| line.starts_with("| ") && !is_head(line));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [text, source, tests] = cells[..] else { panic!("three cells are due: {row}") };
        Promise { text, source, tests: tests.split_whitespace().map(|test| test.trim_matches('`')).collect() }
    })
    .collect()
}

/// The files that may hold a module: `a/b.rs` or `a/b/mod.rs`, or the file of a module above.
fn files(root: &str, modules: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for depth in (1..=modules.len()).rev() {
        let path = Path::new(root).join(modules[..depth].join("/"));
        found.extend([path.with_extension("rs"), path.join("mod.rs"), path.join("tests.rs")]);
    }
    found
}

fn is_there(test: &str) -> bool {
    let parts: Vec<&str> = test.split("::").collect();
    let (root, parts) = match parts.split_first() {
        Some((&"src", rest)) => ("src", rest),
        _ => ("tests/it", &parts[..]),
    };
    let Some((name, modules)) = parts.split_last() else { return false };
    let needle = format!("fn {name}(");
    let nearest = files(root, modules).into_iter().filter_map(|path| fs::read_to_string(path).ok());
    nearest.filter(|text| is_test(text, &needle)).count() > 0
}

/// Whether the function is there and is a test.
fn is_test(text: &str, needle: &str) -> bool {
    text.match_indices(needle).any(|(at, _)| {
        let before: Vec<&str> = text[..at].lines().rev().take(8).collect();
        let attributes = before.iter().take_while(|line| !line.trim().is_empty() && line.trim() != "}");
        attributes.into_iter().any(|line| line.contains("#[test]") || line.contains("::test]"))
            || text[..at].rsplit("proptest! {").next().is_some_and(|inside| inside.contains("#[test]"))
    })
}

#[test]
fn every_promise_is_held_by_tests_that_are_there() {
    let page = fs::read_to_string(PAGE).unwrap();
    let promises = promises(&page);
    assert!(promises.len() > 50, "{}", promises.len());
    let mut texts = BTreeSet::new();
    for Promise { text, source, tests } in &promises {
        assert!(texts.insert(*text), "twice: {text}");
        assert!(!source.is_empty() && !tests.is_empty(), "{text}");
        for test in tests {
            assert!(is_there(test), "`{test}` is not there any more, which holds: {text}");
        }
    }
}

/// Whether this is a list of CVE numbers and nothing else.
fn are_cases(source: &str) -> bool {
    let is_number = |digits: &str| digits.len() >= 4 && digits.bytes().all(|byte| byte.is_ascii_digit());
    source.split(", ").all(|case| {
        let parts: Vec<&str> = case.split('-').collect();
        matches!(parts[..], ["CVE", year, number] if is_number(year) && is_number(number))
    })
}

#[test]
fn every_class_of_attack_has_published_cases() {
    let page = fs::read_to_string(PAGE).unwrap();
    let (promised, classes) = page.split_once("| Class of attack |").unwrap();
    assert!(promised.contains("| Promise |") && !classes.contains("| Promise |"), "they are the last table");
    let classes = promises(classes);
    assert!(classes.len() >= 19, "{}", classes.len());
    for Promise { text, source, .. } in &classes {
        assert!(are_cases(source), "{text}: {source}");
    }
    assert!(are_cases("CVE-2020-8184, CVE-2018-1000519"));
    for other in ["", "ASVS 7.2.1", "CVE-2020", "CVE-2020-8184,CVE-2020-8185", "CVE-20-8184", "CVE-2020-81x4"] {
        assert!(!are_cases(other), "{other}");
    }
}

#[test]
fn a_test_that_is_not_there_is_missed() {
    assert!(is_there("promises::a_test_that_is_not_there_is_missed"));
    assert!(is_there("src::web::csrf::kinds_do_not_pass_for_each_other"));
    for gone in ["promises::no_such_test", "no_such_file::a_test", "promises::promises", "src::web::csrf::bound", ""] {
        assert!(!is_there(gone), "{gone}");
    }
    let row = "| Promise | Source | Held by |\n|---|---|---|\n| a | b | `c::d` `e` |\n";
    let [promise] = &promises(row)[..] else { panic!("one row") };
    assert_eq!((promise.text, promise.source, &promise.tests[..]), ("a", "b", &["c::d", "e"][..]));
}

/// What the guide's table says of a limit, in seconds: `30 min, 12 h`.
pub(super) fn spans(limit: &str) -> Vec<u64> {
    let page = fs::read_to_string("src/guide/operations.md").unwrap();
    let head = format!("| {limit} | ");
    let row = page.lines().find_map(|line| line.strip_prefix(&*head)).unwrap_or_else(|| panic!("no row for {limit}"));
    seconds(row.split([';', '|']).next().unwrap())
}

/// The cell after that.
#[cfg(feature = "cli")]
pub(super) fn remembered_spans(limit: &str) -> Vec<u64> {
    let page = fs::read_to_string("src/guide/operations.md").unwrap();
    let head = format!("| {limit} | ");
    let row = page.lines().find_map(|line| line.strip_prefix(&*head)).unwrap_or_else(|| panic!("no row for {limit}"));
    seconds(row.split('|').nth(1).unwrap())
}

/// `30 min, 12 h`, in seconds.
fn seconds(spans: &str) -> Vec<u64> {
    let seconds = |span: &str| {
        let (number, unit) = span.trim().split_once(' ').unwrap();
        let unit = ["min", "h", "days"].iter().zip([60, 3600, 86_400]).find(|(name, _)| **name == unit).unwrap().1;
        number.parse::<u64>().unwrap() * unit
    };
    spans.split(',').map(seconds).collect()
}

#[test]
fn sessions_live_as_long_as_the_guide_says() {
    let options = dwell::Options::new().clock(dwell::ManualClock::new()).manual_workers();
    let sessions = options.in_memory().unwrap();
    let session = sessions.start();
    let lives = || [session.idle_left(), session.life_left()].map(|left| left.unwrap().unwrap().as_secs());
    session.set(dwell::Field::<u32>::new("number"), &1).unwrap();
    assert_eq!(lives().as_slice(), [spans("anonymous life"), spans("anonymous life")].concat());
    session.sign_in("ada").unwrap().blocking_wait().unwrap();
    assert_eq!(lives().as_slice(), spans("idle timeout, lifetime"));
    session.sign_in(dwell::SignIn::new("ada").remembered()).unwrap().blocking_wait().unwrap();
    assert_eq!(lives().as_slice(), spans("remembered"));
}

#[test]
fn sessions_live_as_long_as_their_assurance_level_allows() {
    use dwell::{AssuranceLevel, ManualClock, Options, SignIn};
    let page = fs::read_to_string("src/guide/operations.md").unwrap();
    let lives = |options: Options, sign_in| {
        let sessions = options.clock(ManualClock::new()).manual_workers().in_memory().unwrap();
        let session = sessions.start();
        session.sign_in(sign_in).unwrap().blocking_wait().unwrap();
        [session.idle_left(), session.life_left()].map(|left| left.unwrap().unwrap().as_secs())
    };
    for (row, level, allowed) in [
        ("| `AssuranceLevel::One` | ", AssuranceLevel::One, [30 * 86_400, 30 * 86_400]),
        ("| `AssuranceLevel::Two` | ", AssuranceLevel::Two, [3_600, 86_400]),
        ("| `AssuranceLevel::Three` | ", AssuranceLevel::Three, [900, 43_200]),
    ] {
        let cells = page.lines().find_map(|line| line.strip_prefix(row)).unwrap_or_else(|| panic!("no row {row}"));
        let cells: Vec<_> = cells.trim_end_matches(" |").split('|').map(seconds).collect();
        let options = || Options::new().assurance(level);
        let plain = lives(options(), SignIn::new("ada"));
        let remembered = lives(options(), SignIn::new("ada").remembered());
        assert_eq!(cells, [allowed, plain, remembered], "{row}");
        let cut_down =
            lives(options().lifetime(Options::LIFETIME_MAX).idle_timeout(Options::LIFETIME_MAX), SignIn::new("ada"));
        assert_eq!(cut_down, allowed, "{row}");
        let asked = lives(options(), SignIn::new("ada").limits(Options::LIFETIME_MAX, Options::LIFETIME_MAX));
        assert_eq!(asked, plain, "{row}");
    }
}
