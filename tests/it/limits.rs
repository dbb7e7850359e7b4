//! Limits hold, and what they refuse leaves nothing behind.

use std::time::Duration;

use dwell::{AssuranceLevel, AtLimit, Class, ErrorKind, Field, ManualClock, Options, SignIn};

const BLOB: Field<Vec<u8>> = Field::new("blob");
const BLOB_KEPT: Field<Vec<u8>> = Field::new("blob").keep_on_sign_in();

fn options() -> Options {
    Options::new().clock(ManualClock::new()).manual_workers()
}

#[test]
fn a_refused_first_write_takes_no_room_in_the_queue() {
    let sessions = options().sessions_max(1).in_memory().unwrap();
    sessions.start().sign_in("ada").unwrap().blocking_wait().unwrap();
    for _ in 0..400 {
        let refused = sessions.start().set(BLOB, &vec![7; 60_000]).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Refused);
    }
    assert_eq!(sessions.stats().dirty_bytes, 0);
}

#[test]
fn strangers_cannot_take_more_than_their_share_of_the_queue_by_growing() {
    let sessions = options().in_memory().unwrap();
    let strangers: Vec<_> = (0..1000).map(|_| sessions.start()).collect();
    strangers.iter().for_each(|stranger| stranger.set(BLOB, &vec![7; 4]).unwrap());
    let refused = strangers.iter().filter_map(|stranger| stranger.set(BLOB, &vec![7; 60_000]).err());
    let refused: Vec<_> = refused.map(|error| error.kind()).collect();
    assert!(refused.len() > 500 && refused.iter().all(|kind| *kind == ErrorKind::Busy), "{}", refused.len());
    assert!(sessions.stats().dirty_bytes <= 16 * 1024 * 1024);
    sessions.start().sign_in("ada").unwrap().blocking_wait().expect("people sign in all the same");
    assert_eq!(sessions.stats().dirty_bytes, 0, "everything was written along with it");
    strangers.last().unwrap().set(BLOB, &vec![7; 60_000]).expect("there is room again");
}

#[test]
fn sessions_that_grow_are_counted_by_what_they_have_become() {
    const BUDGET: usize = 4 * 1024 * 1024;
    let sessions = options().cache_bytes(BUDGET).in_memory().unwrap();
    for number in 0..400 {
        let session = sessions.start();
        session.set(BLOB_KEPT, &vec![number as u8; 4]).unwrap();
        session.sign_in(format!("user {number}")).unwrap().blocking_wait().unwrap();
        session.set(BLOB_KEPT, &vec![number as u8; 40_000]).unwrap();
        session.save().unwrap().blocking_wait().unwrap();
    }
    // Each shard has its part of the budget and room for the one cell that came in last.
    let stats = sessions.stats();
    assert!(stats.cached_bytes <= BUDGET + 256 * 41_000 && stats.cached < 400, "{stats:?}");
    assert_eq!(stats.sessions, 400);
}

#[test]
fn anonymous_sessions_in_memory_have_a_limit_of_their_own() {
    let sessions = options().anonymous_in_memory().cache_bytes(1024 * 1024).in_memory().unwrap();
    let mut kept = Vec::new();
    let refused = loop {
        let session = sessions.start();
        match session.set(BLOB, &vec![7; 60_000]) {
            Ok(()) => kept.push(session),
            Err(error) => break error,
        }
        assert!(kept.len() < 100, "a megabyte does not hold this many");
    };
    assert_eq!(refused.kind(), ErrorKind::Busy);
    kept.pop().unwrap().destroy().unwrap().blocking_wait().unwrap();
    sessions.start().set(BLOB, &vec![7; 60_000]).expect("an ended one made room");
}

#[test]
fn half_a_sign_in_grants_nothing_and_ends_nobody() {
    let sessions = options().sessions_per_principal(2, AtLimit::EndOldest).in_memory().unwrap();
    let whole = sessions.start().sign_in("ada").unwrap().blocking_wait().unwrap();
    for _ in 0..4 {
        let half = sessions.start();
        half.sign_in(SignIn::new("ada").pending()).unwrap().blocking_wait().unwrap();
        assert_eq!((half.class().unwrap(), half.principal().unwrap()), (Class::Pending, None));
        assert_eq!(half.pending_principal().unwrap().as_deref(), Some("ada"));
        assert_eq!(half.auth_age().unwrap(), None);
        assert_eq!(sessions.revoke_others(&half).unwrap_err().kind(), ErrorKind::Refused);
        assert_eq!(half.reauthenticate(1).unwrap_err().kind(), ErrorKind::Refused);
    }
    assert!(sessions.load(&whole).unwrap().is_some());
    let half = sessions.start();
    half.sign_in(SignIn::new("ada").pending()).unwrap().blocking_wait().unwrap();
    half.sign_in("ada").unwrap().blocking_wait().unwrap();
    assert_eq!(half.principal().unwrap().as_deref(), Some("ada"), "the second step makes it whole");
}

