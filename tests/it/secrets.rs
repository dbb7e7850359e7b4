//! What must not be found: tokens and plaintext in the files, secrets in texts, a store that opens without its key,
//! a nonce that is used twice.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use dwell::sim::Directory;
use dwell::{ErrorKind, Field, Options, Sessions, SignIn, Token};

use crate::support::journal_file::{self, JOURNAL};
use crate::support::store_file::{NAME, Table};
use crate::support::{manual, sign_in, whose};

const SECRET: &str = "correct horse battery staple";
const WHO: &str = "ada.lovelace@example.org";
const DEVICE: &str = "Netscape Navigator on a Difference Engine";
const ADDRESS: &str = "203.0.113.77";
const DATA: Field<String> = Field::new("data").keep_on_sign_in();
#[cfg(feature = "json")]
const JSON: Field<Vec<String>> = Field::new("json").json();

/// The 32 bytes in a token's text.
fn raw(token: &Token) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let text = token.expose();
    let sextets = text[8..51].bytes().map(|byte| ALPHABET.iter().position(|known| *known == byte).unwrap());
    let (mut bits, mut held, mut bytes) = (0_usize, 0, Vec::new());
    for sextet in sextets {
        (bits, held) = (bits << 6 | sextet, held + 6);
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held & 0xFF).unwrap());
        }
    }
    assert_eq!(bytes.len(), 32);
    bytes
}

/// Everything that must not be in the files, with a name for it.
fn forbidden(tokens: &[Token]) -> Vec<(&'static str, Vec<u8>)> {
    let mut all: Vec<(&str, Vec<u8>)> = [("data", SECRET), ("name", WHO), ("device", DEVICE), ("address", ADDRESS)]
        .map(|(what, text)| (what, text.as_bytes().to_vec()))
        .into();
    for token in tokens {
        all.push(("token", token.expose().into_bytes()));
        all.push(("token without its ends", token.expose()[8..51].into()));
        all.push(("bytes of a token", raw(token)));
        all.push(("half of a token", raw(token)[..16].to_vec()));
    }
    all
}

fn found(files: &[(String, Vec<u8>)], tokens: &[Token]) -> Option<String> {
    let forbidden = forbidden(tokens);
    let holds = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).any(|window| window == what);
    files.iter().find_map(|(name, bytes)| {
        let (what, _) = forbidden.iter().find(|(_, what)| holds(bytes, what))?;
        Some(format!("{what} in {name}"))
    })
}

#[test]
fn the_scanner_finds_what_it_looks_for() {
    let (options, _clock) = manual();
    let token = sign_in(&options.in_memory().unwrap(), "ada");
    for (what, bytes) in forbidden(std::slice::from_ref(&token)) {
        let file = [vec![7; 100], bytes, vec![7; 100]].concat();
        assert!(found(&[("file".into(), file)], std::slice::from_ref(&token)).unwrap().contains(what));
    }
}

#[test]
fn the_files_hold_no_token_and_no_plaintext() {
    let (options, clock) = manual();
    let directory = Directory::new(1);
    let mut tokens = Vec::new();
    let clean = |when: &str, tokens: &[Token]| assert_eq!(found(&directory.contents(), tokens), None, "{when}");
    for life in 0..3 {
        let sessions = directory.open(&options).unwrap();
        let session = sessions.start();
        for round in 0..20 {
            // Longer than a page at times, and of different lengths, so that free pages keep remains.
            session.set(DATA, &SECRET.repeat(1 + round * 37 % 200)).unwrap();
            #[cfg(feature = "json")]
            session.set(JSON, &vec![SECRET.to_owned()]).unwrap();
            session.save().unwrap().blocking_wait().unwrap();
        }
        tokens.push(session.token().unwrap());
        clean("written", &tokens);
        let who = SignIn::new(WHO).device(DEVICE).address(ADDRESS);
        tokens.push(session.sign_in(who.clone()).unwrap().blocking_wait().unwrap());
        tokens.push(session.rotate().unwrap().blocking_wait().unwrap());
        clean("signed in and rotated", &tokens);
        for _ in 0..8 {
            let other = sessions.start();
            tokens.push(other.sign_in(who.clone()).unwrap().blocking_wait().unwrap());
            other.set(DATA, SECRET).unwrap();
        }
        clock.advance(Duration::from_secs(2));
        sessions.run_pending();
        clean("written behind", &tokens);
        assert_eq!(sessions.of(WHO).unwrap().last().unwrap().device, DEVICE);
        session.destroy().unwrap().blocking_wait().unwrap();
        clean("signed out", &tokens);
        sessions.revoke_all(WHO).unwrap().blocking_wait().unwrap();
        clock.advance(Duration::from_secs(2));
        sessions.run_pending();
        clean("signed out everywhere", &tokens);
        tokens.push(sessions.start().sign_in(who).unwrap().blocking_wait().unwrap());
        if life == 1 {
            directory.restore_power();
        } else {
            sessions.close().unwrap();
        }
        clean("closed", &tokens);
    }
    assert_eq!(tokens.len(), 36);
}

