//! Server keys: rotated and dropped while sessions are in use, under power cuts and disks that fail, and what a copy of an
//! older key file is worth.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use dwell::sim::Directory;
use dwell::{EndReason, ErrorKind, Field, ManualClock, Options, RevokedBy, Session, Sessions, SignIn, Token, What};

use crate::support::journal_file::JOURNAL;
use crate::support::store_file::{KEYS, NAME, Table, read, write};
use crate::support::{manual, sign_in, whose};

const NUMBER: Field<u32> = Field::new("number");
const KEY_FILE: &str = "server.key";
const KEYS_MAX: u8 = 64;

/// The id of the server key that a token goes with.
fn key_of(token: &Token) -> u8 {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let character = token.expose().as_bytes()[6];
    u8::try_from(ALPHABET.iter().position(|known| *known == character).unwrap()).unwrap()
}

fn rotate(sessions: &Sessions) -> u8 {
    sessions.rotate_key().unwrap().blocking_wait().unwrap()
}

fn drop_key(sessions: &Sessions, id: u8) -> usize {
    sessions.drop_key(id).unwrap().blocking_wait().unwrap()
}

/// Id and number of sessions of each key, the active one last.
fn keys(sessions: &Sessions) -> Vec<(u8, usize)> {
    let keys = sessions.keys().unwrap();
    let active: Vec<_> = keys.iter().map(|key| key.active).collect();
    assert!(active.iter().rev().skip(1).all(|active| !active) && active.last() == Some(&true), "{active:?}");
    keys.iter().map(|key| (key.id, key.sessions)).collect()
}

fn file(directory: &Directory, name: &str) -> Vec<u8> {
    directory.contents().into_iter().find(|(other, _)| other == name).unwrap().1
}

/// Puts the store and its journal of an earlier moment back.
fn put_back(directory: &Directory, copy: &Directory) {
    for name in [NAME, JOURNAL] {
        directory.overwrite(name, |bytes| *bytes = file(copy, name));
    }
}

fn ids_in_file(directory: &Directory) -> Vec<u8> {
    let text = String::from_utf8(file(directory, KEY_FILE)).unwrap();
    let id = |line: &str| line.strip_prefix("key ")?.split(' ').next()?.parse().ok();
    text.lines().filter_map(id).collect()
}

/// The server keys that headers on disk say they go with.
fn keys_of_rows(directory: &Directory) -> Vec<u8> {
    read(&file(directory, NAME), Table::Sessions).values().map(|header| header[1]).collect()
}

struct Home {
    directory: Directory,
    options: Options,
    clock: ManualClock,
}

impl Home {
    fn new() -> Self {
        let (options, clock) = manual();
        Self { directory: Directory::new(1), options, clock }
    }

    fn rotating() -> Self {
        let (options, clock) = manual();
        Self { directory: Directory::new(1), options: options.rotate_every(Duration::from_secs(300)), clock }
    }

    fn open(&self) -> Sessions {
        self.directory.open(&self.options).unwrap()
    }

    fn restart(&self, sessions: Sessions) -> Sessions {
        sessions.close().unwrap();
        self.open()
    }

    fn pass(&self, sessions: &Sessions, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
        sessions.run_pending();
    }

    /// Lets the interval pass and returns the successor of a token, which is on disk then.
    fn offer(&self, sessions: &Sessions, token: &Token) -> Token {
        self.clock.advance(Duration::from_secs(300));
        sessions.load(token).unwrap().unwrap();
        self.pass(sessions, 1);
        offered(sessions, token).expect("a successor")
    }
}

fn offered(sessions: &Sessions, token: &Token) -> Option<Token> {
    sessions.load_without_touch(token).unwrap().unwrap().token()
}

fn is_live(sessions: &Sessions, token: &Token) -> bool {
    sessions.load_without_touch(token).unwrap().is_some()
}