#[test]
fn when_people_alone_fill_the_store_nobody_else_is_ended_for_nothing() {
    let clock = ManualClock::new();
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("sessions");
    let options = Options::new().clock(clock).manual_workers();
    let sessions = options.open(&path).unwrap();
    for number in 0..20 {
        sessions.start().sign_in(format!("user {number}")).unwrap().blocking_wait().unwrap();
    }
    let stranger = sessions.start();
    stranger.set(BLOB, &vec![1]).unwrap();
    stranger.save().unwrap().blocking_wait().unwrap();
    let token = stranger.token().unwrap();
    sessions.close().unwrap();
    let sessions = options.clone().sessions_max(20).open(&path).unwrap();
    assert_eq!(sessions.start().set(BLOB, &vec![1]).unwrap_err().kind(), ErrorKind::Refused);
    assert!(sessions.load(&token).unwrap().is_some());
    sessions.start().sign_in("late").unwrap().blocking_wait().expect("people come before strangers");
    assert!(sessions.load(&token).unwrap().is_none());
}

#[test]
fn asking_leaves_a_value_alone_that_does_not_decode() {
    let sessions = options().in_memory().unwrap();
    let session = sessions.start();
    session.set(Field::<u64>::new("n").version(2), &5).unwrap();
    assert_eq!(session.take(Field::<u32>::new("n")).unwrap(), None);
    assert_eq!(session.get(Field::<u64>::new("n").version(2)).unwrap(), Some(5));
    assert!(session.remove(Field::<u32>::new("n")).unwrap());
}

#[test]
fn a_closed_store_says_so_to_every_question() {
    let sessions = options().in_memory().unwrap();
    let session = sessions.start();
    session.sign_in("ada").unwrap().blocking_wait().unwrap();
    sessions.close().unwrap();
    let kinds = [
        session.principal().unwrap_err().kind(),
        session.class().unwrap_err().kind(),
        session.created().unwrap_err().kind(),
        session.auth_age().unwrap_err().kind(),
        session.idle_left().unwrap_err().kind(),
        session.get(BLOB).unwrap_err().kind(),
        session.set(BLOB, &vec![1]).unwrap_err().kind(),
        session.save().unwrap_err().kind(),
        session.destroy().unwrap_err().kind(),
    ];
    assert_eq!(kinds, [ErrorKind::Closed; 9]);
}

#[test]
fn a_saved_session_counts_its_idle_time_from_the_save_after_a_crash() {
    let directory = dwell::sim::Directory::new(3);
    let clock = ManualClock::new();
    let options = Options::new().clock(clock.clone()).manual_workers();
    let sessions = directory.open(&options).unwrap();
    let session = sessions.start();
    let token = session.sign_in("ada").unwrap().blocking_wait().unwrap();
    for number in 0..4 {
        clock.advance(Duration::from_secs(600));
        let session = sessions.load(&token).unwrap().unwrap();
        session.set(BLOB, &vec![number]).unwrap();
        sessions.run_pending();
        session.save().unwrap().blocking_wait().unwrap();
    }
    directory.restore_power();
    let sessions = directory.open(&options).unwrap();
    assert!(sessions.load(&token).unwrap().is_some(), "forty minutes old, and saved just now");
}

#[test]
fn what_shorter_options_ended_stays_ended_once_anything_was_acknowledged() {
    let hour = Duration::from_secs(3600);
    let directory = dwell::sim::Directory::new(4);
    let clock = ManualClock::new();
    let options = |hours: u32| {
        Options::new().clock(clock.clone()).manual_workers().idle_timeout(hour * hours).lifetime(hour * hours)
    };
    let sessions = directory.open(&options(10)).unwrap();
    let first = sessions.start().sign_in("ada").unwrap().blocking_wait().unwrap();
    let other = sessions.start().sign_in("bob").unwrap().blocking_wait().unwrap();
    sessions.close().unwrap();
    clock.advance(2 * hour);
    let sessions = directory.open(&options(1)).unwrap();
    assert!(sessions.load(&first).unwrap().is_none());
    sessions.disable("ada").unwrap().blocking_wait().unwrap();
    directory.restore_power();
    let sessions = directory.open(&options(10)).unwrap();
    assert!(sessions.load(&first).unwrap().is_none());
    assert!(sessions.load(&other).unwrap().is_none());
}

#[test]
fn a_stricter_assurance_level_holds_for_what_is_in_the_store() {
    let directory = dwell::sim::Directory::new(6);
    let clock = ManualClock::new();
    let options = || Options::new().clock(clock.clone()).manual_workers();
    let sessions = directory.open(&options()).unwrap();
    let token = sessions.start().sign_in(SignIn::new("ada").remembered()).unwrap().blocking_wait().unwrap();
    sessions.close().unwrap();
    let sessions = directory.open(&options().assurance(AssuranceLevel::Three)).unwrap();
    let session = sessions.load_without_touch(&token).unwrap().unwrap();
    assert_eq!(session.life_left().unwrap(), Some(Duration::from_secs(12 * 3600)));
    assert_eq!(session.idle_left().unwrap(), Some(Duration::from_secs(15 * 60)));
}