#[test]
fn no_text_of_ours_shows_a_secret() {
    let (options, _clock) = manual();
    let directory = Directory::new(2);
    let sessions = directory.open(&options.clone().session_bytes_max(2000)).unwrap();
    let session = sessions.start();
    session.set(DATA, SECRET).unwrap();
    let mut tokens = vec![session.token().unwrap()];
    let receipt = session.sign_in(WHO).unwrap();
    let mut texts = vec![format!("{receipt:?}")];
    tokens.push(receipt.blocking_wait().unwrap());
    let view = Field::<u8>::new("data").version(2).migrate(|old| {
        assert!(!format!("{old:?}").contains(SECRET));
        None
    });
    texts.push(format!("{:?}", session.get(view)));
    let errors = [
        session.set(DATA, &SECRET.repeat(500)).unwrap_err(),
        session.get(Field::<u8>::new("data").strict()).unwrap_err(),
        session.get(Field::<u8>::new("data").version(2).strict()).unwrap_err(),
        session.update(Field::<Vec<String>>::new("data").strict(), |_| ()).unwrap_err(),
        session.with(Field::<u8>::new("data").strict(), |_| ()).unwrap_err(),
        sessions.start().sign_in("x".repeat(300)).unwrap_err(),
        sessions.start().rotate().unwrap_err(),
        sessions.start().reauthenticate(1).unwrap_err(),
        {
            sessions.disable("eve").unwrap().blocking_wait().unwrap();
            sessions.start().sign_in("eve").unwrap_err()
        },
    ];
    texts.extend(errors.iter().flat_map(|error| [format!("{error:#}"), format!("{error:?}"), format!("{error}")]));
    texts.push(format!("{:?} {:?} {:?}", sessions, session, tokens));
    texts.push(format!("{:?} {:?} {DATA:?}", sessions.of(WHO).unwrap(), sessions.stats()));
    texts.push(format!("{:?} {directory:?} {options:?} {}", session.id(), session.id().unwrap()));
    texts.push(format!("{:?} {:?}", session.class(), session.created()));
    tokens.push(session.rotate().unwrap().blocking_wait().unwrap());
    let gone = session.clone();
    session.destroy().unwrap().blocking_wait().unwrap();
    texts.push(format!("{:?} {:?}", gone.get(DATA), gone.save()));
    directory.cut_power_at(0);
    let broken = sessions.start();
    broken.set(DATA, SECRET).unwrap();
    texts.push(format!("{:?}", broken.save().unwrap().blocking_wait().unwrap_err()));
    texts.push(format!("{:?} {:?}", broken.save(), sessions.stats().trouble));
    texts.push(format!("{:?}", sessions.close()));
    for text in &texts {
        assert!(!text.contains(SECRET), "{text}");
        assert!(tokens.iter().all(|token| !text.contains(&token.expose()[8..51])), "{text}");
        let bytes = |token: &Token| format!("{:?}", &raw(token)[..8]).trim_matches(['[', ']']).to_owned();
        assert!(tokens.iter().all(|token| !text.contains(&bytes(token))), "{text}");
    }
    assert!(texts.len() > 30);
}

