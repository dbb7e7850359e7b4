//! Limits: how many sessions, and of whom.

use dwell::{AtLimit, ErrorKind};

use super::{Bench, Table, VISITS, begin, lives, living, sign_in, sign_in_often};

#[test]
fn the_anonymous_quota_ends_the_oldest_anonymous_session_only() {
    let bench = Bench::with(|options| options.sessions_max(50));
    let sessions = bench.open();
    let signed_in = sign_in_often(&sessions, "ada", 10);
    let tokens: Vec<_> = (0..8).map(|number| begin(&sessions, number).1).collect();
    let live: Vec<bool> = tokens.iter().map(|token| lives(&sessions, token)).collect();
    assert_eq!(live, [false, false, false, true, true, true, true, true]);
    assert_eq!(living(&sessions, &signed_in), 10);
    assert_eq!((sessions.stats().anonymous, sessions.stats().evicted), (5, 3));
    let sessions = bench.restart(sessions);
    assert_eq!((living(&sessions, &tokens), living(&sessions, &signed_in)), (5, 10));
}

#[test]
fn opening_applies_the_anonymous_quota_again() {
    let mut bench = Bench::with(|options| options.sessions_max(50));
    let sessions = bench.open();
    let (_, signed_in) = sign_in(&sessions, "ada");
    let tokens: Vec<_> = (0..5).map(|number| begin(&sessions, number).1).collect();
    sessions.close().unwrap();
    bench.options = bench.options.clone().sessions_max(20);
    let sessions = bench.open();
    let live: Vec<bool> = tokens.iter().map(|token| lives(&sessions, token)).collect();
    assert_eq!(live, [false, false, false, true, true]);
    let sessions = bench.restart(sessions);
    assert_eq!((bench.records(Table::Sessions), lives(&sessions, &signed_in)), (3, true));
}

#[test]
fn at_the_limit_a_sign_in_is_refused_and_nothing_changes() {
    let bench = Bench::with(|options| options.sessions_per_principal(2, AtLimit::Refuse));
    let sessions = bench.open();
    let tokens = sign_in_often(&sessions, "ada", 2);
    let (visitor, anonymous) = begin(&sessions, 7);
    assert_eq!(visitor.sign_in("ada").unwrap_err().kind(), ErrorKind::Refused);
    assert_eq!(visitor.get(VISITS).unwrap(), Some(7));
    assert!(living(&sessions, &tokens) == 2 && lives(&sessions, &anonymous));
    visitor.sign_in("bob").unwrap().blocking_wait().unwrap();
    // Replacing one's own session adds none.
    let first = sessions.load(&tokens[0]).unwrap().unwrap();
    first.sign_in("ada").unwrap().blocking_wait().unwrap();
    first.destroy().unwrap().blocking_wait().unwrap();
    let (_, third) = sign_in(&sessions, "ada");
    assert!(lives(&sessions, &third));
}

#[test]
fn sign_ins_under_way_count_against_the_limit() {
    for at_limit in [AtLimit::Refuse, AtLimit::EndOldest] {
        let bench = Bench::with(|options| options.sessions_per_principal(2, at_limit));
        let sessions = bench.open();
        let handles: Vec<_> = (0..3).map(|_| sessions.start()).collect();
        let results: Vec<_> = handles.iter().map(|session| session.sign_in("ada")).collect();
        let kinds: Vec<_> = results.iter().map(|result| result.as_ref().err().map(dwell::Error::kind)).collect();
        let full = if at_limit == AtLimit::Refuse { ErrorKind::Refused } else { ErrorKind::Busy };
        assert_eq!(kinds, [None, None, Some(full)]);
        sessions.run_pending();
        assert_eq!(sessions.of("ada").unwrap().len(), 2);
    }
}

#[test]
fn expired_sessions_take_no_places_before_they_are_collected() {
    let bench = Bench::with(|options| options.sessions_per_principal(2, AtLimit::Refuse));
    let sessions = bench.open();
    sign_in_often(&sessions, "ada", 2);
    bench.advance(30 * 60);
    let (_, token) = sign_in(&sessions, "ada");
    assert_eq!(sessions.revoke_all("ada").unwrap().blocking_wait().unwrap(), 1, "one was live");
    assert!(!lives(&sessions, &token));
}

