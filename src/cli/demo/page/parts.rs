//! The cards of the page and what they are made of.
//!
//! What lives here: one function for each card, and the few shapes they share. It knows the structs of the module
//! above and nothing else. Invariant: `post` is the only function that opens a form, so none is without its token.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::{Device, Facts, Home, ICON_PATH, Visitor};

pub(super) fn header() -> Markup {
    html! {
        header {
            img src=(ICON_PATH) alt="" width="48" height="48";
            div {
                h1 { "dwell " span { "demo" } }
                p { "Kill this process, start it again, reload: you are still signed in." }
            }
        }
    }
}

/// The two live regions stay outside of `<main>`: a screen reader hears a change only in an element that remains.
pub(super) fn notices(home: &Home<'_>) -> Markup {
    html! {
        p #notice role="status" aria-live="polite" tabindex="-1" { @if let Some(notice) = home.notice { (notice) } }
        p #heard .unseen role="status" aria-live="polite" {}
        @if home.needs_script {
            noscript {
                p .shell {
                    strong { "Signing in needs JavaScript here. " }
                    "In the profile “" (home.profile) "” the cookie is only half of the key; the other half is kept by "
                    "this page’s script. Allow the script, or start the demo with " code { "--profile development" } "."
                }
            }
        }
    }
}

