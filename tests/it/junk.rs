//! Tokens and handles that open nothing: one outcome, no read, no write, no trace.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use dwell::sim::Directory;
use dwell::{Field, Options, SessionId, Sessions, Token};

use crate::support::{manual, sign_in, whose};

const NUMBER: Field<u32> = Field::new("number");

/// Tokens of another store: well-formed, unknown here.
fn foreign(count: usize) -> Vec<Token> {
    let other = Options::new().in_memory().unwrap();
    let token = |_| {
        let session = other.start();
        session.set(NUMBER, &1).unwrap();
        session.token().unwrap()
    };
    (0..count).map(token).collect()
}

/// Everything that could be seen to have changed.
fn traces(directory: &Directory, sessions: &Sessions) -> (u64, Vec<(String, Vec<u8>)>, String) {
    (directory.operations(), directory.contents(), format!("{:?}", sessions.stats()))
}

/// Loads each token in both ways, again after other calls that a request may make; nothing is found.
fn open_nothing(sessions: &Sessions, tokens: &[Token]) {
    for token in tokens {
        assert!(matches!(sessions.load(token), Ok(None)));
        assert!(matches!(sessions.load_without_touch(token), Ok(None)));
    }
}

#[test]
fn respelled_tokens_are_not_even_looked_up() {
    let (options, _clock) = manual();
    let text = sign_in(&options.in_memory().unwrap(), "ada").expose();
    let mut junk: Vec<String> = (0..text.len()).map(|length| text.chars().take(length).collect()).collect();
    for extra in ["", "A", "=", " ", "\0", "\n"] {
        junk.extend([format!("{extra}{text}x"), format!("x{text}{extra}"), format!("{extra}{extra}")]);
    }
    for (from, to) in [("_", "-"), ("sid", "SID"), ("s1", "s2"), ("s1", "u1"), ("_s1", "")] {
        junk.push(text.replacen(from, to, 1));
    }
    junk.extend([text.to_uppercase(), text.to_lowercase(), "é".repeat(57), "A".repeat(57), "A".repeat(1 << 20)]);
    for at in 0..text.len() {
        for bit in 0..7 {
            let mut bytes = text.clone().into_bytes();
            let byte = bytes.get_mut(at).unwrap();
            *byte ^= 1 << bit;
            junk.push(String::from_utf8(bytes).unwrap());
        }
    }
    for text in junk {
        assert!(Token::parse(&text).is_none(), "{text:?}");
    }
}

#[test]
fn handles_and_tokens_are_not_taken_for_each_other() {
    let (options, _clock) = manual();
    let sessions = options.in_memory().unwrap();
    let token = sign_in(&sessions, "ada");
    let id = sessions.load(&token).unwrap().unwrap().id().unwrap();
    assert!(Token::parse(&id.to_string()).is_none());
    assert!(SessionId::parse(&token.expose()).is_none());
    for text in ["", "h1", "h2AAAAAAAAAAAAAAAAAAAAAA", "h1AAAAAAAAAAAAAAAAAAAAAB", "h1AAAAAAAAAAAAAAAAAAAAAA="] {
        assert!(SessionId::parse(text).is_none(), "{text:?}");
    }
    // Well-formed and made up: the tag tells.
    let made_up = SessionId::parse("h1AAAAAAAAAAEAAAAAAAAAAA").unwrap();
    assert!(sessions.revoke(made_up).unwrap().is_none());
    assert_eq!(whose(&sessions, &token).as_deref(), Some("ada"));
}

#[test]
fn unknown_expired_and_ended_tokens_leave_no_trace() {
    let (options, clock) = manual();
    let directory = Directory::new(1);
    let sessions = directory.open(&options).unwrap();
    let mut dead = foreign(200);
    let session = sessions.start();
    session.set(NUMBER, &1).unwrap();
    dead.push(session.token().unwrap());
    dead.push(session.sign_in("ada").unwrap().blocking_wait().unwrap());
    dead.push(session.rotate().unwrap().blocking_wait().unwrap());
    dead.push(session.rotate().unwrap().blocking_wait().unwrap());
    session.destroy().unwrap().blocking_wait().unwrap();
    dead.push(sign_in(&sessions, "bob"));
    sessions.revoke_all("bob").unwrap().blocking_wait().unwrap();
    dead.push(sign_in(&sessions, "cyd"));
    clock.advance(Duration::from_secs(24 * 60 * 60));
    let live = sign_in(&sessions, "ada");
    let before = traces(&directory, &sessions);
    open_nothing(&sessions, &dead);
    assert!(traces(&directory, &sessions) == before, "junk left a trace");
    assert_eq!(whose(&sessions, &live).as_deref(), Some("ada"));
}