#[test]
fn a_store_opens_only_with_its_key_file() {
    let (options, _clock) = manual();
    let (directory, other) = (Directory::new(3), Directory::new(4));
    let sessions = directory.open(&options).unwrap();
    let token = sign_in(&sessions, "ada");
    sessions.close().unwrap();
    other.open(&options).unwrap().close().unwrap();
    let key_of =
        |directory: &Directory| directory.contents().into_iter().find(|(name, _)| name == "server.key").unwrap().1;
    let refused = |change: &dyn Fn(&Directory), word: &str| {
        let copy = directory.copy();
        change(&copy);
        let before = copy.contents();
        let error = copy.open(&options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Key, "{error:#}");
        assert!(error.to_string().contains("server.key") && error.to_string().contains(word), "{error}");
        assert!(copy.contents() == before, "a refusal changed the files");
    };
    refused(&|copy| copy.remove("server.key"), "missing");
    refused(&|copy| copy.overwrite("server.key", |key| *key = key_of(&other)), "another store");
    refused(&|copy| copy.overwrite("server.key", Vec::clear), "damaged");
    refused(&|copy| copy.overwrite("server.key", |key| key.truncate(100)), "damaged");
    refused(&|copy| copy.overwrite("server.key", |key| key.resize(100_000, b' ')), "damaged");
    // Their store id and our key, or the other way round: the check covers both.
    for line in [1, 2] {
        refused(
            &|copy| {
                copy.overwrite("server.key", |key| {
                    let (ours, theirs) = (String::from_utf8(key.clone()).unwrap(), key_of(&other));
                    let theirs = String::from_utf8(theirs).unwrap();
                    let pick = |(at, line_of): (usize, (&str, &str))| {
                        if at == line { line_of.1 } else { line_of.0 }.to_owned()
                    };
                    let lines: Vec<String> = ours.lines().zip(theirs.lines()).enumerate().map(pick).collect();
                    *key = (lines.join("\n") + "\n").into_bytes();
                });
            },
            "damaged",
        );
    }
    assert_eq!(whose(&directory.copy().open(&options).unwrap(), &token).as_deref(), Some("ada"));
}

/// The nonce of a session's data: behind version, number of wraps, one wrap, and the facts with their length.
fn nonce_of_data(body: &[u8]) -> Vec<u8> {
    let facts = usize::from(u16::from_le_bytes([body[50], body[51]]));
    body[52 + facts..][..24].to_vec()
}

#[test]
fn rewriting_the_same_data_never_repeats_a_nonce() {
    let home = tempfile::tempdir().unwrap();
    let (path, copy) = (home.path().join("store"), home.path().join("copy"));
    let open = |path: &Path| -> Sessions { Options::new().open(path).unwrap() };
    let sessions = open(&path);
    let token = sign_in(&sessions, "ada");
    let mut nonces = BTreeSet::new();
    let mut rewrite = |sessions: Sessions, path: &Path, count: usize| {
        for _ in 0..count {
            let session = sessions.load(&token).unwrap().unwrap();
            session.set(DATA, SECRET).unwrap();
            session.save().unwrap().blocking_wait().unwrap();
            let files = [NAME, JOURNAL].map(|name| (name.to_owned(), std::fs::read(path.join(name)).unwrap()));
            let bodies = journal_file::read(&files, Table::Bodies);
            assert_eq!(bodies.len(), 1);
            assert!(nonces.insert(nonce_of_data(bodies.values().next().unwrap())), "a nonce came again");
        }
        sessions.close().unwrap();
    };
    rewrite(sessions, &path, 20);
    // A copy of the store goes on from the same state, and makes other nonces.
    std::fs::create_dir(&copy).unwrap();
    for entry in std::fs::read_dir(&path).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    #[cfg(unix)]
    std::fs::set_permissions(&copy, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    rewrite(open(&path), &path, 20);
    rewrite(open(&copy), &copy, 20);
    assert_eq!(nonces.len(), 60);
}
