//! The epoch: what copies of a closed store are worth when they are put back, by every kind of revocation and wherever the
//! power fails in one.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io;
use std::time::Duration;

use dwell::sim::Directory;
use dwell::{AtLimit, Field, ManualClock, Options, Sessions, Token};

use crate::support::journal_file::{self, JOURNAL};
use crate::support::store_file::{NAME, STATE, Table};
use crate::support::{manual, sign_in, whose};

const NUMBER: Field<u32> = Field::new("number");
const EPOCH: &str = "epoch";
const OVERLAP: u64 = 10;

fn file(directory: &Directory, name: &str) -> Vec<u8> {
    directory.contents().into_iter().find(|(other, _)| other == name).unwrap().1
}

/// The epoch in the file, and the one in the store.
fn epochs(directory: &Directory) -> (u64, u64) {
    let state = journal_file::read(&directory.contents(), Table::Meta)[&STATE].clone();
    let at = |bytes: &[u8], from: usize| u64::from_le_bytes(bytes[from..from + 8].try_into().unwrap());
    let file = file(directory, EPOCH);
    (at(&file, 24).max(at(&file, 4096 + 24)), at(&state, 16))
}

/// Puts the store and its journal of an earlier moment back.
fn put_back(directory: &Directory, copy: &Directory) {
    for name in [NAME, JOURNAL] {
        directory.overwrite(name, |bytes| *bytes = file(copy, name));
    }
}

/// A closed store. Ada and Bob are signed in; Ada by a token that took the place of another, whose overlap is over.
struct Store {
    directory: Directory,
    options: Options,
    clock: ManualClock,
    ada: Token,
    bob: Token,
    before: Token,
}

impl Store {
    fn new() -> Self {
        let (options, clock) = manual();
        let second = Duration::from_secs;
        let options = options.rotate_every(second(300)).rotation_overlap(second(OVERLAP));
        let options = options.sessions_per_principal(1, AtLimit::EndOldest);
        let directory = Directory::new(1);
        let sessions = directory.open(&options).unwrap();
        let before = sign_in(&sessions, "ada");
        clock.advance(second(300));
        sessions.load(&before).unwrap().unwrap();
        clock.advance(second(1));
        sessions.run_pending();
        let ada = sessions.load(&before).unwrap().unwrap().token().unwrap();
        sessions.load(&ada).unwrap().unwrap();
        clock.advance(second(OVERLAP));
        let bob = sign_in(&sessions, "bob");
        sessions.rotate_key().unwrap().blocking_wait().unwrap();
        sessions.close().unwrap();
        Self { directory, options, clock, ada, bob, before }
    }

    fn open(&self, directory: &Directory) -> Sessions {
        directory.open(&self.options).unwrap()
    }

    /// The epochs as they are once what is in the journal was brought to the store.
    fn epochs(&self) -> (u64, u64) {
        let copy = self.directory.copy();
        self.open(&copy).close().unwrap();
        (epochs(&self.directory).0, epochs(&copy).1)
    }

    /// Who is signed in.
    fn who(&self, sessions: &Sessions) -> Vec<String> {
        [&self.ada, &self.bob].into_iter().filter_map(|token| whose(sessions, token)).collect()
    }
}

type Act = fn(&Store, &Sessions);