#[test]
fn what_gets_a_token_after_a_rotation_goes_with_the_new_key() {
    let home = Home::new();
    let sessions = home.open();
    assert_eq!(keys(&sessions), [(0, 0)]);
    let old = sign_in(&sessions, "ada");
    let [rotated, proved, replaced] = ["bob", "cyd", "dan"].map(|who| {
        let token = sign_in(&sessions, who);
        sessions.load(&token).unwrap().unwrap()
    });
    let anonymous = sessions.start();
    anonymous.set(NUMBER, &1).unwrap();
    assert_eq!(key_of(&anonymous.token().unwrap()), 0);
    home.pass(&sessions, 60);
    assert_eq!(rotate(&sessions), 1);
    let listed = sessions.keys().unwrap();
    assert_eq!(listed[1].made.unix_ms() - listed[0].made.unix_ms(), 60_000);
    assert_eq!(keys(&sessions), [(0, 5), (1, 0)]);

    let new = sign_in(&sessions, "eve");
    let begun = sessions.start();
    begun.set(NUMBER, &2).unwrap();
    let moved: Vec<Token> = vec![
        begun.token().unwrap(),
        rotated.rotate().unwrap().blocking_wait().unwrap(),
        proved.reauthenticate(1).unwrap().blocking_wait().unwrap(),
        replaced.sign_in("dan").unwrap().blocking_wait().unwrap(),
        anonymous.sign_in("fay").unwrap().blocking_wait().unwrap(),
    ];
    assert!(moved.iter().chain([&new]).all(|token| key_of(token) == 1), "they go with the active key");
    assert_eq!(keys(&sessions), [(0, 1), (1, 6)]);
    // Used, written and saved, the old one stays where it is.
    let session = sessions.load(&old).unwrap().unwrap();
    session.set(NUMBER, &3).unwrap();
    session.save().unwrap().blocking_wait().unwrap();
    let sessions = home.restart(sessions);
    assert_eq!(sessions.load(&old).unwrap().unwrap().get(NUMBER).unwrap(), Some(3));
    assert!(moved.iter().chain([&new]).all(|token| is_live(&sessions, token)));
    assert_eq!((keys(&sessions), sessions.stats().refused_rows), (vec![(0, 1), (1, 6)], 0));
    assert_eq!(key_of(&sign_in(&sessions, "gil")), 1);
    sessions.close().unwrap();
    let mut found = keys_of_rows(&home.directory);
    found.sort_unstable();
    assert_eq!(found, [0, 1, 1, 1, 1, 1, 1, 1]);
    assert_eq!(ids_in_file(&home.directory), [0, 1]);
    assert_eq!(read(&file(&home.directory, NAME), Table::Meta)[&KEYS][0], 1, "the store's keys are sealed under it");
}

#[test]
fn tokens_replaced_as_time_goes_by_leave_the_old_key() {
    let home = Home::rotating();
    let mut sessions = home.open();
    let (first, other) = (sign_in(&sessions, "ada"), sign_in(&sessions, "bob"));
    let second = home.offer(&sessions, &first);
    rotate(&sessions);
    // What was offered stays the same, whatever key is active, before a restart and after.
    for _ in 0..2 {
        assert_eq!(offered(&sessions, &first).unwrap().expose(), second.expose());
        assert_eq!((key_of(&second), keys(&sessions)), (0, vec![(0, 2), (1, 0)]));
        sessions = home.restart(sessions);
    }
    assert!(is_live(&sessions, &second));
    home.pass(&sessions, 20);
    let third = home.offer(&sessions, &second);
    assert_eq!(key_of(&third), 1);
    // Nor does the next rotation change what was offered under this one.
    rotate(&sessions);
    for _ in 0..2 {
        assert_eq!(offered(&sessions, &second).unwrap().expose(), third.expose());
        // It goes with both: dropping either would end it.
        assert_eq!(keys(&sessions), [(0, 2), (1, 1), (2, 0)]);
        sessions = home.restart(sessions);
    }
    assert!(is_live(&sessions, &third));
    assert_eq!(keys(&sessions), [(0, 1), (1, 1), (2, 0)]);
    assert!(is_live(&sessions, &second), "for requests under way");
    home.pass(&sessions, 1);
    let mut sessions = home.restart(sessions);
    // Its key opens nothing any more, and using it says nothing against the session.
    assert_eq!(drop_key(&sessions, 0), 1);
    for _ in 0..2 {
        assert!(!is_live(&sessions, &second) && !is_live(&sessions, &other));
        home.pass(&sessions, 20);
        assert!(!is_live(&sessions, &second));
        assert_eq!(whose(&sessions, &third).as_deref(), Some("ada"));
        sessions = home.restart(sessions);
    }
    assert_eq!((keys(&sessions), sessions.stats().refused_rows), (vec![(1, 1), (2, 0)], 0));
    let fourth = home.offer(&sessions, &third);
    assert_eq!((key_of(&fourth), whose(&sessions, &fourth).as_deref()), (2, Some("ada")));
}

