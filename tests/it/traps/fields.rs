//! Data: what is changed, kept, refused, and what reading leaves alone.

use dwell::{ErrorKind, Field};

use super::hook::Hook;
use super::{Bench, Table, VISITS, begin, lives};

const CART: Field<u64> = Field::new("cart").keep_on_sign_in();
const NOTE: Field<String> = Field::new("note");

#[test]
fn reading_a_session_that_is_not_there_yet_creates_nothing() {
    let bench = Bench::new();
    let sessions = bench.open();
    let (before, operations) = (bench.directory.contents(), bench.directory.operations());
    let session = sessions.start();
    assert_eq!(session.get(VISITS).unwrap(), None);
    assert!(session.with(NOTE, |note| note.is_none()).unwrap());
    assert_eq!(session.take(VISITS).unwrap(), None);
    assert!(!session.remove(VISITS).unwrap());
    let refused =
        session.try_update(VISITS, |_| Err::<(), _>(dwell::Options::new().sessions_max(0).in_memory().unwrap_err()));
    assert!(refused.is_err());
    session.save().unwrap().blocking_wait().unwrap();
    assert_eq!(session.rotate().unwrap_err().kind(), ErrorKind::Gone);
    assert!(session.id().is_none() && session.token().is_none() && session.created().unwrap().is_none());
    assert!(session.idle_left().unwrap().is_none() && session.principal().unwrap().is_none());
    session.destroy().unwrap().blocking_wait().unwrap();
    assert!(sessions.of("ada").unwrap().is_empty());
    bench.advance(60);
    sessions.run_pending();
    let stats = sessions.stats();
    assert_eq!((stats.sessions, stats.principals, stats.cached, stats.commits), (0, 0, 0, 0));
    assert_eq!(bench.directory.operations(), operations);
    assert!(bench.directory.contents() == before);
}

#[test]
fn anonymous_sessions_kept_in_memory_leave_the_disk_alone() {
    let bench = Bench::with(dwell::Options::anonymous_in_memory);
    let sessions = bench.open();
    let (before, operations) = (bench.directory.contents(), bench.directory.operations());
    let (session, token) = begin(&sessions, 7);
    assert_eq!(session.save().unwrap_err().kind(), ErrorKind::NotDurable);
    assert_eq!(session.rotate().unwrap_err().kind(), ErrorKind::NotDurable);
    assert_eq!(sessions.load(&token).unwrap().unwrap().update(VISITS, |n| *n += 1).unwrap(), ());
    begin(&sessions, 1).0.destroy().unwrap().blocking_wait().unwrap();
    bench.advance(60);
    sessions.run_pending();
    assert_eq!(session.get(VISITS).unwrap(), Some(8));
    assert_eq!((sessions.stats().dirty_bytes, bench.directory.operations()), (0, operations));
    assert!(bench.directory.contents() == before);
    session.set(CART, &3).unwrap();
    let signed_in = session.sign_in("ada").unwrap().blocking_wait().unwrap();
    let (_, other) = begin(&sessions, 1);
    let sessions = bench.restart(sessions);
    assert!(!lives(&sessions, &token) && !lives(&sessions, &other));
    assert_eq!(sessions.load(&signed_in).unwrap().unwrap().get(CART).unwrap(), Some(3));
}

