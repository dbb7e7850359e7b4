//! A closed store that somebody changed who knows its format and can write its files, but has no key. Whatever they
//! do, nobody is taken for somebody else, and nothing panics.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use dwell::sim::Directory;
use dwell::{AtLimit, Error, ErrorKind, Field, Options, Sessions, SignIn, Token, What};

use crate::support::journal_file::JOURNAL;
use crate::support::store_file::{FORMAT, KEYS, NAME, STATE, Table, drop_table, read, write};
use crate::support::{manual, sign_in, whose};

const NUMBER: Field<u32> = Field::new("number");

/// Where the fields of a header begin.
const FINGERPRINT: std::ops::Range<usize> = 40..56;
const PRINCIPAL: std::ops::Range<usize> = 76..84;

/// A closed store with two sessions of Ada, rows 1 and 2, one of Bob, row 3, and the disabled Mallory.
struct Store {
    directory: Directory,
    options: Options,
    /// Whose token it is, and the number in the session.
    tokens: Vec<(Token, &'static str, u32)>,
}

impl Store {
    fn new() -> Self {
        let options = manual().0.sessions_per_principal(2, AtLimit::EndOldest);
        let directory = Directory::new(1);
        let sessions = directory.open(&options).unwrap();
        let mut tokens = Vec::new();
        for (number, who) in [(11, "ada"), (12, "ada"), (13, "bob")] {
            let session = sessions.start();
            let token = session.sign_in(SignIn::new(who).device("a browser")).unwrap().blocking_wait().unwrap();
            session.set(NUMBER, &number).unwrap();
            session.save().unwrap().blocking_wait().unwrap();
            tokens.push((token, who, number));
        }
        sessions.disable("mallory").unwrap().blocking_wait().unwrap();
        sessions.close().unwrap();
        Self { directory, options, tokens }
    }

    fn records(&self, table: Table) -> std::collections::BTreeMap<u64, Vec<u8>> {
        let files = self.directory.contents();
        read(&files.iter().find(|(name, _)| name == NAME).unwrap().1, table)
    }

    /// A copy in which the file of the store was changed.
    fn changed(&self, change: impl FnOnce(&mut Vec<u8>)) -> Directory {
        let copy = self.directory.copy();
        copy.overwrite(NAME, change);
        copy
    }

    fn with(&self, table: Table, key: u64, value: Option<&[u8]>) -> Directory {
        self.changed(|file| write(file, table, key, value))
    }

    /// Opens it, which is to fail, and leave the files as they are.
    fn refused(&self, directory: &Directory, kind: ErrorKind) -> Error {
        let before = directory.contents();
        let error = directory.open(&self.options).unwrap_err();
        assert_eq!(error.kind(), kind, "{error:#}");
        assert!(directory.contents() == before, "a refusal changed the files: {error:#}");
        error
    }