/// On disk its header says the key before still, when the drop is asked for.
#[test]
fn a_session_that_left_its_key_a_moment_ago_stays() {
    let home = Home::rotating();
    let sessions = home.open();
    let first = sign_in(&sessions, "ada");
    rotate(&sessions);
    let second = home.offer(&sessions, &first);
    let handle = sessions.load(&second).unwrap().unwrap();
    handle.set(NUMBER, &7).unwrap();
    assert_eq!(drop_key(&sessions, 0), 0);
    assert!(!is_live(&sessions, &first) && is_live(&sessions, &second));
    // A power cut at once, and nothing was forgotten.
    home.directory.restore_power();
    let sessions = home.open();
    assert!(!is_live(&sessions, &first));
    assert_eq!(sessions.load(&second).unwrap().unwrap().get(NUMBER).unwrap(), Some(7));
    assert_eq!((keys(&sessions), sessions.stats().refused_rows), (vec![(1, 1)], 0));
}

#[test]
fn who_may_have_the_successor_already_ends_with_its_key() {
    let home = Home::rotating();
    let sessions = home.open();
    let tokens = ["ada", "bob"].map(|who| sign_in(&sessions, who));
    assert_eq!(rotate(&sessions), 1);
    let next = home.offer(&sessions, &tokens[0]);
    assert_eq!(key_of(&next), 1);
    assert_eq!(rotate(&sessions), 2);
    assert_eq!(drop_key(&sessions, 1), 1);
    assert!(!is_live(&sessions, &tokens[0]) && !is_live(&sessions, &next));
    assert!(is_live(&sessions, &tokens[1]));
    let sessions = home.restart(sessions);
    assert!(!is_live(&sessions, &tokens[0]) && !is_live(&sessions, &next) && is_live(&sessions, &tokens[1]));
    assert_eq!((keys(&sessions), sessions.stats().refused_rows), (vec![(0, 1), (2, 0)], 0));
}

#[test]
fn a_dropped_key_ends_its_sessions_at_once_and_for_good() {
    let home = Home::new();
    let sessions = home.open();
    let cold = sign_in(&sessions, "ada");
    let sessions = home.restart(sessions);
    let mut events = sessions.events();
    let many: Vec<Token> = (0..20).map(|number| sign_in(&sessions, &format!("user {number}"))).collect();
    let held: Vec<Session> = many.iter().map(|token| sessions.load(token).unwrap().unwrap()).collect();
    let anonymous = sessions.start();
    anonymous.set(NUMBER, &1).unwrap();
    let strangers = anonymous.token().unwrap();
    let signing_in = sessions.start();
    let expired = sign_in(&sessions, "zoe");
    rotate(&sessions);
    let new = sign_in(&sessions, "eve");
    let ended = held[0].ended();
    sessions.run_pending();
    while events.try_next().is_some() {}

    // Dead before anything is on disk.
    let receipt = sessions.drop_key(0).unwrap();
    for token in many.iter().chain([&cold, &strangers, &expired]) {
        assert!(sessions.load(token).unwrap().is_none());
    }
    for session in held.iter().chain([&anonymous]) {
        assert_eq!(session.set(NUMBER, &9).unwrap_err().kind(), ErrorKind::Gone);
        assert_eq!(session.get(NUMBER).unwrap_err().kind(), ErrorKind::Gone);
        assert_eq!(session.save().unwrap_err().kind(), ErrorKind::Gone);
    }
    assert_eq!(ended.blocking_wait(), EndReason::Revoked);
    assert_eq!(receipt.blocking_wait().unwrap(), 23);
    assert_eq!((sessions.stats().revoked, sessions.stats().sessions), (23, 1));
    assert_eq!((keys(&sessions), ids_in_file(&home.directory)), (vec![(1, 1)], vec![1]));
    sessions.run_pending();
    let told: Vec<_> = std::iter::from_fn(|| events.try_next()).collect();
    assert_eq!(told.len(), 24);
    for event in &told[..23] {
        let What::Ended { reason, by, .. } = event.what else { panic!("{event}") };
        assert_eq!((reason, by), (EndReason::Revoked, Some(RevokedBy::DropKey)));
        assert!(event.to_string().contains(" reason=revoked by=drop_key session="), "{event}");
    }
    assert!(told.iter().any(|event| event.principal.as_deref() == Some("ada")), "a name that was on disk only");
    assert!(told[23].to_string().ends_with(" key_dropped key=0"), "{}", told[23]);

    // A handle that had no session yet begins one under the key that is there.
    let token = signing_in.sign_in("ada").unwrap().blocking_wait().unwrap();
    assert_eq!(key_of(&token), 1);
    let sessions = home.restart(sessions);
    assert_eq!((sessions.stats().refused_rows, sessions.stats().restored), (0, 2));
    assert!(many.iter().chain([&cold, &strangers]).all(|token| !is_live(&sessions, token)));
    assert!(is_live(&sessions, &new) && is_live(&sessions, &token));
    sessions.close().unwrap();
    assert_eq!(keys_of_rows(&home.directory), [1, 1]);
    assert_eq!(read(&file(&home.directory, NAME), Table::Bodies).len(), 2);
}

