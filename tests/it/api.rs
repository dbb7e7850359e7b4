//! The public API as a program uses it, on real directories.

use dwell::{Field, Options, Sessions, SignIn};

const VISITS: Field<u32> = Field::new("visits");
const CART: Field<Vec<u64>> = Field::new("cart").keep_on_sign_in();

#[test]
fn a_signed_in_session_survives_a_restart_with_its_data() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("sessions");
    let sessions = Sessions::open(&path).unwrap();
    let session = sessions.start();
    session.set(VISITS, &3).unwrap();
    session.set(CART, &vec![7, 9]).unwrap();
    let anonymous = session.token().unwrap();
    let token =
        session.sign_in(SignIn::new("ada").device("Firefox").address("192.0.2.7")).unwrap().blocking_wait().unwrap();
    assert!(sessions.load(&anonymous).unwrap().is_none(), "the token from before the sign-in opens nothing");
    assert_eq!(session.get(VISITS).unwrap(), None, "what is not kept is dropped");
    session.update(VISITS, |n| *n += 5).unwrap();
    session.save().unwrap().blocking_wait().unwrap();
    let (id, created) = (session.id(), session.created().unwrap());
    sessions.close().unwrap();

    let sessions = Sessions::open(&path).unwrap();
    let session = sessions.load(&token).unwrap().expect("still signed in");
    assert_eq!(session.get(VISITS).unwrap(), Some(5));
    assert_eq!(session.get(CART).unwrap(), Some(vec![7, 9]));
    assert_eq!(session.principal().unwrap().as_deref(), Some("ada"));
    assert_eq!((session.id(), session.created().unwrap()), (id, created));
    let devices = sessions.of("ada").unwrap();
    assert_eq!((devices.len(), devices[0].device.as_str(), devices[0].address.as_str()), (1, "Firefox", "192.0.2.7"));
    session.destroy().unwrap().blocking_wait().unwrap();
    assert!(sessions.load(&token).unwrap().is_none());
    drop(sessions);
    assert!(Sessions::open(&path).unwrap().load(&token).unwrap().is_none());
}

#[test]
fn limits_end_the_oldest() {
    let sessions = Options::new().sessions_per_principal(2, dwell::AtLimit::EndOldest).in_memory().unwrap();
    let tokens: Vec<_> = (0..3).map(|_| sessions.start().sign_in("ada").unwrap().blocking_wait().unwrap()).collect();
    let live: Vec<bool> = tokens.iter().map(|token| sessions.load(token).unwrap().is_some()).collect();
    assert_eq!(live, [false, true, true]);
}

#[test]
fn nobody_was_last_seen_before_they_signed_in() {
    let clock = dwell::ManualClock::new();
    let sessions = dwell::Options::new().clock(clock.clone()).in_memory().unwrap();
    clock.advance(std::time::Duration::from_millis(2_900));
    sessions.start().sign_in("ada").unwrap().blocking_wait().unwrap();
    let device = sessions.of("ada").unwrap().remove(0);
    assert!(device.last_seen >= device.created, "{} and {}", device.last_seen, device.created);
}