    /// What each token opens: only ever its own session, or nothing, or an error about damage.
    fn opened(&self, sessions: &Sessions) -> Vec<Option<bool>> {
        let open = |(token, who, number): &(Token, &str, u32)| match sessions.load(token) {
            Ok(None) => None,
            Ok(Some(session)) => {
                assert_eq!(session.principal().unwrap().as_deref(), Some(*who));
                assert_eq!(session.get(NUMBER).unwrap(), Some(*number));
                Some(true)
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:#}");
                Some(false)
            }
        };
        self.tokens.iter().map(open).collect()
    }
}

const OPENS: Option<bool> = Some(true);
const DAMAGED: Option<bool> = Some(false);

#[test]
fn a_planted_header_authenticates_nobody_and_evicts_nobody() {
    let store = Store::new();
    let headers = store.records(Table::Sessions);
    // Ada's fingerprint under Bob's name, the oldest there is, newer than all, and in place of Bob's own.
    let mut planted = headers[&3].clone();
    planted[FINGERPRINT].copy_from_slice(&headers[&1][FINGERPRINT]);
    let mut renamed = headers[&1].clone();
    renamed[PRINCIPAL].copy_from_slice(&headers[&3][PRINCIPAL]);
    for header in [&planted, &renamed] {
        for row in [0, 4, 5, 1 << 40] {
            let directory = store.changed(|file| {
                write(file, Table::Sessions, row, Some(header));
                write(file, Table::Bodies, row, Some(&store.records(Table::Bodies)[&3]));
            });
            let sessions = directory.open(&store.options).unwrap();
            assert_eq!(sessions.stats().refused_rows, 1, "row {row}");
            assert_eq!(store.opened(&sessions), [OPENS; 3], "row {row}");
            assert_eq!(sessions.of("bob").unwrap().len(), 1);
            // Bob may have two: the planted one does not count, so nobody is ended for it.
            let second = sign_in(&sessions, "bob");
            assert_eq!((sessions.of("bob").unwrap().len(), sessions.stats().evicted), (2, 0));
            assert_eq!(store.opened(&sessions), [OPENS; 3]);
            sign_in(&sessions, "bob");
            assert_eq!(store.opened(&sessions), [OPENS, OPENS, None], "the oldest of Bob's own ended");
            sessions.close().unwrap();
            assert_eq!(whose(&directory.open(&store.options).unwrap(), &second).as_deref(), Some("bob"));
        }
    }
    let refuse = manual().0.sessions_per_principal(2, AtLimit::Refuse);
    let sessions = store.with(Table::Sessions, 4, Some(&planted)).open(&refuse).unwrap();
    sign_in(&sessions, "bob");
    assert_eq!(sessions.start().sign_in("bob").unwrap_err().kind(), ErrorKind::Refused);
}

#[test]
fn swapped_values_open_nothing_of_one_for_the_other() {
    let store = Store::new();
    let (headers, bodies) = (store.records(Table::Sessions), store.records(Table::Bodies));
    for (one, other) in [(1_u64, 2_u64), (1, 3)] {
        let swap = |file: &mut Vec<u8>, table, records: &std::collections::BTreeMap<u64, Vec<u8>>| {
            write(file, table, one, Some(&records[&other]));
            write(file, table, other, Some(&records[&one]));
        };
        let expect = |directory: Directory, outcome: Option<bool>| {
            let sessions = directory.open(&store.options).unwrap();
            let opened = store.opened(&sessions);
            for (place, found) in opened.into_iter().enumerate() {
                let swapped = [one, other].contains(&(place as u64 + 1));
                assert_eq!(found, if swapped { outcome } else { OPENS }, "token {place}");
            }
        };
        expect(store.changed(|file| swap(file, Table::Sessions, &headers)), None);
        expect(store.changed(|file| swap(file, Table::Bodies, &bodies)), DAMAGED);
        let both = store.changed(|file| {
            swap(file, Table::Sessions, &headers);
            swap(file, Table::Bodies, &bodies);
        });
        expect(both, None);
    }
}

#[test]
fn a_row_under_another_number_is_refused() {
    let store = Store::new();
    let (headers, bodies) = (store.records(Table::Sessions), store.records(Table::Bodies));
    for row in [4, 100, (1 << 48) - 1, 1 << 48, u64::MAX] {
        for moved in [false, true] {
            let directory = store.changed(|file| {
                write(file, Table::Sessions, row, Some(&headers[&1]));
                write(file, Table::Bodies, row, Some(&bodies[&1]));
                if moved {
                    write(file, Table::Sessions, 1, None);
                    write(file, Table::Bodies, 1, None);
                }
            });
            let sessions = directory.open(&store.options).unwrap();
            assert_eq!(store.opened(&sessions), [if moved { None } else { OPENS }, OPENS, OPENS], "row {row}");
            // A planted number does not use up the numbers, and the rest of life goes on.
            let token = sign_in(&sessions, "eve");
            sessions.close().unwrap();
            let sessions = directory.open(&store.options).unwrap();
            assert_eq!(whose(&sessions, &token).as_deref(), Some("eve"));
            sign_in(&sessions, "eve");
        }
    }
}

#[test]
fn every_changed_byte_of_a_session_is_noticed() {
    let store = Store::new();
    let mut damaged_facts = 0;
    for (table, outcome) in [(Table::Sessions, None), (Table::Bodies, DAMAGED)] {
        let record = &store.records(table)[&1];
        for at in 0..record.len() {
            let mut changed = record.clone();
            changed[at] ^= 1 << (at % 8);
            let sessions = store.with(table, 1, Some(&changed)).open(&store.options).unwrap();
            let opened = store.opened(&sessions);
            assert_eq!(opened[1..], [OPENS, OPENS], "{table:?} byte {at}");
            // Facts are checked where they are shown.
            let facts = opened[0] == OPENS && table == Table::Bodies;
            if facts {
                damaged_facts += 1;
                // In use, and read from disk.
                for sessions in [sessions, store.with(table, 1, Some(&changed)).open(&store.options).unwrap()] {
                    let listed = sessions.of("ada").unwrap();
                    let devices: Vec<&str> = listed.iter().map(|info| info.device.as_str()).collect();
                    assert_eq!((devices, sessions.stats().refused_rows), (vec!["", "a browser"], 1), "byte {at}");
                    sessions.revoke(listed[0].id).unwrap().unwrap().blocking_wait().unwrap();
                    assert_eq!(sessions.of("ada").unwrap().len(), 1);
                }
            } else {
                assert_eq!(opened[0], outcome, "{table:?} byte {at}");
            }
        }
        for length in 0..record.len() {
            if table == Table::Bodies {
                let sessions = store.with(table, 1, Some(&record[..length])).open(&store.options).unwrap();
                assert_eq!(store.opened(&sessions), [DAMAGED, OPENS, OPENS], "{length} bytes");
            }
        }
    }
    assert!(damaged_facts > 40, "{damaged_facts} bytes of facts");
    let sessions = store.with(Table::Bodies, 1, None).open(&store.options).unwrap();
    assert_eq!(store.opened(&sessions), [DAMAGED, OPENS, OPENS], "a missing body");
    let listed = sessions.of("ada").unwrap();
    assert_eq!((listed.len(), listed[0].device.as_str(), listed[1].device.as_str()), (2, "", "a browser"));
}

/// Nobody can tell any more whose sessions these are, so nothing is shown of them; but they can be ended.
#[test]
fn a_damaged_name_is_mended_by_signing_out_everywhere() {
    let store = Store::new();
    for (key, record) in store.records(Table::Principals) {
        let mut changed = record.clone();
        changed[9] ^= 1;
        for value in [Some(changed.as_slice()), None] {
            let directory = store.with(Table::Principals, key, value);
            let sessions = directory.open(&store.options).unwrap();
            let who = if sessions.load(&store.tokens[0].0).is_err() { "ada" } else { "bob" };
            if value.is_some() {
                assert_eq!(sessions.of(who).unwrap_err().kind(), ErrorKind::Corrupt);
                assert_eq!(sessions.start().sign_in(who).unwrap_err().kind(), ErrorKind::Corrupt);
            }
            let ended = sessions.revoke_all(who).unwrap().blocking_wait().unwrap();
            assert_eq!(ended, if who == "ada" { 2 } else { 1 });
            let token = sign_in(&sessions, who);
            assert_eq!(sessions.of(who).unwrap().len(), 1);
            sessions.close().unwrap();
            let sessions = directory.open(&store.options).unwrap();
            assert_eq!(whose(&sessions, &token).as_deref(), Some(who));
            assert_eq!(store.opened(&sessions).iter().flatten().count(), if who == "ada" { 1 } else { 2 });
        }
    }
}

/// The disk forgets bits while the store is open, and nothing is in memory but the index.
#[test]
fn a_header_damaged_while_running_hides_no_other_session_and_can_be_ended() {
    const BLOB: Field<Vec<u8>> = Field::new("blob");
    let (options, _clock) = manual();
    let options = options.sessions_per_principal(300, AtLimit::Refuse).page_cache_bytes(1);
    let directory = Directory::new(1);
    let sessions = directory.open(&options).unwrap();
    let handles: Vec<_> = (0..300).map(|_| sessions.start()).collect();
    let receipts: Vec<_> = handles.iter().map(|handle| handle.sign_in("ada").unwrap()).collect();
    let tokens: Vec<_> = receipts.into_iter().map(|receipt| receipt.blocking_wait().unwrap()).collect();
    handles[60..].iter().for_each(|handle| handle.set(BLOB, &vec![7; 60_000]).unwrap());
    let id = handles[0].id().unwrap();
    sessions.close().unwrap();
    let header = read(&file(&directory, NAME), Table::Sessions)[&1].clone();
    let sessions = directory.open(&options).unwrap();
    // Reading what is elsewhere pushes the header's page out of memory.
    for token in &tokens[60..] {
        assert_eq!(sessions.load(token).unwrap().unwrap().get(BLOB).unwrap().unwrap().len(), 60_000);
    }
    directory.overwrite(NAME, |bytes| {
        let places: Vec<_> = bytes.windows(header.len()).enumerate().filter(|(_, at)| *at == header).collect();
        let places: Vec<usize> = places.into_iter().map(|(place, _)| place).collect();
        assert!(!places.is_empty());
        places.into_iter().for_each(|place| bytes[place + 8] ^= 1);
    });
    assert_eq!(sessions.load(&tokens[0]).unwrap_err().kind(), ErrorKind::Corrupt);
    let mut events = sessions.events();
    let listed = sessions.of("ada").unwrap();
    assert_eq!((listed.len(), sessions.stats().refused_rows), (299, 1));
    sessions.run_pending();
    let told = std::iter::from_fn(|| events.try_next()).map(|event| (event.what, event.session));
    assert_eq!(told.collect::<Vec<_>>(), [(What::RowRefused, Some(id))]);
    assert!(listed.iter().all(|info| info.id != id));
    sessions.revoke(listed[0].id).unwrap().unwrap().blocking_wait().unwrap();
    assert_eq!(sessions.of("ada").unwrap().len(), 298);
    sessions.revoke(id).unwrap().expect("it lives").blocking_wait().unwrap();
    assert!(sessions.load(&tokens[0]).unwrap().is_none());
    sessions.of("ada").unwrap();
    assert_eq!(sessions.stats().refused_rows, 2, "the ended one is not met any more");
    // What cannot be read at all is no shorter list.
    directory.overwrite(NAME, |bytes| bytes.truncate(8192));
    sessions.of("ada").unwrap_err();
    assert_eq!(sessions.revoke_all("ada").unwrap().blocking_wait().is_ok(), sessions.stats().trouble.is_none());
    assert!(tokens.iter().all(|token| sessions.load(token).unwrap().is_none()));
}

#[test]
fn every_changed_byte_of_the_records_of_the_store_is_noticed() {
    let store = Store::new();
    let meta = [(FORMAT, "format"), (KEYS, "keys"), (STATE, "state")].map(|(key, what)| (Table::Meta, key, what));
    let cutoff = (Table::Cutoffs, *store.records(Table::Cutoffs).keys().next().unwrap(), "cutoff");
    for (table, key, what) in meta.into_iter().chain([cutoff]) {
        let record = store.records(table)[&key].clone();
        for at in 0..record.len() {
            let mut changed = record.clone();
            changed[at] ^= 1 << (at % 8);
            let kinds: &[ErrorKind] = match (what, at) {
                ("format", 0..12) => &[ErrorKind::Format],
                ("format", _) => &[ErrorKind::Key],
                ("keys", _) => &[ErrorKind::Key],
                _ => &[ErrorKind::Corrupt],
            };
            store.refused(&store.with(table, key, Some(&changed)), kinds[0]);
        }
    }
    let names = store.records(Table::Principals);
    assert_eq!(names.len(), 2);
    for (key, record) in &names {
        let changed: Vec<Option<Vec<u8>>> = (0..record.len())
            .map(|at| {
                let mut changed = record.clone();
                changed[at] ^= 1 << (at % 8);
                Some(changed)
            })
            .chain([None, Some(Vec::new()), names.values().find(|other| *other != record).cloned()])
            .collect();
        for value in changed {
            let sessions = store.with(Table::Principals, *key, value.as_deref()).open(&store.options).unwrap();
            let opened = store.opened(&sessions);
            assert!(
                opened == [DAMAGED, DAMAGED, OPENS] || opened == [OPENS, OPENS, DAMAGED],
                "a name that was changed or removed is noticed by those who have it: {opened:?}"
            );
        }
    }
}

#[test]
fn removed_records_of_the_store_are_noticed() {
    let store = Store::new();
    for (key, kind, word) in [
        (FORMAT, ErrorKind::Format, "another program"),
        (KEYS, ErrorKind::Corrupt, "key"),
        (STATE, ErrorKind::Corrupt, "state"),
    ] {
        let error = store.refused(&store.with(Table::Meta, key, None), kind);
        assert!(error.to_string().contains(word), "{error}");
    }
    let cutoffs = store.records(Table::Cutoffs);
    let (key, record) = cutoffs.iter().next().unwrap();
    let error = store.refused(&store.with(Table::Cutoffs, *key, None), ErrorKind::Corrupt);
    assert!(error.to_string().contains("sign-out-everywhere"), "{error}");
    // One that was added, and one under another principal.
    store.refused(&store.with(Table::Cutoffs, 77, Some(record)), ErrorKind::Corrupt);
    let moved = store.changed(|file| {
        write(file, Table::Cutoffs, *key, None);
        write(file, Table::Cutoffs, 77, Some(record));
    });
    store.refused(&moved, ErrorKind::Corrupt);
    let sessions = store.changed(|file| drop_table(file, "bodies")).open(&store.options).unwrap();
    assert_eq!(store.opened(&sessions), [DAMAGED; 3]);
    for table in ["sessions", "principals", "touches", "cutoffs", "meta"] {
        let directory = store.changed(|file| drop_table(file, table));
        let kind = if table == "meta" { ErrorKind::Format } else { ErrorKind::Corrupt };
        let error = store.refused(&directory, kind);
        assert!(error.to_string().contains(NAME), "{error}");
    }
}

#[test]
fn a_cutoff_that_is_put_back_after_it_grew_is_noticed() {
    let store = Store::new();
    let (key, old) = store.records(Table::Cutoffs).into_iter().next().unwrap();
    let sessions = store.directory.open(&store.options).unwrap();
    sessions.enable("mallory").unwrap().blocking_wait().unwrap();
    sessions.close().unwrap();
    store.refused(&store.with(Table::Cutoffs, key, Some(&old)), ErrorKind::Corrupt);
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

#[test]
fn an_older_copy_of_the_store_and_its_journal_ends_every_session() {
    for (revocation, ends) in
        [("sign out", true), ("revoke", true), ("everywhere", true), ("rotate", true), ("write", false)]
    {
        let store = Store::new();
        let copy = store.directory.copy();
        let sessions = store.directory.open(&store.options).unwrap();
        let session = sessions.load(&store.tokens[0].0).unwrap().unwrap();
        match revocation {
            "sign out" => session.destroy().unwrap().blocking_wait().unwrap(),
            "revoke" => sessions.revoke(session.id().unwrap()).unwrap().unwrap().blocking_wait().unwrap(),
            "everywhere" => drop(sessions.revoke_all("ada").unwrap().blocking_wait().unwrap()),
            "rotate" => drop(session.rotate().unwrap().blocking_wait().unwrap()),
            _ => {
                session.set(NUMBER, &11).unwrap();
                session.save().unwrap().blocking_wait().unwrap();
            }
        }
        let since = sign_in(&sessions, "eve");
        sessions.close().unwrap();
        put_back(&store.directory, &copy);
        let sessions = store.directory.open(&store.options).unwrap();
        let expected = if ends { [None; 3] } else { [OPENS; 3] };
        assert_eq!(store.opened(&sessions), expected, "{revocation}");
        assert_eq!(whose(&sessions, &since), None, "it was made after the copy");
        assert_eq!(sessions.start().sign_in("mallory").unwrap_err().kind(), ErrorKind::Refused);
        // It goes on from there, also after another start.
        let token = sign_in(&sessions, "fay");
        sessions.close().unwrap();
        let sessions = store.directory.open(&store.options).unwrap();
        assert_eq!(whose(&sessions, &token).as_deref(), Some("fay"));
        assert_eq!(store.opened(&sessions), expected, "{revocation}, and once more");
    }
}

#[test]
fn ending_every_session_of_an_older_copy_survives_power_cuts() {
    let store = Store::new();
    let before = store.directory.copy();
    let sessions = store.directory.open(&store.options).unwrap();
    sessions.revoke_all("ada").unwrap().blocking_wait().unwrap();
    sessions.close().unwrap();
    put_back(&store.directory, &before);
    let mut cuts = 0;
    for at in 0.. {
        let copy = store.directory.copy();
        copy.cut_power_at(at);
        let opened = copy.open(&store.options);
        let whole = opened.is_ok();
        drop(opened);
        copy.restore_power();
        assert_eq!(store.opened(&copy.open(&store.options).unwrap()), [None; 3], "a cut at operation {at}");
        cuts += 1;
        if whole {
            break;
        }
    }
    assert!(cuts > 3, "{cuts} cuts");
}

#[test]
fn an_untouched_copy_restores_whole() {
    let store = Store::new();
    let copy = store.directory.copy();
    let sessions = store.directory.open(&store.options).unwrap();
    sessions.revoke_all("ada").unwrap().blocking_wait().unwrap();
    sessions.close().unwrap();
    let sessions = copy.open(&store.options).unwrap();
    assert_eq!(store.opened(&sessions), [OPENS; 3]);
    assert_eq!(sessions.start().sign_in("mallory").unwrap_err().kind(), ErrorKind::Refused);
}

#[test]
fn a_missing_or_changed_epoch_file_is_noticed() {
    let store = Store::new();
    let epoch = file(&store.directory, "epoch");
    let missing = store.directory.copy();
    missing.remove("epoch");
    let error = store.refused(&missing, ErrorKind::Corrupt);
    assert!(error.to_string().contains("`epoch`") && error.to_string().contains("put it back"), "{error}");
    let replaced = |bytes: &[u8]| {
        let copy = store.directory.copy();
        copy.overwrite("epoch", |file| *file = bytes.to_vec());
        copy
    };
    for at in 0..48 {
        let change = |blocks: &[usize]| {
            let mut changed = epoch.clone();
            blocks.iter().for_each(|block| changed[block * 4096 + at] ^= 1 << (at % 8));
            replaced(&changed)
        };
        let error = store.refused(&change(&[0, 1]), ErrorKind::Corrupt);
        assert!(error.to_string().contains("`epoch`"), "{error}");
        store.refused(&replaced(&epoch[..at]), ErrorKind::Corrupt);
        // One of the two may have been on its way when the power failed.
        for block in [0, 1] {
            let torn = change(&[block]);
            assert_eq!(store.opened(&torn.open(&store.options).unwrap()), [OPENS; 3], "byte {at} of block {block}");
            torn.restore_power();
            assert_eq!(store.opened(&torn.open(&store.options).unwrap()), [OPENS; 3], "byte {at} of block {block}");
        }
    }
    let other = Directory::new(2);
    other.open(&store.options).unwrap().close().unwrap();
    store.refused(&replaced(&file(&other, "epoch")), ErrorKind::Corrupt);
    store.refused(&replaced(&[epoch, vec![0]].concat()), ErrorKind::Corrupt);
}

#[test]
fn a_store_that_vanished_is_not_made_again() {
    let store = Store::new();
    for with_key in [true, false] {
        let gone = store.directory.copy();
        gone.remove(NAME);
        if !with_key {
            gone.remove("server.key");
        }
        let error = store.refused(&gone, ErrorKind::Corrupt);
        assert!(error.to_string().contains("`store.redb` is missing"), "{error}");
    }
}

#[test]
fn a_planted_successor_opens_nothing() {
    const OTHER: std::ops::Range<usize> = 56..72;
    const OVERLAP: std::ops::Range<usize> = 72..76;
    let store = Store::new();
    let headers = store.records(Table::Sessions);
    // Bob's token as the successor of one of Ada's, or as the one before, and the other way round.
    for (row, planted) in [(1, 3), (3, 1), (1, 2)] {
        for overlap in [0, u32::MAX] {
            let mut header = headers[&row].clone();
            header[OTHER].copy_from_slice(&headers[&planted][FINGERPRINT]);
            header[OVERLAP].copy_from_slice(&overlap.to_le_bytes());
            let sessions = store.with(Table::Sessions, row, Some(&header)).open(&store.options).unwrap();
            assert_eq!(sessions.stats().refused_rows, 1);
            let opened = store.opened(&sessions);
            let expected: Vec<_> = (1..=3).map(|other| if other == row { None } else { OPENS }).collect();
            assert_eq!(opened, expected, "token {planted} at row {row}, overlap {overlap}");
        }
    }
}

#[test]
fn an_offer_that_was_changed_on_disk_is_refused_whole() {
    let (options, clock) = manual();
    let options = options.rotate_every(std::time::Duration::from_secs(60));
    let directory = Directory::new(1);
    let sessions = directory.open(&options).unwrap();
    let mut tokens = Vec::new();
    for who in ["ada", "bob"] {
        let first = sign_in(&sessions, who);
        clock.advance(std::time::Duration::from_secs(60));
        sessions.load(&first).unwrap().unwrap();
        clock.advance(std::time::Duration::from_secs(1));
        sessions.run_pending();
        let second = sessions.load(&first).unwrap().unwrap().token().unwrap();
        tokens.push([first, second]);
    }
    sessions.close().unwrap();
    let files = directory.contents();
    let file = &files.iter().find(|(name, _)| name == NAME).unwrap().1;
    let (headers, bodies) = (read(file, Table::Sessions), read(file, Table::Bodies));
    let with = |header: &[u8], body: &[u8]| {
        let copy = directory.copy();
        copy.overwrite(NAME, |file| {
            write(file, Table::Sessions, 1, Some(header));
            write(file, Table::Bodies, 1, Some(body));
        });
        copy.open(&options).unwrap()
    };
    let both = |sessions: &Sessions, at: usize| {
        tokens[at].each_ref().map(|token| sessions.load(token).map(|found| found.is_some()))
    };
    assert!(both(&with(&headers[&1], &bodies[&1]), 0).into_iter().all(|found| matches!(found, Ok(true))));
    for change in 40..76 {
        let mut header = headers[&1].clone();
        header[change] ^= 1;
        let sessions = with(&header, &bodies[&1]);
        assert_eq!(sessions.stats().refused_rows, 1, "byte {change}");
        assert!(both(&sessions, 0).into_iter().all(|found| matches!(found, Ok(false))), "byte {change}");
        assert!(both(&sessions, 1).into_iter().all(|found| matches!(found, Ok(true))), "byte {change}");
    }
    // Another's wraps in place of its own, the two swapped, and one missing.
    let (head, rest) = bodies[&1].split_at(2);
    let (wraps, rest) = rest.split_at(96);
    let foreign = [head, &bodies[&2][2..98], rest].concat();
    let swapped = [head, &wraps[48..], &wraps[..48], rest].concat();
    let missing = [&head[..1], &[1], &wraps[..48], rest].concat();
    for body in [foreign, swapped, missing] {
        for token in &tokens[0] {
            let refused = with(&headers[&1], &body).load(token).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Corrupt, "{refused:#}");
        }
    }
}
