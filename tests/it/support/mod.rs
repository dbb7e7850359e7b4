//! What several of the tests need.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

pub(crate) mod journal_file;
pub(crate) mod power;
pub(crate) mod store_file;

use dwell::{ManualClock, Options, Sessions, Token};

/// Options for a store that does its work when it is told to, and its clock.
pub(crate) fn manual() -> (Options, ManualClock) {
    let clock = ManualClock::new();
    (Options::new().clock(clock.clone()).manual_workers(), clock)
}

/// Signs somebody in, durably.
pub(crate) fn sign_in(sessions: &Sessions, principal: &str) -> Token {
    sessions.start().sign_in(principal).unwrap().blocking_wait().unwrap()
}

/// Whose session a token opens.
pub(crate) fn whose(sessions: &Sessions, token: &Token) -> Option<String> {
    let session = sessions.load(token).unwrap()?;
    Some(session.principal().unwrap().unwrap().to_string())
}
