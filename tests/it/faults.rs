//! A disk that fails at the Nth operation, once or for ever, for every N: nothing that is not there was acknowledged,
//! what ended stays ended, memory goes on, and opening again works.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io;

use dwell::sim::Directory;
use dwell::{ErrorKind, Field, Options, Result, Sessions, SignIn, Token};

use crate::support::manual;

const NUMBER: Field<u32> = Field::new("number");
const FAULTS: [io::ErrorKind; 2] = [io::ErrorKind::StorageFull, io::ErrorKind::Other];
const TIMES: [u64; 2] = [1, u64::MAX];

/// What a script was told.
#[derive(Default)]
struct Told {
    /// Signed in, with the number that must be there and the one that may be, if any.
    live: Option<(Token, Option<u32>, Option<u32>)>,
    /// May be there, as the end of them was not acknowledged.
    doubtful: Vec<Token>,
    ended: Vec<Token>,
    anonymous: Option<Token>,
    disabled: bool,
    failed: bool,
    /// A full disk may have room again.
    full: bool,
}

fn storage(told: &mut Told, error: &dwell::Error) {
    // The one that meets the fault does not know what became of its change; those after it are refused.
    let expected =
        if told.failed && !told.full { &[ErrorKind::Storage][..] } else { &[ErrorKind::Unknown, ErrorKind::Storage] };
    assert!(expected.contains(&error.kind()), "{error:#} ({:?})", error.kind());
    told.failed = true;
}

fn wait<T>(told: &mut Told, receipt: Result<dwell::Receipt<T>>) -> Option<T> {
    match receipt.and_then(dwell::Receipt::blocking_wait) {
        Ok(value) => {
            assert!(!told.failed || told.full, "acknowledged on a disk that has failed");
            Some(value)
        }
        Err(error) => {
            storage(told, &error);
            None
        }
    }
}

fn sign_in(told: &mut Told, sessions: &Sessions, who: &str) -> Option<Token> {
    wait(told, sessions.start().sign_in(SignIn::new(who)))
}

/// A little of everything. Changes that end something take effect in memory whatever the disk does.
fn script(sessions: &Sessions, full: bool) -> Told {
    let mut told = Told { full, ..Told::default() };
    let told = &mut told;
    let first = sessions.start().set(NUMBER, &1);
    assert!(first.is_ok() || told.failed);
    let anonymous = sessions.start();
    anonymous.set(NUMBER, &5).unwrap();
    if wait(told, anonymous.save()).is_some() {
        told.anonymous = anonymous.token();
    }
    for (number, who) in ["bob", "bob", "bob", "bob", "bob", "bob", "cyd"].into_iter().enumerate() {
        let Some(token) = sign_in(told, sessions, who) else { continue };
        match number {
            0 => {
                let gone = wait(told, sessions.load(&token).unwrap().unwrap().destroy());
                assert!(sessions.load(&token).unwrap().is_none(), "signed out, whatever the disk does");
                if gone.is_some() { &mut told.ended } else { &mut told.doubtful }.push(token);
            }
            _ => told.doubtful.push(token),
        }
    }
    if let Some(token) = sign_in(told, sessions, "ada") {
        told.live = Some((token.clone(), None, None));
        let session = sessions.load(&token).unwrap().unwrap();
        for number in 1..4 {
            // The session itself goes on in memory.
            session.set(NUMBER, &number).unwrap();
            let saved = wait(told, session.save());
            if let Some((_, sure, perhaps)) = &mut told.live {
                *perhaps = Some(number);
                if saved.is_some() {
                    *sure = Some(number);
                }
            }
            assert_eq!(sessions.load(&token).unwrap().unwrap().get(NUMBER).unwrap(), Some(number));
        }
        match wait(told, session.rotate()) {
            Some(new) => {
                told.ended.push(token);
                if let Some(live) = &mut told.live {
                    live.0 = new;
                }
            }
            // Either token may be on disk, so neither is used.
            None if told.live.is_some() && session.get(NUMBER).is_err() => {
                assert!(sessions.load(&token).unwrap().is_none());
                told.live = None;
                told.doubtful.push(token);
            }
            None => {}
        }
    }
    for (who, disable) in [("bob", false), ("cyd", true)] {
        let ended = if disable { sessions.disable(who) } else { sessions.revoke_all(who) };
        let acknowledged = wait(told, ended).is_some();
        assert!(sessions.of(who).unwrap().is_empty(), "signed out everywhere, whatever the disk does");
        told.disabled = disable && acknowledged;
        if acknowledged && !disable {
            let bobs = told.doubtful.len().min(5);
            let ended: Vec<Token> = told.doubtful.drain(..bobs).collect();
            told.ended.extend(ended);
        }
    }
    for token in told.ended.iter().chain(&told.doubtful) {
        assert!(sessions.load(token).unwrap().is_none(), "ended, and back");
    }
    std::mem::take(told)
}

