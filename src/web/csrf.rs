//! Tokens against forged requests, and the companion secret.
//!
//! It knows keys and text, no requests. Kinds, none of which passes for another or for a session's token:
//!
//! - **bound** (`sid_c1_`): 16 random bytes, then 16 secret bytes of the session and its generation, each XORed with
//!   those. Every rendering looks different, so that nothing can be learned from how well a page compresses; all stay
//!   valid until the session's token is replaced.
//! - **visitor's** (`sid_v1_`): for somebody without a session: time, 16 random bytes, a tag under the store's key.
//!   Nothing is stored for it.
//! - **for one action** (`sid_a1_`, and `sid_w1_` for a visitor): like these two, but from a secret of the action's own,
//!   so that whoever gets to see a page's token, or another action's, cannot make one.
//! - **companion** (`sid_k1_`): 32 secret bytes of the session and its generation that a page keeps where another port
//!   of the same host does not reach, as cookies do.
//!
//! Invariants: compared in constant time; anything malformed is wrong.

use std::borrow::Cow;

use base64ct::{Base64UrlUnpadded, Encoding};

use crate::error::Result;
use crate::seal::{self, Key, Tagger};
use crate::time::Tick;
use crate::token::{Entropy, OsEntropy};

const BOUND: &str = "sid_c1_";
const VISITOR: &str = "sid_v1_";
const BOUND_ACTION: &str = "sid_a1_";
const VISITOR_ACTION: &str = "sid_w1_";
const COMPANION: &str = "sid_k1_";

/// How long a visitor's token holds, in seconds: long enough to fill in a form.
const VISITOR_SECONDS: u32 = 60 * 60;

const HALF: usize = 16;
const TIME: usize = 4;

/// What a token is good for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scope<'a> {
    /// All that a page does.
    Page,
    /// One action, by its name.
    Action(&'a str),
}

impl Scope<'_> {
    const fn bound(self) -> &'static str {
        match self {
            Self::Page => BOUND,
            Self::Action(_) => BOUND_ACTION,
        }
    }

    const fn visitor(self) -> &'static str {
        match self {
            Self::Page => VISITOR,
            Self::Action(_) => VISITOR_ACTION,
        }
    }

    /// What a session's secret for it is derived for. No purpose of the library's own begins like an action's.
    pub(super) fn purpose(self) -> Cow<'static, str> {
        match self {
            Self::Page => Cow::Borrowed("csrf token"),
            Self::Action(action) => Cow::Owned(format!("csrf action: {action}")),
        }
    }

    fn visitor_tag(self, tagger: &Tagger, head: &[u8]) -> [u8; HALF] {
        match self {
            Self::Page => tagger.tag16("visitor", &[head]),
            Self::Action(action) => tagger.tag16("visitor action", &[head, action.as_bytes()]),
        }
    }
}

/// A fresh rendering of a session's token. The secret is that of the scope's purpose.
///
/// # Errors
/// `Storage` if the system's random source fails.
pub(super) fn bound(scope: Scope<'_>, secret: &Key) -> Result<String> {
    let mut bytes = [0; 2 * HALF];
    let (pad, masked) = bytes.split_at_mut(HALF);
    OsEntropy.fill(pad)?;
    for ((to, pad), secret) in masked.iter_mut().zip(pad.iter()).zip(secret.bytes()) {
        *to = pad ^ secret;
    }
    Ok(text(scope.bound(), &bytes))
}

pub(super) fn is_bound(token: &str, scope: Scope<'_>, secret: &Key) -> bool {
    let Some(bytes) = read::<{ 2 * HALF }>(scope.bound(), token) else { return false };
    let (pad, masked) = bytes.split_at(HALF);
    let mut shown = [0; HALF];
    for ((to, pad), masked) in shown.iter_mut().zip(pad).zip(masked) {
        *to = pad ^ masked;
    }
    secret.bytes().first_chunk::<HALF>().is_some_and(|secret| seal::same(secret, &shown))
}

/// A fresh token for a visitor without a session.
///
/// # Errors
/// `Storage` if the system's random source fails.
pub(super) fn visitor(scope: Scope<'_>, tagger: &Tagger, now: Tick) -> Result<String> {
    let mut bytes = [0; TIME + 2 * HALF];
    let (head, tag) = bytes.split_at_mut(TIME + HALF);
    let (time, random) = head.split_at_mut(TIME);
    time.copy_from_slice(&now.0.to_be_bytes());
    OsEntropy.fill(random)?;
    tag.copy_from_slice(&scope.visitor_tag(tagger, head));
    Ok(text(scope.visitor(), &bytes))
}