#[test]
fn expired_rows_are_swept_under_steady_load_too() {
    let directory = dwell::sim::Directory::new(5);
    let clock = ManualClock::new();
    let options = Options::new()
        .clock(clock.clone())
        .manual_workers()
        .idle_timeout(Duration::from_secs(60))
        .remembered(Duration::from_secs(3600), Duration::from_secs(36_000));
    let sessions = directory.open(&options).unwrap();
    let busy = sessions.start();
    busy.sign_in(SignIn::new("busy").remembered()).unwrap().blocking_wait().unwrap();
    for number in 0..50 {
        sessions.start().sign_in(format!("user {number}")).unwrap().blocking_wait().unwrap();
    }
    clock.advance(Duration::from_secs(61));
    for number in 0..100_u8 {
        sessions.run_pending();
        clock.advance(Duration::from_millis(100));
        busy.set(BLOB, &vec![number]).unwrap();
        busy.save().unwrap().blocking_wait().unwrap();
    }
    directory.restore_power();
    let expired_at_start = directory.open(&options).unwrap().stats().expired;
    assert_eq!(expired_at_start, 0, "they were gone from disk before the power was");
}

#[test]
fn the_handle_of_a_session_that_a_crash_forgot_names_nobody_else() {
    for in_memory in [false, true] {
        let directory = dwell::sim::Directory::new(6);
        let options = if in_memory { options().anonymous_in_memory() } else { options() };
        let sessions = directory.open(&options).unwrap();
        sessions.start().sign_in("ada").unwrap().blocking_wait().unwrap();
        let forgotten = sessions.start();
        forgotten.set(BLOB, &vec![1]).unwrap();
        let id = forgotten.id().unwrap();
        directory.restore_power();
        let sessions = directory.open(&options).unwrap();
        let strangers: Vec<_> = (0..10).map(|_| sessions.start()).collect();
        strangers.iter().for_each(|stranger| stranger.set(BLOB, &vec![2]).unwrap());
        sessions.start().sign_in("bob").unwrap().blocking_wait().unwrap();
        assert!(sessions.revoke(id).unwrap().is_none());
        assert!(strangers.iter().all(|stranger| stranger.id() != Some(id) && stranger.get(BLOB).is_ok()));
    }
}

#[test]
fn odd_limits_of_some_sessions_do_not_shorten_those_of_others() {
    let clock = ManualClock::new();
    let sessions = Options::new().clock(clock.clone()).manual_workers().in_memory().unwrap();
    for seconds in 2..400 {
        let limits = Duration::from_secs(seconds);
        let receipt = sessions.start().sign_in(SignIn::new(format!("user {seconds}")).limits(limits, limits));
        drop(receipt.unwrap());
    }
    sessions.run_pending();
    let who = || SignIn::new("ada").remembered();
    let (whole, half) = (sessions.start(), sessions.start());
    let whole = whole.sign_in(who()).unwrap().blocking_wait().unwrap();
    let half = half.sign_in(who().pending()).unwrap().blocking_wait().unwrap();
    clock.advance(Duration::from_secs(6 * 24 * 3600));
    assert!(sessions.load(&whole).unwrap().is_some() && sessions.load(&half).unwrap().is_some());
}

#[test]
fn a_store_whose_disk_failed_keeps_no_more_changes_in_memory_than_may_wait() {
    const MIB: usize = 1024 * 1024;
    let (directory, clock) = (dwell::sim::Directory::new(7), ManualClock::new());
    let options = options().clock(clock.clone()).session_bytes_max(MIB).cache_bytes(0);
    let sessions = directory.open(&options).unwrap();
    let handles: Vec<_> = (0..200).map(|_| sessions.start()).collect();
    let sign_in = |(number, session): (usize, &dwell::Session)| session.sign_in(format!("user {number}")).unwrap();
    let receipts: Vec<_> = handles.iter().enumerate().map(sign_in).collect();
    receipts.into_iter().for_each(|receipt| drop(receipt.blocking_wait().unwrap()));
    directory.fail_at(directory.operations(), u64::MAX, std::io::ErrorKind::Other);
    let change = |session: &dwell::Session, byte: u8| {
        let changed = session.set(BLOB, &vec![byte; MIB - 1000]);
        clock.advance(Duration::from_secs(1));
        sessions.run_pending();
        assert!(session.save().and_then(dwell::Receipt::blocking_wait).is_err());
        changed
    };
    let changed = handles.iter().filter(|session| change(session, 1).is_ok()).count();
    assert!((60..70).contains(&changed), "{changed} MiB in memory");
    assert!(sessions.stats().dirty_bytes <= 64 * MIB);
    assert_eq!(change(&handles[199], 1).unwrap_err().kind(), ErrorKind::Busy);
    change(&handles[3], 2).expect("what is in memory goes on changing");
    for session in handles.iter().take(4) {
        assert!(session.clone().destroy().unwrap().blocking_wait().is_err());
    }
    change(&handles[199], 1).expect("ended ones made room");
}