#[test]
fn a_session_whose_time_is_over_is_not_dropped_with_its_key() {
    let home = Home::new();
    let sessions = home.open();
    let mut events = sessions.events();
    let short = SignIn::new("zoe").limits(Duration::from_secs(60), Duration::from_secs(60));
    let token = sessions.start().sign_in(short).unwrap().blocking_wait().unwrap();
    sign_in(&sessions, "ada");
    rotate(&sessions);
    // Nobody has collected it yet.
    home.clock.advance(Duration::from_secs(60));
    assert_eq!(keys(&sessions), [(0, 1), (1, 0)]);
    assert_eq!(drop_key(&sessions, 0), 1);
    assert_eq!((sessions.stats().revoked, sessions.stats().expired, sessions.stats().sessions), (1, 1, 0));
    assert!(!is_live(&sessions, &token));
    sessions.run_pending();
    let ended = |what| if let What::Ended { reason, .. } = what { Some(reason) } else { None };
    let mut told: Vec<_> = std::iter::from_fn(|| events.try_next()).filter_map(|event| ended(event.what)).collect();
    told.sort_unstable_by_key(|reason| reason.as_str());
    assert_eq!(told, [EndReason::Lifetime, EndReason::Revoked]);
}

/// Rows that nobody is signed in with, because their time ran out, or that say so without being ours.
#[test]
fn nothing_of_a_dropped_key_is_left_in_the_store() {
    let home = Home::new();
    let sessions = home.open();
    for number in 0..9 {
        sign_in(&sessions, &format!("user {number}"));
    }
    sessions.close().unwrap();
    let mut planted = read(&file(&home.directory, NAME), Table::Sessions)[&1].clone();
    planted[40] ^= 1;
    home.directory.overwrite(NAME, |file| write(file, Table::Sessions, 77, Some(&planted)));
    home.clock.advance(Duration::from_secs(24 * 3600));
    let sessions = home.open();
    assert_eq!((sessions.stats().expired, sessions.stats().refused_rows), (9, 1));
    rotate(&sessions);
    let token = sign_in(&sessions, "ada");
    assert_eq!(drop_key(&sessions, 0), 0);
    home.directory.restore_power();
    assert_eq!(keys_of_rows(&home.directory), [1]);
    let sessions = home.open();
    assert_eq!((whose(&sessions, &token).as_deref(), sessions.stats().refused_rows), (Some("ada"), 0));
}

#[test]
fn keys_that_are_not_there_to_drop_are_refused_and_nothing_changes() {
    let home = Home::new();
    let sessions = home.open();
    let token = sign_in(&sessions, "ada");
    let before = file(&home.directory, KEY_FILE);
    let refused = sessions.drop_key(0).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused);
    assert!(refused.to_string().contains("rotate first"), "{refused}");
    for id in [KEYS_MAX, 200, u8::MAX] {
        assert_eq!(sessions.drop_key(id).unwrap_err().kind(), ErrorKind::Invalid);
    }
    for id in [1, 63] {
        let missing = sessions.drop_key(id).unwrap().blocking_wait().unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::Invalid);
        assert!(missing.to_string().contains(&format!("no server key {id}")), "{missing}");
    }
    assert_eq!(file(&home.directory, KEY_FILE), before);
    assert_eq!((whose(&sessions, &token).as_deref(), sessions.stats().trouble), (Some("ada"), None));
    // An id that was asked for in vain is good for a key later.
    assert_eq!(rotate(&sessions), 1);
    assert_eq!(key_of(&sign_in(&sessions, "bob")), 1);
    sessions.clone().close().unwrap();
    for closed in [sessions.rotate_key().map(drop), sessions.drop_key(0).map(drop), sessions.keys().map(drop)] {
        assert_eq!(closed.unwrap_err().kind(), ErrorKind::Closed);
    }
}