/// Everything that ends a session or voids a token.
const REVOCATIONS: &[(&str, Act)] = &[
    ("sign-out", |store, sessions| ada(store, sessions).destroy().unwrap().blocking_wait().unwrap()),
    ("one by its handle", |store, sessions| {
        let id = ada(store, sessions).id().unwrap();
        sessions.revoke(id).unwrap().unwrap().blocking_wait().unwrap();
    }),
    ("all of one", |_, sessions| assert_eq!(sessions.revoke_all("ada").unwrap().blocking_wait().unwrap(), 1)),
    ("disabling", |_, sessions| assert_eq!(sessions.disable("ada").unwrap().blocking_wait().unwrap(), 1)),
    ("disabling who has no session", |_, sessions| {
        assert_eq!(sessions.disable("eve").unwrap().blocking_wait().unwrap(), 0)
    }),
    ("rotation", |store, sessions| drop(ada(store, sessions).rotate().unwrap().blocking_wait().unwrap())),
    ("a new proof", |store, sessions| drop(ada(store, sessions).reauthenticate(1).unwrap().blocking_wait().unwrap())),
    ("a sign-in over it", |store, sessions| {
        drop(ada(store, sessions).sign_in("ada").unwrap().blocking_wait().unwrap());
    }),
    ("a sign-in of another over it", |store, sessions| {
        drop(ada(store, sessions).sign_in("eve").unwrap().blocking_wait().unwrap());
    }),
    ("the limit", |_, sessions| drop(sign_in(sessions, "ada"))),
    ("a replayed token", |store, sessions| {
        assert!(sessions.load(&store.before).unwrap().is_none());
        store.clock.advance(Duration::from_secs(2));
        sessions.run_pending();
    }),
    ("a sign-out and another key", |store, sessions| {
        ada(store, sessions).destroy().unwrap().blocking_wait().unwrap();
        assert_eq!(sessions.rotate_key().unwrap().blocking_wait().unwrap(), 2);
    }),
    ("a dropped key that nobody goes with", |_, sessions| {
        sessions.rotate_key().unwrap().blocking_wait().unwrap();
        assert_eq!(sessions.drop_key(1).unwrap().blocking_wait().unwrap(), 0);
    }),
    ("a dropped key", |_, sessions| assert_eq!(sessions.drop_key(0).unwrap().blocking_wait().unwrap(), 2)),
];

/// What is none.
const OTHERS: &[(&str, Act)] = &[
    ("looking", |store, sessions| assert_eq!(store.who(sessions), ["ada", "bob"])),
    ("writing", |store, sessions| {
        let session = ada(store, sessions);
        session.set(NUMBER, &1).unwrap();
        session.save().unwrap().blocking_wait().unwrap();
    }),
    ("a sign-in", |_, sessions| drop(sign_in(sessions, "eve"))),
    ("a stranger", |store, sessions| {
        sessions.start().set(NUMBER, &1).unwrap();
        store.clock.advance(Duration::from_secs(2));
        sessions.run_pending();
    }),
    ("enabling", |_, sessions| assert!(!sessions.enable("ada").unwrap().blocking_wait().unwrap())),
    ("another key", |_, sessions| assert_eq!(sessions.rotate_key().unwrap().blocking_wait().unwrap(), 2)),
];

fn ada(store: &Store, sessions: &Sessions) -> dwell::Session {
    sessions.load(&store.ada).unwrap().unwrap()
}

#[test]
fn every_kind_of_revocation_makes_older_copies_worthless_and_nothing_else_does() {
    let acts = REVOCATIONS.iter().map(|act| (act, true)).chain(OTHERS.iter().map(|act| (act, false)));
    for (&(name, act), revokes) in acts {
        let store = Store::new();
        let copy = store.directory.copy();
        let (before, _) = epochs(&store.directory);
        let sessions = store.open(&store.directory);
        act(&store, &sessions);
        sessions.close().unwrap();
        let (in_file, in_store) = epochs(&store.directory);
        assert!(in_file == in_store && (in_file > before) == revokes, "{name}: {before}, then {in_file}, {in_store}");

        // The store with its journal, both with their key file, and the whole directory.
        let with_key = store.directory.copy();
        with_key.overwrite("server.key", |bytes| *bytes = file(&copy, "server.key"));
        for directory in [&store.directory, &with_key] {
            put_back(directory, &copy);
            match directory.open(&store.options) {
                Ok(sessions) => {
                    let expected: &[&str] = if revokes { &[] } else { &["ada", "bob"] };
                    assert_eq!(store.who(&sessions), expected, "{name}");
                }
                // Sealed under a key that is not in the file of today any more.
                Err(error) => assert_eq!(error.kind(), dwell::ErrorKind::Key, "{name}: {error:#}"),
            }
        }
        assert_eq!(store.who(&store.open(&copy)), ["ada", "bob"], "{name}: an untouched copy is whole");
    }
}

