//! Ending sessions, across restarts and power cuts.

use dwell::ErrorKind;

use super::{Bench, Table, VISITS, begin, lives, living, sign_in, sign_in_often};

#[test]
fn the_row_of_the_last_session_signed_out_is_not_used_again() {
    let bench = Bench::new();
    let sessions = bench.open();
    let first = sign_in(&sessions, "ada");
    let (highest, old) = sign_in(&sessions, "ada");
    let id = highest.id().unwrap();
    highest.destroy().unwrap().blocking_wait().unwrap();
    let sessions = bench.restart(sessions);
    let (session, token) = sign_in(&sessions, "ada");
    assert_ne!(session.id().unwrap(), id, "a handle never names another session");
    let sessions = bench.restart(sessions);
    assert!(lives(&sessions, &token) && lives(&sessions, &first.1) && !lives(&sessions, &old));
    assert!(sessions.revoke(id).unwrap().is_none());
}

#[test]
fn the_row_is_not_used_again_below_a_cutoff_either() {
    let bench = Bench::new();
    let sessions = bench.open();
    let old = sign_in_often(&sessions, "ada", 30);
    sessions.revoke_all("ada").unwrap().blocking_wait().unwrap();
    let sessions = bench.crash(sessions);
    let (_, token) = sign_in(&sessions, "ada");
    let sessions = bench.crash(sessions);
    assert!(lives(&sessions, &token), "it signed in after everybody was signed out");
    let sessions = bench.restart(sessions);
    assert!(lives(&sessions, &token));
    assert_eq!(living(&sessions, &old), 0);
}

#[test]
fn after_signing_out_everywhere_a_new_sign_in_lives_and_the_old_stay_dead() {
    for count in [1, 4, 5, 30] {
        let bench = Bench::new();
        let sessions = bench.open();
        let old = sign_in_often(&sessions, "ada", count);
        let (_, stranger) = sign_in(&sessions, "bob");
        assert_eq!(sessions.revoke_all("ada").unwrap().blocking_wait().unwrap(), count);
        assert_eq!(living(&sessions, &old), 0);
        let (_, new) = sign_in(&sessions, "ada");
        let mut sessions = bench.crash(sessions);
        for _ in 0..3 {
            assert_eq!(living(&sessions, &old), 0, "{count} sessions");
            assert!(lives(&sessions, &new) && lives(&sessions, &stranger), "{count} sessions");
            sessions.run_pending();
            sessions = bench.restart(sessions);
        }
        assert_eq!(sessions.of("ada").unwrap().len(), 1);
    }
}

#[test]
fn everywhere_else_spares_the_caller_through_restarts_and_its_own_rotation() {
    for count in [2, 30] {
        let bench = Bench::with(|options| options.sessions_per_principal(100, dwell::AtLimit::Refuse));
        let sessions = bench.open();
        let old = sign_in_often(&sessions, "ada", count / 2);
        let (caller, token) = sign_in(&sessions, "ada");
        let others = [old, sign_in_often(&sessions, "ada", count - count / 2)].concat();
        assert_eq!(sessions.revoke_others(&caller).unwrap().blocking_wait().unwrap(), count);
        let sessions = bench.crash(sessions);
        assert!(lives(&sessions, &token) && living(&sessions, &others) == 0, "{count} others");
        let caller = sessions.load(&token).unwrap().unwrap();
        let rotated = caller.rotate().unwrap().blocking_wait().unwrap();
        let sessions = bench.crash(sessions);
        assert!(lives(&sessions, &rotated) && !lives(&sessions, &token) && living(&sessions, &others) == 0);
        let sessions = bench.restart(sessions);
        assert!(lives(&sessions, &rotated) && living(&sessions, &others) == 0);
        // Who was spared once is not spared for ever.
        assert_eq!(sessions.revoke_all("ada").unwrap().blocking_wait().unwrap(), 1);
        let sessions = bench.crash(sessions);
        assert!(!lives(&sessions, &rotated));
    }
}

#[test]
fn a_later_caller_is_spared_and_the_earlier_one_is_not() {
    let bench = Bench::with(|options| options.sessions_per_principal(100, dwell::AtLimit::Refuse));
    let sessions = bench.open();
    let (first, first_token) = sign_in(&sessions, "ada");
    let others = sign_in_often(&sessions, "ada", 40);
    sessions.revoke_others(&first).unwrap().blocking_wait().unwrap();
    let (second, second_token) = sign_in(&sessions, "ada");
    let more = sign_in_often(&sessions, "ada", 10);
    assert_eq!(sessions.revoke_others(&second).unwrap().blocking_wait().unwrap(), 11);
    let sessions = bench.crash(sessions);
    assert!(lives(&sessions, &second_token) && !lives(&sessions, &first_token));
    assert_eq!(living(&sessions, &others) + living(&sessions, &more), 0);
}