#[test]
fn ids_come_again_and_old_tokens_and_rows_mean_nothing_then() {
    let home = Home::new();
    let sessions = home.open();
    let first = sign_in(&sessions, "ada");
    let sessions = home.restart(sessions);
    let row = read(&file(&home.directory, NAME), Table::Sessions)[&1].clone();
    let body = read(&file(&home.directory, NAME), Table::Bodies)[&1].clone();
    for id in 1..KEYS_MAX {
        assert_eq!(rotate(&sessions), id);
    }
    let full = sessions.rotate_key().unwrap().blocking_wait().unwrap_err();
    assert_eq!(full.kind(), ErrorKind::Refused);
    assert!(full.to_string().contains("drop key 0 first"), "{full}");
    assert_eq!((sessions.stats().trouble, keys(&sessions).len()), (None, 64));
    let sessions = home.restart(sessions);
    assert!(is_live(&sessions, &first));
    assert_eq!(drop_key(&sessions, 0), 1);
    assert_eq!(rotate(&sessions), 0, "it is the only one that is free");
    let again = sign_in(&sessions, "bob");
    assert_eq!((key_of(&again), key_of(&first)), (0, 0));
    assert!(!is_live(&sessions, &first));
    let sessions = home.restart(sessions);
    assert!(!is_live(&sessions, &first) && is_live(&sessions, &again));
    assert_eq!(keys(&sessions).last(), Some(&(0, 1)));
    sessions.close().unwrap();
    home.directory.overwrite(NAME, |file| {
        write(file, Table::Sessions, 1, Some(&row));
        write(file, Table::Bodies, 1, Some(&body));
    });
    let sessions = home.open();
    assert_eq!(sessions.stats().refused_rows, 1, "its tag is under the key that is gone");
    assert!(!is_live(&sessions, &first) && is_live(&sessions, &again));
}

#[test]
fn sessions_kept_off_the_disk_have_keys_too() {
    let (options, _clock) = manual();
    let directory = Directory::new(3);
    let sessions = directory.open(&options.anonymous_in_memory()).unwrap();
    let session = sessions.start();
    session.set(NUMBER, &1).unwrap();
    rotate(&sessions);
    let other = sessions.start();
    other.set(NUMBER, &2).unwrap();
    assert_eq!(keys(&sessions), [(0, 1), (1, 1)]);
    assert_eq!(drop_key(&sessions, 0), 1);
    assert_eq!(session.get(NUMBER).unwrap_err().kind(), ErrorKind::Gone);
    assert_eq!(other.get(NUMBER).unwrap(), Some(2));
}

/// A store with two sessions, of which a rotation made the second one's key.
fn two_keys() -> (Home, [Token; 2]) {
    let home = Home::new();
    let sessions = home.open();
    let old = sign_in(&sessions, "ada");
    rotate(&sessions);
    let new = sign_in(&sessions, "bob");
    sessions.close().unwrap();
    (home, [old, new])
}

#[test]
fn a_rotation_survives_a_power_cut_at_every_operation() {
    let (home, tokens) = two_keys();
    let (mut before, mut after) = (0, 0);
    for at in 0.. {
        let directory = home.directory.copy();
        let sessions = directory.open(&home.options).unwrap();
        directory.cut_power_at(directory.operations() + at);
        let outcome = sessions.rotate_key().unwrap().blocking_wait();
        directory.restore_power();
        drop(sessions);
        let sessions = directory.open(&home.options).unwrap();
        let found = keys(&sessions);
        match found[..] {
            [(0, 1), (1, 1)] => before += 1,
            [(0, 1), (1, 1), (2, 0)] => after += 1,
            _ => panic!("cut {at}: {found:?}"),
        }
        assert!(outcome.is_err() || found.len() == 3, "cut {at}: acknowledged and forgotten");
        let token = sign_in(&sessions, "cyd");
        assert_eq!(key_of(&token), found.last().unwrap().0, "cut {at}");
        // Whatever was cut short is whole by now: the other keys can go.
        let sessions = {
            sessions.close().unwrap();
            assert_eq!(read(&file(&directory, NAME), Table::Meta)[&KEYS][0], found.last().unwrap().0, "cut {at}");
            directory.open(&home.options).unwrap()
        };
        assert!(tokens.iter().chain([&token]).all(|token| is_live(&sessions, token)), "cut {at}");
        let next = rotate(&sessions);
        for (id, _) in found {
            drop_key(&sessions, id);
        }
        sessions.close().unwrap();
        let sessions = directory.open(&home.options).unwrap();
        assert_eq!((keys(&sessions), sessions.stats().refused_rows), (vec![(next, 0)], 0), "cut {at}");
        if outcome.is_ok() {
            break;
        }
    }
    assert!(before > 2 && after > 2, "{before} before, {after} after");
}