/// The new session takes the place of one that gets a new token in the same commit.
#[test]
fn a_session_rotated_and_ended_by_a_limit_at_once_is_ended() {
    for rotate_first in [true, false] {
        let bench = Bench::with(|options| options.sessions_per_principal(1, AtLimit::EndOldest));
        let sessions = bench.open();
        let (session, token) = sign_in(&sessions, "ada");
        let rotation = rotate_first.then(|| session.rotate().unwrap());
        let receipt = sessions.start().sign_in("ada").unwrap();
        let rotation = rotation.unwrap_or_else(|| session.rotate().unwrap());
        let new = receipt.blocking_wait().unwrap();
        let rotated = rotation.blocking_wait();
        assert!(!lives(&sessions, &token));
        assert!(rotated.as_ref().map_or(true, |token| !lives(&sessions, token)), "the limit is one session");
        assert_eq!(session.set(VISITS, &1).unwrap_err().kind(), ErrorKind::Gone);
        assert_eq!(sessions.of("ada").unwrap().len(), 1);
        let sessions = bench.crash(sessions);
        assert!(lives(&sessions, &new));
        assert_eq!(sessions.of("ada").unwrap().len(), 1);
    }
}

#[test]
fn the_session_ended_by_a_limit_goes_in_the_same_commit() {
    let bench = Bench::with(|options| options.sessions_per_principal(2, AtLimit::EndOldest));
    let sessions = bench.open();
    let tokens = sign_in_often(&sessions, "ada", 2);
    let receipt = sessions.start().sign_in("ada").unwrap();
    assert_eq!(living(&sessions, &tokens), 2, "nothing has happened yet");
    let new = receipt.blocking_wait().unwrap();
    let live = |sessions: &dwell::Sessions| [&tokens[0], &tokens[1], &new].map(|token| lives(sessions, token));
    assert_eq!(live(&sessions), [false, true, true]);
    assert_eq!(live(&bench.crash(sessions)), [false, true, true]);
}

#[test]
fn changed_data_is_never_evicted_and_evicted_data_is_read_again() {
    let bench = Bench::with(|options| options.cache_bytes(0));
    let sessions = bench.open();
    let mut tokens: Vec<_> = (0..400).map(|number| begin(&sessions, number).1).collect();
    let right = |sessions: &dwell::Sessions, tokens: &[dwell::Token], extra: u64| {
        for (token, number) in tokens.iter().zip(0..) {
            let session = sessions.load(token).unwrap().unwrap();
            assert_eq!(session.get(VISITS).unwrap(), Some(number + extra));
        }
    };
    right(&sessions, &tokens, 0);
    bench.advance(2);
    sessions.run_pending();
    // As these come in, those have to go, until they are asked for again.
    tokens.extend((400..1200).map(|number| begin(&sessions, number).1));
    assert!(sessions.stats().cached < 1200, "{} of 1,200 are in memory", sessions.stats().cached);
    right(&sessions, &tokens, 0);
    for token in &tokens {
        sessions.load(token).unwrap().unwrap().update(VISITS, |n| *n += 1000).unwrap();
    }
    right(&sessions, &tokens, 1000);
    right(&bench.restart(sessions), &tokens, 1000);
}

#[test]
fn held_handles_keep_their_cell_however_small_the_cache() {
    let bench = Bench::with(|options| options.cache_bytes(0));
    let sessions = bench.open();
    let handles: Vec<_> = (0..600).map(|number| begin(&sessions, number)).collect();
    bench.advance(2);
    sessions.run_pending();
    for (handle, token) in &handles {
        let other = sessions.load(token).unwrap().unwrap();
        handle.update(VISITS, |n| *n += 1).unwrap();
        other.update(VISITS, |n| *n += 1).unwrap();
    }
    let sessions = bench.restart(sessions);
    for ((_, token), number) in handles.iter().zip(0..) {
        assert_eq!(sessions.load(token).unwrap().unwrap().get(VISITS).unwrap(), Some(number + 2));
    }
}