pub(super) fn is_visitor(token: &str, scope: Scope<'_>, tagger: &Tagger, now: Tick) -> bool {
    let Some(bytes) = read::<{ TIME + 2 * HALF }>(scope.visitor(), token) else { return false };
    let Some((head, tag)) = bytes.split_last_chunk::<HALF>() else { return false };
    let Some(time) = head.first_chunk::<TIME>() else { return false };
    let made = Tick(u32::from_be_bytes(*time));
    seal::same(&scope.visitor_tag(tagger, head), tag) && made <= now && now.since(made) < VISITOR_SECONDS
}

pub(super) fn companion(secret: &Key) -> String {
    text(COMPANION, secret.bytes())
}

pub(super) fn is_companion(shown: &str, secret: &Key) -> bool {
    read::<{ Key::BYTES }>(COMPANION, shown).is_some_and(|shown| seal::same(secret.bytes(), &shown))
}

fn text(prefix: &str, bytes: &[u8]) -> String {
    format!("{prefix}{}", Base64UrlUnpadded::encode_string(bytes))
}

fn read<const N: usize>(prefix: &str, text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let decoded = Base64UrlUnpadded::decode(text.strip_prefix(prefix)?, &mut bytes).ok()?.len();
    (decoded == N).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::Scope::{Action, Page};
    use super::*;

    fn key(byte: u8) -> Key {
        Key::from_bytes([byte; 32])
    }

    #[test]
    fn renderings_differ_and_all_hold() {
        let (one, two) = (bound(Page, &key(1)).unwrap(), bound(Page, &key(1)).unwrap());
        assert_ne!(one, two);
        assert!(is_bound(&one, Page, &key(1)) && is_bound(&two, Page, &key(1)));
        assert!(!is_bound(&one, Page, &key(2)));
        let wrong = bound(Page, &Key::from_bytes([0; 32])).unwrap();
        assert!(!is_bound(&wrong, Page, &key(1)), "a pad over nothing is no proof");
    }

    #[test]
    fn malformed_tokens_are_wrong() {
        let good = bound(Page, &key(1)).unwrap();
        for bad in ["", "sid_c1_", &good[..good.len() - 1], &format!("{good}A"), &good[7..], &good.to_uppercase()] {
            assert!(!is_bound(bad, Page, &key(1)), "{bad}");
        }
    }

    #[test]
    fn visitors_tokens_hold_an_hour() {
        let (tagger, other) = (Tagger::new(&key(1)), Tagger::new(&key(2)));
        let token = visitor(Page, &tagger, Tick(1000)).unwrap();
        for (now, holds) in [(999, false), (1000, true), (4599, true), (4600, false)] {
            assert_eq!(is_visitor(&token, Page, &tagger, Tick(now)), holds, "{now}");
        }
        assert!(!is_visitor(&token, Page, &other, Tick(1000)));
        assert!(!is_visitor(&token.replace("sid_v1_", "sid_c1_"), Page, &tagger, Tick(1000)));
    }

    #[test]
    fn an_actions_token_is_good_for_it_alone() {
        let secret = |scope: Scope<'_>| key(1).derive(None, &scope.purpose(), &[]);
        let scopes = [Page, Action("delete"), Action("delete "), Action("pay"), Action("")];
        let tagger = Tagger::new(&key(1));
        for (one, scope) in scopes.iter().enumerate() {
            let mine = bound(*scope, &secret(*scope)).unwrap();
            let visitors = visitor(*scope, &tagger, Tick(1000)).unwrap();
            for (other, asked) in scopes.iter().enumerate() {
                assert_eq!(is_bound(&mine, *asked, &secret(*asked)), one == other, "{scope:?} for {asked:?}");
                assert_eq!(is_visitor(&visitors, *asked, &tagger, Tick(1000)), one == other, "{scope:?} for {asked:?}");
                let passed_off = mine.replace(scope.bound(), asked.bound());
                assert!(one == other || !is_bound(&passed_off, *asked, &secret(*asked)));
                let passed_off = visitors.replace(scope.visitor(), asked.visitor());
                assert!(one == other || !is_visitor(&passed_off, *asked, &tagger, Tick(1000)));
            }
        }
    }

    #[test]
    fn kinds_do_not_pass_for_each_other() {
        let (bound, companion) = (bound(Page, &key(1)).unwrap(), companion(&key(1)));
        assert!(is_companion(&companion, &key(1)) && !is_companion(&companion, &key(2)));
        assert!(!is_companion(&bound, &key(1)) && !is_bound(&companion, Page, &key(1)));
        assert!(!is_bound(&companion.replace("_k1_", "_c1_"), Page, &key(1)));
        assert!(crate::Token::parse(&bound).is_none() && crate::Token::parse(&companion).is_none());
    }
}