#[test]
fn finishing_a_rotation_survives_a_power_cut_at_every_operation() {
    let (home, tokens) = two_keys();
    // One that was cut short between the key file and the store.
    let cut_short = |directory: &Directory| {
        file(directory, KEY_FILE).windows(8).any(|text| text == b"active 2")
            && read(&file(directory, NAME), Table::Meta)[&KEYS][0] == 1
    };
    let halves = (0..).map(|at| {
        let directory = home.directory.copy();
        let sessions = directory.open(&home.options).unwrap();
        directory.cut_power_at(directory.operations() + at);
        let outcome = sessions.rotate_key().unwrap().blocking_wait();
        directory.restore_power();
        (directory, outcome.is_ok())
    });
    let halves: Vec<_> = halves.take_while(|(_, done)| !done).filter(|(directory, _)| cut_short(directory)).collect();
    assert!(!halves.is_empty());
    for (half, _) in halves {
        for at in 0.. {
            let directory = half.copy();
            directory.cut_power_at(directory.operations() + at);
            let opened = directory.open(&home.options).is_ok();
            directory.restore_power();
            let sessions = directory.open(&home.options).unwrap();
            assert_eq!(keys(&sessions), [(0, 1), (1, 1), (2, 0)], "cut {at}");
            assert!(tokens.iter().all(|token| is_live(&sessions, token)));
            drop(sessions);
            assert_eq!(read(&file(&directory, NAME), Table::Meta)[&KEYS][0], 2, "cut {at}");
            if opened {
                break;
            }
        }
    }
}

#[test]
fn dropping_a_key_survives_a_power_cut_at_every_operation() {
    let (home, [old, new]) = two_keys();
    let copy_of_store = home.directory.copy();
    let (mut alive, mut key_left, mut gone) = (0, 0, 0);
    for at in 0.. {
        let directory = home.directory.copy();
        directory.reseed(at);
        let sessions = directory.open(&home.options).unwrap();
        directory.cut_power_at(directory.operations() + at);
        let outcome = sessions.drop_key(0).unwrap().blocking_wait();
        assert!(!is_live(&sessions, &old), "cut {at}: whatever the disk does");
        directory.restore_power();
        drop(sessions);
        let sessions = directory.open(&home.options).unwrap();
        assert!(is_live(&sessions, &new), "cut {at}");
        assert_eq!(sessions.stats().refused_rows, 0, "cut {at}: a session without its key");
        let was_live = is_live(&sessions, &old);
        match keys(&sessions)[..] {
            [(0, 1), (1, 1)] if was_live => alive += 1,
            [(0, 0), (1, 1)] if !was_live => key_left += 1,
            [(1, 1)] if !was_live => gone += 1,
            ref other => panic!("cut {at}: {other:?}, {was_live}"),
        }
        assert!(outcome.is_err() || ids_in_file(&directory) == [1], "cut {at}: acknowledged");
        // Whatever was left, it can be dropped again.
        if ids_in_file(&directory) != [1] {
            assert_eq!(drop_key(&sessions, 0), usize::from(was_live));
        }
        sessions.close().unwrap();
        // A copy of the store from before brings nobody back.
        put_back(&directory, &copy_of_store);
        let sessions = directory.open(&home.options).unwrap();
        assert_eq!((sessions.stats().sessions, keys(&sessions)), (0, vec![(1, 0)]), "cut {at}");
        if outcome.is_ok() {
            break;
        }
    }
    assert!(alive > 0 && key_left > 2 && gone > 0, "{alive} alive, {key_left} keys left, {gone} gone");
}

#[test]
fn a_key_file_that_cannot_be_written_leaves_everything_as_it_was() {
    let (home, tokens) = two_keys();
    let (mut refused, mut unknown, mut degraded) = (0, 0, 0);
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::Other, io::ErrorKind::PermissionDenied] {
        for at in 0.. {
            let directory = home.directory.copy();
            let before = file(&directory, KEY_FILE);
            let sessions = directory.open(&home.options).unwrap();
            directory.fail_at(directory.operations() + at, 1, kind);
            let outcome = sessions.rotate_key().unwrap().blocking_wait();
            assert!(tokens.iter().all(|token| is_live(&sessions, token)), "failing {at}");
            let Err(error) = outcome else { break };
            assert!([ErrorKind::Storage, ErrorKind::Unknown].contains(&error.kind()), "{error:#}");
            assert_eq!(keys(&sessions), [(0, 1), (1, 1)], "failing {at}");
            if sessions.stats().trouble.is_some() {
                // The store itself could not be written.
                degraded += 1;
                drop(sessions);
                directory.restore_power();
                let sessions = directory.open(&home.options).unwrap();
                assert!(tokens.iter().all(|token| is_live(&sessions, token)), "failing {at}");
                continue;
            }
            assert!(error.to_string().contains("server.key"), "{error:#}");
            if error.kind() == ErrorKind::Storage {
                assert_eq!(file(&directory, KEY_FILE), before, "failing {at}");
                refused += 1;
            } else {
                unknown += 1;
            }
            // Everything goes on, and so does the next rotation.
            assert_eq!(key_of(&sign_in(&sessions, "cyd")), 1);
            if at % 2 == 0 {
                assert_eq!(rotate(&sessions), 2);
                assert_eq!(key_of(&sign_in(&sessions, "dan")), 2);
            }
            sessions.close().unwrap();
            let sessions = directory.open(&home.options).unwrap();
            assert_eq!((sessions.stats().sessions, sessions.stats().refused_rows), (3 + usize::from(at % 2 == 0), 0));
        }
    }
    assert!(refused >= 6 && unknown >= 2 && degraded >= 2, "{refused}, {unknown}, {degraded}");
}