/// What is found after opening again, with the process gone or with the power gone.
fn check(directory: &Directory, options: &Options, told: &Told) {
    // A copy has no faults planned.
    for power_cut in [false, true] {
        let directory = directory.copy();
        if power_cut {
            directory.restore_power();
        }
        let sessions = directory.open(options).unwrap_or_else(|error| panic!("cut: {power_cut}: {error:#}"));
        for token in &told.ended {
            assert!(sessions.load(token).unwrap().is_none(), "the end of a session was acknowledged");
        }
        if let Some((token, sure, perhaps)) = &told.live {
            let session = sessions.load(token).unwrap().expect("the sign-in was acknowledged");
            let number = session.get(NUMBER).unwrap();
            assert!(number == *sure || number == *perhaps || (number > *sure && number < *perhaps), "{number:?}");
        }
        if let Some(token) = &told.anonymous {
            assert_eq!(sessions.load(token).unwrap().unwrap().get(NUMBER).unwrap(), Some(5));
        }
        if told.disabled {
            assert_eq!(sessions.start().sign_in("cyd").unwrap_err().kind(), ErrorKind::Refused);
        }
        // And it works.
        sessions.start().sign_in("eve").unwrap().blocking_wait().unwrap();
        sessions.close().unwrap();
    }
}

#[test]
fn every_operation_of_a_script_can_fail() {
    let (options, _clock) = manual();
    let all = {
        let directory = Directory::new(0);
        let sessions = directory.open(&options).unwrap();
        let told = script(&sessions, false);
        assert!(!told.failed && told.live.is_some() && told.disabled && told.anonymous.is_some());
        assert_eq!((told.ended.len(), told.doubtful.len()), (7, 1));
        sessions.close().unwrap();
        directory.operations()
    };
    assert!(all > 100, "{all} operations");
    for (at, kind, times) in (0..all)
        .flat_map(|at| FAULTS.map(|kind| (at, kind)))
        .flat_map(|(at, kind)| TIMES.map(|times| (at, kind, times)))
    {
        let directory = Directory::new(at);
        directory.fail_at(at, times, kind);
        let told = match directory.open(&options) {
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::Storage | ErrorKind::Directory), "{at}: {error:#}");
                Told::default()
            }
            Ok(sessions) => {
                let mut told = script(&sessions, kind == io::ErrorKind::StorageFull);
                // Closing tells of trouble, earlier or its own.
                let closed = sessions.close();
                assert!(closed.is_err() || !told.failed || told.full, "{at}: closing hides the failure");
                if closed.is_err() && !told.failed {
                    told.failed = true;
                }
                told
            }
        };
        check(&directory, &options, &told);
    }
}

#[test]
fn a_store_whose_making_failed_once_is_made_at_the_next_try() {
    let (options, _clock) = manual();
    for at in 0.. {
        let directory = Directory::new(at);
        directory.fail_at(at, 1, io::ErrorKind::StorageFull);
        let failed = directory.open(&options).is_err();
        let sessions = directory.open(&options).unwrap_or_else(|error| panic!("operation {at}: {error:#}"));
        sessions.start().sign_in("ada").unwrap().blocking_wait().unwrap();
        if !failed && directory.operations() > at {
            assert!(at > 10, "only {at} operations made a store");
            break;
        }
    }
}

#[test]
fn closing_tells_what_it_could_not_write() {
    let (options, _clock) = manual();
    let mut failures = 0;
    for (at, times) in (0..60).flat_map(|at| TIMES.map(|times| (at, times))) {
        let directory = Directory::new(at);
        let sessions = directory.open(&options).unwrap();
        let session = sessions.start();
        let token = session.sign_in("ada").unwrap().blocking_wait().unwrap();
        session.set(NUMBER, &7).unwrap();
        directory.fail_at(directory.operations() + at, times, io::ErrorKind::Other);
        let closed = sessions.close();
        let number = directory.copy().open(&options).unwrap().load(&token).unwrap().unwrap().get(NUMBER).unwrap();
        assert!(closed.is_err() || number == Some(7), "operation {at} of closing failed {times} times unnoticed");
        failures += usize::from(closed.is_err());
    }
    assert!(failures > 5, "{failures} failures");
}

