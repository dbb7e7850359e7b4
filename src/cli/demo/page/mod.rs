//! The page of `dwell demo` as HTML.
//!
//! What lives here: the one page in its three states, and the style, script and icon that it loads. It knows neither HTTP nor sessions: the handlers fill plain structs and get
//! text back. Invariants: whatever a visitor typed is escaped by maud; nothing is inline, so the strictest content
//! security policy holds; every form carries the CSRF token; every form also works without the script, except where
//! [`Home::needs_script`] says so. Nothing here can fail or wait.

mod parts;
#[cfg(test)]
mod tests;

use maud::{DOCTYPE, Markup, html};

/// Where the page expects [`STYLE`] to be served, as `text/css`.
pub(super) const STYLE_PATH: &str = "/style.css";
/// Where the page expects [`SCRIPT`] to be served, as `text/javascript`.
pub(super) const SCRIPT_PATH: &str = "/app.js";
/// Where the page expects [`ICON`] to be served, as `image/svg+xml`.
pub(super) const ICON_PATH: &str = "/icon.svg";

pub(super) const STYLE: &str = include_str!("../assets/style.css");
pub(super) const SCRIPT: &str = include_str!("../assets/app.js");
pub(super) const ICON: &str = include_str!("../assets/icon.svg");

/// What the page shows.
#[derive(Debug, Clone)]
pub(super) struct Home<'a> {
    /// The token that goes into every form.
    pub(super) csrf: &'a str,
    /// The profile's name.
    pub(super) profile: &'a str,
    /// Whether a signed-in visitor is recognised only by what the script sends along.
    pub(super) needs_script: bool,
    /// Whether a link can sign in another browser.
    pub(super) hands_off: bool,
    pub(super) visitor: Visitor<'a>,
    pub(super) visits: u32,
    /// One item a line; empty for an empty cart.
    pub(super) cart: &'a str,
    /// One sentence about what has just happened.
    pub(super) notice: Option<&'a str>,
}

#[derive(Debug, Clone)]
pub(super) enum Visitor<'a> {
    /// No session.
    Stranger,
    /// A session without a principal.
    Anonymous(Facts),
    SignedIn {
        principal: &'a str,
        devices: Vec<Device>,
        facts: Facts,
    },
}

/// The life of the session that the page is shown to.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// RFC 3339.
    pub(super) created: String,
    /// Rounded down.
    pub(super) idle_left_s: u64,
    /// Rounded down.
    pub(super) life_left_s: u64,
}

/// One of the visitor's own sessions.
#[derive(Debug, Clone, serde::Serialize)]
pub(super) struct Device {
    /// What `POST /sessions/revoke` takes.
    pub(super) id: String,
    /// As described at the sign-in; may be empty.
    pub(super) device: String,
    /// As seen at the sign-in; may be empty.
    pub(super) address: String,
    /// RFC 3339.
    pub(super) created: String,
    /// RFC 3339.
    pub(super) last_seen: String,
    /// Whether the page is shown to this very session.
    pub(super) current: bool,
}

/// The page.
pub(super) fn home(home: &Home<'_>) -> String {
    let title = match home.visitor {
        Visitor::SignedIn { principal, .. } => format!("{principal} – dwell demo"),
        Visitor::Stranger | Visitor::Anonymous(_) => "dwell demo".to_owned(),
    };
    let body = html! {
        (parts::header())
        (parts::notices(home))
        main #main .needs-script[home.needs_script] data-class=(class(&home.visitor)) tabindex="-1" {
            (parts::visitor(home))
            (parts::counter(home))
            (parts::cart(home))
            (parts::devices(home))
            (parts::experiment())
        }
        (parts::footer(home.profile))
    };
    // Not deferred: it has to hide the page of a stranger before the first paint when it is about to fetch the page of
    // somebody signed in.
    document(&title, &html! { script src=(SCRIPT_PATH) {} }, &body)
}

/// Asks whether a link is meant that signs in as somebody else.
pub(super) fn confirm(principal: &str, code: &str, csrf: &str, profile: &str) -> String {
    let body = html! {
        (parts::header())
        main #main tabindex="-1" {
            section .card {
                h2 { "Sign in as " (principal) "?" }
                p {
                    "This link signs you in as " strong { (principal) } ", and you are signed in as somebody else in this "
                    "browser. If you did not make the link yourself, close this page."
                }
                form method="post" action="/handoff" {
                    input type="hidden" name="csrf" value=(csrf);
                    input type="hidden" name="code" value=(code);
                    button .main type="submit" { "Sign in as " (principal) }
                }
                p { a href="/" { "Stay as you are" } }
            }
        }
        (parts::footer(profile))
    };
    document("Sign in? – dwell demo", &html! {}, &body)
}

/// Shows a link that signs in once, for pages without the script.
pub(super) fn handed_off(url: &str, profile: &str) -> String {
    let body = html! {
        (parts::header())
        main #main tabindex="-1" {
            section .card .wide {
                h2 { "A link for another browser" }
                p { "Open it there within a minute. It signs in once, and is worth nothing after that." }
                p { code #link { (url) } }
                p { a href="/" { "Back" } }
            }
        }
        (parts::footer(profile))
    };
    document("A link – dwell demo", &html! {}, &body)
}

/// A whole document in the style of the page, with what else belongs into its head.
pub(super) fn document(title: &str, head: &Markup, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                link rel="icon" type="image/svg+xml" href=(ICON_PATH);
                link rel="stylesheet" href=(STYLE_PATH);
                (head)
            }
            body { (body) }
        }
    };
    page.into_string()
}

/// The visitor in the words of `GET /whoami`, so that the script can compare the two.
fn class(visitor: &Visitor<'_>) -> &'static str {
    match visitor {
        Visitor::Stranger => "none",
        Visitor::Anonymous(_) => "anonymous",
        Visitor::SignedIn { .. } => "authenticated",
    }
}