#[test]
fn a_rotated_anonymous_session_keeps_its_place_among_the_oldest() {
    for rotated in 0..5 {
        let bench = Bench::with(|options| options.sessions_max(50));
        let sessions = bench.open();
        let mut tokens: Vec<_> = (0..5).map(|number| begin(&sessions, number).1).collect();
        let session = sessions.load(&tokens[rotated]).unwrap().unwrap();
        tokens[rotated] = session.rotate().unwrap().blocking_wait().unwrap();
        for ended in 0..5 {
            tokens.push(begin(&sessions, 0).1);
            let live: Vec<bool> = tokens.iter().map(|token| lives(&sessions, token)).collect();
            let expected: Vec<bool> = (0..tokens.len()).map(|at| at > ended).collect();
            assert_eq!(live, expected, "number {rotated} was rotated");
        }
        assert_eq!(sessions.stats().anonymous, 5);
        let sessions = bench.restart(sessions);
        assert_eq!(living(&sessions, &tokens), 5);
    }
}

/// The oldest session is just becoming somebody else's when it is to make room.
#[test]
fn a_sign_in_from_a_session_that_has_to_make_room_goes_on() {
    for evict_first in [false, true] {
        for who in ["ada", "bob"] {
            let bench = Bench::with(|options| options.sessions_per_principal(2, AtLimit::EndOldest));
            let sessions = bench.open();
            let (ada, bob) = (sign_in_often(&sessions, "ada", 2), sign_in_often(&sessions, "bob", 2));
            let leaving = sessions.load(&ada[0]).unwrap().unwrap();
            let early = evict_first.then(|| sessions.start().sign_in("ada").unwrap());
            let moved = leaving.sign_in(who).unwrap();
            let new = early.unwrap_or_else(|| sessions.start().sign_in("ada").unwrap()).blocking_wait().unwrap();
            let moved = moved.blocking_wait().expect("nobody signed out");
            let check = |sessions: &dwell::Sessions| {
                assert!(lives(sessions, &new) && lives(sessions, &moved));
                assert!(!lives(sessions, &ada[0]));
                // Ada's second session stays unless both new ones are Ada's.
                assert_eq!(lives(sessions, &ada[1]), who == "bob");
                assert_eq!((lives(sessions, &bob[0]), lives(sessions, &bob[1])), (who == "ada", true));
                assert_eq!([sessions.of("ada").unwrap().len(), sessions.of("bob").unwrap().len()], [2, 2]);
            };
            check(&sessions);
            check(&bench.crash(sessions));
        }
    }
}

/// Who has shown half of who they are takes nobody's place, and nobody takes theirs.
#[test]
fn half_sign_ins_have_places_of_their_own() {
    use dwell::SignIn;
    for at_limit in [AtLimit::EndOldest, AtLimit::Refuse] {
        let bench = Bench::with(|options| options.sessions_per_principal(1, at_limit));
        let sessions = bench.open();
        let (_, whole) = sign_in(&sessions, "ada");
        let half = |sessions: &dwell::Sessions| {
            let session = sessions.start();
            let token = session.sign_in(SignIn::new("ada").pending()).unwrap().blocking_wait().unwrap();
            (session, token)
        };
        let (_, first) = half(&sessions);
        let (second, token) = half(&sessions);
        assert_eq!([&whole, &first, &token].map(|token| lives(&sessions, token)), [true, false, true]);
        match second.sign_in("ada") {
            Ok(receipt) => {
                assert_eq!(at_limit, AtLimit::EndOldest);
                let new = receipt.blocking_wait().unwrap();
                assert!(lives(&sessions, &new) && !lives(&sessions, &whole) && !lives(&sessions, &token));
            }
            Err(error) => {
                assert_eq!((at_limit, error.kind()), (AtLimit::Refuse, ErrorKind::Refused));
                assert!(lives(&sessions, &whole) && lives(&sessions, &token));
            }
        }
    }
}

#[test]
fn a_refused_sign_in_ends_nobody_in_a_full_store() {
    let bench = Bench::with(|options| options.sessions_max(10).sessions_per_principal(1, AtLimit::Refuse));
    let sessions = bench.open();
    for number in 0..9 {
        sign_in(&sessions, &format!("user {number}"));
    }
    let (_, stranger) = begin(&sessions, 1);
    sessions.disable("mallory").unwrap().blocking_wait().unwrap();
    for (who, kind) in [("mallory", ErrorKind::Refused), ("user 3", ErrorKind::Refused)] {
        assert_eq!(sessions.start().sign_in(who).unwrap_err().kind(), kind);
        assert!(lives(&sessions, &stranger), "{who} was refused");
    }
    sign_in(&sessions, "late");
    assert!(!lives(&sessions, &stranger));
}
