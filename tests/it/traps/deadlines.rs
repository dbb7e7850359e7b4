//! Deadlines, with the reaper late or never there.

use std::time::Duration;

use dwell::{ErrorKind, SignIn};

use super::{Bench, Table, VISITS, begin, lives, sign_in};

const MINUTE: Duration = Duration::from_secs(60);

fn seconds(span: Option<Duration>) -> u64 {
    span.unwrap().as_secs()
}

#[test]
fn the_idle_timeout_is_exact_on_load_with_no_reaper() {
    let bench = Bench::with(|options| options.idle_timeout(MINUTE));
    let sessions = bench.open();
    let (_, token) = sign_in(&sessions, "ada");
    bench.advance(59);
    assert!(sessions.load(&token).unwrap().is_some(), "counts as use");
    bench.advance(59);
    assert!(sessions.load_without_touch(&token).unwrap().is_some(), "does not");
    bench.advance(1);
    assert!(sessions.load_without_touch(&token).unwrap().is_none());
    assert!(sessions.load(&token).unwrap().is_none());
    assert!(sessions.of("ada").unwrap().is_empty());
    assert_eq!(sessions.stats().sessions, 1, "nobody has collected it");
    sessions.run_pending();
    assert_eq!((sessions.stats().sessions, sessions.stats().expired), (0, 1));
    assert!(!lives(&bench.restart(sessions), &token));
}

#[test]
fn a_handle_that_renews_counts_as_use_and_revives_nothing() {
    let bench = Bench::with(|options| options.idle_timeout(MINUTE).lifetime(3 * MINUTE));
    let sessions = bench.open();
    let (session, token) = sign_in(&sessions, "ada");
    for _ in 0..3 {
        bench.advance(55);
        session.renew().unwrap();
        assert!(lives(&sessions, &token));
    }
    assert_eq!(seconds(session.idle_left().unwrap()), 15, "the life is not longer for it");
    bench.advance(15);
    // Nobody has collected it.
    assert_eq!(session.renew().unwrap_err().kind(), ErrorKind::Gone);
    assert!(!lives(&sessions, &token));

    let (session, token) = sign_in(&sessions, "ada");
    let late = sessions.load(&token).unwrap().unwrap();
    bench.advance(30);
    let token = session.rotate().unwrap().blocking_wait().unwrap();
    bench.advance(30);
    assert_eq!(late.renew().unwrap_err().kind(), ErrorKind::Gone, "a handle of the replaced token");
    assert_eq!(seconds(session.idle_left().unwrap()), 30);
    session.renew().unwrap();
    assert_eq!(seconds(session.idle_left().unwrap()), 60);
    session.clone().destroy().unwrap().blocking_wait().unwrap();
    assert_eq!(session.renew().unwrap_err().kind(), ErrorKind::Gone);
    assert!(!lives(&sessions, &token));
    let before = sessions.stats().sessions;
    sessions.start().renew().unwrap();
    assert_eq!(sessions.stats().sessions, before, "nothing begins by it");
}

#[test]
fn the_absolute_deadline_survives_restarts_and_rotations_unchanged() {
    let bench = Bench::with(|options| options.idle_timeout(MINUTE).lifetime(10 * MINUTE));
    let mut sessions = bench.open();
    let mut token = sign_in(&sessions, "ada").1;
    for left in (1..10).rev() {
        bench.advance(59);
        let session = sessions.load(&token).unwrap().unwrap();
        assert_eq!(seconds(session.life_left().unwrap()), 600 - (10 - left) * 59);
        token = session.rotate().unwrap().blocking_wait().unwrap();
        sessions = if left % 2 == 0 { bench.restart(sessions) } else { bench.crash(sessions) };
    }
    bench.advance(600 - 9 * 59 - 10);
    sessions.load(&token).unwrap().unwrap();
    bench.advance(9);
    assert!(lives(&sessions, &token));
    bench.advance(1);
    assert!(!lives(&sessions, &token), "not a second later");
}

