//! What to call a device in the list of one's sessions: "Firefox on Linux".
//!
//! It knows text. Only the handful of browsers and systems that people recognise by name are told apart; what is not
//! known is shown as it named itself. It is for recognition, never for a decision. (The crates that know every
//! device carry tables of regular expressions, which is more than a label needs, or are no longer kept.)

/// In this order: most browsers also claim to be those further down.
const BROWSERS: [(&str, &str); 9] = [
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("Firefox/", "Firefox"),
    ("FxiOS/", "Firefox"),
    ("CriOS/", "Chrome"),
    ("Chromium/", "Chromium"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
];

const SYSTEMS: [(&str, &str); 8] = [
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Windows", "Windows"),
    ("CrOS", "ChromeOS"),
    ("Macintosh", "macOS"),
    ("Linux", "Linux"),
    ("FreeBSD", "FreeBSD"),
];

/// The longest self-chosen name that is shown, in characters.
const NAME_CHARS_MAX: usize = 60;

/// A label for a `User-Agent`.
pub(super) fn label(user_agent: &str) -> String {
    let known = |names: &[(&str, &'static str)]| {
        names.iter().find(|(mark, _)| user_agent.contains(mark)).map(|&(_, name)| name)
    };
    match (known(&BROWSERS), known(&SYSTEMS)) {
        (Some(browser), Some(system)) => format!("{browser} on {system}"),
        (Some(browser), None) => browser.to_owned(),
        (None, _) if user_agent.is_empty() => "an unnamed program".to_owned(),
        (None, _) => {
            let first = user_agent.split_whitespace().next().unwrap_or_default();
            first.replace('/', " ").chars().filter(|c| !c.is_control()).take(NAME_CHARS_MAX).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_recognise_their_browsers() {
        let cases = [
            ("Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0", "Firefox on Linux"),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 \
                 Safari/537.36 Edg/142.0.0.0",
                "Edge on Windows",
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) \
                 Version/26.0 Mobile/15E148 Safari/604.1",
                "Safari on iPhone",
            ),
            (
                "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile \
                 Safari/537.36",
                "Chrome on Android",
            ),
            ("curl/8.14.1", "curl 8.14.1"),
            ("", "an unnamed program"),
        ];
        for (user_agent, expected) in cases {
            assert_eq!(label(user_agent), expected);
        }
        assert_eq!(label(&"x".repeat(500)).len(), 60);
        assert_eq!(label("\u{1b}[31mred"), "[31mred");
    }
}