/// Rows that wait to be swept must not keep a writer busy that may write no more.
#[test]
fn a_sweep_ends_with_the_disk_and_with_the_store() {
    for closes in [false, true] {
        let directory = Directory::new(5);
        let clock = dwell::ManualClock::new();
        let second = std::time::Duration::from_secs(1);
        let sessions = directory.open(&Options::new().clock(clock.clone()).manual_workers()).unwrap();
        for n in 0..600 {
            let idle = if n % 2 == 0 { 60 * second } else { 7000 * second };
            let who = SignIn::new(format!("user {n}")).limits(idle, 40_000 * second);
            sessions.start().sign_in(who).unwrap().blocking_wait().unwrap();
        }
        sessions.run_pending();
        clock.advance(100 * second);
        // They end, and their rows are due to be swept a second later, in runs of one: too many for one commit.
        sessions.run_pending();
        assert_eq!(sessions.stats().sessions, 300);
        if closes {
            // A commit that somebody waits for knows of them and takes none yet.
            sessions.start().sign_in("ada").unwrap().blocking_wait().unwrap();
        }
        clock.advance(2 * second);
        if closes {
            sessions.clone().close().unwrap();
        } else {
            directory.fail_at(directory.operations(), u64::MAX, std::io::ErrorKind::Other);
        }
        let before = sessions.stats().trouble;
        for _ in 0..3 {
            sessions.run_pending();
            clock.advance(2 * second);
        }
        let after = sessions.stats().trouble;
        assert!(after.is_some());
        assert!(!closes || format!("{after:?}") == format!("{before:?}"), "a store that was closed is not in trouble");
    }
}

/// A little of everything that needs random bytes: each goes through or fails with a storage error.
fn draw(sessions: &Sessions, failed: &mut bool) -> Vec<(Token, Option<u32>)> {
    let mut sure = Vec::new();
    let mut say = |error: dwell::Error| {
        assert!(matches!(error.kind(), ErrorKind::Storage | ErrorKind::Unknown), "{error:#} ({:?})", error.kind());
        *failed = true;
    };
    let wait = |receipt: Result<dwell::Receipt<Token>>| receipt.and_then(dwell::Receipt::blocking_wait);
    for number in 0..3 {
        let session = sessions.start();
        if let Err(error) = session.set(NUMBER, &number).and_then(|()| session.save()?.blocking_wait()) {
            say(error);
        } else {
            sure.push((session.token().unwrap(), Some(number)));
        }
        let session = sessions.start();
        match wait(session.sign_in("ada")) {
            Err(error) => say(error),
            Ok(token) => {
                let saved = session.set(NUMBER, &number).and_then(|()| session.save()?.blocking_wait());
                let number = saved.map(|()| number).map_err(&mut say).ok();
                match wait(session.rotate()) {
                    Ok(new) => {
                        assert!(sessions.load(&token).unwrap().is_none());
                        sure.push((new, number));
                    }
                    Err(error) => say(error),
                }
            }
        }
    }
    if let Err(error) = sessions.rotate_key().and_then(dwell::Receipt::blocking_wait) {
        say(error);
    }
    sure
}

#[test]
fn without_random_bytes_nothing_begins_and_nothing_is_made_of_others() {
    let (options, _clock) = manual();
    let all = {
        let directory = Directory::new(0);
        let sessions = directory.open(&options).unwrap();
        let mut failed = false;
        assert_eq!(draw(&sessions, &mut failed).len(), 6);
        assert!(!failed);
        sessions.close().unwrap();
        directory.draws()
    };
    assert!(all > 30, "{all}");
    for (at, times) in (0..all).flat_map(|at| TIMES.map(|times| (at, times))) {
        let directory = Directory::new(at);
        directory.fail_draws(at, times);
        let mut failed = false;
        let sure = match directory.open(&options) {
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Storage, "draw {at}: {error:#}");
                failed = true;
                Vec::new()
            }
            Ok(sessions) => {
                let sure = draw(&sessions, &mut failed);
                failed |= sessions.close().is_err();
                sure
            }
        };
        assert!(failed, "draw {at} of {all} failed {times} times and nobody was told");
        directory.fail_draws(0, 0);
        let sessions = directory.open(&options).unwrap_or_else(|error| panic!("draw {at}: {error:#}"));
        let tokens: std::collections::BTreeSet<String> =
            sure.iter().map(|(token, _)| token.expose().to_string()).collect();
        assert_eq!(tokens.len(), sure.len(), "no two alike");
        for (token, number) in &sure {
            let session = sessions.load(token).unwrap().unwrap_or_else(|| panic!("draw {at}: lost"));
            assert!(number.is_none() || session.get(NUMBER).unwrap() == *number, "draw {at}");
        }
        sessions.start().sign_in("eve").unwrap().blocking_wait().unwrap();
    }
}