#[test]
fn unknown_tokens_need_no_disk() {
    let options = manual().0.page_cache_bytes(1);
    let directory = Directory::new(2);
    let sessions = directory.open(&options).unwrap();
    let ended = sign_in(&sessions, "bob");
    // More than the cache of pages holds.
    let signed_in = |number: u32| {
        let session = sessions.start();
        session.sign_in(format!("ada {number}")).unwrap().blocking_wait().unwrap();
        session.set(Field::<String>::new("long"), &"x".repeat(9000)).unwrap();
        session.save().unwrap().blocking_wait().unwrap();
        session.token().unwrap()
    };
    let cold: Vec<Token> = (0..60).map(signed_in).collect();
    sessions.revoke_all("bob").unwrap().blocking_wait().unwrap();
    sessions.close().unwrap();
    let sessions = directory.open(&options).unwrap();
    // The next write finds no power, and from then on nothing can be read either.
    directory.cut_power_at(directory.operations());
    assert!(sessions.start().sign_in("cyd").unwrap().blocking_wait().is_err());
    assert!(
        cold.iter().any(|token| sessions.load(token).is_err()),
        "a session that is not in memory cannot be read, so reads do fail"
    );
    let before = traces(&directory, &sessions);
    open_nothing(&sessions, &foreign(200));
    open_nothing(&sessions, &[ended]);
    assert!(traces(&directory, &sessions) == before, "junk left a trace");
}

#[test]
fn handles_of_another_store_name_nothing() {
    let (options, _clock) = manual();
    let (directory, other) = (Directory::new(3), Directory::new(4));
    let (sessions, others) = (directory.open(&options).unwrap(), other.open(&options).unwrap());
    let tokens: Vec<Token> = (0..5).map(|_| sign_in(&sessions, "ada")).collect();
    (0..5).for_each(|_| drop(sign_in(&others, "ada")));
    let ids: Vec<SessionId> = others.of("ada").unwrap().iter().map(|info| info.id).collect();
    assert_eq!(ids.len(), 5);
    sessions.close().unwrap();
    let sessions = directory.open(&options).unwrap();
    let before = traces(&directory, &sessions);
    for id in ids {
        assert!(sessions.revoke(id).unwrap().is_none());
        assert!(sessions.revoke(SessionId::parse(&id.to_string()).unwrap()).unwrap().is_none());
    }
    assert!(traces(&directory, &sessions) == before, "foreign handles left a trace");
    assert!(tokens.iter().all(|token| whose(&sessions, token).is_some()));
    // Not even when nothing can be read.
    let id = others.of("ada").unwrap().first().unwrap().id;
    directory.cut_power_at(0);
    assert!(sessions.start().sign_in("cyd").unwrap().blocking_wait().is_err());
    assert!(sessions.revoke(id).unwrap().is_none());
}

#[test]
fn ending_what_is_not_there_writes_nothing() {
    let (options, _clock) = manual();
    let directory = Directory::new(5);
    let sessions = directory.open(&options).unwrap();
    sign_in(&sessions, "ada");
    sessions.run_pending();
    let before = (directory.operations(), directory.contents());
    for _ in 0..100 {
        sessions.start().destroy().unwrap().blocking_wait().unwrap();
        sessions.start().save().unwrap().blocking_wait().unwrap();
        assert_eq!(sessions.start().get(NUMBER).unwrap(), None);
        assert_eq!(sessions.revoke_all("nobody").unwrap().blocking_wait().unwrap(), 0);
        assert!(!sessions.enable("nobody").unwrap().blocking_wait().unwrap());
    }
    assert!((directory.operations(), directory.contents()) == before, "ending nothing wrote something");
}