#[test]
fn a_key_that_cannot_leave_its_file_is_dropped_again() {
    let (home, [old, new]) = two_keys();
    let mut left = 0;
    for at in 0.. {
        let directory = home.directory.copy();
        let sessions = directory.open(&home.options).unwrap();
        let begun = directory.operations();
        directory.fail_at(begun + at, 1, io::ErrorKind::StorageFull);
        let outcome = sessions.drop_key(0).unwrap().blocking_wait();
        assert!(!is_live(&sessions, &old) && is_live(&sessions, &new), "failing {at}");
        let Err(error) = outcome else {
            // A full disk keeps nobody from ending a session.
            if directory.operations() > begun + at { continue } else { break }
        };
        if sessions.stats().trouble.is_some() {
            continue;
        }
        assert!(error.to_string().contains("server.key"), "{error:#}");
        assert_eq!(keys(&sessions), [(1, 1)]);
        left += 1;
        if at % 2 == 0 {
            // A rotation clears it away.
            assert_eq!(rotate(&sessions), 2);
            assert_eq!(ids_in_file(&directory), [1, 2]);
        } else if ids_in_file(&directory) == [0, 1] {
            assert_eq!(drop_key(&sessions, 0), 0);
            assert_eq!(ids_in_file(&directory), [1]);
        }
        sessions.close().unwrap();
        let sessions = directory.open(&home.options).unwrap();
        assert!(!is_live(&sessions, &old) && is_live(&sessions, &new));
    }
    assert!(left > 3, "{left}");
}

#[test]
fn a_key_file_that_somebody_changed_meanwhile_is_not_written_over() {
    let (home, tokens) = two_keys();
    let other = Home::new();
    other.directory.open(&home.options.clone()).unwrap().close().unwrap();
    let foreign = file(&other.directory, KEY_FILE);
    let older = {
        let older = Home { directory: home.directory.copy(), options: home.options.clone(), clock: home.clock.clone() };
        let sessions = older.open();
        drop_key(&sessions, 0);
        file(&older.directory, KEY_FILE)
    };
    for change in [Some(foreign), Some(older), Some(b"nonsense".to_vec()), None] {
        let directory = home.directory.copy();
        let sessions = directory.open(&home.options).unwrap();
        match &change {
            Some(bytes) => directory.overwrite(KEY_FILE, |file| file.clone_from(bytes)),
            None => directory.remove(KEY_FILE),
        }
        let before = directory.contents();
        let error = sessions.rotate_key().unwrap().blocking_wait().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Key, "{error:#}");
        assert!(error.to_string().contains("put the right one back"), "{error}");
        assert!(directory.contents() == before, "something was written");
        assert!(tokens.iter().all(|token| is_live(&sessions, token)));
        let error = sessions.drop_key(0).unwrap().blocking_wait().unwrap_err();
        assert_eq!((error.kind(), sessions.stats().trouble), (ErrorKind::Key, None));
        assert!(!is_live(&sessions, &tokens[0]) && is_live(&sessions, &tokens[1]));
        directory.overwrite(KEY_FILE, |bytes| *bytes = file(&home.directory, KEY_FILE));
        drop_key(&sessions, 0);
        sessions.close().unwrap();
        assert!(is_live(&directory.open(&home.options).unwrap(), &tokens[1]));
    }
}

#[test]
fn an_older_key_file_opens_nothing_and_brings_nobody_back() {
    let home = Home::new();
    let sessions = home.open();
    let old = sign_in(&sessions, "ada");
    let first = file(&home.directory, KEY_FILE);
    rotate(&sessions);
    let new = sign_in(&sessions, "bob");
    let both = file(&home.directory, KEY_FILE);
    sessions.close().unwrap();
    let copy_of_store = home.directory.copy();
    let sessions = home.open();
    drop_key(&sessions, 0);
    sessions.close().unwrap();
    let with = |key: &[u8], store: Option<&Directory>| {
        let copy = home.directory.copy();
        copy.overwrite(KEY_FILE, |file| *file = key.to_vec());
        if let Some(store) = store {
            put_back(&copy, store);
        }
        copy.open(&home.options)
    };
    let refused = with(&first, None).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Key);
    assert!(refused.to_string().contains("lacks the key"), "{refused}");
    // From between the rotation and the drop: the key is there again, and nothing goes with it.
    let sessions = with(&both, None).unwrap();
    assert_eq!(keys(&sessions), [(0, 0), (1, 1)]);
    assert!(!is_live(&sessions, &old) && is_live(&sessions, &new));
    drop(sessions);
    // With the store of that time too; but not its epoch.
    let sessions = with(&both, Some(&copy_of_store)).unwrap();
    assert_eq!((sessions.stats().sessions, sessions.stats().refused_rows), (0, 0));
}

