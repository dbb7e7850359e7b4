//! Tokens against forged requests, and the companion secret.
//!
//! It knows keys and text, no requests. Three kinds, none of which passes for another or for a session's token:
//!
//! - **bound** (`sid_c1_`): 16 random bytes, then 16 secret bytes of the session and its generation, each XORed with
//!   those. Every rendering looks different, so that nothing can be learned from how well a page compresses; all stay
//!   valid until the session's token is replaced.
//! - **visitor's** (`sid_v1_`): for somebody without a session: time, 16 random bytes, a tag under the store's key.
//!   Nothing is stored for it.
//! - **companion** (`sid_k1_`): 32 secret bytes of the session and its generation that a page keeps where another port
//!   of the same host does not reach, as cookies do.
//!
//! Invariants: compared in constant time; anything malformed is wrong.

use base64ct::{Base64UrlUnpadded, Encoding};

use crate::error::Result;
use crate::seal::{self, Key, Tagger};
use crate::time::Tick;
use crate::token::{Entropy, OsEntropy};

const BOUND: &str = "sid_c1_";
const VISITOR: &str = "sid_v1_";
const COMPANION: &str = "sid_k1_";

/// How long a visitor's token holds, in seconds: long enough to fill in a form.
const VISITOR_SECONDS: u32 = 60 * 60;

const HALF: usize = 16;
const TIME: usize = 4;

/// A fresh rendering of a session's token.
///
/// # Errors
/// `Storage` if the system's random source fails.
pub(super) fn bound(secret: &Key) -> Result<String> {
    let mut bytes = [0; 2 * HALF];
    let (pad, masked) = bytes.split_at_mut(HALF);
    OsEntropy.fill(pad)?;
    for ((to, pad), secret) in masked.iter_mut().zip(pad.iter()).zip(secret.bytes()) {
        *to = pad ^ secret;
    }
    Ok(text(BOUND, &bytes))
}

pub(super) fn is_bound(token: &str, secret: &Key) -> bool {
    let Some(bytes) = read::<{ 2 * HALF }>(BOUND, token) else { return false };
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
pub(super) fn visitor(tagger: &Tagger, now: Tick) -> Result<String> {
    let mut bytes = [0; TIME + 2 * HALF];
    let (head, tag) = bytes.split_at_mut(TIME + HALF);
    let (time, random) = head.split_at_mut(TIME);
    time.copy_from_slice(&now.0.to_be_bytes());
    OsEntropy.fill(random)?;
    tag.copy_from_slice(&tagger.tag16("visitor", &[head]));
    Ok(text(VISITOR, &bytes))
}

pub(super) fn is_visitor(token: &str, tagger: &Tagger, now: Tick) -> bool {
    let Some(bytes) = read::<{ TIME + 2 * HALF }>(VISITOR, token) else { return false };
    let Some((head, tag)) = bytes.split_last_chunk::<HALF>() else { return false };
    let Some(time) = head.first_chunk::<TIME>() else { return false };
    let made = Tick(u32::from_be_bytes(*time));
    tagger.verify("visitor", &[head], tag) && made <= now && now.since(made) < VISITOR_SECONDS
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
    use super::*;

    fn key(byte: u8) -> Key {
        Key::from_bytes([byte; 32])
    }

    #[test]
    fn renderings_differ_and_all_hold() {
        let (one, two) = (bound(&key(1)).unwrap(), bound(&key(1)).unwrap());
        assert_ne!(one, two);
        assert!(is_bound(&one, &key(1)) && is_bound(&two, &key(1)));
        assert!(!is_bound(&one, &key(2)));
        let wrong = bound(&Key::from_bytes([0; 32])).unwrap();
        assert!(!is_bound(&wrong, &key(1)), "a pad over nothing is no proof");
    }

    #[test]
    fn malformed_tokens_are_wrong() {
        let good = bound(&key(1)).unwrap();
        for bad in ["", "sid_c1_", &good[..good.len() - 1], &format!("{good}A"), &good[7..], &good.to_uppercase()] {
            assert!(!is_bound(bad, &key(1)), "{bad}");
        }
    }

    #[test]
    fn visitors_tokens_hold_an_hour() {
        let (tagger, other) = (Tagger::new(&key(1)), Tagger::new(&key(2)));
        let token = visitor(&tagger, Tick(1000)).unwrap();
        for (now, holds) in [(999, false), (1000, true), (4599, true), (4600, false)] {
            assert_eq!(is_visitor(&token, &tagger, Tick(now)), holds, "{now}");
        }
        assert!(!is_visitor(&token, &other, Tick(1000)));
        assert!(!is_visitor(&token.replace("sid_v1_", "sid_c1_"), &tagger, Tick(1000)));
    }

    #[test]
    fn kinds_do_not_pass_for_each_other() {
        let (bound, companion) = (bound(&key(1)).unwrap(), companion(&key(1)));
        assert!(is_companion(&companion, &key(1)) && !is_companion(&companion, &key(2)));
        assert!(!is_companion(&bound, &key(1)) && !is_bound(&companion, &key(1)));
        assert!(!is_bound(&companion.replace("_k1_", "_c1_"), &key(1)));
        assert!(crate::Token::parse(&bound).is_none() && crate::Token::parse(&companion).is_none());
    }
}