#[test]
fn a_clean_restart_keeps_the_idle_deadline_and_a_crash_never_extends_it() {
    let bench = Bench::with(|options| options.idle_timeout(MINUTE));
    let sessions = bench.open();
    let (_, token) = sign_in(&sessions, "ada");
    bench.advance(40);
    sessions.load(&token).unwrap().unwrap();
    bench.advance(10);
    let sessions = bench.restart(sessions);
    let left = seconds(sessions.load_without_touch(&token).unwrap().unwrap().idle_left().unwrap());
    assert_eq!(left, 50);
    sessions.load(&token).unwrap().unwrap();
    let sessions = bench.crash(sessions);
    let left = seconds(sessions.load_without_touch(&token).unwrap().unwrap().idle_left().unwrap());
    assert!(left <= 60, "{left} s");
    bench.advance(left);
    assert!(!lives(&sessions, &token));
}

#[test]
fn other_options_shorten_deadlines_and_never_extend_them() {
    let mut bench = Bench::with(|options| options.idle_timeout(10 * MINUTE).lifetime(60 * MINUTE));
    let options = bench.options.clone();
    let sessions = bench.open();
    let (_, token) = sign_in(&sessions, "ada");
    let (_, anonymous) = begin(&sessions, 1);
    sessions.close().unwrap();
    let left = |bench: &Bench, token| {
        let sessions = bench.open();
        let session = sessions.load_without_touch(token).unwrap().unwrap();
        (seconds(session.idle_left().unwrap()), seconds(session.life_left().unwrap()))
    };
    bench.options = options.clone().idle_timeout(20 * MINUTE).lifetime(600 * MINUTE).anonymous_lifetime(9999 * MINUTE);
    assert_eq!(left(&bench, &token), (600, 3600));
    assert_eq!(left(&bench, &anonymous), (86_400, 86_400));
    bench.options = options.clone().idle_timeout(2 * MINUTE).lifetime(30 * MINUTE).anonymous_lifetime(5 * MINUTE);
    assert_eq!(left(&bench, &token), (120, 1800));
    assert_eq!(left(&bench, &anonymous), (300, 300));
    // A rotation does not bring back what the options took away.
    let sessions = bench.open();
    let session = sessions.load_without_touch(&token).unwrap().unwrap();
    let token = session.rotate().unwrap().blocking_wait().unwrap();
    assert_eq!(seconds(session.life_left().unwrap()), 1800);
    bench.advance(120);
    assert!(!lives(&sessions, &token));
    sessions.close().unwrap();
    assert!(!lives(&bench.open(), &token));
    bench.advance(180);
    assert!(!lives(&bench.open(), &anonymous));
}

#[test]
fn a_sign_in_may_ask_for_less_time_but_not_for_more() {
    let bench =
        Bench::with(|options| options.idle_timeout(MINUTE).lifetime(10 * MINUTE).remembered(5 * MINUTE, 50 * MINUTE));
    let sessions = bench.open();
    let left = |request: SignIn| {
        let session = sessions.start();
        session.sign_in(request).unwrap().blocking_wait().unwrap();
        (seconds(session.idle_left().unwrap()), seconds(session.life_left().unwrap()))
    };
    assert_eq!(left(SignIn::new("ada")), (60, 600));
    assert_eq!(left(SignIn::new("ada").limits(MINUTE / 2, 2 * MINUTE)), (30, 120));
    assert_eq!(left(SignIn::new("ada").limits(100 * MINUTE, 100 * MINUTE)), (60, 600));
    assert_eq!(left(SignIn::new("ada").remembered()), (300, 3000));
    // As many as are live, their deadlines are the same after a restart.
    let sessions = bench.restart(sessions);
    assert_eq!(sessions.of("ada").unwrap().len(), 4);
    bench.advance(59);
    assert_eq!(sessions.of("ada").unwrap().len(), 3);
    bench.advance(1);
    assert_eq!(sessions.of("ada").unwrap().len(), 1);
}