pub(super) fn visitor(home: &Home<'_>) -> Markup {
    match &home.visitor {
        Visitor::Stranger => sign_in(home, None),
        Visitor::Anonymous(life) => sign_in(home, Some(life)),
        Visitor::SignedIn { principal, facts: life, .. } => html! {
            section #you .card aria-labelledby="you-title" {
                h2 #you-title { "Hello, " span #principal { (principal) } }
                (facts(life, "Signed in since"))
                (post(home, "/logout", "logout", &html! { button #sign-out { "Sign out" } }))
                (elevate(home, principal))
            }
        },
    }
}

fn sign_in(home: &Home<'_>, life: Option<&Facts>) -> Markup {
    let fields = html! {
        (field("user", "User name", "text", "username"))
        (field("password", "Password", "password", "current-password"))
        label .check for="remember" {
            input #remember type="checkbox" name="remember" value="true";
            span { "Remember me " small { "also after this browser was closed" } }
        }
        button #sign-in .main { "Sign in" }
    };
    html! {
        section #you .card aria-labelledby="you-title" {
            h2 #you-title { "Sign in" }
            p .hint { "Any user name will do. The password of the demo is " code { "dwell" } "." }
            (post(home, "/login", "login", &fields))
            @if let Some(life) = life {
                h3 { "You are a guest so far" }
                (facts(life, "Here since"))
            }
        }
    }
}

fn elevate(home: &Home<'_>, principal: &str) -> Markup {
    // Nameless, so it is not sent: it tells a password manager whose password is asked for.
    let fields = html! {
        input type="text" autocomplete="username" value=(principal) readonly hidden;
        (field("password", "Password", "password", "current-password"))
        button #prove { "Prove it" }
    };
    html! {
        h3 #elevate-title { "Prove it is you again" }
        p .hint { "As before changing an address or paying. The session gets a new key; the old one is worth nothing." }
        (post(home, "/elevate", "elevate", &fields))
    }
}

fn facts(facts: &Facts, since: &str) -> Markup {
    html! {
        dl {
            div { dt { (since) } dd #since { (moment(&facts.created)) } }
            div { dt { "Idle time left" } dd { (left("idle", facts.idle_left_s)) } }
            div { dt { "Life left" } dd { (left("life", facts.life_left_s)) } }
        }
    }
}

pub(super) fn counter(home: &Home<'_>) -> Markup {
    html! {
        section #counter .card aria-labelledby="counter-title" {
            h2 #counter-title { "Visits" }
            p .count data-heard {
                output #visits { (home.visits) }
                span { @if home.visits == 1 { " visit" } @else { " visits" } }
            }
            (post(home, "/visit", "visit", &html! { button #add-visit .main { "Count a visit" } }))
            p .hint { @match home.visitor {
                Visitor::SignedIn { .. } => "On disk before the answer is sent.",
                _ => "Guests may count too. It starts again at 0 when you sign in.",
            } }
        }
    }
}

pub(super) fn cart(home: &Home<'_>) -> Markup {
    let mut counts = BTreeMap::<&str, usize>::new();
    for item in items(home.cart) {
        *counts.entry(item).or_default() += 1;
    }
    let total: usize = counts.values().sum();
    let buttons = html! {
        input type="hidden" name="key" value="cart";
        @for (id, item) in GOODS {
            button id={ "add-" (id) } name="value" value=(with(home.cart, item)) { "+ " (item) }
        }
        @if total > 0 { button #empty-cart .quiet name="value" value="" { "Empty the cart" } }
    };
    html! {
        section #basket .card aria-labelledby="basket-title" {
            h2 #basket-title { "Cart" }
            @if total == 0 { p .hint data-heard { "The cart is empty." } }
            @else {
                p .hint data-heard { (total) @if total == 1 { " item" } @else { " items" } " in the cart" }
                ul #cart {
                    @for (item, count) in counts.iter().take(KINDS_SHOWN_MAX) {
                        li { span { (item) } @if *count > 1 { small { "× " (count) } } }
                    }
                }
                @if let Some(more @ 1..) = counts.len().checked_sub(KINDS_SHOWN_MAX) {
                    p .hint { "and " (more) " other kinds" }
                }
            }
            (post(home, "/set", "set-cart", &buttons))
            @if !matches!(home.visitor, Visitor::SignedIn { .. }) { p .hint { "Kept when you sign in." } }
        }
    }
}

pub(super) fn devices(home: &Home<'_>) -> Markup {
    let Visitor::SignedIn { devices, .. } = &home.visitor else {
        return Markup::default();
    };
    let others = html! {
        input type="hidden" name="others" value="true";
        button #sign-out-others { "Sign out everywhere else" }
    };
    // The roles look redundant, but the narrow layout changes `display`, and that takes them from the elements.
    html! {
        section #your-devices .card .wide aria-labelledby="devices-title" {
            h2 #devices-title { "Your devices" }
            table #devices role="table" aria-labelledby="devices-title" {
                thead role="rowgroup" {
                    tr role="row" {
                        @for title in ["Device", "Address", "Signed in", "Last seen", "Sign out"] {
                            th role="columnheader" scope="col" { (title) }
                        }
                    }
                }
                tbody role="rowgroup" { @for device in devices { (row(home, device)) } }
            }
            div .actions {
                (post(home, "/sessions/revoke", "revoke-others", &others))
                @if home.hands_off {
                    (post(home, "/handoff", "hand-off", &html! { button #make-link { "Link for another browser" } }))
                }
            }
        }
    }
}

fn row(home: &Home<'_>, device: &Device) -> Markup {
    let name = if device.device.is_empty() { "Unknown device" } else { &device.device };
    let button = html! {
        input type="hidden" name="id" value=(device.id);
        button id={ "revoke-" (device.id) } aria-label={ "Sign out " (name) } { "Sign out" }
    };
    html! {
        tr role="row" data-session=(device.id) data-current[device.current] {
            th role="rowheader" scope="row" {
                span { (name) }
                @if device.current { " " strong .badge { "this one" } }
            }
            td role="cell" data-title="Address" { @if device.address.is_empty() { "–" } @else { (device.address) } }
            td role="cell" data-title="Signed in" { (moment(&device.created)) }
            td role="cell" data-title="Last seen" { (moment(&device.last_seen)) }
            td role="cell" { (post(home, "/sessions/revoke", &format!("revoke-form-{}", device.id), &button)) }
        }
    }
}

pub(super) fn experiment() -> Markup {
    html! {
        aside #experiment .card .wide aria-labelledby="experiment-title" {
            h2 #experiment-title { "Try it" }
            ol {
                li { "Sign in, put something into the cart, then be rude to the server: " code { "kill -9 $(pidof dwell)" } }
                li { "Start " code { "dwell demo" } " again and reload. The same you, the same cart, the same count." }
            }
        }
    }
}

/// The links are marked for the script: where there is a companion, a bare link would not send it.
pub(super) fn footer(profile: &str) -> Markup {
    html! {
        footer {
            p { "Profile " strong #profile { (profile) } }
            nav aria-label="Data" {
                a #export-json href="/export?format=json" data-companion { "Your data as JSON" }
                a #export-xml href="/export?format=xml" data-companion { "as XML" }
                a #whoami href="/whoami" data-companion { "Who am I" }
                a #healthz href="/healthz" { "Health" }
            }
        }
    }
}

fn post(home: &Home<'_>, action: &str, id: &str, content: &Markup) -> Markup {
    html! {
        form id=(id) method="post" action=(action) {
            input type="hidden" name="csrf" value=(home.csrf);
            (content)
        }
    }
}

fn field(name: &str, label: &str, kind: &str, autocomplete: &str) -> Markup {
    html! {
        label for=(name) {
            span { (label) }
            input id=(name) name=(name) type=(kind) autocomplete=(autocomplete) autocapitalize="none" spellcheck="false"
                required maxlength="128";
        }
    }
}

/// Time left. The number is there for the script, which counts on from it.
fn left(kind: &str, seconds: u64) -> Markup {
    html! { span id={ (kind) "-left" } role="timer" data-seconds=(seconds) { (words(seconds)) } }
}

/// A span of time with all its units: leaving out the seconds would claim less than there is.
pub(super) fn words(seconds: u64) -> String {
    let parts = [(seconds / 86_400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "min"), (seconds % 60, "s")];
    let shown: Vec<_> = parts.iter().skip_while(|(count, unit)| *count == 0 && *unit != "s").collect();
    shown.iter().map(|(count, unit)| format!("{count} {unit}")).collect::<Vec<_>>().join(" ")
}

/// A moment for people; the script turns it into local time.
fn moment(rfc3339: &str) -> Markup {
    let shown = rfc3339.replace('T', " ").replace('Z', " UTC");
    html! { @if rfc3339.is_empty() { "–" } @else { time datetime=(rfc3339) { (shown) } } }
}

fn items(cart: &str) -> impl Iterator<Item = &str> {
    cart.lines().map(str::trim).filter(|item| !item.is_empty())
}

fn with(cart: &str, item: &str) -> String {
    items(cart).chain([item]).collect::<Vec<_>>().join("\n")
}

/// What the shop sells: the end of the button's id, and the name.
const GOODS: [(&str, &str); 4] =
    [("coffee", "Coffee beans"), ("mug", "Blue mug"), ("notebook", "Notebook"), ("umbrella", "Umbrella")];

/// Kinds of goods listed; a cart is free text and could be thousands of lines.
const KINDS_SHOWN_MAX: usize = 50;