#[test]
fn everywhere_else_needs_a_caller_that_may() {
    let bench = Bench::new();
    let sessions = bench.open();
    let (session, token) = sign_in(&sessions, "ada");
    let stale = sessions.load(&token).unwrap().unwrap();
    let kind = |session: &dwell::Session| sessions.revoke_others(session).unwrap_err().kind();
    assert_eq!(kind(&sessions.start()), ErrorKind::Gone);
    assert_eq!(kind(&begin(&sessions, 1).0), ErrorKind::Refused);
    let receipt = session.rotate().unwrap();
    assert_eq!(kind(&session), ErrorKind::Busy);
    receipt.blocking_wait().unwrap();
    assert_eq!(kind(&stale), ErrorKind::Gone);
    session.clone().destroy().unwrap().blocking_wait().unwrap();
    assert_eq!(kind(&session), ErrorKind::Gone);
}

#[test]
fn the_record_of_a_sign_out_everywhere_goes_with_its_last_row() {
    let bench = Bench::new();
    let sessions = bench.open();
    sign_in_often(&sessions, "ada", 30);
    sessions.revoke_all("ada").unwrap().blocking_wait().unwrap();
    let sessions = bench.crash(sessions);
    assert_eq!(bench.records(Table::Cutoffs), 1, "rows that only it makes dead are left");
    assert!(bench.records(Table::Sessions) > 0);
    for _ in 0..2 {
        bench.advance(2);
        sessions.run_pending();
    }
    let sessions = bench.restart(sessions);
    for table in [Table::Cutoffs, Table::Sessions, Table::Bodies, Table::Principals] {
        assert_eq!(bench.records(table), 0, "{table:?}");
    }
    drop(sessions);
}

#[test]
fn nothing_of_an_ended_session_is_left_in_the_tables() {
    let bench = Bench::with(|options| options.sessions_per_principal(2, dwell::AtLimit::EndOldest));
    let sessions = bench.open();
    sign_in_often(&sessions, "ada", 5);
    let (session, _) = begin(&sessions, 1);
    session.sign_in("bob").unwrap().blocking_wait().unwrap();
    session.sign_in("eve").unwrap().blocking_wait().unwrap();
    assert_eq!((bench.records(Table::Sessions), bench.records(Table::Bodies)), (3, 3));
    session.destroy().unwrap().blocking_wait().unwrap();
    for info in sessions.of("ada").unwrap() {
        sessions.revoke(info.id).unwrap().unwrap().blocking_wait().unwrap();
    }
    let sessions = bench.restart(sessions);
    assert_eq!(
        (bench.records(Table::Sessions), bench.records(Table::Bodies), bench.records(Table::Principals)),
        (0, 0, 0)
    );
    drop(sessions);
}

#[test]
fn a_disabled_principal_stays_disabled_through_restarts_and_in_copies() {
    let mut bench = Bench::new();
    let sessions = bench.open();
    let tokens = sign_in_often(&sessions, "mallory", 3);
    assert_eq!(sessions.disable("mallory").unwrap().blocking_wait().unwrap(), 3);
    let refused = |sessions: &dwell::Sessions| sessions.start().sign_in("mallory").unwrap_err().kind();
    assert_eq!(refused(&sessions), ErrorKind::Refused);
    let sessions = bench.crash(sessions);
    assert_eq!(refused(&sessions), ErrorKind::Refused);
    let sessions = bench.restart(sessions);
    assert_eq!(refused(&sessions), ErrorKind::Refused);
    sessions.close().unwrap();
    bench.directory = bench.directory.copy();
    let sessions = bench.open();
    assert_eq!(refused(&sessions), ErrorKind::Refused);
    assert_eq!(living(&sessions, &tokens), 0);
    sessions.revoke_all("mallory").unwrap().blocking_wait().unwrap();
    assert_eq!(refused(&sessions), ErrorKind::Refused, "only enabling lifts it");
    assert!(sessions.enable("mallory").unwrap().blocking_wait().unwrap());
    assert!(!sessions.enable("mallory").unwrap().blocking_wait().unwrap());
    let sessions = bench.restart(sessions);
    let (_, token) = sign_in(&sessions, "mallory");
    assert!(lives(&bench.restart(sessions), &token));
    assert_eq!(bench.records(Table::Cutoffs), 0);
}