#[test]
fn each_open_raises_the_epoch_once_and_only_when_something_ends() {
    let store = Store::new();
    let (first, _) = epochs(&store.directory);
    let mut copies = vec![store.directory.copy()];
    for open in 1..4 {
        let sessions = store.open(&store.directory);
        assert_eq!(epochs(&store.directory).0, first + open - 1, "opening raises nothing");
        for who in ["cyd", "dan", "eve"] {
            let token = sign_in(&sessions, who);
            sessions.load(&token).unwrap().unwrap().destroy().unwrap().blocking_wait().unwrap();
            assert_eq!(epochs(&store.directory), (first + open, first + open));
        }
        sessions.close().unwrap();
        copies.push(store.directory.copy());
    }
    let newest = copies.pop().unwrap();
    assert_eq!(store.who(&store.open(&newest)), ["ada", "bob"]);
    for (number, copy) in copies.iter().enumerate() {
        let mixed = newest.copy();
        put_back(&mixed, copy);
        assert!(store.who(&store.open(&mixed)).is_empty(), "copy {number}");
        assert_eq!(store.who(&store.open(copy)), ["ada", "bob"], "copy {number}, whole");
    }
}

/// Between commit, file and acknowledgement.
#[test]
fn wherever_the_power_fails_in_a_revocation_a_copy_from_before_revives_nobody_who_is_gone() {
    for &(name, act) in REVOCATIONS {
        let (mut behind, mut gone, mut there, mut done) = (0, 0, 0, false);
        for at in 0.. {
            let store = Store::new();
            let (copy, (before, _)) = (store.directory.copy(), epochs(&store.directory));
            store.directory.reseed(at);
            let sessions = store.open(&store.directory);
            let live = store.who(&sessions).len();
            store.directory.cut_power_at(store.directory.operations() + at);
            let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| act(&store, &sessions))).is_ok();
            let told = told && sessions.stats().trouble.is_none() && name != "a replayed token";
            let over = store.directory.operations();
            store.directory.restore_power();
            drop(sessions);
            let (in_file, in_store) = store.epochs();
            assert!(in_file <= in_store, "{name}, cut {at}: the file says what the store does not");
            behind += usize::from(in_file < in_store);
            // Opening brings the file up to the store.
            let sessions = store.open(&store.directory);
            let left = store.who(&sessions);
            sessions.close().unwrap();
            let (in_file, in_store) = epochs(&store.directory);
            assert!(in_file == in_store, "{name}, cut {at}");
            let is_gone = left.len() < live || in_store > before || told;
            if is_gone {
                gone += 1
            } else {
                there += 1
            }
            put_back(&store.directory, &copy);
            match store.directory.open(&store.options) {
                Ok(sessions) => {
                    let who = store.who(&sessions);
                    assert!(!is_gone || who.is_empty(), "{name}, cut {at}: {who:?} came back");
                }
                Err(error) => assert_eq!(error.kind(), dwell::ErrorKind::Key, "{name}, cut {at}: {error:#}"),
            }
            if told || at > over {
                done = true;
                break;
            }
            assert!(at < 200, "{name} never ends");
        }
        assert!(done && gone > 0 && there > 0 && behind > 0, "{name}: {gone} gone, {there} there, {behind} behind");
    }
}

/// What was not written to the file is not acknowledged.
#[test]
fn an_epoch_file_that_cannot_be_written_keeps_the_acknowledgement_back() {
    let mut unknown = 0;
    for at in 0..40 {
        let store = Store::new();
        let copy = store.directory.copy();
        let sessions = store.open(&store.directory);
        store.directory.fail_at(store.directory.operations() + at, 1, io::ErrorKind::StorageFull);
        let session = ada(&store, &sessions);
        let outcome = session.destroy().unwrap().blocking_wait();
        assert!(sessions.load(&store.ada).unwrap().is_none());
        let (in_file, in_store) = store.epochs();
        assert!(outcome.is_err() || in_file == in_store, "failing {at}: acknowledged before it is in the file");
        if let Err(error) = outcome {
            unknown += usize::from(error.kind() == dwell::ErrorKind::Unknown && in_file < in_store);
        }
        // Without the failures that are still planned.
        let directory = store.directory.copy();
        directory.restore_power();
        let sessions = store.open(&directory);
        let is_gone = sessions.load(&store.ada).unwrap().is_none();
        sessions.close().unwrap();
        put_back(&directory, &copy);
        let who = store.who(&store.open(&directory));
        assert!(!is_gone || who.is_empty(), "failing {at}: {who:?}");
    }
    assert!(unknown > 0, "{unknown}");
}