#[test]
fn a_rotation_does_not_revive_what_has_expired() {
    let bench = Bench::with(|options| options.idle_timeout(MINUTE).lifetime(2 * MINUTE));
    let sessions = bench.open();
    let (session, token) = sign_in(&sessions, "ada");
    bench.advance(60);
    assert!(!lives(&sessions, &token));
    assert_eq!(session.rotate().unwrap_err().kind(), ErrorKind::Gone);
    assert_eq!(session.reauthenticate(1).unwrap_err().kind(), ErrorKind::Gone);
    let (session, token) = sign_in(&sessions, "ada");
    bench.advance(59);
    sessions.load(&token).unwrap().unwrap();
    bench.advance(59);
    let token = session.rotate().unwrap().blocking_wait().unwrap();
    bench.advance(2);
    assert!(!lives(&sessions, &token), "the absolute deadline does not move");
    assert_eq!(session.rotate().unwrap_err().kind(), ErrorKind::Gone);
}

#[test]
fn use_while_a_rotation_is_under_way_counts() {
    let bench = Bench::with(|options| options.idle_timeout(MINUTE));
    let sessions = bench.open();
    let (session, token) = sign_in(&sessions, "ada");
    let receipt = session.rotate().unwrap();
    bench.advance(50);
    sessions.load(&token).unwrap().unwrap();
    let rotated = receipt.blocking_wait().unwrap();
    bench.advance(50);
    assert!(lives(&sessions, &rotated));
    bench.advance(10);
    assert!(!lives(&sessions, &rotated));
}

#[test]
fn a_session_that_expires_during_its_sign_in_takes_the_sign_in_along() {
    let bench = Bench::with(|options| options.anonymous_lifetime(MINUTE));
    let sessions = bench.open();
    let (session, token) = begin(&sessions, 1);
    let receipt = session.sign_in("ada").unwrap();
    bench.advance(60);
    sessions.run_pending();
    assert_eq!(receipt.blocking_wait().unwrap_err().kind(), ErrorKind::Gone);
    assert!(!lives(&sessions, &token));
    assert_eq!(session.set(VISITS, &2).unwrap_err().kind(), ErrorKind::Gone);
    let sessions = bench.restart(sessions);
    assert_eq!((sessions.of("ada").unwrap().len(), bench.records(Table::Sessions)), (0, 0));
}

/// Not a time that a real clock shows; but time is the application's to give, and must not bring anybody down.
#[test]
fn a_clock_at_the_end_of_time_ends_sessions_and_breaks_nothing() {
    #[derive(Clone, Debug)]
    struct End(std::sync::Arc<std::sync::atomic::AtomicBool>);
    impl dwell::Clock for End {
        fn since_boot(&self) -> std::time::Duration {
            let reached = self.0.load(std::sync::atomic::Ordering::SeqCst);
            if reached { std::time::Duration::MAX } else { std::time::Duration::ZERO }
        }
        fn wall(&self) -> dwell::Timestamp {
            dwell::Timestamp::from_unix_ms(u64::MAX)
        }
        fn boot_id(&self) -> Option<[u8; 16]> {
            Some([1; 16])
        }
    }
    let end = End(std::sync::Arc::default());
    let bench = Bench::with(|options| options.clock(end.clone()));
    let sessions = bench.open();
    let (session, token) = sign_in(&sessions, "ada");
    let (stranger, other) = begin(&sessions, 1);
    end.0.store(true, std::sync::atomic::Ordering::SeqCst);
    assert!(!lives(&sessions, &token) && !lives(&sessions, &other));
    let _ = stranger.set(super::VISITS, &2);
    sessions.run_pending();
    let _ = session.idle_left();
    let (_, late) = sign_in(&sessions, "bob");
    assert!(!lives(&sessions, &late));
    begin(&sessions, 1);
    sessions.run_pending();
    let sessions = bench.restart(sessions);
    assert_eq!(sessions.of("ada").unwrap().len(), 0);
}