#[test]
fn a_key_file_of_another_version_is_called_so() {
    let (home, _) = two_keys();
    home.directory.overwrite(KEY_FILE, |file| {
        let text = String::from_utf8(file.clone()).unwrap();
        *file = text.replacen("format 2", "format 1", 1).into_bytes();
    });
    let before = home.directory.contents();
    let refused = home.directory.open(&home.options).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Format);
    assert!(refused.to_string().contains("server.key") && refused.to_string().contains("format 1"), "{refused}");
    assert!(home.directory.contents() == before);
}

/// Sign-ins, rotations of both kinds, saves and sign-outs on threads, while keys come and go under them.
#[test]
fn keys_change_under_threads_and_nobody_is_left_behind() {
    const THREADS: usize = 4;
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("store");
    let clock = ManualClock::new();
    let second = Duration::from_secs(1);
    let options = Options::new().clock(clock.clone()).rotate_every(second).rotation_overlap(second);
    let options = options.sessions_per_principal(10_000, dwell::AtLimit::Refuse);
    let sessions = options.open(&path).unwrap();
    let over = AtomicBool::new(false);
    let busy = |error: &dwell::Error| [ErrorKind::Gone, ErrorKind::Busy].contains(&error.kind());
    // Lives of sessions until the keys have changed often enough; the tokens that were the last of one.
    let live = |number: usize| {
        let mut last = Vec::new();
        while !over.load(Ordering::SeqCst) {
            let session = sessions.start();
            let mut token = match session.sign_in(format!("person {number}")).map(dwell::Receipt::blocking_wait) {
                Ok(Ok(token)) => token,
                Ok(Err(error)) | Err(error) => {
                    assert!(busy(&error), "{error:#}");
                    continue;
                }
            };
            for turn in 0..6 {
                let Some(session) = sessions.load(&token).unwrap() else { break };
                if let Some(successor) = session.token() {
                    token = successor;
                } else if turn % 3 == number % 3
                    && let Ok(Ok(next)) = session.rotate().map(dwell::Receipt::blocking_wait)
                {
                    token = next;
                } else if let Err(error) = session.set(NUMBER, &1).and_then(|()| session.save()?.blocking_wait()) {
                    assert!(busy(&error), "{error:#}");
                }
            }
            last.push(token);
        }
        last
    };
    let mut tokens = Vec::new();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|number| scope.spawn(move || live(number))).collect();
        for round in 0..150_u32 {
            clock.advance(second);
            let active = sessions.rotate_key().unwrap().blocking_wait().unwrap();
            assert_eq!(u32::from(active), (round + 1) % 64);
            for key in sessions.keys().unwrap().into_iter().filter(|key| !key.active) {
                if round % 3 > 0 {
                    sessions.drop_key(key.id).unwrap().blocking_wait().unwrap();
                    let left = sessions.keys().unwrap().into_iter().find(|left| left.id == key.id);
                    assert_eq!(left, None, "round {round}");
                }
            }
        }
        over.store(true, Ordering::SeqCst);
        threads.into_iter().for_each(|thread| tokens.extend(thread.join().unwrap()));
    });
    assert_eq!(sessions.stats().trouble, None);
    let there: Vec<u8> = sessions.keys().unwrap().into_iter().map(|key| key.id).collect();
    let living: Vec<_> = tokens.iter().filter(|token| is_live(&sessions, token)).collect();
    assert!(living.iter().all(|token| there.contains(&key_of(token))));
    let count = sessions.stats().sessions;
    let keyed: usize = sessions.keys().unwrap().iter().map(|key| key.sessions).sum();
    assert_eq!(keyed, count);
    sessions.close().unwrap();
    let sessions = options.open(&path).unwrap();
    assert_eq!((sessions.stats().sessions, sessions.stats().refused_rows), (count, 0));
    // Cold, so every wrap and header is opened.
    assert!(living.iter().all(|token| is_live(&sessions, token)));
    assert_eq!(tokens.iter().filter(|token| is_live(&sessions, token)).count(), living.len());
}
