//! Grants for single operations: once, for what was shown, soon, by whoever is signed in.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use dwell::sim::Directory;
use dwell::{ErrorKind, Field, Operation, Options, Session, Sessions, SignIn};

use crate::support::{manual, sign_in};

const MINUTE: Duration = Duration::from_secs(60);

fn transfer(cents: u32) -> Operation {
    Operation::new("transfer").with("to", "bob").with("cents", cents.to_string())
}

fn signed_in(sessions: &Sessions) -> Session {
    sessions.load(&sign_in(sessions, "ada")).unwrap().unwrap()
}

/// Whether the session has a grant for it, which is used up then.
fn takes(session: &Session, operation: &Operation, code: &str) -> bool {
    let taken = session.take_grant(operation, code).unwrap();
    taken.is_some_and(|receipt| receipt.blocking_wait().is_ok())
}

#[test]
fn of_a_thousand_requests_at_once_one_gets_the_grant() {
    let sessions = Options::new().in_memory().unwrap();
    let token = sign_in(&sessions, "ada");
    for _ in 0..5 {
        let code = sessions.load(&token).unwrap().unwrap().grant(&transfer(5), MINUTE).unwrap();
        let (begin, taken) = (Barrier::new(8), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    begin.wait();
                    for _ in 0..125 {
                        let session = sessions.load(&token).unwrap().unwrap();
                        taken.fetch_add(usize::from(takes(&session, &transfer(5), &code)), Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(taken.into_inner(), 1);
    }
}

#[test]
fn a_grant_is_for_one_operation_with_every_parameter_as_it_was() {
    let sessions = Options::new().in_memory().unwrap();
    let session = signed_in(&sessions);
    let others = [
        transfer(6),
        Operation::new("transfer").with("cents", "5").with("to", "bob"),
        Operation::new("transfer").with("to", "bobc").with("ents", "5"),
        Operation::new("transfer").with("to", "bob"),
        Operation::new("transferto").with("", "bob").with("cents", "5"),
        transfer(5).with("at once", ""),
    ];
    for other in others {
        let code = session.grant(&transfer(5), MINUTE).unwrap();
        assert!(!takes(&session, &other, &code), "{other:?}");
        assert!(!takes(&session, &transfer(5), &code), "shown for something else, it is void");
    }
    let code = session.grant(&transfer(5), MINUTE).unwrap();
    assert!(takes(&session, &Operation::new("transfer").with("to", "bob").with("cents", "5"), &code));
}

#[test]
fn five_wrong_codes_void_it_and_fewer_do_not() {
    let sessions = Options::new().in_memory().unwrap();
    let session = signed_in(&sessions);
    for wrong in 0..7 {
        let other = session.grant(&transfer(9), MINUTE).unwrap();
        let code = session.grant_digits(&transfer(5), MINUTE).unwrap();
        assert!(code.len() == 8 && code.bytes().all(|byte| byte.is_ascii_digit()), "{code}");
        for _ in 0..wrong {
            assert!(!takes(&session, &transfer(5), "no code"));
            assert!(!takes(&session, &Operation::new("another"), "no code"), "nothing is counted for nothing");
        }
        assert_eq!(takes(&session, &transfer(5), &code), wrong < 5, "{wrong}");
        assert!(takes(&session, &transfer(9), &other), "that of another operation stays");
    }
}

#[test]
fn a_grant_ends_in_time_and_with_everything_that_changes_the_token() {
    let (options, clock) = manual();
    let sessions = options.rotate_every(5 * MINUTE).in_memory().unwrap();
    let session = signed_in(&sessions);
    for (wait, holds) in [(59, true), (60, false), (600, false)] {
        let code = session.grant(&transfer(5), MINUTE).unwrap();
        clock.advance(Duration::from_secs(wait));
        assert_eq!(takes(&session, &transfer(5), &code), holds, "after {wait} s");
    }

    let session = signed_in(&sessions);
    type Step = fn(&Session) -> dwell::Result<dwell::Receipt<dwell::Token>>;
    let steps: [Step; 4] = [
        Session::rotate,
        |session| session.reauthenticate(1),
        |session| session.sign_in("ada"),
        |session| session.sign_in("bob"),
    ];
    for step in steps {
        let code = session.grant(&transfer(5), MINUTE).unwrap();
        step(&session).unwrap().blocking_wait().unwrap();
        assert!(!takes(&session, &transfer(5), &code));
    }

    // A soft rotation does not: the person at the screen does not notice it.
    let token = sign_in(&sessions, "ada");
    let session = sessions.load(&token).unwrap().unwrap();
    clock.advance(5 * MINUTE);
    let code = session.grant(&transfer(5), MINUTE).unwrap();
    sessions.load(&token).unwrap();
    clock.advance(Duration::from_secs(1));
    sessions.run_pending();
    let successor = sessions.load(&token).unwrap().unwrap().token().unwrap();
    assert!(takes(&sessions.load(&successor).unwrap().unwrap(), &transfer(5), &code));
}

#[test]
fn codes_are_worth_nothing_in_other_sessions_and_to_whoever_is_not_signed_in() {
    let sessions = Options::new().in_memory().unwrap();
    let session = signed_in(&sessions);
    let code = session.grant(&transfer(5), MINUTE).unwrap();
    let (same_person, stranger, half) = (signed_in(&sessions), sessions.start(), sessions.start());
    stranger.set(Field::<u32>::new("visits"), &1).unwrap();
    half.sign_in(SignIn::new("ada").pending()).unwrap().blocking_wait().unwrap();
    for other in [same_person, sessions.start(), stranger.clone(), half.clone()] {
        assert!(!takes(&other, &transfer(5), &code));
    }
    for nobody in [sessions.start(), stranger, half] {
        assert_eq!(nobody.grant(&transfer(5), MINUTE).unwrap_err().kind(), ErrorKind::Refused);
    }
    assert!(takes(&session, &transfer(5), &code));
    session.clone().destroy().unwrap().blocking_wait().unwrap();
    assert_eq!(session.grant(&transfer(5), MINUTE).unwrap_err().kind(), ErrorKind::Gone);
    assert_eq!(session.take_grant(&transfer(5), &code).unwrap_err().kind(), ErrorKind::Gone);
}

#[test]
fn there_are_eight_at_most_and_one_for_an_operation() {
    let sessions = Options::new().in_memory().unwrap();
    let session = signed_in(&sessions);
    let first = session.grant(&transfer(1), MINUTE).unwrap();
    let second = session.grant(&transfer(1), MINUTE).unwrap();
    assert!(!takes(&session, &transfer(1), &first), "another took its place");
    let codes: Vec<_> = (2..9).map(|cents| session.grant(&transfer(cents), MINUTE).unwrap()).collect();
    assert!(takes(&session, &transfer(1), &second), "there was room for eight");
    let _ = session.grant(&transfer(10), MINUTE).unwrap();
    let _ = session.grant(&transfer(11), MINUTE).unwrap();
    assert!(!takes(&session, &transfer(2), &codes[0]), "the oldest gave way");
    assert!(takes(&session, &transfer(3), &codes[1]));
}

#[test]
fn a_grant_that_was_taken_is_gone_after_a_crash_and_one_that_was_not_survives() {
    let (options, _) = manual();
    let directory = Directory::new(1);
    let sessions = directory.open(&options).unwrap();
    let token = sign_in(&sessions, "ada");
    let session = sessions.load(&token).unwrap().unwrap();
    let taken = session.grant(&transfer(5), MINUTE).unwrap();
    let kept = session.grant(&transfer(6), MINUTE).unwrap();
    session.save().unwrap().blocking_wait().unwrap();
    assert!(takes(&session, &transfer(5), &taken));
    directory.restore_power();
    drop((session, sessions));
    let sessions = directory.open(&options).unwrap();
    let session = sessions.load(&token).unwrap().unwrap();
    assert!(!takes(&session, &transfer(5), &taken));
    assert!(takes(&session, &transfer(6), &kept));
}

#[test]
fn an_application_cannot_name_what_is_kept_and_times_are_checked() {
    let sessions = Options::new().in_memory().unwrap();
    let session = signed_in(&sessions);
    let code = session.grant(&transfer(5), MINUTE).unwrap();
    const FORGED: Field<Vec<u8>> = Field::new("\0grants");
    assert_eq!(session.set(FORGED, &vec![]).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(session.get(FORGED).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(session.remove(FORGED).unwrap_err().kind(), ErrorKind::Invalid);
    session.set(Field::<Vec<u8>>::new("grants"), &vec![1]).unwrap();
    for wrong in [Duration::ZERO, Duration::from_millis(900), Duration::from_secs(3601), Duration::MAX] {
        let refused = session.grant(&transfer(5), wrong).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid, "{wrong:?}");
    }
    assert!(takes(&session, &transfer(5), &code), "refusals change nothing");
    assert!(session.grant(&transfer(5), Duration::from_secs(3600)).is_ok());
}