/// A store that has used up the disk: everything that is live goes on and ends, on disk too, and new sessions are made again
/// as soon as there is room, by the same process.
#[test]
fn a_full_disk_ends_sessions_refuses_new_ones_and_recovers_by_itself() {
    let (options, clock) = manual();
    let second = std::time::Duration::from_secs(1);
    for seed in 0..20 {
        let directory = Directory::new(seed);
        let many = options.clone().sessions_per_principal(1 << 20, dwell::AtLimit::Refuse).journal_bytes(512 * 1024);
        let sessions = directory.open(&many).unwrap();
        let token = |n: usize| sessions.start().sign_in(["ada", "bob", "cyd"][n % 3]).unwrap().blocking_wait();
        let mut tokens: Vec<Token> = (0..60).map(|n| token(n).unwrap()).collect();
        directory.limit_room(Some(seed * 1000));
        let full = (0..10_000).find_map(|n| match token(n) {
            Ok(token) => {
                tokens.push(token);
                None
            }
            Err(error) => Some(error),
        });
        let full = full.expect("the disk is full by now");
        assert_eq!(full.kind(), ErrorKind::Storage, "{full:#}");
        assert!(full.to_string().contains("full") && sessions.stats().trouble.unwrap().contains("full"), "{full:#}");
        // Every session goes on, cold ones too, and changes in memory.
        for token in &tokens {
            let session = sessions.load(token).unwrap().unwrap();
            session.set(NUMBER, &7).unwrap();
            assert_eq!(session.save().unwrap_err().kind(), ErrorKind::Storage);
        }
        // Ends are written: each survives a power cut from here on.
        let (gone, left) = tokens.split_at(20);
        for token in gone {
            sessions.load(token).unwrap().unwrap().destroy().unwrap().blocking_wait().unwrap();
        }
        sessions.revoke_all("bob").unwrap().blocking_wait().unwrap();
        let bobs = |n: &usize| n % 3 == 1;
        let copy = directory.copy();
        copy.restore_power();
        let after = copy.open(&options).unwrap();
        assert!(gone.iter().all(|token| after.load(token).unwrap().is_none()), "seed {seed}: came back");
        let lives = |sessions: &Sessions| left.iter().filter(|token| sessions.load(token).unwrap().is_some()).count();
        let expected = (20..tokens.len()).filter(|n| !bobs(n)).count();
        assert_eq!((lives(&sessions), lives(&after)), (expected, expected), "seed {seed}");
        drop(after);
        // Time goes by, and nothing changes but that it is looked at again.
        for _ in 0..10 {
            clock.advance(3 * second);
            sessions.run_pending();
            assert!(sessions.stats().trouble.is_some());
        }
        if seed % 2 == 0 {
            directory.limit_room(None);
            clock.advance(3 * second);
            sessions.run_pending();
            assert_eq!(sessions.stats().trouble, None, "seed {seed}");
            let new = token(0).unwrap();
            sessions.run_pending();
            let sessions = {
                sessions.close().unwrap();
                directory.open(&options).unwrap()
            };
            assert_eq!(
                sessions.load(&left[0]).unwrap().map(|s| s.get(NUMBER).unwrap()),
                sessions.load(&left[0]).unwrap().map(|_| Some(7))
            );
            assert_eq!(lives(&sessions), expected);
            assert!(sessions.load(&new).unwrap().is_some());
        } else {
            // Closing ends, tells what it could not write, and keeps the rest.
            assert_eq!(sessions.close().unwrap_err().kind(), ErrorKind::Storage);
            let sessions = directory.open(&options).unwrap();
            assert_eq!(lives(&sessions), expected);
            assert!(gone.iter().all(|token| sessions.load(token).unwrap().is_none()));
        }
    }
}