#[test]
fn what_is_too_large_changes_nothing() {
    let bench = Bench::with(|options| options.session_bytes_max(100));
    let sessions = bench.open();
    let fresh = sessions.start();
    assert_eq!(fresh.set(NOTE, &"x".repeat(100)).unwrap_err().kind(), ErrorKind::TooLarge);
    assert!(fresh.id().is_none() && sessions.stats().sessions == 0);
    let (session, token) = begin(&sessions, 7);
    session.set(NOTE, "short").unwrap();
    assert_eq!(session.set(NOTE, &"x".repeat(100)).unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(session.update(NOTE, |note| *note = "x".repeat(100)).unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(session.get(NOTE).unwrap().as_deref(), Some("short"));
    session.save().unwrap().blocking_wait().unwrap();
    let sessions = bench.crash(sessions);
    let session = sessions.load(&token).unwrap().unwrap();
    assert_eq!((session.get(NOTE).unwrap().as_deref(), session.get(VISITS).unwrap()), (Some("short"), Some(7)));
}

#[test]
fn a_session_has_a_limited_number_of_fields() {
    let bench = Bench::new();
    let sessions = bench.open();
    let session = sessions.start();
    let names: Vec<&'static str> = (0..65).map(|number| &*format!("field {number}").leak()).collect();
    for name in &names[..64] {
        session.set(Field::<u64>::new(name), &1).unwrap();
    }
    assert_eq!(session.set(Field::<u64>::new(names[64]), &1).unwrap_err().kind(), ErrorKind::TooLarge);
    session.set(Field::<u64>::new(names[63]), &2).unwrap();
    assert!(session.remove(Field::<u64>::new(names[0])).unwrap());
    session.set(Field::<u64>::new(names[64]), &1).unwrap();
    let token = session.token().unwrap();
    let sessions = bench.restart(sessions);
    let session = sessions.load(&token).unwrap().unwrap();
    assert_eq!(session.get(Field::<u64>::new(names[63])).unwrap(), Some(2));
}

#[test]
fn an_update_that_somebody_overtook_runs_again() {
    let bench = Bench::new();
    let sessions = bench.open();
    let (session, token) = begin(&sessions, 1);
    let other = sessions.load(&token).unwrap().unwrap();
    let mut seen = Vec::new();
    session
        .update(VISITS, |n| {
            seen.push(*n);
            if seen.len() == 1 {
                other.set(VISITS, &10).unwrap();
                other.set(CART, &1).unwrap();
            }
            *n += 1;
        })
        .unwrap();
    assert_eq!(seen, [1, 10]);
    assert_eq!(session.get(VISITS).unwrap(), Some(11));
    // Another field is no conflict.
    let mut runs = 0;
    session
        .update(VISITS, |n| {
            runs += 1;
            other.set(CART, &runs).unwrap();
            *n += 1;
        })
        .unwrap();
    assert_eq!((runs, session.get(VISITS).unwrap(), session.get(CART).unwrap()), (1, Some(12), Some(1)));
}

#[test]
fn an_update_whose_session_ends_meanwhile_is_gone() {
    let bench = Bench::new();
    let sessions = bench.open();
    let (session, token) = begin(&sessions, 1);
    let result = session.update(VISITS, |n| {
        if let Some(other) = sessions.load(&token).unwrap() {
            other.destroy().unwrap().blocking_wait().unwrap();
        }
        *n += 1;
    });
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Gone);
    let sessions = bench.restart(sessions);
    assert!(!lives(&sessions, &token) && bench.records(Table::Sessions) == 0 && bench.records(Table::Bodies) == 0);
}

#[test]
fn an_update_that_refuses_leaves_the_value() {
    #[derive(Debug)]
    enum Refusal {
        No,
        Session,
    }
    impl From<dwell::Error> for Refusal {
        fn from(_: dwell::Error) -> Self {
            Self::Session
        }
    }
    let bench = Bench::new();
    let sessions = bench.open();
    let (session, _) = begin(&sessions, 3);
    let refused = session.try_update(VISITS, |value| {
        *value = None;
        Err::<(), _>(Refusal::No)
    });
    assert!(matches!(refused, Err(Refusal::No)));
    assert_eq!(session.get(VISITS).unwrap(), Some(3));
    session.clone().destroy().unwrap().blocking_wait().unwrap();
    assert!(matches!(session.try_update(VISITS, |_| Ok::<_, Refusal>(())), Err(Refusal::Session)));
}

#[test]
fn a_sign_in_takes_along_what_it_may_and_no_more() {
    let bench = Bench::new();
    let sessions = bench.open();
    let (session, anonymous) = begin(&sessions, 1);
    session.set(CART, &2).unwrap();
    let mut ids = vec![session.id().unwrap()];
    let mut sign_in = |who: &str| {
        let token = session.sign_in(who).unwrap().blocking_wait().unwrap();
        ids.push(session.id().unwrap());
        (token, session.get(VISITS).unwrap(), session.get(CART).unwrap())
    };
    let (first, visits, cart) = sign_in("ada");
    assert_eq!((visits, cart), (None, Some(2)), "nobody's kept fields pass over");
    session.set(VISITS, &5).unwrap();
    let (second, visits, cart) = sign_in("ada");
    assert_eq!((visits, cart), (Some(5), Some(2)), "the same principal's data passes over");
    let (third, visits, cart) = sign_in("bob");
    assert_eq!((visits, cart), (None, None), "another principal's does not, kept or not");
    ids.sort_by_key(ToString::to_string);
    ids.dedup();
    assert_eq!(ids.len(), 4, "each has a handle of its own");
    for sessions in [sessions.clone(), bench.restart(sessions)].iter().skip(1) {
        let live: Vec<_> = [&anonymous, &first, &second, &third].map(|token| lives(sessions, token)).into();
        assert_eq!(live, [false, false, false, true]);
    }
    assert_eq!(bench.records(Table::Principals), 1);
}

#[test]
fn between_a_sign_in_and_its_commit_the_old_session_is_read_only() {
    let bench = Bench::new();
    let sessions = bench.open();
    let (session, token) = begin(&sessions, 1);
    let other = sessions.load(&token).unwrap().unwrap();
    let receipt = session.sign_in("ada").unwrap();
    for handle in [&session, &other] {
        assert_eq!(handle.get(VISITS).unwrap(), Some(1));
        assert_eq!(handle.set(VISITS, &2).unwrap_err().kind(), ErrorKind::Busy);
        assert_eq!(handle.rotate().unwrap_err().kind(), ErrorKind::Busy);
        assert_eq!(handle.sign_in("bob").unwrap_err().kind(), ErrorKind::Busy);
    }
    assert!(lives(&sessions, &token));
    receipt.blocking_wait().unwrap();
    assert!(!lives(&sessions, &token));
    session.set(VISITS, &3).unwrap();
    assert_eq!(other.set(VISITS, &4).unwrap_err().kind(), ErrorKind::Gone);
}

/// A write through the handle would begin an anonymous session that the sign-in then drops.
#[test]
fn a_handle_that_signs_in_first_takes_no_writes_until_the_commit() {
    let bench = Bench::new();
    let sessions = bench.open();
    let session = sessions.start();
    let receipt = session.sign_in("ada").unwrap();
    assert_eq!(session.get(VISITS).unwrap(), None);
    assert_eq!(session.set(VISITS, &1).unwrap_err().kind(), ErrorKind::Busy);
    assert_eq!(session.sign_in("ada").unwrap_err().kind(), ErrorKind::Busy);
    assert_eq!(sessions.stats().sessions, 0);
    receipt.blocking_wait().unwrap();
    session.set(VISITS, &2).unwrap();
    assert_eq!(sessions.stats().sessions, 1);
    // A sign-in that came to nothing leaves the handle as it was.
    let session = sessions.start();
    let receipt = session.sign_in("bob").unwrap();
    drop(sessions.revoke_all("bob").unwrap());
    assert_eq!(receipt.blocking_wait().unwrap_err().kind(), ErrorKind::Gone);
    session.set(VISITS, &1).unwrap();
    assert_eq!(session.principal().unwrap(), None);
}

/// Two clones of a handle write first at once, and the session that one began makes room for the other's.
#[test]
fn a_first_write_that_another_overtook_is_made_all_the_same() {
    // Before the first reading nothing was made yet.
    for reading in 2..6 {
        let hook = Hook::default();
        let bench = Bench::with(|options| options.sessions_max(10).clock(hook.clone()));
        let sessions = bench.open();
        let session = sessions.start();
        let clone = session.clone();
        hook.arm(reading, move || clone.set(Field::<u32>::new("other"), &7).unwrap());
        session.set(VISITS, &1).unwrap();
        let overtaken = hook.disarm();
        assert!(overtaken || reading > 2, "beginning a session reads the clock");
        assert_eq!(session.get(VISITS).unwrap(), Some(1));
        let other = session.get(Field::<u32>::new("other")).unwrap();
        assert_eq!(other, overtaken.then_some(7), "reading {reading}");
        assert_eq!(sessions.stats().anonymous, 1);
    }
}