#[test]
fn disabling_kills_a_sign_in_under_way() {
    let bench = Bench::new();
    let sessions = bench.open();
    let session = begin(&sessions, 1).0;
    let receipt = session.sign_in("mallory").unwrap();
    let disabled = sessions.disable("mallory").unwrap();
    assert_eq!(session.sign_in("mallory").unwrap_err().kind(), ErrorKind::Refused);
    assert_eq!(receipt.blocking_wait().unwrap_err().kind(), ErrorKind::Gone);
    assert_eq!(disabled.blocking_wait().unwrap(), 0);
    assert_eq!(session.get(VISITS).unwrap(), Some(1), "the visitor goes on as nobody");
    session.set(VISITS, &2).unwrap();
    let sessions = bench.restart(sessions);
    assert_eq!(sessions.of("mallory").unwrap().len(), 0);
}

#[test]
fn a_rotation_under_way_dies_with_its_session() {
    for way in 0..4 {
        let bench = Bench::new();
        let sessions = bench.open();
        let (session, token) = sign_in(&sessions, "ada");
        let receipt = session.rotate().unwrap();
        match way {
            0 => drop(sessions.revoke(session.id().unwrap()).unwrap().unwrap()),
            1 => drop(sessions.revoke_all("ada").unwrap()),
            2 => drop(session.clone().destroy().unwrap()),
            _ => drop(sessions.disable("ada").unwrap()),
        }
        assert_eq!(receipt.blocking_wait().unwrap_err().kind(), ErrorKind::Gone);
        assert!(!lives(&sessions, &token));
        let sessions = bench.crash(sessions);
        assert!(!lives(&sessions, &token));
        assert_eq!(sessions.of("ada").unwrap().len(), 0);
    }
}

#[test]
fn a_handle_from_before_a_rotation_is_worth_nothing() {
    let bench = Bench::new();
    let sessions = bench.open();
    let (session, token) = sign_in(&sessions, "ada");
    let old = sessions.load(&token).unwrap().unwrap();
    old.set(VISITS, &1).unwrap();
    let new = session.rotate().unwrap().blocking_wait().unwrap();
    assert_eq!(old.get(VISITS).unwrap_err().kind(), ErrorKind::Gone);
    assert_eq!(old.set(VISITS, &2).unwrap_err().kind(), ErrorKind::Gone);
    assert_eq!(old.update(VISITS, |n| *n += 1).unwrap_err().kind(), ErrorKind::Gone);
    assert_eq!(old.save().unwrap_err().kind(), ErrorKind::Gone);
    assert_eq!(old.rotate().unwrap_err().kind(), ErrorKind::Gone);
    assert_eq!(old.sign_in("ada").unwrap_err().kind(), ErrorKind::Gone);
    assert_eq!(old.destroy().unwrap_err().kind(), ErrorKind::Gone);
    assert_eq!(session.get(VISITS).unwrap(), Some(1), "the handle that rotated goes on");
    let sessions = bench.crash(sessions);
    assert_eq!(sessions.load(&new).unwrap().unwrap().get(VISITS).unwrap(), Some(1));
}

/// In one batch a row is put twice: by the change that was waiting and by the rotation, which must win.
#[test]
fn rotations_win_over_changes_that_ride_in_the_same_commit() {
    let bench = Bench::with(|options| options.sessions_per_principal(1000, dwell::AtLimit::Refuse));
    let sessions = bench.open();
    let handles: Vec<_> = (0..200).map(|_| sign_in(&sessions, "ada").0).collect();
    let receipts: Vec<_> = handles
        .iter()
        .zip(0..)
        .map(|(session, number)| {
            session.set(VISITS, &number).unwrap();
            session.rotate().unwrap()
        })
        .collect();
    let tokens: Vec<_> = receipts.into_iter().map(|receipt| receipt.blocking_wait().unwrap()).collect();
    drop(handles);
    let sessions = bench.crash(sessions);
    for (token, number) in tokens.iter().zip(0..) {
        let session = sessions.load(token).unwrap().expect("the rotation was acknowledged");
        assert_eq!(session.get(VISITS).unwrap(), Some(number));
    }
}

#[test]
fn a_receipt_that_nobody_keeps_changes_nothing() {
    let bench = Bench::new();
    let sessions = bench.open();
    let session = begin(&sessions, 1).0;
    drop(session.sign_in("ada").unwrap());
    sessions.run_pending();
    let token = session.token().unwrap();
    session.set(VISITS, &2).unwrap();
    drop(session.save().unwrap());
    let (other, gone) = sign_in(&sessions, "ada");
    drop(other.destroy().unwrap());
    sessions.run_pending();
    let sessions = bench.crash(sessions);
    assert_eq!(sessions.load(&token).unwrap().unwrap().get(VISITS).unwrap(), Some(2));
    assert!(!lives(&sessions, &gone));
}
